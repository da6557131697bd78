#!/bin/bash
#HPCLAB --job-name=hpclab-calm-otter-worker
#HPCLAB --cores=2
#HPCLAB --memory=2147483648
#HPCLAB --walltime=3600
#HPCLAB --output=/home/ada/.hpclab/sessions/calm-otter/logs/%j.log
#HPCLAB --slots=8
#HPCLAB --grace=5

hpclab_session=/home/ada/.hpclab/sessions/calm-otter
export HPCLAB_SESSION=calm-otter
export HPCLAB_JOB_ID="$HPCLAB_LOCALQ_JOB_ID" HPCLAB_JOB_END_TIME="$HPCLAB_LOCALQ_END_TIME"
hpclab_started='"event": "started", "role": "worker", "workers": 1, "cores": 2, "memory_bytes": 2147483648, "walltime_s": 3600, "gpus": 0'
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
/opt/python -P -m hpclab.inside.worker_job /home/ada/.hpclab/sessions/calm-otter
