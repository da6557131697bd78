"""What scripts/build makes, installed where nothing of hpclab has ever been."""

from __future__ import annotations

import gzip
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest

from hpclab import __version__

ROOT = Path(__file__).parents[2]
PANEL = "share/jupyter/labextensions/hpclab"
MOST_KB = 150


@dataclass(frozen=True)
class Environment:
    """A virtual environment of its own, with nothing in it."""

    path: Path

    @classmethod
    def make(cls, path: Path) -> Environment:
        subprocess.run([sys.executable, "-m", "venv", str(path)], check=True)
        return cls(path)

    def run(self, *command: str, **more: str) -> subprocess.CompletedProcess[str]:
        """A command of this environment, without anything of the user's or of the tests' own environment."""
        home = self.path / "home"
        home.mkdir(exist_ok=True)
        theirs = ("HPCLAB_", "JUPYTER", "DASK_", "VIRTUAL_ENV", "PYTHON", "XDG_")
        env = {name: value for name, value in os.environ.items() if not name.startswith(theirs)}
        words = [str(self.path / "bin" / command[0]), *command[1:]]
        done = subprocess.run(words, cwd=home, env=env | more, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}\n{done.stderr}"
        return done

    def told(self, *command: str) -> str:
        """All that it prints, without colours."""
        done = self.run(*command)
        return re.sub(r"\x1b\[[0-9;]*m", "", done.stdout + done.stderr)

    def install(self, *what: str, **more: str) -> None:
        self.run("python", "-m", "pip", "install", "--quiet", "--no-compile", *what, **more)

    @property
    def packages(self) -> set[str]:
        listed = json.loads(self.run("python", "-m", "pip", "list", "--format=json").stdout)
        return {package["name"].lower().replace("_", "-") for package in listed}


@dataclass(frozen=True)
class Built:
    wheel: Path
    sdist: Path


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    if not shutil.which("node"):
        pytest.skip("there is no Node.js")
    folder = tmp_path_factory.mktemp("built")
    done = subprocess.run([ROOT / "scripts/build", folder], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (wheel,), (sdist,) = folder.glob("*.whl"), folder.glob("*.tar.gz")
    return Built(wheel, sdist)


@pytest.fixture
def a_fresh_environment(tmp_path: Path) -> Environment:
    return Environment.make(tmp_path / "fresh")


@pytest.fixture
def a_machine_without_node(tmp_path: Path) -> dict[str, str]:
    (tmp_path / "commands").mkdir()
    return {"PATH": str(tmp_path / "commands")}


@pytest.fixture
def a_clone(tmp_path: Path) -> Path:
    """The files that git tracks or would track, and none that was built from them."""
    clone = tmp_path / "clone"
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).is_file():
            (clone / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, clone / name)
    return clone


def test_installed_from_the_wheel_the_panel_and_the_server_are_enabled(built, a_fresh_environment):
    a_fresh_environment.install(f"{built.wheel}[cluster]")
    listed = a_fresh_environment.told("jupyter", "labextension", "list")
    assert re.search(rf"^ *hpclab v{re.escape(__version__)} +enabled +OK \(python, hpclab\)", listed, re.M), listed
    assert re.search(r"^ *dask-labextension v.* enabled +OK", listed, re.M), listed
    listed = a_fresh_environment.told("jupyter", "server", "extension", "list")
    for name in ("hpclab.server", "dask_labextension", "jupyter_server_proxy"):
        assert re.search(rf"^ *{name} enabled", listed, re.M), listed
        assert re.search(rf"^ *{name} .*OK", listed, re.M), listed


def test_without_the_extra_it_is_light(built, a_fresh_environment):
    a_fresh_environment.install(str(built.wheel))
    assert a_fresh_environment.run("hpclab", "--version").stdout.split()[-1] == __version__
    heavy = {"jupyterlab", "jupyter-server", "jupyter-builder", "dask", "distributed", "tornado", "bokeh", "numpy"}
    assert not a_fresh_environment.packages & heavy
    assert "hpclab" in a_fresh_environment.packages


def test_the_sdist_has_the_panel_and_needs_no_node(built, a_fresh_environment, a_machine_without_node):
    a_fresh_environment.install("--no-deps", str(built.sdist), **a_machine_without_node)
    assert (a_fresh_environment.path / PANEL / "static/style.js").exists()


@pytest.mark.parametrize("how", [[], ["--editable"]], ids=["installed", "editable"])
def test_a_clone_needs_no_node_and_is_installed_without_the_panel(
    a_clone, how, a_fresh_environment, a_machine_without_node
):
    a_fresh_environment.install("--no-deps", *how, str(a_clone), **a_machine_without_node)
    assert "hpclab" in a_fresh_environment.packages
    assert not (a_fresh_environment.path / PANEL / "package.json").exists()
    assert (a_fresh_environment.path / "etc/jupyter/jupyter_server_config.d/hpclab.json").exists()


def test_the_panel_is_small(built):
    with zipfile.ZipFile(built.wheel) as wheel:
        scripts = [name for name in wheel.namelist() if f"{PANEL}/static/" in name and name.endswith(".js")]
        assert any("remoteEntry" in name for name in scripts)
        kb = len(gzip.compress(b"".join(wheel.read(name) for name in scripts))) / 1000
    assert kb <= MOST_KB
