"""What a notebook does, without a browser: ask the server for a kernel, and run code in it."""

from __future__ import annotations

import asyncio
import json
import uuid

from tornado.httpclient import AsyncHTTPClient, HTTPClientError, HTTPRequest
from tornado.websocket import websocket_connect

POLL_S = 0.02


async def answers(server: str, token: str) -> None:
    """Returns when the server at this address answers."""
    while True:
        try:
            await AsyncHTTPClient().fetch(_request(f"{server}/api/status", token))
            return
        except (OSError, HTTPClientError):
            await asyncio.sleep(POLL_S)


async def printed(server: str, token: str, code: str) -> str:
    """What the code prints in a new kernel."""
    answer = await AsyncHTTPClient().fetch(_request(f"{server}/api/kernels", token, method="POST", body="{}"))
    kernel = json.loads(answer.body)["id"]
    channels = f"{server.replace('http', 'ws', 1)}/api/kernels/{kernel}/channels"
    line = await websocket_connect(_request(channels, token))
    await line.write_message(json.dumps(_execute_request(code)))
    text = ""
    while (told := await line.read_message()) is not None:
        message = json.loads(told)
        kind, content = message["msg_type"], message["content"]
        if kind == "stream" and content["name"] == "stdout":
            text += content["text"]
        if kind == "execute_reply":
            if content["status"] != "ok":
                raise RuntimeError("\n".join(content.get("traceback", [content["status"]])))
            break
    line.close()
    return text


def _request(url: str, token: str, *, method: str = "GET", body: str | None = None) -> HTTPRequest:
    return HTTPRequest(url, method, {"Authorization": f"token {token}"}, body, request_timeout=120)


def _execute_request(code: str) -> dict[str, object]:
    header = {"msg_id": uuid.uuid4().hex, "msg_type": "execute_request", "session": uuid.uuid4().hex, "version": "5.3"}
    return {
        "header": header | {"username": "", "date": ""},
        "parent_header": {},
        "metadata": {},
        "channel": "shell",
        "content": {"code": code, "silent": False, "allow_stdin": False},
    }
