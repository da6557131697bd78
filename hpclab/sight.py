"""What hpclab.inside.probe has seen of one machine, as frozen values. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass

from hpclab.errors import UnreadableOutput
from hpclab.result import Result
from hpclab.units import format_memory


@dataclass(frozen=True, kw_only=True)
class Network:
    name: str
    addresses: tuple[str, ...]
    speed_mbit: int = 0
    """0: nobody knows."""

    def __str__(self) -> str:
        speed = f" ({self.speed_mbit / 1000:g} Gbit/s)" if self.speed_mbit > 0 else ""
        return f"{self.name} {' '.join(self.addresses)}{speed}"


@dataclass(frozen=True, kw_only=True)
class Launcher:
    """An MPI launcher; `family` as hpclab.launchers has it, empty for one that is not there."""

    path: str
    family: str
    version: str

    def __str__(self) -> str:
        return " ".join(filter(None, (_FAMILIES.get(self.family, self.family), self.version, "at", self.path)))


_FAMILIES = {"hydra": "Hydra (MPICH)", "openmpi": "Open MPI", "prrte": "Open MPI (PRRTE)", "unknown": "unknown MPI"}


@dataclass(frozen=True, kw_only=True)
class Place:
    """A folder's file system; `error` is why nothing can be written there."""

    path: str
    type: str
    free_bytes: int
    error: str = ""

    def __str__(self) -> str:
        return f"{self.path}: {self.type or 'unknown file system'}, {format_memory(self.free_bytes)} free"


@dataclass(frozen=True, kw_only=True)
class Meeting:
    """The other side's addresses, each with the reason if it does not answer; `came` is whether it was there."""

    came: bool
    answers: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class Sight:
    """What hpclab.inside.probe has seen of one machine."""

    node: str
    python: str
    versions: Mapping[str, str]
    networks: tuple[Network, ...]
    launchers: tuple[Launcher, ...]
    """The one that a main job takes first."""
    mpi_library: str
    mpi_error: str
    home: Place
    scratch: Place
    answers: Mapping[str, Result]
    met: Meeting | None = None

    @property
    def dask_versions(self) -> dict[str, str]:
        """Those that must agree."""
        return {name: self.versions[name] for name in ("python", "dask", "distributed") if name in self.versions}

    @property
    def networks_told(self) -> str:
        """The fastest first."""
        by_speed = sorted(self.networks, key=lambda network: -network.speed_mbit)
        return ", ".join(map(str, by_speed)) or "none but loopback"

    def has_network(self, wanted: str) -> bool:
        """Whether the setting `interface` means one that is here."""
        return wanted in ("auto", "loopback", "lo") or any(network.name == wanted for network in self.networks)

    @property
    def fitting(self) -> Launcher | None:
        """The first launcher that belongs to mpi4py's library."""
        kin = {"openmpi", "prrte"} if "Open MPI" in self.mpi_library else {"hydra"}
        if not re.search(r"Open MPI|MPICH|Intel|MVAPICH", self.mpi_library):
            kin = {launcher.family for launcher in self.launchers if launcher.family}
        return next((launcher for launcher in self.launchers if launcher.family in {*kin, "unknown"}), None)


def sight(said: str) -> Sight:
    """The probe's answer, the last line that is one: what runs before Python may have its say, too."""
    lines = [line for line in said.splitlines() if line.startswith("{")]
    try:
        told = json.loads(lines[-1])
        met = told["met"]
        return Sight(
            node=str(told["node"]),
            python=str(told["python"]),
            versions={str(name): str(version) for name, version in told["versions"].items()},
            networks=tuple(
                Network(name=n["name"], addresses=tuple(n["addresses"]), speed_mbit=int(n["speed_mbit"]))
                for n in told["interfaces"]
            ),
            launchers=tuple(Launcher(**launcher) for launcher in told["launchers"]),
            mpi_library=str(told["mpi_library"]["name"]),
            mpi_error=str(told["mpi_library"]["error"]),
            home=Place(**told["home"]),
            scratch=Place(**told["scratch"]),
            answers={
                name: Result(host=told["node"], argv=(name,), **answer) for name, answer in told["answers"].items()
            },
            met=Meeting(came=bool(met["came"]), answers=dict(met["answers"])) if met else None,
        )
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        last = said.strip().splitlines() or ["(nothing)"]
        raise UnreadableOutput(f"the probe answered {last[-1][:200]!r}") from error
