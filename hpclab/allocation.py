"""What the batch job around us has: from the environment of one of its processes to a frozen value. Pure.

What a variable does not tell, or tells in words that we cannot read, is not known: None, never a guess and never an
error. A rank's launcher knows best how many ranks there are; the batch system knows what each of them may use.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

_MIB = 2**20


@dataclass(frozen=True, kw_only=True)
class Allocation:
    system: str
    """`slurm`, `pbs`, `sge`, `lsf`, `local`; empty: no batch job."""
    job_id: str = ""
    launched_ranks: int | None = None
    """How many MPI ranks the launcher of this process says that it has started."""
    launched_rank: int | None = None
    """Which of them it is."""
    on_one_node: bool = False
    """All of them are on one, as the launcher says."""
    tasks: int | None = None
    """How many MPI ranks there are, or shall be."""
    cores_per_task: int | None = None
    memory_per_task_bytes: int | None = None
    scratch: str = ""
    """A folder for files that may go with the job."""


def allocation(env: Mapping[str, str]) -> Allocation:
    """Of the process that has this environment."""
    found = next((read(env) for variable, read in _SYSTEMS.items() if env.get(variable)), Allocation(system=""))
    launched = launched_ranks(env)
    return Allocation(
        system=found.system,
        job_id=found.job_id,
        launched_ranks=launched,
        launched_rank=_launched_rank(env) if launched else None,
        on_one_node=launched is not None and launched == _ranks_on_node(env),
        tasks=launched or found.tasks,
        # a run of hpclab's knows what it has asked for, whatever the batch system tells
        cores_per_task=_number(env, "HPCLAB_CPUS_PER_TASK") or found.cores_per_task,
        memory_per_task_bytes=_number(env, "HPCLAB_MEMORY_PER_TASK") or found.memory_per_task_bytes,
        # that of hpclab's own job scripts is ours alone, and removed with the job
        scratch=env.get("HPCLAB_SCRATCH") or env.get("TMPDIR", ""),
    )


def launched_ranks(env: Mapping[str, str]) -> int | None:
    """By MPICH's family, Open MPI's, or Slurm: mpiexec may itself be started by srun, so that comes last."""
    return _first(env, "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "SLURM_STEP_NUM_TASKS")


def _launched_rank(env: Mapping[str, str]) -> int | None:
    ranks = (_whole(env.get(name, "")) for name in ("PMI_RANK", "OMPI_COMM_WORLD_RANK", "SLURM_PROCID"))
    return next((rank for rank in ranks if rank is not None), None)


def _ranks_on_node(env: Mapping[str, str]) -> int | None:
    """As a launcher tells it to its ranks."""
    return _first(env, "MPI_LOCALNRANKS", "OMPI_COMM_WORLD_LOCAL_SIZE")


def _slurm(env: Mapping[str, str]) -> Allocation:
    group = _het_group(env)
    # without --cpus-per-task Slurm tells none, and each task has one
    cores = _number(env, f"SLURM_CPUS_PER_TASK{group}") or 1
    if group:
        counts = _het_tasks(env)
        tasks = sum(counts) or None
    else:
        tasks = _first(env, "SLURM_NTASKS", "SLURM_NPROCS")
    per_core_mib = _number(env, f"SLURM_MEM_PER_CPU{group}")
    per_node_mib = _number(env, f"SLURM_MEM_PER_NODE{group}")
    on_node = _ranks_on_node(env) or _slurm_tasks_on_node(env)
    memory_bytes = None
    if per_core_mib:
        memory_bytes = per_core_mib * cores * _MIB
    elif per_node_mib and on_node:
        memory_bytes = per_node_mib * _MIB // on_node
    return Allocation(
        system="slurm",
        job_id=env["SLURM_JOB_ID"],
        tasks=tasks,
        cores_per_task=cores,
        memory_per_task_bytes=memory_bytes,
    )


def _het_group(env: Mapping[str, str]) -> str:
    """`_HET_GROUP_1` for a task of a heterogeneous job's second component; empty in a plain job.

    A task of a step over several components is not told which one it belongs to, and the variables without a group
    are the first one's for all. But the ranks are numbered component by component.
    """
    counts = _het_tasks(env)
    if not counts:
        return ""
    # the script itself runs in the first component
    rank = _whole(env.get("SLURM_PROCID", "0")) or 0
    for group, count in enumerate(counts):
        if rank < count:
            return f"_HET_GROUP_{group}"
        rank -= count
    return "_HET_GROUP_0"


def _het_tasks(env: Mapping[str, str]) -> list[int]:
    components = _number(env, "SLURM_HET_SIZE") or 0
    counts = [_number(env, f"SLURM_NTASKS_HET_GROUP_{group}") for group in range(min(components, 1000))]
    return [count or 0 for count in counts] if all(counts) else []


def _slurm_tasks_on_node(env: Mapping[str, str]) -> int | None:
    """Of `2(x2),1`, two tasks on each of two nodes and one on a third, those of this node."""
    told = env.get("SLURM_STEP_TASKS_PER_NODE") or env.get("SLURM_TASKS_PER_NODE", "")
    node = _whole(env.get("SLURM_NODEID", "0"))
    for part in told.split(","):
        match = re.fullmatch(r"([0-9]{1,6})(?:\(x([0-9]{1,6})\))?", part.strip())
        if match is None or node is None:
            return None
        nodes = int(match[2] or 1)
        if node < nodes:
            return int(match[1]) or None
        node -= nodes
    return None


def _pbs(env: Mapping[str, str]) -> Allocation:
    """PBS and Torque. Of memory their environment has nothing, and PBS's nothing of the number of chunks."""
    if slots := _number(env, "PBS_NP"):
        return _slots("pbs", env["PBS_JOBID"], slots, env)
    cores, on_node = _number(env, "NCPUS"), _ranks_on_node(env)
    # NCPUS is a chunk's, in which several ranks may be; OMP_NUM_THREADS is a rank's, but many set it to 1 themselves
    shared = max(1, cores // on_node) if cores and on_node else None
    return Allocation(
        system="pbs", job_id=env["PBS_JOBID"], cores_per_task=shared or _number(env, "OMP_NUM_THREADS") or cores
    )


def _sge(env: Mapping[str, str]) -> Allocation:
    return _slots("sge", env.get("JOB_ID", ""), _number(env, "NSLOTS"), env)


def _lsf(env: Mapping[str, str]) -> Allocation:
    slots = _number(env, "LSB_DJOB_NUMPROC")
    if slots is None:
        # `node1 4 node2 4`
        counts = [_whole(word) for word in env.get("LSB_MCPU_HOSTS", "").split()[1::2]]
        slots = sum(count or 0 for count in counts) if all(counts) else None
    return _slots("lsf", env["LSB_JOBID"], slots or None, env)


def _slots(system: str, job_id: str, slots: int | None, env: Mapping[str, str]) -> Allocation:
    """A slot is a core; a rank has one, unless fewer ranks were started than there are slots."""
    ranks = launched_ranks(env) or slots
    cores = max(1, slots // ranks) if slots and ranks else None
    return Allocation(system=system, job_id=job_id, tasks=slots, cores_per_task=cores)


def _local(env: Mapping[str, str]) -> Allocation:
    return Allocation(system="local", job_id=env["HPCLAB_LOCALQ_JOB_ID"])


# by a variable that each has in all of its jobs; the embedded one comes first, for it may run within a job of another
_SYSTEMS: dict[str, Callable[[Mapping[str, str]], Allocation]] = {
    "HPCLAB_LOCALQ_JOB_ID": _local,
    "SLURM_JOB_ID": _slurm,
    "PBS_JOBID": _pbs,
    "LSB_JOBID": _lsf,
    "SGE_TASK_ID": _sge,
}


def _first(env: Mapping[str, str], *names: str) -> int | None:
    return next((number for name in names if (number := _number(env, name))), None)


def _number(env: Mapping[str, str], name: str) -> int | None:
    """A whole number of at least 1."""
    return _whole(env.get(name, "")) or None


def _whole(text: str) -> int | None:
    return int(text) if re.fullmatch(r"[0-9]{1,15}", text.strip()) else None
