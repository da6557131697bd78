"""scripts/start-dask.sh and scripts/add-one-worker.sh are what `hpclab script --by-hand` prints."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parents[1] / "scripts"
each = pytest.mark.parametrize(
    ("which", "name"), [("start", "start-dask.sh"), ("add-worker", "add-one-worker.sh")], ids=["start", "add-worker"]
)


@each
def test_they_are_what_hpclab_prints(which, name, tmp_path):
    env = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "HPCLAB_SITE_CONFIG": os.devnull}
    command = [sys.executable, "-P", "-m", "hpclab", "script", which, "--by-hand"]
    printed = subprocess.run(command, env=env, cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    assert (SCRIPTS / name).read_text() == printed, f"hpclab script {which} --by-hand >scripts/{name}"


@each
def test_they_have_directives_for_slurm_and_pbs(which, name):
    text = (SCRIPTS / name).read_text()
    assert "\n#SBATCH --time=" in text
    assert "\n#PBS -l walltime=" in text
    assert os.access(SCRIPTS / name, os.X_OK)


@each
def test_run_instead_of_submitted_they_say_so(which, name, tmp_path):
    env = {"PATH": os.environ["PATH"], "HOME": str(tmp_path)}
    (tmp_path / ".hpclab/sessions/by-hand/events").mkdir(parents=True)
    done = subprocess.run([SCRIPTS / name], env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "submit it" in done.stderr
