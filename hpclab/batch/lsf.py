"""IBM Spectrum LSF 10.1.0.2 or newer, whose bjobs speaks JSON: bsub, bjobs, bkill, bqueues. From its documentation.

States: PEND PROV WAIT PSUSP RUN USUSP SSUSP DONE EXIT UNKWN ZOMBI. bjobs tells times as `Nov 21 03:10`, with neither
year nor zone: it is asked in UTC, after the clock, and the year is the one that brings a time next to the clock.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from hpclab.errors import ConfigError, UnreadableOutput
from hpclab.job import JobSpec, JobState, JobStatus, Place, Queue
from hpclab.result import Result

DIRECTIVE = "#BSUB"
SUBMIT_HOST = "LSB_SUB_HOST"
HAS_ARRAYS = True
NOT_FROM_HERE = r"non-LSF host|not (used|known) by (LSF|LIM)|lsf\.conf.*(No such file|not found|[Cc]an't open)"
# LSF sets the index for every job: 0 where there is no array
JOB_ID = '${LSB_JOBID}$([ "${LSB_JOBINDEX:-0}" = 0 ] || echo "[$LSB_JOBINDEX]")'
END_TIME = ""  # LSF does not tell its jobs

STATES = {
    "PEND": JobState.PENDING,
    "PROV": JobState.PENDING,
    "WAIT": JobState.PENDING,
    "PSUSP": JobState.HELD,
    "USUSP": JobState.HELD,
    "SSUSP": JobState.HELD,
    "RUN": JobState.RUNNING,
    "DONE": JobState.DONE,
    "EXIT": JobState.FAILED,
}

_UNITS = {"KB": 2**10, "MB": 2**20, "GB": 2**30}

# bsub hands its environment on to the job. Inside a job it has the outer job's variables, and the user may have set
# BSUB_CHK_RESREQ (check, do not submit), BSUB_QUIET, BSUB_STDERR. LSB_DEFAULTQUEUE and -PROJECT are meant to be read.
_BSUB = """\
for name in ${!LSB_*} ${!LS_*} ${!BSUB_*}; do [[ $name == LSB_DEFAULT* ]] || unset "$name"; done
"""
_SUBMIT = _BSUB + 'exec bsub <"$1"'
_SUBMIT_ARRAY = (
    _BSUB
    + r"""name=$(sed -n 's/^#BSUB -J \([^[]*\).*/\1/p' "$1" | head -n 1)
