"""A login node over a real ssh and a real sshd; the code under test runs on the little cluster's laptop."""

from __future__ import annotations

import re
import signal
import subprocess
from collections.abc import Iterator

import pytest
from minihpc.cluster import Cluster, Node, send
from waiting import until

from hpclab.errors import ConfigError, HostKeyRefused, LoginFailed, Unreachable
from hpclab.hosts.openssh import OpensshLogin, explain

pytestmark = pytest.mark.cluster(nodes=["node1"])

PRELUDE = """
import contextlib, faulthandler, os, pathlib, socket, sys, threading, time
from concurrent.futures import ThreadPoolExecutor
faulthandler.dump_traceback_later(50, exit=True)  # no script hangs unseen
from hpclab.errors import *
from hpclab.hosts import LoginNode
from hpclab.hosts.openssh import OpensshLogin, RemoteCommand, _client, openssh_reasons, resolve

def to(destination, **how):
    login: LoginNode = OpensshLogin(destination, folder=os.path.expanduser("~/private"), **how)
    login.connect(timeout_s=2)
    return login

def output(login, *argv, prologue=()):
    command = login.start(argv, prologue=prologue)
    command.stdin.close()
    text = command.stdout.read().decode().rstrip()
    status = command.wait(20)
    command.close()
    return text if status == 0 else status

def through(forward):
    with socket.create_connection(("127.0.0.1", forward.local_port)) as connection:
        return connection.recv(7)

def fails(what):
    try:
        what()
    except Exception as error:
        print(type(error).__name__, error, sep="\\n")

def sockets():
    links = [pathlib.Path("/proc/self/fd", fd) for fd in os.listdir("/proc/self/fd")]
    return sum("socket:" in os.readlink(link) for link in links if link.is_symlink())

def until(condition):
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)
"""
CONFIG = """
Host unknown
  HostName login
  UserKnownHostsFile ~/no-hosts
Host changed
  HostName login
  HostKeyAlias changed
  UserKnownHostsFile ~/changed-hosts
Host wrong-key
  HostName login
  HostKeyAlias login
  IdentityFile ~/other
  IdentitiesOnly yes
Host shared
  HostName login
  HostKeyAlias login
  ControlPath ~/shared.sock
Host impatient
  HostName 127.0.0.1
  Port 4022
  ConnectTimeout 1
Host behind
  HostName node1
  ProxyJump login
  UserKnownHostsFile ~/new-hosts
  StrictHostKeyChecking accept-new
"""
ASK = """#!/usr/bin/python3
import base64, hashlib, hmac, struct, sys, time
if "assword" in sys.argv[1]:
    print("correct-horse")
else:
    secret = base64.b32decode("JBSWY3DPEHPK3PXPJBSWY3DPEHPK3PXP")
    digest = hmac.digest(secret, struct.pack(">Q", int(time.time()) // 30), hashlib.sha1)
    start = digest[-1] & 15
    print("%06d" % ((struct.unpack(">I", digest[start:start + 4])[0] & 0x7FFFFFFF) % 1000000))
"""
ASKED = {"SSH_ASKPASS": "/home/ada/ask", "SSH_ASKPASS_REQUIRE": "force"}


@pytest.fixture(scope="module")
def laptop(a_bare_cluster: Cluster) -> Node:
    """Ada's, with some odd places in her ~/.ssh/config."""
    ada = a_bare_cluster.on("laptop")
    ada.file("/home/ada/.ssh/config").write_text(CONFIG)
    ada.file("/home/ada/ask").write_text(ASK)
    ada.run("ssh-keygen -q -t ed25519 -N '' -f other; echo changed $(cat other.pub) > changed-hosts")
    ada.file("/home/ada/ask").chmod(0o755)
    return ada


