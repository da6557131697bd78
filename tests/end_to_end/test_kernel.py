"""A session in a real kernel, with no JupyterLab around it: what a notebook of any front end shows and says."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from harness import Session
from jupyter_client.manager import start_new_kernel

WIDGET = "application/vnd.jupyter.widget-view+json"


@dataclass
class Cell:
    """What one cell has said and shown."""

    stdout: str = ""
    stderr: str = ""
    error: str = ""
    shown: list[dict[str, Any]] = field(default_factory=list)

    @property
    def html(self) -> str:
        return str(self.shown[-1]["text/html"])

    @property
    def text(self) -> str:
        return str(self.shown[-1]["text/plain"])


class Kernel:
    def __init__(self, client: Any) -> None:
        self._client = client

    def run(self, source: str) -> Cell:
        cell = Cell()

        def hear(message: dict[str, Any]) -> None:
            content = message["content"]
            if message["msg_type"] == "stream":
                setattr(cell, content["name"], getattr(cell, content["name"]) + content["text"])
            elif message["msg_type"] == "error":
                cell.error = "\n".join(content["traceback"])
            elif message["msg_type"] in ("execute_result", "display_data"):
                cell.shown.append(content["data"])

        self._client.execute_interactive(source, output_hook=hear, timeout=90)
        return cell


@pytest.fixture(scope="module")
def a_kernel(a_running_session: Session) -> Iterator[Kernel]:
    """One of the user's, outside of the session's own JupyterLab, with hpclab loaded."""
    manager, client = start_new_kernel(env={**os.environ, **a_running_session.home.environ})
    try:
        kernel = Kernel(client)
        assert not kernel.run("import hpclab\n%load_ext hpclab").error
        yield kernel
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)


@pytest.fixture
def no_ipywidgets(a_kernel: Kernel) -> Iterator[None]:
    a_kernel.run("import sys; sys.modules['ipywidgets'] = None")
    yield
    a_kernel.run("del sys.modules['ipywidgets']")


@pytest.mark.parametrize("source", ["hpclab.session()", "hpclab.session('shared')", "%session", "%session shared"])
def test_the_session_is_shown_as_a_card(a_running_session: Session, a_kernel: Kernel, source: str) -> None:
    cell = a_kernel.run(source)
    assert not cell.error
    assert "<strong>shared</strong>" in cell.html
    assert f">{a_running_session.main_job}, main<" in cell.html
    assert re.search(r"shared\s+running", cell.text)
    assert WIDGET in cell.shown[-1]


@pytest.mark.parametrize("source", ["hpclab.session()", "hpclab.SessionCluster()"])
@pytest.mark.usefixtures("no_ipywidgets")
def test_without_ipywidgets_it_is_shown_without_buttons(a_kernel: Kernel, source: str) -> None:
    cell = a_kernel.run(source)
    assert not cell.error
    assert sorted(cell.shown[-1]) == ["text/html", "text/plain"]
    assert "<strong>shared</strong>" in cell.html


def test_the_cluster_is_shown_with_the_same_card(a_running_session: Session, a_kernel: Kernel) -> None:
    cell = a_kernel.run("hpclab.SessionCluster()")
    assert f">{a_running_session.main_job}, main<" in cell.html
    assert cell.text.startswith("SessionCluster(shared, 'tls://")
    assert WIDGET in cell.shown[-1]


def test_workers_are_added_and_removed_from_a_cell(a_running_session: Session, a_kernel: Kernel) -> None:
    cell = a_kernel.run("%add_worker -n 2 --cores 1 --walltime 30m")
    assert not cell.error
    assert not cell.stderr
    found = re.fullmatch(r"submitted (\d+), (\d+) to shared; see them with `hpclab status`\n", cell.stdout)
    assert found, cell
    for job_id in found.groups():
        a_running_session.wait_joined(job_id)
        assert a_running_session.job(job_id)["walltime_s"] == 1800
        assert (
            a_kernel.run(f"hpclab.session().remove_worker({job_id})").text
            == f"job {job_id} handed over its data and left"
        )


def test_a_session_gives_a_client(a_kernel: Kernel) -> None:
    cell = a_kernel.run("with hpclab.session().client() as client: print(client.submit(lambda: 6 * 7).result())")
    assert cell.stdout == "42\n"


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("%add_worker --cores many", "hpclab: --cores: cores must be a whole number of at least 1, not 'many'\n"),
        ("%add_worker --core 4", "hpclab: No such option"),
        ("%add_worker 'x", 'hpclab: cannot read "\'x": No closing quotation\n'),
        ("%add_worker -s nobody", "hpclab: no session 'nobody'"),
        ("%session nobody", "hpclab: no session 'nobody'"),
        ("%session a b", "hpclab: %session takes one name, or none\n"),
    ],
)
def test_what_cannot_be_done_is_said_in_a_line(a_kernel: Kernel, source: str, said: str) -> None:
    cell = a_kernel.run(source)
    assert cell.stderr.startswith(said)
    assert not cell.error
    assert not cell.shown


@pytest.mark.parametrize(
    "source", ["hpclab.session('nobody')", "hpclab.SessionCluster('nobody')", "hpclab.session().add_worker(0)"]
)
def test_errors_are_shown_without_a_traceback(a_kernel: Kernel, source: str) -> None:
    cell = a_kernel.run(source)
    assert cell.error.startswith("hpclab: ")
    assert "Traceback" not in cell.error
    assert ".py" not in cell.error


def test_the_magics_tell_their_options(a_kernel: Kernel) -> None:
    assert "--walltime TIME" in a_kernel.run("%add_worker --help").stdout


def test_a_button_adds_a_worker(a_running_session: Session, a_kernel: Kernel) -> None:
    """Pressed as the front end presses it: by a message to the widget."""
    a_kernel.run("shown = hpclab.session(); shown")
    before = len(a_running_session.status()["jobs"])
    cell = a_kernel.run(
        """
rows = shown._widget.children
_, row, _, said = rows
row.children[-1]._handle_custom_msg({"event": "click"}, [])
row.children[-1]._handle_custom_msg({"event": "click"}, [])
import time
while not said.value: time.sleep(0.05)
print(said.value)
"""
    )
    found = re.search(r"<pre>submitted (\d+) to shared</pre>", cell.stdout)
    assert found, cell
    assert len(a_running_session.status()["jobs"]) == before + 1
    a_running_session.home.ok("remove-worker", found[1], "--session", "shared")
