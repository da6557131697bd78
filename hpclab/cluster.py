"""`SessionCluster`: a running session as one of Dask's clusters, for notebooks and for JupyterLab's Dask panel.

It comes to a session and leaves it; it neither starts nor ends one. What it asks of the session runs in a thread, for a
batch system may take its time, and the event loop is not ours alone.
"""

from __future__ import annotations

import asyncio
import logging
import math
import threading
import time
import weakref
from collections.abc import Callable, Coroutine, Generator
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar

from distributed import Client
from distributed.core import Status, rpc
from distributed.deploy import Adaptive, Cluster
from distributed.security import Security
from distributed.utils import sync
from tornado.ioloop import IOLoop

from hpclab import card
from hpclab.buttons import Button, with_buttons
from hpclab.connection import worker_name
from hpclab.current import current_session, dashboard_here
from hpclab.errors import ConfigError, HpclabError, NotRunning
from hpclab.folder import SessionFolder
from hpclab.growth import MOST_WORKERS, Change, Demand
from hpclab.inside.network import announced, way_to
from hpclab.job import JobState
from hpclab.session import Session
from hpclab.show import change_text, submitted_text
from hpclab.threads import InTurns, in_thread
from hpclab.units import format_duration, whole_number
from hpclab.view import SessionView

logger = logging.getLogger("hpclab")
T = TypeVar("T")

ANSWER_WITHIN_S = 10
LOOK_EVERY_S = 10.0
IDLE_LOOKS = 6
"""So many looks in a row, a minute, the load could have done without a worker before it leaves."""
TARGET_DURATION_S = 30.0
"""What the present workers would have done so soon is no reason to ask for others: those wait in a queue first."""
PAUSE_S = 300.0
"""How long it is waited at most after the batch system has refused, or has not answered."""


