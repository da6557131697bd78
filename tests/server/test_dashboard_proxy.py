"""The way to Dask's dashboard: behind its real guard stands a program that tells what it was asked."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from tornado.httpclient import HTTPClientError, HTTPRequest
from tornado.httpserver import HTTPServer
from tornado.testing import bind_unused_port
from tornado.web import Application, RequestHandler
from tornado.websocket import WebSocketHandler, websocket_connect

from hpclab.inside.guard import Door, Guard

from .a_server import TOKEN, Server

STATUS = "proxy/hpclab/status"


class Page(RequestHandler):
    def get(self) -> None:
        self.set_header("Set-Cookie", "a=cookie")
        self.write({"headers": dict(self.request.headers.get_all()), "uri": self.request.uri})

    def post(self) -> None:
        self.write("changed")


class Root(RequestHandler):
    def get(self) -> None:
        self.redirect("/status")


class Socket(WebSocketHandler):
    def select_subprotocol(self, subprotocols: list[str]) -> str | None:
        return next(iter(subprotocols), None)

    def open(self) -> None:
        self.write_message(json.dumps(dict(self.request.headers.get_all())))

    def on_message(self, message: str | bytes) -> None:
        self.write_message(message, binary=isinstance(message, bytes))


def serve(token: str, told: Callable[[int, Callable[[], None]], None]) -> None:
    """Until it is told to end."""

    async def run() -> None:
        end = asyncio.Event()
        application = Application([("/", Root), ("/ws", Socket), ("/.*", Page)])
        guard = Guard(application, Door(token, "calm-otter"))
        guard.is_open = True
        server = HTTPServer(guard)  # type: ignore[arg-type]
        listener, port = bind_unused_port()
        server.add_socket(listener)
        loop = asyncio.get_running_loop()
        told(port, lambda: loop.call_soon_threadsafe(end.set))
        await end.wait()
        server.stop()
        await server.close_all_connections()

    asyncio.run(run())


@pytest.fixture(scope="module")
def a_dashboard(a_server_with_a_session: Server) -> Iterator[int]:
    """Its port, which the session announces."""
    folder = Path(a_server_with_a_session.session()["folder"])
    up: list[Any] = []
    is_up = threading.Event()

    def told(*what: Any) -> None:
        up.extend(what)
        is_up.set()

    thread = threading.Thread(target=serve, args=((folder / "token").read_text().strip(), told))
    thread.start()
    assert is_up.wait(20)
    announced_at(folder, up[0])
    yield up[0]
    up[1]()
    thread.join(20)


def announced_at(folder: Path, port: int) -> None:
    file = folder / "connection.json"
    new = file.with_suffix(".new")
    new.write_text(json.dumps({**json.loads(file.read_text()), "dashboard_port": port}))
    new.replace(file)


@pytest.fixture
def a_server_of_it(a_server_with_a_session: Server, a_dashboard: int) -> Server:
    return a_server_with_a_session


def test_a_page_comes_through(a_server_of_it):
    told = a_server_of_it.get(f"{STATUS}?x=1&y=%2F")
    assert told["uri"] == "/status?x=1&y=%2F"


def test_it_knows_where_it_stands(a_server_of_it):
    told = a_server_of_it.get(STATUS)
    assert told["headers"]["X-Forwarded-Prefix"] == "/user/ada/proxy/hpclab"


def test_the_dashboard_gets_its_own_token_and_nothing_of_the_browser(a_server_of_it):
    browser = a_server_of_it.a_browser()
    told = browser.get(a_server_of_it.url + STATUS, headers={"Referer": "http://x/?token=secret"}, timeout=60)
    got = told.json()["headers"]
    assert got["Authorization"].startswith("Bearer ")
    assert TOKEN not in told.text
    assert not {"Cookie", "Referer", "Origin"} & set(got)


@pytest.mark.parametrize("accept", ["*/*", "text/event-stream"])
def test_the_token_does_not_come_back(a_server_of_it, accept):
    token = (Path(a_server_of_it.session()["folder"]) / "token").read_text().strip()
    answer = a_server_of_it.ask("GET", STATUS, headers={"Authorization": f"token {TOKEN}", "Accept": accept})
    assert token not in str(answer.headers)
    assert "a=cookie" not in answer.headers.get("Set-Cookie", "")


@pytest.mark.parametrize("accept", ["*/*", "text/event-stream"])
def test_it_stands_in_jupyterlabs_frames_alone(a_server_of_it, accept):
    answer = a_server_of_it.ask("GET", STATUS, headers={"Authorization": f"token {TOKEN}", "Accept": accept})
    assert answer.headers["Content-Security-Policy"] == "frame-ancestors 'self'"
    assert answer.headers["Cross-Origin-Resource-Policy"] == "same-origin"


@pytest.mark.parametrize("path", ["proxy/hpclab", "proxy/hpclab/"])
def test_a_redirection_stays_behind_the_prefix(a_server_of_it, path):
    answer = a_server_of_it.ask("GET", path)
    assert (answer.status_code, answer.headers["Location"]) == (302, "/user/ada/proxy/hpclab/status")


def test_one_can_ask_for_the_head_alone(a_server_of_it):
    answer = a_server_of_it.ask("HEAD", STATUS)
    assert answer.status_code in (200, 405)  # as the page there will have it
    assert answer.text == ""


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
def test_one_can_only_look(a_server_of_it, method):
    answer = a_server_of_it.ask(method, STATUS)
    assert answer.status_code == 405
    assert "changed" not in answer.text


@pytest.mark.parametrize("path", ["http://evil.example/", "//evil.example/", "@evil.example/", ":1/", "../../session"])
def test_the_path_names_no_other_host(a_server_of_it, path):
    """What looks like one is a page of the dashboard, or nothing at all."""
    request = requests.Request("GET", a_server_of_it.url + "x", headers={"Authorization": f"token {TOKEN}"}).prepare()
    request.url = a_server_of_it.url + "proxy/hpclab/" + path
    with requests.Session() as browser:
        answer = browser.send(request, timeout=60, allow_redirects=False)
    assert answer.status_code in (200, 404), answer.text
    if answer.status_code == 200:
        assert answer.json()["headers"]["Host"].startswith("127.0.0.1:")


# web sockets


def talk(server: Server, headers: dict[str, str], said: list[str | bytes]) -> list[Any]:
    """What the dashboard's web socket answers; its own headers first."""

    async def ask() -> list[Any]:
        url = server.url.replace("http", "ws", 1) + "proxy/hpclab/ws"
        line = await websocket_connect(HTTPRequest(url, headers=headers), subprotocols=["bokeh", "a-token"])
        first = await line.read_message()
        if first is None:
            return ["closed", line.close_code]
        heard = [json.loads(first), line.selected_subprotocol]
        for message in said:
            await line.write_message(message, binary=isinstance(message, bytes))
            heard.append(await line.read_message())
        line.close()
        return heard

    return asyncio.run(asyncio.wait_for(ask(), 60))


