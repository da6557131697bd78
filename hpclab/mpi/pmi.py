"""PMI-1, by which processes of the MPICH family (MPICH, Intel MPI, MVAPICH) find each other: the server's side. Pure.

Each process has a line to its server: it puts what others need to know of it, waits at a barrier for all, and gets what
they have put. See "PMI: A Scalable Parallel Process-Management Interface", and MPICH's src/pmi/doc/wire_protocol.txt.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby


@dataclass(frozen=True)
class Barrier:
    """The process waits for all others; it has put this since the last time."""

    puts: Mapping[str, str]


@dataclass(frozen=True)
class Abort:
    """The process has called MPI_Abort."""

    exit_status: int


class Conversation:
    """What the server says to one process."""

    def __init__(self, *, rank: int, size: int, name: str, hosts: Sequence[str]) -> None:
        """`hosts[r]`: where rank r runs; those of one host talk through shared memory."""
        self._size, self._name = size, name
        self._known = {"PMI_process_mapping": process_mapping(hosts)}
        self._puts: dict[str, str] = {}
        self._many: dict[str, str] = {}
        """What has been said of a question of many lines, which `mcmd=…` begins."""

    def answer(self, line: str) -> str | Barrier | Abort:
        """To one line: the line to say; or what has to happen first."""
        said = _parse(line)
        if "mcmd" in said or self._many:  # a question of many lines gets one answer
            self._many |= said
            return "" if "endcmd" not in said else self._refused()
        match said.get("cmd", ""):
            case "init":
                version = f"pmi_version={said.get('pmi_version', '1')} pmi_subversion={said.get('pmi_subversion', '1')}"
                return f"cmd=response_to_init {version} rc=0\n"
            case "get_maxes":
                return "cmd=maxes kvsname_max=256 keylen_max=64 vallen_max=4096 rc=0\n"
            case "get_appnum":
                return "cmd=appnum appnum=0 rc=0\n"
            case "get_universe_size":
                return f"cmd=universe_size size={self._size} rc=0\n"
            case "get_my_kvsname":
                return f"cmd=my_kvsname kvsname={self._name} rc=0\n"
            case "put":
                if "key" not in said:
                    return "cmd=put_result rc=-1 msg=no_key\n"
                self._puts[said["key"]] = said.get("value", "")
                return "cmd=put_result rc=0 msg=success\n"
            case "get":
                key = said.get("key", "")
                value = self._known.get(key, self._puts.get(key))
                found = "rc=-1 msg=key_not_found value=unknown" if value is None else f"rc=0 msg=success value={value}"
                return f"cmd=get_result {found}\n"
            case "barrier_in":
                puts, self._puts = self._puts, {}
                return Barrier(puts)
            case "finalize":
                return "cmd=finalize_ack rc=0\n"
            case "abort":
                told = said.get("exitcode", "")
                return Abort(int(told) if re.fullmatch(r"-?\d+", told, re.ASCII) else 1)
            case unknown:
                return f"cmd={unknown}_result rc=-1 msg=unknown_command\n"

    def _refused(self) -> str:
        """MPI_Comm_spawn asks for several programs one by one, and hears once."""
        asked, self._many = self._many, {}
        is_last = asked.get("spawnssofar", "1") == asked.get("totspawns", "1")
        return f"cmd={asked.get('mcmd', '')}_result rc=-1 msg=not_supported\n" if is_last else ""

    def passed(self, puts: Iterable[Mapping[str, str]]) -> str:
        """The line to say when all have come to the barrier, with what each has put."""
        for of_one in puts:
            self._known |= of_one
        return "cmd=barrier_out rc=0\n"


def _parse(line: str) -> dict[str, str]:
    """`cmd=put kvsname=x key=y value=z`; a value, which comes last, may have `=` and blanks in it."""
    head, value_follows, value = line.strip().partition(" value=")
    said = dict(word.partition("=")[::2] for word in head.split())
    return said | ({"value": value} if value_follows else {})


def process_mapping(hosts: Sequence[str]) -> str:
    """Which ranks share a node, in MPICH's words: `(vector,(node,1,ranks),…)`."""
    numbers = {host: number for number, host in enumerate(dict.fromkeys(hosts))}
    blocks = [f"({numbers[host]},1,{len(list(group))})" for host, group in groupby(hosts)]
    return f"(vector,{','.join(blocks)})"
