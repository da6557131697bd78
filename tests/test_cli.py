"""The command line: what it prints, how it exits, and what it refuses. Its jobs run a stub in place of dask-mpi."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import click
import pytest
from fixtures import CREDENTIALS, NOON, job_record, session_record, settings
from login_here import STUB, LoginHere, a_users_home
from test_errors import CLASSES
from test_view import GOLDEN

from hpclab import cli
from hpclab.bookmarks import Bookmark, Bookmarks
from hpclab.elsewhere import without_ours
from hpclab.errors import CommandError, HpclabError
from hpclab.hosts import Result
from hpclab.hosts.local import LocalHost
from hpclab.localq.dispatch import total_memory_bytes
from hpclab.session import Session
from hpclab.store import Store

README = Path(__file__).parents[1] / "README.md"
COMMANDS = sorted(name for name, command in cli.cli.commands.items() if not command.hidden)


@dataclass(frozen=True)
class Answer:
    exit_code: int
    stdout: str
    stderr: str

    @property
    def json(self):
        return json.loads(self.stdout)


@pytest.fixture
def home(tmp_path, monkeypatch) -> Path:
    """A user's home of our own; nothing of the real one is seen or touched."""
    for name in [name for name in os.environ if name.startswith("HPCLAB_")]:
        monkeypatch.delenv(name)
    for name, value in {
        "HOME": tmp_path,
        "XDG_CONFIG_HOME": tmp_path / "config",
        "HPCLAB_HOME": tmp_path / "hpclab",
        "HPCLAB_LOCALQ_DIR": tmp_path / "localq",
        "HPCLAB_SITE_CONFIG": tmp_path / "none.toml",
        "HPCLAB_QUEUE": "local",
        "COLUMNS": "200",
    }.items():
        monkeypatch.setenv(name, str(value))
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path


@pytest.fixture
def hpclab(home, monkeypatch, capsys) -> Callable[..., Answer]:
    """hpclab("status", "--json") is what the command would have said."""

    def _hpclab(*args: str) -> Answer:
        monkeypatch.setattr(sys, "argv", ["hpclab", *args])
        umask = os.umask(0o022)
        code = 0
        try:
            cli.main()
        except SystemExit as end:
            code = end.code or 0
        finally:
            os.umask(umask)
        return Answer(code, *capsys.readouterr())

    return _hpclab


@pytest.fixture
def a_stub(home, monkeypatch):
    """Jobs that say at once that they are up, and sleep; those that are left are cancelled in the end."""
    stub = home / "stub"
    stub.write_text(STUB)
    stub.chmod(0o755)
    monkeypatch.setenv("HPCLAB_PYTHON", str(stub))
    yield stub
    ids = [path.name for path in (home / "localq" / "jobs").glob("*") if path.name.isdecimal()]
    if ids:
        argv = [sys.executable, "-P", "-m", "hpclab.localq", "cancel", *ids]
        subprocess.run(argv, check=True, timeout=30, env={**os.environ, "HPCLAB_LOCALQ_DIR": str(home / "localq")})


@pytest.fixture
def an_ended_session(home) -> str:
    """A session whose one job nobody remembers; it wrote down that it has ended."""
    store = Store(LocalHost(os.environ), settings())
    folder = store.make(session_record(), CREDENTIALS, {})
    store.add_jobs("calm-otter", ["1"], job_record("main"), NOON)
    story = [
        {"time": NOON, "event": "started", "node": "n1"},
        {"time": NOON + 5, "event": "failed", "reason": "no mpiexec"},
    ]
    story.append({"time": NOON + 6, "event": "exited", "exit_status": 41})
    Path(folder.events("1")).write_text("".join(json.dumps(event) + "\n" for event in story))
    Path(folder.log("1")).write_text("first\nlast words\n")
    return "calm-otter"


def made(home: Path) -> list[str]:
    """What there is of sessions and jobs."""
    sessions, jobs = home / "hpclab" / "sessions", home / "localq" / "jobs"
    return [path.name for folder in (sessions, jobs) if folder.is_dir() for path in folder.iterdir()]


# help


def test_without_a_command_it_shows_help(hpclab):
    answer = hpclab()
    assert "hpclab add-worker" in answer.stdout + answer.stderr


def test_the_commands_are_those_that_were_promised():
    assert set(COMMANDS) == {
        *[
            "start",
            "add-worker",
            "status",
            "list",
            "logs",
            "why",
            "script",
            "attach",
            "remove-worker",
            "stop",
            "config",
        ],
        *["scale", "keep", "doctor", "relay", "run"],
    }


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_of_its_own(hpclab, command):
    answer = hpclab(command, "--help")
    assert answer.exit_code == 0
    assert f"Usage: hpclab {command}" in answer.stdout


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_is_told_in_one_line_of_the_overview(hpclab, command):
    line = next(line for line in hpclab("--help").stdout.splitlines() if line.startswith(f"  {command} "))
    assert len(line.split()) > 2
    assert not line.endswith("...")


