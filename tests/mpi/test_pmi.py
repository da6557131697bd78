"""PMI-1 as MPICH and Intel MPI speak it."""

from __future__ import annotations

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpclab.mpi.pmi import Abort, Barrier, Conversation, process_mapping


def a_conversation(rank: int = 0, hosts: tuple[str, ...] = ("a", "a", "b")) -> Conversation:
    return Conversation(rank=rank, size=len(hosts), name="hpclab-1", hosts=hosts)


def test_a_start_of_mpich_5_line_by_line():
    """What a rank of the mpich wheel 5.0.2 says in MPI_Init and MPI_Finalize."""
    ours, theirs = a_conversation(0), a_conversation(1)
    begin = [
        ("cmd=init pmi_version=1 pmi_subversion=1\n", "cmd=response_to_init pmi_version=1 pmi_subversion=1 rc=0\n"),
        ("cmd=get_maxes\n", "cmd=maxes kvsname_max=256 keylen_max=64 vallen_max=4096 rc=0\n"),
        ("cmd=get_appnum\n", "cmd=appnum appnum=0 rc=0\n"),
        ("cmd=get_my_kvsname\n", "cmd=my_kvsname kvsname=hpclab-1 rc=0\n"),
        (
            "cmd=get kvsname=hpclab-1 key=PMI_process_mapping\n",
            "cmd=get_result rc=0 msg=success value=(vector,(0,1,2),(1,1,1))\n",
        ),
        ("cmd=put kvsname=hpclab-1 key=-bcast-1-0 value=2F6465762F73686D\n", "cmd=put_result rc=0 msg=success\n"),
    ]
    for said, answer in begin:
        assert ours.answer(said) == answer
    barrier = ours.answer("cmd=barrier_in\n")
    assert barrier == Barrier({"-bcast-1-0": "2F6465762F73686D"})
    assert theirs.answer("cmd=barrier_in\n") == Barrier({})
    for each in (ours, theirs):
        assert each.passed([{"-bcast-1-0": "2F6465762F73686D"}, {}]) == "cmd=barrier_out rc=0\n"
        known = "cmd=get_result rc=0 msg=success value=2F6465762F73686D\n"
        assert each.answer("cmd=get kvsname=hpclab-1 key=-bcast-1-0\n") == known
        assert each.answer("cmd=finalize\n") == "cmd=finalize_ack rc=0\n"


def test_a_start_of_intel_mpi():
    """It asks for the size of the universe, and for a version of its own."""
    said = a_conversation()
    assert said.answer("cmd=init pmi_version=1 pmi_subversion=1 \n").startswith("cmd=response_to_init pmi_version=1 ")
    assert said.answer("cmd=get_universe_size \n") == "cmd=universe_size size=3 rc=0\n"
    assert "rc=0" in said.answer(
        'cmd=put kvsname=hpclab-1 key=P0-businesscard-0 value=fabrics_list#shm:ofi$addr="x=y"$ \n'
    )
    barrier = said.answer("cmd=barrier_in \n")
    assert barrier == Barrier({"P0-businesscard-0": 'fabrics_list#shm:ofi$addr="x=y"$'})


names = st.text(string.ascii_letters + string.digits + "-_", min_size=1)


@given(names, st.text(string.ascii_letters + string.digits + " =#$(),", min_size=1).filter(lambda x: x == x.strip()))
def test_a_value_arrives_as_it_was_put(key, value):
    one, another = a_conversation(0), a_conversation(1)
    one.answer(f"cmd=put kvsname=hpclab-1 key={key} value={value}\n")
    barrier = one.answer("cmd=barrier_in\n")
    another.passed([barrier.puts])
    assert another.answer(f"cmd=get kvsname=hpclab-1 key={key}\n") == f"cmd=get_result rc=0 msg=success value={value}\n"


def test_who_has_put_something_finds_it_before_the_barrier():
    said = a_conversation()
    said.answer("cmd=put kvsname=hpclab-1 key=mine value=1\n")
    assert "value=1" in said.answer("cmd=get kvsname=hpclab-1 key=mine\n")


def test_what_nobody_has_put_is_not_found():
    assert "rc=-1" in a_conversation().answer("cmd=get kvsname=hpclab-1 key=other\n")


def test_each_barrier_brings_what_is_new():
    said = a_conversation()
    for number in "12":
        said.answer(f"cmd=put kvsname=hpclab-1 key=k value={number}\n")
        assert said.answer("cmd=barrier_in\n") == Barrier({"k": number})
        said.passed([{"k": number}])
    assert said.answer("cmd=barrier_in\n") == Barrier({})
    assert "value=2" in said.answer("cmd=get kvsname=hpclab-1 key=k\n")


@pytest.mark.parametrize(
    ("line", "status"), [("cmd=abort exitcode=13\n", 13), ("cmd=abort\n", 1), ("cmd=abort exitcode=what\n", 1)]
)
def test_an_abort(line, status):
    assert a_conversation().answer(line) == Abort(status)


def test_new_processes_there_are_none():
    """MPI_Comm_spawn's question has many lines, and gets one answer."""
    said = a_conversation()
    lines = ["mcmd=spawn", "nprocs=1", "execname=sh", "totspawns=1", "spawnssofar=1", "argcnt=0", "preput_num=0"]
    assert [said.answer(f"{line}\n") for line in lines] == [""] * len(lines)
    assert said.answer("endcmd\n") == "cmd=spawn_result rc=-1 msg=not_supported\n"
    assert said.answer("cmd=finalize\n") == "cmd=finalize_ack rc=0\n"


@given(st.text(st.characters(exclude_characters="\n")))
def test_any_line_gets_an_answer(text):
    answer = a_conversation().answer(f"{text}\n")
    assert not isinstance(answer, str) or answer == "" or answer.endswith("\n")


@pytest.mark.parametrize("line", ["", "\n", "cmd=put\n", "cmd=get\n", "cmd=what_is_this a=b\n", "cmd\n", "=\n"])
def test_odd_lines_are_refused_and_kill_nobody(line):
    said = a_conversation()
    assert "rc=-1" in said.answer(line)
    assert said.answer("cmd=finalize\n") == "cmd=finalize_ack rc=0\n"


@pytest.mark.parametrize(
    ("hosts", "mapping"),
    [
        (["a"], "(vector,(0,1,1))"),
        (["a", "a", "a"], "(vector,(0,1,3))"),
        (["a", "b", "c"], "(vector,(0,1,1),(1,1,1),(2,1,1))"),
        (["a", "b", "b", "a"], "(vector,(0,1,1),(1,1,2),(0,1,1))"),
    ],
)
def test_which_ranks_share_a_node(hosts, mapping):
    assert process_mapping(hosts) == mapping
