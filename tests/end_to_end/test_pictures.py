"""The pictures of the README, made anew: `HPCLAB_SCREENSHOTS=FOLDER pytest tests/end_to_end/test_pictures.py`."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import dask.array as da
import pytest
from harness import Home
from jupyterlab_page import NotebookPage
from panel_page import PLOTS_MOVE, PanelPage
from playwright.sync_api import Page, expect
from test_notebook import CONNECT, IS_PAINTED
from waiting import until

FOLDER = os.environ.get("HPCLAB_SCREENSHOTS", "")

pytestmark = pytest.mark.skipif(not FOLDER, reason="pictures are only made when $HPCLAB_SCREENSHOTS names a folder")

SUMS = "import dask.array as da\nx = da.random.random((10_000, 10_000), chunks=1_000)\nx.mean(axis=0).persist()"


def test_panel(a_home: Callable[..., Home], a_browser_page: Page) -> None:
    """In both themes: workers that run, two that wait, Dask's plots beside the notebook."""
    # slots for the main job's two processes and three workers
    session, page = a_home(local_slots="5").start("--name", "calm-otter"), a_browser_page
    for _ in range(3):
        session.add_worker()
    session.home.ok("add-worker", "-n", "2")
    notebook = NotebookPage.open(
        page, session.printed["jupyter_url"], session.home.notebooks, CONNECT, SUMS, name="analysis.ipynb"
    )
    notebook.run(0)
    notebook.run(1)
    panel = PanelPage(page)
    panel.notification("plots are at hand").get_by_role("button", name="Open them").click()
    panel.show()
    page.locator(".lm-TabBar-tab", has_text="Launcher").locator(".lm-TabBar-tabCloseIcon").click()
    with session.client() as client:
        x = client.persist(da.random.random((10_000, 10_000), chunks=(1_000, 1_000)))
        y = [client.persist((x @ x.T).sum(axis=0)), client.persist((x.T @ x).sum(axis=1))]
        page.keyboard.press("Control+s")
        expect(page.locator(".Toastify__toast")).to_have_count(0, timeout=30_000)
        for theme in ("Light", "Dark"):
            panel.theme(f"JupyterLab {theme}")
            page.mouse.move(640, 795)
            # a new theme loads them anew
            frame = next(frame for frame in page.frames if "task-stream" in frame.url)
            frame.wait_for_function(PLOTS_MOVE, arg=300, timeout=120_000)
            for each in page.frames[1:]:
                until(lambda each=each: each.locator("canvas").first.evaluate(IS_PAINTED), what="the plots")
            keep(page, f"panel-{theme.lower()}")
        client.cancel([x, *y])


def keep(page: Page, name: str) -> None:
    Path(FOLDER).mkdir(parents=True, exist_ok=True)
    page.screenshot(path=Path(FOLDER) / f"{name}.png")
