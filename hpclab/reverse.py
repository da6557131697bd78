"""The reverse way, as asked for on a login node: the main job brings its ports there by itself."""

from __future__ import annotations

import time
from pathlib import PurePosixPath

from hpclab.connection import ReverseAnswer, is_host_name
from hpclab.errors import ConfigError, NotRunning, TookTooLong, UnreadableOutput
from hpclab.folder import SessionFolder
from hpclab.hosts import Host

LOOK_EVERY_S = 0.2


def ask_reverse(host: Host, folder: SessionFolder, login: str, *, within_s: float) -> tuple[int, int]:
    """The ports of JupyterLab and the dashboard on that login node's loopback address; the session must be running.

    Asked again, it gives the same ports for as long as they answer. The main job needs up to 17 s for a no. Raises
    NotRunning with the reason why there is no such way, in ssh's words, or TookTooLong.
    """
    if not is_host_name(login):
        raise ConfigError(f"{login!r} is no name of a login node\nsay a name that compute nodes know it by")
    question = folder.reverse_ask(login)
    deadline = time.monotonic() + within_s
    try:
        host.write(question, f"{login}\n")
        while PurePosixPath(question).name in host.names(folder.reverse):
            if time.monotonic() > deadline:
                raise TookTooLong(
                    f"the main job of {folder.name} has not answered within {within_s:.0f} s\n"
                    f"see how it is: hpclab status {folder.name}"
                )
            time.sleep(LOOK_EVERY_S)
        answer = ReverseAnswer.from_text(host.read(folder.reverse_answer(login)))
    except (OSError, UnreadableOutput) as error:
        raise _no_way(folder, login, str(error)) from error
    if answer.reason:
        raise _no_way(folder, login, answer.reason)
    return answer.jupyter_port, answer.dashboard_port


def opened_ports(host: Host, folder: SessionFolder, login: str) -> tuple[int, int] | None:
    """What the main job last opened on this login node."""
    try:
        answer = ReverseAnswer.from_text(host.read(folder.reverse_answer(login)))
    except (OSError, UnreadableOutput):
        return None
    return None if answer.reason else (answer.jupyter_port, answer.dashboard_port)


def are_held(host: Host, ports: tuple[int, int], uid: int) -> bool:
    """It is the user who listens there: the job's ssh may be gone, and the ports another one's."""
    try:
        listening = listeners(host.read("/proc/net/tcp"))
    except OSError:
        return False
    return all(listening.get(port) == uid for port in ports)


def listeners(text: str) -> dict[int, int]:
    """Which user listens on which port, by Linux's /proc/net/tcp."""
    rows = [line.split() for line in text.splitlines()[1:]]
    return {int(row[1].rpartition(":")[2], 16): int(row[7]) for row in rows if len(row) > 7 and row[3] == "0A"}


def _no_way(folder: SessionFolder, login: str, reason: str) -> NotRunning:
    return NotRunning(
        f"the main job of {folder.name} cannot reach back to {login}: {reason}\n"
        f"this way needs an ssh from compute nodes to {login} that asks for nothing: a key without a passphrase, or so"
    )
