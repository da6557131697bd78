"""A session in a notebook or at a Python prompt: `hpclab.session()`, and the magics that `%load_ext hpclab` brings.

No JupyterLab is needed for it: it works wherever IPython or Python does.
"""

from __future__ import annotations

import io
import shlex
import sys
from typing import TYPE_CHECKING, Any

import click

from hpclab import card
from hpclab.buttons import Button, with_buttons
from hpclab.cli import cli
from hpclab.config import parsed
from hpclab.current import current_session, dashboard_here
from hpclab.errors import ConfigError, HpclabError
from hpclab.growth import MOST_WORKERS
from hpclab.session import ALIVE, Session
from hpclab.show import change_text, status_text, story_text, submitted_text
from hpclab.threads import InTurns
from hpclab.units import counted, whole_number

if TYPE_CHECKING:
    from distributed import Client


class Told(str):
    """Text that a prompt shows as it is, without quotes."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)


class NotebookSession:
    """A session, with the verbs of the command line; a notebook shows it as a card."""

    def __init__(self, name: str = "") -> None:
        session = current_session(name, or_latest=True)
        self.name = session.name
        self._session, self._onlooker = InTurns(session), InTurns(current_session(session.name))
        self._widget: Any = None

    def status(self) -> dict[str, Any]:
        """What `hpclab status --json` says."""
        return self._onlooker(Session.describe)

    def add_worker(
        self,
        count: int = 1,
        *,
        cores: int | str | None = None,
        memory: str | None = None,
        walltime: str | None = None,
    ) -> list[str]:
        """Submit so many worker jobs: `add_worker(2, cores=4, memory="8G", walltime="30m")`. Their ids."""
        jobs = whole_number(count, what="count", least=1, most=MOST_WORKERS)
        asked = {
            "cores": None if cores is None else parsed("cores", cores),
            "memory_bytes": None if memory is None else parsed("memory", memory),
            "walltime_s": None if walltime is None else parsed("worker_walltime", walltime),
        }
        return self._session(lambda session: session.add_worker(session.request.worker_record(**asked), jobs))

    def scale(self, workers: int) -> Told:
        """Grow or shrink to a number of workers in all; those of the main job count, and stay."""
        wanted = whole_number(workers, what="workers", least=0, most=MOST_WORKERS)
        return Told(change_text(self._session(lambda session: session.scale(wanted))))

    def remove_worker(self, job_id: str) -> Told:
        """Let a job's workers hand over their data and leave."""
        return Told(self._session(lambda session: session.remove_worker(str(job_id))))

    def why(self, job_id: str = "") -> Told:
        """The story of one job; the main job's when none is named."""
        return Told(_text(story_text(self._onlooker(lambda session: session.why(str(job_id))))))

    def log(self, job_id: str = "", *, lines: int = 50) -> Told:
        """The end of a job's log; the main job's when none is named."""
        return Told(self._onlooker(lambda session: session.log(str(job_id), lines=lines)))

    def stop(self) -> Told:
        """End the session: cancel all its jobs, that of this notebook among them if it is the session's own."""
        cancelled = self._session(Session.stop)
        return Told(f"{self.name} has ended; {counted(len(cancelled), 'job')} cancelled")

    def client(self) -> Client:
        """A Dask client, whose `cluster` is the session."""
        from hpclab.cluster import SessionCluster

        return SessionCluster(self.name).get_client()

    def _card(self) -> str:
        try:
            described = self.status()
        except HpclabError as error:
            return card.trouble(self.name, str(error))
        return card.html(described, dashboard=dashboard_here(self.name) or described["dashboard_url"] or "")

    def _buttons(self) -> list[Button]:
        try:
            described = self.status()
        except HpclabError:
            return []
        if described["state"] not in ALIVE:
            return []
        workers = (("Workers", described["workers"]["joined"] + described["workers"]["pending"]),)
        return [
            Button("Add worker", (("Jobs", 1),), lambda count: submitted_text(self.add_worker(count), self.name)),
            Button("Scale", workers, self.scale),
        ]

    def __repr__(self) -> str:
        try:
            return _text(status_text(self.status()))
        except HpclabError as error:
            return f"{self.name}: {error}"

    def _repr_mimebundle_(self, **kwargs: Any) -> dict[str, Any]:
        if self._widget is None:
            self._widget = with_buttons(f"session {self.name}", self._card, self._buttons())
        shown = dict(self._widget._repr_mimebundle_(**kwargs) or {}) if self._widget is not None else {}
        return {**shown, "text/plain": repr(self), "text/html": self._card()}


def load_ipython_extension(shell: Any) -> None:
    """`%load_ext hpclab`."""
    shell.register_magic_function(add_worker, "line", "add_worker")
    shell.register_magic_function(session, "line", "session")


def add_worker(line: str) -> None:
    """`%add_worker -n 2 --cores 4 --walltime 30m`, as `hpclab add-worker`; `%add_worker --help` tells the rest."""
    try:
        cli(["add-worker", *_words(line)], prog_name="hpclab", standalone_mode=False)
    except click.ClickException as error:
        _complain(error.format_message())
    except HpclabError as error:
        _complain(str(error))
    except (click.Abort, SystemExit):
        pass  # it has said all there is to say


def session(line: str) -> NotebookSession | None:
    """`%session`: the session that this notebook runs in, or the only one; `%session NAME`: another."""
    try:
        words = _words(line)
        if len(words) > 1:
            raise ConfigError("%session takes one name, or none")
        return NotebookSession(*words)
    except HpclabError as error:
        _complain(str(error))
        return None


def _words(line: str) -> list[str]:
    try:
        return shlex.split(line)
    except ValueError as error:
        raise ConfigError(f"cannot read {line!r}: {error}") from error


def _complain(text: str) -> None:
    print(f"hpclab: {text}", file=sys.stderr)


def _text(page: Any) -> str:
    """Of what the command line would print."""
    from rich.console import Console

    paper = io.StringIO()
    # a kernel's environment asks for colours, which plain text has none of
    Console(file=paper, width=100, highlight=False, force_terminal=False, force_jupyter=False).print(page)
    return "\n".join(line.rstrip() for line in paper.getvalue().splitlines()).strip("\n")
