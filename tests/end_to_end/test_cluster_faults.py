"""What goes wrong on a cluster with Slurm, on a real little one: each fault is told in time, and nothing is lost."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from minihpc.cluster import NODES, Cluster, little_cluster, send
from waiting import until

# ended jobs are forgotten within seconds
pytestmark = pytest.mark.cluster(slurm_conf="MinJobAge=2")

TOLD_WITHIN_S = 20
"""It is 10 on a machine that has nothing else to do."""
NOT_CANCELLED, JOB_ENDED, REFUSED, NOT_RUNNING, INTERRUPTED = 3, 6, 12, 13, 130
KEEPS_COMPUTING = """
import sys, time
from distributed import Client
from distributed.security import Security
folder, address = sys.argv[1:]
tls = f"{folder}/tls/"
security = Security(tls_ca_file=tls + "ca.pem", tls_client_cert=tls + "certificate.pem",
                    tls_client_key=tls + "key.pem", require_encryption=True)
def count(path):
    for step in range(600):
        with open(path, "w") as file:
            file.write(str(step))
        time.sleep(0.1)
client = Client(address, security=security)
client.submit(count, sys.argv[1] + "/counted").result()
"""


@dataclass(frozen=True)
class Session:
    """One of ada's, by its name."""

    cluster: Cluster
    name: str

    def status(self) -> dict[str, Any]:
        return self.cluster.hpclab("status", self.name, json=True)

    @property
    def main_id(self) -> str:
        return next(job["id"] for job in reversed(self.status()["jobs"]) if job["role"] == "main")

    def job(self, job_id: str) -> dict[str, Any]:
        return next(job for job in self.status()["jobs"] if job["id"] == job_id)

    def is_in(self, state: str, job_id: str) -> Callable[[], dict[str, Any] | None]:
        def look() -> dict[str, Any] | None:
            job = self.job(job_id)
            return job if job["state"] == state else None

        return look

    def add_worker(self, *args: str, until_joined: bool = True, **how: Any) -> list[str]:
        ids = self.cluster.hpclab("add-worker", "-s", self.name, *args, json=True, **how)["jobs"]
        if until_joined:
            until(lambda: all(self.job(job_id)["joined"] for job_id in ids), what=f"{ids} to join")
        return ids

    def stop(self) -> None:
        self.cluster.hpclab("stop", self.name)


def start(cluster: Cluster, name: str, *args: str, **how: Any) -> Session:
    cluster.hpclab("start", "--queue", "slurm", "--name", name, *args, json=True, **how)
    return Session(cluster, name)


def alive_jobs(cluster: Cluster) -> list[str]:
    return cluster.on("login").says(["squeue", "--all", "-h", "-r", "-o", "%i %t"]).splitlines()


def stop_all(cluster: Cluster, *, but: str = "") -> None:
    """No session but one, and none of its worker jobs."""
    described = cluster.hpclab("list", json=True)
    for told in described:
        if told["name"] != but and told["state"] not in ("ended", "failed"):
            cluster.hpclab("stop", told["name"])
    workers = [
        job["id"] for told in described if told["name"] == but for job in told["jobs"] if job["role"] == "worker"
    ]
    gone = "; ".join(f"rm -r .hpclab/sessions/{told['name']}" for told in described if told["name"] != but)
    cluster.on("login").run(f"scancel {' '.join(workers)}; {gone}" if workers else gone)
    until(lambda: len(alive_jobs(cluster)) <= bool(but), what="the end of all jobs")
    assert len(scratch_folders(cluster)) <= bool(but), scratch_folders(cluster)


def nothing_of(cluster: Cluster, nodes: tuple[str, ...] = NODES) -> None:
    left = {host: cluster.on(host).processes() for host in ("login", *nodes)}
    until(
        lambda: not any(cluster.on(host).processes() for host in ("login", *nodes)), within_s=10, what=f"{left} to end"
    )
    assert scratch_folders(cluster, nodes) == []


