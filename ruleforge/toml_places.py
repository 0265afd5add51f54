"""Where each key and each list item of a TOML text stands.

Knows positions alone: `tomllib` reads the values and refuses what is no TOML. The scanner is given
text that `tomllib` has accepted, and leans on that.
"""

from __future__ import annotations

import tomllib
from bisect import bisect_right
from collections import Counter
from typing import TypeAlias

KeyPath: TypeAlias = tuple[str | int, ...]
Place: TypeAlias = tuple[int, int]  # line and column, both from 1

_BARE = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_")


def find_places(text: str) -> dict[KeyPath, Place]:
    """Line and column of every key, table and list item, by its path.

    Args:
        text: TOML that `tomllib.loads` accepts.

    Example:
        >>> find_places('[search]\\nrules = ["sgd", "adam"]')[("search", "rules", 1)]
        (2, 17)
    """
    return _Scanner(text).run()


class _Scanner:
    """One walk over one text."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.starts = [0, *(i + 1 for i, char in enumerate(text) if char == "\n")]
        self.places: dict[KeyPath, Place] = {}
        self.lengths: Counter[KeyPath] = Counter()  # entries so far of each array of tables

    def run(self) -> dict[KeyPath, Place]:
        table: KeyPath = ()
        self.skip_blank()
        while self.at < len(self.text):
            if self.text[self.at] == "[":
                table = self.header()
            else:
                self.pair(table)
            self.skip_blank()
        return self.places

    def header(self) -> KeyPath:
        """The path that `[a.b]` or `[[a.b]]` opens."""
        start = self.at
        is_array = self.text.startswith("[[", self.at)
        self.at += 1 + is_array
        *outer, last = self.key()
        self.at += 1 + is_array
        path: KeyPath = ()
        for part in outer:
            path = self.inside((*path, part))
            self.note(path, start)
        path = (*path, last)
        self.note(path, start)
        if is_array:
            self.lengths[path] += 1
            path = self.inside(path)
            self.note(path, start)
        return path

    def inside(self, path: KeyPath) -> KeyPath:
        """The path of the latest entry where `path` is an array of tables."""
        return (*path, self.lengths[path] - 1) if path in self.lengths else path

    def pair(self, table: KeyPath) -> None:
        """`key = value`, noting the key and what is inside the value."""
        start = self.at
        path = table
        for part in self.key():
            path = (*path, part)
            self.note(path, start)
        self.skip_blank()
        self.at += 1  # the equals sign
        self.skip_blank()
        self.value(path)

    def key(self) -> list[str]:
        """The parts of a dotted key; ends before what follows it."""
        parts = []
        while True:
            self.skip_blank()
            start = self.at
            if self.text[self.at] in "\"'":
                self.string()
            else:
                while self.at < len(self.text) and self.text[self.at] in _BARE:
                    self.at += 1
            parts.append(next(iter(tomllib.loads(f"{self.text[start : self.at]} = 0"))))
            self.skip_blank()
            if self.text[self.at] != ".":
                return parts
            self.at += 1

    def value(self, path: KeyPath) -> None:
        opening = self.text[self.at]
        if opening in "\"'":
            self.string()
        elif opening == "[":
            self.items(path)
        elif opening == "{":
            self.inline_table(path)
        else:
            while self.at < len(self.text) and self.text[self.at] not in ",]}#\n":
                self.at += 1

    def items(self, path: KeyPath) -> None:
        self.at += 1
        number = 0
        while True:
            self.skip_blank(commas=True)
            if self.text[self.at] == "]":
                self.at += 1
                return
            self.note((*path, number), self.at)
            self.value((*path, number))
            number += 1

    def inline_table(self, path: KeyPath) -> None:
        self.at += 1
        while True:
            self.skip_blank(commas=True)
            if self.text[self.at] == "}":
                self.at += 1
                return
            self.pair(path)

    def string(self) -> None:
        """Move behind a string of any of the four kinds."""
        quote = self.text[self.at]
        fence = quote * 3 if self.text.startswith(quote * 3, self.at) else quote
        self.at += len(fence)
        while not self.text.startswith(fence, self.at):
            self.at += 2 if quote == '"' and self.text[self.at] == "\\" else 1
        self.at += len(fence)
        while len(fence) == 3 and self.text.startswith(quote, self.at):
            self.at += 1  # up to two quotes may stand before the closing three

    def skip_blank(self, *, commas: bool = False) -> None:
        """Move behind spaces, line ends and comments (and commas)."""
        blank = " \t\r\n," if commas else " \t\r\n"
        while self.at < len(self.text):
            if self.text[self.at] == "#":
                end = self.text.find("\n", self.at)
                self.at = len(self.text) if end < 0 else end
            elif self.text[self.at] in blank:
                self.at += 1
            else:
                return

    def note(self, path: KeyPath, offset: int) -> None:
        line = bisect_right(self.starts, offset)
        self.places.setdefault(path, (line, offset - self.starts[line - 1] + 1))
