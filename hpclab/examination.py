"""How `hpclab doctor` looks at a site: asks the batch system, and sends the probe to this machine and to a node."""

from __future__ import annotations

import secrets
import shlex
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from types import TracebackType

from hpclab.batch import BATCH_SYSTEMS, parse_queue
from hpclab.config import Setting, Settings
from hpclab.detection import VERSIONS_COMMAND, detected
from hpclab.doctor import Examined, ProbeJob
from hpclab.errors import CommandError, HpclabError, UnreadableOutput
from hpclab.folder import SessionFolder
from hpclab.hosts import Host
from hpclab.job import Chunk, JobRecord, JobSpec, JobState, JobStatus
from hpclab.jobqueue import JobQueue
from hpclab.request import Request
from hpclab.script import job_script
from hpclab.sight import Meeting, Sight, sight
from hpclab.site_profile import SITE_COMMANDS
from hpclab.statuses import JUST_SUBMITTED_S

PROBE = "hpclab.inside.probe"
LOOK_WITHIN_S = 90
MEET_WITHIN_S = 45
"""A network file system may show a new file that late."""
PROBE_RECORD = JobRecord(role="worker", workers=1, cores=1, memory_bytes=512 * 2**20, walltime_s=120)
ASK_EVERY_S = 1.0
LAST_WORDS_WITHIN_S = 15
"""Of a job that has ended; its files may come later than the batch system's word."""


def examine(host: Host, settings: Settings, given: Mapping[str, Setting]) -> Examined:
    """What can be seen from here. A part that cannot be looked at says why, and hides no other."""
    asked, partition = parse_queue(settings.queue)
    found = detected(host.run(VERSIONS_COMMAND).stdout)
    system = next(iter(found), "local") if asked == "auto" else asked
    queue, silence = JobQueue(host, system), ""
    queues = []
    try:
        queues = queue.queues()
    except HpclabError as error:
        silence = str(error).splitlines()[0]
    examined = Examined(
        host=host.name,
        system=system,
        partition=partition,
        settings=settings,
        given=given,
        is_own=bool(settings.modules or settings.prologue) or _request(host, settings, system).environment.is_own,
        found=found,
        queues=tuple(queues),
        silence=silence,
        site=_site(host, system),
    )
    try:
        return replace(examined, login=_look(host, host.home, "--mpiexec", settings.mpiexec))
    except HpclabError as error:
        return replace(examined, login_error=str(error))


def _request(host: Host, settings: Settings, system: str, partition: str = "", name: str = "doctor") -> Request:
    folder = SessionFolder(f"{host.home}/{name}")
    return Request(folder=folder, system=system, partition=partition, settings=settings, python=host.python)


def _site(host: Host, system: str) -> str:
    command = SITE_COMMANDS.get(system)
    try:
        return host.run(command).stdout if command else ""
    except HpclabError:
        return ""


def _look(host: Host, *arguments: str) -> Sight:
    answer = host.run(["python", "-m", PROBE, *arguments], timeout_s=LOOK_WITHIN_S)
    if answer.exit_status:
        raise UnreadableOutput(f"the probe on {host.name}: {answer.last_words}")
    return sight(answer.stdout)


