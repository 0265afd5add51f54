"""From a rule to a genome: sugar folded, states and shared terms as lines, constants typed by role.

Any rule of the language has a genome. Variation could not create all of them: a seed may hold ops
that its grammar lacks, and loose forms.
"""

from __future__ import annotations

from collections.abc import Mapping

from ruleforge.core import expr as ex
from ruleforge.core.canon import fold
from ruleforge.core.expr import Expr
from ruleforge.core.form import with_constants
from ruleforge.core.ops import COMMUTATIVE, OPS
from ruleforge.core.rule import Kind, Rule
from ruleforge.search import deap_bridge as bridge
from ruleforge.search.deap_bridge import Node, Tree
from ruleforge.search.forms import (
    FORMS,
    Beta,
    Eps,
    Low,
    Mask,
    Number,
    Scale,
    Tensor,
    Type,
    constant_fits,
    form_for,
    place_of,
    role_of,
)
from ruleforge.search.lines import Genome, Line, Role

_MASK_OPS: frozenset[str] = frozenset(form.op for form in FORMS.values() if issubclass(form.ret, Mask))


def from_rule(rule: Rule) -> Genome:
    """A genome of the rule with its hyperparameters at their defaults.

    Any rule has one: `to_rule(from_rule(rule)).key == with_constants(rule).key`. It may hold ops
    and loose forms that no grammar would create; see `foreign` in `variation`.
    """
    return _Reading(with_constants(rule).canonical).genome()


class _Reading:
    """Takes a canonical rule apart into lines."""

    LONG, USED, TWICE = 3, 3, 12  # a local has > LONG nodes and USED uses, or > TWICE nodes and 2 uses

    def __init__(self, rule: Rule) -> None:
        folded = fold(rule, derived=True)
        self.state_kinds = rule.state_kinds
        self.goals: list[tuple[Role, int, Expr]] = [("state", i, v) for i, v in folded.states.items()]
        self.goals.append(("update", -1, folded.update))
        self.inits = {i: rule.states[i].init for i in folded.states}
        self.order = ex.walk([*(value for _, _, value in self.goals), *self.inits.values()])
        self.kinds = self._kinds()
        self.goals += [("local", -1, item) for item in self._shared()]

    def _kinds(self) -> dict[Expr, Type]:
        kinds: dict[Expr, Type] = {}
        for item in self.order:
            if item.op == "state":
                tensor = self.state_kinds[int(item.value or 0)] is Kind.TENSOR
            elif not item.args:
                tensor = item.op in ("g", "w")
            elif OPS[item.op].kind in ("reduce", "matrix"):
                tensor = OPS[item.op].kind == "matrix"
            else:
                tensor = any(kinds[arg] is Tensor for arg in item.args)
            kinds[item] = Tensor if tensor else Number
        return kinds

    def _shared(self) -> list[Expr]:
        """Terms that would be written out again and again; the bound keeps trees linear in the graph."""
        roots = [value for _, _, value in self.goals]
        uses: dict[Expr, int] = dict.fromkeys(self.order, 0)
        for item in self.order:
            for arg in item.args:
                uses[arg] += 1
        size: dict[Expr, int] = {}
        found = []
        for item in self.order:
            if item in roots:
                size[item] = 1
                continue
            size[item] = 1 + sum(size[arg] for arg in item.args)
            long_enough = size[item] > self.TWICE or (uses[item] >= self.USED and size[item] > self.LONG)
            if item.args and uses[item] >= 2 and long_enough:
                found.append(item)
                size[item] = 1
        return found

    def genome(self) -> Genome:
        goals = self._in_order()
        at = {state: position for position, (role, state, _) in enumerate(goals) if role == "state"}
        named: dict[Expr, int] = {}
        lines = []
        for position, (role, state, value) in enumerate(goals):
            kind = self.kinds[value]
            nodes = [bridge.ref(named[value], True, kind)] if value in named else self._emit(value, named, at)
            init: Tree = ()
            if role == "state":
                kind = Tensor if self.state_kinds[state] is Kind.TENSOR else Number
                init = bridge.tree(self._emit(self.inits[state], {}, {}))
            lines.append(Line(role, kind, bridge.tree(nodes), init))
            if value.args:
                named.setdefault(value, position)
        return Genome(tuple(lines))

    def _in_order(self) -> list[tuple[Role, int, Expr]]:
        """Lines after those that they use; states before the update where nothing forbids it."""
        below = {value: set(ex.walk([value])) for _, _, value in self.goals}
        pending = sorted(self.goals, key=lambda goal: ("local", "state", "update").index(goal[0]))
        placed: list[tuple[Role, int, Expr]] = []
        while pending:
            for goal in pending:
                others = (o[2] for o in pending if o[2] is not goal[2] and o[2].args)
                if not any(other in below[goal[2]] for other in others):
                    break
            placed.append(goal)
            pending.remove(goal)
        return placed

    def _emit(self, root: Expr, named: Mapping[Expr, int], at: Mapping[int, int]) -> list[Node]:
        out: list[Node] = []
        pending: list[tuple[Expr, str, int, Type | None]] = [(root, "", 0, None)]
        while pending:
            item, parent, index, role = pending.pop()
            if item in named:
                out.append(bridge.ref(named[item], True, self.kinds[item]))
            elif item.op == "state":
                out.append(bridge.ref(at[int(item.value or 0)], False, self.kinds[item]))
            elif item.op == "const" and item.value is not None:
                value = float(item.value)
                out.append(bridge.const(value, constant_type(value, parent, index, role)))
            elif not item.args:
                out.append(bridge.leaf(item.op))
            else:
                op, args = item.op, item.args
                if op == "mul" and args[0] is args[1]:
                    op, args = "square", args[:1]
                elif op in COMMUTATIVE and self.kinds[args[0]] is Number:
                    args = args[::-1]  # the tensor first, as variation would write it
                place = place_of(tuple(self.kinds[arg] for arg in args))
                roles = [role_of(op, i, place) for i in range(len(args))]
                fits = all(self._fits(role, arg, named) for role, arg in zip(roles, args, strict=True))
                out.append(bridge.call(form_for(op, place, fits).name))
                pending += [(arg, op, i, roles[i]) for i, arg in reversed(list(enumerate(args)))]
        return out

    def _fits(self, role: Type | None, arg: Expr, named: Mapping[Expr, int]) -> bool:
        if role is None:
            return True
        if role is Mask:
            return arg not in named and (arg.op in ("first", "is_matrix") or arg.op in _MASK_OPS)
        return arg.op == "const" and constant_fits(float(arg.value or 0), role)


def constant_type(value: float, parent: str, index: int, role: Type | None) -> Type:
    """The type of a constant by its role, or by its size and its op where it has none."""
    if role in (Beta, Eps, Scale, Low) and constant_fits(value, role):
        return role
    if 0 < value <= 1e-3 and parent in ("add", "maximum", "ratio"):
        return Eps
    if 0.5 < value < 1 and (parent, index) in (("pow", 0), ("mul", 0), ("mul", 1)):
        return Beta
    return Scale
