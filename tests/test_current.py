"""Which session this process is in, and which JupyterLab."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest
from fixtures import CREDENTIALS, NOON, job_record, session_record, settings

from hpclab.current import current_session, dashboard_here
from hpclab.errors import NoSuchSession
from hpclab.hosts.local import LocalHost
from hpclab.store import Store


@pytest.fixture
def a_home(tmp_path, monkeypatch):
    """A home with two sessions, none of which runs any more."""
    monkeypatch.setenv("HPCLAB_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HPCLAB_LOCALQ_DIR", str(tmp_path / "localq"))
    monkeypatch.delenv("HPCLAB_SESSION", raising=False)
    store = Store(LocalHost({"HPCLAB_HOME": str(tmp_path / "home")}), settings())
    for number, name in enumerate(["calm-otter", "wild-hare"]):
        store.make(session_record(name, created=NOON + number), CREDENTIALS, {})
        store.add_jobs(name, ["1"], job_record("main"), NOON)
        store.write(store.folder(name).over, "stopped\n")


@pytest.mark.usefixtures("a_home")
def test_the_named_one_goes_before_the_one_around_this_process(monkeypatch):
    monkeypatch.setenv("HPCLAB_SESSION", "calm-otter")
    assert current_session().name == "calm-otter"
    assert current_session("wild-hare").name == "wild-hare"


@pytest.mark.usefixtures("a_home")
def test_only_who_looks_gets_one_that_has_ended():
    assert current_session(or_latest=True).name == "wild-hare"
    with pytest.raises(NoSuchSession, match="hpclab start"):
        current_session()


@pytest.mark.usefixtures("a_home")
def test_a_mistake_in_the_users_config_stands_in_nobodys_way(monkeypatch):
    monkeypatch.setenv("HPCLAB_CORES", "many")
    assert current_session("calm-otter").name == "calm-otter"


@pytest.mark.parametrize(
    ("env", "link"),
    [
        ({}, ""),
        ({"HPCLAB_SESSION": "wild-hare"}, ""),
        ({"HPCLAB_SESSION": "calm-otter"}, "/proxy/hpclab/status"),
        (
            {"HPCLAB_SESSION": "calm-otter", "JUPYTERHUB_SERVICE_PREFIX": "/user/ada/"},
            "/user/ada/proxy/hpclab/status",
        ),
    ],
)
def test_the_dashboard_is_here_in_a_notebook_of_the_session(monkeypatch, env, link):
    for name in ("HPCLAB_SESSION", "JUPYTERHUB_SERVICE_PREFIX"):
        monkeypatch.delenv(name, raising=False)
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delitem(sys.modules, "jupyter_server.serverapp", raising=False)
    assert dashboard_here("calm-otter") == link


@pytest.mark.parametrize(("runs", "link"), [(True, "/lab-of-ada/proxy/hpclab/status"), (False, "")])
def test_the_dashboard_is_here_in_the_process_of_a_jupyterlab(monkeypatch, runs, link):
    monkeypatch.delenv("HPCLAB_SESSION", raising=False)
    server = SimpleNamespace(initialized=lambda: runs, instance=lambda: SimpleNamespace(base_url="/lab-of-ada/"))
    monkeypatch.setitem(sys.modules, "jupyter_server.serverapp", SimpleNamespace(ServerApp=server))
    assert dashboard_here("calm-otter") == link
