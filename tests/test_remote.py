"""The laptop's end of `hpclab agent`: against a real one here, and against what else a login node may have there."""

from __future__ import annotations

import _thread
import datetime
import io
import json
import re
import shlex
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from login_here import LoginHere, a_users_home
from test_errors import CLASSES

from hpclab.__about__ import __version__
from hpclab.errors import ConnectionLost, HpclabError, NoSuchSession, RemoteUnfit
from hpclab.remote import PROTOCOL, Answers, Remote

HELLO = json.dumps({"hello": {"hpclab": __version__, "protocol": PROTOCOL, "host": "login1"}})


@pytest.fixture
def home(tmp_path) -> Iterator[dict[str, str]]:
    with a_users_home(tmp_path) as env:
        yield env


@pytest.fixture
def login(home) -> Iterator[LoginHere]:
    login = LoginHere(home)
    yield login
    login.close()


@pytest.fixture
def remote(login) -> Remote:
    """hpclab as it is."""
    return Remote(login, python=sys.executable)


@pytest.fixture
def one_that(login, tmp_path):
    """one_that("echo hello") is what stands over there in hpclab's place; it is sh, or Python."""

    def _one_that(text: str, *, python: bool = False) -> Remote:
        script = tmp_path / "there"
        script.write_text(f"#!{sys.executable if python else '/bin/sh'}\n{text}\n")
        script.chmod(0o755)
        return Remote(login, python=str(script))

    return _one_that


def says(*answers: Any) -> str:
    """Reads the request, says hello, and these."""
    lines = [HELLO, *(answer if isinstance(answer, str) else json.dumps(answer) for answer in answers)]
    return "\n".join(["read -r request", *(f"printf '%s\\n' {shlex.quote(line)}" for line in lines)])


def all_of(answers: Answers) -> list[dict[str, Any]]:
    """Until the connection ends."""
    found: list[dict[str, Any]] = []
    with pytest.raises(ConnectionLost):
        found.extend(answers)  # keeps what came before the end
    return found


def ran(remote: Remote, *argv: str, **more: Any) -> tuple[int, bytes, bytes]:
    out, err = io.BytesIO(), io.BytesIO()
    return remote.run(argv, stdout=out, stderr=err, **more), out.getvalue(), err.getvalue()


# is hpclab there?


def test_it_is_told_which_host_and_version_answers(remote):
    assert ran(remote, "--version") == (0, f"hpclab {__version__}\n".encode(), b"")
    assert remote.host


def test_without_a_python_it_is_found_on_the_path(login, tmp_path):
    there = tmp_path / "bin"
    there.mkdir()
    (there / "hpclab").write_text(f'#!/bin/sh\nexec {sys.executable} -P -m hpclab "$@"\n')
    (there / "hpclab").chmod(0o755)
    login.env = {**login.env, "PATH": f"{there}:/usr/bin:/bin"}
    assert ran(Remote(login), "--version")[0] == 0


@pytest.mark.parametrize("place", [".hpclab/env/bin", ".local/bin"])
def test_without_a_python_it_is_found_where_people_install_it(login, tmp_path, place):
    there = tmp_path / place
    there.mkdir(parents=True)
    (there / "hpclab").write_text(f'#!/bin/sh\nexec {sys.executable} -P -m hpclab "$@"\n')
    (there / "hpclab").chmod(0o755)
    login.env = {**login.env, "PATH": "/usr/bin:/bin"}
    assert ran(Remote(login), "--version")[0] == 0


def test_without_a_python_it_is_found_by_a_login_shell(login, tmp_path):
    there = tmp_path / "bin"
    there.mkdir()
    (there / "hpclab").write_text(f'#!/bin/sh\nexec {sys.executable} -P -m hpclab "$@"\n')
    (there / "hpclab").chmod(0o755)
    (tmp_path / ".bash_profile").write_text(f"echo Welcome\nexport PATH={there}:$PATH\n")
    login.env = {**login.env, "PATH": "/usr/bin:/bin"}
    assert ran(Remote(login), "--version")[0] == 0