class SessionCluster(Cluster):  # type: ignore[misc]
    """A running session: the named one, else the one that this notebook runs in, else the only one that is alive.

    `close` leaves the session as it is. `SessionCluster(asynchronous=True)` is to be awaited.
    """

    status: Status
    _adaptive: Adaptation | None

    def __init__(self, name: str | None = None, *, asynchronous: bool = False, loop: IOLoop | None = None) -> None:
        self._wanted = name or ""
        self._lock = asyncio.Lock()
        self._finalizer: weakref.finalize[Any, Any] | None = None
        self.security: Security | None = None
        self.trouble = ""
        """Why it is connected no more, or does not adapt any more; empty: all is well."""
        self._onlooker: InTurns[Session] | None = None
        """The same session for those who only look; None: it has not come to one yet."""
        self._coming: frozenset[str] = frozenset()
        self._dashboard_url = ""
        super().__init__(asynchronous=asynchronous, loop=loop, quiet=True, name=self._wanted or "session")
        if not self.called_from_running_loop:
            self._loop_runner.start()
            try:
                self.sync(self._start)
            except BaseException:
                self._loop_runner.stop()
                raise

    # to come and to go

    async def _start(self) -> None:
        async with self._lock:
            if self.status is not Status.created:
                return
            try:
                self._session, self._onlooker, view, security, address = await in_thread(partial(_find, self._wanted))
                self.security = security
                self.scheduler_comm = rpc(
                    address, timeout=ANSWER_WITHIN_S, connection_args=security.get_connection_args("client")
                )
                self.name = view.name
                self._look_at(view)
                try:
                    await asyncio.wait_for(super()._start(), 2 * ANSWER_WITHIN_S)
                except (OSError, TimeoutError) as error:
                    raise NotRunning(
                        f"the Dask scheduler of {view.name} does not answer at {address}: {error or 'silence'}\n"
                        f"look with `hpclab status {view.name}`"
                    ) from error
            except BaseException:
                self.status = Status.failed
                await self._close()
                raise
            self.name = view.name  # whatever the scheduler remembers of others
            self._finalizer = weakref.finalize(
                self, _let_go, self.loop, self._loop_runner, self._watch_worker_status_comm, self.scheduler_comm
            )
            self._finalizer.atexit = False  # the process takes its connections with it

    def __await__(self) -> Generator[Any, Any, SessionCluster]:
        async def started() -> SessionCluster:
            await self._start()
            return self

        return started().__await__()

    def _watch_worker_status(self, comm: Any) -> Coroutine[Any, Any, None]:
        # without holding on to the cluster, so that one that nobody refers to any more goes
        return _watch(weakref.ref(self), comm)

    async def _sync_cluster_info(self) -> None:
        """The scheduler need not remember who has come."""

    def _scheduler_is_gone(self) -> None:
        if self.status is Status.running:
            self.trouble = "the connection to its Dask scheduler is gone"
            logger.warning("%s: %s; see `hpclab status %s`", self.name, self.trouble, self.name)
            self._closing = asyncio.ensure_future(self._close())

    async def _close(self) -> None:
        if self._finalizer:
            self._finalizer.detach()
        await super()._close()

    def close(self, timeout: float | None = None) -> Any:
        """Leave the session, which goes on."""
        done = super().close(timeout)
        if not self.asynchronous:
            self._loop_runner.stop()
        return done

    def __del__(self) -> None:
        """Nothing is lost with it; the finalizer closes its connections."""

    # what it is

    def __eq__(self, other: object) -> bool:
        return self is other

    __hash__ = Cluster.__hash__

    @property
    def dashboard_link(self) -> str:
        return dashboard_here(self.name) or self._dashboard_url

    @property
    def observed(self) -> set[str]:
        return {str(worker["name"]) for worker in self.scheduler_info["workers"].values()}

    @property
    def requested(self) -> set[str]:
        """With those whose jobs wait or start."""
        return self.observed | self._coming

    @property
    def plan(self) -> set[str]:
        return self.requested

    def get_client(self) -> Client:
        if self.trouble and self.status in (Status.closing, Status.closed):
            raise NotRunning(
                f"{self.name}: {self.trouble}\nlook with `hpclab status {self.name}`, then make a new SessionCluster"
            )
        return super().get_client()

    def _look_at(self, view: SessionView) -> SessionView:
        self._dashboard_url = str(view.describe()["dashboard_url"] or "")
        self._coming = frozenset(
            worker_name(job.job_id, index)
            for job in view.jobs
            if job.status.state in (JobState.PENDING, JobState.HELD, JobState.RUNNING) and not job.joined
            for index in range(job.record.workers)
        )
        return view

    # to grow and to shrink

    def scale(self, n: int) -> Any:
        """Meet a number of workers in all; those of the main job count, and stay. Ends adapting. What was done."""
        return self.sync(self._scale, n)

    def _scale(self, n: int) -> asyncio.Future[str]:
        # a task, for not everybody awaits it
        return asyncio.ensure_future(self._scaled(n))

    async def _scaled(self, n: int) -> str:
        workers = whole_number(n, what="the number of workers", least=0, most=MOST_WORKERS)
        if self._adaptive:
            self._adaptive.stop(reason="scaled by hand")
        return change_text(await self._say(lambda session: session.scale(workers)))

    def add_worker(self, count: int = 1) -> Any:
        """Submit so many worker jobs; their ids."""
        count = whole_number(count, what="the number of jobs", least=1, most=MOST_WORKERS)
        return self.sync(self._say, lambda session: session.add_worker(session.request.worker_record(), count))

    async def _say(self, what: Callable[[Session], T]) -> T:
        def said(session: Session) -> tuple[T, SessionView]:
            return what(session), session.view()

        await self._start()
        done, view = await in_thread(lambda: self._session(said))
        self._look_at(view)
        return done

    def adapt(
        self,
        minimum: int | None = None,
        maximum: int | float | None = None,
        *,
        interval: Any = None,
        wait_count: int | None = None,
        target_duration: Any = None,
    ) -> Adaptation:
        """Follow Dask's load, between so many workers in all.

        The load is looked at every `interval` (10 s). Idle workers leave after `wait_count` looks (6) in which the load
        could have done without them; queued jobs are given up later than that. See `growth.adapted`.
        """
        least = whole_number(minimum or 0, what="minimum", least=0, most=MOST_WORKERS)
        most: int | float = math.inf
        if maximum is not None and maximum != math.inf:
            most = whole_number(maximum, what="maximum", least=0, most=MOST_WORKERS)
        if least > most:
            raise ConfigError(f"minimum {least} is more than maximum {most}\ngive the smaller one first")
        if self._adaptive:
            self._adaptive.stop(reason="adapts anew")
        self.trouble = ""
        self._adaptive = Adaptation(
            self,
            minimum=least,
            maximum=most,
            interval=LOOK_EVERY_S if interval is None else interval,
            wait_count=IDLE_LOOKS if wait_count is None else wait_count,
            target_duration=TARGET_DURATION_S if target_duration is None else target_duration,
        )
        return self._adaptive

    # how it is shown

    _ipython_display_ = None
    """As Dask has it; the bundle below does it all."""

    def _card(self) -> str:
        if self._onlooker is None:
            return card.trouble(self.name, "it is not connected yet\nawait it first")
        try:
            described = self._look_at(self._onlooker(Session.view)).describe()
        except HpclabError as error:
            return card.trouble(self.name, str(error))
        return card.html(described, dashboard=self.dashboard_link, notes=self._notes())

    def _notes(self) -> list[str]:
        notes = [self.trouble] if self.trouble else []
        if self._adaptive is not None and self._adaptive.state in ("starting", "running"):
            notes.append(self._adaptive.in_words)
        return notes

    def _repr_html_(self, cluster_status: object = None) -> str:
        return self._card()

    def _widget(self) -> Any | None:
        if not hasattr(self, "_cached_widget"):
            me = weakref.proxy(self)  # what the widget's threads hold must not keep the cluster
            jobs, limits = (("Jobs", 1),), (("At least", 0), ("At most", 10))
            workers = (("Workers", len(self.requested)),)
            self._cached_widget = with_buttons(
                f"cluster {self.name}",
                lambda: str(me._card()),
                [
                    Button("Add worker", jobs, lambda count: submitted_text(me.add_worker(count), me.name)),
                    Button("Scale", workers, lambda n: str(me.scale(n))),
                    Button("Adapt", limits, lambda least, most: me.adapt(least, most).in_words),
                ],
            )
        return self._cached_widget

    def _repr_mimebundle_(self, **kwargs: Any) -> dict[str, Any]:
        widget = self._widget() if self.status is Status.running else None
        bundle = dict(widget._repr_mimebundle_(**kwargs) or {}) if widget is not None else {}
        return {**bundle, "text/plain": repr(self), "text/html": self._card()}

    def __repr__(self) -> str:
        workers = self.scheduler_info["workers"].values()
        threads = sum(worker["nthreads"] for worker in workers)
        more = f", {len(self._coming - self.observed)} coming" if self._coming - self.observed else ""
        trouble = f", {self.trouble}" if self.trouble else ""
        return (
            f"SessionCluster({self.name}, {self.scheduler_address!r}, workers={len(workers)}{more}, "
            f"threads={threads}{trouble})"
        )


