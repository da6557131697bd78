"""One exit code per class of error, and the tree in the docstring tells the truth."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest

from hpclab import errors
from hpclab.errors import CommandError, HpclabError
from hpclab.hosts import Result
from hpclab.job import JobExit

CLASSES = [cls for _, cls in inspect.getmembers(errors, inspect.isclass) if issubclass(cls, HpclabError)]


def drawn() -> dict[str, tuple[int, str]]:
    """Name to exit code and parent, as the docstring has them."""
    found, line_of_descent = {}, []
    for indent, name, code in re.findall(r"^( *)[*+] (\w+) +(\d+)", errors.__doc__ or "", re.MULTILINE):
        depth = len(indent) // 2
        line_of_descent[depth:] = [name]
        found[name] = (int(code), line_of_descent[depth - 1] if depth else "Exception")
    return found


def test_the_tree_in_the_docstring_is_the_tree_of_classes():
    real = {cls.__name__: (cls.exit_code, cls.__base__.__name__) for cls in CLASSES}
    assert drawn() == real


def test_the_page_of_exit_statuses_has_them_all():
    text = Path(__file__).parents[1].joinpath("docs/exit-statuses.md").read_text()
    tables = [[int(number) for number in re.findall(r"^\| (\d+) \|", part, re.MULTILINE)] for part in text.split("## ")]
    assert tables == [
        [],
        [0, *sorted(cls.exit_code for cls in CLASSES), errors.INTERRUPTED],
        sorted(JobExit),
    ]


def test_exit_codes_are_unique():
    codes = [cls.exit_code for cls in CLASSES]
    assert len(set(codes)) == len(codes)


@pytest.mark.parametrize("cls", CLASSES)
def test_exit_codes_cannot_be_mistaken_for_success_or_a_signal(cls):
    assert 0 < cls.exit_code < 126


def test_a_command_error_shows_the_evidence_and_the_next_step():
    result = Result(host="login1", argv=("sbatch", "my job.sh"), exit_status=1, stdout="", stderr="no such queue\n")
    assert str(CommandError("it failed", result, next_step="try another")).splitlines() == [
        "it failed",
        "  command: sbatch 'my job.sh'",
        "  on: login1, exit status 1",
        "  it said:",
        "    no such queue",
        "try another",
    ]


def test_a_command_error_shows_the_last_lines_of_much_output():
    result = Result(host="h", argv=("x",), exit_status=1, stdout="\n".join(map(str, range(100))), stderr="")
    text = str(CommandError("it failed", result))
    assert "    99" in text
    assert "    89" not in text


def test_a_command_that_said_nothing_is_shown_so():
    result = Result(host="h", argv=("x",), exit_status=1, stdout=" \n", stderr="\n")
    assert "(nothing)" in str(CommandError("it failed", result))


def test_in_a_notebook_an_error_is_its_message_and_no_traceback():
    assert HpclabError("it has ended\nstart another")._render_traceback_() == ["hpclab: it has ended\nstart another"]
