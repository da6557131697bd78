"""A batch system for one machine, without a daemon: `python -m hpclab.localq submit|status|cancel`.

Whoever touches the queue moves it on: every command, and every job that ends, runs `dispatch` under one lock.
Each running job has one shepherd (users read "its supervisor"). It holds a lock on a file in the job's folder
as long as it lives: this, and never a pid, says whether it is alive. Pending jobs have no process at all.
A process belongs to the job whose cookie it has in its environment, or else to the one it descends from.
"""

import json
import os
import sys
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from subprocess import Popen

    import psutil

USAGE = """\
usage: python -m hpclab.localq submit SCRIPT      (- reads the script from stdin; prints the job id)
       python -m hpclab.localq status [ID ...]    (one JSON object per line)
       python -m hpclab.localq cancel ID ...
"""
COOKIE = "HPCLAB_LOCALQ_JOB"
SHEPHERD = "HPCLAB_LOCALQ_SHEPHERD"
STATES = ("PENDING", "RUNNING", "COMPLETED", "FAILED", "CANCELLED", "TIMEOUT")
FINAL = STATES[2:]
REMEMBERED_S = 7 * 24 * 3600
LEFTOVER_GRACE_S = 2  # between TERM and KILL for what a job that ended by itself has left behind
UNKILLABLE_S = 2  # what survives KILL for so long (a hung file system) is given up
MAX_STARTS = 3  # for a shepherd that dies before its job has begun


class Refusal(Exception):
    """The request is wrong (exit status 2) or cannot be met (1)."""

    def __init__(self, message: str, exit_status: int = 1) -> None:
        super().__init__(message)
        self.exit_status = exit_status


class Job(NamedTuple):
    """One job's record. Not a dataclass: importing those would double the work of `status`."""

    id: int
    name: str
    cores: int = 1
    memory_bytes: int | None = None
    walltime_s: int | None = None
    slots: int = 1
    grace_s: int = 10
    output: str = os.devnull
    cwd: str = "/"
    umask: int = 0o077
    state: str = "PENDING"
    reason: str = ""
    cancelled: bool = False
    starts: int = 0
    node: str | None = None
    submit_time: float | None = None
    start_time: float | None = None
    limit_time: float | None = None
    end_time: float | None = None
    exit_code: int | None = None
    signal: int | None = None


INTERNAL = {"id", "slots", "grace_s", "output", "cwd", "umask", "cancelled", "starts"}
SHOWN = [field for field in Job._fields if field not in INTERNAL]


# --- the script's directives -------------------------------------------------------------------------------


def whole_number(text: str, least: int) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) <= 18 and int(text) >= least):
        raise ValueError(f"{text!r} is not a whole number of at least {least}")
    return int(text)


def some_text(text: str) -> str:
    if not text or "\0" in text:
        raise ValueError("needs a value")
    return text


OPTIONS: dict[str, tuple[str, "Callable[[str], int | str]"]] = {
    "--job-name": ("name", some_text),
    "--cores": ("cores", lambda text: whole_number(text, 1)),
    "--memory": ("memory_bytes", lambda text: whole_number(text, 1)),
    "--walltime": ("walltime_s", lambda text: whole_number(text, 1)),
    "--output": ("output", some_text),
    "--slots": ("slots", lambda text: whole_number(text, 1)),
    "--grace": ("grace_s", lambda text: whole_number(text, 0)),
}


def parse_directive(text: str) -> tuple[str, int | str]:
    """'--cores=4' becomes ('cores', 4)."""
    import shlex

    words = shlex.split(text)
    if len(words) != 1:
        raise ValueError("needs exactly one --option=value")
    option, _, value = words[0].partition("=")
    if option not in OPTIONS:
        raise ValueError(f"unknown option {option!r} (known: {', '.join(OPTIONS)})")
    field, parse = OPTIONS[option]
    return field, parse(value)


