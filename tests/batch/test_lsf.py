"""LSF, by what its documentation says; no answer here was recorded. `tests/fakes` has jobs that run."""

from __future__ import annotations

import json
import subprocess
from typing import Any

import pytest
from fixtures import job_spec

from batch.transcripts import answered
from hpclab.batch import lsf
from hpclab.errors import ConfigError, UnreadableOutput
from hpclab.job import Chunk, JobState, JobStatus, Queue
from hpclab.result import Result

NOW = 1795230000.0  # 2026-11-21 03:00:00
MINUTE = 60.0


def answer(*records: dict[str, Any], clock: str = f"{NOW:.0f}\n", stderr: str = "", exit_status: int = 0) -> Result:
    """What the clock and `bjobs -json` say."""
    text = json.dumps({"COMMAND": "bjobs", "JOBS": len(records), "RECORDS": records}, indent=2)
    return answered(clock + text + "\n", stderr, exit_status)


def record(job_id: str, stat: str, **more: str) -> dict[str, str]:
    """All fields that are asked for."""
    return {**dict.fromkeys(lsf._FIELDS.upper().split(), ""), "JOBID": job_id, "JOBINDEX": "0", "STAT": stat, **more}


def only(result: Result) -> JobStatus:
    (status,) = lsf.parse_status(result).values()
    return status


# directives


def test_directives():
    assert lsf.directives(job_spec()) == [
        "-J hpclab-calm-otter",
        "-n 7",
        '-R "span[hosts=1]"',
        '-R "rusage[mem=1024MB]"',
        "-M 1024MB",
        "-W 1:00",
        "-o /home/ada/.hpclab/sessions/calm-otter/logs/%J.out",
        "-rn",
    ]


def test_what_else_can_be_asked_for_and_the_sites_own_last():
    chunks = (Chunk(count=2, cores=4, memory_bytes=2**30, gpus=1),)
    spec = job_spec(
        chunks=chunks, partition="gpu", account="my project", constraint="avx2 && !old", extra=("-x", "-app cool")
    )
    assert lsf.directives(spec)[8:] == [
        "-q gpu",
        '-P "my project"',
        '-R "select[avx2 && !old]"',
        '-gpu "num=2"',
        "-x",
        "-app cool",
    ]


def test_several_nodes_are_filled_alike_and_each_has_its_gpus():
    chunks = (Chunk(count=1, cores=1, memory_bytes=2**30), Chunk(count=3, cores=4, memory_bytes=2**32, gpus=2))
    lines = lsf.directives(job_spec(chunks=chunks, nodes=3))
    assert lines[1:3] == ["-n 13", '-R "span[ptile=5]"']
    assert '-gpu "num=2"' in lines


@pytest.mark.parametrize(
    ("options", "memory"),
    [
        ({}, "1025MB"),
        ({"lsf_memory_unit": "KB"}, "1048577KB"),
        ({"lsf_memory_unit": "GB"}, "2GB"),
        ({"lsf_memory_per": "host"}, "2049MB"),
    ],
)
def test_memory_is_rounded_up(options, memory):
    spec = job_spec(chunks=(Chunk(count=1, cores=2, memory_bytes=2**31 + 1),), options=options)
    assert f"-M {memory}" in lsf.directives(spec)
    assert f'-R "rusage[mem={memory}]"' in lsf.directives(spec)


@pytest.mark.parametrize(
    ("walltime_s", "limit"), [(1, "0:01"), (60, "0:01"), (61, "0:02"), (3600, "1:00"), (360000, "100:00")]
)
def test_the_walltime_is_rounded_up_to_minutes(walltime_s, limit):
    assert f"-W {limit}" in lsf.directives(job_spec(walltime_s=walltime_s))


