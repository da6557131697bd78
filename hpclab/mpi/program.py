"""MPI programs beside Dask's workers, for whoever calls for one: `run`."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from distributed import Client, default_client, get_client, rejoin, secede

from hpclab.errors import ConfigError, DataLost, RankFailed, WorldFailed
from hpclab.mpi.attempt import Attempt
from hpclab.mpi.parts import Collection, assigned
from hpclab.mpi.results import Results
from hpclab.mpi.trace import with_sources


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
                futures = Attempt(client, _name(function), parts, whole, timeout_s, in_process).go(program, args)
                break
            except (RankFailed, WorldFailed, DataLost) as error:
                error.args = (with_sources(str(error), function),)
                if not left or _still_there(client, workers) == []:
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