@pytest.fixture
def sshd(a_bare_cluster: Cluster) -> Iterator[Node]:
    """Root on the login node, where sshd has its old settings again afterwards."""
    root = a_bare_cluster.on("login", user="root")
    settings = {path: root.file(path).read_text() for path in ("/etc/ssh/sshd_config", "/etc/passwd")}
    yield root
    for path, text in settings.items():
        root.file(path).write_text(text)
    a_bare_cluster.service("login", "restart", "sshd")


def script(laptop: Node, text: str) -> list[str]:
    return [str(laptop.cluster.python), "-c", PRELUDE + text]


def says(laptop: Node, text: str, **how) -> str:
    return laptop.says(script(laptop, text), **how)


# logging in


def test_a_key_lets_in(laptop):
    assert says(laptop, 'login = to("login"); print(login.address, output(login, "hostname"))') == "10.77.0.1 login"


@pytest.mark.parametrize("connection", ["open", "lost"])
def test_nothing_is_left_of_a_closed_login(laptop, connection):
    text = f"""
before = sockets()
login = OpensshLogin("login", folder="/home/ada/closed")
login.connect()
forward = login.forward(0, "node1", 22)
with socket.create_connection(("127.0.0.1", forward.local_port)) as used:
    used.recv(7)
    with contextlib.ExitStack() as stack:
        if "{connection}" == "lost":
            login.drop()
            stack.enter_context(socket.create_connection(("127.0.0.1", forward.local_port)))
            until(lambda: None in forward._listener._live.values())
        login.close()
until(lambda: threading.active_count() == 1)
print(os.listdir("/home/ada/closed"), sockets() - before)
"""
    assert says(laptop, text) == "[] 0"
    until(lambda: not [line for line in laptop.processes() if line.startswith("ssh ")], what="the end of ssh")


@pytest.mark.parametrize("host", ["login-2fa", "login-mfa"])
def test_what_ssh_asks_for_lets_in(laptop, host):
    assert says(laptop, f'print(output(to("{host}"), "hostname"))', env=ASKED) == "login"


AT_A_TERMINAL = """
import pty
pid, terminal = pty.fork()
if pid == 0:
    try:
        print("in:", output(to("login-2fa"), "hostname"), flush=True)
    except KeyboardInterrupt:
        print("interrupted", flush=True)
    os._exit(0)
shown = ""
def shows(wanted):
    global shown
    while wanted not in shown:
        shown += os.read(terminal, 1000).decode()
shows("Password: ")
"""


def test_a_terminal_is_asked(laptop):
    text = """
os.write(terminal, b"correct-horse\\n")
shows("code: ")
os.write(terminal, os.popen("./ask code").read().encode())
shows("in: login")
print("authorised use only" in shown, "correct-horse" in shown)
"""
    assert says(laptop, AT_A_TERMINAL + text) == "True False"


def test_an_interrupt_at_a_prompt_ends_the_login(laptop):
    assert says(laptop, AT_A_TERMINAL + 'os.write(terminal, b"\\x03"); shows("interrupted")') == ""
    until(lambda: not [line for line in laptop.processes() if line.startswith("ssh ")], what="the end of ssh")


def test_a_login_is_pinned_to_an_address_and_keeps_its_host_key(laptop):
    assert says(laptop, 'print(to("login", address="10.77.0.3").address)', env=ASKED) == "10.77.0.3"


def test_a_jump_leads_to_a_host(laptop):
    assert says(laptop, 'login = to("behind"); print([login.address], output(login, "hostname"))') == "[''] node1"


def test_a_node_is_reached_through_the_login_node(laptop):
    text = 'node = to("login").beyond("node1"); node.connect(); print(output(node, "hostname"), node.destination)'
    assert says(laptop, text) == "node1 ada@node1"
    assert "node1" in laptop.says("cat private/known_hosts-login; ssh-keygen -l -F node1 -f private/known_hosts-login")
    assert "node1" not in laptop.says("cat .ssh/known_hosts")


