"""The form in which rules are rewritten: canonical, with sugar folded.

In this form `ema(x, beta)` is one node, the old value of a state is a leaf and its new value is simply
the expression, so a law is a replacement of nodes and has no order of statements to respect.
Hyperparameters keep the numbers of the rule that was given, however the canonical form would order them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from ruleforge.core import expr as ex
from ruleforge.core.build import RuleBuilder
from ruleforge.core.canon import fold
from ruleforge.core.expr import Expr
from ruleforge.core.format import name_rule
from ruleforge.core.laws import lawful
from ruleforge.core.ops import OPS
from ruleforge.core.rule import Hyper, Rule
from ruleforge.core.text import RuleText
from ruleforge.simplify.facts import Facts


@dataclass(frozen=True)
class View:
    """A rule as folded expressions.

    Attributes:
        update: what is subtracted, times lr.
        inits: start of each explicit state, by its number.
        nexts: next value of each explicit state.
        hypers: those of the rule that was given.
    """

    update: Expr
    inits: tuple[tuple[int, Expr], ...]
    nexts: tuple[tuple[int, Expr], ...]
    hypers: tuple[Hyper, ...]

    @staticmethod
    def of(rule: Rule, *, derived: bool = False) -> View:
        """The view of a rule; dead code is gone.

        Args:
            rule: any rule.
            derived: fold derived ops as well; laws see core ops and sugar.
        """
        tagged = rule.with_defaults(tuple(float(i) for i in range(len(rule.hypers)))).canonical
        folded = fold(tagged, derived=derived)
        explicit = list(folded.states)
        roots = (folded.update, *folded.states.values(), *(tagged.states[i].init for i in explicit))
        numbers = {i: int(h.default) for i, h in enumerate(tagged.hypers)}

        def renumber(item: Expr, args: tuple[Expr, ...]) -> Expr:
            return ex.hyper(numbers[item.index]) if item.op == "hyper" else ex.with_args(item, args)

        mapping = ex.rebuild(roots, renumber)
        return View(
            mapping[folded.update],
            tuple((i, mapping[tagged.states[i].init]) for i in explicit),
            tuple((i, mapping[value]) for i, value in folded.states.items()),
            rule.hypers,
        )

    @cached_property
    def roots(self) -> tuple[Expr, ...]:
        """Update and next values; inits are host numbers and are left alone."""
        return (self.update, *(value for _, value in self.nexts))

    @cached_property
    def nodes(self) -> tuple[Expr, ...]:
        return tuple(ex.walk(self.roots))

    @cached_property
    def facts(self) -> Facts:
        return Facts(self.hypers, dict(self.inits), dict(self.nexts))

    @cached_property
    def rule(self) -> Rule:
        """The rule itself. Raises RuleError when a limit is passed."""
        builder = RuleBuilder()
        slots = {i: builder.declare(init) for i, init in self.inits}

        def build(item: Expr, args: tuple[Expr, ...]) -> Expr:
            if item.op == "state":
                return ex.state(slots[item.index])
            if item.args and OPS[item.op].kind in ("sugar", "derived"):
                return builder.apply(item.op, *args)
            return ex.with_args(item, args)

        mapping = ex.rebuild(self.roots, build)
        for i, value in self.nexts:
            builder.assign(slots[i], mapping[value])
        return builder.build(mapping[self.update], self.hypers)

    def mapped(self, replace: Callable[[Expr, tuple[Expr, ...]], Expr]) -> View:
        """Each node, bottom up, through `replace(node, mapped arguments)`."""
        mapping = ex.rebuild(self.roots, replace)
        return View(
            mapping[self.update],
            self.inits,
            tuple((i, mapping[value]) for i, value in self.nexts),
            self.hypers,
        )

    def swapped(self, swap: Mapping[Expr, Expr]) -> View:
        """Some nodes replaced wherever they occur."""
        return self.mapped(lambda item, args: swap[item] if item in swap else remade(item, args))

    def with_update(self, update: Expr) -> View:
        return View(update, self.inits, self.nexts, self.hypers)

    def without_state(self, index: int, old: Expr, new: Expr) -> View:
        """A state gone: `old` is read for its value before the step, `new` for the one after it."""
        value = dict(self.nexts)[index]
        rest = View(
            self.update,
            tuple(pair for pair in self.inits if pair[0] != index),
            tuple(pair for pair in self.nexts if pair[0] != index),
            self.hypers,
        )
        swap = {ex.state(index): old}
        if value.args and not any(item is value for item in ex.walk([new])):
            swap[value] = new
        return rest.swapped(swap)


def make(op: str, *args: Expr) -> Expr:
    """A folded node: a core op with the exact laws of core applied, sugar, or a derived op."""
    return lawful(op, *args) if OPS[op].meaning is not None else ex.sugar(op, *args)


def remade(item: Expr, args: tuple[Expr, ...]) -> Expr:
    """The node with other arguments, exact laws applied."""
    return make(item.op, *args) if args else item


def mentions(item: Expr, part: Expr) -> bool:
    """Whether a node occurs in a term."""
    return any(node is part for node in ex.walk([item]))


def hyper_order(rule: Rule) -> tuple[int, ...]:
    """Numbers, in `rule.hypers`, of the hyperparameters of the canonical rule, in its order."""
    by_default = sorted(range(len(rule.hypers)), key=lambda i: (rule.hypers[i].default, i))
    rank = {index: float(place) for place, index in enumerate(by_default)}
    ranked = rule.with_defaults(tuple(rank[i] for i in range(len(rule.hypers)))).canonical
    return tuple(by_default[int(place)] for place in ranked.defaults)


def named(rule: Rule, names: Sequence[str], doc: str = "") -> RuleText:
    """Text of a rule whose hyperparameters have names.

    Args:
        rule: any rule.
        names: of `rule.hypers`, in that order.
        doc: docstring.

    Raises:
        RuleTextError: the rule is too long or too deep to be written.
    """
    return name_rule(rule, doc=doc, hypers=[names[i] for i in hyper_order(rule)])
