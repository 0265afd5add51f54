"""What to multiply Adam's learning rate by: from tuned outcomes, in words for a docstring.

Knows outcomes, and where the package ships tuned ones. Trains nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from statistics import median

from ruleforge.core.text import RuleText
from ruleforge.evaluate.baselines import shipped_outcomes
from ruleforge.evaluate.evaluator import Outcome


def lr_ratios(mine: Mapping[str, Outcome], adam: Mapping[str, Outcome], scale: float = 1.0) -> list[float]:
    """Tuned lr / Adam's tuned lr on each workload, ascending: what to multiply Adam's lr by.

    Args:
        mine, adam: outcomes by workload.
        scale: simplified update / raw update, where they differ by a factor.
    """
    pairs = ((mine[w].lr, adam[w].lr) for w in mine if w in adam)
    return sorted(own / of_adam / scale for own, of_adam in pairs if own and of_adam)


def lr_lines(ratios: Sequence[float]) -> list[str]:
    """What a docstring says of them; nothing where there are none."""
    if not ratios:
        return []
    start, low, high = (shown(r) for r in (median(ratios), ratios[0], ratios[-1]))
    lines = [f"Start from {start:g} times the learning rate that Adam likes."]
    if len(ratios) > 1:
        lines.append(f"On {len(ratios)} workloads the best was {low:g} to {high:g} times Adam's best.")
    return lines


def shown(ratio: float) -> float:
    """Two digits: more would promise what no tuning knows."""
    return float(f"{ratio:.2g}")


def with_shipped_lr(text: RuleText) -> RuleText:
    """A known rule with these lines in its docstring, where its tuning is shipped; else as it was.

    The workloads are those of the search and validation suites, tuned as `ruleforge compare` tunes. A
    rule at hyperparameters that were not tuned, and Adam itself, is returned as it was.
    """
    from ruleforge.app.compare import SEEDS, comparison_protocol
    from ruleforge.app.config import load_config
    from ruleforge.app.setup import make_plan
    from ruleforge.core.known import known
    from ruleforge.tasks import load_suite

    rules = {"rule": text, "adam": known("adam").rule}
    if text.rule.full_key == rules["adam"].rule.full_key:
        return text
    places = (*load_suite("search"), *load_suite("validation"))
    plan = make_plan(load_config("default"), ())
    found = shipped_outcomes(rules, places, comparison_protocol(SEEDS), plan)
    lines = lr_lines(lr_ratios(found["rule"], found["adam"]))
    return replace(text, doc="\n".join([text.doc.rstrip(), "", *lines]).strip()) if lines else text
