"""Job scripts: their text, and what they do when bash runs them with a small program in place of hpclab's own."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import subprocess
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fixtures import folder, job_record, job_spec

from hpclab.batch import local
from hpclab.folder import SessionFolder
from hpclab.job import Chunk
from hpclab.localq.directives import parse_directives
from hpclab.script import job_script

DATA = Path(__file__).parent / "data"
ONE_WORKER = job_spec(name="hpclab-calm-otter-worker", chunks=(Chunk(count=1, cores=2, memory_bytes=2**31),))
SCRIPTS = {
    "start-dask.sh": job_script(
        local,
        job_spec(),
        folder(),
        job_record("main", workers=3),
        prologue=["module load python", "export DATA='my data'"],
        program=f"/opt/python -P -m hpclab.inside.main_job {folder().path} --root-dir '/home/ada/my work'",
    ),
    "add-one-worker.sh": job_script(
        local,
        replace(ONE_WORKER, options={"local_slots": "8"}, extra=("--grace=5",)),
        folder(),
        job_record("worker"),
        prologue=[],
        program=f"/opt/python -P -m hpclab.inside.worker_job {folder().path}",
    ),
}
ODD_NAMES = ["two words", "it's", 'a "quote"', "$HOME", "`date`", "back\\slash", "per%cent", "{braces}", "a;b&c", "#x"]


# the text


@pytest.mark.parametrize("name", SCRIPTS)
def test_the_whole_script(name):
    assert SCRIPTS[name] == (DATA / name).read_text()


@pytest.mark.parametrize("name", SCRIPTS)
def test_bash_can_read_it(name):
    subprocess.run(["bash", "-n"], input=SCRIPTS[name], text=True, check=True, timeout=10)


@pytest.mark.parametrize("name", SCRIPTS)
def test_the_batch_system_can_read_its_directives(name):
    asked = parse_directives(SCRIPTS[name])
    assert asked["output"] == folder().log("%j")
    assert asked["walltime_s"] == 3600


@pytest.mark.parametrize("name", SCRIPTS)
def test_it_holds_no_secret(name):
    assert "token" not in SCRIPTS[name]


# what it does


@dataclass(frozen=True)
class Ran:
    """A job that has run: its exit status, and what it left in the session's folder."""

    exit_status: int
    folder: SessionFolder

    @property
    def events(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in Path(self.folder.events("17")).read_text().splitlines()]

    @property
    def log(self) -> str:
        return Path(self.folder.log("17")).read_text()

    @property
    def over(self) -> str:
        path = Path(self.folder.over)
        return path.read_text() if path.exists() else ""


def environment(**more: str) -> dict[str, str]:
    return {
        "PATH": os.environ["PATH"],
        "HPCLAB_LOCALQ_JOB_ID": "17",
        "HPCLAB_LOCALQ_END_TIME": "1700003600",
        **more,
    }


@pytest.fixture
def a_job(tmp_path):
    """a_job("exit 3") is the path of a script around such a program, in a session folder, and that folder."""

    def _a_job(program: str, *, role="worker", name="calm-otter", prologue=(), batch=local, skip=()):
        here = SessionFolder(str(tmp_path / name))
        for subfolder in here.subfolders:
            Path(subfolder).mkdir(parents=True, exist_ok=True)
        spec = job_spec(log=here.log("{job_id}"))
        line = f"bash -c {shlex.quote(program)}"
        text = job_script(batch, spec, here, job_record(role), prologue=prologue, program=line, skip=skip)
        path = tmp_path / "script.sh"
        path.write_text(text)
        return path, here

    return _a_job


@pytest.fixture
def run(a_job):
    def _run(program: str, **options: Any) -> Ran:
        path, here = a_job(program, **options)
        done = subprocess.run(["bash", path], env=environment(), capture_output=True, timeout=20, check=False)
        assert (done.stdout, done.stderr) == (b"", b"")
        return Ran(done.returncode, here)

    return _run


def test_it_records_itself_from_beginning_to_end(run):
    started, exited = run("exit 0").events
    assert started.pop("time") <= exited.pop("time")
    assert started.pop("node")
    assert started == {"event": "started", **job_record().to_dict()}
    assert exited == {"event": "exited", "exit_status": 0}


@pytest.mark.parametrize("exit_status", [0, 1, 43, 255])
def test_it_keeps_the_exit_status(run, exit_status):
    ran = run(f"exit {exit_status}")
    assert ran.exit_status == exit_status
    assert ran.events[-1]["exit_status"] == exit_status


def test_a_program_killed_by_a_signal_is_told_so(run):
    ran = run("kill -KILL $$")
    assert (ran.exit_status, ran.events[-1]["exit_status"]) == (137, 137)


