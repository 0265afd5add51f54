"""Writing rules as text: the inverse of `text.parse`, and names for rules that have none."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence

from ruleforge.core import expr as ex
from ruleforge.core.canon import Folded, fold, renumber
from ruleforge.core.expr import Expr
from ruleforge.core.ops import RESERVED
from ruleforge.core.rule import Kind, Rule
from ruleforge.core.spell import Speller, format_expr, format_number
from ruleforge.core.text import Line, RuleText, parse

__all__ = ["format_expr", "format_number", "format_rule", "name_rule", "name_text"]

MAX_INLINE = 12
"""Shared terms of more nodes than this get a line of their own."""
LINE_HEIGHT = 12
"""Terms that nest deeper than this get a line of their own."""
LINE_NODES = 40
"""Terms with more nodes than this, written out, get a line of their own."""


def format_rule(text: RuleText) -> str:
    """Rule text that parses back to the same `RuleText`.

    Raises:
        RuleError: an expression is too long or too deep when written out.
    """
    return _written(text, fold(text.rule, frozenset(range(len(text.states))), exact=True, derived=True))


def _written(text: RuleText, folded: Folded) -> str:
    rule = text.rule
    out = [_docstring(text.doc)] if text.doc else []
    speller = Speller(folded)
    for i, (name, h) in enumerate(zip(text.hypers, rule.hypers, strict=True)):
        scale = "" if h.scale == "linear" else f", {h.scale}"
        low, high, default = (format_number(v) for v in (h.low, h.high, h.default))
        out.append(f"{name}: hyper({low}, {high}{scale}) = {default}")
        speller.call(ex.hyper(i), name)
    out += [f"{name}: state = {speller.spell(rule.states[i].init)}" for i, name in enumerate(text.states)]
    for i, name in enumerate(text.states):
        speller.call(ex.state(i), name, is_state=True)
    for line in text.lines:
        out.append(f"{line.target} = {speller.spell(line.value)}")
        is_state = line.target in text.states
        if is_state:
            speller.forget(ex.state(text.states.index(line.target)), line.target)
        if line.value.args or line.value.op == "state":
            speller.call(line.value, line.target, is_state=is_state)
    return "\n".join(out) + "\n"


_ESCAPES = {"\\": "\\\\", "\r": "\\r", "\0": "\\x00"}
_QUOTES_THAT_END_IT = re.compile(r'"{3,}|"+\Z')


def _docstring(doc: str) -> str:
    """A docstring as a literal: as it is, but for what would not survive."""
    body = "".join(
        f"\\u{ord(char):04x}" if "\ud800" <= char <= "\udfff" else _ESCAPES.get(char, char) for char in doc
    )
    body = _QUOTES_THAT_END_IT.sub(lambda quotes: '\\"' * len(quotes[0]), body)
    return f'"""{body}"""'


# naming


def name_rule(
    rule: Rule,
    *,
    doc: str = "",
    hypers: Sequence[str] = (),
    max_inline: int = MAX_INLINE,
) -> RuleText:
    """Text for a rule without names: canonical, sugar folded, states and shared parts named.

    Args:
        rule: any rule; dead code is dropped.
        doc: docstring.
        hypers: names to use, in the canonical rule's order; invented when empty.
        max_inline: shared terms of more nodes than this get a line of their own, as do shared
            terms used three times or more.
    """
    return parse(_written(*_named(rule, doc, hypers, max_inline)))


def name_text(rule: Rule) -> str:
    """`str(name_rule(rule))`, without reading it back and writing it again."""
    return _written(*_named(rule, "", (), MAX_INLINE))


def _named(rule: Rule, doc: str, hypers: Sequence[str], max_inline: int) -> tuple[RuleText, Folded]:
    rule = rule.canonical
    folded = fold(rule)
    explicit = [i for i in range(len(rule.states)) if i not in folded.hidden]
    order = [*explicit, *sorted(folded.hidden)]
    rule = _with_states_first(rule, order)
    folded = fold(rule, frozenset(range(len(explicit))), derived=True)
    taken = set(RESERVED)
    hyper_names = tuple(hypers) or _hyper_names(rule, folded, taken)
    taken |= set(hyper_names)
    state_names = tuple(_fresh(_state_name(rule, i), taken) for i in range(len(explicit)))
    lines = _Schedule(rule, folded, state_names, taken, max_inline).lines()
    return RuleText(rule, lines, hyper_names, state_names, doc), folded


def _with_states_first(rule: Rule, order: list[int]) -> Rule:
    update, states = renumber(rule.update, rule.states, {old: new for new, old in enumerate(order)}, order)
    return Rule(update, states, rule.hypers)


def _fresh(name: str, taken: set[str]) -> str:
    chosen, number = name, 2
    while chosen in taken:
        chosen, number = f"{name}{number}", number + 1
    taken.add(chosen)
    return chosen


def _hyper_names(rule: Rule, folded: Folded, taken: set[str]) -> tuple[str, ...]:
    """beta for hypers that weigh averages, eps for tiny ones, c otherwise."""
    roots = [folded.update, *folded.states.values()]
    betas = {item.args[1] for item in ex.walk(roots) if item.op in ("ema", "ema_hat", "trace")}
    betas |= {item.args[2] for item in ex.walk(roots) if item.op == "lerp"}
    stems = [
        "beta" if ex.hyper(i) in betas else "eps" if h.default < 1e-3 else "c"
        for i, h in enumerate(rule.hypers)
    ]
    many = Counter(stems)
    names, counts = [], Counter[str]()
    for stem in stems:
        counts[stem] += 1
        names.append(_fresh(stem if many[stem] == 1 else f"{stem}{counts[stem]}", taken))
    return tuple(names)


def _state_name(rule: Rule, index: int) -> str:
    """m for what has the gradient's sign, v for what does not, s for numbers."""
    if rule.state_kinds[index] is not Kind.TENSOR:
        return "s"
    even = {"abs", "norm", "rms"}
    body = ex.walk([rule.states[index].next])
    squares = any(i.op in even or (i.op == "mul" and i.args[0] is i.args[1]) for i in body)
    return "v" if squares else "m"


