"""A session's tunnel, held open: local ports that lead to JupyterLab and the dashboard, whatever the network does.

It works over any LoginNode. All happens in the thread that iterates over `hold`; only `close` has one of its own.
"""

from __future__ import annotations

import contextlib
import errno
import http.client
import json
import queue
import random
import re
import shlex
import threading
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain, repeat
from typing import Any, Protocol
from urllib.parse import parse_qs, urlsplit

from hpclab.connection import DASHBOARD_PORT, JUPYTER_PORT, LOOPBACK, dashboard_url, jupyter_url
from hpclab.errors import (
    ConnectionLost,
    ForwardingRefused,
    HpclabError,
    LoginFailed,
    RemoteUnfit,
    StoreError,
    TookTooLong,
    Unreachable,
)
from hpclab.hosts import Forward, LoginNode
from hpclab.units import format_duration

SILENT_S = 12.0
"""A connection over which nothing came for this long is dead; beats come every 2 s."""
AWAKE_S = 3.0
"""The same, for a connection that has been through the sleep of this machine."""
JUMP_S = 5.0
"""A wait that took so much longer than asked was a sleep."""
FIRST_WORD_S = 60.0
"""For the watch's first message: Python has to start over there, maybe from a slow file system."""
LISTEN_S = 1.0
"""One wait for a message, so that a sleep and a `close` are noticed."""
CONNECT_S = 15.0
BACK_OFF_S = (1.0, 2.0, 4.0, 8.0, 15.0)
"""Before each attempt to connect again; the last goes on."""
TELL_EVERY_S = 60.0
ANSWER_S = 5.0
"""For one answer over HTTP."""
OPEN_WITHIN_S = 10.0
"""For the first good answer by a way, while attempts follow each other every RETRY_S."""
RETRY_S = 0.5
CHECK_EVERY_S = 30.0
DOUBT_S = 5.0
"""Until the next check, after one without an answer."""
DOUBTED = 2
"""So many checks without an answer in a row mean nothing yet."""
NOT_YET_HERE_S = 0.05
"""A message that took this long to read had not come before."""
SAME_PORT_WITHIN_S = 5.0
"""A local port that was ours may be taken for this long before another one is."""
CLOSE_WITHIN_S = 1.5

DIRECT = "from the login node to the session's node"
BEYOND = "onto the session's node, through the login node"
REVERSE = "back from the job to the login node"
"""What each way is called: `no tunnel …`."""
SERVERS = ("JupyterLab", "the dashboard")
ENDED = ("ended", "failed")
TAKEN = (errno.EADDRINUSE, errno.EACCES)
"""The second is what Windows says of a port that somebody has for himself."""
NO_ANSWER = (OSError, http.client.HTTPException)
PASSING = (Unreachable, TookTooLong, RemoteUnfit, StoreError, OSError)
"""What a login node may do while it comes up: its network and its file systems do not come at once."""
COMES_OR_GOES = re.compile(r"(is booting up|is going down|shut ?down|pam_nologin)", re.IGNORECASE)
"""How a login node that lets nobody in for a while says so."""

Address = tuple[str, int]
Route = tuple[LoginNode, Address, Address]
"""Through whom, and what JupyterLab and the dashboard are called there."""


class Watch(Protocol):
    """What is seen of a session from its login node, as it happens.

    Messages: `{"session": described}` at first and whenever it changes, where `described` has besides the session's
    `connection`, and in `reverse` the ports that the reverse way has opened and holds; `{"beat": n}` every 2 s.
    """

    def next(self, timeout_s: float) -> dict[str, Any] | None:
        """A message; None: nothing came in this time. Raises ConnectionLost at the end, HpclabError otherwise."""
        ...

    def close(self) -> None: ...


