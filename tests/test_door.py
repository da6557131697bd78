"""The door to another hpclab's connection: what goes through it is as without it."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from login_here import LoginHere
from waiting import until

from hpclab import door
from hpclab.door import Door, Visitor, door_path, is_open
from hpclab.errors import ConnectionLost


class NobodyLetsUsIn(LoginHere):
    def connect(self, *, timeout_s: float = 30) -> None:
        raise AssertionError("there was no need to log in")


@pytest.fixture
def folder(tmp_path: Path) -> str:
    return str(tmp_path)


@pytest.fixture
def held() -> Iterator[LoginHere]:
    login = LoginHere(os.environ)
    yield login
    login.close()


@pytest.fixture
def a_door(held: LoginHere, folder: str) -> Iterator[Door]:
    a_door = Door(held, folder)
    yield a_door
    a_door.close()


@pytest.fixture
def visitor(a_door: Door, folder: str) -> Visitor:
    visitor = Visitor(NobodyLetsUsIn({}), folder)
    visitor.connect()
    return visitor


def test_a_command_goes_through_with_its_streams_and_its_end(visitor: Visitor) -> None:
    process = visitor.start(["sh", "-c", 'cat; echo "$1" >&2; exit 3', "sh", "a 'b'\n"])
    process.stdin.write(b"what is asked\n")
    process.stdin.close()
    assert process.stdout.read() == b"what is asked\n"
    assert process.stderr.read() == b"a 'b'\n\n"
    assert process.wait(10) == 3
    process.close()


def test_much_goes_through_whole(visitor: Visitor) -> None:
    process = visitor.start(["sh", "-c", "head -c 5000000 /dev/zero; head -c 3000000 /dev/zero >&2"])
    err = bytearray()
    reader = threading.Thread(target=lambda: err.extend(process.stderr.read()))
    reader.start()
    assert len(process.stdout.read()) == 5_000_000
    reader.join()
    assert (len(err), process.wait(10)) == (3_000_000, 0)
    process.close()


def test_several_at_once_do_not_mix(visitor: Visitor) -> None:
    processes = [visitor.start(["sh", "-c", f"cat; echo {number}"]) for number in range(8)]
    for process in reversed(processes):
        process.stdin.close()
    assert [process.stdout.read() for process in processes] == [f"{number}\n".encode() for number in range(8)]
    for process in processes:
        process.close()


def test_a_visitor_who_leaves_is_the_end_of_file_for_the_command(visitor: Visitor, tmp_path: Path) -> None:
    pipe = tmp_path / "ended"
    os.mkfifo(pipe)
    process = visitor.start(["sh", "-c", f"echo begun; cat; echo ended >{pipe}"])
    assert process.stdout.readline() == b"begun\n"
    process.close()
    assert pipe.read_text() == "ended\n"


def test_a_connection_that_breaks_is_told(visitor: Visitor, held: LoginHere) -> None:
    held.drop()
    process = visitor.start(["true"])
    with pytest.raises(ConnectionLost, match="the connection to ada@login is lost"):
        process.wait(10)
    process.close()


def test_without_a_door_the_visitor_logs_in(folder: str, held: LoginHere) -> None:
    held.is_connected = False
    visitor = Visitor(held, folder)
    visitor.connect()
    assert (held.connections, visitor.is_connected) == (1, True)
    assert visitor.start(["echo", "hello"]).stdout.read() == b"hello\n"


def test_a_door_that_somebody_left_open_is_none(folder: str, held: LoginHere) -> None:
    Path(door_path(folder, held.destination)).touch()
    door = Door(held, folder)
    assert is_open(door_path(folder, held.destination))
    door.close()
    assert not Path(door_path(folder, held.destination)).exists()


def test_the_first_door_stays(visitor: Visitor, folder: str) -> None:
    second = Door(NobodyLetsUsIn({}), folder)
    second.close()
    assert visitor.start(["echo", "hello"]).stdout.read() == b"hello\n"


def test_when_the_first_door_closes_the_next_holder_opens_one(folder: str, held: LoginHere, monkeypatch) -> None:
    monkeypatch.setattr(door, "TRY_AGAIN_S", 0.01)
    first, second = Door(held, folder), Door(held, folder)
    first.close()
    until(lambda: is_open(door_path(folder, held.destination)), what="the second door")
    first.close()
    assert is_open(door_path(folder, held.destination))
    second.close()
    assert not is_open(door_path(folder, held.destination))


def test_who_is_inside_is_seen_off(visitor: Visitor, a_door: Door) -> None:
    process = visitor.start(["sh", "-c", "echo begun; cat; exit 5"])
    assert process.stdout.readline() == b"begun\n"
    threading.Timer(0.1, process.stdin.close).start()
    a_door.see_off(within_s=20)
    assert process.wait(5) == 5
    process.close()


def test_a_folder_with_a_long_path_has_no_door(tmp_path: Path, held: LoginHere) -> None:
    folder = str(tmp_path / ("long" * 30))
    Door(held, folder).close()
    assert not is_open(door_path(folder, held.destination))


def test_only_the_user_can_knock(visitor: Visitor, folder: str, held: LoginHere) -> None:
    assert Path(door_path(folder, held.destination)).stat().st_mode & 0o077 == 0
