"""A script as a batch job, with the real mpiexec and the real Dask, on this machine's own queue."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
from harness import LOCALQ, Home, need_root
from waiting import until

JOB_ENDED, NOT_RUNNING, IS_RUN, INTERRUPTED = 6, 13, 26, 130
KILLED = 128 + signal.SIGKILL
SOON_S = 20
GIB = 2**30

INITIALIZED = """
import os, signal, sys, time
from dask_mpi import initialize
initialize(dashboard=False)
from dask.distributed import Client
client = Client()
"""
BESIDE = """
import os, signal, sys, time
from dask.distributed import Client
client = Client()
"""
SUMS = """
client.wait_for_workers(2)
print("sum", sum(client.gather(client.map(lambda x: x * x, range(10)))), *sys.argv)
print("that was all", file=sys.stderr)
"""
WAITS = """
print("ready", flush=True)
while True:
    time.sleep(0.05)
"""
ALONE = """#!/bin/sh
[ "$1" = --version ] && exit
while [ "$1" != -n ]; do shift; done
shift 2
for rank in 1 2 3; do "$@" & done
wait
"""
OURS = """
import os, signal, sys, time
import hpclab
client = hpclab.initialize()
"""
STARTS = {"mpi": INITIALIZED, "ours": OURS, "file": BESIDE}
each_launch = pytest.mark.parametrize("launch", ["mpi", "file"])
each_way = pytest.mark.parametrize("launch", STARTS)
"""`ours` is by `mpi` as well, with hpclab's own initialize()."""


@pytest.fixture
def home(a_home: Callable[..., Home]) -> Iterator[Home]:
    """Afterwards nothing of its runs is left, but their folders."""
    home = a_home(queue="local")
    home.notebooks.mkdir(parents=True)
    # not of its own path, which would be too long for unix sockets
    with tempfile.TemporaryDirectory(prefix="hpclab-test-") as scratch:
        home.settings["TMPDIR"] = scratch
        yield home
        home.clear()
        assert os.listdir(scratch) == []


def script(home: Home, text: str, name: str = "model.py") -> str:
    (home.notebooks / name).write_text(text)
    return name


def run(home: Home, text: str, *args: str, launch: str = "file", arguments: tuple[str, ...] = ()) -> Any:
    return home.run("run", "--name", "quick", *launched(launch), *args, script(home, text), *arguments)


def launched(way: str) -> list[str]:
    return ["--launch", "mpi" if way == "ours" else way]


def begin(home: Home, text: str, *args: str, launch: str = "file") -> subprocess.Popen[str]:
    """A run whose script has printed `ready`."""
    begun = home.begin("run", "--name", "slow", *launched(launch), *args, script(home, text))
    assert begun.stdout is not None
    line = begun.stdout.readline()
    assert line == "ready\n", (line, begun.stderr and begun.stderr.read())
    return begun


def end(begun: subprocess.Popen[str]) -> tuple[int, str, str]:
    stdout, stderr = begun.communicate(timeout=60)
    return begun.returncode, stdout, stderr


def ended(home: Home, name: str) -> dict[str, Any]:
    """What the run looks like when its job is over, too."""
    return until(lambda: (d := home.json("status", name))["state"] in ("ended", "failed") and d, what="its end")


def story(home: Home, name: str) -> list[str]:
    return [event["event"] for event in home.json("why", "--session", name)["events"]]


def process(home: Home, *words: str) -> psutil.Process:
    """That of the run whose argv has all these words."""
    for found in home.processes():
        with suppress(psutil.Error):
            argv = found.cmdline()
            if all(word in argv for word in words) and argv[0] != "/bin/sh" and "mpiexec" not in argv[0]:
                return found
    raise AssertionError(f"nobody runs {words}")


# what it is for


