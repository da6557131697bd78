"""What a job's programs say, on its way to the log, which may be on a disk that is full."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator

LOG = 1


@contextlib.contextmanager
def passed_on() -> Iterator[int]:
    """A descriptor for a program's output: what comes there goes on to our own, as far as that can be written.

    mpiexec ends when its output cannot be written, and all ranks with it.
    """
    reader, writer = os.pipe()
    # not in the event loop: the log's file system may hang
    threading.Thread(target=_pass_on, args=(reader,), name="output", daemon=True).start()
    try:
        yield writer
    finally:
        os.close(writer)


def _pass_on(reader: int) -> None:
    """Until nobody has the other end any more."""
    with open(reader, "rb", buffering=0) as stream:
        while said := stream.read(65536):
            with contextlib.suppress(OSError):
                os.write(LOG, said)
