"""A stand-in for IBM Spectrum LSF that really runs scripts, made from its documentation.

Faked: bsub, bjobs, bkill, bqueues, blaunch, lsid; #BSUB lines, slots on hosts, span[hosts=1] and span[ptile=N], run
limits of jobs and queues, PEND PSUSP RUN DONE EXIT UNKWN, job arrays, the signals of bkill and of a run limit, the
environment that jobs inherit and get, the report in the -o file, CLEAN_PERIOD, bjobs -o with and without -json.
Not faked: memory and gpus (read, never held), other resource requirements, priorities (what fits starts), other
users, dependencies, checkpoints, requeues, mail, MultiCluster, bhist, bmod, bstop.

There is no daemon. Each job has a process of its own on the host where bsub was called, its sbatchd. It waits for
slots, starts the script by way of a process on the job's first host (through ssh when that is another machine),
enforces the limit and writes down the end. It holds a lock as long as it lives; a job that has not ended and whose
lock is free is UNKWN. When it is killed, so is its job: nothing is left behind.

All state is in $FAKE_LSF_DIR, which every host must see. Knobs, from the environment or from $FAKE_LSF_DIR/lsf.conf:
    FAKE_LSF_HOSTS       `node1:16 node2:16`, name:slots; this machine
    FAKE_LSF_QUEUES      `normal:1440 short:30`, name:minutes[:status]; the first is the default
    FAKE_LSF_TIME_SCALE  what all of LSF's own durations are multiplied by: run limits, and the constants below
"""

import fcntl
import getpass
import json
import os
import re
import select
import shlex
import signal
import socket
import subprocess
import sys
import time
import uuid
from contextlib import contextmanager, suppress
from pathlib import Path

RUN_LIMIT_GRACE_S = 600  # between SIGUSR2 at the run limit and the signals of bkill
TERMINATE_INTERVAL_S = 10  # JOB_TERMINATE_INTERVAL, between those signals
CLEAN_PERIOD_S = 3600  # finished jobs are known for so long
POLL_S = 0.05

FINAL = ("DONE", "EXIT")
REASONS = {
    "owner": "TERM_OWNER: job killed by owner",
    "limit": "TERM_RUNLIMIT: job killed after reaching LSF run time limit",
}
HERE = Path(__file__).resolve().parent
DIR = Path(os.environ.get("FAKE_LSF_DIR") or Path.home() / ".fake_lsf").absolute()
JOBS = DIR / "jobs"
HOSTNAME = socket.gethostname()


VERSION = "IBM Spectrum LSF Standard 10.1.0.13 (a fake of it)"


class Refused(Exception):
    """Said on stderr; exit status 255."""


def knob(name, default):
    if name in os.environ:
        return os.environ[name]
    with suppress(FileNotFoundError):
        for line in (DIR / "lsf.conf").read_text().splitlines():
            if line.startswith(f"{name}="):
                return line.partition("=")[2].strip("\"'")
    return default


def scaled(seconds):
    return seconds * float(knob("FAKE_LSF_TIME_SCALE", "1"))


def hosts():
    """Slots by name."""
    given = knob("FAKE_LSF_HOSTS", f"{HOSTNAME}:{os.cpu_count()}").split()
    return {name: int(slots or 1) for name, _, slots in (host.partition(":") for host in given)}


def queues():
    """Minutes and status by name."""
    given = [queue.split(":", 2) for queue in knob("FAKE_LSF_QUEUES", "normal:1440 short:30").split()]
    return {name: (int(rest[0]), rest[1] if rest[1:] else "Open:Active") for name, *rest in given}


# state


