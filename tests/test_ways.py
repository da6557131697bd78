"""The ways to a batch system: which is taken, which is remembered, and that nothing is done twice."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator, Sequence

import pytest

from hpclab import ways
from hpclab.errors import CommandMissing, ConnectionLost, NotFromHere, TookTooLong
from hpclab.result import Result
from hpclab.ways import Ways

SBATCH = ["bash", "-c", 'exec "$@"', "bash", "sbatch", "x.sh"]
MISSING = (127, "", "bash: line 1: exec: sbatch: not found\n")
DENIED = (1, "", "sbatch: error: Batch job submission failed: Access/permission denied\n")
TOO_LARGE = (1, "", "sbatch: error: Batch job submission failed: Requested node configuration is not available\n")
DONE = (0, "7\n", "")
NO_KEY = (255, "", "ada@login: Permission denied (publickey).\n")
LOST = (255, "", "client_loop: send disconnect: Broken pipe\n")


@pytest.fixture(autouse=True)
def ignorance() -> Iterator[None]:
    ways.forget()
    yield
    ways.forget()


Answer = tuple[int, str, str] | Exception


class Node:
    """A compute node. `here` are its own answers, `there` those of the login node; `ssh` is how ssh fails."""

    name = "node1"

    def __init__(self, here: Sequence[Answer] = (), there: Sequence[Answer] = (), ssh: Answer | None = None) -> None:
        self.here, self.there, self.ssh = list(here), list(there), ssh
        self.asked: list[str] = []
        """`here`, `probe` (whether ssh works), `there`."""

    def run(self, argv: Sequence[str], *, timeout_s: float = 60) -> Result:
        if argv[0] != "ssh":
            self.asked.append("here")
            return self._result(argv, self.here.pop(0))
        *_, name, command = argv
        assert name == "login"
        script = base64.b64decode(re.findall(r"echo ([A-Za-z0-9+/=]+) ", command)[0]).decode()
        is_probe = script.endswith("exec true")
        self.asked.append("probe" if is_probe else "there")
        if self.ssh:
            return self._result(argv, self.ssh)
        answer = (0, "", "") if is_probe else self.there.pop(0)
        assert isinstance(answer, tuple)
        exit_status, stdout, stderr = answer
        mark = re.findall(r"hpclab-begins-[0-9a-f]+", script)[0]
        return self._result(argv, (exit_status, f"hello\n{mark}\n{stdout}", f"banner\n{mark}\n{stderr}"))

    def _result(self, argv: Sequence[str], answer: Answer) -> Result:
        if isinstance(answer, Exception):
            raise answer
        exit_status, stdout, stderr = answer
        return Result(host=self.name, argv=tuple(argv), exit_status=exit_status, stdout=stdout, stderr=stderr)


def submit(node: Node, login: str = "login") -> Result:
    return Ways(node, "slurm", login).run("submit", SBATCH)


@pytest.mark.parametrize("answer", [DONE, TOO_LARGE])
def test_where_this_host_may_nobody_else_is_asked(answer):
    node = Node([answer])
    assert submit(node).exit_status == answer[0]
    assert node.asked == ["here"]


@pytest.mark.parametrize("answer", [MISSING, DENIED, DONE, TOO_LARGE])
def test_without_a_login_node_every_answer_is_the_answer(answer):
    assert submit(Node([answer]), login="").stderr == answer[2]


@pytest.mark.parametrize("answer", [MISSING, DENIED, CommandMissing("there is no 'bash' on node1\nis it on PATH?")])
def test_where_it_may_not_the_login_node_is_asked_and_its_noise_is_cut_off(answer):
    node = Node([answer], [DONE])
    result = submit(node)
    assert (result.stdout, result.stderr, result.host, result.argv) == ("7\n", "", "login", tuple(SBATCH))
    assert node.asked == ["here", "probe", "there"]


@pytest.mark.parametrize("answer", [TOO_LARGE, DENIED])
def test_what_the_login_node_is_refused_is_refused(answer):
    assert submit(Node([MISSING], [answer])).stderr == answer[2]


def test_where_no_way_leads_the_reasons_are_told():
    with pytest.raises(NotFromHere) as error:
        submit(Node([DENIED], ssh=NO_KEY))
    assert str(error.value).splitlines() == [
        "slurm does not listen to node1, nor is there a way through login",
        "  on node1: sbatch: error: Batch job submission failed: Access/permission denied",
        "  by ssh to login: ada@login: Permission denied (publickey).",
        "say it on a login node",
    ]


@pytest.mark.parametrize("ssh", [CommandMissing("there is no 'ssh' on node1\n?"), TookTooLong("'ssh' did not answer")])
def test_an_ssh_that_is_none_is_no_way(ssh):
    with pytest.raises(NotFromHere, match="'ssh'"):
        submit(Node([MISSING], ssh=ssh))


def test_a_login_node_without_the_commands_is_no_way_and_is_not_asked_each_time():
    node = Node([MISSING], [MISSING])
    for _ in range(3):
        with pytest.raises(NotFromHere, match="by ssh to login: bash: line 1: exec: sbatch: not found"):
            submit(node)
    assert node.asked == ["here", "probe", "there"]


def test_what_may_have_been_carried_out_is_not_tried_in_another_way():
    with pytest.raises(ConnectionLost, match="is not known"):
        submit(Node([MISSING], [LOST]))
    ways.forget()
    with pytest.raises(TookTooLong):
        submit(Node([TookTooLong("'bash' did not answer")], [DONE]))


# what is remembered


def test_a_way_that_is_shut_is_not_tried_each_time(monkeypatch):
    now = 1000.0
    monkeypatch.setattr(ways.time, "monotonic", lambda: now)
    node = Node([MISSING, MISSING], [DONE] * 4)
    for _ in range(3):
        submit(node)
    assert node.asked == ["here", "probe", "there", "there", "there"]
    now += ways.AGAIN_S + 1
    node.asked.clear()
    submit(node)
    assert node.asked[:2] == ["here", "probe"]


def test_without_any_way_nothing_is_run_until_it_is_time_again(monkeypatch):
    now = 1000.0
    monkeypatch.setattr(ways.time, "monotonic", lambda: now)
    node = Node([MISSING, DONE], ssh=NO_KEY)
    for _ in range(3):
        with pytest.raises(NotFromHere):
            submit(node)
    assert node.asked == ["here", "probe"]
    now += ways.AGAIN_S + 1
    assert submit(node).stdout == "7\n"


def test_that_one_command_is_shut_says_nothing_of_others():
    node = Node([MISSING, DONE], [DONE])
    submit(node)
    here = Ways(node, "slurm", "login")
    assert here.run("status", ["squeue"]).stdout == "7\n"
    assert (here.is_shut("submit"), here.is_shut("status")) == (True, False)


def test_a_host_without_a_login_node_is_never_shut():
    with pytest.raises(NotFromHere):
        submit(Node([MISSING], ssh=NO_KEY))
    assert not Ways(Node(), "slurm").is_shut("submit")
