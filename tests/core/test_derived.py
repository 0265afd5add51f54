"""Derived ops are shown and counted as themselves wherever they occur, and only there."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ruleforge.core import expr as ex
from ruleforge.core.canon import fold
from ruleforge.core.derived import expanded, recognised
from ruleforge.core.expr import Expr
from ruleforge.core.format import format_rule, name_text
from ruleforge.core.ops import COMMUTATIVE, OPS
from ruleforge.core.rule import Kind, Rule
from ruleforge.core.text import parse
from ruleforge.search.forms import STATEFUL
from ruleforge.search.genome import from_rule, to_rule
from ruleforge.testing import rules

FOLDING = [name for name, row in OPS.items() if row.folds and name not in STATEFUL]
TERMS = ("g", "ema(g, 0.9)", "-g", "g * w", "abs(g)")
KINDS = {ex.leaf("g"): Kind.TENSOR, ex.leaf("w"): Kind.TENSOR, ex.leaf("t"): Kind.HOST}


def called(op: str, first: str = "g", second: str = "w") -> str:
    """A call of an op with terms as its tensors and 0.5 as its number."""
    terms = iter((first, second))
    return f"{op}({', '.join('0.5' if p.endswith('#') else next(terms) for p in OPS[op].params)})"


PAIRS = [(op, first) for op in FOLDING for first in TERMS if (op, first) != ("sigmoid", "-g")]


@pytest.mark.parametrize(("op", "first"), PAIRS)  # sigmoid(-g) is the shorter 1 / (1 + exp(g)), by a law
def test_a_derived_op_is_written_as_itself(op: str, first: str) -> None:
    text = parse(f"update = {called(op, first)}")
    assert f"{op}(" in format_rule(text) and f"{op}(" in name_text(text.rule)
    assert f"{op}(" in format_rule(parse(name_text(text.rule)))


@pytest.mark.parametrize("op", FOLDING)
def test_it_counts_as_one_node(op: str) -> None:
    assert parse(f"update = {called(op)}").rule.nodes == 1 + OPS[op].arity
    assert parse(f"update = {called(op, 'ema(g, 0.9)')}").rule.nodes == 1 + OPS[op].arity + 2


@pytest.mark.parametrize("op", FOLDING)
def test_it_is_one_node_of_a_genome(op: str) -> None:
    rule = Rule.parse(f"update = ema({called(op, 'prev(g)')}, 0.9)")
    genome = from_rule(rule)
    names = [item.name.split(".")[0] for line in genome.lines for item in line.tree]
    assert op in names
    assert to_rule(genome).key == rule.key


@given(st.data())
@pytest.mark.parametrize("op", FOLDING)
def test_the_order_of_commutative_arguments_does_not_matter(op: str, data: st.DataObject) -> None:
    args = tuple(
        ex.leaf("t" if p.endswith("#") else name) for p, name in zip(OPS[op].params, "gw", strict=False)
    )
    term = expanded(op, args)

    def shuffled(item: Expr, parts: tuple[Expr, ...]) -> Expr:
        swap = item.op in COMMUTATIVE and data.draw(st.booleans())
        return ex.with_args(item, parts[::-1] if swap else parts)

    assert recognised(ex.rebuild([term], shuffled)[term], KINDS) == (op, args)


@pytest.mark.parametrize(
    "text",
    [
        "g * (g * w > 0) / maximum(mean(g * w > 0), 0.01)",  # another floor
        "g * (g * w > 0) / maximum(mean(g * g > 0), 0.001)",  # two masks
        "g * (norm(w) / maximum(norm(g * w), 1e-30))",
        "g / (1 + abs(w))",
        "sign(g) * sqrt(abs(w))",
        "1 / (1 + exp(g))",
    ],
)
def test_what_is_almost_the_expansion_is_left_alone(text: str) -> None:
    assert not any(f"{op}(" in name_text(Rule.parse(f"update = {text}")) for op in FOLDING)


def test_a_number_where_the_op_wants_a_tensor_is_left_alone() -> None:
    rule = Rule.parse("update = 2 * (2 * g > 0) / maximum(mean(2 * g > 0), 0.001)")
    assert "cautious(" not in name_text(rule)
    assert parse(name_text(rule)).rule.key == rule.key
    bounded = Rule.parse("update = g * minimum(1, w / norm(g))")
    assert "clip_norm(" not in name_text(bounded)


def test_the_more_special_of_two_ops_is_shown() -> None:
    assert "equalize(ema" in name_text(Rule.parse("a = ema(g, 0.9)\nupdate = graft(orthogonalize(a), a)"))


@given(rules())
def test_folding_and_expanding_again_give_the_rule(rule: Rule) -> None:
    canonical = rule.canonical
    folded = fold(canonical, derived=True)
    for item in ex.walk(canonical.roots):
        term = folded.derived_term(item)
        if term is not None:
            assert (
                Rule(expanded(*term), canonical.states, canonical.hypers).key
                == Rule(item, canonical.states, canonical.hypers).key
            )
