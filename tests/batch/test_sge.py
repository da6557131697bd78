"""Grid Engine, by what it says; the answers are recorded ones of 8.1.9, or pieces of them."""

from __future__ import annotations

import contextlib
import re
import subprocess
from datetime import UTC, datetime

import pytest
from fixtures import job_spec
from hypothesis import given, settings
from hypothesis import strategies as st

from batch.transcripts import answered, said, transcript, transcripts
from hpclab.batch import BatchSystem, sge
from hpclab.errors import ConfigError, UnreadableOutput
from hpclab.job import Chunk, JobState, JobStatus, Place, Queue
from hpclab.result import Result

NOTHING = "<?xml version='1.0'?>\n<job_info>\n</job_info>\n"


def qstat(asked: str, xml: str = NOTHING, *, silent: str = "", told: str = "") -> Result:
    """What the status command says when qstat says this to its three questions."""
    return answered(f"asked: {asked}\n{xml}\nsilent:\n{silent}\ntold:\n{told}")


def job(number: str = "7", state: str = "r", **more: str) -> str:
    fields = {"JB_job_number": number, "state": state, **more}
    listed = "".join(f"<{name}>{text}</{name}>" for name, text in fields.items())
    return f"<?xml version='1.0'?>\n<job_info><queue_info><job_list>{listed}</job_list></queue_info></job_info>"


def xml_in(text: str) -> str:
    """The first XML document in what several commands said."""
    found = re.search(r"^<\?xml.*?^</job_info>\n", text, re.MULTILINE | re.DOTALL)
    assert found
    return found[0]


def silent_queues(text: str) -> str:
    """The rows of `qstat -f` with a queue in state u, as its XML has them."""
    rows = re.findall(r"(\S+@\S+) +BIP +\S+ +-NA- +lx-amd64 +(\w+)", text)
    queues = "".join(f"<Queue-List><name>{name}</name><state>{state}</state></Queue-List>" for name, state in rows)
    return f"<?xml version='1.0'?>\n<job_info><queue_info>{queues}</queue_info></job_info>"


def at(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


def only(statuses: dict[str, JobStatus]) -> JobStatus:
    (status,) = statuses.values()
    return status


def test_it_is_a_batch_system():
    batch: BatchSystem = sge
    assert batch.DIRECTIVE == "#$"


# directives


def test_directives():
    assert sge.directives(job_spec()) == [
        "-S /bin/bash",
        "-N hpclab-calm-otter",
        "-r n",
        "-notify",
        "-m n",
        "-j y",
        '-o "/home/ada/.hpclab/sessions/calm-otter/logs/$JOB_ID.out"',
        "-l h_rt=3600",
        "-pe smp 7",
        "-l mem_free=1024M",
        "-w n",
    ]


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"partition": "long.q"}, "-q long.q"),
        ({"account": "physics"}, "-P physics"),
        ({"constraint": "arch=lx-amd64"}, "-l arch=lx-amd64"),
        ({"extra": ("-l site=1",)}, "-l site=1"),
        ({"options": {"sge_pe": "threads"}}, "-pe threads 7"),
        ({"nodes": 2}, "-pe mpi 7"),
        ({"nodes": 2, "options": {"sge_pe_nodes": "orte"}}, "-pe orte 7"),
        ({"nodes": 2, "chunks": (Chunk(count=1, cores=1, memory_bytes=1),)}, "-pe mpi 1"),
        ({"options": {"sge_memory": "h_vmem"}}, "-l h_vmem=1024M"),
        ({"chunks": (Chunk(count=3, cores=1, memory_bytes=2**20 + 1),)}, "-l mem_free=2M"),
        ({"chunks": (Chunk(count=2, cores=2, memory_bytes=2**30, gpus=1),)}, "-l gpu=2"),
        ({"chunks": (Chunk(count=3, cores=2, memory_bytes=2**30, gpus=1),), "nodes": 2}, "-l gpu=2"),
        ({"chunks": (Chunk(count=1, cores=1, memory_bytes=1, gpus=1),), "options": {"sge_gpu": "v100"}}, "-l v100=1"),
        ({"log": "/two words/ü%j/{job_id}.log"}, '-o "/two words/ü%j/$JOB_ID.out"'),
        ({"log": "/a:b/{job_id}.log"}, '-o ":/a:b/$JOB_ID.out"'),
        ({"log": "/a/{job_id}"}, '-o "/a/$JOB_ID.out"'),
    ],
)
def test_a_directive_for_what_is_asked(changes, line):
    assert line in sge.directives(job_spec(**changes))


