"""The Dask scheduler of a run: `python -m hpclab.inside.program_scheduler PLAN`, beside script and workers.

As a preload it does for the scheduler that the script itself makes on rank 0 what can be done for that one: it is
shown by `hpclab status`, and its pages are shut.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from pathlib import Path

import dask
from distributed import Scheduler

from hpclab.connection import LOOPBACK as LOOPBACK_ADDRESS
from hpclab.connection import parse_token
from hpclab.folder import SessionFolder
from hpclab.inside.environ import worker_environment
from hpclab.inside.guard import Door, Guard
from hpclab.inside.patience import Patience
from hpclab.inside.plan import LOOPBACK
from hpclab.inside.program_plan import ProgramPlan
from hpclab.inside.program_script import go_beside
from hpclab.inside.report import announce, report
from hpclab.inside.roster import Roster
from hpclab.inside.scheduler import addresses, hold_the_line
from hpclab.versions import versions_here


async def dask_setup(scheduler: Scheduler) -> None:
    """On rank 0, when the script's scheduler starts."""
    folder = SessionFolder(os.environ["HPCLAB_FOLDER"])
    if scheduler.http_server.address != LOOPBACK_ADDRESS:
        token = parse_token(Path(folder.token).read_text())
        guard = Guard(scheduler.http_application, Door(token, folder.name))
        guard.is_open = True
        scheduler.http_server.request_callback = guard
    scheduler.add_plugin(Roster(folder, scheduler), name="hpclab-roster")
    report(folder, os.environ["HPCLAB_JOB_ID"], "scheduler", address=scheduler.address)


async def _run(plan: ProgramPlan) -> None:
    folder = plan.folder
    on_loopback = {"interface": plan.interface} if plan.interface in LOOPBACK else {}
    options = {"port": 0, "dashboard": False, "dashboard_address": "127.0.0.1:0", "scheduler_file": folder.scheduler}
    async with Scheduler(protocol="tls", **options, **on_loopback) as scheduler:
        scheduler.add_plugin(Roster(folder, scheduler), name="hpclab-roster")
        announce(folder.addresses, json.dumps({"addresses": addresses(scheduler), "versions": versions_here()}))
        line = asyncio.create_task(hold_the_line(scheduler))
        # from now on it ends by that line
        signal.signal(signal.SIGTERM, Patience())
        await scheduler.finished()
        line.cancel()


def main() -> None:
    plan = ProgramPlan.from_text(sys.argv[1])
    os.umask(0o077)
    os.environ |= {**worker_environment(os.environ, plan.folder), "HPCLAB_INTERFACE": plan.interface}
    go_beside(plan.program)
    dask.config.refresh()
    dask.config.set({"distributed.scheduler.http.routes": []})
    asyncio.run(_run(plan))


if __name__ == "__main__":
    main()