def test_a_python_in_the_home_is_the_home_over_there(login, tmp_path):
    (tmp_path / "my env").mkdir()
    (tmp_path / "my env/python").symlink_to(sys.executable)
    (tmp_path / "my env/pyvenv.cfg").write_text((Path(sys.prefix) / "pyvenv.cfg").read_text())
    (tmp_path / "lib").symlink_to(Path(sys.prefix) / "lib")
    login.env = {**login.env, "PYTHONPATH": str(Path(__file__).parents[1])}
    with pytest.raises(RemoteUnfit, match=r"~/no env/python on ada@login\n.*/no env/python: (not found|No such file)"):
        Remote(login, python="~/no env/python").watch("x")


@pytest.mark.parametrize(
    ("there", "words"),
    [
        ("echo 'python: No module named hpclab' >&2; exit 1", "there is no hpclab in "),
        ("echo \"Error: No such command 'agent'.\" >&2; exit 2", f"is too old for this {__version__}"),
        ('echo \'{"hello": {"hpclab": "0.0.1", "protocol": 0}}\'; read -r request; read -r more', "hpclab 0.0.1 in "),
        ("echo nonsense; echo '[1]'; echo null; echo '{}'; exit 3", "does not start: exit status 3"),
        ("echo cannot load libfoo >&2; kill -9 $$", "cannot load libfoo"),
        ("", "does not start: exit status 0"),
    ],
)
def test_what_is_not_fit_is_told_with_the_command_that_installs_it(one_that, there, words):
    remote = one_that(there)
    with pytest.raises(RemoteUnfit, match=words) as told:
        remote.watch("calm-otter")
    assert told.value.exit_code == 20
    lines = str(told.value).splitlines()
    assert lines[-2].startswith("install it: ssh ada@login '")
    assert f"hpclab[cluster,mpich]=={__version__}" in lines[-2]
    assert lines[-1].endswith("set `remote_python` to the Python that has it")


def test_a_machine_without_any_hpclab(login):
    login.env = {**login.env, "PATH": "/usr/bin:/bin"}
    with pytest.raises(
        RemoteUnfit, match=r"there is no hpclab on ada@login\ninstall it: .*python3 -m venv ~/.hpclab/env"
    ):
        Remote(login).watch("calm-otter")


def test_a_python_without_hpclab(one_that):
    with pytest.raises(RemoteUnfit, match=r"there is no hpclab in .*\n.*No module named hpclab"):
        one_that(f'exec {sys.executable} -I -S "$@"').watch("calm-otter")


def test_the_command_that_installs_it_can_be_said_as_it_stands(login):
    login.env = {**login.env, "PATH": "/usr/bin:/bin"}
    with pytest.raises(RemoteUnfit) as told:
        Remote(login).watch("calm-otter")
    said = next(line for line in str(told.value).splitlines() if line.startswith("install it: "))
    ssh, destination, command = shlex.split(said.removeprefix("install it: "))
    assert (ssh, destination) == ("ssh", "ada@login")
    made, installed = command.split(" && ")
    assert made == "python3 -m venv ~/.hpclab/env"
    python, *words = shlex.split(installed)
    assert python == "~/.hpclab/env/bin/python"
    assert words == ["-m", "pip", "install", f"hpclab[cluster,mpich]=={__version__}"]


@pytest.mark.parametrize("python", ["/opt/my env/bin/python", "/it's/python", "/opt/$x/python"])
def test_a_python_that_is_not_there_is_named(login, python):
    with pytest.raises(RemoteUnfit, match=f"there is no Python {re.escape(python)} on ada@login"):
        Remote(login, python=python).watch("calm-otter")


def test_words_before_the_hello_do_no_harm(one_that):
    remote = one_that("echo Welcome; echo '{'; echo '{\"hello\": 1}'\n" + says({"name": "calm-otter"}))
    assert all_of(remote.watch("")) == [{"name": "calm-otter"}]


def test_a_newer_agent_is_fine(one_that):
    newer = json.dumps({"hello": {"hpclab": "99", "protocol": PROTOCOL + 1, "host": "login1"}})
    one_that(f"read -r request; echo '{newer}'").watch("")


# answers


