"""What a run's processes are told: argv and environment; and the shell around a rank, run for real."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from fixtures import folder

from hpclab.inside.program_plan import (
    ProgramPlan,
    rank_of,
    rank_variables,
    ranks_argv,
    script_variables,
    wants_end,
    workers_argv,
)
from hpclab.job import Program

GIB = 2**30


def a_plan(**changes: object) -> ProgramPlan:
    given = {
        "folder": folder(),
        "job_id": "17",
        "program": Program(script="model.py", folder="/home/ada", arguments=("a 'b'", "two\nlines")),
        "launch": "mpi",
        "tasks": 5,
        "nthreads": 4,
        "memory_bytes": 8 * GIB,
        "gpus": 0,
        "death_timeout_s": 60,
        "end_time": 1_700_000_000.5,
        "interface": "",
        "system": "slurm",
    }
    return ProgramPlan(**{**given, **changes})


def test_a_plan_goes_through_one_word_and_comes_back():
    assert "\n" not in a_plan().to_text()
    assert ProgramPlan.from_text(a_plan().to_text()) == a_plan()


@pytest.mark.parametrize(("launch", "workers"), [("mpi", 3), ("file", 5)])
def test_the_tasks_that_are_workers(launch, workers):
    assert a_plan(launch=launch).workers == workers


def test_no_argv_holds_a_secret():
    for argv in (ranks_argv(a_plan(), "python"), workers_argv(a_plan(), "python", count=1)):
        assert not [word for word in argv if "key" in word.lower() or "token" in word.lower()]


def test_all_that_a_script_finds_is_closed():
    for found in (rank_variables(a_plan(), 1, "/scratch", {}), script_variables(a_plan(launch="file"), "tls://n1:1")):
        assert found["DASK_DISTRIBUTED__COMM__REQUIRE_ENCRYPTION"] == "True"
        assert found["DASK_DISTRIBUTED__COMM__DEFAULT_SCHEME"] == "tls"
    assert rank_variables(a_plan(), 1, "/scratch", {})["DASK_DISTRIBUTED__WORKER__HTTP__ROUTES"] == "[]"


def test_a_script_beside_its_workers_is_told_where_they_are():
    found = script_variables(a_plan(launch="file"), "tls://n1:1")
    assert found["DASK_SCHEDULER_ADDRESS"] == "tls://n1:1"
    assert found["HPCLAB_PROGRAM_WORKERS"] == "5"
    assert found["HPCLAB_SCHEDULER_FILE"] == folder().scheduler


def test_a_rank_of_the_script_is_not_told_of_a_scheduler():
    assert not {"DASK_SCHEDULER_ADDRESS", "HPCLAB_PROGRAM_WORKERS"} & set(rank_variables(a_plan(), 1, "/scratch", {}))


@pytest.mark.parametrize(("rank", "has"), [(0, False), (1, False), (2, True)])
def test_only_workers_have_libraries_with_one_thread(rank, has):
    assert ("OMP_NUM_THREADS" in rank_variables(a_plan(), rank, "/scratch", {})) == has


@pytest.mark.parametrize(("system", "tasks"), [("slurm", "5"), ("sge", None)])
def test_slurms_own_variables_tell_of_a_task(system, tasks):
    found = rank_variables(a_plan(system=system), 1, "/scratch", {})
    assert found.get("SLURM_NTASKS") == tasks
    assert found.get("SLURM_MEM_PER_CPU") == (tasks and "2048")
    assert (found["HPCLAB_CPUS_PER_TASK"], found["HPCLAB_MEMORY_PER_TASK"]) == ("4", str(8 * GIB))


@pytest.mark.parametrize(
    ("environ", "rank"),
    [
        ({}, None),
        ({"PMI_RANK": "3", "SLURM_PROCID": "0"}, 3),
        ({"OMPI_COMM_WORLD_RANK": "2", "PMIX_RANK": "2"}, 2),
        ({"SLURM_PROCID": "0"}, 0),
        ({"PMI_RANK": "x"}, None),
    ],
)
def test_a_task_knows_its_number_by_its_launcher(environ, rank):
    assert rank_of(environ) == rank


# the shell around a rank


ASKS = """
import os, sys
from pathlib import Path
from hpclab.inside.program_plan import wants_end
end, scratch, *how = sys.argv[1:]
Path(wants_end(scratch, os.getppid())).write_text(end + "\\n")
exec(how[0])
"""


@pytest.mark.parametrize(
    ("how", "status"), [("", 0), ("sys.exit(7)", 7), ("os._exit(3)", 3), ("os.kill(os.getpid(), 9)", 137)]
)
def test_how_a_rank_ended_is_told_to_who_asked_for_it(tmp_path, how, status):
    shell = ranks_argv(a_plan(), sys.executable)[:4]
    end = tmp_path / "rank 1"
    argv = [*shell, sys.executable, "-P", "-c", ASKS, str(end), str(tmp_path), how]
    done = subprocess.run(argv, env={**os.environ, "HPCLAB_SCRATCH": str(tmp_path)}, timeout=30, check=False)
    assert (done.returncode, end.read_text()) == (status, f" {status}\n")


def test_of_a_rank_that_nobody_asked_about_nothing_is_told(tmp_path):
    shell = ranks_argv(a_plan(), sys.executable)[:4]
    env = {**os.environ, "HPCLAB_SCRATCH": str(tmp_path)}
    done = subprocess.run([*shell, "sh", "-c", "exit 5"], env=env, capture_output=True, timeout=30, check=False)
    assert (done.returncode, done.stderr, list(tmp_path.iterdir())) == (5, b"", [])


def test_each_shell_has_a_file_of_its_own():
    assert wants_end("/scratch", 1) != wants_end("/scratch", 2)
    assert Path(wants_end("/scratch", 1)).parent == Path("/scratch")


def test_the_plan_is_plain_json():
    assert json.loads(a_plan().to_text())["folder"] == folder().path
