"""Slurm, by what it says; the answers are recorded ones, of 22.05."""

from __future__ import annotations

import contextlib
import re
import shlex
import subprocess
from datetime import UTC, datetime

import pytest
from fixtures import job_spec
from hypothesis import given
from hypothesis import strategies as st

from batch.transcripts import answered, said, transcript, transcripts
from hpclab.batch import slurm
from hpclab.errors import ConfigError, UnreadableOutput
from hpclab.job import Chunk, JobState, JobStatus, Place, Queue

HEAD = "JOBID|STATE|EXIT_CODE|START_TIME|END_TIME|EXEC_HOST|REASON\n"
ALIKE = (Chunk(count=4, cores=2, memory_bytes=2**30),)
PARSERS = [
    slurm.parse_status,
    slurm.parse_history,
    slurm.is_cancelled,
    slurm.parse_estimate,
    slurm.parse_queues,
    lambda result: slurm.parse_job_ids(result.stdout),
]


def line(id="9", state="PENDING", exit_code="0", start="N/A", end="N/A", node="n/a", reason="None"):
    """A job in squeue's answer."""
    return f"{id}|{state}|{exit_code}|{start}|{end}|{node or 'n/a'}|{reason}\n"


def status(**told):
    """What is read of one job."""
    (read,) = slurm.parse_status(answered(HEAD + line(**told))).values()
    return read


def bash(argv, **variables):
    """What an argv prints whose last words are another command."""
    environment = {"PATH": "/usr/bin:/bin", **variables}
    return subprocess.run(argv, env=environment, text=True, check=True, capture_output=True).stdout


# directives

COMMON = [
    "--job-name=hpclab-calm-otter",
    "--time=1:00:00",
    "--output=/home/ada/.hpclab/sessions/calm-otter/logs/%j.log",
    "--open-mode=append",
    "--no-requeue",
]


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        (job_spec(), ["--nodes=1", "--ntasks=1", "--cpus-per-task=7", "--mem=7168M"]),
        (
            job_spec(options={"slurm_memory": "cpu"}),
            ["--nodes=1", "--ntasks=1", "--cpus-per-task=7", "--mem-per-cpu=1024M"],
        ),
        (job_spec(options={"slurm_memory": "none"}), ["--nodes=1", "--ntasks=1", "--cpus-per-task=7"]),
        (
            job_spec(chunks=(Chunk(count=2, cores=1, memory_bytes=2**30 + 1, gpus=1),)),
            ["--nodes=1", "--ntasks=1", "--cpus-per-task=2", "--mem=2049M", "--gres=gpu:2"],
        ),
        (
            job_spec(nodes=2, chunks=ALIKE),
            ["--nodes=2", "--ntasks=4", "--cpus-per-task=2", "--mem-per-cpu=512M"],
        ),
        (
            job_spec(nodes=9, chunks=ALIKE, options={"slurm_memory": "none"}),
            ["--nodes=4", "--ntasks=4", "--cpus-per-task=2"],
        ),
        (
            job_spec(nodes=2, chunks=(Chunk(count=2, cores=3, memory_bytes=2**20, gpus=4),)),
            ["--nodes=2", "--ntasks=2", "--cpus-per-task=3", "--mem-per-cpu=1M", "--gpus-per-task=4"],
        ),
        (
            job_spec(nodes=2, partition="short", qos="q", account="a", constraint="x|y", extra=("--exclusive",)),
            [
                *["--partition=short", "--account=a", "--qos=q", "--constraint='x|y'"],
                *["--nodes=1", "--ntasks=1", "--cpus-per-task=1", "--mem-per-cpu=1024M", "--exclusive"],
                "hetjob",
                *["--partition=short", "--account=a", "--qos=q", "--constraint='x|y'"],
                *["--nodes=2", "--ntasks=3", "--cpus-per-task=2", "--mem-per-cpu=1024M", "--exclusive"],
            ],
        ),
    ],
    ids=["one node", "per core", "no memory", "gpus", "alike", "more nodes than tasks", "gpus each", "hetjob"],
)
def test_what_a_job_asks_for(spec, expected):
    assert slurm.directives(spec) == COMMON + expected


