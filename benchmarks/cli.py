"""How long a command takes, as typed, and what it costs: `hpclab --help`, and `hpclab status` with 200 worker jobs.

The session is a real one; its worker jobs are submitted, and wait for slots.
"""

from __future__ import annotations

import resource
import subprocess
import time
from dataclasses import dataclass

from benchmarks import table
from benchmarks.sandbox import BIN, Sandbox, sandbox

JOBS = 200
SLOTS = 2  # the main job's: one for the scheduler and JupyterLab, one for its worker
HELP_TARGET_S, STATUS_TARGET_S = 0.15, 0.3


@dataclass(frozen=True, kw_only=True)
class Run:
    """Of one command: seconds until it had ended, and seconds of a processor that it used, with its own commands."""

    wall: float
    cpu: float


def run(box: Sandbox, *arguments: str) -> Run:
    cpu, begin = _children_cpu_s(), time.perf_counter()
    subprocess.run([BIN / "hpclab", *arguments], env=box.env, stdout=subprocess.DEVNULL, check=True)
    return Run(wall=time.perf_counter() - begin, cpu=_children_cpu_s() - cpu)


def _children_cpu_s() -> float:
    """Of all commands that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main() -> None:
    given = table.arguments(__doc__, runs=20)
    commands = {("--help",): HELP_TARGET_S, ("status", "crowded"): STATUS_TARGET_S, ("status",): STATUS_TARGET_S}
    with sandbox() as box, box.session("crowded", local_slots=SLOTS):
        print(f"submitting {JOBS} worker jobs", flush=True)
        box.hpclab("add-worker", "--count", str(JOBS))
        measured = {arguments: [run(box, *arguments) for _ in range(given.runs)] for arguments in commands}
    rows = []
    for arguments, target in commands.items():
        command, runs = " ".join(("hpclab", *arguments)), measured[arguments]
        rows += [
            table.Measurement(what=command, unit="s", values=tuple(each.wall for each in runs), target=target),
            table.Measurement(what="  processor time", unit="s", values=tuple(each.cpu for each in runs)),
        ]
    heads = ["command", "median", "least", "most", "target"]
    table.show(f"cli: {JOBS} worker jobs, {given.runs} runs each", heads, rows)
    table.write(given.json, "cli", rows)


if __name__ == "__main__":
    main()
