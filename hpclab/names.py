"""Names of sessions: two words that are easily said and typed."""

from __future__ import annotations

import random
import re

from hpclab.errors import ConfigError

ADJECTIVES = """
amber brave bright calm clear crisp deep eager fair fleet gentle glad keen lively lucid merry mild neat
noble proud quick quiet ready sharp silent smooth still sunny swift tidy vivid warm wise
""".split()
ANIMALS = """
badger beaver bison crane curlew dolphin eagle falcon ferret finch fox gecko hare heron ibis jay kestrel
lark lynx marten moose newt otter owl panda plover puffin raven robin seal stork swan tern vole wren
""".split()


def new_name(taken: set[str], rng: random.Random | None = None) -> str:
    rng = rng or random.SystemRandom()
    free = [name for a in ADJECTIVES for b in ANIMALS if (name := f"{a}-{b}") not in taken]
    return rng.choice(free) if free else f"session-{rng.getrandbits(48):x}"


def check_name(name: str) -> str:
    """The name itself; ConfigError when it could not be a folder's and a job's name everywhere."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,31}", name):
        shown = name if len(name) <= 60 else name[:57] + "..."
        raise ConfigError(
            f"{shown!r} cannot be the name of a session\n"
            "use at most 32 letters, digits, dots, dashes or underscores, the first a letter or a digit"
        )
    return name
