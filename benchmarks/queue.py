"""What hpclab adds to Slurm's own commands, and its worker jobs against those of dask-jobqueue, on a little cluster.

Both sorts of worker jobs are timed alike: from a line put before all else in the job's script until somebody on the
login node, who asks the scheduler every 20 ms, sees all its workers. dask-jobqueue encrypts nothing; hpclab does.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, cast

from minihpc.cluster import Cluster, Node, folders, little_cluster, until

from benchmarks import table
from hpclab.folder import SessionFolder
from hpclab.inside.environ import dask_tls

JOBS, MANY_JOBS, RUNNING_JOBS = 100, 200, 4
MEMORY = "1GB"
ALLOWANCE_MS = 300
"""What hpclab's commands may take on top: Python starts, and the session's folder is read."""
ARRAY_FACTOR = 1.5
CALLS_TARGET = 1
JOB_TARGETS = {1: 0.5, 8: 0.35}
"""By the workers of a job: the ratio that its time should not exceed."""
CLIENTS = ("sbatch", "squeue", "sacct", "scancel", "scontrol", "sinfo")
TOO_LONG_S = 120

JOBQUEUE = "0.9.0"
JOBQUEUE_SESSION = Path(__file__).with_name("by_hand") / "jobqueue_session.py"
LOGIN_INTERFACE, NODE_INTERFACE = "int0", "eth0"
FIRST_LINES = "/home/ada/first-lines"
FIRST_LINE = f'echo "$EPOCHREALTIME" >"{FIRST_LINES}/$SLURM_JOB_ID"'
WATCHER = """
import sys, time
from distributed import Client
with Client(**{sys.argv[1]: sys.argv[2]}) as client:
    for line in sys.stdin:
        deadline = time.time() + float(sys.argv[3])
        while (workers := len(client.nthreads())) != int(line):
            if time.time() > deadline:
                sys.exit(f"{workers} workers are registered where {line.strip()} should be")
            time.sleep(0.02)
        print(time.time(), flush=True)
"""


@dataclass(frozen=True)
class Talk:
    """A program on the login node that answers lines with lines."""

    program: subprocess.Popen[str]
    log: Path

    def say(self, line: object) -> None:
        assert self.program.stdin
        print(line, file=self.program.stdin, flush=True)

    def hear(self) -> str:
        assert self.program.stdout
        if not (line := self.program.stdout.readline()):
            sys.exit(f"a program on the login node has ended:\n{self.log.read_text()}")
        return line.rstrip("\n")


@contextmanager
def talk(login: Node, *argv: str, env: dict[str, str]) -> Iterator[Talk]:
    """Ends with the block, when its stdin does."""
    path = login.file("/tmp/bench.log")
    with path.open("a") as log:
        streams = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": log}
        program = login.popen(argv, env=env, **streams)
    with program:
        yield Talk(program, path)


def took_ms(login: Node, command: str) -> float:
    """Of a shell command, in a login shell that is up already."""
    said = "/tmp/said"
    timed = f"TIMEFORMAT=%3R; time {{ {command}; }} >{said} 2>&1 || {{ cat {said} >&2; exit 1; }}"
    return 1000 * float(login.run(timed).stderr)


@contextmanager
def session(cluster: Cluster, name: str, *, workers_per_job: int = 1) -> Iterator[dict[str, Any]]:
    switch(cluster, "up")
    env = {"HPCLAB_WORKERS_PER_JOB": str(workers_per_job)}
    resources = ("--cores", "1", "--memory", MEMORY)
    yield cluster.hpclab("start", "--queue", "slurm", "--name", name, *resources, json=True, env=env, timeout_s=120)
    cluster.hpclab("stop", name)


def switch(cluster: Cluster, state: str) -> None:
    """The partition `up` or `down`: down, what runs goes on, and what is submitted waits."""
    cluster.on("login", user="root").run(["scontrol", "update", "partition=regular", f"state={state}"])


def submitting(cluster: Cluster, runs: int) -> list[table.Measurement]:
    """A hundred worker jobs: with hpclab, and the session's own script submitted by hand."""
    script = "~/.hpclab/sessions/{}/add-one-worker.sh"
    commands = {
        f"sbatch, {JOBS} times": f"for job in $(seq {JOBS}); do sbatch {script}; done",
        f"sbatch --array=1-{JOBS}": f"sbatch --array=1-{JOBS} {script}",
        f"hpclab add-worker -n {JOBS}": f"hpclab add-worker -n {JOBS} -s {{}}",
    }
    times: dict[str, list[float]] = {what: [] for what in commands}
    for number in range(runs):
        name = f"submit-{number}"  # a new one each time: jobs of earlier rounds are not this one's
        with session(cluster, name):
            switch(cluster, "down")
            for what, command in commands.items():
                cluster.on("login").run("scancel --me --state=pending")
                times[what].append(took_ms(cluster.on("login"), command.format(name)))
        told = "; ".join(f"{what}: {values[-1]:.0f} ms" for what, values in times.items())
        print(f"round {number + 1}: {told}", flush=True)
    rows = [measurement(what, "ms", values) for what, values in times.items()]
    array = median(rows[1].values)
    return [*rows[:2], measurement(rows[2].what, "ms", rows[2].values, ARRAY_FACTOR * array + ALLOWANCE_MS)]


