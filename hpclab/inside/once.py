"""SIGTERM as the script of a run hears it: once, though more than one says it."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from functools import wraps
from typing import Any

AGAIN_S = 6.0
"""Longer than the supervisor leaves a script that was told to end (`program.SCRIPT_GRACE_S`)."""


class Once:
    """A handler that is not interrupted by the same signal from somebody else."""

    def __init__(self, handler: Callable[[int, Any], Any]) -> None:
        self.handler = handler
        self._heard = 0.0

    def __call__(self, number: int, frame: Any) -> None:
        now = time.monotonic()
        if not self._heard or now - self._heard > AGAIN_S:
            self._heard = now
            self.handler(number, frame)


def say_it_once() -> None:
    """From now on a handler of SIGTERM in this process is a `Once`.

    Some batch systems tell all processes of a job, the MPI launcher as well, which passes it on to its ranks: and what
    saves its results when it hears the signal must not begin with that twice.
    """
    register = signal.signal

    @wraps(register)
    def registered(number: int, handler: Any) -> Any:
        before = register(number, Once(handler) if number == signal.SIGTERM and callable(handler) else handler)
        return before.handler if isinstance(before, Once) else before

    vars(signal)["signal"] = registered
