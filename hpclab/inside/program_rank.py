"""One MPI rank of a run: `python -m hpclab.inside.program_rank PLAN` sees that its world is whole and runs the script.

The script begins on its own rank. The others follow when it takes hold of MPI, which is the first thing that
initialize() does. So what fails before that is told once, and a script that never calls it runs once.
"""

from __future__ import annotations

import atexit
import os
import signal
import sys
import threading
import time
import traceback
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hpclab.inside import failure
from hpclab.inside.once import say_it_once
from hpclab.inside.patience import Patience
from hpclab.inside.program_plan import SCRIPT_RANK, ProgramPlan, rank_variables, wants_end
from hpclab.inside.program_script import run_script
from hpclab.inside.report import announce, note, report
from hpclab.inside.world import is_here, whole_world

if TYPE_CHECKING:
    from mpi4py.MPI import Comm

LOOK_EVERY_S = 0.02
TELL_AFTER_S = 60
"""A script that has not called initialize() by then may never do so."""
MPI_ENDS_WITHIN_S = 4
NOT_CALLED = "initialize-was-not-called"
"""As the scheduler's address, so that a `Client()` too early fails instead of starting a little cluster of its own."""


def main() -> None:
    plan = ProgramPlan.from_text(sys.argv[1])
    os.umask(0o077)
    rank = whole_world(plan.tasks)
    scratch = os.environ["HPCLAB_SCRATCH"]
    os.environ |= rank_variables(plan, rank, scratch, os.environ)
    if rank <= SCRIPT_RANK:
        _ask_for_end(plan.folder.rank_end(rank), scratch)
    import mpi4py
    from mpi4py import MPI

    # its end is bounded by our alarm, so that nobody else need keep the script from waiting for it
    mpi4py.rc.finalize = False
    # the script's own messages shall not meet ours
    world = MPI.COMM_WORLD.Dup()
    # the first to be registered is called last
    atexit.register(_wait_for_mpi_but_not_for_ever)
    end = End(plan.folder.rank_end(rank))
    if rank <= SCRIPT_RANK:
        atexit.register(end.tell)
    if rank == SCRIPT_RANK:
        _run_first(plan, world, end)
    else:
        _follow(plan, world, rank, end)


def _ask_for_end(path: str, scratch: str) -> None:
    """The shell around us shall write there how we ended; that it is there already tells that we have begun."""
    Path(wants_end(scratch, os.getppid())).write_text(f"{path}\n")
    Path(path).touch(mode=0o600)


def _wait_for_mpi_but_not_for_ever() -> None:
    """Its end waits for all ranks, also for those that were killed; the kernel ends that waiting."""
    if signal.getsignal(signal.SIGALRM) is signal.SIG_DFL:
        signal.alarm(MPI_ENDS_WITHIN_S)


class End:
    """A rank's exit status, told when Python ends, for MPI's own end may not come."""

    def __init__(self, path: str) -> None:
        self._path = path
        self.exit_status: int | None = None

    def tell(self) -> None:
        sys.stdout.flush()
        if self.exit_status is not None:
            with suppress(OSError):
                # without a line's end: that is the shell's, when we are gone
                Path(self._path).write_text(str(self.exit_status))


def _run_first(plan: ProgramPlan, world: Comm, told: End) -> None:
    name = plan.program.name
    report(plan.folder, plan.job_id, "script", script=name, node=os.uname().nodename)
    for descriptor, path in ((1, plan.folder.stdout), (2, plan.folder.stderr)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600), descriptor)
    others = Others(world)
    waiting = plan.tasks - 1

    def tell_late() -> None:
        if others.wait:
            # said aloud it would stand in the script's output
            note(plan.folder, plan.job_id, "initialize", script=name, waiting=waiting)

    late = threading.Timer(TELL_AFTER_S, tell_late)
    late.daemon = True
    late.start()
    is_in_vain = False
    say_it_once()
    try:
        run_script(plan.program)
        told.exit_status = 0
        is_in_vain = others.wait
    except SystemExit as end:
        told.exit_status = status_of(end)
        is_in_vain = NOT_CALLED in str(end.__cause__)
        raise
    finally:
        late.cancel()
        others.tell(False)
        sys.stdout.flush()
        if is_in_vain:
            tell_user(
                f"{name} has not called initialize(): it ran once, and {waiting} MPI ranks waited in vain\n"
                "call hpclab.initialize() before Client(), or say --launch file, where a plain Client() is enough"
            )


