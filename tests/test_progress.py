"""How a session's start is shown: to people, and in a file."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from hpclab.follow import Phase
from hpclab.progress import Progress

QUEUED = [
    Phase(what="queued", text=text, elapsed_s=s) for s, text in enumerate(["queued", "queued", "queued: [Resources]"])
]
STARTED = Phase(what="running", text="started on node17 [bold]", elapsed_s=3)


@pytest.fixture
def file() -> Console:
    return Console(file=io.StringIO(), width=100, highlight=False)


@pytest.fixture
def terminal() -> Console:
    return Console(file=io.StringIO(), width=100, highlight=False, force_terminal=True)


def said(console: Console) -> str:
    return console.file.getvalue()


def test_in_a_file_a_wait_is_told_when_it_changes(file):
    progress = Progress(file)
    with progress.shown():
        for phase in QUEUED:
            progress.tell(phase)
    lines = said(file).splitlines()
    assert len(lines) == 2
    assert "queued: [Resources]" in lines[1]


@pytest.mark.parametrize("console", ["file", "terminal"])
def test_a_step_is_told_once_and_as_it_is(request, console):
    where = request.getfixturevalue(console)
    progress = Progress(where)
    with progress.shown():
        for _ in range(2):  # as after a lost connection
            progress.tell(STARTED)
    assert said(where).count("started on node17 [bold]") == 1


def test_a_question_has_the_terminal_for_itself(terminal):
    progress = Progress(terminal)
    with progress.shown():
        with progress.aside():
            before = said(terminal)
            progress.say("Password:")
            assert said(terminal) == before + "Password:\n"
        progress.tell(QUEUED[2])


def test_after_a_question_that_fails_the_line_is_ours_again(terminal):
    progress = Progress(terminal)
    with progress.shown():
        with pytest.raises(KeyError), progress.aside():
            raise KeyError
        before = len(said(terminal))
        progress.tell(STARTED)
    assert "started on node17" in said(terminal)[before:]


def test_what_is_said_is_not_marked_up(file):
    Progress(file).say("[red]ada[/red] [x")
    assert said(file) == "[red]ada[/red] [x\n"