def test_memory_is_asked_for_in_one_of_three_ways():
    with pytest.raises(ConfigError, match="slurm_memory 'some'"):
        slurm.directives(job_spec(options={"slurm_memory": "some"}))


@pytest.mark.parametrize("log", ["/two words/{job_id}", "/it's/{job_id}", '/a "b"/{job_id}', "/ü/{job_id}"])
def test_an_odd_log_is_one_word(log):
    output = slurm.directives(job_spec(log=log))[2]
    assert shlex.split(output) == ["--output=" + log.replace("{job_id}", "%j")]


def test_a_percent_sign_of_the_logs_is_no_placeholder():
    assert slurm.directives(job_spec(log="/50%j/{job_id}"))[2] == "--output=/50%%j/%j"
    assert slurm.submit_command("s", count=2, log="/50%j/{job_id}")[-2] == "--output=/50%%j/%A_%a"


@pytest.mark.parametrize("log", ["/a\\b/{job_id}", "/a\nb/{job_id}"])
def test_a_log_that_slurm_cannot_write_is_refused(log):
    with pytest.raises(ConfigError, match="cannot write"):
        slurm.directives(job_spec(log=log))


# commands


def test_commands():
    assert slurm.submit_command("my job.sh", log="/{job_id}")[-3:] == ["sbatch", "--parsable", "my job.sh"]
    assert slurm.submit_command("s", count=3, log="/{job_id}")[-5:] == [
        *["sbatch", "--parsable", "--array=1-3", "--output=/%A_%a", "s"]
    ]
    assert slurm.history_command(["7", "8_1", "8_2"])[-2:] == ["-j", "7,8"]
    assert '-u "$(id -un)"' in slurm.history_command(["7"])[2]
    assert slurm.cancel_command(["7", "8_1"])[-3:] == ["scancel", "7", "8_1"]
    assert slurm.estimate_command("my job.sh")[-3:] == ["sbatch", "--test-only", "my job.sh"]


def test_one_squeue_asks_about_all_jobs_since_one_forgotten_job_would_fail_it():
    assert slurm.status_command(["1"]) == slurm.status_command([str(number) for number in range(200)])
    assert "--me" in slurm.status_command(["1"])


NOISE = {
    "SLURM_JOB_ID": "999",
    "SLURM_CONF": "/etc/slurm.conf",
    "SLURMD_NODENAME": "n",
    "SBATCH_PARTITION": "nosuch",
    "SQUEUE_FORMAT": "%i",
    "LC_ALL": "de_DE.UTF-8",
    "MINE": "1",
}


def test_a_job_is_submitted_without_what_the_job_around_it_had_set():
    argv = [*slurm.submit_command("x")[:-3], "env"]
    told = dict(variable.split("=", 1) for variable in bash(argv, **NOISE).splitlines())
    assert told.keys() & NOISE.keys() == {"SLURM_CONF", "MINE", "LC_ALL"}
    assert told["LC_ALL"] == "de_DE.UTF-8"
    assert "SLURM_TIME_FORMAT" not in told


@pytest.mark.parametrize(
    ("command", "program"),
    [
        (slurm.status_command(["1"]), "squeue"),
        (slurm.history_command(["1"]), "sacct"),
        (slurm.cancel_command(["1"]), "scancel"),
        (slurm.estimate_command("s"), "sbatch"),
        (slurm.place_command(), "squeue"),
        (slurm.queues_command(), "sinfo"),
    ],
)
def test_questions_are_asked_in_english_and_in_seconds(command, program):
    told = bash([*command[: command.index(program)], "env"], **NOISE).splitlines()
    assert {"LC_ALL=C", "TZ=UTC", "SLURM_TIME_FORMAT=%s", "SLURM_CONF=/etc/slurm.conf"} <= set(told)
    assert not [variable for variable in told if variable.startswith(("SQUEUE", "SBATCH", "SLURM_JOB", "SLURMD"))]


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, ""),
        ({"SLURM_JOB_ID": "46"}, "46"),
        ({"SLURM_JOB_ID": "42", "SLURM_ARRAY_JOB_ID": "41", "SLURM_ARRAY_TASK_ID": "1"}, "41_1"),
    ],
)
def test_the_job_knows_its_id(variables, expected):
    assert bash(["bash", "-c", f'export ID="{slurm.JOB_ID}"; printf %s "$ID"'], **variables) == expected