def scratch_folders(cluster: Cluster, nodes: tuple[str, ...] = NODES) -> list[Path]:
    return [folder for host in nodes for folder in cluster.on(host).file("/tmp/").glob("hpclab-*")]


@pytest.fixture(scope="module")
def a_short_session() -> Iterator[Session]:
    """Of one minute, the shortest that Slurm has. It begins early, so that nobody has to wait for its end for long."""
    with little_cluster("slurm", nodes=["node1"]) as cluster:
        yield start(cluster, "short", "--walltime", "1m")


@pytest.fixture(scope="module")
def a_shared_session(a_short_session: Session, a_slurm_cluster: Cluster) -> Iterator[Session]:
    yield start(a_slurm_cluster, "shared")
    stop_all(a_slurm_cluster)
    nothing_of(a_slurm_cluster)


@pytest.fixture
def a_session(a_shared_session: Session) -> Iterator[Session]:
    """As it was at first: its main job runs, and there is no other."""
    yield a_shared_session
    stop_all(a_shared_session.cluster, but="shared")


@pytest.fixture
def a_cluster(a_slurm_cluster: Cluster) -> Iterator[Cluster]:
    """For sessions of one's own."""
    yield a_slurm_cluster
    shared = a_slurm_cluster.on("login").file("/home/ada/.hpclab/sessions/shared").exists()
    stop_all(a_slurm_cluster, but="shared" if shared else "")


def config_file(cluster: Cluster, text: str) -> dict[str, str]:
    """The environment of a user whose config file this is."""
    path = cluster.on("login").file("/home/ada/config.toml")
    path.write_bytes(text.encode())
    return {"HPCLAB_SITE_CONFIG": "/home/ada/config.toml"}


def all_nodes_answer(cluster: Cluster) -> bool:
    """A controller that was away takes its nodes for lost at first, and then nothing would start."""
    states = cluster.on("login").says("sinfo -h -N -p regular -o %T").split()
    return set(states) <= {"idle", "mixed", "allocated", "completing"}


def as_root(cluster: Cluster, command: str) -> str:
    return cluster.on("login", user="root").says(command)


# the batch system does not answer


@pytest.fixture(params=["down", "hanging"])
def a_silent_slurm(a_session: Session, request: pytest.FixtureRequest) -> Iterator[Callable[[], None]]:
    """Silence it by a call; it answers again after the test."""
    cluster = a_session.cluster

    def silence() -> None:
        if request.param == "down":
            cluster.service("login", "stop", "slurmctld")
        else:
            as_root(cluster, "kill -STOP $(cat /run/slurmctld.pid)")

    yield silence
    if request.param == "down":
        cluster.service("login", "start", "slurmctld")
    else:
        as_root(cluster, "kill -CONT $(cat /run/slurmctld.pid)")
    until(lambda: a_session.status()["state"] == "running", what="an answer of Slurm")
    until(lambda: all_nodes_answer(cluster), what="all nodes' answer to Slurm")
    assert a_session.status()["reason"] == ""


def test_while_slurm_is_silent_the_session_computes_on(a_session: Session, a_silent_slurm: Callable[[], None]) -> None:
    described = a_session.status()
    folder = described["folder"]
    connection = json.loads(a_session.cluster.on("login").file(f"{folder}/connection.json").read_text())
    node = a_session.cluster.on(described["node"])
    with node.popen(["python", "-c", KEEPS_COMPUTING, folder, connection["scheduler_address"]]) as computing:
        counted = a_session.cluster.on("login").file(f"{folder}/counted")
        until(counted.exists, what="the computation")
        a_silent_slurm()
        asked = [
            a_session.cluster.on("login").popen(["hpclab", *words], stdout=-1, stderr=-1)
            for words in (
                ["status", "shared", "--json"],
                ["list"],
                ["scale", "3", "-s", "shared"],
                ["attach", "shared"],
            )
        ]
        begin = time.monotonic()
        told = [popen.communicate(timeout=TOLD_WITHIN_S + 5) for popen in asked]
        assert time.monotonic() - begin < TOLD_WITHIN_S + 2
        status = json.loads(told[0][0])
        before = counted.read_text()
        until(lambda: counted.read_text() not in ("", before), within_s=2, what="the computation to go on")
        computing.terminate()
    assert status["state"] == "unknown"
    assert status["reason"].startswith("slurm does not answer: ")
    assert "(since " in status["reason"]
    assert "; then running)" in status["reason"]
    assert status["workers"]["joined"] == 1
    assert [popen.returncode for popen in asked] == [0, 0, NOT_RUNNING, 0]
    assert "nothing was changed" in told[2][1]
    assert "/lab?token=" in told[3][0]