@each_launch
def test_what_the_script_prints_comes_to_stdout_and_stderr_and_its_status_is_ours(home: Home, launch: str) -> None:
    done = run(home, STARTS[launch] + SUMS + "sys.exit(7)", launch=launch, arguments=("--name", "x y", "--", "-q"))
    assert (done.returncode, done.stdout) == (7, "sum 285 model.py --name x y -- -q\n"), done.stderr
    assert "that was all\n" in done.stderr
    assert "run quick\n" in done.stderr
    described = ended(home, "quick")
    assert (described["state"], described["reason"]) == ("failed", "model.py ended with exit status 7")
    assert described["program"] == {
        "script": "model.py",
        "arguments": ["--name", "x y", "--", "-q"],
        "launch": launch,
        "exit_status": 7,
    }
    assert described["jobs"][0]["exit_status"] == 7
    assert (described["jupyter_url"], described["dashboard_url"], described["tunnel"]) == (None, None, None)


def test_a_script_that_ends_well_has_ended_well(home: Home) -> None:
    done = run(home, "import sys; print('well', __name__, sys.path[0], __file__)")
    assert (done.returncode, done.stdout) == (0, f"well __main__ {home.notebooks} {home.notebooks}/model.py\n"), (
        done.stderr
    )
    described = ended(home, "quick")
    assert (described["state"], described["reason"]) == ("ended", "model.py ended with exit status 0")
    assert {"started", "scheduler", "script", "script_ended", "exited"} <= {*story(home, "quick")}


@each_launch
def test_workers_have_what_was_asked_for_and_are_shown(home: Home, launch: str) -> None:
    text = STARTS[launch].replace(
        "(dashboard=False)", "(dashboard=False, nthreads=int(os.environ['HPCLAB_CPUS_PER_TASK']))"
    )
    begun = begin(home, text + "client.wait_for_workers(2)" + WAITS, "-n", "4", "-c", "2", launch=launch)
    expected = 2 if launch == "mpi" else 4
    described = until(
        lambda: (d := home.json("status", "slow"))["workers"]["joined"] == expected and d,
        what="all workers to be shown",
    )
    assert (described["state"], described["workers"]["cores"]) == ("running", 2 * expected)
    workers = json.loads((Path(described["folder"]) / "workers.json").read_text())["workers"]
    assert {worker["nthreads"] for worker in workers} == {2}
    assert {worker["address"].partition("://")[0] for worker in workers} == {"tls"}
    if launch == "file":
        assert {worker["memory_bytes"] for worker in workers} == {2 * GIB}
    home.ok("stop", "slow")
    assert end(begun)[0] == JOB_ENDED


def test_modules_beside_the_script_are_found_on_the_workers(home: Home) -> None:
    script(home, "def answer():\n    return 42\n", "beside.py")
    done = run(home, BESIDE + "import beside\nprint(client.submit(beside.answer).result())")
    assert (done.returncode, done.stdout) == (0, "42\n"), done.stderr


def test_a_scheduler_file_is_there_for_scripts_that_want_one(home: Home) -> None:
    text = "import os\nfrom dask.distributed import Client\n" + (
        "client = Client(scheduler_file=os.environ['HPCLAB_SCHEDULER_FILE'])\n"
        "client.wait_for_workers(int(os.environ['HPCLAB_PROGRAM_WORKERS']))\nprint(client.submit(sum, [1, 2]).result())"
    )
    done = run(home, text, "--ntasks", "1")
    assert (done.returncode, done.stdout) == (0, "3\n"), done.stderr


def test_output_comes_as_it_is_printed(home: Home) -> None:
    begun = begin(home, "import os, sys, time\nprint('ready')\nwhile not os.path.exists('go'): time.sleep(0.05)")
    (home.notebooks / "go").touch()
    assert end(begun)[:2] == (0, "")


def test_bytes_come_as_they_are(home: Home) -> None:
    text = "import sys; sys.stdout.buffer.write(bytes(range(256))); sys.stderr.buffer.write(b'\\xff\\xfe')"
    argv = [sys.executable, "-P", "-m", "hpclab", "run", "--launch", "file", script(home, text)]
    done = subprocess.run(argv, cwd=home.notebooks, env=home.environ, capture_output=True, timeout=60, check=True)
    assert done.stdout == bytes(range(256))
    assert b"\xff\xfe" in done.stderr


