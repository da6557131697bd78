"""The text of a job script: directives (batch system) + where everything is (session) + prologue (site) + program.

The script can be submitted by hand: everything it needs stands in it, and it records itself when it starts.
It sends its own output to the session's log, for some batch systems deliver theirs only at the end, or never.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence

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
    program: str,
    skip: Sequence[str] = (),
) -> str:
    """`program` is a line of shell, the job's one program; its exit status becomes the job's.

    Directives that begin with a text of `skip` are left out.
    """
    directives = [line for line in batch.directives(spec) if line in spec.extra or not line.startswith(tuple(skip))]
    lines = [
        "#!/bin/bash",
        *(f"{batch.DIRECTIVE} {line}" for line in directives),
        "",
        f"hpclab_session={shlex.quote(folder.path)}",
        f"export HPCLAB_SESSION={shlex.quote(folder.name)}",
        f'export HPCLAB_JOB_ID="{batch.JOB_ID}" HPCLAB_JOB_END_TIME="{batch.END_TIME}"',
        *_body(spec, record, prologue=prologue, program=program),
    ]
    return "\n".join(lines)


def hand_script(
    batches: Mapping[str, BatchSystem],
    spec: JobSpec,
    record: JobRecord,
    *,
    prologue: Sequence[str],
    program: str,
    skip: Sequence[str] = (),
) -> str:
    """A script for someone who submits it by hand, to whichever of these batch systems: it belongs to no session yet.

    The session is named by $HPCLAB_NAME. `program` finds its folder in $hpclab_session and Python in $hpclab_python.
    """
    is_main = record.role == "main"
    lines = ["#!/bin/bash"]
    for name, batch in batches.items():
        # sbatch would take PBS's directives for its own, too
        lines += [f"{batch.DIRECTIVE} --ignore-pbs"] if name == "slurm" else []
        # where the log goes is not known yet, and what the batch system says goes where it always does
        unknown = ("--output", "--open-mode", "-o ", "-j ", *skip)
        told = [line for line in batch.directives(spec) if line in spec.extra or not line.startswith(unknown)]
        lines += [f"{batch.DIRECTIVE} {line}" for line in told]
    lines += ["", *(_START_BY_HAND if is_main else _ADD_BY_HAND)]
    for name, batch in batches.items():
        otherwise = '[ -n "$HPCLAB_JOB_ID" ] || ' if lines[-1] else ""
        found = f'HPCLAB_JOB_ID="{batch.JOB_ID}" HPCLAB_JOB_END_TIME="{batch.END_TIME}"'
        lines.append(f"{otherwise}hpclab_system={name} {found}")
    lines += ["export HPCLAB_JOB_ID HPCLAB_JOB_END_TIME", _PREPARED if is_main else _JOINED]
    return "\n".join([*lines, *_body(spec, record, prologue=prologue, program=program)])


def _body(spec: JobSpec, record: JobRecord, *, prologue: Sequence[str], program: str) -> list[str]:
    """Everything from the moment that the job knows its id and its session."""
    started = json.dumps({"event": "started", **record.to_dict()})[1:-1]
    return [
        f"hpclab_started={shlex.quote(started)}",
        # a stop watch, only where the batch system does not say when it will end us
        f"case $HPCLAB_JOB_END_TIME in ''|*[!0-9.]*) HPCLAB_JOB_END_TIME=$(($(date +%s) + {spec.walltime_s}));; esac",
        "export HPCLAB_SCRATCH=",
        _HEAD + _ENDED + (_OVER if record.role == "main" else "") + _ENDS,
        *(["", "# prologue", _PROLOGUE_TELLS, *prologue, "trap - ERR"] if prologue else []),
        *([_AS_UNDER_A_NANNY] if record.role == "worker" else []),
        "",
        _PROGRAM_HEARS_SIGNAL,
        program,
        "",
    ]


_PATHS_BY_HAND = [
    "",
    "# the Python that has hpclab; activate your environment here if it is not the one on your PATH",
    "hpclab_python=${HPCLAB_PYTHON:-python3}",
    "export HPCLAB_SESSION=${HPCLAB_NAME:-by-hand}",
    'hpclab_session="${HPCLAB_HOME:-$HOME/.hpclab}/sessions/$HPCLAB_SESSION"',
    "",
]
_START_BY_HAND = [
    "# Starts a session: submit this file with sbatch or qsub; `hpclab attach by-hand` then says how to connect.",
    "# For a session of another name: HPCLAB_NAME=NAME sbatch …, or qsub -v HPCLAB_NAME=NAME ….",
    *_PATHS_BY_HAND,
]
_ADD_BY_HAND = [
    "# Adds a worker to the session that start-dask.sh has started: submit this file with sbatch or qsub, as often as",
    "# you like. For a session of another name: HPCLAB_NAME=NAME sbatch …, or qsub -v HPCLAB_NAME=NAME ….",
    *_PATHS_BY_HAND,
]
_PREPARED = """\
if [ -n "$HPCLAB_JOB_ID" ]; then
    "$hpclab_python" -P -m hpclab prepare "$HPCLAB_SESSION" --queue "$hpclab_system" || exit
fi"""
_JOINED = """\
if [ ! -d "$hpclab_session/events" ]; then
    echo "there is no session $HPCLAB_SESSION in $hpclab_session: submit start-dask.sh first" >&2
    exit 2
fi"""


# the names begin with hpclab_ so that no prologue has them for something of its own
_HEAD = r"""umask 077
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
"""

# the batch system forgets a finished job within minutes; these files do not
_ENDED = r"""hpclab_ended() {
    # nor may rm be ended by a second signal: Slurm sends one to each step and one to the script
    trap '' TERM INT USR1 USR2
    hpclab_event "\"event\": \"exited\", \"exit_status\": $1"
    rm -rf "$HPCLAB_SCRATCH"
"""

_OVER = r"""    [ -e "$hpclab_session/over" ] || echo "its main job ended" >"$hpclab_session/over"
"""

_ENDS = r"""    exit "$1"
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
) || exit 40"""

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
trap 'hpclab_failed $? "$BASH_COMMAND"' ERR
hpclab_unfit() {
    hpclab_event "\"event\": \"failed\", \"reason\": \"this does not work on $hpclab_node: ${1//[\"\\]/}\""
    exit 40
}"""

_PROGRAM_HEARS_SIGNAL = """\
# from here on a signal is the program's to hear; this shell waits for it and writes how it ended
trap : TERM INT USR1 USR2"""