@contextmanager
def locked():
    JOBS.mkdir(mode=0o700, parents=True, exist_ok=True)
    with open(DIR / "lock", "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def write(path, text):
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    with open(os.open(temporary, os.O_WRONLY | os.O_CREAT, 0o600), "w", errors="surrogateescape") as file:
        file.write(text)
    temporary.replace(path)


def job_path(job_id, kind):
    return JOBS / f"{job_id}.{kind}"


def load(job_id):
    return json.loads(job_path(job_id, "json").read_text())


def save(job):
    write(job_path(job["id"], "json"), json.dumps(job))


def change(job_id, **changes):
    """Under the lock, for bkill may write the same record."""
    with locked():
        job = {**load(job_id), **changes}
        save(job)
    return job


def load_all():
    """Every job that is known, by number and index; those past CLEAN_PERIOD are forgotten for good."""
    jobs = []
    for path in JOBS.glob("[0-9]*.json"):
        try:
            job = json.loads(path.read_text())
        except FileNotFoundError:
            continue
        if job["stat"] in FINAL and job["finish_time"] + scaled(CLEAN_PERIOD_S) < time.time():
            for kind in ("json", "sh", "env", "alive", "out", "err", "hosts"):
                job_path(job["id"], kind).unlink(missing_ok=True)
        else:
            jobs.append(job)
    return sorted(jobs, key=lambda job: (job["number"], job["index"]))


def is_lost(job):
    """Its sbatchd is gone, and could not say how the job ended."""
    if job["stat"] in FINAL:
        return False
    try:
        with open(job_path(job["id"], "alive")) as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True


def find(jobs, wanted):
    """The jobs of an id: `12` is all of an array, `12[3]` one of it."""
    return [job for job in jobs if wanted in (str(job["number"]), job["id"])]


# bsub

VALUES = set("J n R M W We q P o oo e eo i gpu L cwd Jd app m G g sla u w b t c v S D F C a network env wa wt".split())
FLAGS = set("rn r x N B H K I Is Ip ar".split())


def parse_options(words):
    """Options by name, each a list of its values, and the words of the command."""
    given, words = {}, list(words)
    while words and words[0].startswith("-"):
        name = words.pop(0)[1:]
        if name not in VALUES | FLAGS:
            raise Refused(f"bsub: illegal option -- {name}\nJob not submitted.")
        if name in VALUES and not words:
            raise Refused(f"Option -{name} requires an argument. Job not submitted.")
        given.setdefault(name, []).append(words.pop(0) if name in VALUES else "")
    return given, words


def script_options(script):
    given = {}
    for line in script.splitlines():
        if line.startswith("#BSUB"):
            found, _ = parse_options(shlex.split(line.removeprefix("#BSUB")))
            for name, values in found.items():
                given.setdefault(name, []).extend(values)
    return given


def minutes(text):
    if not re.fullmatch(r"(\d+:)?\d+(/.*)?", text):
        raise Refused(f"{text}: Bad RUNLIMIT specification. Job not submitted.")
    hours, _, rest = text.partition("/")[0].rpartition(":")
    return int(hours or 0) * 60 + int(rest)


def indices(text):
    """`1-3,7` of `name[1-3,7]%2`."""
    found = []
    for part in text.split(","):
        first, _, last = part.partition("-")
        found += range(int(first), int(last or first) + 1)
    return found


def bsub(argv):
    options, command = parse_options(argv)
    script = " ".join(command) if command else sys.stdin.read()
    if not script.strip():
        raise Refused("Empty job. Job not submitted.")
    if not command:
        options = {**script_options(script), **options}

    def last(name, default=""):
        return options.get(name, [default])[-1]

    queue = last("q") or os.environ.get("LSB_DEFAULTQUEUE") or next(iter(queues()))
    if queue not in queues():
        raise Refused(f"{queue}: No such queue. Job not submitted.")
    limit, status = queues()[queue]
    if not status.startswith("Open"):
        raise Refused(f"{queue}: Queue has been closed. Job not submitted.")
    run_limit = minutes(last("W", str(limit)))
    if run_limit > limit:
        raise Refused("RUNLIMIT: Cannot exceed queue's hard limit(s). Job not submitted.")
    if not re.fullmatch(r"[1-9]\d*(,\d+)?", last("n", "1")):
        raise Refused("Bad argument for option -n. Job not submitted.")
    slots = int(last("n", "1").partition(",")[0])
    if slots > sum(hosts().values()):
        raise Refused("Too many processors requested. Job not submitted.")
    if last("M") and not re.fullmatch(r"[1-9]\d*([KMGTPEZ]B?)?!?", last("M"), re.IGNORECASE):
        raise Refused("Bad argument for option -M. Job not submitted.")
    span = re.search(r"span\s*\[\s*(hosts|ptile)\s*=\s*(\d+)", " ".join(options.get("R", [])))
    name, bracket, rest = last("J", command[0] if command else "").partition("[")
    tasks = indices(rest.partition("]")[0]) if bracket else [0]
    with locked():
        number = int((DIR / "next").read_text()) if (DIR / "next").exists() else 1
        write(DIR / "next", str(number + 1))
    env = json.dumps(dict(os.environ))
    for index in tasks:
        job_id = f"{number}[{index}]" if bracket else str(number)
        write(job_path(job_id, "sh"), script)
        write(job_path(job_id, "env"), env)

        def named(pattern, index=index):
            path = pattern.replace("%J", str(number)).replace("%I", str(index))
            return str(Path(path).absolute()) if path else ""

        job = {
            "id": job_id,
            "number": number,
            "index": index,
            "name": f"{name}[{index}]" if bracket else name,
            "stat": "PSUSP" if "H" in options else "PEND",
            "user": getpass.getuser(),
            "queue": queue,
            "project": last("P", "default"),
            "slots": slots,
            "per_host": (slots if span[1] == "hosts" else int(span[2])) if span else 0,
            "limit_s": scaled(run_limit * 60),
            "from_host": HOSTNAME,
            "cwd": last("cwd") or str(Path.cwd()),
            "output": named(last("o") or last("oo")),
            "error": named(last("e") or last("eo")),
            "overwrites": [name for name in ("oo", "eo") if name in options],
            "hosts": [],
            "kill": [],
            "pend_reason": "New job is waiting for scheduling;",
            "submit_time": time.time(),
            "start_time": None,
            "finish_time": None,
            "exit_code": None,
            "exit_reason": "",
        }
        start_sbatchd(job)
    said = f"Job <{number}> is submitted to {'' if 'q' in options else 'default '}queue <{queue}>."
    if "BSUB_QUIET" not in os.environ:
        print(said, file=sys.stderr if "BSUB_STDERR" in os.environ else sys.stdout)


def start_sbatchd(job):
    alive = open(job_path(job["id"], "alive"), "w")
    fcntl.flock(alive, fcntl.LOCK_EX)  # the child's too, until the last of them closes it
    save(job)
    if os.fork():
        alive.close()
        return
    status = 1
    try:
        os.setsid()
        null = os.open(os.devnull, os.O_RDWR)
        for stream in range(3):
            os.dup2(null, stream)
        for name in os.listdir("/proc/self/fd"):  # a pipe of bsub's caller would never be at its end
            if int(name) > 2 and int(name) != alive.fileno():
                with suppress(OSError):
                    os.close(int(name))
        os.chdir("/")
        sbatchd(job["id"])
        status = 0
    finally:
        os._exit(status)


# sbatchd


def place(job, jobs):
    """The hosts for a job, as pairs of name and slots; or why there are none."""
    used = dict.fromkeys(hosts(), 0)
    for other in jobs:
        if other["stat"] == "RUN":
            for name, slots in other["hosts"]:
                used[name] = used.get(name, 0) + slots

    def fit(free):
        """Hosts are filled one after the other; with a span only those that hold a whole part of it."""
        chosen, missing = [], job["slots"]
        for name, slots in free.items():
            part = min(missing, job["per_host"] or slots)
            if part and slots >= part:
                chosen.append([name, part])
                missing -= part
        return [] if missing else chosen

    if not fit(hosts()):
        return [], "There are no suitable hosts for the job;"
    free = {name: max(slots - used[name], 0) for name, slots in hosts().items()}
    return fit(free), f"Job slot limit reached: {len(free)} hosts;"


def wait_for_slots(job_id):
    """None when the job was killed before it started."""
    seen, looked = None, 0.0
    while True:
        now = JOBS.stat().st_mtime_ns  # every record is written by a rename in this folder, but clocks are coarse
        if now != seen or time.monotonic() - looked > 0.5:
            seen, looked = now, time.monotonic()
            with locked():
                job = load(job_id)
                if job["stat"] in FINAL:
                    return None
                chosen, why = place(job, load_all())
                if chosen and job["stat"] == "PEND":
                    job.update(stat="RUN", hosts=chosen, start_time=time.time(), pend_reason="")
                    save(job)
                    return job
                if job["stat"] == "PEND" and job["pend_reason"] != why:
                    save({**job, "pend_reason": why})
        time.sleep(POLL_S)


def sbatchd(job_id):
    job = wait_for_slots(job_id)
    if job is None:
        return
    with open(job_path(job_id, "hosts"), "w") as file:
        file.writelines(f"{name}\n" * slots for name, slots in job["hosts"])
    argv = on_host(job["hosts"][0][0], ["run", job_id])
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd="/") as runner:
        reason, said = watch(job, runner)
        runner.kill()
    if not (code := re.search(rb"^exit=(\d+)$", said, re.MULTILINE)):
        change(job_id, stat="UNKWN", pend_reason="the execution host was lost")
        return
    job = {**job, "exit_code": int(code[1]), "finish_time": time.time()}
    job.update(stat="EXIT" if job["exit_code"] else "DONE", exit_reason=reason if job["exit_code"] else "")
    with suppress(OSError):
        report(job)
    with locked():
        save({**load(job_id), **{key: job[key] for key in ("stat", "exit_code", "exit_reason", "finish_time")}})


