"""The dashboard's door: by itself, and before a real server with pages and a web socket."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from fixtures import TOKEN
from tornado.httpclient import AsyncHTTPClient, HTTPClientError, HTTPRequest, HTTPResponse
from tornado.httpserver import HTTPServer
from tornado.httputil import HTTPHeaders
from tornado.netutil import bind_sockets
from tornado.web import Application, RequestHandler
from tornado.websocket import WebSocketHandler, websocket_connect

from hpclab.inside.guard import Door, Guard

DOOR = Door(TOKEN, "calm-otter")
CUT_OFF, UPPER = TOKEN[:-1], TOKEN.upper()


def cookie_of(door: Door) -> str:
    """NAME=VALUE, as the browser sends it back."""
    _, cookie = door.entrance(f"/?token={TOKEN}") or ("", "")
    return cookie.partition(";")[0]


COOKIE = cookie_of(DOOR)
NAME = COOKIE.partition("=")[0]


# the door


@pytest.mark.parametrize(
    ("headers", "admitted"),
    [
        ({}, False),
        ({"Authorization": f"Bearer {TOKEN}"}, True),
        ({"Authorization": f"bearer  {TOKEN} "}, True),
        ({"Authorization": f"token {TOKEN}"}, True),
        ({"Authorization": f"Basic {TOKEN}"}, False),
        ({"Authorization": TOKEN}, False),
        ({"Authorization": "Bearer"}, False),
        ({"Authorization": "Bearer "}, False),
        ({"Authorization": f"Bearer {CUT_OFF}"}, False),
        ({"Authorization": f"Bearer {UPPER}"}, False),
        ({"Authorization": f"Bearer {TOKEN}x"}, False),
        ({"Authorization": "Bearer tökén"}, False),
        ({"Cookie": COOKIE}, True),
        ({"Cookie": f"other=1; {COOKIE}; more=2"}, True),
        ({"Cookie": f"{NAME}={TOKEN}"}, False),
        ({"Cookie": f"{NAME}="}, False),
        ({"Cookie": f"{NAME}=tökén"}, False),
        ({"Cookie": COOKIE[:-1]}, False),
        ({"Cookie": "=;;=,\x7f"}, False),
        ({"Cookie": "token=" + TOKEN}, False),
    ],
)
def test_who_is_admitted(headers, admitted):
    assert DOOR.admits(HTTPHeaders(headers)) is admitted


@pytest.mark.parametrize(
    ("origin", "admitted"),
    [
        ("http://127.0.0.1:8787", True),
        ("http://127.0.0.1:9999", False),
        ("http://127.0.0.1", False),
        ("http://evil.example", False),
        ("http://127.0.0.1:8787.evil.example", False),
        ("http://127.0.0.1:8787@evil.example", False),
        ("null", False),
        ("http://[", False),
    ],
)
def test_a_page_from_elsewhere_must_not_use_our_cookie(origin, admitted):
    headers = HTTPHeaders({"Cookie": COOKIE, "Host": "127.0.0.1:8787", "Origin": origin})
    assert DOOR.admits(headers) is admitted


def test_the_cookie_is_not_the_token_and_is_another_for_every_session():
    assert TOKEN not in COOKIE
    assert cookie_of(Door(TOKEN, "bold-heron")).partition("=")[0] != NAME
    assert DOOR.admits(HTTPHeaders({"Cookie": cookie_of(Door("other" * 7, "calm-otter"))})) is False


@pytest.mark.parametrize(
    ("uri", "location"),
    [
        (f"/status?token={TOKEN}", "/status"),
        (f"/?token={TOKEN}", "/"),
        (f"?token={TOKEN}", "/"),
        (f"/status?a=1&token={TOKEN}&b=&c=x%20y%26z", "/status?a=1&b=&c=x+y%26z"),
        (f"/status?token={TOKEN}&token=wrong", "/status"),
        (f"/status?token=wrong&token={TOKEN}", "/status"),
    ],
)
def test_the_link_leads_on_without_the_token(uri, location):
    assert (DOOR.entrance(uri) or [""])[0] == location


@pytest.mark.parametrize(
    "uri",
    [
        "/status",
        "/status?token=",
        "/status?token",
        "/status?token=wrong",
        f"/status?token={CUT_OFF}",
        f"/status?Token={TOKEN}",
        f"/status?xtoken={TOKEN}",
        f"/{TOKEN}",
        f"/status#token={TOKEN}",
        "/status?token=%ff%00",
        "//[",
        "http://[?token=",
    ],
)
def test_no_other_link_is_an_entrance(uri):
    assert DOOR.entrance(uri) is None


@pytest.mark.parametrize(
    "uri",
    [
        "//evil.example/x",
        "///evil.example",
        r"/\evil.example",
        r"\\evil.example",
        "/\t/evil.example",
        "http://evil.example/x",
    ],
)
def test_the_link_never_leads_elsewhere(uri):
    """As browsers read it: they take a backslash for a slash, and pass over tabs."""
    entrance = DOOR.entrance(f"{uri}?token={TOKEN}")
    if entrance is not None:
        location = entrance[0].replace("\\", "/").replace("\t", "")
        assert location.startswith("/")
        assert not location.startswith("//")


def test_the_cookie_is_for_browsers_only_and_not_for_scripts():
    _, cookie = DOOR.entrance(f"/?token={TOKEN}") or ("", "")
    assert {"Path=/", "HttpOnly", "SameSite=Lax"} <= set(cookie.split("; "))


@pytest.mark.parametrize("headers", [{}, {"Authorization": "Bearer "}, {"Cookie": cookie_of(DOOR)}])
def test_without_a_token_nobody_enters(headers):
    shut = Door("", "calm-otter")
    assert shut.entrance("/?token=") is None
    assert shut.admits(HTTPHeaders(headers)) is False


# the guard, before a real server


class Page(RequestHandler):
    def get(self) -> None:
        self.write("the dashboard")

    def post(self) -> None:
        self.write(self.request.body)


class Socket(WebSocketHandler):
    def check_origin(self, origin: str) -> bool:
        return True  # the guard alone must do

    def on_message(self, message: str | bytes) -> None:
        self.write_message(message)


class Visitor:
    """Somebody who knows the address."""

    def __init__(self, port: int) -> None:
        self.address = f"127.0.0.1:{port}"

    async def get(
        self, path: str = "/status", *, method: str = "GET", body: bytes | None = None, **headers: str
    ) -> HTTPResponse:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        request = HTTPRequest(
            f"http://{self.address}{path}", method, headers=named, body=body, follow_redirects=False, request_timeout=10
        )
        return await AsyncHTTPClient().fetch(request, raise_error=False)

    async def talk(self, **headers: str) -> Any:
        """What the web socket answers, or the status of its refusal."""
        request = HTTPRequest(f"ws://{self.address}/ws", headers=headers, request_timeout=10)
        try:
            socket = await websocket_connect(request)
        except HTTPClientError as refused:
            return refused.code
        await socket.write_message("hello")
        answer = await socket.read_message()
        socket.close()
        return answer


@pytest.fixture
def visit():
    """visit(what) runs `what` with a visitor to a guarded server, which may be not yet open."""

    def _visit(what: Callable[[Visitor], Awaitable[Any]], *, is_open: bool = True) -> Any:
        async def run() -> Any:
            server = HTTPServer(Application([("/ws", Socket), ("/.*", Page)]))
            guard = Guard(server.request_callback, DOOR)
            guard.is_open = is_open
            server.request_callback = guard
            sockets = bind_sockets(0, "127.0.0.1")
            server.add_sockets(sockets)
            try:
                return await what(Visitor(sockets[0].getsockname()[1]))
            finally:
                server.stop()
                await server.close_all_connections()

        return asyncio.run(run())

    return _visit


@pytest.mark.parametrize("path", ["/status", "/", "/health", "/metrics", "/status?token=", f"/status?token={CUT_OFF}"])
@pytest.mark.parametrize("method", ["GET", "HEAD", "DELETE", "OPTIONS"])
def test_without_the_token_there_is_nothing_to_be_seen(visit, path, method):
    answer = visit(lambda visitor: visitor.get(path, method=method))
    assert answer.code == 403
    assert b"the dashboard\n" not in answer.body
    assert "Set-Cookie" not in answer.headers


def test_a_refusal_says_how_to_get_in(visit):
    assert b"hpclab attach" in visit(lambda visitor: visitor.get()).body


def test_with_the_token_in_a_header_it_opens(visit):
    answer = visit(lambda visitor: visitor.get(Authorization=f"Bearer {TOKEN}"))
    assert (answer.code, answer.body) == (200, b"the dashboard")


def test_a_link_opens_it_once_and_the_cookie_from_then_on(visit):
    async def browse(visitor: Visitor) -> tuple[HTTPResponse, HTTPResponse]:
        entered = await visitor.get(f"/status?theme=dark&token={TOKEN}")
        cookie = entered.headers["Set-Cookie"].partition(";")[0]
        return entered, await visitor.get(entered.headers["Location"], Cookie=cookie)

    entered, page = visit(browse)
    assert (entered.code, entered.headers["Location"]) == (302, "/status?theme=dark")
    assert (entered.headers["Cache-Control"], entered.headers["Referrer-Policy"]) == ("no-store", "no-referrer")
    assert (page.code, page.body) == (200, b"the dashboard")


def test_a_link_to_elsewhere_does_not_lead_there(visit):
    answer = visit(lambda visitor: visitor.get(f"//evil.example?token={TOKEN}"))
    assert answer.headers["Location"] in ("/", "/evil.example")


@pytest.mark.parametrize(("headers", "code"), [({}, 403), ({"Authorization": f"Bearer {TOKEN}"}, 200)])
def test_what_is_sent_along_is_handed_on_or_dropped(visit, headers, code):
    answer = visit(lambda visitor: visitor.get("/x", method="POST", body=b"y" * 100_000, **headers))
    assert answer.code == code
    assert (answer.body == b"y" * 100_000) == (code == 200)


def test_as_long_as_there_is_nothing_to_be_seen_it_says_so_to_those_who_may(visit):
    asked = [{}, {"Authorization": f"Bearer {TOKEN}"}, {"Cookie": COOKIE}]
    answers = [visit(lambda visitor, h=headers: visitor.get(**h), is_open=False) for headers in asked]
    assert [answer.code for answer in answers] == [403, 503, 503]
    assert answers[1].headers["Retry-After"] == "1"


def test_a_connection_that_is_used_again_is_asked_again(visit):
    """Requests of several people may come through one proxy."""

    async def twice(visitor: Visitor) -> bytes:
        reader, writer = await asyncio.open_connection(*visitor.address.split(":"))
        good = f"GET /a HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\n\r\n"
        bad = "GET /b HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        writer.write((good + bad).encode())
        answer = await reader.read()
        writer.close()
        return answer

    answer = visit(twice)
    assert answer.count(b"HTTP/1.1 200 ") == 1
    assert answer.count(b"HTTP/1.1 403 ") == 1


@pytest.mark.parametrize("line", ["GET //[ HTTP/1.1", "GET /?token=%00%ff HTTP/1.1", "GET * HTTP/1.1", "nonsense"])
def test_a_strange_request_gets_nothing(visit, line):
    async def send(visitor: Visitor) -> bytes:
        reader, writer = await asyncio.open_connection(*visitor.address.split(":"))
        writer.write(f"{line}\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        answer = await reader.read()
        writer.close()
        return answer

    assert b" 200 " not in visit(send)


@pytest.mark.parametrize(
    ("headers", "answer"),
    [
        ({}, 403),
        ({"Cookie": COOKIE[:-1]}, 403),
        ({"Cookie": COOKIE, "Origin": "http://evil.example"}, 403),
        ({"Cookie": COOKIE, "Origin": "http://127.0.0.1:1"}, 403),
        ({"Cookie": COOKIE}, "hello"),
        ({"Authorization": f"Bearer {TOKEN}"}, "hello"),
    ],
)
def test_a_web_socket_is_guarded_too(visit, headers, answer):
    assert visit(lambda visitor: visitor.talk(**headers)) == answer


def test_a_web_socket_of_the_dashboards_own_page_opens(visit):
    async def talk(visitor: Visitor) -> Any:
        return await visitor.talk(Cookie=COOKIE, Origin=f"http://{visitor.address}")

    assert visit(talk) == "hello"
