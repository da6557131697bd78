"""What `hpclab doctor` makes of what it has seen of a site: one finding after the other. Pure.

A finding that is a problem keeps sessions from working; a warning does not, or only for some.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from hpclab.batch import BATCH_SYSTEMS
from hpclab.config import Setting, Settings
from hpclab.detection import detected
from hpclab.errors import HpclabError
from hpclab.job import JobState, JobStatus, Queue, exit_meaning
from hpclab.sight import Meeting, Place, Sight
from hpclab.units import counted, format_duration, format_memory, format_walltime
from hpclab.versions import SAME_ENVIRONMENT, in_words, mismatch

State = Literal["ok", "warning", "problem", "unknown"]
NEEDED = ("distributed", "dask-mpi", "mpi4py", "jupyterlab")
"""What a job's Python must have."""
LITTLE_ROOM_BYTES = 2**30
OF_ONE_MACHINE = ("ext2", "ext3", "ext4", "xfs", "btrfs", "zfs", "tmpfs", "ramfs", "overlay")
"""File systems that other machines mostly do not see."""
LOG_NEVER_OPENED = 40
"""The exit status of a job's script that cannot write into its folder."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that was looked at, and what to do next where something is to be done."""

    topic: str
    state: State
    text: str
    next_step: str = ""


@dataclass(frozen=True, kw_only=True)
class ProbeJob:
    """What became of the job on a compute node."""

    job_id: str = ""
    refusal: str = ""
    """Why it was not submitted, or not waited for."""
    interrupted: bool = False
    status: JobStatus | None = None
    started: bool = False
    """It has written into its folder."""
    waited_s: float = 0.0
    """Until it started."""
    log_tail: str = ""
    seen: Sight | None = None
    met: Meeting | None = None
    """How the login node found the compute node."""


@dataclass(frozen=True, kw_only=True)
class Examined:
    """All that was looked at."""

    host: str
    system: str
    partition: str
    settings: Settings
    given: Mapping[str, Setting]
    """The settings that are not the defaults."""
    is_own: bool
    """The jobs have an environment of their own, not simply hpclab's."""
    found: Mapping[str, str]
    """The batch systems that are here, each with the line that tells its version."""
    queues: tuple[Queue, ...] = ()
    silence: str = ""
    """Why the batch system did not tell its queues."""
    site: str = ""
    """What the system said of what only it has; see SITE_COMMANDS."""
    login: Sight | None = None
    login_error: str = ""
    job: ProbeJob | None = None

    @property
    def queue(self) -> Queue | None:
        """The queue that jobs go to; None if it is not known."""
        if self.partition:
            return next((queue for queue in self.queues if queue.name == self.partition), None)
        return self.usual_queue

    @property
    def usual_queue(self) -> Queue | None:
        """The default, else the largest that is open."""
        takes = [queue for queue in self.queues if queue.is_open]
        return max(takes, key=lambda queue: (queue.is_default, queue.nodes), default=None)

    @property
    def on_node(self) -> Sight | None:
        return self.job.seen if self.job else None


# findings


def findings(examined: Examined) -> list[Finding]:
    """In the order in which a session would meet them."""
    found = [_batch_system(examined), *_queues(examined), *_request(examined)]
    login = examined.login
    if login is None:
        found.append(Finding(topic="this machine", state="unknown", text=examined.login_error))
    else:
        here = [*_software(login), *_mpi(login), _networks(login, examined)]
        # where jobs have an environment of their own, or one that was seen, this one only has to submit them
        counts_less = examined.is_own or examined.on_node is not None
        found += [_milder(finding) if counts_less else finding for finding in here]
        found += [_home(login.home, examined), _scratch(login.scratch)]
    if examined.job:
        found += _on_node(examined, examined.job)
    return found


def _milder(finding: Finding) -> Finding:
    state: State = "warning" if finding.state == "problem" else finding.state
    return replace(finding, state=state)


def _batch_system(examined: Examined) -> Finding:
    topic, system = "batch system", examined.system
    others = [f"{name} ({version})" for name, version in examined.found.items() if name != system]
    if len(examined.found) > 1 and examined.settings.queue.startswith("auto"):
        text = f"{len(examined.found)} are here, and this looks at {system}; others: {', '.join(others)}"
        return Finding(topic=topic, state="warning", text=text, next_step="say which: --queue SYSTEM")
    if system in examined.found:
        also = f"; also here: {', '.join(others)}" if others else ""
        return Finding(topic=topic, state="ok", text=f"{system}: {examined.found[system]}{also}")
    if system == "local":
        seen = f"; this host also has {', '.join(others)}" if others else ""
        return Finding(topic=topic, state="ok", text=f"local: jobs run on this machine, {examined.host}{seen}")
    return Finding(
        topic=topic,
        state="problem",
        text=f"no {system} answers on {examined.host}; found: {', '.join(others) or 'no batch system'}",
        next_step="log in where jobs are submitted, put its commands on your PATH, or say another --queue",
    )


