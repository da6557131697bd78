"""`hpclab agent`, the login node's end: what it answers, and carries out once, whatever happens to the laptop."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fixtures import job_record
from login_here import a_users_home
from waiting import until

from hpclab.errors import NotFromHere
from hpclab.folder import SessionFolder
from hpclab.hosts.local import LocalHost
from hpclab.relay import Submit, ask

WITHIN_S = 30
SBATCH = """#!/bin/sh
case "$*" in *--test-only*) echo "sbatch: Job 1 to start at 2030-01-01T00:00:00 using 1 processors" >&2; exit;; esac
echo asked >> "$HOME/asked"
while [ -e "$HOME/wait" ]; do sleep 0.02; done
[ ! -e "$HOME/refuse" ] || { echo "sbatch: error: no such account" >&2; exit 1; }
echo 7
"""


@pytest.fixture
def home(tmp_path) -> Iterator[dict[str, str]]:
    with a_users_home(tmp_path) as env:
        yield env


@pytest.fixture
def slurm(home, tmp_path) -> Path:
    """A home where `sbatch` takes as long as there is a file `wait`, and refuses where there is one named `refuse`."""
    commands = tmp_path / "bin"
    commands.mkdir()
    for name, text in {"sbatch": SBATCH, "squeue": "#!/bin/sh\n", "sacct": "#!/bin/sh\n"}.items():
        (commands / name).write_text(text)
        (commands / name).chmod(0o755)
    home |= {"PATH": f"{commands}:{home['PATH']}", "HPCLAB_QUEUE": "slurm"}
    return tmp_path


class Agent:
    """One request, and what is answered."""

    def __init__(self, home: dict[str, str], /, ask: str, *, changes: str = "pass", **request: Any) -> None:
        run = f"import hpclab.agent as agent; {changes}; from hpclab.cli import main; main()"
        pipe = subprocess.PIPE
        self.popen = subprocess.Popen(
            [sys.executable, "-P", "-c", run, "agent"], env=home, stdin=pipe, stdout=pipe, stderr=pipe, bufsize=0
        )
        self.popen.stdin.write(json.dumps({"ask": ask, "destination": "ada@login", **request}).encode() + b"\n")
        self.hello = json.loads(self.popen.stdout.readline())["hello"]

    def answer(self, key: str) -> Any:
        """The next of its kind."""
        for line in iter(self.popen.stdout.readline, b""):
            if key in (answer := json.loads(line)):
                return answer[key]
        raise AssertionError(f"no {key}: {self.popen.stderr.read().decode()}")

    def output(self) -> str:
        return self.popen.stdout.read().decode()

    def leave(self) -> None:
        """As when the connection is gone."""
        for stream in (self.popen.stdin, self.popen.stdout, self.popen.stderr):
            stream.close()

    def end(self) -> int:
        """Its exit status, when nobody has ended it."""
        return self.popen.wait(WITHIN_S)

    def __enter__(self) -> Agent:
        return self

    def __exit__(self, *_: object) -> None:
        self.popen.kill()
        self.popen.wait()
        self.leave()


def start(env: dict[str, str], origin: str = "1-ab", **more: Any) -> Agent:
    return Agent(env, "start", **{"given": {}, "name": "", "fit": "", "origin": origin, "columns": 80, **more})


def sessions(home: Path) -> list[str]:
    return sorted(path.name for path in (home / "hpclab/sessions").glob("*"))


def asked(home: Path) -> int:
    """How many jobs the batch system was asked for."""
    return len((home / "asked").read_text().splitlines()) if (home / "asked").exists() else 0


# what is no request


@pytest.mark.parametrize(
    "said", ["", "\n", "nonsense\n", "[]\n", "null\n", "{}\n", '{"ask": "fly"}\n', '{"ask": ["run"]}\n']
)
def test_what_is_no_request_is_told_in_words(home, said):
    argv = [sys.executable, "-P", "-m", "hpclab", "agent"]
    done = subprocess.run(argv, env=home, input=said, capture_output=True, text=True, timeout=WITHIN_S)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("hpclab: that is no request of an hpclab at a laptop\n")


@pytest.mark.parametrize("origin", ["", "../../x", "1-ab/..", "1", "-", "1-ab\n"])
def test_a_name_of_a_request_is_no_path(home, tmp_path, origin):
    with start(home, origin) as agent:
        assert agent.answer("error")["class"] == "ConfigError"
    assert sessions(tmp_path) == []


def test_a_mistake_of_ours_is_told_and_is_no_lost_connection(home):
    with Agent(home, "watch") as agent:  # without a name
        told = agent.answer("error")
    assert told["class"] == "HpclabError"
    assert "KeyError" in told["message"]


# once


def test_a_session_that_is_started_is_told_of_until_it_ends(home):
    with start(home) as agent:
        name = agent.answer("name")
        described = agent.answer("session")
        assert (described["name"], described["state"]) == (name, "running")
        assert described["connection"]["jupyter_port"] == 2
        stopped = Agent(home, "run", argv=["stop", name])
        assert f"{name} has ended" in stopped.output()
        while described["state"] != "ended":
            described = agent.answer("session")
        assert agent.end() == 0


def test_a_request_that_comes_twice_starts_one_session(home, tmp_path):
    names = []
    for _ in range(2):
        with start(home) as agent:
            names.append(agent.answer("name"))
            agent.answer("session")
    assert sessions(tmp_path) == [names[0]] == [names[1]]


def test_a_request_that_comes_again_while_the_first_is_at_it_waits_for_that(home, slurm):
    (slurm / "wait").touch()
    with start(home) as first:
        until(lambda: asked(slurm), within_s=WITHIN_S, what="the batch system to be asked")
        with start(home) as second:
            (slurm / "wait").unlink()
            assert first.answer("name") == second.answer("name")
    assert (asked(slurm), len(sessions(slurm))) == (1, 1)


def test_a_request_that_was_refused_is_refused_in_the_same_words(home, slurm):
    (slurm / "refuse").touch()
    told = []
    for _ in range(2):
        with start(home) as agent:
            told.append(agent.answer("error"))
    assert told[0]["class"] == "Refused"
    assert "no such account" in told[0]["message"]
    assert told[1] == told[0]
    assert asked(slurm) == 1


def test_another_request_starts_another_session(home, slurm):
    for origin in ("1-ab", "2-ab"):
        with start(home, origin) as agent:
            agent.answer("name")
    assert (asked(slurm), len(sessions(slurm))) == (2, 2)


def test_a_laptop_whose_clock_is_behind_is_remembered_too(home, slurm):
    for number in range(30):
        (slurm / f"hpclab/requests/{9000 + number}-ff").mkdir(parents=True)
    for _ in range(2):
        with start(home, "1000-ab") as agent:
            agent.answer("name")
    assert asked(slurm) == 1


def test_old_requests_are_forgotten(home, slurm):
    old = slurm / "hpclab/requests/1-ff"
    old.mkdir(parents=True)
    os.utime(old, (0, 0))
    with start(home) as agent:
        agent.answer("name")
    assert not old.exists()


def test_workers_that_are_added_twice_are_added_once(home, slurm):
    with start(home) as agent:
        name = agent.answer("name")
    said = [Agent(home, "run", argv=["add-worker", "-s", name], origin="2-cd").output() for _ in range(2)]
    assert said == [f"submitted 7 to {name}; see them with `hpclab status`\n"] * 2
    assert asked(slurm) == 2  # the main job, and the worker's


def test_a_command_that_failed_fails_again_in_the_same_words(home):
    said = []
    for _ in range(2):
        agent = Agent(home, "run", argv=["add-worker"], origin="2-cd")
        said.append((agent.popen.communicate(timeout=WITHIN_S), agent.popen.returncode))
    assert said[0] == said[1]
    assert (said[0][0][0], said[0][1]) == (b"", 8)
    assert said[0][0][1].startswith(b"hpclab: no session is running")


# what compute nodes ask for that may not submit


def test_while_a_laptop_watches_a_session_its_nodes_can_have_workers(home, slurm):
    with start(home) as agent:
        name = agent.answer("name")
    folder = SessionFolder(str(slurm / "hpclab/sessions" / name))
    wish, barred = Submit(script="add-one-worker.sh", record=job_record()), NotFromHere("what\nwhy\nsay it there")
    with Agent(home, "watch", name=name) as agent:
        assert ask(LocalHost(home), folder, wish, barred) == ["7"]
        agent.popen.stdin.close()
        agent.end()
    assert asked(slurm) == 2  # the main job, and the worker's
    assert list(Path(folder.relay).iterdir()) == []


# the laptop is gone


def test_a_submission_that_has_begun_is_finished_and_remembered(home, slurm):
    (slurm / "wait").touch()
    with start(home) as agent:
        until(lambda: asked(slurm), within_s=WITHIN_S, what="the batch system to be asked")
        agent.leave()
        (slurm / "wait").unlink()
        agent.end()
    with start(home) as again:
        assert [again.answer("name")] == sessions(slurm)
    assert asked(slurm) == 1
    assert (slurm / "hpclab/sessions" / sessions(slurm)[0] / "jobs/7.json").exists()


def test_a_session_that_shall_fit_is_started_although_nobody_reads_the_offers(home, slurm):
    with start(home, fit="1x1,1x2") as agent:
        agent.leave()
        agent.end()
    with start(home, fit="1x1,1x2") as again:
        assert [again.answer("name")] == sessions(slurm)
    assert asked(slurm) == 1


def test_workers_are_added_although_the_laptop_is_gone(home, slurm):
    with start(home) as agent:
        name = agent.answer("name")
    (slurm / "wait").touch()
    with Agent(home, "run", argv=["add-worker", "-n", "2", "-s", name], origin="2-cd") as agent:
        until(lambda: asked(slurm) == 2, within_s=WITHIN_S, what="the batch system to be asked again")
        agent.leave()
        (slurm / "wait").unlink()
        agent.end()
    assert "submitted" in Agent(home, "run", argv=["add-worker", "-n", "2", "-s", name], origin="2-cd").output()
    assert asked(slurm) == 2


ENDLESS = {
    "watch": {"ask": "watch"},
    "follow": {"ask": "attach"},
    "logs": {"ask": "run", "argv": ["logs", "-f"]},
    "status": {"ask": "run", "argv": ["status", "--watch"]},
    "keep": {"ask": "run", "argv": ["keep", "1"]},
}


@pytest.fixture(scope="module")
def a_session(tmp_path_factory) -> Iterator[dict[str, str]]:
    """One that waits in the queue, in a home of its own."""
    path = tmp_path_factory.mktemp("home")
    with a_users_home(path) as env:
        commands = path / "bin"
        commands.mkdir()
        for name, text in {
            "sbatch": SBATCH,
            "squeue": "#!/bin/sh\necho 'JOBID|STATE|EXIT_CODE'\necho '7|PENDING|0'\n",
        }.items():
            (commands / name).write_text(text)
            (commands / name).chmod(0o755)
        env |= {"PATH": f"{commands}:{env['PATH']}", "HPCLAB_QUEUE": "slurm"}
        with start(env, name="calm-otter") as agent:
            agent.answer("name")
        (path / "hpclab/sessions/calm-otter/logs/7.log").write_text("a word\n")
        yield env


def endless(env: dict[str, str], what: str, **more: Any) -> Agent:
    """Has said something already."""
    agent = Agent(env, **{"name": "calm-otter", "env": {"HPCLAB_SESSION": "calm-otter"}, **ENDLESS[what], **more})
    assert agent.popen.stdout.readline()
    return agent


@pytest.mark.parametrize("what", ENDLESS)
def test_what_has_no_end_ends_with_the_connection(a_session, what):
    with endless(a_session, what) as agent:
        agent.popen.stdin.close()
        agent.end()
        assert b"Traceback" not in agent.popen.stderr.read()


@pytest.mark.parametrize("what", ENDLESS)
def test_what_has_no_end_ends_with_ctrl_c(a_session, what):
    with endless(a_session, what) as agent:
        agent.popen.stdin.write(b"\n\n\x03")
        agent.end()


@pytest.mark.parametrize("what", ["watch", "logs"])
def test_what_has_no_end_ends_when_the_laptop_is_silent(a_session, what):
    with endless(a_session, what, changes="agent.SILENCE_S = 0.5") as agent:
        agent.end()


def test_a_laptop_that_speaks_is_there(a_session):
    with endless(a_session, "watch", changes="agent.SILENCE_S = 0.5; agent.BEAT_S = 0.1") as agent:
        for _ in range(12):
            agent.popen.stdin.write(b"\n")
            agent.answer("beat")


def test_what_has_no_end_ends_when_nobody_reads_it(a_session):
    with endless(a_session, "watch", changes="agent.BEAT_S = 0.1") as agent:
        agent.leave()
        agent.end()
