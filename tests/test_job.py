"""The values of jobs: sums, finality, records to and from JSON, and the meaning of exit statuses."""

from __future__ import annotations

import dataclasses
import json

import pytest
from fixtures import job_record, job_spec

from hpclab.job import Chunk, JobExit, JobRecord, JobState, Place, Program, Shape, exit_meaning


def test_a_job_asks_for_the_sum_of_its_chunks():
    spec = job_spec()
    assert (spec.cores, spec.memory_bytes) == (1 + 3 * 2, 2**30 + 3 * 2**31)


@pytest.mark.parametrize(
    ("chunks", "tasks", "gpus", "is_uniform"),
    [
        ([(1, 1, 0)], 1, 0, True),
        ([(1, 1, 0), (3, 2, 2)], 4, 6, False),
        ([(1, 2, 1), (3, 2, 1)], 4, 4, True),
    ],
)
def test_its_tasks_are_those_of_all_chunks(chunks, tasks, gpus, is_uniform):
    given = tuple(Chunk(count=n, cores=cores, memory_bytes=2**30, gpus=gpus) for n, cores, gpus in chunks)
    spec = job_spec(chunks=given)
    assert (spec.tasks, spec.gpus, spec.is_uniform) == (tasks, gpus, is_uniform)


def test_a_shape_is_written_as_users_write_it():
    assert str(Shape(nodes=4, cores=16)) == "4x16"


@pytest.mark.parametrize(
    ("number", "told"),
    [(1, "1st"), (2, "2nd"), (3, "3rd"), (4, "4th"), (11, "11th"), (12, "12th"), (13, "13th"), (21, "21st"),
     (110, "110th"), (112, "112th"), (122, "122nd")],
)  # fmt: skip
def test_a_place_is_told_as_people_say_it(number, told):
    assert str(Place(number=number, of=200)) == f"{told} of 200 waiting"


def test_who_does_not_wait_has_no_place():
    assert Place.among(["7", "8", "9"], "9") == Place(number=3, of=3)
    assert Place.among(["7", "8", "9"], "10") is None


def test_values_are_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        job_spec().name = "other"


@pytest.mark.parametrize("state", JobState)
def test_only_what_cannot_change_any_more_is_final(state):
    assert state.is_final == (state.value in ("done", "failed", "cancelled", "gone"))


def test_unknown_is_not_gone():
    assert not JobState.UNKNOWN.is_final


@pytest.mark.parametrize("record", [job_record("main"), job_record("worker", workers=4)])
def test_a_record_survives_json(record):
    assert JobRecord.from_dict(json.loads(json.dumps(record.to_dict()))) == record


@pytest.mark.parametrize(
    "changes",
    [
        {"workers": None},
        {"cores": "two"},
        {"memory_bytes": [1]},
        {"walltime_s": float("nan")},
        {"walltime_s": float("inf")},
    ],
)
def test_what_is_not_a_record_is_refused(changes):
    with pytest.raises((KeyError, TypeError, ValueError)):
        JobRecord.from_dict({**job_record().to_dict(), **changes})


def test_a_record_of_an_older_version_has_no_gpus():
    given = job_record().to_dict()
    del given["gpus"]
    assert JobRecord.from_dict(given).gpus == 0


@pytest.mark.parametrize("missing", ["role", "workers", "cores", "memory_bytes", "walltime_s"])
def test_a_record_without_a_field_is_refused(missing):
    given = job_record().to_dict()
    del given[missing]
    with pytest.raises(KeyError):
        JobRecord.from_dict(given)


@pytest.mark.parametrize("exit_status", JobExit)
def test_every_exit_status_of_ours_has_a_meaning(exit_status):
    assert exit_meaning(int(exit_status)) == exit_status.meaning


@pytest.mark.parametrize(
    ("exit_status", "meaning"), [(1, "exit status 1"), (137, "its supervisor was killed by signal 9")]
)
def test_other_exit_statuses_are_told_plainly(exit_status, meaning):
    assert exit_meaning(exit_status) == meaning


ODD = Program(script="my model.py", folder="/home/ada", arguments=("a\nb", "'", "ü", ""))


def test_a_program_goes_through_one_line_and_comes_back():
    assert "\n" not in ODD.to_text()
    assert ODD.to_text().isascii()
    assert Program.from_dict(json.loads(ODD.to_text())) == ODD


@pytest.mark.parametrize("change", [{"script": 1}, {"folder": None}, {"arguments": [1]}, {"arguments": None}])
def test_what_is_no_program_is_refused(change):
    with pytest.raises((ValueError, TypeError)):
        Program.from_dict({**dataclasses.asdict(ODD), **change})


@pytest.mark.parametrize(
    ("script", "path"),
    [("model.py", "/home/ada/model.py"), ("src/model.py", "/home/ada/src/model.py"), ("/x/model.py",) * 2],
)
def test_a_script_is_named_as_the_user_does_and_found_from_anywhere(script, path):
    program = Program(script=script, folder="/home/ada")
    assert (program.name, program.path) == ("model.py", path)
