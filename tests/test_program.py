"""The script of a run: what is refused, its output piece by piece, and whose end it was."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from fixtures import folder, happens, host_that_answers, job_record, localq_status, settings, with_jobs

from hpclab import program as program_module
from hpclab import session as session_module
from hpclab.errors import ConfigError, JobEnded
from hpclab.hosts.local import LocalHost
from hpclab.hosts.recording import RecordingHost
from hpclab.job import JobExit, Program
from hpclab.program import STDERR, STDOUT, Printed, checked_program, ending, printed
from hpclab.session import Session

HERE = folder()
MODEL = Program(script="model.py", folder="/home/ada/work", arguments=("--fast",))
BEGAN = [("started", {"node": "n1"}), ("script", {"script": "model.py", "node": "n1"})]
ENDED = [*BEGAN, ("script_ended", {"script": "model.py", "exit_status": 7}), ("ending", {"reason": "model.py ended"})]
TOLD = [*ENDED[:-1], ("ending", {"reason": JobExit.TERMINATED.meaning}), ("exited", {"exit_status": 143})]
DIED = [*BEGAN, ("ending", {"reason": "the Dask scheduler died"}), ENDED[2], ("exited", {"exit_status": 44})]


@pytest.fixture(autouse=True)
def no_patience(monkeypatch):
    monkeypatch.setattr(session_module, "CANCEL_GRACE_S", 0)
    monkeypatch.setattr(program_module, "CANCEL_GRACE_S", 0)
    monkeypatch.setattr(program_module, "TELLS_WITHIN_S", 0)
    monkeypatch.setattr(program_module, "ASK_EVERY_S", -1)
    monkeypatch.setattr(program_module.time, "sleep", lambda _: None)


def a_run(*answers: tuple[int, str, str]) -> tuple[Session, RecordingHost]:
    host = with_jobs(host_that_answers(*answers), jobs=[job_record("main")], program=MODEL)
    session = Session.open(host, settings(), HERE.name)
    session._queue._fresh_s = -1
    return session, host


# before it is submitted


@pytest.fixture
def here(tmp_path) -> LocalHost:
    return LocalHost({"HPCLAB_HOME": str(tmp_path / "hpclab")})


def test_a_script_is_found_where_the_user_is(here, tmp_path):
    (tmp_path / "model.py").write_text("print(1)\n")
    program = checked_program(here, "model.py", ["--fast"], folder=str(tmp_path))
    assert (program.name, program.path) == ("model.py", str(tmp_path / "model.py"))
    assert checked_program(here, program.path, [], folder="/").path == program.path


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("nothing.py", "No such file"),
        ("folder", "not a regular file"),
        ("pipe", "not a regular file"),
        ("empty.py", "is empty"),
        ("model.py/more", "Not a directory"),
    ],
)
def test_what_is_no_script_is_refused(here, tmp_path, name, said):
    (tmp_path / "model.py").write_text("print(1)\n")
    (tmp_path / "empty.py").write_text(" \n\n")
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ConfigError, match=said) as refused:
        checked_program(here, name, [], folder=str(tmp_path))
    assert "nothing was submitted" in str(refused.value)


@pytest.mark.skipif(not os.geteuid(), reason="root may read everything")
def test_a_script_that_may_not_be_read_is_refused(here, tmp_path):
    Path(tmp_path / "model.py").touch(mode=0o000)
    with pytest.raises(ConfigError, match="Permission denied"):
        checked_program(here, "model.py", [], folder=str(tmp_path))


# what it prints


def test_what_was_printed_comes_in_pieces_from_the_beginning(monkeypatch):
    monkeypatch.setattr("hpclab.store.PIECE_BYTES", 4)
    session, host = a_run()
    host.files |= {HERE.stdout: "abcdefghij", HERE.stderr: "oh"}
    happens(host, "1", *ENDED)
    pieces = list(printed(session))
    assert pieces[:2] == [Printed(stream=STDOUT, data=b"abcd"), Printed(stream=STDERR, data=b"oh")]
    assert b"".join(piece.data for piece in pieces if piece.stream == STDOUT) == b"abcdefghij"
    assert max(len(piece.data) for piece in pieces) == 4


def test_what_comes_later_comes_too_and_the_last_of_it_as_well():
    session, host = a_run(*[localq_status(job1="RUNNING")] * 4)
    host.files[HERE.stdout] = "first "
    happens(host, "1", *BEGAN)
    pieces = printed(session)
    assert next(pieces).data == b"first "
    host.files[HERE.stdout] += "second"
    happens(host, "1", *ENDED)
    assert [piece.data for piece in pieces] == [b"second"]


def test_a_job_that_ends_without_a_word_ends_the_output():
    session, host = a_run(localq_status(job1="RUNNING"), *[localq_status(job1="FAILED")] * 2)
    host.files[HERE.stdout] = "all that there was"
    happens(host, "1", *BEGAN)
    assert [piece.data for piece in printed(session)] == [b"all that there was"]


# how it ends


def test_the_scripts_exit_status_is_told():
    session, host = a_run(localq_status(job1="FAILED"))
    happens(host, "1", *ENDED)
    assert ending(session) == 7


@pytest.mark.parametrize(
    ("events", "state", "said"),
    [
        (TOLD, "TIMEOUT", "failed"),
        (TOLD, "CANCELLED", "cancelled"),
        (DIED, "FAILED", "the Dask scheduler died"),
        (BEGAN, "FAILED", "failed"),
    ],
)
def test_an_end_that_was_not_the_scripts_own_is_told_with_its_reason(events, state, said):
    session, host = a_run(*[localq_status(job1=state)] * 4)
    happens(host, "1", *events)
    with pytest.raises(JobEnded, match=r"before model\.py had ended by itself") as told:
        ending(session)
    assert said in str(told.value)
    assert f"hpclab why --session {HERE.name}" in str(told.value)


def test_where_the_batch_system_starts_it_again_the_output_begins_anew(monkeypatch):
    """First its shell begins again; then its supervisor empties the files; and then the script prints."""
    session, host = a_run(*[localq_status(job1="RUNNING")] * 9)

    def steps():
        happens(host, "1", *BEGAN, BEGAN[0])
        yield
        host.files[HERE.stdout] = ""
        yield
        happens(host, "1", *BEGAN, *BEGAN)
        host.files[HERE.stdout] = "anew"
        yield
        happens(host, "1", *BEGAN, *ENDED)
        yield

    happens(host, "1", *BEGAN)
    host.files[HERE.stdout] = "a long beginning"
    going = steps()
    monkeypatch.setattr(program_module.time, "sleep", lambda _: next(going))
    assert [piece.data for piece in printed(session)] == [b"a long beginning", b"anew"]
