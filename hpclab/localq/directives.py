"""The `#HPCLAB --option=value` lines at the head of a script: text in, fields of a job's record out."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from typing import Any

from hpclab.localq.refusal import Refusal


def whole_number(text: str, least: int) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) <= 18 and int(text) >= least):
        raise ValueError(f"{text!r} is not a whole number of at least {least}")
    return int(text)


def some_text(text: str) -> str:
    if not text or "\0" in text:
        raise ValueError("needs a value")
    return text


OPTIONS: dict[str, tuple[str, Callable[[str], int | str]]] = {
    "--job-name": ("name", some_text),
    "--cores": ("cores", lambda text: whole_number(text, 1)),
    "--memory": ("memory_bytes", lambda text: whole_number(text, 1)),
    "--walltime": ("walltime_s", lambda text: whole_number(text, 1)),
    "--output": ("output", some_text),
    "--slots": ("slots", lambda text: whole_number(text, 1)),
    "--grace": ("grace_s", lambda text: whole_number(text, 0)),
}


def parse_directive(text: str) -> tuple[str, int | str]:
    """'--cores=4' becomes ('cores', 4)."""
    words = shlex.split(text)
    if len(words) != 1:
        raise ValueError("needs exactly one --option=value")
    option, _, value = words[0].partition("=")
    if option not in OPTIONS:
        raise ValueError(f"unknown option {option!r} (known: {', '.join(OPTIONS)})")
    field, parse = OPTIONS[option]
    return field, parse(value)


def parse_directives(script: str) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    for number, line in enumerate(script.split("\n"), start=1):
        words = line.split(None, 1)
        if words and not words[0].startswith("#"):
            break
        if words and words[0] == "#HPCLAB":
            try:
                field, value = parse_directive(words[1] if len(words) > 1 else "")
            except ValueError as error:
                raise Refusal(f"line {number}: {line.strip()!r}: {error}", exit_status=2) from None
            fields[field] = value
    return fields
