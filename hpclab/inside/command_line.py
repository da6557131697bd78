"""What the scripts of all main jobs pass on to their supervisors, each of which adds what only its own has."""

from __future__ import annotations

import argparse
import os
import socket
from typing import Any

from hpclab.folder import SessionFolder
from hpclab.inside.plan import interface_name
from hpclab.versions import from_words


def parser(prog: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=prog)
    parser.add_argument("folder", type=SessionFolder)
    parser.add_argument("--nthreads", type=int, required=True)
    parser.add_argument("--memory", type=int, required=True, help="bytes per worker")
    parser.add_argument("--death-timeout", type=int, required=True)
    parser.add_argument("--start-timeout", type=int, required=True)
    parser.add_argument("--interface", default="")
    parser.add_argument("--mpiexec", default="auto")
    parser.add_argument("--nodes", type=int, default=1)
    parser.add_argument("--expect-versions", type=from_words, default={})
    return parser


def of_plan(given: argparse.Namespace) -> dict[str, Any]:
    """What every plan is made of, by what was given and the job's environment."""
    return {
        **_of_job(given),
        "nthreads": given.nthreads,
        "memory_bytes": given.memory,
        "death_timeout_s": given.death_timeout,
        "interface": interface_name(given.interface, [name for _, name in socket.if_nameindex()]),
    }


def of_supervisor(given: argparse.Namespace) -> dict[str, Any]:
    """What every supervisor is made of beside its plan."""
    return {
        **_of_job(given),
        "mpiexec": given.mpiexec,
        "start_timeout_s": given.start_timeout,
        "nodes": given.nodes,
        "expected": given.expect_versions,
        "end_time": float(os.environ["HPCLAB_JOB_END_TIME"]),
    }


def _of_job(given: argparse.Namespace) -> dict[str, Any]:
    return {"folder": given.folder, "job_id": os.environ["HPCLAB_JOB_ID"]}
