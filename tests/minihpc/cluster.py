"""A real little cluster inside this machine, as tests see it: a laptop, a login node, compute nodes, users."""

from __future__ import annotations

import contextlib
import json as json_format
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import psutil
import pytest
from waiting import until

HERE = Path(__file__).parent
PACKAGE = HERE.parents[1] / "hpclab"
NODES = ("node1", "node2", "node3")
T = TypeVar("T")
Command = str | Sequence[str]
"""An argv, or a text for bash."""


@dataclass(frozen=True)
class Node:
    """A user on a host of the cluster."""

    cluster: Cluster
    name: str
    user: str

    def run(
        self,
        command: Command,
        *,
        check: bool = True,
        env: Mapping[str, str] | None = None,
        stdin: str = "",
        timeout_s: float = 60,
    ) -> subprocess.CompletedProcess[str]:
        """In the user's home and a login shell's environment; root has the bare one. Checked: it must succeed."""
        done = subprocess.run(
            self._argv(command, env or {}),
            env=self.cluster.environ,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=timeout_s,
        )
        said = f"{done.stdout}{done.stderr}"
        assert not (check and done.returncode), f"{self.user}@{self.name}: {command}: {done.returncode}\n{said}"
        return done

    def says(self, command: Command, **how: Any) -> str:
        """What it prints, without the last newline."""
        return self.run(command, **how).stdout.rstrip("\n")

    def popen(self, command: Command, *, env: Mapping[str, str] | None = None, **streams: Any) -> subprocess.Popen[str]:
        """Its `terminate` reaches the command as SIGTERM; for other signals there is `send`."""
        return subprocess.Popen(self._argv(command, env or {}), env=self.cluster.environ, text=True, **streams)

    def _argv(self, command: Command, env: Mapping[str, str]) -> list[str]:
        argv = ["bash", "-c", command] if isinstance(command, str) else list(command)
        options = [word for key, value in env.items() for word in ("--env", f"{key}={value}")]
        if self.user != "root":
            options += ["--user", self.user, "--login"]
        return [str(HERE / "exec.sh"), self.name, *options, "--", *argv]

    def processes(self) -> list[str]:
        """The command lines of the user's processes on this host."""
        root = self.cluster.on(self.name, user="root")
        listed = root.run(["ps", "-ww", "-o", "stat=,args=", "-u", self.user], check=False).stdout.splitlines()
        # the dead whose parent was outside are reaped by the machine, when it likes
        return [line.split(maxsplit=1)[1] for line in listed if not line.startswith("Z")]

    def file(self, path: str) -> Path:
        """Where a file of this host is outside: of its /home, /tmp, /etc, /srv, /var/log or /var/spool."""
        state = self.cluster.state
        host = state / "hosts" / self.name
        home = state / ("home-laptop" if self.name == "laptop" else "home-cluster")
        for inside, outside in {
            "/home/": home,
            "/srv/": state / "srv",
            "/tmp/": host / "tmp",
            "/etc/": host / "etc",
            "/var/log/": host / "log",
            "/var/spool/": host / "spool",
        }.items():
            if path.startswith(inside):
                return outside / path.removeprefix(inside)
        raise ValueError(f"{path} is no host's own")

    def kill(self) -> None:
        """The host crashes, and does not come back."""
        pid = int((self.cluster.state / "hosts" / self.name / "pid").read_text().split()[0])
        os.kill(pid, signal.SIGKILL)
        until(lambda: not psutil.pid_exists(pid), what=f"the end of {self.name}")

    def cut(self, *interfaces: str) -> None:
        """From now on packets from and to it vanish without a word: of one network (eth1 is the second), or of all."""
        for interface in interfaces or self._interfaces():
            hooks = [
                f"chain {hook} {{ type filter hook {hook} device {interface} priority 0; meta protocol ip drop; }};"
                for hook in ("ingress", "egress")
            ]
            self._nft(f"add table netdev cut-{interface} {{ {' '.join(hooks)} }}")

    def mend(self, *interfaces: str) -> None:
        for interface in interfaces or self._interfaces():
            self._nft(f"delete table netdev cut-{interface}")

    def shut(self, port: int) -> None:
        """From now on nobody from elsewhere hears a word from this port of it; all else goes on."""
        rule = f'iifname != "lo" tcp dport {port} drop'
        self._nft(f"add table inet shut-{port} {{ chain input {{ type filter hook input priority 0; {rule}; }}; }}")

    def open(self, port: int) -> None:
        self._nft(f"delete table inet shut-{port}")

    def _interfaces(self) -> list[str]:
        if self.name == "login":
            return ["ext0", "int0"]
        return ["eth0", "eth1"] if self.name in self.cluster.second_network else ["eth0"]

    def _nft(self, rule: str) -> None:
        self.cluster.on(self.name, user="root").run(["nft", rule])