# scripts that fail


@each_launch
@pytest.mark.parametrize(
    ("text", "status", "said"),
    [
        ("def f():\n    raise ValueError('too early')\nf()\n{start}", 1, "ValueError: too early"),
        ("{start}\nraise ValueError('too late')", 1, "ValueError: too late"),
        ("{start}\nclient.submit(lambda: 1 / 0).result()", 1, "ZeroDivisionError"),
        ("{start}\nos.kill(os.getpid(), signal.SIGKILL)", KILLED, "model.py was killed by signal 9"),
        ("x = (", 1, "SyntaxError"),
    ],
    ids=["before", "after", "worker", "killed", "syntax"],
)
def test_a_script_that_fails_is_told_once(home: Home, launch: str, text: str, status: int, said: str) -> None:
    done = run(home, text.format(start=STARTS[launch]), launch=launch)
    assert (done.returncode, done.stdout) == (status, ""), done.stderr
    assert done.stderr.count(said) == 1, done.stderr
    assert "runpy" not in done.stderr
    until(lambda: home.json("status", "quick")["state"] == "failed", what="its end")


def test_an_exit_status_of_hpclabs_own_is_the_scripts_all_the_same(home: Home) -> None:
    done = run(home, "raise SystemExit(46)")
    assert done.returncode == 46
    described = ended(home, "quick")
    assert (described["state"], described["reason"]) == ("failed", "model.py ended with exit status 46")


@pytest.mark.parametrize("start", ["mpi", "ours"])
@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("if os.environ['PMI_RANK'] == '3':\n    open('/no/such')\n", "No such file or directory: '/no/such'"),
        ("os.mkdir('results')\n", "File exists: 'results'"),
    ],
    ids=["a file of one node", "what can be made only once"],
)
def test_what_fails_on_another_rank_before_initialize_is_told(home: Home, start: str, text: str, said: str) -> None:
    done = run(home, "import os\n" + text + STARTS[start] + "print('never')", launch=start)
    assert (done.returncode, done.stdout) == (JOB_ENDED, ""), done.stderr
    assert "model.py raised on MPI rank " in done.stderr
    assert said in done.stderr
    assert "all ranks run what stands before initialize()" in done.stderr
    assert said in ended(home, "quick")["reason"]


def test_a_worker_of_initialize_that_cannot_start_is_told(home: Home) -> None:
    done = run(home, "import hpclab\nhpclab.initialize(worker_options={'nonsense': 1})\nprint('never')", launch="mpi")
    assert (done.returncode, done.stdout) == (JOB_ENDED, ""), done.stderr
    assert re.search(r"MPI rank [23] failed: TypeError: .*'nonsense'", done.stderr), done.stderr


def test_without_a_worker_of_dask_mpi_the_script_goes_on(home: Home) -> None:
    text = """
from distributed import Worker
class Sometimes(Worker):
    async def start_unsafe(self):
        if self.name == 3:
            raise ValueError("not here")
        return await super().start_unsafe()
"""
    script(home, text, "beside.py")
    start = INITIALIZED.replace("dashboard=False", "dashboard=False, nanny=False, worker_class='beside.Sometimes'")
    done = run(
        home,
        start + "client.wait_for_workers(1)\ntime.sleep(5)\nprint(client.submit(sum, [1, 2]).result())",
        launch="mpi",
    )
    assert (done.returncode, done.stdout) == (0, "3\n"), done.stderr


def test_what_is_wrong_with_initialize_is_told_to_the_user(home: Home) -> None:
    done = run(home, "import hpclab\nhpclab.initialize(n_workers=99)\n", launch="mpi")
    assert (done.returncode, done.stdout) == (1, ""), done.stderr
    assert done.stderr.count("n_workers must be a whole number from 0 to 2, not 99") == 1, done.stderr


# closed


