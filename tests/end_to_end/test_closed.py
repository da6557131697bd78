"""A session is its user's alone: what somebody else with an account on the same machine can see, reach and read."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import socket
import ssl
import stat
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import pytest
import zmq
from harness import WEBSOCKET, AnotherUser, Session, told
from jupyter_client import BlockingKernelClient

from hpclab.credentials import new_credentials

PATIENCE_S = 3
SHUT = {"tls", "http", "CURVE", "NULL PULL"}
"""The last is a kernel's pipe for what its children print: it only takes, and only what begins with its own secret."""

MPI_LAUNCHER = ("mpiexec", "mpiexec.hydra", "mpirun", "hydra_pmi_proxy")
Address = tuple[str, int]


# what one can try; each runs as another user, or, to see that the trial itself is sound, as the session's own


def readable(paths: list[Path]) -> list[Path]:
    found = []
    for path in paths:
        with contextlib.suppress(PermissionError):
            list(path.iterdir()) if path.is_dir() else path.read_bytes()
            found.append(path)
    return found


def connectable(unix_sockets: list[str]) -> list[str]:
    found = []
    for path in unix_sockets:
        with socket.socket(socket.AF_UNIX) as line, contextlib.suppress(OSError):
            line.connect(path)
            found.append(path)
    return found


def first_bytes(address: Address, sent: bytes = b"", context: ssl.SSLContext | None = None) -> bytes:
    """What a server says to whom it lets in; empty when it says nothing or hangs up."""
    with contextlib.suppress(OSError), socket.create_connection(address, PATIENCE_S) as plain:
        line = context.wrap_socket(plain) if context else plain
        with line:
            line.sendall(sent)
            return line.recv(4096)
    return b""


def refusal(address: Address) -> str:
    """How a TLS server refuses us, who have no certificate; empty when it does not speak TLS, or lets us in."""
    try:
        with socket.create_connection(address, PATIENCE_S) as plain, tls().wrap_socket(plain) as line:
            line.recv(1)
    except ssl.SSLError as error:
        return error.reason or ""
    except OSError:
        pass
    return ""


def answers(base: str, paths: list[str], headers: dict[str, str]) -> dict[str, tuple[int, str]]:
    """Status and redirection of a GET of each path."""
    found = {}
    for path in paths:
        connection = http.client.HTTPConnection(urlsplit(base).netloc, timeout=PATIENCE_S)
        with contextlib.closing(connection):
            connection.request("GET", path, headers=headers)
            response = connection.getresponse()
            found[path] = (response.status, response.headers.get("Location", ""))
    return found


def overheard(port: int) -> bool:
    """Whether a kernel's broadcast of what it prints reaches us."""
    with zmq.Context() as context, context.socket(zmq.SUB) as ear:
        ear.linger = 0
        ear.connect(f"tcp://127.0.0.1:{port}")
        ear.subscribe(b"")
        return bool(ear.poll(1000 * PATIENCE_S))


def zmq_kind(address: Address) -> str:
    """How a zmq socket knows its peers, `CURVE` or `NULL`, and, of those that know nobody, what it is for."""
    greeting, answer = b"\xff\0\0\0\0\0\0\0\1\x7f\3\0NULL".ljust(64, b"\0"), b""
    with contextlib.suppress(OSError), socket.create_connection(address, PATIENCE_S) as line:
        line.settimeout(PATIENCE_S)
        line.sendall(greeting[:11])
        while len(answer) < len(greeting) and (part := line.recv(64 - len(answer))):
            answer += part
        line.sendall(greeting[11:])
        answer += line.recv(256)
    mechanism = answer[12:32].strip(b"\0").decode() if answer.startswith(b"\xff") else ""
    return f"{mechanism} PULL" if b"Socket-Type\0\0\0\4PULL" in answer else mechanism


def kind_of(address: Address) -> str:
    """What listens there: one of SHUT, or something that is open to us."""
    if "CERTIFICATE_REQUIRED" in refusal(address):
        return "tls"
    if mechanism := zmq_kind(address):
        return mechanism
    with contextlib.suppress(OSError, http.client.HTTPException):
        status, location = answers("http://{}:{}".format(*address), ["/"], {})["/"]
        shut = status in (401, 403, 404) or location.startswith(("/login", "/lab", "/tree"))
        return "http" if shut else f"http that answers {status} {location}"
    return "open"


def kinds_of(addresses: list[Address]) -> list[str]:
    with ThreadPoolExecutor(len(addresses)) as pool:
        return list(pool.map(kind_of, addresses))


