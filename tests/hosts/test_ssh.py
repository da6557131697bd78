"""paramiko against real sshds: each test is a program that runs on the laptop of a little cluster."""

from __future__ import annotations

import json
import subprocess
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from minihpc.cluster import Cluster
from waiting import until

pytestmark = pytest.mark.cluster(nodes=("node1",))

PRELUDE = r'''
import base64, hmac, json, os, pathlib, socket, sys, threading, time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from hpclab.errors import HpclabError, LoginFailed
from hpclab.hosts.ssh import ParamikoLogin, config_without_ssh

asked, told = [], []

def code():
    secret = base64.b32decode("JBSWY3DPEHPK3PXPJBSWY3DPEHPK3PXP")
    hash = hmac.digest(secret, int(time.time() // 30).to_bytes(8, "big"), "sha1")
    at = hash[-1] & 15
    return format((int.from_bytes(hash[at : at + 4], "big") & 0x7FFFFFFF) % 1_000_000, "06")

def login(destination, *answers, timeout_s=10, known=None, settings=None, connected=True, **how):
    """`answers` are given in turn, a function is called for its own; `known` is the text of a known_hosts file."""
    coming = iter(answers)
    def ask(prompt, *, echo=False):
        asked.append(prompt)
        answer = next(coming, None)
        if answer is None:
            raise LoginFailed("nobody is there to be asked")
        return answer() if callable(answer) else answer
    config = replace(config_without_ssh(destination), **(settings or {}))
    if known is not None:
        file = pathlib.Path("/home/ada/known")
        file.write_text(known)
        config = replace(config, known_hosts=(str(file),))
    login = ParamikoLogin(config, ask=ask, tell=told.append, resolve=config_without_ssh, **how)
    if connected:
        login.connect(timeout_s=timeout_s)
    return login

def says(login, *argv, stdin=b"", **how):
    process = login.start(argv, **how)
    process.stdin.write(stdin)
    process.stdin.close()
    out = process.stdout.read().decode()
    return {"out": out, "err": process.stderr.read().decode(), "exit": process.wait(10)}

def fetch(port, request):
    """What comes back after the end of the request."""
    with socket.create_connection(("127.0.0.1", port), timeout=30) as sock:
        sock.sendall(request)
        sock.shutdown(socket.SHUT_WR)
        answer = b""
        while data := sock.recv(1 << 16):
            answer += data
    return answer

def show(value):
    print(json.dumps(value), flush=True)

def ours():
    """Threads, and sockets that are not the streams of this program."""
    fds = [os.readlink(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd") if os.path.exists(f"/proc/self/fd/{fd}")]
    return {"threads": [each.name for each in threading.enumerate()][1:], "sockets": sum("socket:" in fd for fd in fds)}

try:
    exec(sys.argv[1])
except HpclabError as error:
    show({"error": type(error).__name__, "words": str(error), "asked": asked, "told": told})
'''  # noqa: E501
SERVER = """
import socket, threading
listener = socket.create_server(("0.0.0.0", 7000), backlog=100)
print("up", flush=True)
def serve(sock):
    request = b""
    while data := sock.recv(1 << 16):
        request += data
    sock.sendall(bytes(int(request[5:])) if request.startswith(b"send ") else request)
    sock.close()
while True:
    threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()
"""
"""Echoes what it was sent, once that has ended."""


class Laptop:
    """A program that goes on: it hears lines, and says JSON."""

    def __init__(self, cluster: Cluster, program: str) -> None:
        argv = [str(cluster.python), "-c", PRELUDE, textwrap.dedent(program)]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        self._popen = cluster.on("laptop").popen(argv, **pipes)

    def hears(self) -> None:
        assert self._popen.stdin
        print(file=self._popen.stdin, flush=True)

    @property
    def says(self) -> Any:
        assert self._popen.stdout
        assert self._popen.stderr
        line = self._popen.stdout.readline()
        assert line, self._popen.stderr.read()
        return json.loads(line)

    def end(self) -> str:
        """What it had to complain about."""
        return str(self._popen.communicate(timeout=30)[1])


