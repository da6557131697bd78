"""Tracebacks of functions that went by pickle, as cloudpickle leaves them, with the lines that they lack."""

from __future__ import annotations

import functools
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hpclab.mpi.trace import with_sources

HERE = Path(__file__)


def helper(value: int) -> int:
    return 1 // value


def calls_helper(value: int) -> int:
    return helper(value)


def makes(other: Callable[[int], int]) -> Callable[[int], int]:
    def made(value: int) -> int:
        return other(value)  # a cell

    return made


class Model:
    lock = threading.Lock()

    def run(self, value: int) -> int:
        return sum(helper(v) for v in [value])


def unbound() -> None:
    late  # noqa: B018, F821


CALLS = {
    "itself": (helper, helper),
    "by a name": (calls_helper, helper),
    "in a cell": (makes(helper), helper),
    "a partial": (functools.partial(calls_helper, 0), calls_helper),
    "a method": (Model().run, helper),
    "a name that is not bound": (unbound, unbound),
}


@pytest.mark.parametrize("how", CALLS)
@pytest.mark.parametrize("form", ['    File "<dynamic-code>", line {}, in {}', 'File "<dynamic-code>", line {} in {}'])
def test_a_frame_shows_file_and_line(how: str, form: str) -> None:
    function, told = CALLS[how]
    line = told.__code__.co_firstlineno + 1
    source = HERE.read_text().splitlines()[line - 1].strip()
    frame = form.format(line, told.__name__)
    indent = " " * (len(frame) - len(frame.lstrip()))
    shown = with_sources(f"before\n{frame}\nafter", function)
    assert shown == f"before\n{frame.replace('<dynamic-code>', str(HERE))}\n{indent}  {source}\nafter"


@pytest.mark.parametrize(
    "frame",
    [
        'File "<dynamic-code>", line 1, in helper',
        'File "<dynamic-code>", line 26, in other',
        'File "model.py", line 26, in helper',
        "",
    ],
)
def test_what_is_not_known_stays(frame: str) -> None:
    assert with_sources(frame, calls_helper) == frame


@pytest.mark.parametrize("function", [len, str, print, Model, functools.partial(len)])
def test_what_has_no_source_is_no_reason_to_fail(function: Any) -> None:
    assert with_sources('File "<dynamic-code>", line 1, in x', function).startswith("File")


def test_the_classes_of_a_script_are_known(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(
        """
from hpclab.mpi.trace import with_sources

class Model:
    def run(self):
        raise ValueError

def function(chunks, comm):
    Model().run()

print(with_sources('File "<dynamic-code>", line 6, in run', function))
"""
    )
    done = subprocess.run([sys.executable, "script.py"], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[1] == "  raise ValueError"


def test_a_notebooks_cell_is_named_as_everywhere_in_it() -> None:
    code = """
from IPython.core.interactiveshell import InteractiveShell
from hpclab.mpi.trace import with_sources
shell = InteractiveShell.instance()
shell.run_cell("1", store_history=True)
shell.run_cell("def function(chunks, comm):\\n    return 1 / 0", store_history=True)
print(with_sources('  File "<dynamic-code>", line 2, in function', shell.user_ns["function"]))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-2:] == ["  Cell In[2], line 2, in function", "    return 1 / 0"]
