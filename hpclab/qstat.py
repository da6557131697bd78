"""What PBS and Torque have in common: the text of `qstat -f`, ids with a server's name, chunks for each host. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from itertools import islice

from hpclab.errors import UnreadableOutput
from hpclab.job import Chunk, JobSpec, Queue
from hpclab.result import Result
from hpclab.units import split_evenly

FOLDED = r"\n\t"
"""How qstat breaks a long line."""


def hosts_of(spec: JobSpec) -> list[list[Chunk]]:
    """The tasks that each host is to have, as the ranks follow each other; each has at least one."""
    tasks = iter([chunk for chunk in spec.chunks for _ in range(chunk.count)])
    return [list(islice(tasks, count)) for count in split_evenly(spec.tasks, min(spec.nodes, spec.tasks))]


def log_folder(log: str, *, without: str) -> str:
    """The log's folder, where the batch system puts a file of its own; qsub takes only printable ASCII.

    /dev/null where it would not take the folder, or find one of the characters that mean something to it.
    """
    folder = log.rpartition("/")[0] + "/"
    is_plain = folder.isascii() and folder.isprintable() and not set(without) & set(folder)
    return folder if is_plain else "/dev/null"


def job_ids_of(stdout: str, count: int, server: str) -> list[str]:
    """The ids in qsub's answer, `1.server` or `1[].server` for an array; `server` is the pattern of that name."""
    # a profile script, a hook or a submit filter of the site may print, too
    brackets = r"\[\]" if count > 1 else ""
    found = re.findall(rf"^[ \t]*([0-9]{{1,18}})({brackets}{server})[ \t\r]*$", stdout, re.MULTILINE)
    if not found:
        raise UnreadableOutput(f"no job id in the answer of qsub: {stdout!r}")
    number, rest = found[-1]
    if count == 1:
        return [number + rest]
    return [f"{number}[{task}]{rest.removeprefix('[]')}" for task in range(1, count + 1)]


def records(text: str, head: str, *, folded: str = FOLDED) -> Iterator[tuple[str, dict[str, str]]]:
    """Each `Job Id: 1.server` with its `    attribute = value` lines; long ones go on after a tab."""
    for record in re.split(rf"^{head}:[ \t]+", re.sub(folded, "", text), flags=re.MULTILINE)[1:]:
        name, _, lines = record.partition("\n")
        yield name.strip(), dict(re.findall(r"^(?: {4}|\t)([\w.]+) = (.*)$", lines, re.MULTILINE))


def jobs_told(result: Result, gone: re.Pattern[str], *, folded: str = FOLDED) -> dict[str, dict[str, str]]:
    """Every job's attributes; `gone` is how qstat complains of one that it does not know. Raises UnreadableOutput."""
    # it asks for one job after the other, and the server may be lost in between: then what is not told is not gone
    if result.exit_status and not all_gone(result, "qstat", gone):
        raise UnreadableOutput(f"qstat: {result.last_words.removeprefix('qstat: ')}")
    found = dict(records(result.stdout, "Job Id", folded=folded))
    if result.stdout.strip() and not found and "qstat:" not in result.stderr:
        raise UnreadableOutput(f"no job in the answer of qstat: {result.last_words}")
    return found


def all_gone(result: Result, command: str, gone: re.Pattern[str]) -> bool:
    """It complains, and only of jobs that it does not know or that have ended."""
    complaints = [line for line in result.stderr.splitlines() if line.startswith(f"{command}:")]
    return bool(complaints) and all(gone.search(line) for line in complaints)


def held(told: Mapping[str, str], words: Mapping[str, str]) -> str:
    """Why a job is held, by the letters of its Hold_Types."""
    holds = told.get("Hold_Types", "n")
    why = [words[letter] for letter in holds if letter in words]
    return f"{', '.join(why)} (Hold_Types {holds})" if why else f"suspended (job_state {told['job_state']})"


def first_host(told: Mapping[str, str]) -> str:
    """`node1` of `node1/0*2+node2/0`."""
    host, slash, _ = told.get("exec_host", "").partition("/")
    return host if slash else ""


def seconds(clock: str) -> int:
    """Of `01:30:00`; 0 of what is no such time."""
    told = re.fullmatch(r"([0-9]{1,9}):([0-9]{2}):([0-9]{2})", clock.strip())
    return int(told[1]) * 3600 + int(told[2]) * 60 + int(told[3]) if told else 0


def queues_told(result: Result, *, folded: str = FOLDED) -> list[Queue]:
    """Of `qstat -B -f; qstat -Q -f`: the default queue is the server's to tell."""
    queues = dict(records(result.stdout, "Queue", folded=folded))
    if result.exit_status or (result.stdout.strip() and not queues):
        raise UnreadableOutput(f"qstat: {result.last_words.removeprefix('qstat: ')}")
    servers = records(result.stdout.partition("Queue: ")[0], "Server", folded=folded)
    defaults = {told.get("default_queue") for _, told in servers}
    return [_queue(name, told, name in defaults) for name, told in queues.items()]


def _queue(name: str, told: Mapping[str, str], is_default: bool) -> Queue:
    notes = {
        "takes no jobs": told.get("enabled") == "False",
        "runs no jobs": told.get("started") == "False",
        "not for everybody": "True" in (told.get("acl_user_enable"), told.get("acl_group_enable")),
    }
    return Queue(
        name=name,
        is_default=is_default,
        is_open=told.get("enabled") == "True" == told.get("started"),
        walltime_limit_s=seconds(told.get("resources_max.walltime", "")),
        note=", ".join(note for note, applies in notes.items() if applies),
    )