def parse_directives(script: str) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    for number, line in enumerate(script.split("\n"), start=1):
        words = line.split(None, 1)
        if words and not words[0].startswith("#"):
            break
        if words and words[0] == "#HPCLAB":
            try:
                field, value = parse_directive(words[1] if len(words) > 1 else "")
            except ValueError as error:
                raise Refusal(f"line {number}: {line.strip()!r}: {error}", exit_status=2) from None
            fields[field] = value
    return fields


# --- the state folder --------------------------------------------------------------------------------------


def state_folder() -> Path:
    """Made if need be, and private: it holds scripts that will be run, and environments with secrets."""
    chosen = os.environ.get("HPCLAB_LOCALQ_DIR")
    # homes are shared between machines, processes are not
    root = Path(chosen) if chosen else Path.home() / ".hpclab" / "localq" / os.uname().nodename
    root = root.expanduser().resolve()
    (root / "jobs").mkdir(parents=True, exist_ok=True)
    about = root.stat()
    if about.st_uid != os.getuid():
        raise Refusal(f"the state folder {root} belongs to another user (uid {about.st_uid})")
    if about.st_mode & 0o077:
        root.chmod(0o700)
    return root


@contextmanager
def locked(root: Path) -> "Iterator[None]":
    import fcntl

    fd = os.open(root / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def lock_of_shepherd(folder: Path) -> int | None:
    """The job's lock, taken, as a file descriptor; None while a shepherd has it."""
    import fcntl

    fd = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        return None
    except OSError:
        os.close(fd)
        raise
    return fd


def has_shepherd(folder: Path) -> bool:
    fd = lock_of_shepherd(folder)
    if fd is not None:
        os.close(fd)
    return fd is None


def write_text(path: Path, text: str) -> None:
    """All or nothing. The queue's lock is held, so that the temporary name needs not be unique."""
    new = path.with_name(f".{path.name}.new")
    try:
        new.write_text(text)
        new.replace(path)
    except OSError:
        with suppress(OSError):
            new.unlink()
        raise


def write_job(folder: Path, job: Job) -> Job:
    write_text(folder / "job.json", json.dumps(job._asdict()))
    return job


def read_job(folder: Path) -> Job:
    try:
        job = Job(**json.loads((folder / "job.json").read_text()))
        if job.state not in STATES or not isinstance(job.cores, int) or str(job.id) != folder.name:
            raise ValueError("not a job's record")
    except (OSError, ValueError, TypeError) as error:
        reason = f"its record cannot be read: {error}"
        return Job(id=int(folder.name), name="", cores=0, state="UNKNOWN", reason=reason)
    return job


def job_folders(root: Path) -> list[Path]:
    folders = (path for path in (root / "jobs").iterdir() if path.name.isdecimal())
    return sorted(folders, key=lambda path: int(path.name))


def read_jobs(root: Path) -> list[Job]:
    return [read_job(folder) for folder in job_folders(root)]


def remove_folder(folder: Path) -> None:
    """shutil.rmtree for a folder without folders, at a tenth of the import."""
    with suppress(OSError):
        for path in folder.iterdir():
            path.unlink()
        folder.rmdir()


def forget_old_jobs(root: Path, now: float) -> None:
    for folder in (root / "jobs").iterdir():
        if not folder.name.isdecimal():  # left by a submit that was killed
            remove_folder(folder)
            continue
        job = read_job(folder)
        ended = job.end_time if job.state in FINAL else None
        if job.state == "UNKNOWN" and not has_shepherd(folder):
            ended = folder.stat().st_mtime
        if ended is not None and now - ended > REMEMBERED_S:
            remove_folder(folder)


# --- the commands ------------------------------------------------------------------------------------------


def submit(root: Path, source: str, umask: int) -> int:
    try:
        script = sys.stdin.buffer.read() if source == "-" else Path(source).read_bytes()
    except OSError as error:
        raise Refusal(f"cannot read the script: {error}") from None
    asked = Job(
        **{
            "id": 0,
            "name": "stdin" if source == "-" else Path(source).name,
            "slots": max(8, 4 * (os.cpu_count() or 1)),
            "cwd": str(Path.cwd()),
            "umask": umask,
            "submit_time": time.time(),
            **parse_directives(script.decode(errors="surrogateescape")),
        }
    )
    refuse_the_impossible(asked)
    try:
        with locked(root):
            forget_old_jobs(root, time.time())
            job_id = next_id(root)
            output = Path(asked.cwd, asked.output.replace("%j", str(job_id)))
            if not output.parent.is_dir():
                raise Refusal(f"refused: the folder of the output file {str(output)!r} does not exist")
            spool(root, asked._replace(id=job_id, output=str(output)), script)
    except OSError as error:
        raise Refusal(f"cannot record the job: {error}") from None
    touch(root)
    return job_id


def refuse_the_impossible(job: Job) -> None:
    if job.cores > job.slots:
        raise Refusal(f"refused: the job asks for {job.cores} cores, there are {job.slots} slots")
    if job.memory_bytes and job.memory_bytes > (total := total_memory_bytes()):
        raise Refusal(f"refused: the job asks for {job.memory_bytes} bytes of memory, there are {total}")


def total_memory_bytes() -> int:
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError):
        import psutil

        return psutil.virtual_memory().total


