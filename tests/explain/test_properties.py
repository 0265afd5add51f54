"""Properties of rules of which they are known on paper."""

from __future__ import annotations

import numpy as np
import pytest

from ruleforge.core.known import known
from ruleforge.core.text import parse
from ruleforge.explain.explain import explain
from ruleforge.explain.parts import parts
from ruleforge.explain.pictures import as_text, svg
from ruleforge.explain.properties import Property, properties
from ruleforge.explain.signals import answer, responses
from ruleforge.explain.traces import make_inputs, run_settings


def of(text: str) -> dict[str, Property]:
    rule = known(text).rule if text.isidentifier() else parse(text)
    return {each.name: each for each in properties(rule)}


def test_adam() -> None:
    found = of("adam")
    assert found["scale_degree"].value == 0
    assert "well above the eps" in found["scale_degree"].text
    assert found["sign_symmetry"].value == "odd"
    assert found["memory_exp_avg"].value == pytest.approx(10, abs=1)  # 0.9 ** 9.5 = 1/e
    assert found["memory_exp_avg_sq"].value == pytest.approx(1000, abs=10)


def test_lion_is_bounded_by_proof() -> None:
    bound = of("lion")["bound"]
    assert (bound.known_by, bound.value) == ("proved", 1.0)


def test_sgd() -> None:
    found = of("sgd")
    assert found["scale_degree"].value == 1
    assert found["bound"].value is None
    assert found["descent"].value == {
        "mean_cosine": pytest.approx(1),
        "worst_cosine": pytest.approx(1),
        "against": 0,
    }
    assert found["zero_gradient"].value == 0
    assert found["sign_flip"].value == 0


@pytest.mark.parametrize(
    ("text", "degree"),
    [("update = g * abs(g)", 2), ("update = cbrt(g)", 1 / 3), ("update = g + sign(g)", None)],
)
def test_degree(text: str, degree: float | None) -> None:
    value = of(text)["scale_degree"].value
    if degree is None:  # far out the larger term wins
        assert value == 1
    else:
        assert value == pytest.approx(degree, abs=1e-6)


def test_symmetry() -> None:
    assert of("update = g + 0.1 * w")["sign_symmetry"].value == "odd in g and w"
    assert of("update = g + abs(g)")["sign_symmetry"].value == "none"


def test_reads() -> None:
    assert "w" in of("update = g + 0.1 * w")["reads"].value
    assert "does not read the gradient" in of("update = w")["reads"].text


def test_a_rule_that_diverges_is_described_all_the_same() -> None:
    assert of("update = g / abs(g)")["zero_gradient"].value is None
    assert set(of("update = g / 0")) == {"reads"}, "nothing is measured of what is hardly ever finite"


def test_signals_are_answered_element_by_element() -> None:
    """Two signals side by side are what each is alone, also where elements of a tensor meet."""
    rule = known("normalized_gd").rule.rule
    both = answer(rule, np.array([[1.0, 2.0], [-3.0, 4.0]]))
    np.testing.assert_allclose(both[1], answer(rule, np.array([[-3.0, 4.0]]))[0], rtol=1e-15)
    np.testing.assert_allclose(both, np.sign([[1, 2], [-3, 4]]), rtol=1e-5)


def test_pictures_are_whole() -> None:
    from xml.etree import ElementTree

    figures = responses(known("adam").rule.rule)
    root = ElementTree.fromstring(svg(figures, "Adam & <friends>"))
    assert len(root.findall("{http://www.w3.org/2000/svg}g")) == len(figures) == 5
    assert any("█" in line for line in as_text(figures))
    nowhere = responses(parse("update = g / 0").rule)
    assert "nan" not in svg(nowhere).lower()
    assert svg(nowhere).count("the update is not finite anywhere") == 4
    assert sum("the update is not finite anywhere" in line for line in as_text(nowhere)) == 4


def test_parts_of_adam() -> None:
    found = {(part.term, part.action): part for part in parts(known("adam").rule)}
    bare = next(
        part for part in found.values() if part.without.rule.key == known("rmsprop_debiased").rule.rule.key
    )
    assert bare.action == "ema_hat taken off"
    assert bare.change > 0.1
    root = found["sqrt(ema_hat(g * g, beta2))", "sqrt taken off"]
    assert root.without.rule.nodes == known("adam").rule.rule.nodes - 1
    eps = next(part for part in found.values() if part.term == "eps")
    assert eps.change is None, "without eps a gradient of zero is 0 / 0"


def test_a_derived_op_is_taken_off_as_a_whole() -> None:
    found = {part.action: part for part in parts(parse("update = cautious(equalize(ema(g, 0.9)), g)"))}
    for action, rest in (
        ("cautious taken off", "equalize(ema(g, 0.9))"),
        ("equalize taken off", "cautious(ema(g, 0.9), g)"),
    ):
        assert found[action].without.rule.key == parse(f"update = {rest}").rule.key
    assert not any("norm(" in part.term for part in found.values())


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("update = ema(g, 0.9)", "update = 0.1 * g"),
        ("update = ema_hat(g, 0.9)", "update = g"),
        ("m: state = 0\nupdate = sign(m)\nm = lerp(g, m, 0.9)", "update = sign(0.1 * prev(g))"),
    ],
)
def test_a_frozen_state_keeps_what_it_held_after_the_first_step(text: str, written: str) -> None:
    """Held against the value written down from the first gradient; an old value is read from step 2 on."""
    found = {part.action: part.without.rule for part in parts(parse(text))}
    inputs = make_inputs()
    held, spelled = (
        run_settings(rule, np.zeros((1, 0)), inputs)[0]
        for rule in (found["held at its first value"], parse(written).rule)
    )
    at = 1 if "prev" in written else 0
    np.testing.assert_allclose(
        held[:, at:], np.repeat(spelled[:, at : at + 1], held.shape[1] - at, axis=1), rtol=1e-12
    )
    assert not held[:, :at].any()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("update = 0.3", "does not depend on the gradient"),
        ("m: state = 0\nm = 0.9 * m + w * t\nupdate = sign(w) + m", "does not depend on the gradient"),
        ("update = g - g", "is 0 at every probe point"),
    ],
)
def test_what_cannot_train_is_said_and_not_compared(text: str, words: str) -> None:
    told = explain(parse(text))
    assert words in told.headline
    assert told.nearest == [] and told.parts == []
    by_name = {each.name: each.text for each in told.properties}
    assert "reads gradients alone; reads" not in by_name["reads"]
    assert "not finite" not in by_name["outlier"]


def test_what_is_read_is_said_once() -> None:
    assert of("update = 0.3")["reads"].text == "does not read the gradient"
    assert (
        of("update = w * t")["reads"].text
        == "does not read the gradient; it reads the step number, the weights"
    )


def test_nothing_is_measured_of_what_is_never_finite() -> None:
    assert [each.name for each in properties(parse("update = log(-g * g - 1)"))] == ["reads"]


@pytest.mark.slow
def test_one_that_climbs_is_told_so() -> None:
    told = explain(parse("update = -1e6 * g"))
    assert any("climbs" in note for note in told.notes)
    assert "nothing in common" in told.headline
    assert not any("climbs" in note for note in explain(parse("update = g")).notes)