def test_one_slot_needs_no_parallel_environment():
    spec = job_spec(chunks=(Chunk(count=1, cores=1, memory_bytes=2**30),))
    assert not [line for line in sge.directives(spec) if line.startswith("-pe")]


@pytest.mark.parametrize("memory", ["none", "h_vmem"])
def test_only_a_load_value_needs_the_verification_off(memory):
    lines = sge.directives(job_spec(options={"sge_memory": memory}))
    assert "-w n" not in lines
    assert ("mem" in "".join(lines)) == (memory != "none")


@pytest.mark.parametrize(
    "log", ["/it's/{job_id}", '/a"b/{job_id}', "/a,b/{job_id}", "/$HOME/{job_id}", "/a\nb/{job_id}"]
)
def test_a_path_that_it_cannot_take_is_refused(log):
    with pytest.raises(ConfigError, match="use a folder without"):
        sge.directives(job_spec(log=log))


def test_a_qos_is_refused():
    with pytest.raises(ConfigError, match="no qos"):
        sge.directives(job_spec(qos="high"))


# ids


@pytest.mark.parametrize(
    ("environment", "job_id"),
    [
        ({}, ""),
        ({"JOB_ID": "7", "SGE_TASK_ID": "undefined"}, "7"),
        ({"JOB_ID": "7"}, "7"),
        ({"JOB_ID": "7", "SGE_TASK_ID": "3"}, "7.3"),
    ],
)
def test_a_running_job_finds_its_id(environment, job_id):
    echo = ["bash", "-c", f'export IT="{sge.JOB_ID}"; echo "$IT"']
    run = subprocess.run(echo, env={"PATH": "/usr/bin:/bin", **environment}, capture_output=True, text=True, check=True)
    assert (run.stdout, run.stderr) == (f"{job_id}\n", "")


def test_a_script_is_a_word_of_the_command():
    assert sge.submit_command("a b.sh")[-5:] == ["qsub", "-terse", "-b", "n", "a b.sh"]
    array = sge.submit_command("a b.sh", count=3, log="/two words/{job_id}.log")
    assert array[-5:] == ["-t", "1-3", "-o", "/two words/$JOB_ID.$TASK_ID.out", "a b.sh"]


@pytest.mark.parametrize(
    ("stdout", "count", "ids"),
    [
        (said("sge", "22-other-user", "qsub").stdout, 1, ["18"]),
        ("Welcome, 42 users\n17\n", 1, ["17"]),
        ("7.1-4:1\n", 4, ["7.1", "7.2", "7.3", "7.4"]),
        ("12\n7.1-2:1\n", 2, ["7.1", "7.2"]),
    ],
)
def test_the_ids(stdout, count, ids):
    assert sge.parse_job_ids(stdout, count) == ids


@pytest.mark.parametrize(
    ("stdout", "count"),
    [("", 1), ("7 8", 1), ("-7", 1), ("7.1-4:1", 1), ("7.1-4:1", 5), ("7", 2), ("7.1-999999999999:1", 2), ("٧", 1)],
)
def test_no_ids(stdout, count):
    with pytest.raises(UnreadableOutput):
        sge.parse_job_ids(stdout, count)


@pytest.mark.parametrize("command", ["qsub -sync y -b y -o /dev/null -e /dev/null false"])
def test_an_answer_in_a_sentence_is_no_answer_to_our_question(command):
    with pytest.raises(UnreadableOutput):
        sge.parse_job_ids(said("sge", "12-sync", command).stdout)


# states


def test_the_states_of_held_and_running_jobs_and_of_the_tasks_of_an_array():
    step = said("sge", "40-hold-array", "qstat -xml")
    ids = "21 22 23 24.1 24.2 24.3 24.4 24.5 25"
    statuses = sge.parse_status(qstat(ids, xml_in(step.stdout)))
    assert {job_id: status.state for job_id, status in statuses.items()} == {
        "21": JobState.RUNNING,
        "22": JobState.HELD,
        "23": JobState.HELD,
        "24.1": JobState.RUNNING,
        "24.2": JobState.RUNNING,
        "24.3": JobState.PENDING,
        "24.4": JobState.PENDING,
    }
    assert statuses["22"].reason == "held (hqw)"
    assert statuses["24.2"].node == "node2.minihpc.test"
    assert statuses["24.2"].start_time == at("2026-11-20 23:29:34")


