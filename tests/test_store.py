"""Session folders: made whole or not at all, private, and readable around what is missing, cut off or foreign."""

from __future__ import annotations

import errno
import json
import os
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from fixtures import CREDENTIALS, HOME, NOON, TOKEN, connection, folder, job_record, session_record, settings, with_jobs

from hpclab.errors import NoSuchSession, SessionExists, StoreError, UnreadableOutput
from hpclab.event import Event, to_line
from hpclab.hosts.local import LocalHost
from hpclab.hosts.recording import RecordingHost
from hpclab.job import JobState, JobStatus, Program
from hpclab.store import Activity, Known, SessionRecord, Store, WorkerSeen

HERE = folder()
NAME = HERE.name
SCRIPTS = {HERE.start_script: "#!/bin/bash\n", HERE.worker_script: "#!/bin/bash\n"}
TEXT = session_record().to_text()
FOREIGN = ["", "{", "[]", "17", "null", '"text"', "{}", "not json", "\x00\x00", TEXT[:100], TEXT[: len(TEXT) // 2]]


class FullHost(RecordingHost):
    """A disk that is full after so many writes."""

    def __init__(self, writes: int) -> None:
        super().__init__()
        self._left = writes

    def write(self, path, text, *, mode=0o600):
        if self._left == 0:
            raise OSError(errno.ENOSPC, "No space left on device", path)
        self._left -= 1
        super().write(path, text, mode=mode)


def store(host: RecordingHost | LocalHost) -> Store:
    return Store(host, settings())


@pytest.fixture
def host():
    return with_jobs(RecordingHost(), NAME, [job_record("main"), job_record("worker")])


@pytest.fixture
def local_host(tmp_path):
    return LocalHost({"HPCLAB_HOME": str(tmp_path / "home")})


# making one


def test_a_session_is_read_as_it_was_made():
    host = RecordingHost()
    record = session_record(settings=settings(prologue=("module load x",), extra=("-A y",), cores=7))
    store(host).make(record, CREDENTIALS, SCRIPTS)
    assert store(host).session(NAME) == record
    assert store(host).token(NAME) == TOKEN
    assert store(host).names() == [NAME]


def test_only_the_user_can_read_it_and_only_scripts_can_be_run(local_host):
    here = store(local_host).make(session_record(), CREDENTIALS, {})
    local = store(local_host)
    local.write(here.start_script, "#!/bin/bash\n", mode=0o700)
    modes = {path: stat.S_IMODE(path.stat().st_mode) for path in [Path(here.path), *Path(here.path).rglob("*")]}
    scripts = {path for path in modes if path.suffix == ".sh"}
    for path, mode in modes.items():
        assert mode == (0o700 if path.is_dir() or path in scripts else 0o600), path


def test_a_name_is_taken_once():
    host = RecordingHost()
    store(host).make(session_record(), CREDENTIALS, SCRIPTS)
    before = dict(host.files)
    with pytest.raises(SessionExists, match="there is a session 'calm-otter' already"):
        store(host).make(session_record(), CREDENTIALS, SCRIPTS)
    assert host.files == before


def test_of_many_who_take_a_name_at_once_one_gets_it(local_host):
    def take(_: int) -> bool:
        try:
            store(local_host).make(session_record(), CREDENTIALS, {})
        except SessionExists:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(take, range(8))) == 1


@pytest.mark.parametrize("writes", range(7))
def test_a_write_that_fails_leaves_nothing_behind(writes):
    host = FullHost(writes)
    with pytest.raises(StoreError, match="No space left on device") as failed:
        store(host).make(session_record(), CREDENTIALS, SCRIPTS)
    assert "HPCLAB_HOME" in str(failed.value)
    assert host.files == {}
    assert store(host).names() == []


def test_a_real_write_that_fails_leaves_nothing_behind(local_host, monkeypatch):
    def full(path, text, *, mode=0o600):
        raise OSError(errno.ENOSPC, "No space left on device", path)

    monkeypatch.setattr(local_host, "write", full)
    with pytest.raises(StoreError):
        store(local_host).make(session_record(), CREDENTIALS, {})
    assert os.listdir(f"{local_host.home}/sessions") == []


def test_an_interruption_leaves_nothing_behind(monkeypatch):
    host = RecordingHost()

    def interrupted(path, text, *, mode=0o600):
        raise KeyboardInterrupt

    monkeypatch.setattr(host, "write", interrupted)
    with pytest.raises(KeyboardInterrupt):
        store(host).make(session_record(), CREDENTIALS, SCRIPTS)
    assert store(host).names() == []


def test_a_home_where_nothing_can_be_written_is_named():
    with pytest.raises(StoreError, match="/dev/null/x"):
        store(LocalHost({"HPCLAB_HOME": "/dev/null/x"})).make(session_record(), CREDENTIALS, {})


# session.json


def test_without_home_there_are_no_sessions(tmp_path):
    assert store(LocalHost({"HPCLAB_HOME": str(tmp_path / "none")})).names() == []


def test_an_unknown_session_is_told_with_those_that_are_known(host):
    with pytest.raises(NoSuchSession, match="no session 'bold-heron' on recording\nsessions there: calm-otter"):
        store(host).session("bold-heron")


@pytest.mark.parametrize("text", FOREIGN)
def test_a_session_that_cannot_be_read_is_left_as_it_is(host, text):
    host.files[HERE.session] = text
    before = dict(host.files)
    with pytest.raises(StoreError, match="the session 'calm-otter' cannot be read") as failed:
        store(host).session(NAME)
    assert HERE.session in str(failed.value)
    assert host.files == before


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("name", "bold-heron"),
        ("system", "dream"),
        ("system", None),
        ("created", "yesterday"),
        ("created", float("nan")),
        ("settings", []),
        ("settings", None),
        ("settings", {"workers": "many"}),
        ("settings", {"cores": None}),
        ("settings", {"memory_bytes": 1.5}),
        ("settings", {"prologue": "module load python"}),
        ("settings", {"mpiexec": ["mpiexec"]}),
        ("program", {"script": "model.py"}),
        ("program", "model.py"),
    ],
)
def test_a_session_of_another_kind_is_refused(host, key, value):
    """Also what was copied from another session: `stop` of the copy must not stop the other."""
    host.files[HERE.session] = json.dumps({**json.loads(TEXT), key: value})
    with pytest.raises(StoreError, match="the session 'calm-otter' cannot be read"):
        store(host).session(NAME)


