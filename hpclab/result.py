"""What a command did: an exit status and what it said."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Result:
    """The answer of a command that ran to its end."""

    host: str
    argv: tuple[str, ...]
    exit_status: int
    stdout: str
    stderr: str

    @property
    def output(self) -> str:
        return self.stderr.strip() or self.stdout.strip()

    @property
    def last_words(self) -> str:
        """The last line that it said, for messages that have room for one."""
        lines = self.output.splitlines()
        return lines[-1].strip() if lines else f"no word, exit status {self.exit_status}"