def _queues(examined: Examined) -> Iterator[Finding]:
    topic = "queues"
    if examined.system not in examined.found:
        return  # then there is nobody to ask
    if examined.silence:
        step = "ask again later; if it stays so, ask the site's administrators"
        yield Finding(topic=topic, state="problem", text=examined.silence, next_step=step)
        return
    names = ", ".join(queue.name for queue in examined.queues) or "none told"
    chosen = examined.queue
    if chosen is None:
        what = f"there is no queue {examined.partition!r}" if examined.partition else "no queue takes jobs"
        step = f"say --queue {examined.system}:NAME with one of those that are there"
        yield Finding(topic=topic, state="problem", text=f"{what}; there: {names}", next_step=step)
    elif not chosen.is_open:
        text = f"{chosen.name} does not run jobs now{f': {chosen.note}' if chosen.note else ''}; there: {names}"
        yield Finding(topic=topic, state="warning", text=text, next_step="wait, or say another --queue")
    else:
        why = "as asked" if examined.partition else "the default" if chosen.is_default else "the largest that is open"
        yield Finding(topic=topic, state="ok", text=f"jobs go to {chosen.name}, {why}; there: {names}")


def _request(examined: Examined) -> Iterator[Finding]:
    """Whether the main job, as it is set, fits into its queue."""
    queue, s = examined.queue, examined.settings
    if queue is None:
        return
    cores = s.scheduler_cores + max(s.workers, s.nodes) * s.cores
    memory_bytes = s.scheduler_memory_bytes + max(s.workers, s.nodes) * s.memory_bytes
    limits: list[tuple[int, int, Callable[[float], str], str]] = [
        (s.walltime_s, queue.walltime_limit_s, format_walltime, "walltime"),
        (cores, queue.cores_per_node * s.nodes, "{:.0f}".format, "cores"),
        (memory_bytes, known_memory_bytes(queue) * s.nodes, format_memory, "memory"),
        (s.nodes, queue.nodes, "{:.0f}".format, "nodes"),
    ]
    over = [
        f"{what} {form(asked)}, {queue.name} has {form(limit)}"
        for asked, limit, form, what in limits
        if limit and asked > limit
    ]
    if over:
        step = "ask for less in your config or by flags, or take another queue"
        yield Finding(topic="request", state="warning", text=f"a session asks for {'; '.join(over)}", next_step=step)


def known_memory_bytes(queue: Queue) -> int:
    """Slurm tells 1 MiB where nobody has told it."""
    return queue.memory_per_node_bytes if queue.memory_per_node_bytes > 2**20 else 0


def _software(seen: Sight) -> Iterator[Finding]:
    topic = "software"
    text = f"{in_words(seen.versions)} ({seen.python})"
    missing = [package for package in NEEDED if package not in seen.versions]
    if missing:
        yield Finding(
            topic=topic,
            state="problem",
            text=f"{', '.join(missing)} missing; there: {text}",
            next_step=f"{seen.python} -m pip install 'hpclab[cluster]'",
        )
    else:
        yield Finding(topic=topic, state="ok", text=text)


def _mpi(seen: Sight) -> Iterator[Finding]:
    topic = "MPI"
    if seen.mpi_error and "mpi4py" in seen.versions:
        step = "load your site's MPI in `modules`, or install one that needs none: pip install mpich mpi4py"
        text = f"mpi4py does not load its library: {seen.mpi_error}"
        yield Finding(topic=topic, state="problem", text=text, next_step=step)
        return
    if not seen.launchers:
        step = f"load your site's MPI in `modules`, or install one: {seen.python} -m pip install mpich"
        yield Finding(topic=topic, state="problem", text="no mpiexec beside Python nor on PATH", next_step=step)
        return
    first, fits = seen.launchers[0], seen.fitting
    if not first.family:
        there = ", ".join(str(launcher) for launcher in seen.launchers[1:]) or "none"
        text = f"the launcher {first.path!r} is not there; others: {there}"
        yield Finding(topic=topic, state="problem", text=text, next_step="set `mpiexec` to one of these, or to auto")
        return
    text = f"{first}; mpi4py has {seen.mpi_library or 'nothing to tell of its library'}"
    if fits is first or not seen.mpi_library:
        yield Finding(topic=topic, state="ok", text=text)
    else:
        step = f"set mpiexec to {fits.path}" if fits else "set `mpiexec` to the launcher of that library"
        yield Finding(topic=topic, state="problem", text=f"these do not belong together: {text}", next_step=step)


