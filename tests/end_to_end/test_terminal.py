"""A terminal in JupyterLab, whose user's profile puts another Python first."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from harness import Home, Session
from tornado.httpclient import AsyncHTTPClient, HTTPRequest
from tornado.websocket import websocket_connect


@pytest.fixture
def a_session_of_a_user_with_a_bashrc(a_home, tmp_path: Path) -> Session:
    user = tmp_path / "user"
    user.mkdir()
    (user / ".bashrc").write_text("PATH=/usr/bin:/bin; export MINE=yes\n")
    home: Home = a_home()
    home.settings.update({"HOME": str(user), "SHELL": "/bin/bash"})
    return home.start()


async def typed(session: Session, line: str) -> str:
    """What a terminal shows, up to END."""
    parts = urlsplit(session.printed["jupyter_url"])
    key = {"Authorization": f"token {session.token}"}
    made = await AsyncHTTPClient().fetch(
        HTTPRequest(f"http://{parts.netloc}/api/terminals", method="POST", headers=key, body="", request_timeout=30)
    )
    name = json.loads(made.body)["name"]
    terminal = await websocket_connect(
        HTTPRequest(f"ws://{parts.netloc}/terminals/websocket/{name}", headers=key, request_timeout=30)
    )
    # the sum is not in the echo of what was typed
    terminal.write_message(json.dumps(["stdin", f"{line}; echo END$((1 + 1))\r"]))
    shown = ""
    async with asyncio.timeout(60):
        while "END2" not in shown:
            kind, *text = json.loads(str(await terminal.read_message()))
            shown += text[0] if kind == "stdout" else ""
    return shown


def test_in_a_terminal_hpclab_and_python_are_the_session_s(a_session_of_a_user_with_a_bashrc: Session) -> None:
    session = a_session_of_a_user_with_a_bashrc
    connect = "from dask.distributed import Client; print(Client().submit(lambda: 6 * 7).result())"
    shown = asyncio.run(typed(session, f"echo mine=$MINE; hpclab status | head -n 1; python -c '{connect}'"))
    assert "mine=yes" in shown
    assert f"{session.name}  running" in shown
    assert "\n42" in shown
