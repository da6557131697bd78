"""Slurm, by sbatch, squeue, sacct, scancel and sinfo. Tried with 22.05.

`squeue --json` is not used: it ignores which jobs were asked about, and its shape changes between versions.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime

from hpclab.errors import ConfigError, UnreadableOutput
from hpclab.job import Chunk, JobSpec, JobState, JobStatus, Place, Queue
from hpclab.result import Result
from hpclab.units import format_walltime

DIRECTIVE = "#SBATCH"
SUBMIT_HOST = "SLURM_SUBMIT_HOST"
HAS_ARRAYS = True
# no munge, no slurm.conf; the partition's AllocNodes, or a job_submit plugin
NOT_FROM_HERE = (
    r"[Mm]unge (encode|daemon)|Protocol authentication error|Access/permission denied"
    r"|Could not establish a configuration source|Unable to process configuration file"
)
# the batch script of a heterogeneous job finds the id of component 0, which is the one that sbatch printed
JOB_ID = "${SLURM_ARRAY_JOB_ID:-$SLURM_JOB_ID}${SLURM_ARRAY_TASK_ID:+_$SLURM_ARRAY_TASK_ID}"
# the variable is there since 23.02; grep, since a heterogeneous job has a line for each component
END_TIME = (
    "${SLURM_JOB_END_TIME:-$(unset ${!SQUEUE*}; SLURM_TIME_FORMAT=%s "
    f"timeout 5 squeue -h -j {JOB_ID} -o %e 2>/dev/null | grep -m1 -E '^[0-9]+$')}}"
)

STATES = {
    word: state
    for state, words in {
        JobState.PENDING: "PENDING CONFIGURING REQUEUED REQUEUE_FED POWER_UP_NODE",
        JobState.HELD: "REQUEUE_HOLD SPECIAL_EXIT RESV_DEL_HOLD SUSPENDED STOPPED",
        JobState.RUNNING: "RUNNING RESIZING SIGNALING EXPEDITING",
        JobState.COMPLETING: "COMPLETING STAGE_OUT",
        JobState.DONE: "COMPLETED",
        JobState.FAILED: "FAILED TIMEOUT OUT_OF_MEMORY NODE_FAIL BOOT_FAIL DEADLINE PREEMPTED REVOKED"
        " LAUNCH_FAILED RECONFIG_FAIL",
        JobState.CANCELLED: "CANCELLED",
    }.items()
    for word in words.split()
}

_IN_WORDS = {
    "CONFIGURING": "its node is being made ready",
    "TIMEOUT": "the walltime was reached",
    "OUT_OF_MEMORY": "it used more memory than it had asked for",
    "NODE_FAIL": "its node failed",
    "BOOT_FAIL": "its node did not boot",
    "DEADLINE": "its deadline passed",
    "PREEMPTED": "a job of higher priority took its place",
    "REVOKED": "another cluster has run it",
    "LAUNCH_FAILED": "it could not be launched",
    "RECONFIG_FAIL": "its node could not be reconfigured",
}

_NEVER = {
    "PartitionTimeLimit": "the walltime is longer than the partition allows",
    "PartitionNodeLimit": "the partition does not allow that many nodes",
    "PartitionConfig": "the partition's nodes do not have that much",
    "PartitionDown|PartitionInactive": "the partition is down",
    "BadConstraints": "no node meets its constraint",
    "DependencyNeverSatisfied": "a job that it depends on has failed",
    "InvalidAccount|AccountNotAllowed": "its account may not be used here",
    "InvalidQOS|QOSNotAllowed": "its QOS may not be used here",
    r"(Assoc|QOS)MaxWall\w*": "the walltime is longer than its account or QOS allows",
    r"(Assoc|QOS)Max\w+Per(Job|Node)(Limit)?": "its account or QOS does not allow one job that much",
    r"QOSMin\w+": "its QOS does not take jobs that small",
}

_WAITS = {
    "Resources": "waits for free nodes",
    "Priority": "others are before it",
    "Dependency": "waits for another job",
    "BeginTime": "its time has not come yet",
    "Reservation": "waits for its reservation",
    "Licenses": "waits for a license",
    "JobArrayTaskLimit": "as many of its array run as may at once",
    "ReqNodeNotAvail.*": "nodes that it needs are down, drained or reserved",
    r"(Assoc|QOS)Grp\w+": "its account or QOS has used all that it may",
    r"(Assoc|QOS)Max\w+": "its account or QOS allows you no more at once",
    "JobHeldUser": "held by its owner",
    "JobHeldAdmin": "held by an administrator",
}

# the user's own settings, or the job around a terminal of JupyterLab, would change what is submitted or answered
_CLEAN = """
for name in ${!SLURM*} ${!SBATCH*} ${!SQUEUE*} ${!SACCT*} ${!SCANCEL*} ${!SINFO*}; do
    case $name in SLURM_CONF|SLURM_CONF_SERVER) ;; *) unset "$name" ;; esac
