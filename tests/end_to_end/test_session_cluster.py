"""A running session as one of Dask's clusters, and in the hands of JupyterLab's Dask panel."""

from __future__ import annotations

import asyncio
import gc
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator

import dask
import pytest
from distributed import Client
from distributed.core import Status
from harness import Home, Session
from waiting import until

from hpclab import SessionCluster
from hpclab.errors import ConfigError, HpclabError, NoSuchSession, NotRunning

SLOW = "import time; time.sleep(1)"


@pytest.fixture
def as_the_user(monkeypatch: pytest.MonkeyPatch) -> Callable[[Home], None]:
    """as_the_user(home): this process is one of theirs, outside of any session."""

    def _as_the_user(home: Home) -> None:
        for name in [name for name in os.environ if name.startswith("HPCLAB_")]:
            monkeypatch.delenv(name)
        for name, value in home.environ.items():
            if name.startswith("HPCLAB_"):
                monkeypatch.setenv(name, value)

    return _as_the_user


@pytest.fixture
def a_session(a_running_session: Session, as_the_user: Callable[[Home], None]) -> Session:
    as_the_user(a_running_session.home)
    return a_running_session


@pytest.fixture
def a_cluster(a_session: Session) -> Iterator[SessionCluster]:
    """With the session as small again afterwards as it was before."""
    with SessionCluster() as cluster:
        before = len(cluster.observed)
        yield cluster
    with SessionCluster() as again:
        again.scale(before)


def grows_to(number: int, cluster: SessionCluster) -> None:
    until(lambda: len(cluster.observed) == number, within_s=60, what=f"{number} workers")


def test_it_finds_the_only_session_and_computes_there(a_session: Session, a_cluster: SessionCluster) -> None:
    assert a_cluster.name == a_session.name
    assert a_cluster.scheduler_address.startswith("tls://")
    assert a_cluster.dashboard_link == a_session.status()["dashboard_url"]
    with a_cluster.get_client() as client:
        assert client.submit(lambda: 6 * 7).result() == 42
    assert a_cluster.status is Status.running


def test_it_does_not_need_and_does_not_heed_what_dask_is_configured_for(a_session: Session) -> None:
    elsewhere = {"distributed.comm.tls.ca-file": "/nothing", "scheduler-address": "tcp://192.0.2.1:1"}
    with dask.config.set(elsewhere), SessionCluster(a_session.name) as cluster, Client(cluster) as client:
        assert client.submit(lambda: 1).result() == 1


def test_it_grows_and_shrinks_and_leaves_the_session_when_it_is_closed(
    a_session: Session, a_cluster: SessionCluster
) -> None:
    before = len(a_cluster.observed)
    assert a_cluster.scale(before + 2) == "submitted 2 worker jobs"
    assert len(a_cluster.requested) == len(a_cluster.plan) == before + 2
    grows_to(before + 2, a_cluster)
    a_cluster.scale(before)
    grows_to(before, a_cluster)
    a_cluster.close()
    a_cluster.close()
    assert a_session.status()["state"] == "running"
    assert a_session.joined() == before


def test_a_client_that_shuts_its_cluster_down_leaves_the_session(a_session: Session) -> None:
    SessionCluster().get_client().shutdown()
    assert a_session.status()["state"] == "running"
    with SessionCluster() as cluster, cluster.get_client() as client:
        assert client.submit(lambda: 1).result() == 1


def test_every_one_of_several_is_told_of_new_workers(a_session: Session, a_cluster: SessionCluster) -> None:
    before = len(a_cluster.observed)
    with SessionCluster() as another:
        assert another.get_client() is not a_cluster.get_client()
        job_id = a_session.add_worker()
        grows_to(before + 1, another)
        grows_to(before + 1, a_cluster)
        a_session.home.ok("remove-worker", job_id, "--session", a_session.name)
        grows_to(before, another)
        grows_to(before, a_cluster)
        another.get_client().close()
        a_cluster.get_client().close()


def loops() -> int:
    """Threads that a cluster object has started, and none of those of tests before that end meanwhile."""
    return sum(thread.name == "IO loop" for thread in threading.enumerate())


