"""hpclab: JupyterLab with Dask behind it, on any batch-scheduled cluster, from one command.

The public names of the library; importing them costs next to nothing until one is used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hpclab.__about__ import __version__

if TYPE_CHECKING:
    from hpclab.session import Session as Session

__all__ = ["Session", "__version__"]


def __getattr__(name: str) -> object:
    if name == "Session":
        from hpclab.session import Session

        return Session
    raise AttributeError(f"module 'hpclab' has no attribute {name!r}")
