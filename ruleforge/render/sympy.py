"""Rules as sympy expressions, for algebra. sympy is imported when it is asked for.

Building a sympy expression already simplifies it, under laws that hold for real numbers and not
for floats, so what comes from here is for people and for proposals that are verified afterwards.
Numbers are exact: 0.1 becomes 1/10, and `float` of it gives 0.1 back.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ruleforge.core import expr as ex
from ruleforge.core.canon import live_states
from ruleforge.core.expr import Expr
from ruleforge.core.format import format_number, name_rule
from ruleforge.core.ops import OPS, TERMINALS
from ruleforge.core.rule import Rule
from ruleforge.core.text import RuleText
from ruleforge.render.base import missing_ops
from ruleforge.render.names import Names, state_names


@dataclass(frozen=True)
class SympyForm:
    """A rule in sympy.

    Attributes:
        update: the update.
        states: next value of each live state, by name.
        inits: first value of each live state, by name.
        symbols: every symbol by name: terminals, hypers, and old values of states.
    """

    update: Any
    states: Mapping[str, Any]
    inits: Mapping[str, Any]
    symbols: Mapping[str, Any]


def to_sympy(rule: Rule | RuleText) -> SympyForm:
    """The update and the recurrences over named symbols; slots behind sugar are spelled out.

    States have the names of the text, or those of formulas: m an average of the gradient, v of its square.
    Symbols are real, hypers that lie above 0 and `t` positive. A comparison is 1 or 0 as a
    `Piecewise`; reductions are undefined functions `norm(x)`, `mean(x)`, … of what they reduce.
    """
    import sympy as sp

    text = rule if isinstance(rule, RuleText) else name_rule(rule)
    graph = text.rule
    live = sorted(live_states(graph))
    names = state_names(text, live, Names(frozenset({*text.hypers, *TERMINALS})), "maths")
    leaves: dict[Expr, Any] = {}
    for i, (name, hyper) in enumerate(zip(text.hypers, graph.hypers, strict=True)):
        leaves[ex.hyper(i)] = sp.Symbol(name, positive=True) if hyper.low >= 0 else sp.Symbol(name, real=True)
    for i in live:
        leaves[ex.state(i)] = sp.Symbol(names[i], real=True)
    for name in TERMINALS:
        positive = name in ("t", "lr", "lr0", "progress")
        leaves[ex.leaf(name)] = sp.Symbol(name, positive=True) if positive else sp.Symbol(name, real=True)
    built = _build(
        [graph.update, *(p for i in live for p in (graph.states[i].next, graph.states[i].init))], leaves
    )
    used = {item for item in built if item in leaves}
    return SympyForm(
        update=built[graph.update],
        states={names[i]: built[graph.states[i].next] for i in live},
        inits={names[i]: built[graph.states[i].init] for i in live},
        symbols={leaves[item].name: leaves[item] for item in leaves if item in used},
    )


def source_of(values: Sequence[Any], renamed: Mapping[str, str]) -> tuple[list[str], list[str], list[str]]:
    """Python that builds sympy expressions, exactly: numbers stay fractions.

    Args:
        values: expressions of a `SympyForm`.
        renamed: symbol name → variable that holds the symbol.

    Returns:
        An expression of Python for each value; the names of sympy's that they use; and those of undefined
        functions.
    """
    import sympy as sp
    from sympy.core.function import AppliedUndef

    variables = {
        symbol: sp.Symbol(renamed[symbol.name], **symbol.assumptions0)
        for value in values
        for symbol in value.free_symbols
    }
    sources = [sp.sstr(value.xreplace(variables), sympy_integers=True) for value in values]
    taken = set(renamed.values())
    words = {
        node.id for source in sources for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Name)
    }
    undefined = {call.func.__name__ for value in values for call in value.atoms(AppliedUndef)}
    return sources, sorted(words - taken - undefined), sorted(undefined)


def _exact_printer() -> Any:
    from sympy.printing.str import StrPrinter

    class Exact(StrPrinter):
        """Python's own division of integers would round a fraction."""

        def _print_Rational(self, value: Any) -> str:
            return str(value.p) if value.q == 1 else f"S({value.p})/{value.q}"

    return Exact()


def is_large(rule: Rule, limit: int) -> bool:
    """Whether the rule, with every shared part spelled out where it stands, has more nodes than `limit`."""
    sizes: dict[Expr, int] = {}
    for item in ex.walk(rule.roots):
        sizes[item] = min(1 + sum(sizes[arg] for arg in item.args), limit + 1)
    return sum(sizes[root] for root in rule.roots) > limit


def _build(roots: list[Expr], leaves: Mapping[Expr, Any]) -> dict[Expr, Any]:
    import sympy as sp

    words = _words(sp)
    built: dict[Expr, Any] = {}
    for item in ex.walk(roots):
        if item.op == "const":
            built[item] = sp.Rational(format_number(float(item.value or 0)))
        elif not item.args:
            built[item] = leaves[item]
        else:
            built[item] = words[item.op](*(built[arg] for arg in item.args))
    return built


def _words(sp: Any) -> dict[str, Callable[..., Any]]:
    """How sympy does each core op: by the table's name where it has one, spelled out otherwise."""

    def mask(relation: Any) -> Callable[..., Any]:
        return lambda a, b: sp.Piecewise((1, relation(a, b)), (0, True))

    words: dict[str, Callable[..., Any]] = {
        "add": lambda a, b: a + b,
        "sub": lambda a, b: a - b,
        "mul": lambda a, b: a * b,
        "div": lambda a, b: a / b,
        "pow": lambda a, b: a**b,
        "neg": lambda x: -x,
        "cbrt": lambda x: sp.sign(x) * sp.cbrt(sp.Abs(x)),
        "log1p": lambda x: sp.log(1 + x),
        "expm1": lambda x: sp.exp(x) - 1,
        "hypot": lambda a, b: sp.sqrt(a**2 + b**2),
        "clip": lambda x, lo, hi: sp.Min(sp.Max(x, lo), hi),
        "lerp": lambda a, b, x: a + x * (b - a),
        "where": lambda c, a, b: sp.Piecewise((b, sp.Eq(c, 0)), (a, True)),
    }
    for row in OPS.values():
        if row.name in words or row.meaning is None:
            continue
        if row.kind != "elementwise":
            words[row.name] = sp.Function(row.name)
        elif row.symbol:
            words[row.name] = mask(getattr(sp, row.sympy))
        else:
            words[row.name] = getattr(sp, row.sympy)
    if missing_ops(words):
        raise ImportError(f"sympy's words and the op table disagree: {missing_ops(words)}")
    return words
