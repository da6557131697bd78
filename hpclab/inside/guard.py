"""The dashboard's door: nothing passes without the session's token, web sockets included.

The token comes once in the link (`?token=`), then as a cookie derived from it; programs send
`Authorization: Bearer TOKEN`. It stands before Dask's whole HTTP server, whatever that serves.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
from urllib.parse import parse_qsl, urlencode, urlsplit

from tornado.httputil import (
    HTTPConnection,
    HTTPHeaders,
    HTTPMessageDelegate,
    HTTPServerConnectionDelegate,
    RequestStartLine,
    ResponseStartLine,
    parse_cookie,
)
from tornado.web import Application

FORBIDDEN = b"This dashboard belongs to somebody's session. Open the link that `hpclab attach` prints.\n"
STARTING = b"<meta http-equiv=refresh content=1>The dashboard is starting.\n"


class Door:
    """Who may enter: pure, so that it can be tried without a server."""

    def __init__(self, token: str, session: str) -> None:
        self._token = token.encode()
        self._pass = hmac.new(self._token, b"dashboard", hashlib.sha256).hexdigest()
        # cookies do not know of ports: two sessions on one address must not overwrite each other's
        self._cookie = "hpclab-" + hashlib.sha256(session.encode()).hexdigest()[:12]

    def admits(self, headers: HTTPHeaders) -> bool:
        kind, _, value = headers.get("Authorization", "").partition(" ")
        if kind.lower() in ("bearer", "token") and self.is_token(value.strip()):
            return True
        # not http.cookies: one odd cookie of another program on this address would hide ours from it
        given = parse_cookie(headers.get("Cookie", "")).get(self._cookie, "")
        return hmac.compare_digest(given.encode(), self._pass.encode()) and _same_origin(headers)

    def is_token(self, given: str) -> bool:
        return bool(self._token) and hmac.compare_digest(given.encode(), self._token)

    def entrance(self, uri: str) -> tuple[str, str] | None:
        """For a link with the right token: where to go on to, without it, and the cookie to set."""
        try:
            parts = urlsplit(uri)
        except ValueError:
            return None
        query = parse_qsl(parts.query, keep_blank_values=True)
        if not any(key == "token" and self.is_token(value) for key, value in query):
            return None
        rest = urlencode([(key, value) for key, value in query if key != "token"])
        # one slash: "//elsewhere" would lead to another host
        path = "/" + parts.path.lstrip("/\\")
        cookie = f"{self._cookie}={self._pass}; Path=/; HttpOnly; SameSite=Lax"
        return (f"{path}?{rest}" if rest else path), cookie


def _same_origin(headers: HTTPHeaders) -> bool:
    """Browsers say with every web socket which page opens it; a page from another port must not use our cookie."""
    origin = headers.get("Origin", "")
    try:
        return not origin or urlsplit(origin).netloc == headers.get("Host", "")
    except ValueError:
        return False


class Guard(HTTPServerConnectionDelegate):
    """Stands in place of the application of Dask's HTTP server, and hands on what the door admits."""

    def __init__(self, application: Application, door: Door) -> None:
        self._application = application
        self._door = door
        self.is_open = False
        """False until there is something behind the door to be seen."""
        self.wanted = asyncio.Event()
        """Somebody with the token is at the door."""

    def start_request(self, server_conn: object, request_conn: HTTPConnection) -> HTTPMessageDelegate:
        return _Request(self._application, self._door, self, server_conn, request_conn)


class _Request(HTTPMessageDelegate):
    def __init__(
        self, application: Application, door: Door, guard: Guard, server_conn: object, request_conn: HTTPConnection
    ) -> None:
        self._application, self._door, self._guard = application, door, guard
        self._server_conn, self._request_conn = server_conn, request_conn
        self._inner: HTTPMessageDelegate | None = None
        self._is_head = False
        self._answer: tuple[int, str, dict[str, str], bytes] | None = None

    def headers_received(self, start_line: object, headers: HTTPHeaders) -> object:  # type: ignore[override]
        assert isinstance(start_line, RequestStartLine)
        self._is_head = start_line.method == "HEAD"
        if entrance := self._door.entrance(start_line.path):
            self._guard.wanted.set()
            location, cookie = entrance
            self._answer = (
                302,
                "Found",
                {"Location": location, "Set-Cookie": cookie, "Cache-Control": "no-store"},
                b"",
            )
        elif not self._door.admits(headers):
            self._answer = (403, "Forbidden", {"Content-Type": "text/plain"}, FORBIDDEN)
        elif not self._guard.is_open:
            self._guard.wanted.set()
            self._answer = (503, "Service Unavailable", {"Content-Type": "text/html", "Retry-After": "1"}, STARTING)
        else:
            self._inner = self._application.start_request(self._server_conn, self._request_conn)
            return self._inner.headers_received(start_line, headers)
        return None

    def data_received(self, chunk: bytes) -> object:  # type: ignore[override]
        return self._inner.data_received(chunk) if self._inner else None

    def finish(self) -> None:
        if self._inner:
            self._inner.finish()
        elif self._answer:
            code, reason, headers, body = self._answer
            whole = HTTPHeaders({**headers, "Content-Length": str(len(body)), "Referrer-Policy": "no-referrer"})
            first_line = ResponseStartLine("HTTP/1.1", code, reason)
            self._request_conn.write_headers(first_line, whole, b"" if self._is_head else body)
            self._request_conn.finish()

    def on_connection_close(self) -> None:
        if self._inner:
            self._inner.on_connection_close()
