"""The command line's part at a laptop: it connects, asks hpclab on the login node, and holds the tunnel."""

from __future__ import annotations

import io
import itertools
import json
import math
import os
import secrets
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from hpclab.asking import Asking
from hpclab.bookmarks import Bookmark, Bookmarks
from hpclab.browser import forget_page, has_browser, open_page
from hpclab.connection import DASHBOARD_PORT, JUPYTER_PORT
from hpclab.door import Door, Visitor
from hpclab.errors import (
    INTERRUPTED,
    ConnectionLost,
    HpclabError,
    IsRun,
    LoginFailed,
    NoSuchSession,
    RemoteUnfit,
    Unreachable,
    UnreadableOutput,
)
from hpclab.follow import Phase
from hpclab.hosts import LoginNode
from hpclab.hosts.local import LocalHost
from hpclab.login import Means, login_node, means
from hpclab.names import check_name, new_name
from hpclab.progress import Progress
from hpclab.remote import Answers, Remote
from hpclab.resumed import Resumed, Sink
from hpclab.show import connection_text, interrupted_text, opened_text
from hpclab.tunnel import COMES_OR_GOES, Notice, Tunnel

if TYPE_CHECKING:
    from rich.console import Console

CHANGES = ("add-worker", "scale")
"""Commands that must not be carried out twice; all others may."""
TRY_AGAIN_S = (1, 2, 4, 8, 15)
BACK_WITHIN_S = 120
"""For the connection that another terminal's tunnel holds."""
LIST_WITHIN_S = 10
FAREWELL_S = 15
"""For other terminals' commands, when the session has ended."""
QUICK_S, QUICK_LOSSES = 10, 3
"""So many losses in a row, each so soon, and it is not the network."""


@dataclass(frozen=True, kw_only=True)
class Wishes:
    """What the user wants besides the session."""

    as_json: bool = False
    browser: bool = True
    tunnel: bool = True
    bell: bool = False


