"""What a job asks for, what state it is in, and how our own jobs end: frozen values."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from enum import Enum, IntEnum
from pathlib import PurePosixPath
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Chunk:
    """`count` equal tasks (PBS's word for a unit of a request); cores and memory are those of one task."""

    count: int
    cores: int
    memory_bytes: int
    gpus: int = 0


@dataclass(frozen=True, kw_only=True)
class JobSpec:
    """What one job asks for, in no batch system's own terms."""

    name: str
    chunks: tuple[Chunk, ...]
    """In the order of the MPI ranks; the first chunk's node is where the script runs."""
    walltime_s: int
    log: str
    """The job's log, with `{job_id}` where its id goes. The script writes there itself."""
    nodes: int = 1
    """1: all chunks on one node. More: the chunks spread over that many."""
    partition: str = ""
    account: str = ""
    qos: str = ""
    constraint: str = ""
    extra: tuple[str, ...] = ()
    """Directives of the site's own, as they stand."""
    options: Mapping[str, str] = field(default_factory=dict)
    """What only one batch system knows, by the names of its settings."""

    @property
    def cores(self) -> int:
        return sum(chunk.count * chunk.cores for chunk in self.chunks)

    @property
    def memory_bytes(self) -> int:
        return sum(chunk.count * chunk.memory_bytes for chunk in self.chunks)

    @property
    def memory_per_core_bytes(self) -> int:
        """For batch systems that count memory by the core, rounded up; over several nodes, what the neediest needs."""
        if self.nodes == 1:
            return -(-self.memory_bytes // max(self.cores, 1))
        return max(-(-chunk.memory_bytes // max(chunk.cores, 1)) for chunk in self.chunks)

    @property
    def tasks(self) -> int:
        """MPI ranks, or workers."""
        return sum(chunk.count for chunk in self.chunks)

    @property
    def gpus(self) -> int:
        return sum(chunk.count * chunk.gpus for chunk in self.chunks)

    @property
    def is_uniform(self) -> bool:
        """All tasks are alike."""
        return len({(chunk.cores, chunk.memory_bytes, chunk.gpus) for chunk in self.chunks}) == 1


class JobState(Enum):
    """What a batch system knows of a job. UNKNOWN means "don't know", never "gone"."""

    PENDING = "pending"
    HELD = "held"
    RUNNING = "running"
    COMPLETING = "completing"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"
    GONE = "gone"
    """The batch system answered, and knows it no more: it has ended, and its own events say how."""
    UNKNOWN = "unknown"

    @property
    def is_final(self) -> bool:
        return self in (JobState.DONE, JobState.FAILED, JobState.CANCELLED, JobState.GONE)


WILL_NOT_START = "it will not start"
"""Begins the hint in the reason of a job that waits in vain."""


@dataclass(frozen=True, kw_only=True)
class JobStatus:
    """What the batch system said of one job; times are seconds since the epoch."""

    job_id: str
    state: JobState
    reason: str = ""
    node: str = ""
    start_time: float | None = None
    """When it started, or, of a pending job, when the batch system expects it to start."""
    end_time: float | None = None
    """When it ended, or, of a running job, when its walltime is over."""
    exit_status: int | None = None
    """The script's own, or 128 + the signal that killed it."""

    @property
    def is_hopeless(self) -> bool:
        """It waits, and will not start as it was asked for. The batch system's module has said so in its reason."""
        return not self.state.is_final and WILL_NOT_START in self.reason


@dataclass(frozen=True, kw_only=True)
class Place:
    """A job's place among all that wait for their turn as it does, an array being one of them."""

    number: int
    of: int

    @staticmethod
    def among(waiting: Sequence[str], job_id: str) -> Place | None:
        return Place(number=waiting.index(job_id) + 1, of=len(waiting)) if job_id in waiting else None

    def __str__(self) -> str:
        last = 0 if self.number % 100 in (11, 12, 13) else self.number % 10
        ending = {1: "st", 2: "nd", 3: "rd"}.get(last, "th")
        return f"{self.number}{ending} of {self.of} waiting"


@dataclass(frozen=True, kw_only=True)
class Queue:
    """One queue (partition) of a batch system, as far as it tells; 0 and empty: not told."""

    name: str
    is_default: bool = False
    is_open: bool = True
    """Takes jobs and runs them."""
    walltime_limit_s: int = 0
    nodes: int = 0
    cores_per_node: int = 0
    memory_per_node_bytes: int = 0
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class Shape:
    """A main job's size to choose among: so many nodes with so many cores each, the scheduler's among them."""

    nodes: int
    cores: int

    def __str__(self) -> str:
        return f"{self.nodes}x{self.cores}"


@dataclass(frozen=True, kw_only=True)
class Program:
    """The script of a run: what `python SCRIPT ARGUMENTS` would run in that folder."""

    script: str
    folder: str
    arguments: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The script, for sentences."""
        return PurePosixPath(self.script).name

    @property
    def path(self) -> str:
        """Of the script, wherever one is."""
        return str(PurePosixPath(self.folder) / self.script)

    def to_text(self) -> str:
        """On one line, whatever is in it: it goes through job scripts and launchers."""
        return json.dumps(asdict(self))

    @staticmethod
    def from_dict(given: Mapping[str, Any]) -> Program:
        """Raises KeyError, TypeError or ValueError when it is none."""
        texts = [given["script"], given["folder"], *given["arguments"]]
        if not all(isinstance(text, str) for text in texts):
            raise ValueError(f"{given} is no program")
        return Program(script=texts[0], folder=texts[1], arguments=tuple(texts[2:]))


@dataclass(frozen=True, kw_only=True)
class JobRecord:
    """What a job of a session is for and has asked for; cores and memory are those of one worker."""

    role: str
    """`main` or `worker`."""
    workers: int
    cores: int
    memory_bytes: int
    walltime_s: int
    gpus: int = 0
    """Of each worker."""

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @staticmethod
    def from_dict(given: Mapping[str, Any]) -> JobRecord:
        """Raises KeyError, TypeError or ValueError when it is not a record."""
        numbers = {name: _whole(given[name]) for name in ("workers", "cores", "memory_bytes", "walltime_s")}
        numbers["gpus"] = _whole(given.get("gpus", 0))
        return JobRecord(role="main" if given["role"] == "main" else "worker", **numbers)


def _whole(value: Any) -> int:
    if isinstance(value, float) and not value.is_integer():  # also JSON's 1e999
        raise ValueError(f"{value} is not a whole number")
    return int(value)


class JobExit(IntEnum):
    """How a job of ours ends when it knows why; the number is its exit status."""

    OK = 0
    ENVIRONMENT = 40
    NO_LAUNCHER = 41
    SCHEDULER_NEVER_UP = 42
    JUPYTER_NEVER_UP = 43
    SCHEDULER_DIED = 44
    JUPYTER_DIED = 45
    SESSION_OVER = 46
    WORKER_FAILED = 47
    WRONG_WORLD = 48
    WRONG_VERSIONS = 49
    NOT_JOINED = 50
    SCRIPT_NEVER_BEGAN = 51
    SCRIPT_LOST = 52
    RANK_FAILED = 53
    TERMINATED = 143

    @property
    def meaning(self) -> str:
        return _MEANING[self]


_MEANING = {
    JobExit.OK: "it ended as asked",
    JobExit.ENVIRONMENT: "the job's environment lacks something that it needs",
    JobExit.NO_LAUNCHER: "there is no MPI launcher",
    JobExit.SCHEDULER_NEVER_UP: "the Dask scheduler did not come up",
    JobExit.JUPYTER_NEVER_UP: "JupyterLab did not come up",
    JobExit.SCHEDULER_DIED: "the Dask scheduler died",
    JobExit.JUPYTER_DIED: "JupyterLab died",
    JobExit.SESSION_OVER: "the session was over",
    JobExit.WORKER_FAILED: "its Dask workers failed again and again",
    JobExit.WRONG_WORLD: "the MPI launcher did not bring its ranks together",
    JobExit.NOT_JOINED: "its Dask worker could not join the session",
    JobExit.WRONG_VERSIONS: "the job's Python or Dask is another one than the session's",
    JobExit.SCRIPT_NEVER_BEGAN: "the script did not begin",
    JobExit.SCRIPT_LOST: "the script ended without a word",
    JobExit.RANK_FAILED: "an MPI rank of the script failed",
    JobExit.TERMINATED: "it was told to end (cancelled, or its walltime was reached)",
}


def exit_meaning(exit_status: int) -> str:
    """Plain words for an exit status, one of ours or a shell's."""
    if exit_status in JobExit._value2member_map_:
        return JobExit(exit_status).meaning
    if exit_status > 128:
        return f"its supervisor was killed by signal {exit_status - 128}"
    return f"exit status {exit_status}"
