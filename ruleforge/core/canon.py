"""Which rules are one rule: the canonical graph, and the view with sugar folded.

Canonical means: exact laws applied, dead states dropped, states that always hold equal values
merged (coarsest stable partition), arguments ordered and states and hyperparameters numbered by
content alone (`order`). Nothing here changes a bit of any result.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from ruleforge.core import expr as ex
from ruleforge.core.build import debias, recurrence, steadily_debiased
from ruleforge.core.derived import Term, expanded, recognised
from ruleforge.core.expr import Expr
from ruleforge.core.laws import ONE, ZERO, is_const, lawful
from ruleforge.core.order import digests, numbered
from ruleforge.core.rule import Kind, Rule, State


def canonicalize(rule: Rule) -> Rule:
    """The canonical representative; idempotent."""
    update, states = rule.update, rule.states
    while True:
        better = _merged(*_live(*_lawful(update, states)))
        if better == (update, states):
            return numbered(update, states, rule.hypers)
        update, states = better


Slots = tuple[State, ...]


def _lawful(update: Expr, states: Slots) -> tuple[Expr, Slots]:
    roots = (update, *(part for s in states for part in (s.init, s.next)))
    mapping = ex.rebuild(roots, lambda item, args: lawful(item.op, *args) if args else item)
    return mapping[update], tuple(State(mapping[s.init], mapping[s.next]) for s in states)


def live_states(rule: Rule) -> list[int]:
    """States that the update depends on, in order of first occurrence."""
    return reached([rule.update], rule.states)


def reached(roots: Iterable[Expr], states: Slots, known: Iterable[int] = ()) -> list[int]:
    """States that expressions depend on, in order of first occurrence, after those known already."""
    found: dict[int, None] = dict.fromkeys(known)
    pending = list(roots)
    while pending:
        for item in ex.leaves([pending.pop(0)], "state"):
            index = item.index
            if index not in found:
                found[index] = None
                pending.append(states[index].next)
    return list(found)


def renumbered(roots: Iterable[Expr], numbers: Mapping[int, int]) -> dict[Expr, Expr]:
    """Each node below the roots with every leaf `state(i)` become `state(numbers[i])`."""

    def replace(item: Expr, args: tuple[Expr, ...]) -> Expr:
        return ex.state(numbers[item.index]) if item.op == "state" else ex.with_args(item, args)

    return ex.rebuild(roots, replace)


def renumber(update: Expr, states: Slots, numbers: Mapping[int, int], keep: list[int]) -> tuple[Expr, Slots]:
    """Keep some states; every leaf `state(i)` becomes `state(numbers[i])`."""
    roots = [update, *(part for i in keep for part in (states[i].init, states[i].next))]
    mapping = renumbered(roots, numbers)
    return mapping[update], tuple(State(mapping[states[i].init], mapping[states[i].next]) for i in keep)


def _live(update: Expr, states: Slots) -> tuple[Expr, Slots]:
    keep = sorted(reached([update], states))
    if len(keep) == len(states):
        return update, states
    return renumber(update, states, {old: new for new, old in enumerate(keep)}, keep)


def _merged(update: Expr, states: Slots) -> tuple[Expr, Slots]:
    """States that hold the same value for ever become one."""
    n = len(states)
    classes = [s.init.key + s.next.op for s in states]
    for _ in range(n):
        if len(set(classes)) == n:
            return update, states
        seen = digests([s.next for s in states], {ex.state(i): classes[i] for i in range(n)})
        finer = [ex.digest(classes[i], seen[s.next]) for i, s in enumerate(states)]
        if len(set(finer)) == len(set(classes)):
            break
        classes = finer
    first: dict[str, int] = {}
    for i, name in enumerate(classes):
        first.setdefault(name, i)
    if len(first) == n:
        return update, states
    keep = sorted(first.values())
    position = {old: new for new, old in enumerate(keep)}
    return renumber(update, states, {i: position[first[classes[i]]] for i in range(n)}, keep)


@dataclass(frozen=True)
class Folded:
    """A rule's graph with sugar folded: nodes such as `ema(x, beta)` stand for hidden slots.

    Attributes:
        rule: the rule that was folded.
        terms: op and arguments of each state that became sugar, as they are in the rule.
        swap: what the old and the new value of each of them became.
        exact: terms expand to the very same nodes, not only to an equal rule.
        derived: whether derived ops are folded as well.
    """

    rule: Rule
    terms: Mapping[int, Term]
    swap: Mapping[Expr, Expr]
    exact: bool = False
    derived: bool = False

    @property
    def hidden(self) -> frozenset[int]:
        """Numbers of the states that became sugar."""
        return frozenset(self.terms)

    def see(self, *roots: Expr) -> tuple[Expr, ...]:
        """The folded form of expressions over the rule's states."""
        mapped: dict[Expr, Expr] = {}
        for item in ex.walk(roots):
            if item in self.swap:
                mapped[item] = self.swap[item]
            elif (term := self.derived_term(item)) is not None:
                op, args = term
                mapped[item] = ex.sugar(op, *(mapped[arg] for arg in args))
            else:
                mapped[item] = _hat(ex.with_args(item, tuple([mapped[arg] for arg in item.args])))
        return tuple(mapped[root] for root in roots)

    def derived_term(self, item: Expr) -> Term | None:
        """The derived op that a term of the rule is shown as, and its arguments."""
        found = recognised(item, self.rule.kinds) if self.derived else None
        return None if found is None or (self.exact and expanded(*found) is not item) else found

    @property
    def update(self) -> Expr:
        return self.see(self.rule.update)[0]

    @property
    def states(self) -> dict[int, Expr]:
        """Folded next value of each state that stayed explicit, by its number."""
        stay = [i for i in range(len(self.rule.states)) if i not in self.hidden]
        return dict(zip(stay, self.see(*(self.rule.states[i].next for i in stay)), strict=True))


