"""Wishes that exclude each other: limits that no rule can meet, axes on which all rules are equal.

Knows what can be said before anything is trained. Knows the schema's keys, and reads no file but the grammar.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

from ruleforge.app.objectives import OBJECTIVES
from ruleforge.core.text import parse
from ruleforge.evaluate.limits import energy_pj

if TYPE_CHECKING:
    from ruleforge.app.schema import Config

Contradiction = tuple[str, str, str]

LEAST = parse("update = g\n").rule
"""The cheapest rule that reads the gradient."""


def contradictions(config: Config) -> Iterator[Contradiction]:
    """Where (a dotted key), what, and what to do about it."""
    if not config.training.full_rung and not config.training.rungs:
        yield (
            "training.full_rung",
            "without rungs and without the full rung no rule is trained",
            "give a rung, or leave full_rung out",
        )
    yield from _clocked(config)
    yield from _impossible_limits(config)
    yield from _pinned_axes(config)


def _table(config: Config) -> str:
    return "weights" if config.weights is not None else "objectives"


def _clocked(config: Config) -> Iterator[Contradiction]:
    if not config.deterministic:
        return
    why = "is measured by a clock, which deterministic = true rules out"
    hint = "use cost, which counts operations, or write deterministic = false"
    for name in config.axes:
        if OBJECTIVES[name].needs == "clock":
            yield f"{_table(config)}.{name}", f"objective {name!r} {why}", hint
    if config.limits.latency_ns is not None:
        yield "limits.latency_ns", f"the limit latency_ns {why}", hint


def _impossible_limits(config: Config) -> Iterator[Contradiction]:
    limits = config.limits
    cost = LEAST.cost
    for key, least in (
        ("flops_per_weight", cost.flops),
        ("bytes_per_weight", cost.bytes),
        ("energy_per_weight", energy_pj(LEAST)),
    ):  # fmt: skip
        value = getattr(limits, key)
        if value is not None and value < least:
            yield (
                f"limits.{key}",
                f"no rule can meet {key} = {value:g}: `update = g` takes {least:g}",
                "allow more",
            )
    widest = _grid_decades(config)
    trained = limits.trained
    if (asked := trained.get("lr_robustness", 0.0)) > widest:
        yield (
            "limits.lr_robustness",
            f"no rule can meet lr_robustness = {asked:g}: the learning rates span {widest:g} decades",
            "ask for less, or widen [training] lrs",
        )
    if (asked := trained.get("stability", 0.0)) > 1:
        yield "limits.stability", f"no rule can meet stability = {asked:g}: 1 is the most", "ask for less"
    if config.search.strategy == "hyper_only" and config.search.seed_rules:
        broken = [limits.static.broken_by(entry.rule().rule) for entry in config.search.seed_rules]
        if all(broken):
            yield (
                "limits",
                f"hyper_only keeps its seed rules' formulas, and each is beyond the limits: {broken[0]}",
                "allow more, or start from other rules",
            )  # fmt: skip


def _grid_decades(config: Config) -> float:
    lrs = config.training.lrs
    return math.log10(lrs.high / lrs.low)


def _pinned_axes(config: Config) -> Iterator[Contradiction]:
    """Axes on which every rule that keeps the limits has one value: they rank nothing."""
    limits, axes = config.limits, config.axes
    slots = min(limits.states, _slots_for(limits.bytes_per_weight))
    reasons = {
        "slots": slots < 1 and "no rule may have a state",
        "bytes": slots < 1 and "without states every rule moves the same bytes",
        "cost": limits.flops_per_weight <= LEAST.cost.flops and "only `update = g` is as cheap as that",
        "smoothness": not _reads_progress(config)
        and "neither the grammar nor a seed rule reads progress, so no rule owns a schedule",
        "lr_robustness": config.training.lrs.points == 1 and "a single learning rate spans no range",
        "stability": limits.trained.get("stability") == 1 and "the limit leaves 1 alone",
    }
    for name in axes:
        if why := reasons.get(name):
            yield f"{_table(config)}.{name}", f"objective {name!r} ranks nothing: {why}", "leave it out"


def _slots_for(bytes_per_weight: float | None) -> float:
    if bytes_per_weight is None:
        return math.inf
    return math.floor((bytes_per_weight - LEAST.cost.bytes) / 8)


def _reads_progress(config: Config) -> bool:
    from ruleforge.search.grammar import load_grammar

    return "progress" in load_grammar(config.grammar_ref).open_terminals or any(
        entry.rule().rule.reads("progress") for entry in config.search.seed_rules
    )
