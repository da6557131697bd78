"""The laptop's part between hpclab over there and the user here, when connections are lost and users lose patience.

The login node is this machine, without SSH; the tunnel itself has tests of its own.
"""

from __future__ import annotations

import io
import os
import signal
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from login_here import LoginHere, ProcessHere, a_users_home
from rich.console import Console

from hpclab import afar
from hpclab.afar import Afar, Wishes
from hpclab.bookmarks import Bookmark, Bookmarks
from hpclab.errors import ConfigError, ConnectionLost, LoginFailed, NoSuchSession, SessionExists, Unreachable
from hpclab.hosts.local import LocalHost

NO_TUNNEL = Wishes(tunnel=False)


NOT_EVEN_BEGUN = 0
ALL_IS_WELL = -1


class Cut:
    """A command whose connection is lost after some lines of its output; it hears that only by the end of its stdin."""

    def __init__(self, process: ProcessHere, lines: int, login: LoginHere) -> None:
        self._process, self._left, self._login = process, lines, login
        self.stdin, self.stderr = process.stdin, process.stderr
        self.stdout = self

    def readline(self) -> bytes:
        self._left -= 1
        if self._left < 0:
            self.close()
            self._login.is_connected = False
            raise ConnectionLost("the connection to ada@login is gone\ntry again")
        return self._process.stdout.readline()

    def read1(self, _: int) -> bytes:
        return self.readline()

    def wait(self, timeout_s: float | None = None) -> int:
        raise ConnectionLost("the connection to ada@login is gone\ntry again")

    def close(self) -> None:
        self._process.close()


@dataclass
class Unsteady(LoginHere):
    cuts: list[int] = field(default_factory=list)
    """After so many lines the next command's connection is lost."""
    fails: list[Exception] = field(default_factory=list)
    """What the next attempts to connect end in."""

    def connect(self, *, timeout_s: float = 30) -> None:
        if self.fails:
            raise self.fails.pop(0)
        super().connect(timeout_s=timeout_s)

    def start(self, argv, *, prologue=()) -> Any:
        if self.cuts[:1] == [NOT_EVEN_BEGUN]:
            self.is_connected = bool(self.cuts.pop(0))
        process = super().start(argv, prologue=prologue)
        lines = self.cuts.pop(0) if self.cuts else ALL_IS_WELL
        return process if lines == ALL_IS_WELL else Cut(process, lines, self)


