"""OpenPBS and PBS Pro, by what OpenPBS 23.06 was recorded to say (in UTC)."""

from __future__ import annotations

import shlex
from contextlib import suppress
from datetime import UTC, datetime

import pytest
from fixtures import job_spec

from batch.transcripts import Step, answered, said, transcript, transcripts
from hpclab import qstat
from hpclab.batch import pbs
from hpclab.errors import ConfigError, UnreadableOutput
from hpclab.job import Chunk, JobState, JobStatus, Queue
from hpclab.result import Result

GIB = 2**30
SCHEDULER = Chunk(count=1, cores=1, memory_bytes=GIB)


def status(job_id: str, name: str, command: str) -> JobStatus:
    """What a recorded `qstat -f` says of a job."""
    return pbs.parse_status(said("pbs", name, command).result)[job_id]


def status_of_lines(name: str, command: str) -> JobStatus:
    """The same where only some of qstat's lines were recorded, by a grep."""
    step = said("pbs", name, command)
    return pbs.parse_status(answered("Job Id: 1.vm\n" + step.stdout.replace("--\n", "")))["1.vm"]


def at(clock: str) -> float:
    """Of the evening on which all was recorded."""
    return datetime.fromisoformat(f"2026-11-20T{clock}+00:00").astimezone(UTC).timestamp()


# directives


def test_directives():
    assert pbs.directives(job_spec()) == [
        "-N hpclab-calm-otter",
        "-S /bin/bash",
        "-r n",
        "-m n",
        "-j oe",
        "-o /home/ada/.hpclab/sessions/calm-otter/logs/",
        "-l walltime=1:00:00",
        "-l select=1:ncpus=7:mem=7168mb:mpiprocs=4:ompthreads=1",
    ]


def test_what_is_asked_for_besides_has_its_directives_and_the_sites_own_come_last():
    spec = job_spec(partition="workq", account="a b", extra=("-l software=x", "-P climate"))
    assert pbs.directives(spec)[-4:] == ["-q workq", "-A 'a b'", "-l software=x", "-P climate"]


def test_a_qos_is_refused():
    with pytest.raises(ConfigError, match="PBS has no QOS"):
        pbs.directives(job_spec(qos="high"))


@pytest.mark.parametrize(
    ("log", "folder"),
    [
        ("/home/ada/logs/{job_id}.log", "/home/ada/logs/"),
        ("/two words/{job_id}.log", "/two words/"),
        ("/it's/{job_id}.log", "/it's/"),
        ('/a "b"/{job_id}.log', '/a "b"/'),
        ("/100%j $x/{job_id}.log", "/100%j $x/"),
        ("/café/{job_id}.log", "/dev/null"),
        ("/tab\there/{job_id}.log", "/dev/null"),
    ],
)
def test_what_pbs_delivers_never_overwrites_the_log(log, folder):
    (line,) = [line for line in pbs.directives(job_spec(log=log)) if line.startswith("-o ")]
    assert shlex.split(line) == ["-o", folder]


def test_a_folder_as_output_gives_a_file_of_pbs_own():
    # -o outdir/ and -o outdir
    assert "Output_Path = vm:/home/ada/jobs/outdir/\n" in said("pbs", "25-output-files", "-f 157.vm").stdout
    listing = [step.stdout for step in transcript("pbs", "25-output-files") if step.command == "ls -la outdir 2>&1"]
    assert "157.vm.OU" in listing[0]
    assert "158.vm.OU" in listing[1]


def select(*chunks: Chunk, nodes: int = 1, constraint: str = "") -> list[str]:
    lines = pbs.directives(job_spec(chunks=chunks, nodes=nodes, constraint=constraint))
    return [line for line in lines if "select" in line or "place" in line]


