"""What every batch system must be: a pure module with all of the Protocol. A new one is tested here at once."""

from __future__ import annotations

import inspect
import types

import pytest
from batch.transcripts import answered
from fixtures import job_spec

from hpclab.batch import BATCH_SYSTEMS, BatchSystem, parse_queue
from hpclab.errors import ConfigError, UnreadableOutput

FUNCTIONS = [name for name, _ in inspect.getmembers(BatchSystem, inspect.isfunction) if not name.startswith("_")]
TEXTS = [name for name, kind in BatchSystem.__annotations__.items() if kind == "str"]
each = pytest.mark.parametrize("batch", BATCH_SYSTEMS.values(), ids=BATCH_SYSTEMS)
IDS = [str(number) for number in range(1000, 1200)]
ARRAY_SUBMITTED = {
    "slurm": "7\n",
    "pbs": "7[].server\n",
    "torque": "7[].server\n",
    "sge": "7.1-3:1\n",
    "lsf": "Job <7> is submitted to queue <normal>.\n",
}
"""What the systems answer when an array of 3 was submitted."""


@each
def test_it_is_a_module(batch):
    assert isinstance(batch, types.ModuleType)
    assert batch.__doc__


@each
@pytest.mark.parametrize("name", TEXTS)
def test_it_has_the_texts(batch, name):
    assert isinstance(getattr(batch, name), str)


@each
@pytest.mark.parametrize("name", FUNCTIONS)
def test_it_has_the_functions(batch, name):
    wanted = [*inspect.signature(getattr(BatchSystem, name)).parameters][1:]
    assert [*inspect.signature(getattr(batch, name)).parameters] == wanted


@each
def test_its_directives_are_comments_to_the_shell(batch):
    assert batch.DIRECTIVE.startswith("#")


@each
@pytest.mark.parametrize(
    "spec", [job_spec(), job_spec(partition="", extra=("--site=1",), options={"local_slots": "3"})]
)
def test_its_directives_are_lines_that_say_the_same_every_time(batch, spec):
    lines = batch.directives(spec)
    assert lines == batch.directives(spec)
    assert all(line and "\n" not in line for line in lines)
    assert set(spec.extra) <= set(lines)


@each
def test_its_commands_are_argv_lists(batch):
    commands = [batch.submit_command("a b.sh"), batch.status_command(["1", "2"]), batch.cancel_command(["1", "2"])]
    for argv in commands:
        assert isinstance(argv, list)
        assert all(isinstance(word, str) for word in argv)
    assert "a b.sh" in commands[0]


@each
@pytest.mark.parametrize("command", ["status_command", "history_command", "cancel_command"])
def test_one_command_is_for_all_jobs(batch, command):
    """Two hundred jobs are the command for one with more ids in it, and no second command."""

    def besides_ids(ids):
        words = " ".join(getattr(batch, command)(ids)).replace(",", " ").split()
        return [word for word in words if word not in ids]

    assert besides_ids(IDS) == besides_ids(IDS[:1])


@each
def test_all_jobs_are_cancelled_by_name(batch):
    assert set(IDS) <= set(" ".join(batch.cancel_command(IDS)).replace(",", " ").split())


@each
def test_it_refuses_silence_for_a_job_id(batch):
    for count in (1, 3):
        with pytest.raises(UnreadableOutput):
            batch.parse_job_ids("", count)


@pytest.mark.parametrize("name", [name for name, batch in BATCH_SYSTEMS.items() if batch.HAS_ARRAYS])
def test_the_tasks_of_an_array_are_jobs_of_their_own(name):
    ids = BATCH_SYSTEMS[name].parse_job_ids(ARRAY_SUBMITTED[name], 3)
    assert len(set(ids)) == 3
    assert all("7" in job_id and "/" not in job_id for job_id in ids)


@each
def test_only_an_array_is_submitted_as_one(batch):
    one, many = (batch.submit_command("a.sh", count=count, log="/logs/{job_id}.log") for count in (1, 3))
    assert (one != many) == batch.HAS_ARRAYS


@each
@pytest.mark.parametrize("parse", ["parse_status", "parse_history"])
def test_it_knows_no_jobs_from_silence(batch, parse):
    """Some systems say nothing where there is nothing; from others silence is no answer."""
    try:
        assert dict(getattr(batch, parse)(answered())) == {}
    except UnreadableOutput:
        pass


@each
def test_nobody_has_a_place_in_silence(batch):
    assert batch.parse_place(answered(), "1") is None


@each
def test_a_cancel_that_worked_is_one(batch):
    assert batch.is_cancelled(answered())


@each
def test_a_cancel_that_could_not_reach_the_server_is_none(batch):
    assert not batch.is_cancelled(
        answered(stderr="cannot connect to server head: Connection refused\n", exit_status=111)
    )


# queues


@pytest.mark.parametrize(
    ("queue", "parts"),
    [
        *[(name, (name, "")) for name in ("auto", *BATCH_SYSTEMS)],
        ("pbs:regular", ("pbs", "regular")),
        ("lsf:a:b", ("lsf", "a:b")),
    ],
)
def test_a_queue_is_a_batch_system_and_perhaps_a_queue_of_it(queue, parts):
    assert parse_queue(queue) == parts


@pytest.mark.parametrize(
    ("queue", "hint"),
    [
        ("locl", "did you mean 'local'?"),
        ("Local", "did you mean 'local'?"),
        ("local:fast", "say --queue local"),
        ("kubernetes", "known: auto, slurm, pbs, torque, sge, lsf, local"),
        ("", "known: auto, slurm, pbs, torque, sge, lsf, local"),
        (":regular", "known: auto, slurm, pbs, torque, sge, lsf, local"),
    ],
)
def test_an_unknown_queue_is_refused_with_what_is_known(queue, hint):
    with pytest.raises(ConfigError) as refused:
        parse_queue(queue)
    assert repr(queue) in str(refused.value)
    assert hint in str(refused.value)
