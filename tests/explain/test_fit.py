"""Fits recover hyperparameters that were drawn at random, from answers alone."""

from __future__ import annotations

import numpy as np
import pytest

from ruleforge.core.known import known
from ruleforge.core.rule import Rule
from ruleforge.errors import InputError
from ruleforge.explain.fit import EXACT, Fitter, Target, fit_rule
from ruleforge.explain.traces import Traces, make_inputs, run_settings, trace_rule
from ruleforge.simplify.streams import Streams
from ruleforge.simplify.trajectories import run_rule


@pytest.mark.parametrize(
    ("name", "true"),
    [
        ("momentum", (0.83,)),
        ("adam", (0.7, 0.97, 1e-5)),
        ("lion", (0.62, 0.95)),
        ("qhm", (0.93, 0.4)),
    ],
)
def test_hyperparameters_come_back(name: str, true: tuple[float, ...]) -> None:
    rule = known(name).rule.rule
    traces = trace_rule(rule.with_defaults(true))
    scaled = Traces(traces.inputs, 0.3 * traces.updates)
    fit = fit_rule(rule, Target(scaled))
    assert fit.distance <= EXACT
    assert fit.factor == pytest.approx(0.3, rel=1e-5)
    # Under a sign the answers leave an interval open; elsewhere the values are exact.
    np.testing.assert_allclose(fit.hypers, true, rtol=5e-3 if name == "lion" else 1e-5)


def test_a_fit_that_ends_in_a_valley_begins_again() -> None:
    """EXAdam at these betas: the first descent ends at beta1 near 1, a tenth of the updates away."""
    rule, true = known("exadam").rule.rule, (0.9862, 0.9946, 5.14e-7)
    target = Target(trace_rule(rule.with_defaults(true)))
    once = Fitter(rule, target)
    once.survey()
    assert once.search(restarts=0).distance > 0.05
    again = Fitter(rule, target)
    again.survey()
    np.testing.assert_allclose(again.search().hypers, true, rtol=1e-5)


def test_another_rule_does_not_fit() -> None:
    traces = trace_rule(Rule.parse("update = cbrt(g) * ema(g, 0.9)"))
    assert fit_rule(known("adam").rule.rule, Target(traces)).distance > 0.2


def test_the_distance_is_the_written_definition() -> None:
    """Root mean square of what the best factor leaves, each element in units of its own size."""
    rule, other = Rule.parse("update = g + ema(g, 0.5)"), Rule.parse("update = g")
    traces = trace_rule(rule)
    seen, answer = traces.updates, trace_rule(other).updates
    size = np.sqrt((seen**2).mean(axis=1, keepdims=True))
    a, b = (seen / size).ravel(), (answer / size).ravel()
    factor = (a @ b) / (b @ b)
    expected = np.sqrt(((a - factor * b) ** 2).mean())
    target = Target(traces)
    found, factors = target.distances(target.answers(other, np.zeros((1, 0))))
    assert found[0] == pytest.approx(expected, rel=1e-12)
    assert factors[0] == pytest.approx(factor, rel=1e-12)


def test_decoupled_decay_is_found_beside_the_rule() -> None:
    rule = known("momentum").rule.rule
    inputs = make_inputs()
    plain = run_settings(rule, np.array([[0.8]]), inputs)[0]
    target = Target(Traces(inputs, plain + 0.05 * inputs.weights), with_decay=True)
    fit = fit_rule(rule, target)
    assert fit.distance <= EXACT
    assert fit.hypers == pytest.approx((0.8,), rel=1e-6)
    assert target.decay_of(fit) == pytest.approx(0.05, rel=1e-5)


@pytest.mark.parametrize("name", ["adam", "rprop", "lamb", "radam", "cautious_lion"])
def test_many_settings_at_once_are_the_reference_one_by_one(name: str) -> None:
    rule = known(name).rule.rule
    inputs = make_inputs(steps=8)
    rows = [rule.defaults, tuple(v * 0.9 for v in rule.defaults)]
    found = run_settings(rule, np.array(rows), inputs)
    for k, row in enumerate(rows):
        for s in range(len(inputs.names)):
            steps = [inputs.grads[s, t] for t in range(8)], [inputs.weights[s, t] for t in range(8)]
            grads, weights = (tuple((x[:12].reshape(4, 3), x[12:]) for x in part) for part in steps)
            streams = Streams(((("s",) * 12), ("s",) * 5), grads, weights)
            if rule.reads("lr") or rule.reads("lr0"):
                continue  # streams of `simplify` decay their learning rate
            expected = run_rule(rule, row, streams)
            np.testing.assert_allclose(found[k, s], expected, rtol=1e-9, atol=1e-300)


def test_a_rule_that_is_not_finite_is_refused_in_words() -> None:
    with pytest.raises(InputError, match="finite at less than a fifth"):
        trace_rule(Rule.parse("update = g / 0 - g / 0"))
