"""The session folders on a host: made, listed, read. Readers live with files that are missing, cut off or foreign."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from typing import Any

from hpclab.batch import BATCH_SYSTEMS
from hpclab.config import Settings
from hpclab.connection import Connection, job_of_worker, parse_token
from hpclab.credentials import Credentials
from hpclab.errors import NoSuchSession, SessionExists, StoreError, UnreadableOutput
from hpclab.event import Event, from_lines
from hpclab.folder import SessionFolder
from hpclab.hosts import Host
from hpclab.job import JobRecord, JobState, JobStatus, Program


@dataclass(frozen=True, kw_only=True)
class SessionRecord:
    """What a session is: written once, when it is made."""

    name: str
    created: float
    system: str
    partition: str
    host: str
    """Where it was made. The job ids of `local` mean something there alone, though homes are shared."""
    settings: Settings
    program: Program | None = None
    """That of a run; None: it is a session with JupyterLab."""

    def to_text(self) -> str:
        return json.dumps(asdict(self), indent=2) + "\n"

    @staticmethod
    def from_text(text: str, defaults: Settings) -> SessionRecord:
        """Options that an older hpclab did not know have the defaults."""
        given = json.loads(text)
        if given["system"] not in BATCH_SYSTEMS:
            raise ValueError(f"this hpclab does not know its batch system {given['system']!r}")
        if not math.isfinite(given["created"]):
            raise ValueError(f"created at {given['created']}")
        return SessionRecord(
            name=str(given["name"]),
            created=float(given["created"]),
            system=given["system"],
            partition=str(given["partition"]),
            host=str(given.get("host", "")),
            settings=_settings(given["settings"], defaults),
            program=Program.from_dict(given["program"]) if given.get("program") else None,
        )


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _settings(given: dict[str, Any], defaults: Settings) -> Settings:
    values = asdict(defaults)
    for key, default in values.items():
        value = given.get(key, default)
        is_lines = isinstance(default, tuple) and isinstance(value, (list, tuple)) and all(map(_is_text, value))
        if not is_lines and type(value) is not type(default):
            raise ValueError(f"{key} is {value!r}")
        values[key] = tuple(value) if is_lines else value
    return Settings(**values)


LONG_LINE_BYTES = 2000
LONGEST_TAIL_BYTES = 4 * 2**20
"""Of a log: more is nothing that one would look through in a page."""

PIECE_BYTES = 2**20
"""Of what a script has printed: nobody holds all of it in memory."""

Jobs = dict[str, tuple[JobRecord, float | None, list[Event]]]
"""The jobs of a session by id: what each is, when it was submitted (unless by hand), and its events."""


@dataclass(frozen=True, kw_only=True)
class WorkerSeen:
    """A worker as the Dask scheduler sees it."""

    busy: bool = False
    silent_since: float | None = None
    """Seconds since the epoch; None: it shows signs of life."""
    cpu_percent: float | None = None
    """100 is one core."""
    memory_used_bytes: int | None = None


def _worker_seen(given: Mapping[str, Any]) -> WorkerSeen:
    since, cpu, memory = (_number(given.get(name)) for name in ("silent_since", "cpu_percent", "memory_used_bytes"))
    return WorkerSeen(
        busy=bool(given.get("tasks")),
        silent_since=since,
        cpu_percent=cpu,
        memory_used_bytes=None if memory is None else int(memory),
    )


def loads_by_job(roster: Mapping[str, WorkerSeen]) -> dict[str, tuple[float, int]]:
    """CPU (percent of one core) and memory (bytes) in use now, by job, of those that tell."""
    loads: dict[str, tuple[float, int]] = {}
    for name, seen in roster.items():
        if seen.cpu_percent is not None and seen.memory_used_bytes is not None:
            cpu, memory = loads.get(job_of_worker(name), (0.0, 0))
            loads[job_of_worker(name)] = (cpu + seen.cpu_percent, memory + seen.memory_used_bytes)
    return loads


def _number(given: Any) -> float | None:
    is_number = isinstance(given, int | float) and not isinstance(given, bool)
    return given if is_number and math.isfinite(given) else None


@dataclass(frozen=True, kw_only=True)
class Activity:
    """How busy a session has been, as its scheduler counts it."""

    busy_core_s: float | None = None
    """Summed over the cores of the workers; None: not known."""
    samples: tuple[tuple[float, float], ...] = ()
    """Cores at work at points in time (seconds since the epoch), the oldest first."""
    time: float | None = None
    """When it was told; the scheduler does so every few seconds as long as it lives. None: not known."""


@dataclass(frozen=True, kw_only=True)
class Known:
    """What a batch system once said of jobs, and when (seconds since the epoch; 0: never)."""

    time: float
    jobs: Mapping[str, JobStatus]
    hosts: tuple[str, ...] = ()
    """Where the batch system has shown jobs of this session: a home may be shared by clusters, which number alike."""


def _status(job_id: str, given: Mapping[str, Any]) -> JobStatus:
    start, end, code = (given.get(name) for name in ("start_time", "end_time", "exit_status"))
    return JobStatus(
        job_id=job_id,
        state=JobState(given["state"]),
        reason=str(given.get("reason", "")),
        node=str(given.get("node", "")),
        start_time=None if start is None else _time(start),
        end_time=None if end is None else _time(end),
        exit_status=None if code is None else int(code),
    )


def _time(given: Any) -> float:
    time = float(given)
    if not math.isfinite(time):
        raise ValueError(f"{time} is no time")
    return time


class Store:
    """All sessions of the user on one host."""

    def __init__(self, host: Host, defaults: Settings) -> None:
        self._host = host
        self._defaults = defaults

    def folder(self, name: str) -> SessionFolder:
        return SessionFolder(f"{self._host.home}/sessions/{name}")

    def names(self) -> list[str]:
        with _told(f"list the sessions in {self._host.home}"):
            return self._host.names(f"{self._host.home}/sessions")

    def make(self, record: SessionRecord, credentials: Credentials, scripts: dict[str, str]) -> SessionFolder:
        """The folder with all that a session begins with; when anything fails, without a trace."""
        folder = self.folder(record.name)
        with _told(f"make the session folder {folder.path}"):
            try:
                self._host.make_folder(folder.path)
            except FileExistsError:
                raise SessionExists(
                    f"there is a session {record.name!r} already\n"
                    f"see it with `hpclab status {record.name}`, or choose another --name"
                ) from None
        secrets = {
            folder.token: credentials.token + "\n",
            folder.ca: credentials.ca_pem,
            folder.certificate: credentials.certificate_pem,
            folder.key: credentials.key_pem,
        }
        try:
            with _told(f"write the session's files into {folder.path}"):
                for subfolder in folder.subfolders:
                    self._host.make_folder(subfolder)
                for path, text in {**secrets, folder.session: record.to_text()}.items():
                    self._host.write(path, text)
                for path, text in scripts.items():
                    self._host.write(path, text, mode=0o700)
        except BaseException:
            self._host.remove_tree(folder.path)
            raise
        return folder

    def remove(self, name: str) -> None:
        self._host.remove_tree(self.folder(name).path)

    def session(self, name: str) -> SessionRecord:
        path = self.folder(name).session
        try:
            record = SessionRecord.from_text(self._host.read(path), self._defaults)
            if record.name != name:
                raise ValueError(f"it is that of {record.name!r}")
            return record
        except (FileNotFoundError, NotADirectoryError):
            known = ", ".join(self.names()[-10:]) or "none"
            raise NoSuchSession(
                f"no session {name!r} on {self._host.name}\nsessions there: {known}; for one elsewhere say --host LOGIN"
            ) from None
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise StoreError(
                f"the session {name!r} cannot be read: {path}: {error!r}\n"
                f"nothing of it was changed; look at {self.folder(name).path}, and remove it if it is not a session"
            ) from error

    def add_jobs(self, name: str, job_ids: Sequence[str], record: JobRecord, submit_time: float) -> None:
        """One file for what was submitted at once: for the tasks of an array it names them all."""
        path = self.folder(name).job(job_ids[0])
        tasks = {"job_ids": list(job_ids)} if len(job_ids) > 1 else {}
        with _told(f"record job {job_ids[0]}, which was submitted,"):
            self._host.write(path, json.dumps({**record.to_dict(), "submit_time": submit_time, **tasks}) + "\n")

    def jobs(self, name: str) -> Jobs:
        """Every job by its id: those that we submitted, and those that recorded themselves when they started."""
        folder = self.folder(name)
        with _told(f"list the jobs of {name}"):
            submitted = [n.removesuffix(".json") for n in self._host.names(folder.jobs) if n.endswith(".json")]
            started = [n.removesuffix(".jsonl") for n in self._host.names(folder / "events") if n.endswith(".jsonl")]
        found: Jobs = {}
        records: dict[str, dict[str, Any]] = {}
        for first in submitted:
            given = self._json(folder.job(first))
            tasks = given.get("job_ids")
            records |= dict.fromkeys(map(str, tasks) if isinstance(tasks, list) else [first], given)
        for job_id in sorted({*records, *started}, key=_by_number):
            events = self.events(name, job_id) if job_id in started else []
            told = [records[job_id]] if job_id in records else []
            told += [event.details for event in events if event.what == "started"]
            for given in told:
                try:
                    submit_time = float(given.get("submit_time") or 0)
                    if not math.isfinite(submit_time):
                        continue
                    found[job_id] = (JobRecord.from_dict(given), submit_time or None, events)
                    break
                except (KeyError, TypeError, ValueError):
                    continue  # cut off or foreign: the other account may do
        return found

    def events(self, name: str, job_id: str) -> list[Event]:
        return from_lines(self._text(self.folder(name).events(job_id)))

    def connection(self, name: str) -> Connection | None:
        try:
            return Connection.from_text(self._text(self.folder(name).connection))
        except UnreadableOutput:
            return None

    def roster(self, name: str) -> dict[str, WorkerSeen]:
        """The workers that the Dask scheduler has, by name."""
        workers = self._json(self.folder(name).roster).get("workers")
        given = workers if isinstance(workers, list) else []
        return {str(w["name"]): _worker_seen(w) for w in given if isinstance(w, dict) and "name" in w}

    def activity(self, name: str) -> Activity:
        given = self._json(self.folder(name).activity)
        try:
            samples = tuple((_time(at), _time(busy)) for at, busy in given.get("samples", ()))
        except (ValueError, TypeError, OverflowError):
            samples = ()
        told, busy = (_number(given.get(name)) for name in ("time", "busy_core_s"))
        return Activity(busy_core_s=busy, samples=samples, time=told)

    def pulse(self, name: str) -> float | None:
        """When the main job was last known to live."""
        try:
            seen = float(self._text(self.folder(name).pulse))
        except ValueError:
            return None
        return seen if math.isfinite(seen) else None

    def known(self, name: str) -> Known:
        """What the batch system said when it last answered."""
        given = self._json(self.folder(name).known)
        try:
            jobs = {str(job_id): _status(str(job_id), fields) for job_id, fields in given.get("jobs", {}).items()}
            hosts = tuple(str(host) for host in given.get("hosts", ()))
            return Known(time=_time(given.get("time", 0)), jobs=jobs, hosts=hosts)
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError):  # cut off or foreign
            return Known(time=0.0, jobs={})

    def remember(self, name: str, known: Known) -> None:
        """As far as it can be written: what is only a memory must not stand in anybody's way."""
        jobs = {job_id: {**vars(status), "state": status.state.value} for job_id, status in known.jobs.items()}
        with suppress(OSError):
            told = {"time": known.time, "hosts": known.hosts, "jobs": jobs}
            self._host.write(self.folder(name).known, json.dumps(told) + "\n")

    def token(self, name: str) -> str:
        with _told("read the session's token"):
            return parse_token(self._host.read(self.folder(name).token))

    def over(self, name: str) -> str:
        """How the session ended; empty while it has not."""
        return self._text(self.folder(name).over).strip()

    def write(self, path: str, text: str, *, mode: int = 0o600) -> None:
        with _told(f"write {path}"):
            self._host.write(path, text, mode=mode)

    def log(self, name: str, job_id: str, *, lines: int) -> tuple[str, int]:
        """The last lines of a job's log, and the offset from where it goes on."""
        text, offset = self.log_from(name, job_id, -min(LONG_LINE_BYTES * lines, LONGEST_TAIL_BYTES))
        return "\n".join(text.splitlines()[-lines:]), offset

    def log_from(self, name: str, job_id: str, offset: int) -> tuple[str, int]:
        try:
            return self._host.read_from(self.folder(name).log(job_id), offset)
        except OSError:
            return "", 0

    def printed(self, path: str, offset: int) -> bytes:
        """A piece of a file as it is; empty when there is no more of it (yet)."""
        try:
            return self._host.read_piece(path, offset, PIECE_BYTES)
        except OSError:
            return b""

    def _text(self, path: str) -> str:
        """Empty when there is none."""
        try:
            return self._host.read(path)
        except OSError:
            return ""

    def _json(self, path: str) -> dict[str, Any]:
        try:
            given = json.loads(self._text(path) or "{}")
        except ValueError:
            return {}
        return given if isinstance(given, dict) else {}


def _by_number(job_id: str) -> tuple[list[int], str]:
    """The tasks of an array (`12_10`, `12[10].server`) follow each other, too."""
    return ([int(digits) for digits in re.findall(r"[0-9]{1,18}", job_id)], job_id)


@contextmanager
def _told(what: str) -> Iterator[None]:
    """An OSError as a StoreError."""
    try:
        yield
    except OSError as error:
        where = error.filename or ""
        raise StoreError(
            f"could not {what}: {error.strerror} {where}\n"
            "free some space or mend the permissions there, or set HPCLAB_HOME to another folder"
        ) from error
