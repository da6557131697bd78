"""Where commands run and files are: the only place that starts processes or touches files on the cluster."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import BinaryIO, Protocol

from hpclab.result import Result


class Commands(Protocol):
    """Where commands run. A missing one is CommandMissing, one that hangs TookTooLong."""

    name: str

    def run(self, argv: Sequence[str], *, timeout_s: float = 60) -> Result: ...


class Host(Commands, Protocol):
    """One machine, with its files. File errors are OSError."""

    python: str
    """hpclab's own Python there; stands for the word `python` in first place of an argv."""
    home: str
    """Where hpclab keeps its files there."""
    login: str
    """USER@HOST, as ssh wants it."""
    submit_host: str
    """Where the job that runs us was submitted, as its batch system tells; empty: there is no such job."""

    @property
    def versions(self) -> Mapping[str, str]:
        """Of hpclab's own environment there; see hpclab.versions."""
        ...

    def read(self, path: str) -> str: ...
    def read_from(self, path: str, offset: int) -> tuple[str, int]:
        """What stands from a byte on, and the offset to go on from; a negative offset counts from the end."""
        ...

    def read_piece(self, path: str, offset: int, most_bytes: int) -> bytes: ...
    def write(self, path: str, text: str, *, mode: int = 0o600) -> None: ...
    def rename(self, path: str, new_path: str) -> None:
        """Of several that do this to one file at once, one succeeds; for the others there is no such file."""
        ...

    def remove(self, path: str) -> None:
        """A file, which may be gone already."""
        ...

    def make_folder(self, path: str) -> None: ...
    def names(self, folder: str) -> list[str]: ...
    def remove_tree(self, path: str) -> None: ...


class Ask(Protocol):
    """Asks the user, and gives back what was typed; without `echo` it is not shown. LoginFailed: nobody is there."""

    def __call__(self, prompt: str, *, echo: bool = False) -> str: ...


class RemoteProcess(Protocol):
    """A command that runs on a login node. Its streams begin where its own output begins: banners are cut off."""

    stdin: BinaryIO
    """Unbuffered. Closing it is the end of file over there."""
    stdout: BinaryIO
    stderr: BinaryIO

    def wait(self, timeout_s: float | None = None) -> int:
        """Its exit status. Raises ConnectionLost, or TookTooLong."""
        ...

    def close(self) -> None:
        """Closes all streams, at any time and from any thread: whoever reads or waits comes back."""
        ...


class Forward(Protocol):
    """A local port on the loopback address that leads to a port as seen from the login node."""

    local_port: int

    @property
    def refusal(self) -> str:
        """Why the last connection through it did not get there, in the login node's words; empty: none failed."""
        ...

    def close(self) -> None: ...


class LoginNode(Protocol):
    """A login node over one SSH connection, authenticated once; all methods from any thread.

    It outlives its connection: `connect` again after a loss, and its forwards go on. Their local ports stay bound
    meanwhile, and who connects to them waits.
    """

    destination: str
    """As the user gave it: USER@HOST, HOST, or a name from ~/.ssh/config."""
    means: str
    """`paramiko` or `openssh`."""

    @property
    def address(self) -> str:
        """The IP address that it was reached at, and will be reached at again; empty behind a proxy."""
        ...

    def connect(self, *, timeout_s: float = 30) -> None:
        """Open the connection, and ask for what must be asked. Does nothing while it is open.

        `timeout_s` is for the network and the sshd to answer, not for the user. Raises Unreachable, LoginFailed or
        HostKeyRefused.
        """
        ...

    @property
    def is_connected(self) -> bool:
        """As far as is known; a connection that is cut without a word is `open` until `drop` or a keepalive says no."""
        ...

    def drop(self) -> None:
        """Give the connection up, without waiting for the other side; forwards stay and wait for `connect`."""
        ...

    def start(self, argv: Sequence[str], *, prologue: Sequence[str] = ()) -> RemoteProcess:
        """Run a command there, in the user's home; `prologue` are lines of sh before it. Raises ConnectionLost."""
        ...

    def forward(self, local_port: int, host: str, port: int) -> Forward:
        """Listen on 127.0.0.1:local_port (0: any). Raises OSError with EADDRINUSE when it is taken."""
        ...

    def beyond(self, node: str) -> LoginNode:
        """A node that is reached through this one (ProxyJump), with the same user and keys; not connected yet."""
        ...

    def close(self) -> None: ...
