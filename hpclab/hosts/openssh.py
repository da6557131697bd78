"""A login node over the user's own `ssh`, whose one authenticated connection (a ControlMaster) all commands share."""

from __future__ import annotations

import contextlib
import errno
import io
import math
import os
import re
import secrets
import selectors
import shlex
import shutil
import socket
import subprocess
import tempfile
import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

from hpclab.errors import (
    CommandMissing,
    ConfigError,
    ConnectionLost,
    HostKeyRefused,
    HpclabError,
    LoginFailed,
    TookTooLong,
    Unreachable,
)
from hpclab.ownoutput import OwnOutput, unfit
from hpclab.pump import RECONNECT_S, LocalPort, SocketChannel
from hpclab.shell import new_mark, remote_command
from hpclab.sshconfig import SshConfig, check_destination, has_authority, options, parse, reasons_for_openssh

# SIGINT is for us, and ssh honours that it is ignored. The pipe at fd 0 is ours: its end, without a word before,
# is our death, whatever kills us, and ends ssh; the sockets of its forwards, which $0 begins, it would leave.
GUARDED = (
    'trap "" INT; exec 3<&0; { read -r _ <&3 || { kill $$; rm -f "$0".*; }; } >/dev/null 2>&1 & '
    'exec "$@" </dev/null 3<&-'
)
# never a connection of their own: what finds the master gone must neither log in again nor ask anybody
CLIENT = ["-F", "/dev/null", "-o", "BatchMode=yes", "-o", "ProxyCommand=false", "-o", "LogLevel=ERROR"]
# whatever ~/.ssh/config says, this connection is for us alone
OURS = [
    word
    for option in (
        # a dead connection is noticed after 8 to 12 s
        "ServerAliveInterval=4",
        "ServerAliveCountMax=2",
        "ControlPersist=no",
        "ClearAllForwardings=yes",
        "ExitOnForwardFailure=no",
        "PermitLocalCommand=no",
        "RemoteCommand=none",
        "Tunnel=no",
    )
    for word in ("-o", option)
]
SOCKET_PATH_MAX = 104 - 1 - len(".0123456789abcdef")
"""Of the system, less the suffix under which ssh makes it; a forward's is shorter."""
# after these words of `ssh -v` only the network can keep us waiting, never the user
WAITS_FOR_NETWORK = re.compile(
    r"debug1: (Connecting to|Connection established|identity file|Local version|Remote protocol|compat_banner"
    r"|Authenticating to|load_hostkeys|SSH2_MSG_KEX|kex:|expecting SSH2|SSH2_MSG_NEWKEYS sent|Offering public key)"
)
# of -v too, but without `debug` before it
VERBOSE = re.compile(r"OpenSSH_|Authenticated using |Transferred: |Bytes per second: ")
# what an error will say, and nobody has to read twice
LAST_WORDS = re.compile(r": Permission denied \(|^Connection (closed|reset)|^Received disconnect|^Disconnected")
# the connection is lost, or ssh was told to end: it closes channels in turn, and the first is the control socket
LEAVES = re.compile(r"debug1: channel 0: free:|Timeout, server |client_loop: |ssh_dispatch_run_fatal: ")
SSH_FAILED = 255


