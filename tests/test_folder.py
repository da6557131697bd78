"""The names of a session's files."""

from __future__ import annotations

import inspect

import pytest

from hpclab.folder import SessionFolder

HERE = SessionFolder("/home/ada/.hpclab/sessions/calm-otter")
NAMES = [name for name, _ in inspect.getmembers(SessionFolder, lambda member: isinstance(member, property))]
PATHS = [name for name in NAMES if name not in ("name", "subfolders")]
PER_JOB = ["job", "events", "log", "retire"]
PER_LOGIN = ["reverse_ask", "reverse_answer"]


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        (HERE.session, "session.json"),
        (HERE.token, "token"),
        (HERE.key, "tls/key.pem"),
        (HERE.start_script, "start-dask.sh"),
        (HERE.worker_script, "add-one-worker.sh"),
        (HERE.other_script("0123abcd"), "scripts/add-worker-0123abcd.sh"),
        (HERE.job("17"), "jobs/17.json"),
        (HERE.events("17"), "events/17.jsonl"),
        (HERE.log("17"), "logs/17.log"),
        (HERE.reverse_ask("login1"), "reverse/login1.ask"),
        (HERE.reverse_answer("login1"), "reverse/login1.answer"),
        (HERE.relayed("1-ff", "asked"), "relay/1-ff.asked"),
        (HERE.connection, "connection.json"),
        (HERE.roster, "workers.json"),
        (HERE.run_script, "run.sh"),
        (HERE.stdout, "program/stdout"),
        (HERE.rank_end(1), "program/rank-1"),
    ],
)
def test_names(path, expected):
    assert path == f"/home/ada/.hpclab/sessions/calm-otter/{expected}"


def test_the_folder_knows_the_sessions_name():
    assert HERE.name == "calm-otter"


def test_no_two_files_have_the_same_name():
    paths = [getattr(HERE, name) for name in PATHS] + [getattr(HERE, name)("17") for name in [*PER_JOB, *PER_LOGIN]]
    assert len(set(paths)) == len(paths)


@pytest.mark.parametrize("name", PATHS)
def test_every_file_stands_in_the_folder_or_in_a_subfolder_that_is_made(name):
    parent = getattr(HERE, name).rpartition("/")[0]
    assert parent in (HERE.path, *HERE.subfolders)


@pytest.mark.parametrize("name", [*PER_JOB, *PER_LOGIN])
def test_every_file_of_a_job_or_login_node_stands_in_a_subfolder_that_is_made(name):
    assert getattr(HERE, name)("17").rpartition("/")[0] in HERE.subfolders
