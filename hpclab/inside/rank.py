"""What dask-mpi runs on the worker ranks of the main job: `--worker-class hpclab.inside.rank.Rank`.

The worker lives in its rank, without a nanny: forks from MPI ranks are forbidden on some machines. So a rank does
itself what a nanny is missed for: it comes back after `client.restart()`, and also when it has outgrown its memory.
"""

from __future__ import annotations

import asyncio
import os
import sys
import traceback
from typing import Any

from hpclab.folder import SessionFolder
from hpclab.inside.network import wait_for_scheduler, way_to
from hpclab.inside.report import report
from hpclab.inside.worker import REMOVED, TERMINATE_FRACTION, Worker, used_memory_bytes
from hpclab.launchers import without_mpi
from hpclab.units import format_memory


class Rank:
    """A Dask worker for the life of its rank; takes what `distributed.Worker` takes."""

    def __init__(self, **options: Any) -> None:
        folder = SessionFolder(os.environ["HPCLAB_FOLDER"])
        # dask-mpi lets us begin when the scheduler has announced itself; a shared file system may take longer to tell
        addresses = [found for found in wait_for_scheduler(folder, options["death_timeout"]) if found]
        if not addresses:
            raise OSError(f"the scheduler's addresses did not appear in {folder.addresses}")
        way = way_to(folder, addresses[0])
        for choice in ("scheduler_file", "interface"):
            options.pop(choice)
        self._options = {**options, "scheduler_ip": way.address, "host": way.host}
        self._worker = Worker(**self._options)

    async def __aenter__(self) -> Rank:
        await self._worker
        self._watch = asyncio.create_task(self._watch_memory())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._watch.cancel()
        await self._worker.close()

    async def finished(self) -> None:
        """Also a worker that cannot come back must not raise, for an exception in a rank ends all ranks."""
        await self._worker.finished()
        while self._worker.close_reason == REMOVED:
            self._worker = Worker(**self._options)
            try:
                await self._worker
            except (OSError, TimeoutError, RuntimeError, ValueError):
                traceback.print_exc()
            await self._worker.finished()

    async def _watch_memory(self) -> None:
        limit_bytes = self._worker.memory_manager.memory_limit
        while limit_bytes:
            await asyncio.sleep(0.5)
            used_bytes = used_memory_bytes(os.getpid())
            if used_bytes > TERMINATE_FRACTION * limit_bytes:
                self._go_on_without_mpi(used_bytes, limit_bytes)

    def _go_on_without_mpi(self, used_bytes: int, limit_bytes: int) -> None:
        """Only a new program gives memory back for certain: this process becomes a worker job's, and MPI's no more."""
        folder, job_id = SessionFolder(os.environ["HPCLAB_FOLDER"]), os.environ["HPCLAB_JOB_ID"]
        name = self._options["name"]
        report(
            folder, job_id, "outgrown", worker=name, used=format_memory(used_bytes), limit=format_memory(limit_bytes)
        )
        argv = [
            *[sys.executable, "-P", "-m", "hpclab.inside.worker_job", folder.path],
            *["--workers", "1", "--first-index", name.rpartition("-")[2]],
            *["--nthreads", str(self._options["nthreads"]), "--memory", str(limit_bytes)],
            *["--death-timeout", str(self._options["death_timeout"]), "--drain", "1"],
        ]
        os.execve(sys.executable, argv, without_mpi(dict(os.environ)))