def test_a_new_slurm_tells_the_end_in_a_variable():
    assert bash(["bash", "-c", f'printf %s "{slurm.END_TIME}"'], SLURM_JOB_END_TIME="1795232857") == "1795232857"


@pytest.mark.parametrize(
    ("answer", "expected"),
    [("1795232857\n1795232857", "1795232857"), ("N/A", ""), ("", ""), ("oops", "")],
    ids=["both components", "no limit", "silence", "no number"],
)
def test_an_old_slurm_is_asked_for_the_end(answer, expected, tmp_path):
    squeue = tmp_path / "squeue"
    squeue.write_text(f'#!/bin/sh\n[ -z "$SQUEUE_USERS" ] || exit\n[ $3 = 41_1 ] && printf "{answer}"\necho oh >&2\n')
    squeue.chmod(0o755)
    ran = subprocess.run(
        ["bash", "-ec", f'export END="{slurm.END_TIME}"; printf %s "$END"'],
        env={
            "PATH": f"{tmp_path}:/usr/bin:/bin",
            "SQUEUE_USERS": "bob",
            "SLURM_JOB_ID": "42",
            "SLURM_ARRAY_JOB_ID": "41",
            "SLURM_ARRAY_TASK_ID": "1",
        },
        text=True,
        capture_output=True,
        check=True,
    )
    assert (ran.stdout, ran.stderr) == (expected, "")


# job ids


@pytest.mark.parametrize(
    ("stdout", "count", "ids"),
    [
        ("17\n", 1, ["17"]),
        ("Welcome!\n3 users\n17\n\n", 1, ["17"]),
        ("1\n17;big-cluster\n", 1, ["17"]),
        ("17\n", 3, ["17_1", "17_2", "17_3"]),
    ],
)
def test_the_job_ids(stdout, count, ids):
    assert slurm.parse_job_ids(stdout, count) == ids


@pytest.mark.parametrize("stdout", ["", "\n", "no", "-1", "0", "17 18", "Submitted batch job 17", "٣", "9" * 99])
def test_no_job_id(stdout):
    with pytest.raises(UnreadableOutput) as unread:
        slurm.parse_job_ids(stdout)
    assert repr(stdout) in str(unread.value)


