"""What the doctor says of a site: a healthy one first, then what may be wrong with it, one thing at a time."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from dataclasses import replace

import pytest
from fixtures import settings
from rich.console import Console
from sights import (
    CLOSED,
    DEBUG,
    GIB,
    HYDRA,
    OPEN_MPI,
    REGULAR,
    SQUEUE_HEAD,
    VERSIONS,
    a_node,
    a_probe_job,
    a_sight,
    an_answer,
    examined,
    probed,
)

from hpclab.doctor import Examined, Finding, findings, summary
from hpclab.job import JobState, JobStatus
from hpclab.show import doctor_text
from hpclab.sight import Meeting, Place

FULL = Place(path="/home/ada/.hpclab", type="nfs4", free_bytes=0, error="Disk quota exceeded")


def printed(site: Examined, *, unicode: bool = True) -> str:
    console = Console(file=io.StringIO(), width=80, highlight=False, soft_wrap=True)
    console.print(doctor_text(site, unicode=unicode))
    assert isinstance(console.file, io.StringIO)
    return "\n".join(line.rstrip() for line in console.file.getvalue().splitlines())


def the(topic: str, site: Examined) -> Finding:
    return next(finding for finding in findings(site) if finding.topic == topic)


HEALTHY = """\
✔  batch system   slurm: slurm-wlm 22.05.8
✔  queues         jobs go to regular, the default; there: regular, debug, maint
✔  software       python 3.11, dask 2026.8.0, distributed 2026.8.0, dask-mpi
                  2026.3.0, mpi4py 4.1.2, jupyterlab 4.6.6, hpclab 0.1.0
                  (/opt/env/bin/python)
✔  MPI            Hydra (MPICH) 5.0.2 at /opt/env/bin/mpiexec; mpi4py has MPICH
                  Version: 5.0.2
✔  networks       eth0 10.0.0.1 (10 Gbit/s)
✔  home           /home/ada/.hpclab: nfs4, 500 GiB free
✔  scratch        /tmp: xfs, 100 GiB free
✔  probe job      12 ran on node17 after 42 s in the queue
✔  versions       the same on both sides: python 3.11, dask 2026.8.0,
                  distributed 2026.8.0
✔  node software  as on login1
✔  node MPI       as on login1
✔  node networks  ib0 10.1.1.17 (100 Gbit/s), eno1 10.0.1.17 (1 Gbit/s)
✔  shared home    the same folder here and there (nfs4 on node17)
✔  node scratch   /tmp: xfs, 100 GiB free
✔  submit there   node17 can: `hpclab start --keep N` will work
✔  login to node  TCP reaches node17, 10.0.1.17 (not 10.1.1.17)
✔  node to login  TCP reaches login1, 10.0.0.1


 queue             walltime  nodes  cores  memory  note
 ──────────────────────────────────────────────────────
 regular  default  24:00:00     40     16  64 GiB
 debug              0:05:00      2     16  64 GiB
 maint    closed                40                 down


nothing is wrong

# login1, slurm-wlm 22.05.8, as `hpclab doctor --probe` found it.
# Put this at the top of ~/.config/hpclab/config.toml, or below a
# [profile.NAME] there.

# the default, 40 nodes, 16 cores a node, 64 GiB a node, up to 24:00:00; also
# open: debug
queue = "slurm:regular"

# every worker takes the fastest network that answers; node17 has ib0 10.1.1.17
# (100 Gbit/s), eno1 10.0.1.17 (1 Gbit/s)
interface = "auto\""""


def test_a_healthy_site_is_printed():
    assert printed(probed()) == HEALTHY


def test_a_terminal_without_signs_has_words():
    text = printed(probed(partition="nosuch"), unicode=False)
    assert "PROBLEM  queues" in text
    assert "ok       batch system" in text
    assert not set(text) & set("✔✘")


