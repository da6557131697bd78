"""The text of a job script: directives (batch system) + where everything is (session) + prologue (site) + program.

The script can be submitted by hand: everything it needs stands in it, and it records itself when it starts.
It sends its own output to the session's log, for some batch systems deliver theirs only at the end, or never.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence

from hpclab.batch import BatchSystem
from hpclab.folder import SessionFolder
from hpclab.job import JobRecord, JobSpec


def job_script(
    batch: BatchSystem,
    spec: JobSpec,
    folder: SessionFolder,
    record: JobRecord,
    *,
    prologue: Sequence[str],
    argv: Sequence[str],
) -> str:
    """`argv` runs as the job's one program; its exit status becomes the job's."""
    started = json.dumps({"event": "started", **record.to_dict()})[1:-1]
    end_time = batch.END_TIME or f"$(($(date +%s) + {spec.walltime_s}))"
    lines = [
        "#!/bin/bash",
        *(f"{batch.DIRECTIVE} {line}" for line in batch.directives(spec)),
        "",
        f"hpclab_session={shlex.quote(folder.path)}",
        f"hpclab_started={shlex.quote(started)}",
        f"export HPCLAB_SESSION={shlex.quote(folder.name)} HPCLAB_SCRATCH=",
        f'export HPCLAB_JOB_ID="{batch.JOB_ID}" HPCLAB_JOB_END_TIME="{end_time}"',
        _HEAD + _ENDED + (_OVER if record.role == "main" else "") + _ENDS,
        *(["", "# prologue", _PROLOGUE_TELLS, *prologue, "trap - ERR"] if prologue else []),
        *([_AS_UNDER_A_NANNY] if record.role == "worker" else []),
        "",
        _PROGRAM_HEARS_SIGNAL,
        shlex.join(argv),
        "",
    ]
    return "\n".join(lines)


# the names begin with hpclab_ so that no prologue has them for something of its own
_HEAD = r"""umask 077
[ -n "$HPCLAB_JOB_ID" ] || { echo "this is a job script: submit it, do not run it" >&2; exit 2; }
exec >>"$hpclab_session/logs/$HPCLAB_JOB_ID.log" 2>&1 </dev/null || exit 40
hpclab_event() {
    local now=${EPOCHREALTIME:-$(date +%s)}
    printf '{"time": %s, %s}\n' "${now/,/.}" "$1" >>"$hpclab_session/events/$HPCLAB_JOB_ID.jsonl"
}
hpclab_event "$hpclab_started, \"node\": \"$(hostname)\""
"""

# the batch system forgets a finished job within minutes; these files do not
_ENDED = r"""hpclab_ended() {
    hpclab_event "\"event\": \"exited\", \"exit_status\": $1"
    rm -rf "$HPCLAB_SCRATCH"
"""

_OVER = r"""    [ -e "$hpclab_session/over" ] || echo "its main job ended" >"$hpclab_session/over"
"""

_ENDS = r"""    exit "$1"
}
trap 'hpclab_ended $?' EXIT
trap 'exit 143' TERM INT USR1 USR2
# ours alone: in a scratch folder that others could have made before us they could change what Dask writes there
HPCLAB_SCRATCH=$(mktemp -d "${TMPDIR:-/tmp}/hpclab-XXXXXXXX" || mktemp -d /tmp/hpclab-XXXXXXXX) || exit 40"""

# here, since the C library reads the last one when a process starts; a prologue may know better
_AS_UNDER_A_NANNY = r"""
# as Dask's nanny sets them: a worker runs a task per thread already
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1} MKL_NUM_THREADS=${MKL_NUM_THREADS:-1}
export OPENBLAS_NUM_THREADS=${OPENBLAS_NUM_THREADS:-1} MALLOC_TRIM_THRESHOLD_=${MALLOC_TRIM_THRESHOLD_:-65536}"""

# a line of the prologue that fails is told, and no more: what it lacks may be of no importance;
# quotes and backslashes would not be JSON
_PROLOGUE_TELLS = r"""hpclab_failed() {
    hpclab_event "\"event\": \"prologue\", \"reason\": \"${2//[\"\\]/} (exit status $1)\""
}
trap 'hpclab_failed $? "$BASH_COMMAND"' ERR"""

_PROGRAM_HEARS_SIGNAL = """\
# from here on a signal is the program's to hear; this shell waits for it and writes how it ended
trap : TERM INT USR1 USR2"""
