"""What the main job runs: the argv of dask-mpi from the session's settings. Pure."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from hpclab.folder import SessionFolder


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The main job's settings, as its script passes them on."""

    folder: SessionFolder
    job_id: str
    workers: int
    nthreads: int
    memory_bytes: int
    death_timeout_s: int
    interface: str
    node: str
    """Where the supervisor runs, and rank 0 shall run."""
    bind: str = "network"
    """Where JupyterLab and the dashboard listen; `loopback`: on their own node alone."""

    @property
    def ranks(self) -> int:
        """Rank 0 is the scheduler and JupyterLab, the others are one worker each."""
        return 1 + self.workers

    @property
    def on_loopback(self) -> bool:
        """JupyterLab and the dashboard cannot be reached from other nodes."""
        return self.bind == "loopback" or self.interface in LOOPBACK


def dask_mpi_argv(plan: Plan, python: str) -> list[str]:
    """dask-mpi as its own command line has it, after the look at the world; see `inside.rank` for the workers."""
    options = {"death_timeout": plan.death_timeout_s, "dashboard_address": "127.0.0.1:0"}
    return [
        # mpi4py's runner ends all ranks when one fails to start; else the others would wait for it for ever
        *[python, "-P", "-m", "mpi4py", "-m", "hpclab.inside.world"],
        *[plan.folder.path, plan.job_id, str(plan.ranks), plan.node],
        *["--scheduler-file", plan.folder.scheduler],
        # else it insists on 8786, which somebody else on the node may have
        *["--scheduler-port", "0"],
        *["--protocol", "tls"],
        # else it listens on all networks, for the ones may reach it by another than the others
        *(["--interface", plan.interface] if plan.interface in LOOPBACK else []),
        *["--nthreads", str(plan.nthreads)],
        *["--memory-limit", str(plan.memory_bytes)],
        *["--worker-class", "hpclab.inside.rank.Rank"],
        *["--worker-options", json.dumps(options)],
        *["--name", plan.job_id],
        # the guard turns it on, see inside.scheduler
        *["--no-dashboard", "--dashboard-address", "127.0.0.1:0" if plan.on_loopback else ":0"],
    ]


def interface_name(wanted: str, names: Sequence[str]) -> str:
    """The interface of this machine that `wanted` means: a name, `loopback`, or empty for Dask's own choice."""
    return next((name for name in LOOPBACK if name in names), "lo") if wanted == "loopback" else wanted


LOOPBACK = ("lo", "lo0")
