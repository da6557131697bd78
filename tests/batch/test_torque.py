"""Torque, by its documentation and source: the answers here are written by hand, as there was no Torque to record.

What `tests/data/torque-wrappers` holds comes from Slurm's imitation of its commands; it is read for what both share.
"""

from __future__ import annotations

import shlex
import subprocess
import time
from contextlib import suppress

import pytest
from fixtures import NOON, job_spec

from batch.transcripts import answered, said, transcript, transcripts
from hpclab.batch import torque
from hpclab.errors import UnreadableOutput
from hpclab.job import Chunk, JobState, JobStatus, Queue
from hpclab.result import Result

GIB = 2**30
SCHEDULER = Chunk(count=1, cores=1, memory_bytes=GIB)

START = "Tue Nov 14 22:13:20 2023"  # NOON, in UTC
LATER = "Tue Nov 14 22:23:20 2023"


def answer(job_id: str, **told: str) -> str:
    """A job as `qstat -f -1` writes it; `__` in a name is a dot."""
    lines = [f"    {name.replace('__', '.')} = {value}\n" for name, value in told.items()]
    return f"Job Id: {job_id}\n    Job_Name = x\n" + "".join(lines) + "    Variable_List = PBS_O_QUEUE=batch\n\n"


def status(**told: str) -> JobStatus:
    return torque.parse_status(answered(answer("12.server", **told)))["12.server"]


# directives


def test_directives():
    assert torque.directives(job_spec()) == [
        "-N hpclab-calm-otter",
        "-S /bin/bash",
        "-r n",
        "-m n",
        "-j oe",
        "-o /home/ada/.hpclab/sessions/calm-otter/logs/",
        "-l walltime=1:00:00",
        "-l nodes=1:ppn=7",
        "-l mem=7168mb",
    ]


def test_what_is_asked_for_besides_has_its_directives_and_the_sites_own_come_last():
    spec = job_spec(qos="high", partition="batch", account="a b", extra=("-l naccesspolicy=singlejob",))
    assert torque.directives(spec)[-4:] == [
        "-l qos=high",
        "-q batch",
        "-A 'a b'",
        "-l naccesspolicy=singlejob",
    ]


@pytest.mark.parametrize(
    ("log", "folder"),
    [
        ("/two words/{job_id}.log", "/two words/"),
        ("/it's/{job_id}.log", "/it's/"),
        ("/100%j/{job_id}.log", "/100%j/"),
        ("/café/{job_id}.log", "/dev/null"),
        ("/$HOME/{job_id}.log", "/dev/null"),
    ],
)
def test_what_torque_delivers_never_overwrites_the_log(log, folder):
    (line,) = [line for line in torque.directives(job_spec(log=log)) if line.startswith("-o ")]
    assert shlex.split(line) == ["-o", folder]


@pytest.mark.parametrize(
    ("chunks", "nodes", "constraint", "expected"),
    [
        ([SCHEDULER, Chunk(count=4, cores=4, memory_bytes=GIB)], 2, "", "1:ppn=9+1:ppn=8"),
        ([SCHEDULER, Chunk(count=6, cores=4, memory_bytes=GIB)], 3, "", "1:ppn=9+2:ppn=8"),
        ([Chunk(count=4, cores=2, memory_bytes=GIB)], 4, "fast", "4:ppn=2:fast"),
        ([Chunk(count=4, cores=2, memory_bytes=GIB, gpus=1)], 1, "", "1:ppn=8:gpus=4"),
        ([SCHEDULER, Chunk(count=1, cores=2, memory_bytes=GIB, gpus=1)], 2, "k80", "1:ppn=1:k80+1:ppn=2:gpus=1:k80"),
    ],
)
def test_nodes(chunks, nodes, constraint, expected):
    lines = torque.directives(job_spec(chunks=tuple(chunks), nodes=nodes, constraint=constraint))
    assert f"-l nodes={expected}" in lines


def test_memory_is_the_jobs_and_rounded_up():
    assert "-l mem=3mb" in torque.directives(job_spec(chunks=(Chunk(count=2, cores=1, memory_bytes=2**20 + 1),)))


# commands


def test_commands_say_nothing_but_what_they_are_for():
    assert torque.submit_command("my job.sh")[-2:] == ["qsub", "my job.sh"]
    assert torque.submit_command("j.sh", count=3)[-4:] == ["qsub", "-t", "1-3", "j.sh"]
    assert torque.status_command(["1.s", "2[1].s"])[-6:] == ["qstat", "-f", "-1", "-t", "1.s", "2[1].s"]
    assert torque.cancel_command(["1.s", "2[1].s"])[-3:] == ["qdel", "1.s", "2[1].s"]
    assert torque.history_command(["1.s"]) == torque.estimate_command("j.sh") == []


