"""A login node over paramiko: nothing but Python, so it works where the user's ssh would not do."""

from __future__ import annotations

import io
import logging
import os
import re
import shlex
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, cast

from hpclab import knownhosts
from hpclab.authentication import TRIES, Authentication, Memory, Words, words_of
from hpclab.errors import (
    ConfigError,
    ConnectionLost,
    HostKeyRefused,
    HpclabError,
    LoginFailed,
    RemoteUnfit,
    TookTooLong,
    Unreachable,
)
from hpclab.hosts import Ask, Forward, LoginNode, RemoteProcess
from hpclab.ownoutput import OwnOutput, unfit
from hpclab.pump import RECONNECT_S, LocalPort
from hpclab.shell import new_mark, printable, remote_command
from hpclab.sshconfig import SshConfig, check_destination, parse

if TYPE_CHECKING:
    import paramiko

WINDOW = 1 << 24
"""What may be under way on a channel: a slow reader holds back its own stream, and no other."""
PACKET = 1 << 18
CIPHERS = ("aes128-gcm@openssh.com", "aes256-gcm@openssh.com")
"""The fastest first; paramiko has them last."""
ALIVE_S = 5
UNACKNOWLEDGED_MS = 15_000
ANSWER_S = 30
"""For the server to open a channel."""
QUICKACK: int | None = getattr(socket, "TCP_QUICKACK", None)


