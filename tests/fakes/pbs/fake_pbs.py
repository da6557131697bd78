"""A fake OpenPBS 23.06.06: qsub, qstat, qdel and pbsnodes that really run the jobs, modelled on `tests/data/pbs`.

Faked, with the recorded texts and exit statuses: the options of qsub on the command line and in `#PBS` lines, and what
it refuses; queues with their limits; select/place on several hosts, whose cpus and memory a job occupies until it has
ended; states, substates and comments; job arrays; qstat as tables, in full, wide, JSON and DSV, of unknown and finished
jobs too; qdel with its grace; the kill at the walltime; outputs that are delivered at the end, to be lost or not; the
environment of a job, which a login shell runs.

Not faked: dependencies, stage-in and sandboxes, interactive jobs, reservations, requeues, memory limits, priorities,
fair share (first come, first served, and whoever fits may pass), other users, and every other command.

There is no daemon. Each job has a `mom`, a detached process of this module on the submitting host. It waits until
somebody (a qsub, a qdel, the end of a job) has found room for it, then runs it: here, or through ssh by a mom on the
job's first host. It ends with the job. All that they know of each other stands in the folder $FAKE_PBS_DIR:
jobs/ history/ (records), spool/ undelivered/ aux/ mom_priv/jobs/ as in /var/spool/pbs, mom_logs/, and lock.

Knobs, from the environment, or else from $FAKE_PBS_DIR/settings.json, where FAKE_PBS_HOSTS is called "hosts":
  FAKE_PBS_DIR         the state (environment only; default ~/.fake_pbs); with a file `down` in it, the server is down
  FAKE_PBS_HOSTS       'node1:16:64gb node2:16:64gb'; default: this host, 16 cpus, 64gb
  FAKE_PBS_SERVER      the name in job ids; default: the host of the first command
  FAKE_PBS_HISTORY     0: finished jobs are unknown
  FAKE_PBS_TIME_SCALE  factor of the waits of PBS itself: the grace of qdel (10 s), how late it sees that a walltime is
                       over (10 s), how long it tries to deliver outputs (30 s) and to start a job (20 times 2 s)
  FAKE_PBS_HOME        the home folder of jobs; default: as in /etc/passwd
  FAKE_PBS_RESOURCES   names of further resources, 'ngpus'; every host has any amount
settings.json may also hold queues in place of those below: {"queues": {"NAME": {"enabled": false, "started": false,
"users": ["root"], "resources_max": {"walltime": "00:05:00"}, "resources_default": {"walltime": "00:05:00"}}}}.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pwd
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

VERSION = "23.06.06"
HERE = Path(__file__).resolve()
Job = dict[str, Any]
Free = dict[str, dict[str, int]]

POLL_S = 0.03
KILL_DELAY_S = 10.0
WALLTIME_LATE_S = 10.0
DELIVERY_RETRY_S = 30.0
START_RETRY_S = 2.0
STARTS = 20

QUEUES: dict[str, Any] = {
    "workq": {},
    "short": {"resources_max": {"walltime": "00:05:00"}, "resources_default": {"walltime": "00:05:00"}},
    "closed": {"enabled": False},
}
DEFAULT_WALLTIME = "01:00:00"
MAX_ARRAY_SIZE = 10000

QSUB_USAGE = """usage: qsub [-a date_time] [-A account_string] [-c interval]
	[-C directive_prefix] [-e path] [-f ] [-h ] [-I [-X]] [-j oe|eo] [-J X-Y[:Z]]
	[-k keep] [-l resource_list] [-m mail_options] [-M user_list]
	[-N jobname] [-o path] [-p priority] [-P project] [-q queue] [-r y|n]
	[-R o|e|oe] [-S path] [-u user_list] [-W otherattributes=value...]
	[-v variable_list] [-V ] [-z] [script | -- command [arg1 ...]]
       qsub --version
"""
QSTAT_USAGE = """usage: 
qstat [-f] [-J] [-p] [-t] [-x] [-E] [-F format | -w] [-D delim] [ job_identifier... | destination... ]
qstat [-a|-i|-r|-H|-T] [-J] [-t] [-u user] [-n] [-s] [-G|-M] [-1] [-w]
	[ job_identifier... | destination... ]
qstat -Q [-f] [-F format] [-D delim] [ destination... ]
qstat -q [-G|-M] [ destination... ]
qstat -B [-f] [-F format] [-D delim] [ server_name... ]
qstat --version
"""
QDEL_USAGE = """usage:
	qdel [-W force|suppress_email=X] [-x] job_identifier...
	qdel --version
