"""Dask workers of a run, beside its script: `python -m hpclab.inside.program_worker COUNT PLAN`.

They are those of a worker job, which need no MPI; and find the modules that stand beside the script.
"""

from __future__ import annotations

import os
import secrets
import sys

from hpclab.inside import worker_job
from hpclab.inside.program_plan import ProgramPlan, rank_of
from hpclab.inside.program_script import go_beside
from hpclab.launchers import without_mpi


def main() -> int:
    count, plan = int(sys.argv[1]), ProgramPlan.from_text(sys.argv[2])
    rank = rank_of(os.environ) if count == 1 else 0
    # a launcher that does not count its tasks
    index = secrets.randbelow(2**31) if rank is None else rank
    # a function that imports mpi4py is none of the launcher's ranks
    kept = without_mpi(dict(os.environ))
    os.environ.clear()
    os.environ |= {**kept, "HPCLAB_JOB_ID": plan.job_id, "HPCLAB_JOB_END_TIME": str(plan.end_time)}
    go_beside(plan.program)
    sys.argv = [
        *["worker_job", plan.folder.path, "--workers", str(count), "--first-index", str(index)],
        *["--nthreads", str(plan.nthreads), "--memory", str(plan.memory_bytes), "--gpus", str(plan.gpus)],
        # at the job's end there is nobody to hand data over to
        *["--death-timeout", str(plan.death_timeout_s), "--drain", "1", "--patient"],
    ]
    return worker_job.main()


if __name__ == "__main__":
    sys.exit(main())