exec bsub -J "${name:-hpclab}[1-$2]" "${@:3}" <"$1"
"""
)
# a client would try for ever while LSF is down; what changes its output is cleared
_ASK = """\
for name in ${!LSB_*}; do unset "$name"; done
export LC_ALL=C TZ=UTC0 LSB_NTRIES=2
"""
_FIELDS = (
    "jobid jobindex stat exit_code exit_reason kill_reason suspend_reason pend_reason exec_host start_time finish_time"
    " run_time estimated_start_time"
)

_CANCELLED = ("TERM_OWNER", "TERM_FORCE_OWNER", "TERM_ADMIN", "TERM_FORCE_ADMIN", "TERM_BUCKET_KILL", "TERM_REMOVE")
_IN_WORDS = {
    **dict.fromkeys(_CANCELLED, "cancelled"),
    "TERM_RUNLIMIT": "the walltime was reached",
    "TERM_MEMLIMIT": "it used more memory than it had asked for",
    "TERM_PREEMPT": "another job took its place",
    "TERM_ZOMBIE": "its node was lost",
}
_HINTS = {
    "no suitable hosts": "it will not start: no host has what it asks for",
    "never satisfied": "it will not start: what it waits for will not happen",
    "queue is inactivated": "it waits until an administrator opens the queue",
    "outside its time windows": "it waits until its queue opens",
}


def directives(spec: JobSpec) -> list[str]:
    if spec.qos:
        raise ConfigError("LSF has no QOS\nleave it empty; a service class goes into the extra directives: -sla NAME")
    slots_per_node = -(-spec.cores // spec.nodes)
    span = "hosts=1" if spec.nodes == 1 else f"ptile={slots_per_node}"
    minutes = -(-spec.walltime_s // 60)
    memory = _memory(spec)
    lines = [
        f"-J {spec.name}",
        f"-n {spec.cores}",
        f'-R "span[{span}]"',
        f'-R "rusage[mem={memory}]"',
        f"-M {memory}",
        f"-W {minutes // 60}:{minutes % 60:02}",
        f"-o {_output(spec.log, '%J')}",
        "-rn",
    ]
    if spec.partition:
        lines.append(f"-q {_word(spec.partition)}")
    if spec.account:
        lines.append(f"-P {_word(spec.account)}")
    if spec.constraint:
        lines.append(f'-R "select[{_plain(spec.constraint)}]"')
    if spec.gpus:
        lines.append(f'-gpu "num={-(-spec.gpus // spec.nodes)}"')  # per node
    return lines + list(spec.extra)


def _memory(spec: JobSpec) -> str:
    """Rounded up, and with its unit, for a bare number's unit differs between sites."""
    unit = spec.options.get("lsf_memory_unit", "MB")
    per = spec.options.get("lsf_memory_per", "slot")
    if unit not in _UNITS:
        raise ConfigError(f"lsf_memory_unit is {unit!r}\nsay one of {', '.join(_UNITS)}")
    if per not in ("slot", "host"):
        raise ConfigError(f"lsf_memory_per is {per!r}\nsay slot or host")
    if per == "slot":
        return f"{-(-spec.memory_per_core_bytes // _UNITS[unit])}{unit}"
    return f"{-(-spec.memory_bytes // (max(spec.nodes, 1) * _UNITS[unit]))}{unit}"


def _output(log: str, job_id: str) -> str:
    """Where LSF's own report goes, beside the job's log."""
    folder, slash, _ = log.rpartition("/")
    if "%" in folder:
        raise ConfigError(f"LSF would take the % in {folder!r} for a placeholder\nuse a folder without one")
    return _word(folder.replace("{job_id}", job_id) + slash + job_id + ".out")


def _word(text: str) -> str:
    """One word of a directive."""
    return _plain(text) if re.fullmatch(r"[\w./%:@+,=-]+", text) else f'"{_plain(text)}"'


def _plain(text: str) -> str:
    """bsub has no way to write these in quotes that is documented."""
    if found := re.search(r'["\\$`\x00-\x1f\x7f]', text):
        raise ConfigError(f"LSF cannot be told of {found[0]!r} in {text!r}\nuse a name without it")
    return text


def submit_command(script: str, *, count: int = 1, log: str = "") -> list[str]:
    if count == 1:
        return ["bash", "-c", _SUBMIT, "bash", script]
    output = ["-o", _output(log, "%J.%I").strip('"')] if log else []
    return ["bash", "-c", _SUBMIT_ARRAY, "bash", script, str(count), *output]


def parse_job_ids(stdout: str, count: int = 1) -> list[str]:
    ids = re.findall(r"^Job <([0-9]{1,18})> is submitted\b.*$", stdout, re.MULTILINE)
    if not ids:
        raise UnreadableOutput(f"no job id in the answer of bsub: {stdout!r}")
    return [ids[-1]] if count == 1 else [f"{ids[-1]}[{index}]" for index in range(1, count + 1)]


def status_command(job_ids: Sequence[str]) -> list[str]:
    return ["bash", "-c", f'{_ASK}date +%s\nexec bjobs -a -json -o "{_FIELDS}" "$@"', "bash", *job_ids]


def parse_status(result: Result) -> dict[str, JobStatus]:
    clock = re.search(r"^[0-9]{9,11}$", result.stdout, re.MULTILINE)
    now = float(clock[0]) if clock else None
    statuses = (_status(record, now) for record in _records(result))
    return {status.job_id: status for status in statuses if status}


_NO_JOBS = re.compile(r"Job <[^>]*> is not found|No (unfinished |matching )?jobs? found", re.IGNORECASE)


