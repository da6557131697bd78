"""The stand-in for LSF: scripts really run, wait, are killed, and leave nothing behind."""

from __future__ import annotations

import json
import os
import re
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fixtures import job_spec

from hpclab.batch import lsf as hpclab_lsf
from hpclab.job import Chunk, JobState, JobStatus
from hpclab.result import Result

COMMANDS = Path(__file__).parent / "lsf"
DEADLINE_S = 20


class FakeLsf:
    """A cluster of one host with two slots; an LSF minute is 0.3 s."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.env = {
            **os.environ,
            "PATH": f"{COMMANDS}:{os.environ['PATH']}",
            "FAKE_LSF_DIR": str(folder / "lsf"),
            "FAKE_LSF_HOSTS": "localhost:2",
            "FAKE_LSF_QUEUES": "normal:60 short:2 night:60:Closed:Active",
            "FAKE_LSF_TIME_SCALE": "0.005",
        }

    def run(self, *argv: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        return subprocess.run(argv, env=self.env, input=stdin, cwd=self.folder, capture_output=True, text=True)

    def submit(self, body: str, *options: str, head: str = "#!/bin/bash\n") -> str:
        done = self.run("bsub", *options, stdin=head + body + "\n")
        assert done.returncode == 0, done.stderr
        found = re.fullmatch(r"Job <(\d+)> is submitted to (default )?queue <\w+>\.\n", done.stdout)
        assert found is not None, done.stdout
        return found[1]

    def record(self, job_id: str) -> dict[str, str]:
        fields = "jobid stat exit_code exit_reason pend_reason exec_host start_time finish_time"
        records: list[dict[str, str]] = json.loads(self.run("bjobs", "-o", fields, "-json", job_id).stdout)["RECORDS"]
        return records[0]

    def until(self, job_id: str, *states: str) -> dict[str, str]:
        return until(lambda: found if (found := self.record(job_id))["STAT"] in states else None)

    def end(self) -> None:
        self.run("bkill", "-s", "KILL", "0")
        until(lambda: not self.processes())

    def processes(self) -> list[str]:
        """Those that hold a job's lock."""
        unheld = "import fcntl, sys\nfor p in sys.argv[1:]:\n try: fcntl.flock(open(p), fcntl.LOCK_EX | fcntl.LOCK_NB)"
        unheld += "\n except OSError: print(p)"
        locks = [str(path) for path in (self.folder / "lsf" / "jobs").glob("*.alive")]
        return self.run("python3", "-c", unheld, *locks).stdout.split()


def until(event: Callable[[], Any]) -> Any:
    """What `event` gives when that is something; the deadline is for a machine under load."""
    deadline = time.monotonic() + DEADLINE_S
    while not (found := event()):
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.02)
    return found


@pytest.fixture
def lsf(tmp_path):
    fake = FakeLsf(tmp_path)
    yield fake
    fake.end()


def test_a_job_runs_and_is_done(lsf, tmp_path):
    job_id = lsf.submit(f"echo it ran on $LSB_HOSTS >{tmp_path}/out", "-J", "it")
    record = lsf.until(job_id, "DONE")
    assert (tmp_path / "out").read_text() == "it ran on localhost\n"
    assert record["EXEC_HOST"] == "localhost"
    assert record["EXIT_REASON"] == ""


def test_the_exit_status_is_told(lsf):
    record = lsf.until(lsf.submit("exit 43"), "EXIT")
    assert (record["EXIT_CODE"], record["EXIT_REASON"]) == ("43", "")


def test_the_scripts_options_are_read_and_the_command_line_wins(lsf, tmp_path):
    head = '#!/bin/bash\n#BSUB -q short\n#BSUB -J from-script\n#BSUB -n 2\n#BSUB -R "span[hosts=1]"\n'
    job_id = lsf.submit(f"echo $LSB_QUEUE $LSB_JOBNAME $LSB_MCPU_HOSTS >{tmp_path}/out", "-J", "mine", head=head)
    lsf.until(job_id, "DONE")
    assert (tmp_path / "out").read_text() == "short mine localhost 2\n"