class Afar:
    """A login node, seen from this machine, by one user's command line."""

    def __init__(self, place: Bookmark, console: Console, *, holds: bool = False) -> None:
        """`place` has no session's name where none is known yet; `holds`: it is to hold a tunnel."""
        self.host = LocalHost(os.environ)
        self.console = console
        self.bookmarks = Bookmarks(self.host)
        self._links = ("", "")
        """That were shown last."""
        self.means: Means = means(place.destination, place.ssh)
        self._folder = _private(self.host, "ssh")
        self._holds = holds
        self._take(place)

    def _take(self, place: Bookmark) -> None:
        self.place = place
        own = login_node(self.means, folder=self._folder, ask=Asking(os.environ), tell=self._say, address=place.address)
        self._login: LoginNode = own if self._holds else Visitor(own, self._folder)
        self.remote = Remote(self._login, python=place.python, prologue=place.prologue)

    def _say(self, text: str) -> None:
        self.console.print(text, markup=False)

    @contextmanager
    def connected(self) -> Iterator[Remote]:
        """With a connection, and whatever happens without one afterwards."""
        try:
            self._connect()
            yield self.remote
        finally:
            self._login.close()

    def _connect(self) -> None:
        """Where it was reached the last time; if that machine is away, whichever has the name."""
        try:
            self._login.connect()
        except Unreachable:
            if not self.place.address:
                raise
            self._say(f"nothing at {self.place.address}, where {self.place.destination} was; trying it by name")
            self._login.close()
            self._take(replace(self.place, address=""))
            self._login.connect()

    # one command

    def run(self, argv: Sequence[str]) -> int:
        """A command line, said over there; what changes something is said again if its answer is lost on the way."""
        origin = _origin() if argv[0] in CHANGES else ""
        with self.connected():
            exit_status = self._once(argv, origin) if origin else self._run(argv)
        stopped = argv[0] == "stop" and not exit_status
        if self.place.name and (stopped or exit_status == NoSuchSession.exit_code):
            # also by what other name its login node was reached
            self.bookmarks.forget(self.bookmarks.named(self.place.name))
        elif stopped:  # the only one that there was
            self.bookmarks.forget([b for b in self.bookmarks.all() if b.destination == self.place.destination])
        return exit_status

    def _once(
        self, argv: Sequence[str], origin: str, *, stdout: Sink | None = None, env: Mapping[str, str] | None = None
    ) -> int:
        """Carried out once; if its answer is lost on the way, they are asked over there what became of it."""
        deadline = math.inf
        while True:
            try:
                return self._run(argv, origin, stdout=stdout, env=env)
            except ConnectionLost as error:
                why = str(error).splitlines()[0]
                if time.monotonic() > deadline:
                    raise ConnectionLost(
                        f"it is not known whether `{argv[0]}` was carried out: {why}\n"
                        "see `hpclab status` before you say it again"
                    ) from error
                if deadline == math.inf:
                    deadline = time.monotonic() + BACK_WITHIN_S
                    self._say(f"{why}; asking what became of it, as soon as it is back")
            self._connect_again()

    def _run(
        self, argv: Sequence[str], origin: str = "", *, stdout: Sink | None = None, env: Mapping[str, str] | None = None
    ) -> int:
        return self.remote.run(
            argv,
            env=env,
            session=self.place.name,
            origin=origin,
            is_terminal=sys.stdout.isatty(),
            stdout=stdout or sys.stdout.buffer,
            stderr=sys.stderr.buffer,
        )

    def sessions(self, turn: threading.Lock) -> list[dict[str, Any]]:
        """`hpclab list --json` there; who connects has his turn, for only one can ask the user."""
        out, err, where = io.BytesIO(), io.BytesIO(), self.place.destination
        with turn:
            self._login.connect(timeout_s=LIST_WITHIN_S)
        with self.connected() as remote:
            if remote.run(["list", "--json"], stdout=out, stderr=err):
                raise Unreachable(err.getvalue().decode(errors="replace").strip() or f"hpclab on {where} says nothing")
        try:
            found: list[dict[str, Any]] = json.loads(out.getvalue())
        except ValueError as error:
            raise UnreadableOutput(
                f"hpclab on {where} answers something else than sessions\nsee `hpclab list --host {where}`"
            ) from error
        return found

    def doctor(self, argv: Sequence[str], env: Mapping[str, str], *, as_json: bool) -> int:
        """How this machine gets there, and then what hpclab there says of itself."""
        if not as_json:
            self._say(f"{self.place.destination} is reached by {self.means.name}: {'; '.join(self.means.reasons)}")
        begin = time.monotonic()
        with self.connected():
            if not as_json:
                via = f" at {self._login.address}" if self._login.address else ""
                self._say(f"connected{via} within {time.monotonic() - begin:.1f} s")
            return self._run(argv, env=env)

    # a run of a script

    def run_script(self, argv: Sequence[str], env: Mapping[str, str], *, name: str, detach: bool) -> int:
        """`hpclab run`, said over there with our settings; its exit status. Submitted once, then followed over as many
        connections.
        """
        chosen = [] if name else ["--name", f"{new_name(set())}-{secrets.token_hex(2)}"]
        # ours where none was given, so that we can ask for it; which are taken over there we do not know
        name = name or chosen[1]
        submit = [argv[0], *chosen, *([] if detach else ["--detach"]), *argv[1:]]
        with self.connected():
            bookmark = replace(self.place, name=check_name(name), address=self._login.address)
            self.bookmarks.keep(bookmark)
            # how it is followed need not be told to somebody who follows it
            exit_status = self._once(submit, _origin(), stdout=None if detach else io.BytesIO(), env=env)
            goes_on = exit_status == 0 and detach
            if exit_status == 0 and not detach:
                exit_status = self._followed(["attach", "--unless-in-vain", name])
                goes_on = exit_status == INTERRUPTED
        if not goes_on:
            self.bookmarks.forget([bookmark])
        return exit_status

    def attach_script(self, argv: Sequence[str]) -> int:
        """Print what a run prints; its exit status."""
        with self.connected():
            return self._followed(argv)

    def _followed(self, argv: Sequence[str]) -> int:
        """What it prints goes on from where it stopped when a connection was lost."""
        output = Resumed(sys.stdout.buffer)
        while True:
            output.begin_again()
            try:
                return self._run(argv, stdout=output)
            except ConnectionLost as error:
                self._say(f"{str(error).splitlines()[0]}; a run goes on, and is followed again as soon as it is back")
                self._connect_again()

    # a session with its tunnel

    def start(self, given: Mapping[str, Any], *, name: str, fit: str, wishes: Wishes) -> None:
        origin = _origin()
        self._hold(lambda: self.remote.start(given, name=name, fit=fit, origin=origin), wishes)

    def attach(self, wishes: Wishes) -> None:
        self._hold(lambda: self.remote.attach(self.place.name), wishes)

    def _hold(self, ask: Callable[[], Answers], wishes: Wishes) -> None:
        for number in (signal.SIGTERM, getattr(signal, "SIGHUP", signal.SIGTERM)):
            signal.signal(number, _interrupted)
        is_up = was_asked = False
        try:
            self._say(f"connecting to {self.place.destination}")
            with self.connected(), closing(Door(self._login, self._folder)) as door:
                was_asked = True
                answers, described = self._up(ask)
                is_up = True
                if wishes.bell:
                    print("\a", end="", file=sys.stderr, flush=True)
                if wishes.tunnel:
                    answers.unread({"session": described})
                    self._tunnel(answers, wishes)
                    door.see_off(within_s=FAREWELL_S)
                else:
                    answers.close()
                    self._show(described, wishes)
        except IsRun:
            raise  # and will be followed in another way
        except HpclabError:
            if self.place.name and not is_up:
                self._say(f"session {self.place.name}: see `hpclab status {self.place.name}`, or attach to it later")
            raise
        except KeyboardInterrupt:
            with suppress(OSError):  # of a terminal that was closed
                self._say("")
                if was_asked:
                    self._say(interrupted_text(self.place.name, self.place.destination, is_up=is_up))
                else:
                    self._say("interrupted; nothing was asked for yet")
            sys.exit(0 if is_up else INTERRUPTED)

    def _up(self, ask: Callable[[], Answers]) -> tuple[Answers, dict[str, Any]]:
        """Follow the session until JupyterLab answers, over as many connections as that takes."""
        progress = Progress(self.console, f"asking hpclab on {self.place.destination}")
        quick_losses = 0
        with progress.shown():
            while True:
                begin = time.monotonic()
                try:
                    answers = ask()
                    for answer in answers:
                        if "session" in answer:
                            self._remember(answer["session"]["name"], created=answer["session"]["created"])
                            return answers, answer["session"]
                        self._follow(answer, progress)
                    raise ConnectionLost("it said no more")
                except (KeyError, TypeError, AttributeError) as error:
                    raise RemoteUnfit(
                        f"hpclab on {self.place.destination} says what this one does not understand: {error!r}\n"
                        "use the same version at both ends"
                    ) from error
                except ConnectionLost as error:
                    quick_losses = quick_losses + 1 if time.monotonic() - begin < QUICK_S else 0
                    if quick_losses == QUICK_LOSSES:
                        raise
                    progress.say(f"  {str(error).splitlines()[0]}; trying again")
                    with progress.aside():
                        self._connect_again()
                    progress.say("  connected again")

    def _follow(self, answer: dict[str, Any], progress: Progress) -> None:
        if "name" in answer:
            if not self.place.name:
                progress.say(f"session {answer['name']} on {self.place.destination}")
            self._remember(answer["name"])
        elif "text" in answer:
            progress.say(answer["text"])
        elif "phase" in answer:
            progress.tell(Phase(**answer["phase"]))

    def _remember(self, name: str, **changes: Any) -> None:
        # it becomes the name of files
        self.place = replace(self.place, name=check_name(name), address=self._login.address, **changes)
        self.bookmarks.keep(self.place)

    def _connect_again(self) -> None:
        self._login.drop()
        told = ""
        for wait_s in itertools.chain(TRY_AGAIN_S, itertools.repeat(TRY_AGAIN_S[-1])):
            time.sleep(wait_s)
            try:
                return self._login.connect()
            except (Unreachable, LoginFailed) as error:
                if isinstance(error, LoginFailed) and not COMES_OR_GOES.search(str(error)):
                    raise
                why = str(error).splitlines()[0]
                if why != told:
                    told = why
                    self._say(f"  {why}; still trying")
        return None

    def _tunnel(self, answers: Answers, wishes: Wishes) -> None:
        watches = [answers]
        tunnel = Tunnel(
            self._login,
            lambda: watches.pop() if watches else self.remote.watch(self.place.name),
            ports=(self.place.jupyter_port or JUPYTER_PORT, self.place.dashboard_port or DASHBOARD_PORT),
            login_name=lambda: self.remote.host,
            open_reverse=lambda: self.remote.reverse(self.place.name),
        )
        try:
            for notice in tunnel.hold():
                self._notice(notice, wishes)
        finally:
            tunnel.close()
            forget_page(self.host, self.place.name)

    def _notice(self, notice: Notice, wishes: Wishes) -> None:
        if notice.what != "opened":
            self._say(f"{time.strftime('%H:%M:%S')}  {notice.text}")
        if notice.what == "ended":
            self.bookmarks.forget([self.place])
        if not notice.jupyter_port:
            return
        links = (notice.described["jupyter_url"], notice.described["dashboard_url"])
        if links == self._links:
            return
        self._links = links
        if not self.place.jupyter_port:  # else another hpclab may have it just now
            self._remember(self.place.name, jupyter_port=notice.jupyter_port, dashboard_port=notice.dashboard_port)
        self._show(notice.described, wishes)
        can_open = wishes.browser and not wishes.as_json and has_browser(os.environ)
        if can_open and not open_page(self.host, notice.described["jupyter_url"], self.place.name):
            self._say("no browser could be opened: open the first link yourself")

    def _show(self, described: dict[str, Any], wishes: Wishes) -> None:
        if wishes.as_json:
            print(json.dumps(described, indent=2), flush=True)
        elif wishes.tunnel:
            print(opened_text(described), flush=True)
        else:
            print(connection_text(described), flush=True)


def _origin() -> str:
    """A request's name; by the time in it the cluster knows which are old."""
    return f"{time.time_ns()}-{secrets.token_hex(8)}"


def _interrupted(*_: object) -> None:
    raise KeyboardInterrupt


def _private(host: LocalHost, name: str) -> str:
    folder = f"{host.home}/{name}"
    with suppress(FileExistsError):
        host.make_folder(folder)
    return folder


def sessions_everywhere(places: Sequence[Bookmark], console: Console) -> dict[str, list[dict[str, Any]] | HpclabError]:
    """What `hpclab list` says on each login node, all asked side by side; or why one did not answer."""

    one_at_a_time = threading.Lock()

    def asked(place: Bookmark) -> list[dict[str, Any]] | HpclabError:
        try:
            return Afar(replace(place, name=""), console).sessions(one_at_a_time)
        except HpclabError as error:
            return error

    # whoever has to be asked for is asked for one after the other; the rest is side by side
    with ThreadPoolExecutor(max_workers=max(1, len(places))) as pool:
        return dict(zip((place.destination for place in places), pool.map(asked, places), strict=True))