@pytest.mark.parametrize(
    ("command", "option"),
    [
        (name, option)
        for name, command in cli.cli.commands.items()
        for option in command.params
        if not command.hidden and isinstance(option, click.Option)
    ],
    ids=lambda value: value if isinstance(value, str) else value.name,
)
def test_every_option_has_help(command, option):
    assert option.help, f"{command} {option.name}"


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_is_in_the_readme(command):
    text = README.read_text()
    if len(text.splitlines()) < 20:
        pytest.skip("the README is not written yet")
    assert f"hpclab {command}" in text


def test_the_version(hpclab):
    assert hpclab("--version").stdout.startswith("hpclab 0.")


# exit codes


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_every_error_has_its_exit_code_and_no_traceback(hpclab, monkeypatch, cls):
    result = Result(host="h", argv=("x",), exit_status=1, stdout="", stderr="no")
    error = cls("it happened", result) if issubclass(cls, CommandError) else cls("it happened")
    monkeypatch.setattr(Session, "all", lambda *_: (_ for _ in ()).throw(error))
    answer = hpclab("list")
    assert answer.exit_code == cls.exit_code
    assert answer.stderr.startswith("hpclab: it happened")
    assert "Traceback" not in answer.stderr


def test_the_debug_of_a_script_is_not_ours(hpclab):
    answer = hpclab("run", "nothing.py", "--debug")
    assert (answer.exit_code, "nothing.py cannot be run" in answer.stderr) == (2, True)


def test_with_debug_there_is_a_traceback(hpclab):
    with pytest.raises(HpclabError):
        hpclab("--debug", "status", "none")


@pytest.mark.parametrize(
    ("args", "exit_code", "words"),
    [
        (["status"], 8, "no session is running"),
        (["status", "bold-heron"], 8, "no session 'bold-heron'"),
        (["attach", "../evil"], 2, "cannot be the name"),
        (["stop"], 8, "hpclab start"),
        (["nonsense"], 2, "No such command"),
        (["list", "--nonsense"], 2, "No such option"),
        (["remove-worker"], 2, "Missing argument"),
    ],
)
def test_what_is_not_there(hpclab, args, exit_code, words):
    answer = hpclab(*args)
    assert (answer.exit_code, answer.stdout) == (exit_code, "")
    assert words in answer.stderr


@pytest.mark.parametrize(
    ("args", "exit_code", "words"),
    [
        (["why", "99"], 11, "no job '99'\njobs: 1"),
        (["logs", "99"], 11, "no job '99'"),
        (["attach", "calm-otter"], 13, "not running but failed: no mpiexec"),
        (["add-worker", "-s", "calm-otter"], 13, "not running but failed"),
        (["remove-worker", "-s", "calm-otter", "1"], 13, "hpclab stop calm-otter"),
        (["start", "--name", "calm-otter"], 9, "there is a session 'calm-otter' already"),
    ],
)
def test_what_cannot_be_done_with_a_session_that_has_ended(hpclab, an_ended_session, args, exit_code, words):
    answer = hpclab(*args)
    assert (answer.exit_code, answer.stdout) == (exit_code, "")
    assert words in answer.stderr


# bad input


@pytest.mark.parametrize(
    ("args", "words"),
    [
        *[(["--walltime", text], "cannot read the time") for text in ["", "90", "1:30", "-5m", "1e9h", "nan"]],
        (["--walltime", "0s"], "the time '0s' is zero"),
        *[(["--memory", text], "cannot read the memory size") for text in ["", "4", "-1G", "4X", "nan", "9" * 400]],
        (["--memory", "0G"], "the memory size '0G' is zero"),
        *[(["--cores", text], "cores must be a whole number") for text in ["", "0", "-1", "1.5", "two"]],
        (["--workers", "0"], "workers must be a whole number"),
        (["--queue", "locl"], "did you mean 'local'?"),
        (["--queue", "local:fast"], "say --queue local"),
        *[(["--name", text], "cannot be the name") for text in ["a/b", "..", "../x", "two words", "x" * 300, "-x"]],
        (["--profile", "big"], "no [profile.big]"),
        (["--nodes", "0"], "nodes must be a whole number"),
        (["--gpus", "-1"], "gpus must be a whole number"),
        (["--export", "value"], "export is a list of NAME=VALUE"),
        (["--nodes", "2"], "one node"),
        (["-q", "slurm", "--nodes", "2", "--container", "x.sif"], "a main job in a container is one node"),
    ],
)
@pytest.mark.parametrize("command", [["start"], ["script", "start"]], ids=" ".join)
def test_what_makes_no_sense_is_refused_before_anything_is_made(hpclab, home, command, args, words):
    answer = hpclab(*command, *args)
    assert (answer.exit_code, answer.stdout) == (2, "")
    assert words in answer.stderr
    assert made(home) == []


