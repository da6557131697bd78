"""ada's laptop: hpclab in the foreground, what she answers when she is asked, and the browser that she looks at."""

from __future__ import annotations

import contextlib
import json
import re
import shlex
import signal
import subprocess
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar
from uuid import uuid4

from minihpc.cluster import HERE as MINIHPC
from minihpc.cluster import Cluster, Node, send
from playwright.sync_api import Browser, sync_playwright
from waiting import until

T = TypeVar("T")
LOST, BACK = "is lost", "tunnel is open again"
"""What a tunnel says."""
LINK = re.compile(r"http://127\.0\.0\.1:\d+/lab\?token=\S+")
PASSWORD = "correct-horse"
TOTP_SECRET = "JBSWY3DPEHPK3PXPJBSWY3DPEHPK3PXP"
ANSWERS = f'''#!/usr/bin/python3
"""What ada types: each question is put down, and answered."""
import base64, hmac, os, pathlib, sys, time

question = sys.argv[1]
home = pathlib.Path(__file__).parent
with open(home / "questions", "a") as file:
    print(question.replace("\\n", " "), file=file)
if "code" in question.lower():
    hash = hmac.digest(base64.b32decode("{TOTP_SECRET}"), int(time.time() // 30).to_bytes(8, "big"), "sha1")
    at = hash[-1] & 15
    print(format((int.from_bytes(hash[at:at + 4], "big") & 0x7FFFFFFF) % 1_000_000, "06"))
elif "assword" in question:
    print(os.environ.get("PASSWORD_OF_ADA", "{PASSWORD}"))
elif "fingerprint" in question or "SHA256:" in question:
    print("yes")
else:
    sys.exit(1)
'''


@dataclass(frozen=True)
class Foreground:
    """An hpclab that goes on until it is told to end."""

    popen: subprocess.Popen[str]
    stdout: Path
    stderr: Path

    @property
    def printed(self) -> str:
        return self.stdout.read_text()

    @property
    def said(self) -> str:
        return self.stderr.read_text()

    def ended(self) -> bool:
        return self.popen.poll() is not None

    def until(self, condition: Callable[[], T | None], *, within_s: float = 20, what: str) -> T:
        """The condition's first true value, while it goes on."""

        def checked() -> T | None:
            value = condition()
            assert value or not self.ended(), f"it ended with {self.popen.returncode}: {self.said}"
            return value

        return until(checked, within_s=within_s, what=f"{what}; it says {self.said!r}")

    def wait_until_it_says(self, words: str, *, times: int = 1, within_s: float = 20) -> None:
        """Until the words stand on its stderr so many times."""
        self.until(lambda: self.said.count(words) >= times, within_s=within_s, what=f"{times} times {words!r}")

    def described(self, *, within_s: float = 60) -> dict[str, Any]:
        """The JSON object that it prints when the tunnel is open."""

        def whole() -> dict[str, Any] | None:
            with contextlib.suppress(json.JSONDecodeError):
                return dict(json.loads(self.printed))
            return None

        return self.until(whole, within_s=within_s, what="a JSON object")

    def wait(self, *, within_s: float = 20) -> int:
        """Its exit status."""
        until(self.ended, within_s=within_s, what=f"its end; on stderr: {self.said}")
        return int(self.popen.returncode)

    def end(self, number: signal.Signals = signal.SIGINT, *, within_s: float = 10) -> int:
        send(self.popen, number)
        return self.wait(within_s=within_s)


