"""The supervisor of the main job: `python -m hpclab.inside.main_job SESSION_FOLDER …`, run by start-dask.sh.

It starts JupyterLab's process and dask-mpi side by side, announces `connection.json` once JupyterLab answers, and
then waits for whichever ends first; with that it ends the rest, and itself with an exit status that says why.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from asyncio.subprocess import Process
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hpclab.connection import LOOPBACK, Connection
from hpclab.credentials import new_token
from hpclab.errors import ConfigError
from hpclab.inside import command_line
from hpclab.inside.environ import rank_environment
from hpclab.inside.plan import Plan, dask_mpi_argv
from hpclab.inside.report import announce
from hpclab.inside.reverse import Reverse, forget
from hpclab.inside.supervisor import (
    SIGNAL_MAY_COME_S,
    Ended,
    Supervisor,
    environment,
    own_python_first,
    supervise,
)
from hpclab.job import JobExit
from hpclab.launchers import without_mpi
from hpclab.units import format_duration

WARN_BEFORE_END_S = (600, 120)
NEEDED = {
    "distributed": "distributed",
    "dask_mpi": "dask-mpi",
    "mpi4py": "mpi4py",
    "jupyterlab": "jupyterlab",
    "psutil": "psutil",
}


@dataclass(kw_only=True)
class MainJob(Supervisor):
    """The main job of a session: dask-mpi, and JupyterLab on its scheduler's rank."""

    plan: Plan
    root_dir: str
    keep: int
    hellos: dict[str, dict[str, Any]] = field(default_factory=dict)
    """What the scheduler and JupyterLab said when they came up."""
    loss: str = ""

    async def start(self, private: str) -> None:
        folder = self.folder
        # of a job that is started again, somebody on its former node may have been sent the old one
        announce(folder.token, f"{new_token()}\n")
        jupyter_line = f"{private}/jupyter"
        env = {
            **own_python_first(os.environ),
            "HPCLAB_FOLDER": folder.path,
            "HPCLAB_SUPERVISOR": f"{private}/supervisor",
            "HPCLAB_JUPYTER": jupyter_line,
            "HPCLAB_INTERFACE": self.plan.interface,
        }
        found = environment(NEEDED)
        # only now that psutil is certain to be there
        from hpclab.inside.network import networks, own_addresses

        self.report("environment", **found, network=networks())
        self.check_versions()
        try:
            own_addresses(self.plan.interface)
        except ConfigError as error:
            raise Ended(JobExit.ENVIRONMENT, str(error).replace("\n", "; ")) from error
        if not Path(self.root_dir).is_dir():
            raise Ended(JobExit.ENVIRONMENT, f"there is no folder {self.root_dir} for JupyterLab on this node")
        ip = LOOPBACK if self.plan.on_loopback else "0.0.0.0"
        jupyter = [sys.executable, "-P", "-m", "hpclab.inside.jupyter", folder.path]
        await self.spawn_part([*jupyter, "--root-dir", self.root_dir, "--ip", ip], env, "jupyter")
        argv = self.launch_argv(self.plan.ranks, dask_mpi_argv(self.plan, sys.executable), env)
        await self.spawn_part(argv, rank_environment(env, folder, one_node=self.nodes == 1), "scheduler")
        if self.keep:
            await self.keep_workers(env)
        for left_s in WARN_BEFORE_END_S:
            if self.end_time - left_s > time.time():
                asyncio.get_running_loop().call_later(self.end_time - left_s - time.time(), self.warn, left_s)

    async def keep_workers(self, env: dict[str, str]) -> None:
        """`hpclab keep`, for as long as the session lives. When it cannot go on, it says so, and that is all."""
        argv = [sys.executable, "-P", "-m", "hpclab", "keep", str(self.keep), "--session", self.folder.name]
        home = str(Path(self.folder.path).parent.parent)
        process = await asyncio.create_subprocess_exec(
            *argv,
            env={**without_mpi(env), "HPCLAB_HOME": home},
            stdin=subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
        )
        self.processes.append(process)
        self.report("keeper", count=self.keep)
        self.tasks.append(asyncio.create_task(self.watch_keeper(process)))

    async def watch_keeper(self, process: Process) -> None:
        assert process.stderr is not None
        said = (await process.stderr.read()).decode(errors="replace")
        if await process.wait() not in (0, -signal.SIGTERM):
            first = said.strip().removeprefix("hpclab: ").splitlines() or ["it ended"]
            self.report("kept", reason=f"{first[0]}; on a login node, say: hpclab keep {self.keep}")

    def warn(self, left_s: float) -> None:
        self.report("closing", left=format_duration(left_s))

    async def spawn_part(self, argv: list[str], env: dict[str, str], who: str) -> None:
        """Its end is the job's end."""
        await self.spawn(argv, env, lambda exit_status: self.lost(who, exit_status))

    def lost(self, who: str, exit_status: int | None = None) -> None:
        """A process or its line is gone. What goes after the first one goes because of it."""
        if self.loss:
            return
        self.loss = who
        if who == "jupyter" and who in self.hellos and exit_status == 0:
            self.end(JobExit.OK, "JupyterLab was shut down")
            return
        never, died = {
            "scheduler": (JobExit.SCHEDULER_NEVER_UP, JobExit.SCHEDULER_DIED),
            "jupyter": (JobExit.JUPYTER_NEVER_UP, JobExit.JUPYTER_DIED),
        }[who]
        how = died if who in self.hellos else never
        ended = {None: "", 0: " and its program ended"}.get(exit_status, f" (its program ended with {exit_status})")
        # who ends a job may signal all of its processes, and some are faster than we
        asyncio.get_running_loop().call_later(SIGNAL_MAY_COME_S, self.end, how, how.meaning + ended)

    def too_late(self) -> None:
        for who in ("scheduler", "jupyter"):
            if who not in self.hellos:
                self.lost(who)

    async def greet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """A hello from the scheduler or JupyterLab when it is up; the scheduler's line ends with it."""
        try:
            hello = json.loads(await reader.readline())
        except ValueError:
            return
        who = hello.pop("who")
        if who == "world":
            self.end(JobExit.WRONG_WORLD, self.wrong_world(self.plan.ranks, **hello))
            writer.close()
            return
        self.hellos[who] = hello
        self.report(who, **hello)
        if len(self.hellos) == 2:
            self.announce()
        if who == "scheduler":
            self.lines.append(writer)
            with contextlib.suppress(OSError):
                await reader.read()
            self.lost(who)
        writer.close()

    def announce(self) -> None:
        scheduler, jupyter = self.hellos["scheduler"], self.hellos["jupyter"]
        node = socket.gethostname()
        host = LOOPBACK if self.plan.on_loopback else node
        connection = Connection(
            session=self.folder.name,
            job_id=self.job_id,
            node=node,
            scheduler_address=scheduler["address"],
            jupyter_host=host,
            jupyter_port=jupyter["port"],
            dashboard_host=host,
            dashboard_port=scheduler["dashboard_port"],
            time=time.time(),
        )
        try:
            announce(self.folder.connection, connection.to_text())
        except OSError as error:
            self.end(JobExit.ENVIRONMENT, f"{self.folder.connection} cannot be written: {error.strerror}")
        reverse = Reverse(self.folder, connection, self.processes)
        self.tasks.append(asyncio.create_task(reverse.watch()))

    @property
    def announced(self) -> tuple[str, ...]:
        folder = self.folder
        return folder.connection, folder.scheduler, folder.addresses, folder.roster, folder.pulse

    def begin_anew(self) -> None:
        super().begin_anew()
        forget(self.folder)

    def withdraw_all(self) -> None:
        super().withdraw_all()
        forget(self.folder)


def _parse() -> MainJob:
    parser = command_line.parser("python -m hpclab.inside.main_job")
    parser.add_argument("--workers", type=int, required=True)
    parser.add_argument("--root-dir", required=True)
    parser.add_argument("--keep", type=int, default=0)
    parser.add_argument("--bind", default="network")
    given = parser.parse_args()
    plan = Plan(**command_line.of_plan(given), workers=given.workers, node=socket.gethostname(), bind=given.bind)
    return MainJob(
        **command_line.of_supervisor(given),
        plan=plan,
        root_dir=str(Path(given.root_dir).expanduser()),
        keep=given.keep,
    )


if __name__ == "__main__":
    supervise(_parse)
