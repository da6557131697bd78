"""One try of an MPI program beside Dask's workers: its ranks submitted, heard and ended together.

Each rank is a Dask task (`seat.sit`), pinned to its worker, which holds the chunks. So Dask itself brings them there or
computes them again, shows the ranks in its dashboard, and tells the worker when a rank is not wanted any more.
"""

from __future__ import annotations

import contextlib
import pickle
import queue
import sys
import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from distributed import Client, Future

from hpclab.errors import DataLost, HpclabError, RankFailed, WorkerLost
from hpclab.mpi.output import marked
from hpclab.mpi.parts import Collection, Parts
from hpclab.mpi.seat import Seat, lost, sit
from hpclab.mpi.within import sit_within
from hpclab.units import counted

LOOK_AT_WORKERS_EVERY_S = 1.0
WAITS_SILENTLY_S = 5.0
ALL_FAILURES_WITHIN_S = 0.6
"""When one rank fails, others often fail of it; which one was the first is seen when all have told."""
FIRST_FAILURE_WITHIN_S = 3.0
"""Where those that have told so far rather failed of another one."""
ALL_LEFT_WITHIN_S = 10.0
THREADS_LEFT_WITHIN_S = 1.0
"""Of ranks that are the workers themselves: one that waits for another that has failed never leaves."""

_ears: dict[str, queue.Queue[dict[str, Any]]] = {}
"""By run: what its ranks tell."""


@dataclass
class Attempt:
    """One try, on the workers that there are."""

    client: Client
    name: str
    parts: dict[str, Parts]
    collection: Collection
    timeout_s: float | None
    in_process: bool
    id: str = field(default_factory=lambda: uuid.uuid4().hex[:12])
    told: queue.Queue[dict[str, Any]] = field(default_factory=queue.Queue)
    sitting: set[int] = field(default_factory=set)
    """The ranks that have come and not left."""
    came: set[int] = field(default_factory=set)
    has_told: bool = False
    """That it waits."""
    begun: dict[int, float] = field(default_factory=dict)
    """When each rank's function began."""

    @property
    def size(self) -> int:
        return len(self.parts)

    def go(self, program: bytes, args: Sequence[Any]) -> list[Future]:
        """The futures of all ranks' results, when all have ended well."""
        _ears[self.id] = self.told
        futures: list[Future] = []
        try:
            for future in self.submitted(program, args):
                futures.append(future)
                future.add_done_callback(lambda _: self.told.put({"what": "over"}))
            self.wait(futures)
            self.settle([future.key for future in futures])
            return futures
        except BaseException as error:
            self.end(futures)
            if isinstance(error, HpclabError) and (cause := getattr(error, "cause", b"")):
                raise error from _opened(cause)
            raise
        finally:
            self.hear()
            del _ears[self.id]

    @property
    def topic(self) -> str:
        """Under which all runs of this client are told of."""
        return f"hpclab-mpi-{self.client.id}"

    def settle(self, keys: Sequence[str] = ()) -> None:
        """What the scheduler shall know when a run is over: the keys of its results, if it has any."""
        self.client.run_on_scheduler(_settle, topic=self.topic, keys=keys)

    def submitted(self, program: bytes, args: Sequence[Any]) -> Iterator[Future]:
        self.client.subscribe_topic(self.topic, _hear)
        path = tuple(str(Path(entry).absolute()) for entry in sys.path)
        for rank, (worker, part) in enumerate(self.parts.items()):
            seat = Seat(
                run=self.id,
                rank=rank,
                size=self.size,
                worker=worker,
                head=next(iter(self.parts)),
                topic=self.topic,
                timeout_s=self.timeout_s,
                path=path,
            )
            yield self.client.submit(
                sit_within if self.in_process else sit,
                seat,
                program,
                list(part),
                part.indices,
                self.collection.layout,
                list(args),
                key=f"mpi-{self.name}-{self.id}-{rank}",
                workers=[worker],
                pure=False,
                priority=10,
            )

    def wait(self, futures: Sequence[Future]) -> None:
        """Until all have ended well. Raises what the first to fail has raised."""
        began = looked = time.monotonic()
        while not all(future.status == "finished" for future in futures):
            self.hear(within_s=0.1)
            failed = [future for future in futures if future.status in ("error", "cancelled", "lost")]
            if failed:
                raise self.first_failure(futures)
            if self.in_process and self.timeout_s is not None and len(self.begun) == self.size:
                self.check_time(futures)
            if time.monotonic() - began > WAITS_SILENTLY_S and len(self.came) < self.size:
                self.tell_of_waiting()
            if time.monotonic() - looked > LOOK_AT_WORKERS_EVERY_S:
                looked = time.monotonic()
                there = self.client.nthreads()
                for rank, worker in enumerate(self.parts):
                    if worker not in there and futures[rank].status != "finished":
                        self.sitting.discard(rank)
                        raise lost(rank, worker)

    def tell_of_waiting(self) -> None:
        """Once: why nothing is computed yet."""
        late = [worker for rank, worker in enumerate(self.parts) if rank not in self.came]
        if late and not self.has_told:
            self.has_told = True
            shown = ", ".join(late[:3]) + (", …" if len(late) > 3 else "")
            print(
                f"hpclab: {self.name} waits for {counted(len(late), 'rank')} of {self.size}; busy with other tasks, or "
                f"paused: {shown}",
                file=sys.stderr,
            )

    def check_time(self, futures: Sequence[Future]) -> None:
        """Of ranks that are the workers themselves, which nobody else can see from outside."""
        assert self.timeout_s is not None
        if time.monotonic() > max(self.begun.values()) + self.timeout_s:
            rank = next(rank for rank, future in enumerate(futures) if future.status != "finished")
            raise RankFailed(
                f"rank {rank} of {self.size} had not ended after {self.timeout_s:g} s\n"
                "it runs on in its worker, for nobody can end a thread: only `client.restart()` does",
                rank=rank,
                kind="hangs",
            )

    def first_failure(self, futures: Sequence[Future]) -> BaseException:
        """Of all failures the one that the others are of."""
        began = time.monotonic()
        while any(future.status == "pending" for future in futures):
            self.hear(within_s=0.05)
            errors = [future.exception() for future in futures if future.status == "error"]
            is_explained = bool(errors) and min(map(_weight, errors)) < OF_OTHERS
            if time.monotonic() - began > (ALL_FAILURES_WITHIN_S if is_explained else FIRST_FAILURE_WITHIN_S):
                break
        there = self.client.nthreads()
        for rank, worker in enumerate(self.parts):
            if worker not in there:
                self.sitting.discard(rank)
                return lost(rank, worker)
        errors = [future.exception() for future in futures if future.status == "error"]
        if not errors:
            return DataLost("the ranks' tasks were cancelled\nsay it again, and keep the session's scheduler")
        first: BaseException = min(errors, key=_weight)
        return first

    def end(self, futures: Sequence[Future]) -> None:
        """Cancel what still runs, and wait until it is gone."""
        self.client.cancel([future for future in futures if future.status == "pending"])
        deadline = time.monotonic() + (THREADS_LEFT_WITHIN_S if self.in_process else ALL_LEFT_WITHIN_S)
        while self.sitting and time.monotonic() < deadline:
            self.hear(within_s=0.1)
        with contextlib.suppress(OSError, RuntimeError):  # the scheduler may be what is gone
            self.settle()

    def hear(self, within_s: float = 0.0) -> None:
        """Print what ranks have printed, and note who has come and gone."""
        deadline = time.monotonic() + within_s
        while True:
            try:
                told = (
                    self.told.get(timeout=max(0.0, deadline - time.monotonic())) if within_s else self.told.get(False)
                )
            except queue.Empty:
                return
            match told["what"]:
                case "output":
                    stream = sys.stdout if told["stream"] == "stdout" else sys.stderr
                    print(marked(told["rank"], told["text"], size=self.size), end="", file=stream, flush=True)
                case "over" if within_s:
                    return
                case "sits":
                    self.came.add(told["rank"])
                    self.sitting.add(told["rank"])
                case "begun":
                    self.begun[told["rank"]] = time.monotonic()
                case "left":
                    self.sitting.discard(told["rank"])


