from __future__ import annotations

import base64
import hashlib
import hmac

import pytest

from hpclab.knownhosts import KnownKey, algorithms_first, fingerprint, known_keys, known_line, name_of

KEY = "AAAAC3NzaC1lZDI1NTE5AAAAIJJcPZ0M1jYVf6rOPVVWZdSBqXWcCM6LWYdWPF2vVbYq"


def hashed(name: str) -> str:
    salt = b"twenty bytes of salt"
    digest = hmac.new(salt, name.encode(), hashlib.sha1).digest()
    return f"|1|{base64.b64encode(salt).decode()}|{base64.b64encode(digest).decode()}"


@pytest.mark.parametrize(
    ("patterns", "name", "matches"),
    [
        ("login", "login", True),
        ("login", "login2", False),
        ("other,LOGIN", "login", True),
        ("login*.site.org", "login7.site.org", True),
        ("login?", "login", False),
        ("*,!login", "login", False),
        ("!other", "login", False),
        ("[login]:2222", "[login]:2222", True),
        ("login", "[login]:2222", False),
        ("[*]:2222", "[login]:2222", True),
        (hashed("login"), "login", True),
        (hashed("login"), "other", False),
        ("|1|what|ever", "login", False),
        ("|1|", "login", False),
    ],
)
def test_names(patterns: str, name: str, matches: bool) -> None:
    assert bool(known_keys(f"{patterns} ssh-ed25519 {KEY} a comment", "f", name)) is matches


def test_places_and_markers() -> None:
    text = "# login ssh-rsa A\n\nlogin ssh-rsa\n@revoked * ssh-rsa B\n@cert-authority * ssh-rsa C\n"
    text += f"login ssh-ed25519 {KEY}\n"
    revoked, known = known_keys(text, "file", "login")
    assert revoked == KnownKey("ssh-rsa", "B", True, "file", 4)
    assert (known.key, known.place) == (KEY, "file:6")


def test_a_line_is_read_again() -> None:
    name = name_of("Login", 2222)
    assert name == "[login]:2222"
    (known,) = known_keys(known_line(name, "ssh-ed25519", KEY), "file", name)
    assert known.key == KEY


def test_fingerprint_is_that_of_ssh() -> None:
    assert fingerprint(base64.b64encode(b"abc").decode()) == "SHA256:ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0"
    assert fingerprint("A") == "(no key)"


def test_algorithms_of_known_keys_come_first() -> None:
    known = [KnownKey("ssh-rsa", KEY, False, "f", 1), KnownKey("ssh-ed25519", KEY, True, "f", 2)]
    all = ["ssh-ed25519", "ecdsa-sha2-nistp256", "rsa-sha2-512", "rsa-sha2-256"]
    assert algorithms_first(known, all) == ["rsa-sha2-512", "rsa-sha2-256", "ssh-ed25519", "ecdsa-sha2-nistp256"]
    assert algorithms_first([], all) == all
