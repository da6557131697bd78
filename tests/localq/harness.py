"""What the tests of the embedded batch system stand on: a queue with real processes, and gates for its jobs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import psutil
from waiting import until

REPOSITORY = Path(__file__).parents[2]
LOCALQ = [sys.executable, "-m", "hpclab.localq"]
FINAL = {"COMPLETED", "FAILED", "CANCELLED", "TIMEOUT"}
T = TypeVar("T")


def alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def processes_with(name: str, value: str) -> list[psutil.Process]:
    found = psutil.process_iter(["environ", "status"])
    return [
        process
        for process in found
        if (process.info["environ"] or {}).get(name) == value and process.info["status"] != psutil.STATUS_ZOMBIE
    ]


def script(body: str, **options: object) -> str:
    """script("exit 3", job_name="x") has one directive."""
    head = [f"#HPCLAB --{name.replace('_', '-')}={value}" for name, value in options.items()]
    return "\n".join(["#!/bin/bash", *head, body, ""])


def pid_in(path: Path) -> int:
    return int(until(lambda: path.exists() and path.read_text().strip(), what=f"a pid in {path}"))


@dataclass(frozen=True)
class Queue:
    """A queue in a folder of its own, and the folder in which its user works."""

    folder: Path
    work: Path

    @property
    def environ(self) -> dict[str, str]:
        outer = {name: value for name, value in os.environ.items() if not name.startswith("HPCLAB_LOCALQ_")}
        return outer | {"HPCLAB_LOCALQ_DIR": str(self.folder), "PYTHONPATH": str(REPOSITORY)}

    def run(self, *args: str, stdin: str = "", prefix: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*prefix, *LOCALQ, *args],
            input=stdin,
            cwd=self.work,
            env=self.environ,
            capture_output=True,
            text=True,
            timeout=20,
            check=False,
        )

    def submit(self, text: str) -> str:
        done = self.run("submit", "-", stdin=text)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout == f"{int(done.stdout)}\n"
        return done.stdout.strip()

    def status(self, *ids: str) -> dict[str, dict[str, Any]]:
        done = self.run("status", *ids)
        assert (done.returncode, done.stderr) == (0, "")
        return {job["id"]: job for job in map(json.loads, done.stdout.splitlines())}

    def cancel(self, *ids: str) -> None:
        done = self.run("cancel", *ids)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")

    def job_folder(self, job_id: str) -> Path:
        return self.folder / "jobs" / job_id

    def record(self, job_id: str) -> dict[str, Any]:
        """As it is written: looking at it moves nothing on."""
        fields: dict[str, Any] = json.loads((self.job_folder(job_id) / "job.json").read_text())
        return fields

    def rewrite(self, job_id: str, **fields: object) -> None:
        (self.job_folder(job_id) / "job.json").write_text(json.dumps(self.record(job_id) | fields))

    def end_of(self, job_id: str) -> dict[str, Any]:
        until(lambda: self.record(job_id)["state"] in FINAL, what=f"the end of job {job_id}")
        return self.status(job_id)[job_id]

    def shepherd_of(self, job_id: str) -> psutil.Process:
        folder = str(self.job_folder(job_id))
        # the eldest: a child that it has just forked still has its environment until it becomes the script
        found = until(lambda: processes_with("HPCLAB_LOCALQ_SHEPHERD", folder), what=f"shepherd of {job_id}")
        return min(found, key=lambda process: process.pid)

    def processes_of(self, job_id: str) -> list[psutil.Process]:
        return processes_with("HPCLAB_LOCALQ_JOB", str(self.job_folder(job_id)))

    def processes(self) -> list[psutil.Process]:
        return processes_with("HPCLAB_LOCALQ_DIR", str(self.folder))


@dataclass(frozen=True)
class Gate:
    """A FIFO at which jobs wait."""

    path: Path

    @property
    def wait(self) -> str:
        return f"cat {self.path} > /dev/null"

    def someone_waits(self) -> int | None:
        try:
            return os.open(self.path, os.O_WRONLY | os.O_NONBLOCK)
        except OSError:
            return None

    def open(self) -> None:
        os.close(until(self.someone_waits, what=f"a job at {self.path}"))
