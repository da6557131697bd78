"""Clusters for the tests that need a real one: each is up for one module, and gone after it."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from typing import Any

import pytest
from minihpc.cluster import Cluster, little_cluster

# who is started in the background ignores Ctrl-C, and so would all that we start and send it
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whole sessions first, in random order: where files run two at a time, the short tests fill the end."""
    items.sort(key=lambda item: {"end_to_end", "examples"}.isdisjoint(item.path.parts))


def as_the_module_asks(request: pytest.FixtureRequest) -> dict[str, Any]:
    """What `pytestmark = pytest.mark.cluster(…)` says; see `little_cluster`."""
    mark = request.node.get_closest_marker("cluster")
    return dict(mark.kwargs) if mark else {}


@pytest.fixture(scope="module")
def a_slurm_cluster(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    with little_cluster("slurm", **as_the_module_asks(request)) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def a_grid_engine(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    with little_cluster("sge", **as_the_module_asks(request)) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def a_bare_cluster(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    """One without a batch system: what a test puts into its /srv/bin are everybody's commands."""
    with little_cluster("none", **as_the_module_asks(request)) as cluster:
        yield cluster