@pytest.mark.parametrize(
    ("log", "line"),
    [
        ("/a/{job_id}.log", "-o /a/%J.out"),
        ("/two words/{job_id}.log", '-o "/two words/%J.out"'),
        ("/it's/{job_id}.log", '-o "/it\'s/%J.out"'),
        ("/Größe/{job_id}.log", "-o /Größe/%J.out"),
        ("{job_id}.log", "-o %J.out"),
    ],
)
def test_lsfs_own_report_goes_beside_the_log(log, line):
    assert line in lsf.directives(job_spec(log=log))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"log": '/a "b"/{job_id}'}, "cannot be told of '\"'"),
        ({"log": "/100%/{job_id}"}, "placeholder"),
        ({"log": "/$HOME/{job_id}"}, "cannot be told of '\\$'"),
        ({"qos": "high"}, "LSF has no QOS"),
        ({"partition": "a\nb"}, "cannot be told of"),
        ({"constraint": 'a"]'}, "cannot be told of"),
        ({"options": {"lsf_memory_unit": "MiB"}}, "KB, MB, GB"),
        ({"options": {"lsf_memory_per": "job"}}, "slot or host"),
    ],
)
def test_what_lsf_cannot_be_told_is_refused(changes, said):
    with pytest.raises(ConfigError, match=said):
        lsf.directives(job_spec(**changes))


# commands, with a bsub that tells what it was given


@pytest.fixture
def tell(tmp_path):
    """Runs an argv where each of LSF's commands tells its arguments, its environment and its input."""
    for name in ("bsub", "bjobs", "bkill", "bqueues"):
        path = tmp_path / name
        path.write_text('#!/bin/bash\nprintf "<%s>" "$@"; echo; env | grep -E "^(LSB|LS|BSUB|TZ|LC)_?" | sort; cat\n')
        path.chmod(0o755)

    def run(argv: list[str], **env: str) -> str:
        env = {"PATH": f"{tmp_path}:/usr/bin:/bin", **env}
        return subprocess.run(argv, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True).stdout

    return run


def test_the_script_is_read_from_stdin_whatever_its_name(tell, tmp_path):
    script = tmp_path / "my 'job' $(no).sh"
    script.write_text("#!/bin/bash\n")
    assert tell(lsf.submit_command(str(script))) == "<>\n#!/bin/bash\n"


def test_an_outer_job_and_the_users_switches_do_not_leak_into_the_new_job(tell, tmp_path):
    (tmp_path / "job.sh").write_text("")
    leaks = {"LSB_JOBID": "9", "LSB_HOSTS": "a b", "LS_JOBPID": "7", "BSUB_QUIET": "y", "BSUB_CHK_RESREQ": "y"}
    said = tell(lsf.submit_command(str(tmp_path / "job.sh")), LSB_DEFAULTQUEUE="mine", **leaks)
    assert said == "<>\nLSB_DEFAULTQUEUE=mine\n"


def test_an_array_keeps_the_scripts_name_and_has_reports_of_its_own(tell, tmp_path):
    script = tmp_path / "job.sh"
    script.write_text("#!/bin/bash\n#BSUB -J calm-otter\n#BSUB -J other\n")
    argv = lsf.submit_command(str(script), count=3, log="/two words/{job_id}.log")
    assert tell(argv).splitlines()[0] == "<-J><calm-otter[1-3]><-o></two words/%J.%I.out>"


def test_questions_are_asked_in_utc_and_without_the_users_formats(tell):
    said = tell(lsf.status_command(["1", "2[3]"]), LSB_BJOBS_FORMAT="jobid", TZ="Asia/Tokyo").splitlines()
    assert said[0].isdecimal()
    assert said[1:] == [f"<-a><-json><-o><{lsf._FIELDS}><1><2[3]>", "LC_ALL=C", "LSB_NTRIES=2", "TZ=UTC0"]
    assert tell(lsf.cancel_command(["1", "2[3]"])).splitlines()[0] == "<1><2[3]>"
    assert tell(lsf.queues_command()).splitlines()[0] == "<-l>"