def _records(result: Result) -> list[dict[str, str]]:
    """The records of `-json`, all of their values text; those with an ERROR are of jobs that LSF does not know."""
    answer = re.search(r"^\{.*\}", result.stdout, re.MULTILINE | re.DOTALL)
    if answer is None:
        said = [line for line in (result.stdout + "\n" + result.stderr).splitlines() if line.strip(" 0123456789")]
        if all(map(_NO_JOBS.search, said)) and (said or result.exit_status == 0):
            return []
        raise UnreadableOutput(result.last_words)
    try:
        records: Any = json.loads(answer[0], strict=False)["RECORDS"]
        return [
            {str(name): "" if value in (None, "-") else str(value).strip() for name, value in record.items()}
            for record in records
            if "ERROR" not in record
        ]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UnreadableOutput(f"no records in the answer {result.stdout[-300:]!r}: {error!r}") from error


def _status(record: Mapping[str, str], now: float | None) -> JobStatus | None:
    job_id, index = record.get("JOBID", ""), record.get("JOBINDEX", "")
    if not re.fullmatch(r"[0-9]+(\[[0-9]+\])?", job_id):
        return None
    if "[" not in job_id and re.fullmatch(r"[1-9][0-9]*", index):
        job_id = f"{job_id}[{index}]"
    code = record.get("EXIT_CODE", "")
    exit_status = int(code) if re.fullmatch(r"[0-9]{1,4}", code) else None
    state = STATES.get(record.get("STAT", ""), JobState.UNKNOWN)
    reason, start, end = record.get("EXIT_REASON", ""), None, None
    if state is JobState.PENDING:
        reason = _with_hint(record.get("PEND_REASON", ""))
        start = _time(record.get("ESTIMATED_START_TIME", ""), now)
    else:
        start = _started(record, now)
        end = _time(record.get("FINISH_TIME", ""), now)
    if state is JobState.HELD:
        reason = record.get("SUSPEND_REASON") or record.get("PEND_REASON") or "suspended"
        reason, end = f"{reason} ({record['STAT']})", None
    elif state is JobState.RUNNING and start and end:
        reason, end = "", end + start % 60  # a limit is whole minutes, and FINISH_TIME cuts the seconds off
    elif state is JobState.UNKNOWN:
        stat = record.get("STAT", "")
        reason, end = ("LSF has lost contact with its node (UNKWN)" if stat == "UNKWN" else stat), None
    elif state is JobState.DONE:
        reason, exit_status = "", exit_status or 0
    elif state is JobState.FAILED:
        state, reason = _ended(reason, record.get("KILL_REASON", ""))
    if state.is_final and start and end:
        end = max(start, end)
    return JobStatus(
        job_id=job_id,
        state=state,
        reason=reason,
        node=record.get("EXEC_HOST", "").split(":")[0].split("*")[-1],
        start_time=start,
        end_time=end,
        exit_status=exit_status if state.is_final else None,
    )


def _ended(reason: str, kill_reason: str) -> tuple[JobState, str]:
    term = re.search(r"TERM_[A-Z_]+", reason)
    state = JobState.CANCELLED if term and term[0] in _CANCELLED else JobState.FAILED
    told = "; ".join(filter(None, [reason, kill_reason]))
    words = _IN_WORDS.get(term[0], "") if term else ""
    return state, f"{words} ({told})" if words else told


def _with_hint(reason: str) -> str:
    one_line = " ".join(reason.split())
    hints = [hint for words, hint in _HINTS.items() if words in one_line.lower()]
    return f"{one_line.rstrip(';')} ({hints[0]})" if hints else one_line


def _started(record: Mapping[str, str], now: float | None) -> float | None:
    """START_TIME has no seconds; RUN_TIME has, as long as the job was never suspended."""
    start = _time(record.get("START_TIME", ""), now)
    ran = re.match(r"([0-9]{1,9}) second", record.get("RUN_TIME", ""))
    if start and now and ran and record.get("STAT") == "RUN" and start <= now - int(ran[1]) < start + 60:
        return now - int(ran[1])
    return start