@pytest.mark.parametrize("option", ["--walltime", "--memory", "--cores", "--workers"])
def test_a_wrong_flag_is_named_as_it_was_given(hpclab, option):
    assert f"{option}: " in hpclab("start", option, "-nonsense").stderr


@pytest.mark.parametrize("option", ["--walltime", "--memory", "--cores", "--workers-per-job"])
def test_a_wrong_flag_of_add_worker_is_named_as_it_was_given(hpclab, an_ended_session, option):
    answer = hpclab("add-worker", "-s", "calm-otter", option, "-nonsense")
    assert answer.exit_code == 2
    assert f"{option}: " in answer.stderr


@pytest.mark.parametrize("count", ["0", "-1", "many", "1.5"])
def test_a_count_of_jobs_that_makes_no_sense(hpclab, an_ended_session, count):
    answer = hpclab("add-worker", "-s", "calm-otter", "-n", count)
    assert answer.exit_code == 2
    assert count in answer.stderr


@pytest.mark.parametrize(
    ("args", "figures"),
    [
        (["--cores", "9999"], ["10000 cores", "this machine has 8 slots"]),
        (
            ["--memory", "900T"],
            [f"{900 * 2**10 + 2:.1f} GiB", f"this machine has {total_memory_bytes() / 2**30:.1f} GiB"],
        ),
    ],
)
def test_more_than_the_machine_has_is_refused_with_both_figures(hpclab, home, monkeypatch, args, figures):
    monkeypatch.setenv("HPCLAB_LOCAL_SLOTS", "8")
    answer = hpclab("start", *args)
    assert (answer.exit_code, answer.stdout) == (12, "")
    for words in [*figures, "local did not take the job", "exit status 1"]:
        assert words in answer.stderr
    assert [name for name in made(home) if not name.startswith(".")] == []


# a home that does not do


@pytest.mark.parametrize("command", [["start"], ["list"], ["status"]], ids=" ".join)
def test_a_home_that_cannot_be_written_or_read(hpclab, monkeypatch, command):
    monkeypatch.setenv("HPCLAB_HOME", "/dev/null/x")
    answer = hpclab(*command)
    assert (answer.exit_code, answer.stdout) == (10, "")
    assert "/dev/null" in answer.stderr
    assert "HPCLAB_HOME" in answer.stderr.splitlines()[-1]


@pytest.fixture
def a_full_disk(home):
    (home / "hpclab").mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=12k", "none", str(home / "hpclab")]
    try:
        subprocess.run(mount, check=True, capture_output=True, timeout=10)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("no file systems can be mounted here")
    yield home / "hpclab"
    subprocess.run(["umount", str(home / "hpclab")], check=True, timeout=10)


def test_a_home_that_is_full(hpclab, home, a_full_disk):
    answer = hpclab("start", "--name", "calm-otter")
    assert (answer.exit_code, answer.stdout) == (10, "")
    assert "No space left on device" in answer.stderr
    assert made(home) == []


def test_a_queue_whose_folder_cannot_be_written_takes_no_job(hpclab, home, monkeypatch):
    monkeypatch.setenv("HPCLAB_LOCALQ_DIR", "/dev/null/x")
    answer = hpclab("start")
    assert answer.exit_code == 12
    assert "/dev/null/x" in answer.stderr
    assert made(home) == []


def test_a_session_that_cannot_be_read_is_told_and_hides_no_other(hpclab, home, an_ended_session):
    torn = home / "hpclab" / "sessions" / "torn"
    torn.mkdir()
    (torn / "session.json").write_text('{"name": "to')
    assert {found["name"]: found["state"] for found in hpclab("list", "--json").json} == {
        "torn": "unreadable",
        "calm-otter": "failed",
    }
    answer = hpclab("status", "torn")
    assert answer.exit_code == 10
    assert str(torn) in answer.stderr
    assert "unreadable" in hpclab("list").stdout


# config and script


