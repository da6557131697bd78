"""The commands of a login node, run by `ssh` from this host where that works without asking anybody."""

from __future__ import annotations

from collections.abc import Sequence

from hpclab.errors import ConnectionLost, Unreachable
from hpclab.hosts import Commands
from hpclab.result import Result
from hpclab.shell import new_mark, printable, remote_command
from hpclab.sshconfig import check_destination

SSH = ("ssh", "-T", "-a", "-x", "-o", "BatchMode=yes", "-o", "ConnectTimeout=5", "-o", "ClearAllForwardings=yes")
SSH_FAILED = 255
IN_A_LOGIN_SHELL = (":",)
"""A prologue that does nothing, but has the user's profile read, by which the batch system's commands may be there."""


class ThroughLogin:
    """Each command is one connection. Files are not its business: the login node has the same home."""

    def __init__(self, here: Commands, destination: str) -> None:
        self._here = here
        self.name = check_destination(destination)

    def run(self, argv: Sequence[str], *, timeout_s: float = 60) -> Result:
        """Raises Unreachable when the command was not run, and ConnectionLost or TookTooLong when nobody knows."""
        mark = new_mark()
        command = remote_command(argv, mark, prologue=IN_A_LOGIN_SHELL)
        done = self._here.run([*SSH, "--", self.name, command], timeout_s=timeout_s)
        _, begun, stdout = done.stdout.partition(f"{mark.decode()}\n")
        last_words = printable(done.last_words)
        if not begun:
            raise Unreachable(
                f"no way leads from {self._here.name} to {self.name}: {last_words}\n"
                f"try `ssh -o BatchMode=yes {self.name} true` there"
            )
        stderr = done.stderr.partition(f"{mark.decode()}\n")[2]
        if done.exit_status == SSH_FAILED:
            raise ConnectionLost(
                f"the connection from {self._here.name} to {self.name} was lost: {last_words}\n"
                "whether the command was carried out is not known: see `hpclab status`, and the queue itself"
            )
        return Result(host=self.name, argv=tuple(argv), exit_status=done.exit_status, stdout=stdout, stderr=stderr)
