"""The segments of shared memory that MPI libraries make in /dev/shm; MPICH leaves them there when ranks are killed."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path

OF_MPICH = "mpich_shm_"
# MPICH; Open MPI with its windows, old and new; UCX below it; Intel MPI. Never others: people put their data there, too
_OF_MPI = re.compile(r"(mpich_shm_|vader_segment\.|sm_segment\.|osc_|ucx_shm_|Intel_MPI_|shm-col-space-)")


def used_by(pid: int | str) -> set[str]:
    """The paths of those that a process has mapped; empty when it is gone."""
    try:
        maps = Path(f"/proc/{pid}/maps").read_text()
    except OSError:
        return set()
    paths = re.findall(r"(/dev/shm/\S+)$", maps, re.MULTILINE)
    return {path for path in paths if _OF_MPI.match(Path(path).name)}


def remove(paths: set[str]) -> None:
    """Their names; the memory itself is free when the last process that has it is gone."""
    for path in paths:
        with contextlib.suppress(OSError):
            Path(path).unlink()


def unname() -> None:
    """Take MPICH's of this process their names. To be called when all ranks have met: then all have them."""
    remove({path for path in used_by("self") if Path(path).name.startswith(OF_MPICH)})
