"""Sites: a little cluster with a batch system, the real one or a fake one, and what ada does there."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from minihpc.cluster import NODES, Cluster, little_cluster
from waiting import until

FAKES = Path(__file__).parents[1] / "fakes"
PROFILES = {
    # what an administrator of such a site would tell every shell
    "pbs": "export FAKE_PBS_DIR=/home/ada/.fake-pbs FAKE_PBS_HOSTS='node1:16:64gb node2:16:64gb node3:16:64gb' "
    "FAKE_PBS_TIME_SCALE=0.1",
    "lsf": "export FAKE_LSF_DIR=/home/ada/.fake-lsf FAKE_LSF_HOSTS='node1:16 node2:16 node3:16' FAKE_LSF_TIME_SCALE=1",
}


@dataclass(frozen=True)
class Site:
    """A cluster whose users say `--queue SYSTEM`."""

    system: str
    cluster: Cluster

    def hpclab(self, *args: str, **how: Any) -> Any:
        return self.cluster.hpclab(*args, **how)

    def start(self, name: str, *args: str) -> dict[str, Any]:
        described: dict[str, Any] = self.hpclab(
            "start", "--queue", self.system, "--name", name, *args, json=True, timeout_s=120
        )
        return described

    def status(self, name: str) -> dict[str, Any]:
        described: dict[str, Any] = self.hpclab("status", name, json=True)
        return described

    def job(self, name: str, job_id: str) -> dict[str, Any]:
        (found,) = [job for job in self.status(name)["jobs"] if job["id"] == job_id]
        return dict(found)

    def wait_for_workers(self, name: str, number: int) -> dict[str, Any]:
        def enough() -> dict[str, Any] | None:
            described = self.status(name)
            return described if described["workers"]["joined"] == number else None

        return until(enough, within_s=60, what=f"{number} workers in {name}")

    def file(self, name: str, path: str) -> Path:
        """A file of the session, seen from outside."""
        return self.cluster.on("login").file(f"/home/ada/.hpclab/sessions/{name}/{path}")

    def script(self, text: str, name: str = "model.py") -> str:
        """In ada's home, to be read by her."""
        path = self.cluster.on("login").file(f"/home/ada/{name}")
        path.write_text(text)
        path.chmod(0o644)
        return name

    def ended(self, name: str) -> dict[str, Any]:
        """The session or run when its main job is over."""

        def look() -> dict[str, Any] | None:
            described = self.status(name)
            return described if described["state"] in ("ended", "failed") else None

        return until(look, what=f"the end of {name}")

    def cancel_by_hand(self, job_id: str) -> None:
        command = {"slurm": "scancel", "sge": "qdel", "pbs": "qdel", "lsf": "bkill"}[self.system]
        # Grid Engine's tasks are 7.1 to hpclab as to qdel
        self.cluster.on("login").run([command, job_id])

    def python(self, host: str, program: str, *args: str, **how: Any) -> Any:
        """What a program prints as JSON; it runs with the jobs' Python."""
        done = self.cluster.on(host).run([str(self.cluster.python), "-c", program, *args], **how)
        return json.loads(done.stdout.splitlines()[-1])

    def nothing_is_left(self) -> None:
        """No process of ada's on any host, and no job in the queue."""
        for host in ("login", *NODES):
            node = self.cluster.on(host)
            until(lambda node=node: not node.processes() and "none", what=f"the end of {node.processes()} on {host}")
            left = [path.name for path in (self.cluster.state / "hosts" / host / "tmp").glob("hpclab-*")]
            assert not left, f"{left} left in /tmp of {host}"
        command = {"slurm": "squeue -h --me", "sge": "qstat", "pbs": "qstat", "lsf": "bjobs"}[self.system]
        queue = self.cluster.on("login")
        # a batch system may take some seconds to notice that a job has ended
        until(lambda: queue.says(command, check=False) == "", within_s=20, what="an empty queue")


@contextlib.contextmanager
def a_site(system: str, **how: Any) -> Iterator[Site]:
    with little_cluster(system if system in ("slurm", "sge") else "none", **how) as cluster:
        if system in PROFILES:
            _install_fake(cluster, system)
        yield Site(system, cluster)


def _install_fake(cluster: Cluster, system: str) -> None:
    """Its commands where everybody finds them, on every host."""
    commands = cluster.state / "srv/bin"
    for path in (FAKES / system).iterdir():
        if path.is_file():
            shutil.copy(path, commands / path.name)
    for host in ("login", *NODES):
        profile = cluster.state / "hosts" / host / "etc/profile.d/site.sh"
        profile.write_text(PROFILES[system] + "\n")
        profile.chmod(0o644)
