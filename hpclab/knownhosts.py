"""The lines of known_hosts files: which keys a host is known by, and which are revoked. Pure."""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class KnownKey:
    """A line about one host."""

    type: str
    key: str
    """In base64, as it stands there."""
    is_revoked: bool
    file: str
    line_number: int

    @property
    def place(self) -> str:
        return f"{self.file}:{self.line_number}"


def name_of(host: str, port: int = 22) -> str:
    """What a host is called in these files."""
    return host.lower() if port == 22 else f"[{host.lower()}]:{port}"


def known_keys(text: str, file: str, name: str) -> list[KnownKey]:
    """What a file says about a name. Lines that make no sense, and certificate authorities, are passed over."""
    found = []
    for number, line in enumerate(text.splitlines(), start=1):
        words = line.split()
        marker = words.pop(0) if words and words[0].startswith("@") else ""
        if len(words) < 3 or words[0].startswith("#") or marker not in ("", "@revoked"):
            continue
        patterns, type, key = words[:3]
        if _match(patterns, name):
            found.append(KnownKey(type, key, marker == "@revoked", file, number))
    return found


def known_line(name: str, type: str, key: str) -> str:
    return f"{name} {type} {key}\n"


def fingerprint(key: str) -> str:
    """As ssh shows it."""
    try:
        digest = hashlib.sha256(base64.b64decode(key)).digest()
    except ValueError:
        return "(no key)"
    return "SHA256:" + base64.b64encode(digest).decode().rstrip("=")


def algorithms_first(known: Sequence[KnownKey], algorithms: Sequence[str]) -> list[str]:
    """Host key algorithms to ask for: those of known keys first, or a host known by another key would look new."""
    types = {key.type for key in known if not key.is_revoked}
    return sorted(algorithms, key=lambda name: ("ssh-rsa" if name.startswith("rsa-sha2") else name) not in types)


def _match(patterns: str, name: str) -> bool:
    if patterns.startswith("|1|"):
        return _match_hashed(patterns, name)
    matches = False
    for pattern in patterns.lower().split(","):
        if _wildcards(pattern.removeprefix("!")).fullmatch(name):
            if pattern.startswith("!"):
                return False
            matches = True
    return matches


def _match_hashed(hashed: str, name: str) -> bool:
    try:
        salt, digest = (base64.b64decode(part) for part in hashed.split("|")[2:4])
    except ValueError:
        return False
    return hmac.compare_digest(hmac.new(salt, name.encode(), hashlib.sha1).digest(), digest)


def _wildcards(pattern: str) -> re.Pattern[str]:
    return re.compile("".join({"*": ".*", "?": "."}.get(letter, re.escape(letter)) for letter in pattern))
