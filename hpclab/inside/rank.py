"""Dask preload for the worker ranks of the main job."""

from __future__ import annotations

import signal
from typing import Any


def survive_lost_ranks() -> None:
    # hydra tells the ranks of the death of one of them by SIGUSR1, whose default would kill them all
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)


async def dask_setup(worker: Any) -> None:
    survive_lost_ranks()
