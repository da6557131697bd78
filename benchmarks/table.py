"""What the benchmarks say: a table for people, and every run's figures as JSON."""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from statistics import median
from typing import Any, Protocol

from rich.console import Console
from rich.table import Table

TOO_SHORT_S = 0.05
PACKAGES = ("hpclab", "distributed", "dask-mpi", "jupyterlab", "mpi4py")


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """One quantity in pairs of neighbouring runs: the n-th of `before` ran just before the n-th of `ours`."""

    what: str
    unit: str
    before: tuple[float, ...]
    ours: tuple[float, ...]
    target: float | None = None
    """The ratio that it should not exceed."""

    @property
    def ratios(self) -> tuple[float, ...]:
        """Pair by pair; none where there is next to nothing to compare with."""
        if self.unit == "s" and median(self.before) < TOO_SHORT_S:
            return ()
        return tuple(ours / before for before, ours in zip(self.before, self.ours, strict=True))

    def cells(self) -> tuple[str, ...]:
        medians = (_figure(median(values), self.unit) for values in (self.before, self.ours))
        return (self.what, *medians, *_spread(self.ratios), _at_most(self.target))


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """One quantity, run after run."""

    what: str
    unit: str
    values: tuple[float, ...]
    target: float | None = None

    def cells(self) -> tuple[str, ...]:
        return (self.what, *_spread(self.values, self.unit), _at_most(self.target, self.unit))


class Row(Protocol):
    def cells(self) -> tuple[str, ...]: ...


def _spread(values: Sequence[float], unit: str = "") -> tuple[str, str, str]:
    """Median, least and most."""
    if not values:
        return ("–", "", "")
    return _figure(median(values), unit), _figure(min(values), unit), _figure(max(values), unit)


def _at_most(target: float | None, unit: str = "") -> str:
    return "" if target is None else f"≤ {_figure(target, unit)}"


def _figure(value: float, unit: str) -> str:
    return f"{value:.{2 if unit in ('', 's') else 0}f} {unit}".rstrip()


def arguments(about: str, *, runs: int) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("--runs", type=int, default=runs, metavar="N", help=f"default {runs}")
    parser.add_argument("--json", type=Path, metavar="FILE", help="other benchmarks' figures in it are kept")
    return parser.parse_args()


def show(title: str, heads: Sequence[str], rows: Sequence[Row]) -> None:
    table = Table(title=title, title_justify="left", caption=_machine_text(), caption_justify="left")
    for place, head in enumerate(heads):
        table.add_column(head, justify="right" if place else "left", no_wrap=True)
    for row in rows:
        table.add_row(*row.cells())
    Console(highlight=False).print(table, "")


def write(path: Path | None, benchmark: str, rows: Sequence[Comparison | Measurement]) -> None:
    if path is None:
        return
    known = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    known[benchmark] = {"machine": machine(), "rows": [_described(row) for row in rows]}
    path.write_text(json.dumps(known, indent=2) + "\n", encoding="utf-8")


def _described(row: Comparison | Measurement) -> dict[str, Any]:
    return asdict(row) | ({"ratios": row.ratios} if isinstance(row, Comparison) else {})


def machine() -> dict[str, Any]:
    """Where and when, as far as it explains a figure."""
    return {
        "date": datetime.now().astimezone().isoformat(timespec="seconds"),
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 1),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "versions": {name: importlib.metadata.version(name) for name in PACKAGES},
    }


def _machine_text() -> str:
    about = machine()
    return f"{about['date'][:16]} · {about['cores']} cores, load {about['load']} · Python {about['python']}"
