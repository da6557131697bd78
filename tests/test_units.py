"""Walltimes and memory sizes: read, written, and refused with a word on how to write them."""

from __future__ import annotations

import numpy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpclab.errors import ConfigError
from hpclab.units import (
    counted,
    format_duration,
    format_memory,
    format_walltime,
    parse_count,
    parse_ctime,
    parse_memory,
    parse_walltime,
    split_evenly,
    whole_number,
)

quick = settings(deadline=None, database=None)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1:30:00", 5400),
        ("0:00:01", 1),
        ("100:00:00", 360_000),
        ("1-12:00:00", 129_600),
        ("90m", 5400),
        ("90min", 5400),
        ("2h", 7200),
        ("1h30m", 5400),
        ("1h 30m", 5400),
        ("1d", 86_400),
        (" 45s ", 45),
    ],
)
def test_walltimes_are_read(text, seconds):
    assert parse_walltime(text) == seconds


@pytest.mark.parametrize(
    "text",
    [
        "", " ", "90", "1:30", "-5m", "0s", "0:00:00", "1e9h", "4", "nan", "inf", "1.5h", "2H30", "h", "1:2:3", "1-2h",
        "1:30:00\n1", "two hours", "9" * 5000 + "h", "x" * 300,
    ],
)  # fmt: skip
def test_walltimes_are_refused(text):
    with pytest.raises(ConfigError, match="write it as"):
        parse_walltime(text)


@pytest.mark.parametrize(
    ("text", "size_bytes"),
    [
        ("4G", 4 * 2**30),
        ("4GB", 4 * 2**30),
        ("4GiB", 4 * 2**30),
        ("4 gib", 4 * 2**30),
        ("1.5g", 3 * 2**29),
        ("512M", 2**29),
        ("1K", 1024),
        ("2T", 2**41),
    ],
)
def test_memory_sizes_are_read(text, size_bytes):
    assert parse_memory(text) == size_bytes


@pytest.mark.parametrize(
    "text",
    ["", "4", "90", "0G", "0.0000000000001K", "-1G", "4X", "nan", "nanG", "infG", "1e9G", "G", "4 G B", ".5G", "4,5G",
     "9" * 5000 + "G", "x" * 300],
)  # fmt: skip
def test_memory_sizes_are_refused(text):
    with pytest.raises(ConfigError, match="write it as"):
        parse_memory(text)


@pytest.mark.parametrize(("text", "count"), [("1", 1), (" 12 ", 12), ("999999", 999_999)])
def test_counts_are_read(text, count):
    assert parse_count(text, what="cores") == count


@pytest.mark.parametrize("text", ["", "0", "-1", "1.5", "1e3", "nan", "two", "1000000", "1_000", "9" * 5000])
def test_counts_are_refused(text):
    with pytest.raises(ConfigError, match="cores must be a whole number of at least 1"):
        parse_count(text, what="cores")


@quick
@given(st.integers(min_value=1, max_value=10**9))
def test_a_walltime_that_is_written_is_read_again(seconds):
    assert parse_walltime(format_walltime(seconds)) == seconds


@quick
@given(st.integers(min_value=1, max_value=1023), st.sampled_from([2**10, 2**20, 2**30, 2**40]))
def test_a_whole_memory_size_that_is_written_is_read_again(count, unit_bytes):
    assert parse_memory(format_memory(count * unit_bytes)) == count * unit_bytes


@quick
@given(st.integers(min_value=2**10, max_value=2**50))
def test_any_memory_size_is_written_to_within_a_twentieth(size_bytes):
    assert parse_memory(format_memory(size_bytes)) == pytest.approx(size_bytes, rel=0.05)


@quick
@given(st.text(max_size=20))
def test_any_text_is_read_or_refused_and_nothing_else(text):
    for parse in (parse_walltime, parse_memory):
        try:
            assert parse(text) > 0
        except ConfigError:
            pass


@pytest.mark.parametrize(
    ("size_bytes", "text"),
    [(2**31, "2 GiB"), (3 * 2**29, "1.5 GiB"), (2**29, "512 MiB"), (2**52, "4096 TiB"), (512, "0.5 KiB")],
)
def test_memory_for_people(size_bytes, text):
    assert format_memory(size_bytes) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-5, "0.0 s"),
        (3.21, "3.2 s"),
        (43, "43 s"),
        (725, "12 min"),
        (3900, "1 h 05 min"),
        (47 * 3600, "47 h 00 min"),
        (51 * 3600, "2 d 03 h"),
    ],
)
def test_durations_for_people(seconds, text):
    assert format_duration(seconds) == text


@pytest.mark.parametrize(("number", "text"), [(0, "0 workers"), (1, "1 worker"), (2, "2 workers")])
def test_numbers_for_people(number, text):
    assert counted(number, "worker") == text


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("Fri Nov 20 23:13:33 2026", 1_795_216_413),
        (" Thu Jan  1 00:00:00 1970\n", 0),
        ("Fri Nov 31 23:13:33 2026", None),
        ("Fri Nov 20 24:13:33 2026", None),
        ("Fri Nvo 20 23:13:33 2026", None),
        ("2026-11-20T23:13:33", None),
        ("", None),
    ],
)
def test_the_times_of_c_are_read(text, seconds):
    assert parse_ctime(text) == seconds


@pytest.mark.parametrize(("count", "parts", "split"), [(5, 2, [3, 2]), (4, 2, [2, 2]), (2, 3, [1, 1, 0]), (7, 1, [7])])
def test_things_are_split_evenly(count, parts, split):
    assert split_evenly(count, parts) == split


@pytest.mark.parametrize("number", [-1, 11, 1.0, "3", None, True])
def test_a_number_that_is_not_whole_or_out_of_bounds_is_refused(number):
    with pytest.raises(ConfigError, match="workers must be a whole number from 0 to 10, not "):
        whole_number(number, what="workers", least=0, most=10)
    assert whole_number(10, what="workers", least=0, most=10) == 10


def test_a_number_of_numpy_is_as_good():
    number = whole_number(numpy.int64(3), what="workers", least=0, most=10)
    assert (number, type(number)) == (3, int)