class Probing:
    """A short job that looks at a compute node, in a folder of its own. Both are gone when this is left."""

    def __init__(self, host: Host, examined: Examined) -> None:
        self._host = host
        self._system = examined.system
        self._settings = examined.settings
        self._queue = JobQueue(host, examined.system)
        name = f"doctor-{secrets.token_hex(3)}"
        self._request = _request(host, examined.settings, examined.system, examined.partition, name)
        self._folder = self._request.folder
        self._submitted = 0.0
        self.job = ProbeJob()

    def __enter__(self) -> Probing:
        """Submit it. A refusal is told by `job`, not raised."""
        path = self._folder / "probe.sh"
        try:
            for folder in (self._folder.path, self._folder / "logs", self._folder / "events"):
                self._host.make_folder(folder)
            self._host.write(path, self.script(), mode=0o700)
            self._submitted = time.time()
            job_ids = self._queue.submit(path, log=self._folder.log("{job_id}"))
            self.job = ProbeJob(job_id=job_ids[0])
        except CommandError as error:
            first = str(error).splitlines()[0]
            self.job = ProbeJob(refusal=f"{first}: {error.result.output.strip() or 'it did not say why'}")
        except (HpclabError, OSError) as error:
            self.job = ProbeJob(refusal=str(error))
        except BaseException:
            self._host.remove_tree(self._folder.path)
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        try:
            if self.job.job_id and not (self.job.status and self.job.status.state.is_final):
                with suppress(HpclabError):
                    self._queue.cancel([self.job.job_id])
        finally:
            self._host.remove_tree(self._folder.path)
            if kind is KeyboardInterrupt:
                last = self.job.status.state.value if self.job.status else "not known"
                what = f"job {self.job.job_id} was {last} when you interrupted, and was cancelled"
                self.job = replace(self.job, refusal=what, interrupted=True)

    def script(self) -> str:
        s, batch = self._settings, BATCH_SYSTEMS[self._system]
        asked = {"versions": VERSIONS_COMMAND, "status": batch.status_command(["{job_id}"])}
        arguments = [
            *["-P", "-m", PROBE, self._folder.path, "--mpiexec", s.mpiexec, *self._meeting("node", "login")],
            *[word for name, argv in asked.items() for word in ("--run", name, shlex.join(argv))],
        ]
        record = PROBE_RECORD
        spec = JobSpec(
            name="hpclab-doctor",
            chunks=(Chunk(count=1, cores=record.cores, memory_bytes=record.memory_bytes),),
            walltime_s=record.walltime_s,
            log=self._folder.log("{job_id}"),
            partition=self._request.partition,
            account=s.account,
            qos=s.qos,
            constraint=s.constraint,
            extra=s.extra,
            options=s.system_options,
        )
        environment = self._request.environment
        return job_script(
            batch,
            spec,
            self._folder,
            record,
            prologue=environment.lines(),
            program=environment.program(self._request.python, arguments),
            skip=s.skip,
        )

    def _meeting(self, me: str, other: str) -> list[str]:
        loopback = ["--loopback"] if self._request.interface == "loopback" else []
        return ["--meet", me, other, "--within", str(MEET_WITHIN_S), *loopback]

    def follow(self) -> Iterator[str]:
        """How it goes, in words; in the end `job` tells all. The job meets this machine on the way."""
        if self.job.refusal:
            return
        met: Meeting | None = None
        came = ended = 0.0
        while "node.json" not in (names := self._host.names(self._folder.path)):
            status = self._status()
            started = bool(self._host.names(self._folder / "events"))
            came = came or (time.time() if started or status.state is JobState.RUNNING else 0.0)
            self.job = replace(
                self.job, status=status, started=started, waited_s=(came or time.time()) - self._submitted
            )
            yield _in_words(self.job.job_id, status)
            if "node.listens" in names and met is None:
                met = self._meet()
                self.job = replace(self.job, met=met)
                continue
            if self._is_over(status, started):
                ended = ended or time.time()
                if time.time() - ended > LAST_WORDS_WITHIN_S or (started and self._log()):
                    self.job = replace(self.job, log_tail=self._log())
                    return
            time.sleep(ASK_EVERY_S)
        try:
            self.job = replace(self.job, started=True, seen=sight(self._host.read(self._folder / "node.json")))
        except UnreadableOutput as error:  # of another hpclab, perhaps
            self.job = replace(self.job, refusal=f"{error}; has the job's Python the same hpclab?")
        # it has nothing more to do, and so need not be cancelled
        deadline = time.time() + LAST_WORDS_WITHIN_S
        while not (status := self._status()).state.is_final and time.time() < deadline:
            yield _in_words(self.job.job_id, status)
            time.sleep(ASK_EVERY_S)
        self.job = replace(self.job, status=status)

    def _is_over(self, status: JobStatus, started: bool) -> bool:
        is_new = status.state is JobState.GONE and not started and time.time() - self._submitted < JUST_SUBMITTED_S
        return (status.state.is_final and not is_new) or status.is_hopeless

    def _status(self) -> JobStatus:
        return self._queue.status([self.job.job_id])[self.job.job_id]

    def _meet(self) -> Meeting:
        try:
            return _look(self._host, self._folder.path, *self._meeting("login", "node")).met or _NOT_MET
        except HpclabError:
            return _NOT_MET

    def _log(self) -> str:
        try:
            lines = self._host.read(self._folder.log(self.job.job_id)).strip().splitlines()
        except OSError:
            return ""
        return " / ".join(line.strip() for line in lines[-3:])


_NOT_MET = Meeting(came=False, answers={})


def _in_words(job_id: str, status: JobStatus) -> str:
    where = f" on {status.node}" if status.node else ""
    reason = f": {status.reason}" if status.reason not in ("", status.state.value) else ""
    return f"job {job_id} is {status.state.value}{where}{reason}"
