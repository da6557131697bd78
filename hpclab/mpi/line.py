"""The line between a worker and the rank beside it: a unix socket for messages, each with a parcel or without."""

from __future__ import annotations

import json
import os
import socket
from typing import Any

from hpclab.mpi.parcel import Parcel

LONGEST_BYTES = 100_000
"""Of a message; whatever may be longer goes in a parcel."""
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
        message = {"what": what, **details, **({"label": ""} if parcel else {})}
        fds = [parcel.fd] if parcel else []
        if parcel and len(parcel.label) < LONGEST_BYTES:
            message["label"] = parcel.label
        elif parcel:  # of many thousand arrays
            fds.append(_file(parcel.label))
        try:
            socket.send_fds(self._end, [json.dumps(message).encode()], fds)
        finally:
            for fd in fds[1:]:
                os.close(fd)

    def hear(self) -> tuple[Message, Parcel | None] | None:
        """The next message; None: the other end is gone."""
        try:
            data, fds, _, _ = socket.recv_fds(self._end, 2 * LONGEST_BYTES, 2)
        except ConnectionError:
            return None
        if not data:
            return None
        message: Message = json.loads(data)
        label = message.pop("label", "")
        if len(fds) == 2:
            with open(fds[1]) as file:
                label = file.read()
        return message, Parcel(fds[0], label) if fds else None


def _file(text: str) -> int:
    fd = os.memfd_create("hpclab", os.MFD_CLOEXEC)
    os.write(fd, text.encode())
    os.lseek(fd, 0, os.SEEK_SET)
    return fd