def next_id(root: Path) -> int:
    used = [int(folder.name) for folder in job_folders(root)]
    with suppress(OSError, ValueError):
        used.append(int((root / "last_id").read_text()))
    return 1 + max(used, default=0)


def spool(root: Path, job: Job, script: bytes) -> None:
    """The job appears under its name complete, or not at all."""
    new = root / "jobs" / f".{job.id}"
    try:
        write_text(root / "last_id", str(job.id))
        new.mkdir()
        (new / "script").write_bytes(script)
        (new / "environ.json").write_text(json.dumps(environ_to_hand_on(root)))
        os.mkfifo(new / "bell")
        write_job(new, job)
        new.rename(root / "jobs" / str(job.id))
    except OSError:
        remove_folder(new)
        raise


def environ_to_hand_on(root: Path) -> dict[str, str]:
    """Without what says "inside job N"; but a job's own submissions go where the job came from."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith("HPCLAB_LOCALQ_")}
    return environ | ({"HPCLAB_LOCALQ_DIR": str(root)} if "HPCLAB_LOCALQ_DIR" in os.environ else {})


def touch(root: Path) -> list[Job]:
    """Move the queue on as far as possible; all jobs."""
    try:
        with locked(root):
            return dispatch(root)
    except OSError as error:
        print(f"localq: cannot move the queue on: {error}", file=sys.stderr)
        return read_jobs(root)


def status(root: Path, ids: "Iterable[str]") -> str:
    wanted = set(ids)
    jobs = [job for job in touch(root) if not wanted or str(job.id) in wanted]
    shown = ({"id": str(job.id)} | {key: getattr(job, key) for key in SHOWN} for job in jobs)
    return "".join(json.dumps(fields) + "\n" for fields in shown)


def cancel(root: Path, ids: "Iterable[str]") -> None:
    wanted = set(ids)
    with locked(root):
        for job in read_jobs(root):
            if str(job.id) not in wanted or job.state in FINAL:
                continue
            folder = root / "jobs" / str(job.id)
            if job.state == "PENDING":
                write_job(folder, job._replace(state="CANCELLED", reason="cancelled", end_time=time.time()))
                continue
            if job.state == "RUNNING":
                write_job(folder, job._replace(cancelled=True, reason="being cancelled"))
            ring(folder)
    touch(root)


def ring(folder: Path) -> None:
    """Wake the shepherd. One that has no ear at the bell yet will read `cancelled` in the record."""
    with suppress(OSError):
        bell = os.open(folder / "bell", os.O_WRONLY | os.O_NONBLOCK)
        os.write(bell, b"!")
        os.close(bell)


# --- moving the queue on -----------------------------------------------------------------------------------


def dispatch(root: Path) -> list[Job]:
    """The queue's lock is held. In order, first fit: a small job may pass a big one that waits."""
    jobs = []
    for job in read_jobs(root):
        folder = root / "jobs" / str(job.id)
        lost = job.state == "RUNNING" and not has_shepherd(folder)
        jobs.append(write_job(folder, without_shepherd(folder, job)) if lost else job)
    used = sum(job.cores for job in jobs if job.state == "RUNNING")
    for place, job in enumerate(jobs):
        if job.state != "PENDING":
            continue
        free = max(job.slots - used, 0)
        if job.cores <= free:
            jobs[place] = started = start(root, job)
            used += started.cores if started.state == "RUNNING" else 0
        else:
            reason = f"waits for slots: needs {job.cores}, {free} of {job.slots} are free"
            jobs[place] = job._replace(reason=reason)
    return jobs


