"""What the tests have ranks do: a module beside the caller's script, as users have one. It fails at rank 1."""

from __future__ import annotations

import ctypes
import os
import re
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np

LONG_S = 600


def total(chunks: Any, comm: Any, factor: int = 1) -> tuple[int, int, float]:
    mine = np.array([float(sum(chunk.sum() for chunk in chunks))])
    everybodys = np.zeros(1)
    comm.Allreduce(mine, everybodys)
    return comm.Get_rank(), comm.Get_size(), factor * float(everybodys[0])


def library(chunks: Any, comm: Any) -> tuple[str, int, int, float]:
    from mpi4py import MPI

    return MPI.Get_library_version().split(",")[0], *total(chunks, comm)


def doubled(chunks: Any, comm: Any) -> Any:
    for chunk in chunks:
        chunk *= 2
    return chunks


class OfTheCaller(Exception):
    def __init__(self, number: int, text: str) -> None:
        super().__init__(number, text)
        self.number = number


class Unpicklable(Exception):
    def __init__(self) -> None:
        super().__init__("with a lock in it")
        self.lock = threading.Lock()


class Unopenable(Exception):
    """Which pickles well, and does not open."""

    def __init__(self, number: int, text: str) -> None:
        super().__init__(text)


def others_wait(comm: Any) -> None:
    comm.Barrier()


def fails_with(error: BaseException, chunks: Any, comm: Any) -> None:
    if comm.Get_rank() == 1:
        raise error
    others_wait(comm)


def raises_a_long_story(chunks: Any, comm: Any) -> None:
    if comm.Get_rank() == 1:
        raise ValueError("語" * 100_000 + " the end")
    others_wait(comm)


def crashes(chunks: Any, comm: Any) -> None:
    if comm.Get_rank() == 1:
        print("these are its last words", file=sys.stderr)
        signal.signal(signal.SIGSEGV, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGSEGV)
    others_wait(comm)


def is_killed(chunks: Any, comm: Any) -> None:
    if comm.Get_rank() == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    others_wait(comm)


def aborts(chunks: Any, comm: Any) -> None:
    if comm.Get_rank() == 1:
        comm.Abort(13)
    others_wait(comm)


def exits(chunks: Any, comm: Any) -> None:
    if comm.Get_rank() == 1:
        sys.exit(3)
    others_wait(comm)


def exits_at_once(chunks: Any, comm: Any, status: int) -> None:
    if comm.Get_rank() == 1:
        os._exit(status)
    others_wait(comm)


def never_returns(chunks: Any, comm: Any) -> None:
    def deep_inside() -> None:
        time.sleep(LONG_S)

    if comm.Get_rank() == 1:
        deep_inside()


def is_deadlocked(chunks: Any, comm: Any) -> None:
    if comm.Get_rank() == 1:
        comm.Recv(np.zeros(1), source=0)


def returns(value: Any, chunks: Any, comm: Any) -> Any:
    return value if comm.Get_rank() == 1 else None


def returns_a_generator(chunks: Any, comm: Any) -> Any:
    return (n for n in range(3)) if comm.Get_rank() == 1 else None


class Thing:
    """Of a module that the workers cannot import."""


def returns_a_thing(chunks: Any, comm: Any) -> Any:
    return Thing()


def says_where_it_is_and_stays(chunks: Any, comm: Any, folder: str) -> None:
    """Its pid as a file's name, and the pid of its Dask worker as the text."""
    worker = os.getppid()
    status = Path(f"/proc/{worker}/status").read_text()
    parent = re.search(r"^PPid:\s*(\d+)", status, re.MULTILINE)
    assert parent
    told = Path(folder, f".{os.getpid()}")
    told.write_text(parent[1])
    told.rename(Path(folder, str(os.getpid())))
    time.sleep(LONG_S)


def speaks(chunks: Any, comm: Any) -> None:
    rank = comm.Get_rank()
    print(f"python speaks at {rank}")
    print(f"and complains at {rank}", file=sys.stderr)
    libc = ctypes.CDLL(None)
    libc.puts(b"C speaks at %d" % rank)
    os.system("echo so does a shell")


def speaks_a_gigabyte(chunks: Any, comm: Any) -> None:
    block = b"".join(b"line %063d\n" % n for n in range(10_000))
    for _ in range(-(-(10**9) // len(block))):
        sys.stdout.buffer.write(block)
    print("the last line")


def speaks_much(chunks: Any, comm: Any) -> None:
    for n in range(60_000):
        print(f"line {n:6} of a very long story that nobody wants to read to its end")


def environment(chunks: Any, comm: Any) -> tuple[str | None, str]:
    return os.environ.get("OMP_NUM_THREADS"), str(Path.cwd())


def marks_its_memory(chunks: Any, comm: Any, folder: str, fails: str = "") -> None:
    """Writes down which files of shared memory it uses."""
    here = re.findall(r"(/dev/shm/\S+)", Path("/proc/self/maps").read_text())
    Path(folder, f"{os.getpid()}").write_text("\n".join(here))
    comm.Barrier()
    if comm.Get_rank() == 1 and fails == "raise":
        raise ValueError("no")
    if comm.Get_rank() == 1 and fails == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    comm.Barrier()


def reads_shared_memory_and_fails(chunks: Any, comm: Any, path: str) -> None:
    """Data that the user has put there."""
    table = np.memmap(path, mode="r")
    comm.Barrier()
    if comm.Get_rank() == 1:
        raise ValueError(f"no column {table[0]}")
    others_wait(comm)


def is_an_unruly_guest(chunks: Any, comm: Any, what: str) -> Any:
    from mpi4py import MPI

    rank = comm.Get_rank()
    match what:
        case "closes its stdout":
            os.close(1)
        case "takes its signals":
            for number in (signal.SIGUSR1, signal.SIGCHLD, signal.SIGTERM, signal.SIGINT):
                signal.signal(number, signal.SIG_IGN)
        case "goes elsewhere":
            os.chdir("/")
        case "ends MPI":
            MPI.Finalize()
        case "leaves a daemon":
            if not os.fork():
                os.setsid()
                if not os.fork():
                    os.closerange(0, 1000)
                    time.sleep(LONG_S)
                os._exit(0)
        case "leaves a child":
            os.posix_spawn("/bin/sleep", ["sleep", str(LONG_S)], os.environ)
        case "forks and comes back twice":
            os.fork()
        case "leaves a thread":
            threading.Thread(target=time.sleep, args=(LONG_S,)).start()
        case "asks for more ranks":
            try:
                MPI.COMM_SELF.Spawn("/bin/true", maxprocs=1)
            except MPI.Exception:
                return rank
            raise AssertionError
        case "sends from threads":
            threads = [threading.Thread(target=comm.sendrecv, args=(n, rank, n, None, rank, n)) for n in range(5)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
    return rank
