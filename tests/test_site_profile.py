"""The config file for a site: it can be loaded, and it has what the site needs."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
from fixtures import settings
from sights import CLOSED, DEBUG, HYDRA, OPEN_MPI, REGULAR, a_node, a_sight, examined, probed

from hpclab.config import Setting, Settings, Source, load
from hpclab.site_profile import describe, profile

GRID_ENGINE = """\
pe_name            mpi
slots              999
allocation_rule    $round_robin
accounting_summary FALSE
pe_name            openmp
slots              999
allocation_rule    $pe_slots
pe_name            smp
slots              999
allocation_rule    $pe_slots
accounting_summary FALSE

#name               shortcut   type      relop requestable consumable default  urgency
gpu                 gpu        INT       <=    YES         YES        0        0
h_vmem              h_vmem     MEMORY    <=    YES         YES        0        0
mem_free            mf         MEMORY    <=    YES         JOB        0        0
"""


def given(**values: object) -> dict[str, Setting]:
    """given(nodes="2") are settings by flags."""
    return {k: Setting(key=k, value=v, source=Source.FLAG, where=f"--{k}") for k, v in values.items()}


@pytest.fixture
def loaded(tmp_path: Path):
    """The settings that a site's profile makes, and those that it names."""

    def _loaded(site) -> tuple[Settings, set[str]]:
        path = tmp_path / "config.toml"
        path.write_text(profile(site), encoding="utf-8")
        made, chosen = load({}, [(Source.USER, path)], {})
        return made, {setting.key for setting in chosen if setting.source is Source.USER}

    return _loaded


@pytest.mark.parametrize(
    ("site", "values"),
    [
        (examined(), {"queue": "slurm:regular", "interface": "auto"}),
        (examined(partition="debug"), {"queue": "slurm:debug", "walltime_s": 300, "worker_walltime_s": 300}),
        (examined(partition="nosuch"), {"queue": "slurm:regular"}),
        (examined(queues=(CLOSED, DEBUG)), {"queue": "slurm:debug"}),
        (examined(queues=()), {"queue": "slurm"}),
        (examined(system="local", queues=(), found={}), {"queue": "local"}),
        (examined(queues=(replace(REGULAR, memory_per_node_bytes=2**20),)), {"slurm_memory": "none"}),
        (examined(login=a_sight(launchers=(OPEN_MPI, HYDRA))), {"mpiexec": HYDRA.path}),
        (probed(a_node(launchers=(OPEN_MPI, HYDRA))), {"mpiexec": HYDRA.path}),
        # what somebody set stays
        (examined(given=given(account="phys", nodes="2")), {"account": "phys", "nodes": 2}),
        (examined(given=given(export=('A=b "c" ü\\',))), {"export": ('A=b "c" ü\\',)}),
        (examined(given=given(walltime="90m"), settings=settings(walltime_s=5400)), {"walltime_s": 5400}),
        (probed(given=given(interface="ib0")), {"interface": "ib0"}),
        # but for what cannot be
        (probed(given=given(interface="ib7")), {"interface": "auto"}),
        (examined(partition="debug", given=given(walltime="2h")), {"walltime_s": 300}),
        # what only one batch system knows
        (
            examined(system="sge", queues=(), site=GRID_ENGINE),
            {"sge_pe": "smp", "sge_pe_nodes": "mpi", "sge_memory": "mem_free", "sge_gpu": "gpu"},
        ),
        (examined(system="sge", queues=(), site=""), {"sge_memory": "none", "sge_pe": "smp"}),
        (examined(system="sge", site=GRID_ENGINE, given=given(sge_pe="openmp")), {"sge_pe": "openmp"}),
        (examined(system="lsf", site="LSF_UNIT_FOR_LIMITS = GB\n"), {"lsf_memory_unit": "GB"}),
        (examined(system="lsf", site=""), {"lsf_memory_unit": "MB"}),
    ],
)
def test_it_makes_the_settings_that_the_site_needs(loaded, site, values):
    made, _ = loaded(site)
    assert {name: getattr(made, name) for name in values} == values


def test_it_says_nothing_that_need_not_be_said(loaded):
    assert loaded(examined())[1] == {"queue", "interface"}


@pytest.mark.parametrize("site", [examined(), probed(), examined(system="sge", site=GRID_ENGINE, partition="debug")])
def test_every_line_has_its_reason_and_fits(site):
    lines = profile(site).splitlines()
    assert all(len(line) <= 80 for line in lines)
    assert all(before.startswith("# ") for before, line in pairwise(lines) if " = " in line[:20])


def test_all_of_it_is_json():
    described = json.loads(json.dumps(describe(probed())))
    assert (described["system"], described["problems"]) == ("slurm", 0)
    assert described["node"]["node"] == "node17"
    assert described["profile"] == profile(probed())
    assert {"topic": "networks", "state": "ok", "text": "eth0 10.0.0.1 (10 Gbit/s)", "next_step": ""} in described[
        "findings"
    ]
