"""Asking the main job for its ports on a login node: a question is gone when it has been answered."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from fixtures import folder

from hpclab.connection import ReverseAnswer
from hpclab.errors import ConfigError, NotRunning, TookTooLong
from hpclab.folder import SessionFolder
from hpclab.hosts.local import LocalHost
from hpclab.hosts.recording import RecordingHost
from hpclab.reverse import are_held, ask_reverse, listeners, opened_ports

HOST = LocalHost({})
UP = ReverseAnswer(jupyter_port=40002, dashboard_port=40003).to_text()


@pytest.fixture
def here(tmp_path: Path) -> SessionFolder:
    (tmp_path / "reverse").mkdir()
    return SessionFolder(str(tmp_path))


@pytest.fixture
def a_main_job(here: SessionFolder) -> Iterator[list[str | None]]:
    """It gives these answers one after the other, None where it cannot write one."""
    answers: list[str | None] = []
    over = threading.Event()

    def work() -> None:
        question, answer = Path(here.reverse_ask("login1")), Path(here.reverse_answer("login1"))
        while not over.wait(0.01):
            if answers and question.exists():
                given = answers.pop(0)
                answer.unlink(missing_ok=True)
                if given is not None:
                    answer.write_text(given)
                question.unlink()

    with ThreadPoolExecutor(1) as pool:
        working = pool.submit(work)
        yield answers
        over.set()
        working.result()


def asked(here: SessionFolder) -> tuple[int, int]:
    return ask_reverse(HOST, here, "login1", within_s=10)


def test_the_ports_are_what_the_main_job_answers(here, a_main_job):
    a_main_job.append(UP)
    assert asked(here) == (40002, 40003)


def test_an_earlier_answer_is_not_taken_for_this_one(here, a_main_job):
    Path(here.reverse_answer("login1")).write_text(UP)
    a_main_job.append(ReverseAnswer(jupyter_port=50002, dashboard_port=50003).to_text())
    assert asked(here) == (50002, 50003)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (ReverseAnswer(reason="ada@login1: Permission denied (publickey).").to_text(), "Permission denied"),
        (None, "No such file"),
        (UP[:20], "not how a main job answers"),
    ],
)
def test_when_it_cannot_the_reason_is_told_and_what_it_takes(here, a_main_job, answer, words):
    a_main_job.append(answer)
    with pytest.raises(NotRunning, match=words) as raised:
        asked(here)
    assert "login1 that asks for nothing" in str(raised.value).splitlines()[-1]


def test_a_main_job_that_does_not_answer_is_not_waited_for(here):
    with pytest.raises(TookTooLong, match="within 0 s"):
        ask_reverse(HOST, here, "login1", within_s=0.1)


def test_a_session_of_an_older_hpclab_has_no_such_way(tmp_path):
    with pytest.raises(NotRunning, match="No such file"):
        asked(SessionFolder(str(tmp_path)))


def test_what_is_no_host_name_is_no_file_name_either(here):
    with pytest.raises(ConfigError, match="no name of a login node"):
        ask_reverse(HOST, here, "../token", within_s=1)


def test_it_is_known_who_listens_on_a_port():
    text = """  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:9F4D 00000000:0000 0A 00000000:00000000 00:00000000 00000000  4001        0 1 1 0 100 0 0 10 0
   1: 0100007F:0016 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 2 1 0 100 0 0 10 0
   2: 0100007F:9F4D 0100007F:D2F0 01 00000000:00000000 00:00000000 00000000  4002        0 3 1 0 20 4 30 10 -1
"""
    assert listeners(text) == {0x9F4D: 4001, 22: 0}


@pytest.mark.parametrize(("uid", "held"), [(4001, True), (4002, False)])
def test_ports_that_another_user_has_now_are_not_held(uid, held):
    host, here = RecordingHost(), folder()
    host.files[here.reverse_answer("login")] = ReverseAnswer(jupyter_port=40000, dashboard_port=40001).to_text()
    rows = [f" 0: 0100007F:{port:04X} 0:0 0A 0:0 0:0 0 4001 0 1" for port in (40000, 40001)]
    host.files["/proc/net/tcp"] = "\n".join(["sl …", *rows])
    assert opened_ports(host, here, "login") == (40000, 40001)
    assert are_held(host, (40000, 40001), uid) is held
