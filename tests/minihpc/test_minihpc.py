"""The little cluster is what the tests on it take it for."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from waiting import until

import hpclab
from minihpc.cluster import Cluster, folders, little_cluster, send

pytestmark = pytest.mark.cluster(second_network=("node1", "node2"), slurm_conf="EnforcePartLimits=ALL")
REACH = ["timeout", "1", "bash", "-c", '</dev/tcp/"$1"/"$2"', "reach"]
TIMED_OUT = 124
SECOND_ADDRESS = "10.78.1.12"  # node2's


def answers(cluster: Cluster, *, host: str, at: str, port: int = 22) -> bool:
    """Whether the host gets an answer there; False if there is only silence."""
    exit_status = cluster.on(host).run([*REACH, at, str(port)], check=False).returncode
    assert exit_status in (0, TIMED_OUT)
    return exit_status == 0


def test_the_laptop_reaches_the_login_node_by_ssh(a_slurm_cluster: Cluster) -> None:
    assert a_slurm_cluster.on("laptop").says("ssh login hostname") == "login"


def test_the_laptop_does_not_reach_a_node(a_slurm_cluster: Cluster) -> None:
    assert a_slurm_cluster.on("laptop").run([*REACH, "10.77.1.11", "22"], check=False).returncode


def test_other_ports_of_the_login_node_are_silent_outside(a_slurm_cluster: Cluster) -> None:
    assert answers(a_slurm_cluster, host="node1", at="login", port=6817)
    assert not answers(a_slurm_cluster, host="laptop", at="login", port=6817)


def test_a_password_and_a_code_let_a_human_in(a_slurm_cluster: Cluster) -> None:
    ada = a_slurm_cluster.on("laptop")
    assert ada.run("ssh -o BatchMode=yes login-2fa hostname", check=False).returncode == 255
    ask = ada.file("/home/ada/ask")
    ask.write_text("#!/bin/sh\ncase $1 in *assword*) echo correct-horse;; *) echo 12345678;; esac\n")
    ask.chmod(0o755)
    asking = {"SSH_ASKPASS": "/home/ada/ask", "SSH_ASKPASS_REQUIRE": "force"}
    assert ada.says("ssh login-2fa hostname", env=asking) == "login"


def test_srun_spans_two_nodes(a_slurm_cluster: Cluster) -> None:
    assert a_slurm_cluster.on("login").says("srun -N2 -w node1,node2 hostname | sort").split() == ["node1", "node2"]


def test_a_node_lets_nobody_in_without_a_job_there(a_slurm_cluster: Cluster) -> None:
    assert a_slurm_cluster.on("login").run("ssh node3 hostname", check=False).returncode == 255


def test_the_home_is_shared_and_tmp_is_not(a_slurm_cluster: Cluster) -> None:
    a_slurm_cluster.on("node2").run("touch /home/ada/here /tmp/here")
    assert a_slurm_cluster.on("node1").says("ls /home/ada/here /tmp", check=False).split() == [
        "/home/ada/here",
        "/tmp:",
    ]
    assert a_slurm_cluster.on("node2").file("/tmp/here").exists()


def test_a_tunnel_leads_through_the_login_node_to_a_job(a_slurm_cluster: Cluster) -> None:
    ada, laptop = a_slurm_cluster.on("login"), a_slurm_cluster.on("laptop")
    server = "exec /usr/bin/python3 -m http.server 8899 --directory /etc"
    job_id = ada.says(["sbatch", "--parsable", "-w", "node2", "-o", "/dev/null", "--wrap", server])
    until(lambda: answers_at_once(a_slurm_cluster, "node2", 8899), what="the job's server")
    assert server.removeprefix("exec ") in a_slurm_cluster.on("node2").processes()
    laptop.run("ssh -fN -o ExitOnForwardFailure=yes -L 8899:node2:8899 login")
    assert laptop.says(["/usr/bin/python3", "-c", FETCH.format("http://localhost:8899/hostname")]) == "node2"
    ada.run(["scancel", job_id])
    until(lambda: job_id not in a_slurm_cluster.jobs(), what="the job's end")
    assert a_slurm_cluster.on("node2").processes() == []


FETCH = "import urllib.request; print(urllib.request.urlopen('{}', timeout=5).read().decode().strip())"


def answers_at_once(cluster: Cluster, at: str, port: int) -> bool:
    return cluster.on("login").run([*REACH, at, str(port)], check=False).returncode == 0


@pytest.mark.parametrize(
    ("option", "refusal"),
    [("-pnosuch", "Invalid partition name specified"), ("-t999:00:00", "Requested time limit is invalid")],
)
def test_slurm_refuses(a_slurm_cluster: Cluster, option: str, refusal: str) -> None:
    done = a_slurm_cluster.on("login").run(["sbatch", option, "--wrap", "true"], check=False)
    assert (done.returncode, refusal in done.stderr) == (1, True)


def test_a_service_stops_and_comes_back(a_slurm_cluster: Cluster) -> None:
    slurm = a_slurm_cluster.on("login", user="slurm")
    a_slurm_cluster.service("login", "stop", "slurmctld")
    assert not [line for line in slurm.processes() if line.startswith("slurmctld")]
    a_slurm_cluster.service("login", "start", "slurmctld")
    assert a_slurm_cluster.jobs().split()[0] == "JOBID"


def test_one_of_two_networks_can_fall_silent(a_slurm_cluster: Cluster) -> None:
    node2 = a_slurm_cluster.on("node2")
    assert answers(a_slurm_cluster, host="node1", at=SECOND_ADDRESS)
    node2.cut("eth1")
    assert not answers(a_slurm_cluster, host="node1", at=SECOND_ADDRESS)
    assert answers(a_slurm_cluster, host="node1", at="node2")
    node2.mend("eth1")
    assert answers(a_slurm_cluster, host="node1", at=SECOND_ADDRESS)


@pytest.mark.parametrize("host", ["laptop", "login"])
def test_the_way_to_the_cluster_can_be_cut(a_slurm_cluster: Cluster, host: str) -> None:
    a_slurm_cluster.on(host).cut()
    assert not answers(a_slurm_cluster, host="laptop", at="login")
    a_slurm_cluster.on(host).mend()
    assert answers(a_slurm_cluster, host="laptop", at="login")


def test_users_have_the_hpclab_under_test_and_may_not_look_into_the_home_of_root(a_slurm_cluster: Cluster) -> None:
    ada = a_slurm_cluster.on("node1")
    assert a_slurm_cluster.hpclab("--version").stdout == f"hpclab {hpclab.__version__}\n"
    assert ada.says("python -c 'import hpclab; print(hpclab.__file__)'") == "/srv/hpclab/hpclab/__init__.py"
    assert ada.says("command -v mpiexec") == str(a_slurm_cluster.python.with_name("mpiexec"))
    assert ada.run("ls /root", check=False).returncode
    assert ada.says("echo $HOME; whoami").split() == ["/home/ada", "ada"]


def test_what_takes_too_long_is_ended_on_its_host(a_slurm_cluster: Cluster) -> None:
    bob = a_slurm_cluster.on("node3", user="bob")
    with pytest.raises(subprocess.TimeoutExpired):
        bob.run(["sleep", "1000"], timeout_s=0.3)
    until(lambda: bob.processes() == [], within_s=5, what="the end of bob's sleep")


def test_a_signal_reaches_a_command(a_slurm_cluster: Cluster) -> None:
    begun = a_slurm_cluster.on("login").popen(
        "trap 'echo caught; exit 7' INT; echo ready; sleep 1000 & wait", stdout=-1
    )
    assert begun.stdout
    assert begun.stdout.readline() == "ready\n"
    send(begun, signal.SIGINT)
    assert begun.wait(5) == 7
    assert begun.stdout.readline() == "caught\n"


def test_grid_engine_runs_a_job(a_grid_engine: Cluster) -> None:
    ada = a_grid_engine.on("login")
    ada.run("echo hostname | qsub -terse -cwd -j y -o out")
    until(lambda: ada.says("cat out", check=False).startswith("node"), what="the job's output")
    until(lambda: a_grid_engine.jobs() == "", what="the job's end")


def test_a_bare_cluster_has_the_commands_that_a_test_gives_it(a_bare_cluster: Cluster) -> None:
    fake = a_bare_cluster.on("login").file("/srv/bin/bsub")
    fake.write_text("#!/bin/sh\necho a fake on $(hostname)\n")
    fake.chmod(0o755)
    assert a_bare_cluster.on("login").says("bsub") == "a fake on login"


def test_a_host_can_crash() -> None:
    with little_cluster("none", nodes=["node1"]) as cluster:
        node = cluster.on("node1")
        assert node.says("hostname") == "node1"
        node.kill()
        assert node.run("hostname", check=False).returncode


def test_a_cluster_ends_with_whoever_asked_for_it() -> None:
    until_killed = (
        "import sys; sys.path.insert(0, sys.argv[1]); from minihpc.cluster import little_cluster\n"
        "with little_cluster('none', nodes=['node1']) as cluster: print(cluster.state, flush=True); sys.stdin.read()"
    )
    folders()
    tests = str(Path(__file__).parents[1])
    asking = subprocess.Popen([sys.executable, "-c", until_killed, tests], stdin=-1, stdout=-1, text=True)
    assert asking.stdout
    state = Path(asking.stdout.readline().strip())
    inits = [int(pid.read_text().split()[0]) for pid in state.glob("hosts/*/pid")]
    assert len(inits) == 3
    asking.kill()
    until(lambda: not state.exists(), what="the state folder's end")
    assert not [pid for pid in inits if psutil.pid_exists(pid)]