def test_a_web_socket_comes_through(a_server_of_it):
    headers = {"Authorization": f"token {TOKEN}"}
    first, protocol, *rest = talk(a_server_of_it, headers, ["text", b"bytes", "x" * 2_000_000])
    assert rest == ["text", b"bytes", "x" * 2_000_000]
    assert protocol == "bokeh"
    assert first["Authorization"].startswith("Bearer ")
    assert TOKEN not in first["Authorization"]


def cookies_of(server: Server) -> str:
    browser = server.a_browser()
    return "; ".join(f"{cookie.name}={cookie.value}" for cookie in browser.cookies)


def test_a_web_socket_of_the_page_itself_comes_through(a_server_of_it):
    own = a_server_of_it.url.removesuffix("/user/ada/")
    first, *_ = talk(a_server_of_it, {"Cookie": cookies_of(a_server_of_it), "Origin": own}, [])
    assert not {"Cookie", "Origin"} & set(first)


@pytest.mark.parametrize("origin", ["http://evil.example", "http://127.0.0.1:1", "null"])
def test_one_of_another_page_does_not(a_server_of_it, origin):
    with pytest.raises(HTTPClientError) as error:
        talk(a_server_of_it, {"Cookie": cookies_of(a_server_of_it), "Origin": origin}, [])
    assert error.value.code == 403


@pytest.mark.parametrize("headers", [{}, {"Authorization": "token wrong"}], ids=["nothing", "a wrong token"])
def test_one_of_nobody_does_not(a_server_of_it, headers):
    with pytest.raises(HTTPClientError) as error:
        talk(a_server_of_it, headers, [])
    assert error.value.code in (302, 403)


# where there is none


def test_without_a_session_a_page_says_so(a_plain_server):
    answer = a_plain_server.ask("GET", STATUS)
    assert answer.status_code == 503
    assert "no session is running" in answer.text or "the session is not running" in answer.text


def test_where_nobody_answers_a_page_says_so(a_server_of_it, a_dashboard):
    folder = Path(a_server_of_it.session()["folder"])
    announced_at(folder, 1)
    try:
        answer = a_server_of_it.ask("GET", STATUS)
        assert answer.status_code == 503
        assert "its scheduler does not answer" in answer.text
        assert talk(a_server_of_it, {"Authorization": f"token {TOKEN}"}, []) == ["closed", 1013]
    finally:
        announced_at(folder, a_dashboard)
    assert a_server_of_it.ask("GET", STATUS).status_code == 200
