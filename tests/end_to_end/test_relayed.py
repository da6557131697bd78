"""Compute nodes that may not submit: a session grows through ssh to the login node, or by an hpclab that is open there.

On node1 and node2 Slurm's commands cannot be run. On node3 they can, but a partition takes jobs from the login node
alone. What somebody says on a node is as what JupyterLab says there.
"""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from laptop import Laptop, a_laptop
from minihpc.cluster import Cluster, send
from sites import Site
from waiting import until

PARTITION = "PartitionName=fromlogin Nodes=node1,node2,node3 AllocNodes=login MaxTime=24:00:00 State=UP"
pytestmark = pytest.mark.cluster(slurm_conf=PARTITION)

TOO_LONG, REFUSED, BARRED = 7, 12, 21
HIDDEN = ("node1", "node2")
HIDE = "for c in sbatch squeue scancel sacct sinfo; do mount --bind /dev/null /usr/bin/$c; done"
IMPATIENT = (
    "import hpclab.relay as relay; relay.UNCLAIMED_S = {0}; relay.ANSWER_S = {0}; import hpclab.cli as c; c.main()"
)
WAITING = """
import os
from hpclab.folder import SessionFolder
from hpclab.hosts.local import LocalHost
from hpclab.relay import waiting
print(repr(waiting(LocalHost(os.environ), SessionFolder("/home/ada/.hpclab/sessions/otter"))))
"""
SBATCH = """#!/bin/sh
[ "$(hostname)" = login ] || exec /usr/bin/sbatch "$@"
echo asked >>/home/ada/asked
while [ -e /home/ada/wait ]; do sleep 0.1; done
exec /usr/bin/sbatch "$@"
"""


@pytest.fixture(scope="module")
def site(a_slurm_cluster: Cluster) -> Iterator[Site]:
    for node in HIDDEN:
        a_slurm_cluster.on(node, user="root").run(HIDE)
    yield Site("slurm", a_slurm_cluster)
    for described in a_slurm_cluster.hpclab("list", json=True):
        a_slurm_cluster.hpclab("stop", described["name"])
    Site("slurm", a_slurm_cluster).nothing_is_left()


@pytest.fixture(scope="module")
def a_shared_session(site: Site) -> str:
    site.start("otter")
    return "otter"


@pytest.fixture
def session(a_shared_session: str, site: Site) -> Iterator[str]:
    """Its name. After the test it has no worker jobs, and nobody waits for anything."""
    yield a_shared_session
    site.hpclab("scale", "0", "-s", a_shared_session)
    until(lambda: workers(site) == [], what="the end of all worker jobs")
    assert relayed(site) == []


@pytest.fixture
def without_ssh(site: Site) -> Iterator[None]:
    """The user's key is on the laptop alone."""
    ada = site.cluster.on("login")
    ada.run("mv .ssh/id_ed25519 .ssh/away")
    yield
    ada.run("mv .ssh/away .ssh/id_ed25519")


@pytest.fixture
def laptop(site: Site) -> Iterator[Laptop]:
    with a_laptop(site.cluster, "paramiko") as laptop:
        yield laptop


@pytest.fixture
def a_counting_sbatch(site: Site) -> Iterator[Callable[[], int]]:
    """How often the login node's was asked. It takes as long as there is a file `wait` in ada's home."""
    stub = site.cluster.state / "srv/bin/sbatch"
    stub.write_text(SBATCH)
    stub.chmod(0o755)
    asked = home(site) / "asked"
    yield lambda: len(asked.read_text().splitlines()) if asked.exists() else 0
    for file in (stub, asked, home(site) / "wait"):
        file.unlink(missing_ok=True)


def home(site: Site) -> Path:
    return site.cluster.on("login").file("/home/ada")


def workers(site: Site, name: str = "otter") -> list[str]:
    """Worker jobs that are queued or run, as Slurm has them."""
    listed = site.cluster.on("login").says(["squeue", "-h", "-r", "-o", "%i %j"]).splitlines()
    main_id = next(job["id"] for job in site.status(name)["jobs"] if job["role"] == "main")
    mine = [line.split()[0] for line in listed if name in line]
    return [job_id for job_id in mine if job_id != main_id]


