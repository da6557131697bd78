"""Fixtures that read as sentences. Whatever a test starts ends with it; the fixture sees to it that nothing is left."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from distributed import Client

from mpi.cluster import Cluster, a_cluster_of, forking


@pytest.fixture(scope="session")
def a_source_of_workers() -> Iterator[subprocess.Popen[str]]:
    with forking() as process:
        yield process


@pytest.fixture
def a_cluster(a_source_of_workers: subprocess.Popen[str]) -> Iterator[Callable[..., tuple[Cluster, Client]]]:
    """Makes a Dask cluster of so many workers, and a client of it."""
    with ExitStack() as stack:

        def make(workers: int, **options: Any) -> tuple[Cluster, Client]:
            cluster = stack.enter_context(a_cluster_of(a_source_of_workers, workers, **options))
            return cluster, stack.enter_context(cluster.client())

        yield make


@pytest.fixture(scope="module")
def two_workers(a_source_of_workers: subprocess.Popen[str]) -> Iterator[tuple[Cluster, Client]]:
    """For all tests of a module that leave them as they found them."""
    with a_cluster_of(a_source_of_workers, 2) as cluster, cluster.client() as client:
        yield cluster, client
