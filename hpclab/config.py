"""Settings: defaults < site < user < [profile.NAME] < HPCLAB_* < flag. Every value knows where it came from.

An option exists if and only if it stands in defaults.toml. Reads only the TOML files whose paths it is given.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Any

from hpclab.errors import ConfigError
from hpclab.units import parse_count, parse_memory, parse_walltime

DEFAULTS = Path(__file__).with_name("defaults.toml")


class Source(IntEnum):
    """Where a value came from; a higher one wins."""

    DEFAULT = 0
    SITE = 1
    USER = 2
    PROFILE = 3
    ENVIRONMENT = 4
    FLAG = 5


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One option as it was given, and by whom; `where` is a file and line, a variable or a flag."""

    key: str
    value: Any
    source: Source
    where: str


@dataclass(frozen=True, kw_only=True)
class Settings:
    """All options, read and checked; times in seconds, sizes in bytes."""

    queue: str
    profile: str
    workers: int
    cores: int
    memory_bytes: int
    gpus: int
    nodes: int
    walltime_s: int
    scheduler_cores: int
    scheduler_memory_bytes: int
    account: str
    qos: str
    constraint: str
    worker_walltime_s: int
    workers_per_job: int
    keep: int
    most_queued: int
    arrays: bool
    drain_s: int
    death_timeout_s: int
    modules: tuple[str, ...]
    conda: str
    venv: str
    export: tuple[str, ...]
    prologue: tuple[str, ...]
    python: str
    container: str
    binds: tuple[str, ...]
    check_versions: bool
    mpiexec: str
    interface: str
    notebook_dir: str
    extra: tuple[str, ...]
    skip: tuple[str, ...]
    start_timeout_s: int
    ntasks: int
    launch: str
    host: str
    ssh: str
    remote_prologue: tuple[str, ...]
    remote_python: str
    bind: str
    local_slots: int
    slurm_memory: str
    sge_pe: str
    sge_pe_nodes: str
    sge_memory: str
    sge_gpu: str
    lsf_memory_unit: str
    lsf_memory_per: str

    @property
    def system_options(self) -> dict[str, str]:
        """Those that only one batch system knows."""
        names = ("slurm_memory", "sge_pe", "sge_pe_nodes", "sge_memory", "sge_gpu", "lsf_memory_unit", "lsf_memory_per")
        options: dict[str, str] = {name: getattr(self, name) for name in names}
        return options | ({"local_slots": str(self.local_slots)} if self.local_slots else {})


TIMES = {"walltime", "worker_walltime", "drain", "death_timeout", "start_timeout"}
MEMORIES = {"memory", "scheduler_memory"}
LEAST_MEMORY_BYTES = 256 * 2**20
FLAGS = {"worker_walltime": "--walltime"}
"""Flags that are not called as their option; `add-worker --walltime` can mean only one."""
COUNTS = {"workers", "ntasks", "cores", "nodes", "scheduler_cores", "workers_per_job", "most_queued"}
COUNTS_FROM_0 = {"gpus", "keep", "local_slots"}
LISTS = {"modules", "export", "prologue", "binds", "extra", "skip", "remote_prologue"}
SWITCHES = {"arrays", "check_versions"}
CHOICES = {
    "launch": ("mpi", "file"),
    "ssh": ("auto", "paramiko", "openssh"),
    "bind": ("network", "loopback"),
    "slurm_memory": ("node", "cpu", "none"),
    "lsf_memory_unit": ("KB", "MB", "GB"),
    "lsf_memory_per": ("slot", "host"),
}


def config_files(env: Mapping[str, str]) -> list[tuple[Source, Path]]:
    """The files that may hold settings, weakest first."""
    site = env.get("HPCLAB_SITE_CONFIG") or "/etc/hpclab/config.toml"
    user = env.get("XDG_CONFIG_HOME") or f"{env.get('HOME', '~')}/.config"
    return [(Source.SITE, Path(site)), (Source.USER, Path(user) / "hpclab/config.toml")]


def defaults() -> Settings:
    """Nobody's settings: a mistake in a config file must not stand between people and their sessions."""
    return load({}, [], {})[0]


def load(
    env: Mapping[str, str], files: Sequence[tuple[Source, Path]], given: Mapping[str, Any]
) -> tuple[Settings, list[Setting]]:
    """The settings, and the same as a list with sources. `given` are flags; those that are None were not given."""
    defaults = tomllib.loads(DEFAULTS.read_text())
    read = [(source, path, *_read(path)) for source, path in files]
    layers = [Setting(key=k, value=v, source=Source.DEFAULT, where="default") for k, v in defaults.items()]
    for source, path, table, text in read:
        layers += _from_table({k: v for k, v in table.items() if k != "profile"}, source, path, text, defaults)
    top = _from_env(env, defaults) + [
        Setting(key=key, value=value, source=Source.FLAG, where=FLAGS.get(key, "--" + key.replace("_", "-")))
        for key, value in given.items()
        if value is not None
    ]
    profile = next((str(setting.value) for setting in reversed(top) if setting.key == "profile"), "")
    layers += _from_profile(profile, read, defaults)
    chosen = {setting.key: setting for setting in [*layers, *top]}
    return _settings(chosen), list(chosen.values())


def _read(path: Path) -> tuple[dict[str, Any], str]:
    try:
        text = path.read_text(encoding="utf-8")
        return tomllib.loads(text), text
    except (FileNotFoundError, NotADirectoryError):
        return {}, ""
    except (OSError, ValueError) as error:
        raise ConfigError(f"cannot read {path}: {error}\nmend the file, or move it away") from error


