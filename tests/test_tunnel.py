"""The tunnel's own decisions, over a login node of loopback sockets that can be cut, refused and moved.

At the end the same over real ones, from the little cluster's laptop.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import socket
import subprocess
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from fixtures import connection
from minihpc.cluster import Cluster
from waiting import until

from hpclab import tunnel
from hpclab.errors import (
    ConnectionLost,
    ForwardingRefused,
    HostKeyRefused,
    HpclabError,
    LoginFailed,
    NoSuchSession,
    RemoteUnfit,
    Unreachable,
)
from hpclab.hosts import LoginNode
from hpclab.tunnel import BEYOND, DIRECT, REVERSE, Notice, Tunnel

TOKEN, NEW_TOKEN = "5ec2e7" * 6, "a70cad" * 6
WITHIN_S = 20
BEAT_S = 0.1


class Answers(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        if not self.server.answering.wait(WITHIN_S):
            return
        found = self.path == "/api"
        body = json.dumps({"version": "2", "name": self.server.name} if found else {}).encode()
        self.send_response(200 if found else 403)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


class Server(ThreadingHTTPServer):
    """A little JupyterLab, or a dashboard: it says its name at /api."""

    daemon_threads = True

    def __init__(self, name: str) -> None:
        super().__init__(("127.0.0.1", 0), Answers)
        self.name = name
        self.answering = threading.Event()
        self.answering.set()
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()

    @property
    def port(self) -> int:
        return self.server_address[1]


@dataclass
class Site:
    """A login node and what stands behind it."""

    servers: list[Server] = field(default_factory=list)
    ports: dict[tuple[str, int], int] = field(default_factory=dict)
    """By machine and port: where it really is."""
    said: dict[str, Any] = field(default_factory=dict)
    watches: list[Watch] = field(default_factory=list)
    logins: list[Login] = field(default_factory=list)
    is_cut: bool = False
    """Nothing comes through any more, and nobody says so."""
    forbids: str = ""
    unreachable: Exception | None = None
    watch_fails: list[HpclabError] = field(default_factory=list)
    no_jump: HpclabError | None = None
    reversed_ports: tuple[int, int] | None = None
    asleep: Callable[[], None] | None = None
    """What happens in the middle of a watch's next wait."""

    def serve(self, machine: str, *ports: int) -> tuple[Server, ...]:
        new = tuple(Server(f"{machine}:{port}") for port in ports)
        self.servers += new
        self.ports |= {(machine, port): server.port for port, server in zip(ports, new, strict=True)}
        return new

    def session(self, state: str = "running", *, reason: str = "", token: str = TOKEN, **where: Any) -> None:
        """From now on it looks like this."""
        here = asdict(connection(**where)) if state in ("running", "unknown") else None
        self.said = {
            "name": "calm-otter",
            "state": state,
            "reason": reason,
            "connection": here,
            "jupyter_url": here and f"http://127.0.0.1:8888/lab?token={token}",
            "tunnel": ["ssh", "-N", "-L", "8888:node17:40002", "ada@login"],
        }
        for watch in self.watches:
            watch.messages.put({"session": self.said})

    def open_watch(self) -> Watch:
        if self.watch_fails:
            raise self.watch_fails.pop(0)
        self.watches.append(Watch(self))
        return self.watches[-1]

    def open_reverse(self) -> tuple[int, int]:
        if self.reversed_ports is None:
            raise Unreachable("the job cannot reach login: no key\nask for one")
        return self.reversed_ports

    def disconnect(self) -> None:
        """As when the sshd is killed."""
        for login in self.logins:
            login.is_connected = False
            login.cut_off()
        for watch in self.watches:
            watch.close()


class Watch:
    def __init__(self, site: Site) -> None:
        self.site = site
        self.is_closed, self.asked = False, 0
        self.messages: queue.Queue[dict[str, Any] | None] = queue.Queue()
        self.messages.put({"session": site.said})

    def next(self, timeout_s: float) -> dict[str, Any] | None:
        self.asked += 1
        asleep, self.site.asleep = self.site.asleep, None
        if asleep:
            asleep()
        try:
            message = self.messages.get(timeout=min(timeout_s, BEAT_S))
        except queue.Empty:
            return None if self.site.is_cut else {"beat": 1}
        if message is None:
            self.messages.put(None)
            raise ConnectionLost("the stream has ended")
        return message

    def close(self) -> None:
        self.is_closed = True
        self.messages.put(None)


