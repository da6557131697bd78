"""Jobs in an environment of their own. The container's program is a stand-in that runs on the machine itself."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

from harness import Home
from waiting import until

APPTAINER = """#!/bin/sh
# apptainer exec --bind PATH … IMAGE PROGRAM …
echo "$@" >>"$(dirname "$0")/asked"
shift
while [ "$1" = --bind ]; do shift 2; done
[ -e "$1" ] || { echo "no image $1"; exit 255; }
shift
exec "$@"
"""


def test_a_session_in_a_container(a_home: Callable[..., Home], tmp_path: Path) -> None:
    bin_folder = tmp_path / "bin"
    bin_folder.mkdir()
    (bin_folder / "apptainer").write_text(APPTAINER)
    (bin_folder / "apptainer").chmod(0o755)
    image = tmp_path / "an image.sif"
    image.write_text("")
    home = a_home(
        prologue=f"export PATH={bin_folder}:$PATH",
        container=str(image),
        binds="/data\n/two words",
        export="GREETING=hello world",
        python=sys.executable,
    )
    session = home.start()
    session.home.ok("add-worker")
    until(lambda: session.status()["workers"]["joined"] == 2, what="the worker")
    main, worker = (bin_folder / "asked").read_text().splitlines()
    for asked, module in ((main, "main_job"), (worker, "worker_job")):
        assert asked.startswith(f"exec --bind {session.status()['folder']} --bind /tmp/hpclab-")
        assert f" --bind /data --bind /two words {image} " in asked
        assert f"hpclab.inside.{module}" in asked
    with session.client() as client:
        assert client.submit(os.getenv, "GREETING").result() == "hello world"