done
"""
_SUBMIT = ["bash", "-c", _CLEAN + 'exec "$@"', "bash"]
# UTC, for a Slurm that writes its times in a format of its own
_ASK = ["bash", "-c", _CLEAN + 'LC_ALL=C TZ=UTC SLURM_TIME_FORMAT=%s exec "$@"', "bash"]

_ASK_OF_MINE = [*_ASK[:2], _ASK[2].replace('exec "$@"', 'exec "$@" -u "$(id -un)"'), *_ASK[3:]]

# last what may hold a `|` itself
_SQUEUE = "JobArrayID:|,State:|,exit_code:|,StartTime:|,EndTime:|,BatchHost:|,Reason:"
_SQUEUE_HEAD = "JOBID|STATE|"
_SACCT = "JobID,State,ExitCode,Start,End,NodeList"
_JOB_LINE = re.compile(
    r"([1-9][0-9]{0,17}(?:_[0-9]{1,9})?)(?:\+([0-9]{1,4}))?" + r"\|([^|]*)" * 5 + r"(?:\|(.*))?", re.DOTALL
)


def directives(spec: JobSpec) -> list[str]:
    head = [
        f"--job-name={shlex.quote(spec.name)}",
        f"--time={format_walltime(spec.walltime_s)}",
        f"--output={shlex.quote(_output(spec.log, '%j'))}",
        "--open-mode=append",
        "--no-requeue",
    ]
    sized, *others = _sizes(spec)
    # not all of these are inherited by the components of a heterogeneous job
    named = {"partition": spec.partition, "account": spec.account, "qos": spec.qos, "constraint": spec.constraint}
    site = [f"--{option}={shlex.quote(value)}" for option, value in named.items() if value]
    components = [line for sized in others for line in ["hetjob", *site, *sized, *spec.extra]]
    return [*head, *site, *sized, *spec.extra, *components]


def _sizes(spec: JobSpec) -> list[list[str]]:
    """The directives about nodes, cores and memory: a list for each component of a heterogeneous job."""
    memory = spec.options.get("slurm_memory", "node")
    if memory not in ("node", "cpu", "none"):
        raise ConfigError(f"unknown slurm_memory {memory!r}\nsay node (--mem), cpu (--mem-per-cpu) or none")
    if spec.nodes == 1:
        whole = Chunk(count=1, cores=spec.cores, memory_bytes=spec.memory_bytes, gpus=spec.gpus)
        gres = [f"--gres=gpu:{spec.gpus}"] if spec.gpus else []
        if memory == "node":
            return [[*_tasks(1, whole, "none"), f"--mem={_mebibytes(spec.memory_bytes)}M", *gres]]
        return [[*_tasks(1, whole, memory), *gres]]
    # tasks may be spread unevenly, so that --mem, which is per node, cannot be told
    if spec.is_uniform:
        parts = [(min(spec.nodes, spec.tasks), replace(spec.chunks[0], count=spec.tasks))]
    else:
        first, *rest = spec.chunks
        parts = [(1, first), *((min(spec.nodes, chunk.count), chunk) for chunk in rest)]
    return [
        [*_tasks(nodes, part, memory), *([f"--gpus-per-task={part.gpus}"] if part.gpus else [])]
        for nodes, part in parts
    ]


def _tasks(nodes: int, chunk: Chunk, memory: str) -> list[str]:
    per_core = [] if memory == "none" else [f"--mem-per-cpu={_mebibytes(chunk.memory_bytes, chunk.cores)}M"]
    return [f"--nodes={nodes}", f"--ntasks={chunk.count}", f"--cpus-per-task={chunk.cores}", *per_core]


def _mebibytes(size_bytes: int, parts: int = 1) -> int:
    return -(-size_bytes // (parts * 2**20))


def _output(log: str, job_id: str) -> str:
    if "\\" in log or "\n" in log:
        raise ConfigError(
            f"Slurm cannot write to {log!r}\nuse a folder without backslashes and line breaks in its name"
        )
    return log.replace("%", "%%").replace("{job_id}", job_id)


def submit_command(script: str, *, count: int = 1, log: str = "") -> list[str]:
    array = [f"--array=1-{count}"] if count > 1 else []
    output = [f"--output={_output(log, '%A_%a')}"] if count > 1 and log else []
    return [*_SUBMIT, "sbatch", "--parsable", *array, *output, script]


def parse_job_ids(stdout: str, count: int = 1) -> list[str]:
    # a profile script may print before the answer; a cluster's name may follow
    found = re.findall(r"^[ \t]*([1-9][0-9]{0,17})(?:;[\w.-]+)?[ \t\r]*$", stdout, re.MULTILINE)
    if not found:
        raise UnreadableOutput(f"no job id in the answer of sbatch: {stdout!r}")
    return [found[-1]] if count == 1 else [f"{found[-1]}_{task}" for task in range(1, count + 1)]


def status_command(job_ids: Sequence[str]) -> list[str]:
    # all of the user's: with -j one forgotten job fails the question; with its head an answer is known to be one
    return [*_ASK, "squeue", "-r", "--me", "-t", "all", "-O", _SQUEUE]


def parse_status(result: Result) -> dict[str, JobStatus]:
    has_head = re.search(f"^{re.escape(_SQUEUE_HEAD)}", result.stdout, re.MULTILINE)
    if result.exit_status or not has_head:
        raise UnreadableOutput(f"squeue: {result.last_words}")
    return _statuses(result.stdout)


def history_command(job_ids: Sequence[str]) -> list[str]:
    # of all tasks of an array at once, for their ids could be too many for a command line; and of this user's alone,
    # for with -j it tells of anybody's jobs
    numbers = dict.fromkeys(job_id.partition("_")[0] for job_id in job_ids)
    return [*_ASK_OF_MINE, "sacct", "-X", "-n", "-P", "-o", _SACCT, "-j", ",".join(numbers)]


def parse_history(result: Result) -> dict[str, JobStatus]:
    if "accounting storage is disabled" in result.output:
        return {}
    if result.exit_status:
        raise UnreadableOutput(f"sacct: {result.last_words}")
    statuses = _statuses(result.stdout)
    return {job_id: status for job_id, status in statuses.items() if status.state.is_final}


def _statuses(text: str) -> dict[str, JobStatus]:
    """Of squeue's or sacct's lines; a heterogeneous job is told by its component 0."""
    rows = []
    for line in text.split("\n"):
        if match := _JOB_LINE.fullmatch(line.rstrip("\r")):
            rows.append((int(match[2] or 0), match))
        elif re.match(r"[0-9][0-9_+]*\|", line):
            raise UnreadableOutput(f"cannot read what Slurm says of a job: {line!r}")
    statuses: dict[str, JobStatus] = {}
    for component, match in sorted(rows, key=lambda row: row[0]):
        job_id, _, *told = match.groups(default="")
        status = _status(job_id, *told)
        first = statuses.get(job_id)
        # of component 0 Slurm says `Resources` and a time to start at, though another one can never start
        if component == 0 or (first and first.state is JobState.PENDING and _never(told[-1])):
            statuses[job_id] = status
    return statuses


def _status(job_id: str, told: str, exit_code: str, start: str, end: str, nodes: str, why: str) -> JobStatus:
    word = (told.split() or [""])[0]  # of `CANCELLED by 4001`
    reason = "" if why.strip() in ("None", "(null)") else why.strip()
    state = STATES.get(word, JobState.UNKNOWN)
    if state is JobState.PENDING and re.search("held|hold", reason, re.IGNORECASE):
        state = JobState.HELD
    node = _first_node(nodes)
    code, signal = _ending(exit_code) if state.is_final else (0, 0)
    exit_status = 128 + signal if signal else code or (0 if state is JobState.DONE else None)
    if word == "PENDING":
        if never := _never(reason):
            reason = f"{reason} (it will not start: {never})"
        elif words := _words(reason, _WAITS):
            reason = f"{words} ({reason})"
    elif word == "FAILED" and signal == _NOT_OPENED:
        reason = f"its log or its folder could not be opened ({reason or word})"
        exit_status = None
    elif word == "FAILED" and (code or signal):
        reason = (f"killed by signal {signal}" if signal else f"exit code {code}") + f" ({reason or word})"
    elif state is JobState.CANCELLED:
        # what squeue has for a reason is why it waited
        reason = told.lower().replace("by ", "by user ")
    elif word in _IN_WORDS:
        reason = f"{_IN_WORDS[word]} ({word})"
    elif state is JobState.UNKNOWN:
        reason = f"{told} {reason}".strip()
    return JobStatus(
        job_id=job_id,
        state=state,
        reason=reason or (word if state in (JobState.HELD, JobState.FAILED) else ""),
        node=node,
        # a job that was cancelled while it waited never started, whatever is told
        start_time=_time(start) if node or not state.is_final else None,
        end_time=None if state in (JobState.PENDING, JobState.HELD, JobState.UNKNOWN) else _time(end),
        exit_status=exit_status,
    )


_NOT_OPENED = 53  # no signal that anybody sent: what is left of slurmd's ESLURMD_IO_ERROR, 4021


def _never(reason: str) -> str:
    """Why a job that waits for this reason will never start; empty: it may."""
    return _words(reason, _NEVER)


def _words(reason: str, table: Mapping[str, str]) -> str:
    return next((words for pattern, words in table.items() if re.fullmatch(pattern, reason)), "")


def _ending(exit_code: str) -> tuple[int, int]:
    """Exit code and signal: squeue tells the status as wait() gives it, sacct writes `3:0`."""
    if told := re.fullmatch(r"([0-9]{1,3}):([0-9]{1,3})", exit_code):
        return int(told[1]), int(told[2])
    wait_status = int(exit_code) if re.fullmatch(r"[0-9]{1,5}", exit_code) else 0
    return wait_status >> 8 & 0xFF, wait_status & 0x7F


def _first_node(nodes: str) -> str:
    """`node1` of `node[1-3],gpu7`."""
    first = re.match(r"([\w.-]+)(?:\[([0-9]+))?", nodes)
    return "" if first is None or nodes in ("n/a", "None assigned", "None") else first[1] + (first[2] or "")


def _time(told: str) -> float | None:
    if re.fullmatch(r"[0-9]{1,12}", told):
        return float(told) or None
    try:
        return datetime.fromisoformat(told).replace(tzinfo=UTC).timestamp()
    except (ValueError, OverflowError):
        return None  # N/A, Unknown, None


def cancel_command(job_ids: Sequence[str]) -> list[str]:
    return [*_ASK, "scancel", *job_ids]


def is_cancelled(result: Result) -> bool:
    errors = [line for line in result.output.splitlines() if "error:" in line]
    gone = [line for line in errors if re.search("Invalid job id specified|already complet", line)]
    return result.exit_status == 0 or (bool(errors) and gone == errors)


def estimate_command(script: str) -> list[str]:
    return [*_ASK, "sbatch", "--test-only", script]


def parse_estimate(result: Result) -> float:
    told = re.search(r"Job [0-9]+ to start at (\S+)", result.stderr + result.stdout)
    start_time = _time(told[1]) if told and result.exit_status == 0 else None
    if start_time is None:
        raise UnreadableOutput(f"sbatch: {result.last_words}")
    return start_time


# not those that would not start if it were their turn
_ASIDE = re.compile("held|hold|Dependency|BeginTime|Limit", re.IGNORECASE)
_WAITING = re.compile(r"^([1-9][0-9]{0,17})[^|\n]*\|([0-9]{1,18})\|([^|\n]+)\|([^|\n]+)\|(.*)", re.MULTILINE)


def place_command() -> list[str]:
    # without -r: an array is one line
    return [*_ASK, "squeue", "-h", "-t", "PD", "-o", "%i|%Q|%u|%P|%r"]


def parse_place(result: Result, job_id: str) -> Place | None:
    """Among those that wait for the same partition."""
    told = _WAITING.findall(result.stdout)
    # of a heterogeneous job its first component counts
    waiting = {row[0]: row for row in reversed(told) if not (_ASIDE.search(row[4]) or _never(row[4]))}
    number = job_id.partition("_")[0]
    if number not in waiting or len({user for _, _, user, _, _ in told}) == 1:
        return None  # nobody else is seen: a site may hide others' jobs, and nobody could tell
    mine = set(waiting[number][3].split(","))
    rivals = [row for row in waiting.values() if mine & set(row[3].split(","))]
    return Place.among([row[0] for row in sorted(rivals, key=lambda row: (-int(row[1]), int(row[0])))], number)


def queues_command() -> list[str]:
    return [*_ASK, "sinfo", "-h", "-o", "%P|%a|%l|%D|%c|%m"]


def parse_queues(result: Result) -> list[Queue]:
    lines = re.findall(r"^([^|\s]+)\|(\w+)\|([^|\s]*)\|([0-9]{1,9})\|([0-9]{1,9})\+?\|([0-9]{1,12})\+?$",
                       result.stdout, re.MULTILINE)  # fmt: skip
    if result.exit_status or (result.stdout.strip() and not lines):
        raise UnreadableOutput(f"sinfo: {result.last_words}")
    return [
        Queue(
            name=name.removesuffix("*"),
            is_default=name.endswith("*"),
            is_open=available == "up",
            walltime_limit_s=_walltime_s(limit),
            nodes=int(nodes),
            cores_per_node=int(cores),
            memory_per_node_bytes=int(mebibytes) * 2**20,
            note="" if available == "up" else available,
        )
        for name, available, limit, nodes, cores, mebibytes in lines
    ]


def _walltime_s(limit: str) -> int:
    """Seconds in `1-00:00:00` or `5:00`; 0 for `infinite`."""
    told = re.fullmatch(r"(?:(?:([0-9]{1,6})-)?([0-9]{1,6}):)?([0-9]{1,6}):([0-9]{2})", limit)
    days, hours, minutes, seconds = (int(part or 0) for part in told.groups()) if told else (0, 0, 0, 0)
    return ((days * 24 + hours) * 60 + minutes) * 60 + seconds