@pytest.mark.parametrize(
    ("letters", "state"),
    [
        ("qw", JobState.PENDING),
        ("Rq", JobState.PENDING),
        ("hqw", JobState.HELD),
        ("hRwq", JobState.HELD),
        ("t", JobState.RUNNING),
        ("r", JobState.RUNNING),
        ("Rr", JobState.RUNNING),
        ("hr", JobState.RUNNING),
        ("s", JobState.HELD),
        ("tS", JobState.HELD),
        ("T", JobState.HELD),
        ("Eqw", JobState.HELD),
        ("Ehqw", JobState.HELD),
        ("dr", JobState.COMPLETING),
        ("dt", JobState.COMPLETING),
        ("", JobState.UNKNOWN),
        ("?", JobState.UNKNOWN),
    ],
)
def test_letters(letters, state):
    assert only(sge.parse_status(qstat("7", job(state=letters)))).state is state


def test_a_running_jobs_end_is_its_start_and_its_walltime():
    xml = job(JAT_start_time="2026-11-21T03:53:49").replace(
        "</job_list>", '<hard_request name="h_rt" resource_contribution="0.000000">600</hard_request></job_list>'
    )
    status = only(sge.parse_status(qstat("7", xml)))
    assert (status.start_time, status.end_time) == (at("2026-11-21 03:53:49"), at("2026-11-21 04:03:49"))


@pytest.mark.parametrize(
    ("tasks", "known"),
    [("3,4", "3"), ("1-75000:1", "2 5"), ("1-10:3", "4 10"), ("2-1798:2,1800-2000:1", "2 1999"), ("", ""), ("x", "")],
)
def test_only_the_tasks_that_were_asked_for(tasks, known):
    asked = " ".join(f"7.{task}" for task in [2, 3, 4, 5, 10, 1999, 75001])
    statuses = sge.parse_status(qstat(asked, job(state="qw", tasks=tasks)))
    assert {job_id.partition(".")[2] for job_id in statuses} >= set(known.split())
    assert len(statuses) < 7


def test_with_a_line_for_each_slot_the_masters_node_counts():
    rows = [("MASTER", "all.q@node1"), ("SLAVE", "all.q@node2")]
    lists = "".join(
        f"<job_list><JB_job_number>7</JB_job_number><state>r</state><queue_name>{queue}</queue_name>"
        f"<master>{master}</master></job_list>"
        for master, queue in rows
    )
    assert only(sge.parse_status(qstat("7", f"<j>{lists}</j>"))).node == "node1"


def test_a_user_who_wants_full_output_gets_the_node_all_the_same():
    xml = (
        "<j><Queue-List><name>all.q@node2</name><state></state>"
        "<job_list><JB_job_number>7</JB_job_number><state>r</state></job_list></Queue-List></j>"
    )
    assert only(sge.parse_status(qstat("7", xml))).node == "node2"


def test_a_job_that_cannot_be_started_is_held_with_the_reason():
    step = said("sge", "21-eqw", "qsub")
    status = only(sge.parse_status(qstat("17", job("17", "Eqw"), told="job_number:    17\n" + step.stdout)))
    assert status.state is JobState.HELD
    assert status.is_hopeless
    assert status.reason == (
        'error: can\'t open output file "/nosuch/dir/x": No such file or directory (Eqw: it will not start)'
    )


def test_each_task_has_its_own_error():
    told = "job_number: 7\nerror reason    1:      one\nerror reason   12:      twelve\n"
    statuses = sge.parse_status(qstat("7.1 7.12", job("7", "Eqw", tasks="1,12"), told=told))
    assert [status.reason.split()[0] for status in statuses.values()] == ["one", "twelve"]


@pytest.mark.parametrize(
    ("command", "number", "reason"),
    [
        (
            "-l h_rt=10:00:00",
            "12",
            '(-l h_rt=36000) cannot run in queue "debug.q" because of cluster queue '
            "(that queue does not take so long a walltime)",
        ),
        (
            "-pe smp 400",
            "13",
            'cannot run in PE "smp" because it only offers 0 slots (too few slots are free, or there are fewer in all)',
        ),
    ],
)
def test_why_a_job_waits(command, number, reason):
    told = f"job_number:  {number}\n" + said("sge", "20-errors", command).stdout
    assert only(sge.parse_status(qstat(number, job(number, "qw"), told=told))).reason == reason


