"""Rule text: what a rule looks like to people, and how it travels.

`parse` and `format` are inverses: `parse(format(x)) == x` for every `RuleText`. How text is read
is the business of `parser`, how it is written that of `format`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from ruleforge.core.expr import Expr
from ruleforge.core.rule import MAX_BYTES, Rule
from ruleforge.errors import RuleTextError


@dataclass(frozen=True, slots=True)
class Line:
    """One assignment of the body: to a local, to a state (its next value), or to `update`."""

    target: str
    value: Expr


@dataclass(frozen=True)
class RuleText:
    """A rule with its names, its order of lines and its docstring.

    Attributes:
        rule: the graph, states and hypers numbered as declared; hidden slots follow.
        lines: the body in order.
        hypers: name of each hyperparameter.
        states: name of each explicit state; slots beyond are hidden behind sugar.
        doc: docstring.
        warnings: what a reader should know and no check refuses; not part of equality.
    """

    rule: Rule
    lines: tuple[Line, ...]
    hypers: tuple[str, ...] = ()
    states: tuple[str, ...] = ()
    doc: str = ""
    warnings: tuple[str, ...] = field(default=(), compare=False)

    @staticmethod
    def parse(text: str, *, file: str = "rule text") -> RuleText:
        return parse(text, file=file)

    def optimizer(self, params: Any, lr: float, **options: Any) -> Any:
        """A `torch.optim.Optimizer` that runs this rule; its hyperparameters go by their names here."""
        from importlib import import_module

        return import_module("ruleforge.optim").RuleOptimizer(params, self, lr=lr, **options)

    def to_sympy(self) -> Any:
        """The update and the recurrences in sympy, under the names used here."""
        from importlib import import_module

        return import_module("ruleforge.render.sympy").to_sympy(self)

    def __str__(self) -> str:
        from ruleforge.core.format import format_rule

        return format_rule(self)


def parse(text: str, *, file: str = "rule text") -> RuleText:
    """Read rule text.

    Args:
        text: at most 64 KiB of UTF-8.
        file: named in errors.

    Raises:
        RuleTextError: with line, column, caret and suggestion.
    """
    from ruleforge.core.parser import Parser

    return Parser(text, file).run()


def parse_ours(text: str) -> Rule:
    """The rule of a text that `format` wrote: `parse(text).rule` in half the time.

    Raises:
        RuleTextError: it cannot be read.
    """
    from ruleforge.core.parser import Parser

    return Parser(text, "rule text", ours=True).run().rule


def load(path: str) -> RuleText:
    """Read a `.rule` file.

    Raises:
        RuleTextError: the file cannot be opened, is too large, or cannot be read.
    """
    try:
        with open(path, "rb") as stream:
            raw = stream.read(MAX_BYTES + 4)  # a byte order mark is not counted
        if len(raw) == MAX_BYTES + 4:
            raise RuleTextError(
                f"more than {MAX_BYTES // 1024} KiB of text", file=str(path), hint="a rule is a few lines"
            )
        text = raw.decode("utf-8")
    except OSError as error:
        raise RuleTextError(f"cannot be opened: {error.strerror}", file=str(path)) from None
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise RuleTextError("is not UTF-8 text", file=str(path), line=line) from None
    except ValueError as error:
        raise RuleTextError(f"cannot be opened: {error}", file=repr(path)) from None
    return parse(text, file=str(path))
