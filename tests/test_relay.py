"""Requests of compute nodes that may not submit: carried out once by whoever may, or withdrawn, and never both."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest
from fixtures import job_record
from waiting import until

from hpclab import relay
from hpclab.errors import ConfigError, HpclabError, NotFromHere, Refused, StoreError, TookTooLong
from hpclab.folder import SessionFolder
from hpclab.hosts.local import LocalHost
from hpclab.hosts.recording import RecordingHost
from hpclab.relay import Cancel, Carrier, Submit, Wish, ask, from_text, to_text, waiting
from hpclab.result import Result

BARRED = NotFromHere("slurm does not listen to node1\n  on node1: sbatch: not found\nsay it on a login node")
SUBMIT = Submit(script="add-one-worker.sh", record=job_record("worker"), count=2)
CANCEL = Cancel(job_ids=("7", "8_1"))
WITHIN_S = 10


@pytest.fixture
def host(tmp_path) -> LocalHost:
    return LocalHost(os.environ | {"HPCLAB_HOME": str(tmp_path)})


@pytest.fixture
def folder(tmp_path) -> SessionFolder:
    return SessionFolder(str(tmp_path / "calm-otter"))


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(relay, "LOOK_S", 0.01)


@pytest.fixture
def a_carrier(host, folder) -> Iterator[Callable[..., Carrier]]:
    """a_carrier(carry_out) looks all the time, until the end of the test."""
    over, threads = threading.Event(), []
    with ExitStack() as stack:

        def begin(carry_out: Callable[[Wish], list[str]], **more) -> Carrier:
            carrier = stack.enter_context(Carrier(host, folder, carry_out, **more))

            def look() -> None:
                while not over.wait(0.01):
                    carrier.look()

            threads.append(threading.Thread(target=look))
            threads[-1].start()
            return carrier

        yield begin
        over.set()
        for thread in threads:
            thread.join()


def files(folder: SessionFolder) -> list[str]:
    return sorted(path.name for path in Path(folder.relay).glob("*"))


def put(folder: SessionFolder, text: str, *, ago_s: float = 0, stage: str = "asked") -> str:
    """A request that somebody has left there."""
    name = f"{time.time_ns() - int(ago_s * 1e9)}-{'0' * 16}"
    Path(folder.relay).mkdir(parents=True, exist_ok=True)
    path = Path(folder.relayed(name, stage))
    path.with_suffix(".new").write_text(text)
    path.with_suffix(".new").rename(path)
    return name


# what is asked for


@pytest.mark.parametrize("wish", [SUBMIT, CANCEL, Submit(script="scripts/add-worker-0123abcd.sh", record=job_record())])
def test_a_request_is_read_as_it_was_written(wish):
    assert from_text(to_text(wish)) == wish


def altered(**changes: object) -> str:
    return json.dumps({**json.loads(to_text(SUBMIT)), **changes})


@pytest.mark.parametrize(
    "text",
    [
        *("", "{", "null", "7", '"cancel"', '["cancel"]', "{}", '{"run": ["rm", "-rf", "/"]}', "[" * 100_000),
        *('{"cancel": []}', '{"cancel": [7]}', '{"cancel": "7"}', '{"cancel": null}', '{"cancel": [["7"]]}'),
        *(
            altered(submit=script)
            for script in [
                *("/tmp/evil.sh", "../other/add-one-worker.sh", "start-dask.sh", "add-one-worker.sh\n", 7, None),
                *("scripts/../../x.sh", "scripts/add-worker-0123abcd.sh; rm x", "./add-one-worker.sh", ["sh"]),
            ]
        ),
        *(altered(count=count) for count in (0, -1, 10_001, 10**9, "3", 1.5, True, None)),
        *(altered(job=job) for job in (None, 7, {}, {"role": "worker"}, job_record("main").to_dict())),
        altered(job={**job_record().to_dict(), "cores": float("inf")}),
    ],
    ids=lambda text: text[:60],
)
def test_what_is_no_request_is_refused(text):
    with pytest.raises(ConfigError, match="that is no request"):
        from_text(text)


# one who asks and one who carries out


@pytest.mark.parametrize("wish", [SUBMIT, CANCEL])
def test_a_request_is_carried_out_and_answered(host, folder, a_carrier, wish):
    wishes, said = [], []
    a_carrier(lambda wish: wishes.append(wish) or ["7", "8_1"], tell=said.append)
    assert ask(host, folder, wish, BARRED) == ["7", "8_1"]
    assert wishes == [wish]
    until(
        lambda: said == ["submitted 7, 8_1" if wish is SUBMIT else "cancelled 7, 8_1"],
        within_s=WITHIN_S,
        what="the answer",
    )
    assert files(folder) == []


def test_who_has_nobody_to_tell_it_answers_all_the_same(host, folder, a_carrier):
    def tell(_: str) -> None:
        raise BrokenPipeError("the terminal was closed")

    a_carrier(lambda _: ["7"], tell=tell)
    assert [ask(host, folder, SUBMIT, BARRED) for _ in range(2)] == [["7"], ["7"]]


def test_only_the_user_can_look_into_it(host, folder, a_carrier):
    a_carrier(lambda _: [f"{os.stat(folder.relay).st_mode & 0o777:o}"])  # noqa: PTH116
    assert ask(host, folder, SUBMIT, BARRED) == ["700"]


def test_a_refusal_arrives_as_itself(host, folder, a_carrier):
    result = Result(host="login", argv=("sbatch",), exit_status=1, stdout="", stderr="no such account")

    def refuse(_: Wish) -> list[str]:
        raise Refused("slurm did not take the job", result)

    a_carrier(refuse)
    with pytest.raises(Refused, match="no such account"):
        ask(host, folder, SUBMIT, BARRED)


def test_whatever_goes_wrong_is_told_at_once(host, folder, a_carrier):
    carrier = a_carrier(lambda _: 1 / 0)
    with pytest.raises(HpclabError, match="ZeroDivisionError"):
        ask(host, folder, SUBMIT, BARRED)
    until(lambda: carrier.done == 1, within_s=WITHIN_S, what="the first to be done")


def test_twenty_at_once_are_carried_out_once_each_though_three_look(host, folder, a_carrier):
    done: list[str] = []

    def carry_out(wish: Wish) -> list[str]:
        done.append(wish.job_ids[0])
        return list(wish.job_ids)

    for _ in range(3):
        a_carrier(carry_out)
    ids = [str(number) for number in range(20)]
    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(lambda job_id: ask(host, folder, Cancel(job_ids=(job_id,)), BARRED), ids))
    assert answers == [[job_id] for job_id in ids]
    assert sorted(done, key=int) == ids


def test_one_that_takes_long_keeps_no_other_waiting(host, folder, a_carrier):
    go_on = threading.Event()

    def carry_out(wish: Wish) -> list[str]:
        if wish == SUBMIT:
            go_on.wait(WITHIN_S)
        return ["7"]

    a_carrier(carry_out)
    with ThreadPoolExecutor(1) as pool:
        slow = pool.submit(ask, host, folder, SUBMIT, BARRED)
        until(
            lambda: any(name.endswith(".taken") for name in files(folder)),
            within_s=WITHIN_S,
            what="the request to be taken",
        )
        assert ask(host, folder, CANCEL, BARRED) == ["7"]
        assert not slow.done()
        go_on.set()
        assert slow.result(WITHIN_S) == ["7"]


# nobody, or nobody any more


def test_what_nobody_takes_is_withdrawn_and_says_what_to_do(host, folder, a_carrier, monkeypatch):
    monkeypatch.setattr(relay, "UNCLAIMED_S", 0.05)
    with pytest.raises(TookTooLong) as error:
        ask(host, folder, SUBMIT, BARRED)
    for words in (
        *("nothing was submitted", "on node1: sbatch: not found"),
        *("hpclab attach calm-otter --host LOGIN", "hpclab relay calm-otter"),
    ):
        assert words in str(error.value)
    assert files(folder) == []


def test_a_carrier_that_is_not_heard_of_again_leaves_it_unknown(host, folder, monkeypatch):
    monkeypatch.setattr(relay, "ANSWER_S", 0.1)

    def asked() -> list[str]:
        """By name; what is still being written has another ending."""
        return [name.removesuffix(".asked") for name in files(folder) if name.endswith(".asked")]

    def take() -> None:
        until(asked, within_s=WITHIN_S, what="the request")
        (name,) = asked()
        host.rename(folder.relayed(name, "asked"), folder.relayed(name, "taken"))

    with ThreadPoolExecutor(1) as pool:
        taken = pool.submit(take)
        with pytest.raises(TookTooLong, match="whether it was carried out is not known"):
            ask(host, folder, SUBMIT, BARRED)
        taken.result()


def test_whoever_takes_it_at_the_last_moment_has_it(host, folder, monkeypatch):
    """It cannot be withdrawn any more, and so its answer is waited for."""
    monkeypatch.setattr(relay, "UNCLAIMED_S", 0)

    class Late(LocalHost):
        def rename(self, path: str, new_path: str) -> None:
            if new_path.endswith("withdrawn") and Path(path).exists():
                name = Path(path).name.removesuffix(".asked")
                super().rename(path, folder.relayed(name, "taken"))
                self.write(folder.relayed(name, "answered"), '{"jobs": ["7"]}')
            super().rename(path, new_path)

    assert ask(Late(os.environ), folder, SUBMIT, BARRED) == ["7"]


def test_who_is_interrupted_asks_no_more(host, folder, monkeypatch):
    class Interrupted(LocalHost):
        def read(self, path: str) -> str:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ask(Interrupted(os.environ), folder, SUBMIT, BARRED)
    assert files(folder) == []


@pytest.mark.parametrize("answer", ["", "{", "[]", "{}", '{"error": "no"}', '{"error": {"class": []}}', '{"jobs": 7}'])
def test_an_answer_that_cannot_be_read_is_no_news(folder, answer):
    class Answering(RecordingHost):
        def read(self, path: str) -> str:
            return answer

    with pytest.raises(StoreError, match="cannot be read"):
        ask(Answering(), folder, SUBMIT, BARRED)


def test_a_disk_that_is_full_is_told(folder):
    class Full(RecordingHost):
        def write(self, path: str, text: str, *, mode: int = 0o600) -> None:
            raise OSError(28, "No space left on device")

    with pytest.raises(StoreError, match="No space left on device"):
        ask(Full(), folder, SUBMIT, BARRED)


# what lies there


def test_foreign_files_are_answered_or_ignored_and_end_nobody(host, folder, a_carrier):
    broken = put(folder, "{")
    for name in ("x.asked", "1-2.asked", f"{'9' * 30}-{'0' * 16}.asked", "..asked"):
        (Path(folder.relay) / name).write_text("{")
    Path(folder.relayed(f"1{broken}", "asked")).mkdir()
    a_carrier(lambda _: ["7"])
    until(Path(folder.relayed(broken, "answered")).exists, within_s=WITHIN_S, what="the answer")
    assert json.loads(Path(folder.relayed(broken, "answered")).read_text())["error"]["class"] == "ConfigError"
    assert ask(host, folder, SUBMIT, BARRED) == ["7"]


def test_a_request_whose_asker_has_long_given_up_or_died_is_not_carried_out(folder, a_carrier):
    late = put(folder, to_text(SUBMIT), ago_s=relay.UNCLAIMED_S + relay.CLOCKS_DIFFER_S + 1)
    done = []
    a_carrier(lambda wish: done.append(wish) or [])
    until(
        lambda: not Path(folder.relayed(late, "asked")).exists(), within_s=WITHIN_S, what="the request to be taken away"
    )
    assert files(folder) == [f"{late}.withdrawn"]
    assert done == []


def test_a_node_whose_clock_is_a_little_behind_is_heard(folder, a_carrier):
    behind = put(folder, to_text(SUBMIT), ago_s=relay.UNCLAIMED_S)
    a_carrier(lambda _: ["7"])
    until(Path(folder.relayed(behind, "answered")).exists, within_s=WITHIN_S, what="the answer to the one behind")


def test_leftovers_go_after_a_day(host, folder):
    for stage in ("taken", "withdrawn", "answered"):
        put(folder, "", ago_s=relay.KEPT_S + 1, stage=stage)
    kept = put(folder, "", ago_s=relay.KEPT_S - 100, stage="answered")
    with Carrier(host, folder, lambda _: []) as carrier:
        carrier.look()
    assert files(folder) == [f"{kept}.answered"]


def test_who_may_not_carry_it_out_leaves_it_to_others(host, folder):
    asked = put(folder, to_text(SUBMIT))
    with Carrier(host, folder, lambda _: [], may=lambda: False) as carrier:
        carrier.look()
    assert files(folder) == [f"{asked}.asked"]


def test_a_session_of_an_older_hpclab_has_no_folder_for_it(host, folder):
    with Carrier(host, folder, lambda _: []) as carrier:
        carrier.look()
    assert waiting(host, folder) == ""


def test_the_end_waits_for_what_has_begun(host, folder):
    begun, go_on, ended = threading.Event(), threading.Event(), threading.Event()

    def carry_out(_: Wish) -> list[str]:
        begun.set()
        assert go_on.wait(WITHIN_S)
        return ["7"]

    name = put(folder, to_text(SUBMIT))

    def leave() -> None:
        with Carrier(host, folder, carry_out) as carrier:
            carrier.look()
            begun.wait(WITHIN_S)
        ended.set()

    thread = threading.Thread(target=leave)
    thread.start()
    assert begun.wait(WITHIN_S)
    assert not ended.is_set()
    go_on.set()
    thread.join(WITHIN_S)
    assert json.loads(Path(folder.relayed(name, "answered")).read_text()) == {"jobs": ["7"]}


# what is told meanwhile


@pytest.mark.parametrize(
    ("ago_s", "stage", "is_told"),
    [
        (0, "asked", False),
        (relay.WAITS_S + 1, "asked", True),
        (relay.WAITS_S + 1, "taken", False),
        (relay.WAITS_S + 1, "answered", False),
        (relay.UNCLAIMED_S + 1, "asked", False),
    ],
)
def test_a_request_that_waits_for_somebody_is_told(host, folder, ago_s, stage, is_told):
    put(folder, to_text(SUBMIT), ago_s=ago_s, stage=stage)
    told = waiting(host, folder)
    assert bool(told) is is_told
    if is_told:
        assert told.startswith("waiting for your hpclab on the laptop: ")
        assert "hpclab attach calm-otter --host LOGIN" in told
        assert "hpclab relay calm-otter" in told