def watch(job, runner):
    """Passes on the signals of bkill and of the run limit until the runner has said how the job ended."""
    over = job["start_time"] + job["limit_s"]
    due = [(over, "USR2", "limit"), *ladder(over + scaled(RUN_LIMIT_GRACE_S), "limit")]
    sent, said, reason = 0, b"", ""
    while True:
        readable, _, _ = select.select([runner.stdout], [], [], POLL_S)
        if readable:
            part = os.read(runner.stdout.fileno(), 4096)
            said += part
            if not part:
                return reason, said
        for asked in load(job["id"])["kill"][sent:]:
            sent += 1
            if asked == "all":
                due = ladder(time.time(), "owner")
            else:
                tell(runner, asked)
        while due and due[0][0] <= time.time():
            _, name, why = due.pop(0)
            reason = REASONS[why]
            tell(runner, name)


def ladder(start, why):
    return [
        (start + scaled(TERMINATE_INTERVAL_S) * step, name, why) for step, name in enumerate(["INT", "TERM", "KILL"])
    ]


def tell(runner, name):
    with suppress(BrokenPipeError):
        os.write(runner.stdin.fileno(), f"{name}\n".encode())


def on_host(name, words):
    """An argv that runs this module there."""
    here = ["/usr/bin/python3", str(HERE / "fake_lsf.py"), *words]
    if name in ("localhost", HOSTNAME, HOSTNAME.partition(".")[0]):
        return here
    # ssh takes a line for the shell there
    return [
        "ssh",
        "-o",
        "BatchMode=yes",
        "-o",
        "ServerAliveInterval=5",
        name,
        shlex.join(["env", f"FAKE_LSF_DIR={DIR}", *here]),
    ]


