"""Which session a server shows."""

from __future__ import annotations

from pathlib import Path

import pytest
from fixtures import CREDENTIALS, NOON, job_record, session_record, settings

from hpclab.errors import NoSuchSession
from hpclab.hosts.local import LocalHost
from hpclab.server import whose as module
from hpclab.server.answer import HINT
from hpclab.server.whose import Whose
from hpclab.store import Store


@pytest.fixture
def a_home(tmp_path):
    """a_home(calm_otter="slurm") makes sessions; the environment of a user who has no others."""
    env = {
        "HPCLAB_HOME": str(tmp_path / "home"),
        "HPCLAB_LOCALQ_DIR": str(tmp_path / "localq"),
        "PATH": str(tmp_path / "bin"),
    }
    host = LocalHost(env)

    def make(**systems: str) -> dict[str, str]:
        for key, system in systems.items():
            name = key.replace("_", "-")
            store = Store(host, settings())
            store.make(session_record(name, system=system, host=host.name), CREDENTIALS, {})
            store.add_jobs(name, ["1"], job_record("main"), NOON)
        return env

    return make


@pytest.fixture(autouse=True)
def all_are_alive(monkeypatch):
    monkeypatch.setattr("hpclab.session.ALIVE", ("ended", "unknown"))


def test_within_a_session_it_is_that_one(a_home):
    env = a_home(calm_otter="local", old_owl="local") | {"HPCLAB_SESSION": "old-owl"}
    assert Whose(env).session().name == "old-owl"


def test_one_that_was_started_from_here_comes_before_others(a_home):
    whose = Whose(a_home(calm_otter="local", old_owl="local"))
    whose.started(Whose(a_home() | {"HPCLAB_SESSION": "old-owl"}).session())
    assert whose.session().name == "old-owl"


def test_the_only_one_here_is_found(a_home):
    assert Whose(a_home(calm_otter="local")).session().name == "calm-otter"


def test_where_there_is_none_it_is_said_how_to_start_one(a_home):
    with pytest.raises(NoSuchSession) as error:
        Whose(a_home()).session()
    assert str(error.value) == HINT


def test_of_several_none_is_guessed(a_home):
    with pytest.raises(NoSuchSession, match="several sessions are running: calm-otter, old-owl"):
        Whose(a_home(calm_otter="local", old_owl="local")).session()


def test_one_of_a_cluster_has_a_jupyterlab_of_its_own(a_home):
    with pytest.raises(NoSuchSession, match=r"is on slurm.*\n.*hpclab attach calm-otter"):
        Whose(a_home(calm_otter="slurm")).session()


def test_it_is_not_searched_for_at_each_look(a_home, monkeypatch):
    clock = [100.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: clock[0])
    whose = Whose(a_home())
    with pytest.raises(NoSuchSession):
        whose.session()
    a_home(calm_otter="local")
    with pytest.raises(NoSuchSession):
        whose.session()
    clock[0] += module.SEARCH_EVERY_S
    assert whose.session().name == "calm-otter"


def test_one_that_has_ended_makes_room(a_home, monkeypatch):
    whose = Whose(a_home(calm_otter="local"))
    view = whose.session().view()
    a_home(old_owl="local")
    assert whose.session().name == "calm-otter"
    whose.seen(view)  # ended, in truth
    with pytest.raises(NoSuchSession, match="several"):
        whose.session()


def test_one_whose_folder_was_removed_is_forgotten(a_home):
    whose = Whose(a_home(calm_otter="local"))
    Store(whose.host, settings()).remove(whose.session().name)
    for told in ("no session 'calm-otter'", "no session is running"):
        with pytest.raises(NoSuchSession, match=told):
            whose.session()


def test_a_name_from_the_environment_leads_nowhere_else(a_home):
    with pytest.raises(Exception, match="name"):
        Whose(a_home() | {"HPCLAB_SESSION": "../../etc"}).session()


def test_nothing_is_looked_at_before_somebody_asks(tmp_path):
    Whose({"HPCLAB_HOME": str(tmp_path / "home")})
    assert list(Path(tmp_path).iterdir()) == []
