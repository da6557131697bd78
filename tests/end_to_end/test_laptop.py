"""A scientist's day at the laptop: one command, one tab, and a tunnel that survives; ssh as paramiko and as OpenSSH.

The laptop reaches nothing but port 22 of the login node, and has hpclab without dask and without jupyter.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator

import pytest
from jupyterlab_page import NotebookPage
from laptop import BACK, LINK, LOST, Laptop, a_browser_on, a_laptop, sshd
from minihpc.cluster import NODES, Cluster
from playwright.sync_api import Browser, Page
from sites import Site
from waiting import until

import hpclab

CONNECT = "from dask.distributed import Client\nimport socket\n\nclient = Client()\nclient"
WHERE = "print(client.submit(socket.gethostname, pure=False).result())"
COUNT = 'len(client.scheduler_info()["workers"])'
CUT_S = 30
NOTICED_WITHIN_S = 15
BACK_WITHIN_S = 30
PASSWORD, CODE = "Password:", "Verification code:"
each_ssh = pytest.mark.parametrize("ssh", ["paramiko", "openssh"])


@pytest.fixture
def ssh() -> str:
    """Unless a test is for both."""
    return "paramiko"


@pytest.fixture
def laptop(a_slurm_cluster: Cluster, ssh: str) -> Iterator[Laptop]:
    with a_laptop(a_slurm_cluster, ssh) as laptop:
        yield laptop


@pytest.fixture
def another_laptop(a_slurm_cluster: Cluster, ssh: str) -> Iterator[Laptop]:
    """With a home of its own, in the same network."""
    with a_laptop(a_slurm_cluster, ssh, home="/home/ada/second") as laptop:
        yield laptop


@pytest.fixture
def site(a_slurm_cluster: Cluster) -> Iterator[Site]:
    """Without any session, before and after."""
    yield Site("slurm", a_slurm_cluster)
    for described in a_slurm_cluster.hpclab("list", json=True):
        a_slurm_cluster.hpclab("stop", described["name"])
    a_slurm_cluster.on("login").run(["rm", "-rf", ".hpclab"])


@pytest.fixture(scope="module")
def a_browser(a_slurm_cluster: Cluster, chromium: str) -> Iterator[Browser]:
    """On the laptop."""
    with a_browser_on(a_slurm_cluster, chromium) as browser:
        yield browser


def open_notebook(page: Page, laptop: Laptop, url: str) -> NotebookPage:
    return NotebookPage.open(page, url, laptop.cluster.on("login").file("/home/ada"), CONNECT, WHERE, COUNT)


def test_the_laptop_has_the_light_package(laptop: Laptop) -> None:
    assert laptop.run("hpclab", "--version").stdout == f"hpclab {hpclab.__version__}\n"
    for heavy in ("dask", "distributed", "jupyter_server", "mpi4py"):
        assert laptop.run("python", "-c", f"import {heavy}", check=False).returncode


@each_ssh
def test_one_tab_survives_the_day(laptop: Laptop, another_laptop: Laptop, site: Site, a_browser_page: Page) -> None:
    login = site.cluster.on("login", user="root")
    start = laptop.begin("hpclab", "start", "--host", "ada@login", "--queue", "slurm", "--name", "calm-otter", "--json")
    described = start.described()
    assert (described["state"], described["tunnel"][:2]) == ("running", ["ssh", "-N"])
    assert laptop.listening() == [8787, 8888]
    notebook = open_notebook(a_browser_page, laptop, described["jupyter_url"])
    assert "Client" in notebook.run(0)
    assert notebook.run(1) == described["node"]

    for number in (1, 2):
        laptop.hpclab("add-worker")
        until(lambda number=number: notebook.run(2) == str(1 + number), what=f"worker {number} in the notebook")
    assert notebook.run(1) in NODES

    # the cable is out, for so long: that is no wait for anything
    began = time.monotonic()
    login.run(["ip", "link", "set", "ext0", "down"])
    start.wait_until_it_says(LOST, within_s=NOTICED_WITHIN_S)
    time.sleep(max(0, began + CUT_S - time.monotonic()))
    login.run(["ip", "link", "set", "ext0", "up"])
    start.wait_until_it_says(BACK, within_s=BACK_WITHIN_S)
    assert notebook.run(1) in NODES
    # packets vanish without a word
    login.cut("ext0")
    start.wait_until_it_says(LOST, times=2, within_s=NOTICED_WITHIN_S)
    login.mend("ext0")
    start.wait_until_it_says(BACK, times=2, within_s=BACK_WITHIN_S)
    assert notebook.run(1) in NODES
    # the login node is rebooted, as it looks from here
    sshd(site.cluster, "kill")
    start.wait_until_it_says(LOST, times=3, within_s=NOTICED_WITHIN_S)
    sshd(site.cluster, "start")
    start.wait_until_it_says(BACK, times=3, within_s=BACK_WITHIN_S)
    assert notebook.run(1) in NODES
    assert laptop.listening() == [8787, 8888]

    attach = another_laptop.begin("hpclab", "attach", "calm-otter", "--host", "ada@login", "--json")
    elsewhere = attach.described()["jupyter_url"]
    assert elsewhere != described["jupyter_url"]
    assert "JupyterLab" in another_laptop.fetch(elsewhere)
    assert notebook.run(2) == "3"

    assert "calm-otter has ended" in laptop.hpclab("stop").stdout
    for foreground in (start, attach):
        assert foreground.wait() == 0
        assert "ended" in foreground.said.splitlines()[-1]
    assert laptop.hpclab("list").stdout
    assert laptop.questions() == []
    laptop.nothing_is_left()
    site.nothing_is_left()


@each_ssh
@pytest.mark.parametrize(
    ("host", "asked"), [("login-2fa", [PASSWORD, CODE]), ("login-mfa", [CODE])], ids=["password+code", "key+code"]
)
def test_a_second_factor_is_asked_for_once(laptop: Laptop, site: Site, host: str, asked: list[str]) -> None:
    daemon = host.replace("login", "sshd")
    start = laptop.begin("hpclab", "start", "--host", f"ada@{host}", "--queue", "slurm", "--name", "asked", "--json")
    url = start.described()["jupyter_url"]
    assert "JupyterLab" in laptop.fetch(url)
    # others go through the open connection
    laptop.hpclab("add-worker")
    assert laptop.json("status", "asked")["state"] == "running"
    assert_asked(laptop, asked)
    # only a new connection asks again; paramiko has kept the password in its memory
    again = [CODE] if laptop.ssh == "paramiko" else asked
    sshd(site.cluster, "kill", daemon)
    start.wait_until_it_says(LOST)
    sshd(site.cluster, "start", daemon)
    start.wait_until_it_says(BACK, within_s=BACK_WITHIN_S)
    assert "JupyterLab" in laptop.fetch(url)
    assert_asked(laptop, asked + again)
    assert start.end() == 0
    laptop.forget_questions()
    assert laptop.json("status", "asked")["state"] == "running"
    laptop.hpclab("stop", "asked")
    assert_asked(laptop, 2 * asked)
    site.nothing_is_left()
    laptop.nothing_is_left()


def assert_asked(laptop: Laptop, expected: list[str]) -> None:
    told = laptop.questions()
    assert len(told) == len(expected), told
    assert all(question in line for question, line in zip(expected, told, strict=True)), told


def page_at(laptop: Laptop, url: str) -> str:
    """Without the number of the visit."""
    return re.sub(r'"store_id": \d+', "", laptop.fetch(url))


@each_ssh
def test_the_printed_line_gives_the_same_page(laptop: Laptop, site: Site) -> None:
    done = laptop.hpclab("start", "--host", "ada@login", "--queue", "slurm", "--name", "by-hand", "--no-tunnel")
    (url,) = LINK.findall(done.stdout)
    (line,) = re.findall(r"^\s*(ssh -N .*)$", done.stdout, re.MULTILINE)
    by_hand = laptop.begin("bash", "-c", line)
    by_hand.until(lambda: laptop.listening() == [8787, 8888], what="the tunnel by hand")
    page = page_at(laptop, url)
    assert "JupyterLab" in page

    # on other ports, and in the browser
    laptop.file("browser").write_text('#!/bin/sh\necho "$1" > /home/ada/opened.new; mv opened.new opened\n')
    laptop.file("browser").chmod(0o755)
    attach = laptop.begin("hpclab", "attach", "by-hand", env={"BROWSER": "/home/ada/browser"})
    attach.until(laptop.file("opened").exists, what="the browser")
    opened = laptop.file("opened").read_text().strip()
    (elsewhere,) = LINK.findall(attach.printed)
    leads_on = laptop.file(opened.removeprefix("file:///home/ada/"))
    assert elsewhere in leads_on.read_text()
    assert leads_on.stat().st_mode & 0o777 == 0o600
    assert page_at(laptop, elsewhere) == page
    attach.end()
    by_hand.end()
    laptop.hpclab("stop", "by-hand")
    laptop.file("opened").unlink()
    site.nothing_is_left()
    laptop.nothing_is_left()


@each_ssh
def test_where_only_its_own_node_reaches_jupyterlab_there_are_other_ways(laptop: Laptop, site: Site) -> None:
    begin = ("--host", "ada@login", "--json")
    start = laptop.begin("hpclab", "start", "--queue", "slurm", "--name", "shut", "--bind", "loopback", *begin)
    described = start.described()
    assert described["tunnel"][2:4] == ["-J", "ada@login"]
    assert "JupyterLab" in laptop.fetch(described["jupyter_url"])
    assert start.end() == 0

    # a node that nobody may enter: then the job itself comes back to the login node
    node = described["node"]
    site.cluster.service(node, "kill", "sshd")
    attach = laptop.begin("hpclab", "attach", "shut", *begin)
    url = attach.described()["jupyter_url"]
    attach.wait_until_it_says("no tunnel onto the session's node")
    assert "JupyterLab" in laptop.fetch(url)
    # when its ssh is gone, its ports on the login node may be anybody's
    site.cluster.on(node).run("pkill -x ssh")
    attach.wait_until_it_says("is open again")
    assert "JupyterLab" in laptop.fetch(url)
    assert attach.end() == 0
    site.cluster.service(node, "start", "sshd")
    laptop.hpclab("stop", "shut")
    site.nothing_is_left()
    laptop.nothing_is_left()
