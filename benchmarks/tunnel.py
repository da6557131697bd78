"""The ways of a tunnel's bytes against `ssh -L`, side by side between the same two ends, on a little cluster.

From the laptop over the login node to a server on a node: a gibibyte, many short connections, many streams at once.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from statistics import median

from minihpc.cluster import Cluster, Node, little_cluster, until

from benchmarks import table

SSH_L, SSH_L_GCM, PARAMIKO, OPENSSH = "ssh -L", "ssh -L, GCM", "paramiko", "openssh"
LOCAL_PORTS = {SSH_L: 7700, PARAMIKO: 7701, OPENSSH: 7702, SSH_L_GCM: 7703}
GCM = "aes128-gcm@openssh.com"
"""The cipher that paramiko takes. ssh prefers another, which is slower where processors know AES."""
SERVER_PORT = 7000
GIBIBYTE_MB = 2**30 / 1e6
SHORT, STREAMS = 300, 20
TARGETS = {
    PARAMIKO: {"big": 1 / 0.6, "short": 1.5, "streams": 1 / 0.6},
    OPENSSH: {"big": 1.1, "short": 1.1, "streams": 1.1},
}
"""The ratio of times that should not be exceeded: 0.6 of the throughput is 1 / 0.6 of the time."""
ROWS = {
    "big": "1 GiB",
    "short": f"{SHORT} connections",
    "streams": f"{STREAMS} times 50 MiB",
    "first": "last first byte",
}

SERVER = f"""
import os, socket, threading
block = os.urandom(1 << 20)  # nothing that could be compressed
def serve(sock):
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    with sock, sock.makefile("rb") as asked:
        left = int(asked.readline())
        while left:
            left -= sock.send(block[:left])
listener = socket.create_server(("", {SERVER_PORT}), backlog=200)
while True:
    threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()
"""
HOLDER = f"""
import sys
from hpclab.login import login_node, means
login = login_node(means("login", sys.argv[1]), folder="/tmp/bench-ssh", ask=None, tell=print)
login.connect()
login.forward(int(sys.argv[2]), "node1", {SERVER_PORT})
sys.stdin.read()
login.close()
"""
CLIENT = f"""
import json, socket, sys, threading, time
def get(size):
    # when the first byte came
    with socket.create_connection(("127.0.0.1", int(sys.argv[1]))) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.sendall(b"%d\\n" % size)
        buffer, got, first = bytearray(1 << 18), 0, 0
        while got < size:
            count = sock.recv_into(buffer)
            assert count, f"cut off after {{got}} of {{size}} bytes"
            first = first or time.monotonic()
            got += count
    return first
get(1000)
told = {{}}
begin = time.monotonic()
get(1 << 30)
told["big"] = time.monotonic() - begin
begin = time.monotonic()
for _ in range({SHORT}):
    get(1000)
told["short"] = time.monotonic() - begin
firsts = []
threads = [threading.Thread(target=lambda: firsts.append(get(50 << 20))) for _ in range({STREAMS})]
begin = time.monotonic()
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
assert len(firsts) == {STREAMS}
told["streams"] = time.monotonic() - begin
told["first"] = max(firsts) - begin
print(json.dumps(told))
"""


@contextmanager
def running(node: Node, *argv: str) -> Iterator[None]:
    """Ends with the block: it is told by the end of its stdin, or by a signal."""
    with node.popen(argv, stdin=subprocess.PIPE) as program:
        yield
        program.terminate()


@contextmanager
def forwards(cluster: Cluster) -> Iterator[None]:
    """The server, and all ways to it from the laptop."""
    laptop, python = cluster.on("laptop"), str(cluster.python)
    with ExitStack() as stack:
        stack.enter_context(running(cluster.on("node1"), python, "-c", SERVER))
        line = f"{LOCAL_PORTS[SSH_L]}:node1:{SERVER_PORT}"
        stack.enter_context(running(laptop, "ssh", "-N", "-L", line, "login"))
        line = f"{LOCAL_PORTS[SSH_L_GCM]}:node1:{SERVER_PORT}"
        stack.enter_context(running(laptop, "ssh", "-N", "-c", GCM, "-L", line, "login"))
        for means in (PARAMIKO, OPENSSH):
            stack.enter_context(running(laptop, python, "-c", HOLDER, means, str(LOCAL_PORTS[means])))
        for port in LOCAL_PORTS.values():
            until(lambda port=port: f"127.0.0.1:{port} " in laptop.says("ss -ltn"), what=f"port {port} on the laptop")
        yield


def measured(cluster: Cluster, way: str) -> dict[str, float]:
    argv = [str(cluster.python), "-c", CLIENT, str(LOCAL_PORTS[way])]
    told: dict[str, float] = json.loads(cluster.on("laptop").says(argv, timeout_s=600))
    speed, each_ms = GIBIBYTE_MB / told["big"], 1000 * told["short"] / SHORT
    print(f"{way:11}  {speed:4.0f} MB/s, {each_ms:5.1f} ms a connection, {STREAMS} streams {told['streams']:.1f} s")
    return told


def main() -> None:
    given = table.arguments(__doc__, runs=5)
    rounds: list[dict[str, dict[str, float]]] = []
    with little_cluster("none", nodes=("node1",)) as cluster, forwards(cluster):
        for number in range(given.runs):
            print(f"round {number + 1}", flush=True)
            # nobody is always the first
            ways = sorted(LOCAL_PORTS, key=lambda way: (LOCAL_PORTS[way] - number) % len(LOCAL_PORTS))
            rounds.append({way: measured(cluster, way) for way in ways})
    rows = [comparison(rounds, means, what) for means in TARGETS for what in ROWS]
    equals = [comparison(rounds, PARAMIKO, what, before=SSH_L_GCM) for what in ROWS]
    table.show(
        f"tunnel: from the laptop over the login node to a node, {given.runs} rounds",
        ["", SSH_L, "ours", "ratio", "least", "most", "target"],
        rows,
    )
    table.show("the same with equal ciphers", ["", SSH_L_GCM, "ours", "ratio", "least", "most", ""], equals)
    missed = ", ".join(row.what.strip() for row in rows if not is_met(row))
    print(f"targets missed: {missed}" if missed else "all targets are met")
    table.write(given.json, "tunnel", [*rows, *equals])


def comparison(
    rounds: list[dict[str, dict[str, float]]], means: str, what: str, *, before: str = SSH_L
) -> table.Comparison:
    return table.Comparison(
        what=f"{means}{', GCM' if before == SSH_L_GCM else ''}: {ROWS[what]}",
        unit="s",
        before=tuple(told[before][what] for told in rounds),
        ours=tuple(told[means][what] for told in rounds),
        target=TARGETS[means].get(what) if before == SSH_L else None,
    )


def is_met(row: table.Comparison) -> bool:
    return row.target is None or median(row.ratios) <= row.target


if __name__ == "__main__":
    main()