def test_the_request_arrives_as_it_was_said(one_that, tmp_path):
    given = {"account": 'it\'s "ours" $x\n', "walltime": datetime.time(1, 30), "modules": ["a", "b"]}
    remote = one_that(f"IFS= read -r request; printf %s \"$request\" > {tmp_path}/request\necho '{HELLO}'")
    remote.start(given, name="calm-otter", fit="1x4", origin="1-ab")
    request = json.loads((tmp_path / "request").read_text())
    assert request.pop("columns") > 0
    assert request == {
        "ask": "start",
        "destination": "ada@login",
        "given": {**given, "walltime": "01:30:00"},
        "name": "calm-otter",
        "fit": "1x4",
        "origin": "1-ab",
    }


def test_an_answer_may_be_given_back(one_that):
    answers = one_that(says({"beat": 0}, {"beat": 1})).watch("")
    answers.unread({"beat": -1})
    assert [answers.next(20) for _ in range(3)] == [{"beat": -1}, {"beat": 0}, {"beat": 1}]


def test_nothing_in_time_is_no_answer(one_that):
    answers = one_that(says() + "\nread -r more").watch("")
    assert answers.next(0.01) is None
    answers.close()


@pytest.mark.parametrize("last", ['{"session": {"name": "calm-ot', '{"error"', "", '{"beat": 1'])
def test_an_answer_that_is_cut_is_a_lost_connection(one_that, last):
    remote = one_that(says({"beat": 0}) + f"\nprintf %s {shlex.quote(last)}")
    assert all_of(remote.watch("")) == [{"beat": 0}]
    answers = remote.watch("")
    for _ in range(2):  # and goes on being one
        with pytest.raises(ConnectionLost, match="hpclab attach"):
            list(answers)


def test_what_is_no_answer_is_passed_over(one_that):
    assert all_of(one_that(says("a library says hello", "3", "null", "[1]", {"beat": 1})).watch("")) == [{"beat": 1}]


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_every_error_is_the_same_on_this_side(one_that, cls):
    answers = one_that(says({"error": {"class": cls.__name__, "message": "it happened\n  why\nsay it again"}})).watch(
        ""
    )
    with pytest.raises(HpclabError) as told:
        answers.next(20)
    assert type(told.value) is cls
    assert str(told.value) == "it happened\n  why\nsay it again"


@pytest.mark.parametrize("name", ["FromANewerHpclab", "shlex", "annotations", "CommandResult", "__doc__"])
def test_an_error_that_is_not_known_here_is_one_nevertheless(one_that, name):
    answers = one_that(says({"error": {"class": name, "message": "it happened"}})).watch("")
    with pytest.raises(HpclabError, match="it happened") as told:
        answers.next(20)
    assert type(told.value) is HpclabError


def test_a_real_error_comes_over(remote):
    with pytest.raises(NoSuchSession, match="no session 'calm-otter'"):
        list(remote.watch("calm-otter"))


def test_the_reverse_ports(one_that):
    assert one_that(says({"beat": 0}, {"ports": [40001, 40002]})).reverse("calm-otter") == (40001, 40002)


# a command line


@pytest.mark.parametrize(
    ("argv", "exit_status", "out", "err"),
    [
        (["list"], 0, b"no sessions; start one with `hpclab start`\n", b""),
        (["list", "--json"], 0, b"[]\n", b""),
        (["status", "calm-otter"], 8, b"", b"hpclab: no session 'calm-otter'"),
        (["status", "--nonsense"], 2, b"", b"No such option"),
        (["status", "../evil"], 2, b"", b"cannot be the name"),
    ],
)
def test_a_command_is_as_if_said_here(remote, argv, exit_status, out, err):
    status, stdout, stderr = ran(remote, *argv)
    assert (status, stdout) == (exit_status, out)
    assert err in stderr


def test_a_command_is_about_the_session_unless_it_names_one(remote):
    assert b"no session 'calm-otter'" in ran(remote, "status", session="calm-otter")[2]
    assert b"no session 'bold-heron'" in ran(remote, "status", "bold-heron", session="calm-otter")[2]


def test_it_goes_nowhere_else_from_there(remote, tmp_path):
    (tmp_path / "config/hpclab").mkdir(parents=True)
    (tmp_path / "config/hpclab/config.toml").write_text('host = "nobody@nowhere.invalid"\n')
    assert ran(remote, "list")[:2] == (0, b"no sessions; start one with `hpclab start`\n")


