"""Which of the scheduler's addresses answers: real lines on this machine, to listeners of every kind."""

from __future__ import annotations

import json
import os
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from hpclab.credentials import Credentials, new_credentials
from hpclab.errors import ConfigError
from hpclab.folder import SessionFolder
from hpclab.inside import network
from hpclab.inside.network import (
    announced,
    networks,
    own_addresses,
    scheduler_versions,
    wait_for_scheduler,
    way_to,
)

FIRST, SECOND = "127.0.0.1", "127.0.0.2"


@pytest.fixture(scope="module")
def ours() -> Credentials:
    return new_credentials("calm-otter")


@pytest.fixture(scope="module")
def another_sessions() -> Credentials:
    return new_credentials("bold-heron")


@pytest.fixture
def here(tmp_path, ours) -> SessionFolder:
    folder = SessionFolder(str(tmp_path / "calm-otter"))
    Path(folder.ca).parent.mkdir(parents=True)
    for path, text in {
        folder.ca: ours.ca_pem,
        folder.certificate: ours.certificate_pem,
        folder.key: ours.key_pem,
    }.items():
        Path(path).write_text(text)
    return folder


@pytest.fixture
def a_scheduler(tmp_path) -> Iterator[Callable[..., str]]:
    """a_scheduler("127.0.0.1", credentials) is the address of one that greets its workers by TLS, as Dask does."""
    lines = ExitStack()

    def serve(listener: socket.socket, context: ssl.SSLContext) -> None:
        while True:
            try:
                line, _ = listener.accept()
            except OSError:  # closed: the test is over
                return
            try:
                with line, context.wrap_socket(line, server_side=True) as greeted:
                    greeted.recv(1)
            except OSError:
                continue

    def _a_scheduler(ip: str, credentials: Credentials) -> str:
        pem = tmp_path / f"{ip}.pem"
        pem.write_text(credentials.certificate_pem + credentials.key_pem)
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cadata=credentials.ca_pem)
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_cert_chain(pem)
        listener = lines.enter_context(socket.create_server((ip, 0)))
        # close() alone does not wake who waits in accept()
        lines.callback(listener.shutdown, socket.SHUT_RDWR)
        threading.Thread(target=serve, args=(listener, context), daemon=True).start()
        return f"tls://{ip}:{listener.getsockname()[1]}"

    with lines:
        yield _a_scheduler


@pytest.fixture
def somebody() -> Iterator[Callable[..., str]]:
    """somebody("127.0.0.1", …) is an address where it is refused, or where one listens in silence."""
    with ExitStack() as lines:

        def _somebody(ip: str, kind: str) -> str:
            line = lines.enter_context(socket.socket())
            line.bind((ip, 0))
            if kind == "silent":
                line.listen()
            return f"tls://{ip}:{line.getsockname()[1]}"

        yield _somebody


# which way is taken


@pytest.mark.parametrize("kind", ["refused", "silent", "another session's", "unreachable"])
@pytest.mark.parametrize("dead_first", [True, False])
def test_the_address_where_the_sessions_scheduler_answers_is_taken(
    here, a_scheduler, somebody, ours, another_sessions, kind, dead_first
):
    if kind == "another session's":
        dead = a_scheduler(FIRST, another_sessions)
    elif kind == "unreachable":
        dead = "tls://240.0.0.1:8786"
    else:
        dead = somebody(FIRST, kind)
    good = a_scheduler(SECOND, ours)
    begin = time.monotonic()
    way = way_to(here, [dead, good] if dead_first else [good, dead])
    assert way.address == good
    assert time.monotonic() - begin < 5


def test_of_two_good_ones_the_first_is_taken(here, a_scheduler, ours):
    first, second = a_scheduler(FIRST, ours), a_scheduler(SECOND, ours)
    assert way_to(here, [first, second]).address == first
    assert way_to(here, [second, first]).address == second


def test_the_worker_listens_where_it_is_on_the_way_that_it_took(here, a_scheduler, somebody, ours):
    way = way_to(here, [somebody(SECOND, "refused"), a_scheduler(FIRST, ours)])
    assert way.host == FIRST


