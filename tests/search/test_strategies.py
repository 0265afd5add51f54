"""Strategies by ask and tell: the same seed gives the same run, however it is cut, stopped or resumed."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace

import pytest

from ruleforge.core.known import known
from ruleforge.errors import ConfigError, StoreError
from ruleforge.search.genome import Genome, from_rule, to_rule, to_text
from ruleforge.search.grammar import load_grammar
from ruleforge.search.strategies import STRATEGIES, Proposal, Setup, Strategy, Told, make_strategy

SEEDS = tuple((name, known(name).rule.rule) for name in ("sgd", "adam", "lion"))
SETUP = Setup(load_grammar("adaptive"), ("max", "min"), population=24, seed=5, seeds=SEEDS)
TARGET = from_rule(known("rmsprop_centered").rule.rule)


def histogram(genome: Genome) -> dict[str, int]:
    names = [item.name.split(".")[0] for line in genome.lines for item in line.tree if item.arity]
    return {name: names.count(name) for name in set(names)}


def likeness(genome: Genome) -> float:
    """Minus the distance of the op counts from a target's: an objective that needs no training."""
    own, wanted = histogram(genome), histogram(TARGET)
    return -float(sum(abs(own.get(name, 0) - wanted.get(name, 0)) for name in {*own, *wanted}))


def judge(proposal: Proposal) -> tuple[float, ...] | None:
    """Likeness up, size down; a few are rejected."""
    return None if proposal.index % 11 == 7 else (likeness(proposal.genome), float(len(proposal.genome)))


def run(
    strategy: Strategy, generations: range, ask: Callable[[Strategy, int], list[Proposal]] | None = None
) -> list[str]:
    """A search with ids in order of asking; returns a log of all that was proposed and kept."""
    log = []
    for generation in generations:
        proposals = ask(strategy, generation) if ask else strategy.ask(generation)
        log += [f"{p.generation} {p.index} {p.origin} {p.parents} {to_text(p.genome)}" for p in proposals]
        strategy.tell([Told(p, 1000 * p.generation + p.index, judge(p)) for p in proposals])
        log.append(str([person.id for person in strategy.population]))
    return log


@pytest.mark.parametrize("name", STRATEGIES)
def test_the_same_seed_gives_the_same_run(name: str) -> None:
    log = run(make_strategy(name, SETUP), range(3))
    assert run(make_strategy(name, SETUP), range(3)) == log
    assert run(make_strategy(name, replace(SETUP, seed=6)), range(3)) != log


@pytest.mark.parametrize("name", STRATEGIES)
def test_how_a_generation_is_asked_does_not_matter(name: str) -> None:
    def in_chunks(strategy: Strategy, generation: int) -> list[Proposal]:
        chunks = [strategy.ask(generation, start, 8) for start in (16, 0, 8)]
        return [*chunks[1], *chunks[2], *chunks[0]]

    def one_by_one(strategy: Strategy, generation: int) -> list[Proposal]:
        return [strategy.ask(generation, index, 1)[0] for index in range(24)]

    log = run(make_strategy(name, SETUP), range(3))
    assert run(make_strategy(name, SETUP), range(3), in_chunks) == log
    assert run(make_strategy(name, SETUP), range(3), one_by_one) == log


def test_the_order_of_telling_does_not_matter() -> None:
    one, other = make_strategy("nsga2", SETUP), make_strategy("nsga2", SETUP)
    told = [Told(p, p.index, judge(p)) for p in one.ask(0)]
    one.tell(told)
    other.tell(random.Random(0).sample(told, len(told)))
    assert one.state() == other.state()


@pytest.mark.parametrize("name", STRATEGIES)
@pytest.mark.parametrize("stop", [0, 1, 3])
def test_a_restored_strategy_goes_on_as_if_nothing_had_happened(name: str, stop: int) -> None:
    whole = make_strategy(name, SETUP)
    log = run(whole, range(5))
    first = make_strategy(name, SETUP)
    before = run(first, range(stop))
    state = json.loads(json.dumps(first.state(), allow_nan=False))
    second = make_strategy(name, SETUP)
    second.restore(state)
    assert second.state() == state
    assert before + run(second, range(stop, 5)) == log
    assert second.state() == whole.state()


def test_a_generation_can_be_asked_for_more() -> None:
    strategy = make_strategy("nsga2", SETUP)
    for generation in (0, 1):
        proposals = strategy.ask(generation, 0, 24) + strategy.ask(generation, 24, 40)
        assert [p.index for p in proposals] == list(range(64))
        assert len({to_text(p.genome) for p in proposals}) > 40
        strategy.tell([Told(p, 100 * generation + p.index, judge(p)) for p in proposals])
        assert len(strategy.population) == 24


