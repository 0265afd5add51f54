"""Breeding in workers is asking the strategy, whoever does it."""

from __future__ import annotations

import json

import pytest

from ruleforge.app.breeding import SLICE, Litter, born, breed
from ruleforge.app.config import parse_config, resolved_toml
from ruleforge.app.schema import Config
from ruleforge.app.setup import search_strategy
from ruleforge.core.text import parse
from ruleforge.evaluate.funnel import describe
from ruleforge.evaluate.wire import from_text, to_text
from ruleforge.evaluate.workers import Workers
from ruleforge.search.strategies import Strategy, Told

POPULATION = 12


def config(strategy: str) -> Config:
    return parse_config(
        {
            "grammar": "adaptive",
            "search": {
                "strategy": strategy, "population": POPULATION, "generations": 3, "islands": 2,
                "seed_rules": ["sgd", "adam"], "selection": "epsilon_lexicase", "tune_top": 2,
            },
            "training": {"workloads": ["teacher_student"]},
            "objectives": {"speedup": "max", "complexity": "min"},
            "limits": {"nodes": 20},
        }
    )  # fmt: skip


def told(strategy: Strategy, generation: int) -> list[Told]:
    return [
        Told(p, 100 * generation + p.index, (float(p.index % 5), float(p.rule.nodes)), (0.1 * p.index,))
        for p in strategy.ask(generation)
    ]


@pytest.mark.parametrize("name", ["nsga2", "islands", "aging", "random", "hyper_only"])
@pytest.mark.parametrize("workers", [1, 2])
def test_what_is_bred_is_what_the_strategy_proposes(name: str, workers: int) -> None:
    options = config(name)
    spelled, strategy = resolved_toml(options), search_strategy(options)
    with Workers(workers, "threads") as pool:
        for generation in range(3):
            asked = strategy.ask(generation, 3, SLICE + 4)
            bred = breed(spelled, json.dumps(strategy.state()), generation, 3, SLICE + 4, pool)
            assert [(b.generation, b.index, b.parents, b.origin) for b in bred] == [
                (p.generation, p.index, p.parents, p.origin) for p in asked
            ]
            assert [b.genome for b in bred] == [p.genome for p in asked]
            assert [b.described for b in bred] == [describe(p.rule, options.limits.static) for p in asked]
            assert [b.judged["complexity"] for b in bred] == [p.rule.nodes for p in asked]
            strategy.tell(told(strategy, generation))


def test_what_is_bred_travels_as_text_and_keeps_its_bits() -> None:
    options = config("nsga2")
    state = json.dumps(search_strategy(options).state())
    (litter,) = from_text(to_text([Litter(resolved_toml(options), state, 0, 0, 6)]))
    bred = born(litter)
    assert from_text(to_text(bred)) == bred
    assert all(parse(each.described.text).rule.full_key == each.described.full_key for each in bred)
    assert {each.origin for each in bred[:2]} == {"seed:sgd", "seed:adam"}


def test_a_rule_beyond_the_limits_says_so_before_it_is_admitted() -> None:
    options = config("nsga2")
    tight = options.model_copy(update={"limits": options.limits.model_copy(update={"nodes": 3})})
    bred = born(Litter(resolved_toml(tight), json.dumps(search_strategy(tight).state()), 0, 0, 2))
    assert [each.described.refused for each in bred] == ["", "10 nodes, at most 3 are allowed"]
