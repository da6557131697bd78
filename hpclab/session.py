"""A session: one main job and its worker jobs, a name, and a folder on the cluster. The core; faces only call it."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from hpclab.batch import BATCH_SYSTEMS, parse_queue
from hpclab.config import Settings
from hpclab.connection import Connection, job_of_worker
from hpclab.credentials import new_credentials
from hpclab.detection import VERSIONS_COMMAND, detected, the_one
from hpclab.errors import (
    ConfigError,
    HpclabError,
    IsRun,
    NoSuchJob,
    NoSuchSession,
    NotFromHere,
    NotRunning,
    SessionExists,
    StoreError,
    TookTooLong,
)
from hpclab.event import Event
from hpclab.folder import SessionFolder
from hpclab.growth import (
    FAILURES_IN_A_ROW,
    Change,
    Demand,
    adapted,
    failing,
    kept,
    replacement_lead_s,
    scaled,
)
from hpclab.hosts import Host
from hpclab.interrupts import held_back
from hpclab.job import JobRecord, JobState, JobStatus, Place, Program
from hpclab.jobqueue import JobQueue
from hpclab.names import check_name, new_name
from hpclab.relay import Cancel, Carrier, Submit, Wish, ask
from hpclab.request import Request
from hpclab.statuses import job_statuses, knows_jobs_here, open_jobs
from hpclab.store import Activity, Jobs, SessionRecord, Store, loads_by_job
from hpclab.units import counted
from hpclab.versions import in_words
from hpclab.view import (
    SCHEDULER_SILENT_S,
    SILENT_S,
    JobView,
    ProgramView,
    SessionView,
    has_joined,
    is_cut_short,
    last_run,
    lost_status,
    session_state,
    silent_status,
    true_status,
    unreadable,
    workers_by_job,
)

ALIVE = ("queued", "held", "starting", "running", "unknown")
CANCEL_GRACE_S = 45
"""How long `stop` and `remove-worker` wait for jobs to be gone; batch systems take up to 30 s between TERM and KILL."""
FOLLOW_LINES = 1000
ROOM_BYTES = 2**16
NEXT_PULSE_S = 3.0
"""A main job that lives shows another pulse within this time."""
VIEW_EVERY_S = 10
"""How often somebody who carries requests out sees for others how the jobs are."""
LAG_S = 5
"""The scheduler's roster may come so much later than the worker's own word."""
LOOK_EVERY = 10
"""After how many single submissions it is seen whether the earlier ones have failed to start."""


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
        self._queue = JobQueue(host, record.system, login=_who_may_ask(host, record))
        self.request = Request(
            folder=self.folder,
            system=record.system,
            partition=record.partition,
            settings=record.settings,
            python=host.python,
            program=record.program,
        )

    @property
    def program(self) -> Program | None:
        """A run's; None: it is a session with JupyterLab."""
        return self._record.program

    @property
    def queue(self) -> JobQueue:
        return self._queue

    @property
    def name(self) -> str:
        return self._record.name

    @property
    def folder(self) -> SessionFolder:
        return self._store.folder(self.name)

    @staticmethod
    def start(
        host: Host, settings: Settings, *, name: str = "", notebook_dir: str, program: Program | None = None
    ) -> Session:
        """Make the folder and its scripts, and submit the main job; with a program it is a run, and has one job.

        When that fails, nothing is left.
        """
        store = Store(host, settings)
        record = _new_record(store, settings, host, name=name, notebook_dir=notebook_dir)
        session = Session(host, store, replace(record, program=program))
        session._make()
        try:
            session._submit(session._main_script, session.request.main_record)
        except BaseException:
            store.remove(record.name)
            raise
        return session

    def start_script(self) -> str:
        """That of the main job, which compares its versions with those of the environment that makes the script."""
        versions = in_words(self._host.versions) if self._record.settings.check_versions else ""
        return replace(self.request, versions=versions).main_script()

    def _submit(self, script: str, record: JobRecord, count: int = 1) -> list[str]:
        """The jobs' ids; where this host may not submit, somebody who may is asked to do it."""
        try:
            return self._submit_here(script, record, count)
        except NotFromHere as barred:
            if record.role == "main":
                raise  # nobody looks yet for what its session asks for
            script = script.removeprefix(f"{self.folder.path}/")
            return ask(self._host, self.folder, Submit(script=script, record=record, count=count), barred)

    def _cancel(self, job_ids: Sequence[str]) -> None:
        try:
            self._queue.cancel(job_ids)
        except NotFromHere as barred:
            ask(self._host, self.folder, Cancel(job_ids=tuple(job_ids)), barred)

    def carrier(self, tell: Callable[[str], None] = lambda _: None) -> Carrier:
        """For a host that may submit: carries out what this session asks for on others."""
        return Carrier(self._host, self.folder, self.fulfil, may=self._knows_jobs_here, tell=tell)

    def carry(self, tell: Callable[[str], None]) -> None:
        """Do so until it has ended; and see how its jobs are, for those who may not ask."""
        with self.carrier(tell) as carrier:
            while self.view().state in (*ALIVE, "ending"):
                done, view_at = carrier.done, time.monotonic() + VIEW_EVERY_S
                while carrier.done == done and time.monotonic() < view_at:
                    carrier.look()
                    time.sleep(1)

    def fulfil(self, wish: Wish) -> list[str]:
        """Carry out what was asked for on another host; the ids of its jobs."""
        if isinstance(wish, Cancel):
            if strange := sorted(set(wish.job_ids) - set(self._store.jobs(self.name))):
                raise NoSuchJob(f"the session {self.name} has no job {strange[0]!r}\nnothing was cancelled")
            self._queue.cancel(wish.job_ids)
            return list(wish.job_ids)
        if over := self._store.over(self.name):
            raise NotRunning(f"the session {self.name} has ended: {over}\nstart a new one with `hpclab start`")
        return self._submit_here(self.folder / wish.script, wish.record, wish.count)

    def _submit_here(self, script: str, record: JobRecord, count: int) -> list[str]:
        """The jobs' ids. What we cannot record is cancelled again, for nobody would find it."""
        with held_back():
            job_ids = self._queue.submit(script, count=count, log=self.folder.log("{job_id}"))
            try:
                self._store.add_jobs(self.name, job_ids, record, time.time())
            except BaseException:
                self._queue.cancel(job_ids)
                raise
        if record.role == "worker" and (over := self._store.over(self.name)):
            # a `stop` that came between has not seen them
            self._queue.cancel(job_ids)
            raise NotRunning(
                f"the session {self.name} has ended meanwhile: {over}\nstart a new one with `hpclab start`"
            )
        return job_ids

    @property
    def _main_script(self) -> str:
        return self.folder.run_script if self.program else self.folder.start_script

    def _make(self) -> None:
        scripts = {self._main_script: self.start_script()}
        if not self.program:
            scripts[self.folder.worker_script] = self.request.worker_script(self.request.worker_record())
        self._store.make(self._record, new_credentials(self.name), scripts)

    @staticmethod
    def prepare(host: Host, settings: Settings, *, name: str, notebook_dir: str) -> Session:
        """The session of a main job that was submitted by hand, and that runs already: made, or taken up again.

        Raises SessionExists when another main job runs in it.
        """
        store = Store(host, settings)
        # it was submitted from somewhere else; here is only where it runs
        record = replace(_new_record(store, settings, host, name=name, notebook_dir=notebook_dir), host="")
        if name not in store.names():
            session = Session(host, store, record)
            session._make()
            return session
        session = Session.open(host, settings, name)
        if (state := session.view().state) in ALIVE:
            raise SessionExists(
                f"the session {name} is {state} already\n"
                f"submit add-one-worker.sh to give it workers, or set HPCLAB_NAME to another name for a new session"
            )
        # that an earlier main job was stopped does not hold for this one
        session._store.write(session.folder.over, "its main job ended\n")
        return session

    @staticmethod
    def planned(host: Host, settings: Settings, *, name: str = "", notebook_dir: str) -> Session:
        """A session that is only thought of: its scripts can be looked at."""
        store = Store(host, settings)
        return Session(host, store, _new_record(store, settings, host, name=name, notebook_dir=notebook_dir))

    @staticmethod
    def open(host: Host, settings: Settings, name: str) -> Session:
        """A session that exists; raises NoSuchSession or StoreError."""
        store = Store(host, settings)
        return Session(host, store, store.session(check_name(name)))

    @staticmethod
    def only(host: Host, settings: Settings, *, or_latest: bool = False, to_grow: bool = False) -> Session:
        """The one session that is alive, for commands that name none; for those that only look, else the latest.

        A run is not meant by those that make it grow.
        """
        sessions = [
            (session, view)
            for session, view in Session._views(host, settings)
            if session and not (to_grow and session.program)
        ]
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
            queue.status(
                [
                    job
                    for session, jobs in opened
                    if session._asks(system)
                    for job in open_jobs(store.known(session.name), jobs)
                ]
            )
        found += [(session, session._view(jobs)) for session, jobs in opened]
        return sorted(found, key=lambda pair: pair[1].created)

    # what it looks like

    def view(self) -> SessionView:
        return self._view(self._store.jobs(self.name))

    def _asks(self, system: str) -> bool:
        """Whether this session's jobs are to be asked about here; those of `local` are known on their host alone."""
        is_here = self._record.system != "local" or self._record.host in ("", self._host.name)
        return self._record.system == system and is_here

    def _statuses(self, jobs: Jobs) -> dict[str, JobStatus]:
        if self._asks(self._record.system):
            return job_statuses(self._queue, self._store, self._record, jobs, here=self._host.name)
        reason = f"it is on {self._record.host}: ask there"
        return {job_id: JobStatus(job_id=job_id, state=JobState.UNKNOWN, reason=reason) for job_id in jobs}

    def _check_here(self) -> None:
        if not self._asks(self._record.system):
            raise NotRunning(f"the session {self.name} is on {self._record.host}\nsay this there")

    def _check_grows(self) -> None:
        self._check_here()
        if self.program:
            raise NotRunning(
                f"{self.name} is a run of {self.program.name}: it has the workers that it was submitted with\n"
                f"for more of them: hpclab stop {self.name}, then hpclab run with more --ntasks"
            )

    def _view(self, jobs: Jobs) -> SessionView:
        statuses = self._statuses(jobs)
        jobs = {
            # the batch system may know of an end that the job itself has told only since its events were read
            job_id: (record, at, self.events(job_id) if is_cut_short(statuses[job_id], events) else events)
            for job_id, (record, at, events) in jobs.items()
        }
        over = self._store.over(self.name)
        true = {job_id: true_status(statuses[job_id], events, over=over) for job_id, (_, _, events) in jobs.items()}
        main_id = _main_id(jobs)
        connection = self._store.connection(self.name)
        if connection is not None and connection.job_id != main_id:
            connection = None  # left over from something else
        now, activity = time.time(), self.activity
        scheduler_silent_s = self._scheduler_silent_s(activity)
        main_events = jobs[main_id][2] if main_id else []
        launch = self._record.settings.launch
        program = ProgramView.of(self.program, launch, main_events) if self.program else None
        state, reason = session_state(
            true.get(main_id),
            connected=program.has_begun if program else connection is not None,
            over=over,
            silent_s=self._silent_s(),
            # a script may shut its scheduler down, and go on
            scheduler_silent_s=0.0 if program else scheduler_silent_s,
            was_up=any(event.what == "jupyter" for event in main_events),
            again=any(event.what == "again" for event in last_run(main_events)),
            has_run=bool(main_events),
            of_what="the script had done" if program else "ran in its notebooks",
        )
        if state == "running" and program and program.exit_status is not None:
            state, reason = "ending", f"{program.program.name} ended with exit status {program.exit_status}"
        is_up = state in ("running", "unknown")
        roster = self._store.roster(self.name) if is_up else {}
        if program:  # whatever names the script has given them
            roster = {f"{main_id}-{name.rpartition('-')[2]}": seen for name, seen in roster.items()}
        joined = workers_by_job(roster, jobs)
        busy = workers_by_job([name for name, seen in roster.items() if seen.busy], jobs)
        # what it told long ago is not in use now
        loads = loads_by_job(roster) if scheduler_silent_s < SCHEDULER_SILENT_S else {}
        silent = {job_of_worker(name): seen.silent_since for name, seen in roster.items() if seen.silent_since}
        true |= {job_id: silent_status(true[job_id], since, now) for job_id, since in silent.items() if job_id in true}
        if roster:
            joined_once = {job_id for job_id, (_, _, events) in jobs.items() if has_joined(events, by=now - LAG_S)}
            true |= {job_id: lost_status(true[job_id]) for job_id in joined_once if not joined[job_id]}
        return SessionView(
            name=self.name,
            queue=":".join(filter(None, (self._record.system, self._record.partition))),
            folder=self.folder.path,
            created=self._record.created,
            login=self._login(),
            state=state,
            reason=reason,
            jobs=tuple(
                JobView(
                    job_id=job_id,
                    record=record,
                    submit_time=at,
                    status=true[job_id],
                    joined=joined[job_id],
                    busy=busy[job_id],
                    has_joined=joined[job_id] > 0 or has_joined(events),
                    cpu_percent=loads.get(job_id, (None, None))[0],
                    memory_used_bytes=loads.get(job_id, (None, None))[1],
                )
                for job_id, (record, at, events) in jobs.items()
            ),
            connection=connection if is_up else None,
            now=now,
            busy_core_s=activity.busy_core_s,
            program=program,
        )

    @property
    def activity(self) -> Activity:
        """How busy it has been."""
        return self._store.activity(self.name)

    def _login(self) -> str:
        """Where a tunnel leads through: the login node, also when somebody on a compute node asks."""
        user, _, here = self._host.login.partition("@")
        return f"{user}@{self._record.host or here}"

    def _silent_s(self) -> float:
        """How long the main job has shown no pulse. Nodes' clocks may be wrong, so a doubt waits for the next one."""
        pulse = self._store.pulse(self.name)
        begin = now = time.time()
        while pulse and now - pulse > SILENT_S:
            if now - begin > NEXT_PULSE_S:
                return now - pulse
            time.sleep(0.1)
            if self._store.pulse(self.name) != pulse:
                return 0.0
            now = time.time()
        return 0.0

    def _scheduler_silent_s(self, activity: Activity) -> float:
        """How long the Dask scheduler has told nothing; by its node's clock alone, which may be wrong."""
        pulse = self._store.pulse(self.name)
        return 0.0 if pulse is None or activity.time is None else max(0.0, pulse - activity.time)

    def describe(self) -> dict[str, Any]:
        """The session without its secrets."""
        return self.view().describe()

    def describe_with_secrets(self) -> dict[str, Any]:
        """The same, with the token in its links: for the user who asked, never for a log."""
        return self.view().describe(self.token)

    @property
    def token(self) -> str:
        return self._store.token(self.name)

    @property
    def connection(self) -> Connection | None:
        """As its main job announced it; costs no question to the batch system, which may know that it is over."""
        return self._store.connection(self.name)

    @property
    def signs(self) -> tuple[object, ...]:
        """Changes when it has come up, moved or been stopped; costs no question to the batch system."""
        return self._store.connection(self.name), self._store.over(self.name)

    def job(self, job_id: str = "") -> JobView:
        """One job of the session; the main job when none is named."""
        view = self.view()
        for job in view.jobs:
            if job.job_id == job_id or (not job_id and job is view.main):
                return job
        raise _no_such_job(self.name, job_id, [job.job_id for job in view.jobs])

    def place(self, job_id: str) -> Place | None:
        """A waiting job's place in the queue; None: not known."""
        return self._queue.place(job_id) if self._asks(self._record.system) else None

    def events(self, job_id: str) -> list[Event]:
        """What a job has told of itself."""
        return self._store.events(self.name, job_id)

    def printed(self, path: str, offset: int) -> bytes:
        """What a run's script has printed into its `stdout` or `stderr`, from a byte on; a piece of it."""
        return self._store.printed(path, offset)

    def is_up(self, job_id: str) -> bool:
        """JupyterLab answers, that of this main job; or its script has begun."""
        if self.program:
            return any(event.what == "script" for event in last_run(self.events(job_id)))
        connection = self._store.connection(self.name)
        return connection is not None and connection.job_id == job_id

    def has_room(self) -> bool:
        """There is space left where the output of a run's script goes."""
        path = self.folder / "program/room"
        try:
            self._host.write(path, "." * ROOM_BYTES)
            self._host.remove(path)
        except OSError:
            return False
        return True

    @property
    def start_timeout_s(self) -> int:
        return self._record.settings.start_timeout_s

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
            log_tail=self.log_of_failure(job.job_id, lines=15) if failed else "",
        )

    def log(self, job_id: str = "", *, lines: int = 50) -> str:
        """The end of a job's log; the main job's when none is named. Costs no question to the batch system."""
        jobs = self._store.jobs(self.name)
        if (wanted := job_id or _main_id(jobs)) not in jobs:
            raise _no_such_job(self.name, job_id, list(jobs))
        return self._store.log(self.name, wanted, lines=lines)[0]

    def log_of_failure(self, job_id: str, *, lines: int) -> str:
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
        if self.program:
            raise IsRun(
                f"{self.name} is a run of {self.program.name}, and has no JupyterLab to connect to\n"
                f"follow it with `hpclab attach {self.name}` there"
            )
        view = self.view()
        if view.connection is None:
            raise NotRunning(_not_running(view))

    def add_worker(self, record: JobRecord, count: int = 1, *, although_failing: bool = False) -> list[str]:
        """Submit `count` worker jobs, as an array where there are arrays; their ids.

        What was submitted before one is refused stays. Raises NotRunning when the session has ended, when the last
        three worker jobs have failed to start, or when too many would wait in the queue.
        """
        self._check_grows()
        view = self.view()
        if view.state not in ALIVE:
            raise NotRunning(_not_running(view))
        if not although_failing and (reason := failing(view.jobs)):
            raise NotRunning(_failing(self.name, reason, "nothing was submitted"))
        most = self._record.settings.most_queued
        queued = sum(job.status.state in (JobState.PENDING, JobState.HELD) for job in view.jobs)
        if queued + count > most:
            raise NotRunning(
                f"{counted(queued, 'job')} of {self.name} would become {queued + count} in the queue; the limit is "
                f"{most}\nnothing was submitted; ask for fewer, or raise `most_queued`"
            )
        script = self._written(record)
        if count > 1 and self._record.settings.arrays and BATCH_SYSTEMS[self._record.system].HAS_ARRAYS:
            return self._submit(script, record, count)
        submitted: list[str] = []
        for _ in range(count):
            if over := self._store.over(self.name):
                done = f"{len(submitted)} of {count} were submitted"
                raise NotRunning(
                    f"the session {self.name} has ended meanwhile: {over}\n{done}; start a new one with `hpclab start`"
                )
            submitted += self._submit(script, record)
            if len(submitted) % LOOK_EVERY == 0 and not although_failing and (reason := failing(self.view().jobs)):
                raise NotRunning(_failing(self.name, reason, f"{len(submitted)} of {count} were submitted"))
        return submitted

    def _written(self, record: JobRecord) -> str:
        """The path of the script for such a job: the session's own where it fits."""
        if record == self.request.worker_record():
            return self.folder.worker_script
        text = self.request.worker_script(record)
        path = self.folder.other_script(hashlib.sha256(text.encode()).hexdigest()[:8])
        self._store.write(path, text, mode=0o700)
        return path

    def scale(self, workers: int) -> Change:
        """Meet a number of Dask workers in all: submit what lacks, or cancel queued jobs, then retire idle workers."""
        self._check_grows()
        view = self.view()
        if view.state not in ALIVE:
            raise NotRunning(_not_running(view))
        if self._queue.silence:  # nobody knows which jobs to take away
            raise NotRunning(f"{self._queue.silence}\nnothing was changed; say it again when it answers")
        record = self.request.worker_record()
        return self._carry_out(scaled(view.jobs, workers, workers_per_job=record.workers), record)

    def _carry_out(self, change: Change, record: JobRecord) -> Change:
        if change.submit:
            self.add_worker(record, change.submit)
        self._cancel(change.cancel)
        self._retire(change.retire)
        return change

    def keep(self, workers: int) -> Change:
        """One look at whether `workers` added ones are there or coming; submits what lacks."""
        self._check_grows()
        view = self.view()
        if view.state not in ALIVE:
            raise NotRunning(_not_running(view))
        if self._queue.silence:
            return Change()  # it will answer again
        record = self.request.worker_record()
        if view.state != "running":
            return Change()  # workers would only wait for a scheduler
        change = kept(view.jobs, workers, workers_per_job=record.workers, now=view.now)
        return self._carry_out(Change() if _ends_soon(view) else change, record)

    def adapt(self, demand: Demand, *, minimum: int, maximum: float, idle_s: float) -> Change:
        """One look at whether there are as many workers as Dask's load asks for; see `growth.adapted`."""
        self._check_grows()
        view = self.view()
        if view.state not in ALIVE:
            raise NotRunning(_not_running(view))
        if self._queue.silence or view.state != "running":
            return Change()
        record = self.request.worker_record()
        change = adapted(
            view.jobs,
            demand,
            minimum=minimum,
            maximum=maximum,
            workers_per_job=record.workers,
            most_queued=self._record.settings.most_queued,
            idle_s=idle_s,
            now=view.now,
        )
        return self._carry_out(replace(change, submit=0) if _ends_soon(view) else change, record)

    def remove_worker(self, job_id: str) -> str:
        """Let the workers of a job hand over their data and leave, then see that the job is gone. What was done."""
        self._check_grows()
        job = self.job(job_id)
        if job.record.role == "main":
            raise NotRunning(
                f"job {job_id} is the main job of {self.name}\nto end the whole session: hpclab stop {self.name}"
            )
        if job.status.state.is_final:
            return f"job {job_id} had ended already: {job.status.reason or job.status.state.value}"
        if job.joined and not self._retire([job_id]):
            return f"job {job_id} handed over its data and left"
        if not job.joined:
            self._cancel([job_id])
        if not self.gone([job_id], within_s=CANCEL_GRACE_S):
            raise TookTooLong(_not_gone([job_id], self.name))
        return f"job {job_id} was {'told to end' if job.joined else 'cancelled'}"

    def _retire(self, job_ids: Sequence[str]) -> list[str]:
        """Ask the workers of jobs to hand over their data and leave. Those that did not in time, and were cancelled."""
        if not job_ids:
            return []
        for job_id in job_ids:
            self._store.write(self.folder.retire(job_id), "")
        jobs = [job for job in self.view().jobs if job.job_id in job_ids]
        left_s = [job.status.end_time - time.time() for job in jobs if job.status.end_time] or [CANCEL_GRACE_S]
        gone = self.gone(list(job_ids), within_s=min(max(*left_s, 1), 2 * CANCEL_GRACE_S))
        late = [job_id for job_id in job_ids if job_id not in gone]
        self._cancel(late)
        return late

    def _knows_jobs_here(self) -> bool:
        return knows_jobs_here(self._record, self._store.known(self.name), self._host.name)

    def stop(self) -> list[JobView]:
        """Cancel every job, also those still queued, and wait for them to be gone. Those that were cancelled."""
        self._check_here()
        if not self._knows_jobs_here():
            self.view()  # perhaps it is the same cluster: then its jobs are seen now
            # or it does not listen to us, and whoever it listens to knows
            if not (self._knows_jobs_here() or self._queue.is_deaf):
                raise NotRunning(f"the session {self.name} was started on {self._record.host}\nsay this there")
        if not self._store.over(self.name):
            # a full disk must not keep a session running
            with suppress(StoreError):
                self._store.write(self.folder.over, f"stopped at {time.strftime('%Y-%m-%d %H:%M:%S')}\n")
        cancelled: dict[str, JobView] = {}
        # again, for an `add-worker` in another terminal may have come between
        while alive := [
            job for job in self.view().jobs if not job.status.state.is_final and job.job_id not in cancelled
        ]:
            # the main job last: with it goes who says this within it
            in_order = sorted(alive, key=lambda job: job.record.role == "main")
            self._cancel([job.job_id for job in in_order])
            cancelled |= {job.job_id: job for job in alive}
            gone = self.gone(list(cancelled), within_s=CANCEL_GRACE_S)
            if late := [
                job_id
                for job_id in cancelled
                if job_id not in gone and cancelled[job_id].status.state is not JobState.UNKNOWN
            ]:
                raise TookTooLong(_not_gone(late, self.name))
        return list(cancelled.values())

    def gone(self, job_ids: list[str], *, within_s: float) -> dict[str, JobView]:
        """Wait for jobs to end; those that have."""
        deadline = time.time() + within_s
        while True:
            jobs = {job.job_id: job for job in self.view().jobs if job.job_id in job_ids}
            gone = {job_id: job for job_id, job in jobs.items() if job.status.state.is_final}
            if len(gone) == len(job_ids) or time.time() > deadline:
                return gone
            time.sleep(0.2)