@dataclass(frozen=True, kw_only=True)
class Notice:
    """Something to tell the user. When it is `opened`, `reopened` or `moved`, the ports and all else are given.

    `what` besides these is way (one that failed), port (another one than wanted), dashboard (it does not answer), lost,
    trying, connected (again, but the session has no JupyterLab now), state, quiet, answers or ended.
    """

    what: str
    text: str
    way: str = ""
    jupyter_port: int = 0
    """On this machine."""
    dashboard_port: int = 0
    described: dict[str, Any] = field(default_factory=dict, repr=False)
    """The session, with links that open here."""


class _Silence(ConnectionLost):
    """Nothing comes any more. Else it is the watch that has ended, maybe alone."""


@dataclass(frozen=True, kw_only=True)
class Target:
    """Where a session's servers are, as seen from the login node, and the token that they want."""

    node: str
    jupyter: Address
    dashboard: Address
    token: str = field(repr=False)

    @staticmethod
    def of(described: Mapping[str, Any]) -> Target | None:
        """None while the session has none."""
        if not (here := described.get("connection")):
            return None
        query = parse_qs(urlsplit(described["jupyter_url"]).query)
        return Target(
            node=here["node"],
            jupyter=(here["jupyter_host"], here["jupyter_port"]),
            dashboard=(here["dashboard_host"], here["dashboard_port"]),
            token=query.get("token", [""])[0],
        )


