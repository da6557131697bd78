"""This machine."""

from __future__ import annotations

import getpass
import os
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

from hpclab.errors import CommandMissing, TookTooLong
from hpclab.result import Result
from hpclab.versions import versions_here

SUBMIT_HOSTS = ("SLURM_SUBMIT_HOST", "PBS_O_HOST", "SGE_O_HOST", "LSB_SUB_HOST")


class LocalHost:
    """Runs commands and touches files here; `env` is the user's environment."""

    def __init__(self, env: Mapping[str, str]) -> None:
        self._env = dict(env)
        self.name = socket.gethostname()
        self.python = sys.executable
        self.home = env.get("HPCLAB_HOME") or str(Path(env.get("HOME") or Path.home()) / ".hpclab")
        self.login = f"{_user(env)}@{self.name}"
        self.submit_host = next((env[name] for name in SUBMIT_HOSTS if env.get(name)), "")

    @property
    def versions(self) -> Mapping[str, str]:
        return versions_here()

    def run(self, argv: Sequence[str], *, timeout_s: float = 60) -> Result:
        actual = [self.python, "-P", *argv[1:]] if argv[0] == "python" else list(argv)
        try:
            done = subprocess.run(
                actual, env=self._env, stdin=subprocess.DEVNULL, capture_output=True, timeout=timeout_s, check=False
            )
        except OSError as error:
            what = "there is no" if isinstance(error, FileNotFoundError) else "this user may not run"
            raise CommandMissing(f"{what} {argv[0]!r} on {self.name}\nis the right one on your PATH?") from error
        except subprocess.TimeoutExpired as error:
            raise TookTooLong(f"{argv[0]!r} did not answer within {timeout_s:.0f} s on {self.name}") from error
        stdout, stderr = (stream.decode(errors="replace") for stream in (done.stdout, done.stderr))
        return Result(host=self.name, argv=tuple(argv), exit_status=done.returncode, stdout=stdout, stderr=stderr)

    def read(self, path: str) -> str:
        return Path(path).read_text(encoding="utf-8", errors="replace")

    def read_from(self, path: str, offset: int) -> tuple[str, int]:
        with open(path, "rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size + offset) if offset < 0 else offset)
            return file.read().decode(errors="replace"), file.tell()

    def write(self, path: str, text: str, *, mode: int = 0o600) -> None:
        """Whole or not at all: written beside, then renamed."""
        temporary = str(Path(path).with_name(f".{Path(path).name}.{self.name}.{threading.get_native_id()}"))
        try:
            with open(
                os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode),
                "w",
                encoding="utf-8",
                errors="surrogateescape",
            ) as file:
                file.write(text)
            Path(temporary).replace(path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise

    def rename(self, path: str, new_path: str) -> None:
        Path(path).rename(new_path)

    def remove(self, path: str) -> None:
        Path(path).unlink(missing_ok=True)

    def make_folder(self, path: str) -> None:
        """A new folder for the user alone; FileExistsError when it is there already."""
        for parent in reversed(Path(path).parents):
            if not parent.exists():
                parent.mkdir(mode=0o700, exist_ok=True)
        Path(path).mkdir(mode=0o700)

    def names(self, folder: str) -> list[str]:
        try:
            return sorted(entry.name for entry in os.scandir(folder) if not entry.name.startswith("."))
        except FileNotFoundError:
            return []

    def remove_tree(self, path: str) -> None:
        shutil.rmtree(path, ignore_errors=True)


def _user(env: Mapping[str, str]) -> str:
    try:
        return env.get("USER") or getpass.getuser()
    except (KeyError, OSError):  # a uid without an entry in /etc/passwd, as in some containers
        return str(os.getuid())