def test_config_shows_values_and_sources(hpclab, home, monkeypatch):
    user = home / "config" / "hpclab" / "config.toml"
    user.parent.mkdir(parents=True)
    user.write_text('# mine\ncores = 3\n[profile.big]\nmemory = "8G"\n')
    monkeypatch.setenv("HPCLAB_WORKERS", "2")
    told = hpclab("config", "--profile", "big", "--json").json
    assert told["cores"] == {"value": 3, "source": f"{user}:2"}
    assert told["memory"] == {"value": "8G", "source": f"{user}:4"}
    assert told["workers"] == {"value": "2", "source": "$HPCLAB_WORKERS"}
    assert told["walltime"]["source"] == "default"
    text = hpclab("config", "--profile", "big").stdout
    for words in [f"{user}:2", f"{user}:4", "$HPCLAB_WORKERS", "--profile", "default"]:
        assert words in text


def test_a_mistake_in_the_config_is_told_with_its_place(hpclab, home):
    user = home / "config" / "hpclab" / "config.toml"
    user.parent.mkdir(parents=True)
    user.write_text("\nmemmory = '1G'\n")
    answer = hpclab("config")
    assert answer.exit_code == 2
    assert answer.stderr == f"hpclab: {user}:2: unknown option 'memmory'\ndid you mean 'memory'?\n"
    # it does not stand between users and the sessions that they have
    assert hpclab("list").exit_code == 0


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["start", "-w", "3", "-c", "2", "-m", "1G", "-t", "3h"], ["--cores=7\n", "--walltime=10800\n", "main_job"]),
        (["add-worker", "-c", "2", "-m", "1G", "-t", "30m"], ["--cores=2\n", "--walltime=1800\n", "worker_job"]),
        (["add-worker", "-t", "90s"], ["--walltime=90\n"]),
        (["start", "--name", "calm-otter"], ["hpclab/sessions/calm-otter\n"]),
    ],
    ids=" ".join,
)
def test_script_prints_what_would_be_submitted_and_makes_nothing(hpclab, home, args, words):
    before = sorted(home.rglob("*"))
    answer = hpclab("script", *args)
    assert (answer.exit_code, answer.stderr) == (0, "")
    assert answer.stdout.startswith("#!/bin/bash\n#HPCLAB ")
    subprocess.run(["bash", "-n"], input=answer.stdout, text=True, check=True, timeout=10)
    for word in words:
        assert word in answer.stdout
    assert sorted(home.rglob("*")) == before


@pytest.mark.parametrize(
    ("args", "lines"),
    [
        (
            ["--module", "gcc/13", "--module", "openmpi"],
            ["module load gcc/13 openmpi || hpclab_unfit 'module load gcc/13 openmpi'"],
        ),
        (["--conda", "my env"], ["conda activate 'my env' || hpclab_unfit 'conda activate '\"'\"'my env'\"'\"''"]),
        (["--venv", "/v"], [". /v/bin/activate || hpclab_unfit '. /v/bin/activate'"]),
        (["--export", "A=b c", "--export", "D="], ["export A='b c'", "export D=''"]),
        (["-q", "slurm:short", "-N", "2", "-A", "phys"], ["#SBATCH --partition=short", "#SBATCH --account=phys"]),
        (["-q", "slurm", "-G", "1", "--constraint", "a100"], ["#SBATCH --gres=gpu:1", "#SBATCH --constraint=a100"]),
    ],
    ids=lambda value: " ".join(value[:2]),
)
def test_flags_reach_the_script(hpclab, args, lines):
    text = hpclab("script", "start", *args).stdout
    assert set(lines) <= set(text.splitlines())


def test_a_script_runs_in_the_container(hpclab):
    text = hpclab(
        "script", "add-worker", "--container", "my image.sif", "--container-bind", "/data", "--container-bind", "/x"
    ).stdout
    assert "--bind /data --bind /x 'my image.sif'" in text
    assert text.splitlines()[-1].startswith("hpclab_run python -P -m hpclab.inside.worker_job ")


@pytest.mark.parametrize("which", ["start", "add-worker"])
def test_a_script_by_hand_makes_its_session_itself(hpclab, home, which):
    answer = hpclab("script", which, "--by-hand")
    subprocess.run(["bash", "-n"], input=answer.stdout, text=True, check=True, timeout=10)
    for words in ["\n#SBATCH ", "\n#PBS ", "HPCLAB_NAME"]:
        assert words in answer.stdout
    assert str(home / "hpclab") not in answer.stdout
    assert made(home) == []


