"""A session as a card in a notebook: what is told, and that nothing of it is run."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from fixtures import NOON

from hpclab import card
from hpclab.units import format_clock

GOLDEN = json.loads((Path(__file__).parent / "data" / "session.json").read_text())
LATER = 4e9
NASTY = "<script>alert(1)</script><img src=x onerror='alert(2)'>\"&"


class Page(HTMLParser):
    """The tags and the text of a piece of HTML; every tag that is opened is closed."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []
        self.rows = 0
        self._open: list[str] = []
        self._text: list[str] = []
        self.feed(html)
        self.close()
        assert self._open == []
        self.text = " ".join(self._text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self._open.append(tag)
        self.links += [str(value) for name, value in attrs if name == "href"]
        assert not [name for name, _ in attrs if name.startswith("on")]

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self._text.append(data)


def job(**changes: Any) -> dict[str, Any]:
    one = {
        **{"id": "7", "role": "worker", "state": "running", "reason": "", "node": "node17.cluster", "workers": 1},
        **{"joined": 1, "busy": 0, "cores": 4, "memory_bytes": 8 * 2**30, "time_left_s": 1200, "expected_start": None},
    }
    return one | changes


def described(*jobs: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return {**GOLDEN, "reason": "", "jobs": list(jobs), **changes}


def test_a_card_of_the_golden_session_names_all_that_describe_tells():
    page = Page(card.html(GOLDEN))
    assert GOLDEN["name"] in page.text
    assert GOLDEN["state"] in page.text
    assert all(state["id"] in page.text for state in GOLDEN["jobs"] if state["state"] in ("running", "pending"))


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (job(), "1 of 1 worker joined"),
        (job(workers=4, joined=3, busy=2), "3 of 4 workers joined, 2 at work"),
        (job(joined=0), "0 of 1 worker joined"),
        (job(state="pending", joined=0, reason="Resources"), "queued: Resources"),
        (
            job(state="pending", reason="Priority", expected_start=LATER),
            f"queued: Priority; expected to start {format_clock(LATER)}",
        ),
        (job(state="pending", reason="", expected_start=LATER), f"queued: expected to start {format_clock(LATER)}"),
        (job(state="pending", reason="Priority", expected_start=NOON), "queued: Priority"),
        (job(state="held", reason="held by the user"), "held: held by the user"),
        (job(state="completing"), "ending"),
        (job(state="unknown", reason="slurm does not answer"), "unknown: slurm does not answer"),
    ],
)
def test_a_job_is_told_in_words(given, words):
    assert card.in_words(given) == words
    assert words in Page(card.html(described(given))).text


def test_what_others_wrote_is_shown_and_not_run():
    nasty = described(job(id=NASTY, reason=NASTY, node=NASTY), name=NASTY, state=NASTY, reason=NASTY + "2", node=NASTY)
    page = Page(card.html(nasty, notes=[NASTY]))
    assert not {"script", "img"} & set(page.tags)
    assert page.text.count("<script>") == 8
    trouble = Page(card.trouble(NASTY, NASTY))
    assert trouble.tags == ["div", "strong", "pre"]


@pytest.mark.parametrize(
    ("link", "links"),
    [
        ("/proxy/hpclab/status", ["/proxy/hpclab/status"]),
        ("http://127.0.0.1:8787/status", ["http://127.0.0.1:8787/status"]),
        ("", []),
        ("javascript:alert(1)", []),
    ],
)
def test_the_dashboard_is_a_link_where_there_is_one(link, links):
    assert Page(card.html(described(), dashboard=link)).links == links


def test_many_jobs_are_cut_and_those_that_have_ended_are_counted():
    jobs = [job(id=str(n)) for n in range(500)] + [job(state="done"), job(state="failed")]
    page = Page(card.html(described(*jobs)))
    assert page.tags.count("tr") == card.ROWS + 1
    assert "480 more are queued or running; 2 jobs have ended" in page.text
    assert "1 job has ended" in Page(card.html(described(job(), job(state="cancelled")))).text


def test_a_session_without_jobs_has_no_table():
    assert "table" not in Page(card.html(described())).tags


def test_notes_stand_below():
    page = Page(card.html(described(reason="no sign of life"), notes=["adapting: between 1 and 4 workers"]))
    assert page.text.endswith("no sign of life adapting: between 1 and 4 workers")
