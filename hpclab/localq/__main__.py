"""The command line."""

from __future__ import annotations

import os
import signal
import sys

from hpclab.localq.dispatch import cancel, status, submit
from hpclab.localq.record import state_folder
from hpclab.localq.refusal import Refusal

USAGE = """\
usage: python -m hpclab.localq submit SCRIPT      (- reads the script from stdin; prints the job id)
       python -m hpclab.localq status [ID ...]    (one JSON object per line)
       python -m hpclab.localq cancel ID ...
"""


def main(argv: list[str]) -> int:
    umask = os.umask(0o077)
    try:
        match argv:
            case ["submit", source] if source == "-" or not source.startswith("-"):
                answer = f"{submit(state_folder(), source, umask)}\n"
            case ["status", *ids] if not any(word.startswith("-") for word in ids):
                answer = status(state_folder(), ids)
            case ["cancel", _, *_] if not any(word.startswith("-") for word in argv):
                # who cancels the job that we are part of shall hear that it is done
                signal.signal(signal.SIGTERM, signal.SIG_IGN)
                cancel(state_folder(), argv[1:])
                answer = ""
            case ["shepherd", job_id] if job_id.isdecimal():
                from hpclab.localq.shepherd import tend

                tend(state_folder(), int(job_id))
                answer = ""
            case ["-h" | "--help"]:
                answer = USAGE
            case _:
                print(USAGE, end="", file=sys.stderr)
                return 2
        sys.stdout.write(answer)
        sys.stdout.flush()
    except (Refusal, OSError) as error:
        print(f"localq: {error}", file=sys.stderr)
        return error.exit_status if isinstance(error, Refusal) else 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