@pytest.mark.parametrize(
    ("site", "topic", "state", "part"),
    [
        # the batch system
        (examined(system="pbs"), "batch system", "problem", "no pbs answers on login1; found: slurm"),
        (examined(found={}, system="local", queues=()), "batch system", "ok", "jobs run on this machine"),
        (
            examined(found={"slurm": "slurm 24", "sge": "SGE 8"}, settings=settings(queue="auto")),
            "batch system",
            "warning",
            "2 are here",
        ),
        (examined(silence="sinfo: no controller", queues=()), "queues", "problem", "sinfo: no controller"),
        (examined(partition="nosuch"), "queues", "problem", "there is no queue 'nosuch'"),
        (examined(partition="maint"), "queues", "warning", "does not run jobs now: down"),
        (examined(queues=(CLOSED,)), "queues", "problem", "no queue takes jobs"),
        (examined(queues=(DEBUG, replace(REGULAR, is_default=False))), "queues", "ok", "regular, the largest"),
        # a session's request
        (examined(partition="debug"), "request", "warning", "walltime 2:00:00, debug has 0:05:00"),
        (examined(settings=settings(workers=8, cores=4)), "request", "warning", "cores 33, regular has 16"),
        (examined(settings=settings(memory_bytes=90 * GIB)), "request", "warning", "memory 92 GiB"),
        (examined(settings=settings(nodes=50)), "request", "warning", "nodes 50, regular has 40"),
        # this machine
        (examined(login=None, login_error="no psutil"), "this machine", "unknown", "no psutil"),
        (
            examined(login=a_sight(versions={"python": "3.11", "dask": "1", "distributed": "1", "mpi4py": "4"})),
            "software",
            "problem",
            "dask-mpi, jupyterlab missing",
        ),
        (examined(login=a_sight(versions={}), is_own=True), "software", "warning", "missing"),
        (examined(login=a_sight(launchers=())), "MPI", "problem", "no mpiexec"),
        (examined(login=a_sight(launchers=(OPEN_MPI,))), "MPI", "problem", "do not belong together"),
        (examined(login=a_sight(launchers=(OPEN_MPI, HYDRA))), "MPI", "problem", "do not belong together"),
        (examined(login=a_sight(mpi_library="", mpi_error="no libmpi.so.12")), "MPI", "problem", "no libmpi.so.12"),
        (
            examined(login=a_sight(launchers=(replace(HYDRA, family="", version="", path="mpix"), HYDRA))),
            "MPI",
            "problem",
            "the launcher 'mpix' is not there; others: Hydra",
        ),
        (examined(login=a_sight(networks=())), "networks", "warning", "none but loopback"),
        (examined(login=a_sight(home=FULL)), "home", "problem", "Disk quota exceeded"),
        (examined(login=a_sight(home=replace(FULL, error=""))), "home", "warning", "little room"),
        (examined(login=a_sight(home=Place(path="/h", type="ext4", free_bytes=9 * GIB))), "home", "unknown", "ext4"),
        (examined(login=a_sight(scratch=replace(FULL, path="/tmp"))), "scratch", "warning", "Disk quota"),
        (
            examined(login=a_sight(scratch=Place(path="/tmp", type="tmpfs", free_bytes=9 * GIB))),
            "scratch",
            "ok",
            "in memory",
        ),
        # a compute node
        (probed(a_node(versions={**VERSIONS, "dask": "2025.1.0"})), "versions", "problem", "dask 2025.1.0 on node17"),
        (
            probed(a_node(versions={**VERSIONS, "dask": "1"}), settings=settings(check_versions=False)),
            "versions",
            "warning",
            "dask 1 on node17",
        ),
        (probed(a_node(versions={"python": "3.11"})), "node software", "problem", "jupyterlab missing"),
        (probed(a_node(launchers=(OPEN_MPI,))), "node MPI", "problem", "do not belong together"),
        (probed(settings=settings(interface="ib1")), "node networks", "problem", "no ib1 on node17; there: ib0"),
        (probed(settings=settings(interface="ib0")), "node networks", "ok", "ib0"),
        (probed(a_node(scratch=replace(FULL, path="/tmp"))), "node scratch", "problem", "Disk quota"),
        (probed(a_node(home=FULL)), "home", "ok", "500 GiB"),
        # whether it can submit
        (probed(a_node(answers={})), "submit there", "warning", "it was not asked"),
        (
            probed(a_node(answers={**a_node().answers, "versions": an_answer("")})),
            "submit there",
            "warning",
            "command for submitting is not there",
        ),
        (
            probed(a_node(answers={**a_node().answers, "status": an_answer("", 1, "squeue: no controller")})),
            "submit there",
            "warning",
            "no controller",
        ),
        (
            probed(a_node(answers={**a_node().answers, "status": an_answer(SQUEUE_HEAD)})),
            "submit there",
            "warning",
            "it does not know its own job",
        ),
    ],
)
def test_what_is_wrong_is_found(site, topic, state, part):
    found = the(topic, site)
    assert (found.state, part in found.text) == (state, True), found


