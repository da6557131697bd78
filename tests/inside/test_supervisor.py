"""What all supervisors need to know of the job's environment before they start anything."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from hpclab.inside.supervisor import Ended, environment, own_python_first
from hpclab.job import JobExit


def test_what_is_there_is_told_with_its_version():
    told = environment({"psutil": "psutil"})
    assert told["python"] == sys.version.split()[0]
    assert told["versions"].startswith("psutil ")


def test_what_is_missing_is_told_with_how_to_install_it():
    with pytest.raises(Ended, match="no-such-package, nor-this missing from the job's Python") as ended:
        environment({"psutil": "psutil", "no_such_package": "no-such-package", "nor_this": "nor-this"})
    assert ended.value.how is JobExit.ENVIRONMENT
    assert "pip install" in str(ended.value)


@pytest.mark.parametrize(("path", "rest"), [("/usr/bin:/bin", "/usr/bin:/bin"), (None, os.defpath)])
def test_the_jobs_own_python_is_the_first_on_path(path, rest):
    env = {"A": "b"} | ({"PATH": path} if path else {})
    assert own_python_first(env) == {"A": "b", "PATH": f"{Path(sys.executable).parent}:{rest}"}