def test_one_that_nobody_refers_to_any_more_goes(a_session: Session) -> None:
    before = loops()
    cluster = SessionCluster()
    assert loops() == before + 1
    del cluster
    gc.collect()
    until(lambda: loops() == before, what="its thread to end")


def test_it_adapts_to_the_load_and_forgets_no_worker(a_cluster: SessionCluster) -> None:
    before = len(a_cluster.observed)
    adaptive = a_cluster.adapt(before, before + 2, interval="300ms", wait_count=6, target_duration="1s")
    assert (adaptive.minimum, adaptive.maximum) == (before, before + 2)
    with a_cluster.get_client() as client:
        futures = client.map(lambda _: exec(SLOW), range(30 * before), pure=False)
        grows_to(before + 2, a_cluster)
        client.gather(futures)
        grows_to(before, a_cluster)
    changes = [what["status"] for _, what in adaptive.log]
    assert changes[0] == "submitted 2 worker jobs"
    assert not [change for change in changes[1:] if "submitted" in change]


def test_to_scale_by_hand_ends_adapting(a_cluster: SessionCluster) -> None:
    adaptive = a_cluster.adapt(0, 5)
    a_cluster.scale(len(a_cluster.observed))
    assert adaptive.state == "stopped"


def test_adapting_ends_and_says_why_when_workers_fail_to_start(
    a_home: Callable[..., Home], as_the_user: Callable[[Home], None]
) -> None:
    session = a_home().start()
    as_the_user(session.home)
    (session.folder / "add-one-worker.sh").write_text("#!/bin/bash\nexit 1\n")
    with SessionCluster() as cluster:
        adaptive = cluster.adapt(minimum=len(cluster.observed) + 1, interval="200ms")
        until(lambda: adaptive.state == "stopped", what="it to give up")
        assert "it adapts no more: the last 3 worker jobs" in cluster.trouble
        assert cluster.trouble.split("\n")[0] in cluster._repr_html_()
        jobs = len(session.status()["jobs"])
        assert jobs == 1 + 3


def test_adapting_outlives_a_batch_system_that_refuses_for_a_while(
    a_session: Session, a_cluster: SessionCluster
) -> None:
    script = a_session.folder / "add-one-worker.sh"
    away = script.rename(script.with_suffix(".away"))
    before = len(a_cluster.observed)
    adaptive = a_cluster.adapt(minimum=before + 1, interval="100ms")
    try:
        until(
            lambda: a_cluster.trouble.startswith("it adapts again in 0.2 s: local did not take the job"),
            what="a refusal",
        )
        assert adaptive.state == "running"
        until(lambda: "in 0.4 s" in a_cluster.trouble, what="it to wait longer")
    finally:
        away.rename(script)
    grows_to(before + 1, a_cluster)
    until(lambda: not a_cluster.trouble, what="all to be well")


@pytest.mark.parametrize("number", [-1, 10**9, "3", 1.5, True, None])
def test_numbers_that_make_no_sense_are_refused(a_cluster: SessionCluster, number: object) -> None:
    with pytest.raises(ConfigError, match="must be a whole number from 0 to 10000"):
        a_cluster.scale(number)  # type: ignore[arg-type]


def test_limits_that_make_no_sense_are_refused(a_cluster: SessionCluster) -> None:
    with pytest.raises(ConfigError, match="minimum 3 is more than maximum 2"):
        a_cluster.adapt(3, 2)


# asynchronously, as in a server


def test_in_an_event_loop_it_is_awaited_and_does_not_hold_the_loop_up(a_session: Session) -> None:
    async def longest_gap() -> float:
        gaps = [0.0]

        async def tick() -> None:
            while True:
                before = time.monotonic()
                await asyncio.sleep(0.01)
                gaps.append(time.monotonic() - before)

        ticking = asyncio.create_task(tick())
        async with SessionCluster(asynchronous=True) as cluster:
            before = len(cluster.observed)
            await cluster.scale(before + 1)
            while len(cluster.observed) <= before:
                await asyncio.sleep(0.05)
            async with Client(cluster, asynchronous=True) as client:
                assert await client.submit(lambda: 1) == 1
            await cluster.scale(before)
        ticking.cancel()
        return max(gaps)

    assert asyncio.run(longest_gap()) < 0.5


