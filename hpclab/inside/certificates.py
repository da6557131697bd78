"""Dask's TLS settings from secrets that stand in this process's memory alone: in no file, argv or environment."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from hpclab.credentials import Credentials


def tls_in_memory(credentials: Credentials) -> dict[str, Any]:
    """For `dask.config.set`: every Scheduler, Worker and Client of this process speaks TLS, and nothing else."""
    certificate, key = in_memory(credentials.certificate_pem), in_memory(credentials.key_pem)
    tls = "distributed.comm.tls"
    settings: dict[str, Any] = {
        "distributed.comm.default-scheme": "tls",
        "distributed.comm.require-encryption": True,
        f"{tls}.ca-file": in_memory(credentials.ca_pem),
    }
    for role in ("scheduler", "worker", "client"):
        settings |= {f"{tls}.{role}.cert": certificate, f"{tls}.{role}.key": key}
    return settings


def in_memory(pem: str) -> str:
    """A path that leads to this text, for as long as this process lives; only the user's own processes can follow it.

    Dask takes texts as well, but OpenSSL reads a certificate from nothing but a file, so Dask would write it into one
    for a moment, again and again. Where there are no files in memory, as on macOS, it is left to do so.
    """
    if not hasattr(os, "memfd_create"):
        return pem
    fd = os.memfd_create("hpclab")
    os.fchmod(fd, 0o600)
    os.write(fd, pem.encode())
    # not /proc/self, for the processes that this one starts read it, too: a Nanny's worker, a pool of the script's
    path = f"/proc/{os.getpid()}/fd/{fd}"
    return path if Path(path).exists() else pem