@pytest.mark.parametrize(
    ("chunks", "nodes", "expected"),
    [
        (
            [SCHEDULER, Chunk(count=4, cores=4, memory_bytes=4 * GIB)],
            2,
            "1:ncpus=9:mem=9216mb:mpiprocs=3:ompthreads=1+1:ncpus=8:mem=8192mb:mpiprocs=2:ompthreads=1",
        ),
        (
            [SCHEDULER, Chunk(count=6, cores=4, memory_bytes=4 * GIB)],
            3,
            "1:ncpus=9:mem=9216mb:mpiprocs=3:ompthreads=1+2:ncpus=8:mem=8192mb:mpiprocs=2:ompthreads=1",
        ),
        ([Chunk(count=4, cores=2, memory_bytes=GIB)], 4, "4:ncpus=2:mem=1024mb:mpiprocs=1:ompthreads=1"),
        # as many hosts as there are tasks, at most
        ([Chunk(count=2, cores=2, memory_bytes=GIB)], 4, "2:ncpus=2:mem=1024mb:mpiprocs=1:ompthreads=1"),
    ],
)
def test_several_nodes_are_chunks_that_are_scattered(chunks, nodes, expected):
    assert select(*chunks, nodes=nodes) == [f"-l select={expected}", "-l place=scatter"]


def test_memory_is_rounded_up():
    assert select(Chunk(count=1, cores=1, memory_bytes=2**20 + 1)) == [
        "-l select=1:ncpus=1:mem=2mb:mpiprocs=1:ompthreads=1"
    ]


def test_gpus_and_a_constraint_are_resources_of_each_chunk():
    workers = Chunk(count=2, cores=1, memory_bytes=GIB, gpus=2)
    assert select(SCHEDULER, workers, nodes=2, constraint="mem_type=hbm")[0] == (
        "-l select=1:ncpus=2:mem=2048mb:mpiprocs=2:ompthreads=1:ngpus=2:mem_type=hbm"
        "+1:ncpus=1:mem=1024mb:mpiprocs=1:ompthreads=1:ngpus=2:mem_type=hbm"
    )


# commands


def test_commands_say_nothing_but_what_they_are_for():
    assert pbs.submit_command("my job.sh")[-3:] == ["qsub", "-f", "my job.sh"]
    assert pbs.submit_command("j.sh", count=3)[-5:] == ["qsub", "-f", "-J", "1-3", "j.sh"]
    assert pbs.status_command(["1.vm", "2[1].vm"])[-4:] == ["qstat", "-f", "1.vm", "2[1].vm"]
    assert pbs.history_command(["1.vm"])[-4:] == ["qstat", "-x", "-f", "1.vm"]
    assert pbs.cancel_command(["1.vm", "2[1].vm"])[-3:] == ["qdel", "1.vm", "2[1].vm"]
    assert pbs.estimate_command("j.sh") == []


def test_a_job_submits_without_its_own_variables_and_finds_the_same_server():
    argv = pbs.submit_command("j.sh")
    told = said("pbs", "24-job-environment", "*.[oe]130").stdout
    own = [line.partition("=")[0] for line in told.splitlines() if line.startswith("PBS_") and "_O_" not in line]
    assert len(own) >= 9
    assert {f"-u{name}" for name in [*own, "PBS_DPREFIX"]} <= set(argv)
    assert not {"-uPBS_SERVER", "-uPBS_CONF_FILE", "-uPBS_DEFAULT", "-uPBS_EXEC"} & set(argv)


@pytest.mark.parametrize("command", [pbs.status_command, pbs.history_command])
def test_times_are_told_in_utc(command):
    assert "TZ=UTC" in command(["1.vm"])


# job ids


@pytest.mark.parametrize(
    ("stdout", "count", "ids"),
    [
        ("1.vm\n", 1, ["1.vm"]),
        ("Welcome!\n12.old.server\n 34.pbs-1.cluster.example \n\n", 1, ["34.pbs-1.cluster.example"]),
        ("6[].vm\n", 3, ["6[1].vm", "6[2].vm", "6[3].vm"]),
    ],
)
def test_job_ids(stdout, count, ids):
    assert pbs.parse_job_ids(stdout, count) == ids


@pytest.mark.parametrize("stdout", ["", "17", "6[].vm", "qsub: Unknown queue", "1.vm is yours", "-1.vm", "1.v/m"])
def test_no_job_id(stdout):
    with pytest.raises(UnreadableOutput) as unread:
        pbs.parse_job_ids(stdout)
    assert repr(stdout) in str(unread.value)


