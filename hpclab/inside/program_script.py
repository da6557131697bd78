"""The script of a run, as `python SCRIPT ARGUMENTS` would run it: `python -m hpclab.inside.program_script PLAN`."""

from __future__ import annotations

import io
import os
import sys
from pathlib import Path
from types import ModuleType, TracebackType

from hpclab.inside.program_plan import ProgramPlan
from hpclab.job import Program


def main() -> None:
    os.umask(0o077)
    run_script(ProgramPlan.from_text(sys.argv[1]).program)


def run_script(program: Program) -> None:
    """As `__main__`. An exception is told, without our own lines, and becomes the cause of a SystemExit."""
    go_beside(program)
    sys.argv = [program.script, *program.arguments]
    for stream in (sys.stdout, sys.stderr):
        # as it comes, though nobody reads it but a file
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(line_buffering=True)
    try:
        with io.open_code(program.path) as file:
            code = compile(file.read(), program.path, "exec", dont_inherit=True)
        # not by runpy, which takes the module away again while what the script has left may still need it
        main = sys.modules["__main__"] = ModuleType("__main__")
        main.__file__ = program.path
        exec(code, vars(main))
    except Exception as error:
        sys.excepthook(type(error), error.with_traceback(_own_lines(error.__traceback__, program)), error.__traceback__)
        raise SystemExit(1) from error


def go_beside(program: Program) -> None:
    """Into its folder, and to where the modules beside it are found; so do all that unpickle what it sends."""
    os.chdir(program.folder)
    sys.path.insert(0, str(Path(program.path).resolve().parent))


def _own_lines(trace: TracebackType | None, program: Program) -> TracebackType | None:
    """From the first line that is the script's; none of a script that cannot be compiled."""
    while trace and trace.tb_frame.f_code.co_filename != program.path:
        trace = trace.tb_next
    return trace


if __name__ == "__main__":
    main()
