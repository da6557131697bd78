"""What a session asks for on compute nodes that may not submit, carried out by an hpclab where that is possible.

A request is a file in the session's folder, `relay/NAME.asked`. By a change of its name it becomes `taken` by the one
who carries it out, or `withdrawn` by the one who asked, and never both: so it is carried out once, or not at all.
"""

from __future__ import annotations

import json
import re
import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from hpclab.errors import ConfigError, HpclabError, NotFromHere, StoreError, TookTooLong, error_of, error_told
from hpclab.folder import SessionFolder
from hpclab.growth import MOST_WORKERS
from hpclab.hosts import Host
from hpclab.interrupts import held_back
from hpclab.job import JobRecord
from hpclab.units import counted, whole_number

UNCLAIMED_S = 60
"""So long somebody has time to take a request; then it is withdrawn."""
ANSWER_S = 90
"""So long has who took it; then he is taken for dead."""
CLOCKS_DIFFER_S = 60
WAITS_S = 2
"""So soon nobody need be told that a request waits."""
LOOK_S = 0.2
AT_ONCE = 4
KEPT_S = 86400
_FILE = re.compile(r"([0-9]{1,20}-[0-9a-f]{16})\.(asked|taken|withdrawn|answered)")
_SCRIPT = re.compile(r"add-one-worker\.sh|scripts/add-worker-[0-9a-f]{8}\.sh")


@dataclass(frozen=True, kw_only=True)
class Submit:
    """So many worker jobs by one of the session's scripts."""

    script: str
    """Within the session's folder, which may have another path on another host."""
    record: JobRecord
    count: int = 1


@dataclass(frozen=True, kw_only=True)
class Cancel:
    job_ids: tuple[str, ...]


Wish = Submit | Cancel


def to_text(wish: Wish) -> str:
    if isinstance(wish, Cancel):
        told: dict[str, Any] = {"cancel": wish.job_ids}
    else:
        told = {"submit": wish.script, "count": wish.count, "job": wish.record.to_dict()}
    return json.dumps(told) + "\n"


def from_text(text: str) -> Wish:
    """Raises ConfigError when it is none: nothing else is ever carried out."""
    try:
        given = json.loads(text)
        if "cancel" in given:
            job_ids = given["cancel"]
            if isinstance(job_ids, list) and job_ids and all(isinstance(job_id, str) for job_id in job_ids):
                return Cancel(job_ids=tuple(job_ids))
            raise ValueError(f"{job_ids!r} are no jobs")
        script, count, record = given["submit"], given["count"], JobRecord.from_dict(given["job"])
        if not (isinstance(script, str) and _SCRIPT.fullmatch(script)):
            raise ValueError(f"{script!r} is no script for worker jobs")
        whole_number(count, what="count", least=1, most=MOST_WORKERS)
        if record.role != "worker":
            raise ValueError("a main job is not submitted for others")
        return Submit(script=script, record=record, count=count)
    except (ConfigError, ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError) as error:
        raise ConfigError(f"that is no request of a session: {error}\nuse the same hpclab everywhere") from error


def _asked_at(name: str) -> float:
    """By the clock of who asked, in seconds since the epoch."""
    return int(name.partition("-")[0]) / 1e9


def _names(host: Host, folder: SessionFolder) -> list[tuple[str, str]]:
    """Of all requests, the oldest first, each with its stage."""
    with suppress(OSError):
        found = [_FILE.fullmatch(name) for name in host.names(folder.relay)]
        return sorted(((each[1], each[2]) for each in found if each), key=lambda pair: _asked_at(pair[0]))
    return []


def waiting(host: Host, folder: SessionFolder) -> str:
    """What to tell whoever wonders why nothing happens; empty: nothing waits."""
    asked = [name for name, stage in _names(host, folder) if stage == "asked"]
    if not any(WAITS_S < time.time() - _asked_at(name) < UNCLAIMED_S for name in asked):
        return ""
    return (
        f"waiting for your hpclab on the laptop: open `hpclab attach {folder.name} --host LOGIN` there, "
        f"or run `hpclab relay {folder.name}` on the login node"
    )


# who asks


def ask(host: Host, folder: SessionFolder, wish: Wish, barred: NotFromHere) -> list[str]:
    """The ids of the jobs, once somebody has carried it out; his error, if he could not. `barred` is why we cannot.

    Raises TookTooLong when nobody takes it, and nothing has happened nor will; or when who took it is not heard of.
    """
    name = f"{time.time_ns()}-{secrets.token_hex(8)}"
    asked, taken, withdrawn, answered = (
        folder.relayed(name, stage) for stage in ("asked", "taken", "withdrawn", "answered")
    )
    try:
        with suppress(FileExistsError):
            host.make_folder(folder.relay)
        host.write(asked, to_text(wish))
    except OSError as error:
        raise StoreError(
            f"could not ask for it in {folder.relay}: {error.strerror}\nfree some space or mend the permissions there"
        ) from error
    try:
        return _jobs(_answer(host, folder, name, _nobody(folder, wish, barred)))
    finally:
        with suppress(OSError):
            host.rename(asked, withdrawn)
        for path in (taken, withdrawn, answered):
            with suppress(OSError):
                host.remove(path)


