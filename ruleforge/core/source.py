"""Rule text before it means anything: its limits, its syntax tree, and errors that show the place.

All that a hostile text could do to a parser is refused here, before `ast` builds a tree: size,
nesting, characters that Python would quietly turn into others.
"""

from __future__ import annotations

import ast
import re
import warnings

from ruleforge.core.rule import MAX_BYTES, MAX_DEPTH
from ruleforge.errors import RuleTextError

# Strings and comments are skipped as a whole; what is left of interest is one character long.
_TOKEN = re.compile(
    r'("""|\'\'\')(?:\\[\s\S]|(?!\1)[^\\])*+\1'
    r'|"(?:\\[\s\S]|[^"\\\n])*+"'
    r"|'(?:\\[\s\S]|[^'\\\n])*+'"
    r"|\#[^\n]*+"
    r"|[()\[\]{}]"
    r"|[^\x00-\x7f]"
)
_BAD_CHARACTER = re.compile("[\x00\ud800-\udfff]")


class Source:
    """The text of one rule.

    Args:
        text: as it came; a byte order mark in front is dropped.
        file: named in errors.
    """

    def __init__(self, text: str, file: str) -> None:
        self.text = text.removeprefix("\ufeff")
        self.file = file
        # The parser's line ends, not `splitlines`, which also breaks at form feeds and U+2028.
        self.lines = re.split(r"\r\n|\r|\n", self.text) if len(text) <= MAX_BYTES else []

    def fail(self, where: ast.expr | ast.stmt | None, message: str, hint: str = "") -> RuleTextError:
        """The error to raise about a part of the text, or about all of it."""
        if where is None:
            return RuleTextError(message, file=self.file, hint=hint)
        start = self._characters(where.lineno, where.col_offset)
        end = None
        if where.end_lineno == where.lineno and where.end_col_offset is not None:
            end = self._characters(where.lineno, where.end_col_offset)
        return self.fail_at(where.lineno, start, message, hint, end=end)

    def fail_at(
        self, line: int, start: int, message: str, hint: str = "", *, end: int | None = None
    ) -> RuleTextError:
        """The error to raise about characters `start` to `end` (or the line's end) of a line."""
        shown = self._line(line)
        return RuleTextError(
            message, file=self.file, line=line, column=start + 1, hint=hint,
            context=_caret(shown, start, len(shown) if end is None else end),
        )  # fmt: skip

    def statements(self) -> list[ast.stmt]:
        """The statements of the text, which is then known to be small and shallow.

        Raises:
            RuleTextError: it is too large, nests too deeply, or is no Python syntax.
        """
        if len(self.text.encode("utf-8", "surrogatepass")) > MAX_BYTES:
            raise self.fail(None, f"more than {MAX_BYTES // 1024} KiB of text", "a rule is a few lines")
        self._scan()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # on escapes such as \s in a docstring
                tree = ast.parse(self.text)
        except SyntaxError as error:
            raise self._syntax(error) from None
        except (ValueError, RecursionError, MemoryError):
            raise self.fail(None, "nested too deeply to be read", f"at most {MAX_DEPTH} levels") from None
        pending: list[tuple[ast.AST, int]] = [(statement, 0) for statement in tree.body]
        while pending:
            item, level = pending.pop()
            if isinstance(item, ast.expr):
                level += 1
                if level > MAX_DEPTH + 1:  # a negative number counts one level more than it nests
                    hint = "give parts names of their own"
                    raise self.fail(item, f"terms nest deeper than {MAX_DEPTH} levels", hint)
            pending += [(child, level) for child in ast.iter_child_nodes(item)]
        return tree.body

    def _scan(self) -> None:
        bad = _BAD_CHARACTER.search(self.text)
        if bad is not None:
            raise self._fail_offset(bad.start(), f"the character U+{ord(bad[0]):04X} is not allowed")
        level = 0
        for token in _TOKEN.finditer(self.text):
            char = token[0]
            if len(char) > 1 or char == "#":
                continue
            if not char.isascii():
                raise self._fail_offset(
                    token.start(), f"unexpected character {char!r}",
                    "names, numbers and operators are ASCII; other characters belong in comments",
                )  # fmt: skip
            level += 1 if char in "([{" else -1
            if level > MAX_DEPTH:
                raise self._fail_offset(
                    token.start(), f"brackets nest deeper than {MAX_DEPTH} levels",
                    "give parts names of their own",
                )  # fmt: skip

    def _fail_offset(self, offset: int, message: str, hint: str = "") -> RuleTextError:
        before = re.split(r"\r\n|\r|\n", self.text[:offset])
        start = len(before[-1])
        return self.fail_at(len(before), start, message, hint, end=start + 1)

    def _syntax(self, error: SyntaxError) -> RuleTextError:
        line, start = max(1, error.lineno or 1), max(0, (error.offset or 1) - 1)
        message = error.msg
        if "integer string conversion" in message:
            message = "a number has too many digits"
        hint = "something is missing or misspelt here; a line reads `name = expression`"
        return self.fail_at(line, start, f"syntax: {message}", hint, end=start + 1)

    def _line(self, number: int) -> str:
        return self.lines[number - 1] if 0 < number <= len(self.lines) else ""

    def _characters(self, line: int, offset: int) -> int:
        """Characters before a byte offset, which is how `ast` counts columns."""
        return len(self._line(line).encode()[:offset].decode(errors="ignore"))


def _caret(shown: str, start: int, end: int) -> str:
    """Up to 100 characters of a line around its fault, and carets beneath."""
    shown = "".join(char if char.isprintable() else " " for char in shown)
    left = max(0, start - 60)
    marks = "^" * max(1, min(end, left + 100) - start)
    return f"    {shown[left : left + 100]}\n    {' ' * (start - left)}{marks}"