class ParamikoLogin:
    """See LoginNode."""

    means = "paramiko"

    def __init__(
        self,
        config: SshConfig,
        *,
        ask: Ask,
        tell: Callable[[str], None],
        resolve: Callable[[str], SshConfig],
        address: str = "",
        node_known_hosts: str = "",
    ) -> None:
        """`resolve` gives the settings of a jump host; keys of nodes are noted in the file `node_known_hosts`."""
        self.destination = config.destination
        self._config = config
        self._ask, self._tell, self._resolve = ask, tell, resolve
        self._node_known_hosts = node_known_hosts
        self._address = address
        self._memory = Memory()
        self._words = Words()
        self._via: ParamikoLogin | None = None
        self._owns_via = False
        self._hops: tuple[str, ...] = ()
        self._transport: paramiko.Transport | None = None
        self._opened: list[Callable[[], None]] = []
        self._forwards: list[ParamikoForward] = []
        self._connecting = threading.RLock()
        self._changed = threading.Condition()

    @property
    def address(self) -> str:
        return self._address

    @property
    def is_connected(self) -> bool:
        transport = self._transport
        return transport is not None and transport.is_active() and transport.is_authenticated()

    def connect(self, *, timeout_s: float = 30) -> None:
        logging.getLogger("paramiko").setLevel(logging.CRITICAL + 1)
        with self._connecting:
            if self.is_connected:
                return
            self._hang_up()  # a jump host may be alive, and have asked for a code
            try:
                transport = self._greet(*self._reach(timeout_s))
                self._check_host_key(transport)
                Authentication(
                    self._config, transport, self._words, self._memory, self._ask, self._tell, timeout_s
                ).log_in()
            except BaseException:
                self.drop()
                raise
            transport.set_keepalive(self._config.alive_interval_s or ALIVE_S)
            with self._changed:
                self._transport = transport
                self._changed.notify_all()

    def drop(self) -> None:
        self._transport = None
        if self._via and self._owns_via:  # what goes through a dead connection would wait for it
            self._via.drop()
        self._hang_up()

    def _hang_up(self) -> None:
        while self._opened:
            with suppress(Exception):  # what it goes through may be gone
                self._opened.pop()()

    def close(self) -> None:
        for forward in list(self._forwards):
            forward.close()
        transport = self._transport
        if self._via and self._owns_via:
            self._via.close()
        self.drop()
        if transport is not None:
            transport.join(5)

    def start(self, argv: Sequence[str], *, prologue: Sequence[str] = ()) -> RemoteProcess:
        import paramiko

        mark = new_mark()
        try:
            channel = self._live_transport().open_session(WINDOW, PACKET, timeout=ANSWER_S)
            channel.exec_command(remote_command(argv, mark, prologue=prologue))
        except (paramiko.SSHException, EOFError, OSError) as error:
            if not self.is_connected:
                raise self._lost() from error
            raise RemoteUnfit(
                f"{self.destination} does not run commands for us\n  it said: {self.refusal_of(error)}\n"
                f"try `ssh {shlex.quote(self.destination)} true`"
            ) from error
        return ParamikoProcess(self.destination, channel, mark)

    def forward(self, local_port: int, host: str, port: int) -> Forward:
        forward = ParamikoForward(self, local_port, host, port)
        self._forwards.append(forward)
        return forward

    def beyond(self, node: str) -> LoginNode:
        """Its `drop` leaves the connection to this login node open."""
        config = replace(
            self._config,
            destination=node,
            hostname=node,
            port=22,
            proxy_jump=(),
            proxy_command="",
            host_key_alias="",
            # nodes are installed anew and numbered alike everywhere: they have a file of their own
            known_hosts=(self._node_known_hosts,) if self._node_known_hosts else (),
            global_known_hosts=(),
            strict_host_key_checking="accept-new",
        )
        return self._through(config, self, is_ours=False)

    def refusal_of(self, error: BaseException) -> str:
        """Why a channel was not opened, in the server's words if it had any."""
        import paramiko

        return (isinstance(error, paramiko.ChannelException) and self._words.refusal) or words_of(error)

    def wait_for_transport(self, deadline: float, is_wanted: Callable[[], bool]) -> paramiko.Transport | None:
        """The open connection, waiting for `connect` until then; None: there is none, or it is not wanted any more."""
        with self._changed:
            while is_wanted():
                if self.is_connected:
                    return self._transport
                # a connection may also end without a word to us
                if not self._changed.wait(min(1.0, deadline - time.monotonic())) and time.monotonic() >= deadline:
                    break
        return None

    def forget(self, forward: ParamikoForward) -> None:
        with self._changed:
            self._changed.notify_all()
            if forward in self._forwards:
                self._forwards.remove(forward)

    def _live_transport(self) -> paramiko.Transport:
        transport = self._transport
        if transport is None or not transport.is_active():
            raise self._lost()
        return transport

    def _lost(self) -> ConnectionLost:
        return ConnectionLost(f"the connection to {self.destination} is gone\ntry again")

    # on the way to an open connection

    def _through(self, config: SshConfig, via: ParamikoLogin | None, *, is_ours: bool) -> ParamikoLogin:
        login = ParamikoLogin(
            config,
            ask=self._ask,
            tell=self._tell,
            resolve=self._resolve,
            node_known_hosts=self._node_known_hosts,
        )
        login._via, login._owns_via = via, is_ours
        login._memory.keys = self._memory.keys
        login._hops = (*self._hops, self.destination)
        return login

    def _jump_host(self) -> ParamikoLogin:
        """The last one; those before it are its own jump hosts."""
        *before, last = self._config.proxy_jump
        config = self._resolve(f"ssh://{last}" if re.search(r":\d+$", last) and "//" not in last else last)
        if before:
            config = replace(config, proxy_jump=tuple(before), proxy_command="")
        if len(self._hops) > 10 or (config.hostname, config.port) == (self._config.hostname, self._config.port):
            raise ConfigError(
                f"{self.destination} is reached through {last}, and so round and round\n"
                f"write `ProxyJump none` for {last} into your ~/.ssh/config"
            )
        return self._through(config, None, is_ours=True)

    def _reach(self, timeout_s: float) -> tuple[Any, float]:
        """A socket, or what is like one, and until when the sshd must have spoken."""
        limit_s = min(timeout_s, self._config.connect_timeout_s or timeout_s)
        if self._config.proxy_jump and not self._via:
            self._via, self._owns_via = self._jump_host(), True
        if self._via:
            self._via.connect(timeout_s=timeout_s)  # it may ask the user, whose time does not count
        deadline = time.monotonic() + limit_s
        if self._via:
            return self._reach_through(self._via, limit_s), deadline
        if self._config.proxy_command:
            return self._reach_by_command(), deadline
        return self._reach_directly(deadline), deadline

    def _reach_through(self, via: ParamikoLogin, limit_s: float) -> Any:
        import paramiko

        try:
            channel: Any = _channel(via._live_transport(), self._config.hostname, self._config.port, limit_s)
        except (paramiko.SSHException, EOFError, OSError) as error:
            raise self._unreachable(f"{via.destination} says: {via.refusal_of(error)}") from error
        close = channel.close

        def close_quietly() -> None:
            with suppress(Exception):  # `via` may be gone; paramiko's thread would print a traceback
                close()

        channel.close = close_quietly
        return channel

    def _reach_by_command(self) -> socket.socket:
        if os.name == "nt":  # where a process cannot have a socket for its streams
            raise ConfigError(
                f'{self.destination} has a ProxyCommand in your ssh settings\nset `ssh = "openssh"` in your config.toml'
            )
        ours, theirs = socket.socketpair()
        said = tempfile.TemporaryFile()
        with theirs:
            command = f"exec {self._config.proxy_command}"
            process = subprocess.Popen(
                ["sh", "-c", command],
                stdin=theirs.fileno(),
                stdout=theirs.fileno(),
                stderr=said,
                start_new_session=True,
            )

        def end() -> None:
            ours.close()
            process.kill()
            process.wait()
            said.close()

        self._opened.append(end)
        self._proxy_words: Any = said
        return ours

    def _reach_directly(self, deadline: float) -> socket.socket:
        host, port = self._address or self._config.hostname, self._config.port
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            raise self._unreachable(f"{host}: {words_of(error)}") from error
        failures = []
        for number, (family, kind, protocol, _, address) in enumerate(found):
            sock = _PromptSocket(family, kind, protocol)
            self._opened.append(sock.close)
            try:
                # each has its share of the time
                sock.settimeout(max(0.1, (deadline - time.monotonic()) / (len(found) - number)))
                sock.connect(address)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
                # Linux gives up what was not acknowledged for so long, and paramiko's keepalives are not
                if hasattr(socket, "TCP_USER_TIMEOUT"):
                    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, UNACKNOWLEDGED_MS)
                self._address = str(address[0])
            except OSError as error:
                sock.close()
                failures.append(f"{address[0]} port {port}: {words_of(error)}")
            else:
                return sock
        raise self._unreachable(*failures)

    def _greet(self, sock: Any, deadline: float) -> paramiko.Transport:
        """Versions and keys are exchanged; who is over there has not been looked at yet."""
        import paramiko
        from paramiko.ssh_exception import IncompatiblePeer

        left_s = max(0.1, deadline - time.monotonic())
        transport = paramiko.Transport(sock, default_window_size=WINDOW, default_max_packet_size=PACKET)
        self._opened.append(lambda: _end(transport, sock))
        # one limit is enough
        transport.banner_timeout = transport.handshake_timeout = left_s + 1
        self._words = Words()
        transport.logger = logging.Logger("paramiko.transport", logging.INFO)
        transport.logger.addHandler(self._words)
        options = transport.get_security_options()
        fast = [name for name in CIPHERS if name in options.ciphers]
        options.ciphers = [*fast, *(name for name in options.ciphers if name not in fast)]
        options.key_types = knownhosts.algorithms_first(self._known_keys(), list(options.key_types))
        try:
            transport.start_client(timeout=left_s)
            transport.get_remote_server_key()  # or there was no answer in time
        except IncompatiblePeer as error:
            raise self._unreachable(words_of(error), next_step='try `ssh = "openssh"` in your config.toml') from error
        except (paramiko.SSHException, EOFError, OSError) as error:
            said = self._proxy_said()
            what = words_of(error)
            if time.monotonic() >= deadline:
                what = f"the connection is accepted, but there was no word for {left_s:.0f} s"
            raise self._unreachable(*said, what) from error
        return transport

    def _proxy_said(self) -> list[str]:
        if not self._config.proxy_command:
            return []
        self._proxy_words.seek(0)
        said = self._proxy_words.read().decode(errors="replace").splitlines()[-5:]
        return [f"ProxyCommand: {self._config.proxy_command}", *(printable(line) for line in said)]

    def _unreachable(self, *evidence: str, next_step: str = "") -> Unreachable:
        lines = "".join(f"  {line}\n" for line in evidence)
        next_step = (
            next_step or f"check the name and the network (a VPN?), or try `ssh {shlex.quote(self.destination)}`"
        )
        return Unreachable(f"{self.destination} cannot be reached\n{lines}{next_step}")

    # the host key

    @property
    def _known_name(self) -> str:
        alias = self._config.host_key_alias
        return alias.lower() if alias else knownhosts.name_of(self._config.hostname, self._config.port)

    def _known_keys(self) -> list[knownhosts.KnownKey]:
        known = []
        for file in (*self._config.known_hosts, *self._config.global_known_hosts):
            with suppress(OSError):  # mostly there is no such file
                text = Path(file).expanduser().read_text(encoding="utf-8", errors="replace")
                known += knownhosts.known_keys(text, file, self._known_name)
        return known

    def _check_host_key(self, transport: paramiko.Transport) -> None:
        key = transport.get_remote_server_key()
        type, text = key.get_name(), key.get_base64()
        shown = f"{type} {knownhosts.fingerprint(text)}"
        known = self._known_keys()
        for line in known:
            if line.is_revoked and line.key == text:
                raise HostKeyRefused(
                    f"the host key of {self.destination} is revoked\n  it has: {shown}\n  revoked in: {line.place}\n"
                    "somebody may have stolen that key: ask the people who run the machine"
                )
        valid = [line for line in known if not line.is_revoked]
        if any(line.key == text for line in valid):
            return
        if valid:
            expected = next((line for line in valid if line.type == type), valid[0])
            remove = shlex.join(["ssh-keygen", "-R", self._known_name, "-f", expected.file])
            raise HostKeyRefused(
                f"{self.destination} has another host key than it had\n"
                f"  it has:  {shown}\n"
                f"  it had:  {expected.type} {knownhosts.fingerprint(expected.key)}\n"
                f"  as noted in: {expected.place}\n"
                "somebody may be listening in: ask the people who run the machine. If the new key is right:\n"
                f"{remove}"
            )
        self._confirm(shown)
        for file in self._config.known_hosts[:1]:
            try:
                _append(Path(file).expanduser(), knownhosts.known_line(self._known_name, type, text))
            except OSError as error:
                self._tell(f"the host key of {self.destination} cannot be noted in {file}: {words_of(error)}")

    def _confirm(self, shown: str) -> None:
        """`shown` is nobody's key that we know."""
        checking = self._config.strict_host_key_checking.lower()
        if checking in ("accept-new", "no", "off", "false"):
            return
        refused = HostKeyRefused(
            f"the host key of {self.destination} is not known yet\n  it has: {shown}\n"
            f"connect once with `ssh {shlex.quote(self.destination)}`, and confirm the key"
        )
        if checking in ("yes", "true"):
            raise refused
        question = f"The host key of {self.destination} is not known yet: {shown}\nIs it the right one (yes/no)? "
        for _ in range(TRIES):
            try:
                answer = self._ask(question, echo=True).strip()
            except LoginFailed:  # nobody is there
                raise refused from None
            if answer.lower() == "yes" or answer == shown.split()[1]:
                return
            if answer.lower() == "no":
                break
            question = "Please type yes or no, or the fingerprint: "
        raise refused


