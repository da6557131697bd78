"""The versions that must agree wherever one Dask cluster runs: those of Python, Dask and distributed."""

from __future__ import annotations

import sys
from collections.abc import Mapping

Versions = Mapping[str, str]
"""By name; what is not installed is not in it."""


SAME_ENVIRONMENT = (
    "give both the same environment (`python`, `conda`, `venv`, `modules`), or set `check_versions = false`"
)


def versions_here() -> dict[str, str]:
    """Of the Python that runs this. Python itself counts by its minor version: pickles of others may not open."""
    import importlib.metadata  # which takes longer than all the rest of a command that needs it not

    found = {"python": f"{sys.version_info.major}.{sys.version_info.minor}"}
    for package in ("dask", "distributed"):
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def mismatch(one: Versions, other: Versions) -> list[str]:
    """The names that both have in different versions."""
    return [name for name in one if name in other and one[name] != other[name]]


def in_words(versions: Versions, names: list[str] | None = None) -> str:
    """`python 3.11, dask 2026.8.0`."""
    return ", ".join(f"{name} {version}" for name, version in versions.items() if names is None or name in names)


def from_words(text: str) -> dict[str, str]:
    """The other way round; what is no version is passed over."""
    pairs = (part.split() for part in text.split(","))
    return {pair[0]: pair[1] for pair in pairs if len(pair) == 2}
