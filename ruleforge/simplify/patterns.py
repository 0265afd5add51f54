"""The language that laws are written in: a pattern, a result, and what letters stand for.

Patterns are rule text over letters, read with `ast` and never executed. A letter stands for a term, the
same letter for the same term; its first character says which terms:

| letter  | stands for                                                             |
|---------|------------------------------------------------------------------------|
| x y z   | any term                                                               |
| b       | any term; by habit the weight of an average                            |
| c d     | a constant other than 0                                                |
| k       | a positive number that no step changes: constants and hyperparameters  |
| q       | a term that no step and no gradient changes                            |
| j       | a negative constant                                                    |
| e       | a positive constant other than 1                                       |
| p       | a term that is known to be positive                                    |
| n       | a term that is known not to be negative                                |
| r       | a number between 0 and 1, such as the weight of an average             |
| u       | a mask: a comparison, or a product of masks                            |
| s       | in laws about states: the state's own old value                        |
| f       | in a family: the name of an op                                         |

Numbers match themselves. Arguments of commutative ops match in either order. Derived ops such as `graft`
are spelled out, as they are in the terms that laws meet.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from functools import cache

from ruleforge.core import expr as ex
from ruleforge.core.build import BINARY, COMPARE
from ruleforge.core.derived import RECOGNISED
from ruleforge.core.expr import Expr
from ruleforge.core.ops import COMMUTATIVE, OPS
from ruleforge.errors import RuleError
from ruleforge.simplify.facts import RATE, Facts
from ruleforge.simplify.view import make

Bindings = dict[str, Expr]
# ("letter", name), ("number", value), or (op, *patterns)
Pattern = tuple[object, ...]

_COMPARISONS = frozenset(COMPARE.values())


@cache
def read(text: str) -> Pattern:
    """The pattern that a text spells."""
    return _read(ast.parse(text, mode="eval").body)


def _read(tree: ast.expr) -> Pattern:
    match tree:
        case ast.Name(id=name):
            return ("leaf", name) if name in ("t", "first", "g", "w") else ("letter", name)
        case ast.Constant(value=value):
            return ("number", float(value))  # type: ignore[arg-type]
        case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=value)):
            return ("number", -float(value))  # type: ignore[arg-type]
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return ("neg", _read(operand))
        case ast.BinOp(left=left, op=op, right=right):
            return (BINARY[type(op)], _read(left), _read(right))
        case ast.Compare(left=left, ops=[op], comparators=[right]):
            return (COMPARE[type(op)], _read(left), _read(right))
        case ast.Call(func=ast.Name(id=name), args=args) if name in OPS and len(args) == OPS[name].arity:
            parts = [_read(arg) for arg in args]
            if name in RECOGNISED:
                letters = dict(zip(OPS[name].param_names, parts, strict=True))
                return _filled(read(OPS[name].expansion), letters)
            return (name, *parts)
    raise RuleError(f"a law cannot be read: {ast.unparse(tree)}")


def _filled(pattern: Pattern, letters: Mapping[str, Pattern]) -> Pattern:
    """A pattern with patterns for its letters."""
    if pattern[0] == "letter":
        return letters[str(pattern[1])]
    if pattern[0] in ("number", "leaf"):
        return pattern
    return (pattern[0], *(_filled(part, letters) for part in pattern[1:]))  # type: ignore[arg-type]


def match(
    pattern: Pattern, item: Expr, facts: Facts, bound: Mapping[str, Expr] | None = None
) -> Iterator[Bindings]:
    """Ways to read a term as the pattern.

    Args:
        pattern: from `read`.
        item: a folded term.
        facts: ranges of the terms of the rule.
        bound: letters whose meaning is given.
    """
    bound = bound or {}
    head = pattern[0]
    if head == "letter":
        name = str(pattern[1])
        if name in bound:
            if bound[name] is item:
                yield dict(bound)
        elif _may_be(name, item, facts):
            yield {**bound, name: item}
    elif head == "number":
        if item.op == "const" and item.value == pattern[1]:
            yield dict(bound)
    elif head == "leaf":
        if item.op == pattern[1]:
            yield dict(bound)
    elif item.op == head and item.args:
        yield from _match_args(pattern[1:], item.args, facts, bound)
        if head in COMMUTATIVE and item.args[0] is not item.args[1] and pattern[1] != pattern[2]:
            yield from _match_args(pattern[1:], item.args[::-1], facts, bound)


def _match_args(
    patterns: tuple[object, ...], args: tuple[Expr, ...], facts: Facts, bound: Mapping[str, Expr]
) -> Iterator[Bindings]:
    if not patterns:
        yield dict(bound)
        return
    first: Pattern = patterns[0]  # type: ignore[assignment]
    for found in match(first, args[0], facts, bound):
        yield from _match_args(patterns[1:], args[1:], facts, found)


def _may_be(name: str, item: Expr, facts: Facts) -> bool:
    match name[0]:
        case "c" | "d":
            return item.op == "const" and item.number != 0
        case "e":
            return item.op == "const" and item.number > 0 and item.number != 1
        case "j":
            return item.op == "const" and item.number < 0
        case "k":
            return item is not ex.const(1.0) and is_fixed(item) and facts(item).positive
        case "q":
            return is_fixed(item)
        case "p":
            return facts(item).positive
        case "n":
            return facts(item).not_negative
        case "r":
            return facts(item).within(RATE)
        case "u":
            return is_mask(item)
    return True


def is_fixed(item: Expr) -> bool:
    """Whether a term has one value for all steps, elements and gradients."""
    return all(
        node.op in ("const", "hyper") or (node.args and OPS[node.op].kind == "elementwise")
        for node in ex.walk([item])
    )


def is_mask(item: Expr) -> bool:
    """Whether a term is 0 or 1 wherever it is finite."""
    pending = [item]
    while pending:
        current = pending.pop()
        if current.op == "mul":
            pending += current.args
        elif current.op not in _COMPARISONS and current.op != "first":
            return False
    return True


def put(pattern: Pattern, bound: Mapping[str, Expr]) -> Expr:
    """The term that a pattern spells under a binding; exact laws applied."""
    head = pattern[0]
    if head == "letter":
        return bound[str(pattern[1])]
    if head == "number":
        return ex.const(float(pattern[1]))  # type: ignore[arg-type]
    if head == "leaf":
        return ex.leaf(str(pattern[1]))
    return make(str(head), *(put(part, bound) for part in pattern[1:]))  # type: ignore[arg-type]
