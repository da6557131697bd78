"""What goes wrong on a cluster with Slurm, seen in the session panel: it stays truthful, and the notebook unharmed."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from at_work import COMPUTED, SLOWLY_MS, AtWork
from laptop import Foreground, Laptop, a_browser_on, a_laptop
from minihpc.cluster import Cluster
from panel_page import PanelPage
from playwright.sync_api import Browser, Page, expect
from sites import Site
from waiting import until

TOLD_MS = 20_000
HIDE = "for c in sbatch squeue scancel sacct sinfo; do mount --bind /dev/null /usr/bin/$c; done"
ADAPT = """import time, hpclab
cluster = hpclab.SessionCluster()
client = cluster.get_client()
adaptive = cluster.adapt(1, 3, interval="500ms", wait_count=8, target_duration="1s")"""
LOAD = "sum(client.gather(client.map(lambda i: time.sleep(0.3) or 1, range(30), pure=False)))"
DONE = "[done['status'] for _, done in adaptive.log], cluster.trouble"


@pytest.fixture
def laptop(a_slurm_cluster: Cluster) -> Iterator[Laptop]:
    with a_laptop(a_slurm_cluster, "paramiko") as laptop:
        yield laptop


@pytest.fixture
def site(a_slurm_cluster: Cluster) -> Iterator[Site]:
    """Without any session, before and after."""
    site = Site("slurm", a_slurm_cluster)
    yield site
    until(lambda: nodes_answer(a_slurm_cluster), what="all nodes' answer to Slurm")
    for described in a_slurm_cluster.hpclab("list", json=True):
        a_slurm_cluster.hpclab("stop", described["name"])
    a_slurm_cluster.on("login").run("rm -rf .hpclab *.ipynb")
    until(lambda: a_slurm_cluster.jobs().count("\n") == 0, what="the end of all jobs")
    site.nothing_is_left()


@pytest.fixture(scope="module")
def a_browser(a_slurm_cluster: Cluster, chromium: str) -> Iterator[Browser]:
    """On the laptop."""
    with a_browser_on(a_slurm_cluster, chromium) as browser:
        yield browser


def nodes_answer(cluster: Cluster) -> bool:
    """A controller that was away takes its nodes for lost at first."""
    states = cluster.on("login").says("sinfo -h -N -p regular -o %T", check=False).split()
    return bool(states) and set(states) <= {"idle", "mixed", "allocated", "completing"}


@contextmanager
def slurm_hangs(cluster: Cluster) -> Iterator[None]:
    root = cluster.on("login", user="root")
    root.run("kill -STOP $(cat /run/slurmctld.pid)")
    try:
        yield
    finally:
        root.run("kill -CONT $(cat /run/slurmctld.pid)")


# the batch system


def test_while_slurm_hangs_the_panel_says_so_and_a_submission_is_a_doubt(
    laptop: Laptop, site: Site, a_browser_page: Page
) -> None:
    ada = AtWork.begin(site, laptop, a_browser_page)
    panel = ada.panel
    with slurm_hangs(site.cluster):
        expect(panel.state).to_contain_text("unknown", timeout=TOLD_MS)
        expect(panel.region).to_contain_text("slurm does not answer")
        # the walltime goes on, and so does the notebook
        expect(panel.time_left).to_contain_text("left")
        assert ada.notebook.run(0) == COMPUTED
        panel.press("Add worker")
        panel.dialog.get_by_role("button", name="Add", exact=True).click()
        expect(panel.dialog.get_by_role("alert")).to_contain_text("is not known", timeout=SLOWLY_MS)
        panel.dialog.get_by_role("button", name="Cancel").click()
    expect(panel.state).to_contain_text("running", timeout=SLOWLY_MS)
    # it had taken the job, and there is one
    expect(panel.rows).to_have_count(2, timeout=SLOWLY_MS)
    expect(panel.sum("workers")).to_have_text("2", timeout=SLOWLY_MS)
    panel.stop()
    ada.ended("x has ended: stopped")


# nodes that may not submit


@pytest.fixture
def deaf_nodes(site: Site) -> Iterator[None]:
    """Slurm's commands cannot be run on them, and no key leads to the login node."""
    ada, nodes = site.cluster.on("login"), [site.cluster.on(f"node{n}", user="root") for n in (1, 2, 3)]
    for node in nodes:
        node.run(HIDE)
    ada.run("mv .ssh/id_ed25519 .ssh/away")
    yield
    ada.run("mv .ssh/away .ssh/id_ed25519")
    for node in nodes:
        node.run("for c in sbatch squeue scancel sacct sinfo; do umount /usr/bin/$c; done")


