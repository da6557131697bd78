"""Dask and MPI together: distributed data handed to MPI programs, without a way over the disk.

    from hpclab import mpi

    sums = mpi.run(my_function, x)                # x: a dask array, dataframe, bag, or list of futures
    y = mpi.run(my_function, x, collect=False)    # the results stay on the workers, as futures

`my_function(chunks, comm, *args)` is called on every rank, beside every worker that holds chunks of x.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hpclab.errors import DataLost as DataLost
    from hpclab.errors import RankFailed as RankFailed
    from hpclab.errors import WorkerLost as WorkerLost
    from hpclab.errors import WorldFailed as WorldFailed
    from hpclab.mpi.chunks import Chunks as Chunks
    from hpclab.mpi.parts import Parts as Parts
    from hpclab.mpi.parts import local_parts as local_parts
    from hpclab.mpi.program import run as run
    from hpclab.mpi.results import Results as Results

_WHERE = {
    "Chunks": "hpclab.mpi.chunks",
    "DataLost": "hpclab.errors",
    "Parts": "hpclab.mpi.parts",
    "RankFailed": "hpclab.errors",
    "Results": "hpclab.mpi.results",
    "WorkerLost": "hpclab.errors",
    "WorldFailed": "hpclab.errors",
    "local_parts": "hpclab.mpi.parts",
    "run": "hpclab.mpi.program",
}

__all__ = list(_WHERE)


def __getattr__(name: str) -> object:
    """Loaded when used: a rank is of this package as well, and must not wait for Dask."""
    if name not in _WHERE:
        raise AttributeError(f"module 'hpclab.mpi' has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_WHERE[name]), name)
