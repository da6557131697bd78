"""What the jobs of one session ask for and run: settings in, job scripts out. Pure."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace

from hpclab.batch import BATCH_SYSTEMS
from hpclab.config import Settings
from hpclab.environment import Environment
from hpclab.errors import ConfigError
from hpclab.folder import SessionFolder
from hpclab.job import Chunk, JobRecord, JobSpec, Program, Shape
from hpclab.script import hand_script, job_script

PROGRAM_RANKS = 2
"""Of a run by `--launch mpi`, for the Dask scheduler and the script."""


@dataclass(frozen=True, kw_only=True)
class Request:
    """The scripts of one session's jobs; those of a run are one job's."""

    folder: SessionFolder
    system: str
    partition: str
    settings: Settings
    python: str
    """hpclab's own on that host, for jobs that name no other."""
    program: Program | None = None
    """A run's; None: the main job has JupyterLab."""
    versions: str = ""
    """Those of hpclab's own environment, which the job's must not differ from; empty: they may."""

    @property
    def main_record(self) -> JobRecord:
        s = self.settings
        return JobRecord(
            role="main",
            workers=self._program_workers if self.program else max(s.workers, s.nodes - 1),
            cores=s.cores,
            memory_bytes=s.memory_bytes,
            walltime_s=s.walltime_s,
            gpus=s.gpus,
        )

    @property
    def _program_workers(self) -> int:
        s = self.settings
        others = PROGRAM_RANKS if s.launch == "mpi" else 0
        least = max(1, s.nodes - bool(others))
        if s.ntasks - others >= least:
            return s.ntasks - others
        if others and s.nodes == 1:
            raise ConfigError(
                f"--ntasks {s.ntasks} is too few: one MPI rank is the Dask scheduler, one the script, the others "
                f"workers\nask for --ntasks {others + least} or more, or say --launch file, where all tasks are workers"
            )
        raise ConfigError(
            f"--ntasks {s.ntasks} is too few for --nodes {s.nodes}: some would have nothing to do\n"
            f"ask for --ntasks {others + least} or more, or for fewer nodes"
        )

    def worker_record(
        self,
        *,
        workers: int | None = None,
        cores: int | None = None,
        memory_bytes: int | None = None,
        walltime_s: int | None = None,
        gpus: int | None = None,
    ) -> JobRecord:
        """What a worker job asks for: the session's own settings but for what is given."""
        s = self.settings
        return JobRecord(
            role="worker",
            workers=workers or s.workers_per_job,
            cores=cores or s.cores,
            memory_bytes=memory_bytes or s.memory_bytes,
            walltime_s=walltime_s or s.worker_walltime_s,
            gpus=s.gpus if gpus is None else gpus,
        )

    def main_chunks(self) -> tuple[Chunk, ...]:
        """A small one for the scheduler and JupyterLab, so that no large one idles for them; then the workers'.

        A run's scheduler and script have each such a part, or are beside the workers.
        """
        s = self.settings
        if self.program and s.launch == "file":
            return (_workers(self.main_record),)
        count = PROGRAM_RANKS if self.program else 1
        first = Chunk(count=count, cores=s.scheduler_cores, memory_bytes=s.scheduler_memory_bytes)
        return first, _workers(self.main_record)

    def main_script(self) -> str:
        s = self.settings
        if self.program:
            program = self._program("program", self._program_arguments(self.program))
        else:
            program = self._program("main_job", self._main_arguments())
        return self._job_script(self.main_record, self.main_chunks(), program, nodes=s.nodes)

    def worker_script(self, record: JobRecord) -> str:
        program = self._program("worker_job", self._worker_arguments(record))
        return self._job_script(record, (_workers(record),), program)

    def hand_script(self, which: str, batches: Sequence[str]) -> str:
        """`start` or `add-worker` as a file that belongs to no session, for any of these batch systems."""
        is_main = which == "start"
        record = self.main_record if is_main else self.worker_record()
        chunks = self.main_chunks() if is_main else (_workers(record),)
        arguments = self._main_arguments() if is_main else self._worker_arguments(record)
        module = "main_job" if is_main else "worker_job"
        run = "hpclab_run " if self.settings.container else ""
        program = f'{run}"$hpclab_python" -P -m hpclab.inside.{module} "$hpclab_session" {shlex.join(arguments)}'
        return hand_script(
            {name: BATCH_SYSTEMS[name] for name in batches},
            self._spec(record, chunks, nodes=self.settings.nodes if is_main else 1),
            record,
            prologue=self.environment.lines(),
            program=program,
            skip=self.settings.skip,
        )

    def _main_arguments(self) -> list[str]:
        s, record = self.settings, self.main_record
        return [
            *["--workers", str(record.workers), "--nthreads", str(s.cores), "--memory", str(s.memory_bytes)],
            *["--death-timeout", str(s.death_timeout_s), "--start-timeout", str(s.start_timeout_s)],
            *["--interface", self.interface, "--mpiexec", s.mpiexec, "--root-dir", s.notebook_dir],
            *(["--nodes", str(s.nodes)] if s.nodes > 1 else []),
            *(["--keep", str(s.keep)] if s.keep else []),
            *(["--bind", s.bind] if s.bind != "network" else []),
            *(["--expect-versions", self.versions] if self.versions else []),
        ]

    def _program_arguments(self, program: Program) -> list[str]:
        s = self.settings
        return [
            *["--launch", s.launch, "--tasks", str(s.ntasks), "--system", self.system],
            *["--nthreads", str(s.cores), "--memory", str(s.memory_bytes)],
            *(["--gpus", str(s.gpus)] if s.gpus else []),
            *["--death-timeout", str(s.death_timeout_s), "--start-timeout", str(s.start_timeout_s)],
            *["--interface", self.interface, "--mpiexec", s.mpiexec],
            *(["--nodes", str(s.nodes)] if s.nodes > 1 else []),
            *(["--expect-versions", self.versions] if self.versions else []),
            *["--program", program.to_text()],
        ]

    def _worker_arguments(self, record: JobRecord) -> list[str]:
        s = self.settings
        return [
            *["--workers", str(record.workers), "--nthreads", str(record.cores), "--memory", str(record.memory_bytes)],
            *["--death-timeout", str(s.death_timeout_s), "--drain", str(min(s.drain_s, record.walltime_s // 4))],
            *(["--gpus", str(record.gpus)] if record.gpus else []),
            *([] if s.check_versions else ["--any-versions"]),
        ]

    @property
    def interface(self) -> str:
        """Empty: the first that answers."""
        wanted = self.settings.interface
        if wanted != "auto":
            return wanted
        return "loopback" if self.system == "local" else ""

    @property
    def environment(self) -> Environment:
        s = self.settings
        return Environment(
            modules=s.modules,
            conda=s.conda,
            venv=s.venv,
            export=s.export,
            prologue=s.prologue,
            python=s.python,
            container=s.container,
            binds=s.binds,
        )

    def _program(self, module: str, arguments: Sequence[str]) -> str:
        whole = ["-P", "-m", f"hpclab.inside.{module}", self.folder.path, *arguments]
        return self.environment.program(self.python, whole)

    def _job_script(self, record: JobRecord, chunks: tuple[Chunk, ...], program: str, *, nodes: int = 1) -> str:
        return job_script(
            BATCH_SYSTEMS[self.system],
            self._spec(record, chunks, nodes=nodes),
            self.folder,
            record,
            prologue=self.environment.lines(),
            program=program,
            skip=self.settings.skip,
        )

    def _spec(self, record: JobRecord, chunks: tuple[Chunk, ...], *, nodes: int) -> JobSpec:
        s = self.settings
        for text in (self.partition, s.account, s.qos, s.constraint, *s.extra):
            if any(ord(character) < 32 for character in text):
                raise ConfigError(
                    f"{text!r} would be more than one line of a job script\nleave the control characters out"
                )
        return JobSpec(
            name=f"hpclab-{self.folder.name}" if record.role == "main" else f"hpclab-{self.folder.name}-worker",
            chunks=chunks,
            walltime_s=record.walltime_s,
            log=self.folder.log("{job_id}"),
            nodes=nodes,
            partition=self.partition,
            account=s.account,
            qos=s.qos,
            constraint=s.constraint,
            extra=s.extra,
            options=s.system_options,
        )


def shaped(settings: Settings, shape: Shape) -> Settings:
    """A main job of that shape: on one node the scheduler beside a worker with the other cores, else on one of them."""
    if shape.nodes == 1:
        return replace(settings, nodes=1, workers=1, cores=max(1, shape.cores - settings.scheduler_cores))
    return replace(settings, nodes=shape.nodes, workers=shape.nodes - 1, cores=shape.cores)


def _workers(record: JobRecord) -> Chunk:
    return Chunk(count=record.workers, cores=record.cores, memory_bytes=record.memory_bytes, gpus=record.gpus)
