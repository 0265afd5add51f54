"""A rule's answers to designed signals, one element a lane, in float64: what pictures and properties use."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ruleforge.backends.base import Layout
from ruleforge.core.rule import Rule
from ruleforge.explain.traces import Array, Inputs, run_settings

ONE = Layout(("vector",), ((1,),))
STEPS = 120
STEP_AT = 20


@dataclass(frozen=True)
class Curve:
    """A picture's worth of numbers: y over x, with what went in beside it.

    Attributes:
        name: short.
        title: for people.
        x: (n,), with its label.
        lines: what is drawn, by name, (n,) each.
    """

    name: str
    title: str
    x_label: str
    y_label: str
    x: Array
    lines: dict[str, Array]


@dataclass(frozen=True)
class HeatMap:
    """The update over gradient and momentum, (momentum, gradient)."""

    name: str
    title: str
    x_label: str
    y_label: str
    x: Array
    y: Array
    values: Array


def answer(rule: Rule, signals: Array, weight: float = 1.0) -> Array:
    """Updates for gradient signals, each on an element of its own.

    Args:
        rule: at its defaults.
        signals: (n, steps).
        weight: the weights, which stay there.

    Returns:
        (n, steps).
    """
    signals = np.atleast_2d(np.asarray(signals, float))
    inputs = Inputs(("",) * len(signals), signals[:, :, None], np.full((*signals.shape, 1), weight))
    return run_settings(rule, np.array([rule.defaults]), inputs, layout=ONE)[0, :, :, 0]


def responses(rule: Rule) -> list[Curve | HeatMap]:
    """Step, impulse and sine response, the heat map, and the noise-to-signal curve."""
    return [*over_time(rule), _heat(rule), _noise(rule)]


def over_time(rule: Rule) -> list[Curve]:
    """Step, impulse and sine response."""
    return [_step(rule), _impulse(rule), _sine(rule)]


def _over_time(rule: Rule, name: str, title: str, signal: Array) -> Curve:
    steps = np.arange(1.0, len(signal) + 1)
    return Curve(
        name, title, "step", "update", steps, {"update": answer(rule, signal)[0], "gradient": signal}
    )


def _step(rule: Rule) -> Curve:
    signal = np.where(np.arange(STEPS) < STEPS // 2, 1.0, -1.0)
    return _over_time(rule, "step", "Gradient 1, then −1", signal)


def _impulse(rule: Rule) -> Curve:
    signal = np.zeros(STEPS)
    signal[STEP_AT] = 1.0
    return _over_time(rule, "impulse", "One gradient of 1 among zeros", signal)


def _sine(rule: Rule) -> Curve:
    signal = np.sin(2 * np.pi * np.arange(STEPS) / 40)
    return _over_time(rule, "sine", "A sine with a period of 40 steps", signal)


def _heat(rule: Rule) -> HeatMap:
    """After 30 steps of one gradient, which fill the averages, the update at another one."""
    axis = np.linspace(-2, 2, 33)
    past, now = np.meshgrid(axis, axis, indexing="ij")
    signals = np.repeat(past.reshape(-1, 1), 31, axis=1)
    signals[:, -1] = now.reshape(-1)
    values = answer(rule, signals)[:, -1].reshape(past.shape)
    return HeatMap(
        "heat",
        "Update after 30 equal gradients",
        "gradient now",
        "gradient of the 30 steps before",
        axis,
        axis,
        values,
    )


def _noise(rule: Rule) -> Curve:
    """Mean and spread of the update under a gradient of mean 1 and growing noise."""
    rng = np.random.default_rng(np.random.SeedSequence((0x6E6F6973, 0)))
    ratios = np.logspace(-2, 2, 17)
    n = 48
    drawn = rng.standard_normal((len(ratios), n, 60))
    signals = 1.0 + ratios[:, None, None] * drawn
    size = np.sqrt(1.0 + np.square(ratios))[:, None, None]
    got = answer(rule, (signals / size).reshape(-1, 60))[:, 30:].reshape(len(ratios), n, 30)
    with np.errstate(all="ignore"):
        scale = np.sqrt(np.mean(np.square(got), axis=(1, 2)))
        gain = np.mean(got, axis=(1, 2)) / np.where(scale > 0, scale, 1)
    plain = 1.0 / np.sqrt(1.0 + np.square(ratios))
    return Curve(
        "noise",
        "Signal in the update, by noise in the gradient",
        "log10 of noise / signal in the gradient",
        "mean / root mean square",
        np.log10(ratios),
        {"update": gain, "gradient": plain},
    )
