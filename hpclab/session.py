"""A session: one main job and its worker jobs, a name, and a folder on the cluster. The core; faces only call it."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from hpclab.batch import BATCH_SYSTEMS, parse_queue
from hpclab.config import Settings
from hpclab.credentials import new_credentials
from hpclab.errors import HpclabError, JobEnded, NoSuchJob, NoSuchSession, NotRunning, StoreError, TookTooLong
from hpclab.event import Event
from hpclab.folder import SessionFolder
from hpclab.hosts import Host
from hpclab.job import Chunk, JobRecord, JobSpec, JobState, JobStatus
from hpclab.jobqueue import JobQueue
from hpclab.names import check_name, new_name
from hpclab.script import job_script
from hpclab.store import Jobs, SessionRecord, Store
from hpclab.view import JobView, SessionView, session_state, true_status, unreadable, workers_by_job

ALIVE = ("queued", "held", "starting", "running", "unknown")
CANCEL_GRACE_S = 45
"""How long `stop` and `remove-worker` wait for jobs to be gone; batch systems take up to 30 s between TERM and KILL."""

JOB_TELLS_FIRST_S = 15
"""The job has the same time limit for its start, and knows better what went wrong."""
ASK_EVERY_S = 1.0
"""How often a start asks the batch system; in between the job itself tells by its events."""
FOLLOW_LINES = 1000


@dataclass(frozen=True, kw_only=True)
class Phase:
    """One step of a start: `what` is queued, running, scheduler or jupyter; seconds since the submission."""

    what: str
    text: str
    elapsed_s: float


@dataclass(frozen=True, kw_only=True)
class Story:
    """The story of one job: what happened when, and the end of its log where that explains something."""

    job: JobView
    events: tuple[Event, ...]
    log_tail: str


class Session:
    """One session on one host."""

    def __init__(self, host: Host, store: Store, record: SessionRecord) -> None:
        self._host = host
        self._store = store
        self._record = record
        self._queue = JobQueue(host, record.system)

    @property
    def name(self) -> str:
        return self._record.name

    @property
    def folder(self) -> SessionFolder:
        return self._store.folder(self.name)

    @staticmethod
    def start(host: Host, settings: Settings, *, name: str = "", notebook_dir: str) -> Session:
        """Make the folder and its scripts, and submit the main job. When that fails, nothing is left."""
        store = Store(host, settings)
        record = _new_record(store, settings, host.name, name=name, notebook_dir=notebook_dir)
        session = Session(host, store, record)
        scripts = {
            session.folder.start_script: session.start_script(),
            session.folder.worker_script: session.worker_script(),
        }
        store.make(record, new_credentials(record.name), scripts)
        try:
            session._submit(session.folder.start_script, session._main_record())
        except BaseException:
            store.remove(record.name)
            raise
        return session

    def _submit(self, script: str, record: JobRecord) -> str:
        """A job's id. One that we cannot record is cancelled again, for nobody would find it."""
        job_id = self._queue.submit(script)
        try:
            self._store.add_job(self.name, job_id, record, time.time())
        except BaseException:
            self._queue.cancel([job_id])
            raise
        return job_id

    @staticmethod
    def planned(host: Host, settings: Settings, *, name: str = "", notebook_dir: str) -> Session:
        """A session that is only thought of: its scripts can be looked at."""
        store = Store(host, settings)
        return Session(host, store, _new_record(store, settings, host.name, name=name, notebook_dir=notebook_dir))

    @staticmethod
    def open(host: Host, settings: Settings, name: str) -> Session:
        """A session that exists; raises NoSuchSession or StoreError."""
        store = Store(host, settings)
        return Session(host, store, store.session(check_name(name)))

    @staticmethod
    def only(host: Host, settings: Settings, *, or_latest: bool = False) -> Session:
        """The one session that is alive, for commands that name none; for those that only look, else the latest."""
        sessions = [(session, view) for session, view in Session._views(host, settings) if session]
        alive = [(session, view) for session, view in sessions if view.state in ALIVE]
        if len(alive) == 1:
            return alive[0][0]
        if or_latest and sessions and not alive:
            return sessions[-1][0]
        if not alive:
            raise NoSuchSession("no session is running\nstart one with `hpclab start`")
        names = ", ".join(view.name for _, view in alive)
        raise NoSuchSession(f"several sessions are running: {names}\nsay which one")

    @staticmethod
    def all(host: Host, settings: Settings) -> list[dict[str, Any]]:
        """`describe()` of every session; one that cannot be read says so and hides no other."""
        return [view.describe() for _, view in Session._views(host, settings)]

    @staticmethod
    def _views(host: Host, settings: Settings) -> list[tuple[Session | None, SessionView]]:
        """Every session and what it looks like, the oldest first; None for one that cannot be read."""
        store = Store(host, settings)
        found: list[tuple[Session | None, SessionView]] = []
        queues: dict[str, JobQueue] = {}
        opened: list[tuple[Session, Jobs]] = []
        for name in store.names():
            try:
                session = Session(host, store, store.session(name))
                # sessions of one batch system share one queue, and so one question about all their jobs
                session._queue = queues.setdefault(session._record.system, session._queue)
                opened.append((session, store.jobs(name)))
            except HpclabError as error:
                found.append((None, unreadable(name, store.folder(name).path, str(error).splitlines()[0])))
        for system, queue in queues.items():
            queue.status([job for session, jobs in opened if session._asks(system) for job in jobs])
        found += [(session, session._view(jobs)) for session, jobs in opened]
        return sorted(found, key=lambda pair: pair[1].created)

    # the scripts

    def start_script(self) -> str:
        s = self._record.settings
        argv = [
            *self._inside("main_job"),
            *["--workers", str(s.workers), "--nthreads", str(s.cores), "--memory", str(s.memory_bytes)],
            *["--death-timeout", str(s.death_timeout_s), "--start-timeout", str(s.start_timeout_s)],
            *["--interface", self._interface(), "--mpiexec", s.mpiexec, "--root-dir", s.notebook_dir],
        ]
        first = Chunk(count=1, cores=s.scheduler_cores, memory_bytes=s.scheduler_memory_bytes)
        workers = Chunk(count=s.workers, cores=s.cores, memory_bytes=s.memory_bytes)
        return self._script(self._main_record(), (first, workers), argv)

    def worker_script(self, record: JobRecord | None = None) -> str:
        s = self._record.settings
        record = record or self.worker_record()
        argv = [
            *self._inside("worker_job"),
            *["--workers", str(record.workers), "--nthreads", str(record.cores), "--memory", str(record.memory_bytes)],
            *["--death-timeout", str(s.death_timeout_s), "--drain", str(min(s.drain_s, record.walltime_s // 4))],
            *["--interface", self._interface()],
        ]
        chunk = Chunk(count=record.workers, cores=record.cores, memory_bytes=record.memory_bytes)
        return self._script(record, (chunk,), argv)

    def _main_record(self) -> JobRecord:
        s = self._record.settings
        return JobRecord(
            role="main", workers=s.workers, cores=s.cores, memory_bytes=s.memory_bytes, walltime_s=s.walltime_s
        )

    def worker_record(
        self,
        *,
        workers: int | None = None,
        cores: int | None = None,
        memory_bytes: int | None = None,
        walltime_s: int | None = None,
    ) -> JobRecord:
        """What a worker job asks for: the session's own settings but for what is given."""
        s = self._record.settings
        return JobRecord(
            role="worker",
            workers=workers or s.workers_per_job,
            cores=cores or s.cores,
            memory_bytes=memory_bytes or s.memory_bytes,
            walltime_s=walltime_s or s.worker_walltime_s,
        )

    def _inside(self, module: str) -> list[str]:
        python = self._record.settings.python or self._host.python
        return [python, "-P", "-m", f"hpclab.inside.{module}", self.folder.path]

    def _interface(self) -> str:
        wanted = self._record.settings.interface
        if wanted != "auto":
            return wanted
        return "loopback" if self._record.system == "local" else ""

    def _script(self, record: JobRecord, chunks: tuple[Chunk, ...], argv: list[str]) -> str:
        s = self._record.settings
        spec = JobSpec(
            name=f"hpclab-{self.name}" if record.role == "main" else f"hpclab-{self.name}-worker",
            chunks=chunks,
            walltime_s=record.walltime_s,
            log=self.folder.log("{job_id}"),
            partition=self._record.partition,
            extra=s.extra,
            options={"slots": str(s.local_slots)} if s.local_slots else {},
        )
        batch = BATCH_SYSTEMS[self._record.system]
        return job_script(batch, spec, self.folder, record, prologue=s.prologue, argv=argv)

    # what it looks like

    def view(self) -> SessionView:
        return self._view(self._store.jobs(self.name))

    def _asks(self, system: str) -> bool:
        """Whether this session's jobs are to be asked about here."""
        is_here = self._record.system != "local" or self._record.host in ("", self._host.name)
        return self._record.system == system and is_here

    def _statuses(self, jobs: Jobs) -> dict[str, JobStatus]:
        if self._asks(self._record.system):
            return self._queue.status(list(jobs))
        reason = f"it is on {self._record.host}: ask there"
        return {job_id: JobStatus(job_id=job_id, state=JobState.UNKNOWN, reason=reason) for job_id in jobs}

    def _check_here(self) -> None:
        if not self._asks(self._record.system):
            raise NotRunning(f"the session {self.name} is on {self._record.host}\nsay this there")

    def _view(self, jobs: Jobs) -> SessionView:
        statuses = self._statuses(jobs)
        over = self._store.over(self.name)
        true = {job_id: true_status(statuses[job_id], events, over=over) for job_id, (_, _, events) in jobs.items()}
        # the last one: start-dask.sh may have been submitted again by hand
        main_id = next((job_id for job_id, (record, _, _) in reversed(jobs.items()) if record.role == "main"), "")
        connection = self._store.connection(self.name)
        if connection is not None and connection.job_id != main_id:
            connection = None  # left over from something else
        state, reason = session_state(true.get(main_id), connected=connection is not None, over=over)
        is_up = state in ("running", "unknown")
        joined = workers_by_job(self._store.roster(self.name) if is_up else [], jobs)
        return SessionView(
            name=self.name,
            queue=":".join(filter(None, (self._record.system, self._record.partition))),
            folder=self.folder.path,
            created=self._record.created,
            login=self._host.login,
            state=state,
            reason=reason,
            jobs=tuple(
                JobView(job_id=job_id, record=record, submit_time=at, status=true[job_id], joined=joined[job_id])
                for job_id, (record, at, _) in jobs.items()
            ),
            connection=connection if is_up else None,
            now=time.time(),
        )

    def describe(self) -> dict[str, Any]:
        """The session without its secrets."""
        return self.view().describe()

    def describe_with_secrets(self) -> dict[str, Any]:
        """The same, with the token in its links: for the user who asked, never for a log."""
        return self.view().describe(self._store.token(self.name))

    def job(self, job_id: str = "") -> JobView:
        """One job of the session; the main job when none is named."""
        view = self.view()
        for job in view.jobs:
            if job.job_id == job_id or (not job_id and job is view.main):
                return job
        known = ", ".join(job.job_id for job in view.jobs) or "none"
        raise NoSuchJob(f"the session {self.name} has no {f'job {job_id!r}' if job_id else 'main job'}\njobs: {known}")

    def why(self, job_id: str = "") -> Story:
        job = self.job(job_id)
        events = self._store.events(self.name, job.job_id)
        if job.submit_time:
            submitted = Event(time=job.submit_time, what="submitted", details={"queue": self._record.system})
            events = [submitted, *events]
        failed = job.status.state is JobState.FAILED
        return Story(
            job=job,
            events=tuple(events),
            log_tail=self._log_of_failure(job.job_id, lines=15) if failed else "",
        )

    def log(self, job_id: str = "", *, lines: int = 50) -> str:
        return self._store.log(self.name, job_id or self.job().job_id, lines=lines)[0]

    def _log_of_failure(self, job_id: str, *, lines: int) -> str:
        """The last lines up to the job's own word about its end; after that only the tear-down talks."""
        text = self.log(job_id, lines=FOLLOW_LINES).splitlines()
        said = [number for number, line in enumerate(text) if line.startswith(("hpclab: ending", "hpclab: failed"))]
        return "\n".join(text[: said[-1] + 1 if said else None][-lines:])

    def log_lines(self, job_id: str = "", *, lines: int, follow: bool) -> Iterator[str]:
        """The end of a log, and, if asked to, what comes after, until the job has ended."""
        job_id = self.job(job_id).job_id
        text, offset = self._store.log(self.name, job_id, lines=lines)
        yield text
        has_ended = False
        while follow:
            text, offset = self._store.log_from(self.name, job_id, offset)
            if text:
                yield text.removesuffix("\n")
            elif has_ended:
                return
            else:
                # one more look after the end, for what was written meanwhile
                has_ended = self.job(job_id).status.state.is_final
                time.sleep(0 if has_ended else 0.5)

    # what changes it

    def check_running(self) -> None:
        """Raises NotRunning when there is nothing to connect to."""
        view = self.view()
        if view.connection is None:
            raise NotRunning(_not_running(view))

    def follow(self, *, poll_s: float = 0.05) -> Iterator[Phase]:
        """Every step until JupyterLab is up. Raises JobEnded with the reason and the log, or TookTooLong.

        The time limit counts from when the job runs: a queue may take as long as it takes.
        """
        running_since, asked = None, 0.0
        timeout_s = self._record.settings.start_timeout_s
        told: set[str] = set()
        main = self.job()
        job_id, begin = main.job_id, main.submit_time or time.time()
        while True:
            now = time.time()
            # before the events, so that those that led to it are told
            connection = self._store.connection(self.name)
            phases = _phases(self._store.events(self.name, job_id), begin)
            running_since = running_since or (now if phases else None)
            yield from (phase for phase in phases if phase.what not in told)
            told |= {phase.what for phase in phases}
            if connection is not None and connection.job_id == job_id:
                return
            if now - asked > ASK_EVERY_S:
                asked, status = now, self.job(job_id).status
                if status.state.is_final or status.state is JobState.COMPLETING:
                    self._raise_ended(job_id)
                if not phases:
                    yield Phase(what="queued", text=status.reason or status.state.value, elapsed_s=now - begin)
            if running_since and now - running_since > timeout_s + JOB_TELLS_FIRST_S:
                raise TookTooLong(
                    f"job {job_id} runs, but JupyterLab was not up within {timeout_s:.0f} s\n"
                    f"it goes on: see `hpclab why --session {self.name}`, or end it with `hpclab stop {self.name}`"
                )
            time.sleep(poll_s)

    def _raise_ended(self, job_id: str) -> None:
        """Once more, when the job is quite gone, for by then it has said why."""
        job = self._gone([job_id], within_s=CANCEL_GRACE_S).get(job_id) or self.job(job_id)
        tail = "\n".join(f"    {line}" for line in self._log_of_failure(job_id, lines=12).splitlines())
        raise JobEnded(
            f"the main job {job_id} ended before JupyterLab was up: {job.status.reason or job.status.state.value}\n"
            f"  the last lines of its log:\n{tail or '    (empty)'}\n"
            f"the whole log: hpclab logs --session {self.name}"
        )

    def add_worker(self, record: JobRecord, count: int = 1) -> list[str]:
        """Submit `count` worker jobs; their ids. What was submitted before one is refused stays."""
        self._check_here()
        view = self.view()
        if view.state not in ALIVE:
            raise NotRunning(_not_running(view))
        script = self._written(record)
        submitted: list[str] = []
        for _ in range(count):
            if over := self._store.over(self.name):
                done = f"{len(submitted)} of {count} were submitted"
                raise NotRunning(
                    f"the session {self.name} has ended meanwhile: {over}\n{done}; start a new one with `hpclab start`"
                )
            submitted.append(self._submit(script, record))
        return submitted

    def _written(self, record: JobRecord) -> str:
        """The path of the script for such a job: the session's own where it fits."""
        text = self.worker_script(record)
        if record == self.worker_record():
            return self.folder.worker_script
        path = self.folder.other_script(hashlib.sha256(text.encode()).hexdigest()[:8])
        self._store.write(path, text, mode=0o700)
        return path

    def remove_worker(self, job_id: str) -> str:
        """Let the workers of a job hand over their data and leave, then see that the job is gone. What was done."""
        self._check_here()
        job = self.job(job_id)
        if job.record.role == "main":
            raise NotRunning(
                f"job {job_id} is the main job of {self.name}\nto end the whole session: hpclab stop {self.name}"
            )
        if job.status.state.is_final:
            return f"job {job_id} had ended already: {job.status.reason or job.status.state.value}"
        if job.joined:
            self._store.write(self.folder.retire(job_id), "")
            left_s = job.status.end_time - time.time() if job.status.end_time else CANCEL_GRACE_S
            if job_id in self._gone([job_id], within_s=min(max(left_s, 1), 2 * CANCEL_GRACE_S)):
                return f"job {job_id} handed over its data and left"
        self._queue.cancel([job_id])
        if not self._gone([job_id], within_s=CANCEL_GRACE_S):
            raise TookTooLong(_not_gone([job_id], self.name))
        return f"job {job_id} was {'told to end' if job.joined else 'cancelled'}"

    def stop(self) -> list[JobView]:
        """Cancel every job, also those still queued, and wait for them to be gone. Those that were cancelled."""
        self._check_here()
        if not self._store.over(self.name):
            # a full disk must not keep a session running
            with suppress(StoreError):
                self._store.write(self.folder.over, f"stopped at {time.strftime('%Y-%m-%d %H:%M:%S')}\n")
        cancelled: dict[str, JobView] = {}
        # again, for an `add-worker` in another terminal may have come between
        while alive := [
            job for job in self.view().jobs if not job.status.state.is_final and job.job_id not in cancelled
        ]:
            self._queue.cancel([job.job_id for job in alive])
            cancelled |= {job.job_id: job for job in alive}
            gone = self._gone(list(cancelled), within_s=CANCEL_GRACE_S)
            if late := [
                job_id
                for job_id in cancelled
                if job_id not in gone and cancelled[job_id].status.state is not JobState.UNKNOWN
            ]:
                raise TookTooLong(_not_gone(late, self.name))
        return list(cancelled.values())

    def _gone(self, job_ids: list[str], *, within_s: float) -> dict[str, JobView]:
        """Wait for jobs to end; those that have."""
        deadline = time.time() + within_s
        while True:
            jobs = {job.job_id: job for job in self.view().jobs if job.job_id in job_ids}
            gone = {job_id: job for job_id, job in jobs.items() if job.status.state.is_final}
            if len(gone) == len(job_ids) or time.time() > deadline:
                return gone
            time.sleep(0.2)


def _not_gone(job_ids: list[str], name: str) -> str:
    return (
        f"cancelled, but not gone after {CANCEL_GRACE_S} s: {', '.join(job_ids)}\n"
        f"look again with `hpclab status {name}`, or say it again"
    )


def _not_running(view: SessionView) -> str:
    reason = f": {view.reason}" if view.reason else ""
    return f"the session {view.name} is not running but {view.state}{reason}\nstart a new one with `hpclab start`"


def _new_record(store: Store, settings: Settings, host_name: str, *, name: str, notebook_dir: str) -> SessionRecord:
    system, partition = parse_queue(settings.queue)
    return SessionRecord(
        name=check_name(name) if name else new_name(set(store.names())),
        created=time.time(),
        system=system,
        partition=partition,
        host=host_name,
        settings=replace(settings, notebook_dir=settings.notebook_dir or notebook_dir),
    )


_STEPS = {"started": "running", "prologue": "prologue", "scheduler": "scheduler", "jupyter": "jupyter"}


def _phases(events: list[Event], begin: float) -> list[Phase]:
    """The steps that the job has told of."""
    return [
        Phase(what=_STEPS[event.what], text=event.sentence, elapsed_s=max(0.0, event.time - begin))
        for event in events
        if event.what in _STEPS
    ]
