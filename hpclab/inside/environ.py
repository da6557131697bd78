"""The environments of what a job starts: TLS for all Dask traffic, and no trace of the MPI launcher in notebooks.

Only paths stand in them: an environment can be listed, the files that it names cannot be read by others.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePosixPath

from hpclab.connection import DASHBOARD_PATH
from hpclab.folder import SessionFolder
from hpclab.launchers import ONE_NODE, without_mpi


def dask_tls(folder: SessionFolder) -> dict[str, str]:
    """Dask's own settings: every Scheduler, Worker and Client speaks TLS within the session, and nothing else."""
    tls = "DASK_DISTRIBUTED__COMM__TLS__"
    env = {
        "DASK_DISTRIBUTED__COMM__DEFAULT_SCHEME": "tls",
        "DASK_DISTRIBUTED__COMM__REQUIRE_ENCRYPTION": "True",
        f"{tls}CA_FILE": dask_path(folder.ca),
    }
    for role in ("SCHEDULER", "WORKER", "CLIENT"):
        env |= {
            f"{tls}{role}__CERT": dask_path(folder.certificate),
            f"{tls}{role}__KEY": dask_path(folder.key),
        }
    return env


def dask_path(path: str) -> str:
    """A path as Dask reads it: as Python, of which a warning comes where it has something like `-3if` in it."""
    return repr(path)


RANK_ONLY = {
    "DASK_DISTRIBUTED__SCHEDULER__PRELOAD": "hpclab.inside.scheduler",
    # Dask's web pages stay shut until the guard of inside.scheduler stands before them; workers' own stay shut
    "DASK_DISTRIBUTED__SCHEDULER__HTTP__ROUTES": "[]",
    "DASK_DISTRIBUTED__WORKER__HTTP__ROUTES": "[]",
}

SHARED = ("HPCLAB_FOLDER", "HPCLAB_SUPERVISOR", "HPCLAB_JUPYTER", "HPCLAB_SCRATCH", "HPCLAB_INTERFACE")
"""What the processes of a main job share: folders, and the unix sockets that they hold each other by."""


AS_UNDER_A_NANNY = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MALLOC_TRIM_THRESHOLD_": "65536",
}
"""What Dask's nanny sets: a worker runs a task per thread already, and gives memory back to the system early."""


def worker_environment(base: Mapping[str, str], folder: SessionFolder) -> dict[str, str]:
    """For processes of Dask's own: what they spill goes into the job's scratch folder, which is ours alone."""
    scratch = dask_path(base["HPCLAB_SCRATCH"])
    return {**AS_UNDER_A_NANNY, **base, **dask_tls(folder), "DASK_TEMPORARY_DIRECTORY": scratch}


def rank_environment(base: Mapping[str, str], folder: SessionFolder, *, one_node: bool) -> dict[str, str]:
    """For the ranks of dask-mpi, which find the session's folder in it."""
    return {**worker_environment(base, folder), **RANK_ONLY, **(ONE_NODE if one_node else {})}


def notebook_environment(base: Mapping[str, str], folder: SessionFolder, scheduler_address: str) -> dict[str, str]:
    """For JupyterLab and all that it starts: a plain `Client()` connects to the session."""
    kept = {key: value for key, value in without_mpi(dict(base)).items() if key not in SHARED}
    # the batch system may not bring the user's own along
    home = str(PurePosixPath(folder.path).parent.parent)
    return {**kept, **dask_tls(folder), "DASK_SCHEDULER_ADDRESS": scheduler_address, "HPCLAB_HOME": home}


def sidebar_environment(folder: SessionFolder) -> dict[str, str]:
    """For JupyterLab's own process: Dask's sidebar shows the session, and a client's link leads to its dashboard."""
    factory = "DASK_LABEXTENSION__FACTORY__"
    return {
        f"{factory}MODULE": "hpclab.cluster",
        f"{factory}CLASS": "SessionCluster",
        # Dask reads the values of such variables as Python
        "DASK_LABEXTENSION__INITIAL": repr([{"name": folder.name}]),
        "DASK_DISTRIBUTED__DASHBOARD__LINK": f"/{DASHBOARD_PATH}status",
    }