def without_shepherd(folder: Path, job: Job) -> Job:
    """What becomes of a running job whose shepherd is gone (kill -9, a reboot)."""
    end_processes(str(folder), grace_s=0)
    if job.cancelled:
        return job._replace(state="CANCELLED", reason="cancelled", end_time=time.time())
    if not (folder / "environ.json").exists():
        return job._replace(state="FAILED", reason="its supervisor was killed", end_time=time.time())
    if job.starts >= MAX_STARTS:
        reason = f"its supervisor could not begin, see {folder / 'shepherd.log'}"
        return job._replace(state="FAILED", reason=reason, end_time=time.time())
    return job._replace(state="PENDING", start_time=None, limit_time=None, node=None)


def start(root: Path, job: Job) -> Job:
    """Give the job a shepherd, which gets the job's lock from us: there is no moment when nobody holds it."""
    folder = root / "jobs" / str(job.id)
    now = time.time()
    started = job._replace(
        state="RUNNING",
        reason="",
        starts=job.starts + 1,
        node=os.uname().nodename,
        start_time=now,
        limit_time=None if job.walltime_s is None else now + job.walltime_s,
    )
    lock = lock_of_shepherd(folder)
    if lock is None:
        return job._replace(reason="its last supervisor is about to end")
    try:
        write_job(folder, started)
        start_shepherd(root, job.id, lock)
    except OSError as error:
        return write_job(folder, job._replace(reason=f"cannot be started now: {error}"))
    finally:
        os.close(lock)
    return started


def start_shepherd(root: Path, job_id: int, lock: int) -> None:
    """A new program, not only a fork, and Popen returns when that is so.

    The shepherd of a job submitted from within another job must not show that job's cookie, and must not
    keep open what its submitter had open.
    """
    import subprocess

    folder = root / "jobs" / str(job_id)
    with (folder / "shepherd.log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-P", __file__, "shepherd", str(job_id)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=log,
            cwd="/",
            env=environ_to_hand_on(root) | {"HPCLAB_LOCALQ_DIR": str(root), SHEPHERD: str(folder)},
            pass_fds=[lock],
            start_new_session=True,
        )
    process.returncode = 0  # it outlives us: nobody here waits for it, and Popen need not warn


# --- the processes of a job --------------------------------------------------------------------------------


def processes_of(cookie: str, shepherd_pid: int | None) -> "list[psutil.Process]":
    """All living processes of a job: with its cookie, or without any but descending from it or its shepherd.

    Parents come before their children: a script must hear of TERM before it sees its commands die of it.
    Other shepherds and their jobs may descend from us, when a job has submitted them: they are not ours.
    """
    import psutil

    processes: dict[int, psutil.Process] = {}
    environs: dict[int, dict[str, str]] = {}
    children: dict[int, list[int]] = {}
    for process in psutil.process_iter(["ppid", "environ", "status"]):
        processes[process.pid] = process
        environs[process.pid] = process.info["environ"] or {}  # None where we may not look
        children.setdefault(process.info["ppid"], []).append(process.pid)

    to_visit = [pid for pid, environ in environs.items() if environ.get(COOKIE) == cookie]
    if shepherd_pid is not None:
        to_visit += children.get(shepherd_pid, [])  # last in, first out: the tree from its root
    found: dict[int, None] = {}  # an ordered set
    while to_visit:
        pid = to_visit.pop()
        foreign = environs[pid].get(COOKIE, cookie) != cookie or SHEPHERD in environs[pid]
        if pid not in found and not foreign and pid != os.getpid():
            found[pid] = None
            to_visit += children.get(pid, [])
    return [processes[pid] for pid in found if processes[pid].info["status"] != psutil.STATUS_ZOMBIE]


