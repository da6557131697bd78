"""The embedded batch system, `python -m hpclab.localq`: this machine, with slots and walltimes.

States: PENDING RUNNING COMPLETED FAILED CANCELLED TIMEOUT UNKNOWN, one JSON object a line.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Sequence

from hpclab.errors import UnreadableOutput
from hpclab.job import JobSpec, JobState, JobStatus, Place, Queue
from hpclab.result import Result

DIRECTIVE = "#HPCLAB"
SUBMIT_HOST = ""
HAS_ARRAYS = False
NOT_FROM_HERE = r"(?!)"  # it is asked on its own host alone
JOB_ID = "$HPCLAB_LOCALQ_JOB_ID"
END_TIME = "$HPCLAB_LOCALQ_END_TIME"

STATES = {
    "PENDING": JobState.PENDING,
    "RUNNING": JobState.RUNNING,
    "COMPLETED": JobState.DONE,
    "FAILED": JobState.FAILED,
    "CANCELLED": JobState.CANCELLED,
    "TIMEOUT": JobState.FAILED,
}

_LOCALQ = ["python", "-m", "hpclab.localq"]


def directives(spec: JobSpec) -> list[str]:
    lines = [
        f"--job-name={spec.name}",
        f"--cores={spec.cores}",
        f"--memory={spec.memory_bytes}",
        f"--walltime={spec.walltime_s}",
        f"--output={shlex.quote(spec.log.replace('{job_id}', '%j'))}",
    ]
    if slots := spec.options.get("local_slots"):
        lines.append(f"--slots={slots}")
    return lines + list(spec.extra)


def submit_command(script: str, *, count: int = 1, log: str = "") -> list[str]:
    return [*_LOCALQ, "submit", script]


def parse_job_ids(stdout: str, count: int = 1) -> list[str]:
    # a profile script may print before the answer
    lines = stdout.strip().splitlines()
    if not lines or not re.fullmatch(r"[0-9]+", lines[-1].strip()):
        raise UnreadableOutput(f"no job id in the answer of localq submit: {stdout!r}")
    return [lines[-1].strip()]


def status_command(job_ids: Sequence[str]) -> list[str]:
    return [*_LOCALQ, "status", *job_ids]


def parse_status(result: Result) -> dict[str, JobStatus]:
    if result.exit_status:
        raise UnreadableOutput(result.last_words)
    statuses = (_status(line) for line in result.stdout.splitlines() if line.startswith("{"))
    return {status.job_id: status for status in statuses}


def _status(line: str) -> JobStatus:
    try:
        given = json.loads(line)
        state = STATES.get(given["state"], JobState.UNKNOWN)
        signal = given.get("signal")
        return JobStatus(
            job_id=str(given["id"]),
            state=state,
            reason=str(given.get("reason") or ""),
            node=str(given.get("node") or ""),
            start_time=_time(given.get("start_time")),
            end_time=_time(given.get("limit_time") if state is JobState.RUNNING else given.get("end_time")),
            exit_status=128 + int(signal) if signal else _whole(given.get("exit_code")),
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UnreadableOutput(f"localq status answered {line!r}: {error!r}") from error


def _time(value: object) -> float | None:
    return None if value is None else float(str(value))


def _whole(value: object) -> int | None:
    return None if value is None else int(str(value))


def history_command(job_ids: Sequence[str]) -> list[str]:
    return []  # it forgets nothing


def parse_history(result: Result) -> dict[str, JobStatus]:
    return {}


def cancel_command(job_ids: Sequence[str]) -> list[str]:
    return [*_LOCALQ, "cancel", *job_ids]


def is_cancelled(result: Result) -> bool:
    return result.exit_status == 0


def estimate_command(script: str) -> list[str]:
    return []


def parse_estimate(result: Result) -> float:
    raise UnreadableOutput("localq gives no estimates")


def place_command() -> list[str]:
    return [*_LOCALQ, "status"]


def parse_place(result: Result, job_id: str) -> Place | None:
    # localq tells its jobs in the order of submission, in which they start
    statuses = parse_status(result).values()
    return Place.among([status.job_id for status in statuses if status.state is JobState.PENDING], job_id)


def queues_command() -> list[str]:
    return []


def parse_queues(result: Result) -> list[Queue]:
    return []
