"""What the end-to-end tests stand on: a user with a home of their own, their sessions, and somebody else."""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import psutil
import pytest
from distributed import Client
from distributed.security import Security
from waiting import until

HPCLAB = [sys.executable, "-P", "-m", "hpclab"]
LOCALQ = [sys.executable, "-P", "-m", "hpclab.localq"]
START_TIMEOUT_S = 60
WEBSOCKET = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
}
"""The headers by which a GET asks for a websocket."""
T = TypeVar("T")


@dataclass(frozen=True)
class Home:
    """A user with a home, a batch system and a working folder of their own."""

    path: Path
    settings: dict[str, str] = field(default_factory=dict)

    @property
    def hpclab(self) -> Path:
        return self.path / "home"

    @property
    def notebooks(self) -> Path:
        return self.path / "notebooks"

    @property
    def environ(self) -> dict[str, str]:
        outer = {k: v for k, v in os.environ.items() if not k.startswith(("HPCLAB_", "DASK_", "JUPYTER_"))}
        own = {
            "HPCLAB_HOME": str(self.hpclab),
            "HPCLAB_LOCALQ_DIR": str(self.path / "queue"),
            "HPCLAB_SITE_CONFIG": os.devnull,
            "XDG_CONFIG_HOME": str(self.path / "config"),
            # JupyterLab keeps its settings and layouts there, and must not show those of whoever runs the tests
            "JUPYTER_CONFIG_DIR": str(self.path / "jupyter"),
            "JUPYTERLAB_SETTINGS_DIR": str(self.path / "jupyter/settings"),
            "JUPYTERLAB_WORKSPACES_DIR": str(self.path / "jupyter/workspaces"),
        }
        return outer | own | self.settings

    def begin(self, *args: str, program: list[str] = HPCLAB) -> subprocess.Popen[str]:
        self.notebooks.mkdir(parents=True, exist_ok=True)
        return subprocess.Popen(
            [*program, *args],
            cwd=self.notebooks,
            env=self.environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *args: str, program: list[str] = HPCLAB) -> subprocess.CompletedProcess[str]:
        """Any outcome will do."""
        begun = self.begin(*args, program=program)
        stdout, stderr = begun.communicate(timeout=2 * START_TIMEOUT_S)
        return subprocess.CompletedProcess(begun.args, begun.returncode, stdout, stderr)

    def ok(self, *args: str, program: list[str] = HPCLAB) -> str:
        done = self.run(*args, program=program)
        assert done.returncode == 0, f"{args}: {done.stderr}{done.stdout}"
        return done.stdout

    def json(self, *args: str) -> Any:
        return json.loads(self.ok(*args, "--json"))

    def start(self, *args: str) -> Session:
        return Session(self, self.json("start", "--queue", "local", *args))

    def sessions(self) -> list[str]:
        return [described["name"] for described in self.json("list")]

    def session(self) -> dict[str, Any]:
        """The only session, of which its `start` may have told nothing yet."""
        return until(lambda: next(iter(self.json("list")), None), what="a session")

    def jobs(self) -> list[dict[str, Any]]:
        """As the batch system has them."""
        return [json.loads(line) for line in self.ok("status", program=LOCALQ).splitlines()]

    def processes(self) -> list[psutil.Process]:
        """Everything that runs for this home, jobs' shepherds and notebooks' kernels included."""
        mine = {"HPCLAB_HOME": str(self.hpclab), "HPCLAB_LOCALQ_DIR": str(self.path / "queue")}
        found = psutil.process_iter(["environ", "status"])
        return [
            process
            for process in found
            if process.info["status"] != psutil.STATUS_ZOMBIE and mine.items() & (process.info["environ"] or {}).items()
        ]

    def clear(self) -> None:
        """Stop all there is; afterwards nothing is left, or the test fails."""
        try:
            stopped = [self.run("stop", name) for name in self.sessions()]
            assert [done.stderr for done in stopped if done.returncode] == []
            self.check_nothing_is_left()
        finally:
            for process in self.processes():
                with contextlib.suppress(psutil.Error):
                    process.kill()

    def check_nothing_is_left(self, within_s: float = 10) -> None:
        with contextlib.suppress(AssertionError):
            until(
                lambda: not self.processes() and not self.alive_jobs(),
                within_s=within_s,
                what="the last process and job",
            )
        assert [told(process) for process in self.processes()] == []
        assert self.alive_jobs() == []

    def alive_jobs(self) -> list[str]:
        return [job["id"] for job in self.jobs() if job["state"] in ("PENDING", "RUNNING")]


