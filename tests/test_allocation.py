"""What a job's environment tells: the ones recorded on real batch systems, and what nobody can read."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from batch.transcripts import said
from hypothesis import given
from hypothesis import strategies as st

from hpclab.allocation import Allocation, allocation

MIB, GIB = 2**20, 2**30


def environment(text: str) -> dict[str, str]:
    """Of the output of `env`."""
    return dict(re.findall(r"^(\w+)=(.*)$", text, re.MULTILINE))


def of_task(text: str, task: int) -> dict[str, str]:
    """Of `srun -l env`."""
    return environment(re.sub(rf"^{task}: ", "", text, flags=re.MULTILINE))


# Slurm


@pytest.fixture
def in_slurm() -> Callable[[str], str]:
    """in_slurm("-N2 -n4 -c2") is what the job of this sbatch printed."""
    return lambda command: said("slurm", "30-env", command).stdout


def test_the_script_of_a_slurm_job(in_slurm):
    script, _ = in_slurm("-N2 -n4 -c2").split("---srun")
    assert allocation(environment(script)) == Allocation(
        system="slurm", job_id="29", tasks=4, cores_per_task=2, memory_per_task_bytes=2000 * MIB, scratch="/tmp"
    )


def test_a_task_of_a_slurm_step(in_slurm):
    _, step = in_slurm("-N2 -n4 -c2").split("---srun")
    found = allocation(of_task(step, 3))
    assert (found.launched_ranks, found.launched_rank, found.tasks) == (4, 3, 4)
    assert (found.cores_per_task, found.memory_per_task_bytes) == (2, 2000 * MIB)


def test_without_cpus_per_task_slurm_tells_none_and_a_task_has_one(in_slurm):
    env = environment(in_slurm("--export=NONE -n1"))
    assert "SLURM_CPUS_PER_TASK" not in env
    assert allocation(env).cores_per_task == 1


def test_memory_per_node_is_shared_by_its_tasks():
    env = of_task(said("slurm", "32-env-mem-per-node", "--mem=1G").stdout, 1)
    assert "SLURM_MEM_PER_CPU" not in env
    assert allocation(env).memory_per_task_bytes == GIB // 3


@pytest.mark.parametrize(
    ("told", "node", "tasks"),
    [
        ("4", 0, 4),
        ("2(x2)", 1, 2),
        ("3,1", 0, 3),
        ("3,1", 1, 1),
        ("2(x2),1", 2, 1),
        ("2(x2),1", 3, None),
        ("a", 0, None),
    ],
)
def test_the_tasks_of_this_node(told, node, tasks):
    env = {"SLURM_JOB_ID": "1", "SLURM_MEM_PER_NODE": "12", "SLURM_TASKS_PER_NODE": told, "SLURM_NODEID": str(node)}
    assert allocation(env).memory_per_task_bytes == (12 * MIB // tasks if tasks else None)


@pytest.mark.parametrize("rank", range(5))
def test_a_task_of_a_heterogeneous_job_has_what_its_component_has(rank):
    """Slurm tells every task of such a step the first component's memory, and no cores at all."""
    env = of_task(said("slurm", "43-hetjob-env", "hetjob").stdout, rank)
    assert (env["SLURM_MEM_PER_CPU"], env.get("SLURM_CPUS_PER_TASK")) == ("100", None)
    found = allocation(env)
    assert (found.tasks, found.launched_rank) == (5, rank)
    assert found.cores_per_task == (1 if rank < 2 else 4)
    assert found.memory_per_task_bytes == (100 * MIB if rank < 2 else 1200 * MIB)


def test_the_script_of_a_heterogeneous_job_is_in_its_first_component():
    found = allocation(environment(said("slurm", "42-hetjob", "hetjob").stdout))
    assert (found.tasks, found.cores_per_task, found.memory_per_task_bytes) == (5, 1, 1000 * MIB)


def test_a_rank_of_mpiexec_in_a_slurm_job_counts_ranks_and_not_the_launchers_own_tasks():
    env = {
        "SLURM_JOB_ID": "7",
        # of the step in which mpiexec has started its helpers, one on each node
        **{"SLURM_STEP_NUM_TASKS": "2", "SLURM_NTASKS": "2", "SLURM_STEP_TASKS_PER_NODE": "1(x2)", "SLURM_PROCID": "1"},
        **{"SLURM_MEM_PER_NODE": "8192", "PMI_SIZE": "8", "PMI_RANK": "5", "MPI_LOCALNRANKS": "4"},
    }
    found = allocation(env)
    assert (found.launched_ranks, found.launched_rank, found.tasks) == (8, 5, 8)
    assert found.memory_per_task_bytes == 2 * GIB


# the others


def test_a_pbs_job():
    env = environment(said("pbs", "24-job-environment", "*.[oe]130").stdout)
    assert allocation(env) == Allocation(system="pbs", job_id="130.vm", cores_per_task=2, scratch="/var/tmp/pbs.130.vm")


def test_the_ranks_in_a_chunk_of_pbs_share_its_cores():
    env = environment(said("pbs", "24-job-environment", "*.[oe]130").stdout)
    rank = {"PMI_SIZE": "4", "PMI_RANK": "0", "MPI_LOCALNRANKS": "4"}
    assert allocation(env | rank).cores_per_task == 1
    # as many set it, since Dask runs a task per thread
    assert allocation(env | rank | {"NCPUS": "8", "OMP_NUM_THREADS": "1"}).cores_per_task == 2


