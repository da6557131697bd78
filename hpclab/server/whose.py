"""Which session a server shows: its own within a session, else one that was started from it, else the only one here."""

from __future__ import annotations

import time
from collections.abc import Mapping

from hpclab.config import defaults
from hpclab.errors import NoSuchSession
from hpclab.folder import SessionFolder
from hpclab.hosts.local import LocalHost
from hpclab.job import JobRecord
from hpclab.request import Request
from hpclab.server.answer import HINT
from hpclab.session import ALIVE, Session
from hpclab.view import SessionView

SEARCH_EVERY_S = 5
"""A search asks every batch system that has a session."""


class Whose:
    """The name of the session; `env` is that of the server."""

    def __init__(self, env: Mapping[str, str]) -> None:
        self.host = LocalHost(env)
        self.settings = defaults()
        self.own = env.get("HPCLAB_SESSION", "")
        """Of the session that this server belongs to; empty in a plain JupyterLab."""
        self.job_id = env.get("HPCLAB_JOB_ID", "")
        self._name = self.own
        self._absence: tuple[float, str] = (-SEARCH_EVERY_S, "")
        """When there was none to be found (on the monotonic clock), and what was said."""

    @property
    def worker_record(self) -> JobRecord:
        """Of a worker of a session that would be started here."""
        here = SessionFolder(self.host.home)
        planned = Request(folder=here, system="local", partition="", settings=self.settings, python=self.host.python)
        return planned.worker_record()

    def session(self) -> Session:
        """A new object each time, for one thread. Raises NoSuchSession, which says how to start one."""
        # another thread may forget it meanwhile
        name = self._name = self._name or self._found()
        try:
            return Session.open(self.host, self.settings, name)
        except NoSuchSession:
            self.forget()
            raise

    def started(self, session: Session) -> None:
        self._name = session.name

    def seen(self, view: SessionView) -> None:
        """One that has ended makes room for another; one that has failed stays, to be read why."""
        if view.state not in (*ALIVE, "ending", "failed"):
            self.forget()

    def forget(self) -> None:
        self._name = self.own

    def _found(self) -> str:
        since, said = self._absence
        if time.monotonic() - since < SEARCH_EVERY_S:
            raise NoSuchSession(said)
        try:
            session = Session.only(self.host, self.settings)
            if (system := session.request.system) != "local":
                raise NoSuchSession(
                    f"the session {session.name} is on {system}, and has a JupyterLab of its own\n"
                    f"open that one: hpclab attach {session.name}"
                )
        except NoSuchSession as error:
            said = HINT if str(error).startswith("no session is running") else str(error)
            self._absence = (time.monotonic(), said)
            raise NoSuchSession(said) from None
        return session.name
