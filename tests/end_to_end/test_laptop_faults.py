"""What goes wrong between the laptop and the login node: told in time and in clear words, and nothing is left of it."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from typing import Any
from uuid import uuid4

import pytest
from laptop import BACK, LINK, LOST, Foreground, Laptop, a_laptop, close_connections, sshd
from minihpc.cluster import Cluster
from sites import Site
from waiting import until

TOLD_WITHIN_S = 20
NOTICED_WITHIN_S = 15
BACK_WITHIN_S = 30
OK, CONFIG, STORE, UNREACHABLE, LOGIN_FAILED, KEY_REFUSED, NO_FORWARDING, UNFIT = 0, 2, 10, 15, 17, 18, 19, 20
LISTENS = """
import socket, sys, time
listening = [socket.create_server(("127.0.0.1", int(port))) for port in sys.argv[1:]]
print("listening", flush=True)
time.sleep(1000)
"""


@pytest.fixture(params=["paramiko", "openssh"])
def laptop(a_slurm_cluster: Cluster, request: pytest.FixtureRequest) -> Iterator[Laptop]:
    """What it is about is the same for both."""
    with a_laptop(a_slurm_cluster, request.param) as laptop:
        yield laptop
    laptop.nothing_is_left()


@pytest.fixture(scope="module")
def a_session(a_slurm_cluster: Cluster) -> Iterator[str]:
    """Its name. It runs on whatever happens at the laptop."""
    a_slurm_cluster.hpclab("start", "--queue", "slurm", "--name", "steady")
    yield "steady"
    a_slurm_cluster.hpclab("stop", "steady")
    Site("slurm", a_slurm_cluster).nothing_is_left()


@pytest.fixture
def a_name() -> str:
    return f"s-{uuid4().hex[:8]}"


def start(laptop: Laptop, *args: str, host: str = "ada@login", **how: Any) -> subprocess.CompletedProcess[str]:
    """One that is to fail."""
    began = time.monotonic()
    done = laptop.hpclab("start", "--host", host, "--queue", "slurm", *args, check=False, timeout_s=60, **how)
    took_s = time.monotonic() - began
    assert took_s < TOLD_WITHIN_S, f"it took {took_s:.0f} s: {done.stderr}"
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    return done


def ssh_config(laptop: Laptop, text: str) -> None:
    laptop.node.run(["tee", "/home/ada/.ssh/config"], stdin=text)


def jobs(cluster: Cluster) -> list[str]:
    return cluster.on("login").says(["squeue", "-h", "-o", "%i"]).split()


def listening(laptop: Laptop, *ports: int) -> Foreground:
    """Somebody else's program on these ports."""
    return laptop.begin("/usr/bin/python3", "-c", LISTENS, *map(str, ports))


# nobody is there


@pytest.mark.parametrize(
    ("host", "words"),
    [
        ("nosuch.minihpc.test", ["nosuch.minihpc.test", "not known"]),
        ("10.99.0.1", ["unreachable"]),
        ("refusing", ["refused"]),
        ("silent", ["silent"]),
    ],
)
def test_who_cannot_be_reached_is_told(laptop: Laptop, host: str, words: list[str]) -> None:
    ssh_config(
        laptop,
        "Host refusing silent\n  HostName 127.0.0.1\n  ConnectTimeout 5\n"
        "Host refusing\n  Port 1\nHost silent\n  Port 2222\n",
    )
    silent = listening(laptop, 2222)
    silent.until(lambda: silent.printed, what="the silent sshd")
    done = start(laptop, host=host)
    assert done.returncode == UNREACHABLE, done.stderr
    assert [word for word in words if word.lower() not in done.stderr.lower()] == [], done.stderr
    silent.end(signal.SIGTERM)


def test_a_network_without_an_answer_is_told(laptop: Laptop) -> None:
    login = laptop.cluster.on("login", user="root")
    login.cut("ext0")
    try:
        ssh_config(laptop, "Host login\n  ConnectTimeout 5\n")
        done = start(laptop)
    finally:
        login.mend("ext0")
    assert done.returncode == UNREACHABLE, done.stderr
    assert "login" in done.stderr


@pytest.mark.parametrize(
    "host", ["-oProxyCommand=touch /home/ada/owned", "ada@login x", "ada@login\nx", "ada@-oProxyCommand=x"]
)
def test_a_destination_that_is_none_is_refused(laptop: Laptop, host: str) -> None:
    done = start(laptop, host=host)
    assert done.returncode == CONFIG, done.stderr
    assert not laptop.file("owned").exists()


# they do not let us in


def test_a_wrong_password_is_asked_for_again_and_then_told(laptop: Laptop) -> None:
    done = start(laptop, host="ada@login-2fa", env={"PASSWORD_OF_ADA": "forgotten"})
    assert done.returncode == LOGIN_FAILED, done.stderr
    asked = laptop.questions()
    assert len([question for question in asked if "Password:" in question]) == 3, asked
    assert "forgotten" not in done.stderr


