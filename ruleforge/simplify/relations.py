"""Relations between rules beyond "equal" and "up to scale", each turned into one of these two.

- **warm_up**: equal after some steps, to 1e-4 of the update, since what starts differently (a bias
  correction, a first value) dies out without ever vanishing. The smallest of 1, 3, 10, … 10,000 steps at
  which it holds is the answer, unless the caller says how many to ignore.
- **small_eps**: equal once everything that looks like an eps is multiplied by 1e-190: constants and
  defaults of hyperparameters up to 1e-3 that are added, or that a maximum holds something above. The
  stream of gradients near the smallest float64 does not count: no eps is small beside it.
- **hypers**: equal at other values of the second rule's hyperparameters. Where they are not given, the
  first rule's constants and defaults are tried, each `c` also as `1 − c`, in all combinations that a
  short look does not rule out.
- **float32**: wherever the first rule's float32 result is good to 1e-3 of the true one, the second's is
  good to 1e-2, up to 1 % of these points. A rewrite that is exact in float64 may overflow in float32.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from itertools import islice, product

import numpy as np

from ruleforge.core import expr as ex
from ruleforge.core.expr import Expr
from ruleforge.core.rule import Rule, State
from ruleforge.errors import InputError
from ruleforge.simplify.streams import NAMES as STREAM_NAMES
from ruleforge.simplify.streams import STEPS, make_streams
from ruleforge.simplify.trajectories import Array, elements_meet, run_rule
from ruleforge.simplify.verify import BASIC, Checker, CounterExample, Relation, Verdict

WARM_UPS = (1, 3, 10, 30, 100, 300, 1000, 10_000)
LONG = 300  # warm-ups beyond are measured at the default hyperparameters alone
WARM_RTOL = 1e-4
TINY = 1e-190
MAX_EPS = 1e-3
MAX_COMBINATIONS = 1000
GOOD, AS_GOOD, EXCEPTIONS = 1e-3, 1e-2, 0.01
NAMES: dict[Relation, str] = {
    "equal": "equal",
    "scale": "equal up to a positive scale",
    "warm_up": "equal after a warm-up",
    "small_eps": "equal in the limit of small eps",
    "hypers": "equal under other hyperparameters",
}


def related(
    a: Rule,
    b: Rule,
    relation: Relation,
    *,
    scaled: bool = False,
    after: int | None = None,
    hypers: Mapping[int, float] | None = None,
    seed: int = 0,
    steps: int = STEPS,
) -> Verdict:
    """`verify` for the relations that it does not measure itself; the arguments are its own.

    Raises:
        InputError: an unknown relation, or an argument that it does not take.
    """
    if after is not None and relation != "warm_up":
        raise InputError(f"the relation {relation!r} takes no warm-up")
    if hypers is not None and relation != "hypers":
        raise InputError(f"the relation {relation!r} takes no hyperparameters")
    found = _related(a, b, relation, scaled, after, hypers, seed, steps)
    return dataclasses.replace(found, relation=relation, scaled=scaled)


def _related(
    a: Rule, b: Rule, relation: Relation, scaled: bool, after: int | None,
    hypers: Mapping[int, float] | None, seed: int, steps: int,
) -> Verdict:  # fmt: skip
    if relation == "warm_up":
        return _after_warm_up(a, b, scaled, after, seed, steps)
    if relation == "small_eps":
        checker = Checker(without_eps(a), seed=seed, steps=steps, ignored=("near the smallest float64",))
        return checker.check(without_eps(b), _basic(scaled))
    if relation == "hypers":
        return _under_hypers(a, b, scaled, hypers, seed, steps)
    known = ", ".join(repr(name) for name in NAMES)
    raise InputError(f"unknown relation {relation!r}", hint=f"one of {known}")


def strictest(a: Rule, b: Rule, *, seed: int = 0) -> list[Verdict]:
    """Verdicts from the strictest relation on, up to the first that holds."""
    verdicts: list[Verdict] = []
    checker = Checker(a, seed=seed)
    for relation in NAMES:
        for scaled in (False, True) if relation not in BASIC else (False,):
            if relation in BASIC:
                found = checker.check(b, relation)
            else:
                found = related(a, b, relation, scaled=scaled, seed=seed)
            verdicts.append(found)
            if found.holds:
                return verdicts
    return verdicts


def in_float32(a: Rule, b: Rule, *, scale: float = 1.0, seed: int = 0, steps: int = STEPS) -> Verdict:
    """Whether the second rule is as good in float32 as the first, both at their defaults.

    Args:
        a: the rule that defines what is right, in float64.
        b: the other one.
        scale: factor from the first rule's updates to the second's.
        seed: of the streams.
        steps: length of the streams.
    """
    streams = make_streams(seed, shaped=elements_meet(a) or elements_meet(b), steps=steps).in_float32()
    exact = scale * run_rule(a, a.defaults, streams.in_float64())
    ours, theirs = scale * run_rule(a, a.defaults, streams), run_rule(b, b.defaults, streams)
    with np.errstate(all="ignore"):
        good = np.abs(ours - exact) <= GOOD * np.abs(exact)
        bad = good & ~(np.abs(theirs - exact) <= AS_GOOD * np.abs(exact))
    compared = int(good.sum())
    if bad.sum() <= EXCEPTIONS * compared:
        return Verdict("equal", True, scale=scale, compared=compared, excused=int(bad.sum()))
    step, at = (int(v) for v in np.argwhere(bad)[0])
    flat = [name for names in streams.names for name in names]
    example = CounterExample(
        flat[at], step + 1, at - flat.index(flat[at]), float(ours[step, at]), float(theirs[step, at]),
        a.defaults,
    )  # fmt: skip
    reason = (
        f"in float32 the second is off at {int(bad.sum())} of the {compared} points where the first is good"
    )
    return Verdict("equal", False, scale=scale, counter_example=example, compared=compared, reason=reason)


def _basic(scaled: bool) -> Relation:
    return "scale" if scaled else "equal"


# warm-up


def _after_warm_up(a: Rule, b: Rule, scaled: bool, after: int | None, seed: int, steps: int) -> Verdict:
    if after is not None and after < 0:
        raise InputError(f"a warm-up of {after} steps", hint="give a number of steps, 0 or more")
    found = Verdict("warm_up", False)
    for ignored in (after,) if after is not None else WARM_UPS:
        if after is None and ignored > LONG and not _dies_out(a, b, scaled, seed):
            break
        checker = Checker(
            a, seed=seed, steps=steps + ignored, after=ignored, rtol=WARM_RTOL, defaults_only=ignored > LONG
        )
        found = dataclasses.replace(checker.check(b, _basic(scaled)), after=ignored)
        if found.holds:
            break
    return found


def _dies_out(a: Rule, b: Rule, scaled: bool, seed: int) -> bool:
    """Whether the difference at 300 steps is less than half of that at 30."""
    look = _Look(a, b, scaled, seed, steps=LONG)
    apart = look.difference(b.defaults)
    return bool(np.median(apart[-20:]) < 0.5 * np.median(apart[20:40]))


# eps


def without_eps(rule: Rule) -> Rule:
    """The rule with whatever looks like an eps made tiny."""
    mapping = ex.rebuild(rule.roots, lambda item, args: ex.with_args(item, _tiny(rule, item, args)))
    states = tuple(State(state.init, mapping[state.next]) for state in rule.states)
    return Rule(mapping[rule.update], states, rule.hypers)


def _tiny(rule: Rule, item: Expr, args: tuple[Expr, ...]) -> tuple[Expr, ...]:
    if item.op not in ("add", "maximum"):
        return args
    return tuple(
        ex.const(TINY * value) if 0 < (value := _number(rule, arg)) <= MAX_EPS else made
        for arg, made in zip(item.args, args, strict=True)
    )


def _number(rule: Rule, item: Expr) -> float:
    if item.op == "hyper":
        return rule.hypers[item.index].default
    return item.number if item.op == "const" else 0.0


# hyperparameters


def _under_hypers(
    a: Rule, b: Rule, scaled: bool, given: Mapping[int, float] | None, seed: int, steps: int
) -> Verdict:
    checker = Checker(a, seed=seed, steps=steps, defaults_only=True)
    if given is not None:
        return _at(checker, b, scaled, _with_values(b, given))
    found = Verdict("hypers", False, reason="no numbers of the first rule make the second equal to it")
    looked = _Look(a, b, scaled, seed)
    for values in islice(_suggested(a, b), MAX_COMBINATIONS):
        if looked.may_be(values):
            found = _at(checker, b, scaled, values)
            if found.holds:
                return found
    return found


def _with_values(b: Rule, given: Mapping[int, float]) -> tuple[float, ...]:
    values = list(b.defaults)
    for index, value in given.items():
        if not 0 <= index < len(values):
            raise InputError(f"the second rule has no hyperparameter {index}", hint=f"it has {len(values)}")
        low, high = b.hypers[index].low, b.hypers[index].high
        if not low < value < high:
            raise InputError(f"{value:g} lies outside its range", hint=f"between {low:g} and {high:g}")
        values[index] = float(value)
    return tuple(values)


def _at(checker: Checker, b: Rule, scaled: bool, values: tuple[float, ...]) -> Verdict:
    moved = b.with_defaults(values)
    plain = Rule(moved.update, moved.states, moved.hypers)
    return dataclasses.replace(checker.check(plain, _basic(scaled)), hypers=values)


def _suggested(a: Rule, b: Rule) -> Iterator[tuple[float, ...]]:
    """Values for b's hyperparameters out of a's numbers, its own defaults first."""
    numbers = dict.fromkeys(
        [*a.defaults, *(item.number for item in ex.walk(a.canonical.roots) if item.op == "const")]
    )
    pool = list(dict.fromkeys(v for n in numbers for v in (n, float(f"{1 - n:.12g}"))))
    choices = [list(dict.fromkeys([h.default, *(v for v in pool if h.low < v < h.high)])) for h in b.hypers]
    return iter(product(*choices))


class _Look:
    """A short look at gradients of one size, which rules most values out."""

    def __init__(self, a: Rule, b: Rule, scaled: bool, seed: int, steps: int = 14) -> None:
        self.b, self.scaled = b, scaled
        shaped = elements_meet(a) or elements_meet(b)
        others = [name for name in STREAM_NAMES if name != "scale 1"]
        self.streams = make_streams(seed, shaped=shaped, steps=steps, without=others)
        self.ours = run_rule(a, a.defaults, self.streams)

    def difference(self, values: tuple[float, ...]) -> Array:
        """Relative, (steps, elements)."""
        theirs = run_rule(self.b, values, self.streams)
        with np.errstate(all="ignore"):
            quotient = theirs / self.ours
            factor = float(np.median(quotient[np.isfinite(quotient)])) if self.scaled else 1.0
            found = np.abs(theirs - factor * self.ours) / np.abs(factor * self.ours)
        return np.where(np.isfinite(found), found, 1.0)

    def may_be(self, values: tuple[float, ...]) -> bool:
        return float(np.mean(self.difference(values) > 1e-6)) < 0.1
