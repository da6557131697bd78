"""The import direction: a module imports only from groups to its left, and what is left of `hosts` is pure."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from fixtures import CREDENTIALS, NOON, job_record, session_record, settings

import hpclab
from hpclab.hosts.local import LocalHost
from hpclab.store import Store

PACKAGE = Path(hpclab.__file__).parent
GROUPS = [
    {"errors", "__about__"},
    {"units", "result", "shell", "sshconfig", "asking", "options", "resumed"},
    {"allocation", "job", "config", "event", "names", "versions", "environment", "detection", "sight"},
    {"qstat"},
    {"batch", "folder", "credentials"},
    {"launchers", "script", "connection", "doctor", "knownhosts", "pump", "authentication", "ownoutput", "segments"},
    {"hosts", "view", "request", "site_profile", "interrupts", "threads"},
    {"ways"},
    {"jobqueue", "store", "growth", "history", "reverse", "bookmarks", "browser", "login", "remote", "tunnel", "door"},
    {"statuses", "place", "relay"},
    {"session", "examination"},
    {"follow", "fit", "program"},
    {"show", "buttons", "current"},
    {"progress", "card"},
    {"agent", "afar"},
    {"elsewhere"},
    {"cli"},
    {"cluster"},
    {"notebook"},
    {"__init__"},
    {"__main__"},
]
RANK = {name: rank for rank, names in enumerate(GROUPS) for name in names}
# versions_here looks at the Python that runs it
PURE = {name for names in GROUPS[:5] for name in names} - {"versions", "asking"} | {
    "view",
    "request",
    "growth",
    "history",
    "site_profile",
    "place",
    "card",
}
FACES = {"cli", "cluster", "notebook", "__init__", "__main__"}
MAY = {
    "inside": {
        "inside",
        "allocation",
        "errors",
        "units",
        "job",
        "event",
        "config",
        "folder",
        "connection",
        "launchers",
        "segments",
        "versions",
    }
    | {"credentials"},
    "mpi": {"mpi", "errors", "units", "job", "config", "connection", "folder", "launchers", "segments"},
    "localq": {"localq"},
    # faces: everything but the others
    "server": {*RANK} - FACES | {"server"},
    # a cluster object joins the scheduler by the way that a worker takes
    "cluster": {*RANK} - FACES | {"inside"},
    # a script's ranks are a job of their own
    "__init__": {*RANK} - {"__init__", "__main__"} | {"inside"},
}
ONLY_INSIDE = {"dask", "distributed", "dask_mpi", "mpi4py", "jupyter_server", "jupyterlab", "tornado", "traitlets"}
DOING = {"subprocess", "socket", "asyncio", "multiprocessing", "threading", "tempfile", "shutil", "signal"}
OPENING = {"open", "read_text", "read_bytes", "write_text", "write_bytes", "unlink", "mkdir", "touch", "getenv"}

MODULES = {
    ".".join(["hpclab", *path.relative_to(PACKAGE).with_suffix("").parts]): path for path in PACKAGE.rglob("*.py")
}
MODULES = {name.removesuffix(".__init__"): path for name, path in MODULES.items()}
each = pytest.mark.parametrize("name", sorted(MODULES))


def part(module: str) -> str:
    """hpclab.batch.local is of the part `batch`, hpclab itself is `__init__`."""
    return [*module.split("."), "__init__"][1]


def at_run_time(node: ast.AST) -> Iterator[ast.AST]:
    """All below, but for what stands in `if TYPE_CHECKING`."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            continue
        yield child
        yield from at_run_time(child)


def nodes(name: str) -> list[ast.AST]:
    return list(at_run_time(ast.parse(MODULES[name].read_text())))


def imports(name: str) -> set[str]:
    """The modules that a module imports, anywhere in it."""
    found = set()
    for node in nodes(name):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name} imports relatively"
            inner = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {each if each in MODULES else node.module for each in inner}
    return found


def ours(name: str) -> set[str]:
    return {module for module in imports(name) if part(module) and module.split(".")[0] == "hpclab"}


def test_every_module_has_its_place():
    assert {part(name) for name in MODULES} == {*RANK, *MAY}


@each
def test_imports_point_to_the_left(name):
    here = part(name)
    for module in ours(name):
        there = part(module)
        if here in MAY:
            assert there in MAY[here], f"{name} imports {module}"
        elif there == here:
            is_package = MODULES[name].name == "__init__.py" or MODULES[module].name == "__init__.py"
            assert is_package, f"siblings: {name} imports {module}"
        else:
            assert RANK[there] < RANK[here], f"{name} imports {module}"


@each
def test_heavy_packages_are_imported_inside_and_by_faces_only(name):
    if part(name) not in ("inside", "mpi", "server", "cluster"):
        roots = {module.split(".")[0] for module in imports(name)}
        assert not roots & ONLY_INSIDE
        assert not [root for root in roots if root.startswith("jupyter")]


@each
def test_only_one_host_and_its_authentication_need_paramiko(name):
    if name not in ("hpclab.hosts.ssh", "hpclab.authentication"):
        assert "paramiko" not in {module.split(".")[0] for module in imports(name)}


@pytest.mark.parametrize("name", sorted(name for name in MODULES if part(name) in PURE))
class TestPure:
    def test_it_imports_nothing_that_does_things(self, name):
        assert not {module.split(".")[0] for module in imports(name)} & DOING

    def test_it_does_not_look_at_the_environment(self, name):
        assert not [
            node for node in nodes(name) if isinstance(node, ast.Attribute) and node.attr in ("environ", "environb")
        ]

    def test_it_opens_no_files(self, name):
        called = {
            node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            for node in nodes(name)
            if isinstance(node, ast.Call)
        }
        # config reads the TOML files whose paths it is given
        assert not (called & OPENING) - ({"read_text"} if name == "hpclab.config" else set())


# what is really imported

HEAVY = ONLY_INSIDE | {"jupyter_core", "jupyter_client", "paramiko", "asyncio", "numpy", "bokeh", "cryptography"}


@pytest.fixture
def imported(tmp_path):
    """imported("--help") are the packages that this command has imported."""

    def _imported(*args: str) -> set[str]:
        env = {
            "PATH": os.environ["PATH"],
            "HOME": str(tmp_path),
            "HPCLAB_HOME": str(tmp_path / "home"),
            "HPCLAB_LOCALQ_DIR": str(tmp_path / "localq"),
            "HPCLAB_SITE_CONFIG": str(tmp_path / "none.toml"),
        }
        argv = [sys.executable, "-P", "-X", "importtime", "-m", "hpclab", *args]
        done = subprocess.run(argv, env=env, capture_output=True, text=True, timeout=30, check=False)
        assert done.returncode == 0, done.stderr[-2000:]
        modules = re.findall(r"^import time:.*\| +(\S+)$", done.stderr, re.MULTILINE)
        assert "hpclab.cli" in modules
        return {module.split(".")[0] for module in modules}

    return _imported


def test_help_is_light(imported):
    assert not imported("--help") & HEAVY


def test_status_is_light(imported, tmp_path):
    store = Store(LocalHost({"HPCLAB_HOME": str(tmp_path / "home")}), settings())
    store.make(session_record(), CREDENTIALS, {})
    store.add_jobs("calm-otter", ["1"], job_record("main"), NOON)
    assert not imported("status", "calm-otter") & HEAVY
