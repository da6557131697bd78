"""Which of many failures explains the others, and what is told while ranks are waited for."""

from __future__ import annotations

import itertools

import pytest

from hpclab.errors import RankFailed, WorkerLost, WorldFailed
from hpclab.mpi.attempt import Attempt, _weight
from hpclab.mpi.chunks import Layout
from hpclab.mpi.parts import Collection, Parts

LOST = WorkerLost("its Dask worker has left", rank=1)
WORLD = WorldFailed("no mpi4py")
RAISED = RankFailed("rank 1 raised\n    ValueError: no", rank=1, kind="raised")
SIGNAL = RankFailed("rank 1 was killed by signal 11", rank=1, kind="died")
ABORT = RankFailed("rank 1 called MPI_Abort", rank=1, kind="abort")
OF_ANOTHER = [
    RankFailed("rank 0 raised\n    mpi4py.MPI.Exception: MPI_ERR_OTHER", rank=0, kind="raised"),
    *(RankFailed("rank 0", rank=0, kind=kind) for kind in ("exited", "told", "waits", "alone", "finalize")),
]


@pytest.mark.parametrize("cause", [LOST, WORLD, RAISED, SIGNAL, ABORT], ids=lambda error: type(error).__name__)
def test_what_a_rank_did_itself_explains_what_happened_to_others(cause):
    for other in OF_ANOTHER:
        for order in itertools.permutations([cause, other]):
            assert min(order, key=_weight) is cause


def test_a_lost_worker_explains_everything():
    assert all(min([other, LOST], key=_weight) is LOST for other in (WORLD, RAISED, SIGNAL, ABORT))


def attempt(*workers: str) -> Attempt:
    parts = {worker: Parts([], []) for worker in workers}
    return Attempt(None, "mean", parts, Collection((), (), Layout(())), None, False)


def test_it_says_once_whom_it_waits_for(capsys):
    waiting = attempt("tcp://a:1", "tcp://b:2", "tcp://c:3")
    waiting.told.put({"what": "sits", "rank": 1})
    waiting.hear()
    for _ in range(2):
        waiting.tell_of_waiting()
    printed, said = capsys.readouterr()
    assert printed == ""
    assert said == ("hpclab: mean waits for 2 ranks of 3; busy with other tasks, or paused: tcp://a:1, tcp://c:3\n")


def test_of_many_it_names_three(capsys):
    attempt(*(f"tcp://a:{n}" for n in range(5))).tell_of_waiting()
    assert capsys.readouterr().err.endswith("paused: tcp://a:0, tcp://a:1, tcp://a:2, …\n")


def test_what_ranks_have_printed_is_printed_to_the_last_line(capsys):
    """Also what comes behind the word that one of them is over."""
    ending = attempt("tcp://a:1", "tcp://b:2")
    for told in (
        {"what": "over"},
        {"what": "output", "rank": 0, "stream": "stdout", "text": "one\n"},
        {"what": "over"},
        {"what": "output", "rank": 1, "stream": "stderr", "text": "two\n"},
    ):
        ending.told.put(told)
    ending.hear()
    assert capsys.readouterr() == ("[0] one\n", "[1] two\n")