def test_a_job_has_the_environment_of_who_submitted_it(lsf, tmp_path):
    lsf.env["COLOUR"] = "two words\nand a line"
    lsf.until(lsf.submit(f'printf %s "$COLOUR $LSB_JOBID $LSB_JOBINDEX" >{tmp_path}/out'), "DONE")
    assert (tmp_path / "out").read_text() == "two words\nand a line 1 0"


def test_the_output_file_has_lsfs_report_and_what_the_job_wrote(lsf, tmp_path):
    (tmp_path / "1.0.out").write_text("there before\n")
    lsf.until(lsf.submit("echo to stdout; echo to stderr >&2", "-o", f"{tmp_path}/%J.%I.out"), "DONE")
    text = (tmp_path / "1.0.out").read_text()
    assert text.startswith("there before\nSender: LSF System <lsfadmin@localhost>\n")
    assert "\nSuccessfully completed.\n" in text
    assert text.endswith("The output (if any) follows:\n\nto stdout\nto stderr\n")


def test_a_job_without_a_free_slot_waits_for_one(lsf, tmp_path):
    os.mkfifo(tmp_path / "go")
    first = lsf.submit(f"read <{tmp_path}/go", "-n", "2")
    lsf.until(first, "RUN")
    second = lsf.submit("true")
    record = until(lambda: found if "slot" in (found := lsf.record(second))["PEND_REASON"] else None)
    assert record["STAT"] == "PEND"
    (tmp_path / "go").write_text("go\n")
    lsf.until(first, "DONE")
    lsf.until(second, "DONE")


def test_a_pending_job_that_is_killed_never_runs(lsf, tmp_path):
    job_id = lsf.submit(f"touch {tmp_path}/ran", "-H")
    killed = lsf.run("bkill", job_id)
    assert (killed.returncode, killed.stdout) == (0, f"Job <{job_id}> is being terminated\n")
    assert lsf.until(job_id, "EXIT")["EXIT_REASON"] == "TERM_OWNER: job killed by owner"
    assert not (tmp_path / "ran").exists()


def test_a_running_job_that_is_killed_hears_of_it_first(lsf, tmp_path):
    body = f"trap 'echo INT >>{tmp_path}/heard' INT; trap 'echo TERM >>{tmp_path}/heard; exit 143' TERM\n"
    job_id = lsf.submit(body + f"touch {tmp_path}/up; while :; do sleep 0.01; done")
    until((tmp_path / "up").exists)
    lsf.run("bkill", job_id)
    record = lsf.until(job_id, "EXIT")
    assert (record["EXIT_CODE"], record["EXIT_REASON"]) == ("143", "TERM_OWNER: job killed by owner")
    assert (tmp_path / "heard").read_text().split() == ["INT", "TERM"]


def test_a_job_that_hears_nothing_is_killed_with_its_children(lsf, tmp_path):
    job_id = lsf.submit(f"trap '' INT TERM; sleep 1000 & echo $! >{tmp_path}/pid; wait")
    until(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text().strip())
    lsf.run("bkill", job_id)
    assert lsf.until(job_id, "EXIT")["EXIT_CODE"] == "137"
    pid = int((tmp_path / "pid").read_text())
    until(lambda: is_gone(pid))


