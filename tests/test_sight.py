"""What the probe answered, read: with noise around it, and when it is something else."""

from __future__ import annotations

import json

import pytest
from sights import HYDRA, OPEN_MPI, a_sight

from hpclab.errors import UnreadableOutput
from hpclab.sight import Meeting, sight

TOLD = {
    "node": "node17",
    "python": "/opt/env/bin/python",
    "versions": {"python": "3.11", "dask": "1", "jupyterlab": "4"},
    "interfaces": [{"name": "ib0", "addresses": ["10.1.1.17"], "speed_mbit": 100000}],
    "launchers": [{"path": "/usr/bin/mpirun", "family": "openmpi", "version": "4.1.4"}],
    "mpi_library": {"name": "Open MPI v4.1.4", "error": ""},
    "home": {"path": "/home/ada", "type": "nfs4", "free_bytes": 1, "error": ""},
    "scratch": {"path": "/tmp", "type": "xfs", "free_bytes": 1, "error": ""},
    "answers": {"status": {"exit_status": 1, "stdout": "", "stderr": "down"}},
    "met": {"came": True, "answers": {"login1": ""}},
}


def test_an_answer_is_read():
    seen = sight(f"Welcome!\n{json.dumps(TOLD)}\n")
    assert seen.networks_told == "ib0 10.1.1.17 (100 Gbit/s)"
    assert seen.dask_versions == {"python": "3.11", "dask": "1"}
    assert seen.answers["status"].last_words == "down"
    assert seen.met == Meeting(came=True, answers={"login1": ""})
    assert str(seen.home) == "/home/ada: nfs4, 0 KiB free"


@pytest.mark.parametrize(
    "said",
    ["", "Killed", "{", "{}", "[1]", json.dumps({**TOLD, "home": 3}), json.dumps({**TOLD, "launchers": [{}]})],
)
def test_anything_else_is_unreadable(said):
    with pytest.raises(UnreadableOutput, match="the probe answered"):
        sight(said)


@pytest.mark.parametrize(
    ("library", "launchers", "fits"),
    [
        ("MPICH Version: 5.0.2", (OPEN_MPI, HYDRA), HYDRA),
        ("Intel(R) MPI Library 2021.9", (OPEN_MPI, HYDRA), HYDRA),
        ("Open MPI v4.1.4", (HYDRA, OPEN_MPI), OPEN_MPI),
        ("Open MPI v4.1.4", (HYDRA,), None),
        ("a vendor's own", (OPEN_MPI, HYDRA), OPEN_MPI),
    ],
)
def test_the_launcher_that_belongs_to_the_library(library, launchers, fits):
    assert a_sight(mpi_library=library, launchers=launchers).fitting == fits