@pytest.mark.parametrize(
    ("shapes", "exit_code", "words"),
    [
        ("nonsense", 2, "write NODESxCORES"),
        ("1x1,1x2", 2, "leave --fit out"),
        ("2x1", 2, "one node"),
    ],
)
def test_a_shape_that_cannot_be_fitted_is_told_and_nothing_made(hpclab, home, shapes, exit_code, words):
    answer = hpclab("start", "--fit", shapes)
    assert (answer.exit_code, answer.stdout) == (exit_code, "")
    assert words in answer.stderr
    assert made(home) == []


# a session that has ended


def test_a_session_that_has_ended_still_tells_its_story(hpclab, an_ended_session):
    assert "no mpiexec" in hpclab("status").stdout
    why = hpclab("why")
    for words in ["failed: no mpiexec", "ended with exit status 41", "last words"]:
        assert words in why.stdout
    assert hpclab("why", "--json").json["log"] == "first\nlast words"
    assert hpclab("logs").stdout == "first\nlast words\n"
    assert hpclab("logs", "-n", "1").stdout == "last words\n"


def test_without_sessions_the_list_says_how_to_begin(hpclab):
    assert "hpclab start" in hpclab("list").stdout
    assert hpclab("list", "--json").json == []


# a session that runs


def test_a_session_from_start_to_stop(hpclab, home, a_stub):
    started = hpclab("start", "--json", "--name", "calm-otter")
    assert started.exit_code == 0, started.stderr
    described, golden = started.json, json.loads(GOLDEN.read_text())
    assert set(described) == set(golden)
    assert set(described["jobs"][0]) == set(golden["jobs"][0])
    token = (home / "hpclab" / "sessions" / "calm-otter" / "token").read_text().strip()
    assert described["jupyter_url"] == f"http://127.0.0.1:2/lab?token={token}"
    assert described["dashboard_url"] == f"http://127.0.0.1:3/status?token={token}"
    assert described["tunnel"][:2] == ["ssh", "-N"]
    for phase in ["session calm-otter", "started on", "Dask scheduler up at", "JupyterLab up on port 2"]:
        assert phase in started.stderr

    (worker,) = hpclab("add-worker", "--json").json["jobs"]
    plain = hpclab("status", "--json")
    assert [(job["id"], job["role"]) for job in plain.json["jobs"]] == [("1", "main"), (worker, "worker")]
    assert plain.json["state"] == "running"
    assert set(plain.json) == set(described)
    for quiet in (plain, hpclab("status"), hpclab("list"), hpclab("list", "--json"), hpclab("why"), hpclab("logs")):
        assert quiet.exit_code == 0
        assert token not in quiet.stdout + quiet.stderr
    assert token in hpclab("attach").stdout
    assert token in hpclab("attach", "--json").json["jupyter_url"]
    assert "hello from hpclab.inside.main_job" in hpclab("logs").stdout

    assert "was cancelled" in hpclab("remove-worker", worker).stdout
    stopped = hpclab("stop")
    assert "cancelled main job 1, which was running" in stopped.stdout
    assert hpclab("status", "--json").json["state"] == "ended"
    assert hpclab("stop", "calm-otter").exit_code == 0


def test_a_session_grows(hpclab, a_stub, monkeypatch):
    assert hpclab("start", "--name", "calm-otter").exit_code == 0
    assert hpclab("scale", "1").stdout == "nothing to do\n"
    assert hpclab("scale", "2").stdout == "submitted 1 worker job\n"
    assert len(hpclab("add-worker", "-n", "2", "--anyway", "--json").json["jobs"]) == 2

    def interrupted(_):
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "time", SimpleNamespace(sleep=interrupted, strftime=time.strftime))
    kept = hpclab("keep", "4")
    assert kept.exit_code == 0
    assert "keeping 4 added workers in calm-otter" in kept.stdout
    assert "submitted 1 worker job" in kept.stdout


@pytest.mark.parametrize("command", [["scale", "3"], ["keep", "3"]], ids=" ".join)
def test_a_session_that_has_ended_does_not_grow(hpclab, an_ended_session, command):
    answer = hpclab(*command, "-s", an_ended_session)
    assert answer.exit_code == 13
    assert "not running but failed" in answer.stderr


@pytest.mark.parametrize("args", [["scale"], ["scale", "-1"], ["keep", "0"], ["keep", "many"]], ids=" ".join)
def test_a_number_of_workers_that_makes_no_sense(hpclab, args):
    assert hpclab(*args).exit_code == 2


def test_start_prints_all_that_is_needed_next(hpclab, a_stub):
    answer = hpclab("start", "--name", "calm-otter")
    for words in [
        "calm-otter",
        "ssh -N -L 8888:127.0.0.1:2 -L 8787:127.0.0.1:3",
        "token=",
        "hpclab add-worker",
        "stop",
    ]:
        assert words in answer.stdout