def test_a_long_path_of_the_folder_does_no_harm(laptop):
    text = """
folder = "/home/ada/%s $HOME" % ("long" * 25)
login = OpensshLogin("login", folder=folder)
login.connect()
node = login.beyond("node1")
node.connect()
print(output(node, "hostname"), os.listdir(folder))
node.close(), login.close()
print(*pathlib.Path("/tmp").glob("hpclab-*"))
"""
    assert says(laptop, text) == "node1 ['known_hosts-login']"


def test_a_connection_of_the_users_own_is_used_and_left_open(laptop):
    laptop.run("ssh -fNM shared")
    text = """
print(openssh_reasons("shared"))
login = to("shared")
forward = login.forward(0, "node1", 22)
print(through(forward), output(login, "hostname"))
login.drop()
login.connect()
print(through(forward), login.address)
login.close()
fails(lambda: through(forward))
"""
    said = says(laptop, text)
    assert laptop.run("ssh -O exit shared").returncode == 0
    assert said.splitlines()[0] == "['a connection of yours is open already, at ControlPath /home/ada/shared.sock']"
    assert "b'SSH-2.0' login\nb'SSH-2.0' 10.77.0.1\n" in said
    assert "ConnectionRefusedError" in said


def test_an_ordinary_host_is_for_paramiko(laptop):
    assert says(laptop, 'print(openssh_reasons("login"), resolve("login").user)') == "[] ada"


# not logging in


@pytest.mark.parametrize(
    ("destination", "error", "words", "next_step"),
    [
        ("no-such-host", "Unreachable", "Could not resolve hostname", "is the name right?"),
        ("ssh://127.0.0.1:9", "Unreachable", "Connection refused", "is it the right port"),
        ("10.77.1.11", "Unreachable", "Network is unreachable", "is the network up"),
        ("wrong-key", "LoginFailed", "it wants publickey", "`ssh -v wrong-key` tells"),
        ("login-2fa", "LoginFailed", "it wants keyboard-interactive", "in a terminal"),
        ("unknown", "HostKeyRefused", "nobody has confirmed", "compare the fingerprint"),
        ("changed", "HostKeyRefused", "changed-hosts:1", 'ssh-keygen -f "/home/ada/changed-hosts" -R'),
    ],
)
def test_a_failure_is_told(laptop, destination, error, words, next_step):
    name, *message = says(laptop, f'fails(lambda: to("{destination}"))').splitlines()
    assert name == error
    assert words in "\n".join(message[:-1])
    assert next_step in message[-1]


@pytest.mark.parametrize("first_words", ["", "SSH-2.0-silent\\r\\n"])
def test_an_sshd_that_does_not_speak_is_given_up(laptop, first_words):
    text = f"""
listener = socket.create_server(("127.0.0.1", 0))
def accept():
    kept = listener.accept()[0]
    kept.sendall(b"{first_words}")
    threading.Event().wait()
threading.Thread(target=accept, daemon=True).start()
began = time.monotonic()
fails(lambda: to("ssh://127.0.0.1:%d" % listener.getsockname()[1]))
assert time.monotonic() - began < 5
"""
    assert says(laptop, text).startswith("Unreachable\n")


def test_the_users_own_limit_holds_where_it_is_shorter(laptop):
    text = """
login = OpensshLogin("impatient", folder="private")
listener = socket.create_server(("127.0.0.1", 4022))
began = time.monotonic()
fails(lambda: login.connect(timeout_s=30))
assert time.monotonic() - began < 5
"""
    assert says(laptop, text).startswith("Unreachable\n")


def test_no_option_is_taken_for_a_destination():
    with pytest.raises(ConfigError):
        OpensshLogin("-oProxyCommand=id", folder="/nowhere")


def test_an_expired_account_is_not_called_unreachable():
    debug = ["debug1: Authenticating to login:22 as 'ada'", "debug1: SSH2_MSG_SERVICE_ACCEPT received"]
    error = explain("login", ["Your account has expired", "Connection closed by 10.1.1.1 port 22"], debug)
    assert isinstance(error, LoginFailed)
    assert "Your account has expired" in str(error)