def test_a_session_can_be_stopped_while_slurm_is_down() -> None:
    with little_cluster("slurm", nodes=["node1"]) as cluster:
        session = start(cluster, "x")
        session.add_worker()
        cluster.service("login", "stop", "slurmctld")
        done = cluster.hpclab("stop", "x", check=False)
        assert (done.returncode, "ends by itself" in done.stderr) == (NOT_CANCELLED, True)
        nothing_of(cluster, ("node1",))
        cluster.service("login", "start", "slurmctld")
        # until a node tells it Slurm takes the jobs for running
        told = session.status()
        assert told["state"] in ("ending", "ended")
        assert {job["state"] for job in told["jobs"]} <= {"completing", "done"}


# the batch system forgets


def test_jobs_that_slurm_has_forgotten_stay_told_rightly(a_session: Session) -> None:
    cluster = a_session.cluster
    removed, cancelled, unseen = (a_session.add_worker(until_joined=False)[0] for _ in range(3))
    until(lambda: all(a_session.job(job_id)["joined"] for job_id in (removed, cancelled, unseen)), what="three workers")
    cluster.hpclab("remove-worker", removed, "-s", "shared")
    cluster.on("login").run(["scancel", cancelled])
    until(a_session.is_in("cancelled", cancelled), within_s=TOLD_WITHIN_S, what="the cancelled worker to be told")
    cluster.on("login").run(["scancel", unseen])  # and nobody looks
    jobs = ["squeue", "-h", "-t", "all", "-o", "%i"]
    until(lambda: len(cluster.on("login").says(jobs).split()) == 1, what="Slurm to forget")
    told = {job["id"]: job for job in a_session.status()["jobs"]}
    assert told[removed]["state"] == "done"
    assert told[cancelled]["state"] == "cancelled"
    assert "told to end (cancelled" in told[unseen]["reason"]
    assert a_session.status()["state"] == "running"
    # nobody submitted them again
    assert len(told) == len(a_session.status()["jobs"])


def test_a_main_job_that_was_cancelled_by_hand_ends_the_session(a_cluster: Cluster) -> None:
    session = start(a_cluster, "by-hand")
    (worker,) = session.add_worker()
    a_cluster.on("login").run(["scancel", session.main_id])
    until(session.is_in("cancelled", session.main_id), within_s=TOLD_WITHIN_S, what="the cancelled main job")
    until(lambda: session.job(worker)["state"] != "completing", what="the worker's end")
    assert (session.status()["state"], session.job(worker)["reason"]) == ("ended", "the session was over")
    refused = a_cluster.hpclab("add-worker", "-s", "by-hand", check=False)
    assert (refused.returncode, "not running but ended" in refused.stderr) == (NOT_RUNNING, True)


# the batch system starts it again


def test_a_session_is_not_requeued(a_session: Session) -> None:
    done = a_session.cluster.on("login").run(["scontrol", "requeue", a_session.main_id], check=False)
    assert done.returncode
    assert a_session.status()["state"] == "running"


