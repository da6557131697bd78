"""The routes of a real server over a real session, whose jobs are stubs."""

from __future__ import annotations

import fcntl
import inspect
import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from hpclab import errors
from hpclab.errors import HpclabError
from hpclab.server.routes import BROKEN, STATUS, Route

from .a_server import TOKEN, Server

CLASSES = [cls for _, cls in inspect.getmembers(errors, inspect.isclass) if issubclass(cls, HpclabError)]


@pytest.mark.parametrize("cls", CLASSES)
def test_every_error_has_a_status(cls):
    # 401 and 403 would lead to a login page
    assert STATUS[cls] in (400, 404, 409, 422, 500, 502, 504)


def add(server: Server, request: str, **wanted: object) -> list[str]:
    return server.post("hpclab/workers", {"count": 1, "request": request, **wanted})["jobs"]


def job(server: Server, job_id: str) -> dict[str, object]:
    return next(job for job in server.session()["jobs"] if job["id"] == job_id)


def folder(server: Server) -> Path:
    return Path(server.session()["folder"])


def submitted(server: Server) -> int:
    """As the batch system counts them."""
    return len(list(Path(server.env["HPCLAB_LOCALQ_DIR"], "jobs").iterdir()))


def test_the_session_is_shown(a_server_with_a_session):
    told = a_server_with_a_session.get("hpclab/session")
    assert told["session"]["state"] == "running"
    assert next(job["role"] for job in told["session"]["jobs"]) == "main"
    assert told["defaults"]["count"] == 1
    assert (told["hint"], told["trouble"], told["waiting"]) == ("", "", "")


def test_no_answer_is_kept_by_the_browser(a_server_with_a_session):
    answer = a_server_with_a_session.ask("GET", "hpclab/session")
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.headers["Content-Type"] == "application/json"


def test_a_long_answer_comes_compressed_to_who_can_read_that(a_server_with_a_session):
    add(a_server_with_a_session, "many", count=10)
    compressed, plain = (
        a_server_with_a_session.ask(
            "GET", "hpclab/session", headers={"Authorization": f"token {TOKEN}", "Accept-Encoding": encoding}
        )
        for encoding in ("gzip", "identity")
    )
    assert compressed.headers["Content-Encoding"] == "gzip"
    assert "Content-Encoding" not in plain.headers
    assert compressed.json()["session"]["name"] == plain.json()["session"]["name"]
    assert int(compressed.headers["Content-Length"]) < len(plain.content) / 3


def test_workers_are_added_in_words(a_server_with_a_session):
    jobs = add(a_server_with_a_session, "words", count=2, cores="2", memory="512M", walltime="20m")
    for added in (job(a_server_with_a_session, job_id) for job_id in jobs):
        assert (added["cores"], added["memory_bytes"], added["walltime_s"]) == (2, 2**29, 1200)
    assert a_server_with_a_session.get("hpclab/session")["defaults"]["walltime"] == "0:20:00"


def test_a_click_that_is_said_twice_is_carried_out_once(a_server_with_a_session):
    before = submitted(a_server_with_a_session)
    with ThreadPoolExecutor(8) as several:
        told = list(several.map(lambda _: add(a_server_with_a_session, "one click"), range(8)))
    assert [jobs for jobs in told if jobs != told[0]] == []
    assert add(a_server_with_a_session, "one click") == told[0]
    assert submitted(a_server_with_a_session) == before + 1
    assert add(a_server_with_a_session, "another click") != told[0]


@pytest.mark.parametrize("count", [0, -1, 10**9, "text", True, 1.5, None])
def test_a_count_that_makes_no_sense_is_told(a_server_with_a_session, count):
    before = submitted(a_server_with_a_session)
    answer = a_server_with_a_session.ask("POST", "hpclab/workers", {"count": count, "request": f"bad {count}"})
    assert answer.status_code == 400
    assert answer.json()["error"] == "ConfigError"
    assert "whole number from 1 to 10000" in answer.json()["message"]
    assert submitted(a_server_with_a_session) == before