class OpensshLogin:
    """A LoginNode. The control socket and the nodes' host keys are in `folder`, which is the user's alone."""

    means = "openssh"

    def __init__(self, destination: str, *, folder: str, address: str = "") -> None:
        if os.name == "nt":
            raise ConfigError('the ssh of Windows cannot share a connection\nuse `ssh = "paramiko"`')
        self.destination = check_destination(destination)
        self._folder = folder
        self._address = address
        self._through: OpensshLogin | None = None
        self._config: SshConfig | None = None
        self._master: _Master | _UsersMaster | None = None
        self._may_borrow = True
        self._short_folder = ""
        self._forwards: list[_Forward] = []
        self._lock = threading.RLock()

    @property
    def address(self) -> str:
        return self._address

    @property
    def is_connected(self) -> bool:
        master = self._master
        return master is not None and master.is_open

    def connect(self, *, timeout_s: float = 30) -> None:
        with self._lock:
            if not self.is_connected:
                if not shutil.which("ssh"):
                    raise CommandMissing('there is no ssh on this machine\ninstall OpenSSH, or use `ssh = "paramiko"`')
                said = _ssh_g(self.destination)
                self._config = parse(self.destination, said) if said else None
                theirs = _control_path(said) if self._may_borrow else None
                self._master = _UsersMaster(theirs, self._socket_path()) if theirs else self._new_master(timeout_s)
            for forward in list(self._forwards):
                self._lead(forward)

    def drop(self) -> None:
        # not under the lock: whoever holds it may be waiting for the user
        master = self._master
        passages = [forward.hang_up() for forward in list(self._forwards)]
        if isinstance(master, _UsersMaster):
            # it is theirs to end, and of no more use to us
            self._may_borrow, self._master = False, None
        elif master:
            master.end()
        for passage in passages:
            if passage:
                passage.close()

    def start(self, argv: Sequence[str], *, prologue: Sequence[str] = ()) -> RemoteCommand:
        mark = new_mark()
        command = remote_command(argv, mark, prologue=prologue)
        return RemoteCommand([*_client(self._open_master().socket_path), "--", self.destination, command], mark, self)

    def forward(self, local_port: int, host: str, port: int) -> _Forward:
        with self._lock:
            forward = _Forward(self, local_port, host, port)
            try:
                self._lead(forward)
            except BaseException:
                forward.close()
                raise
            self._forwards.append(forward)
            return forward

    def beyond(self, node: str) -> OpensshLogin:
        self._config = self._config or resolve(self.destination)
        user = self._config.user if self._config else ""
        beyond = OpensshLogin(f"{user}@{node}" if user else node, folder=self._folder)
        beyond._through, beyond._may_borrow = self, False
        return beyond

    def close(self) -> None:
        self.drop()
        for forward in list(self._forwards):
            forward.close()
        self._master = None
        if self._short_folder:
            shutil.rmtree(self._short_folder, ignore_errors=True)

    def _new_master(self, timeout_s: float) -> _Master:
        somebody = _somebody_is_there()
        config = self._config
        limit_s = min(timeout_s, (config and config.connect_timeout_s) or timeout_s)
        proxied = self._through is not None or bool(config and (config.proxy_jump or config.proxy_command))
        how = ["-o", f"BatchMode={'no' if somebody else 'yes'}"]
        if self._through:
            how += self._way_through(self._through)
        elif not proxied:
            how += ["-o", f"ConnectTimeout={math.ceil(limit_s)}"]
            if self._address and config:
                name = config.hostname if config.port == 22 else f"[{config.hostname}]:{config.port}"
                how += ["-o", f"HostName={self._address}", "-o", f"HostKeyAlias={config.host_key_alias or name}"]
        # a ProxyCommand of the user's own may ask before the login node says its first word, and we do not see that
        asks_unseen = somebody and not self._through and bool(config and config.proxy_command)
        path = self._socket_path()
        argv = ["ssh", "-v", "-N", "-T", "-a", "-x", "-M", "-S", path, *how, *OURS, "--", self.destination]
        self._master = master = _Master(argv, path)
        try:
            # ssh has ConnectTimeout, and its own words are better
            is_open = master.wait_until_open(silence_s=math.inf if asks_unseen else limit_s + 1, may_ask=somebody)
        except BaseException:
            master.end()
            raise
        if not is_open:
            silent = master.is_alive
            master.end()
            raise explain(
                self.destination, master.said, master.debug, asked=somebody, silent_s=limit_s if silent else 0
            )
        self._address = "" if proxied else master.address
        return master

    def _way_through(self, through: OpensshLogin) -> list[str]:
        words = [*_client(through._open_master().socket_path), "-W", "[%h]:%p", "--", through.destination]
        # ssh gives it to the user's shell, and reads its % itself
        command = " ".join(word if word == "[%h]:%p" else shlex.quote(word.replace("%", "%%")) for word in words)
        # each cluster's node1 is another machine
        cluster = through._config.hostname if through._config else "login"
        known = [f"{self._folder}/known_hosts-{cluster}", *(self._config.known_hosts if self._config else ())]
        return [
            *("-o", f"ProxyCommand={command}"),
            *("-o", "StrictHostKeyChecking=accept-new"),
            # new keys go into the first one
            *("-o", "UserKnownHostsFile=" + " ".join('"' + path.replace("%", "%%") + '"' for path in known)),
        ]

    def _socket_path(self) -> str:
        """A new one; in /tmp where the folder's path is too long for a socket, or ssh would read % and $ in it."""
        Path(self._folder).mkdir(mode=0o700, parents=True, exist_ok=True)
        path = f"{self._folder}/{secrets.token_hex(4)}.sock"
        if len(os.fsencode(path)) <= SOCKET_PATH_MAX and re.fullmatch(r"[\w./+-]+", path, re.ASCII):
            return path
        if not self._short_folder:
            self._short_folder = tempfile.mkdtemp(prefix="hpclab-", dir="/tmp")
        return f"{self._short_folder}/{secrets.token_hex(4)}.sock"

    def _open_master(self) -> _Master | _UsersMaster:
        master = self._master
        if master is None or not master.is_open:
            raise self._lost()
        return master

    def _lost(self) -> ConnectionLost:
        words = list(self._master.said)[-3:] if isinstance(self._master, _Master) else []
        return ConnectionLost(f"the connection to {self.destination} is gone\n{_indented(words)}\nconnect again")

    def _forget(self, forward: _Forward) -> None:
        with contextlib.suppress(ValueError):  # it never came so far, or is closed twice
            self._forwards.remove(forward)

    def _lead(self, forward: _Forward) -> None:
        master = self._open_master()
        try:
            forward.lead_through(master)
        except OSError:
            self._open_master()  # or it has just ended
            raise


