"""Grid Engine: SoGE 8.1.9, UGE and AGE alike. Cores are slots, and slots come from a parallel environment (PE).

Over several nodes it is the PE's own allocation rule that says how many nodes; a job cannot. Options: `sge_pe` (`smp`)
for one node, `sge_pe_nodes` (`mpi`) for several, `sge_gpu` (`gpu`), and `sge_memory`, what the site calls memory per
slot. That is `mem_free` at first, which exists everywhere and only chooses a node; `h_vmem` limits the address space,
of which threads and JupyterLab reserve far more than they use. `none` asks for no memory.
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime

from hpclab.errors import ConfigError, UnreadableOutput
from hpclab.job import JobSpec, JobState, JobStatus, Place, Queue
from hpclab.result import Result
from hpclab.units import counted

DIRECTIVE = "#$"
SUBMIT_HOST = "SGE_O_HOST"
HAS_ARRAYS = True
NOT_FROM_HERE = r"(not a|no|neither) (submit|admin) (host|nor admin host)|set the environment variable SGE_ROOT"
JOB_ID = '$JOB_ID$([ "${SGE_TASK_ID:-undefined}" = undefined ] || printf .%s "$SGE_TASK_ID")'
END_TIME = ""  # neither the environment nor the job's spool folder tells

# with -V in a sge_request the first two would make a PE job of every job that is submitted from within one
_SGE = ["env", "-u", "PE", "-u", "PE_HOSTFILE", "-u", "SGE_DEBUG_LEVEL", "-u", "SGE_ND"]
_ASK = [*_SGE, "LC_ALL=C", "TZ=UTC", "SGE_SINGLE_LINE=1"]  # the clients write local times
_QSUB = ["qsub", "-terse", "-b", "n"]  # a sge_request with -b y would have the directives ignored


def directives(spec: JobSpec) -> list[str]:
    if spec.qos:
        raise ConfigError(f"Grid Engine has no qos, so {spec.qos!r} cannot be asked for\nuse partition or account")
    slots = spec.cores
    pe = spec.options.get("sge_pe_nodes") or "mpi" if spec.nodes > 1 else spec.options.get("sge_pe") or "smp"
    memory = spec.options.get("sge_memory") or "mem_free"
    lines = [
        "-S /bin/bash",
        f"-N {spec.name}",
        "-r n",
        "-notify",  # else qdel and h_rt kill without a word; so they send SIGUSR2 first
        "-m n",
        "-j y",
        f'-o "{_output(spec.log, "$JOB_ID")}"',
        f"-l h_rt={spec.walltime_s}",
    ]
    if slots > 1 or spec.nodes > 1:
        lines.append(f"-pe {pe} {slots}")
    if memory != "none":
        lines.append(f"-l {memory}={-(-spec.memory_per_core_bytes // 2**20)}M")
    if memory == "mem_free":
        lines.append("-w n")  # a -w e in a sge_request refuses whatever asks for a load value
    if spec.gpus:
        lines.append(f"-l {spec.options.get('sge_gpu') or 'gpu'}={-(-spec.gpus // spec.nodes)}")
    if spec.partition:
        lines.append(f"-q {spec.partition}")
    if spec.account:
        lines.append(f"-P {spec.account}")
    if spec.constraint:
        lines.append(f"-l {spec.constraint}")
    return lines + list(spec.extra)


def _output(log: str, job_id: str) -> str:
    """Beside the job's log, not the log: what Grid Engine itself says, which it appends."""
    path = log.replace("{job_id}", job_id).removesuffix(".log") + ".out"
    if re.search(r"""["',$\n]""", log):
        raise ConfigError(f"Grid Engine cannot write to {log!r}\nuse a folder without quotes, commas and $ in its name")
    return f":{path}" if ":" in path else path  # HOST:PATH


def submit_command(script: str, *, count: int = 1, log: str = "") -> list[str]:
    tasks = ["-t", f"1-{count}"] if count > 1 else []
    output = ["-o", _output(log, "$JOB_ID.$TASK_ID")] if count > 1 and log else []
    return [*_SGE, *_QSUB, *tasks, *output, script]


def parse_job_ids(stdout: str, count: int = 1) -> list[str]:
    answers = [re.fullmatch(r"([0-9]{1,18})(?:\.1-([0-9]{1,9}):1)?", line.strip()) for line in stdout.splitlines()]
    found = [answer for answer in answers if answer]
    if not found or int(found[-1][2] or 1) != count:
        raise UnreadableOutput(f"no ids of {count} job(s) in the answer of qsub: {stdout!r}")
    number = found[-1][1]
    return [f"{number}.{task}" for task in range(1, count + 1)] if found[-1][2] else [number]


