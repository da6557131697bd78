"""Which login node a command is for: the one that is named or configured, else the one that the session is on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from hpclab.bookmarks import Bookmark
from hpclab.config import Settings
from hpclab.errors import NoSuchSession


def place_of(settings: Settings, name: str, bookmarks: Sequence[Bookmark]) -> Bookmark:
    """On the host of the settings; as it was reached for this session before."""
    place = Bookmark(
        name=name,
        destination=settings.host,
        ssh=settings.ssh,
        python=settings.remote_python,
        prologue=settings.remote_prologue,
    )
    for known in bookmarks:
        if name and (known.name, known.destination) == (name, settings.host):
            return replace(
                place, address=known.address, jupyter_port=known.jupyter_port, dashboard_port=known.dashboard_port
            )
    return place


def remembered(
    name: str, here: Sequence[str], bookmarks: Sequence[Bookmark], *, is_held: Callable[[Bookmark], bool]
) -> Bookmark | None:
    """Where a session is, when nobody says; None: on this machine, whose sessions that may be meant are `here`.

    Raises NoSuchSession when it may be several. Without a name, those are meant whose tunnel is open now (`is_held`) if
    there are any, and the host decides which.
    """
    if name:
        known = [bookmark for bookmark in bookmarks if bookmark.name == name]
        if name in here or not known:
            return None
        if len(known) > 1:
            hosts = ", ".join(bookmark.destination for bookmark in known)
            raise NoSuchSession(f"there are sessions named {name} on {hosts}\nsay which one: --host HOST")
        return known[0]
    if not bookmarks:
        return None
    bookmarks = [bookmark for bookmark in bookmarks if is_held(bookmark)] or bookmarks
    if here or len({bookmark.destination for bookmark in bookmarks}) > 1:
        known_names = [f"{bookmark.name} on {bookmark.destination}" for bookmark in bookmarks]
        names = ", ".join([*(f"{name} on this machine" for name in here), *known_names])
        raise NoSuchSession(
            f"several sessions may be meant: {names}\n"
            "say which one, by its name or by --host HOST; `hpclab list --all-hosts` asks which are still alive"
        )
    return replace(bookmarks[-1], name="")
