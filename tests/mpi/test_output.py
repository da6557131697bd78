"""What ranks print: whole lines, marked, and not without end."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpclab.mpi.output import FORWARDED_BYTES, PIECE_BYTES, TAIL_BYTES, Output, marked


def shown(*pieces: bytes) -> list[str]:
    """What is forwarded, piece by piece."""
    told: list[str] = []
    output = Output(told.append)
    for piece in pieces:
        output.add(piece)
    output.end()
    return told


@given(st.lists(st.binary(max_size=30).map(lambda b: b.replace(b"\r", b"")), max_size=10))
def test_nothing_is_lost_or_added(pieces):
    assert "".join(shown(*pieces)) == b"".join(pieces).decode(errors="replace")


def test_a_line_is_told_when_it_has_ended():
    assert shown(b"one\ntw", b"o\nthr", b"ee") == ["one\n", "two\n", "three"]


def test_lines_are_told_whole_however_many_there_are():
    text = "".join(f"line {n} of a long story\n" for n in range(5000))
    data = text.encode()
    told = shown(data[:70_000], data[70_000:])
    assert "".join(told) == text
    assert all(piece.endswith("\n") for piece in told)
    assert max(len(piece) for piece in told) <= PIECE_BYTES


def test_letters_of_several_bytes_stay_whole():
    text = "äöü語" * 2000 + "\n"
    data = text.encode()
    assert "".join(shown(*(data[k : k + 1001] for k in range(0, len(data), 1001)))) == text
    assert "".join(shown(data)) == text


def test_a_line_without_end_is_told_in_pieces():
    told = shown(*[b"x" * 1000] * 100)
    assert "".join(told) == "x" * 100_000
    assert len(told) > 5


def test_of_too_much_the_begin_and_the_end_are_told():
    line = b"x" * 99 + b"\n"
    told = "".join(shown(*[line * 1000] * 30, b"the last line\n"))
    assert FORWARDED_BYTES < len(told) < FORWARDED_BYTES + 2 * TAIL_BYTES
    assert told.endswith("the last line\n")
    total = 30 * 1000 * 100 + len("the last line\n")
    left_out = int(told.partition("[… ")[2].partition(" bytes")[0].replace(",", ""))
    kept = len(told) - len(f"\n[… {left_out:,} bytes left out …]\n")
    assert left_out + kept == total


def test_a_little_too_much_is_told_once():
    lines = b"".join(b"%7d\n" % n for n in range(FORWARDED_BYTES // 8 + 100))
    told = "".join(shown(*(lines[k : k + 65_536] for k in range(0, len(lines), 65_536))))
    numbers = [line for line in told.splitlines() if line.strip().isdigit()]
    assert len(numbers) == len(set(numbers))
    assert numbers[-1] == lines.split()[-1].decode().rjust(7)


def test_the_last_lines():
    output = Output(lambda _: None)
    output.add(b"".join(b"line %d\n" % n for n in range(100)))
    assert output.last_lines(2) == "line 98\nline 99"


@pytest.mark.parametrize(
    ("rank", "size", "text", "told"),
    [
        (0, 2, "one\ntwo\n", "[0] one\n[0] two\n"),
        (3, 12, "no end", "[ 3] no end\n"),
        (0, 1, "\n", "[0] \n"),
        (0, 1, "", ""),
        (0, 1, "a\x0cb\u2028c\n", "[0] a\x0cb\u2028c\n"),
        (0, 1, "windows\r\n", "[0] windows\n"),
    ],
)
def test_each_line_is_marked_with_its_rank(rank, size, text, told):
    assert marked(rank, text, size=size) == told
