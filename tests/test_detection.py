"""Which batch systems a host has, told from recorded words of real ones; their names prove nothing."""

from __future__ import annotations

import shutil
import subprocess

import pytest
from batch.transcripts import said

from hpclab.detection import VERSIONS_COMMAND, detected, the_one
from hpclab.errors import ConfigError

SLURM = said("slurm", "01-version", "sbatch --version").stdout.splitlines()[0]
PBS = said("pbs", "01-version", "qstat --version").stdout.strip()
SGE = said("sge", "01-info", "qstat -help").stdout.splitlines()[0]
WRAPPERS = said("torque-wrappers", "01-help", "qstat --help")
TORQUE = "Version: 6.1.2\nCommit: 6a4a2f4"
LSF = "IBM Spectrum LSF Standard 10.1.0.0, Apr 01 2024\nCopyright International Business Machines Corp."
WRAPPER = WRAPPERS.stdout + WRAPPERS.stderr


@pytest.fixture
def ask(tmp_path):
    """ask({"sbatch": {"--version": "slurm 23"}}) is what a host with these programs answers; `*` is for all else."""
    for tool in ("sh", "env", "timeout", "head", "sed", "cat"):
        (tmp_path / tool).symlink_to(shutil.which(tool))

    def _ask(programs: dict[str, dict[str, str]]) -> str:
        for name, answers in programs.items():
            cases = "".join(f"{word}) cat <<'END'\n{text}\nEND\n;;\n" for word, text in answers.items())
            (tmp_path / name).write_text(f"#!/bin/sh\ncat\ncase $1 in\n{cases}esac\nexit 1\n")
            (tmp_path / name).chmod(0o755)
        env = {"PATH": str(tmp_path)}
        done = subprocess.run(VERSIONS_COMMAND, env=env, capture_output=True, text=True, timeout=30, check=True)
        assert done.stderr == ""
        return done.stdout

    return _ask


@pytest.mark.parametrize(
    ("programs", "found"),
    [
        ({}, {}),
        ({"sbatch": {"--version": SLURM}}, {"slurm": "slurm-wlm 22.05.8"}),
        ({"sbatch": {"--version": "slurm 23.11.4"}}, {"slurm": "slurm 23.11.4"}),
        ({"qstat": {"--version": PBS}}, {"pbs": "pbs_version = 23.06.06"}),
        ({"qstat": {"--version": TORQUE}}, {"torque": "Version: 6.1.2"}),
        ({"qstat": {"-help": SGE, "*": f"{SGE}\nerror: unknown option"}}, {"sge": "SGE 8.1.9"}),
        ({"bsub": {"-V": LSF}}, {"lsf": LSF.splitlines()[0]}),
        # Slurm with qsub and qstat of its own for who comes from Torque
        (
            {"sbatch": {"--version": SLURM}, "qstat": {"*": WRAPPER}, "qsub": {"*": WRAPPER}},
            {"slurm": "slurm-wlm 22.05.8"},
        ),
        # names alone
        ({"qstat": {"*": "usage: qstat"}, "bsub": {"*": "what?"}, "sbatch": {"*": "sbatch: error"}}, {}),
        ({"sbatch": {"--version": SLURM}, "qstat": {"--version": PBS}}, {"slurm": SLURM, "pbs": PBS}),
    ],
    ids=lambda value: "+".join(value) or "none" if isinstance(value, dict) else None,
)
def test_a_batch_system_is_known_by_what_its_programs_say(ask, programs, found):
    assert detected(ask(programs)) == found


@pytest.mark.parametrize("said", ["", "\n\n", "sbatch: ", "qstat-version: \ud800", "hello\x00"])
def test_nonsense_is_no_batch_system(said):
    assert detected(said) == {}


@pytest.mark.parametrize(("found", "name"), [({}, "local"), ({"sge": "SGE 8.1.9"}, "sge")])
def test_the_one_that_is_there_is_taken_and_without_any_this_machine(found, name):
    assert the_one(found) == name


def test_of_several_the_user_says_which():
    with pytest.raises(ConfigError, match=r"several batch systems here: slurm, pbs\nsay which: --queue slurm"):
        the_one({"slurm": SLURM, "pbs": PBS})
