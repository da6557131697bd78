"""What `import hpclab` promises."""

import subprocess
import sys

import hpclab
from hpclab.cluster import SessionCluster
from hpclab.inside.initialize import initialize
from hpclab.notebook import NotebookSession
from hpclab.session import Session


def test_public_names():
    assert hpclab.__all__ == [
        "Session",
        "SessionCluster",
        "__version__",
        "initialize",
        "load_ipython_extension",
        "session",
    ]
    assert all(hasattr(hpclab, name) for name in hpclab.__all__)
    assert hpclab.Session is Session
    assert hpclab.SessionCluster is SessionCluster
    assert hpclab.initialize is initialize
    assert hpclab.__version__.count(".") == 2
    assert not hasattr(hpclab, "Sessions")


def test_session_is_a_function_and_a_module(monkeypatch):
    """Whichever was wanted first."""
    monkeypatch.setattr(NotebookSession, "__init__", lambda self, name: setattr(self, "name", name))
    assert hpclab.session("calm-otter").name == "calm-otter"
    assert hpclab.session().name == ""
    assert hpclab.session.Session is Session


def test_importing_it_imports_nothing_else():
    program = """
import sys
import hpclab
assert not [name for name in sys.modules if name.startswith("hpclab.")] != ["hpclab.__about__"]
assert callable(hpclab.session)
assert not {"distributed", "dask", "IPython", "click"} & set(sys.modules)
"""
    done = subprocess.run([sys.executable, "-P", "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
