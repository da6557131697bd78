"""A user whose jobs are stubs, and a plain JupyterLab of theirs: one for all tests of a module."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from login_here import a_users_home

from .a_server import Server, a_server


@pytest.fixture(scope="module")
def a_plain_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    path: Path = tmp_path_factory.mktemp("plain")
    with a_users_home(path) as env, a_server(path, env) as server:
        yield server


@pytest.fixture(scope="module")
def a_server_with_a_session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Its main job is up, as far as a stub can be."""
    path: Path = tmp_path_factory.mktemp("with-a-session")
    with a_users_home(path) as env, a_server(path, env) as server:
        server.post("hpclab/start", {"queue": "local"})
        server.session_when(lambda session: session["state"] == "running")
        yield server
