"""The environments of ranks and notebooks."""

from __future__ import annotations

import subprocess
import sys

import dask
import pytest
from fixtures import folder, settings

from hpclab.hosts.local import LocalHost
from hpclab.inside.environ import (
    RANK_ONLY,
    SHARED,
    dask_path,
    dask_tls,
    notebook_environment,
    rank_environment,
    sidebar_environment,
)
from hpclab.store import Store

HERE = folder()
JOB = {
    "PATH": "/bin",
    "HPCLAB_SESSION": "calm-otter",
    "HPCLAB_JOB_ID": "17",
    "HPCLAB_SCRATCH": "/tmp/hpclab-x",
    "HPCLAB_FOLDER": HERE.path,
    "HPCLAB_SUPERVISOR": "/tmp/x/supervisor",
    "HPCLAB_JUPYTER": "/tmp/x/jupyter",
    "PMI_RANK": "0",
    "OMPI_COMM_WORLD_RANK": "0",
}


def test_dask_understands_these_variables():
    """Asked of Dask itself, in a process of its own, for it reads them when it is imported."""
    code = """if True:
        import dask
        for key in ["default-scheme", "require-encryption", "tls.ca-file"]:
            print(dask.config.get(f"distributed.comm.{key}"))
        for role in ["scheduler", "worker", "client"]:
            for what in ["cert", "key"]:
                print(dask.config.get(f"distributed.comm.tls.{role}.{what}"))
        print(dask.config.get("scheduler-address"))
        """
    env = notebook_environment({}, HERE, "tls://10.0.0.1:4000")
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.split() == ["tls", "True", HERE.ca, *3 * [HERE.certificate, HERE.key], "tls://10.0.0.1:4000"]


@pytest.mark.parametrize("path", ["/scratch/run-3if_1", "/home/ada/it's", '/home/"', "/data/\\x41", "7", "/ü"])
def test_dask_reads_every_path_as_it_is_and_warns_of_none(path, recwarn):
    assert dask.config.interpret_value(dask_path(path)) == path
    assert not recwarn.list


@pytest.mark.parametrize(
    "env",
    [rank_environment(JOB, HERE, one_node=True), notebook_environment(JOB, HERE, "tls://10.0.0.1:4000")],
    ids=["rank", "notebook"],
)
def test_only_paths_stand_in_them(env):
    new = {key: value for key, value in env.items() if key not in JOB}
    assert not [key for key in new if "TOKEN" in key]
    for key, value in new.items():
        assert len(value) < 200, key
        assert "BEGIN" not in value


def test_a_rank_keeps_what_its_launcher_and_its_supervisor_say():
    env = rank_environment(JOB, HERE, one_node=False)
    assert {key: env[key] for key in JOB} == JOB
    assert dask_tls(HERE).items() <= env.items()
    assert RANK_ONLY.items() <= env.items()


@pytest.mark.parametrize(("one_node", "told"), [(True, "sm,self"), (False, None)])
def test_ranks_of_one_node_need_no_network(one_node, told):
    assert rank_environment({"HPCLAB_SCRATCH": "/tmp/hpclab-x"}, HERE, one_node=one_node).get("UCX_TLS") == told


def test_a_notebook_connects_to_the_session():
    env = notebook_environment(JOB, HERE, "tls://10.0.0.1:4000")
    assert env["DASK_SCHEDULER_ADDRESS"] == "tls://10.0.0.1:4000"
    assert dask_tls(HERE).items() <= env.items()


def test_a_notebook_knows_its_session_but_neither_the_launcher_nor_the_supervisors_lines():
    env = notebook_environment(JOB, HERE, "tls://10.0.0.1:4000")
    assert (env["PATH"], env["HPCLAB_SESSION"]) == ("/bin", "calm-otter")
    assert not {"PMI_RANK", "OMPI_COMM_WORLD_RANK", *SHARED} & set(env)


def test_a_notebook_finds_its_session_also_where_the_batch_system_brought_nothing_along():
    env = notebook_environment({"HPCLAB_SESSION": "calm-otter"}, HERE, "tls://10.0.0.1:4000")
    assert Store(LocalHost(env), settings()).folder(env["HPCLAB_SESSION"]) == HERE


def test_dasks_sidebar_is_told_of_the_session_in_its_own_words():
    code = """if True:
        import dask
        import dask_labextension.config
        for key in ["labextension.factory.module", "labextension.factory.class", "distributed.dashboard.link"]:
            print(dask.config.get(key))
        print(dask.config.get("labextension.initial")[0]["name"])
        """
    env = {**sidebar_environment(HERE), "HOME": "/nonexistent", "DASK_CONFIG": "/nonexistent"}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.split() == ["hpclab.cluster", "SessionCluster", "/proxy/hpclab/status", "calm-otter"]


def test_what_was_given_is_left_alone():
    before = dict(JOB)
    rank_environment(JOB, HERE, one_node=True)
    notebook_environment(JOB, HERE, "tls://10.0.0.1:4000")
    assert before == JOB