class Tunnel:
    """From this machine to one session."""

    def __init__(
        self,
        login: LoginNode,
        open_watch: Callable[[], Watch],
        *,
        login_name: Callable[[], str] = str,
        open_reverse: Callable[[], tuple[int, int]] | None = None,
        ports: tuple[int, int] = (JUPYTER_PORT, DASHBOARD_PORT),
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`login` is connected, and the caller's to close. `login_name` tells what the login node calls itself, which
        may be known only once there is a watch. `open_reverse` asks the job to bring its ports to the login node's
        loopback address, and is told which they are there.
        """
        self._login = login
        self._open_watch = open_watch
        self._login_name = login_name
        self._open_reverse = open_reverse
        self._ports = list(ports)
        self._clock = clock

        self._watch: Watch | None = None
        self._watched_since = 0.0
        self._deadline = 0.0
        self._heard_at = clock()
        self._slept_s = 0.0
        self._away_since: float | None = None

        self._state = ""
        self._described: Mapping[str, Any] = {}
        self._target: Target | None = None

        self._way = ""
        self._route: Route | None = None
        self._forwards: list[Forward] = []
        self._was_ours = False
        """The local ports: they have been told to the user."""
        self._node_login: tuple[str, LoginNode] | None = None
        self._check_at = 0.0
        self._unanswered = 0
        self._is_quiet = False

        self._is_over = False
        # unlike an Event it may be used by a signal handler that interrupts a wait for it
        self._closed: queue.SimpleQueue[None] = queue.SimpleQueue()

    def hold(self) -> Iterator[Notice]:
        """Until the session ends or the tunnel is closed.

        Raises ForwardingRefused when no way leads there, LoginFailed or HostKeyRefused when the login node does not
        let us in again, and what the watch raises.
        """
        try:
            yield from self._hold()
        finally:
            self.close()

    def close(self) -> None:
        """At any time, from any thread, also from a signal handler: what may have to wait does so in a thread."""
        self._is_over = True
        self._closed.put(None)
        closing = threading.Thread(target=self._release, name="hpclab-tunnel-close", daemon=True)
        closing.start()
        closing.join(CLOSE_WITHIN_S)

    def _release(self) -> None:
        self._close_watch()
        self._close_forwards()
        self._leave_node()

    def _close_watch(self) -> None:
        watch, self._watch = self._watch, None
        if watch is not None:
            watch.close()

    def _close_forwards(self) -> None:
        forwards, self._forwards = self._forwards, []
        for forward in forwards:
            forward.close()

    def _leave_node(self) -> None:
        node, self._node_login = self._node_login, None
        if node is not None:
            node[1].close()

    def _wait(self, seconds: float) -> bool:
        """Whether the tunnel was closed meanwhile."""
        if not self._is_over:
            with contextlib.suppress(queue.Empty):
                self._closed.get(timeout=seconds)
        return self._is_over

    # the connection

    def _hold(self) -> Iterator[Notice]:
        message: Mapping[str, Any] | None = {}
        while message is not None and not self._is_over:
            try:
                yield from self._hear(message)
                message = self._next()
            except ConnectionLost as error:
                message = yield from self._reconnect(error)
            except HpclabError:
                if not self._is_over:
                    raise

    def _next(self) -> dict[str, Any] | None:
        """The next message; None when the tunnel is closed. Raises ConnectionLost also when none comes."""
        if self._watch is None and not self._is_over:
            self._watch = self._open_watch()
            self._watched_since = time.monotonic()
            self._deadline = self._watched_since + FIRST_WORD_S
        while not self._is_over and (watch := self._watch):
            begin, begin_clock = time.monotonic(), self._clock()
            try:
                message = watch.next(LISTEN_S)
            finally:
                now = time.monotonic()
                # while a machine sleeps, some systems stop the one clock, some stop none
                late_s = max(now - begin, self._clock() - begin_clock) - LISTEN_S
                if late_s > JUMP_S:
                    self._slept_s, self._deadline = late_s, now + AWAKE_S
            if message is not None:
                self._heard_at = self._clock()
                if late_s <= JUMP_S:  # else it may have been here before the sleep
                    self._slept_s, self._deadline = 0.0, now + SILENT_S
                return message
            if not self._login.is_connected:
                raise _Silence("it has closed")
            if now > self._deadline:
                raise _Silence(f"no sign of life for {format_duration(self._clock() - self._heard_at)}")
        return None

    def _reconnect(self, error: ConnectionLost) -> Generator[Notice, None, Mapping[str, Any] | None]:
        """Until the watch speaks again: its first word. None when the tunnel is closed."""
        if self._is_over:
            return None
        lived_s = time.monotonic() - self._watched_since
        if not isinstance(error, _Silence) and lived_s > FIRST_WORD_S and self._login.is_connected:
            # whoever watched over there was killed: nobody need log in again for that
            self._close_watch()
            with contextlib.suppress(*PASSING):
                return self._next()
            if self._is_over:
                return None
        if self._away_since is None:
            self._away_since = self._heard_at
            why = _because(error)
            if self._slept_s:
                why = f"this machine woke up after {format_duration(self._slept_s)}"
            text = f"the connection to {self._login.destination} is lost ({why}); connecting again"
            yield Notice(what="lost", text=text)
        self._slept_s = 0.0
        told, told_at = "", 0.0
        for delay_s in chain(BACK_OFF_S, repeat(BACK_OFF_S[-1])):
            self._drop()
            # not all at once, when a login node comes back to a hundred laptops
            if self._wait(delay_s * random.uniform(1, 1.2)):
                break
            try:
                self._login.connect(timeout_s=CONNECT_S)
                return self._next()
            except (*PASSING, LoginFailed) as passing:
                if isinstance(passing, LoginFailed) and not COMES_OR_GOES.search(str(passing)):
                    raise
                why, now = _because(passing), time.monotonic()
                if (why != told or now - told_at > TELL_EVERY_S) and not self._is_over:
                    told, told_at = why, now
                    away = format_duration(self._clock() - (self._away_since or self._clock()))
                    yield Notice(what="trying", text=f"no connection for {away}: {why}; still trying")
        return None

    def _drop(self) -> None:
        self._login.drop()
        if self._node_login:
            self._node_login[1].drop()
        self._close_watch()

    # the session

    def _hear(self, message: Mapping[str, Any]) -> Iterator[Notice]:
        if "session" in message:
            try:
                yield from self._see(message["session"])
            except ForwardingRefused:
                if (newer := self._newer()) is None:
                    raise
                yield from self._hear(newer)
        elif "beat" in message and self._target and Target.of(self._described):
            yield from self._check(self._target)

    def _newer(self) -> Mapping[str, Any] | None:
        """What has become of the session meanwhile; told by a beat that was not here yet that nothing has.

        Raises ConnectionLost: then it was not the ways that failed.
        """
        newer = None
        while True:
            begin = time.monotonic()
            if (message := self._next()) is None:
                return None
            if "session" in message:
                newer = message
            if time.monotonic() - begin > NOT_YET_HERE_S:
                return newer

    def _see(self, described: Mapping[str, Any]) -> Iterator[Notice]:
        self._described = described
        name, state, reason = described["name"], described["state"], described["reason"]
        told = f"{name} is {state}" + (f": {reason}" if reason else "")
        if state in ENDED:
            has = "has failed" if state == "failed" else "has ended"
            yield Notice(what="ended", text=f"{name} {has}" + (f": {reason}" if reason else ""))
            self._is_over = True
            return
        target = Target.of(described)
        if self._away_since is not None and target is None:
            yield Notice(what="connected", text=f"connected again after {self._away()}; {told}")
        elif state not in ("running", self._state):
            yield Notice(what="state", text=told)
        self._state = state
        if target is None or not self._is_still_ours(described):
            # those ports may be anybody's now, who would be sent the token
            self._close_forwards()
        if target is None:
            return
        if target != self._target or (self._away_since is None and not self._forwards):
            yield from self._move(target)
        elif self._away_since is not None:
            yield from self._resume(target)

    def _is_still_ours(self, described: Mapping[str, Any]) -> bool:
        """On a login node's loopback address another user may listen as soon as the job's ssh is gone."""
        if self._way != REVERSE or not self._route:
            return True
        _, (_, jupyter_port), (_, dashboard_port) = self._route
        return described.get("reverse") == [jupyter_port, dashboard_port]

    def _away(self) -> str:
        """How long there was no connection; from now on there is one."""
        since, self._away_since = self._away_since or self._clock(), None
        return format_duration(self._clock() - since)

    def _move(self, target: Target) -> Iterator[Notice]:
        """To where the session is now."""
        yield from self._lead(target)
        before, self._target = self._target, target
        what = "moved" if before else "opened"
        text = f"the tunnel to {target.node} is open"
        if before:
            text = f"{text} again" if before == target else f"the session is on {target.node} now"
        if self._away_since is not None:
            text += f", after {self._away()} without a connection"
        yield self._opened(what, text)
        try:
            http_get(self._ports[1], "/")
        except NO_ANSWER as error:
            if self._login.is_connected and not self._is_over:
                yield Notice(what="dashboard", text=f"the dashboard does not answer yet: {self._told(1, error)}")

    def _resume(self, target: Target) -> Iterator[Notice]:
        """After a loss of the connection. The session was within reach before, so this does not give up."""
        quiet = ""
        try:
            yield from self._lead(target)
        except ForwardingRefused:
            quiet = "; but JupyterLab does not answer through it"
            self._is_quiet, self._unanswered, self._check_at = True, DOUBTED, 0.0
        yield self._opened("reopened", f"the tunnel is open again, after {self._away()}{quiet}")

    def _opened(self, what: str, text: str) -> Notice:
        assert self._target
        jupyter_port, dashboard_port = self._ports
        links = {
            "jupyter_url": jupyter_url(LOOPBACK, jupyter_port, self._target.token),
            "dashboard_url": dashboard_url(LOOPBACK, dashboard_port, self._target.token),
        }
        return Notice(
            what=what,
            text=text,
            way=self._way,
            jupyter_port=jupyter_port,
            dashboard_port=dashboard_port,
            described={**self._described, **links, "tunnel": self._line()},
        )

    def _line(self) -> list[str]:
        """The ssh command, with the ports that are ours."""
        ours = {
            f"{wanted}:": f"{port}:" for wanted, port in zip((JUPYTER_PORT, DASHBOARD_PORT), self._ports, strict=True)
        }
        words = self._described.get("tunnel") or []
        return [next((word.replace(a, b, 1) for a, b in ours.items() if word.startswith(a)), word) for word in words]

    # the ways

    def _ways(self, target: Target) -> dict[str, Callable[[], Route]]:
        """How each way begins, in the order in which they are tried: what worked last, then the shortest."""
        on_login = _short(target.node) == _short(self._login_name() or target.node)
        is_loopback = target.jupyter[0] == LOOPBACK
        ways: dict[str, Callable[[], Route]] = {}
        # on the login node's loopback address might be somebody else's JupyterLab
        if not is_loopback or on_login:
            ways[DIRECT] = lambda: (self._login, target.jupyter, target.dashboard)
        if not (is_loopback and on_login):
            ways[BEYOND] = lambda: self._onto(target)
            if self._open_reverse is not None:
                ways[REVERSE] = self._back
        return dict(sorted(ways.items(), key=lambda way: way[0] != self._way))

    def _onto(self, target: Target) -> Route:
        if self._node_login is None or self._node_login[0] != target.node:
            self._leave_node()
            self._node_login = target.node, self._login.beyond(target.node)
        login = self._node_login[1]
        login.connect(timeout_s=CONNECT_S)
        return login, (LOOPBACK, target.jupyter[1]), (LOOPBACK, target.dashboard[1])

    def _back(self) -> Route:
        assert self._open_reverse
        jupyter_port, dashboard_port = self._open_reverse()
        return self._login, (LOOPBACK, jupyter_port), (LOOPBACK, dashboard_port)

    def _lead(self, target: Target) -> Iterator[Notice]:
        """By the first way through which JupyterLab answers. Raises ForwardingRefused, or ConnectionLost."""
        failures: dict[str, str] = {}
        for way, begin in self._ways(target).items():
            if way == REVERSE and _is_prohibited(failures.get(DIRECT, "")):
                continue
            why = yield from self._try(begin, within_s=OPEN_WITHIN_S)
            if not why:
                self._way, self._was_ours = way, True
                if way != BEYOND:
                    self._leave_node()
                self._unanswered, self._is_quiet = 0, False
                self._check_at = time.monotonic() + CHECK_EVERY_S
                return
            if self._is_over or not self._login.is_connected:
                raise _Silence("it has closed")
            failures[way] = why
            yield Notice(what="way", text=f"no tunnel {way} ({target.node}): {why}", way=way)
        raise ForwardingRefused(self._refusal(target, failures))

    def _try(self, begin: Callable[[], Route], *, within_s: float) -> Generator[Notice, None, str]:
        """Why it does not lead to JupyterLab; empty: it does."""
        try:
            yield from self._forward(begin())
        except (HpclabError, OSError) as error:
            return _because(error)
        deadline = time.monotonic() + within_s
        while why := self._no_answer():
            is_hopeless = _is_prohibited(why) or time.monotonic() > deadline or not self._login.is_connected
            if is_hopeless or self._wait(RETRY_S):
                return why
        return ""

    def _refusal(self, target: Target, failures: Mapping[str, str]) -> str:
        name, login, line = self._described["name"], self._login.destination, shlex.join(self._described["tunnel"])
        what, next_step = f"no way leads to {name} on {target.node}", f"the session goes on; to try by hand: {line}"
        if any(map(_is_prohibited, failures.values())):
            what = f"{login} forbids forwarding, so no way leads to {name} on {target.node}"
            next_step = f"the session goes on; another login node may allow what its sshd prohibits: {line}"
        return "\n".join([what, *(f"  {way}: {why}" for way, why in failures.items()), next_step])

    # the local ports

    def _forward(self, route: Route) -> Iterator[Notice]:
        if route == self._route and len(self._forwards) == len(self._ports):
            return
        self._close_forwards()
        login, *addresses = self._route = route
        for index, (host, port) in enumerate(addresses):
            wanted = self._ports[index]
            forward = self._listen(login, wanted, host, port)
            self._forwards.append(forward)
            if forward.local_port != wanted:
                self._ports[index] = forward.local_port
                by = _holder(wanted)
                text = f"port {wanted} of this machine is taken{by and f' by {by}'}"
                yield Notice(what="port", text=f"{text}: {SERVERS[index]} is at {forward.local_port}")

    def _listen(self, login: LoginNode, wanted: int, host: str, port: int) -> Forward:
        """On this port, on one of the next, or on any."""
        deadline = time.monotonic() + (SAME_PORT_WITHIN_S if self._was_ours else 0)
        candidates = chain(range(wanted + 1, min(wanted + 20, 2**16)), [0])
        local_port = wanted
        while True:
            try:
                return login.forward(local_port, host, port)
            except OSError as error:
                if error.errno not in TAKEN or local_port == 0:
                    raise
            if time.monotonic() > deadline or self._wait(RETRY_S):
                local_port = next(candidates)

    # whether JupyterLab answers

    def _check(self, target: Target) -> Iterator[Notice]:
        """On a beat, for then it is not the connection."""
        assert self._route
        is_cut = self._login.is_connected and not self._route[0].is_connected
        if time.monotonic() < self._check_at and not (is_cut and self._unanswered == 0):
            return
        if why := self._no_answer():
            self._unanswered = max(self._unanswered, DOUBTED * is_cut) + 1
            begin = self._ways(target).get(self._way)
            if self._unanswered > DOUBTED and begin:
                why = yield from self._try(begin, within_s=0)
        if not self._login.is_connected:
            return
        is_doubted = bool(why) and self._unanswered <= DOUBTED
        self._check_at = time.monotonic() + (DOUBT_S if is_doubted else CHECK_EVERY_S)
        if not why:
            self._unanswered = 0
        if self._is_quiet and not why:
            self._is_quiet = False
            yield Notice(what="answers", text="JupyterLab answers again")
        elif why and not is_doubted and not self._is_quiet:
            self._is_quiet = True
            yield Notice(what="quiet", text=f"{target.node} runs on, but JupyterLab does not answer any more: {why}")

    def _no_answer(self) -> str:
        """Why JupyterLab does not answer through the tunnel; empty: it does. Asked without the token."""
        if not self._forwards:  # on our port might be somebody else's JupyterLab
            return "it is not open"
        try:
            status, body = http_get(self._ports[0], "/api")
        except NO_ANSWER as error:
            return self._told(0, error)
        try:
            is_jupyter = "version" in json.loads(body)
        except (ValueError, TypeError):
            is_jupyter = False
        return "" if is_jupyter else f"something else than JupyterLab answers there (HTTP {status})"

    def _told(self, index: int, error: Exception) -> str:
        """Who refuses, where the login node has said so."""
        refusal = self._forwards[index].refusal if len(self._forwards) > index else ""
        return refusal or (f"no answer within {ANSWER_S:.0f} s" if isinstance(error, TimeoutError) else _because(error))


def http_get(local_port: int, path: str) -> tuple[int, bytes]:
    """Status and the body's begin. Raises what is in NO_ANSWER."""
    with contextlib.closing(http.client.HTTPConnection(LOOPBACK, local_port, timeout=ANSWER_S)) as connection:
        connection.request("GET", path, headers={"Connection": "close"})
        answer = connection.getresponse()
        return answer.status, answer.read(4096)


def _because(error: Exception) -> str:
    """What happened, in a line: without the evidence and the next step."""
    words = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return words.partition("\n")[0] or type(error).__name__


def _is_prohibited(why: str) -> bool:
    """By the server's settings, as all sshds say it."""
    return "prohibited" in why.lower()


def _short(host: str) -> str:
    return host.lower().partition(".")[0]


def _holder(port: int) -> str:
    """Which program listens there, where this system tells."""
    import psutil

    with contextlib.suppress(psutil.Error, OSError):
        for seen in psutil.net_connections("tcp"):
            if seen.status == psutil.CONN_LISTEN and seen.laddr and seen.laddr.port == port and seen.pid:
                return f"{psutil.Process(seen.pid).name()} (process {seen.pid})"
    return ""
