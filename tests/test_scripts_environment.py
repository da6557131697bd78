"""scripts/environment makes the panel of JupyterLab when its sources have changed, and does without it where it has to.

Here jlpm is a script that says that it was called; the real one builds the panel in every run of scripts/test.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
JLPM = """#!/bin/bash
echo "$*" >>../said
if [ "$*" = build:prod ]; then
    [ ! -e ../broken ] || { echo "src/index.ts(1,1): error TS1005"; exit 1; }
    mkdir -p ../hpclab/labextension && echo {} >../hpclab/labextension/package.json
else
    mkdir -p node_modules
fi
"""


@dataclass(frozen=True)
class Clone:
    path: Path

    def make_environment(self) -> tuple[str, str]:
        """How it went with the panel, and what was printed."""
        script = 'source scripts/environment; make_environment cluster; echo "$panel"'
        env = {"PATH": str(self.path / "commands"), "HOME": str(self.path)}
        command = [str(shutil.which("bash")), "-euo", "pipefail", "-c", script]
        done = subprocess.run(command, cwd=self.path, env=env, capture_output=True, text=True, check=True)
        return done.stdout.strip(), done.stderr

    @property
    def built(self) -> int:
        said = self.path / "said"
        return said.read_text().split("\n").count("build:prod") if said.exists() else 0

    @property
    def found(self) -> Path:
        """What JupyterLab finds in this environment."""
        return self.path / ".venv/share/jupyter/labextensions/hpclab/package.json"

    def change(self, name: str) -> None:
        """Of this moment, as an editor would write it: later than what was built a moment ago."""
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("// changed")
        built = self.path / "hpclab/labextension/package.json"
        if built.exists():
            os.utime(path, ns=(0, built.stat().st_mtime_ns + 1_000_000))


@pytest.fixture
def a_clone(tmp_path: Path) -> Callable[[str], Clone]:
    """hpclab's own sources, installed already, on a machine with this version of Node.js ("" for none)."""

    def make(node: str) -> Clone:
        commands, bin_ = tmp_path / "commands", tmp_path / ".venv/bin"
        for folder in (commands, bin_, tmp_path / "scripts", tmp_path / "hpclab"):
            folder.mkdir(parents=True)
        for name in ("bash", "basename", "dirname", "find", "ln", "mkdir", "rm", "tail", "touch"):
            (commands / name).symlink_to(str(shutil.which(name)))
        shutil.copy(ROOT / "scripts/environment", tmp_path / "scripts")
        (tmp_path / "pyproject.toml").touch()
        for name in ("installed-cluster", "installed-cluster-mpich"):
            (tmp_path / ".venv" / name).touch()
        (bin_ / "python").symlink_to(sys.executable)
        (bin_ / "jlpm").write_text(JLPM.replace("#!/bin/bash", f"#!{shutil.which('bash')}"))
        (bin_ / "jlpm").chmod(0o755)
        if node:
            (commands / "node").write_text(f"#!{shutil.which('bash')}\necho {node}\n")
            (commands / "node").chmod(0o755)
        clone = Clone(tmp_path)
        clone.change("labextension/src/index.ts")
        return clone

    return make


def test_the_panel_is_built_once_and_found(a_clone):
    clone = a_clone("v20.20.2")
    assert clone.make_environment()[0] == "made"
    assert clone.built == 1
    assert clone.found.exists()
    assert clone.make_environment()[0] == "made"
    assert clone.built == 1, "nothing had changed"


@pytest.mark.parametrize("name", ["src/panel.tsx", "style/base.css", "schema/plugin.json", "package.json", "yarn.lock"])
def test_it_is_built_again_when_its_sources_have_changed(a_clone, name):
    clone = a_clone("v22.12.0")
    clone.make_environment()
    clone.change(f"labextension/{name}")
    clone.make_environment()
    assert clone.built == 2


@pytest.mark.parametrize("name", ["src/__tests__/words.spec.ts", "node_modules/a/index.js", "lib/index.js"])
def test_it_is_not_built_again_for_what_is_not_in_it(a_clone, name):
    clone = a_clone("v22.12.0")
    clone.make_environment()
    clone.change(f"labextension/{name}")
    clone.make_environment()
    assert clone.built == 1


def test_what_is_built_later_is_found_at_once(a_clone):
    clone = a_clone("v20.20.2")
    clone.make_environment()
    (clone.path / "hpclab/labextension/package.json").write_text("built by hand")
    assert clone.found.read_text() == "built by hand"


@pytest.mark.parametrize("node", ["", "v12.22.12", "nonsense"])
def test_where_there_is_no_node_there_is_no_panel(a_clone, node):
    clone = a_clone(node)
    assert clone.make_environment() == ("none", "")
    assert clone.built == 0
    assert not clone.found.exists()


def test_a_panel_that_cannot_be_built_is_told_with_its_error(a_clone):
    clone = a_clone("v20.20.2")
    (clone.path / "broken").touch()
    panel, said = clone.make_environment()
    assert panel == "failed"
    assert "error TS1005" in said
    assert not clone.found.exists()
