"""A Dask cluster of one test, seen from the test; and what of it is alive."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import psutil
from distributed import Client
from waiting import until

MARK = "HPCLAB_TEST_CLUSTER"
"""In the environment of all ranks."""
T = TypeVar("T")


@contextlib.contextmanager
def forking() -> Iterator[subprocess.Popen[str]]:
    """The process that others are forked from."""
    argv = [sys.executable, str(Path(__file__).with_name("forked.py"))]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield process
        assert process.stdin
        process.stdin.close()


@dataclass
class Cluster:
    source: subprocess.Popen[str]
    folder: Path
    pids: dict[str, int] = field(default_factory=dict)
    """Of each worker, by address."""
    scheduler: str = ""
    scheduler_pid: int = 0

    def __post_init__(self) -> None:
        begun = self._fork(role="scheduler", environ={})
        self.scheduler, self.scheduler_pid = begun["address"], begun["pid"]

    @property
    def log(self) -> Path:
        return self.folder / "log"

    @property
    def temporary(self) -> Path:
        """The workers' TMPDIR."""
        return self.folder / "tmp"

    def _fork(self, **asked: Any) -> Any:
        assert self.source.stdin
        assert self.source.stdout
        print(json.dumps({**asked, "log": str(self.log)}), file=self.source.stdin, flush=True)
        return json.loads(self.source.stdout.readline())

    def add(self, count: int = 1, *, environ: dict[str, str] | None = None, **options: Any) -> list[str]:
        """More workers: their addresses. Options are those of Dask's Worker."""
        self.temporary.mkdir(exist_ok=True)
        own = {MARK: str(self.folder), "TMPDIR": str(self.temporary), **(environ or {})}
        options = {"nthreads": 1, "memory_limit": 0, **options}
        asked = {"role": "worker", "scheduler": self.scheduler, "folder": str(self.folder / "space")}
        begun = [self._fork(**asked, environ=own, options=options) for _ in range(count)]
        self.pids |= {each["address"]: each["pid"] for each in begun}
        return [each["address"] for each in begun]

    @contextlib.contextmanager
    def client(self, **options: Any) -> Iterator[Client]:
        with Client(self.scheduler, set_as_default=False, timeout=20, **options) as client:
            until(lambda: len(client.nthreads()) == len(self.pids), what="all workers")
            yield client

    def kill(self, address: str) -> None:
        """As a node does that loses its power; the scheduler notices at once."""
        psutil.Process(self.pids.pop(address)).kill()

    def ranks(self) -> list[psutil.Process]:
        """Whatever is alive that a worker has started, even if it has left it."""
        found = []
        for process in psutil.process_iter(["environ", "status"]):
            is_ours = (process.info["environ"] or {}).get(MARK) == str(self.folder)
            if is_ours and process.info["status"] != psutil.STATUS_ZOMBIE:
                found.append(process)
        return found

    def wait_no_ranks(self, within_s: float = 10) -> None:
        with contextlib.suppress(AssertionError):
            until(lambda: not self.ranks(), within_s=within_s, what="the last rank to end")
        assert [told(process) for process in self.ranks()] == []

    def end(self) -> None:
        """Afterwards nothing is left, or the test fails."""
        try:
            self.wait_no_ranks()
            assert list(self.temporary.glob("*")) == []
        finally:
            for pid in [self.scheduler_pid, *self.pids.values()]:
                with contextlib.suppress(psutil.Error):
                    psutil.Process(pid).kill()
            for process in self.ranks():
                with contextlib.suppress(psutil.Error):
                    process.kill()


def told(process: psutil.Process) -> str:
    with contextlib.suppress(psutil.Error):
        return f"{process.pid} {' '.join(process.cmdline())[:200]}"
    return f"{process.pid} (gone)"


@contextlib.contextmanager
def a_cluster_of(source: subprocess.Popen[str], workers: int = 0, **options: Any) -> Iterator[Cluster]:
    with tempfile.TemporaryDirectory(prefix="hpclab-test-") as folder:
        cluster = Cluster(source, Path(folder))
        try:
            cluster.add(workers, **options)
            yield cluster
        finally:
            cluster.end()


def segments_of(pids: Sequence[int]) -> set[str]:
    """The files of shared memory that these processes use now."""
    found: set[str] = set()
    for pid in pids:
        with contextlib.suppress(OSError):
            found |= set(re.findall(r"(/dev/shm/\S+)", Path(f"/proc/{pid}/maps").read_text()))
    return found


def descriptors_of(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))
