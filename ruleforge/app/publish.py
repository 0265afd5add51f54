"""A finalist as people get it: simplified, with named hyperparameters and a docstring."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from statistics import median
from typing import TYPE_CHECKING, Any

from ruleforge.app.learning_rates import lr_lines, lr_ratios, shown
from ruleforge.core.rule import Rule
from ruleforge.core.text import RuleText
from ruleforge.errors import InputError
from ruleforge.evaluate.evaluator import Outcome
from ruleforge.explain.nearest import Match, nearest
from ruleforge.simplify import promote_constants, simplify

if TYPE_CHECKING:
    from ruleforge.app.finals import Finalist

TIME_LIMIT_S = 20.0


@dataclass(frozen=True)
class Published:
    """A finalist's final text and what is said about it.

    Attributes:
        text: for the champion, the contents of `champion.rule`.
        record: `simplified` (text, nodes, relation, steps), `lr_vs_adam` and `nearest`, the known rule that
            its behaviour is nearest to; `known_as` where that is the very rule and no form had told.
        notes: what simplification has to say besides, such as that its time was up.
    """

    text: str
    record: dict[str, Any]
    notes: tuple[str, ...] = ()

    @property
    def is_new(self) -> bool:
        """Whether it has no name, neither by its form nor by how it behaves."""
        return bool(self.record["known_as"] == "new")


def publish(champion: Finalist, adam: Mapping[str, Outcome], seed: int) -> Published:
    """Simplify a finalist, name its constants, and say where it comes from.

    Args:
        champion: the finalist as it was trained; the raw rule stays in the run.
        adam: tuned Adam's outcomes on the same workloads, for the conversion of lr.
        seed: the run's seed.
    """
    simplified = simplify(champion.rule, time_limit_s=TIME_LIMIT_S)
    named = promote_constants(simplified.after)
    ratios = lr_ratios(champion.outcomes, adam, simplified.scale)
    match = _nearest(champion.rule.rule)
    name = str(match) if match and match.is_exact and champion.is_new else str(champion.known_as)
    doc = _docstring(champion, name, match, ratios, seed)
    text = RuleText(named.rule, named.lines, named.hypers, named.states, doc)
    record = {
        "simplified": {
            "text": str(text),
            "nodes": named.rule.nodes,
            "relation": simplified.relation,
            "steps": [step.as_json() for step in simplified.steps],
        },
        "lr_vs_adam": shown(median(ratios)) if ratios else None,
        "nearest": match.as_json() if match else None,
        "known_as": name,
    }
    return Published(str(text), record, simplified.notes)


@lru_cache(maxsize=64)
def _nearest(rule: Rule) -> Match | None:
    """The known rule that behaves most like it; None for one that is finite almost nowhere."""
    try:
        return nearest(rule, most=1)[0]
    except InputError:
        return None


def _docstring(champion: Finalist, name: str, match: Match | None, ratios: Sequence[float], seed: int) -> str:
    lines = [f"Found by ruleforge: candidate {champion.id} of a search with seed {seed}. {name}."]
    if match and not match.is_exact:
        lines.append(f"Nearest known rule: {match.name}, {100 * match.distance:.0f} % apart.")
    for suite, standing in (("search", champion.search), ("validation", champion.validation)):
        summary = standing["vs_best_single"]
        if summary.speedup is not None and summary.ci is not None:
            low, high = summary.ci
            lines.append(
                f"Speed-up over the best single tuned baseline, {suite} suite: "
                f"x{summary.speedup:.2f} (95 % interval {low:.2f} to {high:.2f})."
            )
    return "\n".join([*lines, *lr_lines(ratios)])
