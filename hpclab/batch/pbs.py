"""OpenPBS and PBS Pro, by qsub, qstat and qdel; tried with OpenPBS 23.06.

qstat is read as text: of several jobs, its JSON holds only the first. The times are made by qstat itself, not by the
server, from seconds since the epoch; so it is told to make them UTC.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from itertools import groupby

from hpclab.errors import ConfigError, UnreadableOutput
from hpclab.job import JobSpec, JobState, JobStatus, Place, Queue
from hpclab.qstat import all_gone, first_host, held, hosts_of, job_ids_of, jobs_told, log_folder, queues_told, seconds
from hpclab.result import Result
from hpclab.units import format_walltime, parse_ctime

DIRECTIVE = "#PBS"
SUBMIT_HOST = "PBS_O_HOST"
HAS_ARRAYS = True
# the last where there is no pbs.conf; an access list of a queue refuses in the words of the second
NOT_FROM_HERE = (
    r"Bad UID for job execution|Unauthorized Request|Access from host not allowed|pbs conf variables not found"
)
JOB_ID = "$PBS_JOBID"
# PBS tells a job nothing of its end, and a qstat from each of many jobs that start at once takes 0.2 s and more
END_TIME = ""

STATES = {
    "Q": JobState.PENDING,
    "T": JobState.PENDING,  # between servers
    "W": JobState.PENDING,  # for its start time or its files
    "H": JobState.HELD,
    "S": JobState.HELD,  # suspended by PBS
    "U": JobState.HELD,  # suspended: somebody works at the machine
    "R": JobState.RUNNING,
    "B": JobState.RUNNING,  # an array that has begun
    "E": JobState.COMPLETING,
    "F": JobState.FAILED,  # or done, or cancelled: see _ending
    "X": JobState.FAILED,  # the same of an array's task while the array runs
    "M": JobState.UNKNOWN,  # moved to another server
}

_HELD = {"u": "held by its owner", "o": "held by an operator", "s": "held by the system", "p": "held: bad password"}

_WALLTIME = -29
_IN_WORDS = {
    -1: "it could not be started",
    -2: "it could not be started",
    -3: "it could not be started, again and again",
    -10: "its node does not know the user",
    -17: "a hook of the site refused it",
    -19: "a hook of the site deleted it",
    -20: "its node was lost",
    -24: "it used more cores than it had asked for",
    -25: "it used more cores than it had asked for",
    -26: "it used more virtual memory than it had asked for",
    -27: "it used more memory than it had asked for",
    -28: "it used more CPU time than it had asked for",
    _WALLTIME: "the walltime was reached",
    -30: "one of its nodes did not join",
}

# what would change the script's directives and shell; and, in a terminal of JupyterLab, the variables of the job around
# it, for there are sites whose qsub exports everything
_NOT_OURS = (
    *("PBS_DPREFIX", "PBS_SHELL", "PBS_ARRAY_ID", "PBS_ARRAY_INDEX", "PBS_ENVIRONMENT", "PBS_JOBCOOKIE", "PBS_JOBDIR"),
    *("PBS_JOBID", "PBS_JOBNAME", "PBS_MOMPORT", "PBS_NODEFILE", "PBS_NODENUM", "PBS_QUEUE", "PBS_TASKNUM", "NCPUS"),
)
_SUBMIT = ["env", *(f"-u{name}" for name in _NOT_OURS)]
_ASK = ["env", "TZ=UTC", "LC_ALL=C"]

_ID = re.compile(r"[0-9]{1,18}(\[[0-9]{1,9}\])?\.[\w.-]+", re.ASCII)
_GONE = re.compile(r"Unknown Job Id|Job has finished|not configured to maintain job history")


def directives(spec: JobSpec) -> list[str]:
    if spec.qos:
        raise ConfigError(
            f"PBS has no QOS, so that {spec.qos!r} means nothing to it\nleave `qos` empty; a queue may be what is meant"
        )
    return [
        f"-N {re.sub('[^A-Za-z0-9._+-]', '-', spec.name)[:230]}",
        "-S /bin/bash",
        "-r n",
        "-m n",
        "-j oe",
        f"-o {shlex.quote(log_folder(spec.log, without='{'))}",
        f"-l walltime={format_walltime(spec.walltime_s)}",
        f"-l select={_select(spec)}",
        *(["-l place=scatter"] if spec.nodes > 1 else []),
        *([f"-q {shlex.quote(spec.partition)}"] if spec.partition else []),
        *([f"-A {shlex.quote(spec.account)}"] if spec.account else []),
        *spec.extra,
    ]


def _select(spec: JobSpec) -> str:
    """A chunk for each host, as the ranks follow each other. A single chunk is always on one host."""
    sizes = []
    for host in hosts_of(spec):
        gpus = sum(task.gpus for task in host)
        resources = [
            f"ncpus={sum(task.cores for task in host)}",
            f"mem={-(-sum(task.memory_bytes for task in host) // 2**20)}mb",
            f"mpiprocs={len(host)}",
            "ompthreads=1",  # else PBS sets OMP_NUM_THREADS to ncpus, for each of the ranks
            *([f"ngpus={gpus}"] if gpus else []),
            *([spec.constraint] if spec.constraint else []),
        ]
        sizes.append(":".join(resources))
    return "+".join(f"{len(list(equal))}:{size}" for size, equal in groupby(sizes))


def submit_command(script: str, *, count: int = 1, log: str = "") -> list[str]:
    # -f: without it, qsub leaves a process of its own behind to be quicker the next time
    return [*_SUBMIT, "qsub", "-f", *(["-J", f"1-{count}"] if count > 1 else []), script]


def parse_job_ids(stdout: str, count: int = 1) -> list[str]:
    return job_ids_of(stdout, count, r"\.[A-Za-z0-9_.-]+")


def status_command(job_ids: Sequence[str]) -> list[str]:
    # without -x: a server that keeps no history, as PBS comes, refuses that even of running jobs
    return [*_ASK, "qstat", "-f", *job_ids]


def parse_status(result: Result) -> dict[str, JobStatus]:
    told = jobs_told(result, _GONE)
    return {job_id: _status(job_id, attributes) for job_id, attributes in told.items() if _ID.fullmatch(job_id)}


def _status(job_id: str, told: Mapping[str, str]) -> JobStatus:
    state = STATES.get(told.get("job_state", ""), JobState.UNKNOWN)
    comment = told.get("comment", "")
    # what follows `Job run at … on (…)` is all that it says of interest
    news = re.sub(r"^Job (?:Array )?(?:run|was sent|Began)\b.*? at \d\d:\d\d(?: on \S+)?(?: and |$)", "", comment)
    start_time = parse_ctime(told.get("stime", ""))
    end_time, exit_status = None, None
    reason = news if state in (JobState.RUNNING, JobState.COMPLETING) else comment
    if state is JobState.PENDING:
        start_time = parse_ctime(told.get("estimated.start_time", told.get("Execution_Time", "")))
        if comment.startswith("Can Never Run"):
            reason = f"{comment} (it will not start: no node here has that much, or not enough of them)"
    elif state is JobState.HELD:
        start_time, reason = None, comment or held(told, _HELD)
    elif state is JobState.RUNNING and start_time is not None:
        limit_s = seconds(told.get("Resource_List.walltime", ""))
        end_time = start_time + limit_s if limit_s else None
    elif state.is_final:
        state, reason, exit_status = _ending(told, news)
        end_time = parse_ctime(told.get("obittime", told.get("mtime", "")))
    node = first_host(told)
    return JobStatus(
        job_id=job_id,
        state=state,
        reason=reason,
        node=node,
        start_time=start_time,
        end_time=end_time,
        exit_status=exit_status,
    )


def _ending(told: Mapping[str, str], news: str) -> tuple[JobState, str, int | None]:
    """How a job ended: its state, the reason in words and PBS's own, and the script's exit status."""
    given = told.get("Exit_status", "")
    code = int(given) if re.fullmatch(r"-?[0-9]{1,4}", given) else None
    memory = re.search(r"\w[\w ]* mem limit exceeded", told.get("resources_used.diag_messages", ""))
    limit_s, used_s = (seconds(told.get(f"{name}.walltime", "")) for name in ("Resource_List", "resources_used"))
    if news.startswith("Subjob "):  # of a task that PBS has put away it says no more than this
        code = {"Subjob finished": 0, "Subjob terminated": None}.get(news, 1)
    if code is not None and code < 0:
        return JobState.FAILED, f"{_IN_WORDS.get(code, 'PBS ended it')} (Exit_status {code})", None
    exit_status = code - 128 if code is not None and code >= 256 else code  # 256 + signal
    by = re.search(r"\bterminated( by \S+)?$", news)
    if code is None or by or told.get("substate") == "91":
        return JobState.CANCELLED, by[0] if by else news, exit_status
    if code == 271:  # SIGTERM to its session, and no word of who sent it
        if 0 < limit_s <= used_s:
            return JobState.FAILED, f"{_IN_WORDS[_WALLTIME]} (Exit_status {code})", exit_status
        return JobState.CANCELLED, news, exit_status
    reason = f"killed by signal {code - 256}" if code >= 256 else f"exit status {code}" if code else ""
    if memory:
        reason = f"{reason or 'part of it was killed'}: {_IN_WORDS[-27]} ({memory[0]})"
    return JobState.FAILED if code else JobState.DONE, reason, None if news == "Subjob failed" else exit_status


def history_command(job_ids: Sequence[str]) -> list[str]:
    return [*_ASK, "qstat", "-x", "-f", *job_ids]


def parse_history(result: Result) -> dict[str, JobStatus]:
    return {job_id: status for job_id, status in parse_status(result).items() if status.state.is_final}


def cancel_command(job_ids: Sequence[str]) -> list[str]:
    return [*_ASK, "qdel", *job_ids]


def is_cancelled(result: Result) -> bool:
    return result.exit_status == 0 or all_gone(result, "qdel", _GONE)


def estimate_command(script: str) -> list[str]:
    return []


def parse_estimate(result: Result) -> float:
    raise UnreadableOutput("PBS gives no estimate before a job is submitted")


def place_command() -> list[str]:
    return []  # PBS tells jobs by their numbers, whatever it will start next


def parse_place(result: Result, job_id: str) -> Place | None:
    return None


def queues_command() -> list[str]:
    return [*_ASK, "bash", "-c", "qstat -B -f; qstat -Q -f"]


def parse_queues(result: Result) -> list[Queue]:
    return queues_told(result)