def test_a_session_that_was_started_again_says_so(a_cluster: Cluster) -> None:
    # a file from Windows
    env = config_file(a_cluster, '# the site\'s\r\nskip = ["--no-requeue"]\r\nworkers = 1\r\n')
    session = start(a_cluster, "again", env=env)
    main_id, node = session.main_id, session.status()["node"]
    ada = a_cluster.on("login")
    as_root(a_cluster, f"scontrol update nodename={node} state=drain reason=test")
    try:
        ada.run(["scontrol", "requeue", main_id])
        waiting = until(
            lambda: (s := session.status())["state"] == "queued" and s, within_s=TOLD_WITHIN_S, what="requeue"
        )
        assert waiting["reason"].startswith("put back into the queue by the batch system")
        ada.run(["scontrol", "update", f"jobid={main_id}", "StartTime=now"])
        running = until(lambda: (s := session.status())["state"] == "running" and s, what="the second start")
    finally:
        as_root(a_cluster, f"scontrol update nodename={node} state=resume")
    assert running["node"] != node
    assert (
        running["reason"]
        == f"started again by the batch system on {running['node']}: what ran in its notebooks is lost"
    )
    assert session.main_id == main_id
    assert (
        "it is a new session under the old name"
        in a_cluster.hpclab("why", "-s", "again", env={"COLUMNS": "200"}).stdout
    )


# it will not start as asked


@pytest.mark.parametrize(
    ("queue", "asked", "told"),
    [
        ("slurm:nosuch", (), "Invalid partition name specified"),
        ("slurm:restricted", (), "User's group not permitted to use this partition"),
        ("slurm", ("--memory", "500G"), "Requested node configuration is not available"),
        ("slurm", ("--constraint", "nosuch"), "Invalid feature specification"),
    ],
)
def test_what_slurm_refuses_leaves_nothing(a_cluster: Cluster, queue: str, asked: tuple[str, ...], told: str) -> None:
    before = alive_jobs(a_cluster)
    done = a_cluster.hpclab(
        "start", "--queue", queue, "--name", "refused", *asked, check=False, timeout_s=TOLD_WITHIN_S
    )
    assert (done.returncode, told in done.stderr) == (REFUSED, True), done.stderr
    assert alive_jobs(a_cluster) == before
    assert not a_cluster.on("login").file("/home/ada/.hpclab/sessions/refused").exists()


@pytest.mark.parametrize(
    ("queue", "asked", "told"),
    [
        ("slurm:maint", (), "PartitionDown"),
        ("slurm", ("--walltime", "40d"), "PartitionTimeLimit"),
        ("slurm", ("--nodes", "9"), "PartitionNodeLimit"),
        ("slurm", ("--cores", "100"), "PartitionConfig"),
    ],
)
def test_what_will_never_start_is_told_and_how_to_cancel_it(
    a_cluster: Cluster, queue: str, asked: tuple[str, ...], told: str
) -> None:
    done = a_cluster.hpclab("start", "--queue", queue, "--name", "never", *asked, check=False, timeout_s=TOLD_WITHIN_S)
    said = done.stderr.splitlines()[-2:]
    assert done.returncode == NOT_RUNNING
    assert f"waits in vain: {told} (it will not start: " in said[0]
    assert "`hpclab stop never` cancels it" in said[1]
    a_cluster.hpclab("stop", "never")


def test_with_enforced_limits_slurm_refuses_what_will_never_start() -> None:
    with little_cluster("slurm", nodes=["node1"], slurm_conf="EnforcePartLimits=ALL") as cluster:
        for asked in (["--walltime", "40d"], ["--nodes", "9"]):
            done = cluster.hpclab("start", "--queue", "slurm", *asked, check=False, timeout_s=TOLD_WITHIN_S)
            assert (done.returncode, "sbatch: error: " in done.stderr) == (REFUSED, True), done.stderr
        assert cluster.hpclab("list", json=True) == []
        assert alive_jobs(cluster) == []


# held, suspended, interrupted