def test_all_output_is_in_the_sessions_log(run):
    assert run("echo out; echo err >&2", prologue=("echo before",)).log == "before\nout\nerr\n"


def test_the_program_knows_its_session_its_job_and_its_end(run):
    shown = run("echo $HPCLAB_SESSION $HPCLAB_JOB_ID $HPCLAB_JOB_END_TIME; cat").log
    assert shown == "calm-otter 17 1700003600\n"


def test_the_prologue_is_the_programs_environment(run):
    assert run('echo "$DATA"', prologue=("export DATA='my data'",)).log == "my data\n"


@pytest.mark.parametrize(
    ("prologue", "exit_status"),
    [
        (["exit 3"], 3),
        (["set -e", "false"], 1),
        (["set -u", 'echo "$NO_SUCH_THING"'], 1),
        (["no-such-command-anywhere"], 5),
        (["set -eu"], 5),
        (["cd /"], 5),
        (["exec >/dev/null 2>&1"], 5),
        (["session=/elsewhere started= status=9"], 5),
        (["ended() { :; }", "event() { :; }"], 5),
    ],
    ids=str,
)
@pytest.mark.parametrize("role", ["main", "worker"])
def test_whatever_the_prologue_does_the_end_is_written_down(run, prologue, exit_status, role):
    """A site's lines are not ours: they may fail, and they may use our words for their own things."""
    ran = run("exit 5", role=role, prologue=prologue)
    assert ran.exit_status == exit_status
    assert [event["event"] for event in ran.events if event["event"] != "prologue"] == ["started", "exited"]
    assert ran.events[-1]["exit_status"] == exit_status
    assert bool(ran.over) == (role == "main")


def test_a_line_of_the_prologue_that_fails_is_told(run):
    ran = run("exit 0", prologue=['cd "/no such/folder"', "true"])
    assert [event["event"] for event in ran.events] == ["started", "prologue", "exited"]
    assert ran.events[1]["reason"] == "cd /no such/folder (exit status 1)"


def test_nobody_else_can_read_what_it_writes(run):
    ran = run("umask")
    assert ran.log == "0077\n"
    assert Path(ran.folder.events("17")).stat().st_mode & 0o077 == 0


@pytest.mark.parametrize(("role", "over"), [("main", "its main job ended\n"), ("worker", "")])
def test_only_the_end_of_the_main_job_is_the_end_of_the_session(run, role, over):
    assert run("exit 0", role=role).over == over


def test_a_session_that_was_stopped_stays_stopped(a_job):
    path, here = a_job("exit 0", role="main")
    Path(here.over).write_text("stopped at noon\n")
    subprocess.run(["bash", path], env=environment(), timeout=20, check=True)
    assert Path(here.over).read_text() == "stopped at noon\n"


@pytest.mark.parametrize("name", ODD_NAMES)
def test_odd_folders(run, name):
    ran = run("exit 5", role="main", name=name)
    assert ran.exit_status == 5
    assert [event["event"] for event in ran.events] == ["started", "exited"]
    assert ran.over


@pytest.mark.parametrize("name", ODD_NAMES)
def test_the_batch_system_understands_odd_folders(a_job, name):
    path, here = a_job("exit 5", name=name)
    assert parse_directives(path.read_text())["output"] == here.log("%j")


def test_without_its_folder_it_does_not_begin(a_job, tmp_path):
    path, here = a_job(f"touch {shlex.quote(str(tmp_path / 'begun'))}")
    Path(here / "logs").rmdir()
    done = subprocess.run(["bash", path], env=environment(), capture_output=True, timeout=20, check=False)
    assert done.returncode == 40
    assert not (tmp_path / "begun").exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2])
def test_a_signal_to_the_shell_does_not_lose_the_programs_end(a_job, number):
    """The program says that it runs, and then waits for our word, through pipes that it inherits."""
    heard, say = os.pipe()
    listen, tell = os.pipe()
    path, here = a_job(f"echo runs >&{say}; read word <&{listen}; echo $word; exit 3")
    with subprocess.Popen(["bash", path], env=environment(), pass_fds=[say, listen]) as job:
        os.close(say)
        os.close(listen)
        assert os.read(heard, 100) == b"runs\n"
        job.send_signal(number)
        os.write(tell, b"end\n")
        assert job.wait(timeout=20) == 3
    os.close(heard)
    os.close(tell)
    ran = Ran(3, here)
    assert ran.log == "end\n"
    assert ran.events[-1] == {"time": ran.events[-1]["time"], "event": "exited", "exit_status": 3}


