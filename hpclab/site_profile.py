"""A config file for a site, from what `hpclab doctor` has seen of it: TOML, with the reason of every line. Pure."""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from hpclab.config import COUNTS, COUNTS_FROM_0
from hpclab.doctor import Examined, findings, known_memory_bytes
from hpclab.units import counted, format_memory, format_walltime

SITE_COMMANDS: Mapping[str, Sequence[str]] = {
    "sge": [
        "bash",
        "-c",
        'export SGE_SINGLE_LINE=1; for pe in $(qconf -spl); do qconf -sp "$pe"; done; echo; qconf -sc',
    ],
    "lsf": ["bash", "-c", 'grep -h "^ *LSF_UNIT_FOR_LIMITS" "$LSF_ENVDIR/lsf.conf"'],
}
"""How a system is asked for what only it has."""


def describe(examined: Examined) -> dict[str, Any]:
    """All that was found, for programs."""
    found = findings(examined)
    return {
        "host": examined.host,
        "system": examined.system,
        "version": examined.found.get(examined.system, ""),
        "problems": sum(finding.state == "problem" for finding in found),
        "findings": [asdict(finding) for finding in found],
        "queues": [asdict(queue) for queue in examined.queues],
        "login": asdict(examined.login) if examined.login else None,
        "node": asdict(examined.on_node) if examined.on_node else None,
        "profile": profile(examined),
    }


@dataclass(frozen=True, kw_only=True)
class Line:
    """One option of a profile, and why."""

    key: str
    value: Any
    why: str

    def __str__(self) -> str:
        comment = textwrap.wrap(self.why, 78, break_long_words=False, break_on_hyphens=False)
        # JSON's texts, numbers, lists and truths are TOML's, too
        return "\n".join([*(f"# {line}" for line in comment), f"{self.key} = {_toml(self.value)}"])


def _toml(value: Any) -> str:
    return json.dumps(list(value) if isinstance(value, tuple) else value, ensure_ascii=False)


def profile(examined: Examined) -> str:
    """A config file for this site."""
    version = examined.found.get(examined.system, "")
    probed = " --probe" if examined.on_node else ""
    head = (
        f"# {examined.host}, {version or examined.system}, as `hpclab doctor{probed}` found it.\n"
        "# Put this at the top of ~/.config/hpclab/config.toml, or below a\n"
        "# [profile.NAME] there."
    )
    return "\n\n".join([head, *(str(line) for line in profile_lines(examined))]) + "\n"


def profile_lines(examined: Examined) -> list[Line]:
    given = {key: setting for key, setting in examined.given.items() if key not in ("queue", "profile", "host")}
    found = {line.key: line for line in (_queue_line(examined), *_walltimes(examined), *_machine(examined))}
    found |= {line.key: line for line in _site_lines(examined)}
    seen = examined.on_node
    for key, setting in given.items():
        # what somebody has decided stays as they had it, but for what cannot be
        is_mended = key in found and key in ("walltime", "worker_walltime", "mpiexec")
        is_missing = key == "interface" and seen is not None and not seen.has_network(str(setting.value))
        if is_mended or is_missing:
            continue
        is_number = key in COUNTS | COUNTS_FROM_0 and str(setting.value).isdigit()
        value = int(setting.value) if is_number else setting.value
        found[key] = Line(key=key, value=value, why=f"as it was set by {setting.where}")
    return list(found.values())


def _queue_line(examined: Examined) -> Line:
    queue, system = examined.queue or examined.usual_queue, examined.system
    if system == "local":
        return Line(key="queue", value="local", why="no batch system: jobs run on this machine")
    if queue is None:
        whole = ":".join(filter(None, (system, examined.partition)))
        return Line(key="queue", value=whole, why="its queues are not known: put one behind a colon")
    facts = [
        counted(queue.nodes, "node") if queue.nodes else "",
        f"{queue.cores_per_node} cores a node" if queue.cores_per_node else "",
        f"{format_memory(known_memory_bytes(queue))} a node" if known_memory_bytes(queue) else "",
        f"up to {format_walltime(queue.walltime_limit_s)}" if queue.walltime_limit_s else "",
    ]
    is_asked = queue.name == examined.partition
    why = "as it was asked for" if is_asked else "the default" if queue.is_default else "the largest open one"
    others = [other.name for other in examined.queues if other.is_open and other is not queue]
    told = ", ".join([why, *filter(None, facts)]) + (f"; also open: {', '.join(others)}" if others else "")
    return Line(key="queue", value=f"{system}:{queue.name}", why=told)


