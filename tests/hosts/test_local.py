"""This machine, with real commands and files."""

from __future__ import annotations

import os
import select
import stat
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from hpclab.errors import CommandMissing, TookTooLong
from hpclab.hosts.local import LocalHost
from hpclab.hosts.recording import RecordingHost


@pytest.fixture
def host(tmp_path):
    return LocalHost({"PATH": os.environ["PATH"], "HOME": str(tmp_path), "USER": "ada", "MARK": "x y"})


# commands


def test_a_command_tells_all(host):
    result = host.run(["bash", "-c", 'echo "$MARK"; echo oh >&2; exit 3'])
    assert (result.exit_status, result.stdout, result.stderr, result.output) == (3, "x y\n", "oh\n", "oh")
    assert (result.host, result.argv[0]) == (host.name, "bash")


def test_words_are_passed_on_as_they_are(host):
    assert host.run(["echo", "$HOME", "a b", "*", "'"]).stdout == "$HOME a b * '\n"


def test_python_is_hpclabs_own_and_imports_nothing_from_where_it_is_called(host):
    asked = ["python", "-c", "import sys; print(sys.executable, '' in sys.path)"]
    result = host.run(asked)
    assert result.stdout == f"{sys.executable} False\n"
    assert result.argv == tuple(asked)


def test_a_command_finds_no_input(host):
    assert host.run(["cat"]).stdout == ""


def test_a_missing_command(host):
    with pytest.raises(CommandMissing, match="there is no 'sbatch-of-old'"):
        host.run(["sbatch-of-old", "x"])


def test_a_command_that_may_not_be_run(host, tmp_path):
    (tmp_path / "tool").write_text("#!/bin/sh\n")
    (tmp_path / "tool").chmod(0o600)
    with pytest.raises(CommandMissing, match="tool"):
        host.run([str(tmp_path / "tool")])


def test_a_command_that_hangs(host):
    with pytest.raises(TookTooLong, match="'sleep' did not answer"):
        host.run(["sleep", "60"], timeout_s=0.05)


def test_a_command_that_hangs_is_ended_with_all_that_it_has_started(host, tmp_path):
    """A batch system's command may be a script around another one."""
    held = tmp_path / "held"
    os.mkfifo(held)
    reader = os.open(held, os.O_RDONLY | os.O_NONBLOCK)
    with pytest.raises(TookTooLong):
        host.run(["bash", "-c", f"sleep 300 9>{held}; true"], timeout_s=1)
    assert select.select([reader], [], [], 20)[0], "it is still held"
    assert os.read(reader, 1) == b""
    os.close(reader)


def test_output_that_is_no_utf8(host):
    assert host.run(["printf", r"a\377b"]).stdout == "a\N{REPLACEMENT CHARACTER}b"


# files


def test_a_file_is_read_as_it_was_written(host, tmp_path):
    path = str(tmp_path / "file")
    host.write(path, "grüße\n")
    host.write(path, "übrigens\n")
    assert host.read(path) == "übrigens\n"


@pytest.mark.parametrize("mode", [0o600, 0o700])
def test_a_file_has_its_mode_from_the_beginning(host, tmp_path, mode):
    host.write(str(tmp_path / "file"), "x", mode=mode)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == mode


def test_a_file_that_somebody_reads_keeps_its_old_text(host, tmp_path):
    path = tmp_path / "file"
    host.write(str(path), "old")
    with path.open() as reader:
        host.write(str(path), "new")
        assert reader.read() == "old"


def test_nothing_is_left_beside_a_file(host, tmp_path):
    host.write(str(tmp_path / "file"), "x")
    assert os.listdir(tmp_path) == ["file"]


def test_a_write_that_fails_leaves_the_old_text_and_nothing_else(host, tmp_path):
    path = tmp_path / "file"
    host.write(str(path), "old")
    with pytest.raises(UnicodeEncodeError):
        host.write(str(path), "new \ud800")
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["file"]


def test_a_rename_that_fails_leaves_nothing(host, tmp_path):
    (tmp_path / "folder" / "inner").mkdir(parents=True)
    with pytest.raises(OSError, match="folder"):
        host.write(str(tmp_path / "folder"), "x")
    assert os.listdir(tmp_path) == ["folder"]


@pytest.mark.parametrize("path", ["none/file", "plain/file"])
def test_a_file_where_none_can_be(host, tmp_path, path):
    (tmp_path / "plain").write_text("")
    with pytest.raises(OSError, match=path.partition("/")[0]):
        host.write(str(tmp_path / path), "x")


def test_text_that_is_no_utf8_is_read_all_the_same(host, tmp_path):
    (tmp_path / "file").write_bytes(b"a\377b\n")
    assert host.read(str(tmp_path / "file")) == "a\N{REPLACEMENT CHARACTER}b\n"
    assert host.read_from(str(tmp_path / "file"), 0) == ("a\N{REPLACEMENT CHARACTER}b\n", 4)


@pytest.mark.parametrize(
    ("text", "offset", "rest"),
    [
        ("", -9, ""),
        ("", 0, ""),
        ("123", -9, "123"),
        ("123", -2, "23"),
        ("123", 1, "23"),
        ("123", 3, ""),
        ("123", 9, ""),
    ],
)
@pytest.mark.parametrize("a_host", [pytest.param(False, id="local"), pytest.param(True, id="recording")])
def test_a_part_of_a_file(host, tmp_path, text, offset, rest, a_host):
    host = RecordingHost() if a_host else host
    host.write(str(tmp_path / "log"), text)
    assert host.read_from(str(tmp_path / "log"), offset)[0] == rest


