"""A batch system on a host: submit, the status of all jobs at once, cancel. "Don't know" is an answer, not an error."""

from __future__ import annotations

import time
from collections.abc import Sequence

from hpclab.batch import BATCH_SYSTEMS
from hpclab.errors import CommandError, HpclabError, Refused
from hpclab.hosts import Host
from hpclab.job import JobState, JobStatus


class JobQueue:
    """`status` asks once for all jobs, and not again within `fresh_s` seconds."""

    def __init__(self, host: Host, system: str, *, fresh_s: float = 0.5) -> None:
        self._host = host
        self._system = system
        self._batch = BATCH_SYSTEMS[system]
        self._fresh_s = fresh_s
        self._asked = 0.0
        self._ids: frozenset[str] = frozenset()
        self._known: dict[str, JobStatus] = {}

    def submit(self, script: str) -> str:
        """The new job's id; raises Refused with the batch system's own words."""
        result = self._host.run(self._batch.submit_command(script))
        if result.exit_status:
            raise Refused(
                f"{self._system} would not take the job",
                result,
                next_step="ask for something else; `hpclab script start|add-worker` shows what is submitted",
            )
        self._asked = 0.0
        return self._batch.parse_job_id(result.stdout)

    def status(self, job_ids: Sequence[str]) -> dict[str, JobStatus]:
        """Every job asked for; those that the batch system does not know or could not be asked about are UNKNOWN."""
        wanted = frozenset(job_ids)
        if wanted and (time.monotonic() - self._asked > self._fresh_s or not wanted <= self._ids):
            self._known = self._ask(job_ids)
            self._asked, self._ids = time.monotonic(), wanted
        return {job_id: self._known.get(job_id) or _unknown(job_id, "") for job_id in job_ids}

    def _ask(self, job_ids: Sequence[str]) -> dict[str, JobStatus]:
        try:
            result = self._host.run(self._batch.status_command(job_ids))
            if result.exit_status == 0:
                return dict(self._batch.parse_status(result.stdout))
            why = result.output
        except HpclabError as error:
            why = str(error)
        last = why.strip().splitlines()[-1] if why.strip() else "no answer"
        return {job_id: _unknown(job_id, f"{self._system} does not answer: {last}") for job_id in job_ids}

    def cancel(self, job_ids: Sequence[str]) -> None:
        if not job_ids:
            return
        result = self._host.run(self._batch.cancel_command(job_ids))
        self._asked = 0.0
        if result.exit_status:
            raise CommandError(f"{self._system} would not cancel {', '.join(job_ids)}", result)


def _unknown(job_id: str, reason: str) -> JobStatus:
    return JobStatus(job_id=job_id, state=JobState.UNKNOWN, reason=reason)