class _Master:
    """An ssh process of ours that holds the connection, until it is told to end or we end."""

    def __init__(self, argv: Sequence[str], socket_path: str) -> None:
        self.socket_path = socket_path
        self.said: deque[str] = deque(maxlen=100)
        """What is for people: the latest lines that are not of `ssh -v`."""
        self.debug: deque[str] = deque(maxlen=500)
        self.address = ""
        self._has_opened = self._authenticates = self._is_leaving = False
        self._requested = ""
        self._channels: dict[int, str] = {}
        """Where each one leads to."""
        self._refusals: dict[str, str] = {}
        self._unfinished = b""
        self._heard = threading.Condition()
        self._heard_at_s = time.monotonic()
        # in our process group, so that it may ask at the terminal
        self._process = subprocess.Popen(
            ["sh", "-c", GUARDED, socket_path, *argv],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        assert self._process.stdin
        assert self._process.stderr
        self._guard, self._words = self._process.stdin, self._process.stderr
        os.set_blocking(self._words.fileno(), False)
        self._listener = threading.Thread(target=self._listen, name="ssh's words", daemon=True)
        self._listener.start()

    @property
    def is_alive(self) -> bool:
        return self._process.poll() is None

    @property
    def is_open(self) -> bool:
        """Authenticated, and not ended since."""
        return self._has_opened and self.is_alive

    def is_gone(self) -> bool:
        """Known before its connections end by that, for it says so; not when it is killed."""
        return not self._take_in() or self._is_leaving

    def wait_until_open(self, *, silence_s: float, may_ask: bool) -> bool:
        """False: it has ended, or is alive and the network has been silent for that long."""
        with self._heard:
            while self.is_alive:
                if Path(self.socket_path).exists():
                    self._take_in()
                    self.said.clear()  # the login's words are none about its end
                    self._has_opened = True
                    return True
                waits_for_network = not may_ask or (self.debug and WAITS_FOR_NETWORK.match(self.debug[-1]))
                if waits_for_network and time.monotonic() > self._heard_at_s + silence_s:
                    return False
                self._heard.wait(0.05)
        self._listener.join(1)
        return False

    def refusal(self, target: str) -> str:
        """`target` is HOST port PORT."""
        # ssh says it before it closes the connection, so nobody asks too early
        self._take_in()
        return self._refusals.get(target, "")

    def end(self) -> None:
        """Without waiting for the other side."""
        # SIGTERM lets it mend the terminal and remove its socket
        self._process.terminate()
        try:
            self._process.wait(1)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._dismiss_guard()
        Path(self.socket_path).unlink(missing_ok=True)

    def _dismiss_guard(self) -> None:
        """It must not kill whoever gets this process id next."""
        with self._heard, contextlib.suppress(OSError, ValueError):
            self._guard.write(b"\n")
            self._guard.close()

    def _listen(self) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(self._words, selectors.EVENT_READ)
            while self._take_in():
                selector.select()
        self._process.wait()
        self._dismiss_guard()
        with self._heard:
            self._words.close()

    def _take_in(self) -> bool:
        """All that ssh has said by now; False when there will be no more."""
        with self._heard:
            while not self._words.closed:
                try:
                    piece = os.read(self._words.fileno(), 65536)
                except BlockingIOError:
                    return True
                if not piece:
                    return False
                *lines, self._unfinished = (self._unfinished + piece).split(b"\n")
                for line in lines:
                    self._take(line.decode(errors="replace").rstrip())
                self._heard.notify_all()
            return False

    def _take(self, line: str) -> None:
        self._heard_at_s = time.monotonic()
        self._is_leaving |= LEAVES.match(line) is not None
        if authenticated := re.match(r"Authenticated to \S+ \((?:\[(.+)\]:\d+|via proxy)\)", line):
            self.address = authenticated[1] or ""
        elif line.startswith("debug"):
            self.debug.append(line)
            self._authenticates |= line.startswith("debug1: SSH2_MSG_SERVICE_ACCEPT")
            # for a forwarded socket the port is -2
            if requested := re.match(r"debug1: Connection to port \S+ forwarding to (.+) requested", line):
                self._requested = requested[1]
                self._refusals.pop(self._requested, None)
            elif opened := re.match(r"debug1: channel (\d+): new .*\[direct-tcpip\]", line):
                self._channels[int(opened[1])] = self._requested
        elif refused := re.match(r"channel (\d+): open failed: (.*)", line):
            self._refusals[self._channels.get(int(refused[1]), "")] = refused[2]
        elif not VERBOSE.match(line):
            self.said.append(line)
            if self._authenticates and not self._has_opened and not LAST_WORDS.search(line):
                _to_terminal(line)


@dataclass(frozen=True)
class _UsersMaster:
    """A connection that the user has opened, and will close; its words are not for us."""

    socket_path: str
    own_path: str
    """What the paths of our sockets begin with."""

    @property
    def is_open(self) -> bool:
        return _request(self.socket_path, "check").returncode == 0

    def is_gone(self) -> bool:
        return False  # nobody tells

    def refusal(self, target: str) -> str:
        return ""


@dataclass(frozen=True)
class _Passage:
    """A unix socket at which a master listens, and whose connections it leads to a port over there."""

    master: _Master | _UsersMaster
    path: str
    target: str
    """HOST:PORT"""

    def open(self) -> None:
        done = _request(self.master.socket_path, "forward", "-L", f"{self.path}:{self.target}")
        if done.returncode:
            raise OSError(errno.EIO, f"ssh does not listen at {self.path}: {done.stderr.strip()}")

    def connect(self) -> SocketChannel:
        sock = socket.socket(socket.AF_UNIX)
        try:
            sock.connect(self.path)
        except BaseException:
            sock.close()
            raise
        return SocketChannel(sock, is_cut=self.master.is_gone)

    def close(self) -> None:
        with contextlib.suppress(TookTooLong):  # a master of the user's may hang
            if self.master.is_open:
                _request(self.master.socket_path, "cancel", "-L", f"{self.path}:{self.target}")
        Path(self.path).unlink(missing_ok=True)  # ssh leaves it


class _Forward:
    """See Forward. The port is ours all the time; who comes while there is no connection waits for the next."""

    def __init__(self, login: OpensshLogin, local_port: int, host: str, port: int) -> None:
        self._login, self._host, self._port = login, host, port
        self._passage: _Passage | None = None
        self._is_closed = False
        self._changed = threading.Condition()
        self._listener = LocalPort(local_port, self._open)
        self.local_port = self._listener.port

    @property
    def refusal(self) -> str:
        passage = self._passage
        return passage.master.refusal(f"{self._host} port {self._port}") if passage else ""

    def lead_through(self, master: _Master | _UsersMaster) -> None:
        """Unless it does already."""
        if self._passage and self._passage.master is master:
            return
        if old := self.hang_up():
            old.close()
        begin = master.own_path if isinstance(master, _UsersMaster) else master.socket_path
        host = f"[{self._host}]" if ":" in self._host else self._host
        passage = _Passage(master, f"{begin}.{secrets.token_hex(4)}", f"{host}:{self._port}")
        passage.open()
        with self._changed:
            if not self._is_closed:
                self._passage = passage
            self._changed.notify_all()
        if self._is_closed:
            passage.close()

    def hang_up(self) -> _Passage | None:
        """End the connections; what they went through is to be closed, when nothing of it answers any more."""
        with self._changed:
            passage, self._passage = self._passage, None
        self._listener.hang_up()
        return passage

    def close(self) -> None:
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
        self._listener.close()
        if passage := self.hang_up():
            passage.close()
        self._login._forget(self)

    def _open(self) -> SocketChannel | None:
        deadline = time.monotonic() + RECONNECT_S
        tried: _Passage | None = None
        while passage := self._wait_for_passage(deadline, tried):
            try:
                return passage.connect()
            except (ConnectionRefusedError, FileNotFoundError):  # its master is gone
                tried = passage
            except OSError:  # too many open files
                return None
        return None

    def _wait_for_passage(self, deadline: float, tried: _Passage | None) -> _Passage | None:
        """One that was not tried yet."""
        with self._changed:
            self._changed.wait_for(
                lambda: self._is_closed or self._passage not in (None, tried), deadline - time.monotonic()
            )
            return self._passage if self._passage is not tried and not self._is_closed else None


class RemoteCommand:
    """A RemoteProcess. Its streams are sockets: to shut one down wakes whoever reads it, in any thread."""

    def __init__(self, argv: Sequence[str], mark: bytes, login: OpensshLogin) -> None:
        self._login = login
        self._closed = False
        ours, theirs = zip(*(socket.socketpair() for _ in range(3)), strict=True)
        try:
            # away from the terminal, whose Ctrl-C is for us
            self._client = subprocess.Popen(
                argv, stdin=theirs[0], stdout=theirs[1], stderr=theirs[2], start_new_session=True
            )
        finally:
            for end in theirs:
                end.close()
        self._ends = ours
        self._out, self._err = (OwnOutput(end.recv, mark, self._check) for end in ours[1:])
        self.stdin = cast(BinaryIO, ours[0].makefile("wb", buffering=0))
        self.stdout: BinaryIO = io.BufferedReader(self._out)
        self.stderr: BinaryIO = io.BufferedReader(self._err)
        ours[0].close()  # the socket itself lives as long as its file

    def wait(self, timeout_s: float | None = None) -> int:
        try:
            status = self._client.wait(timeout_s)
        except subprocess.TimeoutExpired as error:
            raise TookTooLong(
                f"a command on {self._login.destination} did not end within {timeout_s:.0f} s\n"
                "is the login node very busy?"
            ) from error
        self._check()
        return status

    def close(self) -> None:
        self._closed = True
        self._client.kill()
        for end in self._ends:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        for stream in (self.stdin, self.stdout, self.stderr):
            with contextlib.suppress(OSError):
                stream.close()
        for end in self._ends:
            end.close()
        self._client.wait()

    def _check(self) -> None:
        """Once it has ended: raises the reason when it did not run, or not to its end."""
        if self._closed:
            return
        status = self._client.wait()
        # 255 may also be the command's own
        if status == SSH_FAILED and not self._login.is_connected:
            raise self._login._lost()
        if not self._out.has_begun():
            raise unfit(self._login.destination, self._err, self._out)


# what is asked on this machine


def resolve(destination: str) -> SshConfig | None:
    """What ~/.ssh/config says about it; None when there is no ssh to ask."""
    said = _ssh_g(destination)
    return parse(destination, said) if said else None


def openssh_reasons(destination: str) -> list[str]:
    """Why paramiko will not do for this destination, and for those on the way; empty: it will."""
    reasons: list[str] = []
    seen: set[str] = set()
    left = [destination]
    while left:
        place = left.pop(0)
        said = _ssh_g(place)
        if place in seen or not said:
            continue
        seen.add(place)
        config = parse(place, said)
        left += config.proxy_jump
        found = reasons_for_openssh(
            options(said),
            has_ticket=_has_ticket(),
            has_master=place == destination and _control_path(said) is not None,
            hardware_keys=[path for path in config.identity_files if _is_in_hardware(path)],
            authorities=[
                path for path in config.known_hosts + config.global_known_hosts if has_authority(_text(path), config)
            ],
        )
        reasons += [reason if place == destination else f"{reason} (for {place}, on the way)" for reason in found]
    return reasons


def _ssh_g(destination: str) -> str:
    check_destination(destination)
    try:
        done = _run(["ssh", "-G", "--", destination])
    except (FileNotFoundError, TookTooLong):
        return ""
    if done.returncode and "usage:" not in done.stderr:  # as an ssh from before 2015 says
        words = _indented(done.stderr.strip().splitlines())
        raise ConfigError(f"ssh cannot read its settings\n{words}\nmend them; try `ssh -G {destination}`")
    return done.stdout


def _control_path(said: str) -> str | None:
    """Where a master of the user's answers."""
    path = (options(said).get("controlpath") or ["none"])[-1]
    if path == "none" or not Path(path).exists():
        return None
    return path if _request(path, "check").returncode == 0 else None


def _has_ticket() -> bool:
    try:
        return _run(["klist", "-s"]).returncode == 0
    except (OSError, TookTooLong):
        return False


def _is_in_hardware(identity_file: str) -> bool:
    public = _text(f"{identity_file}.pub")
    return public.startswith("sk-") or (identity_file.endswith("_sk") and Path(identity_file).exists())


def _text(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _request(socket_path: str, request: str, *words: str) -> subprocess.CompletedProcess[str]:
    """Ask a master for something; the name of a host is needed, but means nothing."""
    return _run([*_client(socket_path), "-O", request, *words, "--", "master"])


def _client(socket_path: str) -> list[str]:
    return ["ssh", *CLIENT, "-S", socket_path.replace("%", "%%")]


def _run(argv: Sequence[str], *, timeout_s: float = 10) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            argv,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout_s,
            start_new_session=True,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise TookTooLong(f"`{shlex.join(argv)}` did not answer within {timeout_s:.0f} s\ntry it by hand") from error


def _somebody_is_there() -> bool:
    """To be asked: at the terminal, if it is ours at the moment, or in a window."""
    if os.environ.get("SSH_ASKPASS") and {"DISPLAY", "WAYLAND_DISPLAY", "SSH_ASKPASS_REQUIRE"} & os.environ.keys():
        return True
    try:
        with open("/dev/tty", "rb", buffering=0) as terminal:
            return os.tcgetpgrp(terminal.fileno()) == os.getpgrp()
    except OSError:
        return False


def _to_terminal(line: str) -> None:
    """What the site says while it asks: which device has been called, that a password ends soon."""
    with contextlib.suppress(OSError), open("/dev/tty", "w", encoding="utf-8") as terminal:
        terminal.write(f"{line}\n")


def _indented(lines: Sequence[str]) -> str:
    return "\n".join(f"  {line}" for line in lines[-12:]) or "  (ssh said nothing)"


def explain(
    destination: str, said: Sequence[str], debug: Sequence[str], *, asked: bool = False, silent_s: float = 0
) -> HpclabError:
    """Why there is no connection, from the words of `ssh -v`."""
    said = [line for line in said if line and not line.startswith("@@@")]
    words = "\n".join(said)
    evidence = _indented(said)
    if "IDENTIFICATION HAS CHANGED" in words or "REVOKED HOST KEY" in words:
        remove = re.search(r"ssh-keygen -f .*", words)
        return HostKeyRefused(
            f"{destination} has another host key than it had\n{evidence}\n"
            "ask the site whether its key has changed; "
            + (f"only if it says so: `{remove[0].strip()}`" if remove else "only if it says so, remove the old one")
        )
    if "Host key verification failed" in words or "No host key" in words:
        keys = [line.removeprefix("debug1: ") for line in debug if line.startswith("debug1: Server host key: ")]
        return HostKeyRefused(
            f"nobody has confirmed the host key of {destination}\n{evidence}\n"
            + "".join(f"  {key}\n" for key in keys[-1:])
            + f"run `ssh {destination}` once in a terminal, and compare the fingerprint with what the site publishes"
        )
    began = max(
        (n for n, line in enumerate(debug) if line.startswith("debug1: Authenticating to ")), default=len(debug)
    )
    authenticates = any(line.startswith("debug1: SSH2_MSG_SERVICE_ACCEPT") for line in list(debug)[began:])
    closed = re.search(r"Too many authentication failures|Connection closed by|Received disconnect", words)
    if denied := re.search(r"Permission denied \(([^)]*)\)", words):
        next_step = f"`ssh -v {destination}` tells which keys it tried"
        if {"password", "keyboard-interactive"} & set(denied[1].split(",")):
            next_step = (
                f"was it mistyped? `ssh {destination}` asks again"
                if asked
                else "start this in a terminal, where the password or the code can be typed"
            )
        return LoginFailed(f"{destination} does not let us in; it wants {denied[1]}\n{evidence}\n{next_step}")
    if authenticates and closed and not silent_s:
        return LoginFailed(f"{destination} does not let us in\n{evidence}\n`ssh -v {destination}` tells more")
    if silent_s:
        steps = [line.removeprefix("debug1: ") for line in debug if line.startswith("debug1: ")][-1:]
        evidence = "\n".join([f"  no word for {silent_s:.0f} s after:", *(f"  {step}" for step in steps)])
    next_step = next((step for sign, step in NEXT_STEPS.items() if re.search(sign, words)), NEXT_STEPS[""])
    return Unreachable(f"{destination} cannot be reached\n{evidence}\n{next_step.format(destination)}")


NEXT_STEPS = {
    "resolve hostname": "is the name right? `ssh -G {}` tells what ~/.ssh/config makes of it",
    "Connection refused": "is it the right port (`ssh -G {}` tells which)? if so, sshd is down: try again later",
    "unreachable|No route": "is the network up, and the site's VPN if it has one?",
    "": "does the network lead there (a VPN?), and is sshd alive? `ssh -v {}` tells how far it gets",
}
