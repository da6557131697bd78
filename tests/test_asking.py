"""Questions to the user: on a terminal, or by the program that ssh would ask by."""

from __future__ import annotations

import os
import pty
import select
import subprocess
import sys
from pathlib import Path

import pytest

from hpclab.asking import Asking
from hpclab.errors import LoginFailed

SECRET = "5ec2e7 täst"
ASK = """
import hashlib, os, sys
from hpclab.asking import Asking
from hpclab.errors import LoginFailed
try:
    typed = Asking(os.environ)(sys.argv[1], echo="echo" in sys.argv)
    print("heard", hashlib.sha256(typed.encode()).hexdigest())
except LoginFailed as error:
    print(error)
"""


def heard(secret: str) -> str:
    import hashlib

    return "heard " + hashlib.sha256(secret.encode()).hexdigest()


@pytest.fixture
def program(tmp_path) -> Path:
    """Answers with the secret, and writes down what it was asked."""
    path = tmp_path / "askpass"
    path.write_text(f'#!/bin/sh\nprintf %s "$1" > {tmp_path}/asked\necho "{SECRET}"\n')
    path.chmod(0o755)
    return path


def asked(args: list[str], *, env: dict[str, str] | None = None) -> str:
    """Without a terminal."""
    argv = [sys.executable, "-P", "-c", ASK, *args]
    done = subprocess.run(
        argv, env={**CLEAN, **(env or {})}, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=30,
        start_new_session=True,
    )  # fmt: skip
    assert done.stderr == ""
    return done.stdout


CLEAN = {
    name: value
    for name, value in os.environ.items()
    if name not in ("SSH_ASKPASS", "SSH_ASKPASS_REQUIRE", "DISPLAY", "WAYLAND_DISPLAY")
} | {"PYTHONUTF8": "1"}


class Terminal:
    """With a user who types an answer when the prompt stands there."""

    def __init__(self, prompt: str, typed: bytes, *args: str, env: dict[str, str] | None = None) -> None:
        pid, fd = pty.fork()
        if not pid:
            os.execve(sys.executable, [sys.executable, "-P", "-c", ASK, prompt, *args], {**CLEAN, **(env or {})})
        self.shown = b""
        has_typed = False
        while select.select([fd], [], [], 30)[0]:
            try:
                piece = os.read(fd, 4096)
            except OSError:  # Linux's way to say that nobody is there any more
                break
            if not piece:
                break
            self.shown += piece
            if prompt.encode() in self.shown and not has_typed:
                has_typed = True
                os.write(fd, typed)
        os.waitpid(pid, 0)
        os.close(fd)


# a terminal


def test_a_password_is_typed_and_nowhere_shown():
    terminal = Terminal("ada's password: ", SECRET.encode() + b"\n")
    assert heard(SECRET).encode() in terminal.shown
    assert SECRET.encode() not in terminal.shown
    assert b"5ec2e7" not in terminal.shown


def test_a_code_that_may_be_seen_is_shown():
    terminal = Terminal("Code: ", b"123456\n", "echo")
    assert heard("123456").encode() in terminal.shown
    assert b"Code: 123456" in terminal.shown


@pytest.mark.parametrize("args", [[], ["echo"]])
def test_an_empty_answer_is_one(args):
    assert heard("").encode() in Terminal("Password: ", b"\n", *args).shown


@pytest.mark.parametrize("args", [[], ["echo"]])
def test_the_end_of_input_is_no_answer(args):
    assert b"no answer to: Password:" in Terminal("Password: ", b"\x04", *args).shown


def test_spaces_belong_to_a_password():
    assert heard("  a b  ").encode() in Terminal("Password: ", b"  a b  \n").shown


def test_at_a_terminal_the_program_is_not_asked_unless_it_is_preferred(program):
    here = {"SSH_ASKPASS": str(program), "DISPLAY": ":0"}
    assert heard("typed").encode() in Terminal("Password: ", b"typed\n", env=here).shown
    preferred = Terminal("Password: ", b"typed\n", env={**here, "SSH_ASKPASS_REQUIRE": "prefer"})
    assert heard(SECRET).encode() in preferred.shown


# no terminal


def test_where_nobody_is_the_login_fails_with_a_way_out():
    told = asked(["ada's password: "])
    assert told.startswith("there is no terminal to ask on: ada's password:\n")
    assert "SSH_ASKPASS" in told


@pytest.mark.parametrize(
    ("env", "is_asked"),
    [
        ({}, False),
        ({"DISPLAY": ":0"}, True),
        ({"WAYLAND_DISPLAY": "wayland-0"}, True),
        ({"SSH_ASKPASS_REQUIRE": "force"}, True),
        ({"SSH_ASKPASS_REQUIRE": "FORCE"}, True),
        ({"SSH_ASKPASS_REQUIRE": "prefer"}, False),
        ({"SSH_ASKPASS_REQUIRE": "prefer", "DISPLAY": ":0"}, True),
        ({"SSH_ASKPASS_REQUIRE": "never", "DISPLAY": ":0"}, False),
        ({"DISPLAY": ""}, False),
    ],
)
def test_the_program_is_asked_as_ssh_would(program, env, is_asked):
    told = asked(["ada's password: "], env={"SSH_ASKPASS": str(program), **env})
    assert (heard(SECRET) in told) is is_asked
    assert ("no terminal" in told) is not is_asked


def asking(program: Path | str) -> Asking:
    return Asking({"SSH_ASKPASS": str(program), "SSH_ASKPASS_REQUIRE": "force", "PATH": os.environ["PATH"]})


def test_the_program_is_told_what_to_ask(program, tmp_path):
    assert asking(program)("it's $x `y`: ") == SECRET
    assert (tmp_path / "asked").read_text() == "it's $x `y`: "


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("#!/bin/sh\nexit 1\n", "gave no answer to: Password:"),
        ("#!/no/such/shell\n", "does not run: No such file"),
        ("", "does not run: Exec format error"),
    ],
)
def test_a_program_that_gives_no_answer(program, text, words):
    program.write_text(text)
    with pytest.raises(LoginFailed, match=words):
        asking(program)("Password: ")


def test_a_program_that_is_not_there(tmp_path):
    with pytest.raises(LoginFailed, match=r"SSH_ASKPASS=.*/none does not run: No such file"):
        asking(tmp_path / "none")("Password: ")
