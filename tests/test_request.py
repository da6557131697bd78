"""What a session's jobs ask for and run: settings in, job scripts out."""

from __future__ import annotations

import json
import shlex
import subprocess
from dataclasses import replace

import pytest
from fixtures import folder, settings

from hpclab.batch import BATCH_SYSTEMS
from hpclab.errors import ConfigError
from hpclab.job import Chunk, Program, Shape
from hpclab.request import Request, shaped

GB = 2**30


def request_of(system: str = "local", partition: str = "", **changes: object) -> Request:
    return Request(
        folder=folder(),
        system=system,
        partition=partition,
        settings=settings(notebook_dir="/home/ada/my work", **changes),
        python="/opt/python",
    )


def worker_script(request: Request, **asked: object) -> str:
    return request.worker_script(request.worker_record(**asked))


def program(script: str) -> list[str]:
    """The words of the job's one program."""
    return shlex.split(script.splitlines()[-1])


def option(script: str, name: str) -> str | None:
    words = program(script)
    return words[words.index(name) + 1] if name in words else None


# what is asked for


@pytest.mark.parametrize(
    ("nodes", "workers", "expected"),
    [(1, 1, 1), (1, 3, 3), (2, 1, 1), (4, 1, 3), (4, 6, 6)],
)
def test_every_node_of_the_main_job_has_a_worker_or_the_scheduler(nodes, workers, expected):
    request = request_of("slurm", nodes=nodes, workers=workers)
    assert request.main_record.workers == expected
    assert option(request.main_script(), "--workers") == str(expected)


def test_the_main_job_asks_for_a_small_chunk_for_the_scheduler_and_then_for_its_workers():
    request = request_of(
        workers=3, cores=4, memory_bytes=8 * GB, gpus=2, scheduler_cores=1, scheduler_memory_bytes=2 * GB
    )
    assert request.main_chunks() == (
        Chunk(count=1, cores=1, memory_bytes=2 * GB),
        Chunk(count=3, cores=4, memory_bytes=8 * GB, gpus=2),
    )


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({}, (2, 4, 8 * GB, 600, 1)),
        ({"workers": 5}, (5, 4, 8 * GB, 600, 1)),
        ({"cores": 1, "memory_bytes": GB, "walltime_s": 60}, (2, 1, GB, 60, 1)),
        # none is an answer, too
        ({"gpus": 0}, (2, 4, 8 * GB, 600, 0)),
    ],
)
def test_a_worker_job_asks_for_what_the_session_has_but_for_what_is_given(asked, expected):
    request = request_of(workers_per_job=2, cores=4, memory_bytes=8 * GB, worker_walltime_s=600, gpus=1)
    record = request.worker_record(**asked)
    assert (record.workers, record.cores, record.memory_bytes, record.walltime_s, record.gpus) == expected
    assert record.role == "worker"


@pytest.mark.parametrize(
    ("nodes", "cores", "workers", "cores_each"),
    [(4, 16, 3, 16), (2, 16, 1, 16), (1, 16, 1, 14), (1, 2, 1, 1), (1, 1, 1, 1)],
)
def test_a_shape_is_all_that_the_main_job_asks_for(nodes, cores, workers, cores_each):
    given = shaped(settings(workers=9, memory_bytes=GB, scheduler_cores=2), Shape(nodes=nodes, cores=cores))
    assert (given.nodes, given.workers, given.cores, given.memory_bytes) == (nodes, workers, cores_each, GB)


# what they run


@pytest.mark.parametrize(
    ("changes", "name", "value"),
    [
        ({}, "--nodes", None),
        ({"nodes": 4}, "--nodes", "4"),
        ({}, "--keep", None),
        ({"keep": 7}, "--keep", "7"),
        ({}, "--bind", None),
        ({"bind": "loopback"}, "--bind", "loopback"),
        ({}, "--interface", ""),
        ({"interface": "ib0"}, "--interface", "ib0"),
        ({"cores": 6}, "--nthreads", "6"),
        ({"memory_bytes": 3 * GB}, "--memory", str(3 * GB)),
        ({"mpiexec": "mpirun --site"}, "--mpiexec", "mpirun --site"),
        ({}, "--root-dir", "/home/ada/my work"),
        ({}, "--expect-versions", None),
    ],
)
def test_the_main_job_is_told_its_settings(changes, name, value):
    assert option(request_of("slurm", **changes).main_script(), name) == value


