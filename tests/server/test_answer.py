"""What is sent has the shape that the front end reads, and nothing secret."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from fixtures import NOON, TOKEN, folder, job_record, session_view, settings

from hpclab.config import load
from hpclab.event import Event
from hpclab.job import JobState, JobStatus
from hpclab.request import Request
from hpclab.server import answer as module
from hpclab.server.answer import HINT, answer, defaults, log, no_session, story
from hpclab.session import Story
from hpclab.store import Activity
from hpclab.view import JobView

PANEL = json.loads((Path(__file__).parents[1] / "data/panel.json").read_text())
REQUEST = Request(folder=folder(), system="local", partition="", settings=settings(), python="python")


def job(job_id="1", role="main", **changes):
    status = JobStatus(job_id=job_id, state=JobState.RUNNING, start_time=NOON, end_time=NOON + 3600)
    return JobView(
        job_id=job_id, record=job_record(role, **changes), submit_time=NOON, status=status, joined=1, has_joined=True
    )


def view(*jobs, **changes):
    return session_view(*(jobs or (job(),)), now=NOON + 60, **changes)


def shape(value):
    """Names and kinds, all the way down."""
    if isinstance(value, dict):
        return {key: shape(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [shape(value[0])] if value else []
    return "number" if isinstance(value, int | float) and not isinstance(value, bool) else type(value).__name__


def test_an_answer_has_the_shape_that_the_panel_reads():
    told = answer(view(), Activity(samples=((NOON, 1.0),)), REQUEST, waiting="", trouble="")
    assert set(told) == set(PANEL)
    for key in ("history", "defaults", "waiting", "trouble", "dashboard", "hint", "now"):
        assert shape(told[key]) == shape(PANEL[key]), key
    assert set(told["session"]) == set(PANEL["session"])
    assert set(told["session"]["jobs"][0]) == set(PANEL["session"]["jobs"][0])


def test_without_a_session_it_is_the_same_with_nothing_in_it():
    told = no_session(HINT, job_record(), trouble="", now=NOON)
    assert set(told) == set(PANEL)
    assert (told["session"], told["dashboard"]) == (None, "")
    assert {key: [] for key in PANEL["history"]} == told["history"]
    assert "hpclab start" in told["hint"]


def test_the_dashboard_is_where_the_panel_expects_it():
    assert answer(view(), Activity(), REQUEST, waiting="", trouble="")["dashboard"] == PANEL["dashboard"]
    assert answer(view(connection=None), Activity(), REQUEST, waiting="", trouble="")["dashboard"] == ""


def test_the_token_is_not_in_it():
    told = answer(view(), Activity(), REQUEST, waiting="", trouble="")
    assert TOKEN not in json.dumps(told)
    assert "token" not in json.dumps(told)


@pytest.mark.parametrize(
    ("memory_bytes", "words"), [(2**31, "2G"), (3 * 2**29, "1536M"), (2**40, "1T"), (2**30 + 1, "1025M")]
)
def test_a_form_begins_with_words_that_it_takes_back(memory_bytes, words):
    told = defaults(job_record(cores=3, memory_bytes=memory_bytes, walltime_s=5400))
    assert told == {"count": 1, "cores": "3", "memory": words, "walltime": "1:30:00"}
    asked = {key: told[key] for key in ("cores", "memory")} | {"worker_walltime": told["walltime"]}
    back = load({}, [], asked)[0]
    assert (back.cores, back.worker_walltime_s) == (3, 5400)
    assert memory_bytes <= back.memory_bytes < memory_bytes + 2**20


def test_it_begins_as_the_last_worker_was_asked_for():
    both = (job(), job("2", "worker", cores=5), job("3", "worker", cores=7))
    assert answer(view(*both), Activity(), REQUEST, waiting="", trouble="")["defaults"]["cores"] == "7"
    assert answer(view(), Activity(), REQUEST, waiting="", trouble="")["defaults"] == defaults(REQUEST.worker_record())


def test_a_story_is_told_in_sentences():
    events = (Event(time=NOON, what="submitted", details={"queue": "local"}),)
    told = story(Story(job=job(), events=events, log_tail="the end"), NOON)
    assert told["events"] == [{"time": NOON, "what": "submitted", "sentence": "submitted to local"}]
    assert told["log_tail"] == "the end"
    assert set(told["job"]) == set(PANEL["session"]["jobs"][0])


def test_a_log_says_whether_it_is_longer():
    assert log("a\nb", 2) == {"text": "a\nb", "is_cut": False}
    assert log("a\nb\nc", 2) == {"text": "b\nc", "is_cut": True}
    assert log("", 2) == {"text": "", "is_cut": False}


def test_one_of_very_long_lines_is_cut_too(monkeypatch):
    monkeypatch.setattr(module, "LONG_LINE_BYTES", 10)
    assert log("x" * 25, 2)["is_cut"]
    assert not log("x" * 15, 2)["is_cut"]
