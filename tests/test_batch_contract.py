"""What every batch system must be: a pure module with all of the Protocol. A new one is tested here at once."""

from __future__ import annotations

import inspect
import types

import pytest
from fixtures import job_spec

from hpclab.batch import BATCH_SYSTEMS, BatchSystem, parse_queue
from hpclab.errors import ConfigError, UnreadableOutput

FUNCTIONS = [name for name, _ in inspect.getmembers(BatchSystem, inspect.isfunction) if not name.startswith("_")]
each = pytest.mark.parametrize("batch", BATCH_SYSTEMS.values(), ids=BATCH_SYSTEMS)


@each
def test_it_is_a_module(batch):
    assert isinstance(batch, types.ModuleType)
    assert batch.__doc__


@each
@pytest.mark.parametrize("name", BatchSystem.__annotations__)
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
@pytest.mark.parametrize("spec", [job_spec(), job_spec(partition="", extra=("--site=1",), options={"slots": "3"})])
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
@pytest.mark.parametrize("command", ["status_command", "cancel_command"])
def test_one_command_is_for_all_jobs(batch, command):
    ids = [str(number) for number in range(200)]
    text = " ".join(getattr(batch, command)(ids)).replace(",", " ").split()
    assert set(ids) <= set(text)


@each
def test_it_refuses_silence_for_a_job_id(batch):
    with pytest.raises(UnreadableOutput):
        batch.parse_job_id("")


@each
def test_it_knows_no_jobs_from_silence(batch):
    assert dict(batch.parse_status("")) == {}


# queues


@pytest.mark.parametrize("queue", [*BATCH_SYSTEMS, "auto"])
def test_a_queue_is_a_batch_system(queue):
    assert parse_queue(queue)[0] in BATCH_SYSTEMS


@pytest.mark.parametrize(
    ("queue", "hint"),
    [
        ("locl", "did you mean 'local'?"),
        ("Local", "did you mean 'local'?"),
        ("local:fast", "say --queue local"),
        ("kubernetes", "known: auto, local"),
        ("", "known: auto, local"),
        (":regular", "known: auto, local"),
    ],
)
def test_an_unknown_queue_is_refused_with_what_is_known(queue, hint):
    with pytest.raises(ConfigError) as refused:
        parse_queue(queue)
    assert repr(queue) in str(refused.value)
    assert hint in str(refused.value)
