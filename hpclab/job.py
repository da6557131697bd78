"""What a job asks for, what state it is in, and how our own jobs end: frozen values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import Enum, IntEnum
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Chunk:
    """`count` equal tasks (PBS's word for a unit of a request); cores and memory are those of one task."""

    count: int
    cores: int
    memory_bytes: int


@dataclass(frozen=True, kw_only=True)
class JobSpec:
    """What one job asks for, in no batch system's own terms."""

    name: str
    chunks: tuple[Chunk, ...]
    walltime_s: int
    log: str
    partition: str = ""
    extra: tuple[str, ...] = ()
    options: Mapping[str, str] = field(default_factory=dict)

    @property
    def cores(self) -> int:
        return sum(chunk.count * chunk.cores for chunk in self.chunks)

    @property
    def memory_bytes(self) -> int:
        return sum(chunk.count * chunk.memory_bytes for chunk in self.chunks)


class JobState(Enum):
    """What a batch system knows of a job. UNKNOWN means "don't know", never "gone"."""

    PENDING = "pending"
    HELD = "held"
    RUNNING = "running"
    COMPLETING = "completing"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"
    UNKNOWN = "unknown"

    @property
    def is_final(self) -> bool:
        return self in (JobState.DONE, JobState.FAILED, JobState.CANCELLED)


@dataclass(frozen=True, kw_only=True)
class JobStatus:
    """What the batch system said of one job; times are seconds since the epoch."""

    job_id: str
    state: JobState
    reason: str = ""
    node: str = ""
    start_time: float | None = None
    end_time: float | None = None
    """When it ended, or, of a running job, when its walltime is over."""
    exit_status: int | None = None


@dataclass(frozen=True, kw_only=True)
class JobRecord:
    """What a job of a session is for and has asked for; cores and memory are those of one worker."""

    role: str
    """`main` or `worker`."""
    workers: int
    cores: int
    memory_bytes: int
    walltime_s: int

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @staticmethod
    def from_dict(given: Mapping[str, Any]) -> JobRecord:
        """Raises KeyError, TypeError or ValueError when it is not a record."""
        numbers = {name: _whole(given[name]) for name in ("workers", "cores", "memory_bytes", "walltime_s")}
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
    JobExit.TERMINATED: "it was told to end (cancelled, or its walltime was reached)",
}


def exit_meaning(exit_status: int) -> str:
    """Plain words for an exit status, one of ours or a shell's."""
    if exit_status in JobExit._value2member_map_:
        return JobExit(exit_status).meaning
    if exit_status > 128:
        return f"its supervisor was killed by signal {exit_status - 128}"
    return f"exit status {exit_status}"
