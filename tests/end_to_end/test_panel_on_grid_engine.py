"""The session panel on a real Grid Engine whose node dies, and its master, and in the end the Dask scheduler."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from at_work import COMPUTED, AtWork
from laptop import Laptop, a_browser_on, a_laptop
from minihpc.cluster import Cluster
from playwright.sync_api import Browser, Page, expect
from sites import Site

TOLD_MS = 20_000


@pytest.fixture
def laptop(a_grid_engine: Cluster) -> Iterator[Laptop]:
    with a_laptop(a_grid_engine, "paramiko") as laptop:
        yield laptop


@pytest.fixture(scope="module")
def a_browser(a_grid_engine: Cluster, chromium: str) -> Iterator[Browser]:
    """On the laptop."""
    with a_browser_on(a_grid_engine, chromium) as browser:
        yield browser


def test_each_loss_is_told_and_the_notebook_computes_as_long_as_it_can(
    laptop: Laptop, a_grid_engine: Cluster, a_browser_page: Page
) -> None:
    """The cluster is not whole any more afterwards: this test is alone here."""
    cluster, site = a_grid_engine, Site("sge", a_grid_engine)
    ada = AtWork.begin(site, laptop, a_browser_page)
    panel, job_id = ada.panel, ada.add_worker()
    node = site.job("x", job_id)["node"].partition(".")[0]
    assert node != ada.node
    cluster.on(node).kill()
    # for 20 s Grid Engine takes the job for running
    expect(panel.row(job_id)).to_contain_text("its node is down", timeout=TOLD_MS)
    expect(panel.sum("workers")).to_have_text("1")
    assert ada.notebook.run(0) == COMPUTED
    cluster.service("login", "stop", "sge_qmaster")
    expect(panel.state).to_contain_text("unknown", timeout=TOLD_MS)
    # the walltime goes on
    expect(panel.time_left).to_contain_text("left")
    assert ada.notebook.run(0) == COMPUTED
    ada.kill_scheduler()
    # JupyterLab goes with it; the panel keeps what it knew, and says how old that is
    ada.ended("x has failed: the Dask scheduler died")
    expect(panel.strip).to_contain_text("last known", timeout=TOLD_MS)
    expect(panel.strip).to_contain_text("the session has ended")
    assert site.status("x")["state"] == "failed"
