"""The session panel in a real JupyterLab and a real browser, with the mouse, on this machine's own batch system."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from harness import Home, Session
from panel_page import PLOTS_MOVE, PanelPage
from playwright.sync_api import Page, expect
from waiting import until

JOINS_WITHIN_MS = 60_000
FILES = '"current":"filebrowser"'
PANES = '"widgets":["dask-dashboard-launcher:/individual-progress"]'
"""In saved layouts."""


@pytest.fixture
def a_panel(a_running_session: Session, a_browser_page: Page) -> PanelPage:
    return PanelPage.open(a_browser_page, a_running_session.printed["jupyter_url"])


def test_at_the_first_visit_it_is_open_and_then_as_it_was_left(
    a_home: Callable[..., Home], a_browser_page: Page
) -> None:
    page, session = a_browser_page, a_home().start()
    page.goto(session.printed["jupyter_url"])
    panel = PanelPage(page)
    expect(panel.title).to_have_text(session.name)
    page.locator("#jupyterlab-splash").wait_for(state="detached")
    page.locator(".jp-SideBar [data-id=filebrowser]").click()
    expect(panel.region).to_be_hidden()
    workspaces = session.home.path / "jupyter/workspaces"
    until(lambda: any(FILES in f.read_text() for f in workspaces.glob("*")), what="the layout to be saved")
    page.reload()
    expect(panel.status_bar).to_be_visible()
    page.locator("#jupyterlab-splash").wait_for(state="detached")
    expect(page.locator("#filebrowser")).to_be_visible()
    expect(panel.region).to_be_hidden()


def test_the_panel_shows_the_session(a_running_session: Session, a_panel: PanelPage) -> None:
    expect(a_panel.title).to_have_text(a_running_session.name)
    expect(a_panel.state).to_contain_text("running")
    expect(a_panel.row(a_running_session.main_job)).to_contain_text("1 core")
    expect(a_panel.time_left).to_contain_text("left")
    expect(a_panel.time_left.get_by_role("progressbar")).to_have_attribute("aria-valuetext", re.compile("left of 2 h"))
    expect(a_panel.status_bar).to_contain_text("1 worker")


def test_workers_come_and_go_with_the_mouse(a_running_session: Session, a_panel: PanelPage) -> None:
    expect(a_panel.sum("workers")).to_have_text("1")
    added = a_panel.add_workers(2, walltime="30m")
    assert len(added) == 2
    expect(a_panel.notification("submitted")).to_be_visible()
    for job_id in added:
        expect(a_panel.state_of(job_id)).to_have_text(re.compile("queued|running|starting|joined"))
    for job_id in added:
        expect(a_panel.state_of(job_id)).to_have_text("joined", timeout=JOINS_WITHIN_MS)
    expect(a_panel.sum("workers")).to_have_text("3")
    expect(a_panel.row(added[0])).to_contain_text(re.compile("CPU"))
    assert {a_running_session.job(job_id)["walltime_s"] for job_id in added} == {1800}
    a_panel.scale(2)
    expect(a_panel.sum("workers")).to_have_text("2", timeout=JOINS_WITHIN_MS)
    (left,) = [job_id for job_id in added if a_running_session.job(job_id)["state"] == "running"]
    a_panel.act(left, "Retire")
    expect(a_panel.sum("workers")).to_have_text("1", timeout=JOINS_WITHIN_MS)
    until(lambda: a_running_session.job(left)["state"] in ("done", "cancelled"), what="the job to be over")


def test_a_double_click_submits_once(a_running_session: Session, a_panel: PanelPage) -> None:
    before = {job["id"] for job in a_running_session.status()["jobs"]}
    a_panel.press("Add worker")
    a_panel.dialog.get_by_role("button", name="Add", exact=True).dblclick()
    expect(a_panel.notification("submitted")).to_be_visible()
    expect(a_panel.dialog).to_have_count(0)
    expect(a_panel.sum("workers")).to_have_text("2", timeout=JOINS_WITHIN_MS)
    (added,) = {job["id"] for job in a_running_session.status()["jobs"]} - before
    a_panel.act(added, "Retire")
    expect(a_panel.sum("workers")).to_have_text("1", timeout=JOINS_WITHIN_MS)


def test_what_makes_no_sense_is_told_and_submits_nothing(a_running_session: Session, a_panel: PanelPage) -> None:
    before = len(a_running_session.status()["jobs"])
    a_panel.open_form()
    a_panel.dialog.get_by_label("Memory").fill("much <b>more</b>")
    a_panel.dialog.get_by_role("button", name="Add", exact=True).click()
    # as it was typed, and not as HTML; and to be typed right without all the rest
    expect(a_panel.dialog.get_by_role("alert")).to_contain_text("much <b>more</b>")
    expect(a_panel.dialog.get_by_label("Memory")).to_have_value("much <b>more</b>")
    a_panel.dialog.get_by_role("button", name="Cancel").click()
    assert len(a_running_session.status()["jobs"]) == before


def test_a_jobs_story_and_its_log_open_in_tabs(a_running_session: Session, a_panel: PanelPage) -> None:
    log = a_running_session.folder / "logs" / f"{a_running_session.main_job}.log"
    with log.open("a") as file:
        file.write("<img src=x onerror=\"document.title='it ran'\"> is only a line\n")
    a_panel.act(a_running_session.main_job, "Log")
    expect(a_panel.tab("log")).to_contain_text("<img src=x onerror=")
    assert "it ran" not in a_panel.page.title()
    a_panel.act(a_running_session.main_job, "Why")
    expect(a_panel.tab("why")).to_contain_text("JupyterLab up")
    a_panel.close_tabs()


def test_dasks_own_sidebar_is_connected_and_its_panes_move(a_running_session: Session, a_panel: PanelPage) -> None:
    page = a_panel.page
    a_panel.show_dask()
    expect(a_panel.dask_url).to_have_value(re.compile("/proxy/hpclab/"))
    frame = a_panel.open_pane("Task Stream")
    assert "/proxy/hpclab/individual-task-stream" in frame.url
    frame.locator("canvas").first.wait_for()
    with a_running_session.client() as client:
        assert sum(client.gather(client.map(lambda x: x, range(100), pure=False))) == 4950
        frame.wait_for_function(PLOTS_MOVE, arg=100)
    # the session itself is in its list of clusters, by name
    expect(page.locator(".dask-ClusterListingItem-title", has_text=a_running_session.name)).to_be_visible()
    a_panel.close_tabs()


def test_the_plots_are_offered_once(a_home: Callable[..., Home], a_browser_page: Page) -> None:
    session = a_home().start()
    panel = PanelPage.open(a_browser_page, session.printed["jupyter_url"])
    offer = panel.notification("plots are at hand")
    offer.get_by_role("button", name="Open them").click()
    expect(panel.page.locator(".dask-DaskDashboard-widget iframe")).to_have_count(3, timeout=30_000)
    workspaces = session.home.path / "jupyter/workspaces"
    until(lambda: any(PANES in f.read_text() for f in workspaces.glob("*")), what="the layout to be saved")
    panel.page.reload()
    panel.show()
    expect(panel.status_bar).to_be_visible()
    expect(panel.page.locator(".dask-DaskDashboard-widget iframe")).to_have_count(3, timeout=30_000)
    expect(offer).to_have_count(0)


def test_before_the_walltime_is_over_everybody_is_warned(a_home: Callable[..., Home], a_browser_page: Page) -> None:
    session = a_home(walltime="0:02:20").start()
    panel = PanelPage.open(a_browser_page, session.printed["jupyter_url"])
    expect(panel.time_left).to_have_attribute("data-colour", "amber")
    expect(panel.notification("Save your notebooks")).to_be_visible()
    # one notebook that is not saved
    panel.page.locator(".jp-LauncherCard", has_text="Python 3").first.click()
    cell = panel.page.locator(".jp-NotebookPanel:visible .jp-Cell .cm-content").first
    cell.click()
    panel.page.keyboard.type("precious = 42")
    last = panel.notification("What is not saved then is lost")
    expect(last).to_be_visible(timeout=90_000)
    expect(panel.time_left).to_have_attribute("data-colour", "red")
    last.get_by_role("button", name="Save all").click()
    until(
        lambda: any("precious = 42" in path.read_text() for path in session.home.notebooks.glob("*.ipynb")),
        what="the notebook to be saved",
    )


def test_the_session_ends_by_the_panel(a_home: Callable[..., Home], a_browser_page: Page) -> None:
    home = a_home()
    session = home.start()
    worker = session.add_worker()
    panel = PanelPage.open(a_browser_page, session.printed["jupyter_url"])
    panel.press("Stop session…")
    expect(panel.dialog).to_contain_text(f"the main job {session.main_job}")
    expect(panel.dialog).to_contain_text("one worker job")
    panel.dialog.get_by_role("button", name="Cancel").click()
    assert session.job(worker)["state"] == "running"
    panel.stop()
    until(lambda: session.status()["state"] == "ended", what="the end of the session")
    expect(panel.strip).to_contain_text("server ends with it")
    home.check_nothing_is_left()


def test_two_tabs_show_the_same(a_running_session: Session, a_panel: PanelPage) -> None:
    other = PanelPage.open(a_panel.page.context.new_page(), a_running_session.printed["jupyter_url"])
    (added,) = a_panel.add_workers(1)
    expect(other.state_of(added)).to_have_text("joined", timeout=JOINS_WITHIN_MS)
    expect(a_panel.state_of(added)).to_have_text("joined", timeout=JOINS_WITHIN_MS)
    other.act(added, "Retire")
    for panel in (a_panel, other):
        expect(panel.sum("workers")).to_have_text("1", timeout=JOINS_WITHIN_MS)
