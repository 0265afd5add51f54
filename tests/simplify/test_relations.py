"""Relations beyond equality: what holds under each, and what must not."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner, Result

from ruleforge.app.cli import cli
from ruleforge.core.known import known
from ruleforge.core.rule import Rule
from ruleforge.errors import InputError
from ruleforge.simplify import verify
from ruleforge.simplify.relations import in_float32, related, strictest, without_eps
from ruleforge.simplify.verify import Checker


def rule(expression: str) -> Rule:
    return Rule.parse(f"update = {expression}")


@pytest.mark.parametrize(
    ("a", "b", "scaled", "after"),
    [
        ("ema_hat(g, 0.9)", "ema(g, 0.9)", False, 100),
        ("where(t < 3, g, w)", "w", False, 3),
        ("where(first, w, g)", "5 * g", True, 1),
        ("g", "g", False, 1),
    ],
)
def test_equal_after_a_warm_up(a: str, b: str, scaled: bool, after: int) -> None:
    found = verify(rule(a), rule(b), relation="warm_up", scaled=scaled)
    assert found.holds and found.after == after and found.relation == "warm_up"
    assert not verify(rule(a), rule("-g"), relation="warm_up", scaled=scaled)


def test_the_steps_to_ignore_may_be_given_and_no_fewer_do() -> None:
    a, b = rule("where(t < 8, g, w)"), rule("w")
    assert verify(a, b, relation="warm_up", after=7)
    short = verify(a, b, relation="warm_up", after=6)
    assert not short and short.counter_example is not None and short.counter_example.step == 7
    with pytest.raises(InputError, match="-1 steps"):
        verify(a, b, relation="warm_up", after=-1)


@pytest.mark.parametrize(
    ("a", "b", "scaled", "holds"),
    [
        ("g / (abs(g) + 1e-8)", "sign(g)", False, True),
        ("g / maximum(abs(g), 1e-6)", "sign(g)", False, True),
        ("3 * g / sqrt(g * g + 1e-8)", "sign(g)", True, True),
        ("g / (abs(g) + 0.1)", "sign(g)", False, False),
        ("g * (1 + 1e-8)", "g", False, True),
        ("g / (sqrt(ema(g * g, 0.9)) + 1e-8)", "g / (sqrt(ema(g * g, 0.8)) + 1e-8)", False, False),
    ],
)
def test_equal_in_the_limit_of_small_eps(a: str, b: str, scaled: bool, holds: bool) -> None:
    assert verify(rule(a), rule(b), relation="small_eps", scaled=scaled).holds is holds


def test_an_eps_may_be_a_hyperparameter() -> None:
    one, other = known("radam").rule.rule, known("radam_eps_debiased").rule.rule
    assert not verify(one, other)
    assert verify(one, other, relation="small_eps")
    assert without_eps(known("lion").rule.rule).key == known("lion").rule.rule.key


def test_equal_under_other_hyperparameters() -> None:
    lion = known("lion").rule.rule
    mine = Rule.parse("m: state = 0\nupdate = sign(0.2 * g + 0.8 * m)\nm = lerp(g, m, 0.95)")
    assert not verify(mine, lion)
    found = verify(mine, lion, relation="hypers")
    assert found.holds and found.hypers == (0.8, 0.95)
    assert verify(mine, lion, relation="hypers", hypers={0: 0.8, 1: 0.95})
    wrong = verify(mine, lion, relation="hypers", hypers={0: 0.8, 1: 0.9})
    assert not wrong and wrong.counter_example is not None
    assert not verify(known("adam").rule.rule, lion, relation="hypers")
    assert verify(rule("2 * ema(g, 0.7)"), known("momentum").rule.rule, relation="hypers", scaled=True)


def test_arguments_that_a_relation_does_not_take_are_refused() -> None:
    a = known("lion").rule.rule
    with pytest.raises(InputError, match="takes neither scaled"):
        verify(a, a, scaled=True)
    with pytest.raises(InputError, match="takes no warm-up"):
        verify(a, a, relation="hypers", after=3)
    with pytest.raises(InputError, match="takes no hyperparameters"):
        verify(a, a, relation="warm_up", hypers={0: 0.5})
    with pytest.raises(InputError, match="no hyperparameter 7"):
        verify(a, a, relation="hypers", hypers={7: 0.5})
    with pytest.raises(InputError, match="outside its range"):
        verify(a, a, relation="hypers", hypers={0: 1.5})
    with pytest.raises(InputError, match="unknown relation 'like'"):
        related(a, a, "like")  # type: ignore[arg-type]


def test_float32_shows_what_float64_hides() -> None:
    assert verify(rule("g"), rule("log(exp(g / 1e10)) * 1e10")).holds is False
    big, small = rule("abs(g)"), rule("sqrt(g * g * 1e-60) * 1e30")
    found = in_float32(big, small)
    assert not found and found.counter_example is not None and "float32" in found.reason
    assert in_float32(rule("ema(g, 0.9) * 2"), rule("ema(g * 2, 0.9)"))
    assert in_float32(rule("trace(g, 0.9)"), rule("ema(g, 0.9)"), scale=0.1)
    # where the first rule itself fails in float32 the second is free
    assert in_float32(rule("g / sqrt(g * g)"), rule("sign(g)"))


def test_strictest_ends_with_the_first_that_holds() -> None:
    assert [v.relation for v in strictest(rule("g"), rule("g"))] == ["equal"]
    assert [v.holds for v in strictest(rule("g"), rule("2 * g"))] == [False, True]
    last = strictest(rule("ema_hat(g, 0.9)"), rule("ema(g, 0.9)"))[-1]
    assert last.relation == "warm_up" and last.holds and not last.scaled


def test_a_long_horizon_sees_what_a_short_one_does_not() -> None:
    a, b = rule("g"), rule("where(t > 150, w, g)")
    assert Checker(a).check(b)
    assert not Checker(a, steps=300).check(b)


def run(*args: str) -> Result:
    return CliRunner().invoke(cli, list(args))


def test_the_command() -> None:
    shown = run("verify", "ema_momentum", "momentum")
    assert shown.exit_code == 0
    assert "equal up to a positive scale" in shown.stdout and "factor 10" in shown.stdout
    record = json.loads(run("verify", "lion", "lion", "--set", "beta1=0.8", "--json").stdout)
    assert record["holds"] is False and record["verdicts"][0]["counter_example"]["first"] is not None
    assert run("verify", "lion", "lion", "--after", "2").exit_code == 0
    bad = run("verify", "lion", "lion", "--set", "beta3=0.8")
    assert bad.exit_code == 2 and "no hyperparameter 'beta3'" in bad.stderr
    assert run("verify", "lion", "lion", "--set", "beta1=x").exit_code == 2
