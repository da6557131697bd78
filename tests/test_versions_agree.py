"""What is said in two places is the same in both, and the lock file names packages, not where somebody got them."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path

from hpclab import __version__

ROOT = Path(__file__).parents[1]
PANEL = ROOT / "labextension"


def test_the_panel_has_the_version_of_hpclab():
    assert json.loads((PANEL / "package.json").read_text())["version"] == __version__


def test_the_panel_is_built_by_the_same_builder_everywhere():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    needed = [*project["build-system"]["requires"], *project["project"]["optional-dependencies"]["dev"]]
    builder, again = (word for word in needed if word.startswith("jupyter-builder"))
    assert builder == again
    assert f"install '{builder}'" in (ROOT / "scripts/environment").read_text()


def test_the_same_node_is_asked_for_everywhere():
    hook = re.search(r"^NODE = (\d+)$", (PANEL / "hook.py").read_text(), re.M)
    script = re.search(r'"\$\{version%%\.\*\}" -ge (\d+) \]', (ROOT / "scripts/environment").read_text())
    assert hook
    assert script
    assert hook[1] == script[1]


def test_the_lock_file_has_packages_by_name_and_version_and_no_address():
    text = (PANEL / "yarn.lock").read_text()
    resolved = re.findall(r'^  resolution: "(.+)"$', text, re.M)
    assert len(resolved) > 100
    for name in resolved:
        assert re.search(r".@(npm:[\w.+-]+|workspace:\.)$|.@patch:.+@npm%3A.+#~builtin<", name), name
    assert "://" not in text
    assert "__archiveUrl" not in text  # what yarn writes for a package that is not from where it is configured to look


def test_no_address_of_a_registry_is_configured():
    configured = [path for folder in (ROOT, PANEL) for path in folder.glob(".*rc*") if path.is_file()]
    assert PANEL / ".yarnrc.yml" in configured
    for path in [*configured, PANEL / "package.json"]:
        assert "://" not in path.read_text(), path
