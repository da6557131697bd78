"""What people see: tables that fit into 80 columns, and text with everything needed next."""

from __future__ import annotations

import io
import itertools
import time
from dataclasses import replace

import pytest
from fixtures import NOON, connection, job_record, session_view
from rich.console import Console

from hpclab.config import load
from hpclab.event import Event
from hpclab.follow import Phase
from hpclab.growth import Change, Offer
from hpclab.job import JobState, JobStatus, Program, Shape
from hpclab.session import Story
from hpclab.show import (
    change_text,
    config_table,
    connection_text,
    detached_text,
    offers_table,
    phase_text,
    sessions_table,
    status_text,
    story_text,
    submitted_text,
)
from hpclab.view import JobView, ProgramView, unreadable

LONG_NODE = "c2-n0417.compute.scientific-cluster.example.org"
LONG_REASON = "waits for slots: needs 16, 1 of 128 are free, and then there is more to be said about it"


def a_job(job_id: str, role: str, state: JobState, **more: object) -> JobView:
    status = JobStatus(job_id=job_id, state=state, **more)
    return JobView(job_id=job_id, record=job_record(role), submit_time=NOON, status=status, joined=1)


MAIN = a_job("1", "main", JobState.RUNNING, node="node17", end_time=NOON + 5000)
QUEUED = a_job("2", "worker", JobState.PENDING, reason="waits for slots")
SESSION = session_view(MAIN, QUEUED)
LONG = replace(
    SESSION,
    name="x" * 32,
    queue="local:a-queue-with-a-long-name",
    jobs=(
        a_job("1234567.pbs01", "main", JobState.RUNNING, node=LONG_NODE, end_time=NOON + 5000),
        a_job("1234568[2].pbs01", "worker", JobState.PENDING, reason=LONG_REASON),
        a_job("1234569.pbs01", "worker", JobState.FAILED, reason=LONG_REASON, node=LONG_NODE),
    ),
    connection=connection(node=LONG_NODE),
)


def shown(what: object, width: int = 80) -> list[str]:
    """The lines as the command line prints them."""
    file = io.StringIO()
    Console(file=file, width=width, highlight=False, soft_wrap=True).print(what)
    return file.getvalue().splitlines()


def table(lines: list[str]) -> list[str]:
    """A table's head and all below it, up to a line that is empty."""
    rule = next(number for number, line in enumerate(lines) if "──" in line)
    return [*itertools.takewhile(str.strip, lines[rule - 1 :])]


# widths


@pytest.mark.parametrize("width", [80, 100, 132])
@pytest.mark.parametrize("session", [SESSION, LONG], ids=["short", "long"])
@pytest.mark.parametrize(
    "what",
    [
        lambda s: status_text(s.describe()),
        lambda s: sessions_table([s.describe(), unreadable("y" * 32, "/x", LONG_REASON).describe()]),
        lambda s: story_text(Story(job=s.jobs[0], events=(Event(time=NOON, what=LONG_REASON),), log_tail="")),
    ],
    ids=["status", "list", "why"],
)
def test_no_line_of_a_table_is_wider_than_the_terminal(what, session, width):
    assert max(map(len, table(shown(what(session), width)))) <= width


def test_in_80_columns_the_ids_of_jobs_can_be_copied():
    text = "\n".join(shown(status_text(LONG.describe())))
    for job in LONG.jobs:
        assert job.job_id in text


def test_in_80_columns_the_names_of_sessions_can_be_copied():
    assert "x" * 32 in "\n".join(shown(sessions_table([LONG.describe()])))


def test_in_80_columns_state_and_reason_can_be_read():
    lines = shown(status_text(LONG.describe()))
    for state in ("running", "pending", "failed"):
        assert state in "\n".join(table(lines))
    assert "waits for slots" in " ".join(lines)
    assert len(lines) < 25


def test_in_80_columns_the_list_tells_the_state_of_a_session_with_a_long_name():
    assert "running" in "\n".join(shown(sessions_table([LONG.describe()])))


# status


def test_the_status_tells_state_reason_size_and_time_left():
    text = "\n".join(shown(status_text(SESSION.describe()), 120))
    for words in ["calm-otter  running", "on node17", "1 h 23 min left", "2 workers", "waits for slots", "1 of 1"]:
        assert words in text


def test_a_session_that_does_not_run_says_why():
    failed = replace(SESSION, state="failed", reason="JupyterLab died", connection=None)
    assert "JupyterLab died" in "\n".join(shown(status_text(failed.describe())))


@pytest.mark.parametrize("text", ["[bold]", "[/]", "[red]x[/red]", "a [link=x] b", ":smile:"])
def test_what_others_say_is_no_markup(text):
    said = replace(
        SESSION, state="failed", reason=text, jobs=(a_job("1", "main", JobState.FAILED, reason=text),), connection=None
    )
    assert text in "\n".join(shown(status_text(said.describe()), 200))
    assert text in "\n".join(shown(sessions_table([said.describe()]), 200))
    story = Story(job=said.jobs[0], events=(Event(time=NOON, what="failed", details={"reason": text}),), log_tail=text)
    assert "\n".join(shown(story_text(story), 200)).count(text) == 3


# start and attach


