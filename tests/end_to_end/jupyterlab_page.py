"""A notebook in JupyterLab, used as a person would: through the page."""

from __future__ import annotations

import json
import re
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

from playwright.sync_api import Locator, Page, TimeoutError
from waiting import until


class NotebookPage:
    """An open notebook; cells are counted from 0."""

    def __init__(self, page: Page) -> None:
        self._page = page

    @staticmethod
    def open(page: Page, url: str, folder: Path, *sources: str, name: str = "") -> NotebookPage:
        """Write the notebook into the folder that JupyterLab shows, open the printed link, and the notebook in it."""
        name = name or f"{uuid4().hex[:8]}.ipynb"
        (folder / name).write_text(json.dumps(_notebook(sources)))
        page.goto(url)
        page.locator("#jupyterlab-splash").wait_for(state="detached")
        notebook = NotebookPage(page)
        notebook._show(name)
        notebook._cell(len(sources) - 1).wait_for()
        notebook._panel.locator(".jp-Notebook-ExecutionIndicator[data-status='idle']").wait_for()
        return notebook

    @property
    def _panel(self) -> Locator:
        return self._page.locator(".jp-NotebookPanel:visible")

    def _show(self, name: str, attempts: int = 5) -> None:
        """By the file browser. At a first visit the session's panel takes its place, maybe just now."""
        item = self._page.locator(f".jp-DirListing-item[title^='Name: {name}']")
        # beside it there may be the notebooks of an earlier visit
        tab = self._page.locator(f".lm-TabBar-tab.jp-mod-current[title^='Name: {name}']")
        for _ in range(attempts):
            if not self._page.locator("#filebrowser").is_visible():
                self._page.locator(".jp-SideBar [data-id=filebrowser]").click()
            with suppress(TimeoutError):
                item.dblclick(timeout=5_000)
                tab.wait_for(timeout=10_000)
                return
        raise AssertionError(f"{name} does not open")

    def run(self, index: int, timeout_s: float = 60) -> str:
        """Run one cell with Ctrl-Enter; the text of its output."""
        cell = self._cell(index)
        before = self._prompt(cell)
        self._begin(cell, before)
        until(lambda: re.fullmatch(r"\[\d+\]:", self._prompt(cell)), within_s=timeout_s, what=f"cell {index} to end")
        return cell.locator(".jp-OutputArea-output").all_inner_texts()[-1].strip()

    def _begin(self, cell: Locator, before: str, attempts: int = 5) -> None:
        """JupyterLab may take the focus away while it still lays out its page; a person would press again."""
        for _ in range(attempts):
            dialogs = self._page.locator(".jp-Dialog").all_inner_texts()
            assert dialogs == [], "a dialog is in the way"
            cell.locator(".cm-content").click()
            self._page.keyboard.press("Control+Enter")
            with suppress(AssertionError):
                until(lambda: self._prompt(cell) != before, within_s=3, what="the cell to begin")
                return
        raise AssertionError("the cell does not begin to run")

    def _cell(self, index: int) -> Locator:
        return self._panel.locator(".jp-Notebook .jp-Cell").nth(index)

    def _prompt(self, cell: Locator) -> str:
        return cell.locator(".jp-InputPrompt").inner_text().strip()


def _notebook(sources: tuple[str, ...]) -> dict[str, object]:
    cell = {"cell_type": "code", "execution_count": None, "metadata": {}, "outputs": []}
    return {
        "cells": [{**cell, "id": uuid4().hex[:8], "source": source} for source in sources],
        "metadata": {"kernelspec": {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}},
        "nbformat": 4,
        "nbformat_minor": 5,
    }
