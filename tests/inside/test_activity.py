"""How the scheduler counts the cores at work."""

from __future__ import annotations

import json

import pytest
from fixtures import NOON

from hpclab.inside.activity import MOST_SAMPLES, TELL_EVERY_S, Activity


@pytest.fixture
def path(tmp_path) -> str:
    return str(tmp_path / "activity.json")


def told_after(activity: Activity, *looks: tuple[int, float]) -> dict:
    """The last text for the file after so many cores were at work at these times."""
    return json.loads([text for busy, at in looks if (text := activity.count(busy, NOON + at))][-1])


def test_busy_time_is_counted_from_look_to_look(path):
    assert told_after(Activity(path), (9, 0), (2, 2), (3, 4), (0, 14))["busy_core_s"] == 2 * 2 + 3 * 2


def test_a_clock_that_goes_back_takes_nothing_away(path):
    activity = Activity(path)
    activity.count(4, NOON)
    activity.count(4, NOON - 100)
    assert activity.busy_core_s == 0


def test_it_is_not_told_at_every_look(path):
    activity = Activity(path)
    texts = [activity.count(1, NOON + n) for n in range(3 * TELL_EVERY_S)]
    assert [bool(text) for text in texts] == [n % TELL_EVERY_S == 0 for n in range(len(texts))]


def test_a_long_session_has_sparser_samples_not_more(path):
    activity = Activity(path)
    for n in range(40_000):
        activity.count(n % 7, NOON + 2 * n)
    times = [at for at, _ in activity.samples]
    assert len(times) <= MOST_SAMPLES
    assert times[0] == NOON
    assert times == sorted(times)
    assert NOON + 80_000 - times[-1] < 1000


def test_a_session_that_was_started_again_goes_on(path, tmp_path):
    told = told_after(Activity(path), (4, 0), (4, 10))
    assert told["time"] == NOON + 10
    (tmp_path / "activity.json").write_text(json.dumps(told))
    again = Activity(path)
    assert again.busy_core_s == 40
    # the time between is nobody's
    again.count(4, NOON + 5000)
    assert again.busy_core_s == 40


@pytest.mark.parametrize("text", ["", "x", "[]", "{}", '{"busy_core_s": 1}', '{"busy_core_s": 1, "samples": [[1]]}'])
def test_what_cannot_be_read_is_begun_anew(path, tmp_path, text):
    (tmp_path / "activity.json").write_text(text)
    activity = Activity(path)
    assert json.loads(activity.count(1, NOON))["samples"] == [[NOON, 1]]
