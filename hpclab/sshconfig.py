"""What ssh's settings say about a destination, as `ssh -G` prints them, and whether they need ssh itself. Pure."""

from __future__ import annotations

import getpass
import os.path
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from hpclab.errors import ConfigError

# what no user, host or address has in it, and a shell (ProxyCommand runs in one) might take for its own
_FORBIDDEN = re.compile(r"""[\s\x00-\x1f\x7f;&|<>()$`\\"'*?#~!{}^]""")
_URI = re.compile(r"ssh://(?P<name>([^/\[\]]*@)?([^/:@\[\]]+|\[[\w:.%]+\])(:\d+)?)/?")


@dataclass(frozen=True, kw_only=True)
class SshConfig:
    """Of one destination, after ~/.ssh/config; paths are expanded."""

    destination: str
    hostname: str
    user: str
    port: int = 22
    identity_files: tuple[str, ...] = ()
    certificate_files: tuple[str, ...] = ()
    identities_only: bool = False
    identity_agent: str = ""
    """A socket's path, or `none`; empty: the usual one."""
    proxy_jump: tuple[str, ...] = ()
    """Destinations, the nearest first."""
    proxy_command: str = ""
    """Tokens are expanded."""
    known_hosts: tuple[str, ...] = ()
    """The user's files; new keys go into the first one."""
    global_known_hosts: tuple[str, ...] = ()
    host_key_alias: str = ""
    strict_host_key_checking: str = "ask"
    connect_timeout_s: int = 0
    alive_interval_s: int = 0


def check_destination(text: str) -> str:
    """Itself, if it is a destination for ssh: HOST, USER@HOST or ssh://USER@HOST:PORT. Raises ConfigError."""
    uri = _URI.fullmatch(text)
    user, _, host = (uri["name"] if uri else text).rpartition("@")
    if not text.strip():
        problem = "is empty"
    elif user.startswith("-") or host.startswith("-"):
        problem = "has a name that begins with '-', which ssh would take for an option"
    elif forbidden := _FORBIDDEN.search(text):
        problem = f"has {forbidden[0]!r} in it"
    elif not text.isprintable():
        problem = "has a character in it that cannot be printed"
    elif not host or ("@" in text and not user):
        problem = "lacks a user or a host"
    elif not uri and ("/" in text or "[" in text or "]" in text):
        problem = "is no name of a host"
    else:
        return text
    raise ConfigError(
        f"the destination {text!r} {problem}\ngive it as ssh takes it: HOST, USER@HOST, or a name from ~/.ssh/config"
    )


def options(text: str) -> dict[str, list[str]]:
    """The values of each keyword, in the order in which `ssh -G` prints them; keywords are in lower case."""
    found: dict[str, list[str]] = {}
    for line in text.splitlines():
        keyword, _, value = line.strip().partition(" ")
        if keyword:
            found.setdefault(keyword.lower(), []).append(value.strip())
    return found


