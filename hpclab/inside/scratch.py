"""A folder for what a rank spills: nobody else looks into it, and it goes with the rank.

A rank that is killed cannot remove its own. So each holds a lock on it while it lives, and who comes next to that node
removes what nobody holds any more.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

PREFIX = "hpclab-rank-"


@contextlib.contextmanager
def private_folder(wanted: str) -> Iterator[str]:
    """In the wanted folder or, where this node has not got that, in the usual one for temporary files."""
    parent = wanted if wanted and os.access(wanted, os.W_OK | os.X_OK) else tempfile.gettempdir()
    _remove_left_behind(parent)
    folder, lock = _make(parent)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


def _make(parent: str) -> tuple[str, int]:
    while True:
        folder = tempfile.mkdtemp(prefix=PREFIX, dir=parent)
        # between these two lines it could be taken for one that was left behind
        with contextlib.suppress(FileNotFoundError):
            lock = os.open(folder, os.O_RDONLY)
            with contextlib.suppress(OSError):  # a file system without locks
                fcntl.flock(lock, fcntl.LOCK_EX)
            if Path(folder).exists():
                return folder, lock
            os.close(lock)


def _remove_left_behind(parent: str) -> None:
    for folder in Path(parent).glob(f"{PREFIX}*"):
        with contextlib.suppress(OSError):
            if folder.lstat().st_uid != os.geteuid():
                continue
            lock = os.open(folder, os.O_RDONLY | os.O_NOFOLLOW | os.O_DIRECTORY)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
            finally:
                os.close(lock)
