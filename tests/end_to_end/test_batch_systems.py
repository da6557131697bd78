"""A whole session on each batch system: Slurm and Grid Engine are real, PBS and LSF fakes that really run scripts."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from minihpc.cluster import until
from sites import Site, a_site

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


def test_auto_finds_the_batch_system(site: Site) -> None:
    script = site.hpclab("script", "start").stdout
    directive = {"slurm": "#SBATCH", "sge": "#$", "pbs": "#PBS", "lsf": "#BSUB"}[site.system]
    assert f"\n{directive} " in script