def test_an_expired_key_is_told(laptop: Laptop) -> None:
    keys = laptop.cluster.on("login").file("/home/ada/.ssh/authorized_keys")
    before = keys.read_text()
    try:
        keys.write_text(before.replace("ssh-ed25519", 'expiry-time="20200101" ssh-ed25519'))
        done = start(laptop)
    finally:
        keys.write_text(before)
    assert done.returncode == LOGIN_FAILED, done.stderr
    assert "publickey" in done.stderr
    assert "ada@login" in done.stderr.splitlines()[-1]


def test_a_changed_host_key_is_refused(laptop: Laptop) -> None:
    laptop.node.run("ssh-keygen -q -t ed25519 -N '' -f other; echo login $(cut -d' ' -f1,2 other.pub) > changed")
    ssh_config(laptop, "Host login\n  UserKnownHostsFile /home/ada/changed\n")
    done = start(laptop)
    assert done.returncode == KEY_REFUSED, done.stderr
    assert "changed" in done.stderr.lower()
    assert "SHA256:" in done.stderr
    assert "ssh-keygen" in done.stderr
    laptop.node.run("rm other other.pub changed")


def test_an_unknown_host_key_is_shown_and_asked(laptop: Laptop, a_session: str) -> None:
    ssh_config(laptop, "Host login\n  UserKnownHostsFile /home/ada/met\n")
    first, second = (laptop.hpclab("status", a_session, "--host", "ada@login", check=False) for _ in range(2))
    assert (first.returncode, second.returncode) == (OK, OK), first.stderr
    (question,) = laptop.questions()
    fingerprint = laptop.cluster.on("login").says("ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub", check=False)
    assert "SHA256:" in question, fingerprint
    laptop.node.run("rm met")


# they let us in, but no further


@contextlib.contextmanager
def forbidden_forwarding(cluster: Cluster) -> Iterator[None]:
    file = cluster.on("login").file("/etc/ssh/sshd_config")
    before = file.read_text()
    file.write_text(f"{before}\nAllowTcpForwarding no\n")
    cluster.service("login", "restart", "sshd")
    try:
        yield
    finally:
        file.write_text(before)
        cluster.service("login", "restart", "sshd")


def test_forbidden_forwarding_is_told(laptop: Laptop, a_session: str) -> None:
    with forbidden_forwarding(laptop.cluster):
        began = time.monotonic()
        done = laptop.hpclab("attach", a_session, "--host", "ada@login", check=False, timeout_s=60)
        assert time.monotonic() - began < TOLD_WITHIN_S
    assert done.returncode == NO_FORWARDING, done.stderr
    assert "prohibited" in done.stderr or "forbid" in done.stderr
    assert laptop.json("status", a_session)["state"] == "running"


@pytest.mark.parametrize("which", ["none", "old"])
def test_a_login_node_without_a_fitting_hpclab_is_told(laptop: Laptop, which: str) -> None:
    python = "/usr/bin/python3"
    if which == "old":
        python = "/home/ada/old/python"
        laptop.cluster.on("login").run(
            "mkdir -p old/hpclab && cd old && printf '__version__ = \"0.0.1\"' > hpclab/__init__.py && "
            "printf 'import sys; sys.exit(\"Error: No such command agent.\")' > hpclab/__main__.py && "
            "printf '#!/bin/sh\\nPYTHONPATH=/home/ada/old exec /usr/bin/python3 \"$@\"\\n' > python && chmod +x python"
        )
    done = start(laptop, env={"HPCLAB_REMOTE_PYTHON": python})
    assert done.returncode == UNFIT, done.stderr
    assert "ssh ada@login 'python3 -m venv ~/.hpclab/env && ~/.hpclab/env/bin/python -m pip install" in done.stderr
    assert ("too old" if which == "old" else "there is no hpclab") in done.stderr


def test_a_full_disk_over_there_leaves_no_session(laptop: Laptop) -> None:
    login = laptop.cluster.on("login", user="root")
    home = "/home/ada/.hpclab"
    before = jobs(laptop.cluster)
    login.run(
        f"mkdir -p {home} && chown ada: {home} && mount -t tmpfs -o size=64k,mode=700,uid=4001 tmpfs {home} && "
        f"head -c 60000 /dev/zero > {home}/full; cat /dev/zero > {home}/fuller",
        check=False,
    )
    try:
        done = start(laptop, "--name", "full")
    finally:
        login.run(["umount", home])
    assert done.returncode == STORE, done.stderr
    assert "space" in done.stderr
    assert jobs(laptop.cluster) == before


# they are lost


SLOW_SBATCH = """#!/bin/sh
# the real one, with time for a test to end the connection before or after it
echo $$ >> /home/ada/sbatch-begun
while [ -e /home/ada/hold-before ]; do sleep 0.1; done
/usr/bin/sbatch "$@"; status=$?
echo $$ >> /home/ada/sbatch-done
while [ -e /home/ada/hold-after ]; do sleep 0.1; done
exit $status
"""


