"""From a genome to the rule that it spells, evolved constants as numbers or as hyperparameters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ruleforge.core import expr as ex
from ruleforge.core.build import RuleBuilder
from ruleforge.core.expr import Expr
from ruleforge.core.rule import Hyper, Rule
from ruleforge.search import deap_bridge as bridge
from ruleforge.search.deap_bridge import Node
from ruleforge.search.forms import TYPE_LABELS, Beta, Eps, Type
from ruleforge.search.lines import Genome


def to_rule(genome: Genome, hypers: Mapping[tuple[int, int], Hyper] | None = None) -> Rule:
    """The rule that a genome spells.

    Args:
        genome: any genome; dead lines become dead states.
        hypers: constants, by line and position in its tree, that become hyperparameters; equal
            ones by type and value share one.

    Raises:
        RuleError: more slots or nodes than a rule may have, or a reduction over what turns out to
            be a number (a state that no tensor ever reaches).
    """
    builder = RuleBuilder()
    slots = {
        i: builder.declare(_built(line.init, builder, {}, [], {}))
        for i, line in enumerate(genome.lines)
        if line.role == "state"
    }
    numbers: dict[tuple[Type, float], int] = {}
    made: list[Hyper] = []
    values: list[Expr] = []
    for i, line in enumerate(genome.lines):
        promoted: dict[int, Expr] = {}
        for (at, position), hyper in (hypers or {}).items():
            if at == i:
                node = line.tree[position]
                index = numbers.setdefault((node.ret, node.value), len(made))
                if index == len(made):
                    made.append(hyper)
                promoted[position] = ex.hyper(index)
        values.append(_built(line.tree, builder, slots, values, promoted))
        if line.role == "state":
            builder.assign(slots[i], values[i])
    return builder.build(values[genome.update], tuple(made))


def _built(
    nodes: Sequence[Node],
    builder: RuleBuilder,
    slots: Mapping[int, int],
    values: Sequence[Expr],
    promoted: Mapping[int, Expr],
) -> Expr:
    stack: list[Expr] = []
    for position in range(len(nodes) - 1, -1, -1):
        node = nodes[position]
        arity = node.arity
        if arity:
            args = stack[: -arity - 1 : -1]
            del stack[-arity:]
            stack.append(builder.apply(node.form.op, *args))
        elif position in promoted:
            stack.append(promoted[position])
        elif isinstance(node, bridge.Const):
            stack.append(ex.const(node.value))
        elif isinstance(node, bridge.Ref):
            stack.append(values[node.line] if node.new else ex.state(slots[node.line]))
        else:
            stack.append(ex.leaf(node.name))
    return stack[0]


def promote(genome: Genome, ranges: Mapping[str, Hyper] | None = None) -> Rule:
    """The rule with its evolved constants as hyperparameters, their values as defaults.

    Betas and epsilons always; scales and bounds unless they are structural (an integer or a half).

    Args:
        genome: any genome.
        ranges: range by constant type; its own default is ignored. A value outside it gets a range
            of its own.
    """
    found = {
        (i, position): _range(node, (ranges or {}).get(TYPE_LABELS[node.ret]))
        for i, line in enumerate(genome.lines)
        for position, node in enumerate(line.tree)
        if isinstance(node, bridge.Const)
        and (node.ret in (Beta, Eps) or not float(2 * node.value).is_integer())
    }
    return to_rule(genome, found)


def _range(node: Node, known: Hyper | None) -> Hyper:
    value = float(node.value)
    if known is not None and known.low < value < known.high:
        return Hyper(known.low, known.high, value, known.scale)
    if node.ret is Beta:
        return Hyper(0.0, 1.0, value, "one_minus_log")
    if node.ret is Eps and value < 1:
        return Hyper(0.0, 1.0, value, "log")
    low, high = sorted((value / 100, value * 100))
    return Hyper(low, high, value, "log" if value > 0 else "linear")