class _PromptSocket(socket.socket):
    """Acknowledges at once where it can: sshd holds back a small packet, as the end of a stream, for that."""

    def recv(self, size: int, flags: int = 0, /) -> bytes:
        data = super().recv(size, flags)
        if QUICKACK is not None:  # holds for one time
            self.setsockopt(socket.IPPROTO_TCP, QUICKACK, 1)
        return data


class ParamikoProcess:
    """See RemoteProcess."""

    def __init__(self, destination: str, channel: paramiko.Channel, mark: bytes) -> None:
        self._destination, self._channel = destination, channel
        self._is_closed = False
        self.stdin = cast(BinaryIO, _Stdin(channel))
        self._out = OwnOutput(_to_its_end(channel.recv), mark, self._raise_unfit)
        self._err = OwnOutput(_to_its_end(channel.recv_stderr), mark, self._raise_unfit)
        self.stdout: BinaryIO = io.BufferedReader(self._out)
        self.stderr: BinaryIO = io.BufferedReader(self._err)

    def wait(self, timeout_s: float | None = None) -> int:
        if not self._channel.status_event.wait(timeout_s):
            raise TookTooLong(f"a command on {self._destination} takes longer than {timeout_s:g} s\ntry again")
        if self._channel.exit_status == -1 and self._is_cut():
            raise self._lost()
        # without one it was ended by a signal; 255 is what ssh says then
        return self._channel.exit_status if self._channel.exit_status >= 0 else 255

    def close(self) -> None:
        self._is_closed = True
        with suppress(Exception):  # its connection may be gone
            self._channel.close()
        for stream in (self.stdin, self.stdout, self.stderr):
            with suppress(OSError, HpclabError):
                stream.close()

    def _is_cut(self) -> bool:
        transport = self._channel.get_transport()
        return not self._is_closed and not (transport and transport.is_active())

    def _lost(self) -> ConnectionLost:
        return ConnectionLost(f"the connection to {self._destination} is gone\ntry again")

    def _raise_unfit(self) -> None:
        if self._is_cut():
            raise self._lost()
        if not self._is_closed:
            raise unfit(self._destination, self._err, self._out)