@contextmanager
def at_work(cluster: Cluster, program: str) -> Iterator[Laptop]:
    laptop = Laptop(cluster, program)
    try:
        yield laptop
    finally:
        complaint = laptop.end()
    assert not complaint


def at_laptop(cluster: Cluster, program: str, *before: str) -> Any:
    """What a program shows there; `before` is what starts it."""
    argv = [*before, str(cluster.python), "-c", PRELUDE, textwrap.dedent(program)]
    done = cluster.on("laptop").run(argv)
    assert done.stdout, done.stderr
    assert not done.stderr
    return json.loads(done.stdout)


def append(path: Path, text: str) -> None:
    with path.open("a") as file:
        file.write(text)


@pytest.fixture(scope="module")
def cluster(a_bare_cluster: Cluster) -> Cluster:
    """With ssh settings, some more keys, and a second host key on login."""
    ada, login = a_bare_cluster.on("laptop"), a_bare_cluster.on("login", user="root")
    ada.file("/home/ada/.ssh/config").write_text(
        textwrap.dedent("""\
        Host behind-two
            HostName node1
            ProxyJump login,inner
        Host inner
            HostName 10.77.1.1
        Host by-command
            HostName 10.77.1.1
            HostKeyAlias login
            ProxyCommand ssh -W %h:%p login
        Host by-nothing
            ProxyCommand echo it is broken >&2; exit 1
        Host short
            HostName login
            User bob
            Port 22
            IdentityFile ~/.ssh/locked
            ServerAliveInterval 7
            ConnectTimeout 3
            UserKnownHostsFile ~/.ssh/theirs ~/.ssh/others
        Host inner behind-two
            UserKnownHostsFile ~/.ssh/known_inner
            StrictHostKeyChecking accept-new
        """)
    )
    ada.run("ssh-keygen -q -t ed25519 -N locked -f .ssh/locked; ssh-keygen -q -t rsa -N '' -f .ssh/agents")
    append(
        a_bare_cluster.on("login").file("/home/ada/.ssh/authorized_keys"),
        ada.file("/home/ada/.ssh/locked.pub").read_text() + ada.file("/home/ada/.ssh/agents.pub").read_text(),
    )
    login.run("ssh-keygen -q -t rsa -N '' -f /etc/ssh/ssh_host_rsa_key")
    append(
        login.file("/etc/ssh/sshd_config"),
        "\nHostKey /etc/ssh/ssh_host_rsa_key\nMatch User bob\nAllowTcpForwarding no\n"
        "KbdInteractiveAuthentication no\nAuthenticationMethods publickey password\n",
    )
    # bob's keys on the laptop are his own
    append(
        a_bare_cluster.on("login").file("/home/bob/.ssh/authorized_keys"),
        ada.file("/home/ada/.ssh/id_ed25519.pub").read_text(),
    )
    a_bare_cluster.service("login", "restart", "sshd")
    return a_bare_cluster


@pytest.fixture(scope="module")
def a_server(cluster: Cluster) -> Iterator[None]:
    """On node1, port 7000."""
    server = cluster.on("node1").popen([str(cluster.python), "-c", SERVER], stdout=subprocess.PIPE)
    assert server.stdout
    assert server.stdout.readline() == "up\n"
    yield
    server.terminate()
    server.communicate(timeout=10)


def host_key(cluster: Cluster, type: str = "ed25519") -> str:
    """Of login: type and key."""
    return cluster.on("login").file(f"/etc/ssh/ssh_host_{type}_key.pub").read_text().rsplit(maxsplit=1)[0]


@pytest.fixture(scope="module")
def login_key(cluster: Cluster) -> str:
    line = cluster.on("laptop").file("/home/ada/.ssh/known_hosts").read_text().splitlines()[0]
    return line.split(maxsplit=1)[1]