def test_ctrl_c_loses_nothing_and_says_what_to_do(hpclab, a_stub, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "follow", interrupted)
    answer = hpclab("start", "--name", "calm-otter")
    assert (answer.exit_code, answer.stdout) == (130, "")
    for words in ["still", "hpclab attach calm-otter", "hpclab stop calm-otter"]:
        assert words in answer.stderr
    assert hpclab("status", "--json").json["state"] in ("queued", "starting", "running")


def test_a_main_job_that_fails_while_start_waits(hpclab, home, monkeypatch):
    stub = home / "stub"
    stub.write_text("#!/bin/bash\necho no such thing here\nexit 40\n")
    stub.chmod(0o755)
    monkeypatch.setenv("HPCLAB_PYTHON", str(stub))
    answer = hpclab("start", "--name", "calm-otter")
    assert (answer.exit_code, answer.stdout) == (6, "")
    for words in ["the job's environment lacks something", "no such thing here", "hpclab logs --session calm-otter"]:
        assert words in answer.stderr


def test_nobody_else_can_read_what_a_session_writes(hpclab, home, a_stub):
    assert hpclab("start", "--name", "calm-otter").exit_code == 0
    paths = [home / "hpclab", *(home / "hpclab").rglob("*")]
    assert [path for path in paths if path.stat().st_mode & 0o077] == []


# on a login node


@pytest.fixture
def logins(home, tmp_path_factory, monkeypatch):
    """Login nodes, each made when it is asked for, with a home of its own; those called `silent` do not answer."""
    made: dict[str, LoginHere] = {}
    with contextlib.ExitStack() as homes:

        def login_node(by, **_) -> LoginHere:
            destination = by.config.destination
            if destination not in made:
                env = homes.enter_context(a_users_home(tmp_path_factory.mktemp("there")))
                made[destination] = LoginHere(env, destination, is_silent="silent" in destination)
            return made[destination]

        monkeypatch.setattr("hpclab.afar.login_node", login_node)
        monkeypatch.setenv("HPCLAB_REMOTE_PYTHON", sys.executable)
        yield made
        for login in made.values():
            login.close()


@pytest.mark.parametrize(
    ("argv", "kept"),
    [
        (["status", "--host", "x", "--watch"], ["status", "--watch"]),
        (["status", "--host=x"], ["status"]),
        (["status", "--host"], ["status"]),
        (["logs", "-n", "3", "--host", "x", "-f"], ["logs", "-n", "3", "-f"]),
        (["status", "--", "--host", "x"], ["status", "--", "--host", "x"]),
        (["status", "--hostile"], ["status", "--hostile"]),
        (["run", "--profile", "there", "-n", "3", "--profile=x", "x.py"], ["run", "-n", "3", "x.py"]),
    ],
)
def test_a_command_is_said_there_without_what_is_for_us(argv, kept):
    assert without_ours(argv) == kept


ABOUT_SESSIONS = [
    *(["status"], ["status", "calm-otter"], ["list"], ["logs"], ["why"], ["stop"], ["attach"], ["start"], ["doctor"]),
    *(["add-worker"], ["remove-worker", "1"], ["scale", "2"], ["keep", "2"]),
]
RUNS = ["run", "--launch", "file", "--ntasks", "1", "--python", sys.executable]
SAYS = "import sys; print(sys.argv); print('oh', file=sys.stderr); sys.exit(7)"


@pytest.mark.parametrize("where", ["flag", "variable", "config"])
@pytest.mark.parametrize("argv", ABOUT_SESSIONS, ids=" ".join)
def test_every_command_goes_to_the_host_that_is_said(hpclab, home, logins, monkeypatch, argv, where):
    if where == "variable":
        monkeypatch.setenv("HPCLAB_HOST", "ada@silent")
    if where == "config":
        (home / "config/hpclab").mkdir(parents=True)
        (home / "config/hpclab/config.toml").write_text('host = "ada@silent"\n')
    answer = hpclab(*argv, *(["--host", "ada@silent"] if where == "flag" else []))
    assert (answer.exit_code, answer.stdout) == (15, "")
    assert "ada@silent does not answer" in answer.stderr
    assert made(home) == []


@pytest.mark.parametrize("argv", ABOUT_SESSIONS, ids=" ".join)
@pytest.mark.parametrize("host", ["-oProxyCommand=x", "a b", "login\n", "ada@", "@login", "a;b", "$(x)", " ", "ada@-x"])
def test_a_strange_host_is_refused_before_anything_runs(hpclab, logins, monkeypatch, argv, host):
    def runs(*_, **__):
        raise AssertionError("something runs")

    monkeypatch.setattr(subprocess, "Popen", runs)
    answer = hpclab(*argv, f"--host={host}")
    assert (answer.exit_code, answer.stdout) == (2, "")
    assert answer.stderr.startswith("hpclab: the destination")
    assert logins == {}