# on the execution host


def job_environment(job):
    names = [name for name, slots in job["hosts"] for _ in range(slots)]
    return {
        **json.loads(job_path(job["id"], "env").read_text()),
        "FAKE_LSF_DIR": str(DIR),
        "LSB_JOBID": str(job["number"]),
        "LSB_BATCH_JID": job["id"],
        "LSB_JOBINDEX": str(job["index"]),
        "LSB_JOBNAME": job["name"],
        "LSB_JOBFILENAME": str(job_path(job["id"], "sh")),
        "LSB_QUEUE": job["queue"],
        "LSB_PROJECT_NAME": job["project"],
        "LSB_SUB_HOST": job["from_host"],
        "LSB_HOSTS": " ".join(names),
        "LSB_MCPU_HOSTS": " ".join(f"{name} {slots}" for name, slots in job["hosts"]),
        "LSB_DJOB_NUMPROC": str(len(names)),
        "LSB_MAX_NUM_PROCESSORS": str(len(names)),
        "LSB_DJOB_HOSTFILE": str(job_path(job["id"], "hosts")),
        "LSB_OUTPUTFILE": job["output"],
        "LSB_EXIT_PRE_ABORT": "99",
        "LS_SUBCWD": job["cwd"],
        "LSF_BINDIR": str(HERE),
    }


def run(argv):
    """Runs the script, hears signals by name on stdin, says `exit=CODE`. The job ends with who started this."""
    job = load(argv[0])
    env = job_environment(job)
    script = job_path(job["id"], "sh")
    with open(script) as file:
        first = file.readline()
    shell = shlex.split(first[2:]) if first.startswith("#!") else ["/bin/sh"]
    cwd = job["cwd"] if os.access(job["cwd"], os.X_OK) else "/tmp"
    out = open(job_path(job["id"], "out"), "wb")
    err = open(job_path(job["id"], "err"), "wb") if job["error"] else out
    script_process = subprocess.Popen(
        [*shell, str(script)],
        stdin=subprocess.DEVNULL,
        stdout=out,
        stderr=err,
        cwd=cwd,
        env=env,
        start_new_session=True,
    )
    ended = os.pidfd_open(script_process.pid)
    pending = b""
    while True:
        readable, _, _ = select.select([ended, 0], [], [])
        if ended in readable:
            break
        part = os.read(0, 4096)
        *lines, pending = (pending + part).split(b"\n")
        for name in [line.decode() for line in lines] if part else ["KILL"]:
            signal_all(script_process.pid, signal.Signals[f"SIG{name}"])
        if not part:
            return
    code = script_process.wait()
    with suppress(ProcessLookupError):
        os.killpg(script_process.pid, signal.SIGKILL)  # what the script left behind
    print(f"exit={code if code >= 0 else 128 - code}", flush=True)


