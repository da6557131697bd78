"""A batch system on a host: submit, the status of all jobs at once, cancel. "Don't know" is an answer, not an error."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace

from hpclab.batch import BATCH_SYSTEMS, in_doubt
from hpclab.errors import CommandError, HpclabError, NotFromHere, Refused, TookTooLong
from hpclab.hosts import Host
from hpclab.job import JobState, JobStatus, Place, Queue
from hpclab.result import Result
from hpclab.ways import Ways

ANSWER_WITHIN_S = 9
"""A batch system that takes longer to say how jobs are does not answer: somebody waits for us."""

PLACE_WITHIN_S = 4
PLACE_EVERY_S = (10, 60)
"""How often it is asked who waits, at first and in the end: that is a question about everybody's jobs."""


class JobQueue:
    """`status` asks once for all jobs, and not again within `fresh_s` seconds."""

    def __init__(self, host: Host, system: str, *, login: str = "", fresh_s: float = 0.5) -> None:
        """`login` is where to ask if the batch system does not listen to this host; empty: nowhere."""
        self._ways = Ways(host, system, login)
        self._system = system
        self._batch = BATCH_SYSTEMS[system]
        self._fresh_s = fresh_s
        self._asked = 0.0
        self._ids: frozenset[str] = frozenset()
        self._known: dict[str, JobStatus] = {}
        self._waiting: Result | None = None
        self._waiting_due = 0.0
        self._waiting_pause_s: float = PLACE_EVERY_S[0]
        self.silence = ""
        """Why the last question about jobs had no answer; empty if it had one."""
        self.shown: frozenset[str] = frozenset()
        """The jobs that the batch system itself still shows, not only its history."""

    def submit(self, script: str, *, count: int = 1, log: str = "") -> list[str]:
        """The ids of the new jobs; more than one are an array. Raises Refused with the batch system's own words.

        Raises NotFromHere, as `cancel` does, when it does not listen to this host, and TookTooLong when nobody knows
        whether it took the job.
        """
        try:
            result = self._ways.run("submit", self._batch.submit_command(script, count=count, log=log))
        except TookTooLong as error:
            raise self._doubt(str(error).splitlines()[0]) from error
        if said := in_doubt(result):
            raise self._doubt(said)
        if result.exit_status:
            raise Refused(
                f"{self._system} did not take the job",
                result,
                next_step="ask for something else, or later; `hpclab script start|add-worker` shows what is submitted",
            )
        self._asked = 0.0
        return self._batch.parse_job_ids(result.stdout, count)

    def _doubt(self, said: str) -> TookTooLong:
        return TookTooLong(
            f"{self._system} was asked for a job, and did not answer: {said}\n"
            "whether it took the job is not known; one that it took shows when it starts\n"
            "see `hpclab status`, and the queue itself, before you say it again"
        )

    def status(self, job_ids: Sequence[str]) -> dict[str, JobStatus]:
        """Every job asked for: GONE if the batch system knows it no more, UNKNOWN if it could not be asked."""
        wanted = frozenset(job_ids)
        if wanted and (time.monotonic() - self._asked > self._fresh_s or not wanted <= self._ids):
            known = self._ask(job_ids)
            self._known, self._asked, self._ids = known, time.monotonic(), wanted
            return {job_id: known[job_id] for job_id in job_ids}
        return {job_id: self._known[job_id] for job_id in job_ids}

    @property
    def is_deaf(self) -> bool:
        """It does not listen to this host when it is asked how jobs are, as far as is known by now."""
        return self._ways.is_shut("status")

    def is_answered(self) -> None:
        """By what somebody else has heard from it, so that its silence towards us does not matter."""
        self.silence, self._asked = "", 0.0

    def _ask(self, job_ids: Sequence[str]) -> dict[str, JobStatus]:
        self.silence = ""
        try:
            known = {job_id: _absent(job_id, JobState.GONE) for job_id in job_ids}
            answer = self._ways.run("status", self._batch.status_command(job_ids), timeout_s=ANSWER_WITHIN_S)
            told = self._batch.parse_status(answer)
            self.shown = frozenset(told)
            known.update(told)
            for job_id in job_ids:
                # of an array that was cancelled in the queue Slurm has one line, and none for its tasks
                array = told.get(job_id.partition("_")[0])
                if job_id not in told and array is not None and array.state.is_final:
                    known[job_id] = replace(array, job_id=job_id)
            missing = [job_id for job_id in job_ids if known[job_id].state is JobState.GONE]
            return {**known, **self._history(missing)}
        except NotFromHere as error:
            self.silence = str(error).splitlines()[0]
            return {job_id: _absent(job_id, JobState.UNKNOWN, self.silence) for job_id in job_ids}
        except HpclabError as error:
            said = str(error).strip().splitlines() or ["no answer"]
            late = isinstance(error, TookTooLong)
            self.silence = f"{self._system} does not answer: {f'nothing in {ANSWER_WITHIN_S} s' if late else said[0]}"
            return {job_id: _absent(job_id, JobState.UNKNOWN, self.silence) for job_id in job_ids}

    def _history(self, job_ids: Sequence[str]) -> Mapping[str, JobStatus]:
        """Of jobs that the batch system has put away. An accounting that is down leaves them unknown, and no others."""
        command = self._batch.history_command(job_ids) if job_ids else []
        if not command:
            return {}
        try:
            return self._batch.parse_history(self._ways.run("history", command, timeout_s=ANSWER_WITHIN_S))
        except HpclabError as error:
            reason = f"{self._system}'s history does not answer: {str(error).splitlines()[0]}"
            return {job_id: _absent(job_id, JobState.UNKNOWN, reason) for job_id in job_ids}

    def place(self, job_id: str) -> Place | None:
        """A waiting job's place, which may be a minute old; None: not known, for whatever reason."""
        command = self._batch.place_command()
        with suppress(HpclabError):
            if command and time.monotonic() >= self._waiting_due:
                self._waiting = None
                self._waiting_due = time.monotonic() + self._waiting_pause_s
                self._waiting_pause_s = min(2 * self._waiting_pause_s, PLACE_EVERY_S[1])
                self._waiting = self._ways.run("place", command, timeout_s=PLACE_WITHIN_S)
            if self._waiting and self._waiting.exit_status == 0:
                return self._batch.parse_place(self._waiting, job_id)
        return None

    def cancel(self, job_ids: Sequence[str]) -> None:
        if not job_ids:
            return
        result = self._ways.run("cancel", self._batch.cancel_command(job_ids))
        self._asked = 0.0
        if not self._batch.is_cancelled(result):
            raise CommandError(
                f"{self._system} would not cancel {', '.join(job_ids)}",
                result,
                next_step="say it again when it answers; a session that is told to stop ends by itself meanwhile",
            )

    @property
    def can_estimate(self) -> bool:
        """The batch system can be asked when a job would start."""
        return bool(self._batch.estimate_command(""))

    def expected_start(self, script: str) -> float:
        """When this script would start, were it submitted now, in seconds since the epoch.

        Raises UnreadableOutput in the batch system's own words when it would not start.
        """
        return self._batch.parse_estimate(self._ways.run("estimate", self._batch.estimate_command(script)))

    def queues(self) -> list[Queue]:
        command = self._batch.queues_command()
        return self._batch.parse_queues(self._ways.run("queues", command, timeout_s=ANSWER_WITHIN_S)) if command else []


def _absent(job_id: str, state: JobState, reason: str = "") -> JobStatus:
    return JobStatus(job_id=job_id, state=state, reason=reason)
