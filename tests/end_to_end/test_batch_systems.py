"""A whole session on each batch system: Slurm and Grid Engine are real, PBS and LSF fakes that really run scripts."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from sites import Site, a_site
from waiting import until

# from the login node, with the session's own certificate, as a script of the user's would
CONNECTED = """
import json, sys, time
from pathlib import Path
from distributed import Client, Security, get_worker

folder = Path(sys.argv[1])
tls = {f"tls_{role}_{part}": str(folder / f"tls/{file}") for role in ("client",)
       for part, file in (("cert", "certificate.pem"), ("key", "key.pem"))}
security = Security(require_encryption=True, tls_ca_file=str(folder / "tls/ca.pem"), **tls)
address = json.loads((folder / "addresses.json").read_text())["addresses"][0]
client = Client(address, security=security, timeout=20)
"""
ACROSS_MACHINES = (
    CONNECTED
    + """
import numpy as np
workers = client.scheduler_info(n_workers=-1)["workers"]
hosts = {a.rpartition(":")[0]: a for a in workers}
assert all(a.startswith("tls://10.77.1.") for a in workers), workers
first, *others = hosts.values()
made = client.submit(np.arange, 1_000_000, workers=[first])
sums = [client.submit(lambda x, i: int(x.sum()) + i, made, i, workers=[other]) for i, other in enumerate(others)]
print(json.dumps({"hosts": len(hosts), "sums": client.gather(sums)}))
"""
)
MANY_TASKS = (
    CONNECTED
    + """
def slow(i):
    time.sleep(1)
    return i, get_worker().name

done = client.gather(client.map(slow, range(int(sys.argv[2])), pure=False), direct=False)
print(json.dumps({"sum": sum(i for i, _ in done), "workers": sorted({name for _, name in done})}))
"""
)
GET = """
import json, sys, urllib.request
with urllib.request.urlopen(sys.argv[1], timeout=10) as answer:
    print(json.dumps({"status": answer.status}))
