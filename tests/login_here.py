"""A login node that is this machine: commands run as over SSH, without any SSH. For what is said, not for how."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from hpclab.errors import ConnectionLost, TookTooLong, Unreachable
from hpclab.shell import new_mark, remote_command

STUB = f"""#!{sys.executable}
import os, socket, sys
from hpclab.connection import Connection
from hpclab.folder import SessionFolder
from hpclab.inside.report import announce, report
module, folder, job_id = sys.argv[3], SessionFolder(sys.argv[4]), os.environ["HPCLAB_JOB_ID"]
print("hello from", module)
if module == "hpclab.inside.main_job":
    report(folder, job_id, "scheduler", address="tls://127.0.0.1:1")
    report(folder, job_id, "jupyter", port=2)
    here = Connection(session=folder.name, job_id=job_id, node=socket.gethostname(), scheduler_address="tls://127.0.0.1:1",
                      jupyter_host="127.0.0.1", jupyter_port=2, dashboard_host="127.0.0.1", dashboard_port=3, time=1.0)
    announce(folder.connection, here.to_text())
os.execvp("sleep", ["sleep", "300"])
"""
"""Stands for the Python of the jobs: says at once that all is up, and sleeps."""


class ProcessHere:
    """Its streams are sockets: to shut one down wakes whoever reads it."""

    def __init__(self, command: str, mark: bytes, env: Mapping[str, str]) -> None:
        ours, theirs = zip(*(socket.socketpair() for _ in range(3)), strict=True)
        self.popen = subprocess.Popen(
            ["sh", "-c", command],
            env=dict(env),
            stdin=theirs[0],
            stdout=theirs[1],
            stderr=theirs[2],
            start_new_session=True,
        )
        for end in theirs:
            end.close()
        self._ends = ours
        self.stdin: BinaryIO = ours[0].makefile("wb", buffering=0)
        ours[0].close()  # the socket itself lives as long as its file
        self.stdout, self.stderr = (self._behind(mark, end) for end in ours[1:])

    @staticmethod
    def _behind(mark: bytes, end: socket.socket) -> BinaryIO:
        stream = end.makefile("rb")
        while (line := stream.readline()) and mark not in line:
            pass
        return stream

    def wait(self, timeout_s: float | None = None) -> int:
        try:
            return self.popen.wait(timeout_s)
        except subprocess.TimeoutExpired as error:
            raise TookTooLong("it runs on\nwait longer") from error

    def close(self) -> None:
        self.stdin.close()
        for end in self._ends[1:]:
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
            end.close()


@dataclass
class LoginHere:
    env: Mapping[str, str]
    destination: str = "ada@login"
    means: str = "here"
    address: str = "127.0.0.1"
    is_connected: bool = True
    is_silent: bool = False
    connections: int = 0
    processes: list[ProcessHere] = field(default_factory=list)

    def connect(self, *, timeout_s: float = 30) -> None:
        if self.is_silent:
            raise Unreachable(f"{self.destination} does not answer\nis it up?")
        self.is_connected = True
        self.connections += 1

    def drop(self) -> None:
        self.is_connected = False

    def start(self, argv: Sequence[str], *, prologue: Sequence[str] = ()) -> ProcessHere:
        if not self.is_connected:
            raise ConnectionLost("dropped\nconnect again")
        mark = new_mark()
        self.processes.append(ProcessHere(remote_command(argv, mark, prologue=prologue), mark, self.env))
        return self.processes[-1]

    def close(self) -> None:
        """Until the next `connect`."""
        for process in self.processes:
            process.close()
            process.wait(20)


@contextmanager
def a_users_home(path: Path) -> Iterator[dict[str, str]]:
    """The environment of a user over there, whose jobs are a stub: up at once, and gone in the end."""
    stub = path / "stub"
    stub.write_text(STUB)
    stub.chmod(0o755)
    env = {name: value for name, value in os.environ.items() if not name.startswith("HPCLAB_")} | {
        "HOME": str(path),
        "SHELL": "/bin/bash",  # as sshd sets it; here there may be none
        "XDG_CONFIG_HOME": f"{path}/config",
        "HPCLAB_HOME": f"{path}/hpclab",
        "HPCLAB_LOCALQ_DIR": f"{path}/localq",
        "HPCLAB_SITE_CONFIG": f"{path}/none.toml",
        "HPCLAB_QUEUE": "local",
        "HPCLAB_PYTHON": str(stub),
    }
    yield env
    ids = [job.name for job in (path / "localq/jobs").glob("*") if job.name.isdecimal()]
    if ids:
        cancel = [sys.executable, "-P", "-m", "hpclab.localq", "cancel", *ids]
        subprocess.run(cancel, check=True, timeout=30, env=env, capture_output=True)
