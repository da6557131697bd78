"""How a site is looked at: really here, with the embedded batch system; refusals on a host without a machine."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from fixtures import settings
from sights import examined

from hpclab.doctor import findings
from hpclab.examination import Probing, examine
from hpclab.hosts.local import LocalHost
from hpclab.hosts.recording import RecordingHost


@pytest.fixture
def here(tmp_path):
    return LocalHost({**os.environ, "HPCLAB_HOME": str(tmp_path / "home"), "HPCLAB_LOCALQ_DIR": str(tmp_path / "q")})


def names(folder: str) -> list[str]:
    return [path.name for path in Path(folder).iterdir()]


def test_a_probe_job_tells_of_its_node_and_leaves_nothing(here):
    site = examine(here, settings(queue="local"), {})
    with Probing(here, site) as probing:
        told = list(probing.follow())
    assert told
    job = probing.job
    assert job.seen is not None
    assert job.seen.node == here.name
    assert job.met is not None
    assert job.met.answers == {"127.0.0.1": ""}
    assert job.status is not None
    assert job.status.state.is_final
    assert names(here.home) == []


def test_a_job_whose_python_has_no_hpclab_shows_its_log(here):
    site = examine(here, settings(queue="local", python="/usr/bin/false-python"), {})
    with Probing(here, site) as probing:
        list(probing.follow())
    assert probing.job.seen is None
    assert "false-python" in probing.job.log_tail


def test_an_interrupted_wait_cancels_the_job(here):
    site = examine(here, settings(queue="local", prologue=("sleep 60",)), {})
    probing = Probing(here, site)

    def interrupted() -> None:
        with probing:
            next(probing.follow())
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert probing.job.interrupted
    assert names(here.home) == []
    status = here.run(["python", "-m", "hpclab.localq", "status", probing.job.job_id]).stdout
    assert "cancelled" in status.lower()


def test_a_refused_job_is_a_finding():
    host = RecordingHost([(1, "", "sbatch: error: invalid account")])
    with Probing(host, examined()) as probing:
        assert list(probing.follow()) == []
    assert probing.job.refusal == "slurm did not take the job: sbatch: error: invalid account"
    assert not host.names(host.home)


def test_the_users_own_settings_are_the_jobs():
    given = settings(account="phys", skip=("--mem",), modules=("python/3.11",), extra=("--exclusive",))
    script = Probing(RecordingHost(), examined(partition="debug", settings=given)).script()
    assert "#SBATCH --account=phys" in script
    assert "#SBATCH --partition=debug" in script
    assert "#SBATCH --exclusive" in script
    assert "module load python/3.11" in script
    assert "--mem" not in script


def test_what_cannot_be_looked_at_hides_nothing_else():
    host = RecordingHost([(0, "sbatch: slurm 24.05.1\n", ""), (1, "", "no controller"), (1, "", "no psutil")])
    site = examine(host, settings(queue="auto"), {})
    assert site.system == "slurm"
    assert site.silence == "sinfo: no controller"
    assert "no psutil" in site.login_error
    assert {finding.topic for finding in findings(site)} == {"batch system", "queues", "this machine"}
