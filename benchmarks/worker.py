"""One worker job, from the first line of its script to "registered with the scheduler", and the memory it then takes.

`add-one-worker.sh` against `dask worker --nanny`, both run by bash and joining one scheduler with the same TLS.
Memory is proportional (PSS): a page that several processes share counts once.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from pathlib import Path
from subprocess import Popen
from typing import Any

import psutil
from distributed import Client
from distributed.security import Security

from benchmarks import table
from benchmarks.sandbox import Sandbox, family, sandbox
from hpclab.folder import SessionFolder
from hpclab.inside.environ import dask_tls

COUNTS = (1, 8)
NTHREADS, MEMORY = 1, "512MiB"
BY_HAND = Path(__file__).with_name("by_hand") / "add-one-worker.sh"
TIME_TARGET, MEMORY_TARGET = 0.5, 0.6
SLOTS = 64
POLL_S = 0.02
SETTLE_S = 1
TOO_LONG_S = 120


@dataclass(frozen=True, kw_only=True)
class Run:
    """Of one job: seconds until all its workers had registered, and MiB of all its processes a moment later."""

    seconds: float
    memory: float


@dataclass(frozen=True, kw_only=True)
class Bench:
    """A session, and jobs of so many workers each that join it."""

    box: Sandbox
    folder: SessionFolder
    client: Any
    workers: int

    def by_hand(self, job_id: str) -> Run:
        address = self.client.scheduler.address
        argv = (BY_HAND, address, str(self.workers), str(NTHREADS), MEMORY, job_id)
        return self.measured(self.box.process(*argv, env=dask_tls(self.folder)))

    def with_hpclab(self, job_id: str) -> Run:
        env = {"HPCLAB_LOCALQ_JOB_ID": job_id, "HPCLAB_LOCALQ_END_TIME": str(int(time.time()) + 3600)}
        return self.measured(self.box.process("bash", self.folder.worker_script, env=env))

    def measured(self, job: AbstractContextManager[Popen[str]]) -> Run:
        before = self.registered()
        begin = time.perf_counter()
        with job as script:
            self.wait_for(before + self.workers, script)
            seconds = time.perf_counter() - begin
            time.sleep(SETTLE_S)
            memory = sum(_pss_mib(process) for process in family(script.pid))
        self.wait_for(before)
        return Run(seconds=seconds, memory=memory)

    def registered(self) -> int:
        return len(self.client.nthreads())

    def wait_for(self, workers: int, script: Popen[str] | None = None) -> None:
        deadline = time.monotonic() + TOO_LONG_S
        while self.registered() != workers:
            if time.monotonic() > deadline or (script and script.poll() is not None):
                sys.exit(f"{self.registered()} workers are registered where {workers} should be")
            time.sleep(POLL_S)


def _pss_mib(process: psutil.Process) -> float:
    with suppress(psutil.NoSuchProcess):  # it has ended since
        return float(process.memory_full_info().pss) / 2**20
    return 0.0


def pairs(box: Sandbox, workers: int, runs: int) -> list[tuple[Run, Run]]:
    name, found = f"workers-{workers}", []
    options = {"cores": NTHREADS, "memory": MEMORY, "workers_per_job": workers, "local_slots": SLOTS}
    with box.session(name, **options) as session:
        folder = SessionFolder(session["folder"])
        security = Security(
            tls_ca_file=folder.ca,
            tls_client_cert=folder.certificate,
            tls_client_key=folder.key,
            require_encryption=True,
        )
        with Client(scheduler_file=folder.scheduler, security=security) as client:
            client.wait_for_workers(1)  # the main job's own
            bench = Bench(box=box, folder=folder, client=client, workers=workers)
            for number in range(runs):
                before, ours = bench.by_hand(f"90{number}"), bench.with_hpclab(f"80{number}")
                print(
                    f"pair {number + 1} of {workers}: {before.seconds:.2f} s, {before.memory:.0f} MiB by hand; "
                    f"{ours.seconds:.2f} s, {ours.memory:.0f} MiB with hpclab",
                    flush=True,
                )
                found.append((before, ours))
    return found


def compared(workers: int, found: Sequence[tuple[Run, Run]]) -> list[table.Comparison]:
    """Two rows: time and memory."""
    what = f"{workers} worker{'s' if workers > 1 else ''}"
    return [
        table.Comparison(
            what=f"{what}: {quantity}",
            unit=unit,
            before=tuple(getattr(before, field) for before, _ in found),
            ours=tuple(getattr(ours, field) for _, ours in found),
            target=target,
        )
        for quantity, field, unit, target in (
            ("time", "seconds", "s", TIME_TARGET),
            ("PSS", "memory", "MiB", MEMORY_TARGET),
        )
    ]


def main() -> None:
    given = table.arguments(__doc__, runs=5)
    with sandbox() as box:
        rows = [row for workers in COUNTS for row in compared(workers, pairs(box, workers, given.runs))]
    heads = ["one job of", "dask worker", "hpclab", "ratio", "least", "most", "target"]
    table.show(f"worker: medians of {given.runs} pairs each", heads, rows)
    table.write(given.json, "worker", rows)


if __name__ == "__main__":
    main()
