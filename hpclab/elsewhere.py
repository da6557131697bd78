"""Commands that may be for a login node: which one that is, and the same command line said over there."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from hpclab.bookmarks import Bookmark, Bookmarks
from hpclab.config import Setting, Settings, Source, config_files, defaults, load
from hpclab.door import door_path, is_open
from hpclab.errors import ConfigError
from hpclab.hosts.local import LocalHost
from hpclab.place import place_of, remembered
from hpclab.session import ALIVE, Session
from hpclab.show import console

if TYPE_CHECKING:
    from hpclab.afar import Afar

NOT_FOR_THE_CLUSTER = {"host", "ssh", "remote_python", "remote_prologue", "profile"}
"""Options that mean something at the laptop alone."""


class Repeatable(click.Command):
    """A command that can be said elsewhere, as it was said here: its own words are in `ctx.meta["argv"]`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        ctx.meta["argv"] = without_ours([self.name or "", *args])
        return super().parse_args(ctx, args)


class OfScript(Repeatable):
    """A command with a script: what stands behind that is the script's own, whatever it looks like."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        given = list(args)
        rest = super().parse_args(ctx, args)
        if script := ctx.params.get("script"):
            own = [script, *ctx.params["arguments"]]
            ctx.meta["argv"] = [*without_ours([self.name or "", *given[: -len(own)]]), *own]
        return rest


class OfSession(Repeatable):
    """A command about a session: where that is on a login node, the command is said there, and shown here."""

    def invoke(self, ctx: click.Context) -> Any:
        place = place_of_session(ctx.params.pop("host"), ctx.params.get("name") or "")
        if place is None:
            return super().invoke(ctx)
        sys.exit(afar(place).run(ctx.meta["argv"]))


def for_the_cluster(chosen: Iterable[Setting]) -> list[Setting]:
    """What the user has chosen here and counts there, too."""
    return [s for s in chosen if s.source > Source.SITE and s.key not in NOT_FOR_THE_CLUSTER]


def without_ours(argv: list[str]) -> list[str]:
    """A command line without what means something here alone: --host and --profile."""
    kept: list[str] = []
    words = iter(argv)
    for word in words:
        if word == "--":
            return [*kept, word, *words]
        if word in ("--host", "--profile"):
            next(words, None)
        elif not word.startswith(("--host=", "--profile=")):
            kept.append(word)
    return kept


def afar(place: Bookmark, *, holds: bool = False) -> Afar:
    from hpclab.afar import Afar

    return Afar(place, console(stderr=True), holds=holds)


def place_of_session(destination: str | None, name: str) -> Bookmark | None:
    """The login node that a command is for; None: this machine."""
    bookmarks = Bookmarks(LocalHost(os.environ)).all()
    settings = settings_for(destination)
    name = name or os.environ.get("HPCLAB_SESSION", "")
    if settings.host:
        return place_of(settings, name, bookmarks)
    if destination is not None or not bookmarks or "HPCLAB_HOST" in os.environ:
        return None
    folder = f"{LocalHost(os.environ).home}/ssh"
    place = remembered(
        name, _names_here(name), bookmarks, is_held=lambda bookmark: is_open(door_path(folder, bookmark.destination))
    )
    return replace(place, ssh=settings.ssh) if place and settings.ssh != "auto" else place


def settings_for(destination: str | None) -> Settings:
    """The user's; a mistake in a config file must not stand between people and the sessions on this machine."""
    try:
        return load(os.environ, config_files(os.environ), {"host": destination})[0]
    except ConfigError:
        if destination is not None or os.environ.get("HPCLAB_HOST"):
            raise
        return defaults()


def _names_here(name: str) -> list[str]:
    """This machine's sessions that may be meant: the named one, else those that are alive."""
    found = Session.all(LocalHost(os.environ), defaults())
    return [s["name"] for s in found if (s["name"] == name if name else s["state"] in ALIVE)]