def test_settings_that_hide_ended_jobs_and_the_job_around_are_forgotten_but_not_the_server():
    assert {"-uPBS_QSTAT_NO_COMPLETE", "-uPBS_QSTAT_EXECONLY", "TZ=UTC"} <= set(torque.status_command(["1"]))
    assert {"-uPBS_JOBID", "-uPBS_DPREFIX", "-uPBS_NODEFILE"} <= set(torque.submit_command("j.sh"))
    assert not {"-uPBS_DEFAULT", "-uPBS_SERVER"} & set(torque.submit_command("j.sh"))


@pytest.mark.parametrize(("walltime", "told"), [("3600", True), ("", False), ("1:00:00", False), ("a b", False)])
def test_the_end_of_the_walltime_is_reckoned_from_the_jobs_start(walltime, told):
    script = f'export END="{torque.END_TIME}"; echo "$END"'
    env = {"PATH": "/usr/bin:/bin"} | ({"PBS_WALLTIME": walltime} if walltime else {})
    before = int(time.time())
    ran = subprocess.run(["bash", "-euc", script], env=env, capture_output=True, text=True, check=True)
    assert ran.stderr == ""
    if told:
        assert before <= int(ran.stdout) - 3600 <= time.time()
    else:
        assert ran.stdout == "\n"


# job ids


@pytest.mark.parametrize(
    ("stdout", "count", "ids"),
    [
        ("12.server\n", 1, ["12.server"]),
        ("qsub filter: ok\n 12.pbs-1.cluster.example \n", 1, ["12.pbs-1.cluster.example"]),
        ("12\n", 1, ["12"]),
        ("12[].server\n", 2, ["12[1].server", "12[2].server"]),
    ],
)
def test_job_ids(stdout, count, ids):
    assert torque.parse_job_ids(stdout, count) == ids


@pytest.mark.parametrize("stdout", ["", "12[].server", "12.server is yours", "qsub: Unknown queue MSG=cannot locate"])
def test_no_job_id(stdout):
    with pytest.raises(UnreadableOutput) as unread:
        torque.parse_job_ids(stdout)
    assert repr(stdout) in str(unread.value)


# states


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        ({"job_state": "Q"}, {"state": JobState.PENDING}),
        (
            {"job_state": "Q", "comment": "Not Running: No nodes available"},
            {"state": JobState.PENDING, "reason": "Not Running: No nodes available"},
        ),
        ({"job_state": "W", "Execution_Time": START}, {"state": JobState.PENDING, "start_time": NOON}),
        (
            {"job_state": "H", "Hold_Types": "u"},
            {"state": JobState.HELD, "reason": "held by its owner (Hold_Types u)"},
        ),
        (
            {"job_state": "S", "Hold_Types": "n", "start_time": START},
            {"state": JobState.HELD, "reason": "suspended (job_state S)"},
        ),
        (
            {
                "job_state": "R",
                "exec_host": "node2/0-3+node1/0",
                "Resource_List__walltime": "00:10:00",
                "start_time": START,
                "comment": "Job started on Tue Nov 14 at 22:13",
            },
            {"state": JobState.RUNNING, "node": "node2", "start_time": NOON, "end_time": NOON + 600},
        ),
        ({"job_state": "E", "exec_host": "node1/0"}, {"state": JobState.COMPLETING, "node": "node1"}),
        (
            {"job_state": "C", "exit_status": "0", "start_time": START, "comp_time": LATER},
            {"state": JobState.DONE, "start_time": NOON, "end_time": NOON + 600, "exit_status": 0},
        ),
        (
            {"job_state": "C", "exit_status": "43"},
            {"state": JobState.FAILED, "reason": "exit status 43", "exit_status": 43},
        ),
        (
            {"job_state": "C", "exit_status": "265"},
            {"state": JobState.FAILED, "reason": "killed by signal 9", "exit_status": 137},
        ),
        ({"job_state": "C", "exit_status": "271"}, {"state": JobState.CANCELLED, "exit_status": 143}),
        ({"job_state": "C"}, {"state": JobState.CANCELLED}),
        (
            {
                "job_state": "C",
                "exit_status": "271",
                "resources_used__walltime": "00:10:21",
                "Resource_List__walltime": "00:10:00",
            },
            {"state": JobState.FAILED, "reason": "the walltime was reached (exit_status 271)", "exit_status": 143},
        ),
        (
            {"job_state": "C", "exit_status": "-11"},
            {"state": JobState.FAILED, "reason": "the walltime was reached (exit_status -11)"},
        ),
        (
            {"job_state": "C", "exit_status": "-10"},
            {"state": JobState.FAILED, "reason": "it used more memory than it had asked for (exit_status -10)"},
        ),
        (
            {"job_state": "C", "exit_status": "-99"},
            {"state": JobState.FAILED, "reason": "Torque ended it (exit_status -99)"},
        ),
        ({"job_state": "Z"}, {"state": JobState.UNKNOWN}),
    ],
)
def test_a_status(told, expected):
    assert status(**told) == JobStatus(job_id="12.server", **expected)


