"""Which versions must agree, and how they are told."""

from __future__ import annotations

import sys

import pytest

from hpclab.versions import from_words, in_words, mismatch, versions_here

OURS = {"python": "3.11", "dask": "2026.8.0", "distributed": "2026.8.0"}


def test_the_versions_here_are_those_of_this_python_and_its_dask():
    import distributed

    here = versions_here()
    assert here["python"] == f"{sys.version_info.major}.{sys.version_info.minor}"
    assert here["distributed"] == distributed.__version__


@pytest.mark.parametrize(
    ("other", "different"),
    [
        (OURS, []),
        ({}, []),
        ({"python": "3.11"}, []),
        ({**OURS, "python": "3.12"}, ["python"]),
        ({**OURS, "dask": "2025.5.0", "distributed": "2025.5.0"}, ["dask", "distributed"]),
        ({"numpy": "2.0"}, []),
    ],
)
def test_only_what_both_have_can_differ(other, different):
    assert mismatch(OURS, other) == different
    assert mismatch(other, OURS) == different


def test_versions_in_words_can_be_read_again():
    assert in_words(OURS) == "python 3.11, dask 2026.8.0, distributed 2026.8.0"
    assert from_words(in_words(OURS)) == OURS
    assert in_words(OURS, ["dask"]) == "dask 2026.8.0"


@pytest.mark.parametrize("text", ["", "nonsense", ", ,", "python", "a b c"])
def test_what_is_no_version_is_passed_over(text):
    assert from_words(text) == {}
    assert from_words(f"{text}, dask 1.0") == {"dask": "1.0"}
