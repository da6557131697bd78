"""The source lines of functions that went to the ranks by pickle: only the caller has them."""

from __future__ import annotations

import functools
import linecache
import re
import sys
from collections.abc import Callable, Iterator
from types import CodeType, FunctionType, MethodType
from typing import Any

FILE = "<dynamic-code>"
"""What cloudpickle calls the file of all code that it takes along."""
_FRAME = re.compile(rf'^(?P<indent> *)File "{FILE}", line (?P<line>\d+)(?P<within>,? in (?P<name>\S+))$', re.MULTILINE)


def with_sources(text: str, function: Callable[..., Any]) -> str:
    """A rank's traceback, or its stack, with file and line of what is in `function` and in those that it calls."""
    codes = list(_codes(function))

    def shown(frame: re.Match[str]) -> str:
        number = int(frame["line"])
        name = frame["name"].rpartition(".")[2]
        for code in codes:
            if code.co_name == name and number in {line for _, _, line in code.co_lines()}:
                source = linecache.getline(code.co_filename, number).strip()
                told = f"{frame['indent']}{_place(code.co_filename)}, line {number}{frame['within']}"
                return f"{told}\n{frame['indent']}  {source}" if source else told
        return frame[0]

    return _FRAME.sub(shown, text)


def _place(file: str) -> str:
    """As IPython names the cells of a notebook."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython else None
    cell = shell.compile.format_code_name(file) if shell else None
    return " ".join(cell) if cell else f'File "{file}"'


def _codes(function: Any) -> Iterator[CodeType]:
    """Of the function, of those within it, and of those by whose names it knows them."""
    waiting: list[Any] = [function]
    seen: set[int] = set()
    while waiting:
        one = waiting.pop()
        if id(one) in seen:
            continue
        seen.add(id(one))
        if isinstance(one, CodeType):
            yield one
            waiting += one.co_consts
        elif isinstance(one, MethodType):
            waiting.append(one.__func__)
        elif isinstance(one, functools.partial):
            waiting += [one.func, *one.args, *one.keywords.values()]
        elif isinstance(one, FunctionType):
            waiting.append(one.__code__)
            # a name may not be bound yet, or be a builtin's
            waiting += [one.__globals__[name] for name in _names(one.__code__) if name in one.__globals__]
            for cell in one.__closure__ or ():
                try:
                    waiting.append(cell.cell_contents)
                except ValueError:
                    continue
        elif isinstance(one, type) and one.__module__ == "__main__":
            waiting += vars(one).values()


def _names(code: CodeType) -> Iterator[str]:
    yield from code.co_names
    for inner in code.co_consts:
        if isinstance(inner, CodeType):
            yield from _names(inner)
