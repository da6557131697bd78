"""Dask's real scheduler and workers, as processes forked from one that has imported everything: up within moments.

    python forked.py      reads a line of JSON for each process to start, and answers with one

They end with whoever has asked for them.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import json
import os
import signal
import sys
import tempfile
from typing import Any

import dask
import dask.array
import dask.dataframe
import distributed
from distributed import Scheduler, Worker

import hpclab.mpi.program  # noqa: F401

PR_SET_PDEATHSIG = 1


def main() -> None:
    dask.config.set({"distributed.worker.http.routes": [], "distributed.scheduler.http.routes": []})
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody has to wait for them
    for line in sys.stdin:
        asked = json.loads(line)
        answer, told = os.pipe()
        pid = os.fork()
        if not pid:
            os.close(answer)
            become(asked, told)
        os.close(told)
        with os.fdopen(answer) as said:
            print(json.dumps({"pid": pid, "address": said.readline().strip()}), flush=True)


def become(asked: dict[str, Any], told: int) -> None:
    """Never returns."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a Ctrl-C is meant for the caller
    nowhere = os.open(os.devnull, os.O_RDWR)
    log = os.open(asked["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    for fd, end in ((nowhere, 0), (log, 1), (log, 2)):
        os.dup2(fd, end)
    os.environ |= asked["environ"]
    tempfile.tempdir = None
    asyncio.run(serve(asked, told))
    os._exit(0)


async def serve(asked: dict[str, Any], told: int) -> None:
    with contextlib.closing(os.fdopen(told, "w")) as tell:
        if asked["role"] == "scheduler":
            here = await Scheduler(host="127.0.0.1", port=0, dashboard=False)
        else:
            here = await Worker(
                asked["scheduler"], host="127.0.0.1", local_directory=asked["folder"], **asked["options"]
            )
        tell.write(here.address + "\n")
    await here.finished()


if __name__ == "__main__":
    assert distributed
    main()