"""
# the three ways of a script to its Dask cluster
RUNS = {
    "dask-mpi": ("mpi", "from dask_mpi import initialize\ninitialize(dashboard=False)\n"),
    "initialize": ("mpi", "import hpclab\nhpclab.initialize()\n"),
    "file": ("file", ""),
}
WHERE = """
import json, os, sys
from dask.distributed import Client
client = Client()
client.wait_for_workers(int(sys.argv[1]))
workers = client.scheduler_info(n_workers=-1)["workers"].values()
print(json.dumps({
    "nodes": sorted(client.run(lambda: os.uname().nodename).values()),
    "threads": [worker["nthreads"] for worker in workers],
    "memory_bytes": [worker["memory_limit"] for worker in workers],
    "tls": client.scheduler.address.startswith("tls://"),
    "sum": sum(client.gather(client.map(lambda x: x * x, range(20)))),
}))
print("to the user", file=sys.stderr)
sys.exit(9)
"""
# as somebody writes it who does not use `hpclab run`
OWN_JOB = """#!/bin/bash
{directives}
cd /home/ada
{mpiexec} -n 4 {python} own.py >own.out 2>own.err
echo $? >own.status
"""
OWN_DIRECTIVES = {
    "slurm": "#SBATCH --nodes=1 --ntasks=4 --mem-per-cpu=500M --output=/dev/null",
    "sge": "#$ -S /bin/bash\n#$ -pe smp 4\n#$ -o /dev/null -j y",
    "pbs": "#PBS -l select=1:ncpus=4:mpiprocs=4\n#PBS -o /dev/null -j oe",
    "lsf": "#BSUB -n 4\n#BSUB -R span[hosts=1]\n#BSUB -o /dev/null",
}
OWN = """
import hpclab
client = hpclab.initialize()
from hpclab.allocation import allocation
import json, os
workers = client.scheduler_info(n_workers=-1)["workers"].values()
print(json.dumps({
    "system": allocation(os.environ).system,
    "threads": [worker["nthreads"] for worker in workers],
    "memory_bytes": [worker["memory_limit"] for worker in workers],
    "sum": sum(client.gather(client.map(lambda x: x * x, range(20)))),
}))
raise SystemExit(7)
"""
N_TASKS = 420
SCRIPTS = Path(__file__).parents[2] / "scripts"


@pytest.fixture(scope="module", params=["slurm", "sge", "pbs", "lsf"])
def site(request: pytest.FixtureRequest) -> Iterator[Site]:
    with a_site(request.param) as site:
        yield site


def test_a_session_over_several_machines(site: Site) -> None:
    described = site.start("across", "--nodes", "2", "--workers", "3")
    assert described["state"] == "running"
    node = described["node"]
    jupyter = described["tunnel"][3].partition(":")[2]
    token = described["jupyter_url"].partition("token=")[2]
    url = f"http://{jupyter}/api/status?token={token}"
    assert site.python("login", GET, url) == {"status": 200}

    jobs = [site.hpclab("add-worker", "-s", "across", "--walltime", "1m", json=True)["jobs"][0] for _ in range(2)]
    jobs.append(site.hpclab("add-worker", "-s", "across", json=True)["jobs"][0])
    site.wait_for_workers("across", 6)
    across = site.python("login", ACROSS_MACHINES, described["folder"])
    assert across["hosts"] > 1
    assert across["sums"] == [499999500000 + i for i in range(across["hosts"] - 1)]

    cancelled, drained, staying = jobs
    with ThreadPoolExecutor(1) as pool:
        result = pool.submit(site.python, "login", MANY_TASKS, described["folder"], str(N_TASKS), timeout_s=180)
        until(lambda: site.job("across", cancelled)["busy"], what="work for the one to be cancelled")
        site.cancel_by_hand(cancelled)
        until(lambda: site.job("across", cancelled)["state"] == "cancelled", within_s=10, what="its being told")
        until(lambda: site.job("across", drained)["state"] == "done", within_s=75, what="the end of its walltime")
        computed = result.result()
    assert computed["sum"] == sum(range(N_TASKS))
    assert {f"{job}-0" for job in jobs} <= {*computed["workers"], f"{cancelled}-0"}
    told = [event["event"] for event in site.hpclab("why", "-s", "across", drained, json=True)["events"]]
    assert "drained" in told
    assert site.job("across", staying)["state"] == "running"
    assert len(site.status("across")["jobs"]) == 4  # nothing was resubmitted

    site.hpclab("stop", "across")
    assert site.status("across")["state"] == "ended"
    assert {job["node"].partition(".")[0] for job in described["jobs"]} == {node.partition(".")[0]}
    site.nothing_is_left()


def test_many_workers_at_once_are_one_array(site: Site) -> None:
    site.start("array", "--workers", "1")
    jobs = site.hpclab("add-worker", "-s", "array", "-n", "4", json=True)["jobs"]
    assert len(set(jobs)) == 4
    described = site.wait_for_workers("array", 5)
    states: dict[str, Any] = {job["id"]: (job["state"], job["joined"]) for job in described["jobs"]}
    assert {job: states[job] for job in jobs} == dict.fromkeys(jobs, ("running", 1))
    assert "handed over its data and left" in site.hpclab("remove-worker", "-s", "array", jobs[1]).stdout
    assert site.job("array", jobs[1])["state"] == "done"
    site.hpclab("scale", "-s", "array", "2")
    site.wait_for_workers("array", 2)
    site.hpclab("stop", "array")
    site.nothing_is_left()


def test_different_sizes_of_scheduler_and_workers(site: Site) -> None:
    """On Slurm a heterogeneous job, on PBS different chunks."""
    described = site.start("sizes", "--nodes", "2", "--workers", "2", "--cores", "3", "--memory", "3G")
    assert described["workers"]["cores"] == 6 or site.wait_for_workers("sizes", 2)["workers"]["cores"] == 6
    site.hpclab("stop", "sizes")
    site.nothing_is_left()


def test_scripts_submitted_by_hand(site: Site) -> None:
    """As in the days before hpclab; but they belong to a session, which hpclab shows, grows and stops like any."""
    submit = {"slurm": "sbatch", "pbs": "qsub"}.get(site.system)
    if submit is None:
        pytest.skip(f"scripts/*.sh have no directives for {site.system}")
    login = site.cluster.on("login")
    for script in ("start-dask.sh", "add-one-worker.sh"):
        shutil.copy(SCRIPTS / script, login.file(f"/home/ada/{script}"))
    python = {"HPCLAB_PYTHON": str(site.cluster.python)}
    begin = [submit, *(["-v", "HPCLAB_PYTHON"] if submit == "qsub" else [])]
    login.run([*begin, "start-dask.sh"], env=python)
    until(lambda: "by-hand" in site.hpclab("list").stdout, what="the session")
    assert "JupyterLab" in site.hpclab("attach", "by-hand").stdout
    for _ in range(2):
        login.run([*begin, "add-one-worker.sh"], env=python)
    site.wait_for_workers("by-hand", 3)
    site.hpclab("add-worker", "-s", "by-hand")
    site.wait_for_workers("by-hand", 4)
    site.hpclab("stop", "by-hand")
    site.nothing_is_left()


@pytest.mark.parametrize("way", RUNS)
def test_a_script_as_a_batch_job(site: Site, way: str) -> None:
    if site.system in ("pbs", "lsf") and way == "dask-mpi":
        pytest.skip("what differs between batch systems, the other way by MPI shows as well")
    launch, first_lines = RUNS[way]
    model = site.script(first_lines + WHERE)
    size = ["--nodes", "2", "--ntasks", "5", "--cores", "1", "--memory", "1G", "--launch", launch]
    workers = 3 if launch == "mpi" else 5
    asked = ["run", "--queue", site.system, "--name", way, *size, model, str(workers)]
    done = site.hpclab(*asked, check=False, timeout_s=180)
    assert done.returncode == 9, done.stderr
    told = json.loads(done.stdout)
    assert (len(told["nodes"]), told["threads"], told["tls"], told["sum"]) == (workers, [1] * workers, True, 2470)
    assert len(set(told["nodes"])) > 1
    if way != "dask-mpi":  # which asks the machine
        assert told["memory_bytes"] == [2**30] * workers
    assert "to the user\n" in done.stderr
    described = site.ended(way)
    assert (described["state"], described["reason"]) == ("failed", "model.py ended with exit status 9")
    site.nothing_is_left()


def test_a_job_script_of_ones_own_that_initializes(site: Site) -> None:
    """The batch system's variables are all that tells of the job."""
    site.script(OWN, "own.py")
    python = site.cluster.python
    mpiexec = Path(python).with_name("mpiexec")
    text = OWN_JOB.format(directives=OWN_DIRECTIVES[site.system], python=python, mpiexec=mpiexec)
    site.script(text, "own.sh")
    login = site.cluster.on("login")
    submit = {"slurm": "sbatch own.sh", "lsf": "bsub <own.sh"}.get(site.system, "qsub own.sh")
    login.run(submit)
    status, out, err = (login.file(f"/home/ada/own.{what}") for what in ("status", "out", "err"))
    until(lambda: status.exists() and status.read_text(), within_s=60, what="the end of the job")
    assert (status.read_text(), err.read_text()) == ("7\n", "")
    told = json.loads(out.read_text())
    assert (told["system"], told["threads"], told["sum"]) == (site.system, [1, 1], 2470)
    if site.system == "slurm":  # the others tell their jobs nothing of memory
        assert told["memory_bytes"] == [500 * 2**20] * 2
    site.nothing_is_left()


def test_auto_finds_the_batch_system(site: Site) -> None:
    script = site.hpclab("script", "start").stdout
    directive = {"slurm": "#SBATCH", "sge": "#$", "pbs": "#PBS", "lsf": "#BSUB"}[site.system]
    assert f"\n{directive} " in script
