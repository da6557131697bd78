"""The server extension in a real session: what JupyterLab's panel asks for, and Dask's dashboard within JupyterLab."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests
from harness import Home, Session
from jupyterlab_page import NotebookPage
from playwright.sync_api import Page, WebSocket
from waiting import until

FINAL = ("done", "failed", "cancelled")
# Dask's own page names it one folder too high; without it the table is not sorted by a click
DASKS_MISTAKE = "/proxy/statics/js/sortable.min.js"
LINK = "from dask.distributed import Client\n\nClient().dashboard_link"
# in the page: the plots' data comes by the websocket
TASKS_ARE_SHOWN = """least => Bokeh.documents[0]._all_models.values().some(
    model => model.type == "ColumnDataSource" && (model.data.duration || []).length >= least)"""
PLOTS = "() => Bokeh.documents.length && document.querySelectorAll('.bk-root, [data-root-id]').length"


class Server:
    """JupyterLab's server, asked with the session's token."""

    def __init__(self, session: Session) -> None:
        self.base = session.printed["jupyter_url"].partition("/lab")[0]
        self._headers = {"Authorization": f"token {session.token}"}

    def ask(self, method: str, path: str, body: object = None) -> requests.Response:
        return requests.request(method, f"{self.base}/{path}", headers=self._headers, json=body, timeout=100)

    def get(self, path: str) -> Any:
        answer = self.ask("GET", path)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def post(self, path: str, body: object) -> Any:
        answer = self.ask("POST", path, body)
        assert answer.ok, answer.text
        return answer.json()

    def is_loaded(self) -> bool:
        """The extension is not waited for by who opens the page."""
        return self.ask("GET", "hpclab/session").status_code != 404

    def job(self, job_id: str) -> dict[str, Any]:
        return next(job for job in self.get("hpclab/session")["session"]["jobs"] if job["id"] == job_id)


@pytest.fixture
def the_server(a_running_session: Session) -> Server:
    server = Server(a_running_session)
    until(server.is_loaded, what="the extension")
    return server


@pytest.fixture
def the_dashboard(the_server: Server) -> str:
    """Its address within JupyterLab."""
    until(lambda: the_server.ask("GET", "proxy/hpclab/status").status_code == 200, what="the dashboard")
    return f"{the_server.base}/proxy/hpclab"


def test_the_panel_is_told_what_the_command_line_tells(a_running_session: Session, the_server: Server) -> None:
    told = the_server.get("hpclab/session")
    known = a_running_session.status()
    steady = ("name", "state", "queue", "node", "jupyter_url", "dashboard_url", "tunnel", "folder", "created")
    assert {key: told["session"][key] for key in steady} == {key: known[key] for key in steady}
    assert told["session"]["workers"]["joined"] >= 1
    assert told["dashboard"] == "proxy/hpclab/"
    assert a_running_session.token not in json.dumps(told)


def test_a_worker_comes_and_goes(a_running_session: Session, the_server: Server) -> None:
    (job_id,) = the_server.post("hpclab/workers", {"count": 1, "request": "one", "walltime": "20m"})["jobs"]
    until(lambda: the_server.job(job_id)["joined"], within_s=60, what="it to join")
    told = the_server.get(f"hpclab/jobs/{job_id}/why")
    assert told["events"][0]["what"] == "submitted"
    assert f"Dask worker {job_id}-0 joined" in [event["sentence"] for event in told["events"]]
    assert f"hpclab: Dask worker {job_id}-0 joined" in the_server.get(f"hpclab/jobs/{job_id}/log")["text"]
    assert the_server.ask("DELETE", f"hpclab/workers/{job_id}").json() == {
        "text": f"job {job_id} handed over its data and left"
    }
    assert the_server.job(job_id)["state"] in FINAL


def test_it_is_scaled_up_and_down(a_running_session: Session, the_server: Server) -> None:
    joined = the_server.get("hpclab/session")["session"]["workers"]["joined"]
    assert the_server.post("hpclab/scale", {"workers": joined + 1}) == {"text": "submitted 1 worker job"}
    until(lambda: a_running_session.joined() == joined + 1, within_s=60, what="it to join")
    assert "handed over its data and left" in the_server.post("hpclab/scale", {"workers": joined})["text"]
    assert the_server.get("hpclab/session")["session"]["workers"]["joined"] == joined


def test_dasks_sidebar_has_the_session_already(a_running_session: Session, the_server: Server) -> None:
    def clusters() -> list[dict[str, Any]]:
        answer = the_server.ask("GET", "dask/clusters")
        return answer.json() if answer.status_code == 200 else []

    (cluster,) = until(clusters, what="the sidebar's cluster")
    assert (cluster["name"], cluster["dashboard_link"]) == (a_running_session.name, "/proxy/hpclab/status")


@pytest.mark.parametrize("page", ["status", "individual-task-stream", "workers", "info/main/workers.html", "graph"])
def test_the_dashboards_pages_are_whole_within_jupyterlab(
    a_running_session: Session, the_dashboard: str, a_browser_page: Page, page: str
) -> None:
    """Every file that they name is found under the prefix, and plots get their data by a web socket under it."""
    missing: list[str] = []
    lines: list[WebSocket] = []
    a_browser_page.on("response", lambda got: missing.append(got.url) if got.status >= 400 else None)
    a_browser_page.on("websocket", lambda line: lines.append(line))
    a_browser_page.goto(a_running_session.printed["jupyter_url"].replace("/lab?", "/api/status?"))
    missing.clear()
    a_browser_page.goto(f"{the_dashboard}/{page}", wait_until="load")
    if not page.startswith("info"):
        a_browser_page.wait_for_function(PLOTS)
        (line,) = until(lambda: lines, what="its web socket")
        assert urlsplit(line.url).path == f"/proxy/hpclab/{page}/ws"
        until(
            lambda: not line.is_closed() and a_browser_page.evaluate("Bokeh.documents[0].roots().length"),
            what="its data",
        )
    assert [url for url in missing if not url.endswith(DASKS_MISTAKE)] == []


def test_a_pane_moves_while_something_is_computed(
    a_running_session: Session, the_dashboard: str, a_browser_page: Page
) -> None:
    a_browser_page.goto(a_running_session.printed["jupyter_url"].replace("/lab?", "/api/status?"))
    a_browser_page.goto(f"{the_dashboard}/individual-task-stream")
    a_browser_page.wait_for_function(PLOTS)
    with a_running_session.client() as client:
        assert sum(client.gather(client.map(lambda x: x, range(200), pure=False))) == 19900
        a_browser_page.wait_for_function(TASKS_ARE_SHOWN, arg=200)


def test_the_panes_that_can_be_opened_are_listed(the_server: Server, the_dashboard: str) -> None:
    assert "/individual-task-stream" in the_server.get("proxy/hpclab/individual-plots.json").values()


@pytest.fixture
def a_session_of_its_own(a_home: Callable[..., Home]) -> Session:
    return a_home().start()


def test_it_is_stopped_from_the_page_that_ends_with_it(a_session_of_its_own: Session) -> None:
    session = a_session_of_its_own
    server = Server(session)
    until(server.is_loaded, what="the extension")
    added = server.post("hpclab/workers", {"count": 2, "request": "one", "cores": "1"})["jobs"]
    told = server.ask("POST", "hpclab/stop", {})
    assert told.status_code == 202
    assert sorted(told.json()["jobs"], key=int) == [session.main_job, *added]
    home = session.home
    until(
        lambda: not any(job["state"] in ("PENDING", "RUNNING") for job in home.jobs()),
        within_s=60,
        what="all jobs to end",
    )
    until(lambda: not home.processes(), what="all processes to end")
    assert session.status()["state"] == "ended"


def test_a_plain_client_links_to_the_dashboard_within_jupyterlab(
    a_running_session: Session, a_browser_page: Page
) -> None:
    url, folder = a_running_session.printed["jupyter_url"], a_running_session.home.notebooks
    notebook = NotebookPage.open(a_browser_page, url, folder, LINK)
    assert notebook.run(0) == "'/proxy/hpclab/status'"


@pytest.mark.parametrize("path", ["proxy/{}/", "proxy/127.0.0.1:{}/", "proxy/absolute/{}/", "proxy/localhost:{}/"])
def test_no_other_port_of_the_node_is_shown_as_jupyterlabs_own(
    a_running_session: Session, the_server: Server, path: str
) -> None:
    """Whoever listened there would get the user's cookies."""
    port = a_running_session.connection()["dashboard_port"]
    assert the_server.ask("GET", path.format(port)).status_code == 404