_TIME = re.compile(
    r"(?P<month>[A-Z][a-z]{2}) +(?P<day>[0-9]{1,2}) +(?P<hour>[0-9]{1,2}):(?P<minute>[0-9]{2})(:(?P<second>[0-9]{2}))?"
    r"( +(?P<year>[0-9]{4}))?( [LA])?",
    re.ASCII,
)
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


def _time(text: str, now: float | None) -> float | None:
    """Seconds since the epoch of `Nov 21 03:10`, also with seconds, a year, and L (by the limit) or A (actual).

    Not with E or X: those are the end by somebody's estimate.
    """
    match = _TIME.fullmatch(text)
    if match is None or match["month"] not in _MONTHS or not (match["year"] or now):
        return None
    month = _MONTHS.index(match["month"]) + 1
    rest = [int(match[part] or 0) for part in ("day", "hour", "minute", "second")]
    this_year = datetime.fromtimestamp(now or 0, UTC).year
    times = []
    for year in [int(match["year"])] if match["year"] else [this_year - 1, this_year, this_year + 1]:
        try:
            times.append(datetime(year, month, *rest, tzinfo=UTC).timestamp())  # type: ignore[misc,arg-type]
        except (ValueError, OverflowError):
            pass  # 29 February
    return min(times, key=lambda time: abs(time - (now or 0)), default=None)


def history_command(job_ids: Sequence[str]) -> list[str]:
    return []  # bhist reads event files for minutes, and its words are for people


def parse_history(result: Result) -> dict[str, JobStatus]:
    return {}


def cancel_command(job_ids: Sequence[str]) -> list[str]:
    return ["bash", "-c", f'{_ASK}exec bkill "$@"', "bash", *job_ids]


_GONE = re.compile(
    r"Job <[^>]*>.*(is being (terminated|signaled)|already finished|no matching job|not found)", re.IGNORECASE
)


def is_cancelled(result: Result) -> bool:
    said = [line for line in (result.stdout + "\n" + result.stderr).splitlines() if line.strip()]
    return result.exit_status == 0 or (bool(said) and all(map(_GONE.match, said)))


def estimate_command(script: str) -> list[str]:
    return []


def parse_estimate(result: Result) -> float:
    raise UnreadableOutput("LSF gives no estimates before a job is submitted")


def place_command() -> list[str]:
    return []  # bjobs tells the order of arrival, which is not that of a queue with fair share


def parse_place(result: Result, job_id: str) -> Place | None:
    return None


def queues_command() -> list[str]:
    return ["bash", "-c", f"{_ASK}exec bqueues -l", "bash"]


def parse_queues(result: Result) -> list[Queue]:
    _, *queues = re.split(r"^QUEUE: *", result.stdout, flags=re.MULTILINE)
    if not queues:
        raise UnreadableOutput(result.last_words)
    return [_queue(text) for text in queues]


def _queue(text: str) -> Queue:
    """What `bqueues -l` says of one, without its first word."""
    name, _, rest = text.partition("\n")
    about = re.match(r"\s*-- (.*)", rest)
    status = re.search(r"^PRIO .*\n *\S+ +\S+ +(\S+)", rest, re.MULTILINE)
    state = status[1] if status else ""
    # the last one is the maximum, one before it the default; other limits may stand in the same two lines
    limits = re.findall(r"^((?:\w+ +)*RUNLIMIT)(?!\S).*\n(.*)", re.sub(r"^ +", "", rest, flags=re.M), re.MULTILINE)
    minutes = re.findall(r"([0-9]{1,9}(?:\.[0-9]+)?) min", limits[-1][1]) if limits else []
    column = len(limits[-1][0].split()) - 1 if limits else 0
    return Queue(
        name=name.strip(),
        is_default="This is the default queue" in rest or "This is a default queue" in rest,
        is_open=state in ("", "Open:Active"),
        walltime_limit_s=int(float(minutes[column]) * 60) if column < len(minutes) else 0,
        note=(about[1].split("  This is")[0].strip() if about else "") if state == "Open:Active" else state,
    )