def relayed(site: Site, name: str = "otter") -> list[str]:
    return [path.name for path in site.file(name, "relay").glob("*")]


def on_node(site: Site, *args: str, node: str = "node1", json: bool = False, **how: Any) -> Any:
    return site.hpclab(*args, host=node, json=json, **how)


def impatient(site: Site, *args: str, after_s: float) -> subprocess.CompletedProcess[str]:
    """On a node, by somebody who does not wait for long."""
    argv = ["python", "-P", "-c", IMPATIENT.format(after_s), *args]
    return site.cluster.on("node1").run(argv, check=False)


@contextmanager
def relay(site: Site, name: str = "otter") -> Iterator[subprocess.Popen[str]]:
    """`hpclab relay`, in the foreground on the login node."""
    popen = site.cluster.on("login").popen(
        ["hpclab", "relay", name], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env={"PYTHONUNBUFFERED": "1"}
    )
    assert popen.stdout
    try:
        assert "submitting what" in popen.stdout.readline()
        yield popen
    finally:
        if popen.poll() is None:
            popen.terminate()
        popen.communicate(timeout=20)


# through ssh


def test_through_ssh_a_session_grows_and_shrinks_as_ever(session: str, site: Site) -> None:
    (job_id,) = on_node(site, "add-worker", "-s", session, json=True)["jobs"]
    site.wait_for_workers(session, 2)
    described = on_node(site, "status", session, json=True)
    assert (described["state"], described["reason"]) == ("running", "")
    assert {job["id"]: job["state"] for job in described["jobs"]}[job_id] == "running"
    assert "scaled" in (told := on_node(site, "scale", "3", "-s", session).stdout) or "submitted" in told
    assert len(workers(site)) == 2
    assert "left" in on_node(site, "remove-worker", job_id, "-s", session).stdout
    assert relayed(site) == []


def test_what_slurm_refuses_through_ssh_is_told_in_its_words(session: str, site: Site) -> None:
    done = on_node(site, "add-worker", "-s", session, "--memory", "500G", check=False)
    assert (done.returncode, "Requested node configuration is not available" in done.stderr) == (REFUSED, True)
    assert "on: login" in done.stderr


def test_workers_are_kept_from_within_the_main_job(site: Site) -> None:
    described = site.start("kept", "--keep", "1")
    assert described["node"] in HIDDEN
    site.wait_for_workers("kept", 2)
    site.hpclab("stop", "kept")


# by somebody who may


def test_an_open_tunnel_of_the_laptop_is_enough(session: str, site: Site, without_ssh: None, laptop: Laptop) -> None:
    attach = laptop.begin("hpclab", "attach", session, "--host", "ada@login", "--no-browser", "--json")
    attach.described()
    (job_id,) = on_node(site, "add-worker", "-s", session, json=True)["jobs"]
    site.wait_for_workers(session, 2)
    described = on_node(site, "status", session, json=True)
    assert (described["state"], described["reason"]) == ("running", "")
    until(
        lambda: (
            {job["id"]: job["state"] for job in on_node(site, "status", session, json=True)["jobs"]}[job_id]
            == "running"
        ),
        what="the worker to be known on the node",
    )
    refused = on_node(site, "add-worker", "-s", session, "--memory", "500G", check=False)
    assert (refused.returncode, "Requested node configuration is not available" in refused.stderr) == (REFUSED, True)
    assert "left" in on_node(site, "remove-worker", job_id, "-s", session).stdout
    assert not attach.ended()
    assert attach.end() == 0


def test_a_command_on_the_login_node_is_enough(session: str, site: Site, without_ssh: None) -> None:
    with relay(site) as carrier:
        ids = on_node(site, "add-worker", "-s", session, "-n", "2", json=True)["jobs"]
        assert sorted(workers(site)) == sorted(ids)
        site.wait_for_workers(session, 3)
        assert carrier.stdout
        assert f"submitted {', '.join(ids)}" in carrier.stdout.readline()
        assert on_node(site, "scale", "1", "-s", session, timeout_s=90).returncode == 0
        send(carrier, 2)
        assert carrier.wait(20) == 0