def test_a_run_remembers_its_program():
    program = Program(script="model.py", folder="/home/ada", arguments=("--fast", "a b"))
    record = session_record(program=program)
    assert SessionRecord.from_text(record.to_text(), settings()) == record


def test_a_session_of_an_older_version_is_no_run():
    given = json.loads(TEXT)
    del given["program"]
    assert SessionRecord.from_text(json.dumps(given), settings()).program is None


def test_options_that_an_older_version_did_not_know_have_the_defaults():
    given = json.loads(TEXT)
    del given["settings"]["drain_s"]
    given["settings"]["colour"] = "red"
    record = SessionRecord.from_text(json.dumps(given), settings(drain_s=77))
    assert record.settings == settings(drain_s=77)


@pytest.mark.parametrize("spoil", [lambda path: path.mkdir(), lambda path: path.symlink_to(path)])
def test_a_session_file_that_is_something_else_is_refused(local_host, spoil):
    here = store(local_host).folder(NAME)
    local_host.make_folder(here.path)
    spoil(Path(here.session))
    with pytest.raises(StoreError, match="cannot be read"):
        store(local_host).session(NAME)


# jobs


def test_jobs_are_in_order_of_their_numbers(host):
    for job_id in ("10", "9", "100"):
        store(host).add_jobs(NAME, [job_id], job_record(), NOON)
    assert list(store(host).jobs(NAME)) == ["1", "2", "9", "10", "100"]


@pytest.mark.parametrize("ids", [["17_1", "17_2", "17_10"], ["17[1].pbs01", "17[2].pbs01", "17[10].pbs01"]])
def test_the_tasks_of_an_array_are_one_record_and_many_jobs(ids):
    host = with_jobs(RecordingHost(), NAME, [job_record("main")])
    store(host).add_jobs(NAME, ids, job_record(cores=7), NOON)
    jobs = store(host).jobs(NAME)
    assert list(jobs) == ["1", *ids]
    assert {jobs[job_id][:2] for job_id in ids} == {(job_record(cores=7), NOON)}
    assert len(host.names(HERE.jobs)) == 2


def test_every_task_of_an_array_has_events_of_its_own(host):
    store(host).add_jobs(NAME, ["17_1", "17_2"], job_record(), NOON)
    host.files[HERE.events("17_2")] = to_line(Event(time=NOON, what="joined"))
    jobs = store(host).jobs(NAME)
    assert [len(jobs[job_id][2]) for job_id in ("17_1", "17_2")] == [0, 1]