class _Schedule:
    """Orders lines so that each read of a state sees the value it means."""

    def __init__(
        self, rule: Rule, folded: Folded, states: tuple[str, ...], taken: set[str], max_inline: int
    ) -> None:
        self.rule, self.folded, self.states, self.taken = rule, folded, states, taken
        self.max_inline = max_inline
        self.next_of = folded.states

    def lines(self) -> tuple[Line, ...]:
        update = self.folded.update
        goals: dict[str, Expr] = {"update": update, **{self.states[i]: v for i, v in self.next_of.items()}}
        back = self._unfolded()
        shared = [item for item in self._shared(list(goals.values())) if item in back]
        goals |= {_fresh("a", self.taken): item for item in shared}
        held = {i: self._old_name(i) for i in self._under_prev(list(goals.values()))}
        while (placed := self._place(goals, set(held))) is None:
            conflict = next(i for i in self.next_of if i not in held)
            held[conflict] = self._old_name(conflict)
        first = [Line(name, ex.state(i)) for i, name in held.items()]
        return (*first, *(Line(name, back[goals[name]]) for name in placed))

    def _old_name(self, state: int) -> str:
        return _fresh(f"{self.states[state]}_old", self.taken)

    def _under_prev(self, roots: list[Expr]) -> list[int]:
        """Explicit states whose old value is the argument of `prev`, which takes locals alone."""
        found = (item.args[0] for item in ex.walk(roots) if item.op == "prev")
        return sorted({item.index for item in found if item.op == "state"})

    def _shared(self, roots: list[Expr]) -> list[Expr]:
        """Terms that read better by name: used often, long and used twice, or too long for a line."""
        uses: Counter[Expr] = Counter(arg for item in ex.walk(roots) for arg in dict.fromkeys(item.args))
        size: dict[Expr, int] = {}
        height: dict[Expr, int] = {}
        found = []
        for item in ex.walk(roots):
            size[item] = 1 + sum(size[arg] for arg in item.args)
            height[item] = 1 + max((height[arg] for arg in item.args), default=0)
            count = uses[item] + roots.count(item)
            often = (count >= 2 and size[item] > self.max_inline) or (count >= 3 and size[item] > 3)
            too_long = size[item] > LINE_NODES or height[item] >= LINE_HEIGHT
            if item.args and item not in roots and (often or too_long):
                found.append(item)
                size[item] = height[item] = 1
        return found

    def _place(self, goals: dict[str, Expr], held: set[int]) -> list[str] | None:
        """Names in an order that keeps every read right, or None if there is no such order."""
        by_value: dict[Expr, str] = {}
        for name, value in goals.items():
            if value.args:
                by_value.setdefault(value, name)
        before: dict[str, set[str]] = {name: set() for name in goals}
        for name, value in goals.items():
            reads, used = self._reads(value, name, by_value)
            before[name] |= used
            for i in reads - held:
                if self.states[i] != name:
                    before[self.states[i]].add(name)
        placed: list[str] = []
        while len(placed) < len(goals):
            ready = [n for n in goals if n not in placed and before[n] <= set(placed)]
            if not ready:
                return None
            placed.append(ready[0])
        return placed

    def _reads(self, value: Expr, name: str, by_value: Mapping[Expr, str]) -> tuple[set[int], set[str]]:
        """States read before their assignment, and names used, when `value` is written out."""
        states: set[int] = set()
        used: set[str] = set()
        pending = [value]
        seen: set[Expr] = set()
        while pending:
            item = pending.pop()
            if item in seen:
                continue
            seen.add(item)
            if item in by_value and by_value[item] != name:
                used.add(by_value[item])
                continue
            if item.op == "state":
                states.add(item.index)
            for arg in item.args:
                of_state = item.op == "prev" and by_value.get(arg) in self.states
                pending += arg.args if of_state else (arg,)  # prev takes no state's name
        return states, used

    def _unfolded(self) -> dict[Expr, Expr]:
        """From folded expressions back to expressions over all slots."""
        originals = ex.walk(self.rule.roots)
        back: dict[Expr, Expr] = {}
        for original, view in zip(originals, self.folded.see(*originals), strict=True):
            back.setdefault(view, original)
        return back
