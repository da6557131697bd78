"""A job's story: one JSON object a line; lines that are torn or foreign hide no other."""

from __future__ import annotations

import math

import pytest
from fixtures import NOON
from hypothesis import given, settings
from hypothesis import strategies as st

from hpclab.event import SENTENCES, Event, from_lines, to_line

STARTED = Event(time=NOON, what="started", details={"node": "node17", "workers": 1})
JOINED = Event(time=NOON + 2, what="joined", details={"worker": "17-0"})


def test_events_are_read_as_they_were_written():
    assert from_lines(to_line(STARTED) + to_line(JOINED)) == [STARTED, JOINED]


@settings(deadline=None, database=None)
@given(
    what=st.text(),
    details=st.dictionaries(
        st.text().filter(lambda key: key not in ("time", "event")), st.none() | st.integers() | st.text()
    ),
)
def test_any_event_is_one_line_and_can_be_read_again(what, details):
    event = Event(time=NOON, what=what, details=details)
    line = to_line(event)
    assert line.endswith("\n")
    assert len(line.splitlines()) == 1
    assert from_lines(line) == [event]


@pytest.mark.parametrize(
    "line",
    [
        "",
        '{"time": 1.0, "event": "joi',
        "not json",
        "[]",
        "[1, 2]",
        "17",
        "null",
        '"text"',
        "{}",
        '{"time": 1.0}',
        '{"event": "joined"}',
        '{"time": "yesterday", "event": "joined"}',
        '{"time": null, "event": "joined"}',
        '{"time": [], "event": "joined"}',
        "\x00\x00\x00",
        "\N{REPLACEMENT CHARACTER}",
    ],
)
def test_a_torn_or_foreign_line_hides_no_other(line):
    assert from_lines(to_line(STARTED) + line + "\n" + to_line(JOINED)) == [STARTED, JOINED]


@pytest.mark.parametrize("time", ["NaN", "Infinity", "1e999"])
def test_a_time_that_is_none_hides_no_other(time):
    events = from_lines(f'{{"time": {time}, "event": "joined"}}\n' + to_line(STARTED))
    assert all(math.isfinite(event.time) for event in events)
    assert STARTED in events


def test_an_event_of_a_later_version_is_kept_and_shown_as_it_stands():
    (event,) = from_lines('{"time": 1, "event": "teleported", "to": "node18"}')
    assert event.sentence == "teleported {'to': 'node18'}"


@pytest.mark.parametrize("what", SENTENCES)
def test_an_event_without_its_details_still_has_a_sentence(what):
    assert Event(time=NOON, what=what).sentence


@pytest.mark.parametrize(
    ("what", "details", "sentence"),
    [
        ("started", {"node": "node17"}, "started on node17"),
        ("exited", {"exit_status": 0}, "ended with exit status 0"),
        ("environment", {"python": "3.11.7"}, "environment ready: Python 3.11.7, ; network: not told"),
        ("failed", {"reason": "no {braces} are filled in"}, "failed: no {braces} are filled in"),
    ],
)
def test_sentences(what, details, sentence):
    assert Event(time=NOON, what=what, details=details).sentence == sentence