def _networks(seen: Sight, examined: Examined, prefix: str = "") -> Finding:
    topic, wanted = f"{prefix}networks", examined.settings.interface
    told = seen.networks_told
    if prefix and not seen.has_network(wanted):
        step = "set `interface` to one of these, or to auto"
        return Finding(topic=topic, state="problem", text=f"no {wanted} on {seen.node}; there: {told}", next_step=step)
    if not seen.networks and examined.system != "local":
        return Finding(topic=topic, state="warning", text=f"{told}: other machines cannot reach this one")
    return Finding(topic=topic, state="ok", text=told)


def _home(home: Place, examined: Examined) -> Finding:
    topic, elsewhere = "home", "set HPCLAB_HOME to a folder with room that login and compute nodes share"
    if home.error:
        text = f"nothing can be written there: {home.error} ({home})"
        return Finding(topic=topic, state="problem", text=text, next_step=elsewhere)
    if home.free_bytes < LITTLE_ROOM_BYTES:
        return Finding(topic=topic, state="warning", text=f"little room: {home}", next_step=elsewhere)
    if examined.system != "local" and home.type in OF_ONE_MACHINE and examined.on_node is None:
        text = f"{home}; {home.type} is mostly one machine's own, and jobs must see this folder"
        step = "a probe job that runs will tell" if examined.job else "`hpclab doctor --probe` tells"
        return Finding(topic=topic, state="unknown", text=text, next_step=step)
    return Finding(topic=topic, state="ok", text=str(home))


def _scratch(scratch: Place, prefix: str = "") -> Finding:
    topic = f"{prefix}scratch"
    elsewhere = "set TMPDIR to a folder of that machine's own with room, by `export` for jobs"
    if scratch.error:
        text = f"nothing can be written there: {scratch.error} ({scratch})"
        return Finding(topic=topic, state="problem" if prefix else "warning", text=text, next_step=elsewhere)
    if scratch.free_bytes < LITTLE_ROOM_BYTES:
        text = f"little room for what Dask spills: {scratch}"
        return Finding(topic=topic, state="warning", text=text, next_step=elsewhere)
    in_memory = ", in memory: what Dask spills stays there" if scratch.type in ("tmpfs", "ramfs") else ""
    return Finding(topic=topic, state="ok", text=f"{scratch}{in_memory}")


# findings of the probe job


def _on_node(examined: Examined, job: ProbeJob) -> Iterator[Finding]:
    if job.seen is None:
        yield _without_sight(job)
        return
    node = job.seen
    waited = f"{job.job_id} ran on {node.node} after {format_duration(job.waited_s)} in the queue"
    yield Finding(topic="probe job", state="ok", text=waited)
    yield _versions(examined, node)
    here = [*_software(examined.login), *_mpi(examined.login)] if examined.login else []
    for finding in [*_software(node), *_mpi(node)]:
        alike = finding.state == "ok" and finding in here
        text = f"as on {examined.host}" if alike else finding.text
        yield replace(finding, topic=f"node {finding.topic}", text=text)
    yield _networks(node, examined, "node ")
    if node.home.error or node.home.free_bytes < LITTLE_ROOM_BYTES:
        yield _home(node.home, examined)
    else:
        text = f"the same folder here and there ({node.home.type} on {node.node})"
        yield Finding(topic="shared home", state="ok", text=text)
    yield _scratch(node.scratch, "node ")
    yield _submits(examined.system, job.job_id, node)
    yield _to_node(job, node)
    yield _to_login(examined.host, node)