def told(process: psutil.Process) -> str:
    with contextlib.suppress(psutil.Error):
        return f"{process.pid} {' '.join(process.cmdline())[:200]}"
    return f"{process.pid} (gone)"


@dataclass(frozen=True)
class Session:
    """A session that has started, as its `hpclab start --json` printed it."""

    home: Home
    printed: dict[str, Any]

    @property
    def name(self) -> str:
        return str(self.printed["name"])

    @property
    def folder(self) -> Path:
        return Path(self.printed["folder"])

    @property
    def token(self) -> str:
        return (self.folder / "token").read_text().strip()

    @property
    def main_job(self) -> str:
        return str(next(job["id"] for job in self.printed["jobs"] if job["role"] == "main"))

    def connection(self) -> dict[str, Any]:
        return json.loads((self.folder / "connection.json").read_text())

    def status(self) -> dict[str, Any]:
        return self.home.json("status", self.name)

    def job(self, job_id: str) -> dict[str, Any]:
        return next(job for job in self.status()["jobs"] if job["id"] == job_id)

    def joined(self) -> int:
        return int(self.status()["workers"]["joined"])

    def events(self, job_id: str) -> list[dict[str, Any]]:
        return self.home.json("why", job_id, "--session", self.name)["events"]

    def happened(self, what: str, job_id: str) -> list[dict[str, Any]]:
        return [event for event in self.events(job_id) if event["event"] == what]

    def stop(self) -> str:
        return self.home.ok("stop", self.name)

    def add_worker(self, *args: str) -> str:
        """The id of a job whose workers have joined."""
        (job_id,) = self.home.json("add-worker", "--session", self.name, *args)["jobs"]
        self.wait_joined(job_id)
        return str(job_id)

    def wait_joined(self, job_id: str) -> None:
        until(lambda: self.job(job_id)["joined"], within_s=60, what=f"job {job_id} to join")

    def workers_of(self, job_id: str) -> list[str]:
        """The addresses of a job's workers."""
        workers = json.loads((self.folder / "workers.json").read_text())["workers"]
        return [w["address"] for w in workers if w["name"].rpartition("-")[0] == job_id]

    def listening_at(self, address: str) -> psutil.Process:
        """The process of the session behind a `tls://host:port`."""
        port = int(address.rpartition(":")[2])
        for process in self.home.processes():
            with contextlib.suppress(psutil.Error):
                if any(c.laddr.port == port for c in process.net_connections() if c.status == psutil.CONN_LISTEN):
                    return process
        raise AssertionError(f"nobody listens at {address}")

    def running(self, module: str) -> psutil.Process:
        """The process of the session that runs such a module."""
        for process in self.home.processes():
            with contextlib.suppress(psutil.Error):
                argv = process.cmdline()
                if module in argv and "-m" in argv and self.name in " ".join(argv):
                    return process
        raise AssertionError(f"nobody runs {module}")

    @contextlib.contextmanager
    def client(self) -> Iterator[Client]:
        """A Dask client with the session's own certificate, as in one of its notebooks."""
        certificate, key = (str(self.folder / "tls" / name) for name in ("certificate.pem", "key.pem"))
        security = Security(
            tls_ca_file=str(self.folder / "tls/ca.pem"),
            tls_client_cert=certificate,
            tls_client_key=key,
            require_encryption=True,
        )
        address = self.connection()["scheduler_address"]
        with Client(address, security=security, set_as_default=False, timeout=20) as client:
            yield client


class AnotherUser:
    """`nobody`, on the same machine: each question is put by a process that has given up all our rights."""

    uid = gid = 65534

    def __call__(self, ask: Callable[..., T], *args: object) -> T:
        read, write = os.pipe()
        pid = os.fork()
        if not pid:
            self._answer(write, ask, *args)
        os.close(write)
        try:
            with open(read, "rb") as pipe:
                answer = pipe.read()
        finally:
            os.waitpid(pid, 0)
        failed, value = pickle.loads(answer)
        assert not failed, f"another user's process failed:\n{value}"
        return value

    def _answer(self, write: int, ask: Callable[..., object], *args: object) -> None:
        """In the child, which never returns."""
        try:
            signal.alarm(60)
            os.setgroups([])
            os.setresgid(self.gid, self.gid, self.gid)
            os.setresuid(self.uid, self.uid, self.uid)
            os.chdir("/")
            answer = (False, ask(*args))
        except BaseException:
            answer = (True, traceback.format_exc())
        with open(write, "wb") as pipe:
            pipe.write(pickle.dumps(answer))
        os._exit(0)


def need_root() -> None:
    if os.geteuid():
        pytest.skip("only root can act as another user")
