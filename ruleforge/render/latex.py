r"""Rules as LaTeX: one equation a line of the rule text, sugar folded, every value with its time.

`m_{t-1}` is a state before the step and `m_t` after it, so the equations hold in any order. Words
come from the op table; this module knows how tightly they hold together and what time it is.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from ruleforge.core import expr as ex
from ruleforge.core.canon import fold, live_states
from ruleforge.core.expr import Expr
from ruleforge.core.laws import ZERO
from ruleforge.core.ops import CORE, OPS, SUGAR
from ruleforge.core.rule import Rule
from ruleforge.core.spell import format_number, tidy
from ruleforge.core.text import RuleText
from ruleforge.render.base import ATOM, LOOSEST, POWER, PRODUCT, SUM, Spelling, Writer, missing_ops
from ruleforge.render.symbols import latex_name

_LEVELS: dict[str, tuple[int, tuple[int, ...]]] = {
    "add": (SUM, (SUM, SUM)),
    "sub": (SUM, (SUM, PRODUCT)),
    "mul": (PRODUCT, (PRODUCT, PRODUCT)),
    "div": (PRODUCT, (LOOSEST, LOOSEST)),
    "pow": (POWER, (ATOM, LOOSEST)),
    "neg": (SUM, (PRODUCT,)),
    "hypot": (ATOM, (ATOM, ATOM)),
    "total": (PRODUCT, (PRODUCT,)),
    "running_max": (PRODUCT, (PRODUCT,)),
}
LATEX: dict[str, Spelling] = {
    name: Spelling(OPS[name].latex, *_LEVELS.get(name, (ATOM, ()))) for name in (*CORE, *SUGAR)
} | {
    "ema_hat": Spelling(r"\widehat{{\operatorname{{EMA}}}}_{{{1}}}\left({0}\right)"),
    "where": Spelling(
        r"\begin{{cases}} {1} & \text{{if }} {0} \\ {2} & \text{{otherwise}} \end{{cases}}", ATOM
    ),
    "total": Spelling(r"\sum_{{\tau \le {1}}} {0}", PRODUCT, (PRODUCT,)),
    "running_max": Spelling(r"\max_{{\tau \le {1}}} {0}", PRODUCT, (PRODUCT,)),
    "prev": Spelling("{0}"),
}
_LERP = Spelling(r"{2} \cdot {1} + \left(1 - {2}\right) \cdot {0}", SUM, (PRODUCT, PRODUCT, PRODUCT))
_SQUARE = Spelling("{{{0}}}^{{2}}", POWER, (ATOM,))
if missing_ops(LATEX, (*SUGAR, "ema_hat")):
    raise ImportError(f"LaTeX and the op table disagree: {missing_ops(LATEX, (*SUGAR, 'ema_hat'))}")

_EMA, _HAT, _TRACE = (
    rf"{name}_{{\beta}}"
    for name in (r"\operatorname{EMA}", r"\widehat{\operatorname{EMA}}", r"\operatorname{trace}")
)
_NEW, _OLD = r"\left(x_{t}\right)", r"\left(x_{t-1}\right)"
DEFINITIONS: dict[str, str] = {
    "ema": rf"{_EMA}{_NEW} = \beta \cdot {_EMA}{_OLD} + \left(1 - \beta\right) \cdot x_{{t}}",
    "ema_hat": rf"{_HAT}{_NEW} = {_EMA}{_NEW} / \left(1 - {{\beta}}^{{t}}\right)",
    "trace": rf"{_TRACE}{_NEW} = \beta \cdot {_TRACE}{_OLD} + x_{{t}}",
}
"""What the folded terms mean; all start at 0."""


@dataclass(frozen=True)
class Timed:
    """A name, and how many steps before the present its value is from; None for constants."""

    name: str
    back: int | None = 0


class LatexWriter(Writer):
    """LaTeX expressions.

    Args:
        timed: nodes that are written by name.
    """

    def __init__(self, timed: Mapping[Expr, Timed]) -> None:
        super().__init__({})
        self.timed = dict(timed)
        self._now, self._back = "t", 0

    def bracket(self, text: str) -> str:
        return rf"\left({text}\right)"

    def when(self, back: int = 0) -> str:
        back += self._back
        return f"{self._now}-{back}" if back else self._now

    def leaf(self, item: Expr) -> tuple[str, int]:
        if item.op == "const":
            return latex_number(float(item.value or 0))
        words = {
            "g": f"g_{{{self.when()}}}",
            "w": f"w_{{{self.when(1)}}}",
            "t": self.when(),
            "first": rf"\left[{self.when()} = 1\right]",
            "lr": rf"\eta_{{{self.when()}}}",
            "lr0": r"\eta_{0}",
            "progress": rf"\tfrac{{{self.when()}}}{{T}}",
            "is_matrix": r"\left[\text{matrix}\right]",
        }
        text = words[item.op]
        return text, SUM if item.op == "t" and "-" in text else ATOM

    def spelling(self, item: Expr) -> Spelling:
        if item.op == "mul" and item.args[0] is item.args[1]:
            return _SQUARE
        if item.op == "lerp" and (item.args[2].is_leaf or item.args[2] in self.timed):
            return _LERP
        return LATEX[item.op]

    def held(self, item: Expr) -> tuple[str, int]:
        if item in self.timed:
            name = self.timed[item]
            return latex_name(name.name, "" if name.back is None else self.when(name.back)), ATOM
        return self._spelled(item)

    def _spelled(self, item: Expr) -> tuple[str, int]:
        if item.op == "prev":
            with self._at(self._now, self._back + 1):
                return self.held(item.args[0])
        if item.op in ("total", "running_max"):
            spelling, until = LATEX[item.op], self.when()
            with self._at(r"\tau", 0):
                text, level = self.held(item.args[0])
            text = text if level >= PRODUCT else self.bracket(text)
            return spelling.template.format(text, until), spelling.level
        return super()._spelled(item)

    @contextmanager
    def _at(self, now: str, back: int) -> Iterator[None]:
        before = self._now, self._back
        self._now, self._back = now, back
        try:
            yield
        finally:
            self._now, self._back = before


def latex_number(value: float) -> tuple[str, int]:
    """A number as LaTeX, and how tightly it holds together."""
    text = format_number(tidy(value))
    mantissa, _, exponent = text.partition("e")
    if exponent:
        power = f"10^{{{int(exponent)}}}"
        text = power if mantissa == "1" else rf"{mantissa} \cdot {power}"
        return text, SUM if value < 0 else PRODUCT
    return text, SUM if text.startswith("-") else ATOM


def equations(text: RuleText) -> list[str]:
    r"""The rule's live lines as equations; the update is `u_{t}`.

    Example:
        >>> equations(RuleText.parse("beta1: hyper(0, 1) = 0.9\nupdate = ema(g, beta1)"))
        ['u_{t} = \\operatorname{EMA}_{\\beta_{1}}\\left(g_{t}\\right)']
    """
    rule = text.rule
    live = live_states(rule)
    timed: dict[Expr, Timed] = {ex.hyper(i): Timed(name, None) for i, name in enumerate(text.hypers)}
    timed |= {ex.state(i): Timed(name, 1) for i, name in enumerate(text.states)}
    reached = set(ex.walk([rule.update, *(rule.states[i].next for i in live)]))
    folded = fold(rule, frozenset(range(len(text.states))))
    alive = [
        line
        for line in text.lines
        if line.target == "update"
        or (text.states.index(line.target) in live if line.target in text.states else line.value in reached)
    ]
    defined: list[tuple[Timed, Expr]] = []
    for line, value in zip(alive, folded.see(*(line.value for line in alive)), strict=True):
        is_state = line.target in text.states
        if value.is_leaf and not is_state and line.target != "update":
            continue
        name = Timed("u" if line.target == "update" else line.target)
        defined.append((name, value))
    lines = []
    for name, value in defined:
        shown = LatexWriter(timed).write(value)
        lines.append(f"{latex_name(name.name, 't')} = {shown}")
        if value.args:
            timed.setdefault(value, name)
    for i, name_of in enumerate(text.states):
        if i in live and rule.states[i].init is not ZERO:
            lines.append(f"{latex_name(name_of, '0')} = {LatexWriter(timed).write(rule.states[i].init)}")
    return lines


def definitions(text: RuleText) -> list[str]:
    """Definitions of the averages that the equations use."""
    used = {item.op for item in ex.walk(_shown(text.rule, len(text.states)))}
    wanted = used | ({"ema"} if "ema_hat" in used else set())
    return [line for op, line in DEFINITIONS.items() if op in wanted]


def _shown(rule: Rule, n_explicit: int) -> tuple[Expr, ...]:
    folded = fold(rule, frozenset(range(n_explicit)))
    live = live_states(rule)
    return folded.see(rule.update, *(rule.states[i].next for i in live if i < n_explicit))


def latex(text: RuleText) -> str:
    """The rule as one numbered `align` environment."""
    lines = [line.replace(" = ", " &= ", 1) for line in equations(text)]
    return "\\begin{align}\n" + " \\\\\n".join(f"  {line}" for line in lines) + "\n\\end{align}"
