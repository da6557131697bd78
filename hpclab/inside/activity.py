"""How busy a session is: the cores at work, counted by its scheduler, in the session's file `activity.json`."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

TELL_EVERY_S = 4
MOST_SAMPLES = 360
"""When there are more, every other one is forgotten."""


class Activity:
    """How many cores were at work, over time. A session that was started again goes on with what it has been."""

    def __init__(self, path: str) -> None:
        self._counted: float | None = None
        self._told = 0.0
        self.busy_core_s = 0.0
        self.samples: list[list[float]] = []
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            before = json.loads(Path(path).read_text())
            self.busy_core_s = float(before["busy_core_s"])
            self.samples = [[float(at), float(busy)] for at, busy in before["samples"]][-MOST_SAMPLES:]

    def count(self, busy: int, now: float) -> str:
        """So many cores are at work; the text for the file when it is due, else an empty one."""
        if self._counted is not None:
            self.busy_core_s += busy * max(0.0, now - self._counted)
        self._counted = now
        # samples become sparser as the session becomes longer
        span_s = now - self.samples[0][0] if self.samples else 0.0
        due_s = max(TELL_EVERY_S, 2 * span_s / MOST_SAMPLES)
        if not self.samples or now - self.samples[-1][0] >= due_s:
            self.samples.append([round(now, 1), busy])
            if len(self.samples) > MOST_SAMPLES:
                del self.samples[1::2]
        if now - self._told < TELL_EVERY_S:
            return ""
        self._told = now
        return json.dumps({"time": now, "busy_core_s": round(self.busy_core_s, 1), "samples": self.samples})