def test_full_queue_instances_are_counted():
    dropped = [f'queue instance "all.q@node{node}" dropped because it is {how}' for node, how in
               [(1, "full"), (2, "temporarily not available"), (3, "full"), (4, "full")]]  # fmt: skip
    slots = '(-l slots=1) cannot run in queue "node1.minihpc.test" because it offers only hc:slots=0.000000'
    lines = [*dropped, slots, 'cannot run in PE "smp" because it only offers 0 slots']
    told = "job_number: 7\nscheduling info:            " + "\n                            ".join(lines) + "\n"
    assert only(sge.parse_status(qstat("7", job(state="qw"), told=told))).reason == (
        "4 queue instances are full; 1 queue instance is temporarily not available; "
        'cannot run in PE "smp" because it only offers 0 slots (too few slots are free, or there are fewer in all)'
    )


@pytest.mark.parametrize(
    "info", ["There are no messages available", "(Collecting of scheduler job information is turned off)", ""]
)
def test_a_site_that_does_not_say_why(info):
    told = f"job_number: 7\nscheduling info:            {info}\n"
    assert only(sge.parse_status(qstat("7", job(state="qw"), told=told))).reason == ""


def test_a_running_job_on_a_node_that_died_is_unknown():
    step = said("sge", "61-node-down", "for i in")
    running = job("9", "r", queue_name="all.q@node2.minihpc.test")
    status = only(sge.parse_status(qstat("9", running, silent=silent_queues(step.stdout))))
    assert (status.state, status.node) == (JobState.UNKNOWN, "node2.minihpc.test")
    assert status.reason == "node2.minihpc.test does not answer (queue all.q@node2.minihpc.test in state u)"


def test_after_a_restart_of_the_master_nothing_is_known_until_the_nodes_have_answered():
    step = transcript("sge", "60-qmaster-down")[-1]
    here = qstat("27", job("27", "r", queue_name="all.q@node3.minihpc.test"), silent=silent_queues(step.stdout))
    assert only(sge.parse_status(here)).state is JobState.UNKNOWN


def test_other_nodes_deaths_do_not_matter():
    step = said("sge", "61-node-down", "for i in")
    here = qstat("9", job("9", "r", queue_name="all.q@node1.minihpc.test"), silent=silent_queues(step.stdout))
    assert only(sge.parse_status(here)).state is JobState.RUNNING


def test_a_job_that_it_does_not_know_is_not_among_them():
    assert sge.parse_status(qstat("7 8.1")) == {}


@pytest.mark.parametrize(
    ("name", "command", "words"),
    [
        ("60-qmaster-down", "qstat; echo", "unable to send message to qmaster"),
        ("02-no-env", "SGE_ROOT=/nosuch", "SGE_ROOT directory"),
    ],
)
def test_no_answer_is_not_the_same_as_no_jobs(name, command, words):
    step = said("sge", name, command)
    with pytest.raises(UnreadableOutput, match=words):
        sge.parse_status(answered("asked: 7\n", step.stderr, 1))


@pytest.mark.parametrize("stdout", ["", "asked: 7\n", f"asked: 7\n{job()[:80]}\nsilent:\n\ntold:\n", job()])
def test_half_an_answer_is_none(stdout):
    with pytest.raises(UnreadableOutput):
        sge.parse_status(answered(stdout))


# place


def waiting(*jobs: tuple[str, str, str]) -> Result:
    """What qstat says of number, state and owner of those that wait, in its order."""
    listed = "".join(
        f'<job_list state="pending"><JB_job_number>{number}</JB_job_number><JB_owner>{owner}</JB_owner>'
        f"<state>{state}</state></job_list>"
        for number, state, owner in jobs
    )
    return answered(f"<?xml version='1.0'?>\n<job_info><queue_info/><job_info>{listed}</job_info></job_info>\n")


# 7 is an array, 8 and 10 are held, 20 could not be started; as the real one told them, but for 20 and the tasks of 7
WAITING = waiting(
    *[("11", "qw", "ada"), ("4", "qw", "bob"), ("5", "qw", "bob"), ("6", "qw", "ada")],
    *[("7", "qw", "ada"), ("7", "qw", "ada"), ("13", "qw", "bob")],
    *[("20", "Eqw", "bob"), ("8", "hqw", "ada"), ("10", "hqw", "ada")],
)


@pytest.mark.parametrize(
    ("job_id", "place"), [("11", 1), ("6", 4), ("7.2", 5), ("13", 6), ("8", None), ("20", None), ("1", None)]
)
def test_a_jobs_place_is_that_in_qstats_order(job_id, place):
    assert sge.parse_place(WAITING, job_id) == (Place(number=place, of=6) if place else None)


