"""The argv of dask-mpi."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from fixtures import folder

from hpclab.inside.plan import Plan, dask_mpi_argv, interface_name

PLAN = Plan(
    folder=folder(),
    job_id="17",
    workers=3,
    nthreads=2,
    memory_bytes=2**31,
    death_timeout_s=60,
    interface="lo",
    node="node17",
)


def option(argv: list[str], name: str) -> str:
    return argv[argv.index(name) + 1]


def test_rank_0_is_the_scheduler_and_the_others_are_one_worker_each():
    assert PLAN.ranks == 4


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("--scheduler-file", folder().scheduler),
        ("--protocol", "tls"),
        ("--interface", "lo"),
        ("--nthreads", "2"),
        ("--memory-limit", str(2**31)),
        ("--name", "17"),
        ("--dashboard-address", "127.0.0.1:0"),
    ],
)
def test_threads_memory_and_addresses_come_from_the_request(name, value):
    assert option(dask_mpi_argv(PLAN, "/opt/python"), name) == value


def test_it_runs_on_the_jobs_python():
    argv = dask_mpi_argv(PLAN, "/opt/python")
    assert argv[0] == "/opt/python"
    assert argv[1:6] == ["-P", "-m", "mpi4py", "-m", "hpclab.inside.world"]


def test_every_rank_is_told_what_it_needs_in_its_argv():
    """To other nodes not every launcher brings the environment along."""
    argv = dask_mpi_argv(PLAN, "/opt/python")
    assert argv[6:10] == [folder().path, "17", "4", "node17"]


def test_no_port_is_assumed():
    argv = dask_mpi_argv(PLAN, "/opt/python")
    assert option(argv, "--scheduler-port") == "0"
    assert json.loads(option(argv, "--worker-options"))["dashboard_address"].endswith(":0")
    assert not [word for word in argv if "8786" in word or "8787" in word or "8888" in word]


def test_workers_wait_for_the_scheduler_for_as_long_as_they_should():
    assert json.loads(option(dask_mpi_argv(PLAN, "/opt/python"), "--worker-options"))["death_timeout"] == 60


def test_the_dashboard_stays_shut_until_the_guard_stands():
    assert "--no-dashboard" in dask_mpi_argv(PLAN, "/opt/python")


@pytest.mark.parametrize(
    ("interface", "dashboard"), [("lo", "127.0.0.1:0"), ("lo0", "127.0.0.1:0"), ("ib0", ":0"), ("", ":0")]
)
def test_the_dashboard_listens_where_dask_does(interface, dashboard):
    argv = dask_mpi_argv(replace(PLAN, interface=interface), "/opt/python")
    assert option(argv, "--dashboard-address") == dashboard
    assert ("--interface" in argv) == interface.startswith("lo")


@pytest.mark.parametrize(
    ("bind", "interface", "on_loopback"),
    [("network", "", False), ("network", "ib0", False), ("network", "lo", True), ("loopback", "ib0", True)],
)
def test_who_may_knock_at_the_dashboard_is_not_who_joins_the_scheduler(bind, interface, on_loopback):
    """Workers of other nodes join, also where web pages are for their own node alone."""
    plan = replace(PLAN, interface=interface, bind=bind)
    argv = dask_mpi_argv(plan, "/opt/python")
    assert plan.on_loopback == on_loopback
    assert option(argv, "--dashboard-address") == ("127.0.0.1:0" if on_loopback else ":0")
    assert ("--interface" in argv) == (interface == "lo")


def test_it_holds_no_secret():
    assert not [word for word in dask_mpi_argv(PLAN, "/opt/python") if "token" in word or "key" in word]


def test_dask_mpi_knows_every_option():
    from dask_mpi.cli import main

    known = {name for parameter in main.params for name in (*parameter.opts, *parameter.secondary_opts)}
    assert {word for word in dask_mpi_argv(PLAN, "/opt/python") if word.startswith("--")} <= known


@pytest.mark.parametrize(
    ("wanted", "names", "name"),
    [
        ("loopback", ["eth0", "lo"], "lo"),
        ("loopback", ["en0", "lo0"], "lo0"),
        ("loopback", [], "lo"),
        ("ib0", ["lo", "ib0"], "ib0"),
        ("", ["lo", "ib0"], ""),
    ],
)
def test_the_name_of_the_interface(wanted, names, name):
    assert interface_name(wanted, names) == name