def _answer(host: Host, folder: SessionFolder, name: str, nobody: str) -> str:
    taken_by, deadline = False, time.monotonic() + UNCLAIMED_S
    while True:
        with suppress(OSError):
            return host.read(folder.relayed(name, "answered"))
        if not taken_by and (name, "taken") in _names(host, folder):
            taken_by, deadline = True, time.monotonic() + ANSWER_S
        if time.monotonic() > deadline:
            if taken_by:
                raise TookTooLong(
                    "somebody has taken it on, and was not heard of again: whether it was carried out is not known\n"
                    "see `hpclab status`, and the queue itself, before you say it again"
                )
            # from now on nobody can take it; unless somebody was faster
            with suppress(OSError):
                host.rename(folder.relayed(name, "asked"), folder.relayed(name, "withdrawn"))
                raise TookTooLong(nobody)
            taken_by, deadline = True, time.monotonic() + ANSWER_S
        time.sleep(LOOK_S)


def _nobody(folder: SessionFolder, wish: Wish, barred: NotFromHere) -> str:
    what, *evidence, _ = str(barred).splitlines()
    nothing = "submitted" if isinstance(wish, Submit) else "cancelled; a session that is told to stop ends by itself"
    return "\n".join(
        [
            f"{what}, and nobody was there to do it: nothing was {nothing}",
            *evidence,
            f"keep `hpclab attach {folder.name} --host LOGIN` open on your laptop, or run `hpclab relay {folder.name}` "
            "on the login node; then say it again",
        ]
    )


def _jobs(answer: str) -> list[str]:
    try:
        given = json.loads(answer)
        if "error" in given:
            raise error_of({key: str(given["error"][key]) for key in ("class", "message")})
        return [str(job_id) for job_id in given["jobs"]]
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise StoreError(
            f"the answer of who took it on cannot be read: {answer[:200]!r}\n"
            "see `hpclab status`, and the queue itself, before you say it again"
        ) from error


# who carries out


class Carrier:
    """Looks for requests, and has them carried out side by side. Its end waits for those that have begun."""

    def __init__(
        self,
        host: Host,
        folder: SessionFolder,
        carry_out: Callable[[Wish], Sequence[str]],
        *,
        may: Callable[[], bool] = lambda: True,
        tell: Callable[[str], None] = lambda _: None,
    ) -> None:
        """`may` is asked before something is taken; `tell` hears a line about all that was done."""
        self._host, self._folder, self._carry_out, self._may, self._tell = host, folder, carry_out, may, tell
        self._pool = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="relay")
        self._seen: set[str] = set()
        self.done = 0
        """How many were carried out, or refused."""

    def __enter__(self) -> Carrier:
        return self

    def __exit__(self, *_: object) -> None:
        # what has not begun is for somebody else
        self._pool.shutdown(cancel_futures=True)

    def look(self) -> None:
        """Once; returns at once."""
        here = _names(self._host, self._folder)
        new = [name for name, stage in here if stage == "asked" and name not in self._seen]
        if new and not self._may():
            return
        self._seen = {name for name, _ in here}
        for name in new:
            self._pool.submit(self._take, name)
        for path in self._leftovers(here):
            with suppress(OSError):
                self._host.remove(path)

    def _leftovers(self, here: Sequence[tuple[str, str]]) -> Iterator[str]:
        return (self._folder.relayed(name, stage) for name, stage in here if time.time() - _asked_at(name) > KEPT_S)

    def _take(self, name: str) -> None:
        asked, taken = self._folder.relayed(name, "asked"), self._folder.relayed(name, "taken")
        # who asked so long ago does not wait any more: perhaps he was killed before he could withdraw it
        is_late = time.time() - _asked_at(name) > UNCLAIMED_S + CLOCKS_DIFFER_S
        # Ctrl-C must not come between what is done and its answer
        with held_back():
            try:
                self._host.rename(asked, self._folder.relayed(name, "withdrawn") if is_late else taken)
                text = "" if is_late else self._host.read(taken)
            except OSError:
                return  # somebody else's, or withdrawn
            if is_late:
                return
            answer, line = self._answer(text)
            with suppress(OSError):
                self._host.write(self._folder.relayed(name, "answered"), json.dumps(answer) + "\n")
            self.done += 1
            with suppress(OSError):  # of a terminal that was closed
                self._tell(line)

    def _answer(self, text: str) -> tuple[dict[str, Any], str]:
        """And a line for people."""
        try:
            wish = from_text(text)
            jobs = list(self._carry_out(wish))
        except HpclabError as error:
            return {"error": error_told(error)}, str(error).splitlines()[0]
        except Exception as error:  # who asked shall hear of it at once
            failed = HpclabError(f"it failed: {error!r}\ntell the authors of hpclab")
            return {"error": error_told(failed)}, repr(error)
        done = "submitted" if isinstance(wish, Submit) else "cancelled"
        return {"jobs": jobs}, f"{done} {', '.join(jobs) if len(jobs) <= 10 else counted(len(jobs), 'job')}"
