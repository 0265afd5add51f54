"""Names are given to what has one, and to nothing else."""

from __future__ import annotations

import pytest

from ruleforge.app.identity import identify
from ruleforge.core.form import form_key
from ruleforge.core.known import KNOWN
from ruleforge.core.text import parse


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("update = 3 * g\n", "sgd"),
        ("update = 0.5 * sign(trace(g, 0.9))\n", "signum"),
        ("update = sign(trace(g, 0.93))\n", "signum with other hyperparameters"),
        (
            "update = ema_hat(g, 0.85) / (sqrt(ema_hat(g * g, 0.99)) + 1e-8)\n",
            "adam with other hyperparameters",
        ),
        (
            "m: state = 0\nupdate = sign(lerp(g, m, 0.95))\nm = lerp(g, m, 0.98)\n",
            "lion with other hyperparameters",
        ),
        ("update = g * sqrt(abs(g))\n", "new"),
        ("update = sign(lerp(g, ema(g, 0.9), 0.8)) * abs(g)\n", "new"),
        (
            "m = 0.9 * ema(g, 0.9) + 0.1 * g\n"
            "update = m / (1 - 0.8 ** t) / (sqrt(ema_hat(g * g, 0.999)) + 1e-8)\n",
            "nadam_simple with its hyperparameters untied",
        ),
    ],
)
def test_rules_get_the_name_they_deserve(text: str, expected: str) -> None:
    assert str(identify(parse(text).rule)) == expected


@pytest.mark.parametrize("name", ["sgd", "adam", "lion", "nadam", "adan", "lars", "rprop", "muon"])
def test_known_rules_are_recognised_at_their_defaults(name: str) -> None:
    found = identify(KNOWN[name].rule.rule)
    assert found.relation == "known" and found.name == name


def test_one_form_whatever_the_constants() -> None:
    a, b = (parse(f"update = ema(g, {beta}) + 3.5 * g\n").rule for beta in (0.9, 0.8))
    assert a.key != b.key and form_key(a) == form_key(b)
    other = parse("update = ema(g, 0.9) - 3.5 * g\n").rule
    assert form_key(other) != form_key(a)


def test_a_constant_outside_a_known_rules_range_is_no_candidate_for_it() -> None:
    """radam's beta2 begins at 0.6; a rule with 0.543 in it must not be read as radam's text."""
    rule = parse("update = ema_hat(g, 0.543) / (sqrt(ema_hat(g * g * abs(g), 0.9)) + 1e-8)\n").rule
    assert str(identify(rule)) == "new"
