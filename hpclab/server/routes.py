"""The routes under the server's base URL: each parses, asks the desk, and sends JSON. All need who is logged in."""

from __future__ import annotations

import functools
import gzip
import json
from collections.abc import Awaitable, Callable
from http.client import responses
from typing import Any, cast

from jupyter_server.auth.decorator import authorized
from jupyter_server.base.handlers import APIHandler
from jupyter_server.utils import url_path_join
from tornado import web

from hpclab import errors
from hpclab.connection import DASHBOARD_PATH
from hpclab.errors import HpclabError
from hpclab.server.desk import Desk
from hpclab.server.wanted import WorkersWanted, lines_in, nothing_in, queue_in, workers_in

STATUS: dict[type[HpclabError], int] = {
    errors.HpclabError: 500,
    errors.ConfigError: 400,
    errors.CommandError: 502,
    errors.Refused: 422,
    errors.CommandMissing: 502,
    errors.UnreadableOutput: 502,
    errors.JobEnded: 409,
    errors.TookTooLong: 504,
    errors.NoSuchSession: 404,
    errors.SessionExists: 409,
    errors.StoreError: 500,
    errors.NoSuchJob: 404,
    errors.NotRunning: 409,
    errors.IsRun: 409,
    errors.SiteUnfit: 409,
    errors.Unreachable: 502,
    errors.ConnectionLost: 502,
    errors.LoginFailed: 502,
    errors.HostKeyRefused: 502,
    errors.ForwardingRefused: 502,
    errors.RemoteUnfit: 502,
    errors.NotFromHere: 502,
    # of notebooks alone
    errors.RankFailed: 500,
    errors.WorkerLost: 500,
    errors.WorldFailed: 500,
    errors.DataLost: 500,
}
"""401 and 403 are not among them: those are about who asks."""

FORBIDDEN = "this page may belong to an earlier session\nopen the link that `hpclab attach` prints"
BROKEN = "something went wrong in JupyterLab's server\nits log tells what"

SMALL_BYTES = 2000
"""What is not worth compressing."""


def for_the_user(method: Callable[..., Awaitable[dict[str, Any]]]) -> Callable[..., Awaitable[None]]:
    """Only for who is logged in, and may; each method has it, and Jupyter looks for that. What comes back is sent."""

    @functools.wraps(method)
    async def answered(route: Route, *args: str) -> None:
        try:
            told = await method(route, *args)
        except HpclabError as error:
            route.set_status(STATUS[type(error)])
            told = {"error": type(error).__name__, "message": str(error)}
        route.send(told)

    return cast(Callable[..., Awaitable[None]], web.authenticated(authorized(answered)))


class Route(APIHandler):  # type: ignore[misc]
    """What all have in common: the desk, and how an error is told."""

    auth_resource = "hpclab"

    def initialize(self, desk: Desk) -> None:
        self.desk = desk

    def send(self, told: dict[str, Any]) -> None:
        self.set_header("Cache-Control", "no-store")
        body = json.dumps(told).encode()
        if len(body) > SMALL_BYTES and "gzip" in self.request.headers.get("Accept-Encoding", ""):
            # it goes through a tunnel every two seconds
            self.set_header("Content-Encoding", "gzip")
            self.set_header("Vary", "Accept-Encoding")
            body = gzip.compress(body, compresslevel=1)
        self.finish(body)

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """Of what is not ours to explain: a traceback stays in the log."""
        given = kwargs.get("exc_info", (None, None))[1]
        reason = responses.get(status_code, "Unknown")
        told = (given.log_message or reason) if isinstance(given, web.HTTPError) else BROKEN
        message = FORBIDDEN if status_code == 403 else told
        self.finish(json.dumps({"error": reason.replace(" ", ""), "message": message}))


class SessionRoute(Route):
    _track_activity = False  # a panel that is open is not somebody at work

    @for_the_user
    async def get(self) -> dict[str, Any]:
        return await self.desk.answer()


class WorkersRoute(Route):
    @for_the_user
    async def post(self) -> dict[str, Any]:
        self.set_status(201)
        return await self.desk.add_workers(WorkersWanted.from_body(self.request.body))


class WorkerRoute(Route):
    @for_the_user
    async def delete(self, job_id: str) -> dict[str, Any]:
        return await self.desk.retire(job_id)


class ScaleRoute(Route):
    @for_the_user
    async def post(self) -> dict[str, Any]:
        return await self.desk.scale(workers_in(self.request.body))


class StoryRoute(Route):
    @for_the_user
    async def get(self, job_id: str) -> dict[str, Any]:
        return await self.desk.story(job_id)


class LogRoute(Route):
    @for_the_user
    async def get(self, job_id: str) -> dict[str, Any]:
        return await self.desk.log(job_id, lines_in(self.get_query_argument("lines", "1000")))


class StopRoute(Route):
    @for_the_user
    async def post(self) -> dict[str, Any]:
        self.set_status(202)
        nothing_in(self.request.body)
        return await self.desk.stop()


class StartRoute(Route):
    @for_the_user
    async def post(self) -> dict[str, Any]:
        self.set_status(201)
        return await self.desk.start(queue_in(self.request.body))


ROUTES: list[tuple[str, type[Any]]] = [
    (r"hpclab/session", SessionRoute),
    (r"hpclab/workers", WorkersRoute),
    (r"hpclab/workers/([^/]+)", WorkerRoute),
    (r"hpclab/scale", ScaleRoute),
    (r"hpclab/jobs/([^/]+)/why", StoryRoute),
    (r"hpclab/jobs/([^/]+)/log", LogRoute),
    (r"hpclab/stop", StopRoute),
    (r"hpclab/start", StartRoute),
]


def handlers(base_url: str, desk: Desk) -> list[tuple[str, type[Any], dict[str, Any]]]:
    """All of them, and the dashboard's where jupyter-server-proxy is installed."""
    routes = list(ROUTES)
    try:
        from hpclab.server.dashboard import DashboardRoute
    except ImportError:
        desk.has_proxy = False
    else:
        routes.append((rf"{DASHBOARD_PATH.rstrip('/')}(/.*)?", DashboardRoute))
    return [(url_path_join(base_url, pattern), route, {"desk": desk}) for pattern, route in routes]
