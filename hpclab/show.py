"""What the command line prints, made from `describe()` and the core's values: text and tables, 80 columns and up."""

from __future__ import annotations

import itertools
import shlex
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from hpclab.config import Setting
from hpclab.connection import DASHBOARD_PORT, JUPYTER_PORT
from hpclab.follow import Phase
from hpclab.growth import Change, Offer
from hpclab.session import Story
from hpclab.units import counted, format_clock, format_duration, format_memory, format_walltime

if TYPE_CHECKING:
    from rich.console import Console, Group
    from rich.table import Table
    from rich.text import Text

    from hpclab.doctor import Examined, Finding
    from hpclab.job import Queue

NEXT = (
    ("add-worker -s {name}", "one more Dask worker, again and again"),
    ("status {name}", "what runs, what waits and why"),
    ("stop {name}", "end the session and all its jobs"),
)

SHORT_S = 600
"""With less than this left of the main job, people are told to save their work."""
FOLD_ABOVE = 3
"""So many jobs in a row that wait alike have a line each; more of them have one together."""

COLOURS = {
    "running": "green", "queued": "yellow", "pending": "yellow", "held": "yellow", "starting": "cyan",
    "completing": "cyan", "ending": "cyan", "failed": "red", "unreadable": "red", "unknown": "magenta",
}  # fmt: skip


def console(*, stderr: bool = False) -> Console:
    from rich.console import Console

    return Console(stderr=stderr, highlight=False, soft_wrap=True)


def phase_text(phase: Phase) -> str:
    elapsed = f"{phase.elapsed_s:6.1f} s"
    return f"{elapsed}  queued: {phase.text}" if phase.what == "queued" else f"{elapsed}  {phase.text}"


def connection_text(described: dict[str, Any]) -> str:
    """How to reach a running session, links with the token included."""
    name, node = described["name"], described["node"]
    lines = ["", f"{name} is running on {node}", ""]
    tunnel = shlex.join(described["tunnel"])
    jupyter, dashboard = described["jupyter_url"], described["dashboard_url"]
    is_here = f":{JUPYTER_PORT}/" not in jupyter or f":{DASHBOARD_PORT}/" not in dashboard
    if is_here:
        token = jupyter.partition("token=")[2]
        lines += [
            "on this machine, open",
            "",
            f"  JupyterLab  {jupyter}",
            f"  dashboard   {dashboard}",
            "",
            "from another machine, leave this running there",
            "",
            f"  {tunnel}",
            "",
            "and open",
            "",
            f"  JupyterLab  http://127.0.0.1:{JUPYTER_PORT}/lab?token={token}",
            f"  dashboard   http://127.0.0.1:{DASHBOARD_PORT}/status?token={token}",
        ]
    else:
        lines += ["on your own machine, leave this running", "", f"  {tunnel}", "", "and open", ""]
        lines += [f"  JupyterLab  {jupyter}", f"  dashboard   {dashboard}"]
    lines += ["", "then"]
    lines += [f"  {f'hpclab {command.format(name=name)}':<{26 + len(name)}}{meaning}" for command, meaning in NEXT]
    return "\n".join(lines)


def opened_text(described: dict[str, Any]) -> str:
    """The same where the tunnel is open and held by us."""
    name = described["name"]
    lines = ["", f"{name} is running on {described['node']}, and the tunnel to it is open", ""]
    lines += [f"  JupyterLab  {described['jupyter_url']}", f"  dashboard   {described['dashboard_url']}"]
    lines += ["", "leave this running: Ctrl-C closes the tunnel, and the session goes on"]
    lines += ["instead of this, any ssh will do:", "", f"  {shlex.join(described['tunnel'])}"]
    lines += ["", "in another terminal"]
    lines += [f"  {f'hpclab {command.format(name=name)}':<{26 + len(name)}}{meaning}" for command, meaning in NEXT]
    return "\n".join([*lines, ""])


