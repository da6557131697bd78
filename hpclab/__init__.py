"""hpclab: JupyterLab with Dask behind it, on any batch-scheduled cluster, from one command.

The public names of the library; importing them costs next to nothing until one is used.

* `session()`: the session that this notebook runs in, or the only one, to look at and to grow
* `SessionCluster`: the same as one of Dask's clusters
* `Session`: the core, for programs
* `initialize()`: Dask on the MPI ranks of a script
* `%load_ext hpclab` brings `%session` and `%add_worker`
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import TYPE_CHECKING

from hpclab.__about__ import __version__

if TYPE_CHECKING:
    from hpclab.cluster import SessionCluster as SessionCluster
    from hpclab.inside.initialize import initialize as initialize
    from hpclab.notebook import NotebookSession
    from hpclab.session import Session as Session

__all__ = ["Session", "SessionCluster", "__version__", "initialize", "load_ipython_extension", "session"]


def __getattr__(name: str) -> object:
    if name == "Session":
        from hpclab.session import Session

        return Session
    if name == "SessionCluster":
        from hpclab.cluster import SessionCluster

        return SessionCluster
    if name == "initialize":
        from hpclab.inside.initialize import initialize

        return initialize
    if name == "session":
        import hpclab.session

        return hpclab.session
    raise AttributeError(f"module 'hpclab' has no attribute {name!r}")


def load_ipython_extension(shell: object) -> None:
    """`%load_ext hpclab`."""
    from hpclab.notebook import load_ipython_extension

    load_ipython_extension(shell)


class _SessionModule(ModuleType):
    """`hpclab.session`, which can be called."""

    def __call__(self, name: str | None = None) -> NotebookSession:
        """The named session, else the one that this notebook runs in, else the only one that is alive."""
        from hpclab.notebook import NotebookSession

        return NotebookSession(name or "")


class _Package(ModuleType):
    """A function and a module have one name: who imports the module hangs it here, and must not shadow the function."""

    def __setattr__(self, name: str, value: object) -> None:
        if name == "session" and isinstance(value, ModuleType):
            value.__class__ = _SessionModule
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
