"""How what a job's programs say gets into the log."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """if True:
    import subprocess, sys
    from hpclab.inside.output import passed_on
    with passed_on() as output:
        program = subprocess.Popen(["sh", "-c", sys.argv[1]], stdout=output, stderr=output)
    status = program.wait(20)
    import threading
    [thread.join(20) for thread in threading.enumerate() if thread.name == "output"]
    sys.exit(status)
    """


def says(script: str, log: str) -> int:
    """The exit status of a script whose output is passed on to this file."""
    with open(log, "wb") as out:
        return subprocess.run([sys.executable, "-c", PROGRAM, script], stdout=out, check=False, timeout=60).returncode


def test_it_is_all_there_and_in_order(tmp_path):
    log = tmp_path / "log"
    assert says("seq 20000; echo oh >&2; exit 3", str(log)) == 3
    assert log.read_text() == "".join(f"{n}\n" for n in range(1, 20001)) + "oh\n"


def test_on_a_full_disk_nobody_notices():
    assert says("set -e; for i in 1 2 3; do seq 20000; done; exit 3", "/dev/full") == 3
