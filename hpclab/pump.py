"""Bytes between sockets of a local port and channels of a connection, both ways at once."""

from __future__ import annotations

import os
import socket
import struct
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol

MOST = 1 << 25
"""Taken from a channel at once: all that is there, since what is left behind has to be moved up."""
PIECE = 1 << 18
"""Read from a socket at once."""
RECONNECT_S = 3600.0
"""How long a connection to a local port waits for the login node to be there again: a browser that is refused shows a
dialog and gives up, one that waits knows nothing."""


class Channel(Protocol):
    """What paramiko's channels can do. Reading an empty answer is the end of what comes from there."""

    eof_received: int
    """False at the end of the stream: it was cut off."""
    status_event: threading.Event
    """Set once it is closed by either side, or its connection has ended."""

    def recv(self, nbytes: int) -> bytes: ...
    def sendall(self, s: bytes) -> None: ...
    def shutdown_write(self) -> None: ...
    def close(self) -> None: ...


class SocketChannel:
    """A channel made of a connected socket; `is_cut` tells whether it ended because its other end has died."""

    def __init__(self, sock: socket.socket, *, is_cut: Callable[[], bool]) -> None:
        self._sock, self._is_cut = sock, is_cut
        self._is_closed = False
        self._lock = threading.Lock()
        self.eof_received = 0
        self.status_event = threading.Event()

    def recv(self, nbytes: int) -> bytes:
        data = self._sock.recv(min(nbytes, PIECE))
        if not data and not self._is_closed and not self._is_cut():
            self.eof_received = 1
        return data

    def sendall(self, s: bytes) -> None:
        self._sock.sendall(s)

    def shutdown_write(self) -> None:
        self._sock.shutdown(socket.SHUT_WR)
        self.status_event.set()  # it is looked at after the end of what comes

    def close(self) -> None:
        with self._lock:
            if self._is_closed:
                return
            self._is_closed = True
        self.status_event.set()
        with suppress(OSError):  # wakes who reads or writes
            self._sock.shutdown(socket.SHUT_RDWR)
        self._sock.close()


def pump(sock: socket.socket, channel: Channel) -> None:
    """Until both directions have ended, or one side is gone; closes both."""
    inward = threading.Thread(target=_inward, args=(sock, channel), name="hpclab-inward", daemon=True)
    inward.start()
    is_whole = False
    # paramiko raises what it likes when the connection ends
    with suppress(Exception):
        while data := channel.recv(MOST):
            sock.sendall(data)
        if channel.eof_received:
            sock.shutdown(socket.SHUT_WR)
            is_whole = True
            channel.status_event.wait()
    with suppress(Exception):
        channel.close()
    with suppress(OSError):
        if not is_whole:  # what was cut off must not look like a whole answer: a reset instead of an end
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("hh" if os.name == "nt" else "ii", 1, 0))
        sock.shutdown(socket.SHUT_RD)
    if os.name == "nt":  # where only this wakes who reads
        sock.close()
    inward.join()
    sock.close()


def _inward(sock: socket.socket, channel: Channel) -> None:
    try:
        while data := sock.recv(PIECE):
            channel.sendall(data)
        channel.shutdown_write()
    except Exception:
        with suppress(Exception):
            channel.close()


class LocalPort:
    """A port on 127.0.0.1. Each connection to it gets a channel, as soon as there is one, and a thread of its own."""

    def __init__(self, port: int, open_channel: Callable[[], Channel | None]) -> None:
        """`open_channel` waits as long as that makes sense; None: the connection is closed."""
        self._open_channel = open_channel
        self._live: dict[threading.Thread, Channel | None] = {}
        self._lock = threading.Lock()
        self._is_closed = False
        self._listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        try:
            if os.name == "nt":  # where REUSEADDR would take the port from another program
                self._listener.setsockopt(socket.SOL_SOCKET, getattr(socket, "SO_EXCLUSIVEADDRUSE"), 1)  # noqa: B009
            else:
                self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self._listener.bind(("127.0.0.1", port))
            self._listener.listen(128)
        except OSError:
            self._listener.close()
            raise
        self.port: int = self._listener.getsockname()[1]
        self._acceptor = threading.Thread(target=self._accept, name=f"hpclab-port-{self.port}", daemon=True)
        self._acceptor.start()

    def close(self) -> None:
        """Free the port, and end its connections."""
        with self._lock:
            if self._is_closed:
                return
            self._is_closed = True
            threads = list(self._live)
        with suppress(OSError):  # wakes the acceptor, on all systems
            socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
        self._acceptor.join(5)
        self._listener.close()
        self.hang_up()
        for thread in threads:
            if thread is not threading.current_thread():
                thread.join(5)

    def hang_up(self) -> None:
        """End the connections; those that still wait for a channel go on waiting."""
        with self._lock:
            channels = [channel for channel in self._live.values() if channel]
        for channel in channels:
            with suppress(Exception):
                channel.close()

    def _accept(self) -> None:
        while not self._is_closed:
            try:
                sock, _ = self._listener.accept()
            except OSError:  # too many open files: the browser will come again
                time.sleep(0.1)
                continue
            thread = threading.Thread(target=self._serve, args=(sock,), name="hpclab-outward", daemon=True)
            with self._lock:
                if self._is_closed:
                    sock.close()
                    return
                self._live[thread] = None
                thread.start()

    def _serve(self, sock: socket.socket) -> None:
        thread = threading.current_thread()
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            channel = self._open_channel()
            with self._lock:
                self._live[thread] = channel
                is_wanted = channel and not self._is_closed
            if channel and is_wanted:
                pump(sock, channel)
            elif channel:
                channel.close()
        finally:
            sock.close()
            with self._lock:
                self._live.pop(thread, None)
