"""Recorded answers of real batch systems, `tests/data/SYSTEM/`: what was said to which command."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from hpclab.result import Result

DATA = Path(__file__).parent.parent / "data"


@dataclass(frozen=True)
class Step:
    """One command line, as it was typed, and its answer."""

    command: str
    exit_status: int
    stdout: str
    stderr: str

    @property
    def result(self) -> Result:
        return answered(self.stdout, self.stderr, self.exit_status)


def answered(stdout: str = "", stderr: str = "", exit_status: int = 0) -> Result:
    """An answer, whatever the question was."""
    return Result(host="login", argv=("it",), exit_status=exit_status, stdout=stdout, stderr=stderr)


def transcript(system: str, name: str) -> list[Step]:
    """The steps of `tests/data/SYSTEM/NAME.txt` or `.json`."""
    path = DATA / system / f"{name}.json"
    if path.exists():
        steps = json.loads(path.read_text())["steps"]
        return [Step(s["cmd"], s["exit"], s["stdout"], s["stderr"]) for s in steps if s["kind"] == "run"]
    return list(_steps((DATA / system / f"{name}.txt").read_text()))


def transcripts(system: str) -> list[str]:
    """The names of all of them."""
    return sorted(path.stem for path in (DATA / system).iterdir())


def said(system: str, name: str, command: str) -> Step:
    """The first step whose command line holds `command`."""
    return next(step for step in transcript(system, name) if command in step.command)


_STEP = re.compile(r"^\[\w+@[\w-]+\]\$ (.*)\n# exit (\d+), \d+ ms\n", re.MULTILINE)


def _steps(text: str) -> Iterator[Step]:
    _, *parts = _STEP.split(text)
    for command, exit_status, said in zip(parts[::3], parts[1::3], parts[2::3], strict=True):
        stdout, _, stderr = said.removeprefix("--- stdout\n").partition("--- stderr\n")
        yield Step(command, int(exit_status), stdout, stderr)
