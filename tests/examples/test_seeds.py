"""The batch programs of docs/examples, each by its own sbatch, as ada on a real Slurm: what they print."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import joblib
import pytest
from minihpc.cluster import NODES, Cluster
from waiting import until

EXAMPLES = Path(__file__).parents[2] / "docs/examples"
FOLDER = "/home/ada/examples"
WITHIN_S = 240
"""dask-mpi's own end may take 30 s: its client tries to reach the scheduler that it has just closed."""


@pytest.fixture(scope="module")
def a_folder_of_ada(a_slurm_cluster: Cluster) -> Path:
    folder = a_slurm_cluster.on("login").file(FOLDER)
    shutil.copytree(EXAMPLES, folder)
    # joblib is a user's own: no job of hpclab needs it
    shutil.copytree(Path(joblib.__file__).parent, folder / "joblib", ignore=shutil.ignore_patterns("test", "*.pyc"))
    for path in (folder, *folder.rglob("*")):
        shutil.chown(path, 4001, 4001)
    return folder


@pytest.fixture
def submit(a_slurm_cluster: Cluster, a_folder_of_ada: Path) -> Iterator[Callable[[str], str]]:
    """submit("x.slurm") is all that the job printed; it has ended well, and nothing of it is left."""

    login = a_slurm_cluster.on("login")

    def is_gone() -> bool:
        return not any(a_slurm_cluster.on(node).processes() for node in NODES)

    def _submit(script: str) -> str:
        job_id = login.says(f"cd {FOLDER} && sbatch --parsable {script}").strip()

        def ended() -> str:
            # `sbatch --wait` looks less and less often
            said = login.says(f"sleep 0.3 && scontrol show job -o {job_id}")
            return said if re.search(r"JobState=(COMPLETED|FAILED|CANCELLED|TIMEOUT|NODE_FAIL)", said) else ""

        said = until(ended, within_s=WITHIN_S, what=f"the end of {script}")
        printed = (a_folder_of_ada / f"slurm-{job_id}.out").read_text()
        assert "JobState=COMPLETED" in said, said + printed
        return printed

    yield _submit
    until(is_gone, what="the end of all ranks")


def test_my_dask_script(submit):
    printed = submit("my_dask_script.slurm")
    # ranks print at once, sometimes into each other's lines
    assert printed.count("on rank:") == 100
    assert set(re.findall(r"on rank: (\d+)$", printed, re.MULTILINE)) == {"2", "3", "4", "5"}


@pytest.mark.parametrize("script", ["dask_example.sl", "dask_example_het.sl"])
def test_dask_example(submit, script):
    assert {"Dask result: 5", "Local result: 5"} <= set(submit(script).splitlines())


def test_dask_mpi(submit):
    assert "4 workers available and ready" in submit("dask_mpi.slurm").splitlines()


def test_dask_file(submit):
    assert "3 workers available and ready" in submit("dask_file.slurm").splitlines()


def test_dask_futures(submit):
    printed = submit("dask_futures.slurm").splitlines()
    assert {"4 workers available and ready", "[0, 1, 4, 9]"} <= set(printed)


def test_dask_joblib(submit):
    printed = submit("dask_joblib.slurm").splitlines()
    begin = printed.index("4 workers available and ready")
    assert [line for line in printed[begin:] if line.isdigit()] == ["0", "1", "4", "9"]


def test_the_short_way_prints_what_the_program_prints_and_nothing_else(submit):
    assert submit("initialize.slurm") == "4 workers available and ready\n[0, 1, 4, 9]\n"
