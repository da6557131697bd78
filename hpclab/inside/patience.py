"""What a rank does that hears SIGTERM while the script of its run may have its last word."""

from __future__ import annotations

import os
import time


class Patience:
    """A job that is to end tells so to all ranks; the script decides what to do, with its workers still there.

    A signal handler. Who says it twice, a second apart, means it.
    """

    def __init__(self) -> None:
        self._heard = 0.0

    def __call__(self, *_: object) -> None:
        now = time.monotonic()
        if self._heard and now - self._heard > 1:
            os._exit(143)
        self._heard = self._heard or now
