"""The embedded batch system, with real processes: a queue for each test, and nothing left behind."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import psutil
import pytest

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs a POSIX system")
linux_only = pytest.mark.skipif(sys.platform != "linux", reason="orphans are adopted on Linux only")

REPOSITORY = Path(__file__).parents[1]
LOCALQ = [sys.executable, "-m", "hpclab.localq"]
FINAL = {"COMPLETED", "FAILED", "CANCELLED", "TIMEOUT"}
T = TypeVar("T")


def until(what: str, condition: Callable[[], T | None], timeout_s: float = 15) -> T:
    """The one place that waits: the condition's first true value."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if value := condition():
            return value
        time.sleep(0.02)
    raise AssertionError(f"waited {timeout_s} s for {what}")


def alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def processes_with(name: str, value: str) -> list[psutil.Process]:
    found = psutil.process_iter(["environ", "status"])
    return [
        process
        for process in found
        if (process.info["environ"] or {}).get(name) == value
        and process.info["status"] != psutil.STATUS_ZOMBIE
    ]


def script(body: str, **options: object) -> str:
    """script("exit 3", job_name="x") has one directive."""
    head = [f"#HPCLAB --{name.replace('_', '-')}={value}" for name, value in options.items()]
    return "\n".join(["#!/bin/bash", *head, body, ""])


def pid_in(path: Path) -> int:
    return int(until(f"a pid in {path}", lambda: path.exists() and path.read_text().strip()))


@dataclass(frozen=True)
class Queue:
    """A queue in a folder of its own, and the folder in which its user works."""

    folder: Path
    work: Path

    @property
    def environ(self) -> dict[str, str]:
        outer = {name: value for name, value in os.environ.items() if not name.startswith("HPCLAB_LOCALQ_")}
        return outer | {"HPCLAB_LOCALQ_DIR": str(self.folder), "PYTHONPATH": str(REPOSITORY)}

    def run(
        self, *args: str, stdin: str = "", prefix: tuple[str, ...] = ()
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*prefix, *LOCALQ, *args],
            input=stdin,
            cwd=self.work,
            env=self.environ,
            capture_output=True,
            text=True,
            timeout=20,
            check=False,
        )

    def submit(self, text: str) -> str:
        done = self.run("submit", "-", stdin=text)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout == f"{int(done.stdout)}\n"
        return done.stdout.strip()

    def status(self, *ids: str) -> dict[str, dict[str, Any]]:
        done = self.run("status", *ids)
        assert (done.returncode, done.stderr) == (0, "")
        return {job["id"]: job for job in map(json.loads, done.stdout.splitlines())}

    def cancel(self, *ids: str) -> None:
        done = self.run("cancel", *ids)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")

    def job_folder(self, job_id: str) -> Path:
        return self.folder / "jobs" / job_id

    def record(self, job_id: str) -> dict[str, Any]:
        """As it is written: looking at it moves nothing on."""
        fields: dict[str, Any] = json.loads((self.job_folder(job_id) / "job.json").read_text())
        return fields

    def rewrite(self, job_id: str, **fields: object) -> None:
        (self.job_folder(job_id) / "job.json").write_text(json.dumps(self.record(job_id) | fields))

    def end_of(self, job_id: str) -> dict[str, Any]:
        until(f"the end of job {job_id}", lambda: self.record(job_id)["state"] in FINAL)
        return self.status(job_id)[job_id]

    def shepherd_of(self, job_id: str) -> psutil.Process:
        folder = str(self.job_folder(job_id))
        (shepherd,) = until(f"shepherd of {job_id}", lambda: processes_with("HPCLAB_LOCALQ_SHEPHERD", folder))
        return shepherd

    def processes_of(self, job_id: str) -> list[psutil.Process]:
        return processes_with("HPCLAB_LOCALQ_JOB", str(self.job_folder(job_id)))

    def processes(self) -> list[psutil.Process]:
        return processes_with("HPCLAB_LOCALQ_DIR", str(self.folder))


@dataclass(frozen=True)
class Gate:
    """A FIFO at which jobs wait."""

    path: Path

    @property
    def wait(self) -> str:
        return f"cat {self.path} > /dev/null"

    def someone_waits(self) -> int | None:
        try:
            return os.open(self.path, os.O_WRONLY | os.O_NONBLOCK)
        except OSError:
            return None

    def open(self) -> None:
        os.close(until(f"a job at {self.path}", self.someone_waits))


