"""Rules as formulas for terminals: `m ← β₁·m + (1 − β₁)·g`.

Statements run in order and `←` overwrites, as in the papers' pseudo-code. Averages and other sugar
are spelled out, one line a state. A computed constant is shown as people write it, 0.189 for 1 − 0.811.
"""

from __future__ import annotations

from ruleforge.core.expr import Expr
from ruleforge.core.spell import format_number, tidy
from ruleforge.core.text import RuleText
from ruleforge.render.base import ATOM, LOOSEST, POWER, PRODUCT, QUOTIENT, SUM, Spelling, Writer, missing_ops
from ruleforge.render.script import Plan, Script, make_script
from ruleforge.render.symbols import superscript, unicode_name


def _call(name: str, arity: int = 1) -> Spelling:
    return Spelling(f"{name}({', '.join(f'{{{n}}}' for n in range(arity))})")


UNICODE: dict[str, Spelling] = {
    "add": Spelling("{0} + {1}", SUM, (SUM, SUM)),
    "sub": Spelling("{0} − {1}", SUM, (SUM, QUOTIENT)),
    "mul": Spelling("{0}·{1}", PRODUCT, (PRODUCT, PRODUCT)),
    "div": Spelling("{0} / {1}", QUOTIENT, (PRODUCT, POWER)),
    "pow": Spelling("{0}^{1}", POWER, (ATOM, ATOM)),
    "neg": Spelling("−{0}", SUM, (PRODUCT,)),
    "lerp": Spelling("{2}·{1} + (1 − {2})·{0}", SUM, (PRODUCT, PRODUCT, PRODUCT)),
    "abs": Spelling("|{0}|"),
    "sqrt": Spelling("√{0}", POWER, (ATOM,)),
    "cbrt": Spelling("∛{0}", POWER, (ATOM,)),
    "floor": Spelling("⌊{0}⌋"),
    "norm": Spelling("‖{0}‖"),
    "max_abs": Spelling("‖{0}‖∞"),
    "dot": Spelling("⟨{0}, {1}⟩"),
    **{op: _call(op) for op in "sign exp log log1p expm1 sin cos tan sinh cosh tanh".split()},
    **{op: _call(op) for op in ("mean", "rms", "orthogonalize")},
    **{op: _call(f"arc{op[1:]}") for op in ("asin", "acos", "atan")},
    "atan2": _call("atan2", 2),
    "hypot": _call("hypot", 2),
    "minimum": _call("min", 2),
    "maximum": _call("max", 2),
    "clip": _call("clip", 3),
    "where": Spelling("{1} if {0} else {2}", LOOSEST, (SUM, SUM, SUM)),
    **{
        op: Spelling(f"[{{0}} {sign} {{1}}]", ATOM, (SUM, SUM))
        for op, sign in {"lt": "<", "le": "≤", "gt": ">", "ge": "≥", "eq": "=", "ne": "≠"}.items()
    },
}  # fmt: skip
if missing_ops(UNICODE):
    raise ImportError(f"the Unicode words and the op table disagree: {missing_ops(UNICODE)}")

_LEAVES = {"first": "[t = 1]"}


class UnicodeWriter(Writer):
    """Formulas in plain text."""

    def __init__(self, script: Script) -> None:
        super().__init__({item: unicode_name(name) for item, name in script.names.items()})

    def leaf(self, item: Expr) -> tuple[str, int]:
        if item.op == "const":
            number = format_number(tidy(item.number)).replace("-", "−")
            return number, SUM if number.startswith("−") else ATOM
        return _LEAVES.get(item.op, item.op), ATOM

    def spelling(self, item: Expr) -> Spelling:
        if item.op == "mul" and item.args[0] is item.args[1]:
            return Spelling("{0}²", POWER, (ATOM,))
        return UNICODE[item.op]

    def fill(self, item: Expr, spelling: Spelling, args: list[str]) -> str:
        if item.op == "pow" and superscript(args[1]):
            return args[0] + superscript(args[1])
        return super().fill(item, spelling, args)


def formula(text: RuleText, *, width: int = 76, with_weights: bool = True) -> list[str]:
    """The rule as lines to read, in the order in which they are computed.

    Args:
        text: a rule with its names.
        width: longest right-hand side; longer ones are divided.
        with_weights: whether to end with how the weights move.

    Example:
        >>> formula(RuleText.parse("beta: hyper(0, 1) = 0.9\\nupdate = ema(g, beta)"))
        ['m ← β·m + (1 − β)·g', 'w ← w − lr·m']
    """
    reserved = frozenset({"g", "w", "t", "lr", "lr0", "progress", "is_matrix"})
    plan = Plan("maths", reserved, width, UnicodeWriter, update="u")
    script = make_script(text, plan)
    writer = UnicodeWriter(script)
    lines = []
    for statement in script.statements:
        value = unicode_name(statement.source) if statement.source else writer.value(statement.value)
        lines.append(f"{unicode_name(statement.name)} ← {value}")
    first = [f"{unicode_name(s.name)}₀ = {writer.write(s.init)}" for s in script.slots if s.init.value != 0.0]
    if with_weights:
        update, level = (script.kept, ATOM) if script.kept else writer.held(script.update)
        lines.append(f"w ← w − lr·{update if level >= PRODUCT else writer.bracket(update)}")
    return [*lines, *([f"start: {', '.join(first)}"] if first else [])]