def interrupted_text(name: str, destination: str, *, is_up: bool) -> str:
    """What Ctrl-C has left, and how to go on."""
    if not name:
        return f"interrupted; if a job was submitted before that, you find it by: hpclab list --host {destination}"
    what = "the tunnel is closed" if is_up else "interrupted"
    return "\n".join(
        [
            f"{what}; the session {name} goes on",
            "",
            f"  hpclab attach {name}    {'the tunnel again' if is_up else 'follow it, and open the tunnel'}",
            f"  hpclab stop {name}      {'end it' if is_up else 'cancel it'}",
        ]
    )


def detached_text(name: str, script: str) -> str:
    """What a run that nobody waits for is called, and how to go on."""
    commands = (
        ("status", "whether it waits or runs"),
        ("attach", "follow it: what it prints, and its exit status"),
        ("stop", "cancel it"),
    )
    lines = [f"  {f'hpclab {command} {name}':<{18 + len(name)}}{meaning}" for command, meaning in commands]
    return "\n".join([f"{name} was submitted, to run {script}", "", *lines])


def status_text(described: dict[str, Any]) -> Group:
    from rich.console import Group
    from rich.text import Text

    state = described["state"]
    head = Text.assemble((described["name"], "bold"), "  ", (state, COLOURS.get(state, "")))
    for part in _facts(described):
        head.append(f" · {part}")
    if program := described["program"]:
        head.append(f"\n{shlex.join([program['script'], *program['arguments']])}", "dim")
    main = next((job for job in reversed(described["jobs"]) if job["role"] == "main"), described)
    if described["reason"] not in ("", state):
        head.append(f"\n{reason_text(main) if state == 'queued' else described['reason']}")
    # the main job's reason stands in the head already, and what is wrong with all of them, too
    others = [(j["id"], j) for j in described["jobs"] if j["role"] != "main" and j["reason"] != described["reason"]]
    return Group(head, _jobs_table(described["jobs"]), _reasons(others))


def _facts(described: dict[str, Any]) -> list[str]:
    facts = [f"on {described['node']}"] if described["node"] else []
    if described["time_left_s"] is not None:
        left_s = described["time_left_s"]
        is_short = left_s < SHORT_S and described["state"] == "running" and not described["program"]
        facts.append(f"{format_duration(left_s)} left" + (": save your notebooks" if is_short else ""))
    workers = described["workers"]
    if described["state"] == "running":
        size = f"{counted(workers['cores'], 'core')}, {format_memory(workers['memory_bytes'])}"
        facts.append(f"{counted(workers['joined'], 'worker')} ({size})")
        if workers["pending"]:
            facts.append(f"{workers['pending']} queued")
    return facts


def _jobs_table(jobs: Sequence[dict[str, Any]]) -> Table:
    rows = []
    for alike in _folded(jobs):
        job = alike[0]
        rows.append(
            (
                job["id"] if len(alike) == 1 else f"{job['id']} … {alike[-1]['id']}",
                "main" if job["role"] == "main" else "",
                _coloured(job["state"]),
                _short_name(job["node"]),
                _joined(alike),
                str(job["cores"]),
                format_memory(job["memory_bytes"]),
                _left(job),
            )
        )
    columns = ("job", "", "state", "node", "joined", "cores", "memory", "left")
    return _table(columns, rows, right=(4, 5, 6, 7), shrink=(3,))


def _joined(alike: Sequence[dict[str, Any]]) -> str:
    """How many of its workers have joined; of a job that has ended, none are left."""
    workers = sum(job["workers"] for job in alike)
    if alike[0]["state"] in ("pending", "held"):
        return f"0 of {workers}"
    return f"{alike[0]['joined']} of {workers}" if alike[0]["state"] in ("running", "completing", "unknown") else ""


