"""This machine."""

from __future__ import annotations

import errno
import getpass
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from hpclab.batch import BATCH_SYSTEMS
from hpclab.errors import CommandMissing, TookTooLong
from hpclab.result import Result
from hpclab.versions import versions_here

LONGEST_FILE_BYTES = 64 * 2**20
"""What is read at once is never longer: no file of ours comes near that."""

SUBMIT_HOSTS = [batch.SUBMIT_HOST for batch in BATCH_SYSTEMS.values() if batch.SUBMIT_HOST]


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
        pipe = subprocess.PIPE
        try:
            process = subprocess.Popen(
                actual, env=self._env, stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe, process_group=0
            )
        except OSError as error:
            what = "there is no" if isinstance(error, FileNotFoundError) else "this user may not run"
            raise CommandMissing(f"{what} {argv[0]!r} on {self.name}\nis the right one on your PATH?") from error
        with process:
            try:
                streams = process.communicate(timeout=timeout_s)
            except BaseException as error:
                # with all that it has started: many a site wraps the batch system's commands into scripts
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                if isinstance(error, subprocess.TimeoutExpired):
                    raise TookTooLong(f"{argv[0]!r} did not answer within {timeout_s:.0f} s on {self.name}") from error
                raise
        stdout, stderr = (stream.decode(errors="replace") for stream in streams)
        return Result(host=self.name, argv=tuple(argv), exit_status=process.returncode, stdout=stdout, stderr=stderr)

    def read(self, path: str) -> str:
        with _regular(path) as file:
            data = file.read(LONGEST_FILE_BYTES + 1)
        if len(data) > LONGEST_FILE_BYTES:
            raise OSError(errno.EFBIG, os.strerror(errno.EFBIG), path)
        return data.decode(errors="replace")

    def read_from(self, path: str, offset: int) -> tuple[str, int]:
        with _regular(path) as file:
            size = file.seek(0, os.SEEK_END)
            start = file.seek(max(0, size + offset) if offset < 0 else offset)
            # not to its end, which may move away as fast as we read
            return file.read(min(max(0, size - start), LONGEST_FILE_BYTES)).decode(errors="replace"), file.tell()

    def read_piece(self, path: str, offset: int, most_bytes: int) -> bytes:
        with _regular(path) as file:
            file.seek(offset)
            return file.read(most_bytes)

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


def _regular(path: str) -> BinaryIO:
    """Open for reading. From a pipe nobody may ever write to, or a device, one would read for ever."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        return open(descriptor, "rb")
    os.close(descriptor)
    raise OSError(errno.EINVAL, "it is not a regular file", path)


def _user(env: Mapping[str, str]) -> str:
    try:
        return env.get("USER") or getpass.getuser()
    except (KeyError, OSError):  # a uid without an entry in /etc/passwd, as in some containers
        return str(os.getuid())
