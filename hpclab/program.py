"""The script of a run: seen before it is submitted, and its output as it comes, until its end."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from hpclab.errors import ConfigError, JobEnded
from hpclab.event import Event
from hpclab.hosts import Host
from hpclab.job import JobExit, Program
from hpclab.session import CANCEL_GRACE_S, Session
from hpclab.view import last_run, script_end

STDOUT, STDERR = 1, 2
ASK_EVERY_S = 5.0
"""How often the batch system is asked while the script runs; its job tells by its events how it ends."""
TELLS_WITHIN_S = 3.0
"""So soon after the script's end its job tells what that was."""


@dataclass(frozen=True, kw_only=True)
class Printed:
    """A piece of what the script has printed, to STDOUT or STDERR."""

    stream: int
    data: bytes


def checked_program(host: Host, script: str, arguments: Sequence[str], *, folder: str) -> Program:
    """Raises ConfigError when there is no script to be run."""
    program = Program(script=script, arguments=tuple(arguments), folder=folder)
    try:
        text = host.read(program.path)
    except OSError as error:
        why = f"{program.path} cannot be run: {error.strerror}"
    else:
        why = "" if text.strip() else f"{program.path} is empty"
    if why:
        raise ConfigError(
            f"{why}\nnothing was submitted; name a Python script on {host.name}, before its own arguments"
        )
    return program


def printed(session: Session, *, poll_s: float = 0.1) -> Iterator[Printed]:
    """All that the script prints, from its beginning, until it or its job has ended."""
    job_id = session.job().job_id
    offsets = {STDOUT: 0, STDERR: 0}
    paths = {STDOUT: session.folder.stdout, STDERR: session.folder.stderr}
    asked, is_over, begins = time.monotonic(), False, 0
    while True:
        events = session.events(job_id)
        if begins != (begins := sum(event.what == "script" for event in events)):
            # the batch system has started it again; by now what the files had of the first time is gone
            offsets = dict.fromkeys(offsets, 0)
        # before the look at the files, so that what was printed last is seen
        has_ended = is_over or script_end(last_run(events)) is not None
        is_silent = True
        for stream, path in paths.items():
            if data := session.printed(path, offsets[stream]):
                is_silent = False
                offsets[stream] += len(data)
                yield Printed(stream=stream, data=data)
        if not is_silent:
            continue
        if has_ended:
            return
        if time.monotonic() - asked > ASK_EVERY_S:
            asked, is_over = time.monotonic(), session.job(job_id).status.state.is_final
        time.sleep(poll_s)


def ending(session: Session) -> int:
    """The script's own exit status, when it has ended. Raises JobEnded when its job was ended before."""
    job_id = session.job().job_id
    events = _told(session, job_id)
    exit_status = script_end(events)
    deadline = time.monotonic() + TELLS_WITHIN_S
    while exit_status is not None and not _reason(events) and time.monotonic() < deadline:
        time.sleep(0.05)
        events = _told(session, job_id)
    if exit_status is not None and not _reason(events).startswith(JobExit.TERMINATED.meaning):
        return exit_status
    job = session.gone([job_id], within_s=CANCEL_GRACE_S).get(job_id) or session.job(job_id)
    script = session.program.name if session.program else "its script"
    reason = job.status.reason or job.status.state.value
    raise JobEnded(
        f"job {job_id} was over before {script} had ended by itself: {reason}\n"
        f"its story: hpclab why --session {session.name}; its log: hpclab logs --session {session.name}"
    )


def _told(session: Session, job_id: str) -> Sequence[Event]:
    return last_run(session.events(job_id))


def _reason(events: Sequence[Event]) -> str:
    """Why the job ends; empty: not told (yet)."""
    return next((str(event.details.get("reason")) for event in events if event.what == "ending"), "")
