"""A plain JupyterLab, of no session: one is started from it on this machine, shown in it, and stopped from it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from harness import Home
from server.a_server import Server, a_server
from waiting import until


@pytest.fixture
def a_plain_jupyterlab(a_home: Callable[..., Home], tmp_path: Path) -> Iterator[tuple[Server, Home]]:
    home = a_home()
    home.notebooks.mkdir(parents=True)
    with a_server(home.notebooks, home.environ) as server:
        yield server, home


def state(server: Server) -> str:
    session: dict[str, Any] | None = server.get("hpclab/session")["session"]
    return session["state"] if session else "none"


def test_a_session_is_started_shown_and_stopped(a_plain_jupyterlab: tuple[Server, Home]) -> None:
    server, home = a_plain_jupyterlab
    assert "hpclab start" in server.get("hpclab/session")["hint"]
    name = server.post("hpclab/start", {"queue": "local"})["name"]
    until(lambda: state(server) == "running", within_s=60, what="it to run")
    assert home.json("status", name)["name"] == name
    until(
        lambda: server.ask("GET", "proxy/hpclab/individual-plots.json").status_code == 200,
        within_s=60,
        what="its dashboard",
    )
    server.post("hpclab/workers", {"count": 1, "request": "one"})
    until(lambda: server.session()["workers"]["joined"] == 2, within_s=60, what="a worker more")
    assert len(server.post("hpclab/stop", {})["jobs"]) == 2
    until(lambda: state(server) == "none", within_s=60, what="it to be over")
    assert server.get("hpclab/session")["dashboard"] == ""
    assert server.ask("GET", "proxy/hpclab/status").status_code == 503
    # and all over again
    assert server.post("hpclab/start", {"queue": "local"})["name"] != name


def test_one_that_was_started_in_a_terminal_is_found(a_plain_jupyterlab: tuple[Server, Home]) -> None:
    server, home = a_plain_jupyterlab
    assert state(server) == "none"
    name = home.start().name
    until(lambda: state(server) == "running", what="it to be found")
    assert server.session()["name"] == name


def test_why_a_session_failed_can_be_read(a_plain_jupyterlab: tuple[Server, Home]) -> None:
    server, home = a_plain_jupyterlab
    config = Path(home.environ["XDG_CONFIG_HOME"], "hpclab/config.toml")
    config.parent.mkdir(parents=True)
    config.write_text("mpiexec = 'no-such-launcher'\n")
    server.post("hpclab/start", {"queue": "local"})
    until(lambda: state(server) == "failed", within_s=60, what="it to fail")
    session = server.session()
    assert "no-such-launcher" in session["reason"]
    told = server.get(f"hpclab/jobs/{session['jobs'][0]['id']}/why")
    assert "no-such-launcher" in told["log_tail"]
    # it does not stand in the way of another
    config.unlink()
    assert server.post("hpclab/start", {"queue": "local"})["name"] != session["name"]


def test_a_mistake_in_the_users_settings_is_told(a_plain_jupyterlab: tuple[Server, Home]) -> None:
    server, home = a_plain_jupyterlab
    config = Path(home.environ["XDG_CONFIG_HOME"], "hpclab/config.toml")
    config.parent.mkdir(parents=True)
    config.write_text("walltime = 'soon'\n")
    answer = server.ask("POST", "hpclab/start", {"queue": "local"})
    assert (answer.status_code, answer.json()["error"]) == (400, "ConfigError")
    assert "config.toml:1" in answer.json()["message"]
    assert state(server) == "none"
