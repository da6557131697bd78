"""A door to an open connection: while one hpclab holds a tunnel, others of the same user need not log in again.

It is a unix socket in a folder that only the user can enter. One command for each visitor: a line of JSON says which;
what follows is its stdin. Back come its stdout, its stderr and how it ended, in frames: one byte for which of them,
four for the length, and the data.
"""

from __future__ import annotations

import hashlib
import json
import os
import socket
import struct
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, cast

from hpclab.errors import ConnectionLost, HpclabError, TookTooLong
from hpclab.hosts import Forward, LoginNode, RemoteProcess

OUT, ERR, END = 1, 2, 3
HEAD = struct.Struct("!BI")
FRAME_BYTES = 65536
KNOCK_S = 2.0
TRY_AGAIN_S = 2.0
LATER = "say it again when its tunnel is open again"


def door_path(folder: str, destination: str) -> str:
    # the path of a unix socket must be short
    return f"{folder}/{hashlib.sha256(destination.encode()).hexdigest()[:12]}"


class Door:
    """Open while the connection is held. One holder at a time lets visitors in; when that one goes, another does."""

    def __init__(self, login: LoginNode, folder: str) -> None:
        self._login = login
        self._path = door_path(folder, login.destination)
        self._listener: socket.socket | None = None
        self._inode = 0
        self._visits: list[threading.Thread] = []
        self._closed = threading.Event()
        # Python has no such sockets on Windows; there, others log in for themselves
        if hasattr(socket, "AF_UNIX") and not self._open():
            threading.Thread(target=self._open_later, daemon=True).start()

    def _open(self) -> bool:
        """False: there is another one's door, which may be closed some time."""
        try:
            self._listener = _listener(self._path)
        except FileExistsError:
            return False
        except OSError:  # the path is too long, or so
            return True
        self._inode = Path(self._path).stat().st_ino
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()
        return True

    def _open_later(self) -> None:
        while not self._closed.wait(TRY_AGAIN_S) and not self._open():
            pass
        if self._closed.is_set():
            self.close()

    def see_off(self, *, within_s: float) -> None:
        """Let those finish who are here: a `hpclab stop` that has ended the session has still to hear so."""
        deadline = time.monotonic() + within_s
        for visit in self._visits:
            visit.join(max(0.0, deadline - time.monotonic()))

    def close(self) -> None:
        self._closed.set()
        listener, self._listener = self._listener, None
        if listener:
            with suppress(OSError):
                # another one may have taken the place of a door that did not answer
                if Path(self._path).stat().st_ino == self._inode:
                    Path(self._path).unlink()
            # a blocked accept is not ended by close alone
            with suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
            listener.close()

    def _accept(self, listener: socket.socket) -> None:
        with suppress(OSError):
            while True:
                visitor, _ = listener.accept()
                visit = threading.Thread(target=self._serve, args=(visitor,), daemon=True)
                self._visits = [*(other for other in self._visits if other.is_alive()), visit]
                visit.start()

    def _serve(self, visitor: socket.socket) -> None:
        with visitor, suppress(OSError, ValueError, KeyError):
            asked = json.loads(_line(visitor))
            back = _Frames(visitor)
            try:
                process = self._login.start(asked["argv"], prologue=asked["prologue"])
            except ConnectionLost:
                lost = f"the connection to {self._login.destination} is lost; the hpclab that holds it connects again"
                back.end(ConnectionLost(f"{lost}\n{LATER}"))
                return
            except HpclabError as error:
                back.end(error)
                return
            try:
                streams = ((OUT, process.stdout), (ERR, process.stderr))
                threads = [threading.Thread(target=back.pour, args=pair, daemon=True) for pair in streams]
                threads.append(threading.Thread(target=_feed, args=(visitor, process), daemon=True))
                for thread in threads:
                    thread.start()
                for thread in threads[:2]:
                    thread.join()
                back.end(process.wait(30))
            except HpclabError as error:
                back.end(error)
            finally:
                process.close()


class _Frames:
    def __init__(self, visitor: socket.socket) -> None:
        self._visitor = visitor
        self._lock = threading.Lock()

    def send(self, which: int, data: bytes) -> None:
        with self._lock:
            self._visitor.sendall(HEAD.pack(which, len(data)) + data)

    def pour(self, which: int, stream: BinaryIO) -> None:
        with suppress(OSError, ValueError, HpclabError):
            while data := stream.read1(FRAME_BYTES):  # type: ignore[attr-defined]
                self.send(which, data)

    def end(self, how: int | HpclabError) -> None:
        told = {"exit_status": how} if isinstance(how, int) else {"error": str(how)}
        self.send(END, json.dumps(told).encode())