def _main_id(jobs: Jobs) -> str:
    """Of the last one, for start-dask.sh may have been submitted again by hand; empty: there is none."""
    return next((job_id for job_id, (record, _, _) in reversed(jobs.items()) if record.role == "main"), "")


def _no_such_job(name: str, job_id: str, known: Sequence[str]) -> NoSuchJob:
    what = f"job {job_id!r}" if job_id else "main job"
    return NoSuchJob(f"the session {name} has no {what}\njobs: {', '.join(known) or 'none'}")


def _ends_soon(view: SessionView) -> bool:
    """New workers would hardly have begun when the session ends."""
    main_ends = view.main.status.end_time if view.main else None
    return bool(main_ends and main_ends - view.now < replacement_lead_s(view.jobs))


def _failing(name: str, reason: str, done: str) -> str:
    return (
        f"the last {FAILURES_IN_A_ROW} worker jobs of {name} failed to start: {reason}\n"
        f"{done}; see `hpclab why JOB`, and try one again with `hpclab add-worker --anyway`"
    )


def _who_may_ask(host: Host, record: SessionRecord) -> str:
    """The host that the session, or else this job, was submitted from; empty if that is this one, or nobody knows."""
    if record.system == "local":
        return ""
    submitted = record.host if record.host not in ("", host.name) else host.submit_host
    return "" if submitted.partition(".")[0] == host.name.partition(".")[0] else submitted