def tls(certificate: Path | None = None) -> ssl.SSLContext:
    """A client that trusts everybody; the certificate's key lies beside it."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    if certificate:
        context.load_cert_chain(certificate, certificate.with_name("key.pem"))
    return context


def as_address(url: str) -> Address:
    host, _, port = url.removeprefix("tls://").rpartition(":")
    return host, int(port)


# what there is to be tried


@pytest.fixture(scope="module")
def a_terminal(a_running_session: Session) -> str:
    """The name of a terminal that its user has open."""
    return str(ask_jupyter(a_running_session, "POST", "/api/terminals")["name"])


@pytest.fixture(scope="module")
def a_kernel(a_running_session: Session) -> Iterator[BlockingKernelClient]:
    """One that prints all the time."""
    kernel_id = ask_jupyter(a_running_session, "POST", "/api/kernels")["id"]
    file = a_running_session.folder / f"jupyter/kernel-{kernel_id}.json"
    client = BlockingKernelClient(connection_file=str(file))
    client.load_connection_file()
    client.hb_channel.time_to_dead = 30.0  # else a kernel that is late by a second is dead
    client.start_channels()
    client.wait_for_ready(timeout=30)
    client.execute("import time\nfor i in range(1000):\n    print('private', flush=True)\n    time.sleep(0.1)")
    yield client
    client.stop_channels()


def ask_jupyter(session: Session, method: str, path: str) -> dict[str, str]:
    """As the user's own page does."""
    connection = http.client.HTTPConnection(urlsplit(session.printed["jupyter_url"]).netloc, timeout=30)
    with contextlib.closing(connection):
        connection.request(method, path, body="{}", headers={"Authorization": f"token {session.token}"})
        return json.loads(connection.getresponse().read())


@pytest.fixture(scope="module")
def everything_is_on(a_running_session: Session, a_terminal: str, a_kernel: object) -> Iterator[Session]:
    """The session with a terminal, a kernel and a worker job, so that there is all that can leak."""
    job_id = a_running_session.add_worker()
    yield a_running_session
    a_running_session.home.ok("remove-worker", job_id, "--session", a_running_session.name)


@pytest.fixture
def doors_of_dask(everything_is_on: Session) -> list[Address]:
    """The scheduler, the worker of the main job, the worker of a worker job."""
    workers = json.loads((everything_is_on.folder / "workers.json").read_text())["workers"]
    assert len(workers) == 2
    return [
        as_address(everything_is_on.connection()["scheduler_address"]),
        *(as_address(w["address"]) for w in workers),
    ]


def test_all_files_are_the_users_alone(everything_is_on: Session) -> None:
    folder = everything_is_on.home.hpclab
    open_to_others = [path for path in [folder, *folder.rglob("*")] if path.lstat().st_mode & 0o077]
    assert [f"{stat.filemode(path.stat().st_mode)} {path}" for path in open_to_others] == []


def test_another_user_reads_no_file(everything_is_on: Session, another_user: AnotherUser) -> None:
    home = everything_is_on.home
    assert another_user(readable, [home.path]) == [home.path], (
        "the way to the folder must be free, or this shows nothing"
    )
    inside = [*home.hpclab.rglob("*"), *(home.path / "queue").rglob("*")]
    names = {path.name for path in inside}
    assert {"token", "key.pem", "connection.json", "start-dask.sh", "add-one-worker.sh", "logs"} <= names
    files = [path for path in inside if path.is_dir() or path.is_file()]
    assert another_user(readable, files) == []


def test_dask_spills_where_nobody_else_can_write(everything_is_on: Session, another_user: AnotherUser) -> None:
    with everything_is_on.client() as client:
        spilled = client.run(lambda dask_worker: dask_worker.local_directory)
    for folder in map(Path, spilled.values()):
        assert another_user(readable, [folder]) == []
        top = next(path for path in folder.parents if path.parent == Path(tempfile.gettempdir()))
        assert (top.stat().st_uid, stat.S_IMODE(top.stat().st_mode)) == (os.getuid(), 0o700)
        assert top.name != "dask-scratch-space", "a name that can be foreseen can be taken by somebody else"


def test_another_user_cannot_speak_to_dask(
    everything_is_on: Session, doors_of_dask: list[Address], another_user: AnotherUser, tmp_path: Path
) -> None:
    other = new_credentials("other")
    (tmp_path / "certificate.pem").write_text(other.certificate_pem)
    (tmp_path / "key.pem").write_text(other.key_pem)
    own, none, foreign = tls(everything_is_on.folder / "tls/certificate.pem"), tls(), tls(tmp_path / "certificate.pem")
    for address in doors_of_dask:
        assert first_bytes(address, context=own), "the session's own user is let in"
        assert another_user(first_bytes, address, b"", none) == b""
        assert another_user(first_bytes, address, b"", foreign) == b""
        assert "CERTIFICATE_REQUIRED" in another_user(refusal, address)
        plain = another_user(first_bytes, address, b"\0" * 64)
        tls_alert = b"\x15\x03"
        assert plain == b"" or plain.startswith(tls_alert)


