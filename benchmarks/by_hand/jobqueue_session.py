"""What people write with dask-jobqueue: a cluster whose scheduler is on the login node. Prints the scheduler's address.

jobqueue_session.py WORKERS MEMORY LOGIN_INTERFACE NODE_INTERFACE PROLOGUE: so many workers of a core in each job; every
line on stdin is the number of jobs that there shall be.
"""

import sys

import dask
from dask.utils import parse_bytes
from dask_jobqueue import SLURMCluster

WORKERS, MEMORY, LOGIN_INTERFACE, NODE_INTERFACE, PROLOGUE = sys.argv[1:]

# names of jobs come again: that a worker has left would, 15 s later, end the next job of its name
dask.config.set({"distributed.deploy.lost-worker-timeout": "1 day"})

if __name__ == "__main__":
    with SLURMCluster(
        processes=int(WORKERS),
        cores=int(WORKERS),
        memory=f"{int(WORKERS) * parse_bytes(MEMORY)}B",
        # one `interface` for all fails where login and nodes name their networks differently
        scheduler_options={"interface": LOGIN_INTERFACE, "dashboard_address": ":0"},
        interface=NODE_INTERFACE,
        job_script_prologue=[PROLOGUE],
    ) as cluster:
        print(cluster.scheduler_address, flush=True)
        for line in sys.stdin:
            cluster.scale(jobs=int(line))
