"""A session's credentials at work: TLS between two real sockets, as Dask sets it up."""

from __future__ import annotations

import datetime
import socket
import ssl
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from hpclab.credentials import Credentials, new_credentials


@pytest.fixture(scope="module")
def ours() -> Credentials:
    return new_credentials("calm-otter")


@pytest.fixture(scope="module")
def another_sessions() -> Credentials:
    return new_credentials("bold-heron")


@pytest.fixture
def meet(tmp_path):
    """meet(server's, client's) is what the client hears; an empty text when either hangs up on the other."""

    def context(credentials: Credentials, purpose: ssl.Purpose, *, with_certificate: bool) -> ssl.SSLContext:
        made = ssl.create_default_context(purpose, cadata=credentials.ca_pem)
        made.check_hostname = False
        made.verify_mode = ssl.CERT_REQUIRED
        if with_certificate:
            pem = tmp_path / f"{purpose.name}.pem"
            pem.write_text(credentials.certificate_pem + credentials.key_pem)
            made.load_cert_chain(pem)
        return made

    def serve(line: socket.socket, using: ssl.SSLContext) -> None:
        with line, using.wrap_socket(line, server_side=True) as server:
            server.sendall(b"welcome")

    def listen(line: socket.socket, using: ssl.SSLContext) -> str:
        with line, using.wrap_socket(line) as client:
            return client.recv(100).decode()

    def _meet(server: Credentials, client: Credentials, *, with_certificate: bool = True) -> str:
        lines = socket.socketpair()
        for line in lines:
            line.settimeout(10)
        contexts = (
            context(server, ssl.Purpose.CLIENT_AUTH, with_certificate=True),
            context(client, ssl.Purpose.SERVER_AUTH, with_certificate=with_certificate),
        )
        with ThreadPoolExecutor() as pool:
            served = pool.submit(serve, lines[0], contexts[0])
            try:
                return listen(lines[1], contexts[1])
            except (ssl.SSLError, ConnectionError):
                return ""
            finally:
                refused = served.exception(timeout=10)
                assert refused is None or isinstance(refused, ssl.SSLError | ConnectionError)

    return _meet


def test_members_of_a_session_can_talk(meet, ours):
    assert meet(ours, ours) == "welcome"


def test_a_client_without_certificate_is_refused(meet, ours):
    assert meet(ours, ours, with_certificate=False) == ""


def test_another_session_is_refused(meet, ours, another_sessions):
    assert meet(ours, another_sessions) == ""


def test_a_client_that_trusts_us_but_is_another_sessions_is_refused(meet, ours, another_sessions):
    assert meet(ours, replace(another_sessions, ca_pem=ours.ca_pem)) == ""


def test_a_scheduler_of_another_session_is_refused(meet, ours, another_sessions):
    assert meet(replace(another_sessions, ca_pem=ours.ca_pem), ours) == ""


def test_another_session_of_the_same_name_is_refused(meet, ours):
    assert meet(ours, new_credentials("calm-otter")) == ""


def test_credentials_from_a_clock_ahead_of_ours_work(meet):
    ahead = new_credentials("calm-otter", now=datetime.datetime.now(datetime.UTC) + datetime.timedelta(hours=12))
    assert meet(ahead, ahead) == "welcome"


def test_credentials_do_not_work_for_ever(meet):
    old = new_credentials("calm-otter", now=datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=500))
    assert meet(old, old) == ""


def test_the_member_cannot_vouch_for_others(ours):
    member = x509.load_pem_x509_certificate(ours.certificate_pem.encode())
    assert not member.extensions.get_extension_for_class(x509.BasicConstraints).value.ca


def test_the_key_of_the_ca_is_thrown_away(ours):
    ca = x509.load_pem_x509_certificate(ours.ca_pem.encode())
    key = load_pem_private_key(ours.key_pem.encode(), password=None)
    assert key.public_key() != ca.public_key()
    assert "PRIVATE" not in ours.ca_pem + ours.certificate_pem


def test_tokens_are_long_and_never_the_same(ours, another_sessions):
    assert len(ours.token) >= 20
    assert ours.token != another_sessions.token


def test_secrets_do_not_show(ours):
    assert ours.token not in repr(ours)
    assert ours.key_pem.splitlines()[1] not in repr(ours)


def test_the_longest_name_of_a_session_will_do(meet):
    longest = new_credentials("x" * 32)
    assert meet(longest, longest) == "welcome"
