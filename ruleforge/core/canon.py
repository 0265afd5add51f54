"""Which rules are one rule: the canonical graph, and the view with sugar folded.

Canonical means: exact laws applied, dead states dropped, states that always hold equal values
merged (coarsest stable partition), arguments of commutative ops in an order that depends on
content alone, states and hyperparameters numbered by first occurrence. Nothing here changes a
bit of any result.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ruleforge.core import expr as ex
from ruleforge.core.expr import Expr
from ruleforge.core.laws import ONE, ZERO, apply_laws, is_const
from ruleforge.core.ops import COMMUTATIVE
from ruleforge.core.rule import Kind, Rule, State


def canonicalize(rule: Rule) -> Rule:
    """The canonical representative; idempotent."""
    current = rule
    while True:
        better = _merge_states(_drop_dead(_lawful(current)))
        if better == current:
            return _numbered(better)
        current = better


def _mapped(rule: Rule, mapping: Mapping[Expr, Expr]) -> Rule:
    states = tuple(State(mapping[s.init], mapping[s.next]) for s in rule.states)
    return Rule(mapping[rule.update], states, rule.hypers)


def _lawful(rule: Rule) -> Rule:
    return _mapped(rule, ex.rebuild(rule.roots, lambda item, args: apply_laws(ex.with_args(item, args))))


def live_states(rule: Rule) -> list[int]:
    """States that the update depends on, in order of first occurrence."""
    found: dict[int, None] = {}
    pending = [rule.update]
    while pending:
        for item in ex.leaves([pending.pop(0)], "state"):
            index = int(item.value or 0)
            if index not in found:
                found[index] = None
                pending.append(rule.states[index].next)
    return list(found)


def _renumber(rule: Rule, states: Mapping[int, int], keep: list[int]) -> Rule:
    """Keep some states; every leaf `state(i)` becomes `state(states[i])`."""

    def replace(item: Expr, args: tuple[Expr, ...]) -> Expr:
        if item.op == "state":
            return ex.state(states[int(item.value or 0)])
        return ex.with_args(item, args)

    roots = [rule.update, *(part for i in keep for part in (rule.states[i].init, rule.states[i].next))]
    mapping = ex.rebuild(roots, replace)
    kept = tuple(State(mapping[rule.states[i].init], mapping[rule.states[i].next]) for i in keep)
    return Rule(mapping[rule.update], kept, rule.hypers)


def _drop_dead(rule: Rule) -> Rule:
    keep = sorted(live_states(rule))
    if len(keep) == len(rule.states):
        return rule
    return _renumber(rule, {old: new for new, old in enumerate(keep)}, keep)


def _digests(roots: list[Expr], colour: Mapping[Expr, str]) -> dict[Expr, str]:
    """Digest of each node with coloured leaves, blind to the order of commutative arguments."""
    found: dict[Expr, str] = {}
    for item in ex.walk(roots):
        if not item.args:
            found[item] = colour.get(item, item.key)
            continue
        parts = [found[arg] for arg in item.args]
        found[item] = ex.digest(item.op, *(sorted(parts) if item.op in COMMUTATIVE else parts))
    return found


def _merge_states(rule: Rule) -> Rule:
    """Merge states that hold the same value for ever."""
    n = len(rule.states)
    classes = [s.init.key for s in rule.states]
    for _ in range(n):
        colour = {ex.state(i): classes[i] for i in range(n)}
        seen = _digests([s.next for s in rule.states], colour)
        finer = [ex.digest(classes[i], seen[s.next]) for i, s in enumerate(rule.states)]
        if len(set(finer)) == len(set(classes)):
            break
        classes = finer
    first: dict[str, int] = {}
    for i, name in enumerate(classes):
        first.setdefault(name, i)
    if len(first) == n:
        return rule
    keep = sorted(first.values())
    position = {old: new for new, old in enumerate(keep)}
    return _renumber(rule, {i: position[first[classes[i]]] for i in range(n)}, keep)


def _colours(rule: Rule, marked: Expr | None = None) -> dict[Expr, str]:
    """Colour of each state and hyper leaf from what it is; a marked one stands out."""
    colour = {leaf: "hyper" for leaf in ex.leaves(rule.roots, "hyper")}
    colour |= {ex.state(i): s.init.key for i, s in enumerate(rule.states)}
    if marked is not None:
        colour[marked] = "marked " + colour[marked]
    for _ in rule.states:
        seen = _digests(list(rule.roots), colour)
        colour |= {
            ex.state(i): ex.digest(colour[ex.state(i)], seen[s.init], seen[s.next])
            for i, s in enumerate(rule.states)
        }
    return colour


def _seen_from(rule: Rule, leaf: Expr) -> str:
    """The whole rule's digest with one leaf marked: tells apart leaves that play different parts."""
    colour = _colours(rule, leaf)
    seen = _digests(list(rule.roots), colour)
    return ex.digest(colour[leaf], seen[rule.update], *sorted(seen[s.next] for s in rule.states))


