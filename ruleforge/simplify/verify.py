"""Whether two rules do the same: measured on gradient streams, in float64, by the reference backend.

**Agreement.** At a point (stream, step, element) where the first rule gives `a`, the second `b`, and
the relation the factor `c` (1 for "equal"):

- `|b − c·a| ≤ 1e-10 · |c·a|` agrees;
- else the first rule's own rounding error counts: `s`, its largest deviation at this step and the ones
  beside it over a few runs with every rounding redrawn (see `rounding`). Within `64·s` the point agrees
  if that is small, `64·s ≤ 1e-4·|a|`;
- within a larger `64·s` the point is *excused*: the first rule stands at a discontinuity or loses its
  digits there, and would itself come out differently. More than 1 % excused points decide against;
- the second rule's own rounding error, found alike, explains at most `1e-6·|a|`, with the largest `|a|`
  of this step and the ones beside it: a shorter spelling may round a little worse, but a rule that is all
  rounding is not thereby equal to everything;
- everything else differs, and the first such point is the counter-example.

**Where the first rule is not finite** it has diverged, and the second may do anything: that is what
`x / x = 1` assumes. A second rule that is not finite where the first is, differs. Rules that are finite
at fewer than a fifth of the points cannot be compared.

**Scale.** "scale" allows one positive factor for all streams, elements and steps, because lr is tuned;
one for each setting of the hyperparameters. It means nothing where lr is read, so it is refused there.

**Hyperparameters.** Rules that declare the same ones are compared at their defaults and at two random
settings; others at their own defaults.

**Other relations** are read by `relations`, which turns each of them into one of these two: "warm_up"
(equal after some steps), "small_eps" (in the limit of small eps), "hypers" (under other hyperparameters),
and the same in float32.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ruleforge.core.rule import Rule
from ruleforge.errors import InputError
from ruleforge.simplify.streams import STEPS, Streams, make_streams
from ruleforge.simplify.trajectories import Array, elements_meet, hyper_settings, run_rule

Relation = Literal["equal", "scale", "warm_up", "small_eps", "hypers"]
BASIC = ("equal", "scale")

RTOL = 1e-10
SAFETY = 64.0
ILL_CONDITIONED = 1e-4
WORSE_CONDITIONED = 1e-6
MAX_EXCUSED = 0.01
MIN_DEFINED = 0.2
NOISY_RUNS = 5


@dataclass(frozen=True)
class CounterExample:
    """A point at which two rules differ.

    Attributes:
        stream: what kind of gradients.
        step: from 1.
        element: position among all elements of that stream.
        first: the first rule's update.
        second: the second rule's.
        hypers: setting of the first rule's hyperparameters.
    """

    stream: str
    step: int
    element: int
    first: float
    second: float
    hypers: tuple[float, ...] = ()

    def __str__(self) -> str:
        return (
            f"stream {self.stream!r}, step {self.step}, element {self.element}: "
            f"{self.first:.9g} against {self.second:.9g}"
        )


@dataclass(frozen=True)
class Verdict:
    """What a comparison found. True in a condition when the relation holds.

    Attributes:
        relation: what was asked.
        holds: whether it was found so.
        scale: the factor from the first rule's updates to the second's, at the defaults.
        max_error: largest |b − c·a| of an agreeing point, relative to the largest |c·a| that its
            element shows over all steps.
        counter_example: where they differ, if they do.
        excused: points left out as undecidable by rounding.
        compared: points at which the first rule is finite.
        reason: why it does not hold, in words; "" when it does.
        after: "warm_up": steps that were ignored.
        hypers: "hypers": the values of the second rule's hyperparameters.
        scaled: a positive factor was allowed.
    """

    relation: Relation
    holds: bool
    scale: float = 1.0
    max_error: float = 0.0
    counter_example: CounterExample | None = None
    excused: int = 0
    compared: int = 0
    reason: str = ""
    after: int = 0
    hypers: tuple[float, ...] = ()
    scaled: bool = False

    def __bool__(self) -> bool:
        return self.holds


def verify(
    a: Rule,
    b: Rule,
    *,
    relation: Relation = "equal",
    scaled: bool = False,
    after: int | None = None,
    hypers: Mapping[int, float] | None = None,
    seed: int = 0,
    steps: int = STEPS,
) -> Verdict:
    """Compare two rules on random streams.

    Args:
        a: the rule that defines what is right.
        b: the other one.
        relation: "equal", "scale" (up to one positive factor), "warm_up" (equal after some steps),
            "small_eps" (equal as eps goes to 0), "hypers" (equal at other hyperparameters of b).
        scaled: for the last three: up to one positive factor besides.
        after: "warm_up": steps to ignore; the smallest of a few is found when None.
        hypers: "hypers": values for hyperparameters of b, by number; those that a's own numbers suggest
            are tried when None.
        seed: of the streams.
        steps: length of the streams.

    Returns:
        A verdict, with a counter-example where the relation does not hold.

    Raises:
        InputError: an unknown relation, or an argument that it does not take.

    Example:
        >>> adam, lazy = Rule.parse("update = ema_hat(g, 0.9)"), Rule.parse("update = ema(g, 0.9)")
        >>> verify(adam, lazy).holds, verify(adam, lazy, relation="warm_up").after
        (False, 100)
    """
    if relation in BASIC:
        if scaled or after is not None or hypers is not None:
            raise InputError(f"the relation {relation!r} takes neither scaled nor after nor hypers")
        return Checker(a, seed=seed, steps=steps).check(b, relation)
    from ruleforge.simplify.relations import related  # it builds on the checker below

    return related(a, b, relation, scaled=scaled, after=after, hypers=hypers, seed=seed, steps=steps)


@dataclass
class _Setting:
    """A rule at one setting of its hyperparameters, on one kind of streams."""

    rule: Rule
    hypers: tuple[float, ...]
    updates: Array  # (steps, elements)
    _spread: Array | None = None
    _known: set[int] = field(default_factory=set)

    def spread(self, streams: Streams, where: NDArray[np.bool_]) -> Array:
        """Largest deviation under redrawn roundings, (steps, elements).

        Found when asked for, and only for the tensors in which `where` marks an element; 0 elsewhere.
        """
        if self._spread is None:
            self._spread = np.zeros_like(self.updates)
        ends = np.cumsum([grad.size for grad in streams.grads[0]])
        marked = np.flatnonzero(where.any(axis=0))
        wanted = sorted({int(v) for v in np.searchsorted(ends, marked, side="right")} - self._known)
        if wanted:
            part = streams.only(wanted)
            at = np.concatenate([np.arange(ends[i] - streams.grads[0][i].size, ends[i]) for i in wanted])
            plain = self.updates[:, at]
            self._spread[:, at] = _with_neighbours(_deviation(self.rule, self.hypers, part, plain))
            self._known.update(wanted)
        return self._spread


@dataclass
class Checker:
    """Holds many rules against one: its streams, updates and rounding errors are computed once.

    Attributes:
        rule: the rule that defines what is right.
        seed: of the streams and settings.
        steps: length of the streams.
        after: steps that do not count.
        rtol: relative difference that agrees.
        defaults_only: leave the random settings of the hyperparameters out.
        ignored: names of streams that do not count.
    """

    rule: Rule
    seed: int = 0
    steps: int = STEPS
    after: int = 0
    rtol: float = RTOL
    defaults_only: bool = False
    ignored: tuple[str, ...] = ()
    _streams: dict[bool, Streams] = field(default_factory=dict, repr=False)
    _settings: dict[bool, list[_Setting]] = field(default_factory=dict, repr=False)

    def check(self, other: Rule, relation: Relation = "equal") -> Verdict:
        """Whether `other` stands in the relation to the rule."""
        if relation not in BASIC:
            raise InputError(f"unknown relation {relation!r}", hint="one of 'equal', 'scale'")
        if relation == "scale" and any(r.reads(leaf) for r in (self.rule, other) for leaf in ("lr", "lr0")):
            reason = "a rule that reads lr has no free scale"
            return Verdict(relation, False, reason=reason)
        shaped = elements_meet(self.rule) or elements_meet(other)
        streams = self._streams_of(shaped)
        settings = self._settings_of(shaped)
        if self.defaults_only or other.hypers != self.rule.hypers:
            settings = settings[:1]
        found: list[Verdict] = []
        for setting in settings:
            values = setting.hypers if other.hypers == self.rule.hypers else other.defaults
            theirs = _Setting(other, values, run_rule(other, values, streams))
            found.append(_compare(setting, theirs, relation, streams, self.after, self.rtol))
            if not found[-1].holds:
                return found[-1]
        return Verdict(
            relation, True, scale=found[0].scale, max_error=max(v.max_error for v in found),
            excused=sum(v.excused for v in found), compared=sum(v.compared for v in found),
        )  # fmt: skip

    @property
    def defined(self) -> float:
        """Share of points at which the rule is finite, at its defaults."""
        shaped = elements_meet(self.rule)
        return float(np.mean(np.isfinite(self._settings_of(shaped)[0].updates)))

    def _streams_of(self, shaped: bool) -> Streams:
        if shaped not in self._streams:
            self._streams[shaped] = make_streams(
                self.seed, shaped=shaped, steps=self.steps, without=self.ignored
            )
        return self._streams[shaped]

    def _settings_of(self, shaped: bool) -> list[_Setting]:
        if shaped not in self._settings:
            streams = self._streams_of(shaped)
            self._settings[shaped] = [
                _Setting(self.rule, values, run_rule(self.rule, values, streams))
                for values in hyper_settings(self.rule.hypers, self.seed)[: 1 if self.defaults_only else None]
            ]
        return self._settings[shaped]


def _compare(
    first: _Setting, second: _Setting, relation: Relation, streams: Streams, after: int, rtol: float
) -> Verdict:
    ours, theirs = first.updates, second.updates
    defined = np.isfinite(ours)
    defined[:after] = False
    compared = int(defined.sum())
    if compared < MIN_DEFINED * ours[after:].size:
        reason = f"the first rule is finite at only {100 * compared / ours.size:.0f} % of the points"
        return Verdict(relation, False, compared=compared, reason=reason)
    scale = _factor(ours[after:], theirs[after:]) if relation == "scale" else 1.0
    if not (np.isfinite(scale) and scale > 0):
        return Verdict(
            relation, False, compared=compared,
            reason="no positive factor leads from the first rule to the second",
            counter_example=_example(first, theirs, defined & (ours != 0), streams),
        )  # fmt: skip
    excused = np.zeros_like(defined)
    with np.errstate(all="ignore"):
        goal = scale * ours
        size = np.abs(goal)
        apart = np.abs(theirs - goal)
        apart[~np.isfinite(apart)] = np.inf
        wrong = defined & ~(apart <= rtol * size)
        hopeless = rtol >= ILL_CONDITIONED and wrong.sum() > MAX_EXCUSED * compared
        if wrong.any() and not hopeless:
            allowed = SAFETY * scale * first.spread(streams, wrong)
            within = wrong & (apart <= allowed + rtol * size)
            excused = within & (allowed > ILL_CONDITIONED * size)
            wrong &= ~within
        if wrong.any() and not hopeless:
            allowed = np.minimum(
                SAFETY * second.spread(streams, wrong), WORSE_CONDITIONED * _with_neighbours(size)
            )
            wrong &= ~(apart <= allowed)
    verdict = Verdict(
        relation, True, scale=scale, max_error=_largest_error(apart, goal, defined & ~excused & ~wrong),
        excused=int(excused.sum()), compared=compared,
    )  # fmt: skip
    if wrong.any():
        reason = f"they differ at {int(wrong.sum())} of {compared} points"
        return _denied(verdict, reason, _example(first, theirs, wrong, streams))
    if excused.sum() > MAX_EXCUSED * compared:
        reason = (
            f"rounding alone decides at {100 * excused.sum() / compared:.1f} % of the points, more than 1 %"
        )
        return _denied(verdict, reason, _example(first, theirs, excused, streams))
    return verdict


def _example(
    first: _Setting, theirs: Array, where: NDArray[np.bool_], streams: Streams
) -> CounterExample | None:
    """The earliest of some points, the first element first."""
    found = np.argwhere(where)
    if not len(found):
        return None
    step, at = (int(v) for v in found[0])
    flat = [name for names in streams.names for name in names]
    return CounterExample(
        stream=flat[at], step=step + 1, element=at - flat.index(flat[at]),
        first=float(first.updates[step, at]), second=float(theirs[step, at]), hypers=first.hypers,
    )  # fmt: skip


def _deviation(rule: Rule, hypers: tuple[float, ...], streams: Streams, plain: Array) -> Array:
    """Largest distance of noisy runs from the plain one, infinite where one of them is not finite."""
    rng = np.random.default_rng(np.random.SeedSequence((NOISY_RUNS, 1)))
    if elements_meet(rule) or [grad.ndim for grad in streams.grads[0]] != [1]:
        runs = [run_rule(rule, hypers, streams, rng) for _ in range(NOISY_RUNS)]
    else:  # side by side, since elements do not meet
        many = run_rule(rule, hypers, streams.repeated(NOISY_RUNS), rng)
        runs = np.split(many, NOISY_RUNS, axis=1)
    with np.errstate(all="ignore"):
        apart = np.max([np.abs(run - plain) for run in runs], axis=0)
    return np.where(np.isfinite(apart), apart, np.inf)


def _with_neighbours(spread: Array) -> Array:
    """The largest of each step, the one before and the one after: a few runs may agree by chance."""
    padded = np.pad(np.where(np.isnan(spread), 0.0, spread), ((1, 1), (0, 0)), mode="edge")
    return np.maximum(np.maximum(padded[:-2], padded[1:-1]), padded[2:])


def _denied(verdict: Verdict, reason: str, example: CounterExample | None) -> Verdict:
    return Verdict(
        verdict.relation, False, verdict.scale, verdict.max_error, example, verdict.excused,
        verdict.compared, reason,
    )  # fmt: skip


def _factor(ours: Array, theirs: Array) -> float:
    """Median quotient where both are ordinary numbers; 1 where nothing moves."""
    usable = np.isfinite(ours) & np.isfinite(theirs) & (np.abs(ours) > 1e-290)
    if not usable.any():
        return 1.0
    with np.errstate(all="ignore"):
        quotients = np.sort(theirs[usable] / ours[usable])
    return float(quotients[len(quotients) // 2])


def _largest_error(apart: Array, goal: Array, agreeing: NDArray[np.bool_]) -> float:
    if not agreeing.any():
        return 0.0
    peak = np.max(np.where(agreeing, np.abs(goal), 0.0), axis=0)
    with np.errstate(all="ignore"):
        relative = np.where(agreeing & (peak > 0), apart / peak, 0.0)
    return float(np.max(relative))
