"""Hyperparameters at which a rule of known form answers as some traces do, up to a positive factor.

**Distance.** Each element of each stream is divided by its own size (root mean square over the steps),
the factor is the best one, and the distance is the root mean square of what is left: 0 for a rule that
does the same, 1 for one that has nothing to do with it.

**Search.** Random settings over the ranges and any that are suggested; then a population that
contracts around the best, which needs no slope and so works under a sign; then Gauss–Newton steps,
which bring smooth rules to the last digits. What ends in a valley of its own begins again from other
random settings. Last, values are rounded while that costs nothing.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice, product

import numpy as np
from numpy.typing import NDArray

from ruleforge.core.rule import Hyper, Rule
from ruleforge.explain.axes import Axis
from ruleforge.explain.traces import Array, Traces, run_settings

EXACT = 1e-6
MAX_SUGGESTED = 48
RANDOM_SETTINGS = 40
RESTARTS = 2
KEPT = 64  # settings that are remembered
LEADS_NOWHERE = 0.1  # a distance that is worth no more steps


@dataclass(frozen=True)
class Fit:
    """How near a rule comes to traces.

    Attributes:
        rule: the rule, at any defaults.
        hypers: values that come nearest, in the order of `rule.hypers`.
        factor: from the rule's updates to those of the traces; positive.
        distance: see the module.
    """

    rule: Rule
    hypers: tuple[float, ...]
    factor: float
    distance: float

    @property
    def is_exact(self) -> bool:
        return self.distance <= EXACT


class Target:
    """Traces prepared for many comparisons."""

    def __init__(self, traces: Traces, *, after: int = 0, with_decay: bool = False) -> None:
        """Prepare.

        Args:
            traces: what is to be met.
            after: steps at the start that do not count.
            with_decay: allow a multiple of the weights besides, which is decoupled decay.
        """
        self.inputs = traces.inputs
        self.after = after
        seen = traces.updates[:, after:]
        self.usable: NDArray[np.bool_] = np.isfinite(seen)
        clean = np.where(self.usable, seen, 0.0)
        size = np.sqrt(np.mean(np.square(clean), axis=1, keepdims=True))
        overall = float(np.sqrt(np.mean(np.square(size)))) or 1.0
        with np.errstate(divide="ignore"):
            self.weight = np.where(size > 0, 1.0 / np.maximum(size, 1e-300), 1.0 / overall)
        self.goal = (clean * self.weight).reshape(-1)
        self.mean_square = float(np.mean(np.square(self.goal))) or 1.0
        self.decay: Array | None = None
        if with_decay:
            pull = np.where(self.usable, traces.inputs.weights[:, after:], 0.0) * self.weight
            self.decay = pull.reshape(-1)

    def answers(self, rule: Rule, settings: Array) -> Array:
        """(K, n) weighted updates, 0 where the traces are not finite, NaN where the rule is not."""
        made = run_settings(rule, settings, self.inputs)[:, :, self.after :]
        with np.errstate(all="ignore"):
            return np.where(self.usable, made * self.weight, 0.0).reshape(len(made), -1)

    def residuals(self, answers: Array) -> tuple[Array, Array]:
        """What is left of the goal after the best positive factor, and that factor; (K, n) and (K,)."""
        with np.errstate(all="ignore"):
            power = np.einsum("kn,kn->k", answers, answers)
            cross = answers @ self.goal
            if self.decay is None:
                factor = cross / power
                left = self.goal - factor[:, None] * answers
            else:
                other = answers @ self.decay
                pull = float(self.decay @ self.decay) or 1.0
                cross = cross - other * float(self.decay @ self.goal) / pull
                factor = cross / (power - np.square(other) / pull)
                left = self.goal - factor[:, None] * answers
                left -= (left @ self.decay / pull)[:, None] * self.decay
        bad = ~(np.isfinite(factor) & (factor > 0))
        left[bad] = np.nan
        return left, factor

    def distances(self, answers: Array) -> tuple[Array, Array]:
        """Distance and factor of each answer; infinite where there is no positive factor."""
        left, factor = self.residuals(answers)
        with np.errstate(all="ignore"):
            found = np.sqrt(np.mean(np.square(left), axis=1) / self.mean_square)
        return np.where(np.isfinite(found), found, np.inf), factor

    def decay_of(self, fit: Fit) -> float:
        """The multiple of the weights that goes with a fit; 0 without decay."""
        if self.decay is None:
            return 0.0
        answer = self.answers(fit.rule, np.array([fit.hypers]))[0]
        left = self.goal - fit.factor * answer
        return float(left @ self.decay / (float(self.decay @ self.decay) or 1.0))


class Fitter:
    """One rule against one target."""

    def __init__(self, rule: Rule, target: Target, *, seed: int = 0) -> None:
        self.rule, self.target = rule, target
        self.axes = [Axis(h) for h in rule.hypers]
        self.rng = np.random.default_rng(np.random.SeedSequence((seed, 3)))
        self.points: list[tuple[float, tuple[float, ...]]] = []  # distance, z

    @property
    def best(self) -> Fit:
        """The nearest so far."""
        if not self.points:
            return Fit(self.rule, self.rule.defaults, 1.0, math.inf)
        distance, z = min(self.points)
        values = self.values(np.array([z]))
        _, factor = self.target.distances(self.target.answers(self.rule, values))
        return Fit(self.rule, tuple(float(v) for v in values[0]), float(factor[0]), distance)

    @property
    def distance(self) -> float:
        return min(self.points)[0] if self.points else math.inf

    def values(self, z: Array) -> Array:
        """Hyperparameters from points on their scales, (K, hypers)."""
        if not self.axes:
            return np.zeros((len(z), 0))
        return np.stack([axis.back(z[:, i]) for i, axis in enumerate(self.axes)], axis=1)

    def _try(self, z: Array) -> Array:
        answers = self.target.answers(self.rule, self.values(z))
        found, _ = self.target.distances(answers)
        self.seen(z, found)
        return answers

    def survey(self, n_random: int = RANDOM_SETTINGS) -> None:
        """Defaults and random settings."""
        self._try(self.first_settings(n_random))

    def first_settings(self, n_random: int) -> Array:
        """The defaults and random settings, on the scales of the search."""
        if not self.axes:
            return np.zeros((1, 0))
        default = [[axis.to(v) for axis, v in zip(self.axes, self.rule.defaults, strict=True)]]
        drawn = np.stack([axis.drawn(self.rng, n_random) for axis in self.axes], axis=1)
        return np.concatenate([np.array(default), drawn])

    def seen(self, z: Array, distances: Array) -> None:
        """Take over settings that were tried elsewhere."""
        self.points += [(float(d), tuple(map(float, row))) for d, row in zip(distances, z, strict=True)]
        self.points = sorted(self.points)[:KEPT]

    def suggest(self, values: Iterable[float], setting: Sequence[float] | None = None) -> None:
        """Combinations of values that the hyperparameters may well have, and one whole setting."""
        rows = self._suggestions(values)
        if setting is not None:
            rows.insert(0, tuple(setting))
        if self.axes and rows:
            z = [[axis.to(v) for axis, v in zip(self.axes, row, strict=True)] for row in rows]
            self._try(np.array(z))

    def _suggestions(self, values: Iterable[float]) -> list[tuple[float, ...]]:
        """Each hyperparameter at a suggested value of its range; its default if there is none."""
        choices = []
        known = sorted(set(values))
        for h in self.rule.hypers:
            fits = [v for v in known if h.low < v < h.high]
            if h.scale == "one_minus_log":
                fits = [v for v in fits if v >= 0.3] or fits
            elif h.scale == "log" and h.high <= 1:
                fits = [v for v in fits if v <= 0.2] or fits
            choices.append(fits or [h.default])
        return list(islice(product(*choices), MAX_SUGGESTED))

    def contract(self, rounds: int = 8, n: int = 32, elite: int = 6) -> None:
        """A population that closes in on the best."""
        if not self.axes or not self.points:
            return
        spread = None
        for number in range(rounds):
            if self.distance <= EXACT:
                return
            best = np.array([z for d, z in self.points[:elite] if math.isfinite(d)])
            if not len(best):
                return
            wide = (
                np.std(best, axis=0)
                + np.array([a.ends[1] - a.ends[0] for a in self.axes]) * 2e-3 * 0.5**number
            )
            spread = wide if spread is None else np.minimum(np.maximum(wide, 0.3 * spread), spread)
            drawn = best[self.rng.integers(len(best), size=n)]
            drawn = drawn + spread * self.rng.standard_normal(drawn.shape) * (1.0 if number % 2 else 0.4)
            low, high = np.array([a.ends for a in self.axes]).T
            self._try(np.clip(drawn, low, high))

    def polish(self, starts: int = 3, rounds: int = 12) -> None:
        """Gauss–Newton from the nearest settings, damped at several strengths at once."""
        if not self.axes:
            return
        for distance, z in list(self.points[:starts]):
            if self.distance <= 1e-9 or not math.isfinite(distance):
                return
            self._descend(np.array(z), distance, rounds)

    def _descend(self, z: Array, distance: float, rounds: int) -> None:
        damping, step = 1e-3, 1e-6
        n = len(self.axes)
        low, high = np.array([a.ends for a in self.axes]).T
        for _ in range(rounds):
            sides = np.where(z + step > high, -step, step)
            near = np.concatenate([z[None], z + np.diag(sides)])
            left, _ = self.target.residuals(self.target.answers(self.rule, self.values(near)))
            if not np.isfinite(left).all():
                return
            slope = (left[1:] - left[:1]) / sides[:, None]
            normal, pull = slope @ slope.T, slope @ left[0]
            scale = np.diag(np.maximum(np.diag(normal), 1e-12 * max(1e-300, float(normal.max()))))
            tries = []
            for strength in (damping * 1e-3, damping, damping * 1e2, damping * 1e4):
                try:
                    move = -np.linalg.solve(normal + strength * scale + 1e-300 * np.eye(n), pull)
                except np.linalg.LinAlgError:
                    move = np.zeros(n)
                tries.append(np.clip(z + np.clip(move, -1.5, 1.5), low, high))
            answers = self._try(np.array(tries))
            found, _ = self.target.distances(answers)
            chosen = int(np.argmin(found))
            if not found[chosen] < distance * (1 - 1e-6):
                return
            damping = max(1e-12, damping * (1e-3, 1.0, 1e2, 1e4)[chosen])
            z, distance = tries[chosen], float(found[chosen])
            if distance < 1e-11:
                return

    def rounded(self, check: Target | None = None, digits: Sequence[int] = (1, 2, 3, 4, 6)) -> Fit:
        """The best fit with each value at the fewest digits that do not lengthen the distance.

        Args:
            check: other traces, on which a rounded value must do as well; under a sign the first ones
                leave an interval open.
            digits: numbers of significant digits to try.
        """
        fit = self.best
        targets = [self.target, *([check] if check is not None else [])]
        values = list(fit.hypers)
        limits = [_allowed(float(self._distances(t, [values])[0])) for t in targets]
        for i, h in enumerate(self.rule.hypers):
            options = [v for v in (_digits(h, values[i], d) for d in digits) if h.low < v < h.high]
            if not options:
                continue
            rows = [[*values[:i], v, *values[i + 1 :]] for v in options]
            good = np.all(
                [self._distances(t, rows) <= m for t, m in zip(targets, limits, strict=True)], axis=0
            )
            if good.any():
                values[i] = options[int(np.argmax(good))]
        distance, factor = self.target.distances(self.target.answers(self.rule, np.array([values])))
        return Fit(self.rule, tuple(values), float(factor[0]), float(distance[0]))

    def _distances(self, target: Target, rows: Sequence[Sequence[float]]) -> Array:
        return target.distances(target.answers(self.rule, np.array(rows)))[0]

    def agree(self, check: Target) -> None:
        """Move within what the traces leave open to where other traces agree too."""
        if not self.axes or self.distance > EXACT:
            return
        z = np.array(min(self.points)[1])
        low, high = np.array([a.ends for a in self.axes]).T
        best = self.distance + float(self._distances(check, self.values(z[None]).tolist())[0])
        for number in range(12):
            if best <= 2 * EXACT:
                break
            spread = 0.1 * (high - low) * 0.5**number
            near = np.clip(z + spread * self.rng.standard_normal((40, len(z))), low, high)
            rows = self.values(near).tolist()
            found = self._distances(self.target, rows) + self._distances(check, rows)
            if found.min() < best:
                best, z = float(found.min()), near[int(np.argmin(found))]
        distance = float(self._distances(self.target, self.values(z[None]).tolist())[0])
        self.points.insert(0, (distance, tuple(map(float, z))))
        if distance <= EXACT:
            self.points = [(distance, tuple(map(float, z)))]

    def search(self, check: Target | None = None, restarts: int = RESTARTS) -> Fit:
        """The stages after the survey, as long as they lead somewhere; then round.

        Args:
            check: other traces, on which rounded values must do as well.
            restarts: how often to begin again from other random settings, while nothing is exact.
        """
        self._approach()
        for _ in range(restarts):
            if self.distance <= EXACT or not self.axes:
                break
            self._begin_again()
        if self.distance <= EXACT and check is not None:
            self.agree(check)
        return self.rounded(check) if self.distance <= LEADS_NOWHERE else self.best

    def _approach(self) -> None:
        """Contract, polish, contract again and polish again, unless the distance says that it is in vain."""
        for stage, hopeless in (
            (self.contract, 0.35),
            (self.polish, 0.15),
            (self._closer, LEADS_NOWHERE),
            (self.polish, 0),
        ):
            if self.distance <= EXACT:
                return
            stage()
            if self.distance > hopeless:
                return

    def _begin_again(self) -> None:
        """The same from new random settings; what was found before stays if it is nearer."""
        before, self.points = self.points, []
        self.survey()
        self._approach()
        self.points = sorted([*self.points, *before])[:KEPT]

    def _closer(self) -> None:
        self.contract(rounds=14)


def _allowed(distance: float) -> float:
    """How far a rounded value may lie off."""
    return max(2 * distance, 1e-9) if distance < EXACT else distance * 1.001 + 1e-12


def _digits(h: Hyper, value: float, digits: int) -> float:
    if h.scale == "one_minus_log":
        return float(f"{1 - float(f'{1 - value:.{digits}g}'):.12g}")
    return float(f"{value:.{digits}g}")


def fit_rule(rule: Rule, target: Target, *, suggested: Iterable[float] = (), seed: int = 0) -> Fit:
    """The setting of a rule that comes nearest to traces.

    Args:
        rule: its ranges bound the search.
        target: prepared traces.
        suggested: values that hyperparameters may well have.
        seed: of the random settings.
    """
    fitter = Fitter(rule, target, seed=seed)
    fitter.survey()
    fitter.suggest(suggested)
    return fitter.search()
