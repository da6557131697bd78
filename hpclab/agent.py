"""hpclab on the login node, for somebody at a laptop: `hpclab agent` reads a request from stdin, and answers on stdout.

The request is a line of JSON, and so is every answer, the first of them a hello; a command line's output follows as it
is. After that stdin only tells that the laptop is there, by a line now and then. Its end, or silence, is as Ctrl-C to
what runs, but for requests that have a name of their own (`origin`): they are carried out, and once.
"""

from __future__ import annotations

import io
import itertools
import json
import os
import re
import select
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, TextIO

from rich.console import Console

from hpclab.__about__ import __version__
from hpclab.config import config_files, defaults, load
from hpclab.errors import ConfigError, HpclabError, StoreError, TookTooLong, error_told
from hpclab.fit import fit
from hpclab.follow import follow
from hpclab.growth import parse_shapes
from hpclab.hosts.local import LocalHost
from hpclab.interrupts import held_back
from hpclab.relay import Carrier
from hpclab.remote import CTRL_C, PROTOCOL
from hpclab.request import shaped
from hpclab.reverse import are_held, ask_reverse, opened_ports
from hpclab.session import ALIVE, Session
from hpclab.show import offers_table

SILENCE_S = 60
"""A laptop that has said nothing for so long is gone, even if nobody has told us."""
BEAT_S = 2.0
LOOK_S = 10.0
"""How often the batch system is asked about a session that is watched; its files tell the rest at once."""
BEGUN_WITHIN_S = 90
REVERSE_WITHIN_S = 20
KEPT_S = 30 * 86400
"""A laptop may be shut while its session waits in the queue, and then ask again."""


def serve(run: Callable[[list[str]], int]) -> None:
    """Carry out the one request; `run` is the command line."""
    request = _read()
    out = Answers()
    out.tell(hello={"hpclab": __version__, "protocol": PROTOCOL, "host": socket.gethostname()})
    # not this machine's settings: whoever asks has said already where it shall happen
    os.environ["HPCLAB_HOST"] = ""
    os.environ |= request.get("env", {})
    goes_on = request["ask"] == "run" and "origin" in request
    threading.Thread(target=_hear, args=(sys.stdin.fileno(), not goes_on), daemon=True).start()
    if request["ask"] == "run":
        sys.exit(_run_once(run, request) if goes_on else run(request["argv"]))
    threading.Thread(target=_beat, args=(out,), daemon=True).start()
    try:
        ASKS[request["ask"]](out, request)
    except HpclabError as error:
        out.tell(error=error_told(error))
        sys.exit(error.exit_code)
    except (KeyboardInterrupt, BrokenPipeError):
        return  # the laptop is gone; the session is not
    except Exception as error:
        # without a word the laptop would take this for a lost connection, and ask again for ever
        out.tell(
            error=error_told(HpclabError(f"hpclab on the login node has failed: {error!r}\n{traceback.format_exc()}"))
        )
        raise


def _read() -> dict[str, Any]:
    try:
        request = json.loads(sys.stdin.buffer.readline())
        if request["ask"] in ("run", *ASKS):
            return dict(request)
    except (ValueError, TypeError, KeyError):
        pass
    raise ConfigError("that is no request of an hpclab at a laptop\nuse the same hpclab at both ends")


class Answers:
    """Lines of JSON on stdout, whole also when two threads write."""

    def __init__(self) -> None:
        self._lock = threading.Lock()

    def tell(self, **answer: Any) -> None:
        with self._lock:
            print(json.dumps(answer), flush=True)


def _hear(stdin: int, ends_with_it: bool) -> None:
    """Ctrl-C for the main thread when the laptop says so or is gone. It waits where the main thread holds it back."""
    # a signal to the whole process would be delivered here, where nobody holds it back
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    heard = b"\n"
    while heard and CTRL_C not in heard:
        heard = os.read(stdin, 4096) if select.select([stdin], [], [], SILENCE_S)[0] else b""
    if heard or ends_with_it:
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)


def _host() -> LocalHost:
    return LocalHost(os.environ)


def _start(out: Answers, request: dict[str, Any]) -> None:
    session = _started_once(out, request)
    _follow(out, session)
    _watch_session(out, session, request)


def _attach(out: Answers, request: dict[str, Any]) -> None:
    session = _session(request["name"])
    if session.describe()["state"] in ("queued", "held", "starting"):
        _follow(out, session, although_hopeless=True)
    session.check_running()
    _watch_session(out, session, request)


def _watch(out: Answers, request: dict[str, Any]) -> None:
    _watch_session(out, _session(request["name"]), request)


def _reverse(out: Answers, request: dict[str, Any]) -> None:
    session = _session(request["name"])
    out.tell(ports=ask_reverse(_host(), session.folder, socket.gethostname(), within_s=REVERSE_WITHIN_S))


ASKS = {"start": _start, "attach": _attach, "watch": _watch, "reverse": _reverse}


def _session(name: str) -> Session:
    return Session.open(_host(), defaults(), name) if name else Session.only(_host(), defaults())


def _started_once(out: Answers, request: dict[str, Any]) -> Session:
    """The session of this request, also when it comes again because its answer was lost on the way."""
    host = _host()
    with held_back() as let_through:
        answer, is_new = _claimed(host, request["origin"])
        if is_new:
            try:
                session = _new_session(out, host, request)
            except HpclabError as error:
                _keep(host, answer, error=error_told(error))
                raise
            _keep(host, answer, name=session.name)
        let_through()
    if is_new:
        return session
    told = _answer(host, answer)
    if "error" in told:
        out.tell(error=told["error"])
        sys.exit(1)
    return Session.open(host, defaults(), told["name"])


