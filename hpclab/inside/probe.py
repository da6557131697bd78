"""What this machine looks like from within: `python -P -m hpclab.inside.probe FOLDER …` prints one JSON object.

`hpclab doctor` runs it on the login node and in a short job on a compute node. Of other packages it imports psutil
alone, so that it answers at once, and also where Dask is broken. It judges nothing: that is hpclab.doctor's.

For a meeting both sides listen, leave their addresses and a random word in the folder, and try to fetch the other's
word over the network. Nothing but the word is said, nothing is listened to, and it ends with the meeting.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.metadata
import json
import os
import re
import secrets
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil

from hpclab.inside.network import own_addresses
from hpclab.inside.report import announce
from hpclab.launchers import family, without_mpi
from hpclab.versions import versions_here

PACKAGES = ("dask-mpi", "mpi4py", "jupyterlab", "hpclab")
"""What a job needs besides what versions_here tells."""
ANSWER_WITHIN_S = 20
CONNECT_WITHIN_S = 5
LOOK_EVERY_S = 0.2
MOST_TEXT = 200_000
"""Characters of what a command said."""


def run(argv: Sequence[str]) -> dict[str, Any]:
    """What a command answers; one that is missing or hangs has an exit status, too, a shell's."""
    actual = [sys.executable, "-P", *argv[1:]] if argv[0] == "python" else list(argv)
    try:
        done = subprocess.run(
            actual,
            env=without_mpi(dict(os.environ)),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=ANSWER_WITHIN_S,
            check=False,
        )
    except OSError as error:
        return {"exit_status": 127, "stdout": "", "stderr": f"{argv[0]}: {error.strerror}"}
    except subprocess.TimeoutExpired:
        return {"exit_status": 124, "stdout": "", "stderr": f"{argv[0]} did not answer within {ANSWER_WITHIN_S} s"}
    stdout, stderr = (stream.decode(errors="replace")[:MOST_TEXT] for stream in (done.stdout, done.stderr))
    return {"exit_status": done.returncode, "stdout": stdout, "stderr": stderr}


def versions() -> dict[str, str]:
    found = versions_here()
    for package in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[package] = importlib.metadata.version(package)
    return found


def interfaces() -> list[dict[str, Any]]:
    """The networks that lead out of this machine; a speed of 0 is one that nobody knows."""
    stats, addresses = psutil.net_if_stats(), psutil.net_if_addrs()
    led_out = own_addresses()
    return [
        {"name": name, "addresses": there, "speed_mbit": stats[name].speed}
        for name in addresses
        if name in stats and (there := [a.address for a in addresses[name] if a.address in led_out])
    ]


def launchers(wanted: str) -> list[dict[str, str]]:
    """MPI launchers, the one that a main job would take first. One that was asked for and is missing has no family."""
    beside = str(Path(sys.executable).parent)
    missing = []
    paths = [shutil.which("mpiexec", path=beside), shutil.which("mpiexec"), shutil.which("mpirun")]
    if wanted != "auto":
        named = wanted.split()[0]
        paths.insert(0, shutil.which(named))
        missing = [] if paths[0] else [{"path": named, "family": "", "version": ""}]
    # one program may have several names
    different = {os.path.realpath(path): path for path in reversed(paths) if path}
    return missing + [_launcher(path) for path in reversed(different.values())]


def _launcher(path: str) -> dict[str, str]:
    answer = run([path, "--version"])
    said = answer["stdout"] + answer["stderr"]
    version = re.search(r"\d+\.\d+[\w.]*", said)
    return {"path": path, "family": family(said), "version": version[0] if version else ""}


_ASK_MPI = (
    "import mpi4py; mpi4py.rc.initialize = False; from mpi4py import MPI; print(MPI.Get_library_version().strip())"
)


def mpi_library() -> dict[str, str]:
    """What mpi4py is linked to; asked in a process of its own, for a wrong library may end it."""
    answer = run(["python", "-c", _ASK_MPI])
    lines = (answer["stderr"] if answer["exit_status"] else answer["stdout"]).strip().splitlines() or [""]
    if answer["exit_status"]:
        return {"name": "", "error": lines[-1] or f"exit status {answer['exit_status']}"}
    return {"name": " ".join(lines[0].split()), "error": ""}


def place(path: Path) -> dict[str, Any]:
    """A folder's file system; that of the nearest one that exists."""
    there = next(folder for folder in (path, *path.parents) if folder.exists())
    room = os.statvfs(there)
    return {
        "path": str(path),
        "type": _type(os.path.realpath(there)),
        "free_bytes": room.f_bavail * room.f_frsize,
        "error": _refusal(there),
    }