@pytest.mark.parametrize(
    ("env", "job_id"),
    [
        ({"LSB_JOBID": "17", "LSB_JOBINDEX": "0"}, "17"),
        ({"LSB_JOBID": "17", "LSB_JOBINDEX": "4"}, "17[4]"),
        ({"LSB_JOBID": "17"}, "17"),
        ({}, ""),
    ],
)
def test_a_job_knows_its_id(tell, env, job_id):
    assert tell(["bash", "-euc", f'set +u; export ID="{lsf.JOB_ID}"; echo "$ID"'], **env) == job_id + "\n"


# submitting


@pytest.mark.parametrize(
    ("stdout", "count", "ids"),
    [
        ("Job <123> is submitted to queue <normal>.\n", 1, ["123"]),
        ("Job <123> is submitted to default queue <normal>.\n", 1, ["123"]),
        ("Welcome!\nJob <1> is a nice number\nJob <123> is submitted to queue <a b>.\nBye\n", 1, ["123"]),
        ("Job <5> is submitted to queue <normal>.\n", 3, ["5[1]", "5[2]", "5[3]"]),
    ],
)
def test_the_job_ids(stdout, count, ids):
    assert lsf.parse_job_ids(stdout, count) == ids


@pytest.mark.parametrize("stdout", ["", "123\n", "Job <> is submitted to queue <normal>.", "Job not submitted.\n"])
def test_no_job_id(stdout):
    with pytest.raises(UnreadableOutput, match="no job id"):
        lsf.parse_job_ids(stdout)


# states


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (
            record("1", "PEND", PEND_REASON="New job is waiting for scheduling;", ESTIMATED_START_TIME="Nov 21 04:00"),
            JobStatus(
                job_id="1",
                state=JobState.PENDING,
                reason="New job is waiting for scheduling;",
                start_time=NOW + 60 * MINUTE,
            ),
        ),
        (
            record("1", "PSUSP", PEND_REASON="The job was suspended by the user while pending;"),
            JobStatus(
                job_id="1",
                state=JobState.HELD,
                reason="The job was suspended by the user while pending; (PSUSP)",
            ),
        ),
        (
            record(
                "1",
                "RUN",
                EXEC_HOST="4*node17:4*node18",
                START_TIME="Nov 21 02:58",
                RUN_TIME="90 second(s)",
                FINISH_TIME="Nov 21 03:58 L",
            ),
            JobStatus(
                job_id="1",
                state=JobState.RUNNING,
                node="node17",
                start_time=NOW - 90,
                end_time=NOW - 90 + 60 * MINUTE,
            ),
        ),
        (
            record("1", "SSUSP", EXEC_HOST="node17", START_TIME="Nov 21 02:58", FINISH_TIME="Nov 21 03:58 L"),
            JobStatus(
                job_id="1",
                state=JobState.HELD,
                reason="suspended (SSUSP)",
                node="node17",
                start_time=NOW - 2 * MINUTE,
            ),
        ),
        (
            record("1", "DONE", EXEC_HOST="node17", START_TIME="Nov 21 02:50", FINISH_TIME="Nov 21 02:55"),
            JobStatus(
                job_id="1",
                state=JobState.DONE,
                node="node17",
                start_time=NOW - 10 * MINUTE,
                end_time=NOW - 5 * MINUTE,
                exit_status=0,
            ),
        ),
        (
            record("1", "EXIT", EXIT_CODE="43", FINISH_TIME="Nov 21 02:55"),
            JobStatus(job_id="1", state=JobState.FAILED, end_time=NOW - 5 * MINUTE, exit_status=43),
        ),
        (
            record(
                "1",
                "EXIT",
                EXIT_CODE="140",
                EXIT_REASON="TERM_RUNLIMIT: job killed after reaching LSF run time limit",
            ),
            JobStatus(
                job_id="1",
                state=JobState.FAILED,
                reason="the walltime was reached (TERM_RUNLIMIT: job killed after reaching LSF run time limit)",
                exit_status=140,
            ),
        ),
        (
            record("1", "EXIT", EXIT_CODE="130", EXIT_REASON="TERM_OWNER: job killed by owner", KILL_REASON="enough"),
            JobStatus(
                job_id="1",
                state=JobState.CANCELLED,
                reason="cancelled (TERM_OWNER: job killed by owner; enough)",
                exit_status=130,
            ),
        ),
        (
            record("1", "UNKWN", EXEC_HOST="node17"),
            JobStatus(
                job_id="1",
                state=JobState.UNKNOWN,
                reason="LSF has lost contact with its node (UNKWN)",
                node="node17",
            ),
        ),
        (record("1", "DREAM"), JobStatus(job_id="1", state=JobState.UNKNOWN, reason="DREAM")),
        (record("7[2]", "PEND"), JobStatus(job_id="7[2]", state=JobState.PENDING)),
        (record("7", "PEND", JOBINDEX="2"), JobStatus(job_id="7[2]", state=JobState.PENDING)),
        ({"JOBID": "1", "STAT": "RUN"}, JobStatus(job_id="1", state=JobState.RUNNING)),
        ({"JOBID": 1, "STAT": "PROV", "EXIT_CODE": None}, JobStatus(job_id="1", state=JobState.PENDING)),
    ],
)
def test_a_status(given, expected):
    assert only(answer(given)) == expected


