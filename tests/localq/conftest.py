"""A queue for each test, and nothing left behind."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from waiting import until

from localq.harness import Gate, Queue


@pytest.fixture(autouse=True)
def a_posix_system() -> None:
    if sys.platform == "win32":
        pytest.skip("needs a POSIX system")


@pytest.fixture
def a_queue(tmp_path: Path) -> Iterator[Queue]:
    (tmp_path / "work").mkdir()
    queue = Queue(folder=tmp_path / "queue", work=tmp_path / "work")
    yield queue
    if any(queue.folder.glob("jobs/*")):
        queue.run("cancel", *map(str, range(1, 60)))
    try:
        until(lambda: not queue.processes(), what="the last process to end")
    finally:
        for process in queue.processes():
            process.kill()


@pytest.fixture
def a_gate(tmp_path: Path) -> Gate:
    os.mkfifo(tmp_path / "gate")
    return Gate(tmp_path / "gate")


@pytest.fixture
def another_gate(tmp_path: Path) -> Gate:
    os.mkfifo(tmp_path / "another-gate")
    return Gate(tmp_path / "another-gate")