def asking(cluster: Cluster, runs: int) -> list[table.Measurement]:
    """How two hundred worker jobs are, of which a few run."""
    login, name = cluster.on("login"), "crowded"
    with session(cluster, name):
        cluster.hpclab("add-worker", "-n", str(RUNNING_JOBS), "-s", name)
        until(lambda: joined(cluster, name) == 1 + RUNNING_JOBS, within_s=60, what="the workers that shall run")
        switch(cluster, "down")
        cluster.hpclab("add-worker", "-n", str(MANY_JOBS - RUNNING_JOBS), "-s", name)
        times = [(took_ms(login, "squeue --me"), took_ms(login, f"hpclab status {name}")) for _ in range(runs)]
        calls = [client_calls(cluster, f"hpclab status {name}") for _ in range(2)]
    squeue, status = zip(*times, strict=True)
    return [
        measurement(f"squeue --me ({MANY_JOBS} jobs)", "ms", squeue),
        measurement(f"hpclab status ({MANY_JOBS} jobs)", "ms", status, median(squeue) + ALLOWANCE_MS),
        measurement("  Slurm's clients are called", "×", calls, CALLS_TARGET),
    ]


def joined(cluster: Cluster, name: str) -> int:
    return cast(int, cluster.hpclab("status", name, json=True)["workers"]["joined"])


def client_calls(cluster: Cluster, command: str) -> int:
    """How often a command calls the batch system's: by others of the same names, first on PATH, that take notes."""
    login, bin_folder = cluster.on("login"), cluster.state / "srv/bin"
    notes = login.file("/tmp/calls")
    wrappers = [bin_folder / name for name in CLIENTS]
    for wrapper in wrappers:
        wrapper.write_text(f'#!/bin/bash\necho {wrapper.name} >>/tmp/calls\nexec /usr/bin/{wrapper.name} "$@"\n')
        wrapper.chmod(0o755)
    notes.unlink(missing_ok=True)
    login.run(command)
    for wrapper in wrappers:
        wrapper.unlink()
    return len(notes.read_text().splitlines()) if notes.exists() else 0


def measurement(what: str, unit: str, values: Sequence[float], target: float | None = None) -> table.Measurement:
    return table.Measurement(what=what, unit=unit, values=tuple(values), target=target)


@dataclass(frozen=True, kw_only=True)
class Way:
    """One way to worker jobs: how to submit one and to end it, and who watches its scheduler."""

    cluster: Cluster
    submit: Callable[[], object]
    end: Callable[[str], object]
    watcher: Talk
    others: int = 0
    """Workers that the scheduler has without it."""

    def run(self, workers: int) -> float:
        """Seconds from the job's first line to all its workers."""
        login = self.cluster.on("login")
        notes = login.file(FIRST_LINES)
        for note in notes.iterdir():
            note.unlink()
        self.watcher.say(self.others + workers)
        self.submit()
        registered = float(self.watcher.hear())
        (note,) = notes.iterdir()
        first_line, job_id = float(note.read_text()), note.name
        self.end(job_id)
        self.watcher.say(self.others)
        self.watcher.hear()
        until(lambda: not login.says(f"squeue -h --me -o %i | grep -x {job_id} || true"), what="the job's end")
        return registered - first_line