def parse(destination: str, text: str) -> SshConfig:
    """What `ssh -G` prints about a destination."""
    said = options(text)

    def last(keyword: str) -> str:
        value = said.get(keyword, [""])[-1]
        return "" if value.lower() == "none" else value

    def number(keyword: str, default: int = 0) -> int:
        return int(last(keyword)) if last(keyword).isdecimal() else default

    hostname, port, user = last("hostname"), number("port", 22), last("user")
    alias = last("hostkeyalias")
    tokens = {
        "d": os.path.expanduser("~"),  # noqa: PTH111
        "h": hostname,
        "k": alias or hostname,
        "n": re.sub(r"^ssh://|:\d+/?$", "", destination).rpartition("@")[2],
        "p": str(port),
        "r": user,
        "u": getpass.getuser(),
        "%": "%",
    }

    def expanded(value: str) -> str:
        return re.sub(r"%(.)", lambda token: tokens.get(token[1], token[0]), value)

    def paths(values: Sequence[str]) -> tuple[str, ...]:
        return tuple(
            os.path.expanduser(expanded(value))  # noqa: PTH111
            for value in values
            if value.lower() not in ("none", "")
        )

    agent = said.get("identityagent", [""])[-1]
    strict = last("stricthostkeychecking")
    return SshConfig(
        destination=destination,
        hostname=hostname,
        user=user,
        port=port,
        identity_files=paths(said.get("identityfile", [])),
        certificate_files=paths(said.get("certificatefile", [])),
        identities_only=last("identitiesonly") == "yes",
        identity_agent=agent.lower() if agent.lower() == "none" else "".join(paths([_agent(agent)])),
        proxy_jump=tuple(hop for hop in last("proxyjump").split(",") if hop),
        proxy_command=expanded(last("proxycommand")),
        known_hosts=paths(_words(last("userknownhostsfile"))),
        global_known_hosts=paths(_words(last("globalknownhostsfile"))),
        host_key_alias=alias,
        strict_host_key_checking={"true": "yes", "false": "no", "off": "no", "": "ask"}.get(strict, strict),
        connect_timeout_s=number("connecttimeout"),
        alive_interval_s=number("serveraliveinterval"),
    )


def _agent(value: str) -> str:
    """The path of an IdentityAgent, which may be named by a variable."""
    return "" if value in ("SSH_AUTH_SOCK", "$SSH_AUTH_SOCK") else os.path.expandvars(value)


def _words(value: str) -> list[str]:
    try:
        return shlex.split(value)
    except ValueError:  # an odd quotation mark in a path
        return value.split()


def has_authority(known_hosts: str, config: SshConfig) -> bool:
    """Whether a known_hosts file trusts an authority to name this host."""
    names = {config.host_key_alias or config.hostname, f"[{config.hostname}]:{config.port}"}
    for line in known_hosts.splitlines():
        marker, _, rest = line.partition(" ")
        if marker == "@cert-authority":
            patterns = (rest.split() or [""])[0].split(",")
            if any(fnmatchcase(name, pattern.replace("[", "[[]")) for name in names for pattern in patterns):
                return True
    return False


def reasons_for_openssh(
    options: Mapping[str, Sequence[str]],
    *,
    has_ticket: bool = False,
    has_master: bool = False,
    hardware_keys: Sequence[str] = (),
    authorities: Sequence[str] = (),
) -> list[str]:
    """Why only ssh itself will do for a destination, in words for the user; nothing: paramiko will.

    Beside ssh's options: is there a Kerberos ticket, does a ControlMaster answer, which identity files that exist are
    for keys in hardware, and which known_hosts files have an authority for the host.
    """

    def value(keyword: str) -> str:
        found = (options.get(keyword) or [""])[-1]
        return "" if found.lower() in ("none", "no", "false") else found

    reasons = []
    # GSSAPIAuthentication alone is some systems' default
    if value("gssapiauthentication") and has_ticket:
        reasons.append("GSSAPIAuthentication is on, and there is a Kerberos ticket")
    if value("hostbasedauthentication"):
        reasons.append("HostbasedAuthentication is on")
    reasons += [f"the key of {path} is in hardware" for path in hardware_keys]
    if value("pkcs11provider"):
        reasons.append(f"keys come from PKCS11Provider {value('pkcs11provider')}")
    if value("securitykeyprovider") not in ("", "internal"):
        reasons.append(f"keys come from SecurityKeyProvider {value('securitykeyprovider')}")
    if has_master:
        reasons.append(f"a connection of yours is open already, at ControlPath {value('controlpath')}")
    if value("knownhostscommand"):
        reasons.append("host keys come from a KnownHostsCommand")
    reasons += [f"{path} trusts a certificate authority for the host (@cert-authority)" for path in authorities]
    if value("revokedhostkeys"):
        reasons.append("RevokedHostKeys is set")
    if value("proxyusefdpass"):
        reasons.append("ProxyUseFdpass is on")
    reasons += [
        f"{name} {value(name.lower())} is set" for name in ("BindAddress", "BindInterface") if value(name.lower())
    ]
    return reasons
