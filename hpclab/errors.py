"""Every error that hpclab raises on purpose, each with an exit code of its own.

* HpclabError                1
  + ConfigError              2   a setting, a flag or a name is wrong
  + CommandError             3   a command ran and failed
    + Refused               12   the batch system would not take the job
  + CommandMissing           4   a command is not there to be run
  + UnreadableOutput         5   a program answered what we cannot read
  + JobEnded                 6   the main job ended before JupyterLab was up
  + TookTooLong              7   we waited long enough
  + NoSuchSession            8   no session of this name
  + SessionExists            9   the name is taken
  + StoreError              10   a file of the session cannot be read or written
  + NoSuchJob               11   the session has no such job
  + NotRunning              13   the session is not in a state for this
    + IsRun                 26   it is a run, and no session with JupyterLab
  + SiteUnfit               14   `hpclab doctor` has found a problem
  + Unreachable             15   a login node cannot be reached, or does not speak
    + ConnectionLost        16   the connection to it is gone
  + LoginFailed             17   it does not let us in
  + HostKeyRefused          18   it has another host key than it had, or one that nobody has confirmed
  + ForwardingRefused       19   no way leads a tunnel to the session
  + RemoteUnfit             20   there is no hpclab over there, or an old one
  + NotFromHere             21   the batch system does not listen to this host
  + RankFailed              22   a rank of an MPI program failed
    + WorkerLost            23   the Dask worker beside it is gone
  + WorldFailed             24   its ranks did not become one MPI world
  + DataLost                25   data that was to be handed over is not there any more

A message says what happened, the evidence, and on its last line what to do next.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from typing import Protocol

INTERRUPTED = 130
"""The exit status after Ctrl-C, as shells have it."""


class CommandResult(Protocol):
    """What an error about a command needs to know of it; `hosts.Result` is one."""

    @property
    def host(self) -> str: ...
    @property
    def argv(self) -> Sequence[str]: ...
    @property
    def exit_status(self) -> int: ...
    @property
    def output(self) -> str: ...


class HpclabError(Exception):
    """Anything that hpclab can explain."""

    exit_code = 1

    def _render_traceback_(self) -> list[str]:
        """What IPython shows in place of a traceback, which would explain nothing."""
        return [f"hpclab: {self}"]


class ConfigError(HpclabError):
    """A setting, a flag or a name that makes no sense."""

    exit_code = 2


class CommandError(HpclabError):
    """A command ran and failed: host, command, exit status and what it said."""

    exit_code = 3

    def __init__(self, what: str, result: CommandResult, *, next_step: str = "") -> None:
        lines = result.output.strip().splitlines()[-10:] or ["(nothing)"]
        evidence = [
            f"  command: {_shown(result.argv)}",
            f"  on: {result.host}, exit status {result.exit_status}",
            "  it said:",
            *(f"    {line}" for line in lines),
        ]
        super().__init__("\n".join([what, *evidence, *([next_step] if next_step else [])]))
        self.result = result


def _shown(argv: Sequence[str]) -> str:
    """A command for people, who need not see how its environment is cleared: `env -u …`, or a program of `bash -c`."""
    words = list(argv)
    while words[:1] == ["env"] or (words and (words[0].startswith("-u") or re.fullmatch(r"[A-Z_]+=.*", words[0]))):
        words = words[2:] if words[0] == "-u" else words[1:]
    if words[:2] == ["bash", "-c"] and 'exec "$@"' in words[2]:
        words = words[4:]
    return " ".join("…" if "\n" in word else shlex.quote(word) for word in words)


class Refused(CommandError):
    """The batch system would not take the job."""

    exit_code = 12


class CommandMissing(HpclabError):
    """A command is not there to be run."""

    exit_code = 4


class UnreadableOutput(HpclabError):
    """A program answered something that we cannot read."""

    exit_code = 5


class JobEnded(HpclabError):
    """The main job ended before JupyterLab was up."""

    exit_code = 6


class TookTooLong(HpclabError):
    """We waited long enough; nothing is lost by that."""

    exit_code = 7


class NoSuchSession(HpclabError):
    """No session of this name."""

    exit_code = 8


class SessionExists(HpclabError):
    """The name is taken."""

    exit_code = 9


class StoreError(HpclabError):
    """A file of the session cannot be read or written."""

    exit_code = 10


class NoSuchJob(HpclabError):
    """The session has no such job."""

    exit_code = 11


class NotRunning(HpclabError):
    """The session is not in a state for what was asked."""

    exit_code = 13


class IsRun(NotRunning):
    """It is a run, and has no JupyterLab."""

    exit_code = 26


class SiteUnfit(HpclabError):
    """`hpclab doctor` has found a problem, and told it."""

    exit_code = 14


class Unreachable(HpclabError):
    """A login node cannot be reached, or does not speak."""

    exit_code = 15


class ConnectionLost(Unreachable):
    """The connection to the login node is gone."""

    exit_code = 16


class LoginFailed(HpclabError):
    """The login node does not let us in."""

    exit_code = 17


class HostKeyRefused(HpclabError):
    """The login node shows another host key than it had, or one that nobody has confirmed."""

    exit_code = 18


class ForwardingRefused(HpclabError):
    """No way leads a tunnel to the session."""

    exit_code = 19


class RemoteUnfit(HpclabError):
    """There is no hpclab on the login node, or one that is too old."""

    exit_code = 20


class NotFromHere(HpclabError):
    """The batch system does not listen to this host, nor does a way lead to one that it listens to."""

    exit_code = 21


class RankFailed(HpclabError):
    """A rank of an MPI program failed: raised, ended, was killed, or took too long."""

    exit_code = 22

    def __init__(self, message: str, *, rank: int = -1, host: str = "", kind: str = "", cause: bytes = b"") -> None:
        """`kind` is how it failed; `cause` the pickled exception that it raised.

        By itself: raised, exit (`sys.exit`), abort (`MPI_Abort`), died (by a signal), hangs, room (for its chunks),
        unpacked and unopened (what it was to get), result (that cannot be sent). Mostly since another one has: exited
        (with a status), told (to end), lost, waits, alone, finalize.
        """
        super().__init__(message)
        self.rank, self.host, self.kind, self.cause = rank, host, kind, cause


class WorkerLost(RankFailed):
    """The Dask worker beside a rank is gone, and the rank with it."""

    exit_code = 23


class WorldFailed(HpclabError):
    """The ranks of an MPI program did not become one world."""

    exit_code = 24


class DataLost(HpclabError):
    """Data that was to be handed over is not on any worker, and nothing tells how to compute it again."""

    exit_code = 25


def error_told(error: HpclabError) -> dict[str, str]:
    """For another hpclab; see `error_of`."""
    return {"class": type(error).__name__, "message": str(error)}


def error_of(told: Mapping[str, str]) -> HpclabError:
    """The error that another hpclab has told: of the same class, with the same words."""
    kind = globals().get(told["class"])
    if not (isinstance(kind, type) and issubclass(kind, HpclabError)):
        kind = HpclabError
    # some make their words of other things than words
    error: HpclabError = kind.__new__(kind, str(told["message"]))
    return error
