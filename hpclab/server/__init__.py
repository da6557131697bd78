"""A face: the Jupyter server extension. It parses a request, makes one call of the core in a thread, and sends JSON."""

from __future__ import annotations

from typing import Any


def _jupyter_server_extension_points() -> list[dict[str, str]]:
    return [{"module": "hpclab.server"}]


def _load_jupyter_server_extension(server: Any) -> None:
    """Called by Jupyter once, when it starts. Nothing of a session is looked at before somebody asks."""
    from hpclab.server.desk import Desk
    from hpclab.server.routes import handlers

    desk = Desk(root_dir=str(server.root_dir))
    server.web_app.add_handlers(".*", handlers(server.web_app.settings["base_url"], desk))
