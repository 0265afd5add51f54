"""Children keep types, limits and ranges, whatever variation made them and from whom."""

from __future__ import annotations

import random

import numpy as np
import pytest

from ruleforge.core.format import name_rule
from ruleforge.core.known import KNOWN, known
from ruleforge.core.text import parse
from ruleforge.search import deap_bridge as bridge
from ruleforge.search.children import (
    TRIES,
    child_rng,
    fitting_rule,
    foreign,
    make_child,
    random_child,
    rough_nodes,
)
from ruleforge.search.forms import CONSTANT_TYPES, Beta, Eps, Low, Tensor
from ruleforge.search.genome import Genome, from_rule, from_text, reads, to_rule, to_text, without_dead
from ruleforge.search.grammar import grammar_names, load_grammar, parse_grammar
from ruleforge.search.variation import VARIATIONS
from ruleforge.search.vocabulary import Pool, Vocabulary, draw_index

VOCABULARIES = {name: Vocabulary(load_grammar(name)) for name in grammar_names()}
SEEDS = [
    from_rule(known(name).rule.rule)
    for name in ("sgd", "lion", "adam", "adadelta", "nadam", "novograd", "rprop")
]


def allowed(vocabulary: Vocabulary, node: bridge.Const) -> bool:
    """Whether the grammar may have drawn this constant."""
    constants = vocabulary.grammar.constants
    draw = {Beta: constants.beta, Eps: constants.eps}.get(node.ret, constants.scale)
    value = -node.value if node.ret is Low else node.value
    return draw is not None and (value in draw.values if draw.values else draw.low <= value <= draw.high)


def family(name: str, n: int = 120) -> list[Genome]:
    """Random genomes and descendants of theirs."""
    vocabulary = VOCABULARIES[name]
    people = [random_child(child_rng(1, 0, i), vocabulary).genome for i in range(n)]
    for i in range(n):
        rng = child_rng(1, 1, i)
        first, second = (people[draw_index(rng, len(people))] for _ in range(2))
        people.append(make_child(rng, vocabulary, first, second).genome)
    return people


FAMILIES = {name: family(name) for name in VOCABULARIES}


@pytest.mark.parametrize("name", VOCABULARIES)
def test_children_keep_what_the_grammar_says(name: str) -> None:
    vocabulary = VOCABULARIES[name]
    limits = vocabulary.limits
    for genome in FAMILIES[name]:
        rule = to_rule(genome)
        assert rule.nodes <= limits.nodes and rule.slots <= limits.states
        assert len(genome.states) <= limits.explicit_states
        assert all(bridge.height(line.tree) <= limits.depth for line in genome.lines)
        assert foreign(vocabulary, genome) == ()
        assert reads(genome, "g") and without_dead(genome) == genome
        for line in genome.lines:
            assert all(allowed(vocabulary, node) for node in line.tree if isinstance(node, bridge.Const))
        assert from_text(to_text(genome)) == genome


@pytest.mark.parametrize("name", VOCABULARIES)
def test_rules_of_children_have_text(name: str) -> None:
    for genome in FAMILIES[name][::4]:
        rule = to_rule(genome)
        text = name_rule(rule)
        assert parse(str(text)) == text
        assert text.rule.key == rule.key


@pytest.mark.parametrize("name", VOCABULARIES)
def test_families_are_varied(name: str) -> None:
    keys = {to_rule(genome).key for genome in FAMILIES[name]}
    assert len(keys) > 0.6 * len(FAMILIES[name])
    states = {len(genome.states) for genome in FAMILIES[name]}
    assert states == set(range(VOCABULARIES[name].limits.explicit_states + 1))


def test_a_late_state_may_read_the_update() -> None:
    genomes = FAMILIES["full"] + FAMILIES["lion2023"]
    late = [g for g in genomes if any(state > g.update for state in g.states)]
    assert any(f"new{g.update}" in to_text(g).splitlines()[s] for g in late for s in g.states if s > g.update)


@pytest.mark.parametrize("origin", VARIATIONS)
def test_each_variation_changes_things_and_keeps_types(origin: str) -> None:
    vocabulary = VOCABULARIES["full"]
    people = [*SEEDS, *FAMILIES["full"]]
    changed = 0
    for i in range(200):
        rng = child_rng(7, 3, i)
        first, second = (people[draw_index(rng, len(people))] for _ in range(2))
        before = to_text(first), to_text(second)
        child = VARIATIONS[origin](rng, vocabulary, first, second)
        assert (to_text(first), to_text(second)) == before  # parents stay as they were
        if child is not None:
            assert from_text(to_text(child)) == child  # types, references and order of lines are checked
            changed += child != first
    assert changed >= 40


