"""From a config to what a run works with: plan, rungs, limits. One place decides each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import numpy as np

from ruleforge.app.schema import Config
from ruleforge.backends import fastest_plane, is_on_gpu
from ruleforge.core.text import RuleText
from ruleforge.evaluate.baselines import Baselines
from ruleforge.evaluate.evaluator import FINAL_SEED, SCORE_SEED, TUNE_SEED, Protocol
from ruleforge.evaluate.funnel import Rung
from ruleforge.evaluate.lanes import Plan
from ruleforge.evaluate.prepare import compilable, tell_one_by_one
from ruleforge.search.grammar import load_grammar
from ruleforge.search.strategies import Setup, Strategy, make_strategy
from ruleforge.search.variation import DEFAULT_WEIGHTS
from ruleforge.tasks import Workload

CONFIRM_SEED = 6000
RESCORE_SEED = 7000
RUNG_SEED = 8000
DEFAULT_LRS = (1e-4, 1.0, 9)
TYPICAL_LR = 1e-2
LANE_STEPS_PER_S = 15000.0
"""Of one worker, for estimates: searches on the built-in suites, all that a lane-step costs included."""
COMPILE_S = 10.0
"""What compiling one workload costs a core, in both chunk sizes."""
SAVED_S = 60e-6
"""What it saves a lane-step, in the median of the search suite's workloads."""
MANY = 10**9


