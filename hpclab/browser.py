"""Opening a page in the user's browser, its token kept from everybody who can list processes."""

from __future__ import annotations

import html
import sys
import threading
import webbrowser
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from hpclab.hosts.local import LocalHost

AT_ONCE_S = 10.0
"""Within this a browser says that it cannot, or has handed the page to one that is open."""
PAGE = """<!DOCTYPE html>
<html><head><meta charset="utf-8"><meta name="referrer" content="no-referrer">
<meta http-equiv="refresh" content="0; url={url}"><title>JupyterLab</title></head>
<body><a href="{url}">JupyterLab</a></body></html>
"""


def has_browser(env: Mapping[str, str]) -> bool:
    """Somebody sits in front of this machine's screen."""
    if sys.platform in ("win32", "darwin"):
        return "SSH_CONNECTION" not in env
    return bool(env.get("BROWSER") or env.get("DISPLAY") or env.get("WAYLAND_DISPLAY"))


def open_page(host: LocalHost, url: str, name: str) -> bool:
    """Whether a browser could be told. It gets a file of ours that leads on, for its command line others can read."""
    page = _page(host, name)
    try:
        if not page.parent.is_dir():
            host.make_folder(str(page.parent))
        host.write(str(page), PAGE.format(url=html.escape(url)))
    except OSError:
        return False
    return _told(page.as_uri())


def forget_page(host: LocalHost, name: str) -> None:
    with suppress(OSError):
        _page(host, name).unlink()


def _page(host: LocalHost, name: str) -> Path:
    # browsers that came as a snap may not read hidden folders
    in_sight = any(Path(f"/snap/bin/{browser}").exists() for browser in ("firefox", "chromium"))
    folder = Path.home() / "hpclab-pages" if in_sight else Path(host.home) / "pages"
    return folder.absolute() / f"{name}.html"


def _told(url: str) -> bool:
    """Some browsers return only when they are closed."""
    told: list[bool] = []

    def tell() -> None:
        with suppress(OSError, webbrowser.Error):
            told.append(webbrowser.open(url))

    telling = threading.Thread(target=tell, daemon=True)
    telling.start()
    telling.join(AT_ONCE_S)
    return telling.is_alive() or told == [True]