def _type(path: str) -> str:
    """Of the mount that is nearest, and of several at one place the last, which hides the others."""
    nearest, kind = "", ""
    for mount in psutil.disk_partitions(all=True):
        is_above = Path(path).is_relative_to(mount.mountpoint)
        if is_above and len(mount.mountpoint) >= len(nearest):
            nearest, kind = mount.mountpoint, mount.fstype
    return kind


def _refusal(folder: Path) -> str:
    """Why nothing can be written there; only a real write meets a quota."""
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(bytes(65536))
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        return error.strerror or str(error)
    return ""


def scratch() -> Path:
    """Where a job's scratch folder is made."""
    made = os.environ.get("HPCLAB_SCRATCH")
    return Path(made).parent if made else Path(os.environ.get("TMPDIR") or "/tmp")


# the meeting


def meet(folder: Path, me: str, other: str, *, loopback: bool, within_s: float) -> dict[str, Any]:
    """Which of the other's addresses answer from here; each with the reason if it does not, empty if it does."""
    deadline = time.monotonic() + within_s
    word = secrets.token_hex(16)
    hosts = ["127.0.0.1"] if loopback else [socket.gethostname(), *own_addresses()]
    with _telling(word, "127.0.0.1" if loopback else "") as port:
        announce(str(folder / f"{me}.listens"), json.dumps({"hosts": hosts, "port": port, "word": word}))
        theirs = _awaited(folder, f"{other}.listens", deadline)
        answers: dict[str, str] = {}
        if theirs:
            told = json.loads(theirs)
            with ThreadPoolExecutor(max_workers=16) as pool:
                tried = pool.map(lambda host: _try(host, told["port"], told["word"]), told["hosts"])
                answers = dict(zip(told["hosts"], tried, strict=True))
        announce(str(folder / f"{me}.met"), "met\n")
        _awaited(folder, f"{other}.met", deadline)
    return {"came": bool(theirs), "answers": answers}


@contextlib.contextmanager
def _telling(word: str, address: str) -> Iterator[int]:
    """Listen on a free port, and tell the word to whoever connects."""

    def tell() -> None:
        with contextlib.suppress(OSError):  # the listener was shut
            while True:
                line, _ = listener.accept()
                with line, contextlib.suppress(OSError):
                    line.sendall(word.encode())

    with socket.create_server((address, 0), backlog=64) as listener:
        threading.Thread(target=tell, daemon=True).start()
        try:
            yield listener.getsockname()[1]
        finally:
            listener.shutdown(socket.SHUT_RDWR)


def _awaited(folder: Path, name: str, deadline: float) -> str:
    """The text of a file once it is there; empty when it does not come."""
    while time.monotonic() < deadline:
        # a listing, for network file systems remember for long that a single file is not there
        if name in os.listdir(folder):
            return (folder / name).read_text(encoding="utf-8")
        time.sleep(LOOK_EVERY_S)
    return ""


def _try(host: str, port: int, word: str) -> str:
    try:
        with socket.create_connection((host, port), timeout=CONNECT_WITHIN_S) as line:
            said = b""
            while len(said) < len(word) and (more := line.recv(64)):
                said += more
    except TimeoutError:
        return f"no answer within {CONNECT_WITHIN_S} s"
    except OSError as error:
        return error.strerror or str(error)
    return "" if said == word.encode() else "somebody else answers there"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m hpclab.inside.probe")
    parser.add_argument("folder", type=Path, help="whose file system is looked at, and where a meeting is")
    parser.add_argument("--mpiexec", default="auto")
    parser.add_argument("--loopback", action="store_true", help="meet on this machine only")
    parser.add_argument("--run", nargs=2, action="append", default=[], metavar=("NAME", "COMMAND"))
    parser.add_argument("--meet", nargs=2, metavar=("ME", "OTHER"))
    parser.add_argument("--within", type=float, default=60, metavar="SECONDS", help="how long a meeting may take")
    given = parser.parse_args()
    met = None
    if given.meet:
        met = meet(given.folder, *given.meet, loopback=given.loopback, within_s=given.within)
    job_id = os.environ.get("HPCLAB_JOB_ID", "")
    commands = {name: shlex.split(command.replace("{job_id}", job_id)) for name, command in given.run}
    seen = {
        "node": socket.gethostname(),
        "python": sys.executable,
        "versions": versions(),
        "interfaces": interfaces(),
        "launchers": launchers(given.mpiexec),
        "mpi_library": mpi_library(),
        "home": place(given.folder),
        "scratch": place(scratch()),
        "answers": {name: run(argv) for name, argv in commands.items()},
        "met": met,
    }
    text = json.dumps(seen)
    if given.meet:
        announce(str(given.folder / f"{given.meet[0]}.json"), text)
    print(text)


if __name__ == "__main__":
    os.umask(0o077)
    main()
