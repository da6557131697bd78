"""The command line, and what it costs."""

from __future__ import annotations

import subprocess
import sys

import pytest

from localq.harness import REPOSITORY, script


@pytest.mark.parametrize(
    "args",
    [[], ["submit"], ["submit", "a", "b"], ["cancel"], ["status", "-x"], ["shepherd"], ["shepherd", "one"], ["dance"]],
)
def test_bad_usage_shows_the_usage(a_queue, args):
    done = a_queue.run(*args)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("usage: ")


@pytest.mark.parametrize("missing", ["fcntl", "psutil"])
def test_importing_it_is_cheap_and_needs_no_unix(missing):
    code = f"import sys; sys.modules[{missing!r}] = None; import hpclab.localq.__main__; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=REPOSITORY, check=True)
    loaded = set(done.stdout.split())
    assert not loaded & {"argparse", "dataclasses", "inspect", "socket", "subprocess", "ctypes", "shutil"}
    parts = ("__main__", "dispatch", "record", "refusal")
    expected = {"hpclab", "hpclab.__about__", "hpclab.localq", *(f"hpclab.localq.{part}" for part in parts)}
    assert {name for name in loaded if name.startswith("hpclab")} == expected


def test_ids_that_are_no_numbers_are_ids_of_no_job(a_queue):
    a_queue.submit(script("true"))
    job = a_queue.end_of("1")
    odd = ["one", "", "1.5", "²", "١", "01", "1/../1", "\udcff", 5000 * "9"]
    assert a_queue.status(*odd) == {}
    a_queue.cancel(*odd)
    assert a_queue.status("1", *odd) == {"1": job}