@pytest.fixture
def a_queue(tmp_path: Path) -> Iterator[Queue]:
    (tmp_path / "work").mkdir()
    queue = Queue(folder=tmp_path / "queue", work=tmp_path / "work")
    yield queue
    queue.run("cancel", *map(str, range(1, 60)))
    try:
        until("the last process to end", lambda: not queue.processes())
    finally:
        for process in queue.processes():
            process.kill()


@pytest.fixture
def a_gate(tmp_path: Path) -> Gate:
    os.mkfifo(tmp_path / "gate")
    return Gate(tmp_path / "gate")


@pytest.fixture
def another_gate(tmp_path: Path) -> Gate:
    os.mkfifo(tmp_path / "another-gate")
    return Gate(tmp_path / "another-gate")


# --- what becomes of a job ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "state", "reason", "exit_code", "signal"),
    [
        ("true", "COMPLETED", "", 0, None),
        ("exit 3", "FAILED", "exit code 3", 3, None),
        ("kill -9 $$", "FAILED", "killed by signal 9", None, 9),
    ],
)
def test_a_job_ends_as_its_script_does(a_queue, body, state, reason, exit_code, signal):
    before = time.time()
    job = a_queue.end_of(a_queue.submit(script(body, job_name="x", memory=1024, walltime=60)))
    times = [job.pop(name) for name in ("submit_time", "start_time", "end_time")]
    assert before < times[0] <= times[1] <= times[2] < time.time()
    assert job.pop("limit_time") == times[1] + 60
    assert job == {
        "id": "1",
        "name": "x",
        "state": state,
        "reason": reason,
        "node": os.uname().nodename,
        "cores": 1,
        "memory_bytes": 1024,
        "walltime_s": 60,
        "exit_code": exit_code,
        "signal": signal,
    }


def test_a_job_runs_where_and_as_it_was_submitted(a_queue):
    body = """
        pwd; umask; read x || echo "no stdin"; echo to stderr >&2
        echo "$GREETING"; env | grep ^HPCLAB_LOCALQ_ | sort"""
    text = script(body, walltime=60, output="'out %j.txt'")
    environ = a_queue.environ | {"GREETING": "grüß\nGott", "HPCLAB_LOCALQ_STALE": "x"}
    submit = f"umask 027; exec {sys.executable} -m hpclab.localq submit -"
    subprocess.run(
        ["/bin/bash", "-c", submit], input=text, text=True, cwd=a_queue.work, env=environ, check=True
    )
    job = a_queue.end_of("1")
    output = a_queue.work / "out 1.txt"
    assert output.read_text().splitlines() == [
        str(a_queue.work),
        "0027",
        "no stdin",
        "to stderr",
        "grüß",
        "Gott",
        f"HPCLAB_LOCALQ_DIR={a_queue.folder}",
        f"HPCLAB_LOCALQ_END_TIME={int(job['limit_time'])}",
        f"HPCLAB_LOCALQ_JOB={a_queue.job_folder('1')}",
        "HPCLAB_LOCALQ_JOB_ID=1",
    ]
    assert stat.S_IMODE(output.stat().st_mode) == 0o640


def test_a_running_job_has_a_limit_and_no_end(a_queue, a_gate):
    job_id = a_queue.submit(script(a_gate.wait, walltime=60))
    job = a_queue.status()[job_id]
    assert (job["state"], job["end_time"], job["exit_code"]) == ("RUNNING", None, None)
    assert job["limit_time"] == job["start_time"] + 60
    a_gate.open()
    assert a_queue.end_of(job_id)["state"] == "COMPLETED"


def test_the_script_is_taken_as_it_was_at_submission(a_queue, a_gate):
    path = a_queue.work / "job.sh"
    path.write_text(script(a_gate.wait + "\necho first", output="out"))
    assert a_queue.run("submit", "job.sh").stdout == "1\n"
    path.write_text("echo second")
    a_gate.open()
    assert a_queue.end_of("1")["name"] == "job.sh"
    assert (a_queue.work / "out").read_text() == "first\n"


