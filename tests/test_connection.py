"""What the main job announces, and the addresses that follow from it."""

from __future__ import annotations

import json
import subprocess
from dataclasses import asdict, replace

import pytest
from fixtures import connection

from hpclab.connection import (
    Connection,
    dashboard_url,
    job_of_worker,
    jupyter_url,
    parse_token,
    tunnel_argv,
    worker_name,
)
from hpclab.errors import UnreadableOutput

HERE = connection()
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
    here = replace(HERE, jupyter_host="127.0.0.1", dashboard_host="127.0.0.1")
    assert tunnel_argv(here, "ada@login1")[3:6:2] == ["8888:127.0.0.1:40002", "8787:127.0.0.1:40003"]


@pytest.mark.parametrize("job_id", ["17", "17.pbs01", "17[3].pbs01", "17-4"])
def test_a_worker_carries_its_job_in_its_name(job_id):
    assert job_of_worker(worker_name(job_id, 2)) == job_id


@pytest.mark.parametrize("name", ["", "stray", "tcp://10.0.0.1:4000"])
def test_a_foreign_worker_has_no_job(name):
    assert job_of_worker(name) == ""


def test_ssh_understands_the_tunnel():
    """`ssh -G` reads the command line, and connects to nothing."""
    argv = tunnel_argv(HERE, "ada@login1")
    try:
        shown = subprocess.run(
            ["ssh", "-F", "/dev/null", "-G", *argv[1:]], capture_output=True, text=True, timeout=10, check=False
        )
    except FileNotFoundError:
        pytest.skip("no ssh here")
    assert "localforward 8888 [node17]:40002" in shown.stdout


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