def test_a_start_that_is_interrupted_in_the_queue_goes_on(a_cluster: Cluster) -> None:
    env = config_file(a_cluster, 'extra = ["--hold"]\n')
    begun = a_cluster.on("login").popen(
        ["hpclab", "start", "--queue", "slurm", "--name", "waiting"], env=env, stdout=-1, stderr=subprocess.STDOUT
    )
    assert begun.stdout
    said = ""
    while "held by its owner (JobHeldUser)" not in said:
        said += begun.stdout.readline()
    send(begun, signal.SIGINT)
    said = begun.communicate(timeout=TOLD_WITHIN_S)[0]
    assert begun.returncode == INTERRUPTED
    assert "interrupted; the session waiting is still held, and goes on" in said
    session = Session(a_cluster, "waiting")
    assert (session.status()["state"], session.status()["reason"]) == ("held", "held by its owner (JobHeldUser)")
    assert "which was held" in a_cluster.hpclab("stop", "waiting").stdout
    assert session.status()["state"] == "ended"


def test_a_worker_that_was_held_beyond_the_end_leaves_at_once(a_cluster: Cluster) -> None:
    session = start(a_cluster, "too-late")
    record = a_cluster.on("login").file("/home/ada/.hpclab/sessions/too-late/add-one-worker.sh")
    record.write_text(record.read_text().replace("#SBATCH --no-requeue", "#SBATCH --no-requeue\n#SBATCH --hold"))
    (worker,) = session.add_worker(until_joined=False)
    held = until(session.is_in("held", worker), within_s=TOLD_WITHIN_S, what="a held worker")
    assert held["reason"] == "held by its owner (JobHeldUser)"
    a_cluster.on("login").run(["scancel", session.main_id])
    until(lambda: session.status()["state"] == "ended", within_s=TOLD_WITHIN_S, what="the session's end")
    a_cluster.on("login").run(["scontrol", "release", worker])
    left = until(session.is_in("done", worker), within_s=TOLD_WITHIN_S, what="the worker to leave")
    assert left["reason"] == "the session was over"


def test_a_suspended_worker_is_held(a_session: Session) -> None:
    (worker,) = a_session.add_worker()
    as_root(a_session.cluster, f"scontrol suspend {worker}")
    told = until(a_session.is_in("held", worker), within_s=TOLD_WITHIN_S, what="the suspension to be told")
    assert (told["reason"], a_session.status()["workers"]["pending"]) == ("SUSPENDED", 0)
    as_root(a_session.cluster, f"scontrol resume {worker}")
    until(a_session.is_in("running", worker), within_s=TOLD_WITHIN_S, what="the worker's return")
    # Slurm kills a job that it has once suspended without a warning
    assert "handed over" in a_session.cluster.hpclab("remove-worker", worker, "-s", "shared").stdout


# the walltime


def test_the_walltime_of_the_main_job_ends_the_session(a_short_session: Session) -> None:
    ended = until(
        lambda: (s := a_short_session.status())["state"] not in ("running", "ending") and s,
        within_s=120,
        what="the end",
    )
    assert (ended["state"], ended["reason"]) == ("ended", "the walltime was reached (TIMEOUT)")
    nothing_of(a_short_session.cluster, ("node1",))


# workers that do not start


def test_a_worker_without_a_folder_for_its_log_is_told(a_session: Session) -> None:
    logs = a_session.cluster.on("login").file(f"{a_session.status()['folder']}/logs")
    aside = logs.rename(logs.with_name("aside"))
    try:
        (worker,) = a_session.add_worker(until_joined=False)
        told = until(a_session.is_in("failed", worker), within_s=TOLD_WITHIN_S, what="the failure to be told")
    finally:
        aside.rename(logs)
    assert told["reason"] == "its log or its folder could not be opened (JobLaunchFailure)"


