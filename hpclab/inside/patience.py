"""What scheduler and workers of a run do that hear SIGTERM while its script may have a last word."""

from __future__ import annotations

import os
import time
from collections.abc import Callable


class Patience:
    """A job that is to end tells so to all processes; the script decides what to do, with its workers still there.

    A signal handler. Who says it twice, a second apart, means it; then `leave` is called, and this process ends.
    """

    def __init__(self, leave: Callable[[], None] = lambda: None) -> None:
        self._leave = leave
        self._heard = 0.0

    def __call__(self, *_: object) -> None:
        now = time.monotonic()
        if self._heard and now - self._heard > 1:
            self._leave()
            os._exit(143)
        self._heard = self._heard or now