def status_of(end: SystemExit) -> int:
    return end.code & 0xFF if isinstance(end.code, int) else int(end.code is not None)


def tell_user(text: str) -> None:
    print(f"hpclab: {text}", file=sys.stderr, flush=True)


class Others:
    """The ranks that wait for the script to take hold of MPI."""

    def __init__(self, world: Comm) -> None:
        import dask
        import mpi4py

        self.wait = True
        self._world = world
        self._sent: list[Any] = []
        self._package: Any = mpi4py
        self._config = dask.config.config
        self._guards = not self._config.get("scheduler-address")
        if self._guards:
            self._config["scheduler-address"] = f"{NOT_CALLED}://before-Client"
        # to a package's missing attribute Python asks the package's own __getattr__
        del self._package.MPI
        vars(self._package)["__getattr__"] = self._taken

    def _taken(self, name: str) -> Any:
        if name != "MPI":
            raise AttributeError(f"module 'mpi4py' has no attribute {name!r}")
        self.tell(True)
        return self._package.MPI

    def tell(self, follow: bool) -> None:
        """Whether they shall run the script, too."""
        if not self.wait:
            return
        self.wait = False
        del vars(self._package)["__getattr__"]
        self._package.MPI = sys.modules["mpi4py.MPI"]
        if self._guards:
            self._config.pop("scheduler-address", None)
        others = [rank for rank in range(self._world.Get_size()) if rank != SCRIPT_RANK]
        self._sent = [self._world.isend(follow, rank) for rank in others]


def _follow(plan: ProgramPlan, world: Comm, rank: int, told: End) -> None:
    if is_here("HPCLAB_SUPERVISOR"):
        # on other nodes the launcher's own process is told as well, and takes its ranks with it
        signal.signal(signal.SIGTERM, Patience())
    failure.tell = lambda error: _tell_failure(plan, f"MPI rank {rank} failed: {_in_a_line(error)}")
    # meanwhile, what it will need
    import distributed  # noqa: F401

    # MPI's own way to wait would keep a core busy
    while not world.Iprobe(SCRIPT_RANK):
        time.sleep(LOOK_EVERY_S)
    if not world.recv(source=SCRIPT_RANK):
        return
    try:
        run_script(plan.program)
    except SystemExit as end:
        if end.__cause__ is None:
            # a scheduler that the script has shut down
            told.exit_status = status_of(end)
        elif not _is_in_initialize(end.__cause__):
            why = f"{plan.program.name} raised on MPI rank {rank}, not its own: {_in_a_line(end.__cause__)}"
            _tell_failure(plan, f"{why}; all ranks run what stands before initialize()")
        raise
    if rank == 0:
        with open(plan.folder.stderr, "a", encoding="utf-8") as user:
            user.write(
                f"hpclab: {plan.program.name} uses MPI and never called initialize(): it ran on all {plan.tasks} "
                f"ranks; what others than rank {SCRIPT_RANK} printed is in the job's log\n"
            )


def _is_in_initialize(error: BaseException) -> bool:
    """Raised in what the rank has become there. dask-mpi's are ends of their own, without which the script goes on."""
    places = (frame.f_globals.get("__name__", "") for frame, _ in traceback.walk_tb(error.__traceback__))
    return any(place.split(".")[0] == "dask_mpi" or place == "hpclab.inside.initialize" for place in places)


def _in_a_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0]


def _tell_failure(plan: ProgramPlan, text: str) -> None:
    """The supervisor, on whichever node it is."""
    with suppress(OSError):
        announce(plan.folder.rank_failure, text)


if __name__ == "__main__":
    main()