def make_plan(
    config: Config,
    workloads: Sequence[Workload],
    backend: str = "auto",
    say: Callable[[str], None] = lambda text: None,
    validation: Sequence[Workload] = (),
) -> Plan:
    """The execution plan that a run records; `say` is told of a fallback.

    Args:
        config: of the search.
        workloads: that it trains on.
        backend: update plane, or "auto".
        say: told of a fallback.
        validation: workloads that the best are judged on besides.
    """
    tell_one_by_one((*workloads, *validation), say)
    training = config.training
    plane = backend if backend != "auto" else training.update_plane
    on_gpu = is_on_gpu(plane)
    return Plan(
        chunk_lanes=training.chunk_lanes,
        score_lanes=max(1, training.chunk_lanes // 4) if on_gpu else Plan.score_lanes,
        update_plane=fastest_plane(say) if plane == "auto" else plane,
        compiled=() if on_gpu else compilable(worth_compiling(config, workloads, validation), say),
        precision=training.precision,
        weight_decay=training.weight_decay,
        gradient_clip=training.gradient_clip,
    )


def grid(low: float, high: float, points: int) -> tuple[float, ...]:
    """Relative learning rates, evenly spaced on a log scale."""
    return tuple(float(v) for v in np.geomspace(low, high, points)) if points > 1 else (float(low),)


def coarse(lrs: Sequence[float], points: int) -> tuple[float, ...]:
    """A few learning rates out of a grid, around where normalised steps usually do best."""
    if points >= len(lrs):
        return tuple(lrs)
    middle = min(range(len(lrs)), key=lambda i: abs(np.log(lrs[i] / TYPICAL_LR)))
    stride = 2 if 2 * (points - 1) < len(lrs) else 1
    start = max(0, min(middle - stride * (points // 2), len(lrs) - 1 - stride * (points - 1)))
    return tuple(lrs[start + stride * k] for k in range(points))


def rung_protocols(
    config: Config, workloads: Sequence[Workload]
) -> list[tuple[tuple[Workload, ...], Protocol, float]]:
    """Workloads, protocol and promoted share of each rung; the full budget comes last, if wanted."""
    training = config.training
    lrs = grid(training.lrs.low, training.lrs.high, training.lrs.points)
    ladder: list[tuple[tuple[Workload, ...], Protocol, float]] = []
    for rung in training.rungs:
        places = tuple(workloads[: rung.workloads])
        n_steps = min(rung.steps, *(w.steps for w in places))
        protocol = Protocol(
            coarse(lrs, rung.lrs), (rung.schedule,), n_steps,
            tuple(RUNG_SEED + k for k in range(rung.seeds)), refine=rung.refine,
            stops=training.stop_hopeless,
        )  # fmt: skip
        ladder.append((places, protocol, rung.promote))
    if training.full_rung:
        ladder.append((tuple(workloads), full_protocol(config), 1.0))
    return ladder


def full_protocol(config: Config) -> Protocol:
    """How a rule is tuned and scored at its full budget."""
    training = config.training
    return Protocol(
        grid(training.lrs.low, training.lrs.high, training.lrs.points),
        tuple(training.schedules),
        score_seeds=tuple(SCORE_SEED + k for k in range(training.seeds)),
        tune_seeds=tuning_seeds(training.tune_seeds),
        refine=training.tuning == "refined",
        stops=training.stop_hopeless,
    )


def tuning_seeds(n: int) -> tuple[int, ...]:
    return tuple(TUNE_SEED + k for k in range(n))


def final_protocol(config: Config) -> Protocol:
    """How finalists and baselines are compared: the whole grid, widened, on seeds not used before."""
    training = config.training
    return Protocol(
        grid(training.lrs.low, training.lrs.high, training.lrs.points),
        tuple(training.schedules),
        score_seeds=tuple(FINAL_SEED + k for k in range(training.score_seeds)),
        tune_seeds=tuning_seeds(training.tune_seeds),
        widen=True,
    )


def confirm_protocol(config: Config) -> Protocol:
    """How contenders are looked at again: the full rung's way of tuning, scored on seeds of its own."""
    seeds = tuple(CONFIRM_SEED + k for k in range(config.search.confirm_seeds))
    return replace(full_protocol(config), score_seeds=seeds)


def rescoring_seeds(config: Config) -> tuple[int, ...]:
    """Scoring seeds that the best get besides."""
    return tuple(RESCORE_SEED + k for k in range(config.search.rescore_seeds))


def lanes_at_the_end(config: Config) -> int:
    """Lanes that the second look and the final train on each workload of both suites."""
    search = config.search
    return (
        search.finalists * final_protocol(config).n_lanes + search.confirm * confirm_protocol(config).n_lanes
    )


def make_rungs(
    ladder: Sequence[tuple[tuple[Workload, ...], Protocol, float]], baselines: Sequence[Baselines]
) -> list[Rung]:
    return [
        Rung(places, protocol, tuned, share)
        for (places, protocol, share), tuned in zip(ladder, baselines, strict=True)
    ]


def baseline_rules(config: Config) -> dict[str, RuleText]:
    """The baselines' rules by name."""
    return {entry.name: entry.rule() for entry in config.baselines.rules}


def default_grid() -> tuple[float, ...]:
    return grid(*DEFAULT_LRS)


def lane_steps(ladder: Sequence[tuple[tuple[Workload, ...], Protocol, float]], n_rules: int) -> list[int]:
    """Lane-steps that each rung costs when `n_rules` enter the first."""
    return [sum(spent.values()) for spent in _lane_steps_by_workload(ladder, n_rules)]


def _lane_steps_by_workload(
    ladder: Sequence[tuple[tuple[Workload, ...], Protocol, float]], n_rules: int
) -> Iterator[Counter[str]]:
    """The same for each rung, by the names of its workloads."""
    for places, protocol, share in ladder:
        yield Counter({w.name: n_rules * protocol.n_lanes * protocol.steps(w) for w in places})
        n_rules = max(1, round(share * n_rules))


def expected_generations(config: Config, lane_steps_per_generation: int) -> int:
    """Generations until the first of the config's limits ends the search, on one worker.

    A function of the config alone: what is decided by it is the same on every machine.
    """
    search = config.search
    limits = [search.generations or MANY]
    if search.evaluations is not None:
        limits.append(-(-search.evaluations // search.population))
    if search.lane_steps is not None:
        limits.append(-(-search.lane_steps // max(1, lane_steps_per_generation)))
    if search.budget_s is not None:
        limits.append(int(search.budget_s * LANE_STEPS_PER_S / max(1, lane_steps_per_generation)))
    return max(1, min(limits))


def worth_compiling(
    config: Config, workloads: Sequence[Workload], validation: Sequence[Workload] = ()
) -> list[Workload]:
    """Workloads on which a search, its end included, trains so much that compiling repays its seconds."""
    wanted = config.training.gradient_plane
    everywhere = [*workloads, *(w for w in validation if w not in workloads)]
    if wanted != "auto" or not workloads:
        return everywhere if wanted == "compiled" else []
    ladder = rung_protocols(config, workloads)
    generations = expected_generations(config, sum(lane_steps(ladder, config.search.population)))
    spent = sum(_lane_steps_by_workload(ladder, config.search.population * generations), Counter[str]())
    spent.update({w.name: lanes_at_the_end(config) * w.steps for w in everywhere})
    return [w for w in everywhere if spent[w.name] * SAVED_S > COMPILE_S]


def search_strategy(config: Config) -> Strategy:
    """The strategy that a config names, on its grammar within its limits."""
    grammar = load_grammar(config.grammar_ref)
    own = grammar.limits
    grammar = grammar.with_limits(
        nodes=min(own.nodes, config.limits.nodes),
        states=min(own.states, config.limits.states),
        depth=own.depth,
    )
    search = config.search
    if search.prior is not None:
        grammar = grammar.reweighted(search.prior.weights)
    others = sum(weight for name, weight in DEFAULT_WEIGHTS.items() if name != "crossover")
    share = min(search.crossover, 0.99)
    weights = {**DEFAULT_WEIGHTS, "crossover": others * share / (1 - share)}
    return make_strategy(
        search.strategy,
        Setup(
            grammar=grammar,
            directions=("max",) if config.signed_weights is not None else tuple(config.axes.values()),
            population=search.population,
            seed=config.seed,
            seeds=tuple((entry.name, entry.rule().rule) for entry in search.seed_rules),
            immigrants=search.immigrants,
            weights=weights,
            selection=search.selection,
            tournament=search.tournament,
            tune_top=search.tune_top,
            tune_moves=search.tune_moves,
            restarts=search.restarts,
            novelty=search.novelty,
            alike=search.alike,
            islands=search.islands,
            migrate_every=search.migrate_every,
            migrants=search.migrants,
        ),
    )