def test_much_output_arrives_whole_on_both_streams(one_that):
    there = f"""
import os, sys, threading
sys.stdin.buffer.readline()
print({HELLO!r}, flush=True)
streams = [threading.Thread(target=stream.buffer.write, args=(word * 5_000_000,))
           for stream, word in ((sys.stdout, b"o"), (sys.stderr, b"\\xff"))]
for stream in streams: stream.start()
for stream in streams: stream.join()
sys.exit(7)"""
    status, out, err = ran(one_that(there, python=True), "logs")
    assert (status, len(out), len(err)) == (7, 5_000_000, 5_000_000)
    assert (set(out), set(err)) == ({ord("o")}, {0xFF})


def test_what_comes_without_a_line_break_is_shown_at_once(one_that):
    class ReleasesIt(io.BytesIO):
        def write(self, data: Any) -> int:
            with suppress(BrokenPipeError):  # the second time it has gone
                login.processes[-1].stdin.write(b"go\n")
            return super().write(data)

    remote = one_that(f"read -r request; echo '{HELLO}'; printf half; read -r go; echo ' and half'")
    login = remote.login
    out = ReleasesIt()
    assert remote.run(["logs"], stdout=out, stderr=io.BytesIO()) == 0
    assert out.getvalue() == b"half and half\n"


@pytest.mark.parametrize("is_terminal", [True, False])
def test_colours_are_for_terminals(remote, is_terminal):
    assert (b"\x1b[" in ran(remote, "config", is_terminal=is_terminal)[1]) is is_terminal


def test_who_wants_no_colours_here_gets_none_from_there(one_that, tmp_path, monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    remote = one_that(f"IFS= read -r request; printf %s \"$request\" > {tmp_path}/request\necho '{HELLO}'")
    ran(remote, "list", is_terminal=True)
    assert json.loads((tmp_path / "request").read_text())["env"]["NO_COLOR"] == "1"


class NobodyReads(io.RawIOBase):
    """As when `head` has seen enough."""

    def write(self, _: object) -> int:
        raise BrokenPipeError


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_a_command_ends_when_nobody_reads_it_any_more(one_that, stream):
    to = "" if stream == "stdout" else " >&2"
    remote = one_that(f"read -r request; echo '{HELLO}'; while echo more{to}; do :; done")
    streams = {"stdout": io.BytesIO(), "stderr": io.BytesIO(), stream: NobodyReads()}
    with pytest.raises(BrokenPipeError):
        remote.run(["logs", "-f"], **streams)
    remote.login.processes[-1].wait(20)


def test_ctrl_c_here_is_ctrl_c_there(one_that):
    class InterruptsUs(io.BytesIO):
        def write(self, data: Any) -> int:
            if data == b"at it\n":
                _thread.interrupt_main()
            return super().write(data)

    there = f"""
import os, sys
os.read(0, 10_000)
print({HELLO!r}, flush=True)
print("at it", flush=True)
heard = b"\\n"
while heard == b"\\n": heard = os.read(0, 1)
print("heard", heard, flush=True)"""
    out = InterruptsUs()
    assert one_that(there, python=True).run(["keep", "2"], stdout=out, stderr=io.BytesIO()) == 130
    assert out.getvalue() == b"at it\nheard b'\\x03'\n"


def test_a_prologue_comes_first(login):
    noisy = Remote(login, python=sys.executable, prologue=["echo loading", "export HPCLAB_SESSION=calm-otter"])
    status, out, err = ran(noisy, "status")
    assert (status, out) == (8, b"")
    assert err.startswith(b"loading\nhpclab: no session 'calm-otter'")


def test_a_prologue_that_fails_is_told(login):
    with pytest.raises(RemoteUnfit, match="exit status 5\n  no such module\n"):
        Remote(login, python=sys.executable, prologue=["echo no such module >&2; exit 5"]).watch("x")


def test_the_agent_hears_that_we_are_there(one_that, monkeypatch):
    monkeypatch.setattr("hpclab.remote.BEAT_S", 0.01)
    began = time.monotonic()
    assert all_of(one_that(says() + "\nread -r beat; read -r beat; echo '{\"beat\": 2}'").watch("")) == [{"beat": 2}]
    assert time.monotonic() - began < 20
