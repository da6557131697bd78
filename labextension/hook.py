"""The panel, when hpclab is installed from its sources; hatch-jupyter-builder calls `build`."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from hatch_jupyter_builder import npm_builder

NODE = 20


def build(target_name: str, version: str, **how: Any) -> None:
    """A login node needs nothing but Python: without Node.js, hpclab is installed without its panel."""
    if Path("PKG-INFO").exists():  # an sdist, which has the panel already
        return
    if target_name == "wheel" and not _node_is_new_enough():
        print(f"no Node.js {NODE} or newer: hpclab is installed without its panel in JupyterLab", file=sys.stderr)
        return
    npm_builder(target_name, version, **how)


def _node_is_new_enough() -> bool:
    if not (node := shutil.which("node")):
        return False
    said = subprocess.run([node, "--version"], capture_output=True, text=True, check=False).stdout
    major = said.strip().removeprefix("v").partition(".")[0]
    return major.isdigit() and int(major) >= NODE