# states


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        (
            line("5", reason="Resources", start="1795232537", end="1795234337"),
            JobStatus(
                job_id="5",
                state=JobState.PENDING,
                reason="waits for free nodes (Resources)",
                start_time=1795232537.0,
            ),
        ),
        (
            line("5", reason="JobHeldUser"),
            JobStatus(job_id="5", state=JobState.HELD, reason="held by its owner (JobHeldUser)"),
        ),
        (
            line("5", reason="launch failed requeued held"),
            JobStatus(job_id="5", state=JobState.HELD, reason="launch failed requeued held"),
        ),
        (
            line("3", "SUSPENDED", start="10", end="20", node="node1"),
            JobStatus(job_id="3", state=JobState.HELD, reason="SUSPENDED", node="node1", start_time=10.0),
        ),
        (
            line("6_1", "RUNNING", start="1795232237", end="1795232537", node="node1"),
            JobStatus(
                job_id="6_1", state=JobState.RUNNING, node="node1", start_time=1795232237.0, end_time=1795232537.0
            ),
        ),
        (
            line("3", "COMPLETING", start="10", end="20", node="node1"),
            JobStatus(job_id="3", state=JobState.COMPLETING, node="node1", start_time=10.0, end_time=20.0),
        ),
        (
            line("20", "COMPLETED", start="10", end="20", node="node3"),
            JobStatus(job_id="20", state=JobState.DONE, node="node3", start_time=10.0, end_time=20.0, exit_status=0),
        ),
        (
            line("1", "FAILED", "768", "10", "20", "node1", "NonZeroExitCode"),
            JobStatus(
                job_id="1",
                state=JobState.FAILED,
                reason="exit code 3 (NonZeroExitCode)",
                node="node1",
                start_time=10.0,
                end_time=20.0,
                exit_status=3,
            ),
        ),
        (
            line("3", "CANCELLED", "15", "10", "20", "node1"),
            JobStatus(
                job_id="3",
                state=JobState.CANCELLED,
                reason="cancelled",
                node="node1",
                start_time=10.0,
                end_time=20.0,
                exit_status=143,
            ),
        ),
        (
            # it has never started, and Priority is why it waited
            line("4", "CANCELLED", "0", "1795232241", "1795232241", reason="Priority"),
            JobStatus(job_id="4", state=JobState.CANCELLED, reason="cancelled", end_time=1795232241.0),
        ),
        (
            line("8", "SLEEPING", "0", "10", "20", "node1", "Fatigue"),
            JobStatus(job_id="8", state=JobState.UNKNOWN, reason="SLEEPING Fatigue", node="node1", start_time=10.0),
        ),
    ],
)
def test_a_status(told, expected):
    assert slurm.parse_status(answered(HEAD + told)) == {expected.job_id: expected}


@pytest.mark.parametrize(
    ("state", "exit_code", "reason", "expected", "exit_status"),
    [
        ("FAILED", "11", "JobLaunchFailure", "killed by signal 11 (JobLaunchFailure)", 139),
        ("FAILED", "139", "None", "killed by signal 11 (FAILED)", 139),
        ("FAILED", "4021", "JobLaunchFailure", "its log or its folder could not be opened (JobLaunchFailure)", None),
        ("FAILED", "0", "None", "FAILED", None),
        ("TIMEOUT", "9", "TimeLimit", "the walltime was reached (TIMEOUT)", 137),
        ("OUT_OF_MEMORY", "125", "OutOfMemory", "it used more memory than it had asked for (OUT_OF_MEMORY)", 253),
        ("NODE_FAIL", "0", "NodeDown", "its node failed (NODE_FAIL)", None),
        ("PREEMPTED", "0", "None", "a job of higher priority took its place (PREEMPTED)", None),
    ],
)
def test_why_a_job_failed(state, exit_code, reason, expected, exit_status):
    read = status(state=state, exit_code=exit_code, reason=reason, node="node1")
    assert (read.state, read.reason, read.exit_status) == (JobState.FAILED, expected, exit_status)


@pytest.mark.parametrize(
    ("reason", "why"),
    [
        ("PartitionTimeLimit", "the walltime is longer than the partition allows"),
        ("PartitionNodeLimit", "the partition does not allow that many nodes"),
        ("PartitionConfig", "the partition's nodes do not have that much"),
        ("PartitionDown", "the partition is down"),
        ("AssocMaxWallDurationPerJobLimit", "the walltime is longer than its account or QOS allows"),
        ("QOSMaxCpuPerJobLimit", "its account or QOS does not allow one job that much"),
    ],
)
def test_a_job_that_will_never_start_says_so(reason, why):
    read = status(reason=reason)
    assert read.state is JobState.PENDING
    assert read.reason == f"{reason} (it will not start: {why})"