def test_dasks_panel_lists_scales_adapts_and_leaves_it(a_session: Session) -> None:
    factory = {"module": "hpclab.cluster", "class": "SessionCluster", "args": [], "kwargs": {}}
    before = a_session.joined()

    async def panel() -> None:
        from dask_labextension.manager import DaskClusterManager, manager

        await manager.initialized  # the one of the module, which has no clusters here
        with dask.config.set(
            {"labextension.factory": factory, "labextension.initial": [{"name": "mine"}], "labextension.default": {}}
        ):
            ours = await asyncio.wait_for(DaskClusterManager().initialized, 20)
            (model,) = ours.list_clusters()
            assert (model["name"], model["workers"]) == ("mine", before)
            await ours.scale_cluster(model["id"], before + 1)
            await until_it_has(lambda: ours.get_cluster(model["id"])["workers"] == before + 1)
            adapted = ours.adapt_cluster(model["id"], 1, 4)
            assert adapted["adapt"] == {"minimum": 1, "maximum": 4}
            scaled = await ours.scale_cluster(model["id"], before)
            assert "adapt" not in scaled
            await until_it_has(lambda: ours.get_cluster(model["id"])["workers"] == before)
            await ours.close_cluster(model["id"])
            assert ours.list_clusters() == []

    async def until_it_has(condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(60):
            while not condition():
                await asyncio.sleep(0.05)

    asyncio.run(panel())
    assert a_session.status()["state"] == "running"


def test_before_it_is_awaited_it_says_so(a_session: Session) -> None:
    async def shown() -> str:
        return str(SessionCluster(a_session.name, asynchronous=True)._repr_html_())

    assert "it is not connected yet" in asyncio.run(shown())


# what goes wrong


def test_without_a_session_it_says_how_to_start_one(
    a_home: Callable[..., Home], as_the_user: Callable[[Home], None]
) -> None:
    as_the_user(a_home())
    before = loops()
    with pytest.raises(NoSuchSession, match="hpclab start"):
        SessionCluster()
    assert loops() == before


def test_a_session_that_waits_or_has_ended_is_no_cluster(
    a_home: Callable[..., Home], as_the_user: Callable[[Home], None]
) -> None:
    home = a_home()
    session = home.start()
    session.stop()
    as_the_user(home)
    with pytest.raises(NotRunning, match="is not running but ended"):
        SessionCluster(session.name)


def test_when_its_scheduler_dies_it_says_so(a_home: Callable[..., Home], as_the_user: Callable[[Home], None]) -> None:
    session = a_home().start()
    as_the_user(session.home)
    cluster = SessionCluster()
    session.listening_at(cluster.scheduler_address).kill()
    until(lambda: cluster.status is Status.closed, what="it to notice")
    assert "its Dask scheduler is gone" in repr(cluster)
    with pytest.raises(NotRunning, match="its Dask scheduler is gone"):
        cluster.get_client()
    until(lambda: session.status()["state"] == "failed", what="the session to end")
    with pytest.raises(HpclabError, match="is not running"):
        cluster.scale(3)
    cluster.close()


PROGRAM = """
import hpclab, sys
cluster = hpclab.SessionCluster()
client = cluster.get_client()
cluster.adapt(0, 3, interval="100ms")
print("connected", flush=True)
sys.stdin.readline()
"""


@pytest.mark.parametrize("scheduler", ["alive", "dead", "stopped"])
def test_a_program_that_ends_does_not_hang(a_home: Callable[..., Home], scheduler: str) -> None:
    session = a_home().start()
    process = session.listening_at(session.connection()["scheduler_address"])
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM],
        env=session.home.environ,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as program:
        assert program.stdout
        assert program.stdout.readline() == "connected\n"
        if scheduler != "alive":
            (process.kill if scheduler == "dead" else process.suspend)()
        begin = time.monotonic()
        try:
            program.communicate("\n", timeout=30)
        finally:
            program.kill()
            if scheduler == "stopped":
                process.resume()
        assert program.returncode == 0
        assert time.monotonic() - begin < 20