def signal_all(pid, number):
    """All process groups of the job, as LSF's PIM finds them."""
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError, ValueError):
            fields = stat.read_text(errors="replace").rpartition(")")[2].split()
            parents[int(stat.parent.name)] = (int(fields[1]), int(fields[2]))
    family, groups = {pid}, {pid}
    grew = True
    while grew:
        more = {child for child, (parent, _) in parents.items() if parent in family} - family
        family |= more
        groups |= {parents[child][1] for child in more}
        grew = bool(more)
    for group in groups:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(group, number)


def report(job):
    """What LSF writes into the -o file when the job has ended: its report, then what the job wrote."""
    if not job["output"]:
        return
    where = ":".join(f"{slots}*{name}" if slots > 1 else name for name, slots in job["hosts"])
    state = "Done" if job["stat"] == "DONE" else "Exited"
    user, cluster = f"user <{job['user']}>", "cluster <fake>"
    ended = f"Exited with exit code {job['exit_code']}." if job["exit_code"] else "Successfully completed."
    rule = "-" * 60
    lines = [
        f"Sender: LSF System <lsfadmin@{job['hosts'][0][0]}>",
        f"Subject: Job {job['id']}: <{job['name']}> in {cluster} {state}",
        "",
        f"Job <{job['name']}> was submitted from host <{job['from_host']}> by {user} in {cluster}"
        f" at {time.ctime(job['submit_time'])}",
        f"Job was executed on host(s) <{where}>, in queue <{job['queue']}>, as {user} in {cluster}"
        f" at {time.ctime(job['start_time'])}",
        f"<{job['cwd']}> was used as the working directory.",
        f"Started at {time.ctime(job['start_time'])}",
        f"Terminated at {time.ctime(job['finish_time'])}",
        f"Results reported at {time.ctime()}",
        "",
        "Your job looked like:",
        "",
        rule,
        "# LSBATCH: User input",
        job_path(job["id"], "sh").read_text(errors="replace").rstrip("\n"),
        rule,
        "",
        *([job["exit_reason"] + "."] if job["exit_reason"] else []),
        ended,
        "",
        "Resource usage summary:",
        "",
        f"    Run time :                                   {job['finish_time'] - job['start_time']:.0f} sec.",
        f"    Turnaround time :                            {job['finish_time'] - job['submit_time']:.0f} sec.",
        "",
        "The output (if any) follows:",
        "",
        "",
    ]
    with open(job["output"], "wb" if "oo" in job["overwrites"] else "ab") as file:
        file.write("\n".join(lines).encode(errors="replace"))
        file.write(job_path(job["id"], "out").read_bytes())
        if job["error"]:
            file.write(f"\n\nPS:\n\nRead file <{job['error']}> for stderr output of this job.\n".encode())
    if job["error"]:
        with open(job["error"], "wb" if "eo" in job["overwrites"] else "ab") as file:
            file.write(job_path(job["id"], "err").read_bytes())


# bjobs

DEFAULT_FIELDS = "jobid user stat queue from_host exec_host job_name submit_time".split()


def clock(seconds, mark=""):
    return time.strftime("%b %e %H:%M", time.localtime(seconds)) + mark if seconds else ""


