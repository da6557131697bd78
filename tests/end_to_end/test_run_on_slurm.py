"""A script as a batch job of several nodes, on the real Slurm of a little cluster."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from sites import Site, a_site
from waiting import until

JOB_ENDED, REFUSED, CONFIG_ERROR = 6, 12, 2
LAUNCHES = ["mpi", "file"]
STARTS = {
    "mpi": "from dask_mpi import initialize\ninitialize(dashboard=False)\n",
    "file": "",
}
WHERE = """
import json, os, sys
from dask.distributed import Client
client = Client()
client.wait_for_workers(int(sys.argv[1]))
nodes = client.run(lambda: os.uname().nodename)
addresses = [client.scheduler.address, *nodes]
print(json.dumps({"nodes": sorted(nodes.values()), "schemes": sorted({a.partition("://")[0] for a in addresses}),
                  "sum": sum(client.gather(client.map(lambda x: x * x, range(20)))),
                  "told": [os.environ["SLURM_NTASKS"], os.environ["SLURM_CPUS_PER_TASK"]]}))
print("to the user", file=sys.stderr)
sys.exit(9)
"""
WAITS = """
import os, signal, sys, time
from dask.distributed import Client
client = Client()
client.wait_for_workers(1)
def hear(*_):
    print("heard", *(client.submit(sum, [1, 2]).result(timeout=4) for _ in sys.argv[1:]), flush=True)
    raise SystemExit(0)
signal.signal(signal.SIGTERM, hear)
print("ready", flush=True)
while True:
    time.sleep(0.1)
"""


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    with a_site("slurm") as site:
        yield site


def run(site: Site, *args: str) -> Any:
    return site.hpclab("run", "--queue", site.system, *args, check=False, timeout_s=180)


@pytest.mark.parametrize("cores", [1, 2], ids=["alike", "heterogeneous"])
@pytest.mark.parametrize("launch", LAUNCHES)
def test_a_run_over_several_nodes(site: Site, launch: str, cores: int) -> None:
    """With ranks of different sizes it is a heterogeneous job, by `mpi`."""
    name, model = f"over-{launch}-{cores}", site.script(STARTS[launch] + WHERE)
    size = ["--nodes", "2", "--ntasks", "5", "--cores", str(cores), "--launch", launch]
    workers = 3 if launch == "mpi" else 5
    done = run(site, "--name", name, *size, model, str(workers))
    assert done.returncode == 9, done.stderr
    told = json.loads(done.stdout)
    assert (len(told["nodes"]), told["schemes"], told["sum"]) == (workers, ["tls"], 2470)
    assert len(set(told["nodes"])) > 1
    assert told["told"] == ["5", str(cores)]
    assert "to the user\n" in done.stderr
    described = site.ended(name)
    assert (described["state"], described["reason"]) == ("failed", "model.py ended with exit status 9")
    site.nothing_is_left()


@pytest.mark.parametrize("launch", LAUNCHES)
def test_a_run_that_is_cancelled(site: Site, launch: str) -> None:
    name, model = f"gone-{launch}", site.script(STARTS[launch] + WAITS)
    size = ["--nodes", "2", "--ntasks", "4", "--launch", launch]
    # the ranks of a small program by `mpi` leave no room for a worker on the script's own node, and others go at once
    compute = ["compute"] if launch == "file" else []
    assert run(site, "--detach", "--name", name, *size, model, *compute).returncode == 0
    out = site.file(name, "program/stdout")
    until(lambda: out.exists() and "ready" in out.read_text(), within_s=60, what="the script to run")
    site.hpclab("stop", name)
    done = site.hpclab("attach", name, check=False)
    # once, though Slurm tells all processes, and so does a launcher that has been told
    heard = "ready\nheard 3\n" if compute else "ready\nheard\n"
    assert (done.returncode, done.stdout) == (JOB_ENDED, heard), done.stderr
    assert "cancelled" in done.stderr
    site.nothing_is_left()


def test_a_run_that_slurm_will_not_take(site: Site) -> None:
    done = run(site, "--account", "nobody's", "--nodes", "64", "--ntasks", "99", site.script("print(1)"))
    assert done.returncode in (REFUSED, JOB_ENDED, 13), done.stderr
    site.cluster.on("login").run("scancel --me")
    site.nothing_is_left()


def test_a_script_that_ada_may_not_read(site: Site) -> None:
    model = site.script("print(1)", "secret.py")
    site.cluster.on("login").file(f"/home/ada/{model}").chmod(0o000)
    done = run(site, model)
    assert (done.returncode, "secret.py cannot be run: Permission denied" in done.stderr) == (CONFIG_ERROR, True)


def test_a_run_that_is_cancelled_by_hand(site: Site) -> None:
    name, model = "by-hand", site.script(WAITS)
    assert run(site, "--detach", "--name", name, "--launch", "file", "--ntasks", "1", model).returncode == 0
    out = site.file(name, "program/stdout")
    until(lambda: out.exists() and "ready" in out.read_text(), within_s=60, what="the script to run")
    site.cancel_by_hand(site.status(name)["jobs"][0]["id"])
    assert "cancelled" in site.ended(name)["reason"]
    site.nothing_is_left()
