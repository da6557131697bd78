"""A job's own account of itself: events appended, announcements written whole, all of it for the user's eyes only."""

from __future__ import annotations

import contextlib
import os
import time
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hpclab.event import Event, to_line
from hpclab.folder import SessionFolder

if TYPE_CHECKING:
    import asyncio
    from concurrent.futures import Future


def report(folder: SessionFolder, job_id: str, what: str, **details: Any) -> None:
    """Append one event, and say it in the log."""
    say(Event(time=time.time(), what=what, details=details).sentence)
    note(folder, job_id, what, **details)


def note(folder: SessionFolder, job_id: str, what: str, **details: Any) -> None:
    """Append one event. A full disk must not end a computation, so a line that cannot be written goes to the log."""
    line = to_line(Event(time=time.time(), what=what, details=details))
    try:
        descriptor = os.open(folder.events(job_id), os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            os.write(descriptor, line.encode())
        finally:
            os.close(descriptor)
    except OSError as error:
        say(f"the event could not be written: {error}")


def say(text: str) -> None:
    """In the log, which may be on a disk that is full, or whose way there has ended with the supervisor."""
    with contextlib.suppress(OSError):
        print(f"hpclab: {text}", flush=True)


def say_why(done: asyncio.Task[None] | Future[None]) -> None:
    """What went wrong in the background, for the log."""
    if not done.cancelled() and (error := done.exception()):
        traceback.print_exception(error)


def announce(path: str, text: str) -> None:
    """Write a file that others read: whole or not at all, mode 0600."""
    temporary = Path(path).with_name(f".{Path(path).name}.{os.getpid()}")
    try:
        with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
            file.write(text)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def withdraw(path: str) -> None:
    """As far as the file system lets us: what ends must end."""
    with contextlib.suppress(OSError):
        Path(path).unlink(missing_ok=True)