class TestLogin:
    def test_with_a_key_asks_and_tells_nothing(self, cluster: Cluster) -> None:
        seen = at_laptop(cluster, "it = login('ada@login'); show([it.address, it.is_connected, asked, told])")
        assert seen == ["10.77.0.1", True, [], []]

    def test_from_many_threads_is_one_connection(self, cluster: Cluster) -> None:
        seen = at_laptop(
            cluster,
            """
            it = login("login", connected=False)
            with ThreadPoolExecutor(8) as pool:
                list(pool.map(lambda _: it.connect(), range(8)))
            show(ours()["sockets"])
            """,
        )
        assert seen == 1

    def test_with_password_and_code_after_the_banner(self, cluster: Cluster) -> None:
        seen = at_laptop(
            cluster,
            """
            it = login("login-2fa", "correct-horse", code, code)
            it.drop()
            first, said = list(asked), list(told)
            it.connect()
            show([first, said, asked[len(first):], says(it, "id", "-un")["out"]])
            """,
        )
        first, told, again, user = seen
        assert first == ["Password: ", "Verification code: "]
        assert told == ["*** minihpc: authorised use only. ***"]
        assert again == ["Verification code: "]  # the password is still known
        assert user == "ada\n"

    def test_with_key_and_code(self, cluster: Cluster) -> None:
        assert at_laptop(cluster, "login('login-mfa', code); show(asked)") == ["Verification code: "]

    def test_with_an_encrypted_key_asks_once(self, cluster: Cluster) -> None:
        seen = at_laptop(
            cluster,
            """
            it = login("login", "wrong", "locked", settings={"identity_files": ("~/.ssh/locked",)})
            it.drop(); it.connect(); it.drop()
            it.connect()
            show(asked)
            """,
        )
        assert seen == ["Passphrase for the key /home/ada/.ssh/locked: "] * 2

    def test_three_wrong_passphrases_are_the_end(self, cluster: Cluster) -> None:
        seen = at_laptop(cluster, "login('login', 'a', 'b', 'c', 'd', settings={'identity_files': ('~/.ssh/locked',)})")
        assert seen["error"] == "LoginFailed"
        assert len(seen["asked"]) == 3
        assert "it wanted: publickey" in seen["words"]
        assert "/home/ada/.ssh/locked (not decrypted)" in seen["words"]

    @pytest.mark.parametrize("agent", ["''", "os.environ.pop('SSH_AUTH_SOCK')"])
    def test_with_the_agent(self, cluster: Cluster, agent: str) -> None:
        program = (
            f"show(login('login', settings={{'identity_files': ('/none',), 'identity_agent': {agent}}}).is_connected)"
        )
        before = ["ssh-agent", "sh", "-c", 'ssh-add -q .ssh/agents && exec "$@"', "sh"]
        assert at_laptop(cluster, program, *before) is True

    def test_an_agent_that_will_not_sign_is_passed_over(self, cluster: Cluster) -> None:
        before = ["ssh-agent", "sh", "-c", 'ssh-add -q -c .ssh/agents 2>/dev/null && exec "$@"', "sh"]
        assert at_laptop(cluster, "show(login('login').is_connected)", *before) is True

    def test_with_a_certificate(self, cluster: Cluster) -> None:
        cluster.on("laptop").run(
            "rm -f certified* authority*; for key in authority certified; do ssh-keygen -q -t rsa -N '' -f $key; done; "
            "ssh-keygen -q -s authority -I ada -n ada certified"
        )
        authority = cluster.on("laptop").file("/home/ada/authority.pub").read_text()
        keys = cluster.on("login").file("/home/ada/.ssh/authorized_keys")
        append(keys, f"cert-authority {authority}")
        program = "show(login('login', settings={'identity_files': ('/home/ada/certified',)}).is_connected)"
        assert at_laptop(cluster, program) is True

    def test_with_a_password_that_is_typed_slowly(self, cluster: Cluster) -> None:
        seen = at_laptop(
            cluster,
            """
            slowly = lambda: time.sleep(1.5) or "correct-horse"
            it = login("bob@login", slowly, timeout_s=1, settings={"identity_files": ("/none",)})
            it.drop(); it.connect()
            show(asked)
            """,
        )
        assert seen == ["bob@login's password: "]

    def test_an_expired_account(self, cluster: Cluster) -> None:
        shadow = cluster.on("login").file("/etc/shadow")
        before = shadow.read_text()
        shadow.write_text(before.replace(":0:99999:7:::", ":0:99999:7::1:"))
        try:
            seen = at_laptop(cluster, "login('login')")
        finally:
            shadow.write_text(before)
        assert seen["error"] == "LoginFailed"
        assert "it said: Your account has expired" in seen["words"]

    def test_a_key_that_nobody_knows_is_named(self, cluster: Cluster) -> None:
        cluster.on("laptop").run("[ -e strange ] || ssh-keygen -q -t ecdsa -N '' -f strange")
        seen = at_laptop(cluster, "login('login', settings={'identity_files': ('/home/ada/strange',)})")
        assert seen["error"] == "LoginFailed"
        assert "tried: /home/ada/strange" in seen["words"]

    def test_three_wrong_passwords_are_the_end(self, cluster: Cluster) -> None:
        seen = at_laptop(cluster, "login('login-2fa', *['wrong', '000000'] * 4)")
        assert seen["error"] == "LoginFailed"
        assert len(seen["asked"]) == 6
        assert "wrong answers: 3" in seen["words"]

    def test_nobody_there_to_be_asked(self, cluster: Cluster) -> None:
        seen = at_laptop(cluster, "login('login-2fa')")
        assert (seen["error"], seen["words"]) == ("LoginFailed", "nobody is there to be asked")


