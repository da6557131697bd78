"""What a job's environment is made of, as lines of shell: modules, conda or venv, variables, a container. Pure.

Every value is quoted here, once. The user's own `prologue` lines are shell, and stay as they stand.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Environment:
    """The environment of a job, as the settings have it."""

    modules: Sequence[str] = ()
    conda: str = ""
    venv: str = ""
    export: Sequence[str] = ()
    prologue: Sequence[str] = ()
    python: str = ""
    container: str = ""
    binds: Sequence[str] = ()

    @property
    def is_own(self) -> bool:
        """Not simply the one that hpclab itself runs in."""
        return bool(self.python or self.conda or self.venv or self.container)

    def lines(self) -> list[str]:
        """What the job's shell does before its program; it has the session's folder in $hpclab_session."""
        lines = []
        if self.modules:
            lines += [*_MODULES, _or_end(f"module load {shlex.join(self.modules)}")]
        if self.conda:
            lines += [*_CONDA, _or_end(f"conda activate {shlex.quote(self.conda)}")]
        if self.venv:
            # a tilde in quotes is none
            lines.append(_or_end(f". {_path(self.venv)}/bin/activate"))
        lines += [f"export {name}={shlex.quote(value)}" for name, _, value in (e.partition("=") for e in self.export)]
        lines += self.prologue
        if self.container:
            options = " ".join(
                f"--bind {bind}" for bind in ('"$hpclab_session"', '"$HPCLAB_SCRATCH"', *map(_path, self.binds))
            )
            lines += [
                "hpclab_container=$(command -v apptainer || command -v singularity || echo apptainer)",
                f'hpclab_run() {{ "$hpclab_container" exec {options} {_path(self.container)} "$@"; }}',
            ]
        return lines

    def program(self, default_python: str, arguments: Sequence[str]) -> str:
        """The job's one program, as a line of shell."""
        python = self.python or ("python" if self.conda or self.venv or self.container else default_python)
        return ("hpclab_run " if self.container else "") + " ".join([_path(python), shlex.join(arguments)])


def _or_end(line: str) -> str:
    """Without what was asked for by name, a job would go on with the wrong Python, or none."""
    return f"{line} || hpclab_unfit {shlex.quote(line)}"


def _path(path: str) -> str:
    home, slash, rest = path.partition("/")
    return f"~{slash}{shlex.quote(rest)}" if home == "~" and slash else shlex.quote(path)


# a batch job's shell is often no login shell, and then nobody has told it what `module` is
_MODULES = [
    "for hpclab_init in /etc/profile.d/{modules,lmod,z00_lmod,zz_lmod}.sh ${MODULESHOME:+$MODULESHOME/init/bash}; do "
    'if ! command -v module >/dev/null && [ -r "$hpclab_init" ]; then . "$hpclab_init"; fi; done'
]
_CONDA = [
    "for hpclab_base in ~/miniforge3 ~/mambaforge ~/miniconda3 ~/anaconda3 /opt/conda; do "
    'if ! command -v conda >/dev/null && [ -x "$hpclab_base/bin/conda" ]; then PATH="$PATH:$hpclab_base/bin"; fi; done',
    '. "$(conda info --base)/etc/profile.d/conda.sh"',
]
