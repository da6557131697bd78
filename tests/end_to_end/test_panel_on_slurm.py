"""The session panel on a real Slurm, looked at from the laptop through the tunnel: a whole session with the mouse."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from jupyterlab_page import NotebookPage
from laptop import Laptop, a_browser_on, a_laptop
from minihpc.cluster import Cluster
from panel_page import PLOTS_MOVE, PanelPage
from playwright.sync_api import Browser, Page, expect
from sites import Site
from waiting import until

CONNECT = "from dask.distributed import Client\n\nclient = Client()\nclient"
COMPUTE = "sum(client.gather(client.map(lambda i: i, range(200), pure=False)))"
SLOWLY_MS = 60_000


@pytest.fixture
def laptop(a_slurm_cluster: Cluster) -> Iterator[Laptop]:
    with a_laptop(a_slurm_cluster, "paramiko") as laptop:
        yield laptop


@pytest.fixture
def site(a_slurm_cluster: Cluster) -> Iterator[Site]:
    """Without any session, before and after."""
    yield Site("slurm", a_slurm_cluster)
    queue_is(a_slurm_cluster, "UP")
    for described in a_slurm_cluster.hpclab("list", json=True):
        a_slurm_cluster.hpclab("stop", described["name"])
    a_slurm_cluster.on("login").run(["rm", "-rf", ".hpclab"])


@pytest.fixture(scope="module")
def a_browser(a_slurm_cluster: Cluster, chromium: str) -> Iterator[Browser]:
    """On the laptop."""
    with a_browser_on(a_slurm_cluster, chromium) as browser:
        yield browser


def queue_is(cluster: Cluster, state: str) -> None:
    """UP, or DOWN: then jobs wait, and Slurm says why."""
    cluster.on("login", user="root").run(["scontrol", "update", "PartitionName=regular", f"State={state}"])


def test_a_session_with_the_mouse(laptop: Laptop, site: Site, a_browser_page: Page) -> None:
    begun = laptop.begin("hpclab", "start", "--host", "ada@login", "--queue", "slurm", "--name", "calm-otter", "--json")
    described = begun.described()
    page, home = a_browser_page, site.cluster.on("login").file("/home/ada")
    notebook = NotebookPage.open(page, described["jupyter_url"], home, CONNECT, COMPUTE)
    notebook.run(0)
    panel = PanelPage(page)
    panel.show()
    expect(panel.title).to_have_text("calm-otter")
    expect(panel.region).to_contain_text(f"on {described['node']}")
    expect(panel.region).to_contain_text("slurm")

    queue_is(site.cluster, "DOWN")
    added = panel.add_workers(2, walltime="20m")
    for job_id in added:
        expect(panel.state_of(job_id)).to_have_text("queued")
        expect(panel.row(job_id)).to_contain_text(re.compile("partition|queue", re.IGNORECASE))
    expect(panel.sum("queued")).to_have_text("2")
    expect(panel.status_bar).to_contain_text("2 queued")
    queue_is(site.cluster, "UP")
    for job_id in added:
        expect(panel.state_of(job_id)).to_have_text(re.compile("running|starting|joined"), timeout=SLOWLY_MS)
        expect(panel.state_of(job_id)).to_have_text("joined", timeout=SLOWLY_MS)
        expect(panel.row(job_id)).to_contain_text("node")
    expect(panel.sum("workers")).to_have_text("3")

    panel.show_dask()
    frame = panel.open_pane("Task Stream")
    frame.locator("canvas").first.wait_for()
    page.locator(".lm-TabBar-tab", has_text=".ipynb").click()
    assert notebook.run(1) == str(sum(range(200)))
    page.locator(".lm-TabBar-tab", has_text="Task Stream").click()
    frame.wait_for_function(PLOTS_MOVE, arg=200)

    panel.show()
    panel.act(added[0], "Log")
    expect(panel.tab("log")).to_contain_text("hpclab")
    panel.scale(1)
    expect(panel.sum("workers")).to_have_text("1", timeout=SLOWLY_MS)
    until(
        lambda: {site.job("calm-otter", job_id)["state"] for job_id in added} <= {"done", "cancelled"}, what="the end"
    )
    panel.stop()
    assert begun.wait(within_s=60) == 0
    assert "ended" in begun.said.splitlines()[-1]
    laptop.nothing_is_left()
    site.nothing_is_left()