def test_the_first_generation_starts_with_the_seeds() -> None:
    proposals = make_strategy("nsga2", SETUP).ask(0)
    assert [p.origin for p in proposals[:3]] == ["seed:sgd", "seed:adam", "seed:lion"]
    assert [p.rule.nodes for p in proposals[1:2]] == [known("adam").rule.rule.nodes]
    others = {p.origin.partition(":")[2] for p in proposals[3:]}
    assert others == {"", "sgd", "adam", "lion"}  # random ones, and variations of each seed


def test_a_cold_start_and_the_control_know_no_seed() -> None:
    cold = make_strategy("nsga2", replace(SETUP, seeds=()))
    control = make_strategy("random", SETUP)
    assert {p.origin for p in cold.ask(0)} == {"random"}
    run(control, range(2))
    assert {p.origin for p in control.ask(2)} == {"random"}
    assert [to_text(p.genome) for p in cold.ask(0)] != [to_text(p.genome) for p in control.ask(2)]


def test_parents_are_alive_and_fit_the_origin() -> None:
    strategy = make_strategy("nsga2", SETUP)
    run(strategy, range(2))
    alive = {person.id for person in strategy.population}
    proposals = strategy.ask(2, 0, 200)
    for p in proposals:
        assert set(p.parents) <= alive
        assert len(p.parents) == {"random": 0, "crossover": 2, "blend": 2}.get(p.origin, 1)
    immigrants = sum(p.origin == "random" for p in proposals)
    assert 5 <= immigrants <= 40  # a tenth of them


def test_rules_are_those_of_the_genomes() -> None:
    strategy = make_strategy("nsga2", SETUP)
    run(strategy, range(2))
    for p in strategy.ask(2):
        assert p.rule == to_rule(p.genome) and not p.rule.hypers


def test_nothing_good_is_lost_and_the_front_is_the_best() -> None:
    strategy = make_strategy("nsga2", SETUP)
    best: list[float] = []
    for generation in range(5):
        told = [Told(p, 1000 * generation + p.index, judge(p)) for p in strategy.ask(generation)]
        strategy.tell(told)
        best.append(max(person.objectives[0] for person in strategy.population))
        assert best[-1] >= max(item.objectives[0] for item in told if item.objectives)
        for person in strategy.front():
            assert not any(
                other.objectives[0] >= person.objectives[0]
                and other.objectives[1] <= person.objectives[1]
                and other.objectives != person.objectives
                for other in strategy.population
            )
    assert best == sorted(best)


def test_a_larger_tournament_is_more_pressure() -> None:
    shares = []
    for size in (1, 2, 8):
        strategy = make_strategy("nsga2", replace(SETUP, immigrants=0.0, tournament=size))
        proposals = strategy.ask(0, 0, 20)
        strategy.tell([Told(p, p.index, (float(p.index), float(p.index % 2))) for p in proposals])
        best = {person.id for person in strategy.best(5)}
        shares.append(sum(p.parents[0] in best for p in strategy.ask(1, 0, 300) if p.parents) / 300)
    assert 0.15 < shares[0] < 0.4 and shares[0] + 0.1 < shares[1] < shares[2] - 0.1


def test_parents_come_from_where_the_front_is_thin() -> None:
    strategy = make_strategy("nsga2", replace(SETUP, immigrants=0.0))
    points = [(0.0, 0.0), (100.0, 100.0), *((50 + i / 10, 50 + i / 10) for i in range(20))]
    proposals = strategy.ask(0, 0, len(points))
    strategy.tell([Told(p, p.index, point) for p, point in zip(proposals, points, strict=True)])
    assert len(strategy.front()) == len(points)
    firsts = [p.parents[0] for p in strategy.ask(1, 0, 400)]
    assert firsts.count(0) + firsts.count(1) > 400 * 3 / len(points)  # about twice their share


def test_rejects_duplicates_and_broken_numbers_stay_out() -> None:
    strategy = make_strategy("nsga2", SETUP)
    a, b, c, d, e = strategy.ask(0, 0, 5)
    strategy.tell([
        Told(a, 1, (1.0, 1.0)), Told(b, 1, (1.0, 1.0)), Told(c, 2, None), Told(d, 3, (float("nan"), 1.0)),
        Told(e, 4, (float("inf"), 1.0)),
    ])  # fmt: skip
    assert [person.id for person in strategy.population] == [1]
    strategy.tell([Told(b, 1, (2.0, 0.0))])  # an id that is alive already
    assert strategy.population[0].objectives == (1.0, 1.0)
    with pytest.raises(ValueError, match="2 objectives"):
        strategy.tell([Told(c, 9, (1.0,))])


