"""A job's environment: the lines are run by bash, with small programs that print what they were given."""

from __future__ import annotations

import shlex
import subprocess
from pathlib import Path

import pytest

from hpclab.environment import Environment

ODD = ["two words", "it's", 'a "quote"', "$HOME", "`date`", "back\\slash", "a;b&c|d", "#x", "*", "~root", "ü", "<a>"]
SESSION = "/home/ada/.hpclab/sessions/calm-otter"
SAYS = "#!/bin/bash\nprintf '%s' \"${0##*/}\"\nprintf '|%s' \"$@\"\necho\n"


@pytest.fixture
def programs(tmp_path):
    """programs("module", …) puts programs onto the PATH that print their name and arguments."""

    def _programs(*names: str, folder: Path = tmp_path / "bin", text: str = SAYS) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        for name in names:
            (folder / name).write_text(text)
            (folder / name).chmod(0o755)

    return _programs


@pytest.fixture
def run(tmp_path):
    """run(environment, "x.py") is what a job says that runs `x.py` in it."""

    def _run(environment: Environment, *arguments: str, **variables: str) -> str:
        session = f"hpclab_session={shlex.quote(SESSION)} HPCLAB_SCRATCH=/scratch/7"
        text = "\n".join([session, *environment.lines(), environment.program("true", arguments)])
        env = {"PATH": f"{tmp_path}/bin:/usr/bin:/bin", "HOME": str(tmp_path), **variables}
        done = subprocess.run(["bash", "-c", text], env=env, capture_output=True, text=True, timeout=20, check=False)
        return done.stdout + done.stderr

    return _run


def test_by_default_it_is_hpclabs_own():
    assert Environment().lines() == []
    assert Environment().program("/opt/my python", ["-m", "x"]) == "'/opt/my python' -m x"
    assert not Environment(modules=["gcc"], export=["A=1"], prologue=["true"]).is_own


@pytest.mark.parametrize("given", [{"python": "x"}, {"conda": "x"}, {"venv": "x"}, {"container": "x"}])
def test_another_python_is_not_hpclabs_own(given):
    assert Environment(**given).is_own


# modules


def test_modules_are_loaded_together_and_in_their_order(programs, run):
    programs("module")
    assert run(Environment(modules=["gcc/13", "openmpi"])) == "module|load|gcc/13|openmpi\n"


@pytest.mark.parametrize("odd", ODD)
def test_an_odd_module_is_one_word(programs, run, odd):
    programs("module")
    assert run(Environment(modules=[odd])) == f"module|load|{odd}\n"


def test_where_nobody_has_told_the_shell_what_module_is_it_is_found(tmp_path, run):
    init = tmp_path / "modules/init/bash"
    init.parent.mkdir(parents=True)
    init.write_text("module() { echo found: $*; }\n")
    if "command not found" not in run(Environment(modules=["gcc"])):
        pytest.skip("this machine has modules of its own")
    assert run(Environment(modules=["gcc"]), MODULESHOME=f"{tmp_path}/modules") == "found: load gcc\n"


# conda and venv


@pytest.fixture
def conda(tmp_path):
    """A conda in a folder of HOME; its `activate` prints what it was given."""

    def _conda(base: str) -> None:
        (tmp_path / base / "bin").mkdir(parents=True)
        (tmp_path / base / "etc/profile.d").mkdir(parents=True)
        program = tmp_path / base / "bin/conda"
        program.write_text(f"#!/bin/bash\n[ $1 = info ] && echo {tmp_path / base}\n")
        program.chmod(0o755)
        says = "conda() { printf '%s|' \"$@\"; echo; PATH=$HOME/active:$PATH; }\n"
        (tmp_path / base / "etc/profile.d/conda.sh").write_text(says)

    return _conda


@pytest.mark.parametrize("odd", ["base", "/data/my envs/a", *ODD])
def test_a_conda_environment_is_activated_and_its_python_is_the_jobs(tmp_path, conda, programs, run, odd):
    conda("miniforge3")
    programs("python", folder=tmp_path / "active")
    assert run(Environment(conda=odd), "x.py") == f"activate|{odd}|\npython|x.py\n"