# A job of a node that died stays `r` for ever, hence the queues that do not answer. Only -j knows an error's reason.
# -u and -s, since a ~/.sge_qstat may choose otherwise.
_STATUS = r"""
echo "asked: $*"
me=$(id -un)
qstat -xml -r -u "$me" -s prs || exit
echo; echo "silent:"
qstat -f -xml -qs u -u "$me" -s r 2>/dev/null
echo; echo "told:"
qstat -j "$(printf '%s\n' "${@%%.*}" | sort -u | paste -sd, -)" 2>/dev/null |
    grep -aE '^(job_number|error reason|scheduling info|  )' | head -c 1000000
exit 0"""


def status_command(job_ids: Sequence[str]) -> list[str]:
    return [*_ASK, "bash", "-c", _STATUS, "bash", *job_ids]


def parse_status(result: Result) -> dict[str, JobStatus]:
    if result.exit_status:
        raise UnreadableOutput(result.last_words)
    parts = re.search(r"^asked:(.*?)\n(.*)^silent:\n(.*)^told:\n(.*)", result.stdout, re.MULTILINE | re.DOTALL)
    if not parts:
        raise UnreadableOutput(f"qstat answered {result.last_words!r}")
    silent = {str(queue.findtext("name")): queue.findtext("state") for queue in _xml(parts[3]).iter("Queue-List")}
    blocks = re.split(r"^job_number:\s*([0-9]+)", parts[4], flags=re.MULTILINE)
    told = dict(zip(blocks[1::2], blocks[2::2], strict=True))
    asked: dict[str, list[str]] = {}
    for job_id in parts[1].split():
        number, _, task = job_id.partition(".")
        asked.setdefault(number, []).append(task)
    answer = _xml(parts[2])
    for full in list(answer.iter("Queue-List")):  # with -f in ~/.sge_qstat
        for job in full.iter("job_list"):
            ET.SubElement(job, "queue_name").text = full.findtext("name")
    statuses = {}
    for job in answer.iter("job_list"):
        number = job.findtext("JB_job_number") or ""
        for task in asked.get(number, []):
            # only tasks that were asked for, as 1-75000:1 is one line; with -g t in ~/.sge_qstat each slot has its own
            if job.findtext("master") != "SLAVE" and _is_among(task, job.findtext("tasks") or ""):
                job_id = f"{number}.{task}" if task else number
                statuses[job_id] = _status(job_id, job, silent, told.get(number, ""))
    return statuses


def _xml(text: str) -> ET.Element:
    try:
        # a second question that was not answered is no reason to lose the answer to the first
        return ET.fromstring(text[max(text.find("<?xml"), 0) :].strip() or "<nothing/>")
    except (ET.ParseError, ValueError) as error:
        raise UnreadableOutput(f"qstat answered {text[:200]!r}: {error}") from error


def _is_among(task: str, tasks: str) -> bool:
    """`tasks` is like `3,4` or `1-100:1,107`; no task: not of an array."""
    if not task:
        return True
    for part in re.finditer(r"([0-9]{1,12})(?:-([0-9]{1,12}):([0-9]{1,12}))?", tasks):
        first, last, step = int(part[1]), int(part[2] or part[1]), int(part[3] or 1)
        if re.fullmatch("[0-9]{1,12}", task) and int(task) in range(first, last + 1, step or 1):
            return True
    return False


def _status(job_id: str, job: ET.Element, silent: dict[str, str | None], told: str) -> JobStatus:
    letters = job.findtext("state") or ""
    queue = job.findtext("queue_name") or ""
    node = queue.partition("@")[2]
    state = _state(letters)
    start_time = _time(job.findtext("JAT_start_time") or "")
    walltime_s = _seconds(job.findtext("hard_request[@name='h_rt']") or "")
    reason = ""
    if queue in silent:
        state, reason = JobState.UNKNOWN, f"{node} does not answer (queue {queue} in state {silent[queue]})"
    elif "E" in letters:
        error = re.search(rf"^error reason\s+{job_id.partition('.')[2] or '1'}:\s+(.*)$", told, re.MULTILINE)
        words = re.sub(r"^[0-9/]+ [0-9:.]+ \[[0-9:]+\]: ", "", error[1]) if error else "Grid Engine could not start it"
        reason = f"{words} ({letters}: it will not start)"
    elif state is JobState.HELD:
        reason = f"{'held' if 'h' in letters else 'suspended'} ({letters})"
    elif state is JobState.PENDING:
        reason = _why_waiting(told)
    return JobStatus(
        job_id=job_id,
        state=state,
        reason=reason,
        node=node,
        start_time=start_time,
        end_time=start_time + walltime_s if start_time and walltime_s else None,
    )


