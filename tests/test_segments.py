"""Segments of shared memory: whose they are, and that their names go while their memory stays."""

from __future__ import annotations

import mmap
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from hpclab.segments import remove, unname, used_by

SHARED = Path("/dev/shm")
pytestmark = pytest.mark.skipif(not SHARED.is_dir(), reason="there is no /dev/shm")


@pytest.fixture
def segments() -> Iterator[dict[str, mmap.mmap]]:
    """One with a name like MPICH's, and one of somebody else, both mapped here."""
    made = {}
    for name in (f"mpich_shm_test{os.getpid()}_0", f"somebody_{os.getpid()}"):
        with open(SHARED / name, "w+b") as file:
            file.truncate(4096)
            made[name] = mmap.mmap(file.fileno(), 4096)
    yield made
    for name in made:
        (SHARED / name).unlink(missing_ok=True)


def test_what_mpi_uses_in_a_process(segments):
    """What the user has mapped there is the user's."""
    mpich, other = (str(SHARED / name) for name in segments)
    assert mpich in used_by("self") & used_by(os.getpid())
    assert other not in used_by("self")


def test_a_process_that_is_gone_uses_nothing():
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    assert used_by(gone.pid) == set()


def test_names_of_mpich_go_and_their_memory_stays(segments):
    mpich, other = segments
    segments[mpich][:3] = b"abc"
    for _ in range(2):
        unname()
    assert not (SHARED / mpich).exists()
    assert (SHARED / other).exists()
    assert segments[mpich][:3] == b"abc"


def test_what_somebody_else_has_removed_is_no_error(tmp_path):
    remove({str(tmp_path / "gone")})