class Forwarded:
    def __init__(self, login: Login, local_port: int, host: str, port: int) -> None:
        self.login, self.host, self.port, self.local_port = login, host, port, local_port
        self.refusal = ""
        self.sockets: list[socket.socket] = []
        self.listener: socket.socket | None = None
        self.listen()

    def listen(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", self.local_port))
        self.local_port = self.listener.getsockname()[1]
        threading.Thread(target=self._accept, args=(self.listener,), daemon=True).start()

    def unlisten(self) -> None:
        listener, self.listener = self.listener, None
        if listener:
            with suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
            listener.close()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                near, _ = listener.accept()
            except OSError:
                return
            self.sockets.append(near)
            if not self.login.site.is_cut:
                self._relay(near)

    def _relay(self, near: socket.socket) -> None:
        machine = self.login.machine if self.host == "127.0.0.1" else self.host
        real = self.login.site.ports.get((machine, self.port))
        self.refusal = self.login.site.forbids or ("" if real else "connect failed: Connection refused")
        if self.refusal or not self.login.is_connected:
            near.close()
            return
        far = socket.create_connection(("127.0.0.1", real))
        self.sockets.append(far)
        for source, target in ((near, far), (far, near)):
            threading.Thread(target=self._copy, args=(source, target), daemon=True).start()

    @staticmethod
    def _copy(source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)

    def cut_off(self) -> None:
        while self.sockets:
            each = self.sockets.pop()
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def close(self) -> None:
        self.unlisten()
        self.cut_off()
        if self in self.login.forwards:
            self.login.forwards.remove(self)


class Login:
    """A LoginNode without any SSH."""

    destination, means, address = "ada@login", "loopback", "127.0.0.1"

    def __init__(self, site: Site, machine: str = "login") -> None:
        self.site, self.machine = site, machine
        self.is_connected = False
        self.is_closed = False
        self.attempts = 0
        self.forwards: list[Forwarded] = []
        site.logins.append(self)

    def connect(self, *, timeout_s: float = 30) -> None:
        self.attempts += 1
        wrong = self.site.unreachable if self.machine == "login" else self.site.no_jump
        if wrong:
            raise wrong
        for forward in self.forwards:
            if forward.listener is None:
                forward.listen()
        self.is_connected = True

    def drop(self) -> None:
        self.is_connected = False
        self.cut_off()

    def cut_off(self) -> None:
        for forward in self.forwards:
            forward.cut_off()

    def start(self, argv: object, *, prologue: object = ()) -> Any:
        raise NotImplementedError

    def forward(self, local_port: int, host: str, port: int) -> Forwarded:
        if not self.is_connected:
            raise ConnectionLost("there is no connection")
        self.forwards.append(Forwarded(self, local_port, host, port))
        return self.forwards[-1]

    def beyond(self, node: str) -> LoginNode:
        return Login(self.site, node)

    def close(self) -> None:
        self.is_closed = True
        self.drop()
        for forward in list(self.forwards):
            forward.close()


class Holding:
    """Somebody who holds a tunnel and hears its notices, one by one."""

    def __init__(self, site: Site, **options: Any) -> None:
        self.site, self.login = site, Login(site)
        self.login.connect()
        self.tunnel = Tunnel(self.login, site.open_watch, **options)
        self.heard: queue.Queue[Notice | BaseException | None] = queue.Queue()
        self.thread = threading.Thread(target=self._hold, daemon=True)
        self.thread.start()

    def _hold(self) -> None:
        try:
            for notice in self.tunnel.hold():
                self.heard.put(notice)
            self.heard.put(None)
        except BaseException as error:
            self.heard.put(error)

    def hear(self, what: str) -> Notice:
        """The next notice, which must be of this sort."""
        notice = self.heard.get(timeout=WITHIN_S)
        assert isinstance(notice, Notice), notice
        assert notice.what == what, notice
        return notice

    def opens(self) -> Notice:
        """And is at rest."""
        opened = self.hear("opened")
        asked = self.site.watches[-1].asked
        until(lambda: self.site.watches[-1].asked > asked, within_s=WITHIN_S, what="the site to be asked again")
        return opened

    def ends(self) -> bool:
        return self.heard.get(timeout=WITHIN_S) is None

    def fails(self) -> HpclabError:
        error = self.heard.get(timeout=WITHIN_S)
        assert isinstance(error, HpclabError), error
        return error

    def is_silent(self) -> bool:
        return self.heard.empty()


@pytest.fixture(autouse=True)
def in_a_hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    times = {
        "SILENT_S": 0.5,
        "AWAKE_S": 0.3,
        "LISTEN_S": 0.2,
        "BACK_OFF_S": (0.01,),
        "OPEN_WITHIN_S": 0.2,
        "RETRY_S": 0.02,
        "SAME_PORT_WITHIN_S": 0.3,
    }
    for name, value in times.items():
        monkeypatch.setattr(tunnel, name, value)


@pytest.fixture
def site() -> Iterator[Site]:
    """Its session runs on node17."""
    here = Site()
    here.serve("node17", 40002, 40003)
    here.session()
    yield here
    here.disconnect()
    for server in here.servers:
        server.answering.set()
        server.shutdown()
        server.server_close()


@pytest.fixture
def hold(site: Site) -> Iterator[Callable[..., Holding]]:
    held = []

    def _hold(**options: Any) -> Holding:
        held.append(Holding(site, **{"ports": free_ports(), "open_reverse": site.open_reverse, **options}))
        return held[-1]

    yield _hold
    for each in held:
        each.tunnel.close()
        each.thread.join(WITHIN_S)
        assert not each.thread.is_alive()
        each.login.close()


def free_ports() -> tuple[int, int]:
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as other:
        return one.getsockname()[1], other.getsockname()[1]


def who_answers(port: int) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/api", timeout=WITHIN_S) as answer:
        return json.load(answer)["name"]


class TestOpening:
    def test_it_leads_to_both_servers_from_the_ports_that_are_wanted(self, hold):
        ports = free_ports()
        opened = hold(ports=ports).opens()
        assert (opened.jupyter_port, opened.dashboard_port) == ports
        assert [who_answers(port) for port in ports] == ["node17:40002", "node17:40003"]

    def test_its_links_open(self, hold):
        opened = hold(ports=(ports := free_ports())).opens()
        assert opened.described["jupyter_url"] == f"http://127.0.0.1:{ports[0]}/lab?token={TOKEN}"
        assert opened.described["dashboard_url"] == f"http://127.0.0.1:{ports[1]}/status?token={TOKEN}"

    def test_what_is_printed_of_a_notice_by_accident_has_no_token(self, hold):
        assert TOKEN not in repr(hold().opens())

    def test_it_opens_when_jupyterlab_answers_and_not_before(self, site, hold, monkeypatch):
        monkeypatch.setattr(tunnel, "OPEN_WITHIN_S", WITHIN_S)
        where = site.ports.pop(("node17", 40002))
        holding = hold()
        until(lambda: any(forward.refusal for forward in holding.login.forwards), within_s=WITHIN_S, what="a refusal")
        assert holding.is_silent()
        site.ports["node17", 40002] = where
        holding.opens()

    def test_a_dashboard_that_does_not_answer_is_told_and_no_more(self, site, hold):
        del site.ports["node17", 40003]
        holding = hold()
        holding.hear("opened")
        assert "refused" in holding.hear("dashboard").text

    def test_a_session_that_waits_is_waited_for(self, site, hold):
        site.session("queued", reason="Resources")
        holding = hold()
        assert "queued: Resources" in holding.hear("state").text
        site.session()
        holding.opens()

    def test_it_opens_also_while_the_batch_system_does_not_answer(self, site, hold):
        site.session("unknown", reason="squeue does not answer")
        holding = hold()
        assert "squeue does not answer" in holding.hear("state").text
        holding.opens()


class TestWays:
    def test_the_first_is_straight_to_the_node(self, hold):
        assert hold().opens().way == DIRECT

    def test_where_that_is_refused_it_goes_onto_the_node(self, site, hold):
        site.ports["node17 itself", 0] = 0
        site.ports = {("inner", port): real for (_, port), real in site.ports.items()}
        site.session(node="inner", job_id="1")
        holding = hold()
        assert "Connection refused" in holding.hear("way").text
        assert holding.opens().way == BEYOND

    def test_at_last_the_job_comes_back(self, site, hold):
        site.ports = {("login", 20000 + port): real for (_, port), real in site.ports.items()}
        site.reversed_ports = 60002, 60003
        site.no_jump = LoginFailed("Access denied: no active jobs on this node\nask")
        holding = hold()
        assert holding.hear("way").way == DIRECT
        assert "Access denied" in holding.hear("way").text
        assert holding.opens().way == REVERSE

    def test_a_server_on_the_nodes_loopback_is_never_looked_for_on_the_login_node(self, site, hold):
        site.serve("login", 40002, 40003)
        site.session(jupyter_host="127.0.0.1", dashboard_host="127.0.0.1")
        opened = hold(login_name=lambda: "login").opens()
        assert opened.way == BEYOND
        assert who_answers(opened.jupyter_port) == "node17:40002"

    def test_a_session_on_the_login_node_itself_is_found_there(self, site, hold):
        site.serve("login", 40002, 40003)
        site.session(node="login.site.org", jupyter_host="127.0.0.1", dashboard_host="127.0.0.1")
        assert hold(login_name=lambda: "login").opens().way == DIRECT

    def test_without_any_way_each_is_told_and_the_line_to_try_by_hand(self, site, hold):
        site.ports.clear()
        holding = hold()
        for _ in range(3):
            holding.hear("way")
        error = holding.fails()
        assert isinstance(error, ForwardingRefused)
        what, *ways, next_step = str(error).splitlines()
        assert what == "no way leads to calm-otter on node17"
        assert len(ways) == 3
        assert next_step == "the session goes on; to try by hand: ssh -N -L 8888:node17:40002 ada@login"

    def test_a_server_that_forbids_forwarding_is_said_to_and_not_asked_twice(self, site, hold):
        site.forbids = "open failed: administratively prohibited"
        holding = hold()
        assert [holding.hear("way").way, holding.hear("way").way] == [DIRECT, BEYOND]
        assert str(holding.fails()).startswith("ada@login forbids forwarding")

    def test_what_else_answers_is_not_taken_for_jupyterlab(self, site, hold):
        site.ports["node17", 40002] = socket_that_answers(site, b"HTTP/1.0 200 OK\r\n\r\nhello")
        assert "something else than JupyterLab" in hold().hear("way").text

    def test_a_session_that_ended_while_ways_were_tried_has_ended(self, site, hold):
        site.ports.clear()
        holding = hold()
        holding.hear("way")
        site.session("ended", reason="stopped")
        holding.hear("way")
        holding.hear("way")
        holding.hear("ended")
        assert holding.ends()

    def test_a_connection_that_died_while_ways_were_tried_is_not_a_refusal(self, site, hold, monkeypatch):
        monkeypatch.setattr(tunnel, "ANSWER_S", 0.1)
        site.is_cut = True
        site.no_jump = Unreachable("it does not speak")
        holding = hold()
        for _ in range(3):
            holding.hear("way")
        holding.hear("lost")
        site.is_cut = False
        holding.opens()


def socket_that_answers(site: Site, said: bytes) -> int:
    listener = socket.create_server(("127.0.0.1", 0))

    def _answer() -> None:
        with listener, suppress(OSError):
            while True:
                near, _ = listener.accept()
                with near:
                    near.recv(4096)
                    near.sendall(said)

    threading.Thread(target=_answer, daemon=True).start()
    return listener.getsockname()[1]


class TestLocalPorts:
    def test_the_next_one_is_taken_instead_of_a_taken_one_and_that_is_said(self, hold):
        with socket.create_server(("127.0.0.1", 0)) as taken:
            wanted = taken.getsockname()[1]
            holding = hold(ports=(wanted, free_ports()[1]))
            told = holding.hear("port").text
            opened = holding.opens()
        assert wanted < opened.jupyter_port
        assert told.startswith(f"port {wanted} of this machine is taken by ")
        assert f"(process {os.getpid()})" in told
        assert told.endswith(f"JupyterLab is at {opened.jupyter_port}")
        assert f":{opened.jupyter_port}/" in opened.described["jupyter_url"]

    def test_two_at_once_do_not_disturb_each_other(self, hold):
        ports = free_ports()
        first, second = hold(ports=ports), None
        first.opens()
        second = hold(ports=ports)
        second.hear("port")
        second.hear("port")
        opened = second.opens()
        assert not {opened.jupyter_port, opened.dashboard_port} & set(ports)
        assert who_answers(opened.jupyter_port) == who_answers(ports[0]) == "node17:40002"

    def test_nobody_but_this_machine_can_use_them(self, hold):
        holding = hold()
        holding.opens()
        assert {forward.listener.getsockname()[0] for forward in holding.login.forwards} == {"127.0.0.1"}

    def test_they_are_the_same_after_a_loss(self, site, hold):
        holding = hold(ports=(ports := free_ports()))
        holding.opens()
        site.disconnect()
        holding.hear("lost")
        again = holding.hear("reopened")
        assert (again.jupyter_port, again.dashboard_port) == ports
        assert [who_answers(port) for port in ports] == ["node17:40002", "node17:40003"]

    def test_those_of_a_session_that_is_put_back_into_the_queue_are_left_at_once(self, site, hold):
        holding = hold(ports=(ports := free_ports()))
        holding.opens()
        site.session("queued", reason="put back into the queue")
        holding.hear("state")
        # on its former node anybody may listen now
        until(lambda: refused(ports[0]), within_s=WITHIN_S, what="the port to be closed")


def refused(port: int) -> bool:
    with socket.socket() as sock:
        return sock.connect_ex(("127.0.0.1", port)) != 0


class TestLosses:
    def test_a_connection_that_is_closed_comes_back(self, site, hold):
        holding = hold()
        holding.opens()
        site.disconnect()
        assert "the connection to ada@login is lost" in holding.hear("lost").text
        assert holding.hear("reopened").text.startswith("the tunnel is open again, after ")

    def test_a_silent_one_is_noticed_too(self, site, hold):
        holding = hold()
        holding.opens()
        site.is_cut = True
        assert "no sign of life for" in holding.hear("lost").text
        site.is_cut = False
        who_answers(holding.hear("reopened").jupyter_port)

    def test_it_tries_until_it_comes_back_and_says_why_not_once(self, site, hold):
        holding = hold()
        holding.opens()
        site.unreachable = Unreachable("login does not answer\nwait")
        site.disconnect()
        holding.hear("lost")
        assert "login does not answer; still trying" in holding.hear("trying").text
        attempts = holding.login.attempts
        until(lambda: holding.login.attempts > attempts + 5, within_s=WITHIN_S, what="six more attempts")
        assert holding.is_silent()
        site.unreachable = None
        holding.hear("reopened")

    @pytest.mark.parametrize("error", [LoginFailed("three times"), HostKeyRefused("another key")])
    def test_who_is_not_let_in_again_stops(self, site, hold, error):
        holding = hold()
        holding.opens()
        site.unreachable = error
        site.disconnect()
        holding.hear("lost")
        assert holding.fails() is error

    def test_who_is_not_let_in_for_a_while_waits(self, site, hold):
        holding = hold()
        holding.opens()
        site.unreachable = LoginFailed("login does not let ada in\nit said: System is booting up. Unprivileged users …")
        site.disconnect()
        holding.hear("lost")
        assert "does not let ada in; still trying" in holding.hear("trying").text
        site.unreachable = None
        holding.hear("reopened")

    def test_a_login_node_that_is_still_coming_up_gets_its_time(self, site, hold):
        holding = hold()
        holding.opens()
        site.watch_fails = [RemoteUnfit("there is no hpclab on login\ninstall it"), ConnectionLost("gone")]
        site.disconnect()
        holding.hear("lost")
        assert "no hpclab" in holding.hear("trying").text
        assert "gone" in holding.hear("trying").text
        holding.hear("reopened")

    def test_a_session_that_is_not_there_any_more_ends_it(self, site, hold):
        holding = hold()
        holding.opens()
        site.watch_fails = [NoSuchSession("there is no calm-otter")]
        site.disconnect()
        holding.hear("lost")
        assert isinstance(holding.fails(), NoSuchSession)

    def test_where_only_the_watch_has_died_nobody_logs_in_again(self, site, hold, monkeypatch):
        monkeypatch.setattr(tunnel, "FIRST_WORD_S", 0)
        holding = hold()
        holding.opens()
        site.watches[0].close()
        until(lambda: len(site.watches) == 2, within_s=WITHIN_S, what="a second watch")
        site.session("ended", reason="stopped")
        holding.hear("ended")
        assert holding.login.attempts == 1

    def test_the_way_onto_the_node_comes_back_with_it(self, site, hold):
        site.session(jupyter_host="127.0.0.1", dashboard_host="127.0.0.1")
        holding = hold(login_name=lambda: "login")
        holding.opens()
        site.disconnect()
        holding.hear("lost")
        again = holding.hear("reopened")
        assert again.way == BEYOND
        assert who_answers(again.jupyter_port) == "node17:40002"

    def test_the_way_back_from_the_job_is_asked_for_again(self, site, hold):
        holding, real = opened_by_the_way_back(site, hold)
        lead_back(site, real, 30000)
        site.disconnect()
        holding.hear("lost")
        again = holding.hear("reopened")
        assert again.way == REVERSE
        assert who_answers(again.jupyter_port) == "node17:40002"


def lead_back(site: Site, real: dict[tuple[str, int], int], offset: int) -> None:
    """The job has brought its ports to the login node, and nothing else leads to them."""
    site.ports = {("login", offset + port): at for (_, port), at in real.items()}
    site.reversed_ports = offset + 40002, offset + 40003


def opened_by_the_way_back(site: Site, hold: Callable[..., Holding]) -> tuple[Holding, dict[tuple[str, int], int]]:
    """The two other ways have failed; and where the ports really are."""
    real = site.ports
    lead_back(site, real, 20000)
    site.no_jump = LoginFailed("denied")
    holding = hold()
    holding.hear("way")
    holding.hear("way")
    holding.opens()
    return holding, real


class TestSleep:
    def test_after_one_a_dead_connection_gets_little_time(self, site, hold, monkeypatch):
        monkeypatch.setattr(tunnel, "SILENT_S", 10 * WITHIN_S)
        clock = Clock()
        holding = hold(clock=clock)
        holding.opens()
        site.is_cut = True
        site.asleep = lambda: clock.sleep(25.5 * 60)
        assert "this machine woke up after 25 min" in holding.hear("lost").text
        site.is_cut = False
        holding.hear("reopened")

    def test_after_one_a_living_connection_goes_on(self, site, hold, monkeypatch):
        holding = hold(clock=(clock := Clock()))
        holding.opens()
        site.asleep = lambda: clock.sleep(25.5 * 60)
        until(lambda: clock.ahead_s, within_s=WITHIN_S, what="the clock to go on")
        site.session("unknown", reason="squeue does not answer")
        holding.hear("state")
        asked = clock.asked
        until(lambda: clock.asked > asked + 10, within_s=WITHIN_S, what="the clock to be asked ten times")
        assert holding.is_silent()


class Clock:
    """This machine's, which goes on while it sleeps."""

    def __init__(self) -> None:
        self.ahead_s, self.asked = 0.0, 0

    def __call__(self) -> float:
        self.asked += 1
        return time.time() + self.ahead_s

    def sleep(self, seconds: float) -> None:
        self.ahead_s += seconds


class TestMoves:
    def test_to_another_node_and_port_with_the_same_local_ports(self, site, hold):
        holding = hold(ports=(ports := free_ports()))
        holding.opens()
        site.session("queued", reason="put back into the queue by the batch system")
        assert "put back into the queue" in holding.hear("state").text
        site.serve("node18", 50002, 50003)
        where = {"jupyter_host": "node18", "dashboard_host": "node18", "jupyter_port": 50002, "dashboard_port": 50003}
        site.session(token=NEW_TOKEN, node="node18", **where)
        moved = holding.hear("moved")
        assert (moved.jupyter_port, moved.dashboard_port) == ports
        assert moved.described["jupyter_url"].endswith(NEW_TOKEN)
        assert [who_answers(port) for port in ports] == ["node18:50002", "node18:50003"]

    def test_also_while_there_was_no_connection(self, site, hold):
        holding = hold()
        holding.opens()
        site.unreachable = Unreachable("no route")
        site.disconnect()
        holding.hear("lost")
        holding.hear("trying")
        site.serve("node18", 50002, 50003)
        where = {"jupyter_host": "node18", "dashboard_host": "node18", "jupyter_port": 50002, "dashboard_port": 50003}
        site.session(node="node18", **where)
        site.unreachable = None
        moved = holding.hear("moved")
        assert moved.text.startswith("the session is on node18 now, after ")
        assert who_answers(moved.jupyter_port) == "node18:50002"

    def test_what_has_become_of_it_meanwhile_is_told(self, site, hold):
        holding = hold()
        holding.opens()
        site.unreachable = Unreachable("no route")
        site.disconnect()
        holding.hear("lost")
        holding.hear("trying")
        site.session("queued", reason="put back into the queue")
        site.unreachable = None
        assert "connected again after" in (told := holding.hear("connected").text)
        assert told.endswith("calm-otter is queued: put back into the queue")


class TestTheEnd:
    @pytest.mark.parametrize(("state", "told"), [("ended", "has ended: stopped"), ("failed", "has failed: stopped")])
    def test_of_the_session_is_the_tunnels_with_the_reason(self, site, hold, state, told):
        holding = hold(ports=(ports := free_ports()))
        holding.opens()
        site.session(state, reason="stopped")
        assert told in holding.hear("ended").text
        assert holding.ends()
        assert_free(ports)

    def test_is_noticed_also_when_it_came_while_there_was_no_connection(self, site, hold):
        holding = hold()
        holding.opens()
        site.unreachable = Unreachable("no route")
        site.disconnect()
        holding.hear("lost")
        holding.hear("trying")
        site.session("ended", reason="its walltime is over")
        site.unreachable = None
        assert "its walltime is over" in holding.hear("ended").text
        assert holding.ends()

    @pytest.mark.parametrize("when", ["held", "away", "cut"])
    def test_by_close_is_quick_and_complete(self, site, hold, when):
        holding = hold(ports=(ports := free_ports()))
        holding.opens()
        if when == "away":
            site.unreachable = Unreachable("no route")
            site.disconnect()
            holding.hear("lost")
        site.is_cut = when == "cut"
        begin = time.monotonic()
        holding.tunnel.close()
        holding.tunnel.close()
        assert time.monotonic() - begin < 2
        while holding.heard.get(timeout=WITHIN_S) is not None:
            pass
        assert_free(ports)
        assert all(watch.is_closed for watch in site.watches)

    def test_leaves_the_connection_to_who_made_it(self, hold):
        holding = hold()
        holding.opens()
        holding.tunnel.close()
        assert holding.ends()
        assert holding.login.is_connected

    def test_by_close_is_quick_also_where_something_hangs(self, site, hold, monkeypatch):
        hanging = threading.Event()
        holding = hold()
        holding.opens()
        monkeypatch.setattr(site.watches[0], "close", lambda: hanging.wait(WITHIN_S))
        begin = time.monotonic()
        holding.tunnel.close()
        assert time.monotonic() - begin < 2
        hanging.set()

    def test_by_ctrl_c_passes_through(self, site):
        login = Login(site)
        login.connect()
        held = Tunnel(login, lambda: Interrupted(site), ports=(ports := free_ports()))
        notices = held.hold()
        assert next(notices).what == "opened"
        with pytest.raises(KeyboardInterrupt):
            next(notices)
        assert_free(ports)

    @pytest.mark.parametrize("when", ["held", "away"])
    def test_by_close_in_a_signal_handler_is_as_good(self, site, monkeypatch, when):
        monkeypatch.setattr(tunnel, "BACK_OFF_S", (10 * WITHIN_S,))
        login = Login(site)
        login.connect()
        held = Tunnel(login, site.open_watch, ports=free_ports())
        before = signal.signal(signal.SIGUSR1, lambda *_: held.close())
        try:
            for notice in held.hold():
                if notice.what == "opened" and when == "held":
                    site.asleep = lambda: signal.raise_signal(signal.SIGUSR1)
                elif notice.what == "opened":
                    site.disconnect()
                else:
                    assert notice.what == "lost"
                    threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGUSR1)).start()
        finally:
            signal.signal(signal.SIGUSR1, before)

    def test_takes_its_thread_along(self, hold):
        holding = hold()
        holding.opens()
        holding.tunnel.close()
        assert holding.ends()
        until(
            lambda: not any(thread.name == "hpclab-tunnel-close" for thread in threading.enumerate()),
            within_s=WITHIN_S,
            what="the closing threads to end",
        )