def test_everybodys_jobs_are_asked_about():
    assert sge.place_command()[-5:] == ["-xml", "-u", "*", "-s", "p"]


# history


def record(text: str) -> Result:
    return answered(re.sub(r"^(?=jobnumber)", "=====\n", text, flags=re.MULTILINE))


def test_a_script_that_failed():
    assert sge.parse_history(said("sge", "31-qacct", "qacct").result) == {
        "3": JobStatus(
            job_id="3",
            state=JobState.FAILED,
            reason="exit status 3",
            node="node1.minihpc.test",
            start_time=at("2026-11-20 23:35:18"),
            end_time=at("2026-11-20 23:35:18"),
            exit_status=3,
        )
    }


def test_the_walltime_was_reached():
    statuses = sge.parse_history(record(said("sge", "51-walltime", "h_rt").stdout))
    assert [*statuses] == ["6", "7", "8"]
    for status in statuses.values():
        assert (status.state, status.exit_status) == (JobState.FAILED, 137)
        assert status.reason == "its walltime was reached (qmaster enforced h_rt, h_cpu, or h_vmem limit)"
    assert statuses["8"].end_time == at("2026-11-20 23:35:56")


@pytest.mark.parametrize("name", ["50-signals-qdel", "50-signals-qdel-notify"])
def test_a_deleted_job_is_cancelled(name):
    stdout = said("sge", name, "qdel").stdout
    status = only(sge.parse_history(answered("=====\njobnumber 7\n" + stdout)))
    assert (status.state, status.exit_status) == (JobState.CANCELLED, 137)
    assert status.reason == "killed from outside, as qdel does (failed 100: assumedly after job)"


@pytest.mark.parametrize(
    ("fields", "state", "reason", "exit_status"),
    [
        ("failed 0\nexit_status 0", JobState.DONE, "", 0),
        ("failed 0\nexit_status 143 (Terminated)", JobState.CANCELLED, "killed from outside, as qdel does", 143),
        ("failed 100 : x\nexit_status 137\ndeleted_by ada", JobState.CANCELLED, "cancelled by ada", 137),
        ("failed 100 : x\nexit_status 137\ndeleted_by NONE", JobState.FAILED, "failed 100: x", 137),
        ("failed 0\nexit_status 137 (Killed)", JobState.FAILED, "exit status 137", 137),
        ("failed 26  : opening input/output file\nexit_status 0", JobState.FAILED, "failed 26: opening", None),
        (
            "failed 37  : qmaster enforced h_rt, h_cpu, or h_vmem limit\nexit_status 137\nru_wallclock 1s\n"
            "category -l h_rt=60,h_vmem=1M",
            JobState.FAILED,
            "it took more than its limits allow, of memory most probably (qmaster enforced",
            137,
        ),
        ("start_time -/-\nend_time -/-", JobState.FAILED, "exit status None", None),
    ],
)
def test_how_a_job_ended(fields, state, reason, exit_status):
    status = only(sge.parse_history(answered(f"=====\njobnumber 7\n{fields}\n")))
    assert (status.state, status.exit_status) == (state, exit_status)
    assert status.reason.startswith(reason)


def test_the_last_record_of_a_job_over_several_nodes_is_its_own():
    records = "=====\njobnumber 7\nexit_status 0\n=====\njobnumber 7\nexit_status 5\n"
    assert only(sge.parse_history(answered(records))).exit_status == 5


def test_the_tasks_of_an_array():
    records = "=====\njobnumber 7\ntaskid 2\n=====\njobnumber 7\ntaskid 1\n"
    assert {*sge.parse_history(answered(records))} == {"7.1", "7.2"}


def test_times_of_univa():
    text = "=====\njobnumber 7\nend_time 11/20/2026 23:35:18.123\n"
    assert only(sge.parse_history(answered(text))).end_time == at("2026-11-20 23:35:18")


@pytest.mark.parametrize("step", [said("sge", "10-submit", "qdel 2"), said("sge", "11-terse", "qacct")])
def test_accounting_lags(step):
    (lagging,) = re.findall("error: job id .*", step.stderr)
    assert sge.parse_history(answered("", lagging + "\n", 1)) == {}


@pytest.mark.parametrize("said", ["bash: qacct: command not found", "/x/accounting: No such file or directory", ""])
def test_no_accounting(said):
    with pytest.raises(UnreadableOutput):
        sge.parse_history(answered("", said, 1))


# cancel


