"""What is written down: a folder for each job, and in it the job's record, its script and its lock.

Who changes a record holds the queue's lock. Nothing here starts or ends a process.
"""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from hpclab.localq.refusal import Refusal

COOKIE = "HPCLAB_LOCALQ_JOB"
SHEPHERD = "HPCLAB_LOCALQ_SHEPHERD"
STATES = ("PENDING", "RUNNING", "COMPLETED", "FAILED", "CANCELLED", "TIMEOUT")
FINAL = STATES[2:]
REMEMBERED_S = 7 * 24 * 3600


class Job(NamedTuple):
    """One job's record.

    Not a dataclass, and its types no strings, which would be compiled one by one: `status` would feel either.
    """

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
def locked(root: Path) -> Iterator[None]:
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