def test_a_job_knows_itself_by_the_id_that_qsub_gave():
    (one,) = pbs.parse_job_ids(said("pbs", "24-job-environment", "qsub -N env ").stdout)
    assert f"\nPBS_JOBID={one}\n" in said("pbs", "24-job-environment", "*.[oe]130").stdout
    tasks = pbs.parse_job_ids(said("pbs", "04-array", "qsub -J 1-3").stdout, 3)
    told = said("pbs", "04-array", "cat arr.*").stdout
    assert [f"job={job_id}" in told.split() for job_id in tasks] == [True] * 3
    assert pbs.JOB_ID == "$PBS_JOBID"


@pytest.mark.parametrize(
    ("name", "command", "why"),
    [
        ("05-bad-queue", "nosuchq", "Unknown queue"),
        ("06-bad-resource", "select=1:ngpus=1", "Unknown resource: ngpus"),
        ("07-queue-limits", "walltime=01:00:00", "Job violates queue and/or server resource limits"),
        ("08b-account-rejected-by-site-hook", "-A nosuch", "Account 'nosuch' is not valid for user ada"),
        ("11-crlf-script", "crlf.sh", "script contains cr, lf"),
        ("28-limits-requeue", "PBS_SERVER=nosuchhost qsub", "cannot connect to server nosuchhost"),
    ],
)
def test_what_qsub_refuses_has_no_id_but_words(name, command, why):
    steps = [step for step in transcript("pbs", name) if command in step.command and step.exit_status]
    assert why in steps[0].result.last_words
    with pytest.raises(UnreadableOutput):
        pbs.parse_job_ids(steps[0].stdout)


# states


def test_a_running_job():
    assert status("1.vm", "02-submit-basic", "qstat -f 1.vm") == JobStatus(
        job_id="1.vm", state=JobState.RUNNING, node="vm", start_time=at("23:13:33"), end_time=at("23:23:33")
    )


def test_a_job_that_is_done():
    assert status("1.vm", "02-submit-basic", "qstat -x -f 1.vm") == JobStatus(
        job_id="1.vm",
        state=JobState.DONE,
        node="vm",
        start_time=at("23:13:33"),
        end_time=at("23:13:42"),
        exit_status=0,
    )


def test_a_pending_job_with_its_expected_start():
    assert status("79.vm", "13-cannot-run-yet", "qstat -f 79.vm") == JobStatus(
        job_id="79.vm",
        state=JobState.PENDING,
        reason="Not Running: Not enough free nodes available",
        start_time=at("23:39:06"),
    )


def test_a_job_that_can_never_run_is_told_so():
    never = status("4.vm", "03-het-chunks", "qstat -f 4.vm")
    assert never.state is JobState.PENDING
    assert never.reason.startswith("Can Never Run: Not enough total nodes available (it will not start: ")
    text = said("pbs", "13-cannot-run-yet", "qstat -f 79.vm").stdout
    said_so = "Can Never Run: Insufficient amount of resource: ncpus (R: 16 A: 8 T: 8)"
    assert said_so in said("pbs", "13-cannot-run-yet", "json 80.vm").stdout
    (never,) = pbs.parse_status(
        answered(text.replace("Not Running: Not enough free nodes available", said_so))
    ).values()
    assert never.reason.startswith(f"{said_so} (it will not start: ")


def test_a_start_that_pbs_does_not_know_is_none():
    text = said("pbs", "13-cannot-run-yet", "qstat -f 79.vm").stdout.replace("Fri Nov 20 23:39:06 2026", "UNKNOWN")
    assert pbs.parse_status(answered(text))["79.vm"].start_time is None


