"""The ways to a batch system: its commands on this host, or, where it does not listen to this host, on a login node."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence

from hpclab.batch import COMMAND_MISSING, not_from_here
from hpclab.errors import CommandMissing, ConnectionLost, HpclabError, NotFromHere, Unreachable
from hpclab.hosts import Commands
from hpclab.hosts.through_login import ThroughLogin
from hpclab.result import Result

PROBE_S = 8
"""For a login node to let us in, or not."""
AGAIN_S = 300
"""For so long a way that was shut is not tried again."""

_shut: dict[tuple[str, ...], tuple[float, str]] = {}
"""What this process has learnt: until when a way is not tried, and why."""
_open: dict[tuple[str, ...], float] = {}
_probing = threading.Lock()


class Ways:
    """Which way works is remembered by the process, for nobody shall wait for the others each time."""

    def __init__(self, host: Commands, system: str, login: str = "") -> None:
        """Without a `login` there is this host alone, and what its commands say is the answer, whatever it is."""
        self._host = host
        self._system = system
        self._login = ThroughLogin(host, login) if login else None

    def run(self, what: str, argv: Sequence[str], *, timeout_s: float = 60) -> Result:
        """By the first way that works for `what`, such as `submit`. Raises NotFromHere when none does.

        A command that may have been carried out is not run again by another way.
        """
        if self._login is None:
            return self._host.run(argv, timeout_s=timeout_s)
        here, there = (self._host.name, self._system, what), (self._login.name, self._system, what)
        if not (why := _why_shut(here)):
            try:
                answer = self._host.run(argv, timeout_s=timeout_s)
                if not (why := not_from_here(self._system, answer)):
                    return answer
            except CommandMissing as error:
                why = str(error).splitlines()[0]
            _shut_now(here, why)
        if not (why_not := _why_shut(there) or self._why_not_through(self._login)):
            try:
                answer = self._login.run(argv, timeout_s=timeout_s)
                # there it may: if it is refused, it is for what it asks for
                if answer.exit_status not in COMMAND_MISSING:
                    return answer
                why_not = _shut_now(there, answer.last_words)
            except ConnectionLost:
                raise
            except Unreachable as error:
                why_not = self._shut_login(self._login, error)
        raise NotFromHere(
            f"{self._system} does not listen to {self._host.name}, nor is there a way through {self._login.name}\n"
            f"  on {self._host.name}: {why}\n"
            f"  by ssh to {self._login.name}: {why_not}\n"
            "say it on a login node"
        )

    def is_shut(self, what: str) -> bool:
        """As far as is known by now, this host's own commands are no way."""
        return self._login is not None and bool(_why_shut((self._host.name, self._system, what)))

    def _why_not_through(self, login: ThroughLogin) -> str:
        """Found out by a command that changes nothing, so that no doubt is left of one that does."""
        way = (self._host.name, login.name)
        with _probing:
            if why := _why_shut(way):
                return why
            if _open.get(way, 0.0) < time.monotonic():
                try:
                    login.run(["true"], timeout_s=PROBE_S)
                except HpclabError as error:
                    return self._shut_login(login, error)
                _open[way] = time.monotonic() + AGAIN_S
        return ""

    def _shut_login(self, login: ThroughLogin, error: HpclabError) -> str:
        what = str(error).splitlines()[0]
        return _shut_now((self._host.name, login.name), what.partition(f"to {login.name}: ")[2] or what)


def _shut_now(way: tuple[str, ...], why: str) -> str:
    _shut[way] = (time.monotonic() + AGAIN_S, why)
    return why


def _why_shut(way: tuple[str, ...]) -> str:
    until, why = _shut.get(way, (0.0, ""))
    return why if time.monotonic() < until else ""


def forget() -> None:
    """All that was learnt."""
    _shut.clear()
    _open.clear()
