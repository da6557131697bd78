"""Walltimes, memory sizes and durations: text to whole seconds and bytes, and back.

A bare number is refused where its unit differs between batch systems (Slurm's minutes are PBS's seconds).
"""

from __future__ import annotations

import re
import reprlib
import time
from datetime import UTC, datetime
from operator import index
from typing import SupportsIndex

from hpclab.errors import ConfigError

_SECONDS = {"d": 86400, "h": 3600, "m": 60, "min": 60, "s": 1}
_BINARY = {"K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


def parse_walltime(text: str) -> int:
    """Seconds in `1:30:00`, `1-12:00:00`, `90m`, `2h`, `1h30m`, `45s`."""
    given = text.strip()
    if clock := re.fullmatch(r"(?:(\d{1,6})-)?(\d{1,6}):(\d\d):(\d\d)", given):
        days, hours, minutes, seconds = (int(part or 0) for part in clock.groups())
        total = ((days * 24 + hours) * 60 + minutes) * 60 + seconds
    elif re.fullmatch(r"(\d{1,9}\s*(d|h|min|m|s)\s*)+", given):
        total = sum(int(n) * _SECONDS[unit] for n, unit in re.findall(r"(\d+)\s*(d|h|min|m|s)", given))
    else:
        raise ConfigError(f"cannot read the time {text!r}\nwrite it as 1:30:00, 1-12:00:00, 90m, 2h or 1h30m")
    if total == 0:
        raise ConfigError(f"the time {text!r} is zero\nwrite it as 1:30:00, 1-12:00:00, 90m, 2h or 1h30m")
    return total


def parse_memory(text: str) -> int:
    """Bytes in `4G`, `4GB`, `4GiB`, `1.5g`, `512M`: always powers of 1024, as batch systems count."""
    match = re.fullmatch(r"(\d{1,9}(?:\.\d{1,9})?)\s*([KMGT])(i?B)?", text.strip(), re.IGNORECASE)
    if match is None:
        raise ConfigError(f"cannot read the memory size {text!r}\nwrite it as 4G, 1.5G or 512M")
    size_bytes = int(float(match[1]) * _BINARY[match[2].upper()])
    if size_bytes == 0:
        raise ConfigError(f"the memory size {text!r} is zero\nwrite it as 4G, 1.5G or 512M")
    return size_bytes


def parse_count(text: str, *, what: str) -> int:
    """A whole number of at least 1."""
    if not re.fullmatch(r"\d{1,6}", text.strip()) or int(text) == 0:
        raise ConfigError(f"{what} must be a whole number of at least 1, not {text!r}")
    return int(text)


def whole_number(given: object, *, what: str, least: int, most: int) -> int:
    """One that a program has given; numpy's are as good as Python's."""
    if isinstance(given, bool) or not isinstance(given, SupportsIndex) or not least <= index(given) <= most:
        raise ConfigError(f"{what} must be a whole number from {least} to {most}, not {reprlib.repr(given)}")
    return index(given)


def format_walltime(seconds: float) -> str:
    """`1:30:00`, as every batch system reads it."""
    minutes, s = divmod(int(seconds), 60)
    hours, m = divmod(minutes, 60)
    return f"{hours}:{m:02}:{s:02}"


def format_memory(size_bytes: float) -> str:
    """`2 GiB`, `1.5 GiB`, `512 MiB`: exact where it is a whole number, else one decimal."""
    for unit in ("K", "M", "G", "T"):
        if size_bytes < 1024 * _BINARY[unit] or unit == "T":
            return f"{size_bytes / _BINARY[unit]:.1f}".removesuffix(".0") + f" {unit}iB"
    raise AssertionError("unreachable")


def format_duration(seconds: float) -> str:
    """For people: `3.2 s`, `43 s`, `12 min`, `1 h 05 min`, `2 d 03 h`."""
    if seconds < 10:
        return f"{max(seconds, 0):.1f} s"
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = int(seconds // 60)
    if minutes < 60:
        return f"{minutes} min"
    hours, m = divmod(minutes, 60)
    return f"{hours} h {m:02} min" if hours < 48 else f"{hours // 24} d {hours % 24:02} h"


def format_clock(time_s: float) -> str:
    """A moment for people, here: `at 14:05`, or `on Sat 22 Nov at 14:05` if that is not today."""
    moment = time.localtime(time_s)
    clock = time.strftime("at %H:%M", moment)
    return clock if moment[:3] == time.localtime()[:3] else time.strftime("on %a %d %b ", moment) + clock


def counted(number: int, noun: str) -> str:
    """`1 worker`, `2 workers`."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


_MONTHS = "Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec".split()


def parse_ctime(text: str) -> float | None:
    """Seconds since the epoch of C's `Fri Nov 20 23:13:33 2026`, told in UTC; None if it is not one."""
    told = re.fullmatch(r"\w{3} (\w{3}) +([0-9]{1,2}) ([0-9]{2}):([0-9]{2}):([0-9]{2}) ([0-9]{4})", text.strip())
    if told is None or told[1] not in _MONTHS:
        return None
    day, hour, minute, second, year = (int(part) for part in told.groups()[1:])
    try:
        return datetime(year, _MONTHS.index(told[1]) + 1, day, hour, minute, second, tzinfo=UTC).timestamp()
    except ValueError:
        return None


def split_evenly(count: int, parts: int) -> list[int]:
    """5 things in 2 parts are 3 and 2: whole numbers, the larger ones first."""
    each, over = divmod(count, parts)
    return [each + 1] * over + [each] * (parts - over)