def test_the_connection_is_all_that_is_needed():
    text = connection_text(SESSION.describe("5ecre7"))
    for words in [
        "ssh -N -L 8888:node17:40002 -L 8787:node17:40003 ada@login1",
        "http://127.0.0.1:8888/lab?token=5ecre7",
        "http://127.0.0.1:8787/status?token=5ecre7",
        "hpclab add-worker",
        "hpclab status",
        "hpclab stop",
    ]:
        assert words in text


def test_on_this_machine_the_links_work_as_they_stand_and_the_tunnel_is_for_others():
    here = connection(node="login1", jupyter_host="127.0.0.1", dashboard_host="127.0.0.1")
    text = connection_text(replace(SESSION, connection=here).describe("5ecre7"))
    for words in ["http://127.0.0.1:40002/lab?token=5ecre7", "ssh -N -L 8888:127.0.0.1:40002", "127.0.0.1:8888/lab?t"]:
        assert words in text


def test_links_and_tunnel_are_printed_in_one_line_each():
    token = "5ecre7" * 6
    lines = shown(connection_text(LONG.describe(token)), 40)
    assert len([line for line in lines if token in line]) == 2
    assert len([line for line in lines if "ssh -N" in line and line.endswith("ada@login1")]) == 1


@pytest.mark.parametrize(
    ("phase", "text"),
    [
        (Phase(what="queued", text="waits for slots", elapsed_s=1.25), "   1.2 s  queued: waits for slots"),
        (Phase(what="jupyter", text="JupyterLab up on port 1", elapsed_s=100), " 100.0 s  JupyterLab up on port 1"),
    ],
)
def test_a_phase_is_a_line(phase, text):
    assert phase_text(phase) == text


# growth


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (Change(), "nothing to do"),
        (Change(submit=1), "submitted 1 worker job"),
        (Change(submit=3), "submitted 3 worker jobs"),
        (
            Change(cancel=("7", "6"), retire=("2",)),
            "cancelled 7, 6, whose workers had not joined; 2 handed over its data and left",
        ),
    ],
)
def test_a_change_of_size_is_a_sentence(change, text):
    assert change_text(change) == text


def test_what_was_submitted_is_one_line_however_much_it_was():
    job_ids = [str(number) for number in range(2, 42)]
    assert submitted_text(job_ids[:2], "calm-otter") == "submitted 2, 3 to calm-otter"
    assert submitted_text(job_ids, "calm-otter") == "submitted 40 jobs, 2 to 41, to calm-otter"


def test_the_offers_are_compared():
    now = time.time()
    offers = [
        Offer(shape=Shape(nodes=1, cores=4), start_time=now),
        Offer(shape=Shape(nodes=1, cores=16), start_time=now + 7500),
        Offer(shape=Shape(nodes=4, cores=16), start_time=None, refusal="sbatch: not [available]"),
    ]
    lines = [line.split() for line in shown(offers_table(offers, offers[0]))]
    assert ["1x4", "taken", "now"] in lines
    assert ["4x16", "no:", "sbatch:", "not", "[available]"] in lines
    assert any(
        (line[:2] == ["1x16", "in"] and line[-2:] == ["04", "min"]) or line[-2:] == ["05", "min"] for line in lines
    )


# why and config


def test_the_story_of_a_job_that_failed():
    job = a_job("7", "worker", JobState.FAILED, reason="exit status 1")
    told = (Event(time=NOON, what="started", details={"node": "n1"}), Event(time=NOON + 3, what="joined"))
    text = "\n".join(shown(story_text(Story(job=job, events=told, log_tail="last\nwords"))))
    for words in ["job 7, worker: failed, exit status 1", "started on n1", "3.0 s", "  last\n  words"]:
        assert words in text


def test_a_story_without_events_can_be_told():
    assert shown(story_text(Story(job=QUEUED, events=(), log_tail="")))


def test_the_config_tells_value_and_source():
    _, chosen = load({"HPCLAB_CORES": "5"}, [], {})
    assert ["cores", "5", "$HPCLAB_CORES"] in [line.split() for line in shown(config_table(chosen))]


def test_the_config_shows_lines_as_they_are():
    _, chosen = load({"HPCLAB_PROLOGUE": "pip install 'x[all]'"}, [], {})
    assert "pip install 'x[all]'" in "\n".join(shown(config_table(chosen), 120))


# runs


PROGRAM = ProgramView(
    program=Program(script="/data/model.py", folder="/", arguments=("--name", "a b")),
    launch="mpi",
    has_begun=True,
    exit_status=None,
)
RUN = replace(SESSION, program=PROGRAM, connection=None)


def test_a_run_is_shown_with_its_script_and_without_words_about_notebooks():
    short = replace(RUN, jobs=(a_job("1", "main", JobState.RUNNING, node="node17", end_time=NOON + 60),))
    text = "\n".join(shown(status_text(short.describe())))
    assert "/data/model.py --name 'a b'" in text
    assert "60 s left" in text or "1 min left" in text
    assert "notebooks" not in text


def test_a_list_tells_runs_from_sessions():
    lines = shown(sessions_table([SESSION.describe(), RUN.describe()]))
    assert [line.rstrip().endswith("model.py") for line in table(lines)[2:]] == [False, True]
    assert max(map(len, table(lines))) <= 80
    assert "script" not in "\n".join(shown(sessions_table([SESSION.describe()])))


def test_a_run_that_nobody_waits_for_says_how_to_go_on():
    text = detached_text("calm-otter", "model.py")
    for command in ("hpclab status calm-otter", "hpclab attach calm-otter", "hpclab stop calm-otter"):
        assert command in text
