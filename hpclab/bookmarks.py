"""Where sessions are that were started or attached to from this machine: one small file for each. No secrets."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from hpclab.hosts.local import LocalHost


@dataclass(frozen=True, kw_only=True)
class Bookmark:
    """A session on a login node, and how to get there again."""

    name: str
    destination: str
    """As the user gave it."""
    address: str = ""
    """The login node itself, where the destination is a name for several; empty behind a proxy."""
    ssh: str = "auto"
    python: str = ""
    prologue: tuple[str, ...] = ()
    created: float = 0.0
    """The session, in seconds since the epoch; 0: not known yet. With the name it says which session it is."""
    jupyter_port: int = 0
    """On this machine, the last time; 0: none yet."""
    dashboard_port: int = 0

    @property
    def file_name(self) -> str:
        # a destination may have characters that a file name may not
        return f"{self.name}-{hashlib.sha256(self.destination.encode()).hexdigest()[:8]}.json"


def _bookmark(given: dict[str, Any]) -> Bookmark:
    """Raises ValueError, TypeError or KeyError when it is none."""
    values = {
        **asdict(Bookmark(name=given["name"], destination=given["destination"])),
        **{field.name: given[field.name] for field in fields(Bookmark) if field.name in given},
    }
    if isinstance(values["prologue"], list):
        values["prologue"] = tuple(values["prologue"])
    like = asdict(Bookmark(name="", destination=""))
    if any(type(values[key]) is not type(value) for key, value in like.items()):
        raise ValueError("a value of another type")
    if not all(isinstance(line, str) for line in values["prologue"]):
        raise ValueError("a prologue is lines")
    return Bookmark(**values)


class Bookmarks:
    """All of this machine's user."""

    def __init__(self, host: LocalHost) -> None:
        self._host = host
        self._folder = f"{host.home}/bookmarks"

    def all(self) -> list[Bookmark]:
        """Those that can be read, the oldest first."""
        found, names = [], list[str]()
        with suppress(OSError):
            names = self._host.names(self._folder)
        for name in names:
            path = f"{self._folder}/{name}"
            with suppress(OSError, ValueError, TypeError, KeyError, RecursionError):
                given = json.loads(self._host.read(path))
                found.append((Path(path).stat().st_mtime, _bookmark(given)))
        return [bookmark for _, bookmark in sorted(found, key=lambda pair: pair[0])]

    def named(self, name: str, destination: str = "") -> list[Bookmark]:
        return [b for b in self.all() if b.name == name and destination in ("", b.destination)]

    def keep(self, bookmark: Bookmark) -> None:
        """In place of one by another way to the same session. As far as it can be written: else there is --host."""
        same = [b for b in self.all() if b.created and (b.name, b.created) == (bookmark.name, bookmark.created)]
        self.forget([other for other in same if other.destination != bookmark.destination])
        with suppress(OSError):
            if not Path(self._folder).is_dir():
                self._host.make_folder(self._folder)
        with suppress(OSError):
            self._host.write(f"{self._folder}/{bookmark.file_name}", json.dumps(asdict(bookmark), indent=2) + "\n")

    def forget(self, bookmarks: Sequence[Bookmark]) -> None:
        for bookmark in bookmarks:
            with suppress(OSError):
                Path(f"{self._folder}/{bookmark.file_name}").unlink()
