"""The names of all files of a session: `~/.hpclab/sessions/NAME`, on the cluster, mode 0700. Names only; no I/O."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePosixPath


@dataclass(frozen=True)
class SessionFolder:
    """Where each file of one session stands."""

    path: str

    def __truediv__(self, name: str) -> str:
        return str(PurePosixPath(self.path) / name)

    @property
    def name(self) -> str:
        return PurePosixPath(self.path).name

    @property
    def session(self) -> str:
        """What the session is: written once, when it is made."""
        return self / "session.json"

    @property
    def token(self) -> str:
        return self / "token"

    @property
    def ca(self) -> str:
        return self / "tls/ca.pem"

    @property
    def certificate(self) -> str:
        return self / "tls/certificate.pem"

    @property
    def key(self) -> str:
        return self / "tls/key.pem"

    @property
    def start_script(self) -> str:
        return self / "start-dask.sh"

    @property
    def run_script(self) -> str:
        """In place of both others where the session is a run."""
        return self / "run.sh"

    @property
    def worker_script(self) -> str:
        return self / "add-one-worker.sh"

    def other_script(self, digest: str) -> str:
        """An `add-worker` that asked for something else than the session's defaults, named by its content."""
        return self / f"scripts/add-worker-{digest}.sh"

    @property
    def jobs(self) -> str:
        return self / "jobs"

    def job(self, job_id: str) -> str:
        """One record per job, so that twenty writers at once lose nothing."""
        return self / f"jobs/{job_id}.json"

    def events(self, job_id: str) -> str:
        return self / f"events/{job_id}.jsonl"

    def log(self, job_id: str) -> str:
        return self / f"logs/{job_id}.log"

    def retire(self, job_id: str) -> str:
        """Its presence asks the workers of a job to hand over their data and leave."""
        return self / f"retire/{job_id}"

    @property
    def reverse(self) -> str:
        return self / "reverse"

    def reverse_ask(self, login: str) -> str:
        """Its presence asks the main job for a tunnel back to a login node; it goes when it has been answered."""
        return self / f"reverse/{login}.ask"

    def reverse_answer(self, login: str) -> str:
        return self / f"reverse/{login}.answer"

    @property
    def relay(self) -> str:
        """What compute nodes that may not submit ask of whoever may; see hpclab.relay."""
        return self / "relay"

    def relayed(self, name: str, stage: str) -> str:
        """A request is `asked`, and then `taken` or `withdrawn` by a change of its name; `answered` is its answer."""
        return self / f"relay/{name}.{stage}"

    @property
    def over(self) -> str:
        """Its presence says that the session has ended, and its text how; a worker job that starts now leaves."""
        return self / "over"

    @property
    def connection(self) -> str:
        """What the main job announces once JupyterLab answers."""
        return self / "connection.json"

    @property
    def scheduler(self) -> str:
        """Dask's own scheduler file."""
        return self / "scheduler.json"

    @property
    def addresses(self) -> str:
        """All addresses of the Dask scheduler: on which of them it answers depends on who asks."""
        return self / "addresses.json"

    @property
    def pulse(self) -> str:
        """When the main job was last known to live, in seconds since the epoch."""
        return self / "pulse"

    @property
    def known(self) -> str:
        """What the batch system last said of each job, for when it does not answer or has forgotten."""
        return self / "known.json"

    @property
    def roster(self) -> str:
        """The workers that the Dask scheduler has now, kept by the scheduler itself."""
        return self / "workers.json"

    @property
    def activity(self) -> str:
        """How many cores were at work, over time, kept by the scheduler."""
        return self / "activity.json"

    @property
    def stdout(self) -> str:
        """What the script of a run has printed."""
        return self / "program/stdout"

    @property
    def stderr(self) -> str:
        return self / "program/stderr"

    def rank_end(self, rank: int) -> str:
        """The exit status of an MPI rank of a run, when it has ended; on whatever node it was."""
        return self / f"program/rank-{rank}"

    @property
    def rank_failure(self) -> str:
        """Why an MPI rank of a run that is not the script's own has failed."""
        return self / "program/failure"

    @property
    def runtime(self) -> str:
        """Jupyter's runtime files."""
        return self / "jupyter"

    @property
    def subfolders(self) -> tuple[str, ...]:
        names = ("tls", "scripts", "jobs", "events", "logs", "retire", "reverse", "relay", "jupyter", "program")
        return tuple(self / name for name in names)