def test_an_sshd_that_hangs_up_at_once_is_unreachable():
    error = explain("login", ["kex_exchange_identification: Connection closed by remote host"], [])
    assert isinstance(error, Unreachable)


def test_a_revoked_host_key_is_refused():
    assert isinstance(explain("login", ["@  WARNING: REVOKED HOST KEY DETECTED!  @"], []), HostKeyRefused)


# commands

ODD = """print(output(to("login"), "printf", "%s|", "a'b", '"', "x\\ny", "!", "$HOME", "ü", "", "\\\\"))"""
EXACT = "a'b|\"|x\ny|!|$HOME|ü||\\|"


def test_arguments_come_through_exactly(laptop):
    assert says(laptop, ODD).rstrip("\n") == EXACT


def test_csh_reads_a_command_like_others(laptop, sshd):
    sshd.run("sed -i '/^ada:/s,:[^:]*$,:/usr/bin/tcsh,' /etc/passwd")
    assert laptop.says("ssh login 'echo $shell'") == "/usr/bin/tcsh"
    assert says(laptop, ODD).rstrip("\n") == EXACT


def test_start_files_that_print_do_no_harm(a_bare_cluster, laptop):
    bob = a_bare_cluster.on("laptop", user="bob")
    text = 'login = to("login"); print([output(login, "hostname"), output(login, "echo", "x", prologue=["echo loud"])])'
    assert says(bob, text) == "['login', 'x']"


def test_streams_are_apart_and_stdin_ends(laptop):
    text = """
command = to("login").start(["sh", "-c", "tr a-z A-Z; echo oh >&2"])
command.stdin.write(b"hello")
command.stdin.close()
print(command.stdout.read(), command.stderr.read(), command.wait(5))
"""
    assert says(laptop, text) == "b'HELLO' b'oh\\n' 0"


@pytest.mark.parametrize("status", [0, 3, 255])
def test_an_exit_status_is_the_commands_own(laptop, status):
    assert says(laptop, f'print(to("login").start(["sh", "-c", "exit {status}"]).wait(10))') == str(status)


def test_a_login_shell_that_runs_nothing_has_its_say(laptop, sshd):
    sshd.run("sed -i '/^ada:/s,:[^:]*$,:/usr/sbin/nologin,' /etc/passwd")
    said = says(laptop, 'fails(lambda: output(to("login"), "hostname"))')
    assert said.startswith("RemoteUnfit\n")
    assert "This account is currently not available" in said


def test_a_prologue_that_gives_up_has_its_say(laptop):
    said = says(laptop, 'fails(lambda: output(to("login"), "hostname", prologue=["echo no such module; exit 9"]))')
    assert said.startswith("RemoteUnfit\n")
    assert "it said: no such module" in said


def test_close_wakes_who_reads(laptop):
    text = """
command = to("login").start(["cat"])
readers = [threading.Thread(target=stream.read) for stream in (command.stdout, command.stderr)]
for reader in readers: reader.start()
until(lambda: command._out._has_begun)
command.close()
for reader in readers: reader.join(5); print(reader.is_alive())
"""
    assert says(laptop, text) == "False\nFalse"


def test_waiting_has_a_limit(laptop):
    assert says(laptop, 'fails(lambda: to("login").start(["sleep", "100"]).wait(0.1))').startswith("TookTooLong\n")


# forwards

MIRROR = """
import socket
listener = socket.create_server(("", 0))
print(listener.getsockname()[1], flush=True)
connection = listener.accept()[0]
with connection, connection.makefile("rb") as stream:
    connection.sendall(stream.read()[::-1])
"""


def test_a_forward_carries_both_ways_and_half_closes(a_bare_cluster, laptop):
    server = a_bare_cluster.on("node1").popen([str(a_bare_cluster.python), "-c", MIRROR], stdout=subprocess.PIPE)
    port = server.stdout.readline()
    text = f"""
forward = to("login").forward(0, "node1", {port})
sent = os.urandom(2 ** 20)
with socket.create_connection(("127.0.0.1", forward.local_port)) as connection, connection.makefile("rb") as stream:
    connection.sendall(sent)
    connection.shutdown(socket.SHUT_WR)
    print(stream.read() == sent[::-1], [forward.refusal])
"""
    assert says(laptop, text) == "True ['']"
    server.communicate(timeout=10)


