"""Asking the user for passwords, codes and yes or no, as ssh does: on the terminal, or by the program $SSH_ASKPASS."""

from __future__ import annotations

import getpass
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TextIO

from hpclab.errors import LoginFailed


class Asking:
    """One question at a time, also when several hosts are asked side by side."""

    _lock = threading.Lock()

    def __init__(self, env: Mapping[str, str]) -> None:
        self._env = dict(env)

    def __call__(self, prompt: str, *, echo: bool = False) -> str:
        """What was typed. Raises LoginFailed when there is nobody to ask, or they would not say."""
        with self._lock:
            if program := self._program():
                return self._by(program, prompt)
            try:
                with self._terminal(prompt) as (typed, shown):
                    if not echo:
                        return getpass.getpass(prompt, stream=shown)
                    print(prompt, end="", file=shown, flush=True)
                    if line := typed.readline():
                        return line.rstrip("\r\n")
                    raise EOFError
            except EOFError:
                raise LoginFailed(f"no answer to: {prompt.strip()}\nsay it again") from None

    @contextmanager
    def _terminal(self, prompt: str) -> Iterator[tuple[TextIO, TextIO]]:
        """What the user types and sees, also where stdin is something else. Never stdout, which may go into a file."""
        if sys.stdin.isatty():
            yield sys.stdin, sys.stderr
            return
        try:
            # "r+" would want to seek
            with open("/dev/tty") as typed, open("/dev/tty", "w") as shown:
                yield typed, shown
        except OSError as error:
            raise LoginFailed(
                f"there is no terminal to ask on: {prompt.strip()}\n"
                "use a key of an ssh agent, say it in a terminal, or set SSH_ASKPASS and SSH_ASKPASS_REQUIRE=force"
            ) from error

    def _program(self) -> str:
        """As ssh(1) says of SSH_ASKPASS_REQUIRE."""
        program, require = self._env.get("SSH_ASKPASS", ""), self._env.get("SSH_ASKPASS_REQUIRE", "").lower()
        has_display = bool(self._env.get("DISPLAY") or self._env.get("WAYLAND_DISPLAY"))
        if require == "never" or not program:
            return ""
        if require == "force" or (has_display and (require == "prefer" or not sys.stdin.isatty())):
            return program
        return ""

    def _by(self, program: str, prompt: str) -> str:
        try:
            done = subprocess.run([program, prompt], env=self._env, stdout=subprocess.PIPE, text=True, check=False)
        except OSError as error:
            raise LoginFailed(f"SSH_ASKPASS={program} does not run: {error.strerror}\nmend or unset it") from error
        if done.returncode:
            raise LoginFailed(f"{program} gave no answer to: {prompt.strip()}\nsay it again")
        return done.stdout.rstrip("\r\n")