@pytest.mark.parametrize(
    ("name", "command", "state", "reason"),
    [
        ("12-hold", "-f 66.vm", JobState.PENDING, ""),
        ("12-hold", "-f 69.vm | grep", JobState.HELD, "held by the system (Hold_Types s)"),
        ("25-output-files", "-f 160.vm", JobState.HELD, "job held, too many failed attempts to run"),
        ("25b-output-dir-unwritable", "-f 193.vm", JobState.HELD, "job held, too many failed attempts to run"),
        ("28-limits-requeue", "-f 171.vm", JobState.PENDING, "Not Running: User has reached queue short running"),
        ("28-limits-requeue", "-f 173.vm", JobState.PENDING, ""),
        ("28-limits-requeue", "qstat -f 174.vm", JobState.RUNNING, ""),
        ("29-mom-down", "-f 199.vm | grep -E 'state|comment'", JobState.RUNNING, ""),
        ("29-mom-down", "-f 200.vm", JobState.PENDING, "Not Running: Not enough free nodes available"),
        ("30-history-off", "qstat 201.vm", None, ""),
    ],
)
def test_a_job_that_has_not_ended(name, command, state, reason):
    if state is None:
        assert pbs.parse_status(said("pbs", name, command).result) == {}
        return
    told = status_of_lines(name, command)
    assert told.state is state
    assert told.reason.startswith(reason)
    assert bool(told.reason) == bool(reason)
    assert told.exit_status is None


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        ("job_state = H\n    Hold_Types = u", "held by its owner (Hold_Types u)"),
        ("job_state = H\n    Hold_Types = uo", "held by its owner, held by an operator (Hold_Types uo)"),
        ("job_state = S\n    Hold_Types = n\n    stime = Fri Nov 20 23:13:33 2026", "suspended (job_state S)"),
    ],
)
def test_a_held_job_is_held_and_nobody_knows_when_it_starts(lines, reason):
    assert pbs.parse_status(answered(f"Job Id: 65.vm\n    {lines}\n")) == {
        "65.vm": JobStatus(job_id="65.vm", state=JobState.HELD, reason=reason)
    }


@pytest.mark.parametrize(
    ("name", "command", "state", "exit_status", "reason"),
    [
        ("09-malformed-script", "-f 51.vm", JobState.FAILED, 127, "exit status 127"),
        ("10-empty-script", "-f 60.vm", JobState.FAILED, 127, "exit status 127"),
        ("16-exit-codes", "-f 92.vm", JobState.FAILED, 3, "exit status 3"),
        ("16-exit-codes", "-f 93.vm", JobState.FAILED, 255, "exit status 255"),
        ("16-exit-codes", "-f 94.vm", JobState.DONE, 0, ""),
        ("16-exit-codes", "-f 95.vm", JobState.FAILED, 139, "exit status 139"),
        ("16-exit-codes", "-f 97.vm", JobState.FAILED, 143, "exit status 143"),
        ("16-exit-codes", "-f 101.vm", JobState.FAILED, 137, "killed by signal 9"),
        ("17-walltime-kill", "-f 74.vm", JobState.FAILED, None, "the walltime was reached (Exit_status -29)"),
        ("17-walltime-kill", "-f 76.vm", JobState.FAILED, None, "the walltime was reached (Exit_status -29)"),
        ("19c-signal-traps", "-f 104.vm", JobState.FAILED, None, "the walltime was reached (Exit_status -29)"),
        (
            "18b-memory-kill-cgroups",
            "-f 202.vm",
            JobState.FAILED,
            137,
            "exit status 137: it used more memory than it had asked for (Cgroup mem limit exceeded)",
        ),
        (
            "18b-memory-kill-cgroups",
            "-f 203.vm",
            JobState.DONE,
            0,
            "part of it was killed: it used more memory than it had asked for (Cgroup mem limit exceeded)",
        ),
        ("18b-memory-kill-cgroups", "-f 205.vm", JobState.DONE, 0, ""),
        ("19-qdel", "-f 84.vm", JobState.CANCELLED, None, ""),
        ("19b-qdel-signals", "-f 89.vm", JobState.CANCELLED, 143, "terminated by"),
        ("19b-qdel-signals", "-f 90.vm", JobState.CANCELLED, 143, "terminated by"),
        ("19b-qdel-signals", "-f 91.vm", JobState.FAILED, 138, "killed by signal 10"),
        ("19c-signal-traps", "-f 105.vm", JobState.CANCELLED, 143, "terminated by ada@vm"),
        ("24-job-environment", "-f 138.vm", JobState.FAILED, 254, "exit status 254"),
        # what could not be delivered is no failure
        ("25b-output-dir-unwritable", "-f 192.vm", JobState.DONE, 0, ""),
        ("28-limits-requeue", "qstat -x -f 174.vm", JobState.DONE, 0, ""),
        ("29-mom-down", "qstat -x -f 199.vm", JobState.CANCELLED, None, "terminated"),
    ],
)
def test_how_a_job_ended(name, command, state, exit_status, reason):
    told = status_of_lines(name, command)
    assert (told.state, told.exit_status) == (state, exit_status)
    # where grep left out how a line goes on, it ends early
    assert told.reason.removesuffix(" ") == reason