def test_what_each_variation_does() -> None:
    vocabulary = VOCABULARIES["full"]
    adam = from_rule(known("adam").rule.rule)
    size = len(adam)
    for i in range(100):
        rng = child_rng(5, 0, i)
        made = {name: VARIATIONS[name](rng, vocabulary, adam, SEEDS[1]) for name in VARIATIONS}
        for name in ("hoist", "shrink"):
            assert made[name] is None or len(made[name]) < size
        assert made["insert"] is None or len(made["insert"]) > size
        for name in ("constant", "node"):
            pairs = zip(made[name].lines[0].tree, adam.lines[0].tree, strict=True)
            assert sum(a != b for a, b in pairs) == 1
        assert made["add_state"] is None or len(made["add_state"].states) == 1
        assert made["drop_state"] is None
    assert not VARIATIONS["drop_state"](child_rng(5, 1, 0), vocabulary, SEEDS[1], SEEDS[1]).states


def test_descendants_of_seeds_keep_the_limits() -> None:
    vocabulary = VOCABULARIES["bello2017"]  # narrower than the seeds
    people = [from_rule(item.rule.rule) for item in KNOWN.values()]
    for i in range(150):
        rng = child_rng(2, 0, i)
        first, second = (people[draw_index(rng, len(people))] for _ in range(2))
        child = make_child(rng, vocabulary, first, second)
        assert child.rule.nodes <= vocabulary.limits.nodes and child.rule.slots <= vocabulary.limits.states


def test_trees_stay_as_low_as_the_grammar_says() -> None:
    vocabulary = Vocabulary(load_grammar("full").with_limits(depth=2))
    people = [random_child(child_rng(0, 0, i), vocabulary).genome for i in range(40)]
    people += [make_child(child_rng(0, 1, i), vocabulary, people[i], people[-i]).genome for i in range(1, 40)]
    assert {bridge.height(line.tree) for genome in people for line in genome.lines} == {0, 1, 2}


def test_crossover_keeps_reading_the_like_numbered_state() -> None:
    text = (
        "state tensor scale:0.0 | lerp.0 g old0 beta:0.9\nstate tensor scale:0.0 | lerp.0 g old1 beta:0.99\n"
        "update tensor | add.0 sign.0 old0 mul.0 w exp.0 neg.0 old1\n"
    )
    genome = from_text(text)
    children = [
        VARIATIONS["crossover"](child_rng(0, 0, i), VOCABULARIES["full"], genome, genome) for i in range(300)
    ]
    texts = " ".join(to_text(child) for child in children if child is not None)
    assert texts.count("neg.0 old1") > 100
    assert texts.count("neg.0 old0") < 0.1 * texts.count("neg.0 old1")  # only where a leaf was exchanged


def test_a_child_that_cannot_be_made_is_a_copy() -> None:
    vocabulary = VOCABULARIES["full"]
    sgd = SEEDS[0]
    child = make_child(child_rng(0, 0, 0), vocabulary, sgd, sgd, {"shrink": 1.0})
    assert child.origin == "copy" and child.genome == sgd
    tiny = Vocabulary(load_grammar("full").with_limits(nodes=2))
    adam = from_rule(known("adam").rule.rule)
    assert make_child(child_rng(0, 0, 0), tiny, adam, adam, {"constant": 1.0}).origin == "random"
    assert TRIES > 1


def test_limits_that_leave_only_the_gradient() -> None:
    vocabulary = Vocabulary(parse_grammar('ops = ["dot", "sub"]\nterminals = ["g"]\n[limits]\nnodes = 2\n'))
    assert {to_text(random_child(child_rng(0, 0, i), vocabulary).genome) for i in range(20)} <= {
        "update tensor | g\n",
        "update tensor | sub.0 g g\n",
    }


def test_rough_nodes_stay_near_the_real_count() -> None:
    for name, vocabulary in VOCABULARIES.items():
        for genome in FAMILIES[name]:
            rule = to_rule(genome)
            assert rule.nodes <= 4 / 3 * rough_nodes(rule), to_text(genome)
            assert fitting_rule(vocabulary, genome) == rule


def test_a_rule_that_breaks_a_law_is_refused() -> None:
    # A state that no tensor ever reaches is a number, and its norm no rule.
    text = "state tensor scale:0.0 | neg.0 old0\nupdate tensor | mul.0 g norm.0 old0\n"
    assert fitting_rule(VOCABULARIES["full"], from_text(text)) is None
    assert fitting_rule(VOCABULARIES["full"], from_text("update tensor | neg.0 w\n")) is None  # no gradient