class TestSettings:
    def test_are_those_of_ssh(self, cluster: Cluster) -> None:
        program = """
        config = config_without_ssh("short")
        show([config.hostname, config.user, config.identity_files, config.alive_interval_s, config.connect_timeout_s,
              config.known_hosts, config_without_ssh("ada@short").user, config_without_ssh("ssh://short:24").port])
        """
        ssh = "/home/ada/.ssh"
        assert at_laptop(cluster, program) == [
            *["login", "bob", [f"{ssh}/locked"], 7, 3, [f"{ssh}/theirs", f"{ssh}/others"], "ada", 24]
        ]

    def test_two_jump_hosts(self, cluster: Cluster) -> None:
        seen = at_laptop(
            cluster, "it = login('behind-two'); show([says(it, 'hostname')['out'], it.address]); it.close()"
        )
        assert seen == ["node1\n", ""]

    def test_a_jump_host_that_leads_nowhere_is_quoted(self, cluster: Cluster) -> None:
        seen = at_laptop(cluster, "login('node1', settings={'proxy_jump': ('login',), 'port': 1})")
        assert seen["error"] == "Unreachable"
        assert "login says: Connect failed: Connection refused" in seen["words"]

    def test_jumping_round_and_round(self, cluster: Cluster) -> None:
        assert at_laptop(cluster, "login('login', settings={'proxy_jump': ('login',)})")["error"] == "ConfigError"

    def test_a_proxy_command(self, cluster: Cluster) -> None:
        seen = at_laptop(cluster, "it = login('by-command'); show([says(it, 'hostname')['out'], it.address])")
        assert seen == ["login\n", ""]

    def test_a_broken_proxy_command_is_quoted(self, cluster: Cluster) -> None:
        seen = at_laptop(cluster, "login('by-nothing')")
        assert seen["error"] == "Unreachable"
        assert "it is broken" in seen["words"]

    @pytest.mark.parametrize("destination", ["-oProxyCommand=x", "a b", "login\n", ""])
    def test_no_destination(self, cluster: Cluster, destination: str) -> None:
        assert at_laptop(cluster, f"login({destination!r})")["error"] == "ConfigError"