def test_the_pages_of_a_scheduler_that_the_script_makes_are_shut(home: Home) -> None:
    text = (
        INITIALIZED.replace("dashboard=False", "dashboard_address=':0'")
        + """
import urllib.error, urllib.request
port = client.scheduler_info()["services"]["dashboard"]
for page in ("status", "info/main/workers.html", "json/counts.json"):
    try:
        print(urllib.request.urlopen(f"http://127.0.0.1:{port}/{page}", timeout=10).status)
    except urllib.error.HTTPError as error:
        print(error.code)
"""
    )
    done = run(home, text, launch="mpi")
    assert (done.returncode, done.stdout) == (0, "403\n" * 3), done.stderr


@each_launch
def test_hpclabs_own_initialize_connects(home: Home, launch: str) -> None:
    text = """
import hpclab
client = hpclab.initialize()
print(client.submit(sum, [1, 2]).result(), client.scheduler.address.partition("://")[0])
raise SystemExit(5)
"""
    done = run(home, text, "--ntasks", "3", launch=launch)
    assert (done.returncode, done.stdout) == (5, "3 tls\n"), done.stderr
    # quietly: nothing but our own lines
    assert [line for line in done.stderr.splitlines() if not line.startswith(("run quick", "  "))] == []


# scripts that never call initialize()


def test_without_initialize_the_script_runs_once_and_is_told_so(home: Home) -> None:
    done = run(home, "open('marks', 'a').write('x'); print('done')", launch="mpi")
    assert (done.returncode, done.stdout) == (0, "done\n"), done.stderr
    assert (home.notebooks / "marks").read_text() == "x"
    assert "model.py has not called initialize(): it ran once, and 3 MPI ranks waited in vain" in done.stderr
    assert "--launch file" in done.stderr


def test_a_client_before_initialize_fails_at_once(home: Home) -> None:
    done = run(home, BESIDE + "print('never')", launch="mpi")
    assert (done.returncode, done.stdout) == (1, ""), done.stderr
    assert "call hpclab.initialize() before Client()" in done.stderr


def test_a_program_that_is_mpi_alone_runs_on_all_ranks_and_is_told_so(home: Home) -> None:
    text = "from mpi4py import MPI\nworld = MPI.COMM_WORLD\nprint(world.Get_rank(), world.allreduce(1))"
    done = run(home, text, launch="mpi")
    assert (done.returncode, done.stdout) == (0, "1 4\n"), done.stderr
    assert "it ran on all 4 ranks" in done.stderr


@each_way
def test_a_script_may_shut_dask_down_and_go_on(home: Home, launch: str) -> None:
    text = STARTS[launch] + SUMS + "client.shutdown()\ntime.sleep(5)\nprint('a figure')\nsys.exit(4)"
    done = run(home, text, launch=launch)
    assert (done.returncode, done.stdout) == (4, "sum 285 model.py\na figure\n"), done.stderr


@each_launch
def test_a_worker_has_the_threads_that_the_user_wants(home: Home, launch: str) -> None:
    text = STARTS[launch] + "print(client.submit(os.environ.get, 'OMP_NUM_THREADS').result())"
    done = run(home, text, "--export", "OMP_NUM_THREADS=3", launch=launch)
    assert (done.returncode, done.stdout) == (0, "3\n"), done.stderr


# what can die


@each_way
def test_the_scheduler_dies(home: Home, launch: str) -> None:
    begun = begin(home, STARTS[launch] + WAITS, launch=launch)
    if launch == "file":
        process(home, "hpclab.inside.program_scheduler").kill()
    else:
        until(lambda: "scheduler" in story(home, "slow"), what="the scheduler to be told")
        told = [e for e in home.json("why", "--session", "slow")["events"] if e["event"] == "scheduler"]
        port = int(told[0]["address"].rpartition(":")[2])
        listening(home, port).kill()
    status, _, stderr = end(begun)
    assert (status, "the Dask scheduler died" in stderr) == (JOB_ENDED, True), stderr
    assert "the Dask scheduler died" in home.json("status", "slow")["reason"]


def listening(home: Home, port: int) -> psutil.Process:
    for found in home.processes():
        with suppress(psutil.Error):
            if any(c.laddr.port == port for c in found.net_connections() if c.status == psutil.CONN_LISTEN):
                return found
    raise AssertionError(f"nobody listens at {port}")


