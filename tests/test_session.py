"""The core, on a host that only records: what is run, what is written, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from fixtures import (
    HOME,
    NOON,
    TOKEN,
    connection,
    folder,
    host_that_answers,
    job_record,
    localq_status,
    session_record,
    settings,
    with_jobs,
)

from hpclab import session as session_module
from hpclab.errors import (
    ConfigError,
    JobEnded,
    NoSuchJob,
    NoSuchSession,
    NotRunning,
    Refused,
    SessionExists,
    StoreError,
    TookTooLong,
    UnreadableOutput,
)
from hpclab.event import Event, to_line
from hpclab.hosts.local import LocalHost
from hpclab.hosts.recording import RecordingHost
from hpclab.job import JobState
from hpclab.names import check_name
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


@pytest.fixture
def a_session():
    """a_session(status answers…, jobs=…) is an open session whose jobs are in these states, and its host."""

    def _a_session(*answers, jobs=(MAIN, WORKER)):
        host = with_jobs(host_that_answers(*answers), NAME, jobs)
        return Session.open(host, settings(), NAME), host

    return _a_session


@pytest.fixture
def happens():
    """happens(host, "1", ("started", {…}), …) is what that job has told of itself."""

    def _happens(host: RecordingHost, job_id: str, *events: tuple[str, dict]) -> None:
        lines = [to_line(Event(time=NOON + at, what=what, details=more)) for at, (what, more) in enumerate(events, 1)]
        host.files[HERE.events(job_id)] = "".join(lines)

    return _happens


@pytest.fixture(autouse=True)
def no_patience(monkeypatch):
    monkeypatch.setattr(session_module, "CANCEL_GRACE_S", 0)
    monkeypatch.setattr(session_module, "JOB_TELLS_FIRST_S", 0)
    monkeypatch.setattr(session_module.time, "sleep", lambda _: None)


# start


def test_start_submits_once_what_it_has_written():
    host = host_that_answers(SUBMITTED)
    session = start(host)
    assert host.commands == [("python", "-m", "hpclab.localq", "submit", HERE.start_script)]
    assert host.files[HERE.start_script] == session.start_script()
    assert host.files[HERE.worker_script] == session.worker_script()
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
    assert session.worker_script().startswith("#!/bin/bash\n#HPCLAB ")
    assert (host.commands, host.files, host.folders) == ([], {}, set())


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


# why


def test_the_story_of_a_job_that_failed_ends_with_its_log(a_session, happens):
    session, host = a_session(localq_status(job1="FAILED"))
    happens(
        host, "1", ("started", {"node": "n1"}), ("failed", {"reason": "no mpiexec"}), ("exited", {"exit_status": 41})
    )
    host.files[HERE.log("1")] = "some\nwords\n"
    story = session.why()
    assert [event.what for event in story.events] == ["submitted", "started", "failed", "exited"]
    assert (story.job.status.reason, story.log_tail) == ("no mpiexec", "some\nwords")


def test_the_story_of_a_job_that_runs_needs_no_log(a_session, happens):
    session, host = a_session(localq_status(job1="RUNNING"))
    host.files[HERE.log("1")] = "some\nwords\n"
    assert session.why("1").log_tail == ""


def test_the_end_of_a_log(a_session):
    session, host = a_session(localq_status(job1="RUNNING"))
    host.files[HERE.log("2")] = "1\n2\n3\n"
    assert list(session.log_lines("2", lines=2, follow=False)) == ["2\n3"]


# follow

UP = [("started", {"node": "n1"}), ("scheduler", {"address": "tls://n1:1"}), ("jupyter", {"port": 8888})]


def test_a_start_is_followed_step_by_step(a_session, happens):
    session, host = a_session(localq_status(job1="RUNNING"))
    happens(host, "1", *UP)
    host.files[HERE.connection] = connection().to_text()
    phases = list(session.follow())
    assert [(phase.what, phase.elapsed_s) for phase in phases] == [("running", 1), ("scheduler", 2), ("jupyter", 3)]


def test_a_job_that_waits_says_why(a_session):
    answer = json.dumps({"id": "1", "state": "PENDING", "reason": "waits for slots"})
    session, _ = a_session((0, answer, ""))
    phase = next(session.follow())
    assert (phase.what, phase.text) == ("queued", "waits for slots")


def test_a_job_that_ends_too_soon_is_told_with_its_reason_and_its_log(a_session, happens):
    session, host = a_session(localq_status(job1="FAILED"))
    happens(host, "1", UP[0], ("failed", {"reason": "no mpiexec"}), ("exited", {"exit_status": 41}))
    host.files[HERE.log("1")] = "some\nlast words\n"
    with pytest.raises(JobEnded, match="no mpiexec") as ended:
        list(session.follow())
    assert "    last words" in str(ended.value)
    assert f"hpclab logs --session {NAME}" in str(ended.value)


@pytest.mark.parametrize("state", ["CANCELLED", "TIMEOUT"])
def test_a_job_that_is_ended_while_it_waits_is_told(a_session, state):
    with pytest.raises(JobEnded):
        list(a_session(localq_status(job1=state))[0].follow())


def test_patience_ends_and_says_what_goes_on(a_session, happens, monkeypatch):
    monkeypatch.setattr(session_module, "JOB_TELLS_FIRST_S", -10_000)
    session, host = a_session(localq_status(job1="RUNNING"))
    happens(host, "1", UP[0])
    with pytest.raises(TookTooLong, match=f"hpclab stop {NAME}"):
        list(session.follow())


# add_worker


def test_add_worker_submits_and_records_each_job(a_session):
    session, host = a_session(localq_status(job1="RUNNING"), (0, "3\n", ""), (0, "4\n", ""))
    assert session.add_worker(session.worker_record(), 2) == ["3", "4"]
    assert [argv[4] for argv in host.commands if argv[3] == "submit"] == [HERE.worker_script] * 2
    assert {HERE.job("3"), HERE.job("4")} <= set(host.files)


def test_who_asks_for_something_else_gets_a_script_of_its_own(a_session):
    session, host = a_session(localq_status(job1="RUNNING"), (0, "3\n", ""))
    record = session.worker_record(cores=7)
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
    assert session.add_worker(session.worker_record()) == ["3"]


def test_what_was_submitted_before_a_refusal_stays(a_session):
    session, host = a_session(localq_status(job1="RUNNING"), (0, "3\n", ""), REFUSED)
    with pytest.raises(Refused):
        session.add_worker(session.worker_record(), 3)
    assert HERE.job("3") in host.files
    assert HERE.job("4") not in host.files


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
    assert [argv for argv in host.commands if argv[3] == "cancel"] == [
        ("python", "-m", "hpclab.localq", "cancel", "1", "2")
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
    assert f"--drain {drain} " in session.worker_script(session.worker_record(walltime_s=walltime_s))


@pytest.mark.parametrize(("interface", "told"), [("auto", "--interface loopback"), ("ib0", "--interface ib0")])
def test_on_this_machine_dask_listens_to_this_machine_only(interface, told):
    session = Session.planned(RecordingHost(), settings(interface=interface), name=NAME, notebook_dir="/")
    assert told in session.start_script()
    assert told in session.worker_script()


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
