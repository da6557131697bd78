"""Where commands run and files are: the only place that starts processes or touches files on the cluster."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from hpclab.result import Result


class Host(Protocol):
    """One machine. File errors are OSError; a missing command is CommandMissing, one that hangs TookTooLong."""

    name: str
    python: str
    """hpclab's own Python there; stands for the word `python` in first place of an argv."""
    home: str
    """Where hpclab keeps its files there."""
    login: str
    """USER@HOST, as ssh wants it."""

    @property
    def versions(self) -> Mapping[str, str]:
        """Of hpclab's own environment there; see hpclab.versions."""
        ...

    def run(self, argv: Sequence[str], *, timeout_s: float = 60) -> Result: ...
    def read(self, path: str) -> str: ...
    def read_from(self, path: str, offset: int) -> tuple[str, int]:
        """What stands from a byte on, and the offset to go on from; a negative offset counts from the end."""
        ...

    def write(self, path: str, text: str, *, mode: int = 0o600) -> None: ...
    def make_folder(self, path: str) -> None: ...
    def names(self, folder: str) -> list[str]: ...
    def remove_tree(self, path: str) -> None: ...
