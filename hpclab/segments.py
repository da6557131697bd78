"""The segments of shared memory that MPI libraries make in /dev/shm; MPICH leaves them there when ranks are killed."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path

OF_MPICH = "mpich_shm_"


def used_by(pid: int | str) -> set[str]:
    """The paths of those that a process has mapped; empty when it is gone."""
    try:
        maps = Path(f"/proc/{pid}/maps").read_text()
    except OSError:
        return set()
    return set(re.findall(r"(/dev/shm/\S+)$", maps, re.MULTILINE))


def remove(paths: set[str]) -> None:
    """Their names; the memory itself is free when the last process that has it is gone."""
    for path in paths:
        with contextlib.suppress(OSError):
            Path(path).unlink()


def unname() -> None:
    """Take MPICH's of this process their names. To be called when all ranks have met: then all have them."""
    remove({path for path in used_by("self") if Path(path).name.startswith(OF_MPICH)})