FIELDS = {
    "jobid": lambda job: job["id"],
    "jobindex": lambda job: str(job["index"]),
    "stat": lambda job: job["stat"],
    "user": lambda job: job["user"],
    "queue": lambda job: job["queue"],
    "job_name": lambda job: job["name"],
    "proj_name": lambda job: job["project"],
    "from_host": lambda job: job["from_host"],
    "exec_host": lambda job: ":".join(f"{slots}*{name}" if slots > 1 else name for name, slots in job["hosts"]),
    "first_host": lambda job: job["hosts"][0][0] if job["hosts"] else "",
    "nexec_host": lambda job: str(len(job["hosts"])),
    "slots": lambda job: str(job["slots"]),
    "exit_code": lambda job: str(job["exit_code"] or ""),
    "exit_reason": lambda job: job["exit_reason"],
    "kill_reason": lambda job: "",
    "suspend_reason": lambda job: "",
    "pend_reason": lambda job: job["pend_reason"],
    "submit_time": lambda job: clock(job["submit_time"]),
    "start_time": lambda job: clock(job["start_time"]),
    "estimated_start_time": lambda job: "",
    "finish_time": lambda job: (
        clock(job["finish_time"]) or clock(job["start_time"] and job["start_time"] + job["limit_s"], " L")
    ),
    "time_left": lambda job: time_left(job),
    "run_time": lambda job: f"{(job['finish_time'] or time.time()) - (job['start_time'] or time.time()):.0f} second(s)",
}


def time_left(job):
    if job["stat"] != "RUN":
        return ""
    left = max(0, job["start_time"] + job["limit_s"] - time.time()) // 60
    return f"{left // 60:.0f}:{left % 60:.0f} L"


def bjobs(argv):
    words, all_states, as_json, header, text, ids = list(argv), False, False, True, "", []
    text = os.environ.get("LSB_BJOBS_FORMAT", "")
    while words:
        word = words.pop(0)
        if word == "-o":
            text = words.pop(0)
        elif word in ("-u", "-q", "-m", "-J"):
            words.pop(0)
        elif word == "-a":
            all_states = True
        elif word == "-json":
            as_json = True
        elif word == "-noheader":
            header = False
        elif word in ("-w", "-hms", "-d", "-r", "-p", "-s"):
            pass
        elif word.startswith("-"):
            raise Refused(f"bjobs: illegal option -- {word[1:]}")
        else:
            ids.append(word)
    if as_json and not text:
        raise Refused("bjobs: -json must be used with -o")
    delimiter = re.search(r"delimiter=['\"](.)['\"]", text)
    names = [word.partition(":")[0].lower() for word in re.sub(r"delimiter=['\"].['\"]", "", text).split()]
    for name in names:
        if name not in FIELDS:
            raise Refused(f"{name}: No such field name.")
    with locked():
        jobs = [{**job, "stat": "UNKWN"} if is_lost(job) else job for job in load_all()]
    found, missing = [], []
    for wanted in ids:
        matches = find(jobs, wanted)
        found += matches
        missing += [] if matches else [wanted]
    if not ids:
        found = [job for job in jobs if all_states or job["stat"] not in FINAL]
    names = names or DEFAULT_FIELDS
    rows = [[FIELDS[name](job) for name in names] for job in found]
    if as_json:
        records = [dict(zip(map(str.upper, names), row, strict=True)) for row in rows]
        records += [{"JOBID": wanted, "ERROR": f"Job <{wanted}> is not found"} for wanted in missing]
        print(json.dumps({"COMMAND": "bjobs", "JOBS": len(records), "RECORDS": records}, indent=2))
    else:
        if rows:
            shown = [[name.upper() for name in names]] * header + [[cell or "-" for cell in row] for row in rows]
            print("\n".join((delimiter[1] if delimiter else " ").join(row) for row in shown))
        elif not ids:
            print("No job found" if all_states else "No unfinished job found", file=sys.stderr)
        for wanted in missing:
            print(f"Job <{wanted}> is not found", file=sys.stderr)
    if not found:
        sys.exit(255)


# the other commands


def bkill(argv):
    words, name, ids, status = list(argv), "all", [], 0
    while words:
        word = words.pop(0)
        if word == "-s":
            name = words.pop(0).upper().removeprefix("SIG")
            name = signal.Signals(int(name)).name[3:] if name.isdigit() else name
        elif not word.startswith("-"):
            ids.append(word)
    if not ids:
        raise Refused("Job ID, or one or more of the options -g -J -m -u -q must be specified.")
    with locked():
        jobs = load_all()
        if ids == ["0"]:
            ids = [job["id"] for job in jobs if job["stat"] not in FINAL]
        for wanted in ids:
            matches = find(jobs, wanted)
            if not matches:
                print(f"Job <{wanted}>: No matching job found", file=sys.stderr)
                status = 255
            elif all(job["stat"] in FINAL for job in matches):
                print(f"Job <{wanted}>: Job has already finished", file=sys.stderr)
                status = 255
            else:
                print(f"Job <{wanted}> is being {'terminated' if name == 'all' else 'signaled'}")
            for job in matches:
                if job["stat"] in ("PEND", "PSUSP", "UNKWN") or is_lost(job):
                    save({**job, "stat": "EXIT", "finish_time": time.time(), "exit_reason": REASONS["owner"]})
                elif job["stat"] == "RUN":
                    save({**job, "kill": [*job["kill"], name]})
    sys.exit(status)


