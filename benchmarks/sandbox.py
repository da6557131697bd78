"""A place of its own for each benchmark: a temporary home and batch system, and nothing left running afterwards."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

GRACE_S = 10
BIN = Path(sys.executable).parent


@dataclass(frozen=True)
class Sandbox:
    """Where a benchmark runs; `env` leads hpclab, and commands beside this Python, there."""

    folder: Path
    env: dict[str, str]

    @contextmanager
    def process(
        self, *argv: str | Path, env: Mapping[str, str], folder: Path | None = None, stdout: int | None = None
    ) -> Iterator[subprocess.Popen[str]]:
        """A program that ends, with all that it has started, when the block does; what it says goes to `log`."""
        folder = folder or self.folder
        with (folder / "log").open("a") as log:
            program = subprocess.Popen(
                argv,
                cwd=folder,
                env={**self.env, **env},
                stdin=subprocess.DEVNULL,
                stdout=stdout or log,
                stderr=log,
                text=True,
                start_new_session=True,
            )
        try:
            yield program
        finally:
            end(family(program.pid))
            program.wait()

    def hpclab(self, *arguments: str, **env: str) -> str:
        """What the command prints. An error ends the benchmark."""
        with self.process(BIN / "hpclab", *arguments, env=env, stdout=subprocess.PIPE) as program:
            answer, _ = program.communicate()
            if program.returncode:
                sys.exit(f"`hpclab {' '.join(arguments)}` failed:\n{(self.folder / 'log').read_text()}")
        return answer

    @contextmanager
    def session(self, name: str, **options: object) -> Iterator[dict[str, Any]]:
        """`hpclab start` with these options of its config, and `hpclab stop` at the end of the block."""
        env = {f"HPCLAB_{key.upper()}": str(value) for key, value in options.items()}
        try:
            yield json.loads(self.hpclab("start", "--queue", "local", "--name", name, "--json", **env))
        finally:
            with suppress(SystemExit):  # a start that has failed leaves nothing to be stopped
                self.hpclab("stop", name)


@contextmanager
def sandbox() -> Iterator[Sandbox]:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupted)
    with tempfile.TemporaryDirectory(prefix="hpclab-bench-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        # the user's own settings and sessions neither count nor change
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("HPCLAB_", "DASK_", "JUPYTER_"))}
        own = {
            "HPCLAB_HOME": str(folder / "home"),
            "HPCLAB_LOCALQ_DIR": str(folder / "queue"),
            "HPCLAB_SITE_CONFIG": os.devnull,
            "HPCLAB_START_TIMEOUT": "60s",
            "XDG_CONFIG_HOME": str(folder / "config"),
            "JUPYTER_RUNTIME_DIR": str(folder / "jupyter"),
            "PATH": f"{BIN}:{os.environ.get('PATH', os.defpath)}",
        }
        yield Sandbox(folder, kept | own)


def _interrupted(number: int, _: object) -> None:
    """Ends the benchmark, and a second Ctrl-C must not cut short its tidying."""
    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, signal.SIG_IGN)
    sys.exit(128 + number)


def family(pid: int) -> list[psutil.Process]:
    """A process and all that descend from it."""
    try:
        parent = psutil.Process(pid)
        return [parent, *parent.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def end(processes: Sequence[psutil.Process]) -> None:
    """TERM, and after a grace KILL."""
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.terminate()
    _, alive = psutil.wait_procs(processes, timeout=GRACE_S)
    for process in alive:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(alive, timeout=GRACE_S)
