"""The second MPI of the tests, which `scripts/test` installs beside the environment, and not on PATH."""

from pathlib import Path

OPEN_MPI = Path(__file__).parents[2] / ".venv/openmpi"
MPIEXEC = str(OPEN_MPI / "bin/mpiexec")
ENVIRON = {
    "LD_LIBRARY_PATH": str(OPEN_MPI / "lib"),
    "MPI4PY_MPIABI": "openmpi",
    "OMPI_ALLOW_RUN_AS_ROOT": "1",
    "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
}
