"""Other settings of a rule's hyperparameters, to be tuned beside its defaults.

Every rule gets the same number of settings, however many hyperparameters it has, so that none is
tuned with a larger budget. They are points of a Halton sequence around the defaults, on the scale that
each hyperparameter is declared with: the same for every run, and spread evenly for any number.
"""

from __future__ import annotations

import math
from dataclasses import replace

from ruleforge.core.rule import Hyper
from ruleforge.core.text import RuleText, parse

FACTORS = {"one_minus_log": 4.0, "log": 100.0, "linear": 2.0}
"""How far a setting may lie from the default: this factor up or down, of 1 - x for `one_minus_log`."""
_PRIMES = (2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47, 53)


def settings_of(text: str, n: int) -> tuple[str, ...]:
    """The rule under `n` other settings of its hyperparameters; () for a rule that has none.

    Args:
        text: rule text, at most 16 hyperparameters.
        n: how many settings.

    Returns:
        Rule texts that differ in their defaults alone.
    """
    rule = parse(text)
    if not rule.rule.hypers:
        return ()
    return tuple(str(_at(rule, k)) for k in range(2, n + 2))  # the first is the middle


def _at(text: RuleText, k: int) -> RuleText:
    values = tuple(
        moved(hyper, 2 * _radical_inverse(k, prime) - 1)
        for hyper, prime in zip(text.rule.hypers, _PRIMES, strict=False)
    )
    return replace(text, rule=text.rule.with_defaults(values))


def moved(hyper: Hyper, by: float) -> float:
    """A hyperparameter's default moved by a share, in (-1, 1), of the farthest: three digits, within bounds.

    Example:
        >>> moved(Hyper(0.0, 1.0, 0.9, "one_minus_log"), 0.5)
        0.8
    """
    factor = math.exp(by * math.log(FACTORS[hyper.scale]))
    if hyper.scale == "one_minus_log":
        value = 1 - float(f"{(1 - hyper.default) * factor:.3g}")
    else:
        value = float(f"{hyper.default * factor:.3g}")
    value = round(value, 12)
    return value if hyper.low < value < hyper.high else hyper.default


def _radical_inverse(k: int, base: int) -> float:
    """The digits of k in a base, mirrored at the point: evenly spread in (0, 1)."""
    value, place = 0.0, 1.0
    while k:
        k, digit = divmod(k, base)
        place /= base
        value += digit * place
    return value
