"""The batch systems that hpclab speaks. To add one: write a module, add a line to BATCH_SYSTEMS.

A batch system is a module, not a class, and pure: text in, text out. mypy holds each against the Protocol.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import Final, Protocol

from hpclab.batch import local
from hpclab.errors import ConfigError
from hpclab.job import JobSpec, JobStatus


class BatchSystem(Protocol):
    """What a module provides. In an argv, the word `python` in first place is hpclab's own Python on that host."""

    DIRECTIVE: str
    """What a directive line begins with."""
    JOB_ID: str
    """The job's id, as the shell of a running job finds it."""
    END_TIME: str
    """Seconds since the epoch when the walltime is over, as a running job finds it; empty: not told."""

    def directives(self, spec: JobSpec) -> list[str]: ...
    def submit_command(self, script: str) -> list[str]: ...
    def parse_job_id(self, stdout: str) -> str: ...
    def status_command(self, job_ids: Sequence[str]) -> list[str]: ...
    def parse_status(self, stdout: str) -> Mapping[str, JobStatus]: ...
    def cancel_command(self, job_ids: Sequence[str]) -> list[str]: ...


BATCH_SYSTEMS: Final[dict[str, BatchSystem]] = {"local": local}


def parse_queue(queue: str) -> tuple[str, str]:
    """`pbs:regular` is the batch system `pbs` and its queue `regular`; `auto` is the one found here."""
    name, _, partition = queue.partition(":")
    # local needs nothing and is therefore what is found where there is no other
    name = "local" if name == "auto" else name
    if name not in BATCH_SYSTEMS:
        close = difflib.get_close_matches(name, BATCH_SYSTEMS, n=1)
        hint = f"did you mean {close[0]!r}? " if close else ""
        raise ConfigError(f"unknown queue {queue!r}\n{hint}known: auto, {', '.join(BATCH_SYSTEMS)}")
    if name == "local" and partition:
        raise ConfigError(f"unknown queue {queue!r}\n`local` has no queues of its own: say --queue local")
    return name, partition