def test_draws_come_from_the_generator_alone() -> None:
    random.seed(3)
    np.random.seed(3)
    before = random.getstate(), np.random.get_state()[1].tolist()
    first = family("full", 40)
    assert (random.getstate(), np.random.get_state()[1].tolist()) == before
    random.seed(4)
    np.random.seed(4)
    assert family("full", 40) == first


def test_children_differ_by_seed_generation_and_index() -> None:
    vocabulary = VOCABULARIES["full"]
    places = [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1)]
    assert len({to_text(random_child(child_rng(*place), vocabulary).genome) for place in places}) == 4


@pytest.mark.parametrize("kind", CONSTANT_TYPES.values(), ids=CONSTANT_TYPES)
def test_constants_stay_in_range_however_far_they_walk(kind: type) -> None:
    for vocabulary in VOCABULARIES.values():
        rng = child_rng(0, 0, 0)
        node = vocabulary.constant(rng, kind)
        seen = set()
        for _ in range(300):
            moved = vocabulary.step(rng, node)
            if moved is not None:
                node = moved
            assert node.ret is kind and allowed(vocabulary, node)
            seen.add(node.value)
        assert len(seen) > 1 or vocabulary.step(rng, node) is None


def test_betas_step_on_the_scale_of_one_minus_beta() -> None:
    vocabulary = VOCABULARIES["full"]
    rng = child_rng(0, 0, 0)
    near, far = (
        [vocabulary.step(rng, bridge.const(b, Beta)).value for _ in range(300)] for b in (0.999, 0.9)
    )
    logs = [np.log(1 - np.array(values)) for values in (near, far)]
    assert abs(logs[0].std() - logs[1].std()) < 0.1
    assert abs(np.median(1 - np.array(near)) - 0.001) < 2e-4
    assert np.mean(np.array(near) <= 0.99) > 0.03, "some steps are long"
    assert np.mean(np.abs(logs[0] - np.log(0.001)) < 0.4) > 0.4, "most are short"


def test_weights_shape_what_is_drawn() -> None:
    text = 'ops = ["add", "mul"]\nterminals = ["g", "w"]\n[weights]\n'
    counts = {}
    for label, weights in {"more": "mul = 9\n", "none": "mul = 0\n"}.items():
        vocabulary = Vocabulary(parse_grammar(text + weights))
        made = " ".join(to_text(random_child(child_rng(0, 0, i), vocabulary).genome) for i in range(200))
        counts[label] = (made.count("mul."), made.count("add."))
    assert counts["more"][0] > 4 * counts["more"][1] > 0
    assert counts["none"][0] == 0 < counts["none"][1]


def test_pool_draws_in_proportion() -> None:
    pool = Pool(["a", "b", "c"], [1.0, 0.0, 3.0])
    drawn = [pool.draw(child_rng(0, 0, i)) for i in range(400)]
    assert drawn.count("b") == 0 and 0.65 < drawn.count("c") / 400 < 0.85
    assert pool.at(pool.total) == "c"


def test_full_trees_reach_their_depth() -> None:
    vocabulary = VOCABULARIES["lion2023"]
    for i in range(50):
        nodes = vocabulary.tree(child_rng(0, 0, i), Tensor, 3, full=True)
        assert bridge.height(nodes) == 3
        assert bridge.height(vocabulary.tree(child_rng(0, 1, i), Tensor, 3, full=False)) <= 3


# the bridge


def test_the_bridge_reads_trees() -> None:
    nodes = from_text("update tensor | add.0 mul.0 g w sign.0 neg.0 g\n").lines[0].tree
    assert [bridge.subtree_end(nodes, i) for i in range(len(nodes))] == [7, 4, 3, 4, 7, 7, 7]
    assert [bridge.depth_of(nodes, i) for i in range(len(nodes))] == [0, 1, 2, 2, 1, 2, 3]
    assert bridge.children(nodes, 0) == [1, 4] and bridge.height(nodes) == 3
    assert [t.__name__ for t in bridge.expected_types(nodes, Tensor)] == [
        "Tensor", "Tensor", "Tensor", "Value", "Value", "Tensor", "Tensor",
    ]  # fmt: skip


def test_nsga2_ranks_fronts_then_crowding_then_index() -> None:
    points = [(1.0, 1.0), (3.0, 1.0), (1.0, 3.0), (2.0, 2.0), (2.0, 2.0), (0.0, 0.0)]
    ranking = bridge.rank_nsga2(points, (1.0, 1.0), 6)
    assert ranking.order == (1, 2, 3, 4, 0, 5)
    assert ranking.rank == (0, 0, 0, 0, 1, 2)
    assert ranking.crowding[:2] == (float("inf"),) * 2
    assert bridge.rank_nsga2(points, (-1.0, -1.0), 1).order == (5,)
    assert bridge.rank_nsga2([], (1.0,), 3).order == ()
