"""TOML that may come from a stranger: read by `tomllib`, within bounds that `tomllib` lacks.

Knows what is TOML, and where it is not. Does not know configs or grammars.
"""

from __future__ import annotations

import re
import tomllib
from typing import Any, Final

MAX_KEY_PARTS: Final = 16  # for each part of a key, tomllib walks over all of them

_PART: Final = r"""(?:[\w-]++|"[^"\n]*+"|'[^'\n]*+')"""
_LONG_KEY: Final = re.compile(rf"(?<![\w.-])(?:{_PART}[ \t]*+\.[ \t]*+){{{MAX_KEY_PARTS}}}")
_HALF: Final = re.compile(
    "[\ud800-\udfff]"
)  # half of a character: what Python makes of bytes that are no text
_AT: Final = re.compile(r" \(at line (\d+), column (\d+)\)$")


class TomlFault(ValueError):
    """What is no TOML, or more of it than anybody writes.

    Attributes:
        message: what is wrong, in lower case.
        line, column: where, from 1.
    """

    def __init__(self, message: str, line: int, column: int) -> None:
        super().__init__(message)
        self.message, self.line, self.column = message, line, column


def read_toml(text: str) -> dict[str, Any]:
    """The tables that TOML text spells.

    Raises:
        TomlFault: it is no text or no TOML, has a key of very many parts, a number of thousands of digits, or
            is nested too deeply.
    """
    if found := _HALF.search(text):
        raise TomlFault("no text: a character that UTF-8 does not have", *_place(text, found.start()))
    if found := _LONG_KEY.search(text):
        raise TomlFault(f"a key of more than {MAX_KEY_PARTS} parts", *_place(text, found.start()))
    try:
        return tomllib.loads(text)
    except RecursionError:
        deepest = max(re.finditer(r"[\[{]+", text), key=lambda each: len(each[0]), default=None)
        at = deepest.start() if deepest else len(text)
        raise TomlFault("nested too deeply", *_place(text, at)) from None
    except ValueError as error:  # TOMLDecodeError, or a number of thousands of digits
        message = str(error)
        found = _AT.search(message)
        place = (int(found[1]), int(found[2])) if found else _place(text, len(text))
        message = re.sub(r" \(at .*\)$", "", message)
        raise TomlFault(f"{message[:1].lower()}{message[1:]}", *place) from None


def _place(text: str, at: int) -> tuple[int, int]:
    """Line and column of a character."""
    return text.count("\n", 0, at) + 1, at - (text.rfind("\n", 0, at) + 1) + 1
