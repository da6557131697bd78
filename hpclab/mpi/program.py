"""A run of an MPI program beside Dask's workers, seen from who calls for it: `run`.

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
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from distributed import Client, Future, default_client, get_client, rejoin, secede

from hpclab.errors import ConfigError, DataLost, HpclabError, RankFailed, WorkerLost, WorldFailed
from hpclab.mpi.output import marked
from hpclab.mpi.parts import Collection, Parts, assigned
from hpclab.mpi.results import Results
from hpclab.mpi.seat import Seat, lost, sit
from hpclab.mpi.within import sit_within

LOOK_AT_WORKERS_EVERY_S = 1.0
ALL_FAILURES_WITHIN_S = 0.6
"""When one rank fails, others often fail of it; which one was the first is seen when all have told."""
FIRST_FAILURE_WITHIN_S = 3.0
"""Where those that have told so far rather failed of another one."""
ALL_LEFT_WITHIN_S = 10.0
THREADS_LEFT_WITHIN_S = 1.0
"""Of ranks that are the workers themselves: one that waits for another that has failed never leaves."""

_ears: dict[str, queue.Queue[dict[str, Any]]] = {}
"""By run: what its ranks tell."""


def run(
    function: Callable[..., Any],
    collection: Any,
    *args: Any,
    collect: bool = True,
    in_process: bool = False,
    timeout_s: float | None = None,
    retries: int = 0,
    workers: Sequence[str] | None = None,
    client: Client | None = None,
) -> Any:
    """Call `function(chunks, comm, *args)` on every rank of an MPI world that is made for it, a rank beside each Dask
    worker that holds chunks of the collection.

    `collection`: a dask array, dataframe or bag, or a list of futures. `chunks`: those of the rank's worker, a
    `hpclab.mpi.Chunks`. `comm`: mpi4py's communicator of all ranks. `args`: any values, or futures, that all get.

    Returns what the ranks have returned, in their order; with `collect=False` it stays on the workers, and futures come
    back, a `hpclab.mpi.Results`.

    * `timeout_s`: how long the function may take
    * `retries`: how often to try again on the workers that are left when a rank fails
    * `workers`: beside which ones (addresses or names); Dask brings them the chunks that others hold
    * `in_process`: in the workers themselves, which must be ranks of one dask-mpi program: no new world, no copy of the
      data; and no protection: a rank that crashes takes its worker with it

    Ranks are processes of their own, which get a copy of the chunks in shared memory. What they print is printed here
    as it comes, marked with the rank. When one fails all others are ended.

    Raises RankFailed with rank, host and traceback, the exception itself as its cause; WorkerLost; WorldFailed where
    MPI does not bring the ranks together; DataLost; ConfigError of what cannot be run.
    """
    client = client or _client()
    program = _pickled(function)
    with _aside():
        for left in range(retries, -1, -1):
            try:
                whole = Collection.of(client, collection)
                parts = assigned(client, whole, workers if left == retries else _still_there(client, workers))
                futures = _Run(client, _name(function), parts, whole, timeout_s, in_process).go(program, args)
                break
            except (RankFailed, WorldFailed, DataLost) as error:
                if not left:
                    raise
                print(f"hpclab: {str(error).splitlines()[0]}; trying again", file=sys.stderr)
        results = Results(client, futures, parts, whole)
        return client.gather(list(results), direct=True) if collect else results


@contextlib.contextmanager
def _aside() -> Iterator[None]:
    """A task of Dask gives its thread back meanwhile, which its own ranks may need."""
    try:
        secede()
    except (ValueError, KeyError):  # it is in no task, or the task has done so itself
        yield
        return
    try:
        yield
    finally:
        rejoin()


def _client() -> Client:
    """The one in use here; raises ConfigError where there is none."""
    try:
        return default_client()
    except ValueError:
        pass
    try:
        return get_client()
    except ValueError:
        raise ConfigError("there is no Dask client here\nmake one first: client = Client()") from None


def _still_there(client: Client, workers: Sequence[str] | None) -> Sequence[str] | None:
    """Of those that were named, whoever is left."""
    if workers is None:
        return None
    there = client.scheduler_info(n_workers=-1)["workers"]
    known = {*there, *(str(told["name"]) for told in there.values())}
    return [worker for worker in workers if str(worker) in known]


def _pickled(function: Callable[..., Any]) -> bytes:
    """Opened in the ranks only; raises ConfigError."""
    import cloudpickle

    if not callable(function):
        raise ConfigError(f"{function!r} is no function\nsay mpi.run(function, collection)")
    try:
        return bytes(cloudpickle.dumps(function))
    except Exception as error:
        raise ConfigError(
            f"the function {_name(function)} cannot be sent to the ranks: {type(error).__name__}: {error}\n"
            "what it uses from outside must be data or modules; open files and connections within it"
        ) from error


def _name(function: Callable[..., Any]) -> str:
    return getattr(function, "__name__", type(function).__name__)


@dataclass
class _Run:
    """One attempt."""

    client: Client
    name: str
    parts: dict[str, Parts]
    collection: Collection
    timeout_s: float | None
    in_process: bool
    id: str = field(default_factory=lambda: uuid.uuid4().hex[:12])
    told: queue.Queue[dict[str, Any]] = field(default_factory=queue.Queue)
    sitting: set[int] = field(default_factory=set)
    """The ranks that have begun and not ended."""
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
            futures = list(self.submitted(program, args))
            self.wait(futures)
            self.client.run_on_scheduler(_once_only, keys=[future.key for future in futures])
            return futures
        except BaseException as error:
            self.end(futures)
            if isinstance(error, HpclabError) and (cause := getattr(error, "cause", b"")):
                raise error from _opened(cause)
            raise
        finally:
            self.hear()
            del _ears[self.id]

    def submitted(self, program: bytes, args: Sequence[Any]) -> Iterator[Future]:
        topic = f"hpclab-mpi-{self.client.id}"
        self.client.subscribe_topic(topic, _hear)
        path = tuple(str(Path(entry).absolute()) for entry in sys.path)
        for rank, (worker, part) in enumerate(self.parts.items()):
            seat = Seat(
                run=self.id,
                rank=rank,
                size=self.size,
                worker=worker,
                head=next(iter(self.parts)),
                topic=topic,
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
        looked = time.monotonic()
        while not all(future.status == "finished" for future in futures):
            self.hear(within_s=0.1)
            failed = [future for future in futures if future.status in ("error", "cancelled", "lost")]
            if failed:
                raise self.first_failure(futures)
            if self.in_process and self.timeout_s is not None and len(self.begun) == self.size:
                self.check_time(futures)
            if time.monotonic() - looked > LOOK_AT_WORKERS_EVERY_S:
                looked = time.monotonic()
                there = self.client.nthreads()
                for rank, worker in enumerate(self.parts):
                    if worker not in there and futures[rank].status != "finished":
                        self.sitting.discard(rank)
                        raise lost(rank, worker)

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
                case "sits":
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


def _once_only(dask_scheduler: Any, keys: Sequence[str]) -> None:
    """A rank cannot be computed again alone. Where its result is lost later, any worker may say so."""
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