def _numbered(rule: Rule) -> Rule:
    """Arguments of commutative ops ordered by content, states and hypers by first occurrence."""
    colour = _colours(rule)
    if len(set(colour.values())) < len(colour):
        colour = {leaf: _seen_from(rule, leaf) for leaf in colour}
    seen = _digests(list(rule.roots), colour)

    def order(item: Expr, args: tuple[Expr, ...]) -> Expr:
        if item.op in COMMUTATIVE:
            pairs = sorted(zip((seen[arg] for arg in item.args), args, strict=True), key=lambda pair: pair[0])
            args = tuple(arg for _, arg in pairs)
        return ex.with_args(item, args)

    ordered = _mapped(rule, ex.rebuild(rule.roots, order))
    states = live_states(ordered)
    reading = [ordered.update, *(p for i in states for p in (ordered.states[i].next, ordered.states[i].init))]
    hypers = [int(leaf.value or 0) for leaf in ex.leaves(reading, "hyper")]
    numbers = {("state", old): ex.state(new) for new, old in enumerate(states)}
    numbers |= {("hyper", old): ex.hyper(new) for new, old in enumerate(hypers)}

    def renumber(item: Expr, args: tuple[Expr, ...]) -> Expr:
        return numbers.get((item.op, item.value), None) or ex.with_args(item, args)  # type: ignore[arg-type]

    mapping = ex.rebuild(ordered.roots, renumber)
    kept = tuple(State(mapping[ordered.states[i].init], mapping[ordered.states[i].next]) for i in states)
    return Rule(mapping[ordered.update], kept, tuple(ordered.hypers[i] for i in hypers))


@dataclass(frozen=True)
class Folded:
    """A rule's graph with sugar folded: nodes such as `ema(x, beta)` stand for hidden slots.

    Attributes:
        rule: the rule that was folded.
        swap: what the old and the new value of each hidden slot became.
        hidden: numbers of the states that became sugar.
    """

    rule: Rule
    swap: Mapping[Expr, Expr]
    hidden: frozenset[int]

    def see(self, *roots: Expr) -> tuple[Expr, ...]:
        """The folded form of expressions over the rule's states."""
        mapping = _swapped(roots, self.swap)
        return tuple(mapping[root] for root in roots)

    @property
    def update(self) -> Expr:
        return self.see(self.rule.update)[0]

    @property
    def states(self) -> dict[int, Expr]:
        """Folded next value of each state that stayed explicit, by its number."""
        stay = [i for i in range(len(self.rule.states)) if i not in self.hidden]
        return dict(zip(stay, self.see(*(self.rule.states[i].next for i in stay)), strict=True))


def fold(rule: Rule, explicit: frozenset[int] = frozenset()) -> Folded:
    """Recognise slots that are sugar. States in `explicit` stay as they are.

    A slot that starts at 0 folds when its recurrence is that of a sugar op whose argument does
    not depend, through folded slots, on the slot itself.
    """
    terms: dict[int, tuple[str, tuple[Expr, ...]]] = {}
    needs: dict[int, set[int]] = {}
    for i, slot in enumerate(rule.states):
        term = _as_sugar(slot, i, rule) if i not in explicit and slot.init is ZERO else None
        if term is None:
            continue
        uses = {int(leaf.value or 0) for leaf in ex.leaves(term[1], "state")}
        if i in uses or i in _reach(uses, needs):
            continue
        terms[i], needs[i] = term, uses
    swap: dict[Expr, Expr] = {}
    for i in _in_order(needs):
        op, args = terms[i]
        mapping = _swapped(args, swap)
        value = ex.sugar(op, *(mapping[arg] for arg in args))
        swap[ex.state(i)] = value if op == "prev" else ex.sugar("prev", value)
        if op != "prev":
            swap[rule.states[i].next] = value
    return Folded(rule, swap, frozenset(terms))


