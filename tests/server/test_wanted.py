"""Bodies and queries: what makes sense is read, all else is a ConfigError with a sentence."""

from __future__ import annotations

import json

import pytest
from fixtures import folder, settings
from hypothesis import given
from hypothesis import strategies as st

from hpclab.errors import ConfigError
from hpclab.request import Request
from hpclab.server.wanted import WorkersWanted, lines_in, nothing_in, queue_in, workers_in


def body(**given: object) -> bytes:
    return json.dumps(given).encode()


NOT_A_COUNT = [0, -1, 10**9, "2", "text", True, 1.5, None, [], {}, float("nan")]


@pytest.mark.parametrize("count", NOT_A_COUNT)
def test_a_count_is_a_whole_number_within_bounds(count):
    with pytest.raises(ConfigError, match="count must be a whole number from 1 to 10000, not"):
        WorkersWanted.from_body(body(count=count, request="x"))


@pytest.mark.parametrize("workers", [number for number in NOT_A_COUNT if number is not True and number != 0])
def test_so_is_the_number_to_scale_to(workers):
    with pytest.raises(ConfigError, match="workers must be a whole number from 0 to 10000"):
        workers_in(body(workers=workers))


def test_one_may_scale_to_nothing():
    assert workers_in(body(workers=0)) == 0
    assert workers_in(body(workers=10_000)) == 10_000


def test_workers_are_asked_for_in_the_words_of_the_command_line():
    wanted = WorkersWanted.from_body(body(count=2, request="x", cores="4", memory="1.5G", walltime="1h30m"))
    assert (wanted.count, wanted.cores, wanted.memory_bytes, wanted.walltime_s) == (2, 4, 3 * 2**29, 5400)


def test_what_is_left_out_is_as_the_session_has_it():
    request = Request(folder=folder(), system="local", partition="", settings=settings(cores=3), python="python")
    wanted = WorkersWanted.from_body(body(count=1, request="x", walltime="20m"))
    assert wanted.record(request) == request.worker_record(walltime_s=1200)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ({"cores": "many"}, "cores must be a whole number of at least 1, not 'many'"),
        ({"cores": 4}, "cores must be a text"),
        ({"cores": ""}, "cores must be a text"),
        ({"memory": "4"}, "cannot read the memory size '4'"),
        ({"memory": "1M"}, "Dask alone needs more"),
        ({"walltime": "90"}, "cannot read the time '90'"),
        ({"walltime": "9" * 200}, "walltime must be a text of at most 100 characters"),
        ({"request": None}, "request must be a text"),
        ({"python": "/bin/sh"}, "says 'python', which is not known here"),
    ],
)
def test_words_that_make_no_sense_are_told_without_a_flag(words, told):
    with pytest.raises(ConfigError) as error:
        WorkersWanted.from_body(body(**{"count": 1, "request": "x", **words}))
    assert told in str(error.value)
    assert "--" not in str(error.value)


@pytest.mark.parametrize(
    "text",
    [b"", b"[]", b"null", b"1", b'"x"', b"{", b"\xff", b"[" * 9_999, b'{"workers": ' + b"9" * 5_000 + b"}"],
    ids=["empty", "a list", "null", "a number", "a text", "cut off", "no UTF-8", "deep", "a long number"],
)
def test_only_objects_of_json_are_taken(text):
    with pytest.raises(ConfigError):
        workers_in(text)


def test_a_body_is_not_read_beyond_its_bound():
    with pytest.raises(ConfigError, match="20000 bytes"):
        workers_in(b" " * 20_000)


def test_what_is_not_said_is_told():
    with pytest.raises(ConfigError, match="does not say 'request'"):
        WorkersWanted.from_body(body(count=1))


def test_from_here_a_session_starts_on_this_machine_alone():
    assert queue_in(body(queue="local")) == "local"
    with pytest.raises(ConfigError, match="hpclab start --queue slurm"):
        queue_in(body(queue="slurm"))


def test_nothing_is_an_empty_body_or_an_empty_object():
    nothing_in(b"")
    nothing_in(b"{}")
    with pytest.raises(ConfigError):
        nothing_in(b'{"all": true}')


def test_lines_of_a_log_are_bounded():
    assert lines_in("1000") == 1000
    for text in ("0", "10001", "-1", "1e3", "", "²", "all"):
        with pytest.raises(ConfigError):
            lines_in(text)


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(), st.lists))
def test_any_value_is_a_number_or_a_sentence(value):
    text = json.dumps({"workers": value}).encode()
    if type(value) is int and 0 <= value <= 10_000:
        assert workers_in(text) == value
    else:
        with pytest.raises(ConfigError, match=r"workers must be a whole number|needs more than"):
            workers_in(text)
