"""The recipe's second half: wait for the workers, then start JupyterLab on the scheduler."""

import socket
import subprocess
import sys
from typing import Any

from dask.distributed import Client

(WORKERS,) = sys.argv[1:]


def start_jlab(dask_scheduler: Any) -> None:
    dask_scheduler.jlab_proc = subprocess.Popen(["jupyter", "lab", "--ip", "127.0.0.1", "--no-browser", "--allow-root"])


if __name__ == "__main__":
    client = Client(scheduler_file="scheduler.json")
    client.wait_for_workers(int(WORKERS))
    host = client.run_on_scheduler(socket.gethostname)
    client.run_on_scheduler(start_jlab)
    print(f"ssh -N -L 8787:{host}:8787 -L 8888:{host}:8888 {host}")
