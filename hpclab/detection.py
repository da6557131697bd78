"""Which batch systems a host really has, told from what their commands say of themselves. Pure."""

from __future__ import annotations

import re

from hpclab.errors import ConfigError

# names prove nothing: qsub is PBS's, Torque's, Grid Engine's, and in Slurm's wrappers nobody's own
VERSIONS_COMMAND = [
    "sh",
    "-c",
    "says() { name=$1; shift; command -v $1 >/dev/null && "
    'timeout 5 env LC_ALL=C "$@" </dev/null 2>&1 | head -n 3 | sed "s/^/$name: /"; }; '
    "says sbatch sbatch --version; says qstat-version qstat --version; "
    "says qstat-help qstat -help; says bsub bsub -V; exit 0",
]

_SIGNS = {
    "slurm": r"^sbatch: slurm\S* \d",
    "pbs": r"^qstat-version: .*pbs_version",
    "torque": r"^qstat-version: version: *\d",
    "sge": r"^qstat-help: (SGE|SoGE|UGE|AGE|OGS|OGE|GE|Univa|Altair Grid|Some Grid|Son of Grid|Gridware)\b",
    "lsf": r"^bsub: .*\bLSF\b",
}


def detected(said: str) -> dict[str, str]:
    """The batch systems by name, each with the line that tells its version; `said` is VERSIONS_COMMAND's output."""
    found = {}
    for system, sign in _SIGNS.items():
        if match := re.search(sign + r".*$", said, re.MULTILINE | re.IGNORECASE):
            found[system] = match[0].partition(": ")[2].strip()
    return found


def the_one(found: dict[str, str]) -> str:
    """The batch system to use; where there is none, `local`, which needs nothing."""
    if len(found) > 1:
        raise ConfigError(
            f"there are several batch systems here: {', '.join(found)}\nsay which: --queue {next(iter(found))}"
        )
    return next(iter(found), "local")
