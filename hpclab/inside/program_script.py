"""The script of a run, as `python SCRIPT ARGUMENTS` would run it: `python -m hpclab.inside.program_script PLAN`."""

from __future__ import annotations

import io
import os
import runpy
import sys
from pathlib import Path
from types import TracebackType

from hpclab.inside.program_plan import ProgramPlan
from hpclab.job import Program


def main() -> None:
    os.umask(0o077)
    run_script(ProgramPlan.from_text(sys.argv[1]).program)


def run_script(program: Program) -> None:
    """In its folder, as `__main__`. An exception is told once, without our own lines, and becomes SystemExit."""
    os.chdir(program.folder)
    sys.argv = [program.script, *program.arguments]
    sys.path.insert(0, str(Path(program.script).resolve().parent))
    for stream in (sys.stdout, sys.stderr):
        # as it comes, though nobody reads it but a file
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(line_buffering=True)
    try:
        runpy.run_path(program.script, run_name="__main__")
    except Exception as error:
        sys.excepthook(type(error), error.with_traceback(_own_lines(error.__traceback__, program)), error.__traceback__)
        raise SystemExit(1) from None


def _own_lines(trace: TracebackType | None, program: Program) -> TracebackType | None:
    """From the first line that is the script's; none of a script that cannot be compiled."""
    while trace and trace.tb_frame.f_code.co_filename != program.script:
        trace = trace.tb_next
    return trace


if __name__ == "__main__":
    main()