@pytest.mark.parametrize("body", ["", "[]", "{", '{"count": 1, "request": "x", "argv": ["sh"]}'])
def test_a_body_that_makes_no_sense_is_told(a_server_with_a_session, body):
    answer = a_server_with_a_session.ask("POST", "hpclab/workers", body)
    assert (answer.status_code, answer.json()["error"]) == (400, "ConfigError")


def test_what_the_batch_system_will_never_run_is_told_in_its_words(a_server_with_a_session):
    answer = a_server_with_a_session.ask("POST", "hpclab/workers", {"count": 1, "request": "much", "cores": "90000"})
    assert (answer.status_code, answer.json()["error"]) == (422, "Refused")
    assert "90000" in answer.json()["message"]


def test_a_worker_is_retired(a_server_with_a_session):
    (job_id,) = add(a_server_with_a_session, "to be retired")
    told = a_server_with_a_session.ask("DELETE", f"hpclab/workers/{job_id}")
    assert (told.status_code, told.json()) == (200, {"text": f"job {job_id} was cancelled"})
    assert job(a_server_with_a_session, job_id)["state"] == "cancelled"


def test_the_main_job_is_not_a_worker(a_server_with_a_session):
    main = a_server_with_a_session.session()["jobs"][0]["id"]
    answer = a_server_with_a_session.ask("DELETE", f"hpclab/workers/{main}")
    assert (answer.status_code, answer.json()["error"]) == (409, "NotRunning")
    assert job(a_server_with_a_session, main)["state"] == "running"


def test_a_session_is_scaled(a_server_with_a_session):
    server = a_server_with_a_session
    assert "submitted 1 worker job" in server.post("hpclab/scale", {"workers": 1 + alive(server.session()) + 1})["text"]
    assert "cancelled" in server.post("hpclab/scale", {"workers": 1})["text"]
    server.session_when(lambda session: alive(session) == 0)
    assert server.post("hpclab/scale", {"workers": 1})["text"] == "nothing to do"


def alive(session: dict[str, object]) -> int:
    """Worker jobs that wait or run; in each there is one worker."""
    return sum(
        job["role"] == "worker" and job["state"] in ("pending", "running", "completing") for job in session["jobs"]
    )


def test_a_job_tells_its_story_and_shows_its_log(a_server_with_a_session):
    main = a_server_with_a_session.session()["jobs"][0]["id"]
    told = a_server_with_a_session.get(f"hpclab/jobs/{main}/why")
    assert [event["what"] for event in told["events"]][:2] == ["submitted", "started"]
    assert told["events"][0]["sentence"] == "submitted to local"
    told = a_server_with_a_session.get(f"hpclab/jobs/{main}/log")
    assert "hello from hpclab.inside.main_job" in told["text"]
    assert not told["is_cut"]


def test_a_very_long_log_is_tailed(a_server_with_a_session):
    main = a_server_with_a_session.session()["jobs"][0]["id"]
    log = folder(a_server_with_a_session) / f"logs/{main}.log"
    before = log.read_bytes()
    with log.open("r+b") as file:  # five gigabytes, of which nothing is on the disk
        file.seek(5 * 2**30)
        file.write(b"\n<b>the end</b>\n" + b"x" * 100_000 + b"\nlast\n")
    told = a_server_with_a_session.get(f"hpclab/jobs/{main}/log?lines=100")
    assert told["is_cut"]
    assert told["text"].endswith("\nlast")
    assert len(told["text"]) < 1_000_000
    told = a_server_with_a_session.get(f"hpclab/jobs/{main}/log?lines=10000")
    assert told["is_cut"]
    assert len(told["text"]) < 5_000_000
    log.write_bytes(before)


@pytest.mark.parametrize("lines", ["0", "10001", "-1", "x", ""])
def test_so_many_lines_are_not_sent(a_server_with_a_session, lines):
    main = a_server_with_a_session.session()["jobs"][0]["id"]
    answer = a_server_with_a_session.ask("GET", f"hpclab/jobs/{main}/log?lines={lines}")
    assert (answer.status_code, answer.json()["error"]) == (400, "ConfigError")


