"""What a session looks like: the truth from two accounts, the state in a word, and `describe()` as a golden file."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from fixtures import NOON, connection, job_record, session_view

from hpclab.event import Event
from hpclab.job import JobExit, JobState, JobStatus, Program
from hpclab.view import (
    SILENT_S,
    JobView,
    ProgramView,
    SessionView,
    last_run,
    script_end,
    session_state,
    silent_status,
    true_status,
    unreadable,
    workers_by_job,
)

GOLDEN = Path(__file__).parent / "data" / "session.json"
GB = 2**30
WORDS = {"queued", "held", "starting", "running", "ending", "ended", "failed", "unknown"}


# true_status: the batch system's word and the job's own


def events(*what: str, exit_status: int | None = None, reason: str = "") -> list[Event]:
    """The events of these names, one a second, then that of the end."""
    details = {"started": {"node": "node17"}, "failed": {"reason": reason}, "ending": {"reason": reason}}
    told = [Event(time=NOON + at, what=name, details=details.get(name, {})) for at, name in enumerate(what)]
    if exit_status is not None:
        told.append(Event(time=NOON + 60, what="exited", details={"exit_status": exit_status}))
    return told


def status(state: JobState, **more: object) -> JobStatus:
    return JobStatus(job_id="1", state=state, **more)


@pytest.mark.parametrize("state", [state for state in JobState if state is not JobState.GONE])
def test_as_long_as_the_job_has_not_ended_the_batch_system_is_right(state):
    said = status(state, node="node17", reason="as it says")
    true = true_status(said, events("started", "scheduler"))
    # but for its start, if nobody else tells it
    assert replace(true, start_time=None) == said
    assert true.start_time == (NOON if state.is_final or state is JobState.UNKNOWN else None)


@pytest.mark.parametrize(
    ("said", "exit_status", "truth", "reason"),
    [
        # the batch system has forgotten the job, or does not answer: the job's account is all there is
        (JobState.UNKNOWN, 0, JobState.DONE, "it ended as asked"),
        (JobState.UNKNOWN, JobExit.SESSION_OVER, JobState.DONE, "the session was over"),
        (JobState.UNKNOWN, JobExit.JUPYTER_DIED, JobState.FAILED, "JupyterLab died"),
        (JobState.UNKNOWN, 137, JobState.FAILED, "its supervisor was killed by signal 9"),
        (JobState.GONE, 0, JobState.DONE, "it ended as asked"),
        (JobState.GONE, JobExit.WRONG_WORLD, JobState.FAILED, JobExit.WRONG_WORLD.meaning),
        # it still tidies up
        (JobState.RUNNING, 0, JobState.COMPLETING, ""),
        (JobState.RUNNING, JobExit.JUPYTER_DIED, JobState.COMPLETING, ""),
        # it calls every exit status but 0 a failure; we know what ours mean
        (JobState.FAILED, JobExit.SESSION_OVER, JobState.DONE, "the session was over"),
        (JobState.FAILED, JobExit.JUPYTER_DIED, JobState.FAILED, "JupyterLab died"),
        # it knows better why it has ended the job itself
        (JobState.FAILED, JobExit.TERMINATED, JobState.FAILED, "walltime"),
        (JobState.CANCELLED, JobExit.TERMINATED, JobState.CANCELLED, "walltime"),
        (JobState.DONE, 0, JobState.DONE, "walltime"),
    ],
)
def test_of_a_job_that_has_ended_both_accounts_count(said, exit_status, truth, reason):
    batch_says = status(said, reason="walltime" if said.is_final else "")
    true = true_status(batch_says, events("started", exit_status=exit_status))
    assert (true.state, true.reason) == (truth, reason)


@pytest.mark.parametrize(
    ("told", "over", "truth", "reason"),
    [
        (["started", "scheduler"], "", JobState.FAILED, "it ended without a word"),
        (["started"], "stopped at noon", JobState.FAILED, "it ended without a word"),
        ([], "", JobState.CANCELLED, "it left the queue without having run"),
        ([], "stopped at noon", JobState.CANCELLED, ""),
    ],
)
def test_of_a_job_that_is_gone_without_a_word_it_counts_whether_it_had_begun(told, over, truth, reason):
    true = true_status(status(JobState.GONE), events(*told), over=over)
    assert true.state is truth
    assert true.reason.startswith(reason)
    assert bool(true.reason) == bool(reason)


def test_why_something_failed_explains_more_than_that_the_rest_ended_for_it():
    told = [Event(time=NOON, what="failed", details={"reason": "out of memory"}), *events("ending", exit_status=44)]
    assert true_status(status(JobState.GONE), told).reason == "out of memory"


@pytest.mark.parametrize("what", ["failed", "ending"])
def test_the_jobs_own_reason_is_the_best(what):
    told = events("started", what, exit_status=JobExit.ENVIRONMENT, reason="jupyterlab is missing")
    for said in (JobState.UNKNOWN, JobState.FAILED):
        assert true_status(status(said, reason="exit code 40"), told).reason == "jupyterlab is missing"


def test_a_job_that_the_batch_system_forgot_keeps_its_node_its_end_and_its_exit_status():
    true = true_status(status(JobState.UNKNOWN), events("started", exit_status=44))
    assert (true.node, true.end_time, true.exit_status) == ("node17", NOON + 60, 44)


def test_a_job_that_the_batch_system_started_again_runs():
    told = [*events("started", exit_status=143), *events("started", "scheduler")]
    assert true_status(status(JobState.RUNNING), told).state is JobState.RUNNING


@pytest.mark.parametrize("exit_status", [None, "?", [], "1e9"])
def test_a_foreign_exit_status_is_no_success_and_no_error_of_ours(exit_status):
    told = [Event(time=NOON, what="exited", details={"exit_status": exit_status})]
    assert true_status(status(JobState.UNKNOWN), told).state in (JobState.FAILED, JobState.UNKNOWN)


@pytest.mark.parametrize(
    ("exit_status", "state"),
    [(0, JobState.DONE), (7, JobState.FAILED), (JobExit.SESSION_OVER, JobState.FAILED), (137, JobState.FAILED)],
)
@pytest.mark.parametrize("said", [JobState.DONE, JobState.FAILED, JobState.UNKNOWN, JobState.GONE])
def test_an_exit_status_of_a_runs_script_means_nothing_of_ours(said, exit_status, state):
    if (said is JobState.DONE) != (exit_status == 0) and said.is_final and said is not JobState.GONE:
        return  # no batch system says so
    told = [
        *events("started", "script"),
        Event(time=NOON + 3, what="script_ended", details={"exit_status": exit_status}),
        *events("ending", exit_status=exit_status, reason="model.py ended"),
    ]
    true = true_status(status(said, reason="as it says"), told)
    assert (true.state, true.reason) == (state, "model.py ended")


# script_end


def script_ended(exit_status: object) -> Event:
    return Event(time=NOON, what="script_ended", details={"exit_status": exit_status})


@pytest.mark.parametrize(
    ("told", "end"),
    [
        ([], None),
        (events("started", "script"), None),
        ([*events("started", "script"), script_ended(7)], 7),
        ([*events("started", "script"), script_ended(0), *events("ending", exit_status=0)], 0),
        # the job was ending already, and has ended the script
        ([*events("started", "script", "ending"), script_ended(143)], None),
        ([script_ended("?")], None),
    ],
)
def test_a_script_has_ended_when_it_was_the_first_to_do_so(told, end):
    assert script_end(told) == end


MODEL = Program(script="model.py", folder="/home/ada", arguments=("--fast",))


def test_a_run_is_described_with_its_script(a_session):
    told = [*events("started", "script"), script_ended(7)]
    program = ProgramView.of(MODEL, "mpi", told)
    assert program.has_begun
    described = replace(a_session, program=program, connection=None).describe()
    assert described["program"] == {
        "script": "model.py",
        "arguments": ["--fast"],
        "launch": "mpi",
        "exit_status": 7,
    }
    assert (described["jupyter_url"], described["tunnel"]) == (None, None)


def test_of_a_job_that_was_started_again_the_last_script_counts():
    told = [*events("started", "script"), script_ended(7), *events("started")]
    program = ProgramView.of(MODEL, "file", told)
    assert (program.has_begun, program.exit_status) == (False, None)


# session_state


@pytest.mark.parametrize(
    ("main", "connected", "over", "state", "reason"),
    [
        (JobState.PENDING, False, "", "queued", "why"),
        (JobState.HELD, False, "", "held", "why"),
        (JobState.RUNNING, False, "", "starting", "why"),
        (JobState.RUNNING, True, "", "running", "why"),
        (JobState.COMPLETING, True, "", "ending", "why"),
        (JobState.DONE, False, "its main job ended", "ended", "why"),
        (JobState.FAILED, False, "its main job ended", "failed", "why"),
        (JobState.CANCELLED, False, "", "ended", "why"),
        (JobState.UNKNOWN, True, "", "unknown", "why"),
        # who stopped it knows why
        (JobState.FAILED, False, "stopped at noon", "ended", "stopped at noon"),
        (JobState.CANCELLED, False, "stopped at noon", "ended", "stopped at noon"),
        # told to stop, not gone yet
        (JobState.RUNNING, True, "stopped at noon", "running", "why"),
        (None, False, "", "unknown", "its main job left no record"),
        (None, False, "stopped at noon", "ended", "stopped at noon"),
    ],
)
def test_the_state_of_a_session(main, connected, over, state, reason):
    said = None if main is None else status(main, reason="why")
    assert session_state(said, connected=connected, over=over) == (state, reason)


@pytest.mark.parametrize("main", JobState)
@pytest.mark.parametrize("connected", [True, False])
def test_every_state_has_a_word(main, connected):
    word, _ = session_state(status(main), connected=connected, over="")
    assert word in WORDS


@pytest.mark.parametrize(
    ("silent_s", "again", "words"),
    [
        (SILENT_S - 1, False, "why"),
        (SILENT_S + 80, False, "no sign of life from node17 for 90 s: the node may be down, or its disk full"),
        (0, True, "started again by the batch system on node17: what ran in its notebooks is lost"),
        (SILENT_S + 80, True, "no sign of life"),
    ],
)
def test_a_session_that_runs_tells_what_its_users_must_know(silent_s, again, words):
    main = status(JobState.RUNNING, node="node17", reason="why")
    state, reason = session_state(main, connected=True, over="", silent_s=silent_s, again=again)
    assert state == "running"
    assert reason.startswith(words)


@pytest.mark.parametrize("main", [JobState.PENDING, JobState.COMPLETING, JobState.DONE])
def test_the_pulse_of_a_job_that_does_not_run_tells_nothing(main):
    assert "sign of life" not in session_state(status(main), connected=False, over="", silent_s=900)[1]


def test_only_the_last_run_of_a_job_counts():
    first, second = events("started", "scheduler", exit_status=143), events("started", "again")
    assert last_run([*first, *second]) == second
    assert last_run(events("joined")) == events("joined")
    assert last_run([]) == []


# workers_by_job


def test_workers_are_counted_with_their_jobs():
    names = ["1-0", "2-0", "2-1", "17[3].pbs01-0", "stray", "99-0", ""]
    assert workers_by_job(names, {"1": 0, "2": 0, "3": 0, "17[3].pbs01": 0}) == {
        "1": 1,
        "2": 2,
        "3": 0,
        "17[3].pbs01": 1,
    }


# describe


def a_job(
    job_id: str,
    role: str,
    state: JobState,
    joined: int = 0,
    busy: int = 0,
    load: tuple[float, int] | None = None,
    **more: object,
) -> JobView:
    record = job_record(role, workers=2 if role == "main" else 1, cores=2, memory_bytes=4 * GB)
    return JobView(
        job_id=job_id,
        record=record,
        submit_time=NOON - 100,
        status=JobStatus(job_id=job_id, state=state, **more),
        joined=joined,
        busy=busy,
        cpu_percent=load[0] if load else None,
        memory_used_bytes=load[1] if load else None,
    )


@pytest.fixture
def a_session() -> SessionView:
    running = {"node": "node17", "start_time": NOON - 60, "end_time": NOON + 3540}
    jobs = (
        a_job("1", "main", JobState.RUNNING, joined=2, **running),
        a_job("2", "worker", JobState.RUNNING, joined=1, busy=1, load=(195, 3 * GB), **{**running, "node": "node18"}),
        a_job("3", "worker", JobState.PENDING, reason="waits: needs 2, 1 of 8 are free", start_time=NOON + 600),
        a_job("4", "worker", JobState.FAILED, reason="killed by signal 9", end_time=NOON - 5, exit_status=137),
    )
    return session_view(*jobs, created=NOON - 101, busy_core_s=90.0)


def keys(value: object) -> object:
    """The keys of a nested value, values left out."""
    if isinstance(value, dict):
        return {key: keys(inner) for key, inner in value.items()}
    return [keys(inner) for inner in value] if isinstance(value, list) else None


def test_describe_is_the_golden_file(a_session):
    assert a_session.describe() == json.loads(GOLDEN.read_text())


def test_describe_is_json(a_session):
    assert json.loads(json.dumps(a_session.describe())) == a_session.describe()


def test_the_token_is_only_in_the_links_and_only_if_given(a_session):
    token = "5ecre7"
    assert token not in json.dumps(a_session.describe())
    told = a_session.describe(token)
    assert told["jupyter_url"] == "http://127.0.0.1:8888/lab?token=5ecre7"
    assert told["dashboard_url"] == "http://127.0.0.1:8787/status?token=5ecre7"
    rest = {**told, "jupyter_url": None, "dashboard_url": None}
    assert token not in json.dumps(rest)


def test_the_keys_are_the_same_with_token_and_without_and_whatever_the_state(a_session):
    queued = replace(a_session, connection=None, state="queued")
    assert keys(a_session.describe()) == keys(a_session.describe("5ecre7"))
    assert set(queued.describe()) == set(a_session.describe())
    assert set(unreadable("x", "/x", "torn").describe()) == set(a_session.describe())


def test_where_the_job_runs_on_the_login_node_the_links_are_the_real_ports(a_session):
    here = connection(node="login1", jupyter_host="127.0.0.1", dashboard_host="127.0.0.1")
    told = replace(a_session, connection=here).describe()
    assert told["jupyter_url"] == "http://127.0.0.1:40002/lab"
    assert told["dashboard_url"] == "http://127.0.0.1:40003/status"
    assert told["tunnel"][-1] == "ada@login1"


@pytest.mark.parametrize("node", ["login1", "node17"])
def test_for_somebody_elsewhere_the_links_are_the_tunnels_and_it_goes_where_their_ssh_does(a_session, node):
    here = connection(node=node, jupyter_host="127.0.0.1", dashboard_host="127.0.0.1")
    told = replace(a_session, connection=here).describe(destination="cluster")
    assert told["jupyter_url"] == "http://127.0.0.1:8888/lab"
    assert told["dashboard_url"] == "http://127.0.0.1:8787/status"
    assert "cluster" in told["tunnel"]


def test_where_the_ports_answer_on_another_node_alone_the_tunnel_enters_it(a_session):
    here = connection(jupyter_host="127.0.0.1", dashboard_host="127.0.0.1")
    told = replace(a_session, connection=here).describe()
    assert told["jupyter_url"] == "http://127.0.0.1:8888/lab"
    assert told["tunnel"][2:4] == ["-J", "ada@login1"]
    assert told["tunnel"][-1] == "ada@node17"


def test_without_connection_there_is_nothing_to_open(a_session):
    told = replace(a_session, connection=None).describe("5ecre7")
    assert (told["jupyter_url"], told["dashboard_url"], told["tunnel"]) == (None, None, None)
    assert told["node"] == "node17"


def test_a_walltime_that_is_over_leaves_nothing(a_session):
    assert replace(a_session, now=NOON + 9999).describe()["time_left_s"] == 0


@pytest.mark.parametrize(("joined", "left_s"), [(1, True), (0, False)])
def test_while_the_batch_system_is_silent_the_walltime_of_a_job_that_works_goes_on(a_session, joined, left_s):
    known = a_session.main.status.end_time - a_session.now
    unknown = replace(a_session.main, joined=joined, status=replace(a_session.main.status, state=JobState.UNKNOWN))
    told = replace(a_session, jobs=(unknown,)).describe()
    assert told["time_left_s"] == (round(known) if left_s else None)


def test_a_session_without_jobs_can_be_described(a_session):
    told = replace(a_session, jobs=(), connection=None).describe()
    assert (told["node"], told["time_left_s"], told["jobs"]) == ("", None, [])


def test_a_folder_that_is_no_session_says_so():
    told = unreadable("x", "/home/ada/x", "torn").describe()
    assert (told["name"], told["state"], told["reason"], told["folder"]) == ("x", "unreadable", "torn", "/home/ada/x")


def test_core_hours_are_those_of_jobs_that_have_run_idle_are_those_without_a_task(a_session):
    # the main job's 2 workers and the other one, of 2 cores each, for 60 s
    used = 6 * 60
    assert a_session.describe()["core_hours"] == {"used": used / 3600, "idle": (used - 90) / 3600}
    assert replace(a_session, busy_core_s=None).describe()["core_hours"]["idle"] is None
    assert replace(a_session, busy_core_s=1e6).describe()["core_hours"]["idle"] == 0


def test_the_core_hours_of_a_job_that_has_ended_do_not_grow(a_session):
    ended = a_job("5", "worker", JobState.DONE, start_time=NOON - 7200, end_time=NOON - 3600)
    told = replace(a_session, jobs=(ended,), now=NOON + 9999).describe()
    assert told["core_hours"]["used"] == 2


def test_a_waiting_job_has_no_start_but_one_that_is_expected(a_session):
    waiting, running = a_session.describe()["jobs"][2], a_session.describe()["jobs"][1]
    assert (waiting["start_time"], waiting["expected_start"]) == (None, NOON + 600)
    assert (running["start_time"], running["expected_start"]) == (NOON - 60, None)


# workers that are silent


def test_a_worker_that_is_silent_is_told_with_its_job():
    status = silent_status(JobStatus(job_id="2", state=JobState.RUNNING), NOON, NOON + 43)
    assert status.state is JobState.RUNNING
    assert "no sign of life from its worker for 43 s" in status.reason


def test_of_a_job_that_has_ended_the_end_is_told():
    failed = JobStatus(job_id="2", state=JobState.FAILED, reason="its node failed (NODE_FAIL)")
    assert silent_status(failed, NOON, NOON + 43) is failed