def bqueues(argv):
    wanted = [word for word in argv if not word.startswith("-")]
    for name in wanted:
        if name not in queues():
            raise Refused(f"{name}: No such queue")
    with locked():
        jobs = load_all()
    table = []
    for name, (limit, status) in queues().items():
        if name in wanted or not wanted:
            mine = [job for job in jobs if job["queue"] == name]
            pend, running = (sum(job["slots"] for job in mine if job["stat"] == stat) for stat in ("PEND", "RUN"))
            table.append((name, limit, status, pend, running))
    if "-l" not in argv:
        print("QUEUE_NAME      PRIO STATUS          MAX JL/U JL/P JL/H NJOBS  PEND   RUN  SUSP")
        for name, _, status, pend, running in table:
            print(f"{name:15} {30:4} {status:15}   -    -    -    - {pend + running:5} {pend:5} {running:5}     0")
        return
    for place_in_list, (name, limit, status, pend, running) in enumerate(table):
        is_default = "  This is the default queue." if name == next(iter(queues())) else ""
        print("-" * 79 + "\n" if place_in_list else "", f"QUEUE: {name}\n", sep="", end="")
        print(f"  -- Jobs of at most {limit} minutes.{is_default}\n\nPARAMETERS/STATISTICS")
        print("PRIO NICE STATUS          MAX JL/U JL/P JL/H NJOBS  PEND   RUN SSUSP USUSP  RSV")
        print(f" 30   0  {status:15}   -    -    -    - {pend + running:5} {pend:5} {running:5}     0     0    0")
        print(f"\nMAXIMUM LIMITS:\n RUNLIMIT\n {limit}.0 min\n")


def blaunch(argv):
    """blaunch [-n] [-z "HOST ..." | HOST] COMMAND: in the allocation of the job that calls, with its environment."""
    words, names, stdin = list(argv), [], None
    while words and words[0].startswith("-"):
        word = words.pop(0)
        if word == "-n":
            stdin = subprocess.DEVNULL
        elif word == "-z":
            names = words.pop(0).split()
    names = names or ([words.pop(0)] if words else [])
    if "LSB_JOBID" not in os.environ:
        raise Refused("blaunch must be run in a job")
    for name in names:
        if name not in os.environ["LSB_HOSTS"].split():
            raise Refused(f"{name}: Host is not allocated to the job")
    if not words:
        raise Refused("blaunch: no command")
    task = {"env": dict(os.environ), "cwd": str(Path.cwd()), "argv": words}
    running = []
    for name in names:
        path = DIR / f"task.{uuid.uuid4().hex}"
        write(path, json.dumps(task))
        running.append(subprocess.Popen(on_host(name, ["task", str(path)]), stdin=stdin))
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, _: [process.send_signal(number) for process in running])
    codes = [process.wait() for process in running]
    sys.exit(max((code if code >= 0 else 128 - code for code in codes), default=0))


def task(argv):
    """Becomes the command of a blaunch; its environment came in a file, for arguments can be read by all."""
    path = Path(argv[0])
    given = json.loads(path.read_text())
    path.unlink()
    os.chdir(given["cwd"])
    # as with rsh, the words make one line of shell: MPICH's launcher quotes its path for that
    os.execve("/bin/sh", ["/bin/sh", "-c", " ".join(given["argv"])], given["env"])


def lsid(argv):
    print(f"{VERSION}\n\nMy cluster name is fake")
    print(f"My master name is {next(iter(hosts()))}")


COMMANDS = {"run": run, "task": task} | {f.__name__: f for f in (bsub, bjobs, bkill, bqueues, blaunch, lsid)}


def main(command, argv):
    try:
        if argv[:1] == ["-V"]:
            raise Refused(VERSION)
        COMMANDS[command](argv)
    except Refused as refused:
        print(refused, file=sys.stderr)
        sys.exit(255)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