@pytest.mark.parametrize(
    "term",
    ["TERM_OWNER", "TERM_ADMIN", "TERM_FORCE_OWNER", "TERM_FORCE_ADMIN", "TERM_BUCKET_KILL"],
)
def test_whoever_cancelled_it_it_is_cancelled(term):
    assert only(answer(record("1", "EXIT", EXIT_REASON=f"{term}: job killed"))).state is JobState.CANCELLED


@pytest.mark.parametrize("term", ["TERM_MEMLIMIT", "TERM_ZOMBIE", "TERM_PREEMPT", "TERM_NEW_IN_LSF_11"])
def test_what_ended_for_another_reason_has_failed(term):
    status = only(answer(record("1", "EXIT", EXIT_REASON=f"{term}: job killed")))
    assert status.state is JobState.FAILED
    assert term in status.reason


@pytest.mark.parametrize(
    "reason",
    ["There are no suitable hosts for the job;", "Job dependency condition invalid or never satisfied"],
)
def test_a_job_that_will_not_start_says_so(reason):
    assert "(it will not start: " in only(answer(record("1", "PEND", PEND_REASON=reason))).reason


@pytest.mark.parametrize(
    ("text", "time"),
    [
        ("Nov 21 03:00", NOW),
        ("Nov 21 03:00:07", NOW + 7),
        ("Nov 21 03:00:07 2026", NOW + 7),
        ("Nov 21 03:00 2026", NOW),
        ("Nov 21 03:00 L", NOW),
        ("Nov 21 03:00 E", None),
        ("Dec 31 23:59", 1798761540.0),
        ("Jan  1 00:00", 1798761600.0),  # the next
        ("Oct  2 00:00", 1790899200.0),
        ("Feb 29 00:00", None),
        ("Nov 31 00:00", None),
        ("Nov 21 31:99", None),
        ("Nov 21 03:00 0000", None),
        ("Mon 21 03:00", None),
        ("soon", None),
        ("-", None),
        ("", None),
    ],
)
def test_a_time_is_the_one_next_to_the_clock(text, time):
    assert lsf._time(text, NOW) == time


def test_without_the_clock_only_times_with_a_year_are_known():
    assert lsf._time("Nov 21 03:00", None) is None
    assert lsf._time("Nov 21 03:00:00 2026", None) == NOW


def test_jobs_that_lsf_does_not_know_are_left_out():
    result = answer(record("1", "RUN"), {"JOBID": "2", "ERROR": "Job <2> is not found"}, exit_status=255)
    assert list(lsf.parse_status(result)) == ["1"]


@pytest.mark.parametrize(
    "stderr",
    ["Job <9> is not found\n", "Job <9> is not found\nJob <10[2]> is not found\n", "No unfinished job found\n"],
)
def test_none_of_the_jobs_is_known(stderr):
    assert lsf.parse_status(answered(f"{NOW:.0f}\n", stderr, 255)) == {}