def test_a_walltime_kill_has_its_times():
    lines = status_of_lines("17-walltime-kill", "-f 75.vm")
    assert (lines.start_time, lines.end_time) == (at("23:19:05"), at("23:19:43"))


def test_a_memory_kill():
    killed = status("108.vm", "18-memory-kill", "qstat -x -f 108.vm")
    assert killed.state is JobState.FAILED
    assert killed.reason == "it used more memory than it had asked for (Exit_status -27)"
    assert killed.exit_status is None


def test_a_job_that_is_deleted_while_it_waits_is_cancelled():
    deleted = status("82.vm", "19-qdel", "qstat -x -f 82.vm")
    assert deleted == JobStatus(
        job_id="82.vm", state=JobState.CANCELLED, reason="terminated", end_time=at("23:19:14"), exit_status=None
    )


def test_a_job_that_is_deleted_while_it_runs_is_running_until_it_has_ended():
    told = status_of_lines("19-qdel", "-f 83.vm | grep")
    assert told.state is JobState.RUNNING
    assert told.reason.startswith("terminated by")


def test_a_job_whose_dependency_fails_is_cancelled():
    assert status("69.vm", "12-hold", "qstat -x -f 69.vm").state is JobState.CANCELLED


@pytest.mark.parametrize(
    ("used", "state", "reason"),
    [
        ("00:10:01", JobState.FAILED, "the walltime was reached (Exit_status 271)"),
        ("00:09:59", JobState.CANCELLED, ""),
    ],
)
def test_an_older_pbs_tells_walltime_and_qdel_apart_by_the_time_used_alone(used, state, reason):
    text = (
        f"Job Id: 1.vm\n    resources_used.walltime = {used}\n    job_state = F\n"
        "    Resource_List.walltime = 00:10:00\n    Exit_status = 271\n"
    )
    assert pbs.parse_status(answered(text))["1.vm"] == JobStatus(
        job_id="1.vm", state=state, reason=reason, exit_status=143
    )


def test_a_job_of_a_lost_node_failed():
    text = "Job Id: 1.vm\n    job_state = F\n    substate = 91\n    Exit_status = -20\n"
    assert pbs.parse_status(answered(text))["1.vm"].reason == "its node was lost (Exit_status -20)"


@pytest.mark.parametrize(
    ("comment", "state", "exit_status"),
    [
        ("Subjob finished", JobState.DONE, 0),
        ("Subjob failed", JobState.FAILED, None),
        ("Subjob terminated", JobState.CANCELLED, None),
    ],
)
def test_an_ended_task_of_an_array_that_runs(comment, state, exit_status):
    text = f"Job Id: 7[3].vm\n    job_state = X\n    comment = {comment}\n"
    told = pbs.parse_status(answered(text))["7[3].vm"]
    assert (told.state, told.exit_status) == (state, exit_status)


@pytest.mark.parametrize("state", ["B", "F"])
def test_an_array_itself_is_no_job_of_ours(state):
    steps = [step for step in transcript("pbs", "04-array") if f"job_state = {state}\n" in step.stdout]
    assert steps
    assert all(pbs.parse_status(step.result) == {} for step in steps)


def test_lines_that_qstat_folds_are_unfolded():
    step = said("pbs", "18-memory-kill", "qstat -x -f 108.vm")
    assert "and e\n\txceeded resource mem\n" in step.stdout
    ((_, told),) = qstat.records(step.stdout, "Job Id")
    assert told["comment"].endswith(" and exceeded resource mem")
    assert told["Variable_List"].startswith("PBS_O_HOME=/home/ada,PBS_O_LOGNAME=ada,PBS_O_PATH=/usr")