def test_where_slurm_refuses_the_host_itself_somebody_else_is_asked(site: Site, without_ssh: None) -> None:
    site.hpclab("start", "--queue", "slurm:fromlogin", "--name", "picky", json=True)
    said = site.cluster.on("node3").run("sbatch -p fromlogin --wrap hostname", check=False).stderr
    assert "Access/permission denied" in said
    with relay(site, "picky"):
        (job_id,) = on_node(site, "add-worker", "-s", "picky", node="node3", json=True)["jobs"]
        assert workers(site, "picky") == [job_id]
    site.hpclab("stop", "picky")


def test_where_the_host_may_submit_nobody_else_is_asked(session: str, site: Site, without_ssh: None) -> None:
    done = on_node(site, "add-worker", "-s", session, "--memory", "500G", node="node3", check=False, timeout_s=10)
    assert (done.returncode, "Requested node configuration is not available" in done.stderr) == (REFUSED, True)


def test_twenty_at_once_become_twenty_jobs_though_three_look(session: str, site: Site, without_ssh: None) -> None:
    with relay(site), relay(site), relay(site), ThreadPoolExecutor(20) as pool:
        asked = [pool.submit(on_node, site, "add-worker", "-s", session, json=True) for _ in range(20)]
        ids = [job_id for each in asked for job_id in each.result()["jobs"]]
        assert len(set(ids)) == 20
        assert set(workers(site)) <= set(ids)
        told = {job["id"] for job in site.status(session)["jobs"]}
        assert set(ids) <= told
        site.hpclab("scale", "0", "-s", session)


def test_one_request_is_one_job_though_two_look(
    session: str, site: Site, without_ssh: None, a_counting_sbatch: Callable[[], int], laptop: Laptop
) -> None:
    attach = laptop.begin("hpclab", "attach", session, "--host", "ada@login", "--no-browser", "--json")
    attach.described()
    with relay(site):
        ids = on_node(site, "add-worker", "-s", session, json=True)["jobs"]
    assert attach.end() == 0
    assert workers(site) == ids
    assert a_counting_sbatch() == 1


# nobody, or nobody any more


def test_with_nobody_there_it_is_told_and_nothing_is_submitted_later(
    session: str, site: Site, without_ssh: None, a_counting_sbatch: Callable[[], int]
) -> None:
    done = impatient(site, "add-worker", "-s", session, after_s=3)
    assert done.returncode == TOO_LONG, done.stderr
    for words in (
        *("nothing was submitted", "Permission denied (publickey", f"hpclab attach {session} --host"),
        f"hpclab relay {session}",
    ):
        assert words in done.stderr
    with relay(site):
        ids = on_node(site, "add-worker", "-s", session, json=True)["jobs"]
    assert workers(site) == ids
    assert a_counting_sbatch() == 1


def test_with_nobody_there_a_node_tells_what_was_known_and_that_it_is_old(
    session: str, site: Site, without_ssh: None
) -> None:
    known = site.file(session, "known.json")
    site.status(session)
    known.write_text(re.sub(r'"time": [0-9.]+', '"time": 1700000000.0', known.read_text(), count=1))
    told = on_node(site, "status", session, json=True)
    assert told["state"] == "unknown"
    assert "slurm does not listen to node1" in told["reason"]
    assert "then running)" in told["reason"]
    # JupyterLab is not harmed by that, and the way to it is still told
    assert told["jupyter_url"]
    assert site.status(session)["state"] == "running"
    assert on_node(site, "status", session, json=True)["state"] == "running"


def test_one_who_is_killed_at_it_leaves_it_unknown_and_nobody_does_it_again(
    session: str, site: Site, without_ssh: None, a_counting_sbatch: Callable[[], int]
) -> None:
    (home(site) / "wait").touch()
    with ThreadPoolExecutor(1) as pool, relay(site) as carrier:
        asker = pool.submit(impatient, site, "add-worker", "-s", session, after_s=6)
        until(lambda: a_counting_sbatch() == 1, what="the request to be carried out")
        send(carrier, 9)
        with relay(site):
            done = asker.result()
    assert (done.returncode, "is not known" in done.stderr) == (TOO_LONG, True), done.stderr
    assert a_counting_sbatch() == 1
    (home(site) / "wait").unlink()
    # the killed one's sbatch went on without it: its job shows when it starts, or leaves
    until(lambda: workers(site), what="the job of which nobody knew")
    site.wait_for_workers(session, 2)