def _state(letters: str) -> JobState:
    """Letters add up: `hqw` is held and waits, `dr` runs and is being deleted."""
    given = set(letters)
    if given & set("d"):
        return JobState.COMPLETING
    if given & set("E"):
        return JobState.HELD
    if given & set("sSTNP") or ("h" in given and given & set("qw")):  # N, P: UGE's enhanced suspension, preemption
        return JobState.HELD
    if given & set("rt"):
        return JobState.RUNNING
    return JobState.PENDING if given & set("qw") else JobState.UNKNOWN


_DROPPED = re.compile(
    r'queue instance "[^"]*" dropped because it is (.+)|.*in queue "[^"]*" because it offers only hc:slots=0\.0+'
)
_NO_REASON = re.compile("no messages available|turned off|hard queue list|^$")
_HINTS = {
    "h_rt=": " (that queue does not take so long a walltime)",
    "offers 0 slots": " (too few slots are free, or there are fewer in all)",
}


def _why_waiting(told: str) -> str:
    """The first few of what can be a line per queue and host; empty where the site has this turned off."""
    info = re.search(r"^scheduling info:(.*(?:\n  .*)*)", told, re.MULTILINE)
    lines = dict.fromkeys(line.strip() for line in info[1].splitlines()) if info else {}
    dropped = Counter(match[1] or "full" for line in lines if (match := _DROPPED.fullmatch(line)))
    reasons = [
        f"{counted(many, 'queue instance')} {'is' if many == 1 else 'are'} {how}" for how, many in dropped.items()
    ]
    reasons += [line for line in lines if not (_NO_REASON.search(line) or _DROPPED.fullmatch(line))]
    hints = ["".join(hint for word, hint in _HINTS.items() if word in reason) for reason in reasons]
    # that it will never start none of them says: a queue that is only full is not always among them
    return "; ".join(reason + hint for reason, hint in list(zip(reasons, hints, strict=True))[:3])


def _seconds(text: str) -> int:
    """`300`, `0:5:0`; 0 for INFINITY and whatever else."""
    clock = re.fullmatch(r"(?:(?:([0-9]{1,9}):)?([0-9]{1,9}):)?([0-9]{1,9})(?:\.[0-9]*)?s?", text.strip())
    hours, minutes, seconds = (int(part or 0) for part in clock.groups()) if clock else (0, 0, 0)
    return (hours * 60 + minutes) * 60 + seconds


def _time(text: str) -> float | None:
    """qstat's and qacct's times, and UGE's, which have fractions of a second; in UTC by `_ASK`."""
    for form in ("%Y-%m-%dT%H:%M:%S", "%a %b %d %H:%M:%S %Y", "%m/%d/%Y %H:%M:%S"):
        try:
            return datetime.strptime(re.sub(r"\.[0-9]+$", "", text.strip()), form).replace(tzinfo=UTC).timestamp()
        except ValueError:
            continue
    return None


# -o, since the numbers begin anew at some point
_HISTORY = r"""
me=$(id -un)
for number in $(printf '%s\n' "${@%%.*}" | sort -u); do qacct -o "$me" -j "$number"; done"""


def history_command(job_ids: Sequence[str]) -> list[str]:
    return [*_ASK, "bash", "-c", _HISTORY, "bash", *job_ids]


def parse_history(result: Result) -> dict[str, JobStatus]:
    records = [dict(_FIELD.findall(record)) for record in re.split(r"^=+$", result.stdout, flags=re.MULTILINE)[1:]]
    unknown = r"error: job id [0-9]+ not found"
    if not records and not all(re.fullmatch(unknown, line.strip()) for line in _lines(result, default="no word")):
        raise UnreadableOutput(result.last_words)
    # of a job with processes on other nodes, and of one that ran twice, the last record is the job's
    ended = [_ended(record) for record in records if "jobnumber" in record]
    return {status.job_id: status for status in ended}


_FIELD = re.compile(r"^([a-z_]+)[ \t]+(\S.*?)[ \t]*$", re.MULTILINE)


