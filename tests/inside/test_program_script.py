"""A run's script is run as by `python SCRIPT ARGUMENTS`: each program here is run in both ways, and compared."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from hpclab.job import Program
from inside.test_program_plan import a_plan

PROGRAMS = {
    "names": "import sys; print(__name__, __file__, sys.argv, sys.path[0]); sys.exit(3)",
    "modules": "import beside; print(beside.answer)",
    "raises": "import beside\ndef f():\n    beside.fail()\nf()\n",
    "chained": "try:\n    1 / 0\nexcept ZeroDivisionError as error:\n    raise ValueError('x') from error\n",
    "syntax": "x = (\n",
    "words": "raise SystemExit('in words')",
    "hook": "import sys\nsys.excepthook = lambda *told: print('hooked', told[1])\nraise ValueError('x')",
    "atexit": "import atexit\natexit.register(print, 'last')\nprint('first')",
    "pickle": "import pickle\nclass A: pass\nprint(type(pickle.loads(pickle.dumps(A()))) is A)",
    "spawn": "import multiprocessing as m\ndef f(x): return x + 1\n"
    "if __name__ == '__main__':\n    print(m.get_context('spawn').Pool(1).map(f, [1]))",
}


@pytest.fixture
def here(tmp_path) -> Path:
    (tmp_path / "src").mkdir()
    (tmp_path / "src/beside.py").write_text("answer = 42\ndef fail():\n    raise KeyError('no')\n")
    return tmp_path


def done(argv: list[str], here: Path) -> tuple[int, str, str]:
    ran = subprocess.run(argv, cwd=here, capture_output=True, text=True, timeout=60, check=False)
    return ran.returncode, ran.stdout, ran.stderr


def as_a_run(here: Path, *arguments: str) -> list[str]:
    program = Program(script="src/model.py", folder=str(here), arguments=arguments)
    return [sys.executable, "-P", "-m", "hpclab.inside.program_script", replace(a_plan(), program=program).to_text()]


@pytest.mark.parametrize("text", PROGRAMS.values(), ids=PROGRAMS)
def test_it_is_as_python_would_run_it(here, text):
    (here / "src/model.py").write_text(text)
    arguments = ["--debug", "a 'b'", "two\nlines", "--"]
    by_python = done([sys.executable, "src/model.py", *arguments], here)
    assert done(as_a_run(here, *arguments), here) == by_python


def test_it_begins_in_its_folder(here):
    (here / "src/model.py").write_text("import os; print(os.getcwd())")
    assert done(as_a_run(here), Path("/"))[1] == f"{here}\n"


def test_a_line_is_printed_when_it_is_said(here):
    """Also into a pipe or a file."""
    (here / "src/model.py").write_text("print('said')\nimport sys; sys.stdin.read()")
    pipe = subprocess.PIPE
    with subprocess.Popen(as_a_run(here), stdin=pipe, stdout=pipe, text=True) as running:
        assert running.stdout is not None
        assert running.stdout.readline() == "said\n"
        running.communicate("")


def test_what_it_writes_is_the_users_alone(here):
    (here / "src/model.py").write_text("open('made', 'w').close()")
    done(as_a_run(here), here)
    assert (here / "made").stat().st_mode & 0o077 == 0
