"""A plain Jupyter server with the extension and nothing else, and those who ask it."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import requests

TOKEN = "5ec2e7" * 6
BASE = "/user/ada/"
SERVER = """if True:
    import sys, warnings
    from jupyter_server.serverapp import ServerApp
    from jupyter_server.utils import JupyterServerAuthWarning
    warnings.filterwarnings("error", category=JupyterServerAuthWarning)
    app = ServerApp.instance()
    app.initialize(sys.argv[1:])
    app.io_loop.add_callback(print, app.port, flush=True)
    app.start()
    """


@dataclass
class Server:
    """One that is up; `ask` is with the token, unless other `headers` or `cookies` are given."""

    url: str
    log: Path
    env: Mapping[str, str] = field(repr=False)
    process: subprocess.Popen[str] = field(repr=False)

    def ask(self, method: str, path: str, body: object = None, **more: Any) -> requests.Response:
        given: dict[str, Any] = {"headers": {"Authorization": f"token {TOKEN}"}, "allow_redirects": False} | more
        if body is not None:
            given["data"] = body if isinstance(body, str | bytes) else json.dumps(body)
        return requests.request(method, self.url + path, timeout=60, **given)

    def get(self, path: str) -> Any:
        answer = self.ask("GET", path)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def post(self, path: str, body: object) -> Any:
        answer = self.ask("POST", path, body)
        assert answer.status_code in (200, 201, 202), answer.text
        return answer.json()

    def session(self) -> dict[str, Any]:
        found: dict[str, Any] = self.get("hpclab/session")["session"]
        return found

    def session_when(self, condition: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """The session, once it is so."""
        deadline = time.monotonic() + 30
        while not condition(session := self.session()):
            assert time.monotonic() < deadline, session
        return session

    def a_browser(self) -> requests.Session:
        """One that has opened the link with the token, and has its cookies."""
        browser = requests.Session()
        assert browser.get(f"{self.url}?token={TOKEN}", timeout=60).ok
        assert "_xsrf" in browser.cookies
        return browser


@contextmanager
def a_server(path: Path, env: Mapping[str, str], *options: str) -> Iterator[Server]:
    """In `path`, for the user of this environment; where it warns of a route without authentication, it is not up."""
    own = {f"JUPYTER_{name}_DIR": f"{path}/jupyter/{name.lower()}" for name in ("CONFIG", "RUNTIME", "DATA")}
    # what else is installed is switched off
    extensions = dict.fromkeys(("jupyterlab", "notebook_shim", "dask_labextension", "jupyter_server_proxy"), False)
    extensions |= dict.fromkeys(("jupyter_lsp", "jupyter_server_terminals"), False) | {"hpclab.server": True}
    argv = [
        *[f"--ServerApp.{name}={value}" for name, value in _settings(path).items()],
        f"--ServerApp.jpserver_extensions={extensions}",
        *options,
    ]
    env = {**env, **own, "JUPYTER_TOKEN": TOKEN}
    log = path / "server.log"
    with log.open("w") as stderr:
        process = subprocess.Popen(
            [sys.executable, "-P", "-c", SERVER, *argv],
            env=env,
            cwd=path,
            stdout=subprocess.PIPE,
            stderr=stderr,
            stdin=subprocess.DEVNULL,
            text=True,
        )
    try:
        assert process.stdout is not None
        port = process.stdout.readline().strip()
        assert port, log.read_text()
        yield Server(f"http://127.0.0.1:{port}{BASE}", log, env, process)
    finally:
        process.terminate()
        process.wait(30)


def _settings(path: Path) -> dict[str, object]:
    return {
        "ip": "127.0.0.1",
        "port": 0,
        "open_browser": False,
        "allow_root": True,
        "root_dir": path,
        "base_url": BASE,
        "allow_unauthenticated_access": False,
        "reraise_server_extension_failures": True,
    }