def _to_its_end(receive: Callable[[int], bytes]) -> Callable[[int], bytes]:
    """paramiko acknowledges what it has, to a connection that may be gone."""

    def received(size: int) -> bytes:
        try:
            return receive(size)
        except Exception:
            return b""

    return received


class _Stdin(io.RawIOBase):
    def __init__(self, channel: paramiko.Channel) -> None:
        self._channel = channel

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        view = memoryview(data).cast("B")
        left = view
        while left:
            try:
                sent = self._channel.send(bytes(left[:PACKET]))
            except (OSError, EOFError) as error:
                raise BrokenPipeError("the command over there does not listen any more") from error
            if not sent:
                raise BrokenPipeError("the command over there does not listen any more")
            left = left[sent:]
        return len(view)

    def close(self) -> None:
        if not self.closed:
            super().close()
            with suppress(Exception):  # its connection may be gone
                self._channel.shutdown_write()


class ParamikoForward:
    """See Forward. A connection that comes while there is none to the login node waits for the next."""

    def __init__(self, login: ParamikoLogin, local_port: int, host: str, port: int) -> None:
        self._login, self._host, self._port = login, host, port
        self._is_closed = False
        self.refusal = ""
        self._listener = LocalPort(local_port, self._open)
        self.local_port = self._listener.port

    def close(self) -> None:
        self._is_closed = True
        self._login.forget(self)
        self._listener.close()

    def _open(self) -> paramiko.Channel | None:
        import paramiko

        deadline = time.monotonic() + RECONNECT_S
        while transport := self._login.wait_for_transport(deadline, lambda: not self._is_closed):
            try:
                return _channel(transport, self._host, self._port, ANSWER_S)
            except paramiko.ChannelException as error:
                self.refusal = self._login.refusal_of(error)
                return None
            except (paramiko.SSHException, EOFError, OSError) as error:
                # when the connection has died meanwhile, the next one may do
                if transport.is_active():
                    self.refusal = words_of(error)
                    return None
        return None