def test_a_folder_that_has_vanished_fails_the_job(a_queue, a_gate):
    (a_queue.work / "logs").mkdir()
    a_queue.submit(script(a_gate.wait, slots=1))
    a_queue.submit(script("true", slots=1, output="logs/x"))
    (a_queue.work / "logs").rmdir()
    a_gate.open()
    assert a_queue.end_of("2")["reason"].startswith("could not be started: [Errno 2]")


def test_at_the_walltime_every_process_gets_term(a_queue):
    body = """
        trap 'echo script; exit 7' TERM
        setsid bash -c 'trap "echo child; exit" TERM; sleep 60 & wait' &
        wait"""
    job = a_queue.end_of(a_queue.submit(script(body, walltime=1, output="out")))
    assert (job["state"], job["reason"]) == ("TIMEOUT", "walltime of 1 s reached")
    assert (job["exit_code"], job["signal"]) == (7, None)
    assert sorted((a_queue.work / "out").read_text().split()) == ["child", "script"]


def test_who_ignores_term_is_killed_after_the_grace(a_queue):
    job = a_queue.end_of(a_queue.submit(script("trap '' TERM; exec sleep 60", walltime=1, grace=1)))
    assert (job["state"], job["exit_code"], job["signal"]) == ("TIMEOUT", None, 9)
    assert 1.9 < job["end_time"] - job["start_time"] < 8


# --- the order of jobs -------------------------------------------------------------------------------------


def test_a_job_waits_for_slots_and_starts_when_they_get_free(a_queue, a_gate, another_gate):
    a_queue.submit(script(a_gate.wait, cores=6, slots=8))
    a_queue.submit(script(another_gate.wait, cores=4, slots=8))
    job = a_queue.status("2")["2"]
    assert (job["state"], job["reason"]) == ("PENDING", "waits for slots: needs 4, 2 of 8 are free")
    assert (job["node"], job["start_time"]) == (None, None)
    a_gate.open()
    another_gate.open()  # nobody has touched the queue but the job that ended
    assert a_queue.end_of("2")["reason"] == ""


def test_a_small_job_passes_a_big_one(a_queue, a_gate):
    a_queue.submit(script(a_gate.wait, cores=3, slots=4))
    a_queue.submit(script("true", cores=2, slots=4))
    a_queue.submit(script("true", cores=1, slots=4))
    assert a_queue.end_of("3")["state"] == "COMPLETED"
    assert a_queue.status()["2"]["state"] == "PENDING"
    a_gate.open()
    assert a_queue.end_of("2")["state"] == "COMPLETED"


