"""The core, on a host that only records: what is run, what is written, and what is refused."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path

import pytest
from fixtures import (
    HOME,
    NOON,
    TOKEN,
    connection,
    folder,
    happens,
    host_that_answers,
    job_record,
    localq_status,
    session_record,
    settings,
    squeue,
    with_jobs,
)

from hpclab import session as session_module
from hpclab.errors import (
    ConfigError,
    IsRun,
    NoSuchJob,
    NoSuchSession,
    NotRunning,
    Refused,
    SessionExists,
    StoreError,
    TookTooLong,
    UnreadableOutput,
)
from hpclab.growth import Change, Demand
from hpclab.hosts.local import LocalHost
from hpclab.hosts.recording import RecordingHost
from hpclab.job import JobState, Program
from hpclab.names import check_name
from hpclab.relay import Cancel, Submit
from hpclab.session import Session

HERE = folder()
NAME = HERE.name
MAIN, WORKER = job_record("main"), job_record("worker")
SUBMITTED, REFUSED = (0, "1\n", ""), (1, "", "localq: refused\n")


def start(host: RecordingHost, **changes: object) -> Session:
    name = changes.pop("name", NAME)
    return Session.start(host, settings(**changes), name=name, notebook_dir="/home/ada/work")


def verbs(host: RecordingHost) -> list[str]:
    """submit, status, cancel: what was asked of localq."""
    return [argv[3] for argv in host.commands]


SLURM = {"sbatch", "squeue", "sacct", "scancel"}


def asked(host: RecordingHost) -> list[str]:
    """sbatch, squeue, …: what was asked of Slurm."""
    return [next(word for word in argv if word in SLURM) for argv in host.commands]


@pytest.fixture
def a_session():
    """a_session(status answers…, jobs=…) is an open session whose jobs are in these states, and its host."""

    def _a_session(*answers, jobs=(MAIN, WORKER), **changes):
        host = with_jobs(host_that_answers(*answers), NAME, jobs, **changes)
        return Session.open(host, settings(), NAME), host

    return _a_session


@pytest.fixture(autouse=True)
def no_patience(monkeypatch):
    monkeypatch.setattr(session_module, "CANCEL_GRACE_S", 0)
    monkeypatch.setattr(session_module.time, "sleep", lambda _: None)


# start


def test_start_submits_once_what_it_has_written():
    host = host_that_answers(SUBMITTED)
    session = start(host)
    assert host.commands == [("python", "-m", "hpclab.localq", "submit", HERE.start_script)]
    assert host.files[HERE.start_script] == session.start_script()
    assert host.files[HERE.worker_script] == session.request.worker_script(session.request.worker_record())
    assert json.loads(host.files[HERE.job("1")])["role"] == "main"
    assert set(HERE.subfolders) <= host.folders


def test_every_start_has_secrets_of_its_own():
    files = [host.files for host in (host_that_answers(SUBMITTED), host_that_answers(SUBMITTED)) if start(host)]
    for secret in (HERE.token, HERE.key, HERE.ca):
        assert files[0][secret] != files[1][secret]


@pytest.mark.parametrize(
    ("answer", "error"), [(REFUSED, Refused), ((0, "thank you\n", ""), UnreadableOutput)], ids=["refused", "unread"]
)
def test_a_start_that_is_refused_leaves_nothing(answer, error):
    host = host_that_answers(answer)
    with pytest.raises(error):
        start(host)
    assert host.files == {}
    assert host.names(f"{HOME}/sessions") == []
    assert verbs(host) == ["submit"]


def test_a_start_that_is_interrupted_leaves_nothing():
    class Interrupted(RecordingHost):
        def run(self, argv, *, timeout_s=60):
            raise KeyboardInterrupt

    host = Interrupted()
    with pytest.raises(KeyboardInterrupt):
        start(host)
    assert host.files == {}


@pytest.mark.parametrize(
    "changes",
    [
        {"name": "two words"},
        {"name": "../evil"},
        {"name": "x" * 300},
        {"queue": "locl"},
        {"queue": "local:fast"},
        {"queue": "local", "nodes": 2},
        {"queue": "slurm", "nodes": 2, "container": "x.sif"},
    ],
)
def test_a_start_that_makes_no_sense_does_nothing(changes):
    host = RecordingHost()
    with pytest.raises(ConfigError):
        start(host, **changes)
    assert (host.commands, host.files, host.folders) == ([], {}, set())


def test_a_name_that_is_taken_is_refused_and_the_other_session_untouched():
    host = with_jobs(RecordingHost(), NAME, [MAIN])
    before = dict(host.files)
    with pytest.raises(SessionExists):
        start(host)
    assert (host.commands, host.files) == ([], before)


def test_without_a_name_it_gets_a_new_one():
    session = start(host_that_answers(SUBMITTED), name="")
    assert check_name(session.name) == session.name


@pytest.mark.parametrize("name", ["brand.new", "x.new"])
def test_every_session_that_can_be_started_is_listed(tmp_path, name):
    """Also where names of a certain kind mean something to the host."""
    host = LocalHost({"HPCLAB_HOME": str(tmp_path)})
    host.run = host_that_answers(SUBMITTED).run
    try:
        start(host, name=name)
    except ConfigError:
        return
    host.run = host_that_answers(localq_status(job1="RUNNING")).run
    assert [described["name"] for described in Session.all(host, settings())] == [name]


def test_jupyterlab_opens_where_start_was_called_or_where_the_user_wants():
    assert "--root-dir /home/ada/work" in start(host_that_answers(SUBMITTED)).start_script()
    assert "--root-dir /data" in start(host_that_answers(SUBMITTED), notebook_dir="/data").start_script()


def test_a_planned_session_is_only_thought_of():
    host = RecordingHost()
    session = Session.planned(host, settings(), name=NAME, notebook_dir="/")
    assert session.start_script().startswith("#!/bin/bash\n#HPCLAB ")
    assert session.request.worker_script(session.request.worker_record()).startswith("#!/bin/bash\n#HPCLAB ")
    assert (host.commands, host.files, host.folders) == ([], {}, set())


@pytest.mark.parametrize(
    ("said", "program"),
    [("sbatch: slurm 23.11.4\n", "sbatch"), ("", "hpclab.localq"), ("qstat-help: SGE 8.1.9\n", "qsub")],
)
def test_without_a_queue_the_batch_system_that_is_there_is_taken(said, program):
    host = host_that_answers((0, said, ""), SUBMITTED)
    start(host, queue="auto")
    assert program in host.commands[-1]


def test_where_several_batch_systems_are_there_the_user_says_which():
    host = host_that_answers((0, "sbatch: slurm 23.11.4\nqstat-version: pbs_version = 23.06.06\n", ""))
    with pytest.raises(ConfigError, match="--queue slurm"):
        start(host, queue="auto")
    assert host.files == {}


@pytest.mark.parametrize("check", [True, False])
def test_the_main_job_shall_have_the_versions_of_the_login_node(check):
    host = host_that_answers(SUBMITTED)
    host.versions = {"python": "3.11", "dask": "2026.8.0"}
    start(host, check_versions=check)
    assert ("--expect-versions 'python 3.11, dask 2026.8.0'" in host.files[HERE.start_script]) == check


def test_a_job_that_cannot_be_recorded_is_cancelled_again():
    """Nobody would find it."""

    class Full(RecordingHost):
        def write(self, path, text, *, mode=0o600):
            if "/jobs/" in path:
                raise OSError(28, "No space left on device", path)
            super().write(path, text, mode=mode)

    host = Full([(0, "17\n", "")])
    with pytest.raises(StoreError):
        start(host, queue="slurm")
    assert asked(host) == ["sbatch", "scancel"]
    assert host.commands[1][-1] == "17"
    assert host.files == {}


# prepare: the main job was submitted by hand, and runs


def prepare(host: RecordingHost) -> Session:
    return Session.prepare(host, settings(), name=NAME, notebook_dir="/")


def test_a_job_that_was_submitted_by_hand_makes_its_session():
    host = RecordingHost()
    prepare(host)
    assert {HERE.session, HERE.token, HERE.worker_script} <= set(host.files)
    assert host.commands == []


def test_a_session_by_hand_that_has_ended_is_taken_up_again(a_session):
    _, host = a_session(localq_status(job1="COMPLETED"), jobs=[MAIN])
    before = host.files[HERE.token]
    prepare(host)
    assert host.files[HERE.token] == before


@pytest.mark.parametrize("state", ["RUNNING", "PENDING"])
def test_a_session_by_hand_that_is_alive_is_not_disturbed(a_session, state):
    _, host = a_session(localq_status(job1=state), jobs=[MAIN])
    with pytest.raises(SessionExists, match="HPCLAB_NAME"):
        prepare(host)


# opening


@pytest.mark.parametrize("name", ["bold-heron", "../calm-otter"])
def test_what_is_not_there_cannot_be_opened(name):
    with pytest.raises((NoSuchSession, ConfigError)):
        Session.open(with_jobs(RecordingHost(), NAME), settings(), name)


def several(heron: str, otter: str) -> RecordingHost:
    """Two sessions, bold-heron and calm-otter, and the states of their main jobs."""
    host = host_that_answers(localq_status(job1=heron, job2=otter))
    with_jobs(host, "bold-heron", [MAIN], first=1)
    return with_jobs(host, "calm-otter", [MAIN], first=2)


RUNNING, PENDING, ENDED = ("RUNNING", "PENDING", "COMPLETED")


def test_many_sessions_are_one_question():
    host = several(RUNNING, PENDING)
    assert [described["state"] for described in Session.all(host, settings())] == ["starting", "queued"]
    assert verbs(host) == ["status"]


def test_a_local_session_of_another_machine_is_left_alone():
    host = with_jobs(host_that_answers(localq_status(job1="RUNNING")), NAME, [MAIN])
    host.files[HERE.session] = session_record(NAME, host="node17").to_text()
    session = Session.open(host, settings(), NAME)
    assert session.describe()["state"] == "unknown"
    with pytest.raises(NotRunning, match="is on node17"):
        session.stop()
    assert host.commands == []


@pytest.mark.parametrize(("answers", "name"), [((RUNNING, ENDED), "bold-heron"), ((ENDED, PENDING), "calm-otter")])
def test_the_only_session_that_is_alive_needs_no_name(answers, name):
    assert Session.only(several(*answers), settings()).name == name


@pytest.mark.parametrize(
    ("answers", "told"), [((RUNNING, PENDING), "bold-heron, calm-otter"), ((ENDED, ENDED), "no session is running")]
)
def test_several_or_none_need_a_name(answers, told):
    with pytest.raises(NoSuchSession, match=told):
        Session.only(several(*answers), settings())


def test_who_only_looks_may_look_at_the_latest():
    assert Session.only(several(ENDED, ENDED), settings(), or_latest=True).name in ("bold-heron", "calm-otter")


@pytest.mark.parametrize("text", ["", "{", "[]", '{"name": "bold-heron"}', None])
def test_a_session_that_cannot_be_read_hides_no_other(text):
    host = several(RUNNING, RUNNING)
    if text is None:
        del host.files[folder("bold-heron").session]
    else:
        host.files[folder("bold-heron").session] = text
    found = {described["name"]: described["state"] for described in Session.all(host, settings())}
    assert found == {"bold-heron": "unreadable", "calm-otter": "starting"}


def test_a_session_of_a_batch_system_that_we_do_not_know_hides_no_other():
    host = several(RUNNING, RUNNING)
    path = folder("bold-heron").session
    host.files[path] = host.files[path].replace('"system": "local"', '"system": "dream"')
    found = {described["name"]: described["state"] for described in Session.all(host, settings())}
    assert found == {"bold-heron": "unreadable", "calm-otter": "starting"}


def test_a_session_of_two_hundred_jobs_is_one_question(a_session):
    session, host = a_session(localq_status(job1="RUNNING"), jobs=[MAIN, *[WORKER] * 199])
    assert len(session.describe()["jobs"]) == 200
    assert verbs(host) == ["status"]


# what it looks like


def test_workers_are_counted_once_they_have_joined(a_session):
    session, host = a_session(localq_status(job1="RUNNING", job2="RUNNING"))
    roster = [{"name": name, "nthreads": 2, "memory_bytes": 1} for name in ("1-0", "2-0", "stranger")]
    host.files[HERE.roster] = json.dumps({"workers": roster})
    host.files[HERE.connection] = connection().to_text()
    described = session.describe()
    assert [job["joined"] for job in described["jobs"]] == [1, 1]
    assert described["workers"]["joined"] == 2


@pytest.mark.parametrize(("of_job", "state"), [("1", "running"), ("99", "starting")])
def test_a_connection_counts_if_it_is_the_main_jobs(a_session, of_job, state):
    session, host = a_session(localq_status(job1="RUNNING"))
    host.files[HERE.connection] = connection(of_job).to_text()
    assert session.describe()["state"] == state


@pytest.mark.parametrize("secrets", [True, False])
def test_the_token_is_told_only_to_who_asks_for_it(a_session, secrets):
    session, host = a_session(localq_status(job1="RUNNING"))
    host.files[HERE.connection] = connection().to_text()
    described = session.describe_with_secrets() if secrets else session.describe()
    assert (TOKEN in json.dumps(described)) == secrets


def test_without_connection_there_is_nothing_to_attach_to(a_session):
    session, _ = a_session(localq_status(job1="PENDING"))
    with pytest.raises(NotRunning, match="not running but queued"):
        session.check_running()


@pytest.mark.parametrize(("job_id", "role"), [("", "main"), ("1", "main"), ("2", "worker")])
def test_a_job_is_named_by_its_id_and_the_main_job_needs_none(a_session, job_id, role):
    assert a_session(localq_status(job1="RUNNING"))[0].job(job_id).record.role == role


def test_an_unknown_job_is_told_with_those_that_are_known(a_session):
    with pytest.raises(NoSuchJob, match="no job '99'\njobs: 1, 2"):
        a_session(localq_status(job1="RUNNING"))[0].job("99")


def test_a_job_that_was_just_submitted_may_not_be_known_yet():
    host = host_that_answers(SUBMITTED, localq_status())
    session = start(host)
    assert (session.describe()["state"], session.view().reason) == ("queued", "just submitted")


def test_a_job_that_was_just_submitted_is_gone_when_it_was_known_before():
    host = host_that_answers(SUBMITTED, localq_status(), localq_status(job1="PENDING"), localq_status())
    session = start(host)
    session._queue._fresh_s = -1
    assert [session.describe()["state"] for _ in range(3)] == ["queued", "queued", "ended"]


@pytest.mark.parametrize(
    ("told", "state", "words"),
    [
        ([], "ended", "it left the queue without having run"),
        ([("started", {"node": "n1"})], "failed", "it ended without a word"),
        ([("started", {"node": "n1"}), ("exited", {"exit_status": 0})], "ended", "it ended as asked"),
    ],
)
def test_a_main_job_that_the_batch_system_has_forgotten_tells_its_end_itself(a_session, told, state, words):
    session, host = a_session(localq_status())
    happens(host, "1", *told)
    described = session.describe()
    assert described["state"] == state
    assert described["reason"].startswith(words)


def test_what_a_job_has_told_since_its_events_were_read_counts(a_session, monkeypatch):
    """It ends while the batch system is asked."""
    session, host = a_session(localq_status(job1="FAILED"))
    happens(host, "1", ("started", {"node": "n1"}))
    asked = host.run

    def run(*args, **kwargs):
        happens(
            host,
            "1",
            ("started", {"node": "n1"}),
            ("ending", {"reason": "it was late"}),
            ("exited", {"exit_status": 3}),
        )
        return asked(*args, **kwargs)

    monkeypatch.setattr(host, "run", run)
    assert session.describe()["reason"] == "it was late"


def test_a_main_job_without_a_pulse_may_be_dead(a_session):
    session, host = a_session(localq_status(job1="RUNNING"))
    host.files[HERE.pulse] = f"{NOON:.0f}\n"
    assert session.describe()["reason"].startswith("no sign of life from ")


@pytest.mark.parametrize(("told_s", "is_silent"), [(0, False), (20, False), (45, True)])
def test_a_scheduler_that_hangs_beside_a_main_job_that_lives_is_told(a_session, told_s, is_silent):
    """By the clock of their node, which may be far off ours."""
    session, host = a_session(localq_status(job1="RUNNING"))
    host.files[HERE.connection] = connection().to_text()
    ahead = time.time() + 9000
    host.files[HERE.pulse] = f"{ahead:.0f}\n"
    host.files[HERE.activity] = json.dumps({"time": ahead - told_s, "busy_core_s": 1, "samples": []})
    worker = {"name": "1-0", "cpu_percent": 95, "memory_used_bytes": 1}
    host.files[HERE.roster] = json.dumps({"workers": [worker]})
    described = session.describe()
    assert described["state"] == "running"
    assert described["reason"].startswith("no sign of life from its Dask scheduler") is is_silent
    assert described["jobs"][0]["cpu_percent"] == (None if is_silent else 95)


@pytest.mark.parametrize(("roster", "words"), [(["1-0"], "none of its workers any more"), (["1-0", "2-0"], "")])
def test_a_worker_job_that_the_scheduler_has_lost_is_told(a_session, roster, words):
    """Of a node that died some batch systems say for minutes that its job runs."""
    session, host = a_session(localq_status(job1="RUNNING", job2="RUNNING"))
    host.files[HERE.connection] = connection().to_text()
    happens(host, "2", ("started", {"node": "n2"}), ("joined", {}))
    host.files[HERE.roster] = json.dumps({"workers": [{"name": name} for name in roster]})
    worker = session.describe()["jobs"][1]
    assert worker["state"] == "running"
    assert words in worker["reason"]
    assert bool(worker["reason"]) is bool(words)


def test_a_main_job_that_was_started_again_says_so(a_session):
    session, host = a_session(localq_status(job1="RUNNING"))
    happens(host, "1", ("started", {"node": "n1"}), ("started", {"node": "n2"}), ("again", {"node": "n2"}))
    assert session.describe()["reason"].startswith("started again by the batch system on n2")


# a batch system that does not answer, or has answered for good

BUSY = (1, "", "busy\n")


def test_while_the_batch_system_does_not_answer_its_last_word_is_told(a_session):
    session, host = a_session(localq_status(job1="RUNNING", job2="PENDING"), BUSY, localq_status(job1="RUNNING"))
    session._queue._fresh_s = -1
    host.files[HERE.connection] = connection().to_text()
    assert session.describe()["state"] == "running"
    silent = session.describe()
    assert silent["state"] == "unknown"
    for job, then in zip(silent["jobs"], ("running", "pending"), strict=True):
        assert job["state"] == "unknown"
        assert re.fullmatch(rf"local does not answer: busy \(since \d\d:\d\d:\d\d; then {then}\)", job["reason"])
    # who is connected stays so
    assert silent["jupyter_url"]
    assert session.describe()["state"] == "running"


def test_of_a_batch_system_that_never_answered_there_is_no_last_word(a_session):
    session, _ = a_session(BUSY)
    assert session.describe()["reason"] == "local does not answer: busy"


def test_of_jobs_whose_end_is_known_nobody_is_asked_any_more(a_session):
    answers = [localq_status(job1="RUNNING", job2="FAILED"), localq_status(job1="RUNNING"), BUSY]
    session, host = a_session(*answers)
    session._queue._fresh_s = -1
    for _ in range(3):
        assert session.describe()["jobs"][1]["state"] == "failed"
    assert [argv[4:] for argv in host.commands] == [("1", "2"), ("1",), ("1",)]


def test_when_every_end_is_known_nothing_is_asked(a_session):
    _, host = a_session(localq_status(job1="COMPLETED", job2="CANCELLED"))
    for _ in range(2):
        assert Session.open(host, settings(), NAME).describe()["state"] == "ended"
    assert verbs(host) == ["status"]


def test_a_job_that_has_begun_anew_since_its_end_is_asked_about_again(a_session):
    ended = json.dumps({"id": "1", "state": "FAILED", "start_time": NOON - 60, "end_time": NOON})
    session, host = a_session((0, ended, ""), localq_status(job1="RUNNING"), jobs=[MAIN])
    session._queue._fresh_s = -1
    assert session.describe()["state"] == "failed"
    again = [{"time": NOON + 100, "event": what, **job_record("main").to_dict()} for what in ("started", "again")]
    host.files[HERE.events("1")] = "".join(json.dumps(event) + "\n" for event in again)
    assert session.describe()["state"] == "starting"


def test_what_slurm_has_put_away_its_accounting_tells(a_session):
    away = "1|FAILED|3:0|2026-11-20T10:00:00|2026-11-20T11:00:00|node1|None\n"
    session, host = a_session(squeue(job2="PENDING"), (0, away, ""), system="slurm")
    assert [job["state"] for job in session.describe()["jobs"]] == ["failed", "pending"]
    assert asked(host) == ["squeue", "sacct"]


# why


def test_the_story_of_a_job_that_failed_ends_with_its_log(a_session):
    session, host = a_session(localq_status(job1="FAILED"))
    happens(
        host, "1", ("started", {"node": "n1"}), ("failed", {"reason": "no mpiexec"}), ("exited", {"exit_status": 41})
    )
    host.files[HERE.log("1")] = "some\nwords\n"
    story = session.why()
    assert [event.what for event in story.events] == ["submitted", "started", "failed", "exited"]
    assert (story.job.status.reason, story.log_tail) == ("no mpiexec", "some\nwords")


def test_the_story_of_a_job_that_runs_needs_no_log(a_session):
    session, host = a_session(localq_status(job1="RUNNING"))
    host.files[HERE.log("1")] = "some\nwords\n"
    assert session.why("1").log_tail == ""


def test_the_end_of_a_log(a_session):
    session, host = a_session(localq_status(job1="RUNNING"))
    host.files[HERE.log("2")] = "1\n2\n3\n"
    assert list(session.log_lines("2", lines=2, follow=False)) == ["2\n3"]


def test_for_the_end_of_a_log_the_batch_system_is_not_asked(a_session):
    session, host = a_session()
    host.files[HERE.log("1")], host.files[HERE.log("2")] = "main\n", "1\n2\n3\n"
    assert (session.log(), session.log("2", lines=2)) == ("main", "2\n3")
    with pytest.raises(NoSuchJob, match=r"has no job '../token'\njobs: 1, 2"):
        session.log("../token")
    assert host.commands == []


# add_worker


def test_add_worker_submits_and_records_each_job(a_session):
    session, host = a_session(localq_status(job1="RUNNING"), (0, "3\n", ""), (0, "4\n", ""))
    assert session.add_worker(session.request.worker_record(), 2) == ["3", "4"]
    assert [argv[4] for argv in host.commands if argv[3] == "submit"] == [HERE.worker_script] * 2
    assert {HERE.job("3"), HERE.job("4")} <= set(host.files)


def test_who_asks_for_something_else_gets_a_script_of_its_own(a_session):
    session, host = a_session(localq_status(job1="RUNNING"), (0, "3\n", ""))
    record = session.request.worker_record(cores=7)
    session.add_worker(record)
    path = host.commands[-1][4]
    assert path.startswith(HERE / "scripts/add-worker-")
    assert "#HPCLAB --cores=7\n" in host.files[path]
    assert json.loads(host.files[HERE.job("3")])["cores"] == 7


@pytest.mark.parametrize("state", ["COMPLETED", "FAILED", "CANCELLED", "TIMEOUT"])
def test_no_worker_is_added_to_a_session_that_has_ended(a_session, state):
    session, host = a_session(localq_status(job1=state))
    with pytest.raises(NotRunning, match="hpclab start"):
        session.add_worker(WORKER)
    assert "submit" not in verbs(host)


def test_a_session_that_cannot_be_asked_about_may_grow_all_the_same(a_session):
    session, _ = a_session((1, "", "busy\n"), (0, "3\n", ""))
    assert session.add_worker(session.request.worker_record()) == ["3"]


def test_what_was_submitted_before_a_refusal_stays(a_session):
    session, host = a_session(localq_status(job1="RUNNING"), (0, "3\n", ""), REFUSED)
    with pytest.raises(Refused):
        session.add_worker(session.request.worker_record(), 3)
    assert HERE.job("3") in host.files
    assert HERE.job("4") not in host.files


def test_many_workers_are_one_array_where_there_are_arrays(a_session):
    session, host = a_session(squeue(job1="RUNNING"), (0, "17\n", ""), jobs=[MAIN], system="slurm")
    assert session.add_worker(session.request.worker_record(), 3) == ["17_1", "17_2", "17_3"]
    assert asked(host) == ["squeue", "sbatch"]
    assert {"--array=1-3", HERE.worker_script} <= set(host.commands[1])
    assert list(session._store.jobs(NAME)) == ["1", "17_1", "17_2", "17_3"]


@pytest.mark.parametrize(("count", "arrays"), [(1, True), (2, False)])
def test_one_worker_is_no_array_and_who_wants_none_gets_none(a_session, count, arrays):
    answers = [squeue(job1="RUNNING"), (0, "17\n", ""), (0, "18\n", "")]
    session, host = a_session(*answers, jobs=[MAIN], system="slurm", settings=settings(arrays=arrays))
    assert session.add_worker(session.request.worker_record(), count) == ["17", "18"][:count]
    assert not [word for argv in host.commands for word in argv if word.startswith("--array")]


@pytest.mark.parametrize(("count", "is_taken"), [(3, True), (4, False)])
def test_only_so_many_jobs_may_wait_in_the_queue(a_session, count, is_taken):
    answers = [squeue(job1="RUNNING", job2="PENDING", job3="PENDING"), (0, "17\n", "")]
    few = settings(most_queued=5)
    session, host = a_session(*answers, jobs=[MAIN, WORKER, WORKER], system="slurm", settings=few)
    if is_taken:
        assert len(session.add_worker(session.request.worker_record(), count)) == count
    else:
        with pytest.raises(NotRunning, match="would become 6 in the queue; the limit is 5"):
            session.add_worker(session.request.worker_record(), count)
        assert asked(host) == ["squeue"]


THREE_FAILED = localq_status(job1="RUNNING", job2="FAILED", job3="FAILED", job4="FAILED")


def test_after_three_failures_in_a_row_no_more_are_submitted(a_session):
    session, host = a_session(THREE_FAILED, jobs=[MAIN, *[WORKER] * 3])
    happens(host, "4", ("failed", {"reason": "no module python"}), ("exited", {"exit_status": 40}))
    with pytest.raises(NotRunning, match="failed to start: no module python") as refused:
        session.add_worker(session.request.worker_record())
    assert "hpclab add-worker --anyway" in str(refused.value)
    assert "submit" not in verbs(host)


def test_although_they_fail_one_may_be_tried(a_session):
    session, _ = a_session(THREE_FAILED, (0, "5\n", ""), jobs=[MAIN, *[WORKER] * 3])
    assert session.add_worker(session.request.worker_record(), although_failing=True) == ["5"]


def test_workers_that_had_joined_do_not_stop_others(a_session):
    session, host = a_session(THREE_FAILED, (0, "5\n", ""), jobs=[MAIN, *[WORKER] * 3])
    happens(host, "3", ("joined", {"worker": "3-0"}))
    assert session.add_worker(session.request.worker_record()) == ["5"]


# scale: the main job has one worker


@pytest.mark.parametrize(("wanted", "submit"), [(5, 3), (3, 1), (2, 0)])
def test_scaling_up_submits_what_lacks(a_session, wanted, submit):
    answers = [localq_status(job1="RUNNING", job2="PENDING"), *[(0, f"{n}\n", "") for n in (3, 4, 5)]]
    session, host = a_session(*answers)
    assert session.scale(wanted) == Change(submit=submit)
    assert verbs(host) == ["status", *["submit"] * submit]


def test_scaling_down_cancels_what_waits_and_then_lets_the_idle_leave(a_session):
    up = {"job1": "RUNNING", "job2": "RUNNING", "job3": "RUNNING", "job4": "PENDING"}
    session, host = a_session(
        localq_status(**up),
        (0, "", ""),
        localq_status(**{**up, "job3": "COMPLETED", "job4": "CANCELLED"}),
        jobs=[MAIN, *[WORKER] * 3],
    )
    roster = [{"name": "1-0"}, {"name": "2-0", "tasks": 4}, {"name": "3-0", "tasks": 0}]
    host.files[HERE.roster] = json.dumps({"workers": roster})
    host.files[HERE.connection] = connection().to_text()
    assert session.scale(2) == Change(cancel=("4",), retire=("3",))
    assert [argv[3:] for argv in host.commands if argv[3] == "cancel"] == [("cancel", "4")]
    assert HERE.retire("3") in host.files
    assert HERE.retire("2") not in host.files


def test_who_does_not_leave_in_time_is_cancelled(a_session):
    up = localq_status(job1="RUNNING", job2="RUNNING")
    session, host = a_session(up)
    host.files[HERE.connection] = connection().to_text()
    host.files[HERE.roster] = json.dumps({"workers": [{"name": "2-0"}]})
    assert session.scale(1) == Change(retire=("2",))
    assert [argv[3:] for argv in host.commands if argv[3] == "cancel"] == [("cancel", "2")]


def test_a_session_that_has_ended_does_not_grow(a_session):
    session, host = a_session(localq_status(job1="COMPLETED"), jobs=[MAIN])
    with pytest.raises(NotRunning, match="hpclab start"):
        session.scale(3)
    assert verbs(host) == ["status"]


# keep


@pytest.mark.parametrize(
    ("states", "submit"),
    [({"job2": "RUNNING", "job3": "PENDING"}, 0), ({"job2": "COMPLETED", "job3": "PENDING"}, 1), ({}, 2)],
)
def test_what_is_missing_of_the_kept_is_submitted(a_session, states, submit):
    answers = [localq_status(job1="RUNNING", **states), (0, "4\n", ""), (0, "5\n", "")]
    session, host = a_session(*answers, jobs=[MAIN, WORKER, WORKER])
    host.files[HERE.connection] = connection().to_text()
    assert session.keep(2) == Change(submit=submit)
    assert verbs(host) == ["status", *["submit"] * submit]


@pytest.mark.parametrize(("left_s", "submit"), [(5, 0), (3000, 1)])
def test_no_workers_are_kept_for_the_last_moments_of_a_session(a_session, left_s, submit):
    main = json.dumps({"id": "1", "state": "RUNNING", "limit_time": session_module.time.time() + left_s})
    session, host = a_session((0, main, ""), (0, "4\n", ""), jobs=[MAIN])
    host.files[HERE.connection] = connection().to_text()
    assert session.keep(1) == Change(submit=submit)


def test_nothing_is_kept_in_a_session_that_has_ended(a_session):
    session, host = a_session(localq_status(job1="CANCELLED"), jobs=[MAIN])
    with pytest.raises(NotRunning):
        session.keep(3)
    assert verbs(host) == ["status"]


# adapt


@pytest.mark.parametrize(("asked_for", "submit"), [(3, 0), (4, 1), (9, 2)])
def test_what_the_load_asks_for_beyond_what_is_there_and_coming_is_submitted(a_session, asked_for, submit):
    answers = [localq_status(job1="RUNNING", job2="RUNNING", job3="PENDING"), (0, "4\n", ""), (0, "5\n", "")]
    session, host = a_session(*answers, jobs=[MAIN, WORKER, WORKER])
    host.files[HERE.connection] = connection().to_text()
    change = session.adapt(Demand().seen(asked_for, NOON), minimum=0, maximum=5, idle_s=60)
    assert change == Change(submit=submit)
    assert verbs(host) == ["status", *["submit"] * submit]


def test_what_the_load_could_long_do_without_is_cancelled_or_leaves(a_session):
    up = {"job1": "RUNNING", "job2": "RUNNING"}
    session, host = a_session(
        localq_status(**up, job3="PENDING"),
        (0, "", ""),
        localq_status(**{**up, "job2": "COMPLETED", "job3": "CANCELLED"}),
        jobs=[MAIN, WORKER, WORKER],
    )
    host.files[HERE.connection] = connection().to_text()
    host.files[HERE.roster] = json.dumps({"workers": [{"name": "1-0"}, {"name": "2-0"}]})
    change = session.adapt(Demand().seen(0, 0.0), minimum=0, maximum=5, idle_s=60)
    assert change == Change(cancel=("3",), retire=("2",))


@pytest.mark.parametrize(("left_s", "submit"), [(5, 0), (3000, 1)])
def test_nothing_is_submitted_for_the_last_moments_of_a_session(a_session, left_s, submit):
    main = json.dumps({"id": "1", "state": "RUNNING", "limit_time": session_module.time.time() + left_s})
    session, host = a_session((0, main, ""), (0, "4\n", ""), jobs=[MAIN])
    host.files[HERE.connection] = connection().to_text()
    assert session.adapt(Demand().seen(2, NOON), minimum=0, maximum=5, idle_s=60) == Change(submit=submit)


@pytest.mark.parametrize(
    "answer", [(1, "", "no"), localq_status(job1="PENDING", job2="PENDING")], ids=["silent", "not up"]
)
def test_nobody_adapts_what_is_not_known_or_not_up(a_session, answer):
    session, host = a_session(answer)
    assert session.adapt(Demand().seen(9, NOON), minimum=0, maximum=9, idle_s=60) == Change()
    assert verbs(host) == ["status"]


def test_nothing_adapts_in_a_session_that_has_ended(a_session):
    session, _ = a_session(localq_status(job1="CANCELLED"), jobs=[MAIN])
    with pytest.raises(NotRunning):
        session.adapt(Demand(), minimum=0, maximum=9, idle_s=60)


# remove_worker


def test_the_main_job_is_not_removed(a_session):
    session, host = a_session(localq_status(job1="RUNNING", job2="RUNNING"))
    with pytest.raises(NotRunning, match=f"hpclab stop {NAME}"):
        session.remove_worker("1")
    assert verbs(host) == ["status"]


def test_a_worker_job_that_has_not_joined_is_cancelled(a_session):
    gone = localq_status(job1="RUNNING", job2="CANCELLED")
    session, host = a_session(localq_status(job1="RUNNING", job2="PENDING"), (0, "", ""), gone)
    assert session.remove_worker("2") == "job 2 was cancelled"
    assert ("python", "-m", "hpclab.localq", "cancel", "2") in host.commands


def test_a_worker_that_has_joined_is_asked_first(a_session):
    up, gone = localq_status(job1="RUNNING", job2="RUNNING"), localq_status(job1="RUNNING", job2="COMPLETED")
    session, host = a_session(up, gone)
    host.files[HERE.roster] = '{"workers": [{"name": "2-0", "nthreads": 2, "memory_bytes": 1}]}'
    host.files[HERE.connection] = connection().to_text()
    session._queue._fresh_s = -1
    assert session.remove_worker("2") == "job 2 handed over its data and left"
    assert HERE.retire("2") in host.files
    assert "cancel" not in verbs(host)


def test_a_worker_job_that_has_ended_is_left_alone(a_session):
    session, host = a_session(localq_status(job1="RUNNING", job2="COMPLETED"))
    assert "had ended already" in session.remove_worker("2")
    assert verbs(host) == ["status"]


# stop


def test_stop_cancels_all_at_once_also_those_still_queued(a_session):
    session, host = a_session(
        localq_status(job1="RUNNING", job2="PENDING", job3="COMPLETED"),
        (0, "", ""),
        localq_status(job1="CANCELLED", job2="CANCELLED", job3="COMPLETED"),
        jobs=[MAIN, WORKER, WORKER],
    )
    cancelled = session.stop()
    assert [(job.job_id, job.status.state) for job in cancelled] == [("1", JobState.RUNNING), ("2", JobState.PENDING)]
    # the main job last, within which this may have been said
    assert [argv for argv in host.commands if argv[3] == "cancel"] == [
        ("python", "-m", "hpclab.localq", "cancel", "2", "1")
    ]
    assert host.files[HERE.over].startswith("stopped at ")


def test_stopping_twice_cancels_nothing_more(a_session):
    session, host = a_session(localq_status(job1="CANCELLED", job2="CANCELLED"))
    assert session.stop() == []
    assert "cancel" not in verbs(host)


def test_a_job_that_does_not_go_is_named(a_session):
    up = localq_status(job1="RUNNING", job2="CANCELLED")
    session, _ = a_session(up, (0, "", ""), *[up] * 1000)
    with pytest.raises(TookTooLong, match="not gone after 0 s: 1"):
        session.stop()


# the scripts


def test_the_main_job_asks_for_the_scheduler_and_its_workers():
    session = Session.planned(
        RecordingHost(),
        settings(workers=3, cores=2, memory_bytes=2**31, scheduler_cores=1, scheduler_memory_bytes=2**30),
        name=NAME,
        notebook_dir="/",
    )
    assert f"#HPCLAB --cores={1 + 3 * 2}\n#HPCLAB --memory={2**30 + 3 * 2**31}\n" in session.start_script()


@pytest.mark.parametrize(("walltime_s", "drain"), [(3600, 120), (60, 15), (4, 1)])
def test_a_worker_drains_for_at_most_a_quarter_of_its_time(walltime_s, drain):
    session = Session.planned(RecordingHost(), settings(), name=NAME, notebook_dir="/")
    words = session.request.worker_script(session.request.worker_record(walltime_s=walltime_s)).split()
    assert words[words.index("--drain") + 1] == str(drain)


@pytest.mark.parametrize(("interface", "told"), [("auto", "--interface loopback"), ("ib0", "--interface ib0")])
def test_on_this_machine_dask_listens_to_this_machine_only(interface, told):
    session = Session.planned(RecordingHost(), settings(interface=interface), name=NAME, notebook_dir="/")
    assert told in session.start_script()


def test_the_python_of_the_jobs_can_be_another():
    session = Session.planned(RecordingHost(), settings(python="/site/python"), name=NAME, notebook_dir="/")
    assert "\n/site/python -P -m hpclab.inside.main_job " in session.start_script()


@pytest.mark.parametrize("name", ["token", "tls"])
def test_scripts_hold_no_secret(name):
    host = host_that_answers(SUBMITTED)
    start(host)
    secrets = [text.strip() for path, text in host.files.items() if f"/{name}" in path]
    assert secrets
    for path, text in host.files.items():
        assert not path.endswith(".sh") or not any(secret in text for secret in secrets)


def test_a_home_that_is_no_folder_is_told():
    with pytest.raises(StoreError, match="/dev/null/x"):
        Session.all(LocalHost({"HPCLAB_HOME": str(Path("/dev/null/x"))}), settings())


# what is asked for where this host may not submit


def on(name: str, submit_host: str = "") -> RecordingHost:
    host = RecordingHost()
    host.name, host.submit_host = name, submit_host
    return host


@pytest.mark.parametrize(
    ("host", "made_on", "system", "login"),
    [
        (on("login1"), "login1", "slurm", ""),
        (on("node1"), "login1", "slurm", "login1"),
        (on("node1", "login2"), "login1", "slurm", "login1"),
        # submitted by hand, or started from within a job
        (on("node1", "login2"), "", "slurm", "login2"),
        (on("node1", "login2"), "node1", "slurm", "login2"),
        (on("node1", "node1.cluster"), "", "slurm", ""),
        (on("node1"), "", "slurm", ""),
        (on("node1"), "login1", "local", ""),
    ],
)
def test_who_may_ask_is_the_host_that_submitted(host, made_on, system, login):
    record = session_record(NAME, system=system, host=made_on)
    assert session_module._who_may_ask(host, record) == login


def test_what_was_asked_for_elsewhere_is_submitted_and_recorded_here(a_session):
    session, host = a_session((0, "3\n", ""))
    assert session.fulfil(Submit(script="add-one-worker.sh", record=WORKER)) == ["3"]
    assert host.commands[-1][-1] == HERE.worker_script
    assert json.loads(host.files[HERE.job("3")])["role"] == "worker"


def test_only_jobs_of_the_session_are_cancelled_for_others(a_session):
    session, host = a_session((0, "", ""))
    with pytest.raises(NoSuchJob, match="'99'"):
        session.fulfil(Cancel(job_ids=("2", "99")))
    assert host.commands == []
    assert session.fulfil(Cancel(job_ids=("2",))) == ["2"]
    assert verbs(host) == ["cancel"]


def test_a_session_that_is_over_gets_no_worker_that_was_asked_for_before(a_session):
    session, host = a_session()
    host.files[HERE.over] = "stopped\n"
    with pytest.raises(NotRunning, match="has ended"):
        session.fulfil(Submit(script="add-one-worker.sh", record=WORKER))
    assert host.commands == []


# a run


MODEL = Program(script="model.py", folder="/home/ada/work", arguments=("--fast",))
RAN = [("started", {"node": "n1"}), ("script", {"script": "model.py"})]


def a_run(*answers: tuple[int, str, str]) -> tuple[Session, RecordingHost]:
    host = with_jobs(host_that_answers(*answers), jobs=[MAIN], program=MODEL)
    return Session.open(host, settings(), NAME), host


def test_a_run_has_one_script_and_one_job():
    host = host_that_answers(SUBMITTED)
    session = Session.start(host, settings(), name=NAME, notebook_dir="/", program=MODEL)
    assert host.commands == [("python", "-m", "hpclab.localq", "submit", HERE.run_script)]
    assert [path for path in host.files if path.endswith(".sh")] == [HERE.run_script]
    assert Session.open(host, settings(), NAME).program == session.program == MODEL


@pytest.mark.parametrize(
    ("events", "said", "state"),
    [
        ([], "RUNNING", "starting"),
        (RAN[:1], "RUNNING", "starting"),
        (RAN, "RUNNING", "running"),
        ([*RAN, ("script_ended", {"exit_status": 7})], "RUNNING", "ending"),
        ([*RAN, ("script_ended", {"exit_status": 7}), ("exited", {"exit_status": 7})], "FAILED", "failed"),
        ([*RAN, ("script_ended", {"exit_status": 0}), ("exited", {"exit_status": 0})], "COMPLETED", "ended"),
        # of a session this would be the ordinary end
        (RAN, "TIMEOUT", "failed"),
    ],
)
def test_a_run_runs_from_its_scripts_beginning_to_its_end(events, said, state):
    session, host = a_run(localq_status(job1=said))
    happens(host, "1", *events)
    assert session.describe()["state"] == state
    assert session.is_up("1") == (len(events) > 1)


def test_all_workers_of_a_runs_scheduler_are_its_jobs():
    session, host = a_run(localq_status(job1="RUNNING"))
    happens(host, "1", *RAN)
    host.files[HERE.roster] = json.dumps({"workers": [{"name": name} for name in ("2", "3", "1-0")]})
    assert session.describe()["workers"]["joined"] == 3


@pytest.mark.parametrize(
    "grow",
    [
        lambda s: s.add_worker(s.request.worker_record()),
        lambda s: s.scale(3),
        lambda s: s.keep(3),
        lambda s: s.remove_worker("1"),
    ],
)
def test_a_run_does_not_grow(grow):
    session, host = a_run()
    with pytest.raises(NotRunning, match=r"is a run of model\.py"):
        grow(session)
    assert host.commands == []


def test_there_is_nothing_to_connect_to_in_a_run():
    session, _ = a_run()
    with pytest.raises(IsRun, match="hpclab attach calm-otter"):
        session.check_running()


def test_a_run_is_not_meant_by_who_names_no_session_to_grow():
    _, host = a_run(*[localq_status(job1="RUNNING")] * 2)
    assert Session.only(host, settings()).name == NAME
    with pytest.raises(NoSuchSession, match="no session is running"):
        Session.only(host, settings(), to_grow=True)


def test_a_piece_of_what_was_printed_is_read_from_anywhere():
    session, host = a_run()
    host.files[HERE.stdout] = "abcdef"
    assert session.printed(HERE.stdout, 2) == b"cdef"
    assert session.printed(HERE.stderr, 0) == b""
