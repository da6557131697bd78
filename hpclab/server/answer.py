"""What the server sends, from what the core tells. Pure; `tokens.ts` of the front end has the same shapes."""

from __future__ import annotations

from typing import Any

from hpclab.connection import DASHBOARD_PATH
from hpclab.history import history
from hpclab.job import JobRecord
from hpclab.request import Request
from hpclab.session import Story
from hpclab.store import LONG_LINE_BYTES, LONGEST_TAIL_BYTES, Activity
from hpclab.units import format_walltime
from hpclab.view import SessionView

HINT = """\
no session is running here
on this machine: hpclab start
on a cluster's login node: hpclab start --queue slurm (or pbs, sge, lsf, torque)
from your laptop: hpclab start --host LOGIN"""


def answer(view: SessionView, activity: Activity, request: Request, *, waiting: str, trouble: str) -> dict[str, Any]:
    """Of a server that has a session."""
    last = next((job.record for job in reversed(view.jobs) if job.record.role == "worker"), request.worker_record())
    return {
        "session": view.describe(),
        "history": history(view, activity.samples),
        "defaults": defaults(last),
        "waiting": waiting,
        "trouble": trouble,
        "dashboard": DASHBOARD_PATH if view.connection else "",
        "hint": "",
        "now": view.now,
    }


def no_session(hint: str, record: JobRecord, *, trouble: str, now: float) -> dict[str, Any]:
    """Of a server that has none."""
    return {
        "session": None,
        "history": {"time": [], "requested": [], "running": [], "busy": []},
        "defaults": defaults(record),
        "waiting": "",
        "trouble": trouble,
        "dashboard": "",
        "hint": hint,
        "now": now,
    }


def defaults(record: JobRecord) -> dict[str, Any]:
    """What the form for a new worker shows at first, in words that it takes back."""
    return {
        "count": 1,
        "cores": str(record.cores),
        "memory": _memory(record.memory_bytes),
        "walltime": format_walltime(record.walltime_s),
    }


def _memory(size_bytes: int) -> str:
    """`4G`, `1536M`: in the largest unit that says it without a fraction."""
    whole = next((shift for shift in (40, 30, 20) if size_bytes % 2**shift == 0), 20)
    return f"{-(-size_bytes >> whole)}{'MGT'[whole // 10 - 2]}"


def story(told: Story, now: float) -> dict[str, Any]:
    events = [{"time": event.time, "what": event.what, "sentence": event.sentence} for event in told.events]
    return {"job": told.job.describe(now), "events": events, "log_tail": told.log_tail}


def log(text: str, lines: int) -> dict[str, Any]:
    """`text` are the last lines of a log, one more than are wanted if there are so many."""
    found = text.splitlines()
    # where lines are very long, fewer of them have been read
    least_bytes = min(LONG_LINE_BYTES * lines, LONGEST_TAIL_BYTES - LONG_LINE_BYTES)
    is_cut = len(found) > lines or len(text.encode()) >= least_bytes
    return {"text": "\n".join(found[-lines:]), "is_cut": is_cut}
