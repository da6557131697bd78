"""What a laptop remembers of its sessions, whatever has become of the files."""

from __future__ import annotations

import json
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from hpclab.bookmarks import Bookmark, Bookmarks
from hpclab.hosts.local import LocalHost

OTTER = Bookmark(name="calm-otter", destination="ada@login", prologue=("module load python",), jupyter_port=8888)


@pytest.fixture
def folder(tmp_path) -> Path:
    return tmp_path / "bookmarks"


@pytest.fixture
def bookmarks(tmp_path) -> Bookmarks:
    return Bookmarks(LocalHost({"HPCLAB_HOME": str(tmp_path)}))


def test_nothing_is_remembered_at_first(bookmarks):
    assert bookmarks.all() == []


def test_what_is_kept_comes_back(bookmarks):
    bookmarks.keep(OTTER)
    assert bookmarks.all() == [OTTER]


def test_one_that_is_kept_again_is_the_newer_one(bookmarks):
    bookmarks.keep(OTTER)
    bookmarks.keep(replace(OTTER, jupyter_port=8889))
    assert [b.jupyter_port for b in bookmarks.all()] == [8889]


def test_the_oldest_comes_first(bookmarks, folder):
    newer, older = replace(OTTER, name="a"), replace(OTTER, name="b")
    for age, bookmark in enumerate((newer, older)):
        bookmarks.keep(bookmark)
        os.utime(folder / bookmark.file_name, (1000 - age, 1000 - age))
    assert bookmarks.all() == [older, newer]


@pytest.mark.parametrize("destination", ["ssh://ada@login:2222", "fe80::1%eth0", "../../x", "a" * 300, "Zürich", "con"])
def test_any_destination_has_a_file(bookmarks, folder, destination):
    bookmark = replace(OTTER, destination=destination)
    bookmarks.keep(bookmark)
    assert bookmarks.all() == [bookmark]
    assert [path.parent for path in folder.iterdir()] == [folder]


def test_one_name_on_two_hosts_is_two_sessions(bookmarks):
    there = replace(OTTER, destination="bob@elsewhere")
    for bookmark in (OTTER, there):
        bookmarks.keep(bookmark)
    assert bookmarks.named("calm-otter", "bob@elsewhere") == [there]
    assert len(bookmarks.named("calm-otter")) == 2
    assert bookmarks.named("bold-heron") == []


def test_what_is_forgotten_is_gone_and_may_be_forgotten_again(bookmarks):
    bookmarks.keep(OTTER)
    bookmarks.forget([OTTER])
    bookmarks.forget([OTTER])
    assert bookmarks.all() == []


@pytest.mark.parametrize(
    "text",
    ["", "{", "null", "[]", '"name"', "{}", '{"name": "calm-otter"}', "\x00\xff", "[" * 100_000]
    + [
        json.dumps({"name": "x", "destination": "y", **wrong})
        for wrong in (
            {"name": 5},
            {"name": None},
            {"destination": ["y"]},
            {"jupyter_port": "8888"},
            {"jupyter_port": True},
            {"prologue": 1},
            {"prologue": [1]},
            {"prologue": "module"},
        )
    ],
)
def test_a_damaged_file_hides_no_other(bookmarks, folder, text):
    bookmarks.keep(OTTER)
    (folder / "damaged.json").write_text(text, encoding="latin-1")
    (folder / "folder.json").mkdir()
    (folder / "gone.json").symlink_to("nowhere")
    assert bookmarks.all() == [OTTER]


def test_files_of_an_older_and_a_newer_hpclab_are_read(bookmarks, folder):
    bookmarks.keep(OTTER)
    (folder / OTTER.file_name).write_text('{"name": "calm-otter", "destination": "ada@login", "colour": "red"}')
    assert bookmarks.all() == [Bookmark(name="calm-otter", destination="ada@login")]


def test_where_nothing_can_be_written_all_goes_on(tmp_path):
    (tmp_path / "bookmarks").write_text("a file")
    bookmarks = Bookmarks(LocalHost({"HPCLAB_HOME": str(tmp_path)}))
    bookmarks.keep(OTTER)
    assert bookmarks.all() == []
    bookmarks.forget([OTTER])


def test_many_at_once_lose_none(tmp_path):
    many = [replace(OTTER, name=f"session-{number}") for number in range(40)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda b: Bookmarks(LocalHost({"HPCLAB_HOME": str(tmp_path)})).keep(b), many))
    assert {b.name for b in Bookmarks(LocalHost({"HPCLAB_HOME": str(tmp_path)})).all()} == {b.name for b in many}


def test_they_are_the_users_alone(bookmarks, folder):
    bookmarks.keep(OTTER)
    assert folder.stat().st_mode & 0o077 == 0
    assert (folder / OTTER.file_name).stat().st_mode & 0o077 == 0