@pytest.mark.parametrize("tasks", [None, "17_1", 3, {}])
def test_a_record_whose_tasks_make_no_sense_is_that_of_one_job(host, tasks):
    host.files[HERE.job("17")] = json.dumps({**job_record().to_dict(), "submit_time": NOON, "job_ids": tasks})
    assert "17" in store(host).jobs(NAME)


def test_a_job_that_cannot_be_recorded_is_named():
    with pytest.raises(StoreError, match="record job 17, which was submitted"):
        store(FullHost(0)).add_jobs(NAME, ["17"], job_record(), NOON)


def test_many_who_record_jobs_at_once_lose_none(local_host):
    store(local_host).make(session_record(), CREDENTIALS, {})
    ids = [str(number) for number in range(1, 21)]
    with ThreadPoolExecutor(20) as pool:
        list(pool.map(lambda job_id: store(local_host).add_jobs(NAME, [job_id], job_record(), NOON), ids))
    assert list(store(local_host).jobs(NAME)) == ids


def test_a_job_that_was_submitted_by_hand_is_found_by_its_own_account(host):
    host.files[HERE.events("3")] = to_line(Event(time=NOON, what="started", details=job_record(cores=7).to_dict()))
    record, submit_time, events = store(host).jobs(NAME)["3"]
    assert (record, submit_time, len(events)) == (job_record(cores=7), None, 1)


@pytest.mark.parametrize("text", [*FOREIGN, '{"role": "worker", "workers": "many"}', '{"role": "worker"}'])
def test_a_job_record_that_cannot_be_read_hides_no_other(host, text):
    host.files[HERE.job("2")] = text
    assert list(store(host).jobs(NAME)) == ["1"]


@pytest.mark.parametrize("text", FOREIGN)
def test_a_job_record_that_cannot_be_read_is_replaced_by_the_jobs_own_account(host, text):
    host.files[HERE.job("2")] = text
    host.files[HERE.events("2")] = to_line(Event(time=NOON, what="started", details=job_record(cores=7).to_dict()))
    assert store(host).jobs(NAME)["2"][0] == job_record(cores=7)


@pytest.mark.parametrize("submit_time", ["yesterday", [], {}, float("inf"), True])
def test_a_submit_time_that_is_none_is_no_time_of_day(host, submit_time):
    host.files[HERE.job("2")] = json.dumps({**job_record().to_dict(), "submit_time": submit_time})
    jobs = store(host).jobs(NAME)
    assert "1" in jobs
    assert "2" not in jobs or not jobs["2"][1] or jobs["2"][1] < 1e11


def test_foreign_files_among_the_jobs_are_passed_over(host):
    for path in ("jobs/README", "jobs/.DS_Store", "jobs/notes.json", "events/core.17", "events/x.jsonl"):
        host.files[HERE / path] = "hello"
    assert list(store(host).jobs(NAME)) == ["1", "2"]


# what the jobs write


def test_the_connection(host):
    host.files[HERE.connection] = connection().to_text()
    assert store(host).connection(NAME) == connection()


@pytest.mark.parametrize("text", [None, *FOREIGN])
def test_without_a_connection_there_is_none(host, text):
    if text is not None:
        host.files[HERE.connection] = text
    assert store(host).connection(NAME) is None


def test_the_roster(host):
    host.files[HERE.roster] = json.dumps(
        {"time": NOON, "workers": [{"name": "2-0", "address": "tls://x", "nthreads": 2, "memory_bytes": 2**31}]}
    )
    assert store(host).roster(NAME) == {"2-0": WorkerSeen()}


@pytest.mark.parametrize("text", [None, *FOREIGN, '{"workers": 1}', '{"workers": [1, null, "x", [], {}]}'])
def test_without_a_roster_there_are_no_workers(host, text):
    if text is not None:
        host.files[HERE.roster] = text
    assert store(host).roster(NAME) == {}


def test_who_is_at_work_and_who_is_silent_stands_in_the_roster(host):
    here = [{"name": "2-0", "tasks": 3}, {"name": "2-1", "tasks": 0, "silent_since": NOON}]
    host.files[HERE.roster] = json.dumps({"workers": here})
    assert store(host).roster(NAME) == {"2-0": WorkerSeen(busy=True), "2-1": WorkerSeen(silent_since=NOON)}


def test_how_much_workers_use_stands_in_the_roster(host):
    here = [{"name": "2-0", "cpu_percent": 195, "memory_used_bytes": 2**30}, {"name": "2-1", "cpu_percent": "x"}]
    host.files[HERE.roster] = json.dumps({"workers": here})
    seen = store(host).roster(NAME)
    assert seen == {"2-0": WorkerSeen(cpu_percent=195, memory_used_bytes=2**30), "2-1": WorkerSeen()}


