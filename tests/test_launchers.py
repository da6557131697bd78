"""MPI launchers, told apart by their own words."""

from __future__ import annotations

import subprocess

import pytest

from hpclab.launchers import MPI_VARIABLES, family, het_srun_argv, launcher_argv, without_mpi

HYDRA = """\
HYDRA build details:
    Version:                                 4.2.1
    Release Date:                            Wed Apr 17 15:30:02 CDT 2024
    CC:                              gcc
    Configure options:                       '--disable-option-checking' '--prefix=/usr' '--with-pmix=/usr' 'CC=gcc'
    Process Manager:                         pmi
    Launchers available:                     ssh rsh fork slurm ll lsf sge manual persist
    Topology libraries available:            hwloc
    Resource management kernels available:   user slurm ll lsf sge pbs cobalt
    Demux engines available:                 poll select
"""
INTEL = """\
Intel(R) MPI Library for Linux* OS, Version 2021.12 Build 20240213 (id: 4f55822)
Copyright 2003-2024, Intel Corporation.
"""
OPEN_MPI_2 = "mpiexec (OpenRTE) 2.1.1\n\nReport bugs to http://www.open-mpi.org/community/help/\n"
OPEN_MPI_4 = "mpirun (Open MPI) 4.1.4\n\nReport bugs to http://www.open-mpi.org/community/help/\n"
OPEN_MPI_4_DEBIAN = "mpiexec.openmpi (OpenRTE) 4.1.4\n\nReport bugs to http://www.open-mpi.org/community/help/\n"
OPEN_MPI_5 = "mpirun (Open MPI) 5.0.3\n\nReport bugs to https://www.open-mpi.org/community/help/\n"
OPEN_MPI_6 = "mpirun (Open MPI) 6.0.0\n\nReport bugs to https://www.open-mpi.org/community/help/\n"
PRRTE = "prterun (PRRTE) 3.0.5\n\nReport bugs to https://github.com/openpmix/prrte/\n"

VERSIONS = [
    (HYDRA, "hydra"),
    (INTEL, "hydra"),
    (OPEN_MPI_2, "openmpi"),
    (OPEN_MPI_4, "openmpi"),
    (OPEN_MPI_4_DEBIAN, "openmpi"),
    (OPEN_MPI_5, "prrte"),
    (OPEN_MPI_6, "prrte"),
    (PRRTE, "prrte"),
    ("slurm 23.11.4\n", "srun"),
    ("slurm-wlm 22.05.8\n", "srun"),
    ("mpiexec version 1.2.12\n", "unknown"),
    ("mpiexec: unrecognized option '--version'\n", "unknown"),
    ("", "unknown"),
]


@pytest.mark.parametrize(("version", "expected"), VERSIONS)
def test_a_launcher_is_known_by_its_words(version, expected):
    assert family(version) == expected


@pytest.mark.parametrize(("version", "_"), VERSIONS)
def test_every_launcher_starts_the_ranks_of_the_program(version, _):
    argv = launcher_argv(["mpiexec", "--site"], version, ranks=3, program=["dask-mpi", "--nthreads", "1"])
    assert argv[:2] == ["mpiexec", "--site"]
    assert argv[argv.index("-n") + 1] == "3"
    assert argv[-3:] == ["dask-mpi", "--nthreads", "1"]


def test_a_rank_of_hydra_that_is_killed_ends_with_an_exit_status():
    argv = launcher_argv(["mpiexec"], "HYDRA build details:", ranks=1, program=["/bin/sh", "-c", "kill -9 $$"])
    rank = argv[argv.index("1") + 1 :]
    assert subprocess.run(rank, capture_output=True, timeout=10).returncode == 137


@pytest.mark.parametrize(
    ("version", "options"),
    [
        (HYDRA, ["-disable-auto-cleanup"]),
        (OPEN_MPI_4, ["--mca", "orte_enable_recovery", "1"]),
        (OPEN_MPI_5, ["--enable-recovery"]),
    ],
)
def test_the_loss_of_one_rank_is_not_the_loss_of_all(version, options):
    argv = launcher_argv(["mpiexec"], version, ranks=3, program=["dask-mpi"])
    assert argv[1 : 1 + len(options)] == options


def test_of_an_unknown_launcher_nothing_is_asked_that_it_may_not_know():
    argv = launcher_argv(["aprun"], "", ranks=2, program=["x"])
    assert argv[:4] == ["aprun", "-n", "2", "/bin/sh"]
    assert argv[-1] == "x"


