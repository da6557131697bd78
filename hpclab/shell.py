"""A command for a shell that we do not choose: the user's login shell on another machine. Pure.

sshd gives the text to that shell, which may be sh, bash, zsh, csh, tcsh or fish, and may print before it runs it. So
the text has no character that any of them reads differently, and the command's own output begins behind a mark.
"""

from __future__ import annotations

import base64
import secrets
import shlex
from collections.abc import Sequence


def new_mark() -> bytes:
    """What separates the noise of start-up files from a command's own output, on both of its streams."""
    return b"hpclab-begins-" + secrets.token_hex(8).encode()


def remote_command(argv: Sequence[str], mark: bytes, *, prologue: Sequence[str] = ()) -> str:
    """One line for any shell: the mark on stdout and stderr, the prologue, and then the argv in place of the shell.

    What the prologue prints goes to stderr. Its lines are bash's, in a login shell, for only there `module` is known.
    """
    script = "\n".join(
        [
            f"echo {mark.decode()} >&2",
            # what a prologue prints must not be taken for the command's, nor may it read what is for the command
            "exec 3>&1 1>&2 4<&0 </dev/null",
            *prologue,
            "exec 1>&3 3>&- <&4 4<&-",
            f"echo {mark.decode()}",
            f"exec {shlex.join(argv)}",
        ]
    )
    # base64 has only letters, digits, + / =, and inside single quotes no shell looks at $ or "
    encoded = base64.b64encode(script.encode()).decode()
    shell = "bash -lc" if prologue else "sh -c"
    return f"exec {shell} 'eval \"$(echo {encoded} | base64 -d)\"'"


def printable(text: str) -> str:
    """Another machine's words must not steer the terminal."""
    return "".join(letter for letter in text.expandtabs() if letter.isprintable() or letter == "\n")