@pytest.mark.parametrize(
    ("stdout", "exit_status"),
    [
        ("ada has registered the job 2 for deletion\n", 0),
        ('ada has deleted job 50\ndenied: job "999999" does not exist\n', 1),
        ("job 24 is already in deletion\n", 1),
        ('job "22" task "5" does not exist\njob "22" task id range "8-10:1" comprises no tasks\n', 1),
    ],
)
def test_nothing_is_left_to_be_cancelled(stdout, exit_status):
    assert sge.is_cancelled(answered(stdout, exit_status=exit_status))


@pytest.mark.parametrize(
    "step", [said("sge", "22-other-user", "qstat -u"), said("sge", "60-qmaster-down", "qdel")], ids=["not ours", "down"]
)
def test_it_would_not_cancel(step):
    refusal = [line for line in step.stdout.splitlines() if re.search("privileges|unable", line)]
    assert not sge.is_cancelled(answered("\n".join(refusal), step.stderr, 1))


def test_silence_is_no_cancellation():
    assert not sge.is_cancelled(answered(exit_status=1))


# estimate, queues


def test_it_could_start_now():
    assert sge.parse_estimate(answered("1795217348\nverification: found suitable queue(s)\n")) == 1795217348


def test_it_says_why_it_could_not():
    step = said("sge", "20-errors", "-w v -pe smp 400")
    with pytest.raises(UnreadableOutput, match='Job 14 cannot run in PE "smp" because it only offers 0 slots'):
        sge.parse_estimate(answered("1795217348\n", step.stderr, 1))


SUMMARY = """<?xml version='1.0'?>
<job_info  xmlns:xsd="http://arc.liv.ac.uk/repos/darcs/sge/source/dist/util/resources/schemas/qstat/qstat.xsd">
  <cluster_queue_summary>
    <name>{}</name>
    <used>0</used>
    <available>16</available>
    <total>{}</total>
    <temp_disabled>0</temp_disabled>
    <manual_intervention>{}</manual_intervention>
  </cluster_queue_summary>
</job_info>
"""


def test_a_queue():
    settings_of_it = said("sge", "01-info", "qconf -sq").stdout.partition("\nqname")
    text = SUMMARY.format("debug.q", 16, 0) + "qname" + settings_of_it[2]
    assert sge.parse_queues(answered(text)) == [
        Queue(
            name="debug.q",
            walltime_limit_s=300,
            nodes=1,
            cores_per_node=16,
            note="parallel environments: smp mpi",
        )
    ]


def test_a_queue_with_hosts_of_its_own_and_all_of_it_broken():
    text = SUMMARY.format("all.q", 40, 40) + "qname all.q\nslots 8,[node7=32]\nh_rt INFINITY,[node7=00:05:00]\n"
    (queue,) = sge.parse_queues(answered(text))
    assert (queue.is_open, queue.cores_per_node, queue.nodes, queue.walltime_limit_s) == (False, 32, 0, 0)


# whatever is said

PARSERS = [sge.parse_status, sge.parse_history, sge.parse_estimate, sge.parse_queues]


@pytest.mark.parametrize("name", transcripts("sge"))
def test_every_recorded_answer_is_read_or_refused(name):
    for step in transcript("sge", name):
        around = qstat("1 2 21 24.3 999999", step.stdout if "<?xml" in step.stdout else NOTHING, told=step.stdout)
        for result in (step.result, around):
            sge.is_cancelled(result)
            for parse in PARSERS:
                with contextlib.suppress(UnreadableOutput):
                    parse(result)


PIECES = st.sampled_from(
    ["<?xml version='1.0'?>", "<job_list>", "</job_list>", "<tasks>1-9:0</tasks>", "asked: 7\n", "\nsilent:\n",
     "\ntold:\n", "\n====\n", "jobnumber 7\n", "failed 9999999999999999999\n", "exit_status nan\n", "qname x\n",
     "slots 99999999999999\n", "</job_info>", job(JAT_start_time="0000-99-99T00:00:00"), "end_time 1\n", "²", "\ud800"]
)  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(st.lists(PIECES | st.text(max_size=20)), st.text(max_size=20), st.integers(0, 2))
def test_any_text_is_read_or_refused(pieces, stderr, exit_status):
    text = "".join(pieces)
    for result in (answered(text, stderr, exit_status), qstat("7 7.1", text, silent=text, told=text)):
        for parse in PARSERS:
            with contextlib.suppress(UnreadableOutput):
                parse(result)
    with contextlib.suppress(UnreadableOutput):
        sge.parse_job_ids(text)
