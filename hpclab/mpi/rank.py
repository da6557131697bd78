"""One MPI rank beside a Dask worker: `python -m hpclab.mpi.rank LINE LIFE PMI`, all descriptors of sockets to it; or,
where an MPI launcher starts it, `… FOLDER`, where such sockets are (see `process`).

Two processes: a guardian, and the rank itself. The guardian ends the rank when the worker is gone or wants it, whatever
the rank is doing, removes what its MPI library leaves in /dev/shm, and tells the worker how the rank ended.
"""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import os
import pickle
import re
import select
import signal
import socket
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hpclab.mpi.chunks import Chunks
from hpclab.mpi.line import LINE, OUTPUT, Line
from hpclab.mpi.parcel import Opened, Parcel, pack
from hpclab.segments import remove, used_by

PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36


def main() -> None:
    where = sys.argv[1:]
    if len(where) == 1:
        line, life = arrive(where[0])
    else:
        line, life = (socket.socket(fileno=int(fd)) for fd in where[:2])
    up_read, up_write = os.pipe()
    # what the rank leaves behind, even a daemon, becomes the guardian's child, which is inherited no further
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)
    rank = os.fork()
    if rank:
        line.close()
        os.close(up_write)
        for fd in map(int, where[2:]):
            os.close(fd)
        _guard(rank, Line(life), life, up_read)
    life.close()
    os.close(up_read)
    os.setpgid(0, 0)
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() == 1:
        os._exit(1)
    try:
        _Rank(Line(line), up_write).play()
    except OSError:  # the worker is gone
        os._exit(1)


def arrive(folder: str) -> tuple[socket.socket, socket.socket]:
    """Our line to the worker, and the guardian's; from now on our output goes there, too."""
    line, life = (socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) for _ in range(2))
    for end in (line, life):
        end.connect(f"{folder}/{LINE}")
    for fd in (1, 2):
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as output:
            output.connect(f"{folder}/{OUTPUT}")
            os.dup2(output.fileno(), fd)
    return line, life


# the guardian


def _guard(rank: int, worker: Line, life: socket.socket, up: int) -> None:
    """Never returns."""
    woken, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    segments: set[str] = set()
    told: list[int] = []

    def end(number: int, _: object) -> None:
        told.append(number)
        segments.update(used_by(rank))
        _kill(rank)

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, end)
    waits_for: list[Any] = [woken, life, up]
    while True:
        ended, status = os.waitpid(rank, os.WNOHANG)
        if ended:
            break
        ready, _, _ = select.select(waits_for, [], [])
        if up in ready:  # the world is complete: a rank that crashes later can't be asked any more
            segments |= used_by(rank)
            waits_for.remove(up)
        if life in ready and not life.recv(1):
            segments |= used_by(rank)
            _kill(rank)
            waits_for.remove(life)
        if woken in ready:
            os.read(woken, 100)
    _kill(rank)
    _end_children()
    remove(segments)
    code = os.waitstatus_to_exitcode(status)
    with contextlib.suppress(OSError):
        worker.say("ended", code=code, told=bool(told))
    os._exit(code if code >= 0 else 128 - code)


def _kill(rank: int) -> None:
    with contextlib.suppress(OSError):
        os.killpg(rank, signal.SIGKILL)


def _end_children() -> None:
    """What the rank has started, and left."""
    own = Path(f"/proc/self/task/{os.getpid()}/children")
    with contextlib.suppress(OSError):  # no more children; or a kernel that does not tell of them
        while True:
            for pid in map(int, own.read_text().split()):
                os.kill(pid, signal.SIGKILL)
            os.wait()


# the rank


class _Failure(Exception):
    def __init__(self, kind: str, text: str, error: BaseException | None = None) -> None:
        super().__init__(text)
        self.kind, self.text, self.error = kind, text, error


