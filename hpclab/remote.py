"""hpclab on a login node, asked from a laptop: the other end of `hpclab agent`."""

from __future__ import annotations

import json
import os
import queue
import shlex
import shutil
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, BinaryIO

from hpclab.__about__ import __version__
from hpclab.errors import INTERRUPTED, ConnectionLost, HpclabError, RemoteUnfit, error_of
from hpclab.hosts import LoginNode, RemoteProcess
from hpclab.resumed import Sink
from hpclab.shell import printable

PROTOCOL = 1
"""What an agent must understand."""
BEAT_S = 10
"""The agent takes a minute's silence for our end."""
SILENT_S = 12.0
"""The agent says something every two seconds."""
WAKE_S = 1.0
"""Waits are cut so that Ctrl-C is heard on every system."""
CTRL_C = b"\x03"
ENVIRONMENT = "~/.hpclab/env"
"""Where hpclab is looked for, besides PATH."""
FIND = """for hpclab in "$(command -v hpclab)" ~/.hpclab/env/bin/hpclab ~/.local/bin/hpclab; do
    [ ! -x "$hpclab" ] || exec "$hpclab" agent
done
exit 127"""
AS_AT_LOGIN = """case ${SHELL##*/} in
    bash | zsh | ksh | dash | sh)
        hpclab_path=$PATH
        export hpclab_path
        exec 3>&2 2>/dev/null "$SHELL" -lc "exec 2>&3 3>&-; PATH=\\$PATH:\\$hpclab_path; $1" ;;
    *) exec sh -c "$1" ;;
esac"""
"""For a script of sh: with what the user's profile sets, where the batch system's commands may come from; and with the
PATH from before, which some profiles replace.

What a profile says on stderr is of no interest; on stdout it stands before the agent's hello. Of csh and fish the
settings are there already."""


@dataclass
class Remote:
    """One user's hpclab on one login node."""

    login: LoginNode
    python: str = ""
    """That has hpclab there; empty: it is looked for."""
    prologue: Sequence[str] = ()
    host: str = field(default="", init=False)
    """The login node's own name, once it has answered."""

    def start(self, given: Mapping[str, Any], *, name: str, fit: str, origin: str) -> Answers:
        """`origin` is this request's own name: said twice, it is carried out once."""
        columns = shutil.get_terminal_size().columns
        return self._ask("start", given=given, name=name, fit=fit, origin=origin, columns=columns)

    def attach(self, name: str) -> Answers:
        return self._ask("attach", name=name)

    def watch(self, name: str) -> Answers:
        return self._ask("watch", name=name)

    def reverse(self, name: str) -> tuple[int, int]:
        """The ports of JupyterLab and the dashboard on the login node's loopback, as the job has opened them."""
        answers = self._ask("reverse", name=name)
        try:
            for answer in answers:
                if "ports" in answer:
                    jupyter, dashboard = answer["ports"]
                    return int(jupyter), int(dashboard)
        finally:
            answers.close()
        raise ConnectionLost(f"{self.login.destination} did not answer\nlook again with `hpclab status`")

    def run(
        self,
        argv: Sequence[str],
        *,
        stdout: Sink,
        stderr: Sink,
        env: Mapping[str, str] | None = None,
        session: str = "",
        origin: str = "",
        is_terminal: bool = False,
    ) -> int:
        """A command line over there, as if it were said here, about that session unless it names one.

        Its exit status. One with an `origin` is carried out once, also when it is said again because of a lost
        connection.
        """
        told = {**(env or {}), "COLUMNS": str(shutil.get_terminal_size().columns)}
        if is_terminal:
            told |= {"FORCE_COLOR": "1", "TERM": "xterm-256color"}
            told |= {"NO_COLOR": os.environ["NO_COLOR"]} if "NO_COLOR" in os.environ else {}
        if session:
            told["HPCLAB_SESSION"] = session
        once = {"origin": origin} if origin else {}
        answers = self._ask("run", argv=list(argv), env=told, **once)
        return answers.pour(stdout, stderr)

    def _ask(self, ask: str, **request: Any) -> Answers:
        process = self.login.start(self._argv(), prologue=self.prologue)
        # TOML has times of day, and dates
        told = json.dumps({"ask": ask, "destination": self.login.destination, **request}, default=str)
        with suppress(OSError):  # then there is no hello either, and that is told
            process.stdin.write(told.encode() + b"\n")
        try:
            hello = _hello(process)
            if hello.get("protocol", 0) < PROTOCOL:
                raise self._unfit(process, hello.get("hpclab", ""))
        except BaseException:
            process.close()
            raise
        self.host = printable(str(hello.get("host", "")))
        return Answers(process)

    def _argv(self) -> list[str]:
        script = f"exec {_in_shell(self.python)} -P -m hpclab agent" if self.python else FIND
        # a prologue runs in a login shell already, and another one might undo it
        return ["sh", "-c", script] if self.prologue else ["sh", "-c", AS_AT_LOGIN, "sh", script]

    def _unfit(self, process: RemoteProcess, version: str) -> HpclabError:
        """Why there was no hello, or one that we cannot talk to."""
        destination = self.login.destination
        where = f"in {self.python} on {destination}" if self.python else f"on {destination}"
        too_old = f"is too old for this {__version__}"
        if version:
            return RemoteUnfit(f"hpclab {version} {where} {too_old}\n{self._install()}")
        process.stdin.close()
        said = printable(process.stderr.read().decode(errors="replace")).strip()
        exit_status = process.wait(timeout_s=10)
        evidence = "".join(f"  {line}\n" for line in said.splitlines()[-5:])
        if self.python and exit_status in (126, 127):
            return RemoteUnfit(
                f"there is no Python {self.python} on {destination}\n{evidence}"
                "set `remote_python` to the one that has hpclab, or unset it, and hpclab is looked for"
            )
        if "No such command" in said:
            what = f"hpclab {where} {too_old}"
        elif exit_status in (126, 127) or "No module named hpclab" in said:
            what = f"there is no hpclab {where}"
        else:
            what = f"hpclab {where} does not start: exit status {exit_status}"
        return RemoteUnfit(f"{what}\n{evidence}{self._install()}")

    def _install(self) -> str:
        """The command that brings this version there, and what to do where it is there already."""
        package = f'"hpclab[cluster,mpich]=={__version__}"'
        command = f"python3 -m venv {ENVIRONMENT} && {ENVIRONMENT}/bin/python -m pip install {package}"
        known = "unset `remote_python`" if self.python else "it is found there"
        return (
            f"install it: ssh {shlex.quote(self.login.destination)} {shlex.quote(command)}\n"
            f"then {known}; or, where it is there already, set `remote_python` to the Python that has it"
        )


