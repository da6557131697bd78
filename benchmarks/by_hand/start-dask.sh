#!/bin/bash
# What people write by hand ("Dask on HPC - Initial Work"): dask-mpi, and JupyterLab on the scheduler's node.
# start-dask.sh WORKERS THREADS MEMORY
date +%s.%N >running
mpiexec -n $((1 + $1)) dask-mpi --scheduler-file scheduler.json --nthreads "$2" --memory-limit "$3" &
python "$(dirname "$0")/start_jupyter.py" "$1"
wait
