"""Messages between a worker and the rank beside it, over a real socket."""

from __future__ import annotations

import gc
import os
import socket
from collections.abc import Iterator

import numpy as np
import pytest

from hpclab.mpi.line import LONGEST_BYTES, Line
from hpclab.mpi.parcel import Opened, Parcel, pack


@pytest.fixture
def a_line() -> Iterator[tuple[Line, Line]]:
    ends = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    yield Line(ends[0]), Line(ends[1])
    for end in ends:
        end.close()


def descriptors() -> set[str]:
    gc.collect()  # what other tests left
    return set(os.listdir("/proc/self/fd"))


def test_messages_arrive_one_by_one(a_line):
    here, there = a_line
    here.say("hello", pid=7)
    here.say("bye", text="ä\n")
    assert there.hear() == ({"what": "hello", "pid": 7}, None)
    assert there.hear() == ({"what": "bye", "text": "ä\n"}, None)


def test_a_parcel_arrives_with_its_message(a_line):
    here, there = a_line
    parcel = pack(np.arange(3))
    here.say("work", parcel, path=["a"])
    parcel.close()
    message, arrived = there.hear()
    assert message == {"what": "work", "path": ["a"]}
    assert Opened(arrived).value.tolist() == [0, 1, 2]
    arrived.close()


@pytest.mark.parametrize("count", [0, 1, 2000, 20_000])
def test_parcels_of_however_many_arrays(a_line, count):
    """The label tells of each where it is, and may be too long for a message."""
    here, there = a_line
    before = descriptors()
    parcel = pack([np.full(2, n) for n in range(count)])
    assert (len(parcel.label) > LONGEST_BYTES) == (count == 20_000)
    here.say("work", parcel)
    parcel.close()
    _, arrived = there.hear()
    assert [array.tolist() for array in Opened(arrived).value] == [[n, n] for n in range(count)]
    arrived.close()
    assert descriptors() == before


def test_the_longest_message_arrives(a_line):
    here, there = a_line
    here.say("failed", text="x" * LONGEST_BYTES, label="y" * LONGEST_BYTES)
    assert len(there.hear()[0]["text"]) == LONGEST_BYTES


def test_when_the_other_end_is_gone(a_line):
    here, there = a_line
    here.say("last")
    here.close()
    assert there.hear() == ({"what": "last"}, None)
    assert there.hear() is None
    with pytest.raises(OSError, match="pipe"):
        there.say("too late")


def test_a_parcel_for_nobody_leaves_no_descriptor(a_line):
    here, there = a_line
    there.close()
    before = descriptors()
    with pytest.raises(OSError, match="pipe"):
        here.say("work", Parcel(0, "x" * 2 * LONGEST_BYTES))
    assert descriptors() == before