def test_what_is_said_there_is_shown_here(hpclab, logins):
    assert hpclab("list", "--host", "ada@login", "--json").json == []
    answer = hpclab("status", "bold-heron", "--host", "ada@login")
    assert (answer.exit_code, answer.stdout) == (8, "")
    assert "no session 'bold-heron'" in answer.stderr
    assert hpclab("status", "--nonsense", "--host", "ada@login").exit_code == 2


def test_our_settings_count_for_a_run_there(hpclab, logins, monkeypatch, home):
    """As for `start`: those of our file and of its profile, which the login node need not have."""
    config = home / "config/hpclab/config.toml"
    config.parent.mkdir(parents=True, exist_ok=True)
    config.write_text('walltime = "17m"\n[profile.there]\nhost = "ada@login"\nexport = ["A=1", "B=2"]\n')
    hpclab("list", "--host", "ada@login")
    model = Path(logins["ada@login"].env["HOME"]) / "model.py"
    model.write_text("import os\nprint(os.environ['A'], os.environ['B'])\n")
    answer = hpclab(*RUNS, "--profile", "there", "--name", "calm-otter", str(model))
    assert (answer.exit_code, answer.stdout) == (0, "1 2\n"), answer.stderr
    assert hpclab("status", "calm-otter", "--host", "ada@login", "--json").json["jobs"][0]["walltime_s"] == 17 * 60


@pytest.mark.parametrize(
    ("argv", "kept"),
    [
        (["--host", "x", "-n", "3", "model.py", "--host", "y"], ["-n", "3", "model.py", "--host", "y"]),
        (["--host=x", "model.py", "--debug", "--", "-q"], ["model.py", "--debug", "--", "-q"]),
        (["--host", "x", "--", "model.py", "--host=y"], ["--", "model.py", "--host=y"]),
    ],
)
def test_what_stands_behind_a_script_is_its_own(hpclab, logins, monkeypatch, argv, kept):
    said = []
    monkeypatch.setattr("hpclab.afar.Afar.run_script", lambda self, argv, env, **_: said.append(argv) or 0)
    assert hpclab("run", *argv).exit_code == 0
    assert said == [["run", *kept]]


def test_a_script_there_is_run_there_and_its_exit_status_is_ours(hpclab, logins):
    hpclab("list", "--host", "ada@login")
    model = Path(logins["ada@login"].env["HOME"]) / "model.py"
    model.write_text(SAYS)
    answer = hpclab(*RUNS, "--name", "calm-otter", "--host", "ada@login", str(model), "--host", "x")
    assert (answer.exit_code, answer.stdout) == (7, f"['{model}', '--host', 'x']\n"), answer.stderr
    assert "oh\n" in answer.stderr
    attached = hpclab("attach", "calm-otter", "--host", "ada@login")
    assert (attached.exit_code, attached.stdout) == (7, answer.stdout), attached.stderr


def test_a_session_is_found_again_where_it_was_started(hpclab, logins):
    started = hpclab("start", "--host", "ada@login", "--name", "calm-otter", "--no-tunnel")
    assert started.exit_code == 0
    assert "ssh -N -L 8888:127.0.0.1:2 -L 8787:127.0.0.1:3" in started.stdout
    assert hpclab("status", "calm-otter", "--json").json["state"] == "running"
    assert hpclab("status", "--json").json["name"] == "calm-otter"
    assert "submitted 2 to calm-otter; see" in hpclab("add-worker", "-s", "calm-otter").stdout
    assert "ssh -N -L" in hpclab("attach", "calm-otter", "--no-tunnel").stdout
    assert "calm-otter has ended" in hpclab("stop", "calm-otter").stdout
    asked = len(logins["ada@login"].processes)
    assert hpclab("status", "calm-otter").exit_code == 8
    assert len(logins["ada@login"].processes) == asked  # it is forgotten


def test_a_session_that_could_not_be_started_there(hpclab, logins):
    answer = hpclab("start", "--host", "ada@login", "--no-tunnel", "--name", "calm-otter", "--queue", "nonsense")
    assert (answer.exit_code, answer.stdout) == (2, "")
    assert "nonsense" in answer.stderr
    assert "Traceback" not in answer.stderr


