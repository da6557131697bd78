"""The one place that waits: for what is looked for, not for a time."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def until(condition: Callable[[], T | None], *, within_s: float = 30, what: str) -> T:
    """The condition's first true value. A look that takes long is followed by as long a rest, for it may be a whole
    command, and others work here, too.
    """
    deadline = time.monotonic() + within_s
    while True:
        began = time.monotonic()
        if value := condition():
            return value
        assert time.monotonic() < deadline, f"waited {within_s} s for {what}; there is {value!r}"
        time.sleep(max(0.02, time.monotonic() - began))
