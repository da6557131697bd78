"""`hpclab.session()` at a plain prompt: the verbs of the command line, on a session whose jobs are stubs."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Iterator

import pytest
from login_here import a_users_home

import hpclab
from hpclab.config import load
from hpclab.errors import ConfigError, HpclabError, NoSuchJob, NoSuchSession, NotRunning
from hpclab.hosts.local import LocalHost
from hpclab.notebook import NotebookSession, Told
from hpclab.session import Session

BUTTONS = "application/vnd.jupyter.widget-view+json"


@pytest.fixture
def a_session(tmp_path, monkeypatch) -> Iterator[NotebookSession]:
    """It runs, as far as a stub can."""
    with a_users_home(tmp_path) as env:
        for name in ("HPCLAB_HOME", "HPCLAB_LOCALQ_DIR"):
            monkeypatch.setenv(name, env[name])
        monkeypatch.delenv("HPCLAB_SESSION", raising=False)
        Session.start(LocalHost(env), load(env, [], {})[0], name="calm-otter", notebook_dir=str(tmp_path))
        session = hpclab.session()
        until_its_state_is("running", session)
        yield session


def until_its_state_is(state: str, session: NotebookSession) -> None:
    deadline = time.monotonic() + 20
    while session.status()["state"] != state:
        assert time.monotonic() < deadline


def test_it_is_the_only_one_or_the_named_one(a_session):
    assert a_session.name == hpclab.session("calm-otter").name == "calm-otter"
    with pytest.raises(NoSuchSession, match="nobody"):
        hpclab.session("nobody")


def test_a_prompt_shows_what_the_command_line_shows(a_session):
    assert re.match(r"calm-otter  running · on .*\n *\n? ?job ", repr(a_session)), repr(a_session)
    assert "\x1b" not in repr(a_session)


def test_workers_are_added_as_they_are_asked_for(a_session):
    job_ids = a_session.add_worker(2, cores=1, memory="512M", walltime="30m")
    assert job_ids == ["2", "3"]
    jobs = {job["id"]: job for job in a_session.status()["jobs"]}
    for job_id in job_ids:
        asked = {key: jobs[job_id][key] for key in ("cores", "memory_bytes", "walltime_s")}
        assert asked == {"cores": 1, "memory_bytes": 512 * 2**20, "walltime_s": 1800}
    assert a_session.remove_worker(2) == "job 2 was cancelled"


def test_it_is_scaled_in_a_sentence(a_session):
    now = sum(job["workers"] for job in a_session.status()["jobs"])
    told = a_session.scale(now + 1)
    assert isinstance(told, Told)
    assert repr(told) == "submitted 1 worker job"


def test_a_job_tells_its_story_and_its_log(a_session):
    assert "JupyterLab" in a_session.why()
    assert "hello from hpclab.inside.main_job" in repr(a_session.log())
    assert a_session.why("1") == a_session.why(1)
    for wrong in ("9", "../../token"):
        with pytest.raises(NoSuchJob):
            a_session.log(wrong)


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"count": 0}, "count must be a whole number from 1 to 10000, not 0"),
        ({"count": 10**9}, "from 1 to 10000"),
        ({"count": "2"}, "not '2'"),
        ({"count": True}, "not True"),
        ({"cores": 0}, "cores must be a whole number of at least 1"),
        ({"cores": "four"}, "not 'four'"),
        ({"memory": "1M"}, "at least 256M"),
        ({"walltime": "soon"}, "soon"),
    ],
)
def test_what_makes_no_sense_is_refused_and_nothing_is_submitted(a_session, asked, said):
    with pytest.raises(ConfigError, match=said):
        a_session.add_worker(**asked)
    with pytest.raises(ConfigError):
        a_session.scale(-1)
    assert len(a_session.status()["jobs"]) == 1


def test_it_is_stopped_and_can_still_be_looked_at(a_session):
    assert a_session.stop() == "calm-otter has ended; 1 job cancelled"
    assert "ended" in repr(hpclab.session())
    with pytest.raises(NotRunning):
        hpclab.session().add_worker()


def test_what_cannot_be_shown_is_said(a_session, monkeypatch):
    monkeypatch.setitem(sys.modules, "ipywidgets", None)

    def refuse(*_: object) -> None:
        raise HpclabError("<b>the disk is gone</b>\nbring it back")

    monkeypatch.setattr(Session, "describe", refuse)
    assert repr(hpclab.session("calm-otter")) == "calm-otter: <b>the disk is gone</b>\nbring it back"
    shown = a_session._repr_mimebundle_()
    assert "&lt;b&gt;the disk is gone" in shown["text/html"]


def test_it_is_shown_as_html_and_as_text_and_with_buttons(a_session):
    shown = a_session._repr_mimebundle_()
    assert set(shown) == {"text/plain", "text/html", BUTTONS}
    assert "<strong>calm-otter</strong>" in shown["text/html"]
    assert a_session._repr_mimebundle_()[BUTTONS] == shown[BUTTONS]
    card, *rows, _ = a_session._widget.children
    assert [row.children[-1].description for row in rows] == ["Add worker", "Scale"]
    card.close()


def test_a_session_that_has_ended_has_no_buttons(a_session):
    a_session.stop()
    a_session._repr_mimebundle_()
    card, *rows, _ = a_session._widget.children
    assert rows == []
    card.close()