class TestHostKey:
    def test_unknown_is_shown_and_noted(self, cluster: Cluster, login_key: str) -> None:
        seen = at_laptop(
            cluster,
            """
            login("login", "what?", "yes", known="other ssh-ed25519 AAAA")
            show([asked, pathlib.Path("/home/ada/known").read_text()])
            """,
        )
        asked, known = seen
        assert "ssh-ed25519 SHA256:" in asked[0]
        assert known == f"other ssh-ed25519 AAAA\nlogin {login_key}\n"

    def test_refused_by_the_user(self, cluster: Cluster) -> None:
        assert at_laptop(cluster, "login('login', 'no', known='')")["error"] == "HostKeyRefused"

    @pytest.mark.parametrize(("checking", "error"), [("yes", "HostKeyRefused"), ("accept-new", None)])
    def test_without_a_question(self, cluster: Cluster, checking: str, error: str | None) -> None:
        program = f"login('login', known='', settings={{'strict_host_key_checking': {checking!r}}}); show({{}})"
        seen = at_laptop(cluster, program)
        assert seen.get("error") == error
        assert not seen.get("asked")

    def test_file_and_folder_are_made_for_the_user_alone(self, cluster: Cluster) -> None:
        cluster.on("laptop").run("rm -rf new")
        at_laptop(cluster, "login('login', 'yes', settings={'known_hosts': ('~/new/known',)}); show(0)")
        assert cluster.on("laptop").says("stat -c %a new new/known") == "700\n600"

    def test_changed_is_refused_with_both_and_the_place(self, cluster: Cluster, login_key: str) -> None:
        other = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJJcPZ0M1jYVf6rOPVVWZdSBqXWcCM6LWYdWPF2vVbYq"
        seen = at_laptop(cluster, f"login('login', known='# mine\\nlogin {other}\\n')")
        assert seen["error"] == "HostKeyRefused"
        assert "/home/ada/known:2" in seen["words"]
        assert seen["words"].count("SHA256:") == 2
        assert seen["words"].endswith("ssh-keygen -R login -f /home/ada/known")

    def test_revoked_is_refused(self, cluster: Cluster, login_key: str) -> None:
        seen = at_laptop(cluster, f"login('login', known='login {login_key}\\n@revoked * {login_key}\\n')")
        assert seen["error"] == "HostKeyRefused"
        assert "revoked" in seen["words"]

    def test_hashed(self, cluster: Cluster, login_key: str) -> None:
        ada = cluster.on("laptop")
        ada.run(["bash", "-c", f"echo 'login {login_key}' > hashed && ssh-keygen -q -H -f hashed"])
        assert "login" not in ada.file("/home/ada/hashed").read_text()
        program = "login('login', settings={'known_hosts': ('/home/ada/hashed',)}); show(asked)"
        assert at_laptop(cluster, program) == []

    def test_a_host_known_by_its_rsa_key_is_known(self, cluster: Cluster) -> None:
        program = f"login('login', known='log*,!login2 {host_key(cluster, 'rsa')}\\n'); show(asked)"
        assert at_laptop(cluster, program) == []


