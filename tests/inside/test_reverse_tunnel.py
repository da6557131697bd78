"""The main job's side of the reverse way, with a program in place of ssh; the real one is in tests/end_to_end."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
from fixtures import connection

from hpclab.connection import ReverseAnswer
from hpclab.folder import SessionFolder
from hpclab.inside import reverse
from hpclab.inside.reverse import Reverse, allocated_port, asked, forget, ssh_argv

HERE = connection()
UP = """
echo "*** authorised use only ***" >&2
echo "Allocated port 1$n for remote forward to 127.0.0.1:40002" >&2
echo "Allocated port 2$n for remote forward to 127.0.0.1:40003" >&2
exec sleep 1000
"""


@pytest.fixture
def here(tmp_path: Path) -> SessionFolder:
    for name in ("reverse", "events", "bin"):
        (tmp_path / name).mkdir()
    return SessionFolder(str(tmp_path))


@pytest.fixture
def ssh(here: SessionFolder, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """ssh("…") is the shell program that ssh is from now on; `$n` counts its runs."""
    monkeypatch.setenv("PATH", f"{here.path}/bin:{os.environ['PATH']}")
    monkeypatch.setattr(reverse, "LOOK_EVERY_S", 0.02)
    program = Path(here.path) / "bin/ssh"

    def become(text: str) -> None:
        count = f'echo >> "{here.path}/runs"; n=$(wc -l < "{here.path}/runs"); echo $$ > "{here.path}/pid"'
        program.write_text(f"#!/bin/sh\n{count}\n{text}")
        program.chmod(0o755)

    yield become
    with suppress(OSError):
        os.kill(pid_of_ssh(here), signal.SIGKILL)


def pid_of_ssh(here: SessionFolder) -> int:
    return int((Path(here.path) / "pid").read_text())


@asynccontextmanager
async def a_main_job(here: SessionFolder) -> Any:
    """Watches the folder, and ends all processes as the supervisor does."""
    processes: list[Any] = []
    watching = asyncio.create_task(Reverse(here, HERE, processes).watch())
    try:
        yield processes
    finally:
        watching.cancel()
        for process in processes:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
            await process.wait()


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.01)


async def answered(here: SessionFolder, login: str = "login1") -> ReverseAnswer:
    question = Path(here.reverse_ask(login))
    question.write_text("")
    await until(lambda: not question.exists())
    return ReverseAnswer.from_text(Path(here.reverse_answer(login)).read_text())


def ports(number: int) -> ReverseAnswer:
    return ReverseAnswer(jupyter_port=10 + number, dashboard_port=20 + number)


def test_as_long_as_ssh_lives_the_answer_is_the_same(here, ssh):
    async def test() -> None:
        ssh(UP)
        async with a_main_job(here):
            assert [await answered(here) for _ in range(3)] == [ports(1)] * 3

    asyncio.run(test())


def test_when_it_has_died_there_is_a_new_one(here, ssh):
    async def test() -> None:
        ssh(UP)
        async with a_main_job(here) as processes:
            assert await answered(here) == ports(1)
            os.kill(pid_of_ssh(here), signal.SIGKILL)
            await processes[0].wait()
            assert await answered(here) == ports(2)

    asyncio.run(test())


def test_each_login_node_has_its_own(here, ssh):
    async def test() -> None:
        ssh(UP)
        async with a_main_job(here):
            assert await answered(here, "login1") == ports(1)
            assert await answered(here, "login2") == ports(2)
            assert await answered(here, "login1") == ports(1)

    asyncio.run(test())


def test_a_login_node_that_hangs_keeps_no_other_waiting(here, ssh):
    async def test() -> None:
        ssh("""for login; do :; done; [ $login = login2 ] || exec sleep 1000\n""" + UP)
        async with a_main_job(here):
            Path(here.reverse_ask("login1")).write_text("")
            assert await answered(here, "login2") in (ports(1), ports(2))
            assert Path(here.reverse_ask("login1")).exists()

    asyncio.run(test())


@pytest.mark.parametrize(
    ("program", "reason"),
    [
        ("echo 'banner' >&2; echo 'ada@login1: Permission denied (publickey).\r' >&2; exit 255", "Permission denied"),
        ("echo 'Error: remote port forwarding failed for listen port 0' >&2; exit 255", "port forwarding failed"),
        ("echo 'Allocated port 11 for remote forward to 127.0.0.1:40002' >&2; exit 255", "Allocated port 11"),
        ("exit 255", "without a word"),
    ],
)
def test_when_it_fails_the_reason_is_what_ssh_said_last(here, ssh, program, reason):
    async def test() -> None:
        ssh(program)
        async with a_main_job(here):
            answer = await answered(here)
        assert reason in answer.reason
        assert (answer.jupyter_port, answer.dashboard_port) == (0, 0)

    asyncio.run(test())


def test_what_says_nothing_for_long_is_given_up_and_ended(here, ssh, monkeypatch):
    async def test() -> None:
        monkeypatch.setattr(reverse, "UP_WITHIN_S", 0.5)
        ssh("exec sleep 1000")
        async with a_main_job(here):
            assert "did not let us in within 0.5 s" in (await answered(here)).reason
            await until(lambda: not psutil.pid_exists(pid_of_ssh(here)))

    asyncio.run(test())


def test_it_is_told_in_the_jobs_story(here, ssh):
    async def test() -> None:
        ssh(UP)
        async with a_main_job(here):
            await answered(here)

    asyncio.run(test())
    (line,) = Path(here.events("1")).read_text().splitlines()
    assert {"event": "reverse", "login": "login1"}.items() <= json.loads(line).items()


def test_ssh_ends_with_us_whatever_ends_us(here, ssh):
    """The supervisor may be killed; its input to the shell before ssh closes then."""
    ssh(UP)
    argv = ["sh", "-c", reverse.ENDS_WITH_US, "sh", "ssh"]
    with subprocess.Popen(argv, stdin=-1, stderr=-1, text=True) as shell:
        assert shell.stdin
        assert shell.stderr
        assert "authorised" in shell.stderr.readline()
        running = psutil.Process(pid_of_ssh(here))
        shell.stdin.close()
        assert running.wait(10) in (None, -signal.SIGTERM)


def test_libraries_of_the_job_are_not_for_ssh(here, ssh, monkeypatch):
    async def test() -> None:
        ssh("echo libraries: $LD_LIBRARY_PATH. >&2")
        monkeypatch.setenv("LD_LIBRARY_PATH", "/opt/odd")
        async with a_main_job(here):
            assert (await answered(here)).reason == "libraries: ."

    asyncio.run(test())


def test_without_ssh_that_is_the_reason(here, monkeypatch):
    async def test() -> None:
        monkeypatch.setenv("PATH", f"{here.path}/bin")
        (Path(here.path) / "bin/sh").symlink_to("/bin/sh")
        async with a_main_job(here):
            assert "ssh" in (await answered(here)).reason
            assert "not found" in (await answered(here)).reason

    asyncio.run(test())


# the files


def test_questions_of_odd_names_are_passed_over(here):
    for name in ("login1.ask", "-oProxyCommand=x.ask", ".login2.ask.17", "login2.answer", "a b.ask"):
        (Path(here.reverse) / name).touch()
    assert asked(here) == ["login1"]


def test_in_the_folder_of_an_older_hpclab_nothing_is_asked(tmp_path):
    assert asked(SessionFolder(str(tmp_path))) == []
    forget(SessionFolder(str(tmp_path)))


def test_questions_and_answers_of_a_job_that_is_over_are_forgotten(here):
    for path in (here.reverse_ask("login1"), here.reverse_answer("login1")):
        Path(path).touch()
    forget(here)
    assert list(Path(here.reverse).iterdir()) == []


# ssh


@pytest.mark.parametrize(
    ("line", "ports"),
    [
        ("Allocated port 34727 for remote forward to 127.0.0.1:1111", {1111: 34727}),
        ("*** authorised use only ***", {}),
        ("Warning: Permanently added 'login1' (ED25519) to the list of known hosts.", {}),
        ("", {}),
    ],
)
def test_ssh_tells_the_port_over_there(line, ports):
    assert allocated_port(line) == ports


def test_ssh_understands_it():
    """`ssh -G` reads the command line, and connects to nothing."""
    program, *rest = ssh_argv("login1", [40002, 40003])
    told = subprocess.run([program, "-F", "/dev/null", "-G", *rest], capture_output=True, text=True, check=True).stdout
    for line in ["remoteforward [127.0.0.1]:0 [127.0.0.1]:40003", "batchmode yes", "hostname login1"]:
        assert f"{line}\n" in told