def test_the_conda_on_the_path_comes_first(tmp_path, conda, run):
    for base in ("mine", "miniforge3"):
        conda(base)
    says = tmp_path / "mine/etc/profile.d/conda.sh"
    says.write_text(says.read_text() + "echo mine\n")
    assert run(Environment(conda="x"), PATH=f"{tmp_path}/mine/bin:/usr/bin:/bin").startswith("mine\n")


@pytest.mark.parametrize("odd", ODD)
@pytest.mark.parametrize("home", ["{home}", "~"])
def test_a_virtual_environment_is_activated_also_where_a_tilde_leads_to_it(tmp_path, programs, run, odd, home):
    programs("python", folder=tmp_path / odd / "bin")
    (tmp_path / odd / "bin/activate").write_text('PATH="${BASH_SOURCE%/activate}:$PATH"\n')
    venv = f"{home.format(home=tmp_path)}/{odd}"
    assert run(Environment(venv=venv), "x.py") == "python|x.py\n"


# variables, free lines, Python


@pytest.mark.parametrize("odd", ["", "a=b", "a\nb", *ODD])
def test_an_odd_value_is_exported_as_it_stands(programs, run, odd):
    programs("show", text="#!/bin/bash\nprintf '%s' \"$VALUE\"\n")
    assert run(Environment(export=[f"VALUE={odd}"], python="show")) == odd


def test_free_lines_are_shell_and_come_after_the_variables(programs, run):
    programs("show", text='#!/bin/bash\necho "$B"\n')
    assert run(Environment(export=["A=1"], prologue=["export B=${A}2"], python="show")) == "12\n"


@pytest.mark.parametrize("odd", ODD)
@pytest.mark.parametrize("home", ["{home}", "~"])
def test_an_odd_python_gets_odd_arguments(tmp_path, programs, run, odd, home):
    programs("python3", folder=tmp_path / odd)
    python = f"{home.format(home=tmp_path)}/{odd}/python3"
    assert run(Environment(python=python), odd, "-x") == f"python3|{odd}|-x\n"


def test_the_named_python_wins_over_that_of_the_environment():
    assert Environment(conda="x", python="/p").program("/default", ["-V"]) == "/p -V"
    assert Environment(conda="x").program("/default", ["-V"]) == "python -V"


# a container


@pytest.mark.parametrize("odd", ODD)
def test_the_program_runs_in_the_container_which_sees_the_session(programs, run, odd):
    programs("apptainer", "singularity")
    told = run(Environment(container=f"/images/{odd}.sif", binds=[odd, "/scratch:/tmp"]), "-m", odd)
    binds = f"--bind|{SESSION}|--bind|/scratch/7|--bind|{odd}|--bind|/scratch:/tmp"
    assert told == f"apptainer|exec|{binds}|/images/{odd}.sif|python|-m|{odd}\n"


def test_a_tilde_in_image_and_binds_is_the_home_folder(tmp_path, programs, run):
    programs("apptainer")
    told = run(Environment(container="~/my images/x.sif", binds=["~/data:/data"])).split("|")
    assert f"{tmp_path}/my images/x.sif" in told
    assert f"{tmp_path}/data:/data" in told


def test_singularity_will_do(programs, run):
    programs("singularity")
    if "apptainer" in run(Environment(container="x.sif")):
        pytest.skip("this machine has an apptainer of its own")
    assert run(Environment(container="x.sif"), "-V").startswith("singularity|exec|")


def test_without_either_the_message_names_what_is_missing(run):
    told = run(Environment(container="x.sif"))
    assert "apptainer: command not found" in told or "singularity" in told


def test_the_python_of_a_container_can_be_named(programs, run):
    programs("apptainer")
    assert run(Environment(container="x.sif", python="/opt/conda/bin/python")).endswith(
        "|x.sif|/opt/conda/bin/python\n"
    )