def fold(
    rule: Rule, explicit: frozenset[int] = frozenset(), *, exact: bool = False, derived: bool = False
) -> Folded:
    """Recognise slots that are sugar, and terms that are derived ops.

    A slot that starts at 0 folds when its recurrence is that of a sugar op whose argument does
    not depend, through folded slots, on the slot itself.

    Args:
        rule: any rule.
        explicit: states that stay as they are.
        exact: prefer the term that expands to the very same nodes, not only to an equal rule.
        derived: fold derived ops too, for showing and counting.
    """
    terms: dict[int, Term] = {}
    needs: dict[int, set[int]] = {}
    for i, slot in enumerate(rule.states):
        if i in explicit or slot.init is not ZERO:
            continue
        s = ex.state(i)
        forms = list(_sugar_forms(slot.next, s, rule))
        if exact:
            forms.sort(key=lambda form: recurrence(form[0], s, form[1]) is not slot.next)
        for term in forms:
            uses = {leaf.index for leaf in ex.leaves(term[1], "state")}
            if i not in uses and i not in _reach(uses, needs):
                terms[i], needs[i] = term, uses
                break
    owned = {rule.states[i].next for i, (op, _) in terms.items() if op != "prev"}
    for i in [i for i, (op, _) in terms.items() if op == "prev"]:
        found = steadily_debiased(terms[i][1][0])
        if found is not None and found[0] in owned:  # `prev` of it would need no slot
            del terms[i], needs[i]
    swap: dict[Expr, Expr] = {}
    folded = Folded(rule, terms, swap, exact, derived)  # sees through what `swap` holds so far
    for i in _in_order(needs):
        op, args = terms[i]
        value = ex.sugar(op, *folded.see(*args))
        swap[ex.state(i)] = value if op == "prev" else ex.sugar("prev", value)
        if op != "prev":
            swap[rule.states[i].next] = value
    return folded


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


def _sugar_forms(value: Expr, s: Expr, rule: Rule) -> Iterator[tuple[str, tuple[Expr, ...]]]:
    """Sugar ops and arguments whose recurrence is `value`, for a slot `s`."""
    if not any(item is s for item in ex.walk([value])):
        yield "prev", (value,)
    if value.op == "maximum" and s in value.args:
        yield "running_max", (_other(value, s),)
    if value.op == "sub":  # what `s + (-x)` and `beta * s + (-x)` become
        kept, x = value.args
        beta = _weight(kept, s, rule)
        if kept is s:
            yield "total", (ex.node("neg", x),)
        if beta is not None:
            yield "trace", (ex.node("neg", x), beta)
    if value.op == "add":
        if s in value.args:
            yield "total", (_other(value, s),)
        for kept, new in (value.args, value.args[::-1]):
            beta = _weight(kept, s, rule)
            if beta is None:
                continue
            if new.op == "mul":
                for weight, x in (new.args, new.args[::-1]):
                    if is_one_minus(weight, beta):
                        yield "ema", (x, beta)
            yield "trace", (new, beta)


def _weight(item: Expr, s: Expr, rule: Rule) -> Expr | None:
    """`beta` where the node is `beta * s` and beta is a number."""
    if item.op != "mul" or s not in item.args:
        return None
    beta = _other(item, s)
    return None if rule.kinds[beta] is Kind.TENSOR else beta


def _other(item: Expr, known: Expr) -> Expr:
    return item.args[1] if item.args[0] is known else item.args[0]


def is_one_minus(item: Expr, beta: Expr) -> bool:
    """Whether a node is `1 - beta`, folded or not."""
    if is_const(beta) and item is ex.const(1.0 - beta.number):
        return True
    return item.op == "sub" and item.args[0] is ONE and item.args[1] is beta


def _hat(item: Expr) -> Expr:
    """`ema / (1 - beta ** t)` as `ema_hat`, and its value one step ago as `prev(ema_hat(…))`."""
    t = ex.leaf("t")
    if item.op == "div" and item.args[0].op == "ema":
        x, beta = item.args[0].args
        if item.args[1] is debias(beta, t):
            return ex.sugar("ema_hat", x, beta)
    if item.op == "where" and item.args[0].op == "first" and item.args[1] is ZERO:
        old = item.args[2]
        if old.op == "div" and old.args[0].op == "prev" and old.args[0].args[0].op == "ema":
            x, beta = old.args[0].args[0].args
            if ex.is_steady(beta) and old.args[1] is debias(beta, ex.node("sub", t, ONE)):
                return ex.sugar("prev", ex.sugar("ema_hat", x, beta))
    return item


def count_nodes(rule: Rule) -> int:
    """Distinct nodes of the canonical graph with sugar and derived ops folded; an init of 0 is free."""
    canonical = rule.canonical
    folded = fold(canonical, derived=True)
    inits = [s.init for i, s in enumerate(canonical.states) if i not in folded.hidden and s.init is not ZERO]
    return len(ex.walk([folded.update, *folded.states.values(), *inits]))