def _without_sight(job: ProbeJob) -> Finding:
    topic = "probe job"
    if job.refusal:
        if job.interrupted:
            step = "say it again, perhaps with another --queue"
            return Finding(topic=topic, state="unknown", text=job.refusal, next_step=step)
        step = "ask for something else (--queue, --account, --qos); `hpclab script add-worker` shows such a job"
        return Finding(topic=topic, state="problem", text=job.refusal, next_step=step)
    status = job.status
    ended = "no state told" if status is None else status.reason or status.state.value
    exit_status = status.exit_status if status else None
    if not job.started and exit_status in (LOG_NEVER_OPENED, None):
        return Finding(
            topic="shared home",
            state="problem",
            text=f"job {job.job_id} ended ({ended}) and left no trace in its folder: compute nodes do not see "
            "hpclab's home, or cannot write there",
            next_step="set HPCLAB_HOME to a folder that login and compute nodes share",
        )
    log = f"; its log ends: {job.log_tail}" if job.log_tail else ""
    how = f", {exit_meaning(exit_status)}" if exit_status and not job.log_tail else ""
    if "No module named" in job.log_tail or "not found" in job.log_tail:
        step = "give the jobs a Python that has hpclab (`python`, `conda`, `venv`, `modules`)"
    else:
        step = "mend what it names; `hpclab script add-worker` shows what such a job runs"
    return Finding(topic=topic, state="problem", text=f"job {job.job_id} ended ({ended}{how}){log}", next_step=step)


def _versions(examined: Examined, node: Sight) -> Finding:
    topic = "versions"
    if examined.login is None:
        return Finding(topic=topic, state="unknown", text=f"{in_words(node.dask_versions)} on {node.node}")
    here, there = examined.login.dask_versions, node.dask_versions
    if different := mismatch(here, there):
        text = f"{in_words(here, different)} on {examined.host}, {in_words(there, different)} on {node.node}"
        state: State = "problem" if examined.settings.check_versions else "warning"
        return Finding(topic=topic, state=state, text=text, next_step=SAME_ENVIRONMENT)
    return Finding(topic=topic, state="ok", text=f"the same on both sides: {in_words(there)}")


def _submits(system: str, job_id: str, node: Sight) -> Finding:
    topic, batch = "submit there", BATCH_SYSTEMS[system]
    try:
        known = batch.parse_status(node.answers["status"]).get(job_id)
        answer = "" if known and known.state is not JobState.UNKNOWN else "it does not know its own job"
        if system != "local" and system not in detected(node.answers["versions"].stdout):
            answer = "its command for submitting is not there"
    except KeyError:
        answer = "it was not asked"
    except HpclabError as error:
        answer = str(error).splitlines()[0]
    if answer:
        return Finding(
            topic=topic,
            state="warning",
            text=f"{node.node} cannot speak to {system}: {answer}",
            next_step="say `hpclab keep` and `hpclab add-worker` on the login node; `start --keep` needs this",
        )
    return Finding(topic=topic, state="ok", text=f"{node.node} can: `hpclab start --keep N` will work")


def _to_node(job: ProbeJob, node: Sight) -> Finding:
    """The user's tunnel goes that way, to the node's name."""
    topic, met = "login to node", job.met
    if met is None or not met.came:
        text = f"not tried: login and {node.node} did not meet in time"
        return Finding(topic=topic, state="unknown", text=text, next_step="say it again")
    if met.answers.get(node.node) == "" or (node.node not in met.answers and "" in met.answers.values()):
        return Finding(topic=topic, state="ok", text=_reached(met))
    if "" in met.answers.values():
        text = f"{node.node} answers by address, but not by name: {_tried(met)}"
        step = f"in the tunnel that `hpclab start` prints, write an address instead of {node.node}"
        return Finding(topic=topic, state="warning", text=text, next_step=step)
    step = "a tunnel over the login node will not reach JupyterLab; ask the site how compute nodes are reached"
    return Finding(topic=topic, state="problem", text=f"nothing answers: {_tried(met)}", next_step=step)


def _to_login(host: str, node: Sight) -> Finding:
    topic, met = "node to login", node.met
    if met is None or not met.came:
        return Finding(topic=topic, state="unknown", text=f"not tried: {node.node} did not meet {host} in time")
    if "" in met.answers.values():
        return Finding(topic=topic, state="ok", text=_reached(met))
    return Finding(topic=topic, state="ok", text=f"nothing answers, and nothing in hpclab needs it: {_tried(met)}")


def _reached(met: Meeting) -> str:
    reached = [address for address, error in met.answers.items() if not error]
    lost = [address for address, error in met.answers.items() if error]
    return f"TCP reaches {', '.join(reached)}" + (f" (not {', '.join(lost)})" if lost else "")


def _tried(met: Meeting) -> str:
    return "; ".join(f"{address}: {error or 'answers'}" for address, error in met.answers.items()) or "no address told"


def summary(found: Sequence[Finding]) -> str:
    """How many of what."""
    numbers = [(sum(finding.state == state for finding in found), state) for state in ("problem", "warning")]
    return ", ".join(counted(number, state) for number, state in numbers if number) or "nothing is wrong"
