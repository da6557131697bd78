from __future__ import annotations

import errno
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager

import pytest

from hpclab.pump import Channel, LocalPort, SocketChannel


class Pair(SocketChannel):
    """A channel, and its other end: `far`."""

    def __init__(self) -> None:
        near, self.far = socket.socketpair()
        self.far.settimeout(10)
        self.is_lost = False
        super().__init__(near, is_cut=lambda: self.is_lost)


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
    channel = Pair()
    with a_port(lambda: channel) as port, connected(port) as client:
        client.sendall(b"a question")
        client.shutdown(socket.SHUT_WR)
        assert everything(channel.far) == b"a question"
        channel.far.sendall(b"an answer" * 100_000)
        channel.far.shutdown(socket.SHUT_WR)
        assert everything(client) == b"an answer" * 100_000


def test_the_answer_may_end_before_the_question() -> None:
    channel = Pair()
    with a_port(lambda: channel) as port, connected(port) as client:
        channel.far.shutdown(socket.SHUT_WR)
        assert everything(client) == b""
        client.sendall(b"still here")
        client.shutdown(socket.SHUT_WR)
        assert everything(channel.far) == b"still here"


def test_a_client_that_is_gone_ends_its_channel() -> None:
    channel = Pair()
    with a_port(lambda: channel) as port:
        connected(port).close()
        assert everything(channel.far) == b""


def lose(channel: Pair, _: LocalPort) -> None:
    channel.is_lost = True
    channel.far.close()


@pytest.mark.parametrize("end", [lose, lambda channel, _: channel.close(), lambda _, local: local.hang_up()])
def test_what_is_cut_off_does_not_look_whole(end: Callable[[Pair, LocalPort], None]) -> None:
    channel = Pair()
    with closing(LocalPort(0, lambda: channel)) as local, connected(local.port) as client:
        channel.far.sendall(b"half")
        assert client.recv(4) == b"half"
        end(channel, local)
        with pytest.raises(ConnectionResetError):
            client.recv(1)


def test_who_still_waits_outlives_a_hang_up() -> None:
    channel, asked, ready = Pair(), threading.Event(), threading.Event()

    def open_channel() -> Pair:
        asked.set()
        ready.wait(10)
        return channel

    with closing(LocalPort(0, open_channel)) as local, connected(local.port) as client:
        asked.wait(10)
        local.hang_up()
        ready.set()
        channel.far.sendall(b"x")
        assert client.recv(1) == b"x"


def test_without_a_channel_the_connection_is_closed() -> None:
    with a_port(lambda: None) as port, connected(port) as client:
        assert client.recv(1) == b""


def test_one_that_waits_for_its_channel_holds_up_no_other() -> None:
    channel, ready = Pair(), threading.Event()
    first = threading.Lock()

    def open_channel() -> Pair | None:
        if first.acquire(blocking=False):
            ready.wait(10)
            return None
        return channel

    with a_port(open_channel) as port, connected(port), connected(port) as second:
        second.sendall(b"x")
        assert channel.far.recv(1) == b"x"
        ready.set()


def test_close_ends_all_and_frees_the_port() -> None:
    channel = Pair()
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
