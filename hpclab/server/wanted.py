"""What the bodies and queries of requests ask for. Pure; whatever makes no sense is a ConfigError with a sentence."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Set
from dataclasses import dataclass
from typing import Any

from hpclab.config import parsed
from hpclab.errors import ConfigError
from hpclab.growth import MOST_WORKERS
from hpclab.job import JobRecord
from hpclab.request import Request
from hpclab.units import whole_number

LONGEST_BODY_BYTES = 10_000
LONGEST_TEXT = 100
MOST_LINES = 10_000
WORDS = {"cores": "cores", "memory": "memory", "walltime": "worker_walltime"}
"""Of a worker, and the options that they are."""


@dataclass(frozen=True, kw_only=True)
class WorkersWanted:
    """So many worker jobs; what is None is as the session has it."""

    count: int
    request: str
    """Of one click: said twice, it is carried out once."""
    cores: int | None = None
    memory_bytes: int | None = None
    walltime_s: int | None = None

    def record(self, request: Request) -> JobRecord:
        return request.worker_record(cores=self.cores, memory_bytes=self.memory_bytes, walltime_s=self.walltime_s)

    @staticmethod
    def from_body(body: bytes) -> WorkersWanted:
        given = _object(body, needs={"count", "request"}, may={*WORDS})
        told = {key: parsed(option, _text(given, key)) for key, option in WORDS.items() if key in given}
        return WorkersWanted(
            count=whole_number(given["count"], what="count", least=1, most=MOST_WORKERS),
            request=_text(given, "request"),
            cores=told.get("cores"),
            memory_bytes=told.get("memory"),
            walltime_s=told.get("walltime"),
        )


def workers_in(body: bytes) -> int:
    """Of `{"workers": N}`: how many there shall be in all."""
    return whole_number(_object(body, needs={"workers"})["workers"], what="workers", least=0, most=MOST_WORKERS)


def queue_in(body: bytes) -> str:
    """Of `{"queue": "local"}`: where a session shall start. From here there is only this machine."""
    queue = _text(_object(body, needs={"queue"}), "queue")
    if queue != "local":
        shown = queue if queue.isalnum() else "slurm"
        raise ConfigError(
            f"from here a session starts on this machine alone, with the queue 'local', not {queue!r}\n"
            f"on a cluster's login node, say in a terminal: hpclab start --queue {shown}"
        )
    return queue


def nothing_in(body: bytes) -> None:
    """A body that says nothing: empty, or an empty object."""
    if body:
        _object(body, needs=set())


def lines_in(text: str) -> int:
    """Of `?lines=N`."""
    number = int(text) if re.fullmatch(r"\d{1,6}", text, re.ASCII) else text
    return whole_number(number, what="lines", least=1, most=MOST_LINES)


def _object(body: bytes, *, needs: Set[str], may: Set[str] = frozenset()) -> dict[str, Any]:
    if len(body) > LONGEST_BODY_BYTES:
        raise ConfigError(f"the request has {len(body)} bytes, and none needs more than {LONGEST_BODY_BYTES}")
    try:
        given = json.loads(body)
    except (ValueError, RecursionError):
        given = None
    if not isinstance(given, dict):
        raise ConfigError("the request is not an object of JSON")
    if unknown := sorted(given.keys() - needs - may):
        raise ConfigError(f"the request says {unknown[0][:LONGEST_TEXT]!r}, which is not known here")
    if missing := sorted(needs - given.keys()):
        raise ConfigError(f"the request does not say {missing[0]!r}")
    return given


def _text(given: Mapping[str, Any], key: str) -> str:
    value = given[key]
    if not isinstance(value, str) or not 0 < len(value) <= LONGEST_TEXT:
        raise ConfigError(f"{key} must be a text of at most {LONGEST_TEXT} characters")
    return value