@dataclass(frozen=True)
class Laptop:
    """ada's; a second one differs in its home."""

    cluster: Cluster
    ssh: str
    """`paramiko` or `openssh`."""
    home: str = "/home/ada"
    begun: list[Foreground] = field(default_factory=list)

    @property
    def node(self) -> Node:
        return self.cluster.on("laptop")

    @property
    def environ(self) -> dict[str, str]:
        return {
            "HOME": self.home,
            "HPCLAB_SSH": self.ssh,
            "SSH_ASKPASS": f"{self.home}/ask",
            "SSH_ASKPASS_REQUIRE": "force",
        }

    def file(self, name: str) -> Path:
        """Of her home here."""
        return self.node.file(f"{self.home}/{name}")

    def run(
        self, *argv: str, check: bool = True, env: Mapping[str, str] | None = None, **how: Any
    ) -> subprocess.CompletedProcess[str]:
        return self.node.run(argv, check=check, env=self.environ | dict(env or {}), **how)

    def hpclab(self, *args: str, **how: Any) -> subprocess.CompletedProcess[str]:
        return self.run("hpclab", *args, **how)

    def json(self, *args: str, **how: Any) -> Any:
        return json.loads(self.hpclab(*args, "--json", **how).stdout)

    def begin(self, *argv: str, env: Mapping[str, str] | None = None) -> Foreground:
        stdout, stderr = (self.cluster.state / f"{uuid4().hex[:8]}-{name}" for name in ("stdout", "stderr"))
        with open(stdout, "w") as out, open(stderr, "w") as err:
            environ = self.environ | dict(env or {})
            popen = self.node.popen(argv, env=environ, stdin=subprocess.DEVNULL, stdout=out, stderr=err)
        foreground = Foreground(popen, stdout, stderr)
        self.begun.append(foreground)
        return foreground

    def questions(self) -> list[str]:
        """All that she was asked so far."""
        file = self.file("questions")
        return file.read_text().splitlines() if file.exists() else []

    def forget_questions(self) -> None:
        self.file("questions").unlink(missing_ok=True)

    def fetch(self, url: str) -> str:
        """A page, as curl would show it."""
        return self.run("/usr/bin/python3", "-c", FETCH, url, check=False).stdout.strip()

    def listening(self) -> list[int]:
        """The ports on which anything listens."""
        lines = self.cluster.on("laptop", user="root").says(["ss", "-Hltn"]).splitlines()
        return sorted({int(line.split()[3].rpartition(":")[2]) for line in lines})

    def nothing_is_left(self) -> None:
        """No process of hers, no open port, no socket of a connection."""
        until(lambda: not self.processes(), within_s=10, what=f"the end of {self.processes()}")
        assert self.listening() == []
        sockets = self.cluster.on("laptop", user="root").says("find /home/ada /tmp /run -type s -not -path *hromium*")
        assert sockets == ""

    def processes(self) -> list[str]:
        return [line for line in self.node.processes() if "chromium" not in line]


FETCH = """
import sys, urllib.error, urllib.request
try:
    with urllib.request.urlopen(sys.argv[1], timeout=10) as answer:
        print(answer.status, answer.read().decode())
except OSError as error:
    print(error)
"""


@contextlib.contextmanager
def a_laptop(cluster: Cluster, ssh: str, *, home: str = "/home/ada") -> Iterator[Laptop]:
    """Whatever she has begun on it ends with the test."""
    laptop = Laptop(cluster, ssh, home)
    if home != "/home/ada":
        laptop.node.run(["mkdir", home])
        laptop.node.run(["cp", "-r", "/home/ada/.ssh", home])
    laptop.file("ask").write_text(ANSWERS)
    laptop.file("ask").chmod(0o755)
    try:
        yield laptop
    finally:
        for foreground in laptop.begun:
            if not foreground.ended():
                foreground.popen.kill()
                foreground.popen.wait()
        laptop.node.run(["rm", "-rf", home] if home != "/home/ada" else "rm -rf .hpclab .ssh/config questions")


@contextlib.contextmanager
def a_browser_on(cluster: Cluster, chromium: str) -> Iterator[Browser]:
    """It runs on the laptop, as ada; the test speaks to it through a pipe, not through the network."""
    program = cluster.state / "chromium"
    door = shlex.join([str(MINIHPC / "exec.sh"), "laptop", "--user", "ada", "--", chromium])
    program.write_text(f'#!/bin/sh\nexec {door} "$@"\n')
    program.chmod(0o755)
    quiet = ["gpu", "quic", "background-networking", "component-update", "sync"]
    args = ["--no-sandbox", "--no-first-run", "--no-proxy-server", *(f"--disable-{what}" for what in quiet)]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=args, env=cluster.environ)
        yield browser
        browser.close()


def sshd(cluster: Cluster, verb: str, name: str = "sshd") -> None:
    """Start it on the login node, or kill it together with its connections."""
    cluster.service("login", verb, name)
    if verb == "kill":
        close_connections(cluster)


def close_connections(cluster: Cluster) -> None:
    """Whoever has come to the login node by ssh is thrown out."""
    root = cluster.on("login", user="root")
    found = re.findall(r"^ *(\d+) sshd\S*: ada\b", root.says(["ps", "-ewwo", "pid=,args="]), re.MULTILINE)
    root.run(["kill", "-KILL", *found], check=False)
