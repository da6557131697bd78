"""Which means reaches a login node: our own SSH, or the user's ssh where their settings need that."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from hpclab.errors import ConfigError
from hpclab.hosts import Ask, LoginNode
from hpclab.sshconfig import SshConfig, check_destination


@dataclass(frozen=True, kw_only=True)
class Means:
    """`paramiko` or `openssh`, and why."""

    name: str
    reasons: tuple[str, ...]
    config: SshConfig


def means(destination: str, ssh: str) -> Means:
    """`ssh` is the setting: auto, paramiko or openssh."""
    from hpclab.hosts.openssh import openssh_reasons, resolve
    from hpclab.hosts.ssh import config_without_ssh

    check_destination(destination)
    config = resolve(destination)
    if config is None:
        if ssh == "openssh":
            raise ConfigError('there is no `ssh` on this machine\'s PATH\ninstall it, or set ssh = "paramiko"')
        return Means(name="paramiko", reasons=("there is no ssh on PATH",), config=config_without_ssh(destination))
    if ssh != "auto":
        return Means(name=ssh, reasons=("your settings say so",), config=config)
    reasons = tuple(openssh_reasons(destination))
    if reasons:
        return Means(name="openssh", reasons=reasons, config=config)
    return Means(name="paramiko", reasons=("nothing in your ssh settings needs more",), config=config)


def login_node(by: Means, *, folder: str, ask: Ask, tell: Callable[[str], None], address: str = "") -> LoginNode:
    """Not connected yet. `folder` is for what belongs to connections; `address` is where it was reached before."""
    from hpclab.hosts.openssh import OpensshLogin, resolve
    from hpclab.hosts.ssh import ParamikoLogin, config_without_ssh

    if by.name == "openssh":
        return OpensshLogin(by.config.destination, folder=folder, address=address)

    def of_jump(destination: str) -> SshConfig:
        return resolve(destination) or config_without_ssh(destination)

    # each cluster's node1 is another machine
    nodes = f"{folder}/known_hosts-{by.config.hostname}"
    return ParamikoLogin(by.config, ask=ask, tell=tell, address=address, resolve=of_jump, node_known_hosts=nodes)
