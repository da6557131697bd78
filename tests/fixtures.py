"""What several tests start from: settings, records and sessions that differ from the ordinary in what is named."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from hpclab.config import Settings, load
from hpclab.connection import Connection
from hpclab.credentials import Credentials
from hpclab.event import Event, to_line
from hpclab.folder import SessionFolder
from hpclab.hosts.recording import RecordingHost
from hpclab.job import Chunk, JobRecord, JobSpec
from hpclab.store import SessionRecord
from hpclab.view import JobView, SessionView

TOKEN = "5ec2e7" * 6
CREDENTIALS = Credentials(token=TOKEN, ca_pem="a CA\n", certificate_pem="a certificate\n", key_pem="a key\n")
NOON = 1_700_000_000.0
HOME = "/home/ada/.hpclab"


def settings(**changes: Any) -> Settings:
    """The defaults on this machine, but for what is given."""
    defaults, _ = load({}, [], {})
    return replace(defaults, **{"queue": "local", **changes})


def job_spec(**changes: Any) -> JobSpec:
    spec = JobSpec(
        name="hpclab-calm-otter",
        chunks=(Chunk(count=1, cores=1, memory_bytes=2**30), Chunk(count=3, cores=2, memory_bytes=2**31)),
        walltime_s=3600,
        log="/home/ada/.hpclab/sessions/calm-otter/logs/{job_id}.log",
    )
    return replace(spec, **changes)


def job_record(role: str = "worker", **changes: Any) -> JobRecord:
    return replace(JobRecord(role=role, workers=1, cores=2, memory_bytes=2**31, walltime_s=3600), **changes)


def session_record(name: str = "calm-otter", **changes: Any) -> SessionRecord:
    record = SessionRecord(name=name, created=NOON, system="local", partition="", host="", settings=settings())
    return replace(record, **changes)


def connection(job_id: str = "1", **changes: Any) -> Connection:
    here = Connection(
        session="calm-otter",
        job_id=job_id,
        node="node17",
        scheduler_address="tls://10.0.0.17:40001",
        jupyter_host="node17",
        jupyter_port=40002,
        dashboard_host="node17",
        dashboard_port=40003,
        time=NOON,
    )
    return replace(here, **changes)


def session_view(*jobs: JobView, **changes: Any) -> SessionView:
    """One that runs."""
    view = SessionView(
        name="calm-otter",
        queue="local",
        folder=folder().path,
        created=NOON,
        login="ada@login1",
        state="running",
        reason="",
        jobs=jobs,
        connection=connection(),
        now=NOON,
    )
    return replace(view, **changes)


def folder(name: str = "calm-otter") -> SessionFolder:
    return SessionFolder(f"{HOME}/sessions/{name}")


def localq_status(**states: str) -> tuple[int, str, str]:
    """localq_status(job1="RUNNING") is what localq would answer."""
    lines = [json.dumps({"id": key.removeprefix("job"), "state": state}) + "\n" for key, state in states.items()]
    return 0, "".join(lines), ""


def squeue(**states: str) -> tuple[int, str, str]:
    """squeue(job1="RUNNING") is what Slurm would answer; a state may go on as `RUNNING|0|START|END|NODE|REASON`."""
    rest = ["", "0", "N/A", "N/A", "n/a", "None"]
    lines = ["JOBID|STATE|EXIT_CODE|START_TIME|END_TIME|EXEC_HOST|REASON"]
    for key, told in states.items():
        given = told.split("|")
        lines.append("|".join([key.removeprefix("job"), *given, *rest[len(given) :]]))
    return 0, "\n".join(lines) + "\n", ""


def host_that_answers(*answers: tuple[int, str, str]) -> RecordingHost:
    return RecordingHost(answers)


def with_jobs(
    host: RecordingHost, name: str = "calm-otter", jobs: Sequence[JobRecord] = (), *, first: int = 1, **changes: Any
) -> RecordingHost:
    """The host with a session on it, whose jobs are numbered from `first`; `changes` are the session record's."""
    here = folder(name)
    host.make_folder(here.path)
    host.files[here.session] = session_record(name, **changes).to_text()
    host.files[here.token] = TOKEN + "\n"
    for number, record in enumerate(jobs, first):
        host.files[here.job(str(number))] = json.dumps({**record.to_dict(), "submit_time": NOON})
    return host


def happens(host: RecordingHost, job_id: str, *events: tuple[str, dict[str, Any]], name: str = "calm-otter") -> None:
    """happens(host, "1", ("started", {…}), …) is what that job has told of itself, one a second after noon."""
    told = [Event(time=NOON + at, what=what, details=more) for at, (what, more) in enumerate(events, 1)]
    host.files[folder(name).events(job_id)] = "".join(map(to_line, told))
