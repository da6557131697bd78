"""A session as its user meets it: JupyterLab and the dashboard in a real browser, Dask and MPI in a real notebook."""

from __future__ import annotations

import http.client
from urllib.parse import urlsplit

import pytest
from harness import WEBSOCKET, Session
from jupyterlab_page import NotebookPage
from playwright.sync_api import Page, WebSocket
from waiting import until

CONNECT = "from dask.distributed import Client\n\nclient = Client()\nclient"
SUM = "import dask.array as da\n\nx = da.arange(20_000_000, chunks=500_000)\nint((x * 2).sum().compute())"
RIGHT = str(20_000_000 * 19_999_999)
COUNT = 'len(client.scheduler_info()["workers"])'
# in the page: the plots' data comes by the websocket
TASKS_ARE_SHOWN = """least => Bokeh.documents[0]._all_models.values().some(
    model => model.type == "ColumnDataSource" && (model.data.duration || []).length >= least)"""
IS_PAINTED = "canvas => canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data.some(byte => byte)"


def open_notebook(page: Page, session: Session, *sources: str, name: str = "") -> NotebookPage:
    return NotebookPage.open(page, session.printed["jupyter_url"], session.home.notebooks, *sources, name=name)


def answer(url: str, headers: dict[str, str] | None = None) -> int:
    """The status of one GET that follows nothing."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.netloc, timeout=10)
    try:
        connection.request("GET", f"{parts.path}?{parts.query}", headers=headers or {})
        return connection.getresponse().status
    finally:
        connection.close()


@pytest.fixture
def the_dashboard(a_running_session: Session) -> str:
    """Its address without the token, once there is something behind the door."""
    url = str(a_running_session.status()["dashboard_url"])
    key = {"Authorization": f"Bearer {a_running_session.token}"}
    until(lambda: answer(url, key) != http.HTTPStatus.SERVICE_UNAVAILABLE, what="the dashboard")
    return url


def test_a_notebook_connects_computes_and_sees_the_session_grow(
    a_running_session: Session, a_browser_page: Page
) -> None:
    session, home = a_running_session, a_running_session.home
    notebook = open_notebook(a_browser_page, session, CONNECT, SUM, COUNT, name="dask-on-the-cluster.ipynb")
    assert "Client" in notebook.run(0)
    assert notebook.run(1) == RIGHT
    before = int(notebook.run(2))
    added = [home.json("add-worker", "--session", session.name)["jobs"][0] for _ in range(2)]
    until(lambda: int(notebook.run(2)) == before + 2, within_s=60, what="both to be in the notebook")
    assert notebook.run(1) == RIGHT
    assert session.joined() == before + 2
    for job_id in added:
        home.ok("remove-worker", job_id, "--session", session.name)
    assert int(notebook.run(2)) == before


def test_mpi_in_a_notebook_is_a_world_of_its_own(a_running_session: Session, a_browser_page: Page) -> None:
    source = "from mpi4py import MPI\n\nMPI.COMM_WORLD.Get_size()"
    assert open_notebook(a_browser_page, a_running_session, source).run(0) == "1"


def test_the_dashboard_opens_through_its_link_and_draws(a_running_session: Session, a_browser_page: Page) -> None:
    page, sockets = a_browser_page, list[WebSocket]()
    page.on("websocket", lambda socket: sockets.append(socket))
    page.goto(a_running_session.printed["dashboard_url"])
    page.locator("canvas").first.wait_for()
    assert a_running_session.token not in page.url
    with a_running_session.client() as client:
        assert sum(client.gather(client.map(lambda x: x, range(200), pure=False))) == 19900
        page.wait_for_function(TASKS_ARE_SHOWN, arg=200)
    assert page.locator("canvas").first.evaluate(IS_PAINTED)
    assert [socket.is_closed() for socket in sockets] == [False]


def test_the_dashboard_opens_again_without_the_token(
    a_running_session: Session, the_dashboard: str, a_browser_page: Page
) -> None:
    a_browser_page.goto(a_running_session.printed["dashboard_url"])
    again = a_browser_page.goto(the_dashboard)
    assert again
    assert again.status == http.HTTPStatus.OK
    a_browser_page.locator("canvas").first.wait_for()


@pytest.mark.parametrize("query", ["", "?token=", "?token=0123456789abcdef0123456789abcdef"])
@pytest.mark.parametrize("page", ["/status", "/info/main/workers.html", "/api/v1/get_workers", "/metrics", "/nothing"])
def test_the_dashboard_is_shut_without_the_right_token(the_dashboard: str, page: str, query: str) -> None:
    assert answer(the_dashboard.removesuffix("/status") + page + query) == http.HTTPStatus.FORBIDDEN


def test_the_dashboard_is_shut_to_a_websocket_without_the_cookie(the_dashboard: str) -> None:
    assert answer(f"{the_dashboard}/ws", WEBSOCKET) == http.HTTPStatus.FORBIDDEN


def test_the_dashboard_lets_programs_in(a_running_session: Session, the_dashboard: str) -> None:
    assert answer(the_dashboard, {"Authorization": f"Bearer {a_running_session.token}"}) == http.HTTPStatus.OK
    assert answer(the_dashboard, {"Authorization": "Bearer wrong"}) == http.HTTPStatus.FORBIDDEN