@each_way
def test_a_worker_dies_and_the_script_goes_on(home: Home, launch: str) -> None:
    text = """
client.wait_for_workers(2)
victim = next(iter(client.scheduler_info()["workers"]))
pid = client.run(os.getpid, workers=[victim])[victim]
os.kill(pid, signal.SIGKILL)
while victim in client.scheduler_info()["workers"]:
    time.sleep(0.05)
client.wait_for_workers(1)
print("sum", sum(client.gather(client.map(lambda x: x * x, range(10)))))
sys.exit(3)
"""
    done = run(home, STARTS[launch] + text, launch=launch)
    assert (done.returncode, done.stdout) == (3, "sum 285\n"), done.stderr
    assert ended(home, "quick")["reason"] == "model.py ended with exit status 3"


def test_the_supervisor_is_killed(home: Home) -> None:
    begun = begin(home, BESIDE + WAITS)
    process(home, "hpclab.inside.program").kill()
    status, _, stderr = end(begun)
    assert (status, "supervisor was killed by signal 9" in stderr) == (JOB_ENDED, True), stderr


def test_the_follower_is_killed_and_the_run_goes_on(home: Home) -> None:
    begun = begin(home, BESIDE + WAITS)
    begun.kill()
    begun.communicate()
    assert home.json("status", "slow")["state"] == "running"


# the end that the batch system brings


HEARS = """
def hear(*_):
    print("heard", client.submit(sum, [1, 2]).result(timeout=4), flush=True)
    sys.exit(0)
signal.signal(signal.SIGTERM, hear)
client.wait_for_workers(1)
"""


@each_way
def test_a_cancelled_run_lets_the_script_say_a_last_word(home: Home, launch: str) -> None:
    begun = begin(home, STARTS[launch] + HEARS + WAITS, launch=launch)
    assert "cancelled main job 1, which was running" in home.ok("stop", "slow")
    status, stdout, stderr = end(begun)
    assert (status, stdout, "cancelled" in stderr) == (JOB_ENDED, "heard 3\n", True), stderr
    assert home.json("status", "slow")["state"] == "ended"
    assert home.json("status", "slow")["reason"].startswith("stopped at")


@each_way
def test_a_stop_that_the_batch_system_never_hears(home: Home, launch: str) -> None:
    """It is written down before the job is cancelled; that alone must not cut the last word short."""
    begun = begin(home, STARTS[launch] + HEARS + WAITS, launch=launch)
    Path(home.json("status", "slow")["folder"], "over").write_text("stopped at noon\n")
    status, stdout, stderr = end(begun)
    assert (status, stdout) == (JOB_ENDED, "heard 3\n"), stderr
    assert (described := ended(home, "slow"))["reason"] == "stopped at noon", described


def test_the_walltime_is_over(home: Home) -> None:
    begun = begin(home, "import time, sys\n" + WAITS, "--walltime", "20s")
    status, _, stderr = end(begun)
    assert (status, "walltime of 20 s reached" in stderr) == (JOB_ENDED, True), stderr
    described = home.json("status", "slow")
    assert (described["state"], "walltime" in described["reason"]) == ("failed", True)


@each_way
def test_a_script_that_does_not_listen_ends_all_the_same(home: Home, launch: str) -> None:
    """Before the batch system kills all that is left, and nobody could say how it ended, and clean up."""
    text = STARTS[launch] + "import signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + WAITS
    begun = begin(home, text, launch=launch)
    home.ok("stop", "slow")
    assert end(begun)[0] == JOB_ENDED
    assert story(home, "slow")[-1] == "exited"


@pytest.fixture
def a_full_machine(home: Home, tmp_path: Path) -> Iterator[Home]:
    """Somebody else's job has all its slots."""
    home.settings["HPCLAB_LOCAL_SLOTS"] = "4"
    blocker = tmp_path / "blocker.sh"
    blocker.write_text("#!/bin/bash\n#HPCLAB --cores=4\n#HPCLAB --slots=4\nsleep 60\n")
    job_id = home.ok("submit", str(blocker), program=LOCALQ).strip()
    yield home
    home.ok("cancel", job_id, program=LOCALQ)


