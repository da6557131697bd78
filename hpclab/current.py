"""Where this process is: in which session, and in which JupyterLab."""

from __future__ import annotations

import os
import sys

from hpclab.config import defaults
from hpclab.connection import DASHBOARD_PATH
from hpclab.hosts.local import LocalHost
from hpclab.session import Session


def current_session(name: str | None = None, *, or_latest: bool = False, to_grow: bool = False) -> Session:
    """The named one, else the one that this process runs in, else the only one that is alive.

    `or_latest` is for those who only look: else the last one that there was; `to_grow`: no run is meant.
    """
    host = LocalHost(os.environ)
    if name := name or os.environ.get("HPCLAB_SESSION"):
        return Session.open(host, defaults(), name)
    return Session.only(host, defaults(), or_latest=or_latest, to_grow=to_grow)


def dashboard_here(name: str) -> str:
    """Where the JupyterLab around this process shows the session's dashboard; empty: nowhere, as far as is known."""
    server = sys.modules.get("jupyter_server.serverapp")
    if server and server.ServerApp.initialized():
        return f"{server.ServerApp.instance().base_url}{DASHBOARD_PATH}status"
    if os.environ.get("HPCLAB_SESSION") == name:
        return f"{os.environ.get('JUPYTERHUB_SERVICE_PREFIX', '/')}{DASHBOARD_PATH}status"
    return ""