def test_a_banner_before_the_answer_is_passed_over():
    result = answer(record("1", "RUN"))
    noisy = answered("Welcome {to} 12 nodes\n" + result.stdout + "Bye {}\n", "perl: warning", 0)
    with pytest.raises(UnreadableOutput):
        lsf.parse_status(noisy)
    assert list(lsf.parse_status(answered("Welcome {to} 12 nodes\n" + result.stdout, "perl: warning", 0))) == ["1"]


@pytest.mark.parametrize(
    ("stdout", "stderr", "exit_status"),
    [
        ("1795230000\n", "LSF is down. Please wait ...\n", 255),
        ("1795230000\n", "Failed in an LSF library call: Slave LIM configuration is not ready yet\n", 255),
        ("1795230000\n", "Job <9> is not found\nbatch system daemon not responding ... still trying\n", 255),
        ("", "bash: line 4: exec: bjobs: not found\n", 127),
        ("1795230000\n", "", 255),
        ("", "", 1),
    ],
)
def test_no_answer_is_not_the_answer_that_there_are_no_jobs(stdout, stderr, exit_status):
    with pytest.raises(UnreadableOutput) as unread:
        lsf.parse_status(answered(stdout, stderr, exit_status))
    assert str(unread.value)


@pytest.mark.parametrize(
    "text", ["{", '{"RECORDS": 1}', '{"RECORDS": [1]}', '{"JOBS": 0}', '{"RECORDS": {"a": 1}}', "{" * 9999 + "}" * 9999]
)
def test_an_answer_that_cannot_be_read(text):
    with pytest.raises(UnreadableOutput):
        lsf.parse_status(answered(text))


# cancelling


@pytest.mark.parametrize(
    ("stdout", "stderr", "exit_status", "cancelled"),
    [
        ("Job <1> is being terminated\n", "", 0, True),
        ("", "Job <1>: Job has already finished\n", 255, True),
        ("Job <1> is being terminated\n", "Job <2[3]>: No matching job found\n", 255, True),
        ("", "Job <1>: User permission denied\n", 255, False),
        ("Job <1> is being terminated\n", "Job <2>: User permission denied\n", 255, False),
        ("", "LSF is down. Please wait ...\n", 255, False),
        ("", "", 255, False),
    ],
)
def test_whether_it_is_cancelled(stdout, stderr, exit_status, cancelled):
    assert lsf.is_cancelled(answered(stdout, stderr, exit_status)) is cancelled


# queues

QUEUES = """\
QUEUE: normal
  -- For normal low priority jobs.  This is the default queue.

PARAMETERS/STATISTICS
PRIO NICE STATUS          MAX JL/U JL/P JL/H NJOBS  PEND   RUN SSUSP USUSP  RSV
 30   20  Open:Active       -    -    -    -     2     0     2     0     0    0

DEFAULT LIMITS:
 RUNLIMIT
 60.0 min

MAXIMUM LIMITS:
 RUNLIMIT
 1440.0 min of hostA
-------------------------------------------------------------------------------

QUEUE: night
  -- For the night

PARAMETERS/STATISTICS
PRIO NICE STATUS          MAX JL/U JL/P JL/H NJOBS  PEND   RUN SSUSP USUSP  RSV
 40    0  Open:Inact_Win    -    -    -    -     0     0     0     0     0    0

MAXIMUM LIMITS:
 CPULIMIT              RUNLIMIT
 20.0 min of IBM350    342.5 min of IBM350
-------------------------------------------------------------------------------

QUEUE: free
"""


def test_queues():
    assert lsf.parse_queues(answered(QUEUES)) == [
        Queue(name="normal", is_default=True, walltime_limit_s=86400, note="For normal low priority jobs."),
        Queue(name="night", is_open=False, walltime_limit_s=20550, note="Open:Inact_Win"),
        Queue(name="free"),
    ]


def test_no_queues():
    with pytest.raises(UnreadableOutput, match="LSF is down"):
        lsf.parse_queues(answered("", "LSF is down\n", 255))