@pytest.mark.parametrize(
    ("reason", "words"),
    [
        ("Resources", "waits for free nodes"),
        ("Priority", "others are before it"),
        ("AssocMaxJobsLimit", "its account or QOS allows you no more at once"),
        ("QOSMaxJobsPerUserLimit", "its account or QOS allows you no more at once"),
        ("AssocGrpCPUMinutesLimit", "its account or QOS has used all that it may"),
        ("ReqNodeNotAvail, UnavailableNodes:node3", "nodes that it needs are down, drained or reserved"),
    ],
)
def test_why_a_job_waits_is_told_in_words_and_in_slurms_own(reason, words):
    read = status(reason=reason)
    assert (read.reason, read.is_hopeless) == (f"{words} ({reason})", False)


def test_a_reason_without_words_is_slurms_own():
    assert status(reason="FedJobLock").reason == "FedJobLock"


def test_a_reason_may_hold_the_separator():
    assert status(reason="burst_buffer/lua: a|b|").reason == "burst_buffer/lua: a|b|"


@pytest.mark.parametrize("known", slurm.STATES)
def test_every_state_is_read_from_squeue_and_accounting(known):
    assert status(state=known).state is slurm.STATES[known]
    read = slurm.parse_history(answered(f"9|{known}|0:0|Unknown|Unknown|None assigned\n"))
    assert {job.state for job in read.values()} == {state for state in [slurm.STATES[known]] if state.is_final}


def test_a_heterogeneous_job_is_one_job_told_by_its_first_component():
    told = line("50+1", "CANCELLED", node="node2") + line("50+0", "RUNNING", node="node1")
    read = slurm.parse_status(answered(HEAD + told))
    assert {job_id: (job.state, job.node) for job_id, job in read.items()} == {"50": (JobState.RUNNING, "node1")}


def test_a_heterogeneous_job_of_which_one_component_never_starts_never_starts():
    told = line("17+0", start="1795232478", reason="Resources") + line("17+1", reason="PartitionConfig")
    (read,) = slurm.parse_status(answered(HEAD + told)).values()
    assert read.reason.startswith("PartitionConfig (it will not start")
    assert read.start_time is None


def test_the_status_of_many_jobs_after_a_banner():
    told = slurm.parse_status(answered("Welcome!\n" + HEAD + line("1", "RUNNING") + line("2_1")))
    assert {job_id: job.state for job_id, job in told.items()} == {"1": JobState.RUNNING, "2_1": JobState.PENDING}


@pytest.mark.parametrize("stdout", [HEAD, "Welcome!\n" + HEAD])
def test_no_jobs(stdout):
    assert slurm.parse_status(answered(stdout)) == {}


def test_silence_is_no_answer():
    with pytest.raises(UnreadableOutput):
        slurm.parse_status(answered(""))


@pytest.mark.parametrize(
    "stdout",
    [
        "squeue is slow today, use myqueue\n",
        line("1", "RUNNING"),
        HEAD + "1|RUNNING\n",
        HEAD + "1|RUNNING|0|1|2|n\n3|R",
    ],
)
def test_an_answer_that_is_not_squeues_is_not_an_empty_queue(stdout):
    with pytest.raises(UnreadableOutput):
        slurm.parse_status(answered(stdout))


@pytest.mark.parametrize(
    ("told", "expected"),
    [("1795232237", 1795232237.0), ("2026-11-20T23:14:54", datetime(2026, 11, 20, 23, 14, 54, tzinfo=UTC).timestamp())],
)
def test_a_time_in_seconds_or_in_utc(told, expected):
    assert status(state="RUNNING", start=told).start_time == expected


@pytest.mark.parametrize("told", ["N/A", "Unknown", "None", "", "0", "9" * 40, "-1", "nan", "inf", "9999-99-99T0:0:0"])
def test_no_time(told):
    assert status(state="RUNNING", start=told).start_time is None


@pytest.mark.parametrize(
    ("nodes", "first"),
    [("node[1-3]", "node1"), ("gpu[007,9],x1", "gpu007"), ("a-b.c,d", "a-b.c"), ("None assigned", ""), ("", "")],
)
def test_the_first_node(nodes, first):
    read = slurm.parse_history(answered(f"9|COMPLETED|0:0|10|20|{nodes}\n"))
    assert read["9"].node == first