def test_a_generation_of_rejects_leads_to_fresh_starts() -> None:
    strategy = make_strategy("nsga2", SETUP)
    strategy.tell([Told(p, p.index, None) for p in strategy.ask(0)])
    assert strategy.population == ()
    again = strategy.ask(1)
    assert len(again) == 24 and not any(p.origin.startswith("seed:") for p in again)


def test_hyper_only_keeps_the_formula() -> None:
    strategy = make_strategy("hyper_only", replace(SETUP, seeds=SEEDS[1:2]))
    shape = [item.name for item in from_rule(SEEDS[0][1]).lines[0].tree if item.arity]
    run(strategy, range(3))
    adam = from_rule(SEEDS[1][1])
    for p in strategy.ask(3):
        tree = p.genome.lines[0].tree
        assert [n.name for n in tree if n.arity] == [n.name for n in adam.lines[0].tree if n.arity] != shape
        assert p.origin in ("constant", "copy")
    assert len({to_text(p.genome) for p in strategy.ask(3)}) > 12


def test_hyper_only_moves_seeds_beyond_the_limits() -> None:
    small = replace(SETUP, grammar=SETUP.grammar.with_limits(nodes=3, states=1), seeds=SEEDS[1:2])
    assert all(p.origin in ("seed:adam", "constant:adam") for p in make_strategy("hyper_only", small).ask(0))


def test_the_old_die_in_aging() -> None:
    strategy = make_strategy("aging", replace(SETUP, population=10))
    for generation in range(4):
        proposals = strategy.ask(generation)
        strategy.tell([Told(p, 100 * generation + p.index, (1.0 / (1 + generation), 1.0)) for p in proposals])
        assert {person.id // 100 for person in strategy.population} == {generation}


def test_nsga2_finds_more_than_random_search() -> None:
    wins = 0
    for seed in range(3):
        best = {}
        for name in ("nsga2", "random"):
            setup = replace(SETUP, directions=("max",), population=40, seed=seed, seeds=())
            strategy = make_strategy(name, setup)
            for generation in range(10):
                asked = strategy.ask(generation)
                strategy.tell([Told(p, 1000 * generation + p.index, (likeness(p.genome),)) for p in asked])
            best[name] = strategy.population[0].objectives[0]
        wins += best["nsga2"] > best["random"]
    assert wins >= 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"strategy": "aging"}, "strategy"),
        ({"seed": 6}, "seed"),
        ({"version": 0}, "version"),
        ({"population": [{"id": 1}]}, "cannot be read"),
        ({"population": [{"id": 1, "genome": "update tensor | nog", "objectives": [1, 2]}]}, "unknown node"),
        ({"population": 3}, "cannot be read"),
    ],
)
def test_a_foreign_state_is_refused(change: dict[str, object], message: str) -> None:
    strategy = make_strategy("nsga2", SETUP)
    with pytest.raises(StoreError, match=message):
        strategy.restore({**strategy.state(), **change})


def test_bad_setups_are_refused() -> None:
    with pytest.raises(ConfigError, match="unknown strategy 'nsga'") as caught:
        make_strategy("nsga", SETUP)
    assert "did you mean 'nsga2'" in caught.value.hint
    with pytest.raises(ConfigError, match="expected an objective"):
        make_strategy("nsga2", replace(SETUP, directions=()))
    with pytest.raises(ConfigError, match="expected an objective"):
        make_strategy("nsga2", replace(SETUP, population=0))
    with pytest.raises(ConfigError, match="rules to start from"):
        make_strategy("hyper_only", replace(SETUP, seeds=()))


def test_a_run_does_not_depend_on_the_process() -> None:
    code = (
        "from ruleforge.core.known import known\n"
        "from ruleforge.search.grammar import load_grammar\n"
        "from ruleforge.search.strategies import *\n"
        "s = make_strategy('nsga2', Setup(load_grammar('full'), ('max', 'min'), 20, 1,"
        " (('adam', known('adam').rule.rule),)))\n"
        "for n in range(3):\n"
        "    s.tell([Told(p, 100 * n + p.index, (p.rule.nodes, p.index % 5)) for p in s.ask(n)])\n"
        "print(s.state())\n"
    )
    said = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            capture_output=True,
            check=True,
            text=True,
            timeout=60,
        ).stdout
        for hash_seed in ("1", "2")
    }
    assert len(said) == 1 and "genome" in said.pop()