def is_gone(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def test_a_job_hears_sigusr2_when_its_walltime_is_over(lsf, tmp_path):
    job_id = lsf.submit(f"trap 'touch {tmp_path}/usr2; exit 140' USR2; while :; do sleep 0.01; done", "-W", "1")
    record = lsf.until(job_id, "EXIT")
    assert record["EXIT_REASON"] == "TERM_RUNLIMIT: job killed after reaching LSF run time limit"
    assert record["EXIT_CODE"] == "140"
    assert (tmp_path / "usr2").exists()


def test_an_array_has_a_job_for_each_index(lsf, tmp_path):
    job_id = lsf.submit(f"echo $LSB_JOBINDEX >{tmp_path}/$LSB_JOBINDEX.task", "-J", "many[1-3]")
    for index in (1, 2, 3):
        lsf.until(f"{job_id}[{index}]", "DONE")
        assert (tmp_path / f"{index}.task").read_text() == f"{index}\n"


def test_an_id_that_was_never_given_is_told(lsf):
    done = lsf.run("bjobs", "99")
    assert (done.returncode, done.stderr) == (255, "Job <99> is not found\n")
    done = lsf.run("bkill", "99")
    assert (done.returncode, done.stderr) == (255, "Job <99>: No matching job found\n")
    assert lsf.record("99") == {"JOBID": "99", "ERROR": "Job <99> is not found"}


def test_a_finished_job_is_forgotten_after_a_while(lsf):
    job_id = lsf.submit("true")
    lsf.until(job_id, "DONE")
    assert lsf.run("bkill", job_id).stderr == f"Job <{job_id}>: Job has already finished\n"
    lsf.env["FAKE_LSF_TIME_SCALE"] = "0"
    assert lsf.run("bjobs", "-a", job_id).stderr == f"Job <{job_id}> is not found\n"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["-q", "nope"], "nope: No such queue. Job not submitted."),
        (["-q", "night"], "night: Queue has been closed. Job not submitted."),
        (["-q", "short", "-W", "0:03"], "RUNLIMIT: Cannot exceed queue's hard limit(s). Job not submitted."),
        (["-n", "3"], "Too many processors requested. Job not submitted."),
        (["-W", "soon"], "soon: Bad RUNLIMIT specification. Job not submitted."),
    ],
)
def test_a_job_that_cannot_be_is_refused(lsf, options, said):
    done = lsf.run("bsub", *options, stdin="true\n")
    assert (done.returncode, done.stdout, done.stderr) == (255, "", said + "\n")


def test_a_job_that_fits_no_host_says_so(lsf):
    lsf.env["FAKE_LSF_HOSTS"] = "localhost:1 elsewhere:1"
    job_id = lsf.submit("true", "-n", "2", "-R", "span[hosts=1]")
    reason = "There are no suitable hosts for the job;"
    until(lambda: lsf.record(job_id)["PEND_REASON"] == reason)
    lsf.run("bkill", job_id)


def test_many_who_submit_at_once_get_ids_of_their_own(lsf):
    running = [
        subprocess.Popen(["bsub", "true"], env=lsf.env, cwd=lsf.folder, stdout=subprocess.PIPE, text=True)
        for _ in range(6)
    ]
    ids = {re.search(r"<(\d+)>", process.communicate()[0])[1] for process in running}
    assert ids == {"1", "2", "3", "4", "5", "6"}


def test_a_job_whose_sbatchd_died_is_unknown(lsf, tmp_path):
    job_id = lsf.submit(f"echo $PPID $$ >{tmp_path}/pids; sleep 1000")
    runner, script = map(int, until(lambda: (tmp_path / "pids").exists() and (tmp_path / "pids").read_text()).split())
    sbatchd = int(Path(f"/proc/{runner}/stat").read_text().rpartition(")")[2].split()[1])
    os.kill(sbatchd, 9)
    lsf.until(job_id, "UNKWN")
    until(lambda: is_gone(script))


def test_blaunch_runs_a_command_with_the_jobs_environment(lsf, tmp_path):
    body = f"export SECRET=s3; blaunch -n localhost 'echo $SECRET $LSB_JOBID; exit 3' >{tmp_path}/out"
    assert lsf.until(lsf.submit(body), "EXIT")["EXIT_CODE"] == "3"
    assert (tmp_path / "out").read_text() == "s3 1\n"


def test_queues_are_told(lsf):
    text = lsf.run("bqueues", "-l").stdout
    assert re.findall(r"^QUEUE: (\w+)", text, re.MULTILINE) == ["normal", "short", "night"]
    assert "MAXIMUM LIMITS:\n RUNLIMIT\n 2.0 min\n" in text


def test_the_cluster_has_a_name(lsf):
    assert "My cluster name is fake" in lsf.run("lsid").stdout