def end_processes(
    cookie: str,
    grace_s: float,
    shepherd_pid: int | None = None,
    pause: "Callable[[float], None]" = time.sleep,
) -> None:
    """TERM to all processes of the job, and after the grace KILL, until none is left."""
    import psutil

    def look() -> "list[psutil.Process]":
        # twice, as one that daemonises (forks and ends) while the list is read is in it with neither pid
        return processes_of(cookie, shepherd_pid) or processes_of(cookie, shepherd_pid)

    def send(action: "Callable[[psutil.Process], None]") -> "list[psutil.Process]":
        processes = look()
        for process in processes:
            with suppress(psutil.Error):
                action(process)
        return processes

    kill_at = time.monotonic() + grace_s
    left = send(psutil.Process.terminate)
    pause_s = 0.01
    while left and time.monotonic() < kill_at:
        pause(min(pause_s, grace_s))
        pause_s = min(2 * pause_s, 0.25)
        left = look()
    while left and time.monotonic() < kill_at + UNKILLABLE_S:
        left = send(psutil.Process.kill)  # again and again: they may have forked meanwhile
        pause(0.01)


# --- the shepherd ------------------------------------------------------------------------------------------


def shepherd(root: Path, job_id: int) -> None:
    """One running job, from the start of its script to the end of its last process."""
    # now, when it can still be reported, rather than when the job has ended and this installation has changed
    import psutil  # noqa: F401

    adopt_orphans()
    wake = listen_to_signals()
    folder = root / "jobs" / str(job_id)
    bell = os.open(folder / "bell", os.O_RDWR | os.O_NONBLOCK)  # before the record is read, see `ring`
    job = read_job(folder)
    if job.state != "RUNNING":
        return
    if job.cancelled:
        ended = job._replace(state="CANCELLED", reason="cancelled")
    else:
        ended = supervise(folder, job, wake, bell)
    record_end(root, ended._replace(end_time=time.time()))


def adopt_orphans() -> None:
    """On Linux what the job daemonises becomes our child, and can be found. Elsewhere its cookie must do."""
    if sys.platform == "linux":
        with suppress(ImportError, OSError, AttributeError):
            import ctypes

            ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER


def listen_to_signals() -> int:
    """A file descriptor that becomes readable when a child ends or somebody wants us to end."""
    import signal

    wake, signalled = os.pipe()
    os.set_blocking(wake, False)
    os.set_blocking(signalled, False)
    # also undoes what the job would inherit from a submitter under nohup or in a shell's background
    for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, lambda *_: None)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    signal.set_wakeup_fd(signalled, warn_on_full_buffer=False)
    return wake


def supervise(folder: Path, job: Job, wake: int, bell: int) -> Job:
    """Run the script, end all processes of the job; the job as it ended."""
    import select

    try:
        script = run_script(folder, job)
    except (OSError, ValueError) as error:
        return job._replace(state="FAILED", reason=f"could not be started: {error}")
    ended: dict[int, int] = {}
    state, reason = wait_for_end(job, script.pid, wake, bell, ended)

    def pause(seconds: float) -> None:
        if select.select([wake], [], [], seconds)[0]:
            os.read(wake, 4096)
        ended.update(reap())

    grace_s = job.grace_s if state else min(job.grace_s, LEFTOVER_GRACE_S)
    end_processes(str(folder), grace_s, os.getpid(), pause)
    ended.update(reap())
    return with_outcome(job, state, reason, ended.get(script.pid))


