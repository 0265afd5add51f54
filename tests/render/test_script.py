"""Statements: names, order and length. That they compute the right thing is tested through exports."""

from __future__ import annotations

import time

import pytest

from ruleforge.core.known import KNOWN
from ruleforge.core.text import RuleText
from ruleforge.render.names import Names, slot_names
from ruleforge.render.python import TorchWriter
from ruleforge.render.script import Plan, Script, make_script

RESERVED = frozenset({"g", "w", "t", "lr", "step"})


def script(text: str | RuleText, width: int = 60) -> Script:
    rule = RuleText.parse(text) if isinstance(text, str) else text
    return make_script(rule, Plan("torch", RESERVED, width, TorchWriter))


def shown(made: Script) -> list[str]:
    writer = TorchWriter(made)
    return [f"{s.role} {s.name} = {s.source or writer.value(s.value)}" for s in made.statements]


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("b: hyper(0, 1) = 0.9\nupdate = ema(g, b)", ["exp_avg"]),
        ("b: hyper(0, 1) = 0.9\nupdate = ema(square(g), b) + ema(g, b)", ["exp_avg_sq", "exp_avg"]),
        ("b: hyper(0, 1) = 0.9\nm: state = 0\nm = b * m + (1 - b) * g\nupdate = m", ["exp_avg"]),
        ("b: hyper(0, 1) = 0.9\nm: state = 0\nm = lerp(g, m, b)\nupdate = m", ["exp_avg"]),
        ("b: hyper(0, 1) = 0.9\nm: state = 1\nm = b * m + (1 - b) * g\nupdate = m", ["m"]),
        ("b: hyper(0, 1) = 0.9\nm: state = 0\nm = b * m + (1 - b) * abs(g)\nupdate = m", ["m"]),
        ("update = trace(g, 0.9) + prev(g)", ["momentum_buffer", "prev_grad"]),
        ("update = g / sqrt(total(square(g)))", ["grad_sq_sum"]),
        ("update = running_max(ema(square(g), 0.9)) * g", ["max_exp_avg_sq", "exp_avg_sq"]),
        ("d = g - prev(g)\nupdate = ema(d, 0.5) + ema(g, 0.5) + ema(g, 0.25)",
         ["prev_grad", "exp_avg_d", "exp_avg", "exp_avg_2"]),
        ("step: state = 0\nstep = step * g + w\nupdate = step", ["step_"]),
    ],
)  # fmt: skip
def test_states_are_named_by_what_they_mean(text: str, names: list[str]) -> None:
    assert sorted(slot.name for slot in script(text).slots) == sorted(names)


def test_slot_names_of_nameless_rules() -> None:
    assert sorted(slot_names(KNOWN["adam"].rule.rule.canonical)) == ["exp_avg", "exp_avg_sq"]


def test_names_are_fresh() -> None:
    names = Names(frozenset({"g"}))
    assert [names.fresh("g"), names.fresh("g"), names.fresh("m"), names.fresh("m"), names.fresh("m")] == [
        "g_",
        "g_2",
        "m",
        "m_2",
        "m_3",
    ]


def test_lion_reads_its_state_before_overwriting_it() -> None:
    assert shown(script(KNOWN["lion"].rule)) == [
        "let update = _sign(g + beta1 * (exp_avg - g))",
        "write exp_avg = g + beta2 * (exp_avg - g)",
    ]


def test_a_value_that_must_wait_has_its_own_name() -> None:
    made = script("b: hyper(0, 1) = 0.9\nupdate = ema(g, b) - prev(ema(g, b))")
    assert shown(made) == [
        "let exp_avg_new = b * exp_avg + (1 - b) * g",
        "let update = exp_avg_new - exp_avg",
        "write exp_avg = exp_avg_new",
    ]


def test_chains_of_lags_need_no_waiting() -> None:
    assert shown(script("update = prev(prev(prev(g)))")) == [
        "let update = prev_value",
        "write prev_value = prev_value_2",
        "write prev_value_2 = prev_grad",
        "write prev_grad = g",
    ]


def test_repeated_arguments_are_computed_once() -> None:
    lines = shown(script("update = lerp(exp(g), w, 0.5)"))
    assert sum(line.count("exp(") for line in lines) == 1


def test_shared_tensors_are_computed_once() -> None:
    lines = shown(script("update = exp(g) * 2 + exp(g) * w"))
    assert sum(line.count("exp(") for line in lines) == 1


def test_laws_tidy_and_keep_the_order_of_arguments() -> None:
    assert shown(script("update = (2 * 3) * w * 1 + g")) == ["let update = 6 * w + g"]
    assert shown(script("update = g + w * 3")) == ["let update = g + w * 3"]


@pytest.mark.parametrize("width", [40, 60, 90])
def test_long_lines_are_divided(width: int) -> None:
    for entry in KNOWN.values():
        assert max(map(len, shown(script(entry.rule, width))), default=0) <= width + 30


def test_doubling_chains_stay_small() -> None:
    """Written out, this rule would be as long as 2 to the power of 60."""
    lines = ["a0 = g + w"] + [f"a{i} = a{i - 1} + a{i - 1} * a{i - 1}" for i in range(1, 60)]
    text = RuleText.parse("\n".join([*lines, "update = a59"]))
    start = time.perf_counter()
    assert len(shown(script(text))) == 60
    assert time.perf_counter() - start < 10


def test_dead_states_and_hypers_are_left_out() -> None:
    made = script(
        "b: hyper(0, 1) = 0.9\nc: hyper(0, 1) = 0.5\nd: state = 0\nd = d + g * c\nupdate = ema(g, b)"
    )
    assert [slot.name for slot in made.slots] == ["exp_avg"]
    assert list(made.used_hypers) == ["b"]
