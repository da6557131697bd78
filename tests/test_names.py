"""Names of sessions: easily typed, never taken, and harmless as a folder's and a job's name."""

from __future__ import annotations

import random

import pytest

from hpclab.errors import ConfigError
from hpclab.names import ADJECTIVES, ANIMALS, check_name, new_name

ALL = {f"{adjective}-{animal}" for adjective in ADJECTIVES for animal in ANIMALS}


def test_a_new_name_is_two_words():
    assert new_name(set()) in ALL


def test_every_name_that_can_be_given_can_be_used():
    assert {check_name(name) for name in ALL} == ALL


def test_a_new_name_is_never_taken():
    assert new_name(ALL - {"calm-otter"}) == "calm-otter"


def test_when_all_are_taken_there_is_still_a_name():
    name = new_name(ALL, random.Random(1))
    assert name not in ALL
    assert check_name(name) == name


@pytest.mark.parametrize("name", ["a", "7", "calm-otter", "My.Session_2", "x" * 32])
def test_names_that_may_be_used(name):
    assert check_name(name) == name


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", "../evil", "a/b", "/abs", "-n", "--help", ".hidden", "_x", "two words", "tab\t", "line\n", "a\0b",
     "über", "$HOME", "*", "a'b", 'a"b', "x" * 33, "x" * 300],
)  # fmt: skip
def test_names_that_are_refused(name):
    with pytest.raises(ConfigError, match="cannot be the name of a session"):
        check_name(name)


def test_a_very_long_name_is_not_repeated_in_full():
    with pytest.raises(ConfigError) as refused:
        check_name("x" * 300)
    assert max(map(len, str(refused.value).splitlines())) < 120