# accounting


def test_accounting_knows_how_jobs_ended():
    told = "2|FAILED|4:0|10|20|node1\n3|CANCELLED by 4001|0:0|10|20|node1\n46+0|TIMEOUT|0:9|10|20|node1\n"
    read = slurm.parse_history(answered(told + "46+1|TIMEOUT|0:9|10|20|node2\n5|RUNNING|0:0|10|Unknown|node1\n"))
    assert {job_id: (job.state, job.reason, job.exit_status) for job_id, job in read.items()} == {
        "2": (JobState.FAILED, "exit code 4 (FAILED)", 4),
        "3": (JobState.CANCELLED, "cancelled by user 4001", None),
        "46": (JobState.FAILED, "the walltime was reached (TIMEOUT)", 137),
    }
    assert read["46"].node == "node1"


# transcripts: what was asked there has other columns, which are put into the order of ours


@pytest.mark.parametrize(
    ("name", "command", "columns", "expected"),
    [
        ("10-submit-ok", "squeue -h -t all -j 9 -o", "id state reason", ["9 cancelled cancelled"]),
        ("20-err-walltime", "squeue -j 20", "id state reason x", ["20 pending PartitionTimeLimit"]),
        ("20-err-outdir", "squeue -t all -j 27", "id state reason x", ["27 failed JobLaunchFailure"]),
        ("40-dependency", "a=$(", "id state reason x x", ["39 pending DependencyNeverSatisfied", "36 done"]),
        ("41-array", "id=$(", "id x x x state reason", ["41_3 done", "41_5 running"]),
        ("42-hetjob", "printf", "id state node", ["46 running", "46 done", "48 cancelled cancelled", "50 running"]),
        ("50-signals-scancel", "echo $id; sleep 2.5", "state reason", ["9 completing", "9 cancelled cancelled"]),
        ("50-signals-scancel", "--hold", "state reason", ["9 held held by its owner (JobHeldUser)"]),
        (
            "51-signals-walltime",
            "sig.sh",
            "x state reason x",
            ["9 running", "9 completing TimeLimit", "9 failed the walltime was reached (TIMEOUT)"],
        ),
        ("54-scancel-before-start", "scancel", "id state reason start", ["3 cancelled cancelled"]),
        (
            "62-node-fail",
            "for i in",
            "x id state reason node",
            ["6 running", "6 failed its node failed (NODE_FAIL)"],
        ),
        (
            "62-node-fail",
            "sleep 3; id=",
            "id state reason node",
            ["6 failed its node failed", "7 pending its time has not come yet"],
        ),
        (
            "81-limits",
            "sleep 1.5; squeue --me",
            "id state reason",
            ["5 pending its account or QOS allows you no more at once", "4 running"],
        ),
        ("81-limits", "-t 60", "id state reason", ["6 pending AssocMaxWallDurationPerJobLimit"]),
        (
            "84-states-prolog-epilog",
            'pe.out --wrap "date; sleep 2',
            "x state x reason node",
            ["9 pending", "9 running Prolog", "9 running", "9 completing", "9 done"],
        ),
        (
            "85-state-configuring",
            "id=$(",
            "x state x reason node start x",
            ["9 pending its node is being made ready (CONFIGURING)"],
        ),
    ],
)  # fmt: skip
def test_the_states_of_the_transcripts(name, command, columns, expected):
    names = columns.split()
    seen = []
    for words in (
        re.split(r"[|\s]", text.strip(" ;")) for text in re.split(r"[\n;]", said("slurm", name, command).stdout)
    ):
        told = {column: word for column, word in zip(names, words, strict=False) if column != "x"}
        if told.get("state") in slurm.STATES:
            # the first words are the id and the state, the reason follows up to what we add ourselves
            seen += slurm.parse_status(answered(HEAD + line(**told))).values()
    texts = [f"{job.job_id} {job.state.value} {job.reason}".strip() for job in seen]
    for one in expected:
        assert any(text == one or text.startswith(one + " (") for text in texts), texts


