"""Tree edit distance, held to the literal recursion over forests."""

from __future__ import annotations

from functools import cache

from hypothesis import given, settings
from hypothesis import strategies as st

from ruleforge.core.known import known
from ruleforge.core.rule import Rule
from ruleforge.explain.trees import Tree, edit_distance, lower_bound, size, tree_of

Forest = tuple[Tree, ...]


@cache
def literal(a: Forest, b: Forest) -> int:
    """The definition: the last root of either forest is deleted, inserted, or matched."""
    if not a or not b:
        return sum(map(size, a)) + sum(map(size, b))
    (label, children), (other, others) = a[-1], b[-1]
    return min(
        literal((*a[:-1], *children), b) + 1,
        literal(a, (*b[:-1], *others)) + 1,
        literal(a[:-1], b[:-1]) + literal(children, others) + (label != other),
    )


trees = st.recursive(
    st.sampled_from("ab").map(lambda label: (label, ())),
    lambda child: st.tuples(st.sampled_from("ab"), st.lists(child, min_size=1, max_size=3).map(tuple)),
    max_leaves=5,
)


@settings(max_examples=150, deadline=None)
@given(trees, trees)
def test_it_is_the_literal_distance(a: Tree, b: Tree) -> None:
    found = edit_distance(a, b)
    assert found == literal((a,), (b,))
    assert lower_bound(a, b) <= found


def test_numbers_and_hypers_are_no_difference() -> None:
    lion = known("lion").rule.rule
    other = Rule.parse("m: state = 0\nupdate = sign(lerp(g, m, 0.8))\nm = lerp(g, m, 0.7)")
    assert edit_distance(tree_of(lion), tree_of(other)) == 0
    assert edit_distance(tree_of(lion), tree_of(known("signsgd").rule.rule)) > 0


def test_a_huge_tree_is_not_compared() -> None:
    deep: Tree = ("g", ())
    for _ in range(200):
        deep = ("neg", (deep,))
    assert edit_distance(deep, deep) is None
