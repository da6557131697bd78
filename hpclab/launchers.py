"""The argv of an MPI launcher: which family it is, by its own words, and how that family is asked. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence

# what makes the loss of one rank the loss of that rank alone: by default a launcher ends all the others,
# and a worker that runs out of memory would take the scheduler, JupyterLab and everybody's results with it
_SURVIVE = {
    "hydra": ["-disable-auto-cleanup"],
    "openmpi": ["--mca", "orte_enable_recovery", "1", "--oversubscribe"],
    "prrte": ["--enable-recovery", "--map-by", ":OVERSUBSCRIBE"],
    "unknown": [],
}

# what is no rank must not inherit these: `from mpi4py import MPI` in a notebook would try to join the scheduler's world
MPI_VARIABLES = (
    "PMI_",
    "PMIX_",
    "OMPI_",
    "PRTE_",
    "HYDI_",
    "HYDRA_",
    "MPI_LOCAL",
    "MPIR_",
    "MPICH_",
    "I_MPI_",
    "FLUX_PMI",
)


# hydra kills all ranks when it reaps one that died by a signal, whatever it was asked; an exit status it lets pass.
# A shell around each rank makes the one of the other. It does not hear what is meant for the rank, nor hydra's own
# USR1 by which the death of a rank is told to the others, and whose default would kill them.
_RANK = {"hydra": ["/bin/sh", "-c", 'trap "" USR1; trap : TERM INT; "$@"; exit $?', "rank"]}


def family(version: str) -> str:
    """Which launcher answers `--version` like this: hydra (MPICH, Intel MPI), openmpi (4 and older), prrte, unknown."""
    if "HYDRA" in version or "Intel(R) MPI" in version:
        return "hydra"
    if re.search(r"Open MPI\) ([5-9]|\d\d)", version) or "prrte" in version.lower() or "PMIx" in version:
        return "prrte"
    return "openmpi" if "Open MPI" in version or "OpenRTE" in version else "unknown"


def launcher_argv(mpiexec: Sequence[str], version: str, *, ranks: int, program: Sequence[str]) -> list[str]:
    kind = family(version)
    return [*mpiexec, *_SURVIVE[kind], "-n", str(ranks), *_RANK.get(kind, []), *program]


def without_mpi(env: dict[str, str]) -> dict[str, str]:
    """An environment without the variables of the launcher that this process was started by."""
    return {key: value for key, value in env.items() if not key.startswith(MPI_VARIABLES)}