@pytest.mark.parametrize("kind", ["pipe", "device", "folder"])
def test_what_has_no_end_is_not_read(host, tmp_path, kind):
    path = tmp_path / "log"
    {"pipe": lambda: os.mkfifo(path), "device": lambda: path.symlink_to("/dev/zero"), "folder": path.mkdir}[kind]()
    before = os.listdir("/proc/self/fd")
    for read in (host.read, lambda path: host.read_from(path, -9), lambda path: host.read_piece(path, 0, 9)):
        with pytest.raises(OSError, match="not a regular file"):
            read(str(path))
    assert os.listdir("/proc/self/fd") == before


@pytest.mark.parametrize(("offset", "piece"), [(0, b"\xff\x00b"), (2, b"b\nc"), (5, b""), (99, b"")])
def test_a_piece_of_a_file_is_as_it_is(host, tmp_path, offset, piece):
    (tmp_path / "out").write_bytes(b"\xff\x00b\nc")
    assert host.read_piece(str(tmp_path / "out"), offset, 3) == piece


def test_what_nobody_can_hold_is_not_read_whole(host, tmp_path):
    path = tmp_path / "log"
    with path.open("wb") as file:
        file.truncate(5 * 2**30)
    with pytest.raises(OSError, match="too large"):
        host.read(str(path))
    assert host.read_from(str(path), -9) == ("\0" * 9, 5 * 2**30)
    text, offset = host.read_from(str(path), 0)
    assert len(text) == offset < 2**30


# folders


def test_a_folder_is_made_with_its_parents_and_for_the_user_alone(host, tmp_path):
    host.make_folder(str(tmp_path / "a" / "b"))
    assert stat.S_IMODE((tmp_path / "a" / "b").stat().st_mode) == 0o700
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o700


def test_a_folder_is_made_once(host, tmp_path):
    host.make_folder(str(tmp_path / "a"))
    with pytest.raises(FileExistsError):
        host.make_folder(str(tmp_path / "a"))


def test_names_are_sorted(host, tmp_path):
    for name in ("b", "c", "a"):
        (tmp_path / name).write_text("")
    assert host.names(str(tmp_path)) == ["a", "b", "c"]


def test_what_is_being_written_has_no_name_yet(host, tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(Path, "replace", lambda self, _: seen.append((self.exists(), host.names(str(tmp_path)))))
    host.write(str(tmp_path / "file"), "x")
    assert seen == [(True, [])]


def test_a_folder_that_is_missing_has_no_names(host, tmp_path):
    assert host.names(str(tmp_path / "none")) == []


def test_a_tree_is_removed_and_a_missing_one_is_none(host, tmp_path):
    (tmp_path / "a" / "b").mkdir(parents=True)
    for _ in range(2):
        host.remove_tree(str(tmp_path / "a"))
        assert not (tmp_path / "a").exists()


# one file, several who want it


@pytest.mark.parametrize("a_host", [pytest.param(False, id="local"), pytest.param(True, id="recording")])
def test_of_two_who_rename_a_file_one_succeeds(host, tmp_path, a_host):
    host = RecordingHost() if a_host else host
    old, new, other = (str(tmp_path / name) for name in ("old", "new", "other"))
    host.write(old, "x")
    host.rename(old, new)
    with pytest.raises(FileNotFoundError):
        host.rename(old, other)
    assert host.read(new) == "x"
    for _ in range(2):
        host.remove(new)
    with pytest.raises(FileNotFoundError):
        host.read(new)


# where it is


@pytest.mark.parametrize(
    ("env", "home"),
    [
        ({"HOME": "/home/ada"}, "/home/ada/.hpclab"),
        ({"HOME": "/home/ada", "HPCLAB_HOME": "/scratch/ada"}, "/scratch/ada"),
        ({"HOME": "/home/ada", "HPCLAB_HOME": ""}, "/home/ada/.hpclab"),
        ({}, str(Path.home() / ".hpclab")),
    ],
)
def test_where_it_keeps_its_files(env, home):
    assert LocalHost(env).home == home


def test_the_login_is_what_ssh_wants(host):
    assert host.login == f"ada@{host.name}"


def test_its_versions_are_those_of_this_python(host):
    assert host.versions["python"] == f"{sys.version_info.major}.{sys.version_info.minor}"


@pytest.mark.parametrize("name", ["SLURM_SUBMIT_HOST", "PBS_O_HOST", "SGE_O_HOST", "LSB_SUB_HOST"])
def test_in_a_job_it_knows_where_that_was_submitted(name):
    assert LocalHost({name: "login1"}).submit_host == "login1"


@pytest.mark.parametrize("env", [{}, {"SLURM_SUBMIT_HOST": ""}])
def test_outside_of_jobs_nothing_was_submitted(env):
    assert LocalHost(env).submit_host == ""


def test_threads_that_write_the_same_file_at_once_do_not_disturb_each_other(host, tmp_path):
    path = str(tmp_path / "known.json")
    with ThreadPoolExecutor(8) as several:
        list(several.map(lambda digit: host.write(path, digit * 10_000), "0123456789" * 20))
    assert len(host.read(path)) == 10_000
    assert len(set(host.read(path))) == 1
    assert os.listdir(tmp_path) == ["known.json"]