def _channel(transport: paramiko.Transport, host: str, port: int, timeout_s: float) -> paramiko.Channel:
    """To a port as seen from the other end of a connection."""
    return transport.open_channel("direct-tcpip", (host, port), ("127.0.0.1", 0), WINDOW, PACKET, timeout=timeout_s)


def _end(transport: paramiko.Transport, sock: Any) -> None:
    transport.close()
    sock.close()
    transport.packetizer.complete_handshake()  # ends its timer's thread


def _append(file: Path, line: str) -> None:
    """To a known_hosts file that may not exist yet."""
    if not file.parent.is_dir():
        file.parent.mkdir(parents=True, mode=0o700)
    with open(file, "a+b", opener=lambda path, flags: os.open(path, flags, 0o600)) as known:
        known.seek(0)
        text = known.read()
        known.write((b"\n" if text and not text.endswith(b"\n") else b"") + line.encode())


def config_without_ssh(destination: str) -> SshConfig:
    """What ~/.ssh/config and the system's say about a destination, on a machine that has no ssh to ask."""
    import getpass

    import paramiko

    found = re.fullmatch(r"(?:ssh://)?(?:(.+)@)?(\[.+\]|[^@:]+)(?::(\d+))?/?", check_destination(destination))
    user, host, port = found.groups() if found else (None, destination, None)
    settings = paramiko.SSHConfig()
    try:
        for path in (Path("~/.ssh/config").expanduser(), Path("/etc/ssh/ssh_config")):
            if path.is_file():
                with path.open(encoding="utf-8", errors="replace") as file:
                    settings.parse(file)
        about: Any = settings.lookup(host.strip("[]"))
    except Exception as error:  # `Match exec` needs a package more
        raise ConfigError(f"your ssh settings cannot be read without ssh: {error}\ninstall OpenSSH") from error

    said = {
        "user": getpass.getuser(),
        "userknownhostsfile": "~/.ssh/known_hosts ~/.ssh/known_hosts2",
        "globalknownhostsfile": "/etc/ssh/ssh_known_hosts /etc/ssh/ssh_known_hosts2",
        **{keyword: value for keyword, value in about.items() if value},
        **({"user": user} if user else {}),
        **({"port": port} if port else {}),
    }
    lines = [
        f"{keyword} {value}"
        for keyword, values in said.items()
        for value in (values if isinstance(values, list) else [values])
    ]
    return parse(destination, "\n".join(lines))