def test_line_breaks_in_a_variable_do_no_harm():
    told = said("pbs", "24-job-environment", "qstat -x -f 134.vm | sed").stdout
    assert "MULTI=line1\nline2" in told
    text = f"Job Id: 134.vm\n    job_state = F\n{told}    Exit_status = 0\n"
    assert pbs.parse_status(answered(text))["134.vm"].state is JobState.DONE


# which jobs there are


def test_of_several_jobs_in_json_pbs_tells_only_the_first_which_is_why_it_is_not_used():
    step = said("pbs", "20-unknown-ids", "qstat -x -f -F json 1.vm 111.vm 99999 2.vm")
    assert '"1.vm":' in step.stdout
    assert '"111.vm"' not in step.stdout
    with pytest.raises(UnreadableOutput):
        pbs.parse_status(answered(step.stdout))


def test_unknown_jobs_among_others_are_not_told():
    result = said("pbs", "20-unknown-ids", "qstat -x -f 1.vm 111.vm 99999 2.vm").result
    assert result.exit_status == 153
    assert {job_id: told.state for job_id, told in pbs.parse_status(result).items()} == {
        "1.vm": JobState.DONE,
        "111.vm": JobState.RUNNING,
        "2.vm": JobState.DONE,
    }
    assert set(pbs.parse_history(result)) == {"1.vm", "2.vm"}


@pytest.mark.parametrize(
    ("name", "command", "exit_status"),
    [
        ("20-unknown-ids", "qstat 99999", 153),
        ("02-submit-basic", "qstat 1.vm", 35),
        ("19-qdel", "qstat 82.vm", 35),
        ("04-array", "qstat '6'", 153),
        ("30-history-off", "qstat 201.vm", 153),
        ("30-history-off", "qstat -x 201.vm", 0),
    ],
)
def test_jobs_that_are_gone_are_not_told(name, command, exit_status):
    steps = [step for step in transcript("pbs", name) if step.command == command and "qstat:" in step.stderr]
    assert steps[0].exit_status == exit_status
    assert pbs.parse_status(steps[0].result) == {}
    assert pbs.parse_history(steps[0].result) == {}


@pytest.mark.parametrize(
    ("name", "command", "why"),
    [
        ("23-server-down", "qstat 196.vm", "qstat: cannot connect to server vm (errno=15010)"),
        ("20-unknown-ids", "qstat 111.vm@otherhost", "qstat: cannot connect to server vm (errno=15008)"),
        ("20-unknown-ids", "qstat 111.otherhost", "qstat: illegally formed job identifier: 111.otherhost"),
        ("28-limits-requeue", "PBS_CONF_FILE=/nonexistent qstat", "qstat: cannot connect to server  (errno=0)"),
        ("13-cannot-run-yet", "qstat -F json", "qstat: qstat --version"),
    ],
)
def test_no_answer_is_told_in_pbs_words(name, command, why):
    with pytest.raises(UnreadableOutput) as unread:
        pbs.parse_status(next(step.result for step in transcript("pbs", name) if step.command == command))
    assert str(unread.value) == why


def test_a_server_that_is_lost_between_two_jobs_leaves_none_of_them_gone():
    known = said("pbs", "02-submit-basic", "qstat -f 1.vm")
    lost = said("pbs", "23-server-down", "qstat 196.vm")
    with pytest.raises(UnreadableOutput, match="cannot connect"):
        pbs.parse_status(answered(known.stdout, "qstat: Unknown Job Id 7.vm\n" + lost.stderr, lost.exit_status))


def test_an_answer_that_was_cut_is_not_known():
    text = said("pbs", "02-submit-basic", "qstat -f 1.vm").stdout[:40]
    assert pbs.parse_status(answered(text))["1.vm"].state is JobState.UNKNOWN


def test_a_banner_before_the_answer_is_no_harm():
    step = said("pbs", "02-submit-basic", "qstat -f 1.vm")
    assert list(pbs.parse_status(answered("Welcome to vm\n" + step.stdout))) == ["1.vm"]
    assert pbs.parse_status(answered("Welcome to vm\n", "qstat: Unknown Job Id 1.vm\n", 153)) == {}
    with pytest.raises(UnreadableOutput, match="Welcome to vm"):
        pbs.parse_status(answered("Welcome to vm\n"))


