"""Which shape starts soonest: the batch system is asked, and nothing is submitted."""

from __future__ import annotations

import pytest
from fixtures import HOME, host_that_answers, settings

from hpclab.errors import ConfigError, NotRunning
from hpclab.fit import fit
from hpclab.hosts.recording import RecordingHost
from hpclab.job import Shape


def starts_at(clock: str) -> tuple[int, str, str]:
    return 0, "", f"sbatch: Job 9 to start at 2026-11-20T{clock} using 4 processors on nodes node1\n"


TOO_LARGE = (1, "", "allocation failure: Requested node configuration is not available\n")
SINFO = (0, "regular*|up|1-00:00:00|4|16|64000\n", "")
SHAPES = [Shape(nodes=1, cores=4), Shape(nodes=1, cores=16), Shape(nodes=4, cores=16)]


@pytest.mark.parametrize(
    ("answers", "best"),
    [
        ([starts_at("10:00:00"), starts_at("12:00:00"), starts_at("15:00:00")], "1x4"),
        ([starts_at("10:00:00"), starts_at("10:00:05"), TOO_LARGE], "1x16"),
        ([TOO_LARGE, TOO_LARGE, starts_at("10:00:00")], "4x16"),
    ],
)
def test_the_shape_that_starts_soonest_is_found_and_nothing_submitted(answers, best):
    host = host_that_answers(SINFO, *answers)
    offers, taken = fit(host, settings(queue="slurm"), SHAPES, notebook_dir="/")
    assert str(taken.shape) == best
    assert [offer.shape for offer in offers] == SHAPES
    assert all("--test-only" in argv for argv in host.commands[1:])
    assert (len(host.commands), host.files, host.names(HOME)) == (4, {}, [])


def test_where_no_shape_would_start_the_batch_systems_words_are_told():
    host = host_that_answers(SINFO, TOO_LARGE, TOO_LARGE)
    with pytest.raises(NotRunning, match="none of these shapes would start") as refused:
        fit(host, settings(queue="slurm"), SHAPES[:2], notebook_dir="/")
    for words in ["1x4: ", "1x16: ", "Requested node configuration is not available", "nothing was submitted"]:
        assert words in str(refused.value)
    assert host.files == {}


def test_this_machine_cannot_be_asked_when_a_shape_would_start():
    host = RecordingHost()
    with pytest.raises(ConfigError, match="leave --fit out"):
        fit(host, settings(), SHAPES[:1], notebook_dir="/")
    assert (host.commands, host.files) == ([], {})