def _not_gone(job_ids: list[str], name: str) -> str:
    return (
        f"cancelled, but not gone after {CANCEL_GRACE_S} s: {', '.join(job_ids)}\n"
        f"look again with `hpclab status {name}`, or say it again"
    )


def _not_running(view: SessionView) -> str:
    reason = f": {view.reason}" if view.reason else ""
    return f"the session {view.name} is not running but {view.state}{reason}\nstart a new one with `hpclab start`"


def _new_record(store: Store, settings: Settings, host: Host, *, name: str, notebook_dir: str) -> SessionRecord:
    system, partition = parse_queue(settings.queue)
    if system == "auto":
        system = the_one(detected(host.run(VERSIONS_COMMAND).stdout))
    if system == "local" and settings.nodes > 1:
        raise ConfigError("`--queue local` is this machine alone, one node\nask for more --workers instead of --nodes")
    if settings.container and settings.nodes > 1:
        raise ConfigError(
            "a main job in a container is one node: the launcher that reaches others is outside of it\n"
            "start on one node; `hpclab add-worker` brings workers on any, in the same container"
        )
    return SessionRecord(
        name=check_name(name) if name else new_name(set(store.names())),
        created=time.time(),
        system=system,
        partition=partition,
        host=host.name,
        settings=replace(settings, notebook_dir=settings.notebook_dir or notebook_dir),
    )
