"""Sites as the doctor may see them: a healthy one, and what differs from it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from fixtures import settings

from hpclab.doctor import Examined, ProbeJob
from hpclab.job import JobState, JobStatus, Queue
from hpclab.result import Result
from hpclab.sight import Launcher, Meeting, Network, Place, Sight

GIB = 2**30
VERSIONS = {
    "python": "3.11",
    "dask": "2026.8.0",
    "distributed": "2026.8.0",
    "dask-mpi": "2026.3.0",
    "mpi4py": "4.1.2",
    "jupyterlab": "4.6.6",
    "hpclab": "0.1.0",
}
HYDRA = Launcher(path="/opt/env/bin/mpiexec", family="hydra", version="5.0.2")
OPEN_MPI = Launcher(path="/usr/bin/mpirun", family="openmpi", version="4.1.4")
REGULAR = Queue(
    name="regular",
    is_default=True,
    walltime_limit_s=86400,
    nodes=40,
    cores_per_node=16,
    memory_per_node_bytes=64 * GIB,
)
DEBUG = Queue(name="debug", walltime_limit_s=300, nodes=2, cores_per_node=16, memory_per_node_bytes=64 * GIB)
CLOSED = Queue(name="maint", is_open=False, nodes=40, note="down")


def a_sight(**changes: Any) -> Sight:
    """Of the login node, but for what is given."""
    seen = Sight(
        node="login1",
        python="/opt/env/bin/python",
        versions=VERSIONS,
        networks=(Network(name="eth0", addresses=("10.0.0.1",), speed_mbit=10000),),
        launchers=(HYDRA,),
        mpi_library="MPICH Version: 5.0.2",
        mpi_error="",
        home=Place(path="/home/ada/.hpclab", type="nfs4", free_bytes=500 * GIB),
        scratch=Place(path="/tmp", type="xfs", free_bytes=100 * GIB),
        answers={},
    )
    return replace(seen, **changes)


def an_answer(stdout: str, exit_status: int = 0, stderr: str = "") -> Result:
    return Result(host="node17", argv=("x",), exit_status=exit_status, stdout=stdout, stderr=stderr)


SQUEUE_HEAD = "JOBID|STATE|EXIT_CODE|START_TIME|END_TIME|EXEC_HOST|REASON\n"
ANSWERS = {
    "versions": an_answer("sbatch: slurm-wlm 22.05.8\n"),
    "status": an_answer(SQUEUE_HEAD + "12|RUNNING|0|1700000000|1700003600|node17|None\n"),
}


def a_node(**changes: Any) -> Sight:
    """A compute node that has all that a session needs."""
    networks = (
        Network(name="eno1", addresses=("10.0.1.17",), speed_mbit=1000),
        Network(name="ib0", addresses=("10.1.1.17",), speed_mbit=100000),
    )
    met = Meeting(came=True, answers={"login1": "", "10.0.0.1": ""})
    return replace(a_sight(node="node17", networks=networks, answers=ANSWERS, met=met), **changes)


def a_probe_job(seen: Sight | None, **changes: Any) -> ProbeJob:
    job = ProbeJob(
        job_id="12",
        status=JobStatus(job_id="12", state=JobState.DONE),
        started=True,
        waited_s=42.0,
        seen=seen,
        met=Meeting(came=True, answers={"node17": "", "10.0.1.17": "", "10.1.1.17": "no answer within 5 s"}),
    )
    return replace(job, **changes)


def examined(**changes: Any) -> Examined:
    """A healthy Slurm site, not probed, but for what is given."""
    site = Examined(
        host="login1",
        system="slurm",
        partition="",
        settings=settings(queue="auto"),
        given={},
        is_own=False,
        found={"slurm": "slurm-wlm 22.05.8"},
        queues=(REGULAR, DEBUG, CLOSED),
        login=a_sight(),
    )
    return replace(site, **changes)


def probed(seen: Sight | None = None, **changes: Any) -> Examined:
    """The same, probed; `seen` is what the job saw, a healthy node at first."""
    return examined(**{"job": a_probe_job(seen or a_node()), **changes})
