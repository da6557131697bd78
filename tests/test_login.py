"""Which means reaches a login node, and why."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpclab.errors import ConfigError
from hpclab.hosts.openssh import OpensshLogin
from hpclab.hosts.ssh import ParamikoLogin
from hpclab.login import login_node, means


@pytest.fixture
def ssh(tmp_path, monkeypatch):
    """ssh("hostbasedauthentication yes") is what `ssh -G` says besides; nothing else is on PATH."""

    def _ssh(*more: str) -> None:
        lines = "\n".join(["hostname login.site.org", "user ada", "port 22", *more])
        program = tmp_path / "ssh"
        program.write_text(f"#!/bin/sh\ncat <<'END'\n{lines}\nEND\n")
        program.chmod(0o755)

    monkeypatch.setenv("PATH", f"{tmp_path}:/bin")
    for name in ("KRB5CCNAME", "SSH_AUTH_SOCK"):
        monkeypatch.delenv(name, raising=False)
    return _ssh


@pytest.fixture
def no_ssh(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))


def test_nothing_special_is_for_paramiko(ssh):
    ssh()
    by = means("ada@login", "auto")
    assert (by.name, by.config.hostname) == ("paramiko", "login.site.org")
    assert by.reasons == ("nothing in your ssh settings needs more",)


def test_what_only_ssh_can_is_for_ssh_and_says_why(ssh):
    ssh("hostbasedauthentication yes")
    by = means("ada@login", "auto")
    assert by.name == "openssh"
    assert "HostbasedAuthentication is on" in by.reasons


@pytest.mark.parametrize("name", ["paramiko", "openssh"])
def test_a_setting_decides(ssh, name):
    ssh("hostbasedauthentication yes")
    by = means("ada@login", name)
    assert (by.name, by.reasons) == (name, ("your settings say so",))


@pytest.mark.parametrize("setting", ["auto", "paramiko"])
def test_without_ssh_it_is_paramiko(no_ssh, setting):
    by = means("ada@login", setting)
    assert (by.name, by.reasons) == ("paramiko", ("there is no ssh on PATH",))
    assert (by.config.user, by.config.hostname) == ("ada", "login")


def test_without_ssh_it_cannot_be_openssh(no_ssh):
    with pytest.raises(ConfigError, match='set ssh = "paramiko"'):
        means("ada@login", "openssh")


@pytest.mark.parametrize("destination", ["", "-oProxyCommand=x", "a b", "login\n", "ada@", "$(x)"])
@pytest.mark.parametrize("setting", ["auto", "paramiko", "openssh"])
def test_a_strange_destination_is_refused_before_ssh_sees_it(ssh, tmp_path, destination, setting):
    ssh()
    (tmp_path / "ssh").write_text(f"#!/bin/sh\ntouch {tmp_path}/seen\n")
    with pytest.raises(ConfigError, match="the destination"):
        means(destination, setting)
    assert not (tmp_path / "seen").exists()


@pytest.mark.parametrize(("setting", "kind"), [("paramiko", ParamikoLogin), ("openssh", OpensshLogin)])
def test_a_login_node_is_not_connected_yet(ssh, tmp_path, setting, kind):
    ssh()
    by = means("ada@login", setting)
    login = login_node(by, folder=str(tmp_path), ask=lambda *_, **__: "", tell=print, address="10.0.0.1")
    assert isinstance(login, kind)
    assert (login.destination, login.means, login.address) == ("ada@login", setting, "10.0.0.1")
    assert not login.is_connected
    assert {path.name for path in Path(tmp_path).iterdir()} == {"ssh"}
    login.close()