def test_the_activity(host):
    host.files[HERE.activity] = json.dumps(
        {"time": NOON + 12, "busy_core_s": 12.5, "samples": [[NOON, 1], [NOON + 10, 4]]}
    )
    assert store(host).activity(NAME) == Activity(busy_core_s=12.5, samples=((NOON, 1), (NOON + 10, 4)), time=NOON + 12)


@pytest.mark.parametrize(
    "text",
    [
        None,
        *FOREIGN,
        '{"samples": 1}',
        '{"samples": [1]}',
        '{"samples": [[1, NaN]]}',
        '{"busy_core_s": "x"}',
        '{"time": Infinity}',
    ],
)
def test_without_activity_nothing_is_known_of_it(host, text):
    if text is not None:
        host.files[HERE.activity] = text
    assert store(host).activity(NAME) == Activity()


@pytest.mark.parametrize(
    ("text", "seen"), [("1700000000\n", NOON), ("", None), ("x", None), ("nan", None), ("inf", None)]
)
def test_the_pulse(host, text, seen):
    host.files[HERE.pulse] = text
    assert store(host).pulse(NAME) == seen


# what the batch system said when it last answered

KNOWN = Known(
    time=NOON,
    jobs={
        "1": JobStatus(job_id="1", state=JobState.RUNNING, node="node17", start_time=NOON - 60, end_time=NOON + 60),
        "2_1": JobStatus(job_id="2_1", state=JobState.FAILED, reason="out of memory", exit_status=137),
    },
)
NEVER = Known(time=0.0, jobs={})


def test_what_is_remembered_is_known_again(host):
    assert store(host).known(NAME) == NEVER
    store(host).remember(NAME, KNOWN)
    assert store(host).known(NAME) == KNOWN


@pytest.mark.parametrize(
    "text",
    [
        *FOREIGN,
        '{"time": "noon", "jobs": {}}',
        '{"time": 1e999, "jobs": {}}',
        '{"time": 1, "jobs": []}',
        '{"time": 1, "jobs": {"1": null}}',
        '{"time": 1, "jobs": {"1": {}}}',
        '{"time": 1, "jobs": {"1": {"state": "dreaming"}}}',
        '{"time": 1, "jobs": {"1": {"state": "running", "end_time": "soon"}}}',
        '{"time": 1, "jobs": {"1": {"state": "running", "end_time": 1e999}}}',
        '{"time": 1, "jobs": {"1": {"state": "running", "start_time": NaN}}}',
        '{"time": 1, "jobs": {"1": {"state": "failed", "exit_status": 1e999}}}',
        '{"time": 1, "jobs": {"1": {"state": "failed", "exit_status": []}}}',
    ],
)
def test_a_memory_that_cannot_be_read_is_none(host, text):
    host.files[HERE.known] = text
    assert store(host).known(NAME) == NEVER


def test_a_memory_that_cannot_be_written_stands_in_nobodys_way():
    store(FullHost(0)).remember(NAME, KNOWN)


def test_how_it_ended(host):
    assert store(host).over(NAME) == ""
    host.files[HERE.over] = "stopped at noon\n"
    assert store(host).over(NAME) == "stopped at noon"


@pytest.mark.parametrize("text", [None, "", "\n", TOKEN[:5], TOKEN[:-1]])
def test_a_token_that_is_missing_or_cut_off_is_an_error(host, text):
    """An empty one would be an open door."""
    del host.files[HERE.token]
    if text is not None:
        host.files[HERE.token] = text
    with pytest.raises((StoreError, UnreadableOutput), match="token"):
        store(host).token(NAME)


def test_a_log(host):
    assert store(host).log(NAME, "1", lines=5) == ("", 0)
    host.files[HERE.log("1")] = "1\n2\n3\n"
    assert store(host).log(NAME, "1", lines=2) == ("2\n3", 6)


def test_a_write_that_fails_is_told():
    with pytest.raises(StoreError, match="could not write /x"):
        store(FullHost(0)).write("/x", "text")


@pytest.mark.parametrize("subfolder", ["jobs", "events"])
def test_a_file_in_place_of_a_folder_is_told(local_host, subfolder):
    here = store(local_host).make(session_record(), CREDENTIALS, {})
    Path(here / subfolder).rmdir()
    Path(here / subfolder).write_text("hello")
    with pytest.raises(StoreError, match=subfolder):
        store(local_host).jobs(NAME)


def test_the_home_is_where_the_host_says():
    assert store(RecordingHost()).folder(NAME).path == f"{HOME}/sessions/{NAME}"