def test_accounting_as_recorded():
    step = said("slurm", "80-acct", "acctjob")
    rows = [row.split("|") for row in step.stdout.splitlines() if row.count("|") == 12]
    told = "".join("|".join([row[0], *row[2:6], row[8]]) + "\n" for row in rows)
    read = slurm.parse_history(answered(told))
    assert [(job.state, job.exit_status, job.node) for job in read.values()] == [
        (JobState.FAILED, 4, "node1"),
        (JobState.CANCELLED, None, "node1"),
    ]
    assert read["2"].end_time == datetime(2026, 11, 20, 23, 31, 47, tzinfo=UTC).timestamp()


def test_a_slurm_without_accounting_knows_nothing():
    assert slurm.parse_history(said("slurm", "10-submit-ok", "sacct").result) == {}


@pytest.mark.parametrize(
    ("parse", "name", "command", "words"),
    [
        (slurm.parse_status, "60-slurmctld-down", "squeue -j $(cat", "Unable to contact slurm controller"),
        (slurm.parse_status, "61-munge-down", "squeue", "Protocol authentication error"),
        (slurm.parse_queues, "60-slurmctld-down", "sinfo", "Unable to contact slurm controller"),
        (slurm.parse_estimate, "11-parsable", "--test-only -N20", "Requested node configuration is not available"),
    ],
)
def test_a_slurm_that_does_not_answer_is_quoted(parse, name, command, words):
    with pytest.raises(UnreadableOutput, match=words):
        parse(said("slurm", name, command).result)


def test_accounting_that_is_down_is_quoted():
    step = said("slurm", "82-dbd-down", "sacct")
    with pytest.raises(UnreadableOutput, match="Connection refused"):
        slurm.parse_history(answered("", step.stderr, 1))


@pytest.mark.parametrize(
    ("name", "command", "expected"),
    [
        ("20-err-unknown-id", "scancel 999999", True),
        ("10-submit-ok", "scancel 9", True),
        ("21-other-user", "scancel 28", False),
        ("60-slurmctld-down", "scancel", False),
        ("20-err-unknown-id", "scancel abc", False),
    ],
)
def test_what_is_cancelled(name, command, expected):
    assert slurm.is_cancelled(said("slurm", name, command).result) is expected


def test_what_is_cancelled_before_it_starts_or_twice_is_cancelled():
    for name in ("54-scancel-before-start", "55-double-scancel"):
        assert set(re.findall(r"rc=(\d)", transcript("slurm", name)[0].stdout)) == {"0"}
    gone = said("slurm", "55-double-scancel", "scancel").stderr
    assert slurm.is_cancelled(answered("", gone, 1))
    assert not slurm.is_cancelled(answered("", gone + said("slurm", "21-other-user", "scancel 28").stderr, 1))


def test_the_start_that_slurm_expects():
    noon = answered("", "sbatch: Job 13 to start at 1795232476 using 7 processors on node[1-2]\n")
    assert slurm.parse_estimate(noon) == 1795232476.0
    recorded = said("slurm", "11-parsable", "--test-only -N2 ").result
    assert slurm.parse_estimate(recorded) == datetime(2026, 11, 20, 23, 24, 56, tzinfo=UTC).timestamp()


def test_the_queues():
    told = (
        "regular*|up|1-00:00:00|3|16|64000\ndebug|up|5:00|1|16+|64000+\nmaint|down|infinite|3|16|64000\n"
        "long|up|10-12:30:00|1|16|64000\n"
    )
    sixteen = {"cores_per_node": 16, "memory_per_node_bytes": 64000 * 2**20}
    assert slurm.parse_queues(answered("Welcome!\n" + told)) == [
        Queue(name="regular", is_default=True, walltime_limit_s=86400, nodes=3, **sixteen),
        Queue(name="debug", walltime_limit_s=300, nodes=1, **sixteen),
        Queue(name="maint", is_open=False, nodes=3, note="down", **sixteen),
        Queue(name="long", walltime_limit_s=(10 * 24 + 12) * 3600 + 1800, nodes=1, **sixteen),
    ]