@pytest.mark.parametrize(
    ("answers", "state", "part"),
    [
        ({"node17": "", "10.0.1.17": ""}, "ok", "TCP reaches node17, 10.0.1.17"),
        ({"node17": "Name or service not known", "10.0.1.17": ""}, "warning", "by address, but not by name"),
        ({"node17": "refused", "10.0.1.17": "no answer within 5 s"}, "problem", "10.0.1.17: no answer within 5 s"),
        ({"127.0.0.1": ""}, "ok", "127.0.0.1"),
        (None, "unknown", "did not meet"),
    ],
)
def test_the_users_tunnel_needs_the_nodes_name(answers, state, part):
    met = None if answers is None else Meeting(came=True, answers=answers)
    found = the("login to node", probed(job=a_probe_job(a_node(), met=met)))
    assert (found.state, part in found.text) == (state, True), found


def test_nothing_needs_the_way_back():
    met = Meeting(came=True, answers={"10.0.0.1": "no answer within 5 s"})
    assert the("node to login", probed(a_node(met=met))).state == "ok"


def ended(exit_status: int | None, reason: str = "", *, started: bool = True, log: str = "") -> Examined:
    status = JobStatus(job_id="12", state=JobState.FAILED, reason=reason, exit_status=exit_status)
    return probed(job=a_probe_job(None, status=status, started=started, log_tail=log))


@pytest.mark.parametrize(
    ("site", "topic", "state", "part"),
    [
        (ended(40, started=False), "shared home", "problem", "left no trace"),
        (ended(None, "JobLaunchFailure", started=False), "shared home", "problem", "JobLaunchFailure"),
        (ended(1, log="No module named 'hpclab'"), "probe job", "problem", "No module named 'hpclab'"),
        (ended(137, "OUT_OF_MEMORY"), "probe job", "problem", "killed by signal 9"),
        (examined(job=a_probe_job(None, job_id="", refusal="invalid account")), "probe job", "problem", "account"),
        (
            examined(job=a_probe_job(None, refusal="you interrupted", interrupted=True)),
            "probe job",
            "unknown",
            "you interrupted",
        ),
    ],
)
def test_a_job_that_did_not_tell_is_explained(site, topic, state, part):
    found = the(topic, site)
    assert (found.state, part in found.text) == (state, True), found


def test_a_problem_says_what_to_do():
    sites = [examined(system="pbs"), ended(40, started=False), examined(login=a_sight(home=FULL)), ended(1)]
    for site in sites:
        assert all(finding.next_step for finding in findings(site) if finding.state == "problem")


def test_a_login_node_that_lacks_what_the_node_has_is_no_problem():
    site = probed(login=a_sight(launchers=()))
    assert [finding.topic for finding in findings(site) if finding.state == "problem"] == []


@pytest.mark.parametrize(
    ("states", "text"),
    [
        (["ok", "unknown"], "nothing is wrong"),
        (["problem", "ok", "warning", "warning"], "1 problem, 2 warnings"),
    ],
)
def test_the_sum_of_it(states, text):
    assert summary([Finding(topic="x", state=state, text="y") for state in states]) == text


@pytest.fixture
def hpclab(tmp_path):
    """hpclab("doctor") is what the command line answers, for a user who has set nothing."""

    def _hpclab(*args: str) -> subprocess.CompletedProcess[str]:
        env = {
            "PATH": "/usr/bin:/bin",
            "HOME": str(tmp_path),
            "HPCLAB_LOCALQ_DIR": str(tmp_path / "q"),
            "HPCLAB_SITE_CONFIG": str(tmp_path / "none.toml"),
        }
        argv = [sys.executable, "-P", "-m", "hpclab", *args]
        return subprocess.run(argv, env=env, capture_output=True, text=True, timeout=60, check=False)

    return _hpclab


def test_a_machine_without_problems_is_exit_status_0(hpclab):
    done = hpclab("doctor", "--queue", "local", "--probe", "--json")
    told = json.loads(done.stdout)
    assert (done.returncode, told["problems"]) == (0, 0), told["findings"]
    assert told["node"]["node"] == told["login"]["node"]


def test_a_problem_has_an_exit_status_of_its_own(hpclab):
    done = hpclab("doctor", "--queue", "lsf")
    assert done.returncode == 14
    assert "no lsf answers" in done.stdout
    assert "1 problem found" in done.stderr