def test_tasks_of_an_array_and_unknown_jobs():
    text = answer("12[1].server", job_state="R") + answer("12[2].server", job_state="Q")
    result = answered(text, "qstat: Unknown Job Id Error 9.server\n", 153)
    assert {job_id: told.state for job_id, told in torque.parse_status(result).items()} == {
        "12[1].server": JobState.RUNNING,
        "12[2].server": JobState.PENDING,
    }
    assert torque.parse_status(answered("", "qstat: Unknown Job Id Error 9.server\n", 153)) == {}
    assert torque.parse_status(answered(answer("12[].server", job_state="Q"))) == {}


def test_lines_that_are_folded_all_the_same_are_unfolded():
    folded = "Job Id: 1.s\n    job_state = Q\n    comment = Not Running: No nod\n\tes available\n"
    assert torque.parse_status(answered(folded))["1.s"].reason == "Not Running: No nodes available"


@pytest.mark.parametrize(
    ("stderr", "exit_status"),
    [
        ("qstat: cannot connect to server server (errno=111) Connection refused\n", 111),
        ("qstat: Unknown Job Id Error 1.s\nqstat: cannot connect to server s (errno=15096) Error\n", 153),
        ("bash: qstat: command not found\n", 127),
        ("", 1),
    ],
)
def test_no_answer_is_told_in_torques_words(stderr, exit_status):
    with pytest.raises(UnreadableOutput) as unread:
        torque.parse_status(answered(answer("1.s", job_state="R"), stderr, exit_status))
    assert (stderr or "qstat").split()[-1] in str(unread.value)


# cancel


@pytest.mark.parametrize(
    ("stderr", "exit_status", "cancelled"),
    [
        ("", 0, True),
        ("qdel: Unknown Job Id Error 9.server\n", 153, True),
        ("qdel: nonexistent job id: 9.server\n", 153, True),
        ("qdel: Request invalid for state of job MSG=invalid state for job - COMPLETE 12.server\n", 170, True),
        ("qdel: Unauthorized Request  MSG=operation not permitted 12.server\n", 159, False),
        ("qdel: nonexistent job id: 9.s\nqdel: Server could not connect to MOM 12.server\n", 222, False),
        ("qdel: cannot connect to server server (errno=111) Connection refused\n", 111, False),
        ("", 1, False),
    ],
)
def test_whether_it_is_cancelled(stderr, exit_status, cancelled):
    assert torque.is_cancelled(answered("", stderr, exit_status)) is cancelled


# queues


def test_queues():
    text = (
        "Server: server\n    server_state = Active\n    default_queue = batch\n\n"
        "Queue: batch\n    queue_type = Execution\n    total_jobs = 0\n    resources_max.walltime = 24:00:00\n"
        "    enabled = True\n    started = True\n\n"
        "Queue: drained\n    queue_type = Execution\n    acl_group_enable = True\n    enabled = False\n"
        "    started = False\n\n"
    )
    assert torque.parse_queues(answered(text)) == [
        Queue(name="batch", is_default=True, walltime_limit_s=86400),
        Queue(name="drained", is_open=False, note="takes no jobs, runs no jobs, not for everybody"),
    ]
    with pytest.raises(UnreadableOutput, match="cannot connect"):
        torque.parse_queues(answered("", "qstat: cannot connect to server s (errno=111)\n", 111))


# Slurm's wrappers


def test_a_number_without_a_server_is_an_id():
    assert torque.parse_job_ids(said("torque-wrappers", "10-submit", "qsub demo.pbs").stdout) == ["1"]


def test_the_wrappers_full_status_is_read():
    (step,) = [step for step in transcript("torque-wrappers", "10-submit") if "qstat -f 1; qstat -n" in step.command]
    text = step.stdout[step.stdout.index("Job Id:\t1\n") :]
    told = torque.parse_status(answered(text))["1"]
    assert (told.state, told.node) == (JobState.RUNNING, "node1")


def test_the_wrappers_exit_status_of_an_unknown_job_is_torques():
    told = said("torque-wrappers", "20-errors", "qstat 999999; echo rc=$?").stdout
    assert "\nrc=153\n" in told


def test_jobs_on_two_nodes_are_read_by_others_as_they_are_meant():
    # -l nodes=2:ppn=2, each node with its cores
    assert "TRES=cpu=4,mem=4000M,node=2" in said("torque-wrappers", "10-submit", "qstat -f 1; qstat -n").stdout


@pytest.mark.parametrize("name", transcripts("torque-wrappers"))
def test_every_recorded_answer_is_read_or_told_to_be_unreadable(name):
    steps = transcript("torque-wrappers", name)
    assert steps
    for step in steps:
        read(step.result)


def read(result: Result) -> None:
    """Each parser gives a value, or says that it cannot."""
    for parse in (torque.parse_status, torque.parse_queues, torque.parse_estimate):
        with suppress(UnreadableOutput):
            parse(result)
    with suppress(UnreadableOutput):
        assert torque.parse_job_ids(result.stdout)
    assert torque.is_cancelled(result) is (result.exit_status == 0)
