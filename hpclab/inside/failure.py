"""Who is to hear why a rank fails that the script would wait for: the supervisor, where `hpclab run` has started it."""

from __future__ import annotations

from collections.abc import Callable


def _nobody(error: BaseException) -> None:
    """Its launcher ends the others, and what it has printed tells."""


tell: Callable[[BaseException], None] = _nobody
