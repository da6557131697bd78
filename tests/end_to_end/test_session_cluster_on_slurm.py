"""`SessionCluster` where jobs really wait in a queue, that of a Slurm: from the login node, and on several networks."""

from __future__ import annotations

import json
from collections.abc import Iterator
from subprocess import PIPE
from urllib.parse import urlsplit

import pytest
from minihpc.cluster import NODES, Cluster
from sites import Site

pytestmark = pytest.mark.cluster(second_network=NODES)

ADAPTS = """
import json, subprocess, time
import hpclab

def queue_is(state):
    print(state, flush=True)
    input()

def until(condition, within_s=90):
    end = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < end, (cluster, cluster.trouble, list(adaptive.log))
        time.sleep(0.1)

cluster = hpclab.SessionCluster()
client = cluster.get_client()
queue_is("DOWN")
adaptive = cluster.adapt(1, 4, interval="200ms", wait_count=10, target_duration="1s")
futures = client.map(lambda _: time.sleep(1), range(30), pure=False)
until(lambda: len(cluster.requested) == 4)
# the load comes and goes while they wait
client.gather(futures)
time.sleep(0.5)
futures = client.map(lambda _: time.sleep(1), range(30), pure=False)
waited = dict(hpclab.session().status()["workers"])
queue_is("UP")
until(lambda: len(cluster.observed) == 4)
client.gather(futures)
until(lambda: len(cluster.observed) == 1)
jobs = hpclab.session().status()["jobs"]
cluster.close()
print(json.dumps({"waited": waited, "jobs": [[job["role"], job["state"]] for job in jobs]}))
"""


@pytest.fixture
def site(a_slurm_cluster: Cluster) -> Iterator[Site]:
    yield Site("slurm", a_slurm_cluster)
    a_slurm_cluster.on("login", user="root").run(["scontrol", "update", "PartitionName=regular", "State=UP"])
    for described in a_slurm_cluster.hpclab("list", json=True):
        a_slurm_cluster.hpclab("stop", described["name"])
    a_slurm_cluster.on("login").run(["rm", "-rf", ".hpclab"])


def test_adapting_waits_with_its_jobs_in_the_queue_and_asks_for_none_twice(site: Site) -> None:
    """The load comes, goes and comes again while the partition is down."""
    site.start("calm-otter", "--cores", "1", "--memory", "300M")
    root, python = site.cluster.on("login", user="root"), str(site.cluster.python)
    program = site.cluster.on("login").popen([python, "-c", ADAPTS], stdin=PIPE, stdout=PIPE, stderr=PIPE)
    assert program.stdin
    assert program.stdout
    for _ in range(2):
        state = program.stdout.readline().strip()
        if not state:
            break
        root.run(["scontrol", "update", "PartitionName=regular", f"State={state}"])
        program.stdin.write("\n")
        program.stdin.flush()
    stdout, stderr = program.communicate(timeout=180)
    assert program.returncode == 0, stderr
    told = json.loads(stdout.splitlines()[-1])
    assert told["waited"]["pending"] == 3
    assert told["waited"]["joined"] == 1
    assert [role for role, _ in told["jobs"]] == ["main", "worker", "worker", "worker"]


def test_who_does_not_reach_the_scheduler_is_told_so(site: Site) -> None:
    node = site.cluster.on(site.start("calm-otter")["node"])
    connects = [str(site.cluster.python), "-c", "import hpclab; hpclab.SessionCluster()"]
    port = urlsplit(json.loads(site.file("calm-otter", "addresses.json").read_text())["addresses"][0]).port
    # the port alone: a node that is silent for 10 s is lost for Slurm, and the session with it
    node.shut(port)
    try:
        done = site.cluster.on("login").run(connects, check=False, timeout_s=60)
    finally:
        node.open(port)
    error = done.stderr.partition("hpclab.errors.NotRunning: ")[2]
    assert error.startswith("calm-otter: none of the scheduler's addresses answers from login: tls://")
    assert error.endswith("look with `hpclab status calm-otter`\n")
    site.cluster.on("login").run(connects)
