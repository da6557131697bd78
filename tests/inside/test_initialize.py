"""`hpclab.initialize()` under a real mpiexec: what the script gets, how the program ends, and that it is closed."""

from __future__ import annotations

import os
import re
import signal
import socket
import ssl
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest
from distributed import LocalCluster
from end_to_end.harness import AnotherUser, need_root
from mpi import open_mpi
from waiting import until

from hpclab.credentials import new_credentials
from hpclab.inside.certificates import in_memory
from hpclab.launchers import without_mpi

MPIEXEC = str(Path(sys.executable).with_name("mpiexec"))
# as hpclab starts ranks: the shell makes an exit status of a signal, which this launcher lets pass
SURVIVING = ["-disable-auto-cleanup"], ["/bin/sh", "-c", 'trap "" USR1; "$@"; exit $?', "rank"]
ENDS_WITHIN_S = 180


@dataclass
class Programs:
    """Scripts that are run on several ranks, each process of which knows whose it is."""

    folder: Path
    begun: list[subprocess.Popen[str]] = field(default_factory=list)

    @property
    def environ(self) -> dict[str, str]:
        kept = {
            k: v for k, v in without_mpi(dict(os.environ)).items() if not k.startswith(("HPCLAB_", "DASK_", "SLURM"))
        }
        return {**kept, "TMPDIR": str(self.scratch), "HPCLAB_TEST": str(self.folder)}

    @property
    def scratch(self) -> Path:
        return self.folder / "scratch"

    def begin(
        self,
        script: str,
        *,
        ranks: int = 4,
        surviving: bool = False,
        mpiexec: Sequence[str] = (MPIEXEC,),
        **env: str,
    ) -> subprocess.Popen[str]:
        path = self.folder / "script.py"
        path.write_text(textwrap.dedent(script))
        options, around = SURVIVING if surviving else ([], [])
        self.begun.append(
            subprocess.Popen(
                [*mpiexec, *options, "-n", str(ranks), *around, sys.executable, str(path)],
                env=self.environ | env,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
        return self.begun[-1]

    def run(self, script: str, **how: object) -> subprocess.CompletedProcess[str]:
        return ended(self.begin(script, **how))  # type: ignore[arg-type]

    def processes(self) -> list[psutil.Process]:
        found = psutil.process_iter(["environ", "status"])
        return [
            process
            for process in found
            if process.info["status"] != psutil.STATUS_ZOMBIE
            and (process.info["environ"] or {}).get("HPCLAB_TEST") == str(self.folder)
        ]


def ended(program: subprocess.Popen[str]) -> subprocess.CompletedProcess[str]:
    stdout, stderr = program.communicate(timeout=ENDS_WITHIN_S)
    return subprocess.CompletedProcess(program.args, program.returncode, stdout, stderr)


@pytest.fixture
def programs(tmp_path) -> Iterator[Programs]:
    """Whatever becomes of them, nothing of them is left."""
    programs = Programs(tmp_path)
    programs.scratch.mkdir()
    try:
        yield programs
        until(lambda: not programs.processes(), within_s=20, what="the end of all ranks")
    finally:
        for process in programs.processes():
            process.kill()
        for program in programs.begun:
            program.wait()


@pytest.fixture
def run(programs) -> Callable[..., subprocess.CompletedProcess[str]]:
    """run(script, ranks=4) is how it ended."""
    return programs.run


def said_nothing_else(done: subprocess.CompletedProcess[str], *lines: str, exit_status: int = 0) -> bool:
    assert (done.stdout.splitlines(), done.stderr, done.returncode) == ([*lines], "", exit_status)
    return True


# what the script gets


@pytest.mark.parametrize("ranks", [3, 5])
def test_the_script_goes_on_with_a_client_of_all_workers(run, programs, ranks):
    done = run(
        """
        import hpclab
        client = hpclab.initialize()
        workers = client.scheduler_info()["workers"].values()
        print(sorted(worker["name"] for worker in workers), {worker["nthreads"] for worker in workers})
        print(client.gather(client.map(lambda x: x * x, range(4))))
        from dask.distributed import Client
        with Client() as another:
            print(another.submit(sum, [1, 2]).result(), another.scheduler.address == client.scheduler.address)
        print(hpclab.initialize() is client, bool(client))
        """,
        ranks=ranks,
    )
    assert said_nothing_else(done, f"{list(range(2, ranks))} {{1}}", "[0, 1, 4, 9]", "3 True", "True True")
    assert not list(programs.scratch.glob("hpclab-*"))


WHAT_A_WORKER_HAS = """
    import os, hpclab
    client = hpclab.initialize(ARGUMENTS)
    (worker,) = client.scheduler_info()["workers"].values()
    print(worker["nthreads"], worker["memory_limit"], worker["resources"])
    def folder(dask_worker):
        return os.path.dirname(os.path.dirname(dask_worker.local_directory))
    print(*client.run(folder).values())
    print(*client.run(lambda dask_worker: oct(os.stat(folder(dask_worker)).st_mode)).values())
    """


def test_a_worker_has_what_its_job_has_and_what_is_said(run, tmp_path):
    job = {"SLURM_JOB_ID": "7", "SLURM_CPUS_PER_TASK": "3", "SLURM_MEM_PER_CPU": "500"}
    done = run(WHAT_A_WORKER_HAS.replace("ARGUMENTS", ""), ranks=3, **job)
    size, folder, mode = done.stdout.splitlines()
    assert (done.stderr, size, mode) == ("", f"3 {1500 * 2**20} {{}}", "0o40700")
    assert Path(folder).parent == tmp_path / "scratch"
    said = f"2, {str(tmp_path)!r}, '1GB', worker_options={{'resources': {{'GPU': 1}}}}"
    done = run(WHAT_A_WORKER_HAS.replace("ARGUMENTS", f"None, {said}"), ranks=3, **job)
    size, folder, _ = done.stdout.splitlines()
    assert (done.stderr, size, Path(folder).parent) == ("", "2 1000000000 {'GPU': 1}", tmp_path)


def test_a_folder_that_a_killed_rank_has_left_goes_with_the_next_one(run, programs):
    killed = run("import os, signal, hpclab; hpclab.initialize(); os.kill(os.getpid(), signal.SIGKILL)", ranks=3)
    assert killed.returncode != 0
    left = list(programs.scratch.glob("hpclab-rank-*"))
    assert left
    foreign = programs.scratch / "hpclab-rank-a-file"
    foreign.touch()
    assert said_nothing_else(run("import hpclab; hpclab.initialize()", ranks=3))
    assert not [folder for folder in left if folder.exists()]
    assert foreign.exists()


def test_it_waits_for_as_many_workers_as_one_likes(run):
    begun = """
        import hpclab
        client = hpclab.initialize(n_workers=0)
        print(len(client.scheduler_info(n_workers=-1)["workers"]) <= 2)
        """
    assert said_nothing_else(run(begun), "True")
    late = run(
        """
        import asyncio, hpclab
        from distributed import Worker
        class Late(Worker):
            async def start_unsafe(self):
                await asyncio.Event().wait()
        hpclab.initialize(worker_class=Late, timeout_s=0.5)
        """
    )
    assert late.returncode == 1
    assert re.search(r"TookTooLong: 0 of 2 Dask workers joined within 0.5 s\n.*timeout_s=…\)\n$", late.stderr)


def test_mpi_goes_on_working_beside_dask(run):
    """Tasks on the ranks of the workers, which call MPI, as in a program of the user's own communicator."""
    done = run(
        """
        from mpi4py import MPI
        import hpclab
        client = hpclab.initialize(comm=MPI.COMM_WORLD)
        group = MPI.COMM_WORLD.Get_group().Incl([2, 3])
        def of_workers():
            from mpi4py import MPI
            workers = MPI.COMM_WORLD.Create_group(MPI.COMM_WORLD.Get_group().Incl([2, 3]))
            return workers.allreduce(MPI.COMM_WORLD.Get_rank())
        print(*client.run(of_workers).values())
        """
    )
    assert said_nothing_else(done, "5 5")


def test_workers_come_back_after_a_restart(run):
    done = run(
        """
        import hpclab
        client = hpclab.initialize()
        client.restart()
        client.wait_for_workers(2)
        print(client.submit(sum, [2, 3]).result())
        """
    )
    assert (done.stdout, done.returncode) == ("5\n", 0)


def test_workers_may_be_nannies(run):
    done = run(
        """
        import os, hpclab
        if __name__ == "__main__":
            client = hpclab.initialize(worker_class="distributed.Nanny")
            print(client.submit(lambda: os.getpid() != os.getppid()).result())
        """,
        ranks=3,
    )
    assert said_nothing_else(done, "True")


@pytest.fixture
def a_cluster_of_another(tmp_path) -> Iterator[str]:
    with LocalCluster(
        n_workers=2,
        threads_per_worker=1,
        processes=False,
        protocol="tcp",
        dashboard_address=None,
        local_directory=str(tmp_path),
    ) as cluster:
        yield cluster.scheduler_address


def test_where_a_scheduler_is_there_already_it_connects_and_starts_nothing(programs, a_cluster_of_another):
    script = programs.folder / "script.py"
    script.write_text(
        "import sys, hpclab; client = hpclab.initialize(); print(len(client.scheduler_info()['workers']))"
    )
    env = {"DASK_SCHEDULER_ADDRESS": a_cluster_of_another, "HPCLAB_PROGRAM_WORKERS": "2"}
    env = programs.environ | env
    done = subprocess.run([sys.executable, script], env=env, capture_output=True, text=True, timeout=ENDS_WITHIN_S)
    assert said_nothing_else(done, "2")


# how the program ends

HELLO = """
    import os, signal, sys, time
    import hpclab
    client = hpclab.initialize()
    print("hello", flush=True)
    """


def after_hello(lines: str) -> str:
    return textwrap.dedent(HELLO) + textwrap.dedent(lines)


@pytest.mark.parametrize(
    ("end", "exit_status", "told"),
    [
        ("sys.exit(3)", 3, ""),
        ("raise SystemExit('I cannot go on')", 1, "I cannot go on\n"),
        ("client.submit(time.sleep, 3600); client.submit(int, 1).result()", 0, ""),
        ("client.close()", 0, ""),
        ("client.shutdown(); print(len(sys.argv), file=sys.stderr)", 0, "1\n"),
    ],
)
def test_it_ends_quietly_and_with_the_scripts_exit_status(run, end, exit_status, told):
    done = run(after_hello(end))
    assert (done.stdout, done.stderr, done.returncode) == ("hello\n", told, exit_status)


@pytest.mark.parametrize(("end", "exit_status"), [("", 0), ("sys.exit(3)", 3)])
def test_under_open_mpi_as_well(programs, end, exit_status):
    begun = programs.begin(after_hello(end), mpiexec=[open_mpi.MPIEXEC, "--oversubscribe"], **open_mpi.ENVIRON)
    assert said_nothing_else(ended(begun), "hello", exit_status=exit_status)


def test_a_script_may_go_on_without_dask_for_longer_than_the_ranks_take_to_end(run):
    """No rank may leave before: the launcher would take that for a failure, and end the script."""
    done = run(after_hello("client.shutdown(); time.sleep(8); print('still here')"))
    assert said_nothing_else(done, "hello", "still here")


def test_an_exception_is_told_once(run):
    done = run(after_hello("raise ValueError('no such file')"))
    assert (done.stdout, done.returncode) == ("hello\n", 1)
    assert re.fullmatch(
        r'Traceback \(most recent call last\):\n  File ".*script.py", line 6, in <module>\n.*\n(.*\n)?'
        r"ValueError: no such file\n",
        done.stderr,
    )


def test_an_exception_before_it_is_every_ranks_own(run):
    done = run("raise ValueError('before')", ranks=3)
    assert (done.stdout, done.returncode) == ("", 1)
    # the launcher may end the others when the first has ended
    assert 1 <= done.stderr.count("ValueError: before") <= 3


def test_an_error_of_a_task_is_told_by_its_worker_and_by_the_script(run):
    done = run(after_hello("client.submit(lambda: 1 / 0).result()"))
    assert (done.stdout, done.returncode) == ("hello\n", 1)
    assert "distributed.worker - ERROR - Compute Failed" in done.stderr
    assert done.stderr.count("Traceback (most recent call last)") == 1
    assert done.stderr.endswith("ZeroDivisionError: division by zero\n")


def test_what_tasks_print_arrives(run):
    done = run(after_hello("client.submit(print, 'from a task').result()"))
    assert (sorted(done.stdout.splitlines()), done.stderr) == (["from a task", "hello"], "")


@pytest.mark.parametrize("end", ["os.kill(os.getpid(), signal.SIGKILL)", "os._exit(4)"])
@pytest.mark.parametrize("surviving", [True, False])
def test_when_the_script_is_killed_all_others_end(run, end, surviving):
    """By the launcher or, where it lets them live, by themselves."""
    begin = time.monotonic()
    done = run(after_hello(end), surviving=surviving)
    # after that come the launcher's own words
    assert (done.stdout.startswith("hello\n"), done.returncode != 0) == (True, True)
    assert "Traceback" not in done.stderr
    assert time.monotonic() - begin < 40


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_and_a_batch_systems_word_end_all(programs, number):
    program = programs.begin(after_hello("client.submit(time.sleep, 3600).result()"))
    assert program.stdout
    assert program.stdout.readline() == "hello\n"
    program.send_signal(number)
    assert ended(program).returncode != 0


def test_a_worker_that_dies_is_lost_alone_where_the_launcher_lets_the_others_live(run):
    done = run(
        after_hello(
            """
            doomed = client.submit(os.getpid, workers=[2])
            os.kill(doomed.result(), signal.SIGKILL)
            while len(client.scheduler_info(n_workers=-1)["workers"]) == 2:
                time.sleep(0.1)
            print(client.submit(sum, [1, 2]).result())
            """
        ),
        surviving=True,
    )
    assert (done.stdout, done.returncode != 0) == ("hello\n3\n", True)
    assert "Traceback" not in done.stderr


def test_when_all_workers_have_died_what_waits_for_one_fails(run):
    done = run(
        after_hello(
            """
            for rank in (2, 3):
                os.kill(client.submit(os.getpid, workers=[rank], pure=False).result(), signal.SIGKILL)
            print(type(client.submit(sum, [1, 2]).exception(timeout=30)).__name__)
            """
        ),
        surviving=True,
    )
    assert (done.stdout, done.returncode != 0) == ("hello\nNoWorkerError\n", True)


def test_ten_programs_in_a_row_leave_what_was_there_before(programs):
    """In a folder for shared memory of their own, for others on this machine use the usual one."""
    need_root()
    script = programs.folder / "script.py"
    script.write_text(after_hello(""))
    commands = [
        "mount -t tmpfs none /dev/shm",
        *[f"{MPIEXEC} -n 3 {sys.executable} {script}"] * 10,
        "ls -A /dev/shm",
    ]
    argv = ["unshare", "--mount", "sh", "-ec", "\n".join(commands)]
    done = subprocess.run(argv, env=programs.environ, capture_output=True, text=True, timeout=10 * ENDS_WITHIN_S)
    assert said_nothing_else(done, *["hello"] * 10)
    assert not list(programs.scratch.iterdir())


# what cannot be


@pytest.mark.parametrize("ranks", [1, 2])
def test_less_than_three_ranks_are_too_few(run, ranks):
    done = run("import hpclab; hpclab.initialize(); print('never')", ranks=ranks)
    assert (done.stdout, done.returncode) == ("", 1)
    assert done.stderr.count("cannot be a Dask cluster") == 1
    assert done.stderr.endswith("\nstart it on three or more: mpirun -np 3 python script.py\n")


def test_a_launcher_of_another_mpi_is_told_once(programs):
    """Each rank is alone then, and only the launcher's variables know of the others."""
    script = programs.folder / "script.py"
    script.write_text("import hpclab; hpclab.initialize()")
    begun = [
        subprocess.Popen(
            [sys.executable, script],
            env=programs.environ | {"OMPI_COMM_WORLD_SIZE": "3", "OMPI_COMM_WORLD_RANK": str(rank)},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(3)
    ]
    told = [(each.communicate(timeout=ENDS_WITHIN_S)[1], each.returncode) for each in begun]
    assert ["hpclab" in words for words, _ in told] == [True, False, False]
    assert [exit_status for _, exit_status in told] == [1, 1, 1]
    assert "3 MPI ranks were started, but they found themselves in worlds of 1" in told[0][0]
    assert told[0][0].splitlines()[-1].startswith("start the program by the mpirun of that library")


@pytest.mark.parametrize(
    ("argument", "words"),
    [
        ("n_workers=3", "n_workers must be a whole number from 0 to 2, not 3"),
        ("dashboard_address='0.0.0.0:8787'", "the dashboard cannot be at '0.0.0.0:8787'"),
        ("worker_class='nowhere.Worker'", "No module named 'nowhere'"),
        ("interface='ib7'", "no network interface 'ib7' is up"),
    ],
)
def test_a_wrong_argument_is_told_once(run, argument, words):
    done = run(f"import hpclab; hpclab.initialize({argument}); print('never')")
    assert (done.stdout, done.returncode, done.stderr.count(words)) == ("", 1, 1)


def test_a_worker_that_cannot_start_ends_all_and_says_why(run):
    done = run("import hpclab; hpclab.initialize(worker_options={'no_such': 1}); print('never')")
    assert ("never" in done.stdout, done.returncode != 0) == (False, True)
    assert "no_such" in done.stderr


# closed


@pytest.fixture
def a_running_program(programs) -> Iterator[subprocess.Popen[str]]:
    """One that has said hello, and waits."""
    program = programs.begin(after_hello("time.sleep(3600)"), ranks=3)
    assert program.stdout
    assert program.stdout.readline() == "hello\n"
    yield program
    program.send_signal(signal.SIGTERM)
    ended(program)


def ranks(programs: Programs) -> list[psutil.Process]:
    return [process for process in programs.processes() if "script.py" in " ".join(process.cmdline()[1:2])]


def listening(processes: list[psutil.Process]) -> set[tuple[str, int]]:
    return {
        (connection.laddr.ip, connection.laddr.port)
        for process in processes
        for connection in process.net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    }


def is_talked_to(port: int, context: ssl.SSLContext) -> bool:
    """Whether who connects there hears a single byte."""
    try:
        with socket.create_connection(("127.0.0.1", port), 5) as line:
            line.settimeout(2)
            with context.wrap_socket(line) as greeted:
                return bool(greeted.recv(1))
    except (OSError, TimeoutError):
        return False


def stranger() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


def member(rank: psutil.Process) -> ssl.SSLContext:
    """With what that rank has in its memory, which root can look at."""
    paths = [fd for fd in Path(f"/proc/{rank.pid}/fd").iterdir() if str(fd.readlink()).startswith("/memfd:hpclab")]
    (key,) = (path for path in paths if b"PRIVATE KEY" in path.read_bytes())
    context = stranger()
    for path in set(paths) - {key}:
        try:
            context.load_cert_chain(path, key)
        except ssl.SSLError:  # it is the CA's
            continue
        return context
    raise AssertionError("no certificate of this key")


def test_without_its_certificate_nobody_gets_in(programs, a_running_program):
    need_root()
    # the launcher's own control port is open in all that it has started
    launchers = [
        process for process in programs.processes() if "mpiexec" in process.name() or "hydra" in process.name()
    ]
    ports = listening(ranks(programs)) - listening(launchers)
    assert {ip for ip, _ in ports} == {"127.0.0.1"}
    another_user = AnotherUser()
    assert not [port for _, port in ports if another_user(lambda port: is_talked_to(port, stranger()), port)]
    certified = member(ranks(programs)[0])
    assert [port for _, port in ports if is_talked_to(port, certified)]
    # the web servers of the scheduler and the worker have no page
    assert sorted(page(port) for _, port in ports) == ["404", "404", *["nothing"] * (len(ports) - 2)]


def page(port: int) -> str:
    with socket.create_connection(("127.0.0.1", port), 5) as line:
        line.sendall(b"GET /status HTTP/1.0\r\n\r\n")
        try:
            answer = line.recv(100)
        except ConnectionError:
            answer = b""
    return answer.decode().split()[1] if answer.startswith(b"HTTP") else "nothing"


def test_no_file_argv_or_environment_holds_a_key(programs, a_running_program):
    secret = b"PRIVATE KEY"
    found = ranks(programs)
    assert len(found) == 3
    for process in found:
        for told in ("cmdline", "environ"):
            assert secret not in Path(f"/proc/{process.pid}/{told}").read_bytes()
        ours = [
            fd for fd in Path(f"/proc/{process.pid}/fd").iterdir() if str(fd.readlink()).startswith("/memfd:hpclab")
        ]
        assert [secret in fd.read_bytes() for fd in ours].count(True) == 1
    files = [path for path in programs.folder.rglob("*") if path.is_file() and path.name != "script.py"]
    assert not [path for path in files if secret in path.read_bytes()]


def test_dask_is_given_no_text_that_it_would_write_into_a_file(run):
    """It makes a folder for each such text; the only folders that are made are for what is spilled."""
    done = run(
        """
        import sys, os
        from pathlib import Path
        def hook(event, args):
            if event == "tempfile.mkdtemp":
                print(Path(args[0]).name.rpartition("-")[0], flush=True)
        sys.addaudithook(hook)
        import hpclab
        hpclab.initialize().submit(int, 1).result()
        """,
        ranks=3,
    )
    assert (sorted(done.stdout.splitlines()), done.stderr) == (
        ["hpclab-rank", "hpclab-rank", "scheduler", "worker"],
        "",
    )


def test_a_text_in_memory_is_its_users_alone():
    need_root()
    path = in_memory(new_credentials("program").key_pem)
    assert path.startswith("/proc/")
    assert "PRIVATE KEY" in Path(path).read_text()

    def read(path: str) -> str:
        try:
            return Path(path).read_text()
        except PermissionError:
            return "forbidden"

    assert AnotherUser()(read, path) == "forbidden"


def test_there_is_a_dashboard_only_where_it_is_asked_for(run):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    done = run(
        f"""
        import urllib.request, hpclab
        client = hpclab.initialize(dashboard_address={port})
        print(urllib.request.urlopen("http://127.0.0.1:{port}/status").status, client.dashboard_link)
        """,
        ranks=3,
    )
    assert said_nothing_else(done, f"200 http://127.0.0.1:{port}/status")