@pytest.fixture(autouse=True)
def laptop(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("HPCLAB_HOME", str(tmp_path / "laptop"))
    monkeypatch.setattr(afar, "TRY_AGAIN_S", (0.01,))
    return tmp_path / "laptop"


@pytest.fixture
def login(tmp_path, monkeypatch) -> Iterator[Unsteady]:
    (tmp_path / "there").mkdir()
    with a_users_home(tmp_path / "there") as env:
        login = Unsteady(env)
        monkeypatch.setattr(afar, "login_node", lambda *_, **__: login)
        yield login
        login.close()


@pytest.fixture
def signals():
    """As they were."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@dataclass
class Here:
    """One command line at the laptop."""

    afar: Afar

    @property
    def said(self) -> str:
        return self.afar.console.file.getvalue()


def here(name: str = "", *, holds: bool = False) -> Here:
    place = Bookmark(name=name, destination="ada@login", python=sys.executable)
    return Here(Afar(place, Console(file=io.StringIO(), width=200, highlight=False), holds=holds))


def start(name: str = "calm-otter", **given: Any) -> Here:
    one = here(holds=True)
    one.afar.start(given, name=name, fit="", wishes=NO_TUNNEL)
    return one


def sessions(tmp_path: Path) -> list[str]:
    return [path.name for path in (tmp_path / "there/hpclab/sessions").glob("*")]


def jobs(tmp_path: Path) -> int:
    return len([path for path in (tmp_path / "there/localq/jobs").glob("*") if path.name.isdecimal()])


def known() -> list[str]:
    return [bookmark.name for bookmark in Bookmarks(LocalHost(os.environ)).all()]


# a session


def test_a_start_shows_every_step_and_how_to_connect(login, capsys, signals):
    said = start().said
    for words in ("connecting to ada@login\n", "session calm-otter on ada@login\n", "started on ", "JupyterLab up"):
        assert words in said
    assert "ssh -N -L 8888:127.0.0.1:2" in capsys.readouterr().out
    assert known() == ["calm-otter"]


@pytest.mark.parametrize("lines", [0, 1, 2, 3])
def test_a_connection_that_is_lost_on_the_way_starts_one_session(login, tmp_path, capsys, signals, lines):
    login.cuts = [lines] * 2
    said = start("").said
    assert len(sessions(tmp_path)) == jobs(tmp_path) == 1
    assert known() == sessions(tmp_path)
    assert said.count("; trying again") == 2
    assert said.count("JupyterLab up") == said.count("session ") == 1
    assert "ssh -N -L" in capsys.readouterr().out


def test_a_login_node_that_is_away_for_a_while_is_waited_for(login, tmp_path, capsys, signals):
    def away(number: int) -> None:
        login.fails = [Unreachable("no route\nwait")] * 3

    login.cuts = [2]
    login.drop = lambda: away(3)
    start()
    assert jobs(tmp_path) == 1


def test_who_is_not_let_in_again_is_told(login, signals):
    login.cuts = [2]
    login.drop = lambda: login.fails.append(LoginFailed("wrong code\nsay it again"))
    with pytest.raises(LoginFailed, match="wrong code"):
        start()


def test_what_is_wrong_over_there_is_told_here(login, tmp_path, signals):
    with pytest.raises(ConfigError, match="nonsense"):
        start(queue="nonsense")
    assert known() == sessions(tmp_path) == []


def test_ctrl_c_tells_how_to_go_on_and_loses_nothing(login, tmp_path, monkeypatch, signals):
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("hpclab.progress.Progress.tell", interrupted)
    one = here(holds=True)
    with pytest.raises(SystemExit) as end:
        one.afar.start({}, name="calm-otter", fit="", wishes=NO_TUNNEL)
    assert end.value.code == 130
    for words in ("the session calm-otter goes on", "hpclab attach calm-otter", "hpclab stop calm-otter"):
        assert words in one.said
    assert (known(), sessions(tmp_path)) == (["calm-otter"], ["calm-otter"])


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_closed_terminal_is_an_interruption_too(login, monkeypatch, signals, number):
    monkeypatch.setattr("hpclab.progress.Progress.tell", lambda *_: signal.raise_signal(number))
    one = here(holds=True)
    with pytest.raises(SystemExit):
        one.afar.start({}, name="calm-otter", fit="", wishes=NO_TUNNEL)
    assert "the session calm-otter goes on" in one.said


def test_another_machine_attaches(login, capsys, signals):
    start()
    capsys.readouterr()
    Bookmarks(LocalHost(os.environ)).forget([Bookmark(name="calm-otter", destination="ada@login")])
    here(holds=True).afar.attach(NO_TUNNEL)
    assert "ssh -N -L 8888:127.0.0.1:2" in capsys.readouterr().out
    assert known() == ["calm-otter"]


def test_there_is_nothing_to_attach_to(login, signals):
    with pytest.raises(NoSuchSession, match="no session is running"):
        here(holds=True).afar.attach(NO_TUNNEL)


def test_the_bell_rings_when_it_is_up(login, capsys, signals):
    here(holds=True).afar.start({}, name="calm-otter", fit="", wishes=Wishes(tunnel=False, bell=True))
    assert "\a" in capsys.readouterr().err


# one command


def test_workers_are_added_once_although_the_answer_is_lost(login, tmp_path, capsys, signals):
    start()
    capsys.readouterr()
    login.cuts = [1]
    one = here("calm-otter")
    assert one.afar.run(["add-worker"]) == 0
    assert "is gone; asking what became of it" in one.said
    assert "submitted 2 to calm-otter" in capsys.readouterr().out
    assert jobs(tmp_path) == 2


def test_what_only_looks_is_not_said_twice(login, signals):
    start()
    login.cuts = [1]
    with pytest.raises(ConnectionLost):
        here("calm-otter").afar.run(["status"])


def test_a_session_that_was_stopped_is_forgotten(login, signals):
    start()
    assert here("calm-otter").afar.run(["stop"]) == 0
    assert known() == []


def test_a_session_that_was_stopped_without_a_name_is_forgotten(login, signals):
    start()
    assert here().afar.run(["stop"]) == 0
    assert known() == []


def test_a_session_that_is_not_there_any_more_is_forgotten(login):
    Bookmarks(LocalHost(os.environ)).keep(Bookmark(name="calm-otter", destination="ada@login"))
    assert here("calm-otter").afar.run(["status"]) == NoSuchSession.exit_code
    assert known() == []


def test_a_command_that_fails_forgets_nothing(login, signals):
    start()
    assert here("calm-otter").afar.run(["remove-worker", "99"]) == 11
    assert known() == ["calm-otter"]


def test_no_two_requests_have_one_name():
    assert afar._origin() != afar._origin()


# a run of a script

COUNTS = """
import sys, time
for n in range(6):
    print("step", n, flush=True)
    time.sleep(0.05)
sys.exit(7)
"""


def run_script(tmp_path: Path, one: Here, *options: str, text: str = COUNTS, name: str = "") -> int:
    script = tmp_path / "there/model.py"
    script.write_text(text)
    argv = ["run", "--launch", "file", "--ntasks", "1", "--python", sys.executable, *options, str(script)]
    return one.afar.run_script(argv, {}, name=name, detach="--detach" in options)


def test_a_run_is_followed_over_connections_that_are_lost(login, tmp_path, capsys):
    login.cuts = [ALL_IS_WELL, 3, 2, 5]
    one = here()
    assert run_script(tmp_path, one) == 7
    assert capsys.readouterr().out == "".join(f"step {n}\n" for n in range(6))
    assert one.said.count("is gone; a run goes on, and is followed again") == 3
    assert jobs(tmp_path) == 1
    assert known() == []


@pytest.mark.parametrize("detach", [[], ["--detach"]], ids=["followed", "detached"])
@pytest.mark.parametrize("lines", [NOT_EVEN_BEGUN, 1])
def test_a_run_is_submitted_once_whenever_the_connection_is_lost(login, tmp_path, capsys, lines, detach):
    login.cuts = [lines]
    one = here()
    assert run_script(tmp_path, one, "--name", "plain-run", *detach, name="plain-run") == (0 if detach else 7)
    assert "asking what became of it" in one.said
    assert jobs(tmp_path) == 1
    assert known() == (["plain-run"] if detach else [])


def test_a_run_of_a_name_that_is_taken_is_refused(login, tmp_path, capsys):
    named = {"name": "plain-run", "text": "print('the older one')"}
    assert run_script(tmp_path, here(), "--name", "plain-run", **named) == 0
    assert run_script(tmp_path, here(), "--name", "plain-run", name="plain-run") == SessionExists.exit_code
    assert "there is a session 'plain-run' already" in capsys.readouterr().err
    assert jobs(tmp_path) == 1


def test_a_run_that_goes_on_without_us_is_found_again(login, tmp_path, capsys):
    assert run_script(tmp_path, here(), "--detach") == 0
    (name,) = known()
    assert f"hpclab attach {name}" in capsys.readouterr().out
    assert here(name).afar.attach_script(["attach", name]) == 7
    assert capsys.readouterr().out.endswith("step 5\n")


def test_a_run_that_is_refused_is_not_remembered(login, tmp_path, capsys):
    assert run_script(tmp_path, here(), "--detach", text="") == 2
    assert "is empty" in capsys.readouterr().err
    assert known() == []
