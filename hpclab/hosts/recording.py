"""A host for tests, ours and yours: files in memory, prepared answers, and a record of every command."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePosixPath

from hpclab.result import Result


class RecordingHost:
    """`answers` are (exit status, stdout, stderr), given one after the other; after the last, success and silence."""

    def __init__(self, answers: Sequence[tuple[int, str, str]] = ()) -> None:
        self.name = "recording"
        self.python = "/opt/python"
        self.home = "/home/ada/.hpclab"
        self.login = "ada@recording"
        self.submit_host = ""
        self.versions: dict[str, str] = {}
        self.commands: list[tuple[str, ...]] = []
        self.files: dict[str, str] = {}
        self.folders: set[str] = set()
        self._answers = list(answers)

    def run(self, argv: Sequence[str], *, timeout_s: float = 60) -> Result:
        self.commands.append(tuple(argv))
        exit_status, stdout, stderr = self._answers.pop(0) if self._answers else (0, "", "")
        return Result(host=self.name, argv=tuple(argv), exit_status=exit_status, stdout=stdout, stderr=stderr)

    def read(self, path: str) -> str:
        try:
            return self.files[path]
        except KeyError:
            raise FileNotFoundError(path) from None

    def read_from(self, path: str, offset: int) -> tuple[str, int]:
        data = self.read(path).encode()
        return data[max(0, len(data) + offset) if offset < 0 else offset :].decode(), len(data)

    def read_piece(self, path: str, offset: int, most_bytes: int) -> bytes:
        return self.read(path).encode()[offset : offset + most_bytes]

    def write(self, path: str, text: str, *, mode: int = 0o600) -> None:
        self.files[path] = text

    def rename(self, path: str, new_path: str) -> None:
        self.files[new_path] = self.read(path)
        del self.files[path]

    def remove(self, path: str) -> None:
        self.files.pop(path, None)

    def make_folder(self, path: str) -> None:
        if path in self.folders:
            raise FileExistsError(path)
        self.folders |= {path, *(str(parent) for parent in PurePosixPath(path).parents)}

    def names(self, folder: str) -> list[str]:
        return sorted(
            {PurePosixPath(p).name for p in (*self.files, *self.folders) if str(PurePosixPath(p).parent) == folder}
        )

    def remove_tree(self, path: str) -> None:
        self.files = {name: text for name, text in self.files.items() if not name.startswith(path + "/")}
        self.folders = {name for name in self.folders if name != path and not name.startswith(path + "/")}
