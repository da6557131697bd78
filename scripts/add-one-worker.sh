#!/bin/bash
#SBATCH --ignore-pbs
#SBATCH --job-name=hpclab-by-hand-worker
#SBATCH --time=1:00:00
#SBATCH --no-requeue
#SBATCH --nodes=1
#SBATCH --ntasks=1
#SBATCH --cpus-per-task=1
#SBATCH --mem=2048M
#PBS -N hpclab-by-hand-worker
#PBS -S /bin/bash
#PBS -r n
#PBS -m n
#PBS -l walltime=1:00:00
#PBS -l select=1:ncpus=1:mem=2048mb:mpiprocs=1:ompthreads=1

# Adds a worker to the session that start-dask.sh has started: submit this file with sbatch or qsub, as often as
# you like. For a session of another name: HPCLAB_NAME=NAME sbatch …, or qsub -v HPCLAB_NAME=NAME ….

# the Python that has hpclab; activate your environment here if it is not the one on your PATH
hpclab_python=${HPCLAB_PYTHON:-python3}
export HPCLAB_SESSION=${HPCLAB_NAME:-by-hand}
hpclab_session="${HPCLAB_HOME:-$HOME/.hpclab}/sessions/$HPCLAB_SESSION"

hpclab_system=slurm HPCLAB_JOB_ID="${SLURM_ARRAY_JOB_ID:-$SLURM_JOB_ID}${SLURM_ARRAY_TASK_ID:+_$SLURM_ARRAY_TASK_ID}" HPCLAB_JOB_END_TIME="${SLURM_JOB_END_TIME:-$(unset ${!SQUEUE*}; SLURM_TIME_FORMAT=%s timeout 5 squeue -h -j ${SLURM_ARRAY_JOB_ID:-$SLURM_JOB_ID}${SLURM_ARRAY_TASK_ID:+_$SLURM_ARRAY_TASK_ID} -o %e 2>/dev/null | grep -m1 -E '^[0-9]+$')}"
[ -n "$HPCLAB_JOB_ID" ] || hpclab_system=pbs HPCLAB_JOB_ID="$PBS_JOBID" HPCLAB_JOB_END_TIME=""
export HPCLAB_JOB_ID HPCLAB_JOB_END_TIME
if [ ! -d "$hpclab_session/events" ]; then
    echo "there is no session $HPCLAB_SESSION in $hpclab_session: submit start-dask.sh first" >&2
    exit 2
fi
hpclab_started='"event": "started", "role": "worker", "workers": 1, "cores": 1, "memory_bytes": 2147483648, "walltime_s": 3600, "gpus": 0'
case $HPCLAB_JOB_END_TIME in ''|*[!0-9.]*) HPCLAB_JOB_END_TIME=$(($(date +%s) + 3600));; esac
export HPCLAB_SCRATCH=
umask 077
[ -n "$HPCLAB_JOB_ID" ] || { echo "this is a job script: submit it, do not run it" >&2; exit 2; }
exec >>"$hpclab_session/logs/$HPCLAB_JOB_ID.log" 2>&1 </dev/null || exit 40
hpclab_event() {
    local now=${EPOCHREALTIME:-$(date +%s)}
    printf '{"time": %s, %s}\n' "${now/,/.}" "$1" >>"$hpclab_session/events/$HPCLAB_JOB_ID.jsonl"
}
hpclab_node=$(hostname)
[ ! -s "$hpclab_session/events/$HPCLAB_JOB_ID.jsonl" ] || hpclab_again=1
hpclab_event "$hpclab_started, \"node\": \"$hpclab_node\""
[ -z "${hpclab_again:-}" ] || hpclab_event "\"event\": \"again\", \"node\": \"$hpclab_node\""
hpclab_ended() {
    # nor may rm be ended by a second signal: Slurm sends one to each step and one to the script
    trap '' TERM INT USR1 USR2
    hpclab_event "\"event\": \"exited\", \"exit_status\": $1"
    rm -rf "$HPCLAB_SCRATCH"
    exit "$1"
}
trap 'hpclab_ended $?' EXIT
trap 'exit 143' TERM INT USR2
# Grid Engine's word that it will suspend us
trap : USR1
# ours alone: in a scratch folder that others could have made before us they could change what Dask writes there
# (and whoever ends mktemp when it has made the folder but not told its name leaves a folder behind)
HPCLAB_SCRATCH=$(
    trap '' TERM INT USR1 USR2
    mktemp -d "${TMPDIR:-/tmp}/hpclab-XXXXXXXX" || mktemp -d /tmp/hpclab-XXXXXXXX
) || exit 40

# as Dask's nanny sets them: a worker runs a task per thread already
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1} MKL_NUM_THREADS=${MKL_NUM_THREADS:-1}
export OPENBLAS_NUM_THREADS=${OPENBLAS_NUM_THREADS:-1} MALLOC_TRIM_THRESHOLD_=${MALLOC_TRIM_THRESHOLD_:-65536}

# from here on a signal is the program's to hear; this shell waits for it and writes how it ended
trap : TERM INT USR1 USR2
"$hpclab_python" -P -m hpclab.inside.worker_job "$hpclab_session" --workers 1 --nthreads 1 --memory 2147483648 --death-timeout 60 --drain 120