def _from_table(
    table: Mapping[str, Any], source: Source, path: Path, text: str, defaults: Mapping[str, Any], under: str = ""
) -> list[Setting]:
    settings = []
    for key, value in table.items():
        where = f"{path}:{_line_of(key, text, under)}"
        if key not in defaults:
            raise ConfigError(f"{where}: unknown option {key!r}{_close_match(key, defaults)}")
        settings.append(Setting(key=key, value=value, source=source, where=where))
    return settings


def _from_profile(
    profile: str, read: Sequence[tuple[Source, Path, dict[str, Any], str]], defaults: Mapping[str, Any]
) -> list[Setting]:
    settings: list[Setting] = []
    known: list[str] = []
    for _, path, table, text in read:
        profiles = table.get("profile", {})
        if not isinstance(profiles, dict) or not all(isinstance(options, dict) for options in profiles.values()):
            raise ConfigError(f"{path}:{_line_of('profile', text, '')}: profiles are tables: write [profile.NAME]")
        known += profiles
        settings += _from_table(profiles.get(profile, {}), Source.PROFILE, path, text, defaults, f"profile.{profile}")
    if profile and profile not in known:
        have = ", ".join(sorted(set(known))) or "none"
        raise ConfigError(f"no [profile.{profile}] in any config file (profiles: {have}){_close_match(profile, known)}")
    return settings


def _from_env(env: Mapping[str, str], defaults: Mapping[str, Any]) -> list[Setting]:
    settings = []
    for key, default in defaults.items():
        variable = f"HPCLAB_{key.upper()}"
        if variable in env:
            value: Any = env[variable].splitlines() if isinstance(default, list) else env[variable]
            settings.append(Setting(key=key, value=value, source=Source.ENVIRONMENT, where="$" + variable))
    return settings


def as_variables(chosen: Iterable[Setting]) -> dict[str, str]:
    """The environment that says the same."""
    return {
        f"HPCLAB_{s.key.upper()}": "\n".join(s.value) if isinstance(s.value, (list, tuple)) else str(s.value)
        for s in chosen
    }


def _line_of(key: str, text: str, under: str) -> int:
    """The line of a key, below `[under]` where it is a profile's; 1 where it is written in some other way."""
    section = ""
    for number, line in enumerate(text.splitlines(), 1):
        if heading := re.match(r"\s*\[([^\]]+)\]", line):
            section = heading[1].strip().replace('"', "")
            if section == key:
                return number
        elif section == under and re.match(rf"""\s*["']?{re.escape(key)}["']?\s*=""", line):
            return number
    return 1


def _close_match(word: str, known: Mapping[str, Any] | Sequence[str]) -> str:
    matches = difflib.get_close_matches(word, list(known), n=1)
    return f"\ndid you mean {matches[0]!r}?" if matches else "\n`hpclab config` lists all options"


def _settings(chosen: Mapping[str, Setting]) -> Settings:
    values: dict[str, Any] = {}
    for key, setting in chosen.items():
        try:
            values[_field(key)] = parsed(key, setting.value)
        except ConfigError as error:
            raise ConfigError(f"{setting.where}: {error}") from None
    return Settings(**values)


def _field(key: str) -> str:
    return f"{key}_s" if key in TIMES else f"{key}_bytes" if key in MEMORIES else key


def parsed(key: str, value: Any) -> Any:
    """The value of an option, from the words or numbers that people give it. Raises ConfigError."""
    if key in TIMES:
        return parse_walltime(str(value))
    if key in MEMORIES:
        size_bytes = parse_memory(str(value))
        if size_bytes < LEAST_MEMORY_BYTES:
            raise ConfigError(f"{key} is {value!r}, but Dask alone needs more\nask for at least 256M")
        return size_bytes
    if key in COUNTS:
        return parse_count(str(value), what=key)
    if key in LISTS:
        if not isinstance(value, (list, tuple)) or not all(isinstance(line, str) for line in value):
            raise ConfigError(f"{key} must be a list of lines, not {value!r}")
        if key == "export" and (wrong := [line for line in value if not re.match(r"[A-Za-z_]\w*=", line, re.ASCII)]):
            raise ConfigError(f"export is a list of NAME=VALUE, not {wrong[0]!r}")
        return tuple(value)
    if key in COUNTS_FROM_0:
        if not re.fullmatch(r"\d{1,6}", str(value)):
            raise ConfigError(f"{key} must be a whole number, 0 for none, not {value!r}")
        return int(value)
    if key in SWITCHES:
        return _switch(key, value)
    if not isinstance(value, str):
        raise ConfigError(f"{key} must be a text, not {value!r}")
    if key == "mpiexec" and not value.strip():
        raise ConfigError("mpiexec must be a command, or auto")
    if key in CHOICES and value not in CHOICES[key]:
        raise ConfigError(f"{key} must be one of {', '.join(CHOICES[key])}, not {value!r}")
    return value


def _switch(key: str, value: Any) -> bool:
    """TOML has true and false; a variable or flag has words for them."""
    words = {"true": True, "yes": True, "1": True, "on": True, "false": False, "no": False, "0": False, "off": False}
    if str(value).lower() not in words:
        raise ConfigError(f"{key} must be true or false, not {value!r}")
    return words[str(value).lower()]
