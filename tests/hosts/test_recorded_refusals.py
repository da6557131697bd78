"""What a real ssh said when it did not get in, and what we make of it."""

from __future__ import annotations

import pytest
from batch.transcripts import transcript

from hpclab.errors import HostKeyRefused, LoginFailed, Unreachable
from hpclab.hosts.openssh import explain

REFUSALS = [
    ("08-wrong-key", 0, LoginFailed, "it wants publickey"),
    ("02-2fa", 1, LoginFailed, "where the password or the code can be typed"),
    ("02-2fa", 2, LoginFailed, "it wants keyboard-interactive"),
    ("09-hostkey-changed", 0, HostKeyRefused, 'only if it says so: `ssh-keygen -f "kh" -R "login"`'),
    ("09-hostkey-unknown", 0, HostKeyRefused, "compare the fingerprint with what the site publishes"),
    ("07-direct-unreachable", 0, Unreachable, "is the network up"),
]


@pytest.mark.parametrize(("name", "step", "kind", "words"), REFUSALS)
def test_a_refusal_is_told_for_what_it_is(name: str, step: int, kind: type, words: str) -> None:
    said = transcript("ssh", name)[step].stderr.splitlines()
    told = explain("ada@login", said, [])
    assert type(told) is kind
    assert words in str(told)
    # ssh's own words are the evidence
    assert said[-1].strip() in str(told)
