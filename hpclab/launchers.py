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
    "srun": ["--kill-on-bad-exit=0", "--no-kill", "--wait=0"],
    "unknown": [],
}

# a worker's threads are as many as the cores it asked for, so no launcher shall tie a rank to a single one
_UNBOUND = {"openmpi": ["--bind-to", "none"], "prrte": ["--bind-to", "none"], "srun": ["--cpu-bind=none"]}

# by which protocol srun brings the ranks of an MPI library together
_SRUN_MPI = {"hydra": ["--mpi=pmi2"], "openmpi": ["--mpi=pmix"], "prrte": ["--mpi=pmix"]}

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

ONE_NODE = {"UCX_TLS": "sm,self"}
"""For ranks that share a node: they need no network for MPI, and so no port that others could knock at."""


# A shell around each rank. Hydra kills all ranks when it reaps one that died by a signal, whatever it was asked; an
# exit status it lets pass, and the shell makes the one of the other. It does not hear what is meant for the rank, nor
# hydra's own USR1 by which the death of a rank is told to the others, and whose default would kill them. On other nodes
# than the job's first it makes the rank's scratch folder, and removes it when the rank is gone, whatever ended that.
_RANK = [
    "/bin/sh",
    "-c",
    'trap "" USR1; trap : TERM INT; own=; '
    # not one that somebody else has put there under this name
    '{ [ -O "$HPCLAB_SCRATCH" ] && [ ! -L "$HPCLAB_SCRATCH" ]; } || '
    # a mktemp that is ended before it has told the name would leave its folder
    'own=$(trap "" TERM INT; '
    'mktemp -d "${TMPDIR:-/tmp}/hpclab-XXXXXXXX" || mktemp -d /tmp/hpclab-XXXXXXXX) || exit 40; '
    'export HPCLAB_SCRATCH="${own:-$HPCLAB_SCRATCH}"; "$@"; status=$?; [ -z "$own" ] || rm -rf "$own"; exit $status',
    "rank",
]


def family(version: str) -> str:
    """Which launcher answers `--version` like this: hydra (MPICH, Intel MPI), openmpi (to 4), prrte, srun, unknown."""
    if re.match(r"slurm\S* \d", version):
        return "srun"
    if "HYDRA" in version or "Intel(R) MPI" in version:
        return "hydra"
    if re.search(r"Open MPI\) ([5-9]|\d\d)", version) or "prrte" in version.lower() or "PMIx" in version:
        return "prrte"
    return "openmpi" if "Open MPI" in version or "OpenRTE" in version else "unknown"


def launcher_argv(mpiexec: Sequence[str], version: str, *, ranks: int, program: Sequence[str]) -> list[str]:
    kind = family(version)
    options = [*_SURVIVE[kind], *_UNBOUND.get(kind, [])]
    return [*mpiexec, *options, "-n", str(ranks), *_RANK, *program]


def het_srun_argv(srun: str, version: str, *, components: int, program: Sequence[str]) -> list[str]:
    """Over all components of a heterogeneous Slurm job, which no mpiexec knows of; `version` is that of its mpiexec."""
    groups = f"--het-group={','.join(map(str, range(components)))}"
    options = [*_SURVIVE["srun"], *_UNBOUND["srun"], *_SRUN_MPI.get(family(version), [])]
    return [srun, *options, groups, *_RANK, *program]


def without_mpi(env: dict[str, str]) -> dict[str, str]:
    """An environment without the variables of the launcher that this process was started by."""
    return {key: value for key, value in env.items() if not key.startswith(MPI_VARIABLES)}