@pytest.mark.parametrize("name", ["999", "..%2f..%2f..%2fetc%2fpasswd", "%2fetc%2fpasswd", "1%00", "%20", "*"])
@pytest.mark.parametrize("route", ["GET hpclab/jobs/{}/log", "GET hpclab/jobs/{}/why", "DELETE hpclab/workers/{}"])
def test_only_jobs_of_the_session_have_names(a_server_with_a_session, route, name):
    (folder(a_server_with_a_session) / "logs/999.log").write_text("somebody else's\n")
    method, path = route.split()
    answer = a_server_with_a_session.ask(method, path.format(name))
    assert answer.status_code == 404
    assert "root:" not in answer.text
    assert "somebody else's" not in answer.text


def test_a_batch_system_that_hangs_keeps_nobody_else_waiting(a_server_with_a_session):
    lock = os.open(Path(a_server_with_a_session.env["HPCLAB_LOCALQ_DIR"], "lock"), os.O_RDWR)
    fcntl.flock(lock, fcntl.LOCK_EX)
    try:
        with ThreadPoolExecutor(1) as another:
            scale = another.submit(a_server_with_a_session.ask, "POST", "hpclab/scale", {"workers": 1})
            for _ in range(20):
                assert a_server_with_a_session.ask("GET", "api/status").status_code == 200
            assert not scale.done()
            fcntl.flock(lock, fcntl.LOCK_UN)
            assert scale.result(30).status_code == 200
    finally:
        os.close(lock)


def test_two_sessions_of_one_jupyterlab_are_not_begun(a_server_with_a_session):
    answer = a_server_with_a_session.ask("POST", "hpclab/start", {"queue": "local"})
    assert (answer.status_code, answer.json()["error"]) == (409, "SessionExists")


def test_what_nobody_has_foreseen_is_not_told(monkeypatch):
    sent: list[str] = []
    monkeypatch.setattr(Route, "finish", lambda self, text: sent.append(text))
    route = Route.__new__(Route)
    route.write_error(500, exc_info=(KeyError, KeyError("5ec2e7"), None))
    assert json.loads(sent[0]) == {"error": "InternalServerError", "message": BROKEN}


def test_no_route_has_other_methods(a_server_with_a_session):
    answer = a_server_with_a_session.ask("PUT", "hpclab/scale", {"workers": 1})
    assert answer.status_code == 405
    assert set(answer.json()) == {"error", "message"}


def test_nothing_secret_is_in_an_answer_or_a_log(a_server_with_a_session):
    token = (folder(a_server_with_a_session) / "token").read_text().strip()
    assert token not in json.dumps(a_server_with_a_session.get("hpclab/session"))
    assert token not in a_server_with_a_session.log.read_text()


class TestWithoutASession:
    def test_it_is_said_how_to_start_one(self, a_plain_server):
        told = a_plain_server.get("hpclab/session")
        assert told["session"] is None
        assert "hpclab start" in told["hint"]

    @pytest.mark.parametrize(
        ("method", "path", "body"),
        [
            ("POST", "hpclab/workers", {"count": 1, "request": "x"}),
            ("DELETE", "hpclab/workers/1", None),
            ("POST", "hpclab/scale", {"workers": 1}),
            ("GET", "hpclab/jobs/1/why", None),
            ("GET", "hpclab/jobs/1/log", None),
            ("POST", "hpclab/stop", {}),
        ],
    )
    def test_nothing_else_works(self, a_plain_server, method, path, body):
        answer = a_plain_server.ask(method, path, body)
        assert (answer.status_code, answer.json()["error"]) == (404, "NoSuchSession")

    def test_one_starts_here_alone(self, a_plain_server):
        answer = a_plain_server.ask("POST", "hpclab/start", {"queue": "slurm"})
        assert (answer.status_code, answer.json()["error"]) == (400, "ConfigError")
