"""A session as it is shown in a notebook: HTML made from `describe()` alone.

Names, reasons and nodes come from others, and may hold anything: what is put into the page is escaped.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from hpclab.job import JobState
from hpclab.show import reason_text
from hpclab.units import counted, format_duration, format_memory

ROWS = 20
"""So many jobs have a row of their own."""
COLOURS = {
    "running": "#2e7d32",
    "queued": "#b26a00",
    "held": "#b26a00",
    "starting": "#00838f",
    "ending": "#00838f",
    "failed": "#c62828",
    "unknown": "#8e24aa",
}
"""Of a badge with white letters, readable in light and dark themes."""
LINK = "text-decoration:underline"
"""Within a widget links look like text."""


def html(described: Mapping[str, Any], *, dashboard: str = "", notes: Sequence[str] = ()) -> str:
    """`notes` are lines of text below; `dashboard` is a link to Dask's."""
    state = described["state"]
    badge = f'<span style="{_badge(state)}">{escape(state)}</span>'
    facts = [f"on {described['node']}"] if described["node"] else []
    if described["time_left_s"] is not None:
        facts.append(f"{format_duration(described['time_left_s'])} left")
    facts.append(_sums(described["workers"]))
    head = f"<strong>{escape(described['name'])}</strong> {badge} {escape(' · '.join(facts))}"
    if dashboard.startswith(("/", "http://", "https://")):
        head += f' · <a href="{escape(dashboard)}" target="_blank" rel="noopener" style="{LINK}">dashboard</a>'
    if described["reason"] not in ("", state):
        notes = [described["reason"], *notes]
    rest = "".join(f"<div>{escape(note)}</div>" for note in notes)
    return f'<div class="hpclab-session"><div>{head}</div>{_table(described["jobs"])}{rest}</div>'


def trouble(name: str, text: str) -> str:
    """In place of a card: why there is none."""
    return f'<div class="hpclab-session"><strong>{escape(name)}</strong><pre>{escape(text)}</pre></div>'


def _badge(state: str) -> str:
    colour = COLOURS.get(state, "#616161")
    return f"background:{colour};color:#fff;border-radius:3px;padding:0 6px"


def _sums(workers: Mapping[str, Any]) -> str:
    text = counted(workers["joined"], "worker")
    if workers["joined"]:
        text += f" ({counted(workers['cores'], 'core')}, {format_memory(workers['memory_bytes'])})"
    return text + (f", {workers['pending']} queued" if workers["pending"] else "")


def _table(jobs: Sequence[Mapping[str, Any]]) -> str:
    """The jobs that have not ended, and how many have."""
    alive = [job for job in jobs if not JobState(job["state"]).is_final]
    heads = "".join(_cell("th", head) for head in ("job", "state", "node", "each", "left"))
    rows = "".join(f"<tr>{''.join(_cell('td', text) for text in _row(job))}</tr>" for job in alive[:ROWS])
    hidden = [f"{len(alive) - ROWS} more are queued or running"] if len(alive) > ROWS else []
    if ended := len(jobs) - len(alive):
        hidden.append(f"{counted(ended, 'job')} {'has' if ended == 1 else 'have'} ended")
    below = f"<div>{'; '.join(hidden)}</div>" if hidden else ""
    return (f"<table><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table>" if rows else "") + below


def _cell(tag: str, text: str) -> str:
    return f'<{tag} style="text-align:left;padding:2px 16px 2px 0;line-height:1.3">{escape(text)}</{tag}>'


def _row(job: Mapping[str, Any]) -> list[str]:
    name = f"{job['id']}, main" if job["role"] == "main" else job["id"]
    each = f"{job['workers']} × " if job["workers"] > 1 else ""
    size = f"{each}{counted(job['cores'], 'core')}, {format_memory(job['memory_bytes'])}"
    left = "" if job["time_left_s"] is None else format_duration(job["time_left_s"])
    return [name, in_words(job), job["node"].partition(".")[0], size, left]


def in_words(job: Mapping[str, Any]) -> str:
    """How a job is, with the batch system's reason and when it is expected to start."""
    state, reason = job["state"], reason_text(job)
    if state == "running":
        words = f"{job['joined']} of {counted(job['workers'], 'worker')} joined"
        if job["busy"]:
            words += f", {job['busy']} at work"
    else:
        words = {"pending": "queued", "completing": "ending"}.get(state, state)
    return words if reason in ("", state) else f"{words}: {reason}"