@pytest.fixture
def a_plain_tunnel(laptop: Laptop, site: Site) -> Iterator[Callable[[], str]]:
    """Opens one without hpclab, by the user's own ssh; the link through it."""
    opened: list[Foreground] = []

    def opens() -> str:
        here = json.loads(site.file("x", "connection.json").read_text())
        way = f"18888:{here['jupyter_host']}:{here['jupyter_port']}"
        opened.append(laptop.begin("ssh", "-N", "-o", "ExitOnForwardFailure=yes", "-L", way, "ada@login"))
        until(lambda: 18888 in laptop.listening(), what="the tunnel")
        return f"http://127.0.0.1:18888/lab?token={site.file('x', 'token').read_text().strip()}"

    yield opens
    for tunnel in opened:
        tunnel.end()


def test_what_waits_for_the_laptop_is_shown_and_done_when_it_is_there(
    laptop: Laptop, site: Site, deaf_nodes: None, a_plain_tunnel: Callable[[], str], a_browser_page: Page
) -> None:
    site.start("x")
    panel = PanelPage.open(a_browser_page, a_plain_tunnel())
    panel.press("Add worker")
    panel.dialog.get_by_role("button", name="Add", exact=True).click()
    expect(panel.strip).to_contain_text("waiting for your hpclab on the laptop", timeout=TOLD_MS)
    assert site.cluster.jobs().count("\n") == 1
    attach = laptop.begin("hpclab", "attach", "x", "--host", "ada@login", "--no-browser", "--json")
    expect(panel.notification("submitted")).to_be_visible(timeout=TOLD_MS)
    expect(panel.strip).to_have_count(0)
    expect(panel.sum("workers")).to_have_text("2", timeout=SLOWLY_MS)
    root = site.cluster.on("login", user="root")
    root.run("scontrol update PartitionName=regular State=DOWN")
    try:
        queued = panel.add_workers(2)
        expect(panel.sum("queued")).to_have_text("2", timeout=TOLD_MS)
        panel.stop()
        assert attach.wait(within_s=60) == 0
    finally:
        root.run("scontrol update PartitionName=regular State=UP")
    assert "x has ended: stopped" in attach.said
    expect(panel.strip).to_contain_text("was stopped, and this server ends with it")
    assert {site.job("x", job_id)["state"] for job_id in queued} == {"cancelled"}


def test_a_load_that_comes_and_goes_does_not_make_jobs_come_and_go(
    laptop: Laptop, site: Site, deaf_nodes: None, a_browser_page: Page
) -> None:
    """Through the relay, too."""
    ada = AtWork.begin(site, laptop, a_browser_page, ADAPT, LOAD, DONE)
    ada.notebook.run(0)
    for _ in range(3):
        assert ada.notebook.run(1) == "30"
    assert ada.notebook.run(2) == "(['submitted 2 worker jobs'], '')"
    expect(ada.panel.sum("workers")).to_have_text("3")
    # nothing is to be done any more
    expect(ada.panel.sum("workers")).to_have_text("1", timeout=SLOWLY_MS)
    assert [job["role"] for job in site.status("x")["jobs"]] == ["main", "worker", "worker"]
    ada.panel.stop()
    ada.ended("x has ended: stopped")
