"""The options of a strategy, one by one: what each does, and that a run with it goes on from its state."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from ruleforge.core.form import form_key
from ruleforge.errors import ConfigError, StoreError
from ruleforge.search.children import child_rng
from ruleforge.search.genome import Genome, to_rule
from ruleforge.search.grammar import load_grammar
from ruleforge.search.islands import Islands
from ruleforge.search.selection import epsilon_lexicase, epsilons, novelties
from ruleforge.search.strategies import Proposal, Setup, Strategy, Told, make_strategy
from tests.search.test_strategies import SETUP, judge, likeness

OPTIONS: dict[str, tuple[str, dict[str, Any]]] = {
    "lexicase": ("nsga2", {"selection": "epsilon_lexicase"}),
    "tuned siblings": ("nsga2", {"tune_top": 3, "tune_moves": 2}),
    "restarts": ("nsga2", {"restarts": 1}),
    "novelty": ("nsga2", {"novelty": True}),
    "few of a form": ("nsga2", {"alike": 1}),
    "islands": ("islands", {"islands": 3, "migrate_every": 2}),
    "all at once": (
        "islands",
        {"islands": 3, "selection": "epsilon_lexicase", "tune_top": 2, "restarts": 2, "novelty": True},
    ),
    "aging by lexicase": ("aging", {"selection": "epsilon_lexicase"}),
}


def behaviour(genome: Genome) -> tuple[float, ...]:
    return tuple(float(v) for v in np.random.default_rng(len(genome)).standard_normal(8))


def cases(proposal: Proposal) -> tuple[float, ...]:
    return tuple(likeness(proposal.genome) + (proposal.index * k) % 7 for k in range(4))


def tell(strategy: Strategy, proposals: list[Proposal]) -> None:
    strategy.tell(
        [
            Told(p, 1000 * p.generation + p.index, judge(p), cases(p), behaviour(p.genome), form_key(p.rule))
            for p in proposals
        ]
    )


def log_of(strategy: Strategy, generations: range) -> list[str]:
    log = []
    for generation in generations:
        proposals = strategy.ask(generation)
        log += [f"{p.origin} {p.parents} {p.rule.full_key}" for p in proposals]
        tell(strategy, proposals)
        log.append(str([person.id for person in strategy.population]))
    return log


def made(option: str, **more: Any) -> Strategy:
    name, values = OPTIONS[option]
    return make_strategy(name, replace(SETUP, **values, **more))


@pytest.mark.parametrize("option", OPTIONS)
def test_an_option_changes_the_run_and_goes_on_from_its_state(option: str) -> None:
    whole = log_of(made(option), range(5))
    assert whole != log_of(make_strategy(OPTIONS[option][0], replace(SETUP, islands=2)), range(5))
    for stop in (1, 3):
        first, second = made(option), made(option)
        before = log_of(first, range(stop))
        state = json.loads(json.dumps(first.state(), allow_nan=False))
        second.restore(state)
        assert second.state() == state
        assert before + log_of(second, range(stop, 5)) == whole


# lexicase

TABLES = arrays(np.float64, st.tuples(st.integers(1, 7), st.integers(1, 4)), elements=st.integers(0, 3))


@given(TABLES, st.integers(0, 1000))
def test_lexicase_is_what_its_definition_says(table: np.ndarray, seed: int) -> None:
    chosen = epsilon_lexicase(child_rng(seed, 0, 0), table, epsilons(table))
    rng = child_rng(seed, 0, 0)
    marks = [rng.random() for _ in range(table.shape[1])]
    left = list(range(len(table)))
    for case in sorted(range(len(marks)), key=lambda k: marks[k]):
        column = [float(v) for v in table[:, case]]
        middle = float(np.median(column))
        near = float(np.median([abs(v - middle) for v in column]))
        best = max(column[i] for i in left)
        left = [i for i in left if column[i] >= best - near]
        if len(left) == 1:
            break
    assert chosen == left[int(rng.random() * len(left))]


def test_who_is_within_epsilon_of_the_best_stays() -> None:
    table = np.array([[0.0], [1.0], [2.0], [3.0]])
    assert epsilons(table).tolist() == [1.0]
    assert {epsilon_lexicase(child_rng(1, 0, k), table, np.ones(1)) for k in range(60)} == {2, 3}


def test_specialists_become_parents() -> None:
    table = np.array([[9.0, 0.0, 0.0], [0.0, 9.0, 0.0], [0.0, 0.0, 9.0], *[[3.5, 3.5, 3.5]] * 4])
    drawn = [epsilon_lexicase(child_rng(1, 0, k), table, np.zeros(3)) for k in range(200)]
    assert set(drawn) == {0, 1, 2}  # those of the best mean are best on no case


# novelty


def test_novelty_is_distance_to_the_nearest_whatever_the_scale() -> None:
    crowd = [(1.0, 0.01 * k, 0.0) for k in range(8)]
    found = novelties([*crowd, (0.0, 0.0, 1.0), ()])
    assert max(found) == found[8] > 10 * max(found[:8]) and found[9] == 0.0
    scaled = novelties([tuple(7 * v for v in each) for each in [*crowd, (0.0, 0.0, 1.0), ()]])
    assert scaled == pytest.approx(found)
    assert novelties([]) == [] and novelties([(1.0,)]) == [0.0]


def test_novelty_keeps_what_is_unlike_the_others_and_not_bad() -> None:
    alone = replace(SETUP, population=4, directions=("max",), novelty=True)
    plain = replace(alone, novelty=False)
    kept = {}
    for name, setup in (("novel", alone), ("plain", plain)):
        strategy = make_strategy("nsga2", setup)
        proposals = strategy.ask(0, 0, 12)
        odd = [9, 10]  # one fair, one bad
        values = {9: 6.0, 10: 0.0}
        strategy.tell([
            Told(p, k, (values.get(k, float(k)),), (), (0.0, 1.0) if k in odd else (1.0, 0.001 * k))
            for k, p in enumerate(proposals)
        ])  # fmt: skip
        kept[name] = {person.id for person in strategy.population}
    assert 9 in kept["novel"] and 10 not in kept["novel"] and 9 not in kept["plain"]


# constants


def test_the_best_get_siblings_with_other_constants_first_in_each_generation() -> None:
    strategy = made("tuned siblings")
    tell(strategy, strategy.ask(0))
    best = sorted(strategy.population, key=lambda p: (-p.objectives[0], p.id))[:3]
    asked = strategy.ask(1)
    for index, proposal in enumerate(asked[:6]):
        parent = best[index // 2]
        if proposal.origin == "constant" and proposal.parents == (parent.id,):
            assert [n.name for line in proposal.genome.lines for n in line.tree if n.arity] == [
                n.name for line in parent.genome.lines for n in line.tree if n.arity
            ]
    assert sum(p.origin == "constant" for p in asked[:6]) >= 2
    assert sum(p.origin == "constant" for p in asked[6:]) <= 6


# restarts


def test_a_population_that_stalls_starts_anew() -> None:
    strategy = make_strategy("nsga2", replace(SETUP, restarts=2, immigrants=0.0))
    sizes = []
    for generation in range(6):
        asked = strategy.ask(generation)
        strategy.tell([Told(p, 100 * generation + p.index, (1.0, 1.0 + p.index)) for p in asked])
        sizes.append(len(strategy.population))
    assert sizes[0] > 0 and sizes[2] == 0 and sizes[3] > 0
    control = make_strategy("random", replace(SETUP, restarts=2))
    for generation in range(4):
        asked = control.ask(generation)
        control.tell([Told(p, 100 * generation + p.index, (1.0, 1.0 + p.index)) for p in asked])
    assert control.population


# islands


def islands(**more: Any) -> Islands:
    strategy = make_strategy("islands", replace(SETUP, islands=3, **more))
    assert isinstance(strategy, Islands)
    return strategy


def test_islands_share_the_population_and_breed_apart() -> None:
    strategy = islands(migrate_every=100, immigrants=0.0)
    assert sum(part.setup.population for part in strategy.parts) == SETUP.population
    for generation in range(3):
        tell(strategy, strategy.ask(generation))
    homes = [{person.id for person in part.population} for part in strategy.parts]
    assert all(homes) and not homes[0] & homes[1] and not homes[1] & homes[2]
    for proposal in strategy.ask(3):
        assert set(proposal.parents) <= homes[proposal.index % 3]
    assert {p.id for p in strategy.population} == set.union(*homes)


def test_the_best_of_an_island_reach_the_next_one() -> None:
    strategy = islands(migrate_every=2, migrants=1)
    tell(strategy, strategy.ask(0))
    homes = [{person.id for person in part.population} for part in strategy.parts]
    assert not homes[0] & homes[1]
    tell(strategy, strategy.ask(1))
    homes = [{person.id for person in part.population} for part in strategy.parts]
    assert any(homes[k - 1] & homes[k] for k in range(3))
    ids = [person.id for person in strategy.population]
    assert len(ids) == len(set(ids))


def test_a_restart_reaches_every_island() -> None:
    strategy = islands()
    tell(strategy, strategy.ask(0))
    people = strategy.population[:2]
    strategy.restart(people)
    assert all({p.id for p in part.population} == {p.id for p in people} for part in strategy.parts)


def test_islands_without_room_and_foreign_islands_are_refused() -> None:
    with pytest.raises(ConfigError, match="13 islands of 24"):
        make_strategy("islands", replace(SETUP, islands=13))
    strategy = islands()
    tell(strategy, strategy.ask(0))
    state = strategy.state()
    with pytest.raises(StoreError, match="islands cannot be read"):
        make_strategy("islands", replace(SETUP, islands=2)).restore(state)
    for broken in ([{}] * 3, 7, [{"ids": [10**9]}] * 3):
        with pytest.raises(StoreError, match="islands cannot be read"):
            islands().restore({**state, "islands": broken})


# learned weights


def test_a_reweighted_grammar_draws_what_it_favours() -> None:
    grammar = load_grammar("full")
    setup = replace(SETUP, grammar=grammar, seeds=())
    favoured = replace(setup, grammar=grammar.reweighted({"sign": 50.0, "no_such_op": 3.0}))

    def share(chosen: Setup) -> float:
        asked = make_strategy("random", chosen).ask(0, 0, 150)
        return (
            sum(any(n.name.startswith("sign") for line in p.genome.lines for n in line.tree) for p in asked)
            / 150
        )

    assert share(favoured) > 2 * share(setup)
    assert "no_such_op" not in favoured.grammar.weights


def test_no_more_of_a_niche_survive_than_may_and_they_are_its_best() -> None:
    strategy, told = make_strategy("nsga2", replace(SETUP, alike=2)), []
    for generation in range(4):
        proposals = strategy.ask(generation)
        tell(strategy, proposals)
        told += [(form_key(p.rule), 1000 * generation + p.index, judge(p)) for p in proposals]
    alive = {person.id: person for person in strategy.population}
    counts = Counter(person.niche for person in alive.values())
    assert max(counts.values()) == 2
    for form in counts:
        values = {n: objectives[0] for key, n, objectives in told if key == form and objectives}
        here = [n for n in values if n in alive]
        assert min(values[n] for n in here) >= sorted(values.values())[-min(2, len(values))]
    crowded = make_strategy("nsga2", SETUP)
    for generation in range(4):
        tell(crowded, crowded.ask(generation))
    assert max(Counter(form_key(to_rule(p.genome)) for p in crowded.population).values()) > 2
