"""hpclab in JupyterLab, used as a person would: the session panel, its dialogs, the tabs of a job, Dask's panes."""

from __future__ import annotations

import re
from dataclasses import dataclass

from playwright.sync_api import Frame, Locator, Page, expect

PLOTS_MOVE = """least => Object.values(window.Bokeh?.documents ?? []).some(document =>
    [...document._all_models.values()].some(
        model => model.type == "ColumnDataSource" && (model.data.duration || []).length >= least))"""


@dataclass(frozen=True)
class PanelPage:
    """The panel on the left of a page that shows JupyterLab."""

    page: Page

    @staticmethod
    def open(page: Page, url: str) -> PanelPage:
        page.goto(url)
        panel = PanelPage(page)
        panel.show()
        return panel

    def show(self) -> None:
        """As it stands at a first visit, or by its icon at the left edge."""
        # it is put back as it was before, only then does it count what is open
        self.page.locator("#jp-main-dock-panel").wait_for()
        self.page.locator("#jupyterlab-splash").wait_for(state="detached")
        if not self.region.is_visible():
            self.page.locator(".jp-SideBar.jp-mod-left [data-id=hpclab-panel]").click()
        self.title.wait_for()

    @property
    def region(self) -> Locator:
        return self.page.get_by_role("region", name="Session on the cluster")

    @property
    def title(self) -> Locator:
        """The session's name, or that there is none."""
        return self.region.locator(".hpclab-Title")

    @property
    def state(self) -> Locator:
        return self.region.locator(".hpclab-Header-state")

    @property
    def time_left(self) -> Locator:
        return self.region.locator(".hpclab-TimeLeft")

    @property
    def strip(self) -> Locator:
        """What the server says beside the session, or that it does not answer."""
        return self.region.locator(".hpclab-Strip")

    @property
    def rows(self) -> Locator:
        return self.region.locator(".hpclab-Row")

    def row(self, job_id: str) -> Locator:
        return self.rows.filter(has=self.page.locator(".hpclab-Row-name", has_text=re.compile(rf"job {job_id}$")))

    def state_of(self, job_id: str) -> Locator:
        return self.row(job_id).locator(".hpclab-Row-state")

    def sum(self, word: str) -> Locator:
        return self.region.locator(".hpclab-Sums div").filter(has=self.page.get_by_text(word, exact=True)).locator("dd")

    @property
    def status_bar(self) -> Locator:
        return self.page.locator("#jp-main-statusbar").get_by_role("button", name=re.compile("worker"))

    @property
    def dialog(self) -> Locator:
        return self.page.locator(".jp-Dialog-content")

    def notification(self, words: str | re.Pattern[str]) -> Locator:
        return self.page.locator(".jp-Notification-List-Item, .Toastify__toast", has_text=words).first

    def press(self, name: str) -> None:
        self.region.get_by_role("button", name=name, exact=True).click()

    def open_form(self) -> None:
        """For new workers. A dialog takes the focus when it is there: what is typed before that goes astray."""
        self.press("Add worker")
        expect(self.dialog.get_by_label("Jobs")).to_be_focused()

    def add_workers(self, count: int, **fields: str) -> list[str]:
        """By the form, with what it shows but for the count and the fields that are named; the new jobs' ids."""
        self.open_form()
        self.dialog.get_by_label("Jobs").fill(str(count))
        for word, value in fields.items():
            self.dialog.get_by_label(word.capitalize()).fill(value)
        with self.page.expect_response(re.compile(r"/hpclab/workers(\?|$)")) as told:
            self.dialog.get_by_role("button", name="Add", exact=True).click()
        assert told.value.status == 201, told.value.text()
        return list(told.value.json()["jobs"])

    def scale(self, workers: int) -> None:
        self.press("Scale…")
        self.dialog.get_by_label("Workers").fill(str(workers))
        self.dialog.get_by_role("button", name="Scale", exact=True).click()

    def act(self, job_id: str, action: str) -> None:
        """By the buttons of a job's row, which show under the mouse: `Why`, `Log` or `Retire`."""
        self.row(job_id).hover()
        self.row(job_id).get_by_role("button", name=re.compile(rf"^{action}\b")).click()

    def tab(self, label: str) -> Locator:
        """The content of a tab in the main area, once it is in front."""
        self.page.locator("#jp-main-dock-panel .lm-TabBar-tab.jp-mod-current", has_text=label).first.wait_for()
        return self.page.locator(".hpclab-Tab:visible")

    def close_tabs(self) -> None:
        while (closers := self.page.locator("#jp-main-dock-panel .lm-TabBar-tabCloseIcon")).count() > 1:
            closers.last.click()

    def stop(self) -> None:
        self.press("Stop session…")
        self.dialog.get_by_role("button", name="Stop session", exact=True).click()

    # dask-labextension

    def show_dask(self) -> None:
        self.page.locator(".jp-SideBar.jp-mod-left [data-id=dask-dashboard-launcher]").click()

    @property
    def dask_url(self) -> Locator:
        return self.page.locator(".dask-URLInput input")

    def open_pane(self, label: str) -> Frame:
        """One of Dask's plots, in a tab."""
        self.page.locator(".dask-DashboardListing-item button", has_text=re.compile(rf"^{label}$")).click()
        pane = self.page.locator(".dask-DaskDashboard-widget iframe:visible[src]").first.element_handle()
        frame = pane.content_frame()
        assert frame
        frame.wait_for_url(lambda url: url.startswith("http"))
        return frame

    def theme(self, name: str) -> None:
        """`JupyterLab Light` or `JupyterLab Dark`, as by the menu."""
        self.page.locator(".lm-MenuBar-itemLabel", has_text="Settings").click()
        for label in ("Theme", name):
            self.page.locator(".lm-Menu-itemLabel", has_text=re.compile(rf"^{label}$")).click()
        dark = str("Dark" not in name).lower()
        expect(self.page.locator("body")).to_have_attribute("data-jp-theme-light", dark)
