"""Where commands run and files are: the only place that starts processes or touches files on the cluster."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, kw_only=True)
class Result:
    """What a command did."""

    host: str
    argv: tuple[str, ...]
    exit_status: int
    stdout: str
    stderr: str

    @property
    def output(self) -> str:
        return self.stderr.strip() or self.stdout.strip()


class Host(Protocol):
    """One machine. File errors are OSError; a missing command is CommandMissing, one that hangs TookTooLong."""

    name: str
    python: str
    """hpclab's own Python there; stands for the word `python` in first place of an argv."""
    home: str
    """Where hpclab keeps its files there."""
    login: str
    """USER@HOST, as ssh wants it."""

    def run(self, argv: Sequence[str], *, timeout_s: float = 60) -> Result: ...
    def read(self, path: str) -> str: ...
    def read_from(self, path: str, offset: int) -> tuple[str, int]:
        """What stands from a byte on, and the offset to go on from; a negative offset counts from the end."""
        ...

    def write(self, path: str, text: str, *, mode: int = 0o600) -> None: ...
    def make_folder(self, path: str) -> None: ...
    def names(self, folder: str) -> list[str]: ...
    def remove_tree(self, path: str) -> None: ...
