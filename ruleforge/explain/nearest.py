"""Which known rules a rule is nearest to: by behaviour with fitted hyperparameters, and by form.

A rule *is* a known one when, at some setting of the known rule's hyperparameters and up to one positive
factor, both answer alike on streams that the fit used and on streams that it never saw. What comes
within 5 % on both is called close; everything else is new.

A rule that is not finite somewhere has no name: all that is said is what it answers as where it is finite.

Two forms that can imitate each other are told apart by size: the known rule with fewer hyperparameters
is named first.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ruleforge.core import expr as ex
from ruleforge.core.canon import fold
from ruleforge.core.expr import Expr
from ruleforge.core.known import KNOWN
from ruleforge.core.rule import Rule
from ruleforge.core.text import RuleText
from ruleforge.errors import RuleforgeError
from ruleforge.explain import trees
from ruleforge.explain.catalogue import Surveyed, families, survey
from ruleforge.explain.fit import EXACT, RESTARTS, Fit, Fitter, Target, fit_rule
from ruleforge.explain.traces import Traces, canonical_order, make_inputs, run_settings, trace_rule
from ruleforge.records import Json

CLOSE = 0.05
CONFIRMED = 1e-5
AT_THE_END = 1e-9  # of an open range: as near as matters
N_SUGGESTED = 30
N_LATER = 6  # of the nearest without the first steps, tried there
N_PERSISTENT = 3  # of the nearest, whose fit begins again where it ends in a valley
HALVING = ((3, 0, 30, 0.4), (5, 6, 10, 0.1))
"""Rounds of contraction, then of Gauss–Newton steps, for all that are left; how many go on; and, where an
exact name is known already and only a smaller rule could be better, how near one must have come to go on."""
WARM_UP = 24
MOSTLY_FINITE = 0.99  # share of the probe points; a rule that is finite at fewer gets no name
FRESH_SEED = 1


@dataclass(frozen=True)
class Match:
    """A known rule and how a rule stands to it.

    Attributes:
        name: of the known rule.
        relation: "equal", "scale", "hypers", "hypers and scale", "after warm-up", "where finite", "close" or
            "apart".
        hypers: of the known rule, where it comes nearest, by name.
        factor: from the known rule's updates to the rule's.
        distance: root mean square of the difference, in units of the rule's own updates.
        edits: nodes to insert, delete or rename between the two forms; None if not compared.
        also: other names of the same formula.
    """

    name: str
    relation: str
    hypers: dict[str, float]
    factor: float
    distance: float
    edits: int | None = None
    also: tuple[str, ...] = ()

    @property
    def is_exact(self) -> bool:
        """Whether it is the known rule, up to hyperparameters and a factor."""
        return self.relation in ("equal", "scale", "hypers", "hypers and scale")

    def as_json(self) -> dict[str, Json]:
        return {
            "name": self.name,
            "relation": self.relation,
            "hypers": dict(self.hypers),
            "factor": self.factor,
            "distance": self.distance,
            "edits": self.edits,
            "also": list(self.also),
        }

    def __str__(self) -> str:
        """Such as "lion with beta1 = 0.9, beta2 = 0.99, times 0.3"."""
        settings = ", ".join(f"{name} = {value:.6g}" for name, value in self.hypers.items())
        shown = f"{self.name} with {settings}" if settings else self.name
        if self.relation == "equal":
            return self.name
        if self.relation == "scale":
            return f"{self.name}, times {self.factor:.4g}"
        if self.relation != "hypers" and abs(self.factor - 1) > 1e-4:
            shown += f", times {self.factor:.4g}"
        ending = {
            "after warm-up": f", after {WARM_UP} steps",
            "where finite": ", where it is finite",
            "close": f", to within {100 * self.distance:.2g} %",
            "apart": f": {100 * self.distance:.0f} % apart",
        }
        return shown + ending.get(self.relation, "")


def nearest(rule: Rule, *, most: int = 3) -> list[Match]:
    """Known rules by nearness, the best name first.

    Args:
        rule: any rule that is finite on most of the streams.
        most: how many to return.

    Raises:
        InputError: its updates are finite at less than a fifth of the probe points.
    """
    traces = trace_rule(rule)
    fresh = make_inputs(FRESH_SEED)
    answer = run_settings(rule, np.array([rule.defaults]), fresh)[0]
    found = nearest_to(
        traces,
        Traces(fresh, answer),
        suggested=[*numbers_of(rule), *_under_the_sign(rule)],
        first=forms_like(rule),
        aligned=lambda name: aligned(rule, KNOWN[name].rule.rule),
        most=max(most, 3),
    )
    if np.isfinite(traces.updates).mean() < MOSTLY_FINITE:
        found = [_where_finite(each) for each in found]
    mine = trees.tree_of(rule)
    matches = [
        replace(each, edits=trees.edit_distance(mine, trees.tree_of(KNOWN[each.name].rule.rule)))
        for each in found
    ]
    return matches[:most]


def _where_finite(match: Match) -> Match:
    """The match of a rule that is not finite everywhere, for what it is worth."""
    if match.is_exact:
        return replace(match, relation="where finite")
    return replace(match, relation="apart") if match.relation in ("close", "after warm-up") else match


def _order(match: Match) -> tuple[bool, int, float, float]:
    """Exact ones first: with the fewest hyperparameters, then with the factor that is nearest to 1."""
    if not match.is_exact:
        return True, 0, 0.0, match.distance
    return False, len(match.hypers), round(abs(math.log(abs(match.factor) or 1e-300)), 6), match.distance


def nearest_to(
    traces: Traces,
    fresh: Traces,
    *,
    suggested: Sequence[float] = (),
    first: Sequence[str] = (),
    aligned: Callable[[str], tuple[float, ...] | None] = lambda name: None,
    most: int = 3,
    with_decay: bool = False,
) -> list[Match]:
    """The same for traces of anything; see `nearest`.

    Args:
        traces: to fit to.
        fresh: of other streams, to confirm with.
        suggested: values that hyperparameters may have.
        first: known rules to try first.
        aligned: the setting at which such a rule reads like the one that is asked about, if there is one.
        most: how many to return.
        with_decay: whether decoupled weight decay may be part of the traces.
    """
    target = Target(traces, with_decay=with_decay)
    check = Target(fresh, with_decay=with_decay)
    ranked = sorted((_surveyed(each, target) for each in survey()), key=lambda f: f.distance)
    front = [f for f in ranked if _name(f) in first]
    rest = [f for f in ranked if f not in front]
    matches: list[Match] = []
    fewest = 99
    for fitter in front:  # of the same form: mostly that is all there is to find
        fitter.suggest(suggested, aligned(_name(fitter)))
        matches.append(_match(fitter.search(check), _name(fitter), check))
        if matches[-1].is_exact:
            fewest = min(fewest, len(fitter.axes))
    rest = [f for f in rest if len(f.axes) < fewest]
    for fitter in rest[:N_SUGGESTED] if suggested else ():
        if fitter.distance > EXACT:
            fitter.suggest(suggested)
    for rounds, steps, left, near in HALVING:
        for fitter in rest:
            fitter.contract(rounds, n=24)
            fitter.polish(starts=1, rounds=steps)
        limit = near if fewest < 99 else math.inf
        rest = [f for f in sorted(rest, key=lambda f: f.distance)[:left] if f.distance <= limit]
    nearest_few = rest[:N_PERSISTENT]
    for fitter in sorted(rest, key=lambda f: (len(f.axes), f.distance)):
        if len(fitter.axes) > fewest and fitter.distance > EXACT:
            continue
        again = RESTARTS if fitter in nearest_few else 0
        match = _match(fitter.search(check, again), _name(fitter), check)
        if match.is_exact:
            fewest = min(fewest, len(fitter.axes))
        matches.append(match)
    matches.sort(key=_order)
    if matches and not matches[0].is_exact:
        matches = _after_warm_up(matches, traces, fresh, suggested)
    return matches[:most]


def _surveyed(each: Surveyed, target: Target) -> Fitter:
    fitter = Fitter(each.rule, target)
    inputs, plain = target.inputs, make_inputs()
    told = any(each.rule.reads(leaf) for leaf in ("w", "lr", "lr0"))
    if inputs is plain or (inputs.grads is plain.grads and not told):
        answers = each.answers[:, :, target.after :].astype(np.float64)
        flat = np.where(target.usable, answers * target.weight, 0.0).reshape(len(answers), -1)
        fitter.seen(each.z, target.distances(flat)[0])
        if fitter.distance <= 1e-4:  # float32 cannot say more
            fitter.points.clear()
            fitter.survey()
    else:
        fitter.survey()
    return fitter


def _name(fitter: Fitter) -> str:
    return next(each.name for each in survey() if each.rule is fitter.rule)


def _match(fit: Fit, name: str, check: Target) -> Match:
    entry = KNOWN[name]
    hypers = _named(entry.rule, fit)
    also = tuple(each for each in families()[name] if each != name)
    elsewhere = _distance(fit, check)
    if not fit.is_exact or elsewhere > CONFIRMED:
        distance = min(1.0, max(fit.distance, elsewhere))
        relation = "close" if distance <= CLOSE else "apart"
        return Match(name, relation, hypers, fit.factor, distance, also=also)
    for twin in families()[name]:  # the name whose defaults these are, if any
        if fit.hypers == KNOWN[twin].rule.rule.defaults:
            name, also = twin, tuple(each for each in families()[name] if each != twin)
            break
    same = fit.hypers == entry.rule.rule.defaults
    scaled = abs(fit.factor - 1) > 1e-6
    relation = ("scale" if same else "hypers and scale") if scaled else ("equal" if same else "hypers")
    return Match(name, relation, hypers, fit.factor, fit.distance, also=also)


def _named(rule: RuleText, fit: Fit) -> dict[str, float]:
    """Values by name. A fit comes as near to an open end of a range as floats do; that is the end."""
    named = {}
    for name, h, value in zip(rule.hypers, fit.rule.hypers, fit.hypers, strict=True):
        near = [end for end in (h.low, h.high) if h.scale != "log" and abs(value - end) < AT_THE_END]
        named[name] = near[0] if near else value
    return named


def _distance(fit: Fit, check: Target) -> float:
    found, _ = check.distances(check.answers(fit.rule, np.array([fit.hypers])))
    return float(found[0])


def _after_warm_up(
    matches: list[Match], traces: Traces, fresh: Traces, suggested: Sequence[float]
) -> list[Match]:
    """The matches, led by the smallest rule that agrees once the first steps are over, if one does."""
    later, check = Target(traces, after=WARM_UP), Target(fresh, after=WARM_UP)
    ranked = sorted((_surveyed(each, later) for each in survey()), key=lambda f: f.distance)
    led = [f for f in ranked if _name(f) == matches[0].name]
    for fitter in sorted([*led, *ranked[:N_LATER]], key=lambda f: (len(f.axes), f.distance)):
        fitter.suggest([*suggested, *(matches[0].hypers.values() if fitter in led else ())])
        fitter.polish(starts=1)
        fit = fitter.rounded()
        if fit.is_exact and _distance(fit, check) <= CONFIRMED:
            name = _name(fitter)
            also = tuple(each for each in families()[name] if each != name)
            values = _named(KNOWN[name].rule, fit)
            apart = min(1.0, _distance(fit, Target(traces)))  # the first steps too
            first = Match(name, "after warm-up", values, fit.factor, apart, also=also)
            return [first, *(each for each in matches if each.name != name)]
    return matches


def numbers_of(rule: Rule) -> list[float]:
    """Constants and hyperparameter values of a rule, and 1 minus each that lies in (0, 1)."""
    nodes = ex.walk(rule.canonical.roots)
    values = {abs(item.number) for item in nodes if item.op == "const"}
    values |= {abs(h.default) for h in rule.canonical.hypers}
    values |= {float(f"{1 - value:.12g}") for value in values if 0 < value < 1}
    return sorted(values - {0.0})[:12]


def _unscaled(rule: Rule) -> Rule:
    """The rule without positive constant factors of its update, in front of a quotient too."""
    canonical = rule.canonical
    return Rule(_without_factor(canonical.update), canonical.states, canonical.hypers)


def _without_factor(item: Expr) -> Expr:
    if item.op == "mul" and any(arg.op == "const" and arg.number > 0 for arg in item.args):
        rest = next(arg for arg in item.args if not (arg.op == "const" and arg.number > 0))
        return _without_factor(rest)
    if item.op == "div":
        return ex.with_args(item, (_without_factor(item.args[0]), item.args[1]))
    return item


def unsigned(rule: Rule) -> Rule | None:
    """What stands under the sign of an update `sign(x)`, positive factors aside; None for others."""
    plain = _unscaled(rule)
    if plain.update.op != "sign":
        return None
    return Rule(plain.update.args[0], plain.states, plain.hypers)


def _under_the_sign(rule: Rule) -> list[float]:
    """Hyperparameters of known sign rules that fit what stands under this rule's sign.

    A sign hides small changes of a beta; what it is taken of does not.
    """
    mine = unsigned(rule)
    if mine is None:
        return []
    try:
        target = Target(trace_rule(mine))
    except RuleforgeError:
        return []
    found: list[float] = []
    for name in families():
        entry = KNOWN[name].rule.rule
        theirs = unsigned(entry) if entry.hypers else None
        if theirs is not None:
            fit = fit_rule(theirs, target, suggested=numbers_of(rule))
            if fit.is_exact:
                found += fit.hypers
    return found


def forms_like(rule: Rule) -> list[str]:
    """Known rules of the same form: equal once every number is forgotten, and factors of the update."""
    mine = trees.tree_of(_unscaled(rule))
    return [name for name in families() if trees.tree_of(_unscaled(KNOWN[name].rule.rule)) == mine]


def aligned(rule: Rule, known: Rule) -> tuple[float, ...] | None:
    """The setting at which a known rule of the same form has the rule's own numbers, if ranges allow it."""
    values: dict[int, float] = {}
    mine, theirs = _unscaled(rule), _unscaled(canonical_order(known)[0])
    for number, place in zip(trees.numbers_of(mine), trees.numbers_of(theirs), strict=True):
        if place.op == "hyper":  # whose default says which one it is
            which = int(theirs.canonical.hypers[place.index].default)
            values[which] = (
                number.number if number.op == "const" else mine.canonical.hypers[number.index].default
            )
    inside = all(h.low < values.get(i, h.low) < h.high for i, h in enumerate(known.hypers))
    return tuple(values[i] for i in range(len(known.hypers))) if inside else None


def contains(rule: Rule) -> list[str]:
    """Known rules that occur whole within a rule's update, the largest first.

    Found by form: a subterm and the states that it reads, with every number forgotten.
    """
    canonical = rule.canonical
    known: dict[trees.Tree, str] = {}
    for name in families():
        entry = KNOWN[name].rule.rule
        if entry.nodes >= 4 and not fold(entry.canonical).states:
            known.setdefault(trees.tree_of(entry), name)
    found: dict[str, int] = {}
    for item in ex.walk([canonical.update]):
        if item is canonical.update or not item.args:
            continue
        try:
            part = Rule(item, canonical.states, canonical.hypers)
            match = known.get(trees.tree_of(part))
        except RuleforgeError:
            continue
        if match is not None:
            found[match] = part.nodes
    return sorted(found, key=lambda name: -found[name])