def test_after_three_failures_in_a_row_nobody_submits_a_fourth_by_mistake(a_cluster: Cluster) -> None:
    session = start(a_cluster, "failing")
    script = a_cluster.on("login").file("/home/ada/.hpclab/sessions/failing/add-one-worker.sh")
    good = script.read_text()
    script.write_text(good.replace("export HPCLAB_SCRATCH=\n", "export HPCLAB_SCRATCH=\nexit 7\n"))
    workers = [session.add_worker(until_joined=False)[0] for _ in range(3)]
    until(lambda: all(session.job(job_id)["state"] == "failed" for job_id in workers), what="three failures")
    script.write_text(good)
    refused = a_cluster.hpclab("add-worker", "-s", "failing", check=False)
    assert refused.returncode == NOT_RUNNING
    assert "failed to start: exit code 7 (NonZeroExitCode)" in refused.stderr
    session.add_worker("--anyway")
    # and with that the row is broken
    session.add_worker()


# growing


def test_workers_come_as_one_array_and_those_that_wait_go_first(a_session: Session) -> None:
    cluster = a_session.cluster
    ids = a_session.add_worker("-n", "3")
    assert [job_id.partition("_")[2] for job_id in ids] == ["1", "2", "3"]
    assert len({job_id.partition("_")[0] for job_id in ids}) == 1
    as_root(cluster, "scontrol update nodename=node[1-3] state=drain reason=test")
    try:
        assert cluster.hpclab("scale", "6", "-s", "shared").stdout == "submitted 2 worker jobs\n"
        jobs = a_session.status()["jobs"]
        queued = [job["id"] for job in jobs if job["state"] == "pending"]
        said = cluster.hpclab("scale", "3", "-s", "shared").stdout
    finally:
        as_root(cluster, "scontrol update nodename=node[1-3] state=resume")
    assert len(queued) == 2
    assert f"cancelled {', '.join(reversed(queued))}, " in said
    assert said.count("handed over") == 1
    states = [job["state"] for job in a_session.status()["jobs"] if job["id"] in [*ids, *queued]]
    assert sorted(states) == ["cancelled", "cancelled", "done", "running", "running"]


def test_a_kept_worker_that_was_cancelled_is_replaced(a_session: Session) -> None:
    cluster = a_session.cluster

    def workers() -> list[str]:
        return [
            job["id"] for job in a_session.status()["jobs"] if job["role"] == "worker" and job["state"] == "running"
        ]

    with cluster.on("login").popen(["hpclab", "keep", "1", "-s", "shared"], stdout=-1) as keeper:
        (first,) = until(workers, what="the first worker")
        cluster.on("login").run(["scancel", first])
        until(lambda: workers() not in ([], [first]), within_s=20, what="another worker")
        send(keeper, signal.SIGINT)
        assert keeper.wait(TOLD_WITHIN_S) == 0


def test_the_shape_that_starts_soonest_is_taken(a_cluster: Cluster) -> None:
    done = a_cluster.hpclab("start", "--queue", "slurm", "--name", "fits", "--fit", "1x2,2x2,9x99")
    main = Session(a_cluster, "fits").status()["jobs"][0]
    # the scheduler has a node of the two
    assert (main["workers"], main["cores"]) == (1, 2)
    told = [line.split() for line in done.stderr.splitlines()]
    assert ["2x2", "taken", "now"] in told
    assert [words[1:2] for words in told if words[:1] == ["9x99"]] == [["no:"]]


# MPI


@pytest.mark.parametrize(
    ("launcher", "told"),
    [
        ("srun --mpi=none", "2 MPI ranks were started, but they found themselves in worlds of 1"),
        ("srun --mpi=nosuch", "the Dask scheduler did not come up (its program ended with 1)"),
        ("nosuch", "the MPI launcher 'nosuch' is not there"),
    ],
)
def test_a_launcher_that_does_not_fit_is_told(a_cluster: Cluster, launcher: str, told: str) -> None:
    env = {"HPCLAB_MPIEXEC": launcher}
    begin = time.monotonic()
    done = a_cluster.hpclab("start", "--queue", "slurm", "--name", "wrong", env=env, check=False)
    assert (done.returncode, told in done.stderr) == (JOB_ENDED, True), done.stderr
    assert time.monotonic() - begin < TOLD_WITHIN_S