def _walltimes(examined: Examined) -> Iterator[Line]:
    queue, s = examined.queue, examined.settings
    if queue is None or not queue.walltime_limit_s:
        return
    for key, walltime_s in (("walltime", s.walltime_s), ("worker_walltime", s.worker_walltime_s)):
        if walltime_s > queue.walltime_limit_s:
            why = f"the longest that {queue.name} allows; otherwise it would be {format_walltime(walltime_s)}"
            yield Line(key=key, value=format_walltime(queue.walltime_limit_s), why=why)


def _machine(examined: Examined) -> Iterator[Line]:
    seen = examined.on_node or examined.login
    if seen is None:
        return
    if examined.system != "local":
        told = seen.networks_told
        why = f"every worker takes the fastest network that answers; {seen.node} has {told}"
        yield Line(key="interface", value="auto", why=why)
    launcher = seen.fitting
    if seen.mpi_library and launcher and launcher is not seen.launchers[0]:
        why = f"the launcher of mpi4py's library, {seen.mpi_library}; not {seen.launchers[0]}"
        yield Line(key="mpiexec", value=launcher.path, why=why)


def _site_lines(examined: Examined) -> Iterable[Line]:
    if examined.system == "sge":
        return _grid_engine(examined.site)
    queue = examined.queue
    if examined.system == "slurm" and queue and queue.memory_per_node_bytes and not known_memory_bytes(queue):
        return [Line(key="slurm_memory", value="none", why="Slurm does not know the nodes' memory and refuses --mem")]
    unit = re.search(r"LSF_UNIT_FOR_LIMITS *= *([KMG]B?)\b", examined.site, re.IGNORECASE)
    if examined.system == "lsf":
        value = unit[1][0].upper() + "B" if unit else "MB"
        why = f"lsf.conf: {unit[0]}" if unit else "lsf.conf tells none; units are always written, so any will do"
        return [Line(key="lsf_memory_unit", value=value, why=why)]
    return []


def _grid_engine(site: str) -> Iterator[Line]:
    rules = dict(re.findall(r"^pe_name +(\S+)\n(?:(?!pe_name).*\n)*?allocation_rule +(\S+)", site, re.MULTILINE))
    kinds = [
        ("sge_pe", "smp", {pe: rule for pe, rule in rules.items() if rule == "$pe_slots"}, "on one node"),
        ("sge_pe_nodes", "mpi", {pe: rule for pe, rule in rules.items() if rule != "$pe_slots"}, "over several nodes"),
    ]
    for key, usual, able, where in kinds:
        if able:
            name = min(able, key=lambda pe: (pe != usual, usual not in pe))
            others = f"; others: {', '.join(pe for pe in able if pe != name)}" if len(able) > 1 else ""
            why = f"the parallel environment for jobs {where} (allocation_rule {able[name]}){others}"
            yield Line(key=key, value=name, why=why)
    # name, shortcut, type, relop, requestable, consumable
    counted_out = re.findall(r"^(\S+) +\S+ +\S+ +\S+ +(?:YES|FORCED) +(?:YES|JOB)\b", site, re.MULTILINE)
    memory = next((name for name in ("m_mem_free", "mem_free", "virtual_free", "mem") if name in counted_out), "none")
    no_memory = "no resource that counts out memory; h_vmem limits the address space, of which threads need much"
    why = "the resource that counts out memory" if memory != "none" else no_memory
    yield Line(key="sge_memory", value=memory, why=why)
    if gpu := next((name for name in ("gpu", "gpus", "ngpus", "gpu_card") if name in counted_out), ""):
        yield Line(key="sge_gpu", value=gpu, why="the resource that counts out GPUs")