def _hello(process: RemoteProcess) -> dict[str, Any]:
    """The first answer that is one; empty if there is none."""
    while line := process.stdout.readline():
        with suppress(ValueError, TypeError, KeyError):
            return dict(json.loads(line)["hello"])
    return {}


def _harmless(value: Any) -> Any:
    """An answer whose texts may be shown: a login node or a job could send what steers the terminal."""
    if isinstance(value, str):
        return printable(value)
    if isinstance(value, list):
        return [_harmless(each) for each in value]
    if isinstance(value, dict):
        return {key: _harmless(each) for key, each in value.items()}
    return value


def _in_shell(python: str) -> str:
    """The shell there knows what ~ is."""
    return f'"$HOME"/{shlex.quote(python[2:])}' if python.startswith("~/") else shlex.quote(python)


class Answers:
    """What an agent says, as long as the connection lives. Meanwhile it hears that we are there."""

    def __init__(self, process: RemoteProcess) -> None:
        self._process = process
        self._lines: queue.Queue[bytes] = queue.Queue()
        self._unread: list[dict[str, Any]] = []
        self._closed = threading.Event()
        self._unheard: Exception | None = None
        threading.Thread(target=self._beat, daemon=True).start()
        self._reader = threading.Thread(target=self._read, daemon=True)

    def next(self, timeout_s: float) -> dict[str, Any] | None:
        """The next answer; None: there was none in this time. Raises what went wrong there, or ConnectionLost."""
        if self._unread:
            return self._unread.pop()
        if not self._reader.ident:
            self._reader.start()
            threading.Thread(target=self._pass_on, daemon=True).start()
        try:
            line = self._lines.get(timeout=timeout_s)
        except queue.Empty:
            return None
        if not line:
            self._lines.put(b"")
            raise ConnectionLost(
                "the connection was closed over there\nthe session goes on; `hpclab attach` brings the tunnel back"
            )
        try:
            answer = dict(_harmless(json.loads(line)))
        except (ValueError, TypeError):
            return None  # a library's word; or cut off, and then the end comes next
        if "error" in answer:
            raise error_of(answer["error"])
        return answer

    def unread(self, answer: dict[str, Any]) -> None:
        """It comes again."""
        self._unread.append(answer)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        heard = time.monotonic()
        while time.monotonic() - heard < SILENT_S:
            answer = self.next(WAKE_S)
            if answer is not None:
                heard = time.monotonic()
                yield answer
        raise ConnectionLost(
            f"no sign of life for {SILENT_S:.0f} s\nthe session goes on; `hpclab attach` tells how it is"
        )

    def pour(self, stdout: Sink, stderr: Sink) -> int:
        """What a command line says, to these; its exit status. Ctrl-C here is Ctrl-C there."""
        streams = ((self._process.stdout, stdout), (self._process.stderr, stderr))
        threads = [threading.Thread(target=self._copy, args=pair, daemon=True) for pair in streams]
        try:
            try:
                for thread in threads:
                    thread.start()
                return self._end(threads)
            except KeyboardInterrupt:
                with suppress(OSError):
                    self._process.stdin.write(CTRL_C)
                self._end(threads)
                return INTERRUPTED
        finally:
            self.close()

    def _copy(self, source: BinaryIO, target: Sink) -> None:
        # why a connection ends is told by `wait`
        with suppress(OSError, ValueError, HpclabError):
            while data := source.read1(65536):  # type: ignore[attr-defined]
                try:
                    target.write(data)
                    target.flush()
                except (OSError, ValueError) as error:
                    # nobody reads us any more, and so nobody shall speak over there
                    self._unheard = error
                    self._process.close()

    def _end(self, threads: Sequence[threading.Thread]) -> int:
        for thread in threads:
            while thread.is_alive():
                thread.join(WAKE_S)
        if self._unheard:
            raise self._unheard
        return self._process.wait(timeout_s=30)

    def close(self) -> None:
        self._closed.set()
        self._process.close()

    def _beat(self) -> None:
        while not self._closed.wait(BEAT_S):
            try:
                self._process.stdin.write(b"\n")
            except (OSError, ValueError):
                return

    def _pass_on(self) -> None:
        """What a prologue or Python has to say."""
        with suppress(OSError, ValueError, HpclabError):
            while line := self._process.stderr.readline():
                print(printable(line.decode(errors="replace")), end="", file=sys.stderr, flush=True)

    def _read(self) -> None:
        with suppress(OSError, ValueError, HpclabError):
            while line := self._process.stdout.readline():
                self._lines.put(line)
        self._lines.put(b"")