def _run_once(run: Callable[[list[str]], int], request: dict[str, Any]) -> int:
    """A command line that changes something; if it comes again, what it said the first time."""
    host = _host()
    answer, is_new = _claimed(host, request["origin"])
    if not is_new:
        told = _answer(host, answer)
        print(told["said"], end="", file=sys.stderr if told["exit_status"] else sys.stdout)
        return int(told["exit_status"])
    said = io.StringIO()
    with redirect_stdout(Twice(sys.stdout, said)), redirect_stderr(Twice(sys.stderr, said)):
        exit_status = run(request["argv"])
    _keep(host, answer, said=said.getvalue(), exit_status=exit_status)
    return exit_status


class Twice(io.TextIOBase):
    """Text for somebody who may be gone, and for the record."""

    def __init__(self, reader: TextIO, record: TextIO) -> None:
        self._reader, self._record = reader, record

    def write(self, text: str) -> int:
        with suppress(OSError):
            self._reader.write(text)
            self._reader.flush()
        return self._record.write(text)


def _claimed(host: LocalHost, origin: str) -> tuple[str, bool]:
    """Where a request's answer is written for when it comes again; and whether it has come for the first time."""
    if not re.fullmatch(r"[0-9]+-[0-9a-f]+", origin):
        raise ConfigError(f"{origin!r} is no request's name\nuse the same hpclab at both ends")
    requests = f"{host.home}/requests"
    try:
        host.make_folder(f"{requests}/{origin}")
    except FileExistsError:
        return f"{requests}/{origin}/answer.json", False
    except OSError as error:
        raise StoreError(
            f"could not make a folder in {requests}: {error.strerror}\n"
            "nothing was submitted; free some space or mend the permissions there"
        ) from error
    for name in host.names(requests):
        with suppress(OSError):  # somebody else has removed it
            if time.time() - Path(f"{requests}/{name}").stat().st_mtime > KEPT_S:
                host.remove_tree(f"{requests}/{name}")
    return f"{requests}/{origin}/answer.json", True


def _keep(host: LocalHost, path: str, **answer: Any) -> None:
    """As far as it can be written: it is wanted only if the connection is lost, too."""
    with suppress(OSError):
        host.write(path, json.dumps(answer))


def _answer(host: LocalHost, path: str) -> dict[str, Any]:
    """What became of a request when it came first."""
    deadline = time.monotonic() + BEGUN_WITHIN_S
    while time.monotonic() < deadline:
        with suppress(OSError, ValueError):
            return dict(json.loads(host.read(path)))
        time.sleep(0.2)
    raise TookTooLong(
        f"whether a job was submitted is not known: {host.name} was interrupted at it\n"
        "see `hpclab status`, and the queue itself, before you say it again"
    )


def _new_session(out: Answers, host: LocalHost, request: dict[str, Any]) -> Session:
    settings, _ = load(os.environ, config_files(os.environ), request["given"])
    if shapes := request["fit"]:
        offers, best = fit(host, settings, parse_shapes(shapes), notebook_dir=str(Path.home()))
        table = io.StringIO()
        Console(file=table, width=request["columns"]).print(offers_table(offers, best))
        with suppress(OSError):  # whoever is gone still gets the session
            out.tell(text=table.getvalue())
        settings = shaped(settings, best.shape)
    return Session.start(host, settings, name=request["name"], notebook_dir=str(Path.home()))


def _follow(out: Answers, session: Session, *, although_hopeless: bool = False) -> None:
    out.tell(name=session.name)
    for phase in follow(session, although_hopeless=although_hopeless):
        out.tell(phase=asdict(phase))


def _watch_session(out: Answers, session: Session, request: dict[str, Any]) -> None:
    """Tell what it looks like, again whenever that matters to a tunnel, until it has ended."""
    with session.carrier() as carrier:
        _watch_while_carrying(out, session, carrier, request)


def _watch_while_carrying(out: Answers, session: Session, carrier: Carrier, request: dict[str, Any]) -> None:
    """Meanwhile compute nodes that may not submit find somebody who may."""
    host, told, seen, asked = _host(), None, None, 0.0
    while True:
        carrier.look()
        opened = opened_ports(host, session.folder, host.name)
        held = opened if opened and are_held(host, opened, os.getuid()) else None
        now, files = time.monotonic(), (session.signs, opened, held, carrier.done)
        if files != seen or now - asked > LOOK_S:
            seen, asked = files, now
            view = session.view()
            described = view.describe(session.token, destination=request["destination"])
            connection = view.connection
            described["connection"] = connection and asdict(connection)
            described["reverse"] = held
            matters = [opened, *(described[key] for key in ("state", "reason", "jupyter_url", "connection", "reverse"))]
            if matters != told:
                told = matters
                out.tell(session=described)
            if view.state not in ALIVE and view.state != "ending":
                return
        time.sleep(1)


def _beat(out: Answers) -> None:
    """While a batch system keeps the main thread waiting, too."""
    for number in itertools.count():
        try:
            out.tell(beat=number)
        except OSError:
            return
        time.sleep(BEAT_S)