def _feed(visitor: socket.socket, process: RemoteProcess) -> None:
    """What a visitor writes; when the visitor is gone, that is the end of file over there."""
    with suppress(OSError, ValueError, HpclabError):
        while data := visitor.recv(FRAME_BYTES):
            process.stdin.write(data)
    with suppress(OSError, ValueError, HpclabError):
        process.stdin.close()


def _listener(path: str) -> socket.socket:
    """Raises OSError when another one's door is open there."""
    if is_open(path):
        raise FileExistsError(path)
    with suppress(FileNotFoundError):
        Path(path).unlink()
    listener = socket.socket(socket.AF_UNIX)
    try:
        listener.bind(path)
        # nobody can knock before it listens
        Path(path).chmod(0o600)
        listener.listen(16)
    except OSError:
        listener.close()
        raise
    return listener


def is_open(path: str) -> bool:
    """Somebody lets visitors in there."""
    if not hasattr(socket, "AF_UNIX"):
        return False
    with socket.socket(socket.AF_UNIX) as knock:
        knock.settimeout(KNOCK_S)
        try:
            knock.connect(path)
        except OSError:
            return False
        return True


def _line(visitor: socket.socket) -> bytes:
    """Byte by byte, for what follows is somebody else's."""
    line = bytearray()
    while not line.endswith(b"\n"):
        byte = visitor.recv(1)
        if not byte:
            break
        line += byte
    return bytes(line)


class Visitor:
    """A LoginNode through a door: for commands, which is all that visitors do."""

    def __init__(self, login: LoginNode, folder: str) -> None:
        self.destination = login.destination
        self.means = login.means
        self._login = login
        self._path = door_path(folder, login.destination)
        self._is_open = False

    def connect(self, *, timeout_s: float = 30) -> None:
        """Through the door where there is one, else by a login of our own."""
        self._is_open = is_open(self._path)
        if not self._is_open:
            self._login.connect(timeout_s=timeout_s)

    @property
    def address(self) -> str:
        return self._login.address

    @property
    def is_connected(self) -> bool:
        return self._is_open or self._login.is_connected

    def drop(self) -> None:
        self._is_open = False
        self._login.drop()

    def start(self, argv: Sequence[str], *, prologue: Sequence[str] = ()) -> RemoteProcess:
        if not self._is_open:
            return self._login.start(argv, prologue=prologue)
        return _Visit(self._path, json.dumps({"argv": list(argv), "prologue": list(prologue)}).encode() + b"\n")

    def forward(self, local_port: int, host: str, port: int) -> Forward:
        return self._login.forward(local_port, host, port)

    def beyond(self, node: str) -> LoginNode:
        return self._login.beyond(node)

    def close(self) -> None:
        self._login.close()


class _Visit:
    """A command of ours that runs in the other hpclab's connection."""

    def __init__(self, path: str, asked: bytes) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        try:
            self._socket.connect(path)
            self._socket.sendall(asked)
        except OSError as error:
            self._socket.close()
            raise ConnectionLost(
                f"the hpclab that holds the connection is gone ({error.strerror})\nsay it again"
            ) from error
        self.stdin = cast(BinaryIO, _Stdin(self._socket))
        (out, out_end), (err, err_end) = os.pipe(), os.pipe()
        self.stdout: BinaryIO = open(out, "rb")
        self.stderr: BinaryIO = open(err, "rb")
        self._ends = {OUT: open(out_end, "wb", buffering=0), ERR: open(err_end, "wb", buffering=0)}
        self._told: dict[str, int | str] = {}
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        try:
            with self._socket.makefile("rb") as frames:
                while len(head := frames.read(HEAD.size)) == HEAD.size:
                    which, length = HEAD.unpack(head)
                    data = frames.read(length)
                    if which == END:
                        self._told = json.loads(data)
                        return
                    self._ends[which].write(data)
        except (OSError, ValueError):
            return
        finally:
            for end in self._ends.values():
                end.close()

    def wait(self, timeout_s: float | None = None) -> int:
        self._reader.join(timeout_s)
        if self._reader.is_alive():
            raise TookTooLong(f"no end within {timeout_s:.0f} s\nlook again with `hpclab status`")
        if "exit_status" in self._told:
            return int(self._told["exit_status"])
        lost = "the connection that another hpclab holds is gone\nsay it again"
        raise ConnectionLost(str(self._told.get("error", lost)))

    def close(self) -> None:
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._reader.join(KNOCK_S)
        for stream in (self._socket, self.stdout, self.stderr):
            with suppress(OSError):
                stream.close()


class _Stdin(socket.SocketIO):
    """Its end is the end of what we send; what comes back goes on."""

    def __init__(self, sock: socket.socket) -> None:
        super().__init__(sock, "w")
        self._visit = sock

    def close(self) -> None:
        if not self.closed:
            with suppress(OSError):
                self._visit.shutdown(socket.SHUT_WR)
        super().close()
