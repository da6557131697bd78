"""Which address of the scheduler answers from here: nodes may have several networks, and not every one leads anywhere.

The scheduler listens on all of its node's networks and announces all their addresses. A worker tries them all and
takes the first that answers as the session's scheduler, which only its certificate can prove. The worker itself
listens where it was on that way: what led to the scheduler leads from it to the worker, too.
"""

from __future__ import annotations

import errno
import ipaddress
import json
import selectors
import socket
import ssl
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from hpclab.errors import ConfigError
from hpclab.folder import SessionFolder
from hpclab.inside.plan import LOOPBACK

HEAD_START_S = 0.05
"""How much earlier the faster network is tried."""
GREETING_HEAD_START_S = 1.0
"""The same once somebody answers there: a scheduler that many workers call at once may take a while to prove itself."""
ANSWER_WITHIN_S = 10.0


@dataclass(frozen=True, kw_only=True)
class Way:
    """How a worker reaches the scheduler: its address, and our own on that network."""

    address: str
    host: str


def own_addresses(interface: str = "") -> list[str]:
    """This node's IPv4 addresses that others can reach, the fastest network first; those of one interface if named.

    Raises ConfigError when there is no such interface here.
    """
    found = _interfaces()
    if interface in LOOPBACK:
        return ["127.0.0.1"]
    if interface and interface not in found:
        known = ", ".join(f"{name} {' '.join(found[name])}" for name in found) or "none"
        raise ConfigError(
            f"no network interface {interface!r} is up on {socket.gethostname()}\nthere: {known}; "
            "set `interface` to one of these, or to auto"
        )
    names = [interface] if interface else sorted(found, key=_slowness)
    return [address for name in names for address in found[name]]


def _interfaces() -> dict[str, list[str]]:
    """The addresses of each interface that is up and leads out of this machine."""
    is_up = {name for name, stats in psutil.net_if_stats().items() if stats.isup}
    found = {
        name: [a.address for a in addresses if a.family == socket.AF_INET and _leads_out(a.address)]
        for name, addresses in psutil.net_if_addrs().items()
        if name in is_up
    }
    return {name: addresses for name, addresses in found.items() if addresses}


def _leads_out(address: str) -> bool:
    ip = ipaddress.ip_address(address)
    return not (ip.is_loopback or ip.is_link_local)


def _slowness(interface: str) -> tuple[int, str]:
    stats = psutil.net_if_stats().get(interface)
    return (-stats.speed if stats else 0, interface)


def networks() -> str:
    """For the job's story: `eth0 10.77.1.11, ib0 10.88.1.11`."""
    return ", ".join(f"{name} {' '.join(found)}" for name, found in _interfaces().items()) or "none but loopback"


def announced(folder: SessionFolder) -> list[str]:
    """The scheduler's addresses; none while it is not up."""
    told = _announcement(folder).get("addresses")
    return [str(address) for address in told] if isinstance(told, list) else []


def scheduler_versions(folder: SessionFolder) -> dict[str, str]:
    """What the scheduler runs on."""
    told = _announcement(folder).get("versions")
    return {str(name): str(version) for name, version in told.items()} if isinstance(told, dict) else {}


def _announcement(folder: SessionFolder) -> dict[str, Any]:
    try:
        told = json.loads(Path(folder.addresses).read_text(encoding="utf-8"))
    except (OSError, ValueError):  # not there yet
        return {}
    return told if isinstance(told, dict) else {}


def way_to(folder: SessionFolder, addresses: Sequence[str]) -> Way:
    """The first way that answers. Raises OSError that names what was tried."""

    def context() -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=folder.ca)
        context.check_hostname = False
        # Python 3.13 asks for key identifiers that a certificate of two parties who know each other does not need
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
        context.load_cert_chain(folder.certificate, folder.key)
        return context

    return way_among(addresses, context)


def way_among(addresses: Sequence[str], context: Callable[[], ssl.SSLContext]) -> Way:
    """The same, for whoever has the certificates elsewhere than in a session's folder."""
    targets = {address: _host_and_port(address) for address in addresses}
    if len(targets) == 1:
        # nothing to choose from, and Dask itself says best what is wrong with it
        ((address, target),) = targets.items()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.connect(target)
            return Way(address=address, host=probe.getsockname()[0])
    if way := _first_that_answers(targets, context()):
        return way
    raise OSError(
        f"none of the scheduler's addresses answers from {socket.gethostname()}: {', '.join(addresses)} "
        f"(networks here: {networks()})"
    )


def _first_that_answers(targets: dict[str, tuple[str, int]], context: ssl.SSLContext) -> Way | None:
    """The way to who proves to be the scheduler; one is tried shortly after the other, and none waits for another."""
    waiting = list(targets.items())
    next_try, deadline = 0.0, time.monotonic() + ANSWER_WITHIN_S
    with selectors.DefaultSelector() as selector:
        try:
            while (waiting or selector.get_map()) and (now := time.monotonic()) < deadline:
                if waiting and now >= next_try:
                    address, target = waiting.pop(0)
                    line = socket.socket()
                    line.setblocking(False)
                    if line.connect_ex(target) in (0, errno.EINPROGRESS):
                        selector.register(line, selectors.EVENT_WRITE, address)
                        next_try = now + HEAD_START_S
                    else:  # no route at all
                        line.close()
                for key, _ in selector.select(min(next_try, deadline) - now if waiting else deadline - now):
                    line = key.fileobj  # type: ignore[assignment]
                    selector.unregister(line)
                    wanted = selectors.EVENT_WRITE
                    try:
                        if isinstance(line, ssl.SSLSocket):
                            line.do_handshake()
                            with line:
                                return Way(address=key.data, host=str(line.getsockname()[0]))
                        if line.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                            raise ConnectionError
                        line = context.wrap_socket(line, do_handshake_on_connect=False)
                        next_try = now + GREETING_HEAD_START_S
                    except ssl.SSLWantReadError:
                        wanted = selectors.EVENT_READ
                    except ssl.SSLWantWriteError:
                        pass
                    except OSError:  # nobody, or somebody else, answers there
                        line.close()
                        next_try = 0.0
                        continue
                    selector.register(line, wanted, key.data)
        finally:
            for key in list(selector.get_map().values()):
                key.fileobj.close()  # type: ignore[union-attr]
    return None


def _host_and_port(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition("://")[2].rpartition(":")
    return host, int(port)


def wait_for_scheduler(folder: SessionFolder, wait_s: float) -> Iterator[list[str]]:
    """Looks again and again: an empty list for every look in vain, then the addresses; ends when it has waited enough.

    A session that is over has none any more.
    """
    deadline = time.time() + wait_s
    while time.time() < deadline and not Path(folder.over).exists():
        found = announced(folder)
        yield found
        if found:
            return
        time.sleep(0.2)