def test_a_signal_to_all_of_the_job_is_written_down(a_job):
    heard, say = os.pipe()
    path, here = a_job(f"echo runs >&{say}; exec sleep 60")
    with subprocess.Popen(["bash", path], env=environment(), pass_fds=[say], start_new_session=True) as job:
        os.close(say)
        assert os.read(heard, 100) == b"runs\n"
        os.killpg(job.pid, signal.SIGTERM)
        assert job.wait(timeout=20) == 143
    os.close(heard)
    assert Ran(143, here).events[-1]["exit_status"] == 143


def test_a_signal_while_it_makes_its_scratch_folder_leaves_none(a_job, tmp_path):
    """To all of the job, when mktemp has made the folder, and has not yet told its name."""
    heard, say = os.pipe()
    listen, tell = os.pipe()
    commands, scratch = tmp_path / "bin", tmp_path / "scratch"
    commands.mkdir()
    scratch.mkdir()
    slow = f'folder=$({shutil.which("mktemp")} "$@"); echo made >&{say}; read word <&{listen}; echo "$folder"'
    (commands / "mktemp").write_text(f"#!/bin/bash\n{slow}\n")
    (commands / "mktemp").chmod(0o755)
    path, here = a_job("echo begun")
    env = environment(PATH=f"{commands}:{os.environ['PATH']}", TMPDIR=str(scratch))
    with subprocess.Popen(["bash", path], env=env, pass_fds=[say, listen], start_new_session=True) as job:
        os.close(say)
        os.close(listen)
        assert os.read(heard, 100) == b"made\n"
        assert len(os.listdir(scratch)) == 1
        os.killpg(job.pid, signal.SIGTERM)
        os.write(tell, b"go on\n")
        assert job.wait(timeout=20) == 143
    os.close(heard)
    os.close(tell)
    assert (os.listdir(scratch), Ran(143, here).log) == ([], "")


def test_a_signal_during_the_prologue_ends_the_job_before_its_program(a_job):
    heard, say = os.pipe()
    path, here = a_job("echo begun", prologue=[f"bash -c 'echo waits >&{say}; exec sleep 60'"])
    with subprocess.Popen(["bash", path], env=environment(), pass_fds=[say], start_new_session=True) as job:
        os.close(say)
        assert os.read(heard, 100) == b"waits\n"
        os.killpg(job.pid, signal.SIGTERM)
        assert job.wait(timeout=20) == 143
    os.close(heard)
    ran = Ran(143, here)
    assert (ran.events[-1]["event"], ran.events[-1]["exit_status"]) == ("exited", 143)
    assert "begun" not in ran.log


def test_the_exit_status_survives_a_signal_just_before_the_end(a_job):
    """As often as it takes to see the race, if there is one."""
    path, here = a_job("kill -TERM $PPID; exit 7")
    jobs = [subprocess.Popen(["bash", path], env=environment()) for _ in range(20)]
    assert {job.wait(timeout=20) for job in jobs} == {7}
    told = {event["exit_status"] for event in Ran(7, here).events if event["event"] == "exited"}
    assert told == {7}


@pytest.mark.parametrize("told", ["", "N/A", "Unknown", "-1", "2026-11-20T23:13:33"])
def test_where_the_batch_system_tells_no_end_the_walltime_counts_from_the_start(a_job, told):
    silent = SimpleNamespace(**{**vars(local), "END_TIME": told})
    path, here = a_job("echo $HPCLAB_JOB_END_TIME", batch=silent)
    subprocess.run(["bash", path], env=environment(), timeout=20, check=True)
    ran = Ran(0, here)
    assert float(ran.log) == pytest.approx(ran.events[0]["time"] + 3600, abs=5)


def test_a_job_that_the_batch_system_starts_again_says_so(run):
    assert [event["event"] for event in run("exit 0").events] == ["started", "exited"]
    again = run("exit 0").events[2:]
    assert [event["event"] for event in again] == ["started", "again", "exited"]
    assert again[1]["node"] == again[0]["node"]


@pytest.mark.parametrize(
    ("skip", "gone"),
    [((), []), (("--memory", "--cores"), ["--cores=7", "--memory=7516192768"]), (("--grace",), [])],
)
def test_directives_that_the_site_refuses_are_left_out_but_not_its_own(skip, gone):
    spec = job_spec(extra=("--grace=5",))
    given = {"prologue": (), "program": "true"}
    everything, left = (
        job_script(local, spec, folder(), job_record(), skip=words, **given).splitlines() for words in ((), skip)
    )
    assert [line for line in everything if line not in left] == [f"#HPCLAB {line}" for line in gone]


def test_run_by_hand_outside_of_any_job_it_says_what_it_is(a_job):
    path, here = a_job("exit 0")
    outside = {"PATH": os.environ["PATH"]}
    done = subprocess.run(["bash", path], env=outside, capture_output=True, text=True, timeout=20, check=False)
    assert done.returncode == 2
    assert "submit it, do not run it" in done.stderr
    assert not list(Path(here / "events").iterdir())
