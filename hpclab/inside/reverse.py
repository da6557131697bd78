"""The reverse way: the main job brings its ports to a login node by an ssh of its own, when a file asks for it.

They listen on the login node's loopback address, where JupyterLab's token and the dashboard's guard stand as always.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import subprocess
from asyncio.subprocess import Process
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from hpclab.connection import LOOPBACK, Connection, ReverseAnswer, is_host_name
from hpclab.folder import SessionFolder
from hpclab.inside.report import announce, report, withdraw

LOOK_EVERY_S = 1
UP_WITHIN_S = 15

ENDS_WITH_US = '"$@" & exec 2>&-; read -r _; kill $!'
"""For sh: its input closes when we end, whatever ends us; and the end of what is said is the end of ssh itself."""


def ssh_argv(login: str, ports: Sequence[int]) -> list[str]:
    options = [
        "BatchMode=yes",
        "ExitOnForwardFailure=yes",
        "ConnectTimeout=10",
        # a dead connection is noticed within 15 s
        "ServerAliveInterval=5",
        "ServerAliveCountMax=3",
        "StrictHostKeyChecking=accept-new",
        # what the user's ~/.ssh/config may say otherwise: it must tell the ports, and be a connection of its own
        "LogLevel=INFO",
        "ControlPath=none",
    ]
    return [
        *["ssh", "-N", "-T", "-a", "-x"],
        *[word for option in options for word in ("-o", option)],
        *[word for port in ports for word in ("-R", f"{LOOPBACK}:0:{LOOPBACK}:{port}")],
        *["--", login],
    ]


def allocated_port(line: str) -> dict[int, int]:
    """Which of our ports is which one over there, if this line of ssh's tells it."""
    told = re.match(r"Allocated port (\d+) for remote forward to \S+:(\d+)$", line)
    return {int(told[2]): int(told[1])} if told else {}


def asked(folder: SessionFolder) -> list[str]:
    """The login nodes that a tunnel is wanted for."""
    try:
        # by listing: network file systems remember for long that there is no such file, but a folder is asked anew
        names = [path.stem for path in Path(folder.reverse).iterdir() if path.suffix == ".ask"]
    except OSError:
        return []
    return [name for name in names if is_host_name(name)]


def tell(folder: SessionFolder, login: str, answer: ReverseAnswer) -> None:
    """When the question is gone, the answer is one that was given after it; where the disk is full, there is none."""
    try:
        announce(folder.reverse_answer(login), answer.to_text())
    except OSError:
        withdraw(folder.reverse_answer(login))
    withdraw(folder.reverse_ask(login))


def forget(folder: SessionFolder) -> None:
    """The questions and answers of a job that is over, as far as the file system lets us."""
    with contextlib.suppress(OSError):
        for path in Path(folder.reverse).iterdir():
            withdraw(str(path))


@dataclass
class Tunnel:
    """One ssh, for as long as it lives."""

    process: Process
    jupyter_port: int
    dashboard_port: int
    over_there: dict[int, int] = field(default_factory=dict)
    """Our ports to the login node's."""
    last_words: str = ""
    settled: asyncio.Event = field(default_factory=asyncio.Event)
    """It is up, or it has ended."""
    has_ended: bool = False

    @property
    def is_up(self) -> bool:
        return not self.has_ended and {self.jupyter_port, self.dashboard_port} <= self.over_there.keys()

    @property
    def answer(self) -> ReverseAnswer:
        if not self.is_up:
            return ReverseAnswer(reason=self.last_words or "ssh ended without a word")
        return ReverseAnswer(
            jupyter_port=self.over_there[self.jupyter_port], dashboard_port=self.over_there[self.dashboard_port]
        )

    async def listen(self) -> None:
        assert self.process.stderr is not None
        try:
            async for line in self.process.stderr:
                text = line.decode(errors="replace").strip()
                self.last_words = text or self.last_words
                self.over_there |= allocated_port(text)
                if self.is_up:
                    self.settled.set()
        finally:
            self.close()
            self.has_ended = True
            self.settled.set()

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()


@dataclass
class Reverse:
    """Answers the questions in the session folder; there is at most one ssh to each login node."""

    folder: SessionFolder
    connection: Connection
    processes: list[Process]
    """The supervisor's, who ends them all."""
    tunnels: dict[str, Tunnel] = field(default_factory=dict)
    answering: dict[str, asyncio.Task[None]] = field(default_factory=dict)
    listening: set[asyncio.Task[None]] = field(default_factory=set)

    async def watch(self) -> None:
        try:
            while True:
                # in a thread, for a file system that hangs must not keep us from hearing a signal
                for login in await asyncio.to_thread(asked, self.folder):
                    if login not in self.answering or self.answering[login].done():
                        self.answering[login] = asyncio.create_task(self.answer(login))
                await asyncio.sleep(LOOK_EVERY_S)
        finally:
            for task in self.answering.values():
                task.cancel()

    async def answer(self, login: str) -> None:
        tunnel = self.tunnels.get(login)
        if tunnel and tunnel.is_up:
            answer = tunnel.answer
        else:
            answer = await self.open(login)
            report(self.folder, self.connection.job_id, "reverse", login=login, reason=answer.reason or "it is up")
        await asyncio.to_thread(tell, self.folder, login, answer)

    async def open(self, login: str) -> ReverseAnswer:
        jupyter, dashboard = self.connection.jupyter_port, self.connection.dashboard_port
        try:
            process = await asyncio.create_subprocess_exec(
                *["sh", "-c", ENDS_WITH_US, "sh", *ssh_argv(login, [jupyter, dashboard])],
                # the libraries of a job's modules are not those that ssh was made for
                env={name: value for name, value in os.environ.items() if not name.startswith("LD_")},
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                start_new_session=True,
            )
        except OSError as error:
            return ReverseAnswer(reason=f"ssh cannot be started: {error.strerror}")
        self.processes.append(process)
        tunnel = self.tunnels[login] = Tunnel(process, jupyter, dashboard)
        task = asyncio.create_task(tunnel.listen())
        self.listening.add(task)
        task.add_done_callback(self.listening.discard)
        try:
            async with asyncio.timeout(UP_WITHIN_S):
                await tunnel.settled.wait()
        except TimeoutError:
            tunnel.close()
            after = f", after: {tunnel.last_words}" if tunnel.last_words else ""
            return ReverseAnswer(reason=f"{login} did not let us in within {UP_WITHIN_S} s{after}")
        return tunnel.answer