def _reach(start: set[int], needs: Mapping[int, set[int]]) -> set[int]:
    found: set[int] = set()
    pending = list(start)
    while pending:
        current = pending.pop()
        for other in needs.get(current, ()):
            if other not in found:
                found.add(other)
                pending.append(other)
    return found


def _in_order(needs: Mapping[int, set[int]]) -> list[int]:
    """Folded states, each after those that its argument reads."""
    done: list[int] = []
    while len(done) < len(needs):
        done += [i for i in needs if i not in done and all(j in done for j in needs[i] if j in needs)]
    return done


def _swapped(roots: tuple[Expr, ...], swap: Mapping[Expr, Expr]) -> dict[Expr, Expr]:
    def replace(item: Expr, args: tuple[Expr, ...]) -> Expr:
        if item in swap:
            return swap[item]
        return _hat(ex.with_args(item, args))

    return ex.rebuild(roots, replace)


def _as_sugar(slot: State, index: int, rule: Rule) -> tuple[str, tuple[Expr, ...]] | None:
    """The sugar op and its arguments whose recurrence is the slot's, or None."""
    s = ex.state(index)
    value = slot.next
    if not any(item is s for item in ex.walk([value])):
        return "prev", (value,)
    if value.op == "maximum" and s in value.args:
        return "running_max", (_other(value, s),)
    if value.op != "add":
        return None
    if s in value.args:
        return "total", (_other(value, s),)
    for kept, new in (value.args, value.args[::-1]):
        if kept.op == "mul" and s in kept.args:
            beta = _other(kept, s)
            if rule.kinds[beta] is Kind.TENSOR:
                return None
            if new.op == "mul":
                for weight, x in (new.args, new.args[::-1]):
                    if is_one_minus(weight, beta):
                        return "ema", (x, beta)
            return "trace", (new, beta)
    return None


def _other(item: Expr, known: Expr) -> Expr:
    return item.args[1] if item.args[0] is known else item.args[0]


def is_one_minus(item: Expr, beta: Expr) -> bool:
    """Whether a node is `1 - beta`, folded or not."""
    if is_const(beta) and is_const(item, 1.0 - float(beta.value or 0)):
        return True
    return item.op == "sub" and item.args[0] is ONE and item.args[1] is beta


def _is_debias(item: Expr, beta: Expr, exponent: Expr) -> bool:
    return item is ex.node("sub", ONE, ex.node("pow", beta, exponent))


def _hat(item: Expr) -> Expr:
    """`ema / (1 - beta ** t)` as `ema_hat`, and its value one step ago as `prev(ema_hat(…))`."""
    t = ex.leaf("t")
    if item.op == "div" and item.args[0].op == "ema":
        x, beta = item.args[0].args
        if _is_debias(item.args[1], beta, t):
            return ex.sugar("ema_hat", x, beta)
    if item.op == "where" and item.args[0].op == "first" and item.args[1] is ZERO:
        old = item.args[2]
        if old.op == "div" and old.args[0].op == "prev" and old.args[0].args[0].op == "ema":
            x, beta = old.args[0].args[0].args
            if _is_debias(old.args[1], beta, ex.node("sub", t, ONE)):
                return ex.sugar("prev", ex.sugar("ema_hat", x, beta))
    return item


def count_nodes(rule: Rule) -> int:
    """Distinct nodes of the canonical graph with sugar folded; an init of 0 is free."""
    canonical = rule.canonical
    folded = fold(canonical)
    inits = [s.init for i, s in enumerate(canonical.states) if i not in folded.hidden and s.init is not ZERO]
    return len(ex.walk([folded.update, *folded.states.values(), *inits]))