def test_the_main_job_is_told_the_versions_that_it_must_have():
    script = replace(request_of(), versions="python 3.11, dask 2026.8.0").main_script()
    assert option(script, "--expect-versions") == "python 3.11, dask 2026.8.0"


@pytest.mark.parametrize(
    ("changes", "asked", "name", "value"),
    [
        ({}, {}, "--gpus", None),
        ({"gpus": 2}, {}, "--gpus", "2"),
        ({"gpus": 2}, {"gpus": 1}, "--gpus", "1"),
        ({}, {"workers": 4}, "--workers", "4"),
        ({"drain_s": 120}, {"walltime_s": 60}, "--drain", "15"),
    ],
)
def test_a_worker_job_is_told_its_settings(changes, asked, name, value):
    assert option(worker_script(request_of(**changes), **asked), name) == value


@pytest.mark.parametrize("check", [True, False])
def test_a_worker_job_compares_versions_unless_it_shall_not(check):
    assert ("--any-versions" in program(worker_script(request_of(check_versions=check)))) != check


@pytest.mark.parametrize(
    ("system", "interface", "told"),
    [("local", "auto", "loopback"), ("slurm", "auto", ""), ("slurm", "ib0", "ib0"), ("local", "eth0", "eth0")],
)
def test_only_on_this_machine_dask_stays_within_the_machine(system, interface, told):
    assert request_of(system, interface=interface).interface == told


def test_both_kinds_of_jobs_have_the_environment():
    request = request_of(
        modules=("gcc",),
        venv="/v",
        export=("A=b c",),
        prologue=("ulimit -n 4096",),
        container="x.sif",
        binds=("/data",),
    )
    for script in (request.main_script(), worker_script(request)):
        for line in [
            "module load gcc || hpclab_unfit 'module load gcc'",
            ". /v/bin/activate || hpclab_unfit '. /v/bin/activate'",
            "export A='b c'",
            "ulimit -n 4096",
        ]:
            assert f"\n{line}\n" in script
        assert '--bind "$hpclab_session" --bind "$HPCLAB_SCRATCH" --bind /data x.sif' in script
        assert program(script)[:5] == ["hpclab_run", "python", "-P", "-m", program(script)[4]]


# the directives


@pytest.mark.parametrize("system", BATCH_SYSTEMS)
def test_every_batch_system_has_scripts_that_bash_can_read(system):
    request = request_of(system, workers=2, cores=4)
    for script in (request.main_script(), worker_script(request)):
        assert script.startswith(f"#!/bin/bash\n{BATCH_SYSTEMS[system].DIRECTIVE} ")
        subprocess.run(["bash", "-n"], input=script, text=True, check=True, timeout=10)


def directives(script: str) -> list[str]:
    return [line.removeprefix("#SBATCH ") for line in script.splitlines() if line.startswith("#SBATCH ")]


def test_the_request_reaches_the_batch_system():
    request = request_of("slurm", "short", account="a", qos="q", constraint="ib", extra=("--exclusive",))
    for script, job_name in ((request.main_script(), ""), (worker_script(request), "-worker")):
        wanted = {"--partition=short", "--account=a", "--qos=q", "--constraint=ib", "--exclusive"}
        assert {*wanted, f"--job-name=hpclab-calm-otter{job_name}"} <= set(directives(script))


def test_a_worker_job_is_on_one_node_however_many_the_main_job_has():
    request = request_of("slurm", nodes=4)
    assert "--nodes=1" in directives(worker_script(request))
    assert "--nodes=4" in directives(request.main_script())


def test_a_setting_of_one_batch_system_reaches_it():
    assert "--mem-per-cpu=1024M" in directives(worker_script(request_of("slurm", slurm_memory="cpu", cores=2)))


@pytest.mark.parametrize(
    ("skip", "gone"),
    [
        ((), []),
        (("--mem",), ["--mem=2048M"]),
        (("--no-requeue", "--open-mode"), ["--no-requeue", "--open-mode=append"]),
    ],
)
def test_directives_that_the_site_refuses_are_left_out(skip, gone):
    everything = directives(worker_script(request_of("slurm")))
    assert set(gone) <= set(everything)
    assert directives(worker_script(request_of("slurm", skip=skip))) == [
        line for line in everything if line not in gone
    ]


