"""The process in which sympy runs: one JSON request a line in, one reply a line out.

It is a process of its own because sympy may think for ever, and a process can be ended. It is started
by file, imports sympy and the standard library alone, and ends when its input does. Nothing is read
from text by sympy: terms come as nested lists and are built node by node, and go back the same way.

A term is `["x", number]`, `["c", decimal]`, or `[op, argument, …]`. A request is `{"term": …, "signs":
{number: "positive" | "nonnegative" | "real"}}`, a reply `{"terms": […], "failed": […]}`.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import sympy as sp

Term = list[Any]
MAX_SIMPLIFY = 40  # sympy.simplify tries everything, so it gets small terms alone


class NotScalar(Exception):
    """A result that our ops cannot spell, such as a piecewise function."""


def build(term: Term, symbols: dict[int, Any]) -> Any:
    """The sympy expression of a term."""
    op, *args = term
    if op == "x":
        return symbols[int(args[0])]
    if op == "c":
        return sp.Rational(*Decimal(args[0]).as_integer_ratio())
    a, *rest = (build(arg, symbols) for arg in args)
    b = rest[0] if rest else None
    match op:
        case "add":
            return a + b
        case "sub":
            return a - b
        case "mul":
            return a * b
        case "div":
            return a / b
        case "pow":
            return a**b
        case "neg":
            return -a
        case "lerp":
            return a + rest[1] * (b - a)
    return {"sqrt": sp.sqrt, "abs": sp.Abs, "exp": sp.exp, "log": sp.log}[op](a)


def spell(expression: Any, numbers: dict[Any, int]) -> Term:
    """The term of a sympy expression.

    Raises:
        NotScalar: it holds something that has no op, or a number that is not finite.
    """
    if expression.is_Symbol:
        return ["x", numbers[expression]]
    if not expression.free_symbols:
        value = complex(expression)
        if value.imag or value.real != value.real or abs(value.real) == float("inf"):
            raise NotScalar(str(expression))
        return ["c", repr(value.real)]
    if expression.is_Add:
        return _sum(expression, numbers)
    if expression.is_Mul:
        return _product(expression, numbers)
    if isinstance(expression, sp.exp):
        return ["exp", spell(expression.args[0], numbers)]
    if expression.is_Pow:
        return _power(expression.base, expression.exp, numbers)
    for known, op in ((sp.Abs, "abs"), (sp.log, "log"), (sp.sign, "sign")):
        if isinstance(expression, known):
            return [op, spell(expression.args[0], numbers)]
    raise NotScalar(type(expression).__name__)


def _sum(expression: Any, numbers: dict[Any, int]) -> Term:
    parts = sorted(expression.as_ordered_terms(), key=lambda part: part.could_extract_minus_sign())
    total = spell(parts[0], numbers)
    for part in parts[1:]:
        if part.could_extract_minus_sign():
            total = ["sub", total, spell(-part, numbers)]
        else:
            total = ["add", total, spell(part, numbers)]
    return total


def _product(expression: Any, numbers: dict[Any, int]) -> Term:
    factor, rest = expression.as_coeff_Mul()
    if factor < 0:
        return ["neg", spell(-expression, numbers)]
    above: Term | None = None if factor == 1 else ["c", repr(float(factor))]
    below: Term | None = None
    for part in rest.as_ordered_factors():
        base, exponent = part.as_base_exp()
        if exponent.is_number and exponent.is_negative and not isinstance(part, sp.exp):
            lower = spell(base ** (-exponent), numbers)
            below = lower if below is None else ["mul", below, lower]
        else:
            upper = spell(part, numbers)
            above = upper if above is None else ["mul", above, upper]
    top = above if above is not None else ["c", "1.0"]
    return top if below is None else ["div", top, below]


def _power(base: Any, exponent: Any, numbers: dict[Any, int]) -> Term:
    if exponent.is_number and exponent.is_negative:
        return ["div", ["c", "1.0"], spell(base ** (-exponent), numbers)]
    inner = spell(base, numbers)
    if exponent == sp.Rational(1, 2):
        return ["sqrt", inner]
    if exponent == 2:
        return ["mul", inner, inner]
    return ["pow", inner, spell(exponent, numbers)]


def variants(expression: Any) -> tuple[list[Any], list[str]]:
    """Other forms of an expression, and which of sympy's functions failed on it."""
    ways: list[tuple[str, Callable[[Any], Any]]] = [("itself", lambda e: e)]
    if expression.is_rational_function(*expression.free_symbols):
        ways += [("cancel", sp.cancel), ("factor", sp.factor)]  # slow on anything else
    ways += [
        ("together", sp.together),
        ("expand", sp.expand),
        ("factor_terms", sp.factor_terms),
        ("powsimp", sp.powsimp),
        ("radsimp", sp.radsimp),
        ("logcombine", sp.logcombine),
    ]
    if expression.count_ops() <= MAX_SIMPLIFY:
        ways.append(("simplify", sp.simplify))
    made: list[Any] = []
    failed: list[str] = []
    for name, way in ways:
        try:
            result = way(expression)
        except Exception as error:  # sympy raises whatever its own code meets; the caller is told
            failed.append(f"{name}: {type(error).__name__}")
            continue
        if result not in made:
            made.append(result)
    return made, failed


def answer(request: dict[str, Any]) -> dict[str, Any]:
    """The reply to one request."""
    symbols = {
        int(number): sp.Dummy(f"x{number}", **{"real": True, sign: True})
        for number, sign in request["signs"].items()
    }
    numbers = {symbol: number for number, symbol in symbols.items()}
    made, failed = variants(build(request["term"], symbols))
    terms = []
    for expression in made:
        try:
            terms.append(spell(expression, numbers))
        except (NotScalar, OverflowError, TypeError) as error:
            failed.append(f"result: {error}")
    return {"terms": terms, "failed": failed}


def main() -> None:
    """Answer until the input ends."""
    for line in sys.stdin:
        sys.stdout.write(json.dumps(answer(json.loads(line))) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