def test_a_job_on_another_host_goes_there_by_ssh_and_its_environment_is_not_in_an_argv(lsf, tmp_path):
    (tmp_path / "bin").mkdir()
    ssh = tmp_path / "bin" / "ssh"
    ssh.write_text(f'#!/bin/sh\nprintf "%s " "$@" >>{tmp_path}/asked\nexec env -i PATH=/usr/bin:/bin sh -c "$6"\n')
    ssh.chmod(0o755)
    lsf.env.update(FAKE_LSF_HOSTS="faraway:2", SECRET="s3", PATH=f"{tmp_path}/bin:{lsf.env['PATH']}")
    job_id = lsf.submit(f"blaunch faraway 'echo $SECRET there' >{tmp_path}/out; trap 'exit 7' TERM; kill $$")
    assert lsf.until(job_id, "EXIT")["EXIT_CODE"] == "7"
    assert (tmp_path / "out").read_text() == "s3 there\n"
    asked = (tmp_path / "asked").read_text()
    assert asked.count(" faraway ") == 2
    assert "s3" not in asked


# hpclab's own module speaks to it


def ask(lsf: FakeLsf, argv: list[str]) -> Result:
    done = lsf.run(*argv)
    return Result(host="here", argv=tuple(argv), exit_status=done.returncode, stdout=done.stdout, stderr=done.stderr)


def submitted(lsf: FakeLsf, body: str, *, walltime_s: int = 3600, **more: Any) -> list[str]:
    spec = job_spec(
        walltime_s=walltime_s, log=f"{lsf.folder}/{{job_id}}.log", chunks=(Chunk(count=1, cores=1, memory_bytes=9),)
    )
    head = "".join(f"#BSUB {line}\n" for line in hpclab_lsf.directives(spec))
    (lsf.folder / "job.sh").write_text(f'#!/bin/bash\n{head}export ID="{hpclab_lsf.JOB_ID}"\n{body}\n')
    result = ask(lsf, hpclab_lsf.submit_command(str(lsf.folder / "job.sh"), log=spec.log, **more))
    return hpclab_lsf.parse_job_ids(result.stdout, more.get("count", 1))


def ended(lsf: FakeLsf, ids: list[str]) -> dict[str, JobStatus]:
    def look() -> dict[str, JobStatus] | None:
        statuses = hpclab_lsf.parse_status(ask(lsf, hpclab_lsf.status_command([*ids, "99"])))
        return statuses if all(status.state.is_final for status in statuses.values()) else None

    found: dict[str, JobStatus] = until(look)
    return found


def test_hpclab_submits_an_array_and_each_job_knows_its_id(lsf):
    ids = submitted(lsf, 'echo "$LSB_JOBNAME" >"$ID.log"', count=2)
    assert ids == ["1[1]", "1[2]"]
    statuses = ended(lsf, ids)
    assert [(job_id, status.state) for job_id, status in statuses.items()] == [(i, JobState.DONE) for i in ids]
    assert (lsf.folder / "1[2].log").read_text() == "hpclab-calm-otter[2]\n"
    assert (lsf.folder / "1.2.out").exists()


def test_hpclab_sees_a_job_run_and_cancels_it_from_another_time_zone(lsf):
    lsf.env["TZ"] = "Asia/Kathmandu"
    started = time.time()
    (job_id,) = submitted(lsf, 'trap "exit 143" INT; touch up; while :; do sleep 0.01; done')
    until((lsf.folder / "up").exists)
    status = hpclab_lsf.parse_status(ask(lsf, hpclab_lsf.status_command([job_id])))[job_id]
    assert (status.state, status.node) == (JobState.RUNNING, "localhost")
    assert status.start_time == pytest.approx(started, abs=10)
    assert hpclab_lsf.is_cancelled(ask(lsf, hpclab_lsf.cancel_command([job_id, "99"])))
    assert ended(lsf, [job_id])[job_id].state is JobState.CANCELLED


def test_hpclab_is_told_of_a_walltime_that_is_over(lsf):
    (job_id,) = submitted(lsf, 'trap "exit 143" USR2; while :; do sleep 0.01; done', walltime_s=60)
    status = ended(lsf, [job_id])[job_id]
    assert (status.state, status.exit_status) == (JobState.FAILED, 143)
    assert status.reason.startswith("the walltime was reached (TERM_RUNLIMIT")


def test_hpclab_reads_the_queues(lsf):
    queues = hpclab_lsf.parse_queues(ask(lsf, hpclab_lsf.queues_command()))
    assert [(q.name, q.is_default, q.is_open, q.walltime_limit_s) for q in queues] == [
        ("normal", True, True, 3600),
        ("short", False, True, 120),
        ("night", False, False, 3600),
    ]