def _ended(record: dict[str, str]) -> JobStatus:
    task = record.get("taskid", "undefined")
    failure = re.match(r"([0-9]{1,9})\s*:?\s*(.*)", record.get("failed", ""))
    failed, words = (int(failure[1]), failure[2]) if failure else (0, "")
    code = re.match(r"[0-9]{1,9}", record.get("exit_status", ""))
    exit_status = int(code[0]) if code else None
    state, reason = JobState.FAILED, f"failed {failed}: {words}" if failed else f"exit status {exit_status}"
    if (deleted_by := record.get("deleted_by", "NONE")) != "NONE":
        state, reason = JobState.CANCELLED, f"cancelled by {deleted_by}"
    elif "enforced" in words:
        reason = f"{_limit(record)} ({words})"
    elif "deleted_by" not in record and (exit_status == 143 or (failed == 100 and exit_status in (137, 140))):
        # qdel, first by SIGUSR2, upon which our scripts end with 143, then by SIGKILL; SoGE keeps no word of it
        state, reason = JobState.CANCELLED, f"killed from outside, as qdel does ({reason})"
    elif failed == 0 and exit_status == 0:
        state, reason = JobState.DONE, ""
    return JobStatus(
        job_id=record["jobnumber"] if task in ("undefined", "0") else f"{record['jobnumber']}.{task}",
        state=state,
        reason=reason,
        node=record.get("hostname", ""),
        start_time=_time(record.get("start_time", "")),
        end_time=_time(record.get("end_time", "")),
        exit_status=None if failed and exit_status == 0 else exit_status,  # it never began
    )


def _limit(record: dict[str, str]) -> str:
    asked = re.search(r"\bh_rt=([0-9:]+)", record.get("category", ""))
    if asked and _seconds(record.get("ru_wallclock", "")) >= _seconds(asked[1]):
        return "its walltime was reached"
    return "it took more than its limits allow, of memory most probably"


def cancel_command(job_ids: Sequence[str]) -> list[str]:
    return [*_ASK, "qdel", *job_ids]


def is_cancelled(result: Result) -> bool:
    fine = r"has registered the job|has deleted job|is already in deletion|does not exist|comprises no tasks"
    return result.exit_status == 0 or all(re.search(fine, line) for line in _lines(result, default="no word"))


def _lines(result: Result, *, default: str) -> list[str]:
    return [line for line in (result.stdout + "\n" + result.stderr).splitlines() if line.strip()] or [default]


# whether it could start now is all that can be asked; -w v, whether it ever could, fails at every load value
_ESTIMATE = 'date +%s; "${@:2}" -w p "$1"'


def estimate_command(script: str) -> list[str]:
    return [*_ASK, "bash", "-c", _ESTIMATE, "bash", script, *_QSUB]


def parse_estimate(result: Result) -> float:
    now = re.search(r"^[0-9]{9,12}$", result.stdout, re.MULTILINE)
    if now and "found suitable queue" in result.stdout:
        return float(now[0])
    words = [line for line in result.output.splitlines() if not re.match("Exiting|verification:|[0-9]+$", line)]
    raise UnreadableOutput("; ".join(line.strip() for line in words[:3]) or result.last_words)


def place_command() -> list[str]:
    return [*_ASK, "qstat", "-xml", "-u", "*", "-s", "p"]


def parse_place(result: Result, job_id: str) -> Place | None:
    # qstat tells them as the scheduler looks at them: by priority, whatever queue they wait for
    jobs = [
        job for job in _xml(result.stdout).iter("job_list") if _state(job.findtext("state") or "") is JobState.PENDING
    ]
    waiting = dict.fromkeys(job.findtext("JB_job_number") or "" for job in jobs)
    return Place.among([*waiting], job_id.partition(".")[0])


def queues_command() -> list[str]:
    return [*_ASK, "bash", "-c", "qstat -g c -xml && qconf -sq '*'"]


def parse_queues(result: Result) -> list[Queue]:
    if result.exit_status:
        raise UnreadableOutput(result.last_words)
    summary, end, settings = result.stdout.partition("</job_info>")
    counts = {count.findtext("name"): count for count in _xml(summary + end).iter("cluster_queue_summary")}
    return [
        _queue(told, counts[told["qname"]])
        for told in (dict(_FIELD.findall(block)) for block in re.split(r"^(?=qname\s)", settings, flags=re.MULTILINE))
        if told.get("qname") in counts
    ]


def _queue(told: dict[str, str], counts: ET.Element) -> Queue:
    total, disabled, broken = (
        _seconds(counts.findtext(name) or "") for name in ("total", "temp_disabled", "manual_intervention")
    )
    # the queue's own value, then those of single hosts: 16,[node7=32]
    slots = [int(number) for number in re.findall(r"(?:^|=)([0-9]{1,9})\b", told.get("slots", ""))]
    return Queue(
        name=told["qname"],
        is_open=total > disabled + broken,
        walltime_limit_s=_seconds(told.get("h_rt", "").partition(",")[0]),
        nodes=total // slots[0] if len(slots) == 1 and slots[0] else 0,
        cores_per_node=max(slots, default=0),
        note=f"parallel environments: {told.get('pe_list', 'none')}",
    )