@pytest.mark.parametrize(("version", "mpi"), [(HYDRA, "--mpi=pmi2"), (OPEN_MPI_4, "--mpi=pmix"), (PRRTE, "--mpi=pmix")])
def test_over_a_heterogeneous_job_srun_starts_one_world(version, mpi):
    argv = het_srun_argv("/usr/bin/srun", version, components=3, program=["dask-mpi", "--x"])
    options = argv[: argv.index("/bin/sh")]
    assert options[0] == "/usr/bin/srun"
    assert {mpi, "--het-group=0,1,2", "--kill-on-bad-exit=0", "--cpu-bind=none"} <= set(options)
    assert argv[-2:] == ["dask-mpi", "--x"]


def test_of_an_unknown_mpi_srun_has_its_own_default():
    argv = het_srun_argv("srun", "", components=2, program=["x"])
    assert not [word for word in argv if word.startswith("--mpi")]


# the shell around a rank


def rank(program: str, **env: str) -> subprocess.CompletedProcess[str]:
    argv = launcher_argv(["mpiexec"], "", ranks=1, program=["/bin/sh", "-c", program])[3:]
    env = {"PATH": "/usr/bin:/bin", **env}
    return subprocess.run(argv, env=env, capture_output=True, text=True, timeout=10, check=False)


@pytest.mark.parametrize(("ending", "exit_status"), [("exit 0", 0), ("exit 3", 3), ("kill -9 $$", 137)])
def test_on_another_node_a_rank_has_a_scratch_folder_of_its_own_for_as_long_as_it_lives(tmp_path, ending, exit_status):
    program = f'[ -d "$HPCLAB_SCRATCH" ] && touch "$HPCLAB_SCRATCH/x" && echo "$HPCLAB_SCRATCH"; {ending}'
    done = rank(program, TMPDIR=str(tmp_path), HPCLAB_SCRATCH="/no/such/folder")
    assert done.stdout.startswith(f"{tmp_path}/hpclab-")
    assert (done.returncode, list(tmp_path.iterdir())) == (exit_status, [])


def test_on_the_jobs_own_node_the_scratch_folder_is_the_jobs_and_stays(tmp_path):
    done = rank('echo "$HPCLAB_SCRATCH"', TMPDIR="/tmp", HPCLAB_SCRATCH=str(tmp_path))
    assert done.stdout == f"{tmp_path}\n"
    assert tmp_path.exists()


def test_the_word_of_hydra_that_another_rank_died_does_not_end_this_one(tmp_path):
    assert rank("kill -USR1 $PPID; exit 3", HPCLAB_SCRATCH=str(tmp_path)).returncode == 3


def test_a_notebook_does_not_believe_to_be_a_rank():
    rank = {
        "PMI_RANK": "0",
        "PMI_SIZE": "3",
        "PMI_FD": "7",
        "PMIX_RANK": "0",
        "PMIX_SERVER_URI41": "prterun-1@0.0;tcp4://10.0.0.1:4000",
        "OMPI_COMM_WORLD_RANK": "0",
        "OMPI_MCA_ess": "env",
        "PRTE_MCA_prte_ess": "env",
        "HYDI_CONTROL_FD": "5",
        "HYDRA_LAUNCHER": "fork",
        "MPI_LOCALNRANKS": "3",
        "MPI_LOCALRANKID": "0",
        "MPIR_CVAR_CH4_OFI_ENABLE_TAGGED": "1",
        "I_MPI_HYDRA_BOOTSTRAP": "fork",
        "FLUX_PMI_LIBRARY_PATH": "/usr/lib/flux/libpmi.so",
    }
    assert without_mpi(rank) == {}


def test_what_is_not_the_launchers_stays():
    kept = {"PATH": "/bin", "HOME": "/home/ada", "OMP_NUM_THREADS": "1", "MPI4PY_RC_THREADS": "1", "SLURM_JOB_ID": "17"}
    assert without_mpi({**kept, "PMI_RANK": "0"}) == kept


def test_the_environment_that_was_given_is_left_alone():
    given = {"PMI_RANK": "0"}
    without_mpi(given)
    assert given == {"PMI_RANK": "0"}


@pytest.mark.parametrize("prefix", MPI_VARIABLES)
def test_every_prefix_takes_part(prefix):
    assert without_mpi({prefix + "X": "1"}) == {}