def test_a_new_session_is_not_asked_for_on_a_node(site: Site, without_ssh: None) -> None:
    done = on_node(
        *(site, "start", "--queue", "slurm", "--name", "nowhere"),
        env={"SLURM_SUBMIT_HOST": "login"},
        check=False,
        timeout_s=20,
    )
    assert (done.returncode, "say it on a login node" in done.stderr) == (BARRED, True), done.stderr
    assert not site.file("nowhere", "").exists()


def test_a_session_is_stopped_from_a_node(site: Site, without_ssh: None) -> None:
    site.start("ends")
    with relay(site, "ends") as carrier:
        on_node(site, "add-worker", "-s", "ends", json=True)
        site.wait_for_workers("ends", 2)
        assert "ends has ended" in on_node(site, "stop", "ends", timeout_s=90).stdout
        assert carrier.wait(20) == 0
    until(lambda: workers(site, "ends") == [], what="the end of its jobs")
    assert {job["state"] for job in site.status("ends")["jobs"]} <= {"done", "cancelled"}


def test_with_nobody_there_a_session_that_is_stopped_ends_by_itself(site: Site, without_ssh: None) -> None:
    site.start("alone")
    site.hpclab("add-worker", "-s", "alone", json=True)
    site.wait_for_workers("alone", 2)
    done = impatient(site, "stop", "alone", after_s=3)
    assert (done.returncode, "ends by itself" in done.stderr) == (TOO_LONG, True), done.stderr
    until(lambda: site.status("alone")["state"] == "ended", what="the end of the session")
    until(lambda: workers(site, "alone") == [], what="the end of its worker")


def test_what_waits_is_told(session: str, site: Site, without_ssh: None) -> None:
    with ThreadPoolExecutor(1) as pool:
        asker = pool.submit(impatient, site, "add-worker", "-s", session, after_s=8)
        told = until(
            lambda: (said := site.cluster.on("node1").says(["python", "-P", "-c", WAITING])) != "''" and said,
            what="somebody to be waited for",
        )
        assert "waiting for your hpclab on the laptop" in told
        assert asker.result().returncode == TOO_LONG
    assert site.cluster.on("node1").says(["python", "-P", "-c", WAITING]) == "''"


def test_a_request_that_is_none_ends_nobody(session: str, site: Site, without_ssh: None) -> None:
    folder = site.file(session, "relay")
    with relay(site):
        site.cluster.on("login").run(
            f"cd .hpclab/sessions/{session}/relay; name=$(date +%s%N)-0123456789abcdef; "
            "echo '{' >$name.new; mv $name.new $name.asked"
        )
        answer = until(lambda: next(folder.glob("*.answered"), None), what="an answer")
        assert json.loads(answer.read_text())["error"]["class"] == "ConfigError"
        assert on_node(site, "add-worker", "-s", session, json=True)["jobs"]
    for left in folder.glob("*"):
        left.unlink()


# another batch system


def test_on_grid_engine_nodes_are_no_submit_hosts(a_grid_engine: Cluster) -> None:
    """Nor may they ask, if they are no administrative hosts either."""
    site = Site("sge", a_grid_engine)
    site.start("otter")
    (by_ssh,) = on_node(site, "add-worker", "-s", "otter", json=True)["jobs"]
    site.wait_for_workers("otter", 2)
    site.cluster.on("login").run("mv .ssh/id_ed25519 .ssh/away")
    with relay(site):
        (by_relay,) = on_node(site, "add-worker", "-s", "otter", json=True)["jobs"]
        site.wait_for_workers("otter", 3)
        site.cluster.on("login", user="root").run("bash -lc 'qconf -dh node1'", check=False)
        denied = site.cluster.on("node1").run("qstat", check=False)
        assert "neither submit nor admin host" in denied.stdout + denied.stderr
        described = on_node(site, "status", "otter", json=True)
        # else Grid Engine does not hear of the ends of its jobs for long
        site.cluster.on("login", user="root").run("bash -lc 'qconf -ah node1'", check=False)
        assert {job["id"]: job["state"] for job in described["jobs"]}[by_ssh] == "running"
        assert by_relay in [job["id"] for job in described["jobs"]]
        on_node(site, "stop", "otter", timeout_s=90)
    site.nothing_is_left()