def test_all_hosts_are_listed_and_one_that_is_silent_is_told(hpclab, home, logins, an_ended_session):
    assert hpclab("start", "--host", "ada@login", "--name", "bold-heron", "--no-tunnel").exit_code == 0
    Bookmarks(LocalHost(os.environ)).keep(Bookmark(name="keen-lynx", destination="ada@silent"))
    answer = hpclab("list", "--all-hosts", "--json")
    assert answer.exit_code == 0
    assert [(s["name"], s.get("host")) for s in answer.json] == [("calm-otter", None), ("bold-heron", "ada@login")]
    assert "ada@silent does not answer" in answer.stderr
    hpclab("stop", "bold-heron")


@pytest.mark.parametrize("noise", ["echo nonsense", "echo '[{]'", "kill -9 $$"])
def test_all_hosts_are_listed_although_one_talks_nonsense(hpclab, logins, tmp_path, monkeypatch, noise):
    there = tmp_path / "there"
    hello = json.dumps({"hello": {"hpclab": "0.1.0", "protocol": 1, "host": "login1"}})
    there.write_text(f"#!/bin/sh\nread -r request\necho '{hello}'\n{noise}\n")
    there.chmod(0o755)
    Bookmarks(LocalHost(os.environ)).keep(Bookmark(name="keen-lynx", destination="ada@login", python=str(there)))
    answer = hpclab("list", "--all-hosts", "--json")
    assert (answer.exit_code, answer.json) == (0, [])
    assert answer.stderr


def test_one_host_or_all_of_them(hpclab):
    assert hpclab("list", "--all-hosts", "--host", "ada@login").exit_code == 2


def test_a_mistake_in_a_config_file_hides_no_session_of_this_machine(hpclab, home, an_ended_session):
    (home / "config/hpclab").mkdir(parents=True)
    (home / "config/hpclab/config.toml").write_text("host = [\n")
    assert hpclab("status", "--json").json["name"] == an_ended_session
    assert hpclab("list", "--json").json[0]["name"] == an_ended_session


@pytest.mark.parametrize(("option", "value"), [("ssh", "putty"), ("bind", "everywhere")])
def test_options_of_the_way_there_have_their_words(hpclab, monkeypatch, option, value):
    monkeypatch.setenv(f"HPCLAB_{option.upper()}", value)
    answer = hpclab("start")
    assert answer.exit_code == 2
    assert f"{option} must be one of" in answer.stderr


# what is imported

ON_WINDOWS = """
import os, signal, sys
os.environ["USERNAME"] = "ada"
for name in ("fcntl", "pwd", "grp", "termios", "resource", "pty", "tty", "syslog"):
    sys.modules[name] = None
for name in ("SIGHUP", "SIGQUIT", "SIGKILL", "SIGUSR1", "SIGCHLD", "pthread_sigmask", "pthread_kill"):
    vars(signal).pop(name, None)
for name in ("getuid", "geteuid", "getgid", "fork", "getpgid", "killpg", "setsid", "uname", "register_at_fork"):
    vars(os).pop(name, None)
import socket
vars(socket).pop("AF_UNIX", None)
"""


@pytest.mark.parametrize("module", ["afar", "cli", "remote", "tunnel", "hosts.ssh", "hosts.openssh", "login", "door"])
def test_a_laptop_need_not_have_what_posix_has(home, module):
    code = f"{ON_WINDOWS}\nimport hpclab.{module}\nfrom hpclab import cli\nsys.exit(cli.run(['list', '--json']))"
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stdout, done.stderr) == (0, "[]\n", "")


@pytest.mark.parametrize("argv", [["--help"], ["status"], ["list"], ["start", "--help"]], ids=" ".join)
def test_ssh_is_imported_only_where_it_is_used(home, argv):
    code = f"""
import sys
from hpclab import cli
cli.run({argv!r})
print([name for name in sys.modules if name.split(".")[0] in ("paramiko", "distributed", "dask", "jupyter_server")])"""
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, timeout=30)
    assert done.stdout.splitlines()[-1] == "[]"


def test_ctrl_c_in_the_middle_of_an_import_ends_as_everywhere(tmp_path):
    """Python notes an interrupt within an exec as unhandled, and `python -m` would end by the signal."""
    (tmp_path / "interrupted.py").write_text(
        """
import os, signal, sys, threading
from hpclab import cli

def run(argv, *, debug):
    try:
        exec("os.kill(os.getpid(), signal.SIGINT); threading.Event().wait(30)")
    except KeyboardInterrupt:
        return 130

signal.signal(signal.SIGINT, signal.default_int_handler)
cli.run = run
cli.main()
"""
    )
    done = subprocess.run([sys.executable, "-m", "interrupted"], cwd=tmp_path, check=False)
    assert done.returncode == 130
