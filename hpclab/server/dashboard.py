"""Dask's dashboard as a part of JupyterLab: pages and web sockets, through the server to the session's own door."""

from __future__ import annotations

from html import escape
from typing import Any

from jupyter_server.auth.decorator import authorized, ws_authenticated
from jupyter_server_proxy.handlers import ProxyHandler
from tornado import web
from tornado.httpclient import HTTPClientError
from tornado.httputil import HTTPHeaders

from hpclab.connection import DASHBOARD_PATH
from hpclab.errors import HpclabError
from hpclab.server.desk import Desk, Door

ABSENT = """<!doctype html><meta http-equiv="refresh" content="5"><title>Dask</title>
<body style="font-family: sans-serif">The dashboard is not there: {}. This page tries again.
"""
OF_THE_BROWSER = ("Cookie", "Authorization", "Origin", "Sec-Websocket-Origin", "Referer", "X-Xsrftoken", "Host")
"""Headers that are about it and JupyterLab. Its origin has been checked here; the dashboard is asked by us."""
CONNECT_WITHIN_S = 5
ANSWER_WITHIN_S = 60


class DashboardRoute(ProxyHandler):  # type: ignore[misc]
    """Only looking: the dashboard takes no other requests."""

    SUPPORTED_METHODS = ("GET", "HEAD")
    auth_resource = "hpclab"

    def initialize(self, desk: Desk) -> None:
        self._desk = desk
        self._door: Door | None = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.proxy_base = DASHBOARD_PATH.rstrip("/")
        # the session's files name it, nobody's request
        self.host_allowlist = lambda handler, host: True
        self.rewrite_response = _as_ours
        # plots that move are not somebody at work
        self.update_last_activity = False

    @ws_authenticated  # type: ignore[untyped-decorator]
    @authorized  # type: ignore[untyped-decorator]
    async def get(self, path: str | None) -> None:
        await super().get(path or "/")

    @web.authenticated
    @authorized  # type: ignore[untyped-decorator]
    async def head(self, path: str | None) -> None:
        await self.http_get(path or "/")

    async def http_get(self, path: str) -> None:
        # who asks for a stream would get it as it comes: with cookies, and without a limit of time
        self.request.headers["Accept"] = "*/*"
        why = await self._why_not()
        if self._door is not None:
            try:
                await self.proxy(self._door.host, self._door.port, path)
                return
            except (OSError, web.HTTPError) as error:
                # nothing has been sent; the codes are the proxy's word for a door that does not answer in time
                if isinstance(error, web.HTTPError) and error.status_code not in (500, 599):
                    raise
                why = "its scheduler does not answer"
        self.set_status(503)
        self.set_header("Content-Type", "text/html; charset=utf-8")
        self.finish(ABSENT.format(escape(why)))

    async def open(self, path: str) -> None:
        await self._why_not()
        if self._door is None:
            self.close(1013, "no dashboard")
            return
        try:
            await self.proxy_open(self._door.host, self._door.port, path)
        except (OSError, HTTPClientError) as error:
            self.log.warning("hpclab: the dashboard's web socket: %s", error)
            self.close(1013, "no dashboard")

    async def _why_not(self) -> str:
        try:
            self._door = await self._desk.door()
            return "the session is not running"
        except HpclabError as error:
            return str(error).splitlines()[0]

    def proxy_request_headers(self) -> HTTPHeaders:
        headers: HTTPHeaders = self.request.headers.copy()
        for name in OF_THE_BROWSER:
            headers.pop(name, None)
        assert self._door is not None
        headers["Authorization"] = f"Bearer {self._door.token}"
        return headers

    def proxy_request_options(self) -> dict[str, Any]:
        return {
            "follow_redirects": False,
            "connect_timeout": CONNECT_WITHIN_S,
            "request_timeout": ANSWER_WITHIN_S,
        }


def _as_ours(response: Any) -> None:
    """It stands in JupyterLab's frames alone, and leaves nothing in the browser."""
    response.headers.pop("Set-Cookie", None)
    response.headers["Content-Security-Policy"] = "frame-ancestors 'self'"
    # nor do other pages get it as a script: Bokeh makes one with a pass to the plots
    response.headers["Cross-Origin-Resource-Policy"] = "same-origin"
