"""JupyterLab and the dashboard for their own node alone: who may enter the node, or the job itself, brings them out."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest
from minihpc.cluster import Cluster, Node
from sites import Site
from waiting import until

NAME = "shut-otter"
GET = """
import sys, urllib.error, urllib.request
url, token = sys.argv[1:]
try:
    with urllib.request.urlopen(urllib.request.Request(url, headers={"Authorization": f"token {token}"})) as answer:
        print(answer.status)
except urllib.error.HTTPError as error:
    print(error.status)
except OSError as error:
    print(error)
"""
ASK = """
import json, os, sys
from hpclab.errors import HpclabError
from hpclab.folder import SessionFolder
from hpclab.hosts.local import LocalHost
from hpclab.reverse import ask_reverse

try:
    print(json.dumps(ask_reverse(LocalHost(os.environ), SessionFolder(sys.argv[1]), sys.argv[2], within_s=20)))
except HpclabError as error:
    print(json.dumps([type(error).__name__, str(error)]))
"""


@pytest.fixture
def site(a_slurm_cluster: Cluster) -> Site:
    return Site("slurm", a_slurm_cluster)


@pytest.fixture
def session(site: Site) -> Iterator[dict[str, Any]]:
    """As its start describes it; after its stop nothing is left."""
    start = ("start", "--queue", "slurm", "--name", NAME)
    described: dict[str, Any] = site.hpclab(*start, json=True, env={"HPCLAB_BIND": "loopback"}, timeout_s=120)
    yield described
    site.hpclab("stop", NAME)
    site.nothing_is_left()
    site.cluster.on("login").run(["rm", "-r", described["folder"]])


@pytest.fixture
def laptop(site: Site) -> Iterator[Node]:
    """It does not know the nodes yet; a user would say yes."""
    config = site.cluster.on("laptop").file("/home/ada/.ssh/config")
    config.write_text("StrictHostKeyChecking accept-new\n")
    yield site.cluster.on("laptop")
    config.unlink()


def connection(site: Site) -> dict[str, Any]:
    return dict(json.loads(site.file(NAME, "connection.json").read_text()))


def get(node: Node, url: str, token: str = "") -> str:
    return node.says(["/usr/bin/python3", "-c", GET, url, token])


def token(site: Site) -> str:
    return site.file(NAME, "token").read_text().strip()


def asked(site: Site, session: dict[str, Any], login: str = "login") -> Any:
    return site.python("login", ASK, session["folder"], login)


def test_the_printed_line_leads_to_a_node_that_nobody_else_can_ask(
    site: Site, session: dict[str, Any], laptop: Node
) -> None:
    here, login = connection(site), site.cluster.on("login")
    assert (here["jupyter_host"], here["node"]) == ("127.0.0.1", session["node"])
    for port in (here["jupyter_port"], here["dashboard_port"]):
        # nobody, or who has the same port on the node's own address by chance, and speaks TLS there: a Dask worker
        assert not get(login, f"http://{here['node']}:{port}/").isdigit()

    line = session["tunnel"]
    assert line[2:4] == ["-J", "ada@login"]
    tunnel = laptop.popen(line, stderr=subprocess.PIPE)
    jupyter, dashboard = "http://127.0.0.1:8888/api/status", "http://127.0.0.1:8787/status"
    until(lambda: get(laptop, jupyter, token(site)) == "200", what="JupyterLab on the laptop")
    assert get(laptop, jupyter) == "403"
    until(lambda: get(laptop, dashboard, token(site)) == "200", what="the dashboard on the laptop")
    tunnel.terminate()
    tunnel.wait(10)
    until(lambda: not laptop.processes(), what="the end of ssh and of its jump")


def test_workers_of_other_nodes_join(site: Site, session: dict[str, Any]) -> None:
    # all cores of a node, so that there is no room beside the main job
    site.hpclab("add-worker", "-s", NAME, "--cores", "16")
    main, other = site.wait_for_workers(NAME, 2)["jobs"]
    assert main["node"] != other["node"]


def test_the_job_brings_its_ports_to_the_login_node(site: Site, session: dict[str, Any]) -> None:
    login, node = site.cluster.on("login"), site.cluster.on(session["node"])
    jupyter, dashboard = asked(site, session)
    assert get(login, f"http://127.0.0.1:{jupyter}/api/status", token(site)) == "200"
    assert get(login, f"http://127.0.0.1:{jupyter}/api/status") == "403"
    assert get(login, f"http://127.0.0.1:{dashboard}/status") == "403"
    until(
        lambda: get(login, f"http://127.0.0.1:{dashboard}/status", token(site)) == "200",
        what="the dashboard on the login node",
    )

    assert asked(site, session) == [jupyter, dashboard]
    assert len([line for line in node.processes() if line.startswith("ssh ")]) == 1

    node.run(["pkill", "-KILL", "-x", "ssh"])
    until(lambda: "refused" in get(login, f"http://127.0.0.1:{jupyter}/"), what="the end of the first tunnel")
    jupyter, dashboard = asked(site, session)
    assert get(login, f"http://127.0.0.1:{jupyter}/api/status", token(site)) == "200"

    what, told = asked(site, session, "nosuch")
    assert (what, "Could not resolve hostname nosuch" in told) == ("NotRunning", True)
    assert asked(site, session) == [jupyter, dashboard]


def test_with_the_supervisor_all_its_tunnels_end(site: Site, session: dict[str, Any]) -> None:
    asked(site, session)
    node = site.cluster.on(session["node"])
    node.run(["pkill", "-KILL", "-f", "hpclab.inside.main_job"])
    until(lambda: not [line for line in node.processes() if "ssh " in line], what="the end of ssh")