# cancel


@pytest.mark.parametrize(
    ("name", "command", "cancelled"),
    [
        ("04-array", "qdel '7[3].vm'", True),
        ("19-qdel", "qdel 83.vm", True),
        ("19-qdel", "qdel 99998 85.vm 99999", True),
        ("19-qdel", "qdel '12[].vm'", True),
        ("19-qdel", "qdel -W force 85.vm", True),
        ("19-qdel", "qdel abc", False),
        ("19-qdel", "qdel 1.otherhost", False),
        ("19-qdel", "qdel all", False),
        ("23-server-down", "qdel 198.vm", False),
        ("23-server-down", "qdel 197.vm 198.vm", True),
        ("29-mom-down", "qdel 199.vm", False),
        ("30-history-off", "qdel 201.vm", True),
    ],
)
def test_whether_it_is_cancelled(name, command, cancelled):
    steps = [step for step in transcript("pbs", name) if step.command == command]
    assert [pbs.is_cancelled(step.result) for step in steps] == [cancelled] * len(steps)
    assert steps


def test_a_second_qdel_is_no_failure():
    statuses = [step.exit_status for step in transcript("pbs", "19-qdel") if step.command == "qdel 82.vm"]
    assert statuses == [0, 35]
    assert all(pbs.is_cancelled(step.result) for step in transcript("pbs", "19-qdel") if step.command == "qdel 82.vm")


# queues


def test_queues():
    server, queues = (said("pbs", "22-server-info", command).stdout for command in ("qstat -B -f", "qstat -Q -f"))
    assert pbs.parse_queues(answered(server + queues)) == [
        Queue(name="workq", is_default=True),
        Queue(name="short", walltime_limit_s=600),
        Queue(name="disabled", is_open=False, note="takes no jobs"),
        Queue(name="stopped", is_open=False, note="runs no jobs"),
        Queue(name="private", note="not for everybody"),
    ]


def test_queues_of_a_server_that_is_down():
    with pytest.raises(UnreadableOutput, match="cannot connect to server vm"):
        pbs.parse_queues(said("pbs", "23-server-down", "qstat -Q -f").result)


# all that was recorded


def kind(step: Step) -> str:
    """Which of our questions it was, if any: as we put it, not through other programs nor in other formats."""
    words = step.command.split()
    if {"|", ";", "&&", "-F", "--version"} & set(words) or not isinstance(step.exit_status, int):
        return ""
    if words[0] == "qstat" and "-f" in words:
        return {"-Q": "queues", "-B": "queues"}.get(words[1], "status")
    return words[0]


@pytest.mark.parametrize("name", transcripts("pbs"))
def test_every_recorded_answer_is_read_or_told_to_be_unreadable(name):
    steps = transcript("pbs", name)
    assert steps
    for step in steps:
        match kind(step):
            case "qsub" if step.exit_status == 0 and step.stdout:
                count = 3 if "-J" in step.command else 1
                assert len(pbs.parse_job_ids(step.stdout, count)) == count
            case "status" if step.exit_status in (0, 35, 153):
                told = pbs.parse_status(step.result)
                ids = {word for word in step.command.split() if word.endswith(".vm") and "[" not in word}
                assert set(told) <= ids
                assert all(one.state is not JobState.UNKNOWN and one.start_time != 0 for one in told.values())
                assert set(told) == ids or step.stderr
            case "queues" if step.exit_status == 0 and "-Q" in step.command:
                assert pbs.parse_queues(step.result)
            case "qdel":
                assert pbs.is_cancelled(step.result) or step.exit_status not in (0, 35, 153)
            case _:
                read(step.result)


def read(result: Result) -> None:
    """Each parser gives a value, or says that it cannot."""
    for parse in (pbs.parse_status, pbs.parse_history, pbs.parse_queues, pbs.parse_estimate):
        with suppress(UnreadableOutput):
            parse(result)
    with suppress(UnreadableOutput):
        assert pbs.parse_job_ids(result.stdout)