class Interrupted(Watch):
    def next(self, timeout_s: float) -> dict[str, Any] | None:
        message = super().next(timeout_s)
        if message and "beat" in message:
            raise KeyboardInterrupt
        return message


def assert_free(ports: tuple[int, int]) -> None:
    for port in ports:
        socket.create_server(("127.0.0.1", port)).close()


class TestSilentJupyterLab:
    @pytest.fixture(autouse=True)
    def looked_at_often(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for name, value in {"CHECK_EVERY_S": 0.01, "DOUBT_S": 0.01, "ANSWER_S": 0.5}.items():
            monkeypatch.setattr(tunnel, name, value)

    def test_is_told_once_and_so_is_its_return(self, site, hold):
        monkey = site.servers[0].answering
        holding = hold()
        holding.opens()
        monkey.clear()
        assert "JupyterLab does not answer any more" in holding.hear("quiet").text
        begin = holding.login.attempts
        monkey.set()
        holding.hear("answers")
        assert holding.login.attempts == begin

    def test_does_not_end_a_tunnel_that_comes_back(self, site, hold):
        holding = hold()
        holding.opens()
        site.servers[0].answering.clear()
        holding.hear("quiet")
        site.disconnect()
        holding.hear("lost")
        while (notice := holding.heard.get(timeout=WITHIN_S)).what == "way":
            pass
        assert notice.what == "reopened"
        assert notice.text.endswith("but JupyterLab does not answer through it")
        site.servers[0].answering.set()
        holding.hear("answers")
        assert who_answers(notice.jupyter_port) == "node17:40002"

    def test_is_sought_again_where_only_the_way_back_has_died(self, site, hold):
        holding, real = opened_by_the_way_back(site, hold)
        lead_back(site, real, 30000)
        until(
            lambda: {forward.port for forward in holding.login.forwards} == {70002, 70003},
            within_s=WITHIN_S,
            what="the new forwards",
        )
        assert who_answers(holding.login.forwards[0].local_port) == "node17:40002"

    def test_is_sought_again_where_only_the_connection_to_the_node_has_died(self, site, hold):
        site.session(jupyter_host="127.0.0.1", dashboard_host="127.0.0.1")
        holding = hold(login_name=lambda: "login")
        opened = holding.opens()
        node = site.logins[-1]
        node.drop()
        until(lambda: node.is_connected, within_s=WITHIN_S, what="the node to be connected")
        assert who_answers(opened.jupyter_port) == "node17:40002"
        assert holding.is_silent()


# over ssh

SERVER = """
import json, threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
class Answers(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps({"version": "2"}).encode())
dashboard = ThreadingHTTPServer(("HOST", 40003), Answers)
threading.Thread(target=dashboard.serve_forever, daemon=True).start()
with ThreadingHTTPServer(("HOST", 40002), Answers) as server:
    print("up", flush=True)
    server.serve_forever()
"""
AGENT = """
import itertools, json, time
told = ""
for number in itertools.count():
    with open("session.json") as file:
        said = file.read()
    if said != told:
        print(told := said, flush=True)
    print(json.dumps({"beat": number}), flush=True)
    time.sleep(0.2)
"""
HOLDER = """
import json, sys
from dataclasses import asdict
from hpclab import tunnel
from hpclab.errors import HpclabError
from hpclab.login import login_node, means
from hpclab.remote import Answers
_, means_name, python, agent = sys.argv
tunnel.SILENT_S, tunnel.BACK_OFF_S, tunnel.CONNECT_S = 3, (0.5,), 3
login = login_node(means("login", means_name), folder="/tmp/ssh", ask=None, tell=lambda text: None)
login.connect()
open_watch = lambda: Answers(login.start([python, "-c", agent]))
try:
    for notice in tunnel.Tunnel(login, open_watch, login_name=lambda: "login").hold():
        print(json.dumps(asdict(notice)), flush=True)
except HpclabError as error:
    print(json.dumps({"what": type(error).__name__, "text": str(error)}), flush=True)
finally:
    login.close()
"""


@dataclass
class Laptop:
    """It holds a tunnel to a session whose servers are on node1."""

    cluster: Cluster
    programs: list[subprocess.Popen[str]] = field(default_factory=list)
    heard: queue.Queue[dict[str, Any]] = field(default_factory=queue.Queue)

    def session(self, **where: Any) -> None:
        site = Site()
        site.session(node="node1", jupyter_port=40002, dashboard_port=40003, **where)
        path = self.cluster.on("login").file("/home/ada/session.json")
        path.with_suffix(".new").write_text(json.dumps({"session": site.said}))
        path.with_suffix(".new").rename(path)

    def serve(self, address: str) -> None:
        server = self._popen("node1", "-c", SERVER.replace("HOST", address))
        assert server.stdout
        assert server.stdout.readline() == "up\n"

    def hold(self, means: str) -> None:
        holder = self._popen("laptop", "-c", HOLDER, means, str(self.cluster.python), AGENT)
        assert holder.stdout
        for line in iter(holder.stdout.readline, ""):
            self.heard.put(json.loads(line))

    def _popen(self, host: str, *args: str) -> subprocess.Popen[str]:
        program = self.cluster.on(host).popen([str(self.cluster.python), *args], stdout=subprocess.PIPE)
        self.programs.append(program)
        return program

    def hear(self, what: str) -> dict[str, Any]:
        """The next notice, apart from those of what has not worked yet."""
        while (notice := self.heard.get(timeout=2 * WITHIN_S))["what"] == "trying":
            pass
        assert notice["what"] == what, notice
        return notice

    def sees_both(self) -> bool:
        """At the ports that everybody expects."""
        for port in (8888, 8787):
            ask = f"import urllib.request as r; print(r.urlopen('http://127.0.0.1:{port}/api', timeout=20).read())"
            assert "version" in self.cluster.on("laptop").says([str(self.cluster.python), "-c", ask])
        return True


@pytest.fixture
def laptop(a_bare_cluster: Cluster) -> Iterator[Callable[..., Laptop]]:
    """laptop("paramiko", bind=ADDRESS, …) holds a tunnel to servers on that address of node1."""
    made = Laptop(a_bare_cluster)
    threads = []

    def _laptop(means: str, *, bind: str = "0.0.0.0", **where: Any) -> Laptop:
        made.session(**{"jupyter_host": "node1", "dashboard_host": "node1", **where})
        made.serve(bind)
        threads.append(threading.Thread(target=made.hold, args=(means,), daemon=True))
        threads[0].start()
        return made

    yield _laptop
    for program in made.programs:
        program.terminate()
    for program in made.programs:
        program.wait(WITHIN_S)
    for thread in threads:
        thread.join(WITHIN_S)


@pytest.mark.parametrize("means", ["paramiko", "openssh"])
class TestOverSsh:
    def test_it_survives_the_end_of_the_sshd_and_of_the_network(self, a_bare_cluster, laptop, means):
        here, login = laptop(means), a_bare_cluster.on("login", user="root")
        assert here.hear("opened")["way"] == DIRECT
        assert here.sees_both()
        a_bare_cluster.service("login", "kill", "sshd")
        login.run("kill -KILL $(pgrep -u ada -x sshd)")
        here.hear("lost")
        a_bare_cluster.service("login", "start", "sshd")
        here.hear("reopened")
        assert here.sees_both()
        login.cut("ext0")
        assert "no sign of life" in here.hear("lost")["text"]
        login.mend("ext0")
        here.hear("reopened")
        assert here.sees_both()
        here.session(state="ended", reason="stopped")
        assert here.hear("ended")["text"] == "calm-otter has ended: stopped"

    def test_it_goes_onto_the_node_where_nothing_else_leads_there(self, laptop, means):
        here = laptop(means, bind="127.0.0.1", jupyter_host="127.0.0.1", dashboard_host="127.0.0.1")
        assert here.hear("opened")["way"] == BEYOND
        assert here.sees_both()

    def test_a_server_that_forbids_forwarding_says_so(self, a_bare_cluster, laptop, means):
        settings = a_bare_cluster.on("login").file("/etc/ssh/sshd_config")
        before = settings.read_text()
        settings.write_text(f"{before}\nAllowTcpForwarding no\n")
        a_bare_cluster.service("login", "restart", "sshd")
        try:
            here = laptop(means)
            assert "prohibited" in here.hear("way")["text"]
            here.hear("way")
            assert here.hear("ForwardingRefused")["text"].startswith("login forbids forwarding")
        finally:
            settings.write_text(before)
            a_bare_cluster.service("login", "restart", "sshd")
