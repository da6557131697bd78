"""Which failures are the host's, so that somebody elsewhere may succeed, and which are those of what was asked for."""

from __future__ import annotations

import re

import pytest

from batch.transcripts import answered, said, transcript, transcripts
from hpclab.batch import BATCH_SYSTEMS, not_from_here

HOSTS_OWN = [
    ("slurm", "22-not-from-here", "sbatch -p fromlogin", "Access/permission denied"),
    ("slurm", "22-not-from-here", "bash scancel", "Permission denied"),
    ("slurm", "22-not-from-here", "bash squeue", "squeue: not found"),
    ("slurm", "22-not-from-here", "slurm.conf sbatch", "Unable to process configuration file"),
    ("slurm", "22-not-from-here", "slurm.conf squeue", "Unable to process configuration file"),
    ("slurm", "61-munge-down", "squeue", "Munge encode failed"),
    ("slurm", "61-munge-down", "sbatch", "Munge encode failed"),
    ("pbs", "28-limits-requeue", "PBS_CONF_FILE=/nonexistent qstat", "pbs conf variables not found"),
    ("sge", "23-not-from-here", "qsub", 'host "node1.minihpc.test" is not a submit host'),
    ("sge", "23-not-from-here", "qdel", 'host "node1.minihpc.test" is not a submit host'),
    ("sge", "23-not-from-here", "qstat -xml", 'host "node1.minihpc.test" is neither submit nor admin host'),
    ("sge", "23-not-from-here", "LC_ALL=C qsub", "No such file or directory"),
]
FROM_DOCUMENTATION = [
    ("pbs", 1, "qsub: Bad UID for job execution"),
    ("torque", 1, "qsub: submit error (Bad UID for job execution MSG=ruserok failed validating ada/ada from node1)"),
    ("torque", 1, "qsub: submit error (Access from host not allowed, or unknown host MSG=host ACL rejected)"),
    ("lsf", 255, "Request from a non-LSF host rejected. Job not submitted."),
    ("slurm", 1, "sbatch: error: Jobs cannot be submitted from compute nodes"),
    ("pbs", 1, "qsub: please submit your jobs on a login node"),
    ("lsf", 255, "Request aborted by esub. Use a login host."),
]


@pytest.mark.parametrize(("system", "name", "command", "words"), HOSTS_OWN)
def test_what_a_host_may_not_do_is_told_in_a_line(system, name, command, words):
    line = not_from_here(system, said(system, name, command).result)
    assert words in line
    assert "\n" not in line


@pytest.mark.parametrize(("system", "exit_status", "words"), FROM_DOCUMENTATION)
def test_so_is_what_no_record_shows(system, exit_status, words):
    assert not_from_here(system, answered("", f"{words}\n", exit_status)) == words


@pytest.mark.parametrize("system", BATCH_SYSTEMS)
@pytest.mark.parametrize("exit_status", [126, 127])
def test_a_command_that_is_missing_may_be_elsewhere(system, exit_status):
    assert not_from_here(system, answered("", "env: 'qsub': No such file or directory\n", exit_status))
    assert not_from_here(system, answered("", "", exit_status))


@pytest.mark.parametrize("system", BATCH_SYSTEMS)
def test_a_command_that_succeeds_says_what_it_likes(system):
    assert not not_from_here(system, answered("7\n", "submitted from a compute node, denied munge\n"))


DOUBTFUL = {
    # a queue's access list refuses in the words in which PBS refuses a host
    ("pbs", "05-bad-queue", "qsub: Unauthorized Request"),
    # so does Slurm for jobs of others, and while no munge runs anywhere
    ("slurm", "21-other-user", "scancel: error: Kill job error on job id 28: Access/permission denied"),
}


@pytest.mark.parametrize("system", ["slurm", "pbs", "sge", "torque"])
def test_of_all_other_records_none_is_the_hosts(system):
    """But for the doubtful, whose harm is a question more."""
    folder = {"torque": "torque-wrappers"}.get(system, system)
    own = {(name, command) for _, name, command, _ in HOSTS_OWN}
    taken = set()
    for name in transcripts(folder):
        for step in transcript(folder, name):
            line = not_from_here(system, step.result)
            if line and step.exit_status not in (126, 127) and not any(n == name and c in step.command for n, c in own):
                taken.add((system, name, line))
    taken = {doubt for doubt in taken if not re.match("qmgr|qrerun", doubt[2])}  # which we never run
    assert taken == {doubt for doubt in DOUBTFUL if doubt[0] == system}
