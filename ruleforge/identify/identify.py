"""From a black box to rule text: probe, fit the known rules, fit composed forms, then evolve.

Each stage is tried only when the one before found no form that answers exactly as the black box does. What
comes back is always the nearest form with its residual, and in which stage it was found.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ruleforge.core import expr as ex
from ruleforge.core.expr import Expr
from ruleforge.core.format import name_rule
from ruleforge.core.known import KNOWN
from ruleforge.core.rule import MAX_HYPERS, Hyper, Rule, State
from ruleforge.core.text import RuleText
from ruleforge.explain.fit import Fit, Fitter, Target
from ruleforge.explain.nearest import CONFIRMED, Match, forms_like, nearest_to
from ruleforge.identify.black_box import BlackBox, Seen, probe
from ruleforge.identify.compose import forms
from ruleforge.identify.evolve import evolve
from ruleforge.records import Json

TIME_LIMIT_S = 110.0
COMPOSED_SHARE = 0.5
Note = Callable[[str], None]


@dataclass(frozen=True)
class Identified:
    """The rule that was recovered.

    Attributes:
        text: rule text, with fitted hyperparameters as defaults; without decoupled decay.
        relation: "exact", "exact up to scale", or "closest form".
        factor: from the rule's updates to the optimizer's.
        weight_decay: decoupled decay of the optimizer.
        residual: root mean square of what the rule leaves, in units of the updates, on fresh streams.
        stage: "known", "known with coupled decay", "composed" or "evolved".
        known_as: the known rule that it is, or "".
        seen: what probing showed.
        nearest: known rules by nearness.
        notes: what a reader should know.
        wall_s: seconds.
    """

    text: RuleText
    relation: str
    factor: float
    weight_decay: float
    residual: float
    stage: str
    known_as: str
    seen: Seen
    nearest: list[Match]
    notes: list[str] = field(default_factory=list)
    wall_s: float = 0.0

    def as_json(self) -> dict[str, Json]:
        """The record that `ruleforge identify --json` prints."""
        return {
            "text": str(self.text), "relation": self.relation, "factor": self.factor,
            "weight_decay": self.weight_decay, "residual": self.residual, "stage": self.stage,
            "known_as": self.known_as, "seen": self.seen.as_json(),
            "nearest": [match.as_json() for match in self.nearest], "notes": list(self.notes),
            "wall_s": self.wall_s,
        }  # fmt: skip


def identify(
    where: str,
    kwargs: dict[str, Any] | None = None,
    *,
    time_limit_s: float = TIME_LIMIT_S,
    use_known: bool = True,
    note: Note = lambda text: None,
) -> Identified:
    """The update rule of a torch optimizer, from its behaviour alone. This executes its file.

    Args:
        where: `path/to/file.py:Class` or `package.module:Class`.
        kwargs: arguments of the class besides the parameters.
        time_limit_s: after which the nearest form so far is returned.
        use_known: whether known rules are tried; without them forms are composed and evolved.
        note: told what is being tried.
    """
    start = time.monotonic()
    box = probe(where, kwargs, time_limit_s=min(60.0, time_limit_s))
    return recover(box, deadline=start + time_limit_s, use_known=use_known, note=note, start=start)


def recover(
    box: BlackBox,
    *,
    deadline: float,
    use_known: bool = True,
    note: Note = lambda text: None,
    start: float = 0.0,
) -> Identified:
    """The rule behind the traces of a black box."""
    target = Target(box.traces, with_decay=box.seen.reads_weights)
    check = Target(box.fresh, with_decay=box.seen.reads_weights)
    found: list[tuple[Fit, str, str]] = []
    matches: list[Match] = []
    if use_known:
        note("fitting the known rules")
        matches = nearest_to(box.traces, box.fresh, with_decay=box.seen.reads_weights, most=4)
        for match in matches:
            rule = KNOWN[match.name].rule.rule
            fit = Fit(rule, tuple(match.hypers.values()), match.factor, match.distance)
            found.append((fit, "known", match.name if match.is_exact else ""))
        if not _done(found) and box.seen.reads_weights:
            note("fitting the known rules with decay inside the gradient")
            found += _with_coupled_decay(box, matches, target, check)
    if not _done(found):
        note("fitting composed forms")
        middle = time.monotonic() + COMPOSED_SHARE * (deadline - time.monotonic())
        found += [(fit, "composed", "") for fit in _composed(target, check, middle)]
    if not _done(found):
        note("evolving forms")
        starts = [row[0] for row in sorted(found, key=lambda row: row[0].distance)[:6]]
        found.append((evolve(target, starts, deadline=deadline), "evolved", ""))
    fit, stage, name = min(found, key=_rank)
    return _told(box, fit, stage, name, matches, target, check, time.monotonic() - start)


def _rank(row: tuple[Fit, str, str]) -> tuple[bool, float]:
    """Exact fits first and the smallest of them; then by distance."""
    fit = row[0]
    return not fit.is_exact, fit.rule.nodes if fit.is_exact else fit.distance


def _done(found: list[tuple[Fit, str, str]]) -> bool:
    return any(fit.is_exact for fit, _, _ in found)


def _told(
    box: BlackBox,
    fit: Fit,
    stage: str,
    name: str,
    matches: list[Match],
    target: Target,
    check: Target,
    wall_s: float,
) -> Identified:
    residual = float(check.distances(check.answers(fit.rule, np.array([fit.hypers])))[0][0])
    exact = fit.is_exact and residual <= CONFIRMED
    scaled = abs(fit.factor - 1) > 1e-6
    relation = ("exact up to scale" if scaled else "exact") if exact else "closest form"
    rule = fit.rule.with_defaults(fit.hypers)
    known = next((entry.rule for entry in KNOWN.values() if entry.rule.rule is fit.rule), None)
    text = (
        RuleText(rule, known.lines, known.hypers, known.states, "") if known is not None else name_rule(rule)
    )
    decay = target.decay_of(fit)
    name = name or next(iter(forms_like(rule)), "")  # a composed form may turn out to be a known one
    return Identified(
        text, relation, fit.factor, decay if abs(decay) > 1e-9 else 0.0, residual, stage,
        name if exact else "", box.seen, matches, _notes(box.seen, exact), wall_s,
    )  # fmt: skip


def _notes(seen: Seen, exact: bool) -> list[str]:
    notes = []
    if seen.is_random:
        notes.append("it uses randomness: two runs on the same gradients differ, so no rule can be exact")
    if seen.needs_closure:
        notes.append(
            "it calls its closure, which was given a loss of 1; what it does with losses was not seen"
        )
    if seen.factored:
        shapes = ", ".join(f"{name} {tuple(seen.states[name])}" for name in seen.factored)
        notes.append(
            f"it keeps states of other shapes than the parameter ({shapes}), which the language has not"
        )
    if seen.is_finite < 1:
        notes.append(f"{100 * (1 - seen.is_finite):.1f} % of its updates are not finite; those were left out")
    if not exact and not seen.is_elementwise:
        notes.append(
            "elements of a tensor affect each other; forms other than the known ones are elementwise"
        )
    return notes


def coupled(rule: Rule) -> Rule | None:
    """The rule fed with `g + decay · w` in place of g; None if it has no room for one hyperparameter more."""
    if len(rule.hypers) == MAX_HYPERS:
        return None
    decay = ex.hyper(len(rule.hypers))
    fed = ex.node("add", ex.leaf("g"), ex.node("mul", decay, ex.leaf("w")))

    def replace(item: Expr, args: tuple[Expr, ...]) -> Expr:
        return fed if item.op == "g" else ex.with_args(item, args)

    mapping = ex.rebuild(rule.roots, replace)
    states = tuple(State(s.init, mapping[s.next]) for s in rule.states)
    return Rule(mapping[rule.update], states, (*rule.hypers, Hyper(0.0, 10.0, 0.01, "log")))


def _with_coupled_decay(
    box: BlackBox, matches: list[Match], target: Target, check: Target
) -> list[tuple[Fit, str, str]]:
    """Known rules whose gradient carries the decay, nearest first."""
    plain = Target(box.traces)
    other = Target(box.fresh)
    ranked = []
    for name in dict.fromkeys([*(m.name for m in matches), *COMMON]):
        rule = coupled(KNOWN[name].rule.rule)
        if rule is not None:
            fitter = Fitter(rule, plain)
            fitter.survey()
            ranked.append((fitter.distance, name, fitter))
    found = []
    for _, name, fitter in sorted(ranked, key=lambda row: row[0])[:6]:
        fit = fitter.search(other)
        found.append((fit, "known with coupled decay", f"{name} with decay inside" if fit.is_exact else ""))
        if fit.is_exact:
            break
    return found


COMMON = ("sgd", "momentum", "nesterov", "rmsprop", "rmsprop_momentum", "adagrad", "adam", "amsgrad", "nadam",
          "radam", "adamax", "adadelta", "adabelief", "yogi", "lion", "signum")  # fmt: skip


def _composed(target: Target, check: Target, deadline: float) -> list[Fit]:
    ranked: list[tuple[float, int, Fitter]] = []
    for number, rule in enumerate(forms()):
        if time.monotonic() > deadline - 0.4 * max(1.0, deadline - time.monotonic()) and number > 60:
            break
        fitter = Fitter(rule, target)
        fitter.survey(10)
        ranked.append((fitter.distance, number, fitter))
    ranked.sort(key=lambda row: row[:2])
    found = []
    for _, _, fitter in ranked[:14]:
        fit = fitter.search(check, restarts=0)
        found.append(fit)
        if fit.is_exact or time.monotonic() > deadline:
            break
    return found