class Adaptation(Adaptive):  # type: ignore[misc]
    """Follows the load of a session's Dask, knowing that its jobs wait in a queue. What to do is `growth.adapted`'s.

    It ends when workers fail again and again, or with the session, and says why.
    """

    cluster: SessionCluster
    _adapting: bool

    def __init__(self, cluster: SessionCluster, **options: Any) -> None:
        self._demand = Demand()
        self._due = self._pause_s = 0.0
        super().__init__(cluster, **options)

    @property
    def in_words(self) -> str:
        most = "as many as it takes" if self.maximum == math.inf else str(self.maximum)
        return f"adapting: between {self.minimum} and {most} workers"

    async def adapt(self) -> None:
        """One look."""
        if self._adapting or time.monotonic() < self._due:
            return
        self._adapting = True
        try:
            self._demand = self._demand.seen(await self.target(), time.time())
            change = await self.cluster._say(self._carry_out)
        except NotRunning as error:
            self._tell(f"it adapts no more: {error}")
            self.stop(reason=str(error))
        except HpclabError as error:
            self._pause_s = min(max(2 * self._pause_s, 2 * (self.interval or 0.0)), PAUSE_S)
            self._due = time.monotonic() + self._pause_s
            self._tell(f"it adapts again in {format_duration(self._pause_s)}: {error}")
        except OSError:
            pass  # the scheduler is gone, which the cluster will notice
        else:
            self._pause_s, self.cluster.trouble = 0.0, ""
            if change != Change():
                self.log.append((time.time(), {"status": change_text(change)}))
        finally:
            self._adapting = False

    def _carry_out(self, session: Session) -> Change:
        idle_s = self.wait_count * (self.interval or 0.0)
        return session.adapt(self._demand, minimum=self.minimum, maximum=self.maximum, idle_s=idle_s)

    def _tell(self, trouble: str) -> None:
        if trouble.partition(": ")[2] != self.cluster.trouble.partition(": ")[2]:
            logger.warning("%s: %s", self.cluster.name, trouble)
        self.cluster.trouble = trouble


def _find(name: str) -> tuple[InTurns[Session], InTurns[Session], SessionView, Security, str]:
    """The session, the same for those who only look, what it looks like, and the way to its scheduler."""
    session = current_session(name)
    view, folder = session.view(), session.folder
    addresses = announced(folder)
    if view.connection is None and not (addresses and view.state in ("starting", "unknown")):
        session.check_running()
    # its scheduler is there before its JupyterLab, which may be who asks
    addresses = addresses or [view.connection.scheduler_address if view.connection else ""]
    try:
        address = way_to(folder, addresses).address
    except OSError as error:
        raise NotRunning(f"{session.name}: {error}\nlook with `hpclab status {session.name}`") from error
    return InTurns(session), InTurns(current_session(session.name)), view, _security(folder), address


def _security(folder: SessionFolder) -> Security:
    """The session's own certificate, whatever Dask is configured for."""
    return Security(
        tls_ca_file=folder.ca, tls_client_cert=folder.certificate, tls_client_key=folder.key, require_encryption=True
    )


async def _watch(cluster: weakref.ref[SessionCluster], comm: Any) -> None:
    """Hear from the scheduler which workers come and go, until the line ends."""
    while True:
        try:
            messages = await comm.read()
        except OSError:
            break
        if (here := cluster()) is None:
            break
        for op, message in messages:
            with suppress(KeyError):  # one that has never been told of
                here._update_worker_status(op, message)
        del here
    await comm.close()
    if (here := cluster()) is not None:
        here._scheduler_is_gone()


def _let_go(loop: IOLoop, runner: Any, comm: Any, scheduler: Any) -> None:
    """What is left of a cluster that nobody refers to any more."""

    async def leave() -> None:
        await comm.close()
        await scheduler.close_rpc()

    def end() -> None:
        with suppress(Exception):
            sync(loop, leave, callback_timeout=ANSWER_WITHIN_S)
        runner.stop()

    with suppress(RuntimeError):  # the interpreter ends
        threading.Thread(target=end, name="hpclab", daemon=True).start()
