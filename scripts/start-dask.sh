#!/bin/bash
#SBATCH --ignore-pbs
#SBATCH --job-name=hpclab-by-hand
#SBATCH --time=2:00:00
#SBATCH --no-requeue
#SBATCH --nodes=1
#SBATCH --ntasks=1
#SBATCH --cpus-per-task=2
#SBATCH --mem=4096M
#PBS -N hpclab-by-hand
#PBS -S /bin/bash
#PBS -r n
#PBS -m n
#PBS -l walltime=2:00:00
#PBS -l select=1:ncpus=2:mem=4096mb:mpiprocs=2:ompthreads=1

# Starts a session: submit this file with sbatch or qsub; `hpclab attach by-hand` then says how to connect.
# For a session of another name: HPCLAB_NAME=NAME sbatch …, or qsub -v HPCLAB_NAME=NAME ….

# the Python that has hpclab; activate your environment here if it is not the one on your PATH
hpclab_python=${HPCLAB_PYTHON:-python3}
export HPCLAB_SESSION=${HPCLAB_NAME:-by-hand}
hpclab_session="${HPCLAB_HOME:-$HOME/.hpclab}/sessions/$HPCLAB_SESSION"

hpclab_system=slurm HPCLAB_JOB_ID="${SLURM_ARRAY_JOB_ID:-$SLURM_JOB_ID}${SLURM_ARRAY_TASK_ID:+_$SLURM_ARRAY_TASK_ID}" HPCLAB_JOB_END_TIME="${SLURM_JOB_END_TIME:-$(unset ${!SQUEUE*}; SLURM_TIME_FORMAT=%s timeout 5 squeue -h -j ${SLURM_ARRAY_JOB_ID:-$SLURM_JOB_ID}${SLURM_ARRAY_TASK_ID:+_$SLURM_ARRAY_TASK_ID} -o %e 2>/dev/null | grep -m1 -E '^[0-9]+$')}"
[ -n "$HPCLAB_JOB_ID" ] || hpclab_system=pbs HPCLAB_JOB_ID="$PBS_JOBID" HPCLAB_JOB_END_TIME=""
export HPCLAB_JOB_ID HPCLAB_JOB_END_TIME
if [ -n "$HPCLAB_JOB_ID" ]; then
    "$hpclab_python" -P -m hpclab prepare "$HPCLAB_SESSION" --queue "$hpclab_system" || exit
fi
hpclab_started='"event": "started", "role": "main", "workers": 1, "cores": 1, "memory_bytes": 2147483648, "walltime_s": 7200, "gpus": 0'
case $HPCLAB_JOB_END_TIME in ''|*[!0-9.]*) HPCLAB_JOB_END_TIME=$(($(date +%s) + 7200));; esac
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
    [ -e "$hpclab_session/over" ] || echo "its main job ended" >"$hpclab_session/over"
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

# from here on a signal is the program's to hear; this shell waits for it and writes how it ended
trap : TERM INT USR1 USR2
"$hpclab_python" -P -m hpclab.inside.main_job "$hpclab_session" --workers 1 --nthreads 1 --memory 2147483648 --death-timeout 60 --start-timeout 300 --interface '' --mpiexec auto --root-dir .