class TestCommand:
    def test_streams_and_exit_status_are_its_own(self, cluster: Cluster) -> None:
        seen = at_laptop(
            cluster, "show(says(login('login'), 'sh', '-c', 'cat; echo err >&2; exit 7', stdin=bytes(b'in' * 300_000)))"
        )
        assert seen == {"out": "in" * 300_000, "err": "err\n", "exit": 7}

    def test_odd_arguments_arrive_as_they_are(self, cluster: Cluster) -> None:
        odd = ["a b", "", "'", '"', "$HOME", "!x", "\\", "*", "a\nb", "é", "-n", ";#&|"]
        seen = at_laptop(cluster, rf"show(says(login('login'), 'printf', r'%s\0', *{odd!r})['out'])")
        assert seen.split("\0")[:-1] == odd

    def test_noise_of_start_up_files_is_cut_off(self, cluster: Cluster) -> None:
        seen = at_laptop(
            cluster, "show(says(login('bob@login'), 'echo', 'pure', prologue=['echo loud', 'export A=b']))"
        )
        assert seen == {"out": "pure\n", "err": "loud\n", "exit": 0}

    def test_in_a_c_shell(self, cluster: Cluster) -> None:
        with a_shell_of_bob(cluster, "/bin/tcsh"):
            seen = at_laptop(cluster, "show(says(login('bob@login'), 'echo', '$path', '!x', 'a\\nb'))")
        assert seen == {"out": "$path !x a\nb\n", "err": "", "exit": 0}

    def test_a_shell_that_runs_nothing_is_quoted(self, cluster: Cluster) -> None:
        with a_shell_of_bob(cluster, "/usr/sbin/nologin"):
            seen = at_laptop(cluster, "says(login('bob@login'), 'echo')")
        assert seen["error"] == "RemoteUnfit"
        assert "This account is currently not available." in seen["words"]

    def test_a_prologue_that_gives_up_is_quoted(self, cluster: Cluster) -> None:
        seen = at_laptop(cluster, "says(login('login'), 'echo', prologue=['echo no such module; exit 9'])")
        assert seen["error"] == "RemoteUnfit"
        assert "it said: no such module" in seen["words"]

    def test_close_brings_back_who_reads(self, cluster: Cluster) -> None:
        seen = at_laptop(
            cluster,
            """
            process = login("login").start(["sleep", "60"])
            with ThreadPoolExecutor(3) as pool:
                waiting = [pool.submit(each) for each in (process.stdout.read, process.stderr.read, process.wait)]
                threading.Timer(0.2, process.close).start()
                show([str(each.result(10)) for each in waiting])
            """,
        )
        assert seen[:2] == ["b''", "b''"]

    def test_a_connection_that_ends_is_told(self, cluster: Cluster) -> None:
        seen = at_laptop(
            cluster,
            """
            it = login("login")
            process = it.start(["sleep", "60"])
            threading.Timer(0.2, it.drop).start()
            process.wait(10)
            """,
        )
        assert seen["error"] == "ConnectionLost"

    def test_one_that_takes_too_long(self, cluster: Cluster) -> None:
        assert at_laptop(cluster, "login('login').start(['sleep', '60']).wait(0.1)")["error"] == "TookTooLong"


@contextmanager
def a_shell_of_bob(cluster: Cluster, shell: str) -> Iterator[None]:
    passwd = cluster.on("login").file("/etc/passwd")
    before = passwd.read_text()
    passwd.write_text(before.replace("/home/bob:/bin/bash", f"/home/bob:{shell}"))
    try:
        yield
    finally:
        passwd.write_text(before)


