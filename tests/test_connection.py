"""What the main job announces, and the addresses that follow from it."""

from __future__ import annotations

import json
import subprocess
from dataclasses import asdict, replace

import pytest
from fixtures import connection

from hpclab.connection import (
    Connection,
    ReverseAnswer,
    dashboard_url,
    is_host_name,
    job_of_worker,
    jupyter_url,
    parse_token,
    tunnel_argv,
    worker_name,
)
from hpclab.errors import UnreadableOutput

HERE = connection()
SHUT = connection(jupyter_host="127.0.0.1", dashboard_host="127.0.0.1")
TEXT = HERE.to_text()


def test_a_connection_is_read_as_it_was_written():
    assert Connection.from_text(TEXT) == HERE


def test_what_a_later_version_adds_is_passed_over():
    assert Connection.from_text(json.dumps({**json.loads(TEXT), "colour": "red"})) == HERE


def test_it_holds_no_secret():
    assert not {name for name in asdict(HERE) if "token" in name or "key" in name or "password" in name}


@pytest.mark.parametrize(
    "text",
    [
        "",
        TEXT[:40],
        TEXT[: len(TEXT) // 2],
        TEXT[:-3],
        "[]",
        "17",
        "null",
        '"text"',
        "{}",
        "not json",
        json.dumps({**json.loads(TEXT), "jupyter_port": "eight"}),
        json.dumps({**json.loads(TEXT), "jupyter_port": None}),
        json.dumps({**json.loads(TEXT), "jupyter_port": float("inf")}),
        json.dumps({**json.loads(TEXT), "time": "noon"}),
    ],
)
def test_a_text_that_is_cut_off_or_foreign_is_refused(text):
    with pytest.raises(UnreadableOutput, match=r"connection\.json"):
        Connection.from_text(text)


def test_the_addresses_on_the_users_side():
    assert jupyter_url("127.0.0.1", 8888) == "http://127.0.0.1:8888/lab"
    assert jupyter_url("127.0.0.1", 8888, "t0ken") == "http://127.0.0.1:8888/lab?token=t0ken"
    assert dashboard_url("127.0.0.1", 8787) == "http://127.0.0.1:8787/status"
    assert dashboard_url("127.0.0.1", 8787, "t0ken") == "http://127.0.0.1:8787/status?token=t0ken"


def test_the_tunnel_brings_both_ports():
    assert tunnel_argv(HERE, "ada@login1") == [
        "ssh", "-N", "-L", "8888:node17:40002", "-L", "8787:node17:40003", "ada@login1",
    ]  # fmt: skip


def test_the_tunnel_ends_at_the_login_node_where_the_job_runs_there():
    assert tunnel_argv(replace(SHUT, node="login1"), "ada@login1") == [
        "ssh", "-N", "-L", "8888:127.0.0.1:40002", "-L", "8787:127.0.0.1:40003", "ada@login1",
    ]  # fmt: skip


def test_the_tunnel_enters_the_node_where_the_ports_answer_there_alone():
    assert tunnel_argv(SHUT, "ada@login1") == [
        "ssh", "-N", "-J", "ada@login1", "-L", "8888:127.0.0.1:40002", "-L", "8787:127.0.0.1:40003", "ada@node17",
    ]  # fmt: skip


@pytest.mark.parametrize("destination", ["cluster", "ada@login.site.org"])
def test_the_tunnel_goes_by_the_name_that_the_user_has_for_the_login_node(destination):
    assert tunnel_argv(HERE, "ada@login1", destination)[-1] == destination
    assert tunnel_argv(replace(SHUT, node="login1"), "ada@login1", destination)[-1] == destination
    through_it = tunnel_argv(SHUT, "ada@login1", destination)
    assert (through_it[3], through_it[-1]) == (destination, "ada@node17")


@pytest.mark.parametrize(
    ("here", "host", "is_at", "needs_jump"),
    [
        (HERE, "login1", False, False),
        (HERE, "node17", False, False),
        (SHUT, "login1", False, True),
        (SHUT, "node17", True, False),
    ],
)
def test_how_a_host_reaches_the_ports(here, host, is_at, needs_jump):
    assert (here.is_at(host), here.needs_jump(host)) == (is_at, needs_jump)


@pytest.mark.parametrize("job_id", ["17", "17.pbs01", "17[3].pbs01", "17-4"])
def test_a_worker_carries_its_job_in_its_name(job_id):
    assert job_of_worker(worker_name(job_id, 2)) == job_id


@pytest.mark.parametrize("name", ["", "stray", "tcp://10.0.0.1:4000"])
def test_a_foreign_worker_has_no_job(name):
    assert job_of_worker(name) == ""


@pytest.mark.parametrize(
    ("here", "told"),
    [(HERE, "localforward 8888 [node17]:40002"), (SHUT, "proxyjump ada@login1")],
)
def test_ssh_understands_the_tunnel(here, told):
    """`ssh -G` reads the command line, and connects to nothing."""
    argv = tunnel_argv(here, "ada@login1")
    try:
        shown = subprocess.run(
            ["ssh", "-F", "/dev/null", "-G", *argv[1:]], capture_output=True, text=True, timeout=10, check=False
        )
    except FileNotFoundError:
        pytest.skip("no ssh here")
    assert told in shown.stdout


# the reverse way


@pytest.mark.parametrize(
    "answer", [ReverseAnswer(jupyter_port=40002, dashboard_port=40003), ReverseAnswer(reason="Permission denied")]
)
def test_an_answer_is_read_as_it_was_written(answer):
    assert ReverseAnswer.from_text(answer.to_text()) == answer


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "null",
        "{}",
        ReverseAnswer(jupyter_port=40002, dashboard_port=40003).to_text()[:30],
        ReverseAnswer(jupyter_port=40002).to_text(),
        '{"jupyter_port": "?", "dashboard_port": 1, "reason": ""}',
        '{"jupyter_port": 1e999, "dashboard_port": 1, "reason": ""}',
    ],
)
def test_an_answer_that_is_cut_off_or_foreign_is_none(text):
    with pytest.raises(UnreadableOutput, match="not how a main job answers"):
        ReverseAnswer.from_text(text)


@pytest.mark.parametrize(
    ("text", "is_one"),
    [
        *[(name, True) for name in ("login1", "login-2.site.org", "10.77.1.1", "login_1")],
        *[(text, False) for text in ("", "-oProxyCommand=x", ".", "..", "a/b", "a b", "a\n", "ada@login1", "lögin")],
    ],
)
def test_a_host_name_is_neither_an_option_nor_a_path(text, is_one):
    assert is_host_name(text) == is_one


# the token in its file


@pytest.mark.parametrize("token", ["0123456789abcdef" * 2, "a-b_c" * 5])
def test_a_token_is_read_from_its_file(token):
    assert parse_token(token + "\n") == token


@pytest.mark.parametrize(
    "text",
    ["", "\n", "short\n", "5ec2e7" * 6, "5ec2e7" * 6 + "\n\n", "two words " * 5 + "\n", "é" * 32 + "\n", "\0" * 33],
)
def test_a_token_that_is_cut_off_or_foreign_is_none(text):
    """An empty one would be an open door."""
    with pytest.raises(UnreadableOutput, match="token"):
        parse_token(text)
