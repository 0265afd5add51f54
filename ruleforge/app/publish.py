"""A finalist as people get it: simplified, with named hyperparameters and a docstring."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, Any

from ruleforge.core.text import RuleText
from ruleforge.evaluate.evaluator import Outcome
from ruleforge.simplify import promote_constants, simplify

if TYPE_CHECKING:
    from ruleforge.app.finals import Finalist

TIME_LIMIT_S = 20.0


@dataclass(frozen=True)
class Published:
    """A finalist's final text and what is said about it.

    Attributes:
        text: for the champion, the contents of `champion.rule`.
        record: `simplified` (text, nodes, relation, steps), and `lr_vs_adam`.
        notes: what simplification has to say besides, such as that its time was up.
    """

    text: str
    record: dict[str, Any]
    notes: tuple[str, ...] = ()


def publish(champion: Finalist, adam: Mapping[str, Outcome], seed: int) -> Published:
    """Simplify a finalist, name its constants, and say where it comes from.

    Args:
        champion: the finalist as it was trained; the raw rule stays in the run.
        adam: tuned Adam's outcomes on the same workloads, for the conversion of lr.
        seed: the run's seed.
    """
    simplified = simplify(champion.rule, time_limit_s=TIME_LIMIT_S)
    named = promote_constants(simplified.after)
    ratio = lr_ratio(champion.outcomes, adam, simplified.scale)
    text = RuleText(named.rule, named.lines, named.hypers, named.states, _docstring(champion, ratio, seed))
    record = {
        "simplified": {
            "text": str(text),
            "nodes": named.rule.nodes,
            "relation": simplified.relation,
            "steps": [step.as_json() for step in simplified.steps],
        },
        "lr_vs_adam": ratio,
    }
    return Published(str(text), record, simplified.notes)


def lr_ratio(mine: Mapping[str, Outcome], adam: Mapping[str, Outcome], scale: float) -> float | None:
    """Median over workloads of tuned lr / Adam's tuned lr: what to multiply Adam's lr by.

    Args:
        mine, adam: outcomes by workload.
        scale: simplified update / raw update, where they differ by a factor.
    """
    ratios = [mine[w].lr / adam[w].lr for w in mine if w in adam and mine[w].lr and adam[w].lr]  # type: ignore[operator]
    return float(f"{median(ratios) / scale:.2g}") if ratios else None


def _docstring(champion: Finalist, ratio: float | None, seed: int) -> str:
    lines = [
        f"Found by ruleforge: candidate {champion.id} of a search with seed {seed}. {champion.known_as}."
    ]
    for suite, standing in (("search", champion.search), ("validation", champion.validation)):
        summary = standing["vs_best_single"]
        if summary.speedup is not None and summary.ci is not None:
            low, high = summary.ci
            lines.append(
                f"Speed-up over the best single tuned baseline, {suite} suite: "
                f"x{summary.speedup:.2f} (95 % interval {low:.2f} to {high:.2f})."
            )
    if ratio is not None:
        lines.append(f"Start from {ratio:g} times the learning rate that Adam likes.")
    return "\n".join(lines)