# users and folders


def test_a_user_whose_shell_talks_can_use_everything(a_cluster: Cluster) -> None:
    def bob(*args: str) -> str:
        return a_cluster.hpclab(*args, user="bob").stdout.replace("Welcome back, bob (from .bashrc)\n", "")

    described = json.loads(bob("start", "--queue", "slurm:restricted", "--name", "bobs", "--json"))
    assert described["state"] == "running"
    (worker,) = json.loads(bob("add-worker", "--json"))["jobs"]
    until(lambda: json.loads(bob("status", "--json"))["workers"]["joined"] == 2, what="bob's worker")
    assert "handed over" in bob("remove-worker", worker)
    assert "started on" in bob("why", worker)
    assert "joined" in bob("logs", worker)
    assert "cancelled main job" in bob("stop")
    until(lambda: not a_cluster.on(described["node"], user="bob").processes(), what="the end of bob's processes")


def test_names_of_folders_may_have_spaces_and_accents(a_cluster: Cluster) -> None:
    home = "/home/ada/Meßdaten & más/ünï"
    begin = f"mkdir -p '{home}' && cd '{home}' && HPCLAB_HOME='{home}/hpc läb'"
    ada = a_cluster.on("login")
    described = json.loads(ada.says(f"{begin} hpclab start --queue slurm --name odd --json"))
    assert described["state"] == "running"
    ada.run(f"{begin} hpclab add-worker -n 2")
    until(
        lambda: json.loads(ada.says(f"{begin} hpclab status --json"))["workers"]["joined"] == 3,
        what="workers in odd folders",
    )
    assert "hpclab: environment ready" in ada.says(f"{begin} hpclab logs -n 500")
    assert "cancelled main job" in ada.says(f"{begin} hpclab stop")


# nodes and networks


def test_nodes_that_die_are_told() -> None:
    with little_cluster("slurm") as cluster:
        session = start(cluster, "x")
        (worker,) = session.add_worker("-c", "16")
        main, other = session.status()["node"], session.job(worker)["node"]
        assert main != other
        cluster.on(other).kill()
        cluster.on(main).kill()
        until(lambda: "no sign of life" in session.status()["reason"], within_s=TOLD_WITHIN_S + 5, what="the silence")
        # Slurm itself takes 20 s and more
        until(lambda: session.status()["state"] == "failed", within_s=60, what="the failure")
        assert session.status()["reason"] == "its node failed (NODE_FAIL)"
        assert session.job(worker)["reason"] == "its node failed (NODE_FAIL)"
        cluster.hpclab("stop", "x")
        assert alive_jobs(cluster) == []


def test_a_worker_node_that_falls_silent_is_told_before_slurm_notices() -> None:
    with little_cluster("slurm") as cluster:
        session = start(cluster, "x")
        (worker,) = session.add_worker("-c", "16")
        until(lambda: session.job(worker)["joined"] == 1, what="the worker")
        node = cluster.on(session.job(worker)["node"])
        node.cut()
        until(
            lambda: "no sign of life from its worker" in session.job(worker)["reason"],
            within_s=TOLD_WITHIN_S + 8,
            what="the silence",
        )
        assert session.status()["state"] == "running"
        node.mend()
        cluster.hpclab("stop", "x")


def test_a_worker_joins_over_the_network_that_answers() -> None:
    with little_cluster("slurm", nodes=["node1", "node2"], second_network=["node1", "node2"]) as cluster:
        session = start(cluster, "x")
        cluster.on(session.status()["node"]).cut("eth1")
        begin = time.monotonic()
        (worker,) = session.add_worker("-c", "16")
        assert time.monotonic() - begin < TOLD_WITHIN_S
        assert session.job(worker)["node"] != session.status()["node"]
        session.stop()
        nothing_of(cluster, ("node1", "node2"))