@contextmanager
def with_jobqueue(cluster: Cluster, overlay: Path, workers: int) -> Iterator[Way]:
    login = cluster.on("login")
    program = cluster.state / "srv" / JOBQUEUE_SESSION.name
    program.write_bytes(JOBQUEUE_SESSION.read_bytes())
    program.chmod(0o644)
    argv = ("python", f"/srv/{program.name}", str(workers), MEMORY, LOGIN_INTERFACE, NODE_INTERFACE, FIRST_LINE)
    with talk(login, *argv, env={"PYTHONPATH": str(overlay)}) as jobqueue:
        address = jobqueue.hear()
        with talk(login, "python", "-c", WATCHER, "address", address, str(TOO_LONG_S), env={}) as watcher:
            yield Way(
                cluster=cluster,
                submit=lambda: jobqueue.say(1),
                end=lambda _: jobqueue.say(0),
                watcher=watcher,
            )


@contextmanager
def with_hpclab(cluster: Cluster, workers: int) -> Iterator[Way]:
    login, name = cluster.on("login"), f"worker-jobs-{workers}"
    with session(cluster, name, workers_per_job=workers) as described:
        folder = SessionFolder(described["folder"])
        script = login.file(folder.worker_script)
        head, *body = script.read_text().split("\n\n", 1)  # the directives, and what is run
        script.write_text("\n\n".join((head, FIRST_LINE, *body)))
        argv = ("python", "-c", WATCHER, "scheduler_file", folder.scheduler, str(TOO_LONG_S))
        with talk(login, *argv, env=dask_tls(folder)) as watcher:
            yield Way(
                cluster=cluster,
                submit=lambda: cluster.hpclab("add-worker", "-s", name),
                end=lambda job_id: login.run(["scancel", job_id]),
                watcher=watcher,
                others=1,
            )


def joining(cluster: Cluster, overlay: Path, runs: int) -> list[table.Comparison]:
    """Worker jobs, from their first line until their workers are there."""
    cluster.on("login").run(["mkdir", FIRST_LINES])
    rows = []
    for workers, target in JOB_TARGETS.items():
        pairs = []
        with with_jobqueue(cluster, overlay, workers) as before, with_hpclab(cluster, workers) as ours:
            for number in range(runs):
                pairs.append((before.run(workers), ours.run(workers)))
                told = "{:.2f} s with dask-jobqueue, {:.2f} s with hpclab".format(*pairs[-1])
                print(f"pair {number + 1} of {workers}: {told}", flush=True)
        rows.append(
            table.Comparison(
                what=f"{workers} worker{'s' if workers > 1 else ''}",
                unit="s",
                before=tuple(before for before, _ in pairs),
                ours=tuple(ours for _, ours in pairs),
                target=target,
            )
        )
    return rows


def jobqueue_folder() -> Path:
    """dask-jobqueue alone, beside the cluster's environment, whose Dask it uses; installed once."""
    environment, _ = folders()
    folder = environment.parent / f"dask-jobqueue-{JOBQUEUE}"
    if not folder.exists():
        new = folder.with_suffix(".new")
        pip = [str(environment / "bin/python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        done = subprocess.run([*pip, "--no-deps", "--target", new, f"dask-jobqueue=={JOBQUEUE}"], umask=0o022)
        if done.returncode:
            sys.exit(f"dask-jobqueue {JOBQUEUE} could not be installed into {new}")
        new.rename(folder)
    return folder


def is_met(row: table.Comparison | table.Measurement) -> bool:
    return row.target is None or median(row.ratios if isinstance(row, table.Comparison) else row.values) <= row.target


def main() -> None:
    given = table.arguments(__doc__, runs=5)
    overlay = jobqueue_folder()
    with little_cluster("slurm") as cluster:
        commands = submitting(cluster, given.runs) + asking(cluster, given.runs)
        jobs = joining(cluster, overlay, given.runs)
    table.show(
        f"queue: Slurm's commands and ours, {given.runs} rounds",
        ["command", "median", "least", "most", "target"],
        commands,
    )
    table.show(
        f"queue: first line of the job to workers registered, {given.runs} pairs",
        ["one job of", "dask-jobqueue", "hpclab", "ratio", "least", "most", "target"],
        jobs,
    )
    rows: list[table.Comparison | table.Measurement] = [*commands, *jobs]
    missed = ", ".join(row.what.strip() for row in rows if not is_met(row))
    print(f"targets missed: {missed}" if missed else "all targets are met")
    table.write(given.json, "queue", rows)


if __name__ == "__main__":
    main()