def test_where_nobody_answers_everything_that_was_tried_is_named(
    here, a_scheduler, somebody, another_sessions, monkeypatch
):
    monkeypatch.setattr(network, "ANSWER_WITHIN_S", 0.5)
    addresses = [somebody(FIRST, "refused"), somebody(SECOND, "silent"), a_scheduler(SECOND, another_sessions)]
    with pytest.raises(OSError, match="none of the scheduler's addresses answers") as failed:
        way_to(here, addresses)
    for words in [*addresses, socket.gethostname(), "networks here: "]:
        assert words in str(failed.value)


def test_of_a_single_address_nothing_is_asked(here, somebody):
    """Dask itself says best what is wrong with it."""
    only = somebody(FIRST, "refused")
    way = way_to(here, [only])
    assert (way.address, way.host) == (only, FIRST)


@pytest.mark.parametrize("kinds", [("silent", "refused"), ("refused", "silent")])
def test_no_line_is_left_open(here, somebody, monkeypatch, kinds):
    monkeypatch.setattr(network, "ANSWER_WITHIN_S", 0.2)
    addresses = [somebody(ip, kind) for ip, kind in zip((FIRST, SECOND), kinds, strict=True)]
    before = set(os.listdir("/proc/self/fd"))
    with pytest.raises(OSError, match="none of"):
        way_to(here, addresses)
    # what other tests have left may be closed meanwhile; the one that may be new is this look's own
    assert len(set(os.listdir("/proc/self/fd")) - before) <= 1


# this node's own addresses


def test_loopback_is_loopback():
    assert own_addresses("lo") == ["127.0.0.1"]


def test_without_a_name_only_addresses_that_others_can_reach_count():
    assert not [address for address in own_addresses() if address.startswith(("127.", "169.254."))]


def test_the_fastest_network_comes_first(monkeypatch):
    speeds = {"eth0": 1000, "ib0": 100_000, "wlan0": 0}
    monkeypatch.setattr(network, "_interfaces", lambda: {name: [f"10.0.0.{n}"] for n, name in enumerate(speeds)})
    stats = {name: type("Stats", (), {"speed": speed}) for name, speed in speeds.items()}
    monkeypatch.setattr(network.psutil, "net_if_stats", lambda: stats)
    assert own_addresses() == ["10.0.0.1", "10.0.0.0", "10.0.0.2"]
    assert own_addresses("eth0") == ["10.0.0.0"]
    assert networks() == "eth0 10.0.0.0, ib0 10.0.0.1, wlan0 10.0.0.2"


def test_an_interface_that_is_not_there_is_told_with_those_that_are(monkeypatch):
    monkeypatch.setattr(network, "_interfaces", lambda: {"eth0": ["10.0.0.1"]})
    with pytest.raises(ConfigError, match="no network interface 'ib7' is up") as refused:
        own_addresses("ib7")
    assert "eth0 10.0.0.1" in str(refused.value)


# what the scheduler announces


def test_an_announcement_is_read(here):
    told = {"addresses": ["tls://10.0.0.1:1", "tls://10.1.0.1:1"], "versions": {"python": "3.11"}}
    Path(here.addresses).write_text(json.dumps(told))
    assert announced(here) == told["addresses"]
    assert scheduler_versions(here) == told["versions"]


@pytest.mark.parametrize("text", [None, "", "{", "[]", "17", "{}", '{"addresses": 3, "versions": []}', "\x00"])
def test_without_an_announcement_there_is_no_scheduler_yet(here, text):
    if text is not None:
        Path(here.addresses).write_text(text)
    assert announced(here) == []
    assert scheduler_versions(here) == {}


def test_who_waits_for_the_scheduler_looks_until_it_is_there(here):
    looks = wait_for_scheduler(here, 60)
    assert next(looks) == []
    Path(here.addresses).write_text('{"addresses": ["tls://10.0.0.1:1"]}')
    assert list(looks) == [["tls://10.0.0.1:1"]]


def test_of_a_session_that_is_over_nobody_waits(here):
    Path(here.over).write_text("stopped")
    assert list(wait_for_scheduler(here, 60)) == []


def test_nobody_waits_for_ever(here):
    assert list(wait_for_scheduler(here, 0.01)) in ([], [[]])
