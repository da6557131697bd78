"""The batch systems that hpclab speaks. To add one: write a module, add a line to BATCH_SYSTEMS.

A batch system is a module, not a class, and pure: text in, text out. mypy holds each against the Protocol.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from typing import Final, Protocol

from hpclab.batch import local, lsf, pbs, sge, slurm, torque
from hpclab.errors import ConfigError
from hpclab.job import JobSpec, JobStatus, Place, Queue
from hpclab.result import Result


class BatchSystem(Protocol):
    """What a module provides. In an argv, the word `python` in first place is hpclab's own Python on that host.

    `parse_status` and `parse_history` give what the answer says of each job that it knows. A job that is not among
    them is one that the batch system does not know (any more). They raise UnreadableOutput when it did not answer at
    all or when its answer cannot be read; never anything else. An unknown state is JobState.UNKNOWN.
    """

    DIRECTIVE: str
    """What a directive line begins with."""
    JOB_ID: str
    """The job's id, as the shell of a running job finds it; the same text that `parse_job_ids` gives."""
    END_TIME: str
    """Seconds since the epoch when the walltime is over, as a running job's shell finds it; may come out empty."""
    SUBMIT_HOST: str
    """The variable in which a job finds the host that it was submitted from; empty: there is none."""
    HAS_ARRAYS: bool
    """`submit_command` can submit many at once."""
    NOT_FROM_HERE: str
    """A pattern: how its commands complain of the host that they run on, and not of what was asked for."""

    def directives(self, spec: JobSpec) -> list[str]: ...
    def submit_command(self, script: str, *, count: int = 1, log: str = "") -> list[str]:
        """A count above 1 is an array job; `log` as in JobSpec, for systems that name the tasks' outputs apart."""
        ...

    def parse_job_ids(self, stdout: str, count: int = 1) -> list[str]:
        """One id for each task. Raises UnreadableOutput."""
        ...

    def status_command(self, job_ids: Sequence[str]) -> list[str]:
        """One command for all of them; it may tell of others, too."""
        ...

    def parse_status(self, result: Result) -> Mapping[str, JobStatus]: ...
    def history_command(self, job_ids: Sequence[str]) -> list[str]:
        """Asks about jobs that `status_command` knows no more; empty: this system has no such memory."""
        ...

    def parse_history(self, result: Result) -> Mapping[str, JobStatus]: ...
    def cancel_command(self, job_ids: Sequence[str]) -> list[str]: ...
    def is_cancelled(self, result: Result) -> bool:
        """Whether nothing is left to be cancelled: jobs that had ended already are no failure."""
        ...

    def estimate_command(self, script: str) -> list[str]:
        """Asks, without submitting, when this script would start; empty: this system cannot be asked."""
        ...

    def parse_estimate(self, result: Result) -> float:
        """Seconds since the epoch. Raises UnreadableOutput, in the system's own words when it would refuse."""
        ...

    def place_command(self) -> list[str]:
        """Asks who waits, other users' jobs among them; empty: this system does not tell in which order."""
        ...

    def parse_place(self, result: Result, job_id: str) -> Place | None:
        """None: it does not wait for its turn, or its place cannot be told. Raises UnreadableOutput."""
        ...

    def queues_command(self) -> list[str]: ...
    def parse_queues(self, result: Result) -> list[Queue]: ...


BATCH_SYSTEMS: Final[dict[str, BatchSystem]] = {
    "slurm": slurm,
    "pbs": pbs,
    "torque": torque,
    "sge": sge,
    "lsf": lsf,
    "local": local,
}


COMMAND_MISSING = (126, 127)
"""What `env` and `bash` end with when they cannot run a command."""
_OF_THE_SITE = r"(?i)(compute|execution|login|submit|submission|head)[ -](node|host)"
"""What the words of a site's own submit filter are likely to have in them."""
_NO_ANSWER = re.compile(r"(?i)\btimed[ -]?out\b|\bgot no (message|response)\b")


def in_doubt(result: Result) -> str:
    """How a command complains that it had no answer: what it asked for may happen yet; empty: it does not."""
    lines = (line.strip() for line in result.output.splitlines())
    return next(filter(_NO_ANSWER.search, lines), "") if result.exit_status else ""


def not_from_here(system: str, result: Result) -> str:
    """How a command has failed because of the host that it ran on, so that it may do elsewhere; empty: it has not."""
    if not result.exit_status:
        return ""
    pattern = re.compile(f"{_OF_THE_SITE}|(?-i:{BATCH_SYSTEMS[system].NOT_FROM_HERE})")
    lines = (line.strip() for line in result.output.splitlines())
    return next(filter(pattern.search, lines), result.last_words if result.exit_status in COMMAND_MISSING else "")


def parse_queue(queue: str) -> tuple[str, str]:
    """`pbs:regular` is the batch system `pbs` and its queue `regular`; `auto` is whichever the host has."""
    name, _, partition = queue.partition(":")
    if name not in ("auto", *BATCH_SYSTEMS):
        close = difflib.get_close_matches(name, BATCH_SYSTEMS, n=1)
        hint = f"did you mean {close[0]!r}? " if close else ""
        raise ConfigError(
            f"unknown queue {queue!r}\n{hint}known: auto, {', '.join(BATCH_SYSTEMS)}; "
            "a queue or partition goes after a colon, as in slurm:regular"
        )
    if name == "local" and partition:
        raise ConfigError(f"unknown queue {queue!r}\n`local` has no queues of its own: say --queue local")
    return name, partition
