"""Where this process is: in which session, and in which JupyterLab."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable
from typing import TypeVar

from hpclab.config import load
from hpclab.hosts.local import LocalHost
from hpclab.session import Session

DASHBOARD = "proxy/hpclab/status"
"""Under JupyterLab's base URL. What begins with `proxy` JupyterLab's Dask panel takes as it is."""
T = TypeVar("T")


def current_session(name: str = "", *, or_latest: bool = False) -> Session:
    """The named one, else the one that this process runs in, else the only one that is alive.

    `or_latest` is for those who only look: else the last one that there was.
    """
    # not the user's settings: a mistake in a config file must not stand between them and their sessions
    settings, host = load({}, [], {})[0], LocalHost(os.environ)
    if name := name or os.environ.get("HPCLAB_SESSION", ""):
        return Session.open(host, settings, name)
    return Session.only(host, settings, or_latest=or_latest)


def dashboard_here(name: str) -> str:
    """Where the JupyterLab around this process shows the session's dashboard; empty: nowhere, as far as is known."""
    server = sys.modules.get("jupyter_server.serverapp")
    if server and server.ServerApp.initialized():
        return f"{server.ServerApp.instance().base_url}{DASHBOARD}"
    if os.environ.get("HPCLAB_SESSION") == name:
        return f"{os.environ.get('JUPYTERHUB_SERVICE_PREFIX', '/')}{DASHBOARD}"
    return ""


class InTurns:
    """A session for several threads, which take turns with it."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._lock = threading.Lock()

    def __call__(self, what: Callable[[Session], T]) -> T:
        with self._lock:
            return what(self._session)
