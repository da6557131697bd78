"""Who is told to end, and leaves it to the script."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from hpclab.inside import patience
from hpclab.inside.patience import Patience


@pytest.fixture
def ends(monkeypatch: pytest.MonkeyPatch) -> list[int | str]:
    """How it ended, after what it said."""
    told: list[int | str] = []
    monkeypatch.setattr(patience.os, "_exit", told.append)
    return told


def hears(monkeypatch: pytest.MonkeyPatch, handler: Patience, *times_s: float) -> None:
    for now in times_s:
        monkeypatch.setattr(patience.time, "monotonic", lambda now=now: now)
        handler(signal.SIGTERM, None)


@pytest.mark.parametrize("times_s", [(50.0,), (50.0, 50.3), (50.0, 50.3, 50.9)])
def test_what_is_said_once_by_however_many_is_not_heard(monkeypatch, ends, times_s):
    hears(monkeypatch, Patience(), *times_s)
    assert ends == []


def test_who_says_it_again_later_means_it(monkeypatch, ends):
    hears(monkeypatch, Patience(lambda: ends.append("left")), 50.0, 50.3, 51.1)
    assert ends == ["left", 143]


def test_it_keeps_a_process_from_the_signals_default():
    program = (
        "import os, signal\n"
        "from hpclab.inside.patience import Patience\n"
        "signal.signal(signal.SIGTERM, Patience())\n"
        "os.kill(os.getpid(), signal.SIGTERM)\n"
        "print('still here')\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "still here\n"
