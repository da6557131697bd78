"""Torque, under its own scheduler, Maui or Moab, by its documentation and source; not tried on a real one.

qstat makes the times itself from seconds since the epoch; so it is told to make them UTC.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from itertools import groupby

from hpclab.errors import UnreadableOutput
from hpclab.job import JobSpec, JobState, JobStatus, Place, Queue
from hpclab.qstat import all_gone, first_host, held, hosts_of, job_ids_of, jobs_told, log_folder, queues_told, seconds
from hpclab.result import Result
from hpclab.units import format_walltime, parse_ctime

DIRECTIVE = "#PBS"
SUBMIT_HOST = "PBS_O_HOST"
HAS_ARRAYS = True
NOT_FROM_HERE = r"Bad UID for job execution|ruserok failed|Unauthorized Request|Access from host not allowed"
JOB_ID = "$PBS_JOBID"
# of the script's first moment, which is when this is read
END_TIME = "${PBS_WALLTIME:+$({ echo $(($(date +%s) + PBS_WALLTIME)); } 2>/dev/null)}"

STATES = {
    "Q": JobState.PENDING,
    "W": JobState.PENDING,  # for its start time
    "T": JobState.PENDING,  # between servers
    "H": JobState.HELD,
    "S": JobState.HELD,  # suspended
    "R": JobState.RUNNING,
    "E": JobState.COMPLETING,
    "C": JobState.FAILED,  # or done, or cancelled: see _ending
}

_HELD = {"u": "held by its owner", "o": "held by an operator", "s": "held by the system", "a": "held by its array"}

_WALLTIME = -11
_IN_WORDS = {
    -1: "it could not be started",
    -2: "it could not be started",
    -3: "it could not be started, again and again",
    -4: "its node was started anew",
    -8: "its shell could not be started",
    -9: "its log could not be opened",
    -10: "it used more memory than it had asked for",
    _WALLTIME: "the walltime was reached",
    -12: "it used more CPU time than it had asked for",
    -13: "its cgroups could not be made",
}

# what would change directives and answers; and, in a terminal of JupyterLab, the variables of the job around it
_NOT_OURS = (
    *("PBS_DPREFIX", "PBS_CLIENTRETRY", "PBS_QSTAT_EXECONLY", "PBS_QSTAT_NO_COMPLETE"),
    *("PBS_ARRAYID", "PBS_ENVIRONMENT", "PBS_GPUFILE", "PBS_JOBCOOKIE", "PBS_JOBID", "PBS_JOBNAME", "PBS_MOMPORT"),
    *("PBS_NODEFILE", "PBS_NODENUM", "PBS_NUM_NODES", "PBS_NUM_PPN", "PBS_NP", "PBS_QUEUE", "PBS_TASKNUM"),
    *("PBS_VERSION", "PBS_VNODENUM", "PBS_WALLTIME"),
)
_SUBMIT = ["env", *(f"-u{name}" for name in _NOT_OURS)]
_ASK = [*_SUBMIT, "TZ=UTC", "LC_ALL=C"]

# a server may be told to leave its name out
_ID = re.compile(r"[0-9]{1,18}(\[[0-9]{1,9}\])?(\.[\w.-]+)?", re.ASCII)
# without -1; and some put a tab before every attribute
_FOLDED = r"\n\t(?![\w.]+ = )"
_GONE = re.compile(r"Unknown Job Id|nonexistent job id|invalid state for job - (COMPLETE|EXITING)")


def directives(spec: JobSpec) -> list[str]:
    return [
        f"-N {re.sub('[^A-Za-z0-9._+-]', '-', spec.name)[:256]}",
        "-S /bin/bash",
        "-r n",
        "-m n",
        "-j oe",
        f"-o {shlex.quote(log_folder(spec.log, without='{$:'))}",
        f"-l walltime={format_walltime(spec.walltime_s)}",
        f"-l nodes={_nodes(spec)}",
        # of the whole job; not vmem, which limits address space: Python and CUDA reserve far more than they use
        f"-l mem={-(-spec.memory_bytes // 2**20)}mb",
        *([f"-l qos={shlex.quote(spec.qos)}"] if spec.qos else []),
        *([f"-q {shlex.quote(spec.partition)}"] if spec.partition else []),
        *([f"-A {shlex.quote(spec.account)}"] if spec.account else []),
        *spec.extra,
    ]


def _nodes(spec: JobSpec) -> str:
    """A part for each node, as the ranks follow each other."""
    sizes = []
    for host in hosts_of(spec):
        gpus = sum(task.gpus for task in host)
        parts = [f"ppn={sum(task.cores for task in host)}", f"gpus={gpus}" if gpus else "", spec.constraint]
        sizes.append(":".join(part for part in parts if part))
    return "+".join(f"{len(list(equal))}:{size}" for size, equal in groupby(sizes))


def submit_command(script: str, *, count: int = 1, log: str = "") -> list[str]:
    return [*_SUBMIT, "qsub", *(["-t", f"1-{count}"] if count > 1 else []), script]


def parse_job_ids(stdout: str, count: int = 1) -> list[str]:
    return job_ids_of(stdout, count, r"(?:\.[A-Za-z0-9_.-]+)?")


def status_command(job_ids: Sequence[str]) -> list[str]:
    return [*_ASK, "qstat", "-f", "-1", "-t", *job_ids]


def parse_status(result: Result) -> dict[str, JobStatus]:
    told = jobs_told(result, _GONE, folded=_FOLDED)
    return {job_id: _status(job_id, attributes) for job_id, attributes in told.items() if _ID.fullmatch(job_id)}


def _status(job_id: str, told: Mapping[str, str]) -> JobStatus:
    state = STATES.get(told.get("job_state", ""), JobState.UNKNOWN)
    reason = told.get("comment", "")
    start_time, end_time, exit_status = parse_ctime(told.get("start_time", "")), None, None
    if state is JobState.PENDING:
        start_time = parse_ctime(told.get("Execution_Time", ""))
    elif state is JobState.HELD:
        start_time, reason = None, reason or held(told, _HELD)
    elif state is JobState.RUNNING and start_time is not None:
        limit_s = seconds(told.get("Resource_List.walltime", ""))
        end_time = start_time + limit_s if limit_s else None
    elif state.is_final:
        state, reason, exit_status = _ending(told)
        end_time = parse_ctime(told.get("comp_time", ""))
    return JobStatus(
        job_id=job_id,
        state=state,
        # a scheduler's comment on when a job was started stays with it
        reason="" if reason.startswith("Job started on") else reason,
        node=first_host(told),
        start_time=start_time,
        end_time=end_time,
        exit_status=exit_status,
    )


def _ending(told: Mapping[str, str]) -> tuple[JobState, str, int | None]:
    """How a job ended: its state, the reason in words and Torque's own, and the script's exit status."""
    given = told.get("exit_status", "")
    code = int(given) if re.fullmatch(r"-?[0-9]{1,4}", given) else None
    limit_s, used_s = (seconds(told.get(f"{name}.walltime", "")) for name in ("Resource_List", "resources_used"))
    if code is None:  # deleted before it ran
        return JobState.CANCELLED, "", None
    if code < 0:
        return JobState.FAILED, f"{_IN_WORDS.get(code, 'Torque ended it')} (exit_status {code})", None
    exit_status = code - 128 if code >= 256 else code  # 256 + signal
    if code in (256 + 9, 256 + 15) and 0 < limit_s <= used_s:  # by a scheduler, which counts for itself
        return JobState.FAILED, f"{_IN_WORDS[_WALLTIME]} (exit_status {code})", exit_status
    if code == 256 + 15:  # what qdel does, and no word of who did it
        return JobState.CANCELLED, "", exit_status
    reason = f"killed by signal {code - 256}" if code >= 256 else f"exit status {code}" if code else ""
    return JobState.FAILED if code else JobState.DONE, reason, exit_status


def history_command(job_ids: Sequence[str]) -> list[str]:
    return []  # what it has put away only administrators see


def parse_history(result: Result) -> dict[str, JobStatus]:
    return {}


def cancel_command(job_ids: Sequence[str]) -> list[str]:
    return [*_ASK, "qdel", *job_ids]


def is_cancelled(result: Result) -> bool:
    return result.exit_status == 0 or all_gone(result, "qdel", _GONE)


def estimate_command(script: str) -> list[str]:
    return []


def parse_estimate(result: Result) -> float:
    raise UnreadableOutput("Torque gives no estimate before a job is submitted")


def place_command() -> list[str]:
    return []  # Torque tells jobs by their numbers, whatever its scheduler will start next


def parse_place(result: Result, job_id: str) -> Place | None:
    return None


def queues_command() -> list[str]:
    return [*_ASK, "bash", "-c", "qstat -B -f -1; qstat -Q -f -1"]


def parse_queues(result: Result) -> list[Queue]:
    return queues_told(result, folded=_FOLDED)
