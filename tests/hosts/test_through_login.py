"""Commands on a login node by ssh from here: an ssh that is a script of ours, and runs the command on this machine."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from hpclab.errors import ConfigError, ConnectionLost, Unreachable
from hpclab.hosts.local import LocalHost
from hpclab.hosts.through_login import ThroughLogin

SSH = """#!/bin/bash
printf '%s\\n' "$@" >"$HOME/argv"
echo '*** authorised use only ***' >&2
[ ! -e "$HOME/closed" ] || { echo 'ada@login: Permission denied (publickey).' >&2; exit 255; }
bash -c "${!#}"
status=$?
[ ! -e "$HOME/lost" ] || { echo 'client_loop: send disconnect: Broken pipe' >&2; exit 255; }
exit $status
"""


@pytest.fixture
def home(tmp_path) -> Path:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/ssh").write_text(SSH)
    (tmp_path / "bin/ssh").chmod(0o755)
    (tmp_path / ".bash_profile").write_text("echo welcome; echo hello >&2; export SITE=here\n")
    return tmp_path


@pytest.fixture
def login(home) -> ThroughLogin:
    env = {"HOME": str(home), "PATH": f"{home}/bin:{os.environ['PATH']}"}
    return ThroughLogin(LocalHost(env), "login")


def test_a_command_is_run_and_the_noise_before_it_is_cut_off(login):
    result = login.run(["sh", "-c", "echo out; echo err >&2; exit 3"])
    assert (result.exit_status, result.stdout, result.stderr, result.host) == (3, "out\n", "err\n", "login")


def test_words_arrive_as_they_are(login):
    words = ["a b", "it's", '"', "$HOME", "new\nline", "*", "", "ä"]
    assert login.run(["printf", r"%s\0", *words]).stdout.split("\0")[:-1] == words


def test_it_has_what_the_users_profile_sets(login):
    assert login.run(["sh", "-c", "echo $SITE"]).stdout == "here\n"


def test_it_never_asks_anybody_and_forwards_nothing(login, home):
    login.run(["true"])
    argv = (home / "argv").read_text().splitlines()
    assert {"BatchMode=yes", "ConnectTimeout=5", "ClearAllForwardings=yes", "-T", "-a", "-x"} <= set(argv)
    assert argv[argv.index("--") + 1] == "login"


def test_one_that_is_not_let_in_has_run_nothing(login, home):
    (home / "closed").touch()
    with pytest.raises(Unreachable, match="Permission denied") as error:
        login.run(["touch", str(home / "ran")])
    assert not isinstance(error.value, ConnectionLost)
    assert not (home / "ran").exists()


def test_one_that_is_cut_off_is_not_known_to_have_run(login, home):
    (home / "lost").touch()
    with pytest.raises(ConnectionLost, match="is not known"):
        login.run(["true"])


@pytest.mark.parametrize("name", ["-oProxyCommand=evil", "", "a b", "x;y"])
def test_a_name_that_ssh_would_misread_is_refused(name):
    with pytest.raises(ConfigError):
        ThroughLogin(LocalHost({}), name)
