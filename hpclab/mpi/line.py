"""The line between a worker and the rank beside it: a unix socket for messages, each with a parcel or without."""

from __future__ import annotations

import json
import os
import socket
from typing import Any

from hpclab.mpi.parcel import Parcel

LONGEST_BYTES = 100_000
"""Of a message; a longer one goes as a file in memory, for a socket's buffer is not much larger."""
IN_A_FILE = b"file"
LINE, OUTPUT = "line", "output"
"""Sockets in the folder that a launched rank is told: for it and then its guardian, for its stdout and then stderr."""

Message = dict[str, Any]


class Line:
    """One end. Each message arrives whole, or not at all."""

    def __init__(self, end: socket.socket) -> None:
        self._end = end

    def fileno(self) -> int:
        return self._end.fileno()

    def close(self) -> None:
        self._end.close()

    def say(self, what: str, parcel: Parcel | None = None, **details: Any) -> None:
        """Raises OSError when the other end is gone."""
        message = {"what": what, **details, **({"label": parcel.label} if parcel else {})}
        data = json.dumps(message).encode()
        files = [_file(data)] if len(data) > LONGEST_BYTES else []
        try:
            socket.send_fds(self._end, [IN_A_FILE if files else data], [*([parcel.fd] if parcel else []), *files])
        finally:
            for fd in files:
                os.close(fd)

    def hear(self) -> tuple[Message, Parcel | None] | None:
        """The next message; None: the other end is gone."""
        try:
            data, fds, _, _ = socket.recv_fds(self._end, LONGEST_BYTES, 2)
        except ConnectionError:
            return None
        if not data:
            return None
        if data == IN_A_FILE:
            with open(fds.pop(), "rb") as file:
                data = file.read()
        message: Message = json.loads(data)
        label = message.pop("label", "")
        return message, Parcel(fds[0], label) if fds else None


def _file(data: bytes) -> int:
    fd = os.memfd_create("hpclab", os.MFD_CLOEXEC)
    os.write(fd, data)
    os.lseek(fd, 0, os.SEEK_SET)
    return fd