@pytest.mark.usefixtures("a_server")
class TestForward:
    def test_half_closed_both_ways(self, cluster: Cluster) -> None:
        seen = at_laptop(
            cluster,
            """
            forward = login("login").forward(0, "node1", 7000)
            data = os.urandom(1 << 20)
            show([fetch(forward.local_port, data) == data, fetch(forward.local_port, b""), forward.refusal])
            """.replace('fetch(forward.local_port, b"")', 'len(fetch(forward.local_port, b""))'),
        )
        assert seen == [True, 0, ""]

    def test_twenty_at_once_beside_one_that_does_not_read(self, cluster: Cluster) -> None:
        seen = at_laptop(
            cluster,
            """
            port = login("login").forward(0, "node1", 7000).local_port
            slow = socket.create_connection(("127.0.0.1", port))
            slow.sendall(b"send 40000000"); slow.shutdown(socket.SHUT_WR)
            with ThreadPoolExecutor(20) as pool:
                sizes = list(pool.map(lambda n: len(fetch(port, b"send 1000000")), range(20)))
            got = 0
            while data := slow.recv(1 << 20): got += len(data)
            show([sizes, got])
            """,
        )
        assert seen == [[1_000_000] * 20, 40_000_000]

    def test_refused_over_there(self, cluster: Cluster) -> None:
        program = "it = login('login').forward(0, 'node1', 1); show([len(fetch(it.local_port, b'')), it.refusal])"
        assert at_laptop(cluster, program) == [0, "Connect failed: Connection refused"]

    def test_forbidden_by_the_server(self, cluster: Cluster) -> None:
        program = "it = login('bob@login').forward(0, 'node1', 7000); fetch(it.local_port, b''); show(it.refusal)"
        assert "administratively prohibited" in at_laptop(cluster, program).lower()

    def test_a_port_that_is_taken(self, cluster: Cluster) -> None:
        seen = at_laptop(
            cluster,
            """
            import errno
            it = login("login")
            port = it.forward(0, "node1", 7000).local_port
            try: it.forward(port, "node1", 7000)
            except OSError as error: show(error.errno == errno.EADDRINUSE)
            """,
        )
        assert seen is True

    def test_a_node_beyond(self, cluster: Cluster) -> None:
        cluster.on("laptop").run("rm -f nodes")
        seen = at_laptop(
            cluster,
            """
            it = login("login", node_known_hosts="/home/ada/nodes")
            node = it.beyond("node1")
            node.connect()
            data = fetch(node.forward(0, "127.0.0.1", 7000).local_port, b"hello")
            node.drop()
            open_still = it.is_connected
            node.connect()
            show([says(node, "hostname")["out"], data.decode(), open_still, node.address, asked])
            node.close(), it.close()
            """,
        )
        assert seen == ["node1\n", "hello", True, "", []]
        assert cluster.on("laptop").file("/home/ada/nodes").read_text().startswith("node1 ssh-ed25519 ")

    def test_nothing_is_left_after_close(self, cluster: Cluster) -> None:
        seen = at_laptop(
            cluster,
            """
            it = login("behind-two")
            port = it.forward(0, "127.0.0.1", 7000).local_port
            open_one = socket.create_connection(("127.0.0.1", port))
            open_one.sendall(b"x")
            fetch(port, b"hello")
            process = it.start(["sleep", "60"])
            with ThreadPoolExecutor(1) as pool:
                reading = pool.submit(process.stdout.read)
                it.close(); reading.exception(10)
            process.close(); open_one.close()
            deadline = time.monotonic() + 5
            while any(ours().values()) and time.monotonic() < deadline: time.sleep(0.02)
            show(ours())
            """,
        )
        assert seen == {"threads": [], "sockets": 0}