def test_a_port_that_is_taken_is_told(laptop):
    text = """
import errno
taken = socket.create_server(("127.0.0.1", 0)).getsockname()[1]
kept = socket.create_server(("127.0.0.1", 0))
login = to("login")
for port in (kept.getsockname()[1], login.forward(0, "node1", 22).local_port):
    try:
        login.forward(port, "node1", 22)
    except OSError as error:
        print(error.errno == errno.EADDRINUSE)
"""
    assert says(laptop, text) == "True\nTrue"


def test_a_closed_forward_listens_no_more(laptop):
    text = 'forward = to("login").forward(0, "node1", 22); forward.close(); fails(lambda: through(forward))'
    assert says(laptop, text).startswith("ConnectionRefusedError\n")


def test_a_port_that_nobody_listens_on_refuses(laptop):
    text = 'forward = to("login").forward(0, "node1", 9); print(through(forward), forward.refusal)'
    assert says(laptop, text) == "b'' connect failed: Connection refused"


def test_a_server_that_forbids_forwarding_is_quoted(a_bare_cluster, laptop, sshd):
    sshd.run("echo AllowTcpForwarding no >> /etc/ssh/sshd_config")
    a_bare_cluster.service("login", "restart", "sshd")
    text = 'forward = to("login").forward(0, "node1", 22); print(through(forward), forward.refusal)'
    assert says(laptop, text) == "b'' administratively prohibited: open failed"


# losses


