"""Where requests of all tabs come together: each becomes one call of the core, in a thread, and none is made twice."""

from __future__ import annotations

import asyncio
import os
import threading
import time
import traceback
from collections import OrderedDict
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, TypeVar

from hpclab.config import config_files, load
from hpclab.errors import HpclabError, NoSuchSession, NotRunning, SessionExists
from hpclab.relay import waiting
from hpclab.server.answer import answer, log, no_session, story
from hpclab.server.wanted import WorkersWanted
from hpclab.server.whose import Whose
from hpclab.session import ALIVE, Session
from hpclab.show import change_text, submitted_text
from hpclab.threads import in_thread

FRESH_S = 0.8
"""Two tabs that ask within this time are told the same."""
REMEMBERED = 1000
"""Clicks whose answer is still known when they are said again."""
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Door:
    """Where Dask's dashboard listens, and the token that opens it."""

    host: str
    port: int
    token: str


class Desk:
    """All that can be asked of the session of this server. Its methods are for the event loop."""

    def __init__(self, *, root_dir: str) -> None:
        self._root_dir = root_dir
        self._whose = Whose(os.environ)
        self._watched: Session | None = None
        """That of all looks, which follow one another: it remembers what the batch system has just said."""
        self._eye = asyncio.Lock()
        self._look: asyncio.Task[dict[str, Any]] | None = None
        self._looked_at = 0.0
        self._scaling = asyncio.Lock()
        """Each counts what the one before has submitted."""
        self._doing: dict[str, asyncio.Task[Any]] = {}
        self._clicks: OrderedDict[str, asyncio.Task[dict[str, Any]]] = OrderedDict()
        self.trouble = ""
        """What went wrong after its request was answered."""
        self.has_proxy = True
        """The way to Dask's dashboard is installed."""

    # looking

    async def answer(self) -> dict[str, Any]:
        """What the panel shows. Who asks while another look is under way, or just after, gets the same."""
        look = self._look
        if look is None or (look.done() and time.monotonic() - self._looked_at > FRESH_S):
            self._look = look = asyncio.create_task(self._next_look())
        return await asyncio.shield(look)

    async def _next_look(self) -> dict[str, Any]:
        try:
            return await self._with_eye(self._seen)
        except NoSuchSession as error:
            return no_session(str(error), self._whose.worker_record, trouble=self.trouble, now=time.time())
        finally:
            self._looked_at = time.monotonic()

    def _seen(self, session: Session) -> dict[str, Any]:
        view = session.view()
        self._whose.seen(view)
        told = answer(
            view,
            session.activity,
            session.request,
            waiting=waiting(self._whose.host, session.folder),
            trouble=self.trouble,
        )
        return told if self.has_proxy else {**told, "dashboard": ""}

    async def story(self, job_id: str) -> dict[str, Any]:
        return await self._with_eye(lambda session: story(session.why(job_id), time.time()))

    async def log(self, job_id: str, lines: int) -> dict[str, Any]:
        """Its end. Nobody need be asked for it, so it is there also while the batch system does not answer."""
        return await in_thread(lambda: log(self._whose.session().log(job_id, lines=lines + 1), lines))

    async def _with_eye(self, work: Callable[[Session], T]) -> T:
        def look() -> T:
            session = self._whose.session()
            if self._watched is None or self._watched.folder != session.folder:
                self._watched = session
            return work(self._watched)

        async with self._eye:
            return await in_thread(look)

    async def door(self) -> Door | None:
        """To Dask's dashboard; None: there is none now."""

        def look() -> tuple[Door, str] | None:
            session = self._whose.session()
            if (here := session.connection) is None:
                return None
            return Door(host=here.dashboard_host, port=here.dashboard_port, token=session.token), here.job_id

        if (found := await in_thread(look)) is None:
            return None
        door, job_id = found
        # outside of its job: a port that was the session's may be another's now, who must not get the token
        is_sure = job_id == self._whose.job_id or (await self.answer())["dashboard"]
        return door if is_sure else None

    # changing

    async def add_workers(self, wanted: WorkersWanted) -> dict[str, Any]:
        """A click that is said twice is carried out once, and has one answer."""
        click = self._clicks.get(wanted.request)
        if click is None:
            click = self._clicks[wanted.request] = asyncio.create_task(self._add(wanted))
            while len(self._clicks) > REMEMBERED:
                self._clicks.popitem(last=False)
        return await asyncio.shield(click)

    async def _add(self, wanted: WorkersWanted) -> dict[str, Any]:
        def add(session: Session) -> dict[str, Any]:
            jobs = session.add_worker(wanted.record(session.request), wanted.count)
            return {"jobs": jobs, "text": submitted_text(jobs, session.name)}

        return await self._changed(add)

    async def scale(self, workers: int) -> dict[str, Any]:
        async def scaled() -> dict[str, Any]:
            async with self._scaling:
                return await self._changed(lambda session: {"text": change_text(session.scale(workers))})

        return await self._once(f"scale {workers}", scaled)

    async def retire(self, job_id: str) -> dict[str, Any]:
        return await self._once(
            f"retire {job_id}",
            lambda: self._changed(lambda session: {"text": session.remove_worker(job_id)}),
        )

    async def stop(self) -> dict[str, Any]:
        """The jobs that will be cancelled. It goes on after the answer, for it may end this very server."""
        return await self._once("stop", self._begin_to_stop)

    async def _begin_to_stop(self) -> dict[str, Any]:
        def look(session: Session) -> tuple[Session, list[str]]:
            view = session.view()
            jobs = [job.job_id for job in view.jobs if not job.status.state.is_final]
            if not jobs:
                raise NotRunning(f"the session {session.name} is {view.state}: no job is left to be cancelled")
            return session, jobs

        session, jobs = await self._changed(look)
        threading.Thread(target=self._stop, args=(session,), daemon=True).start()
        return {"jobs": jobs}

    def _stop(self, session: Session) -> None:
        try:
            session.stop()
        except HpclabError as error:
            self.trouble = f"{session.name} was told to stop, but: {error}"
        except Exception:
            traceback.print_exc()
            self.trouble = f"{session.name} was told to stop, but something went wrong; JupyterLab's log tells what"

    async def start(self, queue: str) -> dict[str, Any]:
        """A session on this machine, from a plain JupyterLab."""
        return await self._once("start", lambda: self._start(queue))

    async def _start(self, queue: str) -> dict[str, Any]:
        told = await self.answer()
        if (session := told["session"]) and (self._whose.own or session["state"] in ALIVE):
            raise SessionExists(f"this JupyterLab has the session {session['name']} already\nstop that one first")

        def begin() -> dict[str, Any]:
            settings = load(os.environ, config_files(os.environ), {"queue": queue})[0]
            started = Session.start(self._whose.host, settings, notebook_dir=self._root_dir)
            self._whose.started(started)
            return {"name": started.name}

        try:
            return await in_thread(begin)
        finally:
            self._look = None

    async def _changed(self, work: Callable[[Session], T]) -> T:
        """What was seen before it does not hold any more."""
        self.trouble = ""
        try:
            return await in_thread(lambda: work(self._whose.session()))
        finally:
            self._look = None

    async def _once(self, key: str, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """What is asked for while it is being done is not begun again."""
        task = self._doing.get(key)
        if task is None:
            task = self._doing[key] = asyncio.create_task(work())
            task.add_done_callback(lambda _: self._doing.pop(key))
        return await asyncio.shield(task)