# place

WAITING = """\
13|4294901748|bob|gpu|Priority
14|4294901747|bob|maint|PartitionDown
4|4294901756|bob|regular|Resources
5|4294901755|ada|regular|Priority
6_[1-5]|4294901754|ada|regular|Priority
9+0|4294901752|ada|regular|Resources
9+1|4294901751|ada|regular|Resources
11|4294901750|ada|regular|Dependency
12|4294901749|bob|regular|Priority
15|4294901746|bob|regular|BeginTime
7|0|ada|regular|JobHeldUser
8|4294901753|ada|regular,gpu|Nodes required for job are DOWN, DRAINED or reserved for jobs in higher priority partitions
"""
"""As a real Slurm told it."""


@pytest.mark.parametrize(
    ("job_id", "place"),
    [
        ("4", Place(number=1, of=6)),
        ("5", Place(number=2, of=6)),
        ("6_3", Place(number=3, of=6)),
        ("8", Place(number=4, of=7)),  # of two partitions
        ("9", Place(number=5, of=6)),
        ("12", Place(number=6, of=6)),
        ("13", Place(number=2, of=2)),
    ],
)
def test_a_jobs_place_is_that_of_its_priority_in_its_partition(job_id, place):
    assert slurm.parse_place(answered("Welcome!\n" + WAITING), job_id) == place


def test_among_jobs_of_one_priority_the_oldest_is_first():
    told = answered("10|5|bob|regular|Priority\n9|5|ada|regular|Priority\n8|4|bob|regular|Priority\n")
    assert [slurm.parse_place(told, job_id).number for job_id in ("9", "10", "8")] == [1, 2, 3]


@pytest.mark.parametrize("job_id", ["7", "11", "14", "15", "99", ""])
def test_a_job_that_does_not_wait_for_its_turn_has_no_place(job_id):
    assert slurm.parse_place(answered(WAITING), job_id) is None


def test_where_others_jobs_may_be_hidden_there_is_no_place():
    mine = "".join(line for line in WAITING.splitlines(keepends=True) if "|ada|" in line)
    assert slurm.parse_place(answered(mine), "5") is None


# any text whatever


@pytest.mark.parametrize("name", [name for name in transcripts("slurm") if not name.startswith("70-mpi-")])
def test_every_recorded_answer_is_read_or_refused(name):
    steps = transcript("slurm", name)
    assert steps
    for step in steps:
        for parse in PARSERS:
            with contextlib.suppress(UnreadableOutput):
                parse(step.result)
        if "--parsable" in step.command and re.fullmatch(r"\d+\n", step.stdout):
            assert slurm.parse_job_ids(step.stdout) == [step.stdout.strip()]
        if step.command.startswith("sbatch") and step.exit_status:
            with pytest.raises(UnreadableOutput):
                slurm.parse_job_ids(step.stdout)
        if step.command.startswith("squeue") and step.exit_status:
            with pytest.raises(UnreadableOutput):
                slurm.parse_status(step.result)
        if step.command.startswith("scancel") and not step.exit_status:
            assert slurm.is_cancelled(step.result)


FIELD = st.text() | st.integers().map(str) | st.sampled_from([*slurm.STATES, "n/a", "N/A", "46+1", "8_1", "3:0", "inf"])


@given(st.text() | st.lists(st.lists(FIELD, min_size=5, max_size=8).map("|".join)).map("\n".join), st.booleans())
def test_any_text_is_read_or_refused(text, failed):
    for stdout in (text, HEAD + text):
        for parse in PARSERS:
            with contextlib.suppress(UnreadableOutput):
                parse(answered(stdout, text, int(failed)))