def _hear(event: tuple[float, dict[str, Any]]) -> None:
    """In the client's own thread."""
    told = event[1]
    if told["run"] in _ears:
        _ears[told["run"]].put(told)


def _settle(dask_scheduler: Any, topic: str, keys: Sequence[str]) -> None:
    # it would keep what ranks have printed for whoever asks later, which nobody does
    if broker := getattr(dask_scheduler, "_broker", None):
        broker.truncate(topic)
    # a rank cannot be computed again alone; where its result is lost later, any worker may say so
    for key in keys:
        if task := dask_scheduler.tasks.get(key):
            task.loose_restrictions = True


OF_OTHERS = 4
KINDS_OF_OTHERS = ("exited", "told", "lost", "waits", "alone", "finalize")
"""How ranks fail because another one has."""


def _weight(error: BaseException) -> int:
    """Whose failure explains the others'."""
    if isinstance(error, WorkerLost):
        return 0
    if not isinstance(error, RankFailed):
        return 1
    # MPI's own errors are mostly about another rank that is gone
    if error.kind in KINDS_OF_OTHERS or (error.kind == "raised" and "mpi4py.MPI.Exception" in str(error)):
        return OF_OTHERS
    return 3 if error.kind == "abort" else 2


def _opened(cause: bytes) -> BaseException | None:
    try:
        error = pickle.loads(cause)
    except Exception:
        return None
    return error if isinstance(error, BaseException) else None