def test_a_run_is_cancelled_while_it_is_queued(a_full_machine: Home) -> None:
    home = a_full_machine
    begun = home.begin("run", "--name", "patient", script(home, "print(1)"))
    until(lambda: [job["state"] for job in home.jobs()] == ["RUNNING", "PENDING"], what="the job to be queued")
    assert home.json("status", "patient")["state"] == "queued"
    home.ok("stop", "patient")
    status, stdout, stderr = end(begun)
    assert (status, stdout) == (JOB_ENDED, ""), stderr
    assert "queued: " in stderr
    assert "ended before it began: cancelled" in stderr


def test_ctrl_c_while_it_is_queued(a_full_machine: Home) -> None:
    home = a_full_machine
    begun = home.begin("run", "--name", "patient", script(home, "print(1)"))
    until(lambda: [job["state"] for job in home.jobs()] == ["RUNNING", "PENDING"], what="the job to be queued")
    begun.send_signal(signal.SIGINT)
    status, _, stderr = end(begun)
    assert status == INTERRUPTED
    for said in ("the run patient is still queued, and goes on", "hpclab attach patient", "hpclab stop patient"):
        assert said in stderr
    assert "Traceback" not in stderr


# looking at it again


def test_ctrl_c_while_it_runs_and_attach_follows_it_again(home: Home) -> None:
    text = "import os, sys, time\nprint('ready')\nwhile not os.path.exists('go'): time.sleep(0.05)\nsys.exit(5)"
    begun = begin(home, text)
    begun.send_signal(signal.SIGINT)
    status, _, stderr = end(begun)
    assert (status, "the run slow is still running, and goes on" in stderr) == (INTERRUPTED, True), stderr
    attached = home.begin("attach", "slow")
    (home.notebooks / "go").touch()
    assert end(attached)[:2] == (5, "ready\n")
    assert home.run("attach", "slow").stdout == "ready\n"


def test_detached_it_says_how_to_go_on(home: Home) -> None:
    done = home.run("run", "--detach", "--name", "alone", script(home, "print('in peace')"))
    assert (done.returncode, done.stderr) == (0, "")
    for said in ("hpclab status alone", "hpclab attach alone", "hpclab stop alone"):
        assert said in done.stdout
    assert home.run("attach", "alone").stdout == "in peace\n"
    assert "model.py" in home.ok("list")
    assert "hpclab: model.py ended with exit status 0" in home.ok("logs", "--session", "alone")


def test_a_run_does_not_grow_and_is_no_session_to_connect_to(home: Home) -> None:
    begun = begin(home, BESIDE + WAITS)
    for command in (["add-worker"], ["scale", "3"], ["remove-worker", "1"]):
        done = home.run(*command, "--session", "slow")
        assert (done.returncode, "is a run of model.py" in done.stderr) == (NOT_RUNNING, True), done.stderr
    assert "no session is running" in home.run("add-worker").stderr
    home.ok("stop", "slow")
    assert end(begun)[0] == JOB_ENDED


# much output, and no room for it


def test_a_gigabyte_is_passed_on_and_never_held(home: Home) -> None:
    text = "import sys\npiece = 'x' * (2**20 - 1) + '\\n'\nfor _ in range(1024): sys.stdout.write(piece)"
    begun = home.begin("run", "--launch", "file", script(home, text))
    assert begun.stdout is not None
    follower, largest, count = psutil.Process(begun.pid), 0, 0
    while data := begun.stdout.buffer.read1(2**20):
        count += len(data)
        with suppress(psutil.Error):
            largest = max(largest, follower.memory_info().rss)
    assert (end(begun)[0], count) == (0, GIB)
    assert largest < 150 * 2**20


