from __future__ import annotations

import errno
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager

import pytest

from hpclab.pump import Channel, LocalPort


class SocketChannel:
    """A channel made of a socket; `far` is the other end."""

    def __init__(self) -> None:
        self._near, self.far = socket.socketpair()
        self.far.settimeout(10)
        self.eof_received = 0
        self.is_cut = False
        self.status_event = threading.Event()

    def recv(self, nbytes: int) -> bytes:
        data = b"" if self.status_event.is_set() else self._near.recv(min(nbytes, 1 << 16))
        if not data and not self.is_cut:
            self.eof_received = 1
        return data

    def sendall(self, s: bytes) -> None:
        self._near.sendall(s)

    def shutdown_write(self) -> None:
        self._near.shutdown(socket.SHUT_WR)

    def cut(self) -> None:
        self.is_cut = True
        self.close()

    def close(self) -> None:
        if not self.status_event.is_set():
            self.status_event.set()
            self._near.shutdown(socket.SHUT_RDWR)
            self._near.close()


@contextmanager
def a_port(open_channel: Callable[[], Channel | None]) -> Iterator[int]:
    with closing(LocalPort(0, open_channel)) as local:
        yield local.port


def connected(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=10)


def everything(sock: socket.socket) -> bytes:
    data = b""
    while piece := sock.recv(1 << 16):
        data += piece
    return data


def test_both_ways_with_an_end_each() -> None:
    channel = SocketChannel()
    with a_port(lambda: channel) as port, connected(port) as client:
        client.sendall(b"a question")
        client.shutdown(socket.SHUT_WR)
        assert everything(channel.far) == b"a question"
        channel.far.sendall(b"an answer" * 100_000)
        channel.far.shutdown(socket.SHUT_WR)
        assert everything(client) == b"an answer" * 100_000


def test_the_answer_may_end_before_the_question() -> None:
    channel = SocketChannel()
    with a_port(lambda: channel) as port, connected(port) as client:
        channel.far.shutdown(socket.SHUT_WR)
        assert everything(client) == b""
        client.sendall(b"still here")
        client.shutdown(socket.SHUT_WR)
        assert everything(channel.far) == b"still here"


def test_a_client_that_is_gone_ends_its_channel() -> None:
    channel = SocketChannel()
    with a_port(lambda: channel) as port:
        connected(port).close()
        assert everything(channel.far) == b""


def test_what_is_cut_off_does_not_look_whole() -> None:
    channel = SocketChannel()
    with a_port(lambda: channel) as port, connected(port) as client:
        channel.far.sendall(b"half")
        assert client.recv(4) == b"half"
        channel.cut()
        with pytest.raises(ConnectionResetError):
            client.recv(1)


def test_without_a_channel_the_connection_is_closed() -> None:
    with a_port(lambda: None) as port, connected(port) as client:
        assert client.recv(1) == b""


def test_one_that_waits_for_its_channel_holds_up_no_other() -> None:
    channel, ready = SocketChannel(), threading.Event()
    first = threading.Lock()

    def open_channel() -> SocketChannel | None:
        if first.acquire(blocking=False):
            ready.wait(10)
            return None
        return channel

    with a_port(open_channel) as port, connected(port), connected(port) as second:
        second.sendall(b"x")
        assert channel.far.recv(1) == b"x"
        ready.set()


def test_close_ends_all_and_frees_the_port() -> None:
    channel = SocketChannel()
    before = set(threading.enumerate())
    local = LocalPort(0, lambda: channel)
    client = connected(local.port)
    client.sendall(b"x")
    assert channel.far.recv(1) == b"x"
    local.close()
    local.close()
    assert set(threading.enumerate()) == before
    client.close()
    LocalPort(local.port, lambda: None).close()


def test_a_port_that_is_taken() -> None:
    with a_port(lambda: None) as port, pytest.raises(OSError, match="use") as caught:
        LocalPort(port, lambda: None)
    assert caught.value.errno == errno.EADDRINUSE