class _Rank:
    def __init__(self, worker: Line, up: int) -> None:
        self._worker = worker
        self._up = up

    def play(self) -> None:
        """From the first word to the last; never returns."""
        sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
        stack = os.memfd_create("hpclab-stack", os.MFD_CLOEXEC)
        faulthandler.enable()  # a crash in C tells where it was called from
        faulthandler.register(signal.SIGUSR1, file=stack, all_threads=True)
        self._worker.say("hello", Parcel(stack, "stack"), pid=(own := os.getpid()))
        try:
            result, opened = self._work()
            if os.getpid() != own:  # the function has forked, and both have come back
                os._exit(0)
            parcel = _packed(result, opened)
        except _Failure as failure:
            self._fail(failure)
        self._worker.say("result", parcel)
        parcel.close()
        _flush()
        from mpi4py import MPI

        if not MPI.Is_finalized():
            MPI.Finalize()
        os._exit(0)

    def _work(self) -> tuple[Any, Opened]:
        world = self._world()
        heard = self._worker.hear()
        if heard is None or heard[1] is None:
            os._exit(1)
        told, parcel = heard[0], heard[1]
        sys.path += [path for path in told["path"] if path not in sys.path]
        function, opened = _opened(parcel)
        chunks, args = opened.value
        try:
            return function(Chunks(*chunks), world, *args), opened
        except SystemExit as end:
            raise _Failure("exit", f"called sys.exit({'' if end.code is None else repr(end.code)})") from end
        except BaseException as error:
            # without our own frame, which explains nothing
            frames = error.__traceback__.tb_next if error.__traceback__ else None
            text = "".join(traceback.format_exception(type(error), error, frames))
            raise _Failure("raised", text, error) from error

    def _world(self) -> Any:
        """MPI's communicator of all ranks."""
        try:
            import mpi4py

            mpi4py.rc.initialize = mpi4py.rc.finalize = False
            from mpi4py import MPI
        except (ImportError, RuntimeError) as error:
            raise _Failure("mpi4py", f"{error} ({sys.executable})") from error
        path = re.search(r"(/\S*/libmpi\S*\.so\S*)$", Path("/proc/self/maps").read_text(), re.MULTILINE)
        self._worker.say("library", text=MPI.Get_library_version()[:500], path=path[1] if path else "")
        import numpy  # noqa: F401  # nearly all chunks need it; here it costs nothing, for we wait

        heard = self._worker.hear()
        if heard is None:
            os._exit(1)
        os.environ |= heard[0]["environ"]
        MPI.Init_thread(MPI.THREAD_MULTIPLE)
        os.write(self._up, b"u")
        self._worker.say("up", rank=MPI.COMM_WORLD.Get_rank(), size=MPI.COMM_WORLD.Get_size())
        return MPI.COMM_WORLD

    def _fail(self, failure: _Failure) -> None:
        error = None
        if failure.error is not None:
            with contextlib.suppress(Exception):
                import cloudpickle

                # opened by the caller alone: the worker need not have its class
                error = pack(cloudpickle.dumps(failure.error))
        with contextlib.suppress(OSError):
            self._worker.say("failed", error, kind=failure.kind, text=failure.text[-50_000:])
        _flush()
        # not by way of MPI_Finalize, which would wait for the others
        os._exit(1)


def _opened(parcel: Parcel) -> tuple[Callable[..., Any], Opened]:
    try:
        opened = Opened(parcel)
        function, *opened.value = opened.value
        return pickle.loads(function), opened
    except BaseException as error:
        text = "".join(traceback.format_exception_only(error)).strip()
        raise _Failure("unopened", f"cannot open the function or its data: {text}", error) from error
    finally:
        parcel.close()


def _packed(result: Any, opened: Opened) -> Parcel:
    try:
        return pack(result, within=opened)
    except OSError as error:
        raise _Failure("result", f"had no room for its result: {error.strerror}", error) from error
    except BaseException as error:
        text = "".join(traceback.format_exception_only(error)).strip()
        raise _Failure(
            "result", f"returned a {type(result).__name__}, which cannot be pickled: {text}", error
        ) from error


def _flush() -> None:
    """Also what C and Fortran have printed."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()
    ctypes.CDLL(None).fflush(None)


if __name__ == "__main__":
    main()