@pytest.fixture(params=["before", "after"])
def a_held_sbatch(a_slurm_cluster: Cluster, request: pytest.FixtureRequest) -> Iterator[Callable[[], None]]:
    """It waits before or after the submission; the call lets it go on."""
    ada = a_slurm_cluster.on("login")
    program, hold = ada.file("/srv/bin/sbatch"), ada.file(f"/home/ada/hold-{request.param}")
    program.write_text(SLOW_SBATCH)
    program.chmod(0o755)
    hold.touch()
    yield lambda: hold.unlink(missing_ok=True)
    hold.unlink(missing_ok=True)
    program.unlink()
    ada.run("rm -f sbatch-begun sbatch-done")


def test_a_connection_that_dies_at_the_submission_never_submits_twice(
    laptop: Laptop, a_name: str, a_held_sbatch: Callable[[], None]
) -> None:
    cluster = laptop.cluster
    login = cluster.on("login", user="root")
    before = jobs(cluster)
    begun = login.file("/home/ada/sbatch-begun")
    # in a login shell, where a test's sbatch comes first
    laptop.file("config.toml").write_text('remote_prologue = [":"]\n')
    starting = laptop.begin(
        *["hpclab", "start", "--host", "ada@login", "--queue", "slurm", "--name", a_name, "--json"],
        env={"HPCLAB_SITE_CONFIG": f"{laptop.home}/config.toml"},
    )
    starting.until(begun.exists, what="the submission")
    close_connections(cluster)
    starting.wait_until_it_says("trying again")
    a_held_sbatch()
    described = starting.described()
    assert (described["name"], described["state"]) == (a_name, "running")
    assert len(jobs(cluster)) == len(before) + 1
    assert len(begun.read_text().split()) == 1
    assert starting.end() == OK
    laptop.hpclab("stop", a_name)
    assert jobs(cluster) == before
    laptop.file("config.toml").unlink()


def test_a_session_that_ends_ends_its_tunnel(laptop: Laptop, a_name: str) -> None:
    starting = laptop.begin("hpclab", "start", "--host", "ada@login", "--queue", "slurm", "--name", a_name, "--json")
    (main,) = (job["id"] for job in starting.described()["jobs"])
    laptop.cluster.on("login").run(["scancel", main])
    assert starting.wait() == OK
    assert f"{a_name} has ended" in starting.said.splitlines()[-1]


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGTERM, signal.SIGINT])
def test_a_closed_terminal_closes_the_tunnel_and_not_the_session(
    laptop: Laptop, a_session: str, number: signal.Signals
) -> None:
    attach = laptop.begin("hpclab", "attach", a_session, "--host", "ada@login", "--json")
    attach.described()
    assert attach.end(number) == OK
    assert laptop.listening() == []
    assert laptop.json("status", a_session)["state"] == "running"


# ports


def test_taken_ports_are_told_and_others_taken(laptop: Laptop, a_session: str) -> None:
    other = listening(laptop, 8888, 8787)
    other.until(lambda: other.printed, what="the other program")
    attach = laptop.begin("hpclab", "attach", a_session, "--host", "ada@login", "--json")
    url = attach.described()["jupyter_url"]
    assert ":8888/" not in url
    assert "JupyterLab" in laptop.fetch(url)
    assert "8888" in attach.said
    assert "8787" in attach.said
    attach.end()
    other.end(signal.SIGTERM)


def test_two_attaches_at_once_have_ports_of_their_own(laptop: Laptop, a_session: str) -> None:
    attaches = [laptop.begin("hpclab", "attach", a_session, "--host", "ada@login", "--json") for _ in range(2)]
    urls = [attach.described()["jupyter_url"] for attach in attaches]
    assert len(set(urls)) == 2
    assert ["JupyterLab" in laptop.fetch(url) for url in urls] == [True, True]
    assert [attach.end() for attach in attaches] == [OK, OK]


def test_a_port_is_kept_between_two_connections_or_its_loss_is_told(laptop: Laptop, a_session: str) -> None:
    attach = laptop.begin("hpclab", "attach", a_session, "--host", "ada@login")
    attach.until(lambda: LINK.search(attach.printed), what="the link")
    sshd(laptop.cluster, "kill")
    attach.wait_until_it_says(LOST)
    other = listening(laptop, 8888)
    until(lambda: other.ended() or other.printed, what="the other program")
    sshd(laptop.cluster, "start")
    attach.wait_until_it_says(BACK, within_s=BACK_WITHIN_S)
    link = LINK.findall(attach.printed)[-1]
    assert (":8888/" in link) == other.ended()
    assert other.ended() or "port 8888 of this machine is taken by python3" in attach.said
    assert "JupyterLab" in laptop.fetch(link)
    attach.end()


# clocks


def test_a_laptop_whose_clock_is_ten_minutes_off(laptop: Laptop, a_session: str) -> None:
    """The other way round than usual: here the cluster is right."""
    laptop.node.run(
        ["tee", "/home/ada/sitecustomize.py"],
        stdin="import time\nright = time.time\ntime.time = lambda: right() - 600\n",
    )
    attach = laptop.begin(
        *["hpclab", "attach", a_session, "--host", "ada@login", "--json"], env={"PYTHONPATH": "/home/ada"}
    )
    assert "JupyterLab" in laptop.fetch(attach.described()["jupyter_url"])
    assert LOST not in attach.said
    attach.end()
    laptop.file("sitecustomize.py").unlink()