def test_a_torque_job():
    env = {"PBS_JOBID": "3.head", "PBS_NP": "8"}
    assert (allocation(env).tasks, allocation(env).cores_per_task) == (8, 1)
    assert allocation(env | {"OMPI_COMM_WORLD_SIZE": "4"}).cores_per_task == 2


def test_a_grid_engine_job():
    env = environment(said("sge", "30-env", "-pe mpi 4").stdout)
    assert allocation(env) == Allocation(system="sge", job_id="1", tasks=4, cores_per_task=1, scratch="/tmp/1.1.all.q")
    assert allocation(env | {"OMPI_COMM_WORLD_SIZE": "2"}).cores_per_task == 2


def test_on_a_login_node_of_grid_engine_there_is_no_job():
    assert allocation({"SGE_ROOT": "/opt/sge"}) == Allocation(system="")


@pytest.mark.parametrize("slots", [{"LSB_DJOB_NUMPROC": "6"}, {"LSB_MCPU_HOSTS": "node1 4 node2 2"}])
def test_an_lsf_job(slots):
    """As the documentation has it."""
    found = allocation({"LSB_JOBID": "12", **slots})
    assert found == Allocation(system="lsf", job_id="12", tasks=6, cores_per_task=1)


def test_the_embedded_queue_also_within_another():
    env = {"HPCLAB_LOCALQ_JOB_ID": "4", "SLURM_JOB_ID": "29", "HPCLAB_SCRATCH": "/tmp/mine", "TMPDIR": "/tmp"}
    assert allocation(env) == Allocation(system="local", job_id="4", scratch="/tmp/mine")


def test_whether_all_ranks_are_on_one_node():
    ranks = {"PMI_SIZE": "4", "PMI_RANK": "0"}
    assert allocation(ranks | {"MPI_LOCALNRANKS": "4"}).on_one_node
    assert not allocation(ranks | {"MPI_LOCALNRANKS": "2"}).on_one_node
    assert not allocation(ranks).on_one_node
    assert not allocation({}).on_one_node


@pytest.mark.parametrize(
    ("env", "ranks", "rank"),
    [
        ({"PMI_SIZE": "4", "PMI_RANK": "2"}, 4, 2),
        ({"OMPI_COMM_WORLD_SIZE": "3", "OMPI_COMM_WORLD_RANK": "0"}, 3, 0),
        ({}, None, None),
    ],
)
def test_a_plain_mpirun_on_a_workstation(env, ranks, rank):
    assert allocation(env) == Allocation(system="", launched_ranks=ranks, launched_rank=rank, tasks=ranks)


# what cannot be read

NUMBERS = [
    *["SLURM_NTASKS", "SLURM_CPUS_PER_TASK", "SLURM_MEM_PER_CPU", "SLURM_MEM_PER_NODE", "SLURM_TASKS_PER_NODE"],
    *["SLURM_HET_SIZE", "SLURM_NTASKS_HET_GROUP_0", "SLURM_PROCID", "SLURM_NODEID", "NCPUS", "OMP_NUM_THREADS"],
    *["NSLOTS", "LSB_DJOB_NUMPROC", "LSB_MCPU_HOSTS", "PMI_SIZE", "MPI_LOCALNRANKS", "PMI_RANK", "PBS_NP"],
]


@pytest.mark.parametrize("system", ["SLURM_JOB_ID", "PBS_JOBID", "SGE_TASK_ID", "LSB_JOBID"])
@pytest.mark.parametrize("nonsense", ["", "x", "-1", "0", "4.5", "٤", "1e9", "9" * 30])
def test_what_cannot_be_read_is_not_known(system, nonsense):
    found = allocation({system: "7", **dict.fromkeys(NUMBERS, nonsense)})
    assert (found.tasks, found.memory_per_task_bytes) == (None, None)
    assert found.cores_per_task in (None, 1)


@given(st.dictionaries(st.sampled_from([*NUMBERS, "SLURM_JOB_ID", "PBS_JOBID", "LSB_JOBID", "SGE_TASK_ID"]), st.text()))
def test_no_environment_is_an_error(env):
    found = allocation(env)
    numbers = [found.tasks, found.cores_per_task, found.memory_per_task_bytes, found.launched_ranks]
    assert all(number is None or number > 0 for number in numbers)


def test_a_run_of_hpclab_knows_best_what_it_has_asked_for():
    """On systems that tell nothing, and where a worker has less than its task."""
    env = {"HPCLAB_LOCALQ_JOB_ID": "1", "HPCLAB_CPUS_PER_TASK": "2", "HPCLAB_MEMORY_PER_TASK": str(3 * 2**30)}
    found = allocation(env)
    assert (found.system, found.cores_per_task, found.memory_per_task_bytes) == ("local", 2, 3 * 2**30)
    slurm = {"SLURM_JOB_ID": "7", "SLURM_CPUS_PER_TASK": "4", "SLURM_MEM_PER_CPU": "1000"}
    found = allocation({**slurm, "HPCLAB_CPUS_PER_TASK": "2"})
    assert (found.cores_per_task, found.memory_per_task_bytes) == (2, 4 * 1000 * 2**20)