def _folded(jobs: Sequence[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """Those that are shown on one line: many in a row that wait, or have ended, alike."""
    folded: list[list[dict[str, Any]]] = []
    for _, group in itertools.groupby(jobs, key=_likeness):
        alike = list(group)
        folded += [alike] if len(alike) > FOLD_ABOVE else [[job] for job in alike]
    return folded


def _likeness(job: dict[str, Any]) -> tuple[Any, ...]:
    if job["state"] in ("running", "completing") or job["role"] == "main":
        return (job["id"],)
    return job["state"], job["workers"], job["cores"], job["memory_bytes"], job["node"]


def sessions_table(found: Sequence[dict[str, Any]]) -> Group:
    """With a column for the host where one is told, and one for the script where there are runs."""
    from rich.console import Group

    has_hosts = any("host" in described for described in found)
    has_runs = any(described.get("program") for described in found)
    rows = [
        (
            described["name"],
            *([described.get("host", "this machine")] if has_hosts else []),
            _coloured(described["state"]),
            described["queue"],
            _short_name(described["node"]),
            str(described["workers"]["joined"]) if described["state"] == "running" else "",
            _left(described),
            *([_script_name(described)] if has_runs else []),
        )
        for described in found
    ]
    columns = ("session", *(["host"] if has_hosts else []), "state", "queue", "node", "workers", "left")
    last = len(columns)
    shrink = (1, last - 4, last - 3) if has_hosts else (2, 3)
    columns += ("script",) if has_runs else ()
    table = _table(columns, rows, right=(last - 2, last - 1), shrink=(*shrink, last))
    return Group(table, _reasons([(described["name"], described) for described in found]))


def _script_name(described: dict[str, Any]) -> str:
    program = described.get("program")
    return program["script"].rpartition("/")[2] if program else ""


def _reasons(told: Sequence[tuple[str, dict[str, Any]]]) -> Text:
    """Below a table, where there is room for them: why something is not running."""
    from rich.text import Text

    names: dict[str, list[str]] = {}
    for name, what in told:
        if what["reason"] not in ("", what["state"]) and what["state"] != "ended":
            names.setdefault(reason_text(what), []).append(name)
    text = Text()
    for reason, alike in names.items():
        who = ", ".join(alike) if len(alike) <= 3 else f"{alike[0]} … {alike[-1]} ({len(alike)} alike)"
        text.append_text(Text.assemble((who, "bold"), f"  {reason}\n"))
    return text


def reason_text(what: Mapping[str, Any]) -> str:
    """With when it is expected to start, where the batch system says so."""
    start = what.get("expected_start")
    expected = f"expected to start {format_clock(start)}" if start and start > time.time() else ""
    return "; ".join(filter(None, (what["reason"], expected)))


def _left(what: dict[str, Any]) -> str:
    return "" if what["time_left_s"] is None else format_walltime(what["time_left_s"])


def _short_name(node: str) -> str:
    """A node without its domain."""
    return node.partition(".")[0]


def story_text(story: Story) -> Group:
    from rich.console import Group
    from rich.text import Text

    job = story.job
    head = Text.assemble("job ", (job.job_id, "bold"), f", {job.record.role}: ", _coloured(job.status.state.value))
    if job.status.reason not in ("", job.status.state.value):
        head.append(f", {job.status.reason}")
    before = story.events[0].time if story.events else 0.0
    rows = [
        (time.strftime("%H:%M:%S", time.localtime(event.time)), format_duration(event.time - before), event.sentence)
        for event in story.events
    ]
    table = _wrapping_table(("at", "after", "what happened"), rows)
    parts: list[Text | Table] = [head, table]
    if story.log_tail:
        parts.append(Text("\nthe end of its log:\n" + "\n".join(f"  {line}" for line in story.log_tail.splitlines())))
    return Group(*parts)


def submitted_text(job_ids: Sequence[str], name: str) -> str:
    """On one line, however many there are."""
    told = ", ".join(job_ids) if len(job_ids) <= 10 else f"{len(job_ids)} jobs, {job_ids[0]} to {job_ids[-1]},"
    return f"submitted {told} to {name}"


def change_text(change: Change) -> str:
    """What a change of size did."""
    parts = [
        (change.submit, f"submitted {counted(change.submit, 'worker job')}"),
        (len(change.cancel), f"cancelled {_few(change.cancel)}, whose workers had not joined"),
        (
            len(change.retire),
            f"{_few(change.retire)} handed over {'its' if len(change.retire) == 1 else 'their'} data and left",
        ),
    ]
    return "; ".join(text for number, text in parts if number) or "nothing to do"


def _few(job_ids: Sequence[str]) -> str:
    return ", ".join(job_ids) if len(job_ids) < 6 else counted(len(job_ids), "job")


def offers_table(offers: Sequence[Offer], best: Offer) -> Table:
    """When each shape would start, and which is taken."""
    now = time.time()
    rows = [
        (
            str(offer.shape),
            "taken" if offer is best else "",
            "no: " + offer.refusal if offer.start_time is None else _in_words(offer.start_time - now),
        )
        for offer in offers
    ]
    return _wrapping_table(("nodes x cores", "", "would start"), rows)


def _in_words(wait_s: float) -> str:
    return "now" if wait_s < 5 else f"in {format_duration(wait_s)}"


def config_table(settings: Sequence[Setting]) -> Table:
    rows = [(setting.key, _in_toml(setting.value), setting.where) for setting in settings]
    return _wrapping_table(("option", "value", "from"), rows)


MARKS = {"ok": "✔", "warning": "!", "problem": "✘", "unknown": "?"}
PLAIN_MARKS = {"ok": "ok", "warning": "warning", "problem": "PROBLEM", "unknown": "unknown"}
"""For terminals that have no such signs."""
STATE_COLOURS = {"ok": "green", "warning": "yellow", "problem": "red", "unknown": "magenta"}


def doctor_text(examined: Examined, *, unicode: bool = True) -> Group:
    """What was found, the queues, and the profile."""
    from rich.console import Group
    from rich.text import Text

    # here, since most commands need none of it
    from hpclab.doctor import findings, summary
    from hpclab.site_profile import profile

    found = findings(examined)
    parts: list[Text | Table] = [_findings_table(found, MARKS if unicode else PLAIN_MARKS)]
    if examined.queues:
        parts += [Text(), _queues_table(examined.queues)]
    # not wrapped, for it is to be copied
    parts += [Text(f"\n{summary(found)}\n"), Text(profile(examined).rstrip(), no_wrap=True, overflow="ignore")]
    return Group(*parts)


def _findings_table(found: Sequence[Finding], marks: dict[str, str]) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for finding in found:
        told = Text(finding.text)
        if finding.next_step and finding.state != "ok":
            told.append(f"\n-> {finding.next_step}", style="bold")
        table.add_row(Text(marks[finding.state], STATE_COLOURS[finding.state]), Text(finding.topic), told)
    return table


def _queues_table(queues: Sequence[Queue]) -> Table:
    rows = [
        (
            queue.name,
            "default" if queue.is_default else "" if queue.is_open else "closed",
            format_walltime(queue.walltime_limit_s) if queue.walltime_limit_s else "",
            str(queue.nodes or ""),
            str(queue.cores_per_node or ""),
            format_memory(queue.memory_per_node_bytes) if queue.memory_per_node_bytes else "",
            queue.note,
        )
        for queue in queues
    ]
    columns = ("queue", "", "walltime", "nodes", "cores", "memory", "note")
    return _table(columns, rows, right=(2, 3, 4, 5), shrink=(0, 6))


def _in_toml(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _table(
    columns: Sequence[str],
    rows: Sequence[Sequence[str | Text]],
    *,
    right: tuple[int, ...],
    shrink: tuple[int, ...],
) -> Table:
    """One line a row; `right` are the columns of numbers, those to `shrink` give way in a narrow terminal.

    To rich it is one row of tall cells: laying out a cell a job would take longer than asking about 200 of them.
    """
    from rich.text import Text

    table = _empty_table()
    for index, column in enumerate(columns):
        justify: Literal["left", "right"] = "right" if index in right else "left"
        table.add_column(column, justify=justify, no_wrap=index not in shrink, overflow="ellipsis")
    lines = [[cell if isinstance(cell, Text) else Text(cell) for cell in cells] for cells in zip(*rows, strict=True)]
    tall = [Text("\n", no_wrap=True, overflow="ellipsis").join(column) for column in lines]
    if rows:
        table.add_row(*tall)
    return table


def _wrapping_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    """The last column has as many lines as it needs."""
    from rich.text import Text

    table = _empty_table()
    for column in columns:
        table.add_column(column, no_wrap=column != columns[-1], overflow="fold")
    for cells in rows:
        # what jobs and people say is text, not markup
        table.add_row(*map(Text, cells))
    return table


def _empty_table() -> Table:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    return Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), header_style="dim")


def _coloured(state: str) -> Text:
    from rich.text import Text

    return Text(state, style=COLOURS.get(state, ""))
