"""JupyterLab, on the scheduler's rank: `python -m hpclab.inside.jupyter SESSION_FOLDER --root-dir DIR --ip IP`.

It is started with the job and does all that needs no scheduler at once. Then it waits at a unix socket
($HPCLAB_JUPYTER) for the word, which `client.run_on_scheduler` gives: the scheduler's address. That line stays
open; when it closes, the scheduler is gone, and JupyterLab ends too.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import importlib.util
import json
import os
import shlex
import signal
import socket
import sys
import threading
from pathlib import Path
from typing import Any

from hpclab.connection import parse_token
from hpclab.folder import SessionFolder
from hpclab.inside.environ import notebook_environment, sidebar_environment
from hpclab.inside.report import announce, say

# jsonschema compiles this grammar for 0.8 s if it can be imported, for a check of addresses that nothing here makes
sys.modules["rfc3987_syntax"] = None  # type: ignore[assignment]

NOT_SHOWN = ["@jupyterlab/apputils-extension:announcements", "@jupyterhub/jupyter-server-proxy"]
"""What asks at every first visit whether one would like to read JupyterLab's news, and the other half of PROXY."""
EXTENSIONS = {"hpclab.server": "hpclab.server.dashboard", "dask_labextension": "distributed"}
"""The session's panel and Dask's sidebar, and what of each takes long to import."""
PROXY = "jupyter_server_proxy"
"""Of this both use a part. As an extension it would hand the user's cookies to whoever listens at a port of this node,
and show their pages as JupyterLab's own: on a shared node it stays off."""


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m hpclab.inside.jupyter")
    parser.add_argument("folder", type=SessionFolder)
    parser.add_argument("--root-dir", required=True)
    parser.add_argument("--ip", required=True)
    given = parser.parse_args()
    os.umask(0o077)
    door = socket.socket(socket.AF_UNIX)
    door.bind(os.environ["HPCLAB_JUPYTER"])
    door.listen(1)
    os.environ["JUPYTER_RUNTIME_DIR"] = given.folder.runtime
    supervisor = os.environ["HPCLAB_SUPERVISOR"]
    # as in worker_job: all that is made here stays
    gc.disable()
    server = _initialized(given.folder, root_dir=given.root_dir, ip=given.ip)
    gc.freeze()
    gc.enable()
    # as long as there are no notebooks to be closed, who tells us to end means at once
    wind_down = signal.signal(signal.SIGTERM, signal.SIG_DFL)
    line, _ = door.accept()
    word = json.loads(_first_line(line))
    signal.signal(signal.SIGTERM, wind_down)
    extensions = [name for name in EXTENSIONS if importlib.util.find_spec(name.partition(".")[0])]
    has_sidebar = len(extensions) == len(EXTENSIONS) and importlib.util.find_spec(PROXY) is not None
    env = notebook_environment(os.environ, given.folder, word["scheduler_address"])
    if has_sidebar:
        env |= sidebar_environment(given.folder)
    os.environ.clear()
    os.environ.update(env)
    threading.Thread(target=_end_with, args=(line,), daemon=True).start()
    server.io_loop.add_callback(_tell, supervisor, server.port)
    server.io_loop.add_callback(_load, server, extensions)
    server.start()


def _initialized(folder: SessionFolder, *, root_dir: str, ip: str) -> Any:
    from jupyterlab.labapp import LabApp
    from traitlets.config import Config

    config = Config()
    # in this process only: a token in an environment or an argv can be listed by others
    config.IdentityProvider.token = parse_token(Path(folder.token).read_text())
    config.ServerApp.update(
        {"ip": ip, "port": 0, "port_retries": 0, "open_browser": False, "root_dir": root_dir, "allow_root": True}
    )
    # not yet: see _load
    config.ServerApp.jpserver_extensions = dict.fromkeys((*EXTENSIONS, PROXY), False)
    config.ServerApp.terminado_settings = {"shell_command": _terminal(folder)}
    config.ExtensionApp.open_browser = False
    # else other users of the node could listen to what notebooks print
    config.KernelManager.transport_encryption = "required"
    # a compute node has no way out, and nobody asked
    config.ServerApp.tornado_settings = {"page_config_hook": _page_config}
    config.LabApp.news_url = None
    config.LabApp.check_for_updates_class = "jupyterlab.handlers.announcements.NeverCheckForUpdate"
    return LabApp.initialize_server(argv=[], config=config)


def _terminal(folder: SessionFolder) -> list[str]:
    """A shell in which `python` and `hpclab` are the session's, whatever the user's profile puts on PATH."""
    shell = os.environ.get("SHELL") or "bash"
    if Path(shell).name != "bash":
        return [shell]
    bashrc = f"{folder.runtime}/bashrc"
    announce(bashrc, f'[ -f ~/.bashrc ] && . ~/.bashrc\nPATH={shlex.quote(str(Path(sys.executable).parent))}:"$PATH"\n')
    return [shell, "--rcfile", bashrc]


def _page_config(_: object, page_config: dict[str, Any]) -> dict[str, Any]:
    return {**page_config, "disabledExtensions": [*page_config.get("disabledExtensions", []), *NOT_SHOWN]}


def _first_line(line: socket.socket) -> str:
    text = b""
    while not text.endswith(b"\n"):
        part = line.recv(65536)
        if not part:
            raise SystemExit("hpclab: the scheduler was gone before JupyterLab could start")
        text += part
    return text.decode()


def _end_with(line: socket.socket) -> None:
    """Wait for the end of the line; then wind down, and if that hangs, go."""
    try:
        while line.recv(4096):
            pass
    except OSError:
        pass
    say("the Dask scheduler is gone, so JupyterLab ends")
    os.kill(os.getpid(), signal.SIGTERM)
    threading.Timer(5, os._exit, args=(1,)).start()


async def _load(server: Any, extensions: list[str]) -> None:
    """What the page asks for only when it stands; nobody waits for it to come up. Jupyter logs what cannot be loaded.

    Dask is imported only now that the environment tells it all.
    """
    manager = server.extension_manager
    for name in extensions:
        with contextlib.suppress(ImportError):
            await asyncio.to_thread(importlib.import_module, EXTENSIONS[name])
        if manager.add_extension(name, enabled=True):
            manager.link_extension(name)
            manager.load_extension(name)


def _tell(supervisor: str, port: int) -> None:
    """The loop runs, so the port answers."""
    with socket.socket(socket.AF_UNIX) as line:
        line.connect(supervisor)
        line.sendall(json.dumps({"who": "jupyter", "port": port}).encode() + b"\n")


if __name__ == "__main__":
    main()