def run_script(folder: Path, job: Job) -> "Popen[bytes]":
    import subprocess

    environ = json.loads((folder / "environ.json").read_text())
    environ |= {COOKIE: str(folder), "HPCLAB_LOCALQ_JOB_ID": str(job.id)}
    if job.limit_time is not None:
        environ["HPCLAB_LOCALQ_END_TIME"] = str(int(job.limit_time))
    (folder / "environ.json").unlink()  # the job has begun and is never begun again
    ours = os.umask(job.umask)
    try:
        output = os.open(job.output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o666)
    finally:
        os.umask(ours)
    try:
        return subprocess.Popen(
            ["/bin/bash", str(folder / "script")],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            cwd=job.cwd,
            env=environ,
            umask=job.umask,
            start_new_session=True,
        )
    finally:
        os.close(output)


def reap() -> dict[int, int]:
    """The wait statuses of all children that have ended, by pid; orphans of the job are among them."""
    ended: dict[int, int] = {}
    with suppress(ChildProcessError):
        while (child := os.waitpid(-1, os.WNOHANG))[0]:
            ended[child[0]] = child[1]
    return ended


def wait_for_end(job: Job, pid: int, wake: int, bell: int, ended: dict[int, int]) -> tuple[str, str]:
    """Sleep until the script has ended, or must end: then the state and the reason which that means."""
    import select
    import signal

    told_to_end = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT}
    while True:
        ended.update(reap())
        if pid in ended:
            return "", ""
        remaining_s = None if job.limit_time is None else job.limit_time - time.time()
        if remaining_s is not None and remaining_s <= 0:
            return "TIMEOUT", f"walltime of {job.walltime_s} s reached"
        # at most an hour: the clock may be set, and the machine may have slept
        ready, _, _ = select.select([wake, bell], [], [], remaining_s and min(remaining_s, 3600))
        if bell in ready:
            return "CANCELLED", "cancelled"
        if wake in ready and told_to_end & set(os.read(wake, 4096)):
            return "FAILED", "its supervisor was told to end"


def with_outcome(job: Job, state: str, reason: str, wait_status: int | None) -> Job:
    """The state is empty when the script ended by itself."""
    code = None if wait_status is None else os.waitstatus_to_exitcode(wait_status)
    exit_code, signal = (code, None) if code is None or code >= 0 else (None, -code)
    if not state and code:
        state, reason = "FAILED", f"exit code {exit_code}" if signal is None else f"killed by signal {signal}"
    return job._replace(state=state or "COMPLETED", reason=reason, exit_code=exit_code, signal=signal)


def record_end(root: Path, job: Job) -> None:
    folder = root / "jobs" / str(job.id)
    for wait_s in (0, 1, 10, 100, 1000):  # a full disk may pass, and the outcome is known here only
        time.sleep(wait_s)
        try:
            with locked(root):
                write_job(folder, job)
        except FileNotFoundError:
            return  # somebody has removed the state folder
        except OSError:
            continue
        touch(root)
        return


def main(argv: list[str]) -> int:
    umask = os.umask(0o077)
    try:
        match argv:
            case ["submit", source] if source == "-" or not source.startswith("-"):
                answer = f"{submit(state_folder(), source, umask)}\n"
            case ["status", *ids] if not any(word.startswith("-") for word in ids):
                answer = status(state_folder(), ids)
            case ["cancel", _, *_] if not any(word.startswith("-") for word in argv):
                cancel(state_folder(), argv[1:])
                answer = ""
            case ["shepherd", job_id]:
                shepherd(state_folder(), int(job_id))
                answer = ""
            case ["-h" | "--help"]:
                answer = USAGE
            case _:
                print(USAGE, end="", file=sys.stderr)
                return 2
        sys.stdout.write(answer)
        sys.stdout.flush()
    except (Refusal, OSError) as error:
        print(f"localq: {error}", file=sys.stderr)
        return error.exit_status if isinstance(error, Refusal) else 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
