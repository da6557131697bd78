"""Whatever a batch system answers: a value or UnreadableOutput, and never another exception."""

from __future__ import annotations

import importlib.util
from contextlib import suppress
from math import isfinite

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from batch.transcripts import DATA, answered, transcript, transcripts
from hpclab.batch import BATCH_SYSTEMS
from hpclab.errors import UnreadableOutput

NAMES = ["local", "slurm", "pbs", "torque", "sge", "lsf"]
MODULES = dict(BATCH_SYSTEMS) | {
    name: importlib.import_module(f"hpclab.batch.{name}")
    for name in NAMES
    if name not in BATCH_SYSTEMS and importlib.util.find_spec(f"hpclab.batch.{name}")
}
# the systems whose answers are recorded; of the others, those of a relative
RECORDED = {"slurm": "slurm", "pbs": "pbs", "torque": "pbs", "sge": "sge"}

each = pytest.mark.parametrize("name", MODULES)
quickly = settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.too_slow])
exit_statuses = st.sampled_from([0, 0, 0, 1, 35, 127, 153, 255]) | st.integers(-20, 300)

LINES = [
    '{"id": "1", "state": "RUNNING", "start_time": 1.0, "exit_code": null, "signal": null}',
    "123|R|None|2026-11-20T23:13:33|0:0|node[1-2]",
    "1|4294901752|ada|regular|Priority",
    "9_[1-5]|4294901753|bob|regular,gpu|Resources",
    "Job Id: 1.vm",
    "    job_state = F",
    "    Exit_status = -29",
    "    stime = Fri Nov 20 23:13:33 2026",
    "<job_list state='running'><JB_job_number>1</JB_job_number></job_list>",
    "Job <123> is submitted to queue <normal>.",
]
NASTY = ["9" * 400, "-1", "0", "1e999", "NaN", "٣", "\ud800", "\x00", "\x85", "31:99:99", "", "null", "{}"]


def recorded(name: str) -> list[str]:
    """What a batch system was recorded to say, each text once, the long ones cut to stay quick."""
    system = RECORDED.get(name, "")
    if not (DATA / system).is_dir() or not system:
        return LINES
    steps = [step for case in transcripts(system) for step in transcript(system, case)]
    return sorted({text[:6000] for step in steps for text in (step.stdout, step.stderr) if text.strip()}) + LINES


TEXTS = {name: recorded(name) for name in MODULES}


@st.composite
def mutations(draw: st.DrawFn, name: str) -> str:
    """A recorded answer after an accident: cut, spliced, with its lines shuffled, or with other numbers in it."""
    text = draw(st.sampled_from(TEXTS[name]))
    for accident in draw(st.lists(st.sampled_from(["cut", "splice", "shuffle", "number", "insert"]), max_size=3)):
        where = draw(st.integers(0, len(text)))
        if accident == "cut":
            text = text[:where]
        elif accident == "splice":
            text = text[:where] + draw(st.sampled_from(TEXTS[name]))
        elif accident == "shuffle":
            lines = text.splitlines(keepends=True)
            draw(st.randoms(use_true_random=False)).shuffle(lines)
            text = "".join(lines)
        elif accident == "number":
            nasty = draw(st.sampled_from(NASTY))
            text = text[:where] + "".join(nasty if letter.isdecimal() else letter for letter in text[where:][:80])
        else:
            text = text[:where] + draw(st.sampled_from(NASTY)) + text[where:]
    return text


def read(name: str, stdout: str, stderr: str, exit_status: int, count: int = 1) -> None:
    batch = MODULES[name]
    result = answered(stdout, stderr, exit_status)
    for parse in (batch.parse_status, batch.parse_history):
        with suppress(UnreadableOutput):
            for job_id, status in parse(result).items():
                assert status.job_id == job_id
                assert all(t is None or isfinite(t) for t in (status.start_time, status.end_time))
    with suppress(UnreadableOutput):
        assert isfinite(batch.parse_estimate(result))
    with suppress(UnreadableOutput):
        place = batch.parse_place(result, "1")
        assert place is None or 1 <= place.number <= place.of
    with suppress(UnreadableOutput):
        assert isinstance(batch.parse_queues(result), list)
    with suppress(UnreadableOutput):
        assert len(set(batch.parse_job_ids(stdout, count))) == count
    assert isinstance(batch.is_cancelled(result), bool)


@each
@quickly
@given(stdout=st.text(), stderr=st.text(), exit_status=exit_statuses)
def test_any_text_is_read_or_unreadable(name, stdout, stderr, exit_status):
    read(name, stdout, stderr, exit_status)


@each
@quickly
@given(data=st.data(), exit_status=exit_statuses)
def test_an_answer_after_an_accident_is_read_or_unreadable(name, data, exit_status):
    stdout, stderr = data.draw(mutations(name)), data.draw(st.just("") | mutations(name))
    count = data.draw(st.integers(1, 3)) if MODULES[name].HAS_ARRAYS else 1
    read(name, stdout, stderr, exit_status, count)


@each
def test_every_recorded_answer_is_read_or_unreadable(name):
    for text in TEXTS[name]:
        read(name, text, "", 0)
        read(name, "", text, 1)
