#!/bin/bash
# What dask-jobqueue's job scripts run.
# add-one-worker.sh SCHEDULER WORKERS THREADS MEMORY NAME
python -m distributed.cli.dask_worker "$1" --nworkers "$2" --nthreads "$3" --memory-limit "$4" --name "$5" \
    --nanny --death-timeout 60 --no-dashboard