def begin(laptop: Node, text: str) -> subprocess.Popen[str]:
    """A script that has said `up`."""
    begun = laptop.popen(script(laptop, text), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert (line := begun.stdout.readline()) == "up\n", line + begun.stdout.read()
    return begun


def test_a_cut_is_noticed_and_the_same_ports_come_back(a_bare_cluster, laptop):
    text = """
login = to("login")
forward = login.forward(0, "node1", 22)
command = login.start(["cat"])
print("up", flush=True)
sys.stdin.readline()
began = time.monotonic()
fails(lambda: (command.stdout.read(), command.wait(20)))
assert time.monotonic() - began < 15, time.monotonic() - began
fails(lambda: login.start(["hostname"]))
fails(login.connect)
print(login.is_connected, flush=True)
sys.stdin.readline()
login.connect()
print(through(forward), output(login, "hostname"))
"""
    begun = begin(laptop, text.replace("fails(login.connect)", "fails(lambda: login.connect(timeout_s=1))"))
    login = a_bare_cluster.on("login")
    login.cut("ext0")
    try:
        print("cut", file=begun.stdin, flush=True)
        said = ""
        while line := begun.stdout.readline():
            said += line
            if line == "False\n":
                break
    finally:
        login.mend("ext0")
    rest, _ = begun.communicate("mended\n", timeout=30)
    assert re.findall("^[A-Z][A-Za-z]+$", said, re.MULTILINE) == [
        "ConnectionLost",
        "ConnectionLost",
        "Unreachable",
        "False",
    ]
    assert rest == "b'SSH-2.0' login\n"


def test_a_killed_sshd_is_noticed_at_once_and_the_same_ports_come_back(a_bare_cluster, laptop, sshd):
    text = """
login = to("login")
forward = login.forward(0, "node1", 22)
print("up", flush=True)
until(lambda: not login.is_connected)
fails(lambda: login.start(["hostname"]))
fails(login.connect)
print("lost", flush=True)
sys.stdin.readline()
login.connect()
print(through(forward), output(login, "hostname"), login.address)
"""
    begun = begin(laptop, text)
    a_bare_cluster.service("login", "kill", "sshd")
    sshd.run("kill -9 $(ps -eo pid=,args= | awk '/sshd: ada/ {print $1}')", check=False)
    said = ""
    while (line := begun.stdout.readline()) != "lost\n":
        assert line
        said += line
    a_bare_cluster.service("login", "start", "sshd")
    rest, _ = begun.communicate("back\n", timeout=30)
    assert "ConnectionLost\n" in said
    assert "Unreachable\n" in said
    assert rest == "b'SSH-2.0' login 10.77.0.1\n"


def test_who_comes_while_there_is_no_connection_gets_an_answer_from_the_next(laptop):
    text = """
login = to("login")
forward = login.forward(0, "node1", 22)
end = {"drop": login.drop, "kill": lambda: login._master._process.kill()}
for how in end:
    end[how]()
    until(lambda: not login.is_connected)
    with ThreadPoolExecutor(3) as pool:
        waiting = [pool.submit(through, forward) for _ in range(3)]
        until(lambda: len(forward._listener._live) == 3)
        fails(lambda: socket.create_server(("127.0.0.1", forward.local_port)))
        login.connect()
        print(how, *(each.result(10) for each in waiting))
"""
    said = says(laptop, text)
    assert said.count("Address already in use") == 2
    for how in ("drop", "kill"):
        assert f"{how} b'SSH-2.0' b'SSH-2.0' b'SSH-2.0'\n" in f"{said}\n"


@pytest.mark.parametrize(
    ("destination", "end"),
    [
        ("login", "login.drop()"),
        ("login", "login._master._process.terminate()"),
        ("behind", "login._master._process.terminate()"),
        ("shared", "login.drop()"),
    ],
)
def test_what_a_lost_connection_cuts_off_does_not_look_whole(laptop, destination, end):
    laptop.run("ssh -fNM shared")
    text = f"""
login = to("{destination}")
forward = login.forward(0, "node1", 22)
with socket.create_connection(("127.0.0.1", forward.local_port)) as connection:
    with connection.makefile("rb") as stream: print(stream.readline()[:7])
    {end}
    fails(lambda: print(connection.recv(1)))
login.close()
"""
    try:
        said = says(laptop, text)
    finally:
        laptop.run("ssh -O exit shared")
    assert said.splitlines()[:2] == ["b'SSH-2.0'", "ConnectionResetError"]


def test_a_lost_master_leads_to_no_other_connection(laptop):
    text = """
login = to("login")
path = login._master.socket_path
login._master._process.kill()
login._master._process.wait()
assert os.path.exists(path)
fails(lambda: output(login, "hostname"))
fails(lambda: RemoteCommand([*_client(path), "login", "echo x; echo x >&2"], b"x", login).wait(10))
"""
    assert says(laptop, text).splitlines().count("ConnectionLost") == 2


def test_all_ends_with_the_process_however_it_ends(a_bare_cluster, laptop):
    text = """
login = OpensshLogin("login", folder="/home/ada/killed")
login.connect()
login.forward(0, "node1", 22)
login.start(["sleep", "1000"])
print("up", flush=True)
sys.stdin.read()
"""
    begun = begin(laptop, text)
    assert [line for line in laptop.processes() if line.startswith("ssh ")]
    send(begun, signal.SIGKILL)
    begun.wait(10)
    until(lambda: not [line for line in laptop.processes() if line.startswith("ssh ")], what="the end of ssh")
    until(lambda: not laptop.says("ls killed"), what="the end of its sockets")
    login = a_bare_cluster.on("login", user="root")
    until(lambda: "sshd: ada" not in login.says("ps -eo args="), what="the end of the connection")


def test_an_interrupt_in_the_terminal_leaves_the_connection_alone(laptop):
    text = """
import signal
login = to("login")
command = login.start(["cat"])
signal.signal(signal.SIGINT, lambda *_: None)
os.killpg(0, signal.SIGINT)
command.stdin.write(b"still here")
command.stdin.close()
print(command.stdout.read(), output(login, "hostname"))
"""
    assert says(laptop, "os.setpgid(0, 0)\n" + text) == "b'still here' login"
