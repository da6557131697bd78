"""What the processes of a run need to know, on whatever node they are: as one word of their argv. Pure.

To other nodes than the first, not every launcher brings the environment along.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass

from hpclab.folder import SessionFolder
from hpclab.inside.environ import AS_UNDER_A_NANNY, dask_path, dask_tls
from hpclab.job import Program

SCRIPT_RANK = 1
"""As dask-mpi has it: the scheduler is rank 0, the script rank 1, and the others are workers."""


@dataclass(frozen=True, kw_only=True)
class ProgramPlan:
    """A run's settings, as its script passes them on."""

    folder: SessionFolder
    job_id: str
    program: Program
    launch: str
    """`mpi`: the script's MPI ranks are scheduler, script and workers; `file`: all tasks are workers."""
    tasks: int
    nthreads: int
    memory_bytes: int
    """Of each worker."""
    gpus: int
    death_timeout_s: int
    end_time: float
    interface: str
    system: str

    @property
    def workers(self) -> int:
        return self.tasks - 2 if self.launch == "mpi" else self.tasks

    def to_text(self) -> str:
        return json.dumps({**asdict(self), "folder": self.folder.path})

    @staticmethod
    def from_text(text: str) -> ProgramPlan:
        given = json.loads(text)
        program = Program.from_dict(given["program"])
        return ProgramPlan(**{**given, "folder": SessionFolder(given["folder"]), "program": program})


def ranks_argv(plan: ProgramPlan, python: str) -> list[str]:
    """One MPI rank of the script. The shell around it tells how it ended, where it has said who wants to know."""
    return [*_TELLS_ITS_END, python, "-P", "-m", "hpclab.inside.program_rank", plan.to_text()]


def scheduler_argv(plan: ProgramPlan, python: str) -> list[str]:
    return [python, "-P", "-m", "hpclab.inside.program_scheduler", plan.to_text()]


def script_argv(plan: ProgramPlan, python: str) -> list[str]:
    return [python, "-P", "-m", "hpclab.inside.program_script", plan.to_text()]


def workers_argv(plan: ProgramPlan, python: str, *, count: int) -> list[str]:
    """So many workers, forked from one process; with one, a launcher starts as many of these as there are tasks."""
    return [python, "-P", "-m", "hpclab.inside.program_worker", str(count), plan.to_text()]


def wants_end(scratch: str, shell_pid: int) -> str:
    """The file in which a rank names the one for its exit status, for the shell around it."""
    return f"{scratch}/rank-{shell_pid}"


# a rank that was killed can tell nothing itself; and a launcher makes an exit status of its own out of all of them
_TELLS_ITS_END = [
    "/bin/sh",
    "-c",
    'trap : TERM INT; "$@"; status=$?; '
    'if read -r end <"$HPCLAB_SCRATCH/rank-$$"; then echo " $status" >>"$end"; fi 2>/dev/null; exit $status',
    "rank",
]


def rank_variables(plan: ProgramPlan, rank: int, scratch: str, base: Mapping[str, str]) -> dict[str, str]:
    """What the script's ranks find in their environment beside `base`, what they have: TLS and no open pages, also for
    a plain `dask_mpi`."""
    folder = plan.folder
    closed = {
        "DASK_DISTRIBUTED__SCHEDULER__PRELOAD": "hpclab.inside.program_scheduler",
        "DASK_DISTRIBUTED__WORKER__HTTP__ROUTES": "[]",
    }
    own = {"HPCLAB_FOLDER": folder.path, "HPCLAB_SESSION": folder.name, "HPCLAB_JOB_ID": plan.job_id}
    threads = {name: base.get(name, value) for name, value in AS_UNDER_A_NANNY.items()} if rank > SCRIPT_RANK else {}
    return {
        **threads,
        **dask_tls(folder),
        **closed,
        **own,
        **task_variables(plan),
        "HPCLAB_INTERFACE": plan.interface,
        "DASK_TEMPORARY_DIRECTORY": dask_path(scratch),
    }


def script_variables(plan: ProgramPlan, scheduler_address: str) -> dict[str, str]:
    """What a script beside its workers finds: a plain `Client()` connects."""
    folder = plan.folder
    return {
        **dask_tls(folder),
        **task_variables(plan),
        "DASK_SCHEDULER_ADDRESS": scheduler_address,
        "HPCLAB_SCHEDULER_FILE": folder.scheduler,
        "HPCLAB_PROGRAM_WORKERS": str(plan.workers),
    }


def task_variables(plan: ProgramPlan) -> dict[str, str]:
    """What a task has, by hpclab's names; and by Slurm's, whose own tell of the whole job where all is on one node."""
    told = {
        "HPCLAB_NTASKS": plan.tasks,
        "HPCLAB_CPUS_PER_TASK": plan.nthreads,
        "HPCLAB_MEMORY_PER_TASK": plan.memory_bytes,
    }
    if plan.system == "slurm":
        mebibytes = plan.memory_bytes // (plan.nthreads * 2**20)
        slurms = {"NTASKS": plan.tasks, "CPUS_PER_TASK": plan.nthreads, "MEM_PER_CPU": mebibytes}
        told |= {f"SLURM_{name}": value for name, value in slurms.items()}
    return {name: str(value) for name, value in told.items()}


def rank_of(environ: Mapping[str, str]) -> int | None:
    """This task's number, by whichever launcher has started it; None: it does not tell."""
    for name in ("PMI_RANK", "PMIX_RANK", "OMPI_COMM_WORLD_RANK", "SLURM_PROCID", "MPI_LOCALRANKID"):
        if environ.get(name, "").isdecimal():
            return int(environ[name])
    return None
