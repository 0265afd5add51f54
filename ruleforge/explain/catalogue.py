"""The known rules, made ready to be compared with: their forms, and a survey of their answers.

The survey runs each known rule at its defaults and at random settings on the streams of seed 0, once in
a process, and is kept in float32: it only decides which rules are worth fitting.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from ruleforge.core.known import KNOWN
from ruleforge.core.rule import Rule
from ruleforge.explain.fit import RANDOM_SETTINGS, Fitter, Target
from ruleforge.explain.traces import Array, make_inputs, run_settings


@dataclass(frozen=True)
class Surveyed:
    """One known rule and what it answers.

    Attributes:
        name: of the known rule.
        rule: it.
        z: settings on the scales of the fit, (K, hypers).
        answers: (K, S, T, P), float32.
    """

    name: str
    rule: Rule
    z: Array
    answers: np.ndarray


def families() -> dict[str, tuple[str, ...]]:
    """Known rules by formula: the first name of each, and all names that share its formula."""
    by_key: dict[str, list[str]] = {}
    for name, entry in KNOWN.items():
        by_key.setdefault(entry.rule.rule.key, []).append(name)
    return {names[0]: tuple(names) for names in by_key.values()}


@lru_cache(maxsize=1)
def survey() -> tuple[Surveyed, ...]:
    """Each formula of the catalogue once."""
    inputs = make_inputs()
    found = []
    for name in families():
        rule = KNOWN[name].rule.rule
        z = settings_of(rule)
        values = Fitter(rule, blank_target()).values(z)
        found.append(Surveyed(name, rule, z, run_settings(rule, values, inputs).astype(np.float32)))
    return tuple(found)


def settings_of(rule: Rule) -> Array:
    """Defaults and random settings of a rule, on the scales of the fit."""
    fitter = Fitter(rule, blank_target())
    return fitter.first_settings(RANDOM_SETTINGS if rule.hypers else 0)


@lru_cache(maxsize=1)
def blank_target() -> Target:
    """A target that stands for none: a fitter needs one even to draw settings."""
    from ruleforge.explain.traces import Traces

    inputs = make_inputs()
    return Target(Traces(inputs, inputs.grads))
