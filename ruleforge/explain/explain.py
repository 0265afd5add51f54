"""Everything that `ruleforge explain` says of a rule, as one record."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from ruleforge.core.rule import Rule
from ruleforge.core.text import RuleText
from ruleforge.errors import InputError
from ruleforge.explain.nearest import CLOSE, Match, contains, nearest
from ruleforge.explain.parts import Part, parts, trained
from ruleforge.explain.properties import Property, properties
from ruleforge.explain.signals import Curve, HeatMap, responses
from ruleforge.explain.traces import make_inputs, run_settings
from ruleforge.records import Json
from ruleforge.simplify.paired import Bench

UPHILL = -0.2  # mean cosine of updates and gradients
UNRELATED = 0.95  # distance from which naming the nearest rule says nothing


@dataclass(frozen=True)
class Explained:
    """What is known of a rule.

    Attributes:
        headline: one sentence that says what the rule is.
        nearest: known rules by nearness.
        contains: known rules that occur whole within it.
        properties: proved or measured.
        responses: answers to designed signals.
        parts: its parts and what each does.
        notes: what could not be said, and why.
    """

    headline: str
    nearest: list[Match]
    contains: list[str]
    properties: list[Property]
    responses: list[Curve | HeatMap]
    parts: list[Part]
    notes: list[str] = field(default_factory=list)

    def as_json(self) -> dict[str, Json]:
        """The record that `ruleforge explain --json` prints."""
        return {
            "headline": self.headline,
            "nearest": [match.as_json() for match in self.nearest],
            "contains": list(self.contains),
            "properties": {each.name: each.as_json() for each in self.properties},
            "parts": [part.as_json() for part in self.parts],
            "notes": list(self.notes),
        }


def explain(rule: Rule | RuleText, *, bench: Bench | None = None) -> Explained:
    """What a rule is nearest to, what holds of it, and what each part does.

    Args:
        rule: any rule.
        bench: where to train it without each part; None compares behaviour alone.

    Example:
        >>> explain(Rule.parse("update = 2 * sign(g)")).headline
        'It is signsgd, times 2.'
    """
    from ruleforge.core.format import name_rule

    text = rule if isinstance(rule, RuleText) else name_rule(rule)
    graph = text.rule
    notes: list[str] = []
    idle = _idle(graph)
    matches: list[Match] = []
    found: list[Part] = []
    if idle:
        notes.append("nothing was compared with it; an update must depend on g")
    else:
        try:
            matches = nearest(graph)
            found = parts(text)
        except InputError as error:
            notes.append(f"{error.message}: nothing was compared with it")
    inside = [] if matches and matches[0].is_exact else contains(graph)
    if bench is not None and found:
        found = trained(text, found, bench)
    held = properties(text)
    descent = next((each.value for each in held if each.name == "descent"), None)
    if isinstance(descent, dict) and float(str(descent["mean_cosine"])) < UPHILL:
        notes.append("it climbs: its updates point against the gradient; is its sign turned round?")
    told = idle or headline(matches, inside)
    return Explained(told, matches, inside, held, responses(graph), found, notes)


def _idle(rule: Rule) -> str:
    """What is wrong with a rule that cannot train anything; "" for others."""
    if not rule.reads("g"):
        return "No optimizer: its update does not depend on the gradient."
    if not run_settings(rule, np.array([rule.defaults]), make_inputs()).any():
        return "No optimizer: its update is 0 at every probe point."
    return ""


def headline(matches: list[Match], inside: list[str]) -> str:
    """One sentence: which rule it is or is close to, what it is built on, or that it is new."""
    if not matches:
        return "It cannot be compared with known rules."
    best = matches[0]
    if best.is_exact or best.relation == "after warm-up":
        return f"It is {best}."
    if best.relation == "where finite":
        return f"No known rule, and not finite everywhere; it answers as {best}."
    if best.relation == "close":
        return f"It is close to {best}."
    if inside:
        return f"New, and built on {inside[0]}: it holds the whole of it as a part."
    if best.distance > UNRELATED:
        return "New: it has nothing in common with any known rule."
    return f"New: no known rule comes within {100 * CLOSE:.0f} %; the nearest is {best}."
