"""What the main job announces once JupyterLab answers, and the addresses and the tunnel that follow from it. Pure."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass, fields

from hpclab.errors import UnreadableOutput

JUPYTER_PORT = 8888
DASHBOARD_PORT = 8787
LOOPBACK = "127.0.0.1"
DASHBOARD_PATH = "proxy/hpclab/"
"""Where Dask's dashboard is, under JupyterLab's base URL. What begins with `proxy` JupyterLab's Dask panel takes as it
is."""


@dataclass(frozen=True, kw_only=True)
class Connection:
    """Where JupyterLab and the dashboard listen, as seen from the login node. No secrets.

    `jupyter_host` and `dashboard_host` are the node, or 127.0.0.1 where they answer on the node alone.
    """

    session: str
    job_id: str
    node: str
    scheduler_address: str
    jupyter_host: str
    jupyter_port: int
    dashboard_host: str
    dashboard_port: int
    time: float

    def is_at(self, host: str) -> bool:
        """The ports are on that host's own loopback address."""
        return self.jupyter_host == LOOPBACK and self.node == host

    def needs_jump(self, host: str) -> bool:
        """From that host, the ports are reached only by entering the node."""
        return self.jupyter_host == LOOPBACK and self.node != host

    def to_text(self) -> str:
        return json.dumps(asdict(self), indent=2) + "\n"

    @staticmethod
    def from_text(text: str) -> Connection:
        """Raises UnreadableOutput when the text is cut off or somebody else's."""
        try:
            given = json.loads(text)
            values = {field.name: given[field.name] for field in fields(Connection)}
            ports = {name: int(values[name]) for name in ("jupyter_port", "dashboard_port")}
            return Connection(**{**values, **ports, "time": float(values["time"])})
        except (ValueError, KeyError, TypeError, OverflowError) as error:
            raise UnreadableOutput(f"connection.json is not what a main job writes: {error!r}") from error


@dataclass(frozen=True, kw_only=True)
class ReverseAnswer:
    """Where on a login node's loopback address a reverse tunnel has brought both ports, or why it has not."""

    jupyter_port: int = 0
    dashboard_port: int = 0
    reason: str = ""

    def to_text(self) -> str:
        return json.dumps(asdict(self)) + "\n"

    @staticmethod
    def from_text(text: str) -> ReverseAnswer:
        """Raises UnreadableOutput."""
        try:
            given = json.loads(text)
            jupyter, dashboard = (int(given[name]) for name in ("jupyter_port", "dashboard_port"))
            answer = ReverseAnswer(jupyter_port=jupyter, dashboard_port=dashboard, reason=str(given["reason"]))
        except (ValueError, KeyError, TypeError, OverflowError) as error:
            raise UnreadableOutput(f"this is not how a main job answers: {error!r}") from error
        if not answer.reason and not (jupyter and dashboard):
            raise UnreadableOutput("this is not how a main job answers: neither ports nor a reason")
        return answer


def is_host_name(text: str) -> bool:
    """Nothing that would be an option, a path or a second word."""
    return re.fullmatch(r"[A-Za-z0-9][\w.-]*", text, re.ASCII) is not None


def parse_token(text: str) -> str:
    """The token in its file's text; never an empty or cut off one, which would be as good as none.

    Raises UnreadableOutput.
    """
    token = text.removesuffix("\n")
    if len(token) < 20 or token == text or not re.fullmatch(r"[\w-]+", token, re.ASCII):
        raise UnreadableOutput(
            "the session's token file is empty, cut off or not ours\nstop the session and start another"
        )
    return token


def jupyter_url(host: str, port: int, token: str = "") -> str:
    return f"http://{host}:{port}/lab" + (f"?token={token}" if token else "")


def dashboard_url(host: str, port: int, token: str = "") -> str:
    return f"http://{host}:{port}/status" + (f"?token={token}" if token else "")


def tunnel_argv(connection: Connection, login: str, destination: str = "") -> list[str]:
    """The ssh command that brings both ports to the user's own machine.

    `login` is USER@HOST by the name that the login node has for itself, `destination` what the user's ssh calls it.
    """
    user, _, host = login.rpartition("@")
    destination = destination or login
    forwards = [
        *["-L", f"{JUPYTER_PORT}:{connection.jupyter_host}:{connection.jupyter_port}"],
        *["-L", f"{DASHBOARD_PORT}:{connection.dashboard_host}:{connection.dashboard_port}"],
    ]
    if connection.needs_jump(host):
        return ["ssh", "-N", "-J", destination, *forwards, f"{user}@{connection.node}"]
    return ["ssh", "-N", *forwards, destination]


def worker_name(job_id: str, index: int) -> str:
    """The name of a Dask worker: it carries its job, so that each worker can be shown beside its job."""
    return f"{job_id}-{index}"


def job_of_worker(name: str) -> str:
    return name.rpartition("-")[0]