def test_another_user_cannot_open_the_dashboard(everything_is_on: Session, another_user: AnotherUser) -> None:
    url = everything_is_on.status()["dashboard_url"]
    paths = ["/status", "/workers", "/info/main/workers.html", "/individual-progress", "/json/counts.json", "/health"]
    assert {status for status, _ in another_user(answers, url, paths, {}).values()} == {403}
    assert {status for status, _ in another_user(answers, url, ["/status/ws"], WEBSOCKET).values()} == {403}


def test_another_user_cannot_open_jupyterlab(
    everything_is_on: Session, a_terminal: str, a_kernel: object, another_user: AnotherUser
) -> None:
    url = everything_is_on.status()["jupyter_url"]
    kernel_id = ask_jupyter(everything_is_on, "GET", "/api/kernels")[0]["id"]  # type: ignore[index]
    pages = ["/api/contents", "/api/kernels", "/api/terminals", "/api/sessions"]
    assert {status for status, _ in another_user(answers, url, pages, {}).values()} == {403}
    sockets = [f"/terminals/websocket/{a_terminal}", f"/api/kernels/{kernel_id}/channels"]
    assert {status for status, _ in another_user(answers, url, sockets, WEBSOCKET).values()} == {403}
    ((status, location),) = another_user(answers, url, ["/lab"], {}).values()
    assert (status, location.startswith("/login")) == (302, True)


def test_another_user_cannot_listen_to_a_notebook(
    everything_is_on: Session, a_kernel: BlockingKernelClient, another_user: AnotherUser
) -> None:
    assert a_kernel.get_iopub_msg(timeout=PATIENCE_S), "it does print"
    assert not another_user(overheard, a_kernel.iopub_port)


def test_secrets_stand_in_no_process(everything_is_on: Session) -> None:
    secrets = secrets_of(everything_is_on)
    processes = everything_is_on.home.processes()
    assert len(processes) > 8
    leaks = []
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            shown = [*process.cmdline(), *process.environ().values()]
            leaks += [told(process) for secret in secrets if any(secret in text for text in shown)]
    assert leaks == []


def test_secrets_stand_in_no_file_that_need_not_hold_them(everything_is_on: Session) -> None:
    folder, home = everything_is_on.folder, everything_is_on.home
    needed = {folder / "token", folder / "tls/key.pem", *(folder / "jupyter").glob("jpserver-*")}
    assert {stat.S_IMODE(path.stat().st_mode) for path in needed} == {0o600}
    files = [path for path in home.path.rglob("*") if path.is_file() and path not in needed]
    assert [
        path for path in files if any(secret.encode() in path.read_bytes() for secret in secrets_of(everything_is_on))
    ] == []


@pytest.mark.parametrize(
    "command", ["status", "status --json", "list", "list --json", "why", "why --json", "logs -n 9999"]
)
def test_secrets_are_not_told_by(everything_is_on: Session, command: str) -> None:
    text = everything_is_on.home.ok(*command.split())
    assert text.strip()
    assert [secret for secret in secrets_of(everything_is_on) if secret in text] == []


def secrets_of(session: Session) -> list[str]:
    """The token, and the private key line by line."""
    key = (session.folder / "tls/key.pem").read_text().splitlines()[1:-1]
    assert key
    return [session.token, *key]


def test_every_port_is_shut_to_another_user(everything_is_on: Session, another_user: AnotherUser) -> None:
    found = {a: process for a, process in listeners(everything_is_on).items() if process.name() not in MPI_LAUNCHER}
    kinds = another_user(kinds_of, list(found))
    assert {"tls", "http", "CURVE"} <= set(kinds)
    pairs = zip(found.items(), kinds, strict=True)
    open_to_others = [f"{kind}: {address} of {told(process)}" for (address, process), kind in pairs if kind not in SHUT]
    assert open_to_others == []


@pytest.mark.xfail(reason="MPICH's hydra listens for its proxies on every interface, and cannot be told otherwise")
def test_the_mpi_launcher_opens_no_port(everything_is_on: Session) -> None:
    opened = {a: told(process) for a, process in listeners(everything_is_on).items() if process.name() in MPI_LAUNCHER}
    assert opened == {}


def listeners(session: Session) -> dict[Address, psutil.Process]:
    """Every TCP port of the session."""
    found: dict[Address, psutil.Process] = {}
    for process in session.home.processes():
        with contextlib.suppress(psutil.NoSuchProcess):
            for connection in process.net_connections("inet"):
                if connection.status == psutil.CONN_LISTEN:
                    found.setdefault((connection.laddr.ip, connection.laddr.port), process)
    return found


def test_another_user_reaches_no_unix_socket(everything_is_on: Session, another_user: AnotherUser) -> None:
    found = set()
    for process in everything_is_on.home.processes():
        with contextlib.suppress(psutil.NoSuchProcess):
            found |= {connection.laddr for connection in process.net_connections("unix") if connection.laddr}
    assert found, "the supervisor holds one"
    assert another_user(connectable, sorted(found)) == []