def send(popen: subprocess.Popen[str], number: signal.Signals) -> None:
    """A signal to a node's command: between it and the Popen stands the door into the host."""
    (inside,) = psutil.Process(popen.pid).children()
    inside.send_signal(number)


@dataclass(frozen=True)
class Cluster:
    state: Path
    batch: str
    """`slurm`, `sge` or `none`."""
    python: Path
    """The jobs' Python; hpclab is beside it."""
    second_network: Sequence[str] = ()
    """The nodes that have two."""

    @property
    def environ(self) -> dict[str, str]:
        return {"PATH": os.environ["PATH"] + ":/usr/sbin:/sbin", "MINIHPC_STATE": str(self.state)}

    def on(self, host: str, *, user: str = "ada") -> Node:
        return Node(self, host, user)

    def service(self, host: str, verb: str, name: str) -> None:
        """Start, stop, kill or restart a daemon; both of the middle return when it is gone."""
        done = subprocess.run([HERE / "svc.sh", host, verb, name], env=self.environ, capture_output=True, text=True)
        assert not done.returncode, f"{verb} {name} on {host}: {done.stderr}"

    def hpclab(self, *args: str, user: str = "ada", host: str = "login", json: bool = False, **how: Any) -> Any:
        """A finished process; with `json`, what it printed."""
        done = self.on(host, user=user).run(["hpclab", *args, *(["--json"] if json else [])], **how)
        return json_format.loads(done.stdout) if json else done

    def jobs(self) -> str:
        """As the batch system tells them."""
        command = {"slurm": "squeue --all", "sge": "qstat -u '*'"}[self.batch]
        return self.on("login").says(command)


@cache
def folders() -> tuple[Path, Path]:
    """Of the jobs' environment and of Grid Engine; whoever asks is skipped where something is missing."""
    checked = subprocess.run([HERE / "install", "--check"], capture_output=True, text=True)
    if checked.returncode:
        # where they have to run, a test that is skipped is one that has failed
        (pytest.fail if "HPCLAB_TESTS_SKIP_NO_CLUSTER" in os.environ else pytest.skip)(checked.stderr.strip())
    environment, gridengine = checked.stdout.splitlines()
    return Path(environment), Path(gridengine)


@contextlib.contextmanager
def little_cluster(
    batch: str = "slurm",
    *,
    nodes: Sequence[str] = NODES,
    slurm_conf: str = "",
    second_network: Sequence[str] = (),
) -> Iterator[Cluster]:
    """A cluster of one's own. It ends with this process, however that ends."""
    environment, gridengine = folders()
    state = Path(tempfile.mkdtemp(prefix="hpclab-minihpc-"))
    cluster = Cluster(state, batch, environment / "bin/python", second_network)
    knobs = {
        "MINIHPC_BATCH": batch,
        "MINIHPC_NODES": " ".join(nodes),
        "MINIHPC_SLURM_EXTRA": slurm_conf,
        "MINIHPC_SECOND_NET": " ".join(second_network),
        "MINIHPC_PATH": str(environment / "bin"),
        "MINIHPC_LAPTOP_PATH": f"{environment}-laptop/bin",
        "MINIHPC_OVERLAY": str(gridengine) if batch == "sge" else "",
    }
    keeper = subprocess.Popen(
        [HERE / "keep.sh"],
        env=cluster.environ | knobs,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        # so that a Ctrl-C for the tests does not end what tidies up after them
        start_new_session=True,
    )
    try:
        said = ""
        while (line := keeper.stdout.readline() if keeper.stdout else "") != "up\n":
            assert line, f"the cluster does not come up:\n{said}"
            said += line
        _bring_hpclab(cluster)
        yield cluster
    finally:
        keeper.communicate(timeout=60)


def _bring_hpclab(cluster: Cluster) -> None:
    """The hpclab under test, to where the jobs' Python looks for it; users read it, and do not compile it anew."""
    package = cluster.state / "srv/hpclab/hpclab"
    shutil.copytree(PACKAGE, package, ignore=shutil.ignore_patterns("__pycache__"))
    subprocess.run([cluster.python, "-m", "compileall", "-q", package], check=True)
    for path in (package.parent, package, *package.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
