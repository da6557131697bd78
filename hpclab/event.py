"""One line of a job's story: events are written by the job, one JSON object a line, and only ever appended."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Event:
    """What happened (a word of the list in `SENTENCES`), when (seconds since the epoch), and its details."""

    time: float
    what: str
    details: dict[str, Any] = field(default_factory=dict)

    @property
    def sentence(self) -> str:
        """The event for people; an event that this version does not know is shown as it stands."""
        shown = {key: value for key, value in self.details.items() if value not in ("", None)}
        try:
            return SENTENCES[self.what].format(**{**_OPTIONAL, **shown})
        except (KeyError, IndexError, ValueError):
            return f"{self.what} {shown or ''}".strip()


_OPTIONAL = {"reason": "", "worker": "", "versions": "", "python": "", "network": "not told", "nodes": "this node"}

SENTENCES = {
    "submitted": "submitted to {queue}",
    "started": "started on {node}",
    "prologue": "a line of the prologue failed: {reason}",
    "environment": "environment ready: Python {python}, {versions}; network: {network}",
    "mpi": "starting {ranks} MPI ranks on {nodes} with {launcher}",
    "again": "the batch system started this job again on {node}: it is a new session under the old name",
    "closing": "{left} left: save your notebooks",
    "keeper": "keeping {count} added workers",
    "kept": "keeping workers: {reason}",
    "scheduler": "Dask scheduler up at {address}",
    "jupyter": "JupyterLab up on port {port}",
    "script": "{script} started on {node}",
    "script_ended": "{script} ended with exit status {exit_status}",
    "initialize": "{script} has not called initialize() yet: {waiting} MPI ranks wait for it",
    "reverse": "tunnel back to {login}: {reason}",
    "connecting": "connecting to the scheduler at {address}",
    "waiting": "waiting for {reason}",
    "joined": "Dask worker {worker} joined",
    "left": "Dask worker {worker} left: {reason}",
    "restarted": "Dask worker {worker} started again: {reason}",
    "outgrown": "Dask worker {worker} used {used} of its {limit} of memory and was ended",
    "draining": "draining: {reason}",
    "drained": "Dask worker {worker} handed over its data and left",
    "failed": "failed: {reason}",
    "ending": "ending: {reason}",
    "exited": "ended with exit status {exit_status}",
}


def to_line(event: Event) -> str:
    """The event as one line of JSON, newline included."""
    return json.dumps({"time": round(event.time, 3), "event": event.what, **event.details}) + "\n"


def from_lines(text: str) -> list[Event]:
    """Every event that can be read; a torn or foreign line is passed over, for the others still tell the story."""
    events = []
    for line in text.splitlines():
        try:
            fields = json.loads(line)
            event = Event(time=float(fields.pop("time")), what=str(fields.pop("event")), details=fields)
            if math.isfinite(event.time):
                events.append(event)
        except (ValueError, KeyError, TypeError, AttributeError):
            continue
    return events