@pytest.mark.usefixtures("a_server")
class TestTrouble:
    @pytest.mark.parametrize("destination", ["login", "behind-two"])
    def test_the_local_port_outlives_a_cut_network(self, cluster: Cluster, destination: str) -> None:
        program = f"""
        it = login({destination!r})
        port = it.forward(0, "node1", 7000).local_port
        flood = socket.create_connection(("127.0.0.1", port), timeout=0.5)
        flood.sendall(b"x")
        show(fetch(port, b"before").decode()); sys.stdin.readline()
        try: flood.sendall(bytes(1 << 30))
        except OSError: pass
        with ThreadPoolExecutor(2) as pool:
            unnoticed = pool.submit(fetch, port, b"unnoticed")
            began = time.monotonic()
            it.drop()
            show(time.monotonic() - began); sys.stdin.readline()
            waiting = pool.submit(fetch, port, b"waiting")
            while len(it._forwards[0]._listener._live) < 2: time.sleep(0.02)
            it.connect()
            show([unnoticed.result(20).decode(), waiting.result(20).decode()])
        it.close()
        """
        login = cluster.on("login", user="root")
        with at_work(cluster, program) as laptop:
            assert laptop.says == "before"
            login.cut("ext0")
            try:
                laptop.hears()
                assert laptop.says < 1
            finally:
                login.mend("ext0")
            laptop.hears()
            assert laptop.says == ["unnoticed", "waiting"]

    def test_a_restarted_sshd(self, cluster: Cluster) -> None:
        program = """
        it = login("login")
        port = it.forward(0, "node1", 7000).local_port
        show(fetch(port, b"one").decode()); sys.stdin.readline()
        deadline = time.monotonic() + 20
        while it.is_connected and time.monotonic() < deadline: time.sleep(0.02)
        try: it.connect(timeout_s=5)
        except HpclabError as error: show(type(error).__name__)
        sys.stdin.readline()
        it.connect()
        show(fetch(port, b"two").decode())
        """
        with at_work(cluster, program) as laptop:
            assert laptop.says == "one"
            cluster.service("login", "kill", "sshd")
            cluster.on("login", user="root").run("pkill -KILL -u ada sshd || true")
            try:
                laptop.hears()
                assert laptop.says == "Unreachable"
            finally:
                cluster.service("login", "start", "sshd")
            laptop.hears()
            assert laptop.says == "two"

    def test_who_waits_for_a_connection_is_sent_away_by_close(self, cluster: Cluster) -> None:
        seen = at_laptop(
            cluster,
            """
            it = login("login")
            port = it.forward(0, "node1", 7000).local_port
            it.drop()
            with ThreadPoolExecutor(1) as pool:
                waiting = pool.submit(fetch, port, b"")
                while None not in it._forwards[0]._listener._live.values(): time.sleep(0.02)
                it.close()
                answer = waiting.result(10).decode()
            deadline = time.monotonic() + 5
            while any(ours().values()) and time.monotonic() < deadline: time.sleep(0.02)
            show([answer, ours()])
            """,
        )
        assert seen == ["", {"threads": [], "sockets": 0}]

    def test_the_users_own_limit_holds_where_it_is_shorter(self, cluster: Cluster) -> None:
        seen = at_laptop(
            cluster,
            """
            silent = socket.create_server(("127.0.0.1", 0))
            address = f"ssh://127.0.0.1:{silent.getsockname()[1]}"
            login(address, timeout_s=30, settings={"connect_timeout_s": 1})
            """,
        )
        assert "there was no word for 1 s" in seen["words"]

    def test_an_sshd_that_never_speaks(self, cluster: Cluster) -> None:
        seen = at_laptop(
            cluster,
            """
            silent = socket.create_server(("127.0.0.1", 0))
            began = time.monotonic()
            try: login(f"ssh://127.0.0.1:{silent.getsockname()[1]}", timeout_s=1)
            except HpclabError as error: show([type(error).__name__, str(error), time.monotonic() - began, ours()])
            """,
        )
        error, words, took_s, left = seen
        assert error == "Unreachable"
        assert "there was no word for 1 s" in words
        assert took_s < 2.5
        assert left["threads"] == [] or set(left["threads"]) <= {"Thread-1"}

    @pytest.mark.parametrize(
        ("destination", "words"),
        [
            ("ssh://127.0.0.1:1", "127.0.0.1 port 1: Connection refused"),
            ("nowhere", "nowhere: "),
            ("192.0.2.1", "Network is unreachable"),
            ("ssh://10.77.0.1:2222", "timed out"),
        ],
    )
    def test_no_way_there(self, cluster: Cluster, destination: str, words: str) -> None:
        seen = at_laptop(cluster, f"login({destination!r}, timeout_s=1)")
        assert seen["error"] == "Unreachable"
        assert words in seen["words"]


def test_importing_it_does_not_import_paramiko(cluster: Cluster) -> None:
    argv = [str(cluster.python), "-c", "import sys, hpclab.hosts.ssh; print('paramiko' in sys.modules)"]
    assert until(lambda: cluster.on("laptop").says(argv), what="an answer") == "False"
