"""What a job writes about itself: appended or whole, for the user alone."""

from __future__ import annotations

import os
import stat
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from hpclab.event import from_lines
from hpclab.folder import SessionFolder
from hpclab.inside.report import announce, report, say, withdraw


@pytest.fixture
def here(tmp_path) -> SessionFolder:
    folder = SessionFolder(str(tmp_path / "calm-otter"))
    for subfolder in folder.subfolders:
        Path(subfolder).mkdir(parents=True)
    return folder


def mode(path: str) -> int:
    return stat.S_IMODE(Path(path).stat().st_mode)


def test_events_are_appended(here):
    report(here, "17", "joined", worker="17-0")
    report(here, "17", "left", worker="17-0", reason="enough")
    events = from_lines(Path(here.events("17")).read_text())
    assert [(event.what, event.details) for event in events] == [
        ("joined", {"worker": "17-0"}),
        ("left", {"worker": "17-0", "reason": "enough"}),
    ]


def test_events_are_in_the_log_too(here, capsys):
    report(here, "17", "joined", worker="17-0")
    assert capsys.readouterr().out.startswith("hpclab: ")


def test_events_of_many_at_once_are_all_whole(here):
    with ThreadPoolExecutor(20) as pool:
        list(pool.map(lambda n: report(here, "17", "joined", worker=f"17-{n}", pad="x" * 2000), range(100)))
    events = from_lines(Path(here.events("17")).read_text())
    assert {event.details["worker"] for event in events} == {f"17-{n}" for n in range(100)}


def test_nobody_else_can_read_them(here):
    report(here, "17", "joined")
    announce(here.connection, "{}")
    assert (mode(here.events("17")), mode(here.connection)) == (0o600, 0o600)


def test_an_event_that_cannot_be_written_ends_nothing(tmp_path, capsys):
    report(SessionFolder(str(tmp_path / "gone")), "17", "joined", worker="17-0")
    assert "the event could not be written" in capsys.readouterr().out


def test_a_full_disk_ends_nothing(here, capsys):
    Path(here.events("17")).symlink_to("/dev/full")
    report(here, "17", "joined", worker="17-0")
    assert "No space left on device" in capsys.readouterr().out


def test_an_announcement_replaces_the_one_before_as_a_whole(here):
    announce(here.connection, "old")
    with open(here.connection) as reader:
        announce(here.connection, "new")
        assert reader.read() == "old"
    assert Path(here.connection).read_text() == "new"


def test_nothing_is_left_beside_an_announcement(here):
    before = set(os.listdir(here.path))
    announce(here.connection, "{}")
    assert set(os.listdir(here.path)) - before == {"connection.json"}


def test_an_announcement_that_fails_leaves_nothing(here):
    before = set(os.listdir(here.path))
    with pytest.raises(OSError, match="jobs"):
        announce(here.jobs, "a folder stands here")
    assert set(os.listdir(here.path)) == before


def test_what_was_announced_can_be_withdrawn_twice(here):
    announce(here.connection, "{}")
    for _ in range(2):
        withdraw(here.connection)
        assert not Path(here.connection).exists()


def test_who_ends_says_so_also_where_nobody_listens_any_more(monkeypatch):
    reader, writer = os.pipe()
    os.close(reader)
    stream = os.fdopen(writer, "w")
    monkeypatch.setattr(sys, "stdout", stream)
    say("the scheduler is gone")
    with pytest.raises(BrokenPipeError):
        stream.close()