def test_the_reader_goes_away_and_the_run_goes_on(home: Home) -> None:
    text = "import os, time\nprint('ready')\nwhile not os.path.exists('go'): print('x' * 1000); time.sleep(0.01)"
    begun = begin(home, text)
    assert begun.stdout is not None
    begun.stdout.close()
    assert begun.wait(timeout=30) == 1
    assert begun.stderr is not None
    assert "nobody reads on; slow goes on" in begun.stderr.read()
    begun.stderr.close()
    assert home.json("status", "slow")["state"] == "running"
    (home.notebooks / "go").touch()
    until(lambda: home.json("status", "slow")["state"] == "ended", what="its end")


@pytest.fixture
def a_small_disk(tmp_path: Path) -> Iterator[Path]:
    need_root()
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m,mode=700", "none", str(disk)], check=True)
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def test_a_full_disk_for_the_output_ends_the_script_and_is_told(a_small_disk: Path, home: Home) -> None:
    home.hpclab.parent.mkdir(exist_ok=True)
    home.hpclab.symlink_to(a_small_disk)
    begun = home.begin(
        *["run", "--name", "full", "--launch", "file"],
        script(home, "while True: print('x' * 1000)"),
    )
    assert begun.stdout is not None
    while begun.stdout.buffer.read1(2**20):
        pass
    status, _, stderr = end(begun)
    # whether the job can still tell that its script has ended depends on the last few bytes
    assert status in (1, JOB_ENDED), stderr
    assert "there is no space left in" in stderr or "was over before" in stderr
    assert ended(home, "full")["state"] == "failed"
    home.clear()
    home.hpclab.unlink()


# what is refused before anything is submitted


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (["--ntasks", "2", "model.py"], ["--ntasks 2 is too few", "ask for --ntasks 3 or more", "--launch file"]),
        (["--launch", "ssh", "model.py"], ["launch must be one of mpi, file"]),
        (["--nodes", "2", "model.py"], ["one node"]),
        (["nothing.py"], ["nothing.py cannot be run: No such file or directory"]),
        (["."], ["cannot be run: it is not a regular file"]),
        (["empty.py"], ["empty.py is empty"]),
    ],
    ids=lambda value: " ".join(value),
)
def test_what_makes_no_sense_is_refused_and_nothing_is_submitted(home: Home, asked: list[str], said: list[str]) -> None:
    script(home, "print(1)")
    script(home, " \n", "empty.py")
    done = home.run("run", *asked)
    assert done.returncode == 2, done.stderr
    assert [words for words in said if words not in done.stderr] == []
    assert (home.sessions(), home.jobs()) == ([], [])


def test_a_wrong_launcher_is_told(home: Home, tmp_path: Path) -> None:
    """It starts every rank alone in a world of its own."""
    launcher = tmp_path / "mpiexec"
    launcher.write_text(ALONE)
    launcher.chmod(0o755)
    home.settings["HPCLAB_MPIEXEC"] = str(launcher)
    done = run(home, "print('never')", launch="mpi")
    assert (done.returncode, done.stdout) == (JOB_ENDED, ""), done.stderr
    assert "found themselves in worlds of 1" in done.stderr


def test_time_does_not_run_out_in_the_other_ranks(home: Home) -> None:
    """What the script does before initialize() may take long; the others use no core meanwhile."""
    text = """
import os, time
import psutil
time.sleep(3)
ranks = [p for p in psutil.process_iter(["cmdline"]) if "hpclab.inside.program_rank" in (p.info["cmdline"] or [])
         and p.info["cmdline"][0] != "/bin/sh" and "mpiexec" not in p.info["cmdline"][0]
         and os.environ["HPCLAB_FOLDER"] in str(p.info["cmdline"]) and p.pid != os.getpid()]
before = [sum(p.cpu_times()[:2]) for p in ranks]
time.sleep(2)
print(len(ranks), max(sum(p.cpu_times()[:2]) - b for p, b in zip(ranks, before)) < 0.5)
"""
    began = time.monotonic()
    done = run(home, text, launch="mpi")
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[-1] == "True"
    assert time.monotonic() - began < 5 + SOON_S
