"""Commands for a login shell that nobody chose: real shells carry them, and what they print besides is told apart."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from hpclab.shell import new_mark, remote_command

SHELLS = [shell for shell in ("sh", "dash", "bash", "csh", "tcsh", "zsh", "fish", "ksh") if shutil.which(shell)]
ODD = ["", " ", "a b", "it's", '"', "$HOME", "`id`", "$(id)", "\\", "\\n", "!!", "#", "*", "~", "-n", "--", ";", "&"]
ODD += ["|", "(", "{a,b}", "%d", "new\nline\n", "\ttab", "\x01", "Zürich", "日本", "x" * 20_000]
ECHO = [sys.executable, "-c", "import sys; sys.stdout.write(repr(sys.argv[1:]))"]
MARK = b"hpclab-begins-5ec2e7"


def said(shell: str, home: Path, command: str, *, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    """As sshd has it said."""
    env = {"HOME": str(home), "PATH": os.environ["PATH"], "LANG": "C.UTF-8", "BASH_ENV": str(home / ".bashrc")}
    return subprocess.run([shell, "-c", command], env=env, cwd=home, input=stdin, capture_output=True, timeout=30)


def behind_the_mark(output: bytes) -> bytes:
    assert output.count(MARK + b"\n") == 1
    return output.partition(MARK + b"\n")[2]


@pytest.mark.parametrize("prologue", [[], ["echo loading; echo it >&2", "export SEEN=1"]], ids=["bare", "prologue"])
@pytest.mark.parametrize("shell", SHELLS)
def test_every_shell_carries_every_argument(tmp_path, shell, prologue):
    done = said(shell, tmp_path, remote_command([*ECHO, *ODD], MARK, prologue=prologue))
    assert behind_the_mark(done.stdout).decode() == repr(ODD)
    assert (done.returncode, behind_the_mark(done.stderr)) == (0, b"loading\nit\n" if prologue else b"")


@pytest.mark.parametrize("shell", SHELLS)
def test_start_up_files_may_print(tmp_path, shell):
    for name in (".bashrc", ".cshrc", ".profile", ".bash_profile", ".zshenv"):
        (tmp_path / name).write_text("echo Welcome; echo hpclab-begins-\n")
    done = said(shell, tmp_path, remote_command(["echo", "it"], MARK, prologue=["true"]))
    assert b"Welcome" in done.stdout  # of the login shell that runs the prologue
    assert behind_the_mark(done.stdout) == b"it\n"


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize("prologue", [[], ["true"]], ids=["bare", "prologue"])
def test_the_exit_status_is_the_commands(tmp_path, shell, prologue):
    assert said(shell, tmp_path, remote_command(["sh", "-c", "exit 42"], MARK, prologue=prologue)).returncode == 42


def test_what_is_said_to_the_command_a_prologue_does_not_take(tmp_path):
    done = said("sh", tmp_path, remote_command(["cat"], MARK, prologue=["read -r it", "cat"]), stdin=b"a request\n")
    assert behind_the_mark(done.stdout) == b"a request\n"


def test_a_prologue_makes_the_commands_environment(tmp_path):
    (tmp_path / ".bash_profile").write_text("module() { export LOADED=$2; }\n")
    command = remote_command(["sh", "-c", "echo $LOADED"], MARK, prologue=["module load python"])
    assert behind_the_mark(said("csh", tmp_path, command).stdout) == b"python\n"


def test_a_prologue_that_gives_up_is_no_command(tmp_path):
    done = said("sh", tmp_path, remote_command(["echo", "it"], MARK, prologue=["echo no such module >&2; exit 9"]))
    assert (done.returncode, done.stdout) == (9, b"")
    assert behind_the_mark(done.stderr) == b"no such module\n"


def test_a_command_is_one_line_that_all_shells_read_alike():
    command = remote_command([*ECHO, *ODD], MARK, prologue=["a 'b' \"c\" !d"])
    assert re.fullmatch(r"exec bash -lc 'eval \"\$\(echo [A-Za-z0-9+/=]+ \| base64 -d\)\"'", command)


def test_no_two_marks_are_alike():
    assert new_mark() != new_mark()
