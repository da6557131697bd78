"""What goes wrong on a cluster with Grid Engine, on a real little one."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from minihpc.cluster import NODES, Cluster, little_cluster
from waiting import until

TOLD_WITHIN_S = 20
"""It is 10 on a machine that has nothing else to do."""
NOT_RUNNING, REFUSED = 13, 12


@dataclass(frozen=True)
class Session:
    """Ada's only one."""

    cluster: Cluster

    def status(self) -> dict[str, Any]:
        return self.cluster.hpclab("status", "x", json=True)

    def job(self, job_id: str) -> dict[str, Any]:
        return next(job for job in self.status()["jobs"] if job["id"] == job_id)

    def is_in(self, state: str, job_id: str) -> Callable[[], dict[str, Any] | None]:
        def look() -> dict[str, Any] | None:
            job = self.job(job_id)
            return job if job["state"] == state else None

        return look

    def add_worker(self) -> str:
        (job_id,) = self.cluster.hpclab("add-worker", "-s", "x", json=True)["jobs"]
        return str(job_id)

    def add_worker_that_joins(self) -> str:
        job_id = self.add_worker()
        until(lambda: self.job(job_id)["joined"], what="the worker to join")
        return job_id


def start(cluster: Cluster) -> Session:
    cluster.hpclab("start", "--queue", "sge", "--name", "x", json=True)
    return Session(cluster)


@pytest.fixture
def a_session(a_grid_engine: Cluster) -> Iterator[Session]:
    yield start(a_grid_engine)
    a_grid_engine.hpclab("stop", "x")
    a_grid_engine.on("login").run("rm -r .hpclab/sessions/x")
    until(lambda: not a_grid_engine.jobs(), what="the end of all jobs")
    for host in ("login", *NODES):
        until(lambda host=host: not a_grid_engine.on(host).processes(), within_s=10, what=f"all to end on {host}")
        assert list(a_grid_engine.on(host).file("/tmp/").glob("hpclab-*")) == []


def test_a_qmaster_that_is_down_is_told(a_session: Session) -> None:
    cluster = a_session.cluster
    cluster.service("login", "stop", "sge_qmaster")
    try:
        told = a_session.status()
        scaled = cluster.hpclab("scale", "3", "-s", "x", check=False)
    finally:
        cluster.service("login", "start", "sge_qmaster")
    assert (told["state"], told["workers"]["joined"]) == ("unknown", 1)
    assert told["reason"].startswith("sge does not answer: error: unable to send message to qmaster")
    assert (scaled.returncode, "nothing was changed" in scaled.stderr) == (NOT_RUNNING, True)
    # after a restart it takes the nodes for silent until each has reported
    until(lambda: a_session.status()["state"] == "running", within_s=90, what="the nodes to report")


def test_a_worker_that_was_deleted_by_hand_is_told(a_session: Session) -> None:
    worker = a_session.add_worker_that_joins()
    a_session.cluster.on("login").run(["qdel", worker])
    told = until(a_session.is_in("cancelled", worker), what="the end of the worker")
    assert "as qdel does" in told["reason"]
    assert a_session.status()["state"] == "running"


def test_a_main_job_that_was_deleted_by_hand_ends_the_session(a_session: Session) -> None:
    worker = a_session.add_worker_that_joins()
    main = a_session.status()["jobs"][0]["id"]
    a_session.cluster.on("login").run(["qdel", main])
    until(a_session.is_in("cancelled", main), what="the end of the main job")
    until(a_session.is_in("done", worker), what="the end of the worker")
    assert (a_session.status()["state"], a_session.job(worker)["reason"]) == ("ended", "the session was over")


def test_a_worker_without_a_folder_for_its_log_is_told_and_can_be_removed(a_session: Session) -> None:
    logs = a_session.cluster.on("login").file(f"{a_session.status()['folder']}/logs")
    aside = logs.rename(logs.with_name("aside"))
    try:
        worker = a_session.add_worker()
        told = until(a_session.is_in("held", worker), within_s=TOLD_WITHIN_S, what="the failure to be told")
    finally:
        aside.rename(logs)
    assert "can't open output file" in told["reason"]
    assert "(Eqw: it will not start)" in told["reason"]
    a_session.cluster.hpclab("remove-worker", worker, "-s", "x")


def test_a_queue_that_does_not_exist_is_refused(a_grid_engine: Cluster) -> None:
    done = a_grid_engine.hpclab("start", "--queue", "sge:nosuch", check=False, timeout_s=TOLD_WITHIN_S)
    assert (done.returncode, 'requests unknown queue "nosuch"' in done.stderr) == (REFUSED, True)
    assert a_grid_engine.hpclab("list", json=True) == []


def test_a_node_that_dies_is_told_though_grid_engine_takes_its_job_for_running() -> None:
    with little_cluster("sge") as cluster:
        session = start(cluster)
        cluster.on(session.status()["node"]).kill()
        killed = time.monotonic()
        until(lambda: "no sign of life" in session.status()["reason"], what="the silence to be told")
        assert time.monotonic() - killed < TOLD_WITHIN_S + 5
        assert " r " in cluster.jobs()