def test_fifty_jobs_submitted_at_once_all_run(a_queue):
    text = script("echo x >> ran", slots=8)
    submits = [
        subprocess.Popen(
            [*LOCALQ, "submit", "-"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=a_queue.work,
            env=a_queue.environ,
            text=True,
        )
        for _ in range(50)
    ]
    for submit in submits:  # they have waited for this, and go at once
        submit.stdin.write(text)
        submit.stdin.close()
    answers = [submit.stdout.read() for submit in submits]
    assert [submit.wait() for submit in submits] == 50 * [0]
    assert sorted(map(int, answers)) == list(range(1, 51))
    for job_id in range(1, 51):
        until(f"job {job_id}", lambda job_id=job_id: a_queue.record(str(job_id))["state"] in FINAL)
    assert {job["state"] for job in a_queue.status().values()} == {"COMPLETED"}
    assert (a_queue.work / "ran").read_text() == 50 * "x\n"


# --- cancel ------------------------------------------------------------------------------------------------


def test_a_pending_job_is_cancelled_at_once(a_queue, a_gate):
    a_queue.submit(script(a_gate.wait, slots=1))
    a_queue.submit(script("true", slots=1))
    a_queue.cancel("2")
    job = a_queue.status("2")["2"]
    assert (job["state"], job["reason"], job["start_time"]) == ("CANCELLED", "cancelled", None)
    a_gate.open()
    assert a_queue.end_of("1")["state"] == "COMPLETED"
    assert a_queue.status("2")["2"] == job


def test_cancel_tells_every_process_and_does_not_wait(a_queue, a_gate, another_gate):
    # both tell through a gate that they have been told, and end when the test has heard it
    body = f"""
        setsid bash -c 'trap "{another_gate.wait}; exit" TERM; echo $$ > child; sleep 60 & wait' &
        trap '{a_gate.wait}; exit 5' TERM
        while [ ! -s child ]; do sleep 0.02; done
        echo $$ > ready
        sleep 60 & wait"""
    a_queue.submit(script(body, grace=20))
    pid_in(a_queue.work / "ready")
    a_queue.cancel("1")
    job = a_queue.status("1")["1"]
    assert (job["state"], job["reason"], job["end_time"]) == ("RUNNING", "being cancelled", None)
    another_gate.open()
    a_gate.open()
    a_queue.cancel("1")
    job = a_queue.end_of("1")
    assert (job["state"], job["reason"], job["exit_code"]) == ("CANCELLED", "cancelled", 5)
    a_queue.cancel("1")
    assert a_queue.status("1")["1"] == job


def test_a_cancelled_job_that_ignores_term_is_killed(a_queue):
    a_queue.submit(script("trap '' TERM; echo $$ > pid; exec sleep 60", grace=1))
    pid = pid_in(a_queue.work / "pid")
    a_queue.cancel("1")
    assert (a_queue.end_of("1")["state"], alive(pid)) == ("CANCELLED", False)


def test_cancelling_what_does_not_run_is_quiet(a_queue):
    a_queue.submit(script("true"))
    before = a_queue.end_of("1")
    a_queue.cancel("1", "1", "77", "no-such-job")
    assert a_queue.status("1", "77", "no-such-job") == {"1": before}


# --- processes that hide, processes that die ---------------------------------------------------------------


@pytest.mark.parametrize(
    "launch",
    [
        "setsid",
        pytest.param("env -i setsid", marks=linux_only),
    ],
)
def test_what_a_job_leaves_behind_is_killed(a_queue, launch):
    body = f"""
        ( {launch} /bin/bash -c 'trap "" TERM; echo $$ > pid; exec /bin/sleep 60' & )
        while [ ! -s pid ]; do sleep 0.02; done"""
    job = a_queue.end_of(a_queue.submit(script(body, grace=0)))
    assert (job["state"], job["exit_code"]) == ("COMPLETED", 0)
    assert not alive(pid_in(a_queue.work / "pid"))


def test_a_job_survives_its_submitter(a_queue, a_gate):
    (a_queue.work / "job.sh").write_text(script(a_gate.wait))
    command = f"{sys.executable} -m hpclab.localq submit job.sh; exec sleep 60"
    submitter = subprocess.Popen(
        ["/bin/bash", "-c", command],
        cwd=a_queue.work,
        env=a_queue.environ,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    with submitter:
        assert submitter.stdout.readline() == b"1\n"
        os.killpg(submitter.pid, 9)
    a_gate.open()
    assert a_queue.end_of("1")["state"] == "COMPLETED"


def test_submit_into_a_pipe_returns_at_once(a_queue, a_gate):
    (a_queue.work / "job.sh").write_text(script(a_gate.wait))
    command = f"{sys.executable} -m hpclab.localq submit job.sh 5>&1 2>&1 | cat"
    done = subprocess.run(
        ["/bin/bash", "-c", command], cwd=a_queue.work, env=a_queue.environ, capture_output=True, timeout=10
    )
    assert (done.stdout, a_queue.status("1")["1"]["state"]) == (b"1\n", "RUNNING")
    a_gate.open()


def test_a_job_submitted_by_a_job_outlives_it(a_queue, a_gate):
    (a_queue.work / "inner.sh").write_text(script(a_gate.wait, output="inner"))
    a_queue.submit(script(f"{sys.executable} -m hpclab.localq submit inner.sh", output="outer"))
    assert a_queue.end_of("1")["state"] == "COMPLETED"
    assert (a_queue.work / "outer").read_text() == "2\n"
    until("job 1 to be all gone", lambda: not a_queue.processes_of("1"))
    assert a_queue.status("2")["2"]["state"] == "RUNNING"
    a_gate.open()
    assert a_queue.end_of("2")["state"] == "COMPLETED"


def test_a_job_that_is_cancelled_leaves_the_job_alone_which_it_submitted(a_queue, a_gate):
    (a_queue.work / "inner.sh").write_text(script(a_gate.wait))
    a_queue.submit(script(f"{sys.executable} -m hpclab.localq submit inner.sh; echo $$ > pid; exec sleep 60"))
    pid_in(a_queue.work / "pid")
    a_queue.cancel("1")
    assert a_queue.end_of("1")["state"] == "CANCELLED"
    a_gate.open()
    assert a_queue.end_of("2")["state"] == "COMPLETED"


def test_a_killed_shepherd_is_noticed_and_its_job_ended(a_queue, a_gate):
    body = "setsid bash -c 'trap \"\" TERM; echo $$ > pid; exec sleep 60' & wait"
    a_queue.submit(script(body, slots=1))
    a_queue.submit(script(a_gate.wait, slots=1))
    pid = pid_in(a_queue.work / "pid")
    a_queue.shepherd_of("1").kill()
    until("the notice", lambda: a_queue.status()["1"]["state"] == "FAILED")
    assert a_queue.status("1")["1"]["reason"] == "its supervisor was killed"
    assert not alive(pid)
    a_gate.open()  # and the next one has started
    assert a_queue.end_of("2")["state"] == "COMPLETED"


def test_a_shepherd_told_to_end_ends_its_job(a_queue, a_gate):
    a_queue.submit(script(a_gate.wait))
    until("the job to run", lambda: a_queue.processes_of("1"))
    a_queue.shepherd_of("1").terminate()
    job = a_queue.end_of("1")
    assert (job["state"], job["reason"]) == ("FAILED", "its supervisor was told to end")


@pytest.mark.parametrize(
    ("starts", "state", "reason"),
    [(1, "COMPLETED", ""), (3, "FAILED", "its supervisor could not begin, see ")],
)
def test_a_job_whose_shepherd_died_before_it_began_is_started_again(a_queue, a_gate, starts, state, reason):
    a_queue.submit(script(a_gate.wait, slots=1))
    a_queue.submit(script("true", slots=1))
    a_queue.rewrite("2", state="RUNNING", starts=starts, start_time=time.time())
    a_queue.status()
    a_gate.open()
    job = a_queue.end_of("2")
    assert job["state"] == state
    assert job["reason"].startswith(reason)


def test_after_a_reboot_running_jobs_have_failed(a_queue):
    a_queue.submit(script("true"))
    a_queue.end_of("1")
    a_queue.rewrite("1", state="RUNNING", end_time=None, exit_code=None)
    assert a_queue.status()["1"]["reason"] == "its supervisor was killed"


# --- what is refused ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "evidence"),
    [
        ({"cores": 9, "slots": 8}, ["9 cores", "8 slots"]),
        ({"memory": 10**17}, [str(10**17), "the machine has"]),
        ({"output": "no/such/folder/out"}, ["no/such/folder/out"]),
    ],
)
def test_a_job_that_can_never_run_is_refused(a_queue, options, evidence):
    done = a_queue.run("submit", "-", stdin=script("true", **options))
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert all(words in done.stderr for words in evidence)
    assert a_queue.status() == {}
    assert a_queue.submit(script("true")) == "1"


@pytest.mark.parametrize(
    "directive",
    [
        "--colour=red",
        "--cores=0",
        "--cores=many",
        "--cores=1_0",
        "--memory=4G",
        "--walltime",
        "--job-name='unfinished",
        "--job-name=two words",
        "--cores=1 --memory=1",
        "",
    ],
)
def test_a_malformed_directive_is_named(a_queue, directive):
    text = f"#!/bin/bash\n\n# hello\n#HPCLAB {directive}\ntrue\n"
    done = a_queue.run("submit", "-", stdin=text)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert done.stderr.startswith("localq: line 4: ")
    assert repr(f"#HPCLAB {directive}".strip()) in done.stderr


def test_only_the_head_of_the_script_holds_directives(a_queue):
    head = "#!/bin/bash\n#HPCLAB --job-name='a b'\n#HPCLABELS are no directives\n\n#HPCLAB --cores=2\n"
    a_queue.submit(head + "true\n#HPCLAB --nonsense\n")
    job = a_queue.end_of("1")
    assert (job["name"], job["cores"], job["state"]) == ("a b", 2, "COMPLETED")


@pytest.mark.parametrize(
    "args", [[], ["submit"], ["submit", "a", "b"], ["cancel"], ["status", "-x"], ["dance"]]
)
def test_bad_usage_shows_the_usage(a_queue, args):
    done = a_queue.run(*args)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("usage: ")


def test_a_missing_script_is_one_clear_line(a_queue):
    done = a_queue.run("submit", "missing.sh")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert "missing.sh" in done.stderr


def test_a_full_disk_leaves_no_half_of_a_job(a_queue):
    # a limit on the size of files fails writes as a full disk does: the record fits, the script does not
    limited = ("/bin/bash", "-c", 'ulimit -f 1; exec "$@"', "-")
    done = a_queue.run("submit", "-", stdin=script("true\n" * 2000), prefix=limited)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert done.stderr.startswith("localq: cannot record the job: ")
    assert list((a_queue.folder / "jobs").iterdir()) == []


def test_a_state_folder_that_cannot_be_written_is_one_clear_line(a_queue):
    a_queue.folder.write_text("a file where the folder should be")
    for args in (["submit", "-"], ["status"], ["cancel", "1"]):
        done = a_queue.run(*args, stdin=script("true"))
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
        assert str(a_queue.folder) in done.stderr


# --- records -----------------------------------------------------------------------------------------------


def test_an_unreadable_record_does_not_hide_the_others(a_queue, a_gate):
    for text in (script("true"), script(a_gate.wait), script("true")):
        a_queue.submit(text)
    a_queue.end_of("1")
    a_queue.end_of("3")
    (a_queue.job_folder("1") / "job.json").write_text('{"id": 1, "na')
    (a_queue.job_folder("2") / "job.json").write_text("[]")
    jobs = a_queue.status()
    assert [jobs[job_id]["state"] for job_id in "123"] == ["UNKNOWN", "UNKNOWN", "COMPLETED"]
    assert "cannot be read" in jobs["1"]["reason"]
    a_gate.open()  # a shepherd knows its job by heart
    until("job 2 to be known again", lambda: a_queue.status()["2"]["state"] == "COMPLETED")


def test_a_job_with_an_unreadable_record_can_be_cancelled(a_queue, a_gate):
    a_queue.submit(script(a_gate.wait))
    until("the job to run", lambda: a_queue.processes_of("1"))
    (a_queue.job_folder("1") / "job.json").write_text("")
    a_queue.cancel("1")
    until("its end", lambda: a_queue.status()["1"]["state"] == "CANCELLED")


def test_jobs_are_forgotten_after_a_week_and_their_ids_never_used_again(a_queue):
    for _ in range(3):
        a_queue.submit(script("true"))
    for job_id in "123":
        a_queue.end_of(job_id)
    for job_id in "23":
        a_queue.rewrite(job_id, end_time=time.time() - 8 * 24 * 3600)
    (a_queue.folder / "jobs" / ".9").mkdir()  # a submit was killed here
    assert a_queue.submit(script("true")) == "4"
    a_queue.end_of("4")
    assert sorted(a_queue.status()) == ["1", "4"]
    assert not (a_queue.folder / "jobs" / ".9").exists()


def test_what_is_written_is_private(a_queue, a_gate):
    a_queue.folder.mkdir(mode=0o755)
    a_queue.submit(script(a_gate.wait, slots=1))
    a_queue.submit(script("true", slots=1))
    paths = [a_queue.folder, *a_queue.folder.rglob("*")]
    modes = {path: stat.S_IMODE(path.stat().st_mode) for path in paths}
    assert modes == {path: 0o700 if path.is_dir() else 0o600 for path in paths}
    a_gate.open()
    a_queue.end_of("2")
    assert not list(a_queue.folder.rglob("environ.json"))  # secrets are kept no longer than needed


@pytest.mark.parametrize("missing", ["fcntl", "psutil"])
def test_importing_it_is_cheap_and_needs_no_unix(missing):
    code = f"import sys; sys.modules[{missing!r}] = None; import hpclab.localq; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=REPOSITORY, check=True
    )
    loaded = set(done.stdout.split())
    assert not loaded & {"argparse", "dataclasses", "inspect", "socket", "subprocess", "ctypes", "shutil"}
    assert {name for name in loaded if name.startswith("hpclab")} == {"hpclab", "hpclab.localq"}
