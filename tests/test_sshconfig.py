"""What `ssh -G` says, and when it takes ssh itself."""

from __future__ import annotations

import os

import pytest

from hpclab.errors import ConfigError
from hpclab.sshconfig import check_destination, has_authority, options, parse, reasons_for_openssh

PLAIN = """\
host login
user ada
hostname login.site.org
port 22
gssapiauthentication yes
identitiesonly no
stricthostkeychecking ask
serveraliveinterval 0
securitykeyprovider internal
identityfile ~/.ssh/id_rsa
identityfile ~/.ssh/id_ed25519
globalknownhostsfile /etc/ssh/ssh_known_hosts /etc/ssh/ssh_known_hosts2
userknownhostsfile /home/ada/.ssh/known_hosts ~/.ssh/known_hosts2
connecttimeout none
canonicaldomains none
controlpersist no
"""
FULL = """\
host login
user ada
hostname 10.1.2.3
port 2222
identitiesonly yes
identityagent none
stricthostkeychecking true
serveraliveinterval 30
hostkeyalias cluster
identityfile ~/.ssh/%r@%n
certificatefile ~/.ssh/id-cert.pub
userknownhostsfile none
connecttimeout 10
proxyjump ada@gate,inner:2200
"""


def config(text=PLAIN, **changes):
    lines = [line for line in text.splitlines() if line.split()[0] not in changes]
    return parse("ada@login", "\n".join([*lines, *(f"{key} {value}" for key, value in changes.items())]))


# destinations


@pytest.mark.parametrize(
    "text",
    [
        "login",
        "ada@login.site.org",
        "ada@site.org@login",
        "10.1.2.3",
        "fe80::1%eth0",
        "ssh://login",
        "ssh://ada@login:2222",
        "ssh://ada@[::1]:2222",
    ],
)
def test_a_destination_is_taken_as_it_is(text):
    assert check_destination(text) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "-oProxyCommand=true",
        "ada@-login",
        "-ada@login",
        "ssh://-login",
        "login node",
        "login\n",
        "login\x1b[2J",
        "login\u202e",
        "$(id)@login",
        "ada;id@login",
        "ada@lo`id`gin",
        "ada@",
        "@login",
        "login/x",
        "[::1]",
        "ssh://",
        "ssh://login/x",
        "ssh://login:port",
        "http://login",
    ],
)
def test_what_ssh_or_a_shell_might_take_for_something_else_is_refused(text):
    with pytest.raises(ConfigError, match="HOST, USER@HOST"):
        check_destination(text)


# ssh -G


def test_the_usual_answer_of_ssh():
    login = config()
    assert (login.hostname, login.user, login.port) == ("login.site.org", "ada", 22)
    assert login.identity_files == tuple(os.path.expanduser(f"~/.ssh/{name}") for name in ("id_rsa", "id_ed25519"))  # noqa: PTH111
    assert login.known_hosts == ("/home/ada/.ssh/known_hosts", os.path.expanduser("~/.ssh/known_hosts2"))  # noqa: PTH111
    assert login.global_known_hosts == ("/etc/ssh/ssh_known_hosts", "/etc/ssh/ssh_known_hosts2")
    assert (login.connect_timeout_s, login.alive_interval_s, login.strict_host_key_checking) == (0, 0, "ask")
    assert (login.proxy_jump, login.proxy_command, login.identity_agent, login.identities_only) == ((), "", "", False)


def test_an_answer_with_everything():
    login = config(FULL)
    assert (login.port, login.host_key_alias, login.strict_host_key_checking) == (2222, "cluster", "yes")
    assert (login.connect_timeout_s, login.alive_interval_s) == (10, 30)
    assert login.proxy_jump == ("ada@gate", "inner:2200")
    assert (login.identities_only, login.identity_agent, login.known_hosts) == (True, "none", ())
    assert login.identity_files == (os.path.expanduser("~/.ssh/ada@login"),)  # noqa: PTH111
    assert login.certificate_files == (os.path.expanduser("~/.ssh/id-cert.pub"),)  # noqa: PTH111


def test_tokens_of_a_proxy_command_are_expanded():
    login = config(FULL, proxycommand="nc -x 100%% %h:%p %r %n")
    assert login.proxy_command == "nc -x 100% 10.1.2.3:2222 ada login"


def test_the_usual_agent_needs_no_name():
    assert config(identityagent="SSH_AUTH_SOCK").identity_agent == ""


def test_no_proxy_is_none():
    assert config(proxycommand="none", proxyjump="none").proxy_command == ""


# does it take ssh itself?


def reasons(text="", **facts):
    return reasons_for_openssh(options(PLAIN + text), **facts)


def test_an_ordinary_destination_is_for_paramiko():
    assert reasons() == []
    assert reasons("knownhostscommand none\nproxyusefdpass no\nhostbasedauthentication no\npkcs11provider none\n") == []


def test_gssapi_counts_with_a_ticket():
    assert reasons(has_ticket=True) == ["GSSAPIAuthentication is on, and there is a Kerberos ticket"]
    assert reasons("gssapiauthentication no\n", has_ticket=True) == []


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("pkcs11provider /usr/lib/opensc-pkcs11.so", "/usr/lib/opensc-pkcs11.so"),
        ("securitykeyprovider /usr/lib/sk.dylib", "/usr/lib/sk.dylib"),
        ("knownhostscommand /usr/bin/keys %H", "KnownHostsCommand"),
        ("proxyusefdpass yes", "ProxyUseFdpass"),
        ("hostbasedauthentication yes", "HostbasedAuthentication"),
        ("revokedhostkeys /etc/ssh/revoked", "RevokedHostKeys"),
        ("bindaddress 10.0.0.7", "BindAddress 10.0.0.7"),
    ],
)
def test_an_option_that_paramiko_lacks_is_a_reason(text, word):
    (reason,) = reasons(text)
    assert word in reason


def test_what_was_found_on_this_machine_is_a_reason():
    assert reasons(hardware_keys=["/k_sk"]) == ["the key of /k_sk is in hardware"]
    assert reasons("controlpath /home/ada/.ssh/cm\n", has_master=True) == [
        "a connection of yours is open already, at ControlPath /home/ada/.ssh/cm"
    ]
    assert reasons(authorities=["/kh"]) == ["/kh trusts a certificate authority for the host (@cert-authority)"]


@pytest.mark.parametrize(
    ("line", "has"),
    [
        ("@cert-authority *.site.org ssh-ed25519 AAAA", True),
        ("@cert-authority other.org,login.site.org ssh-ed25519 AAAA", True),
        ("@cert-authority *.other.org ssh-ed25519 AAAA", False),
        ("login.site.org ssh-ed25519 AAAA", False),
        ("@cert-authority", False),
    ],
)
def test_an_authority_counts_for_its_hosts(line, has):
    assert has_authority(f"# mine\n{line}\n", config()) is has
