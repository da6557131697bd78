"""What a rank sees of its world before it becomes dask-mpi: run as ranks are, each alone, without a launcher."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from hpclab.event import from_lines
from hpclab.folder import SessionFolder
from hpclab.inside.world import is_here, tell_supervisor
from hpclab.launchers import without_mpi


@pytest.fixture
def here(tmp_path) -> SessionFolder:
    folder = SessionFolder(str(tmp_path / "calm-otter"))
    for subfolder in folder.subfolders:
        Path(subfolder).mkdir(parents=True)
    return folder


@pytest.fixture
def supervisor(tmp_path):
    """The unix socket of a job's supervisor; what it has heard is `heard(supervisor)`."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "supervisor"))
        listener.listen()
        listener.settimeout(10)
        yield listener


def heard(supervisor: socket.socket) -> dict[str, object]:
    line, _ = supervisor.accept()
    with line, line.makefile() as text:
        return json.loads(text.readline())


@pytest.fixture
def a_rank(here) -> Callable[..., subprocess.CompletedProcess[str]]:
    """a_rank(ranks) has run as one rank in a world of its own, of which there should be so many."""

    def _a_rank(ranks: int, **variables: str) -> subprocess.CompletedProcess[str]:
        argv = [sys.executable, "-P", "-m", "hpclab.inside.world", here.path, "17", str(ranks), "node17", "--help"]
        env = {**without_mpi(dict(os.environ)), "HPCLAB_SCRATCH": here.path, **variables}
        return subprocess.run(argv, env=env, capture_output=True, text=True, timeout=60, check=False)

    return _a_rank


@pytest.mark.parametrize("ranks", [2, 5])
def test_a_world_of_another_size_is_told_to_the_supervisor(a_rank, supervisor, ranks):
    done = a_rank(ranks, HPCLAB_SUPERVISOR=supervisor.getsockname())
    told = heard(supervisor)
    assert (told["who"], told["size"]) == ("world", 1)
    assert told["library"]
    assert done.returncode == 1
    assert f"{ranks} MPI ranks were asked for, but this world has 1" in done.stderr


def test_a_rank_on_another_node_than_the_supervisor_ends_all_the_same(a_rank):
    assert a_rank(2, HPCLAB_SUPERVISOR="/no/such/socket").returncode == 1


def test_a_whole_world_becomes_dask_mpi(a_rank, supervisor):
    done = a_rank(1, HPCLAB_SUPERVISOR=supervisor.getsockname())
    assert done.returncode == 0
    assert "--scheduler-file" in done.stdout


def test_a_scheduler_that_was_put_onto_another_node_says_so_and_ends(a_rank, here):
    done = a_rank(1, HPCLAB_SUPERVISOR="/no/such/socket")
    assert done.returncode == 1
    (event,) = from_lines(Path(here.events("17")).read_text())
    assert event.what == "failed"
    for words in ["MPI rank 0", socket.gethostname(), "node17", "set `mpiexec`"]:
        assert words in event.details["reason"]


def test_what_a_variable_names_may_be_on_another_node(monkeypatch, tmp_path):
    monkeypatch.setenv("HPCLAB_X", str(tmp_path))
    assert is_here("HPCLAB_X")
    monkeypatch.setenv("HPCLAB_X", str(tmp_path / "gone"))
    assert not is_here("HPCLAB_X")
    monkeypatch.delenv("HPCLAB_X")
    assert not is_here("HPCLAB_X")


@pytest.mark.parametrize("path", [None, "/no/such/socket"])
def test_where_there_is_no_supervisor_nobody_is_told(monkeypatch, path):
    monkeypatch.delenv("HPCLAB_SUPERVISOR", raising=False)
    if path:
        monkeypatch.setenv("HPCLAB_SUPERVISOR", path)
    tell_supervisor({"who": "world"})
