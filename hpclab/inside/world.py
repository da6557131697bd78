"""What each MPI rank of the main job runs: it sees that the world is whole, then becomes dask-mpi.

`python -m mpi4py -m hpclab.inside.world SESSION_FOLDER JOB_ID RANKS NODE …dask-mpi's own options`. All that a rank
needs stands in its argv: to other nodes than the first, not every launcher brings the environment along.
"""

from __future__ import annotations

import json
import os
import socket
import sys
from pathlib import Path

from hpclab.folder import SessionFolder
from hpclab.inside.environ import rank_environment
from hpclab.inside.report import report
from hpclab.segments import unname


def main() -> None:
    path, job_id, ranks, node, *dask_mpi = sys.argv[1:]
    folder = SessionFolder(path)
    os.umask(0o077)
    _prepare(folder, job_id)
    rank = whole_world(int(ranks))
    if rank == 0 and not is_here("HPCLAB_SUPERVISOR"):
        report(folder, job_id, "failed", reason=_elsewhere(node))
        sys.exit(1)
    # only now, for Dask reads the environment when it is imported
    from dask_mpi.cli import main as dask_mpi_main

    sys.argv = ["dask-mpi", *dask_mpi]
    dask_mpi_main()


def whole_world(ranks: int) -> int:
    """Our rank in a world of so many; in any other one this process ends."""
    from mpi4py import MPI

    size = MPI.COMM_WORLD.Get_size()
    if size != ranks:
        # the supervisor ends us before MPI's own end
        unname()
        tell_supervisor({"who": "world", "size": size, "library": MPI.Get_library_version().splitlines()[0]})
        sys.exit(f"hpclab: {ranks} MPI ranks were asked for, but this world has {size}")
    MPI.COMM_WORLD.Barrier()
    # most jobs are ended by a signal, and MPI's own end is never reached
    unname()
    return int(MPI.COMM_WORLD.Get_rank())


def _prepare(folder: SessionFolder, job_id: str) -> None:
    """The environment, for the ranks on other nodes than the supervisor's."""
    os.environ |= {"HPCLAB_FOLDER": folder.path, "HPCLAB_SESSION": folder.name, "HPCLAB_JOB_ID": job_id}
    os.environ |= rank_environment(os.environ, folder, one_node=False)


def is_here(variable: str) -> bool:
    """The file that it names is on this node."""
    return variable in os.environ and Path(os.environ[variable]).exists()


def _elsewhere(node: str) -> str:
    return (
        f"the launcher put MPI rank 0 on {socket.gethostname()}, but the job's script runs on {node}, "
        "where the scheduler and JupyterLab belong; set `mpiexec` to a launcher that begins with the first node"
    )


def tell_supervisor(hello: dict[str, object]) -> None:
    """Only ranks on its node can."""
    try:
        with socket.socket(socket.AF_UNIX) as line:
            line.connect(os.environ["HPCLAB_SUPERVISOR"])
            line.sendall(json.dumps(hello).encode() + b"\n")
    except (OSError, KeyError):
        pass


if __name__ == "__main__":
    main()