def test_what_the_user_adds_is_never_left_out():
    left = directives(worker_script(request_of("slurm", skip=("--mem",), extra=("--mem=0",))))
    assert "--mem=0" in left
    assert "--mem=2048M" not in left


# by hand


@pytest.mark.parametrize("which", ["start", "add-worker"])
def test_a_script_by_hand_is_for_several_batch_systems(which):
    script = request_of("slurm").hand_script(which, ["slurm", "pbs"])
    subprocess.run(["bash", "-n"], input=script, text=True, check=True, timeout=10)
    assert "\n#SBATCH --ignore-pbs\n" in script
    assert "\n#PBS " in script
    assert folder().path not in script


# a run


MODEL = Program(script="model.py", folder="/home/ada/my work", arguments=("-n", "a 'b'", "two\nlines"))


def run_of(**changes: object) -> Request:
    system = str(changes.pop("system", "slurm"))
    return replace(request_of(system, **changes), program=MODEL)


@pytest.mark.parametrize(
    ("launch", "chunks", "workers"),
    [
        ("mpi", (Chunk(count=2, cores=1, memory_bytes=GB), Chunk(count=3, cores=4, memory_bytes=8 * GB, gpus=1)), 3),
        ("file", (Chunk(count=5, cores=4, memory_bytes=8 * GB, gpus=1),), 5),
    ],
)
def test_scheduler_and_script_have_small_ranks_of_their_own_or_none(launch, chunks, workers):
    changes = {"scheduler_cores": 1, "scheduler_memory_bytes": GB, "cores": 4, "memory_bytes": 8 * GB, "gpus": 1}
    request = run_of(launch=launch, ntasks=5, **changes)
    assert request.main_chunks() == chunks
    assert (request.main_record.role, request.main_record.workers) == ("main", workers)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"ntasks": 2}, "ask for --ntasks 3 or more, or say --launch file"),
        ({"ntasks": 1}, "ask for --ntasks 3 or more"),
        ({"ntasks": 3, "nodes": 4}, "ask for --ntasks 5 or more, or for fewer nodes"),
        ({"ntasks": 3, "nodes": 4, "launch": "file"}, "ask for --ntasks 4 or more"),
    ],
)
def test_a_run_with_too_few_tasks_is_refused(changes, said):
    with pytest.raises(ConfigError, match=f"--ntasks {changes['ntasks']} is too few") as refused:
        run_of(**changes).main_script()
    assert said in str(refused.value)


@pytest.mark.parametrize(
    "changes", [{"ntasks": 3}, {"ntasks": 1, "launch": "file"}, {"ntasks": 5, "nodes": 4}], ids=str
)
def test_as_many_tasks_as_are_needed_will_do(changes):
    assert run_of(**changes).main_record.workers >= 1


@pytest.mark.parametrize(
    ("changes", "name", "value"),
    [
        ({}, "--launch", "mpi"),
        ({"launch": "file"}, "--launch", "file"),
        ({"ntasks": 6}, "--tasks", "6"),
        ({}, "--system", "slurm"),
        ({"cores": 6}, "--nthreads", "6"),
        ({"memory_bytes": 3 * GB}, "--memory", str(3 * GB)),
        ({}, "--gpus", None),
        ({"gpus": 2}, "--gpus", "2"),
        ({}, "--nodes", None),
        ({"nodes": 2}, "--nodes", "2"),
        ({"mpiexec": "mpirun --site"}, "--mpiexec", "mpirun --site"),
        ({"interface": "ib0"}, "--interface", "ib0"),
        ({}, "--program", MODEL.to_text()),
    ],
)
def test_a_runs_job_is_told_its_settings(changes, name, value):
    script = run_of(**changes).main_script()
    assert "hpclab.inside.program" in program(script)
    assert option(script, name) == value


def test_the_arguments_of_a_script_do_not_break_the_lines_of_its_job():
    assert Program.from_dict(json.loads(option(run_of().main_script(), "--program") or "")) == MODEL


def test_a_runs_job_has_the_environment_that_a_session_has():
    script = run_of(modules=("python",), container="/images/a.sif", export=("A=b",)).main_script()
    for line in ("module load python", "export A=b", "hpclab_run python -P -m hpclab.inside.program "):
        assert line in script
