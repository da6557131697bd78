"""The host for tests keeps what Host promises, without touching anything."""

from __future__ import annotations

import inspect

import pytest

from hpclab.hosts import Host
from hpclab.hosts.local import LocalHost
from hpclab.hosts.recording import RecordingHost

FUNCTIONS = [name for name, _ in inspect.getmembers(Host, inspect.isfunction) if not name.startswith("_")]


@pytest.mark.parametrize("kind", [LocalHost, RecordingHost])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_host_has_the_same_face(kind, name):
    assert inspect.signature(getattr(kind, name)) == inspect.signature(getattr(Host, name))


@pytest.mark.parametrize("host", [RecordingHost(), LocalHost({"HOME": "/home/ada"})])
@pytest.mark.parametrize("name", Host.__annotations__)
def test_every_host_knows_where_it_is(host, name):
    assert isinstance(getattr(host, name), str)


def test_commands_are_recorded_and_answers_given_in_turn():
    host = RecordingHost([(0, "17\n", ""), (1, "", "no\n")])
    results = [host.run(["submit", "a b"]), host.run(["status"]), host.run(["more"])]
    assert host.commands == [("submit", "a b"), ("status",), ("more",)]
    assert [(r.exit_status, r.stdout, r.stderr) for r in results] == [(0, "17\n", ""), (1, "", "no\n"), (0, "", "")]


@pytest.mark.parametrize("look", [lambda h: h.read("/a/none"), lambda h: h.read_from("/a/none", 0)])
def test_a_file_that_is_missing(look):
    with pytest.raises(FileNotFoundError):
        look(RecordingHost())


def test_files_and_folders():
    host = RecordingHost()
    host.make_folder("/a/b")
    host.write("/a/b/x", "1\n2\n3\n")
    host.write("/a/b/c/y", "")
    host.write("/a/bb", "")
    assert host.read("/a/b/x") == "1\n2\n3\n"
    assert host.read_from("/a/b/x", -4) == ("2\n3\n", 6)
    assert host.read_piece("/a/b/x", 2, 3) == b"2\n3"
    assert host.names("/a") == ["b", "bb"]
    assert host.names("/none") == []
    with pytest.raises(FileExistsError):
        host.make_folder("/a/b")
    host.remove_tree("/a/b")
    assert set(host.files) == {"/a/bb"}
    assert "/a/b" not in host.folders