"""


class Refused(Exception):
    """What the command says and its exit status."""

    def __init__(self, exit_status: int, text: str) -> None:
        super().__init__(text)
        self.exit_status = exit_status
        self.text = text


def illegal(attribute: str = "") -> Refused:
    return Refused(166, f"Illegal attribute or resource value {attribute}".rstrip())


# the state -----------------------------------------------------------------------------------------------------------


class State:
    """The folder: records of jobs, one lock, the knobs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in ("jobs", "history", "spool", "undelivered", "aux", "mom_priv/jobs", "mom_logs"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        settings = folder / "settings.json"
        self.settings: dict[str, Any] = json.loads(settings.read_text()) if settings.exists() else {}
        self.server = self._server()
        self.hosts: Free = {}
        self.memory: dict[str, str] = {}
        for text in self.knob("HOSTS", socket.gethostname()).split():
            name, ncpus, mem = (text.split(":") + ["16", "64gb"][text.count(":") :])[:3]
            self.hosts[name] = {"ncpus": int(ncpus), "mem": kilobytes(mem)}
            self.memory[name] = mem
        self.queues: dict[str, Any] = self.settings.get("queues", QUEUES)
        self.scale = float(self.knob("TIME_SCALE", "1"))
        self.has_history = self.knob("HISTORY", "1").lower() not in ("0", "false", "off")
        self.resources = RESOURCES | dict.fromkeys(self.knob("RESOURCES", "").split(), "int")
        self.chunk_resources = CHUNK_RESOURCES | set(self.knob("RESOURCES", "").split())

    def knob(self, name: str, default: str) -> str:
        value = os.environ.get(f"FAKE_PBS_{name}") or self.settings.get(name.lower())
        return default if value is None else str(value)

    def _server(self) -> str:
        path = self.folder / "server"
        if not path.exists():
            write(path, self.knob("SERVER", socket.gethostname().split(".")[0]), once=True)
        return path.read_text()

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        with (self.folder / "lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def next_number(self) -> int:
        path = self.folder / "next"
        number = int(path.read_text()) if path.exists() else 1
        write(path, str(number + 1))
        return number

    def path(self, job_id: str, folder: str = "jobs") -> Path:
        return self.folder / folder / f"{job_id}.json"

    def active(self, job_id: str) -> Job | None:
        return read(self.path(job_id))

    def finished(self, job_id: str) -> Job | None:
        return read(self.path(job_id, "history"))

    def jobs(self, folder: str = "jobs") -> list[Job]:
        """In the order of submission."""
        found = [read(path) for path in (self.folder / folder).glob("*.json")]
        return sorted((job for job in found if job), key=lambda job: (job["number"], job.get("index", -1)))

    def save(self, job: Job) -> None:
        write(self.path(job["id"]), json.dumps(job))

    def change(self, job: Job, **changes: Any) -> None:
        job.update(changes, mtime=time.time())
        self.save(job)

    def bury(self, job: Job, substate: int, **changes: Any) -> None:
        """The job has finished. The record of an array follows its last subjob."""
        now = time.time()
        job.update(changes, state="F", substate=substate, mtime=now, history_timestamp=int(now))
        if not job.get("purge"):
            write(self.path(job["id"], "history"), json.dumps(job))
        self.path(job["id"]).unlink(missing_ok=True)
        array = self.active(job["array_id"]) if "index" in job else None
        if array and not any(self.path(subjob).exists() for subjob in subjob_ids(array)):
            subjobs = [self.finished(subjob) for subjob in subjob_ids(array)]
            is_failed = any(subjob and subjob["substate"] != 92 for subjob in subjobs)
            if "stime" in array:
                ending = "failed" if is_failed else "finished"
                changes = {"Exit_status": 0, "Stageout_status": 1, "obittime": now}
                self.bury(array, 93 if is_failed else 92, comment=f"{array['comment']} and {ending}", **changes)
            else:
                self.bury(array, 91)


def read(path: Path) -> Job | None:
    try:
        job: Job = json.loads(path.read_text())
        return job
    except FileNotFoundError:
        return None


def write(path: Path, text: str, *, once: bool = False) -> None:
    """At once, so that who reads without the lock finds it whole."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=".")
    with os.fdopen(handle, "w") as file:
        file.write(text)
    with contextlib.suppress(FileExistsError):
        if not once:
            Path(name).rename(path)
            return
        os.link(name, path)
    Path(name).unlink()


def subjob_ids(array: Job) -> list[str]:
    return [array["id"].replace("[]", f"[{index}]") for index in array["indices"]]


# resources -----------------------------------------------------------------------------------------------------------

RESOURCES = {
    **dict.fromkeys("ncpus mpiprocs ompthreads nodect nice".split(), "int"),
    **dict.fromkeys("mem vmem pmem pvmem file".split(), "size"),
    **dict.fromkeys("walltime cput pcput min_walltime max_walltime soft_walltime".split(), "time"),
    **dict.fromkeys("select place nodes host vnode arch software".split(), "text"),
}
CHUNK_RESOURCES = set("ncpus mpiprocs ompthreads mem vmem host vnode arch".split())
_SIZE = re.compile(r"(\d+)([kmgtp]?)([bw]?)", re.IGNORECASE)
_PLACE = re.compile(r"(free|pack|v?scatter)?:?(excl|shared|exclhost)?(:?group=\w+)?")


def size(text: str) -> tuple[int, int]:
    """(3, 20) for 3mb."""
    match = _SIZE.fullmatch(text)
    if not match:
        raise ValueError(text)
    words = 8 if match[3].lower() == "w" else 1
    return int(match[1]) * words, 10 * " kmgtp".index(match[2].lower() or " ")


def show_size(number: int, shift: int) -> str:
    return f"{number}{' kmgtp'[shift // 10].strip()}b"


def kilobytes(text: str) -> int:
    number, shift = size(text)
    return -(-(number << shift) // 1024)


def seconds(text: str) -> int:
    if not re.fullmatch(r"(\d+:){0,2}\d+(\.\d+)?", text):
        raise ValueError(text)
    total = 0
    for part in text.split(":"):
        total = 60 * total + int(float(part))
    return total


def clock(total: float) -> str:
    hours, rest = divmod(int(total), 3600)
    return f"{hours:02}:{rest // 60:02}:{rest % 60:02}"


def checked(state: State, name: str, value: str, attribute: str) -> str:
    """The value as PBS shows it."""
    kind = state.resources[name]
    try:
        if kind == "int" and int(value) < 0:
            raise illegal(attribute)
        if kind == "size":
            return show_size(*size(value))
        if kind == "time":
            return clock(seconds(value))
    except ValueError:
        raise illegal(attribute) from None
    return value


def parse_select(state: State, text: str) -> list[dict[str, str]]:
    """Its chunks, one by one, in their order."""
    chunks = []
    for part in text.split("+"):
        first, *rest = part.split(":")
        if not first.isdigit():
            first, rest = "1", [first, *rest]
        if int(first) == 0:
            raise illegal()
        chunk = {}
        for item in rest:
            name, _, value = item.partition("=")
            if not name or not value:
                raise illegal("Resource_List.select")
            if name not in state.resources:
                raise Refused(187, f"Unknown resource: {name}")
            if name not in state.chunk_resources:
                raise illegal("Resource_List.select")
            chunk[name] = checked(state, name, value, f"select.{name}")
        chunk.setdefault("ncpus", "1")
        chunks += [chunk] * int(first)
    return chunks


def resource_list(state: State, asked: dict[str, str], queue: dict[str, Any]) -> tuple[dict[str, Any], list[Any]]:
    """What qstat shows as Resource_List, and the chunks."""
    for name, value in asked.items():
        if "=" in name or (name not in state.resources and not value):
            raise illegal(f"Resource_List.{name}")
        if name not in state.resources:
            raise Refused(187, f"Unknown resource Resource_List.{name}")
    for name in sorted(state.chunk_resources & asked.keys()):
        if "select" in asked or "place" in asked:
            raise Refused(5, f'"-lresource=" cannot be used with "select" or "place", resource is: {name}')
    shown: dict[str, Any] = {
        name: checked(state, name, value, f"Resource_List.{name}") for name, value in asked.items() if name != "select"
    }
    if any(value == "" for value in asked.values()):
        raise illegal(f"Resource_List.{next(name for name, value in asked.items() if value == '')}")
    if not _PLACE.fullmatch(shown.get("place", "free")):
        raise illegal("Resource_List.place")
    place = "free"
    if "select" in asked:
        select = asked["select"]
    elif "nodes" in asked:
        count, _, properties = asked["nodes"].partition(":")
        ppn = re.search(r"ppn=(\d+)", properties)
        select = f"{count}:ncpus={ppn[1]}:mpiprocs={ppn[1]}" if ppn else f"{count}:ncpus=1"
        place = "scatter"
    else:
        alone = {"ncpus": "1"} | {name: shown.pop(name) for name in sorted(state.chunk_resources & asked.keys())}
        select = "1:" + ":".join(f"{name}={value}" for name, value in sorted(alone.items()))
        place = "free" if "place" in asked else "pack"
    chunks = parse_select(state, select)
    shown |= {"select": select, "nodect": len(chunks)}
    shown.setdefault("place", place)
    for name in ("ncpus", "mpiprocs", *(set(chunks[0]) - CHUNK_RESOURCES)):
        if any(name in chunk for chunk in chunks):
            shown[name] = sum(int(chunk.get(name, 0)) for chunk in chunks)
    sizes = [size(chunk["mem"]) for chunk in chunks if "mem" in chunk]
    if sizes:
        shift = min(shift for _, shift in sizes)
        shown["mem"] = show_size(sum(number << (each - shift) for number, each in sizes), shift)
    defaults = {"walltime": DEFAULT_WALLTIME} | queue.get("resources_default", {})
    shown = defaults | shown
    for name, limit in queue.get("resources_max", {}).items():
        if name in shown and amount(state, name, shown[name]) > amount(state, name, limit):
            raise Refused(188, "Job violates queue and/or server resource limits")
    return dict(sorted(shown.items())), chunks


def amount(state: State, name: str, value: object) -> int:
    measure: dict[str, Callable[[str], int]] = {"time": seconds, "size": kilobytes, "int": int}
    return measure[state.resources[name]](str(value))


# room ----------------------------------------------------------------------------------------------------------------


def needs(chunk: dict[str, str]) -> dict[str, int]:
    return {"ncpus": int(chunk["ncpus"]), "mem": kilobytes(chunk.get("mem", "0"))}


def place(job: Job, free: Free) -> list[str] | None:
    """The host of each chunk, or None where there is no room. Takes it from `free`."""
    arrangement = job["Resource_List"]["place"].split(":")[0]
    candidates = list(free)
    for first in candidates if arrangement == "pack" else [""]:
        left = {name: dict(room) for name, room in free.items() if first in ("", name)}
        hosts: list[str] = []
        for chunk in job["chunks"]:
            wanted = chunk.get("host") or chunk.get("vnode")
            fitting = (
                name
                for name, room in left.items()
                if wanted in (None, name) and all(room[key] >= value for key, value in needs(chunk).items())
            )
            host = next(fitting, None)
            if host is None:
                break
            hosts.append(host)
            for key, value in needs(chunk).items():
                left[host][key] -= value
            if arrangement.endswith("scatter"):
                del left[host]
        else:
            for host, chunk in zip(hosts, job["chunks"], strict=True):
                take(free, host, chunk)
            return hosts
    return None


def take(free: Free, host: str, chunk: dict[str, str], sign: int = -1) -> None:
    for key, value in needs(chunk).items():
        if host in free:
            free[host][key] += sign * value


def room(state: State, jobs: Iterable[Job]) -> Free:
    """What the running among these jobs leave free."""
    free = {name: dict(host) for name, host in state.hosts.items()}
    for job in jobs:
        for host, chunk in zip(job.get("hosts", ()), job["chunks"], strict=False):
            take(free, host, chunk)
    return free


def why_never(state: State, job: Job) -> str:
    """Why it would not run on an empty cluster either; "" if it would."""
    if place(job, room(state, [])):
        return ""
    chunks = job["chunks"]
    if job["Resource_List"]["place"].startswith("pack"):
        total = {key: sum(needs(chunk)[key] for chunk in chunks) for key in ("ncpus", "mem")}
        chunks = [{"ncpus": str(total["ncpus"]), "mem": f"{total['mem']}kb"}]
    for chunk in chunks:
        reason = ""
        for name, host in state.hosts.items():
            wanted = chunk.get("host") or chunk.get("vnode") or name
            if wanted != name:
                reason = f"host ({wanted} != {name})"
            elif needs(chunk)["ncpus"] > host["ncpus"]:
                reason = f"ncpus (R: {chunk['ncpus']} A: {host['ncpus']} T: {host['ncpus']})"
            elif needs(chunk)["mem"] > host["mem"]:
                reason = f"mem (R: {chunk['mem']} A: {state.memory[name]} T: {state.memory[name]})"
            else:
                reason = ""
                break
        if reason:
            return f"Can Never Run: Insufficient amount of resource: {reason}"
    return "Can Never Run: Not enough total nodes available"


def schedule(state: State) -> None:
    """Finds room for whom there is some, and says why for the others. Call it with the lock, after each change."""
    jobs = state.jobs()
    free = room(state, jobs)
    slots = [slot for job in jobs for slot in job.get("slots", ())]
    for job in jobs:
        if job["state"] != "Q" or "indices" in job:
            continue
        array = state.active(job["array_id"]) if "index" in job else None
        running = sum(1 for other in jobs if other["state"] in "RE" and other.get("array_id") == job.get("array_id", 0))
        is_full = bool(array and array.get("max_run_subjobs") and running >= array["max_run_subjobs"])
        is_stopped = not state.queues[job["queue"]].get("started", True)
        hosts = None if is_full or is_stopped else place(job, free)
        if hosts is None:
            why = "Not Running: Queue not started." if is_stopped else why_never(state, job)
            comment = why or "Not Running: Not enough free nodes available"
            if job.get("comment") != comment:
                state.change(job, comment=comment)
            continue
        job["slots"] = []
        for host in hosts:
            job["slots"].append([host, next(n for n in range(len(slots) + 1) if [host, n] not in slots)])
            slots.append(job["slots"][-1])
        now = time.time()
        job |= {"hosts": hosts, "stime": now, "run_count": 1}
        began = time.strftime("%a %b %d at %H:%M", time.localtime(now))
        state.change(job, state="R", substate=41, comment=f"Job run at {began} on {exec_vnode(job, hosts)}")
        if array and array["state"] == "Q":
            state.change(array, state="B", substate=70, stime=now, comment=f"Job Array Began at {began}")
    estimate(state)


def estimate(state: State) -> None:
    """When the waiting will start, should nobody end early; each no sooner than the one before."""
    jobs = [job for job in state.jobs() if "indices" not in job]
    free = room(state, jobs)
    running = [job for job in jobs if job["state"] in "RE"]
    ends = [(job["stime"] + walltime_s(job), job["hosts"], job["chunks"]) for job in running]
    start = time.time()
    for job in (job for job in jobs if job["state"] == "Q" and job["comment"].startswith("Not Running: Not enough")):
        hosts = place(job, free)
        while hosts is None and ends:
            ends.sort(key=lambda end: end[0])
            start, released, chunks = ends.pop(0)
            for host, chunk in zip(released, chunks, strict=True):
                take(free, host, chunk, +1)
            hosts = place(job, free)
        if hosts is None:
            return
        ends.append((start + walltime_s(job), hosts, job["chunks"]))
        if job.get("estimated", {}).get("start_time", 0) != int(start):
            job["estimated"] = {"exec_vnode": exec_vnode(job, hosts), "start_time": int(start)}
            state.save(job)


def walltime_s(job: Job) -> int:
    return seconds(job["Resource_List"]["walltime"])


def exec_vnode(job: Job, hosts: Sequence[str]) -> str:
    parts = []
    for host, chunk in zip(hosts, job["chunks"], strict=True):
        kept = {name: value for name, value in chunk.items() if name not in CHUNK_RESOURCES - {"ncpus", "mem"}}
        if "mem" in kept:
            kept["mem"] = f"{kilobytes(kept['mem'])}kb"
        parts.append("(" + ":".join([host, *(f"{name}={value}" for name, value in kept.items())]) + ")")
    return "+".join(parts)


def exec_host(job: Job) -> str:
    return "+".join(
        f"{host}/{slot}" + (f"*{chunk['ncpus']}" if int(chunk["ncpus"]) > 1 else "")
        for (host, slot), chunk in zip(job["slots"], job["chunks"], strict=True)
    )


# command lines -------------------------------------------------------------------------------------------------------


def getopt(argv: Sequence[str], spec: str, *, permute: bool) -> tuple[list[tuple[str, str]], list[str], list[str]]:
    """Options, operands and complaints, as C's getopt() has them."""
    options: list[tuple[str, str]] = []
    operands: list[str] = []
    complaints: list[str] = []
    words = list(argv)
    while words:
        word = words.pop(0)
        if word == "--":
            return options, [*operands, *words], complaints
        if word == "-" or not word.startswith("-"):
            operands.append(word)
            if permute:
                continue
            return options, [*operands, *words], complaints
        letters = word[1:]
        while letters:
            letter, letters = letters[0], letters[1:]
            at = spec.find(letter)
            if at < 0 or letter == ":":
                complaints.append(f"invalid option -- '{letter}'")
            elif spec[at + 1 : at + 2] != ":":
                options.append((letter, ""))
            elif letters or words:
                options.append((letter, letters or words.pop(0)))
                letters = ""
            else:
                complaints.append(f"option requires an argument -- '{letter}'")
    return options, operands, complaints


def die(command: str, refused: Refused) -> NoReturn:
    sys.stderr.write(f"{command}: {refused.text}\n")
    sys.exit(refused.exit_status)


def usage(command: str, text: str, complaints: Sequence[str] = ()) -> NoReturn:
    sys.stderr.write("".join(f"{command}: {complaint}\n" for complaint in complaints) + text)
    sys.exit(2)


def opened(command: str) -> State:
    """The state; ends the command where the server shall be down."""
    state = State(Path(os.environ.get("FAKE_PBS_DIR") or Path.home() / ".fake_pbs").absolute())
    if (state.folder / "down").exists():
        texts = {"qdel": f"Couldn't connect to cluster: {state.server}"}
        texts["pbsnodes"] = f"pbsnodes: cannot connect to server {state.server}, error=15010"
        text = texts.get(command, f"{command}: cannot connect to server {state.server} (errno=15010)")
        if command == "qstat" and "json" in sys.argv:
            print(as_json(head(state)))
        sys.stderr.write(f"Connection refused\n{text}\n")
        sys.exit({"qstat": 255, "pbsnodes": 1}.get(command, 162))
    return state


def version_only() -> None:
    if sys.argv[1:] == ["--version"]:
        print(f"pbs_version = {VERSION}")
        sys.exit(0)


# qsub ----------------------------------------------------------------------------------------------------------------

QSUB_OPTIONS = "a:A:c:C:e:fGhIj:J:k:l:m:M:N:o:p:P:q:r:R:S:u:v:VW:Xz"
_NAME = re.compile(r"[A-Za-z0-9+_.\-]+")


class Illegal(Exception):
    """An option's value that qsub itself refuses."""


class Request:
    """What the options say. The command line wins, then the first `-l` of a resource, the last of all else."""

    def __init__(self) -> None:
        self.options: dict[str, str] = {}
        self.resources: dict[str, str] = {}
        self.others: dict[str, str] = {}

    def read(self, options: Sequence[tuple[str, str]], *, wins: bool) -> None:
        settled = set() if wins else set(self.options)
        for letter, value in options:
            if letter == "l":
                for item in value.split(","):
                    name, _, amount_ = item.partition("=")
                    if not name:
                        raise Illegal("l")
                    if wins or name not in self.resources:
                        self.resources[name] = amount_
            elif letter == "W":
                for item in re.split(r",(?=[a-z_]+=)", value):
                    name, _, setting = item.partition("=")
                    if name == "depend" and not re.match(r"(after|before|on|runone)", setting):
                        raise Illegal("W")
                    if wins or name not in self.others:
                        self.others[name] = setting
            elif letter not in settled:
                self.options[letter] = checked_option(letter, value)


def checked_option(letter: str, value: str) -> str:
    if letter == "N" and len(value) > 230:
        raise Refused(2, "Job name is too long ")
    rules = {
        "N": _NAME.pattern,
        "j": "oe|eo|n",
        "J": r"\d+-\d+(:\d+)?(%\d+)?",
        "k": "[oed]{1,3}|n",
        "r": "[yn]",
        "p": r"[+-]?\d+",
        "R": "[oe]{1,2}",
        "a": r"((\d\d)?\d\d)?\d{8}(\.\d\d)?|\d{4}(\.\d\d)?",
    }
    if letter in rules and not re.fullmatch(rules[letter], value):
        raise Illegal(letter)
    if letter == "J":
        first, last, *_ = re.split(r"[-:%]", value)
        if int(first) >= int(last):
            raise Illegal(letter)
    return value


def directives(script: str, prefix: str) -> Iterator[str]:
    """Up to the first line that is neither a comment nor empty."""
    for line in script.splitlines():
        text = line.strip()
        if text.startswith(prefix) and prefix:
            yield text.removeprefix(prefix)
        elif text and not text.startswith(("#", ":")):
            return


def words(text: str) -> list[str]:
    """Split at blanks that are not in quotes."""
    return [re.sub(r"""(["'])(.*?)\1""", r"\2", word) for word in re.findall(r"""(?:"[^"]*"|'[^']*'|\S)+""", text)]


def script_of(operands: Sequence[str], is_command: bool) -> tuple[str, str]:
    """Its text, and the name that the job has from it."""
    if is_command:
        return f"#!/bin/sh\nexec {shlex.join(operands)}\n", Path(operands[0]).name
    if not operands or operands[0] == "-":
        return sys.stdin.buffer.read().decode(errors="surrogateescape"), "STDIN"
    path = Path(operands[0])
    if not path.exists():
        raise Refused(1, "script file:: No such file or directory")
    if not path.is_file():
        raise Refused(1, "script not a file")
    try:
        return path.read_bytes().decode(errors="surrogateescape"), path.name
    except PermissionError:
        raise Refused(8, "opening script file:: Permission denied") from None


def variables(text: str) -> dict[str, str]:
    """The values of -v: NAME is taken from the environment, and a comma in a value is quoted or escaped."""
    found = {}
    for item in re.findall(r"""(?:'[^']*'|"[^"]*"|\\.|[^,])+""", text, re.DOTALL):
        name, equals, value = item.partition("=")
        if not name or (not equals and name not in os.environ) or re.search(r"""["'][^"',]*["'][^,]""", value):
            raise Refused(1, "cannot send environment with the job")
        plain = re.sub(r"""'([^']*)'|"([^"]*)"|\\(.)""", lambda m: m[1] or m[2] or m[3] or "", value, flags=re.DOTALL)
        found[name] = plain if equals else os.environ[name]
    return found


def absolute_output(state: State, given: str | None, default: str) -> str:
    """HOST:PATH as qstat shows it; a folder ends with a slash."""
    host, path = socket.gethostname(), given or default
    if given and (match := re.match(r"([\w.\-]+):(.*)", given, re.DOTALL)):
        host, path = match[1], match[2]
    full = str(Path.cwd() / path)
    return f"{host}:{full}/" if given and Path(full).is_dir() else f"{host}:{full}"


def qsub() -> None:
    version_only()
    try:
        _qsub(sys.argv[1:])
    except Refused as refused:
        die("qsub", refused)
    except Illegal as illegal_option:
        usage("qsub", QSUB_USAGE, [f"illegal -{illegal_option} value"])


def _qsub(argv: list[str]) -> None:
    options, operands, complaints = getopt(argv, QSUB_OPTIONS, permute=False)
    is_command = "--" in argv and operands == argv[argv.index("--") + 1 :] and bool(operands)
    if complaints or (len(operands) > 1 and not is_command):
        usage("qsub", QSUB_USAGE, complaints)
    request = Request()
    request.read(options, wins=True)
    if "I" in request.options:
        sys.stderr.write("qsub:\tstandard input and output must be a terminal for\n\tinteractive job submission\n")
        sys.exit(1)
    script, name = script_of(operands, is_command)
    if "\r\n" in script:
        raise Refused(1, "script contains cr, lf")
    for text in directives(script, request.options.get("C", "#PBS")):
        options, rest, complaints = getopt(words(text), QSUB_OPTIONS, permute=True)
        if complaints or rest:
            said = " ".join([*(w for w in words(text) if w not in rest), *rest]) if rest else " ".join(words(text))
            sys.stderr.write("".join(f"qsub: {complaint}\n" for complaint in complaints))
            raise Refused(1, f"directive error: {said} ")
        request.read(options, wins=False)
    checked_option("N", request.options.setdefault("N", name))
    state = opened("qsub")
    job_id = submit(state, request, script, argv)
    if "z" not in request.options:
        print(job_id, flush=True)
    if request.others.get("block") == "true":
        while state.path(job_id).exists():
            time.sleep(POLL_S)
        sys.exit((state.finished(job_id) or {}).get("Exit_status", 0) & 0xFF)


def submit(state: State, request: Request, script: str, argv: Sequence[str]) -> str:
    options = request.options
    queue_name, _, server = options.get("q", "").partition("@")
    if server not in ("", state.server):
        sys.stderr.write("Unknown Host.\n")
        raise Refused(160, f"cannot connect to server {state.server} (errno=15008)")
    queue_name = queue_name or next(iter(state.queues))
    if queue_name not in state.queues:
        raise Refused(170, "Unknown queue")
    if re.search(r"""[/\[\]";:|<>+,?*]""", options.get("P", "")):
        raise illegal("project")
    queue = state.queues[queue_name]
    resources, chunks = resource_list(state, request.resources, queue)
    if not queue.get("enabled", True):
        raise Refused(173, "Queue is not enabled")
    if pwd.getpwuid(os.getuid()).pw_name not in queue.get("users", [pwd.getpwuid(os.getuid()).pw_name]):
        raise Refused(159, "Unauthorized Request ")
    indices, most = array_indices(options.get("J", ""))
    if len(indices) > MAX_ARRAY_SIZE:
        raise Refused(3, "Array job exceeds server or queue size limit")
    user, now = pwd.getpwuid(os.getuid()), time.time()
    host = socket.gethostname()
    origin = {
        "PBS_O_HOME": os.environ.get("HOME", user.pw_dir),
        "PBS_O_LOGNAME": user.pw_name,
        "PBS_O_PATH": os.environ.get("PATH", ""),
        "PBS_O_MAIL": os.environ.get("MAIL", f"/var/mail/{user.pw_name}"),
        "PBS_O_SHELL": os.environ.get("SHELL", user.pw_shell),
        "PBS_O_INTERACTIVE_AUTH_METHOD": "resvport",
        "PBS_O_INTERACTIVE_ENCRYPT_METHOD": "",
        "PBS_O_WORKDIR": os.environ.get("PWD") if same_folder(os.environ.get("PWD")) else str(Path.cwd()),
        "PBS_O_SYSTEM": "Linux",
    }
    own = variables(options.get("v", "")) | (dict(os.environ) if "V" in options else {})
    start = start_time(options["a"]) if "a" in options else 0.0
    job: Job = {
        "Job_Name": options["N"],
        "Job_Owner": f"{user.pw_name}@{host}",
        "state": "Q",
        "substate": 10,
        "queue": queue_name,
        "Account_Name": options.get("A", ""),
        "ctime": now,
        "mtime": now,
        "etime": now,
        "Hold_Types": "n",
        "Join_Path": options.get("j", "n"),
        "Keep_Files": options.get("k", "n"),
        "remove_files": options.get("R", ""),
        "Priority": int(options.get("p", "0")),
        "Rerunable": str(options.get("r", "y") == "y"),
        "Resource_List": resources,
        "chunks": chunks,
        "Variable_List": origin | own | {"PBS_O_QUEUE": queue_name, "PBS_O_HOST": host},
        "shell": options.get("S", "").split("@")[0].split(",")[0],
        "umask": request.others.get("umask", "077"),
        "Submit_arguments": " ".join(argv),
        "project": options.get("P", "_pbs_project_default"),
        "Submit_Host": host,
        "knobs": {name: value for name, value in os.environ.items() if name.startswith("FAKE_PBS_")}
        | {"FAKE_PBS_DIR": str(state.folder)},
    }
    if "h" in options:
        job |= {"state": "H", "substate": 20, "Hold_Types": "u"}
    elif start > now:
        job |= {"state": "W", "substate": 30, "Execution_Time": start}
    with state.locked():
        job["number"] = number = state.next_number()
        suffix = ".^array_index^" if indices else ""
        for letter, attribute in (("o", "Output_Path"), ("e", "Error_Path")):
            default = f"{job['Job_Name']}.{letter}{number}{suffix}"
            job[attribute] = absolute_output(state, options.get(letter), default)
        job["id"] = f"{number}{'[]' if indices else ''}.{state.server}"
        jobs = [job]
        if indices:
            job |= {"indices": indices, "submitted": options["J"].split("%")[0], "max_run_subjobs": most}
            jobs += [subjob(job, index) for index in indices]
        for each in jobs:
            if script and "indices" not in each:
                path = state.folder / "mom_priv/jobs" / f"{each['id']}.SC"
                path.write_bytes(script.encode(errors="surrogateescape"))
                path.chmod(0o700)
            state.save(each)
        schedule(state)
    for each in jobs[1:] or jobs:
        start_mom(state, each)
    return str(job["id"])


def same_folder(path: str | None) -> bool:
    return bool(path) and Path(str(path)).exists() and Path(str(path)).samefile(".")


def array_indices(text: str) -> tuple[list[int], int]:
    if not text:
        return [], 0
    span, _, most = text.partition("%")
    span, _, step = span.partition(":")
    first, last = span.split("-")
    return list(range(int(first), int(last) + 1, int(step or "1"))), int(most or "0")


def subjob(array: Job, index: int) -> Job:
    copied = {key: value for key, value in array.items() if key not in ("indices", "submitted", "max_run_subjobs")}
    paths = {key: array[key].replace("^array_index^", str(index)) for key in ("Output_Path", "Error_Path")}
    return copied | paths | {"id": array["id"].replace("[]", f"[{index}]"), "index": index, "array_id": array["id"]}


def start_time(text: str) -> float:
    digits, _, second = text.partition(".")
    now = time.strftime("%Y%m%d")
    full = {4: now + digits, 8: now[:4] + digits, 10: now[:2] + digits}.get(len(digits), digits)
    try:
        return time.mktime(time.strptime(full + (second or "00"), "%Y%m%d%H%M%S"))
    except ValueError:
        raise Illegal("a") from None


def start_mom(state: State, job: Job) -> None:
    """A process of its own, which holds nothing of the qsub's that would keep its caller waiting."""
    with (state.folder / "mom_logs" / job["id"]).open("ab") as log:
        subprocess.Popen(
            [sys.executable, str(HERE), str(state.folder), job["id"]],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=log,
            cwd="/",
            env=mom_environment(job),
            start_new_session=True,
        )


def mom_environment(job: Job) -> dict[str, str]:
    kept = ("HOME", "PATH", "USER", "LOGNAME", "SSH_AUTH_SOCK")
    own: dict[str, str] = job["knobs"]
    return {name: os.environ[name] for name in kept if name in os.environ} | own


# mom: what runs a job ------------------------------------------------------------------------------------------------


def mom(folder: str, job_id: str, place_: str = "") -> None:
    """Waits for room, runs the job and records its end; `here`: there is room, and it is on this host."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    for name, value in (read(Path(folder) / "jobs" / f"{job_id}.json") or {}).get("knobs", {}).items():
        os.environ[name] = value
    state = State(Path(folder))
    job = state.active(job_id) if place_ == "here" else wait_for_room(state, job_id)
    if job is None:
        return
    if place_ == "here" or job["hosts"][0] in own_names():
        Execution(state, job).run()
        return
    there = shlex.join(["env", f"FAKE_PBS_DIR={folder}", "/usr/bin/python3", str(HERE), folder, job_id, "here"])
    for _ in range(STARTS):
        subprocess.run(["ssh", "-o", "BatchMode=yes", job["hosts"][0], there], stdin=subprocess.DEVNULL, check=False)
        now = state.active(job_id)
        if now is None or now["substate"] != 41:
            return  # it has run, or runs without the connection
        if now.get("delete"):
            break
        time.sleep(START_RETRY_S * state.scale)
    hold(state, job_id)


def home(state: State) -> str:
    return state.knob("HOME", pwd.getpwuid(os.getuid()).pw_dir)


def own_names() -> set[str]:
    name = socket.gethostname()
    return {"localhost", name, name.split(".")[0], socket.getfqdn()}


def signature(path: Path) -> tuple[int, int]:
    try:
        found = path.stat()
        return found.st_ino, found.st_mtime_ns
    except FileNotFoundError:
        return 0, 0


def wait_for_room(state: State, job_id: str) -> Job | None:
    """The job once it may run; None if it never will."""
    seen = None
    job = state.active(job_id)
    while job and job["state"] != "R":
        if job["state"] == "W" and time.time() >= job["Execution_Time"]:
            with state.locked():
                if now := state.active(job_id):
                    state.change(now, state="Q", substate=10)
                    schedule(state)
        time.sleep(POLL_S)
        # a look at the file's date is cheap, even for hundreds of waiting moms
        if (now_seen := signature(state.path(job_id))) != seen:
            seen = now_seen
            job = state.active(job_id)
    return job


def hold(state: State, job_id: str) -> None:
    """What PBS does with a job that could not be started twenty times, unless it has been deleted meanwhile."""
    with state.locked():
        job = state.active(job_id)
        if job and job.get("delete"):
            state.bury(job, 91)
            job = None
        elif job:
            for key in ("hosts", "slots", "stime"):
                job.pop(key, None)
            comment = "job held, too many failed attempts to run"
            state.change(job, state="H", substate=20, Hold_Types="s", comment=comment, Exit_status=-3, run_count=STARTS)
        schedule(state)
    if job and wait_for_room(state, job_id):  # nobody releases it, but qdel ends it
        mom(str(state.folder), job_id)


def session_members(session_id: int) -> list[int]:
    members = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue  # it has just ended
        if int(fields[3]) == session_id and fields[0] != "Z":
            members.append(int(path.parent.name))
    return members


class Execution:
    """A job on its first host."""

    def __init__(self, state: State, job: Job) -> None:
        self.state = state
        self.job = job
        self.id: str = job["id"]
        self.user = pwd.getpwuid(os.getuid())
        self.home = home(state)
        self.umask = int(job["umask"], 8)
        joined = job["Join_Path"]
        self.outputs = {"OU": "Output_Path", "ER": "Error_Path"}
        if joined != "n":
            del self.outputs["ER" if joined == "oe" else "OU"]

    def run(self) -> None:
        os.umask(self.umask)
        files = self.open_outputs()
        if files is None:
            hold(self.state, self.id)
            return
        temporary = tempfile.mkdtemp(prefix=f"pbs.{self.id}.", dir="/var/tmp")
        out, err = files.get("OU", files.get("ER", -1)), files.get("ER", files.get("OU", -1))
        exit_status, ending = self.execute(out, err, temporary)
        for file in files.values():
            os.close(file)
        shutil.rmtree(temporary, ignore_errors=True)
        with self.state.locked():
            self.job = self.state.active(self.id) or self.job
            used = int(time.time() - self.job["stime"])
            self.state.change(self.job, state="E", substate=50, used_s=used, obittime=time.time())
        changes: dict[str, Any] = {"Exit_status": exit_status}
        if self.spooled():
            delivered = [self.deliver(kind) for kind in self.spooled()]
            changes["Stageout_status"] = int(all(delivered))
        for folder in ("aux", "mom_priv/jobs"):
            for path in (self.state.folder / folder).glob(f"{self.id.replace('[', '[[]')}*"):
                path.unlink(missing_ok=True)
        with self.state.locked():
            self.job = self.state.active(self.id) or self.job
            if self.job.get("delete"):
                substate, comment = 91, self.job["comment"]
            else:
                substate, comment = (93 if exit_status else 92), f"{self.job['comment']} and {ending}"
            self.state.bury(self.job, substate, comment=comment, **changes)
            schedule(self.state)

    def spooled(self) -> list[str]:
        """Those outputs that are copied at the end."""
        kept, removed = self.job["Keep_Files"], self.job["remove_files"]
        letters = {"OU": "o", "ER": "e"}
        return [kind for kind in self.outputs if letters[kind] not in kept and letters[kind] not in removed]

    def final(self, kind: str) -> Path:
        path = self.job[self.outputs[kind]].partition(":")[2]
        return Path(path) / f"{self.id}.{kind}" if path.endswith("/") else Path(path)

    def open_outputs(self) -> dict[str, int] | None:
        """In the spool, in place (-k d) or at home (-k); None: not there, in twenty attempts."""
        kept = self.job["Keep_Files"]
        for _ in range(STARTS):
            files = {}
            try:
                for kind, letter in (("OU", "o"), ("ER", "e")):
                    if kind not in self.outputs:
                        continue
                    path = self.state.folder / "spool" / f"{self.id}.{kind}"
                    if letter in kept:
                        path = self.final(kind) if "d" in kept else Path(self.home) / self.final(kind).name
                    files[kind] = os.open(path, os.O_CREAT | os.O_RDWR | os.O_APPEND, 0o666)
                return files
            except OSError:
                for file in files.values():
                    os.close(file)
                if (self.state.active(self.id) or {}).get("delete"):
                    return None
                time.sleep(START_RETRY_S * self.state.scale)
        return None

    def environment(self, temporary: str) -> dict[str, str]:
        job, first = self.job, self.job["chunks"][0]
        nodefile = self.state.folder / "aux" / self.id
        lines = [
            f"{host}\n" * int(chunk.get("mpiprocs", min(1, int(chunk["ncpus"]))))
            for host, chunk in zip(job["hosts"], job["chunks"], strict=True)
        ]
        nodefile.write_text("".join(lines))
        nodefile.chmod(0o644)
        found = {
            "ENVIRONMENT": "BATCH",
            "HOME": self.home,
            "LOGNAME": self.user.pw_name,
            "USER": self.user.pw_name,
            "SHELL": self.user.pw_shell,
            "PATH": f"/usr/local/bin:/usr/bin:/bin:/usr/local/games:/usr/games:{HERE.parent}",
            **job["Variable_List"],
            **job["knobs"],
            "NCPUS": first["ncpus"],
            "OMP_NUM_THREADS": first.get("ompthreads", first["ncpus"]),
            "PBS_ENVIRONMENT": "PBS_BATCH",
            "PBS_JOBCOOKIE": "0" * 32,
            "PBS_JOBDIR": self.home,
            "PBS_JOBID": self.id,
            "PBS_JOBNAME": job["Job_Name"],
            "PBS_MOMPORT": "15003",
            "PBS_NODEFILE": str(nodefile),
            "PBS_NODENUM": "0",
            "PBS_QUEUE": job["queue"],
            "PBS_TASKNUM": "1",
            "TMPDIR": temporary,
        }
        if "index" in job:
            found |= {"PBS_ARRAY_INDEX": str(job["index"]), "PBS_ARRAY_ID": job["array_id"]}
        return found

    def execute(self, out: int, err: int, temporary: str) -> tuple[int, str]:
        """The exit status, and how the comment goes on."""
        shell = self.job["shell"] or self.user.pw_shell or "/bin/sh"
        script = shlex.quote(str(self.state.folder / "mom_priv/jobs" / f"{self.id}.SC"))
        # /etc/profile forgets the PATH that it was given; a real PBS puts itself back in /etc/profile.d
        here = shlex.quote(str(HERE.parent))
        path = f'case ":$PATH:" in *:{here}:*);; *) PATH="$PATH":{here};; esac'
        is_plain = Path(shell).name in ("sh", "bash", "dash", "ksh", "zsh")
        if (self.state.active(self.id) or {}).get("delete"):
            return 256 + signal.SIGTERM, "terminated"
        try:
            process = subprocess.Popen(
                [f"-{Path(shell).name}"],
                executable=shell,
                stdin=subprocess.PIPE,
                stdout=out,
                stderr=err,
                cwd=self.home,
                env=self.environment(temporary),
                start_new_session=True,
                umask=self.umask,
            )
        except OSError as error:
            os.write(err, f"pbs_mom, exec of {shell} failed with error: {error.strerror}\n".encode())
            return 254, "failed"
        with self.state.locked():
            if job := self.state.active(self.id):
                self.state.change(job, substate=42, session_id=process.pid)
        assert process.stdin is not None
        with contextlib.suppress(BrokenPipeError), process.stdin as stdin:
            stdin.write(f"{path}; {script}\n".encode() if is_plain else f"{script}\n".encode())
        return self.watch(process, err)

    def watch(self, process: subprocess.Popen[bytes], err: int) -> tuple[int, str]:
        limit = walltime_s(self.job)
        started = self.job["stime"]
        late = WALLTIME_LATE_S * self.state.scale
        seen = None
        while process.poll() is None:
            if (now_seen := signature(self.state.path(self.id))) != seen:
                seen = now_seen
                job = self.state.active(self.id)
                if job is None or job.get("delete"):
                    # a real mom lets the job be for the whole grace, also one that has gone at once
                    self.end(process, 0.0 if job and job["delete"]["force"] else KILL_DELAY_S, is_patient=True)
                    break
            if time.time() > started + limit + late:
                used = int(time.time() - started)
                os.write(err, f"=>> PBS: job killed: walltime {used} exceeded limit {limit}\n".encode())
                self.end(process, KILL_DELAY_S)
                return -29, "exceeded resource walltime"
            time.sleep(POLL_S)
        self.signal(process, signal.SIGKILL)
        status = process.wait()
        exit_status = 256 - status if status < 0 else status
        return exit_status, "failed" if exit_status else "finished"

    def end(self, process: subprocess.Popen[bytes], grace_s: float, *, is_patient: bool = False) -> None:
        """SIGTERM to the whole session, and SIGKILL after the grace."""
        self.signal(process, signal.SIGTERM)
        over = time.time() + grace_s * self.state.scale
        while time.time() < over and (is_patient or process.poll() is None or session_members(process.pid)):
            time.sleep(POLL_S)
            process.poll()
        self.signal(process, signal.SIGKILL)
        process.wait()

    def signal(self, process: subprocess.Popen[bytes], number: signal.Signals) -> None:
        while members := session_members(process.pid):
            for pid in members:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, number)
            if number != signal.SIGKILL:
                return
            process.poll()
            time.sleep(0.002)

    def deliver(self, kind: str) -> bool:
        source = self.state.folder / "spool" / f"{self.id}.{kind}"
        over = time.time() + DELIVERY_RETRY_S * self.state.scale
        while True:
            try:
                with source.open("rb") as read_from, self.final(kind).open("wb") as write_to:
                    shutil.copyfileobj(read_from, write_to)
                source.unlink()
                return True
            except OSError:
                if time.time() >= over:
                    source.rename(self.state.folder / "undelivered" / source.name)
                    return False
                time.sleep(POLL_S)


# qdel ----------------------------------------------------------------------------------------------------------------

_JOB_ID = re.compile(r"(\d+(?:\[\d*\])?)(?:\.([\w\-.]+))?")


def full_id(state: State, text: str) -> str | None:
    """None: not an id."""
    match = _JOB_ID.fullmatch(text)
    if not match or match[2] not in (None, state.server):
        return None
    return f"{match[1]}.{state.server}"


def qdel() -> None:
    version_only()
    options, operands, complaints = getopt(sys.argv[1:], "W:x", permute=True)
    if complaints or not operands:
        usage("qdel", QDEL_USAGE, complaints)
    state = opened("qdel")
    exit_status = 0
    force = ("W", "force") in options
    for text in operands:
        job_id = full_id(state, text)
        refused = Refused(1, f"illegally formed job identifier: {text}")
        if job_id:
            with state.locked():
                refused_ = delete(state, job_id, force=force, purge=("x", "") in options)
                schedule(state)
            if refused_ is None:
                continue
            refused = refused_
        sys.stderr.write(f"qdel: {refused.text}\n")
        exit_status = refused.exit_status
    sys.exit(exit_status)


def delete(state: State, job_id: str, *, force: bool = False, purge: bool = False) -> Refused | None:
    job = state.active(job_id)
    if job is None:
        past = state.finished(job_id) if state.has_history else None
        if past is None:
            return Refused(153, f"Unknown Job Id {job_id}")
        if purge:
            state.path(job_id, "history").unlink()
            return None
        return Refused(35, f"Job has finished {job_id}")
    job["purge"] = purge
    if "indices" in job:
        for each in subjob_ids(job):
            if state.path(each).exists():
                delete(state, each, force=force, purge=purge)
        return None
    if job.get("delete"):
        return None
    by = f"{pwd.getpwuid(os.getuid()).pw_name}@{socket.gethostname()}"
    if job["state"] in "RE":
        comment = f"{job['comment']} and terminated by {by}"
        state.change(job, delete={"by": by, "force": force}, comment=comment)
        return None
    if "comment" in job:
        job["comment"] += " and terminated"
    state.bury(job, 91)
    (state.folder / "mom_priv/jobs" / f"{job_id}.SC").unlink(missing_ok=True)
    return None


# qstat ---------------------------------------------------------------------------------------------------------------


def head(state: State) -> dict[str, Any]:
    return {"timestamp": int(time.time()), "pbs_version": VERSION, "pbs_server": state.server}


def as_json(value: object) -> str:
    text = json.dumps(value, indent="\t", separators=(",", ":\t"), ensure_ascii=False)
    # lists are on one line
    return (
        re.sub(r"\[\s*([^\[\]{}]*?)\s*\]", lambda m: "[" + re.sub(r",\s+", ", ", m[1]) + "]", text)
        if "jobs" in text
        else text
    )


def used(job: Job) -> dict[str, Any]:
    elapsed = job.get("used_s", max(0, time.time() - job["stime"]))
    rest = {"mem": "0kb", "ncpus": job["Resource_List"]["ncpus"], "vmem": "0kb", "walltime": clock(elapsed)}
    return {"cpupercent": 0, "cput": "00:00:00"} | rest


def attributes(state: State, job: Job) -> dict[str, Any]:
    """In the order of PBS; times and sizes as texts."""
    is_subjob, is_array = "index" in job, "indices" in job
    shown: dict[str, Any] = {"Job_Name": job["Job_Name"], "Job_Owner": job["Job_Owner"]}
    if "session_id" in job:
        shown["resources_used"] = used(job)
    shown |= {"job_state": letter(state, job), "queue": job["queue"], "server": state.server}
    if job["Account_Name"]:
        shown["Account_Name"] = job["Account_Name"]
    if not is_subjob:
        shown["Checkpoint"] = "u"
    shown |= {"ctime": date(job["ctime"]), "Error_Path": job["Error_Path"]}
    if "slots" in job:
        shown |= {"exec_host": exec_host(job), "exec_vnode": exec_vnode(job, job["hosts"])}
    if "Execution_Time" in job and job["state"] == "W":
        shown["Execution_Time"] = date(job["Execution_Time"])
    if not is_subjob or job["Hold_Types"] != "n":
        shown["Hold_Types"] = job["Hold_Types"]
    shown |= {"Join_Path": job["Join_Path"], "Keep_Files": job["Keep_Files"], "Mail_Points": "a"}
    shown |= {"mtime": date(job["mtime"]), "Output_Path": job["Output_Path"], "Priority": job["Priority"]}
    shown |= {"qtime": date(job["ctime"]), "Rerunable": job["Rerunable"], "Resource_List": job["Resource_List"]}
    shown |= {name: date(job[name]) for name in ("stime", "obittime") if name in job}
    if "session_id" in job:
        shown |= {"session_id": job["session_id"], "jobdir": home(state)}
    shown |= {"substate": job["substate"], "Variable_List": job["Variable_List"]}
    if job["shell"]:
        shown["Shell_Path_List"] = job["shell"]
    if "comment" in job:
        shown["comment"] = job["comment"]
    if job["state"] not in "HW" and job["Hold_Types"] == "n":
        shown["etime"] = date(job["etime"])
    if "run_count" in job:
        shown["run_count"] = job["run_count"]
    shown["eligible_time"] = clock(job.get("stime", time.time()) - job["ctime"])
    shown |= {name: job[name] for name in ("Stageout_status", "Exit_status") if name in job}
    if not is_subjob:
        shown["Submit_arguments"] = job["Submit_arguments"]
    if is_array:
        shown |= {
            "array": "True",
            "array_state_count": counted(state, job),
            "array_indices_submitted": job["submitted"],
        }
        queued = [i for i, each in zip(job["indices"], subjob_ids(job), strict=True) if waits(state.active(each))]
        shown["array_indices_remaining"] = ",".join(map(str, queued)) or "-"
    if is_subjob:
        shown |= {"array_id": job["array_id"], "array_index": job["index"]}
    if "estimated" in job:
        start = date(job["estimated"]["start_time"])
        shown["estimated"] = {"exec_vnode": job["estimated"]["exec_vnode"], "start_time": start}
    if "history_timestamp" in job:
        shown["history_timestamp"] = job["history_timestamp"]
    shown |= {"project": job["project"], "Submit_Host": job["Submit_Host"]}
    if job.get("max_run_subjobs"):
        shown["max_run_subjobs"] = job["max_run_subjobs"]
    return shown


def waits(job: Job | None) -> bool:
    return job is not None and job["state"] in "QHW"


def counted(state: State, array: Job) -> str:
    states = [(state.active(each) or {"state": "X"})["state"] for each in subjob_ids(array)]
    gone = states.count("X") if array["state"] != "F" else 0
    queued = sum(states.count(each) for each in "QHW")
    return f"Queued:{queued} Running:{states.count('R')} Exiting:{states.count('E')} Expired:{gone}"


def letter(state: State, job: Job) -> str:
    """A subjob that has ended is X until its array has."""
    is_expired = job["state"] == "F" and "index" in job and state.active(job["array_id"]) is not None
    return "X" if is_expired else str(job["state"])


def date(when: float) -> str:
    return time.ctime(when)


def escaped(value: str) -> str:
    return re.sub(r"""([\\,"'])""", r"\\\1", value)


def as_text(value: object) -> str:
    if isinstance(value, dict):
        return ",".join(f"{name}={escaped(each)}" for name, each in value.items())
    return str(value)


def flat(shown: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """`Resource_List.ncpus`, but `Variable_List` as one."""
    for name, value in shown.items():
        if isinstance(value, dict) and name != "Variable_List":
            yield from ((f"{name}.{key}", str(each)) for key, each in value.items())
        else:
            yield name, as_text(value)


def wrapped(name: str, value: str, width: int = 79) -> str:
    """As qstat -f breaks lines: before an item of a list that does not fit, else anywhere."""
    line = f"    {name} = "
    column = len(line)
    items = re.findall(r"(?:\\.|[^,\\])+,?|,", value, re.DOTALL) or [""]
    text = line
    for number, item in enumerate(items):
        if column + len(item) < width:
            text += item
            column += len(item)
            continue
        if number:
            text += "\n\t"
            column = 9
        for character in item:
            text += character
            column += 1
            if column >= width:
                text += "\n\t"
                column = 8
    return text + "\n"


def json_value(value: object) -> object:
    """A variable that looks like a number or a boolean becomes one, "007" too: so do it the clients of PBS."""
    if isinstance(value, dict):
        return {name: json_value(each) for name, each in value.items()}
    if isinstance(value, str):
        if value in ("true", "false", "null"):
            return {"true": True, "false": False, "null": None}[value]
        if re.fullmatch(r"-?\d+(\.\d+)?([eE][+-]?\d+)?", value):
            number = float(value)
            return int(number) if number.is_integer() and abs(number) < 1e15 else number
        return escaped(value).replace("\\,", ",")
    return value


class Answer:
    """What qstat prints, in the end, and with which exit status."""

    def __init__(self) -> None:
        self.complaints: list[str] = []
        self.exit_status = 0

    def complain(self, exit_status: int, text: str) -> None:
        self.complaints.append(f"qstat: {text}\n")
        self.exit_status = exit_status


def qstat() -> None:
    version_only()
    options, operands, complaints = getopt(sys.argv[1:], "fJptxEF:wD:airHTu:nsGM1QqB", permute=True)
    if complaints:
        usage("qstat", QSTAT_USAGE, complaints)
    given = dict(options)
    is_alt = bool(set("aiHTrunsq") & given.keys())
    conflicts = [("F" in given and "f" not in given), ("1" in given and not is_alt)]
    if any(conflicts):
        twice = "f" in given and "1" in given
        usage("qstat", QSTAT_USAGE, ["conflicting options."] * (2 if twice else 1))
    if given.get("F", "json").lower() not in ("json", "dsv"):
        usage("qstat", QSTAT_USAGE)
    state = opened("qstat")
    answer = Answer()
    with state.locked():
        if "Q" in given:
            text = about_queues(state, given, operands, answer)
        elif "B" in given:
            text = about_server(state, given)
        else:
            text = about_jobs(state, given, operands, answer)
    sys.stdout.write(text)
    sys.stdout.flush()
    sys.stderr.write("".join(answer.complaints))
    sys.exit(answer.exit_status)


def about_jobs(state: State, given: dict[str, str], operands: Sequence[str], answer: Answer) -> str:
    groups = [found(state, given, text, answer) for text in operands or [""]]
    jobs = [job for group in groups for job in group]
    if "u" in given:
        jobs = [job for job in jobs if job["Job_Owner"].split("@")[0] in given["u"].split(",")]
    if "f" in given:
        if given.get("F", "").lower() == "json":
            jobs = next((group for group in groups if group), [])  # so it is recorded: of several ids the first known
        return full(state, jobs, given)
    if set("aiHTruns") & given.keys():
        return alternative(state, jobs, given)
    if not jobs:
        return ""
    # the table's head is that of the first operand, gone with it
    return table(state, jobs, is_wide="w" in given, has_head=bool(groups[0]))


def found(state: State, given: dict[str, str], text: str, answer: Answer) -> list[Job]:
    """The jobs of one operand: a job, a queue or, where empty, all."""
    with_history = "x" in given or "H" in given
    if with_history and not state.has_history:
        answer.complaints.append(f"qstat: PBS is not configured to maintain job history {text}\n")
        return []
    has_subjobs = "t" in given
    if not text or not text[0].isdigit():
        queue = text.partition("@")[0]
        if queue and queue not in state.queues:
            answer.complain(170, f"Unknown queue destination {text}")
            return []
        jobs = state.jobs() + (state.jobs("history") if with_history else [])
        jobs = [job for job in jobs if queue in ("", job["queue"]) and (has_subjobs or "index" not in job)]
        return sorted(jobs, key=lambda job: (job["number"], job.get("index", -1)))
    text, _, server = text.partition("@")
    if server not in ("", state.server):
        answer.complaints.append(f"Unknown Host.\nqstat: cannot connect to server {state.server} (errno=15008)\n")
        answer.exit_status = 255
        return []
    job_id = full_id(state, text)
    if job_id is None:
        answer.complain(1, f"illegally formed job identifier: {text}")
        return []
    past = state.finished(job_id) if state.has_history else None
    is_expired = past is not None and letter(state, past) == "X"
    job = state.active(job_id) or (past if with_history or is_expired else None)
    if job is None and past is not None:
        answer.complain(35, f"{job_id} Job has finished, use -x or -H to obtain historical job information")
        return []
    if job is None:
        answer.complain(153, f"Unknown Job Id {job_id}")
        return []
    if not has_subjobs or "indices" not in job:
        return [job]
    subjobs = (state.active(each) or state.finished(each) for each in subjob_ids(job))
    return [job, *(each for each in subjobs if each)]


def full(state: State, jobs: Sequence[Job], given: dict[str, str]) -> str:
    style = given.get("F", "").lower()
    if style == "json":
        answer = head(state)
        if jobs:
            answer["Jobs"] = {}
        for job in jobs:
            shown = attributes(state, job)
            shown["Variable_List"] = json_value(shown["Variable_List"])
            answer["Jobs"][job["id"]] = shown
        return as_json(answer) + "\n"
    text = ""
    for job in jobs:
        lines = list(flat(attributes(state, job)))
        if style == "dsv":
            delimiter = given.get("D", "|")
            text += delimiter.join([f"Job Id: {job['id']}", *(f"{name}={value}" for name, value in lines)]) + "\n"
        elif "w" in given:
            text += f"Job Id: {job['id']}\n" + "".join(f"    {name} = {value}\n" for name, value in lines) + "\n"
        else:
            text += f"Job Id: {job['id']}\n" + "".join(wrapped(name, value) for name, value in lines) + "\n"
    return text


def cut(text: str, width: int) -> str:
    return text if len(text) < width else text[: width - 1] + "*"


def table(state: State, jobs: Sequence[Job], *, is_wide: bool, has_head: bool) -> str:
    if is_wide:
        head_ = (
            "Job id                         Name            User             Time Use S Queue\n"
            "-----------------------------  --------------- ---------------  -------- - ---------------\n"
        )
    else:
        head_ = (
            "Job id            Name             User              Time Use S Queue\n"
            "----------------  ---------------- ----------------  -------- - -----\n"
        )
    text = head_ if has_head else ""
    for job in jobs:
        cput = "00:00:00" if "session_id" in job else "0"
        user, name = job["Job_Owner"].split("@")[0], job["Job_Name"]
        state_, queue = letter(state, job), job["queue"]
        if is_wide:
            text += f"{job['id']:<30} {cut(name, 15):<15} {user:<15}  {cput:>8} {state_} {queue:<15}\n"
        else:
            text += f"{job['id']:<16}  {cut(name, 16):<16} {user:<16}  {cput:>8} {state_} {queue:<16}\n"
    return text


def alternative(state: State, jobs: Sequence[Job], given: dict[str, str]) -> str:
    """qstat -a and its kin."""
    if "i" in given:
        jobs = [job for job in jobs if waits(job)]
    if "r" in given:
        jobs = [job for job in jobs if job["state"] in "RE"]
    if not jobs:
        return ""
    last = "Start" if "T" in given else "Elap"
    text = f"\n{state.server}: \n"
    if "T" in given:
        text += f"{'Est':>78}\n"
    text += f"{'Req' + chr(39) + 'd':>65}  Req'd   {last}\n"
    text += "Job ID          Username Queue    Jobname    SessID NDS TSK Memory Time  S Time\n"
    text += "--------------- -------- -------- ---------- ------ --- --- ------ ----- - -----\n"
    for job in jobs:
        resources = job["Resource_List"]
        session = f"{job['session_id']:>6}" if "session_id" in job else "   -- "
        memory = f"{resources['mem']:>6}" if "mem" in resources else "   -- "
        elapsed = used(job)["walltime"][:5] if "session_id" in job else "  -- "
        if "T" in given:
            start = job.get("estimated", {}).get("start_time") if job["state"] == "Q" else None
            elapsed = time.strftime("%H:%M", time.localtime(start)) if start else "   --"
        text += (
            f"{job['id']:<15} {job['Job_Owner'].split('@')[0][:8]:<8} {job['queue'][:8]:<8} "
            f"{cut(job['Job_Name'], 10):<10} {session} {resources['nodect']:>3} {resources['ncpus']:>3} "
            f"{memory} {resources['walltime'][:-3]:>5} {letter(state, job)} {elapsed}"
        )
        where = exec_host(job) if "slots" in job else " -- "
        if "n" in given:
            text += f" {where}" if "1" in given else f"\n   {where}"
        if "s" in given and job.get("comment"):
            text += f" {job['comment']}" if "1" in given else f"\n   {job['comment']}"
        text += "\n"
    return text


def state_count(jobs: Sequence[Job]) -> str:
    names = {"Transit": "T", "Queued": "Q", "Held": "H", "Waiting": "W", "Running": "R", "Exiting": "E", "Begun": "B"}
    return "".join(f"{name}:{sum(job['state'] == each for job in jobs)} " for name, each in names.items())


def assigned(jobs: Sequence[Job]) -> dict[str, int]:
    running = [job for job in jobs if job["state"] in "RE" and "hosts" in job]
    return {name: sum(int(job["Resource_List"][name]) for job in running) for name in ("ncpus", "nodect")}


def about_queues(state: State, given: dict[str, str], operands: Sequence[str], answer: Answer) -> str:
    names = []
    for name in operands or state.queues:
        if name in state.queues:
            names.append(name)
        else:
            answer.complain(170, f"Unknown queue {name}")
    everything = [job for job in state.jobs() if "indices" not in job]
    queues: dict[str, dict[str, Any]] = {}
    for name in names:
        queue, jobs = state.queues[name], [job for job in everything if job["queue"] == name]
        shown = {"queue_type": "Execution", "total_jobs": len(jobs), "state_count": state_count(jobs)}
        shown |= {key: queue[key] for key in ("resources_max", "resources_default") if key in queue}
        shown |= {"resources_assigned": assigned(jobs)} if jobs else {}
        if "users" in queue:
            shown |= {"acl_user_enable": "True", "acl_users": ",".join(f"{user}@*" for user in queue["users"])}
        shown |= {key: str(queue.get(key, True)) for key in ("enabled", "started")}
        queues[name] = shown
    if "f" in given and given.get("F", "").lower() == "json":
        return as_json(head(state) | ({"Queue": queues} if queues else {})) + "\n"
    if "f" in given:
        blocks = [
            f"Queue: {name}\n" + "".join(wrapped(*line) for line in flat(shown)) for name, shown in queues.items()
        ]
        return "".join(f"{block}\n" for block in blocks)
    if not queues:
        return ""
    text = (
        "Queue              Max   Tot Ena Str   Que   Run   Hld   Wat   Trn   Ext Type\n"
        "---------------- ----- ----- --- --- ----- ----- ----- ----- ----- ----- ----\n"
    )
    for name, shown in queues.items():
        states = [job["state"] for job in everything if job["queue"] == name]
        yes = [("yes" if shown[key] == "True" else "no") for key in ("enabled", "started")]
        counts = " ".join(f"{states.count(each):>5}" for each in "QRHWTE")
        text += f"{name:<16} {0:>5} {len(states):>5} {yes[0]:>3} {yes[1]:>3} {counts} Exe*\n"
    return text


def about_server(state: State, given: dict[str, str]) -> str:
    jobs = [job for job in state.jobs() if "indices" not in job]
    shown: dict[str, Any] = {
        "server_state": "Active",
        "server_host": state.server,
        "scheduling": "True",
        "total_jobs": len(jobs),
        "state_count": state_count(jobs),
        "default_queue": next(iter(state.queues)),
        "resources_default": {"ncpus": 1, "walltime": DEFAULT_WALLTIME},
        "default_chunk": {"ncpus": 1},
        "resources_assigned": assigned(jobs),
        "max_array_size": MAX_ARRAY_SIZE,
        "pbs_version": VERSION,
        "eligible_time_enable": "True",
        "job_history_enable": str(state.has_history),
    }
    if given.get("F", "").lower() == "json":
        return as_json(head(state) | {"Server": {state.server: shown}}) + "\n"
    if "f" in given:
        return f"Server: {state.server}\n" + "".join(wrapped(*line) for line in flat(shown)) + "\n"
    states = [job["state"] for job in jobs]
    counts = " ".join(f"{states.count(each):>5}" for each in "QRHWTE")
    return (
        "Server             Max   Tot   Que   Run   Hld   Wat   Trn   Ext Status\n"
        "---------------- ----- ----- ----- ----- ----- ----- ----- ----- -----------\n"
        f"{state.server:<16} {0:>5} {len(states):>5} {counts} {'Active':<10}\n"
    )


# pbsnodes ------------------------------------------------------------------------------------------------------------


def pbsnodes() -> None:
    version_only()
    options, operands, _ = getopt(sys.argv[1:], "aF:HjlLsSvD:", permute=True)
    given = dict(options)
    state = opened("pbsnodes")
    if "l" in given:
        return
    unknown = [name for name in operands if name not in state.hosts]
    if unknown:
        sys.stderr.write(f"Node: {unknown[0]},  Error: Unknown node \n")
        sys.exit(1)
    with state.locked():
        jobs = [job for job in state.jobs() if "hosts" in job]
    nodes = {name: node(state, name, jobs) for name in operands or state.hosts}
    if given.get("F", "").lower() == "json":
        for name, shown in nodes.items():
            shown["jobs"] = list(dict.fromkeys(slot.rpartition("/")[0] for slot in shown["jobs"]))
            nodes[name] = {key: value for key, value in shown.items() if value != []}
        print(as_json(head(state) | {"nodes": nodes}))
        return
    for name, shown in nodes.items():
        shown["jobs"] = ", ".join(shown["jobs"])
        print(name)
        for key, value in flat({key: value for key, value in shown.items() if value != ""}):
            print(f"     {key} = {value}")
        print()


def node(state: State, name: str, jobs: Sequence[Job]) -> dict[str, Any]:
    host, free = state.hosts[name], room(state, jobs)[name]
    slots = [f"{job['id']}/{slot}" for job in jobs for where, slot in job["slots"] if where == name]
    taken: dict[str, Any] = {"mem": f"{host['mem'] - free['mem']}kb", "ncpus": host["ncpus"] - free["ncpus"]}
    return {
        "Mom": name,
        "ntype": "PBS",
        "state": "job-busy" if free["ncpus"] == 0 else "free",
        "pcpus": host["ncpus"],
        "jobs": slots,
        "resources_available": {
            "arch": "linux",
            "host": name,
            "mem": state.memory[name],
            "ncpus": host["ncpus"],
            "vnode": name,
        },
        "resources_assigned": taken if slots else {},
        "resv_enable": "True",
        "sharing": "default_shared",
        "license": "l",
    }


if __name__ == "__main__":
    mom(*sys.argv[1:])
