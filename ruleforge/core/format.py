"""Writing rules as text: the inverse of `text.parse`, and names for rules that have none."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from ruleforge.core import expr as ex
from ruleforge.core.canon import Folded, fold
from ruleforge.core.expr import Expr
from ruleforge.core.ops import OPS, RESERVED
from ruleforge.core.rule import Kind, Rule
from ruleforge.core.text import Line, RuleText, parse

_LOOSEST, _SUM, _PRODUCT, _SIGN, _POWER, _ATOM = range(6)
_LEVEL = {"add": _SUM, "sub": _SUM, "mul": _PRODUCT, "div": _PRODUCT, "neg": _SIGN, "pow": _POWER}


def format_number(value: float) -> str:
    """The shortest text that reads back as the same float64."""
    if value == int(value) and abs(value) < 1e15 and str(value) != "-0.0":
        return str(int(value))
    return repr(value)


def format_expr(item: Expr, names: Mapping[Expr, str]) -> str:
    """A folded expression as rule text; nodes in `names` are written by name."""
    return _written(item, names)[0]


def _written(item: Expr, names: Mapping[Expr, str]) -> tuple[str, int]:
    if item in names:
        return names[item], _ATOM
    if item.op == "const":
        value = float(item.value or 0)
        return format_number(value), _SIGN if value < 0 or str(value) == "-0.0" else _ATOM
    if not item.args:
        return item.op, _ATOM
    if item.op == "mul" and item.args[0] is item.args[1] and item.args[0].args and item.args[0] not in names:
        return f"square({_written(item.args[0], names)[0]})", _ATOM
    parts = [_written(arg, names) for arg in item.args]
    row = OPS[item.op]
    if row.symbol and row.arity == 2:
        level = _LEVEL.get(item.op, _LOOSEST)
        left, right = parts
        strict_left = level in (_POWER, _LOOSEST)
        a = _bracket(left, level + strict_left)
        b = _bracket(right, _SIGN if level == _POWER else level + 1)
        return f"{a} {row.symbol} {b}", level
    if item.op == "neg":
        if item.args[0].op == "const":
            return f"neg({parts[0][0]})", _ATOM
        return f"-{_bracket(parts[0], _SIGN)}", _SIGN
    return f"{row.name}({', '.join(text for text, _ in parts)})", _ATOM


def _bracket(part: tuple[str, int], level: int) -> str:
    return part[0] if part[1] >= level else f"({part[0]})"


def format_rule(text: RuleText) -> str:
    """Rule text that parses back to the same `RuleText`."""
    rule = text.rule
    out = [_docstring(text.doc)] if text.doc else []
    names: dict[Expr, str] = {ex.hyper(i): name for i, name in enumerate(text.hypers)}
    for name, h in zip(text.hypers, rule.hypers, strict=True):
        scale = "" if h.scale == "linear" else f", {h.scale}"
        low, high, default = (format_number(v) for v in (h.low, h.high, h.default))
        out.append(f"{name}: hyper({low}, {high}{scale}) = {default}")
    for i, name in enumerate(text.states):
        out.append(f"{name}: state = {format_expr(rule.states[i].init, names)}")
    names |= {ex.state(i): name for i, name in enumerate(text.states)}
    aliases: dict[Expr, str] = {}
    folded = fold(rule, frozenset(range(len(text.states))))
    values = folded.see(*(line.value for line in text.lines))
    for line, value in zip(text.lines, values, strict=True):
        out.append(f"{line.target} = {format_expr(value, names)}")
        if line.target in text.states:
            old = ex.state(text.states.index(line.target))
            names.pop(old, None)
            if old in aliases:
                names[old] = aliases[old]
        if value.args:
            names.setdefault(value, line.target)
        elif value.op == "state":
            aliases.setdefault(value, line.target)
            names.setdefault(value, line.target)
    return "\n".join(out) + "\n"


def _docstring(doc: str) -> str:
    plain = doc.isprintable() or all(char.isprintable() or char == "\n" for char in doc)
    if plain and '"""' not in doc and "\\" not in doc and not doc.endswith('"'):
        return f'"""{doc}"""'
    return repr(doc)


# naming


def name_rule(
    rule: Rule,
    *,
    doc: str = "",
    hypers: Sequence[str] = (),
    max_inline: int = 12,
) -> RuleText:
    """Text for a rule without names: canonical, sugar folded, states and shared parts named.

    Args:
        rule: any rule; dead code is dropped.
        doc: docstring.
        hypers: names to use, in the canonical rule's order; invented when empty.
        max_inline: shared terms of more nodes than this get a line of their own, as do shared
            terms used three times or more.
    """
    rule = rule.canonical
    folded = fold(rule)
    explicit = [i for i in range(len(rule.states)) if i not in folded.hidden]
    order = [*explicit, *sorted(folded.hidden)]
    rule = _with_states_first(rule, order)
    folded = fold(rule, frozenset(range(len(explicit))))
    taken = set(RESERVED)
    hyper_names = tuple(hypers) or _hyper_names(rule, folded, taken)
    taken |= set(hyper_names)
    state_names = tuple(_fresh(_state_name(rule, i), taken) for i in range(len(explicit)))
    lines = _Schedule(rule, folded, state_names, taken, max_inline).lines()
    draft = RuleText(rule, lines, hyper_names, state_names, doc)
    return parse(format_rule(draft))


def _with_states_first(rule: Rule, order: list[int]) -> Rule:
    from ruleforge.core.canon import _renumber

    return _renumber(rule, {old: new for new, old in enumerate(order)}, order)


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
        locals_ = {item: _fresh(stem, self.taken) for item, stem in self._shared(list(goals.values()))}
        goals |= {name: item for item, name in locals_.items()}
        held: dict[int, str] = {}
        while True:
            placed = self._place(goals, set(held))
            if placed is not None:
                break
            conflict = next(i for i in self.next_of if i not in held)
            held[conflict] = _fresh(f"{self.states[conflict]}_old", self.taken)
        back = self._unfold(list(goals.values()))
        first = [Line(name, ex.state(i)) for i, name in held.items()]
        return (*first, *(Line(name, back[goals[name]]) for name in placed))

    def _shared(self, roots: list[Expr]) -> list[tuple[Expr, str]]:
        """Terms that read better by name: used often, or long and used twice."""
        uses: Counter[Expr] = Counter(arg for item in ex.walk(roots) for arg in dict.fromkeys(item.args))
        size: dict[Expr, int] = {}
        found = []
        for item in ex.walk(roots):
            size[item] = 1 + sum(size[arg] for arg in item.args)
            count = uses[item] + roots.count(item)
            if (
                item.args
                and item not in roots
                and ((count >= 2 and size[item] > self.max_inline) or (count >= 3 and size[item] > 3))
            ):
                found.append((item, "a"))
                size[item] = 1
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
                states.add(int(item.value or 0))
            pending += item.args
        return states, used

    def _unfold(self, roots: list[Expr]) -> dict[Expr, Expr]:
        """From folded expressions back to expressions over all slots."""
        originals = ex.walk(self.rule.roots)
        seen = self.folded.see(*originals)
        back: dict[Expr, Expr] = {}
        for original, view in zip(originals, seen, strict=True):
            back.setdefault(view, original)
        return {root: back[root] for root in roots}
