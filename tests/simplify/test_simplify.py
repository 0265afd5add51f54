"""Simplification as a whole: planted material comes off, nothing else does, and the log tells why."""

from __future__ import annotations

import json
import random
import time
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ruleforge.core.known import KNOWN
from ruleforge.core.rule import Rule
from ruleforge.core.text import parse
from ruleforge.simplify import Simplified, rewrite, simplify, verify
from ruleforge.simplify.laws import read_laws
from tests.simplify.material import disagreement, grown, random_rule

PLANTED = (
    "sgd momentum nesterov adam rmsprop lion signum signsgd adagrad nadam_simple adabelief tiger powersign "
    "addsign qhm amsgrad adamax ema_momentum"
).split()
ALLOWED_TO_DIFFER = 0.003  # share of points that rounding may decide


def simplified(text: str, **options: object) -> Simplified:
    return simplify(parse(text), **options)  # type: ignore[arg-type]


def body(result: Simplified) -> str:
    return str(result.after).strip()


# planted material


def plant(names: list[str], count: int, least: int, most: int, first_seed: int) -> tuple[int, int]:
    """How many cases returned to the length of the original, of how many; wrong ones fail at once."""
    returned = cases = 0
    for seed in range(first_seed, first_seed + count):
        rng = random.Random(seed)
        name = rng.choice(names)
        original = KNOWN[name].rule.rule
        longer = grown(original, rng, least, most)
        if disagreement(original, longer, scaled=True, seed=seed) > ALLOWED_TO_DIFFER:
            continue  # the material was not neutral here, such as 0 / 0 at the first step
        result = simplify(longer)
        cases += 1
        returned += result.after.rule.nodes <= original.nodes
        wrong = disagreement(original, result.after.rule, scaled=True, seed=seed + 1)
        assert wrong <= ALLOWED_TO_DIFFER, (seed, name, str(result.after))
        assert result.after.rule.nodes <= longer.nodes
    return returned, cases


def test_planted_material_comes_off() -> None:
    returned, cases = plant(PLANTED, 60, 3, 15, 0)
    assert cases >= 50
    assert returned >= 0.9 * cases


@pytest.mark.slow
def test_more_planted_material_comes_off_every_known_rule() -> None:
    returned, cases = plant(list(KNOWN), 300, 10, 30, 10_000)
    assert cases >= 280
    assert returned >= 0.95 * cases


def test_the_judge_can_tell_rules_apart() -> None:
    adam, rmsprop = KNOWN["adam"].rule.rule, KNOWN["rmsprop"].rule.rule
    assert disagreement(adam, adam, scaled=False, seed=0) == 0.0
    assert disagreement(adam, rmsprop, scaled=True, seed=0) > 0.9
    assert disagreement(Rule.parse("update = g"), Rule.parse("update = 3 * g"), scaled=False, seed=0) == 1.0
    assert disagreement(Rule.parse("update = g"), Rule.parse("update = 3 * g"), scaled=True, seed=0) == 0.0
    assert disagreement(Rule.parse("update = g"), Rule.parse("update = -g"), scaled=True, seed=0) == 1.0


# what people did by hand


def test_the_ancestor_of_lion_becomes_lion() -> None:
    result = simplified("""
v: state = 0
m = 0.1 * g + 0.9 * v
v = -0.1 * g + 1.1 * m
update = m / sqrt(m * m)
""")
    lion = parse("m: state = 0\nupdate = sign(lerp(g, m, 0.9))\nm = lerp(g, m, 0.99)")
    assert result.after.rule.key == lion.rule.key
    assert result.relation == "equal"


@pytest.mark.parametrize(
    ("before", "after", "relation"),
    [
        ("update = sign(3 * ema_hat(2 * g, 0.9) / (1 - 0.99 ** t))", "update = sign(ema(g, 0.9))", "equal"),
        ("update = 0.3 * trace(-(-g) * 2, 0.9) / 7", "update = trace(g, 0.9)", "scale"),
        ("update = exp(log(abs(g))) * sign(g)", "update = g", "equal"),
        ("update = (g * g - w * w) / (g - w)", "update = g + w", "equal"),
        ("update = 0.2 * g + 1.8 * ema(g, 0.99)", "update = lerp(g, ema(g, 0.99), 0.9)", "scale"),
        ("update = ema(2 * g, 0.9) / norm(ema(g, 0.9))", "update = ema(g, 0.9) / norm(ema(g, 0.9))", "scale"),
        ("a = ema_hat(g, 0.9)\nupdate = a / norm(a)", "update = ema(g, 0.9) / norm(ema(g, 0.9))", "equal"),
        ("update = ema(g, 0.9) + ema(w, 0.9)", "update = ema(g + w, 0.9)", "equal"),
        ("update = clip(clip(g, -2, 2), -1, 1)", "update = clip(g, -1, 1)", "equal"),
        ("update = minimum(g, maximum(g, w))", "update = g", "equal"),
        ("update = maximum(g * g, -1)", "update = g * g", "equal"),
        ("update = where(g >= w, g, w)", "update = maximum(g, w)", "equal"),
        ("update = sqrt(g * g + w * w)", "update = hypot(g, w)", "equal"),
        ("update = abs(g) ** 0.5", "update = sqrt(abs(g))", "equal"),
        ("update = g * (ema_hat(2 * g, 0.9) * g * 3 > 0)", "update = g * (ema(g, 0.9) * g > 0)", "equal"),
        ("update = -(-2 * g - 2 * w)", "update = g + w", "scale"),
        ("m: state = 0\nm = 0.9 * m + 0.1 * g\nupdate = m", "update = ema(g, 0.9)", "equal"),
        ("m: state = 0\nm = lerp(g, m, 0.9)\nupdate = m", "update = ema(g, 0.9)", "equal"),
        ("m: state = 0\nm = m + 0.1 * (g - m)\nupdate = m", "update = ema(g, 0.9)", "equal"),
        ("c: state = 3\nupdate = sin(c * g)", "update = sin(3 * g)", "equal"),
        ("update = ema(prev(g), 0.9) + ema(g, 0.9)", "update = ema(g, 0.9) + prev(ema(g, 0.9))", "equal"),
    ],
)  # fmt: skip
def test_textbook_cases(before: str, after: str, relation: str) -> None:
    result = simplified(before)
    assert result.after.rule.nodes <= parse(after).rule.nodes, body(result)
    assert verify(parse(after).rule, result.after.rule, relation="scale")
    assert (result.relation == "equal") == (relation == "equal")
    assert verify(result.before.rule, result.after.rule, relation=relation, seed=9)  # type: ignore[arg-type]


def test_hypers_keep_names_ranges_and_places() -> None:
    result = simplified("""
unused: hyper(0, 5) = 2
b2: hyper(0, 1, one_minus_log) = 0.99
b1: hyper(0, 0.95) = 0.9
m: state = 0
update = sign(3 * ((1 - b1) * g + b1 * m) + (unused - unused))
m = lerp(g, m, b2)
""")
    ranges = {
        name: (h.low, h.high, h.default)
        for name, h in zip(result.after.hypers, result.after.rule.hypers, strict=True)
    }
    assert ranges == {"b1": (0, 0.95, 0.9), "b2": (0, 1, 0.99)}
    assert "sign(lerp(g, m, b1))" in body(result) and "lerp(g, m, b2)" in body(result)


@pytest.mark.parametrize(
    "name", ["sgd", "momentum", "signum", "lion", "adam", "amsgrad", "radam", "lamb", "muon"]
)
def test_known_rules_are_not_harmed(name: str) -> None:
    known = KNOWN[name].rule
    result = simplify(known)
    assert result.after.rule.nodes <= known.rule.nodes
    assert disagreement(known.rule, result.after.rule, scaled=True, seed=4) <= ALLOWED_TO_DIFFER
    if not result.steps:
        assert result.after is known


# scale


def test_scale_is_dropped_only_when_allowed_and_only_where_lr_is_not_read() -> None:
    assert body(simplified("update = 3 * g")) == "update = g"
    assert simplified("update = 3 * g").scale == pytest.approx(1 / 3)
    kept = simplified("update = 3 * g", allow_scale=False)
    assert kept.after.rule.nodes == 3 and kept.relation == "equal" and kept.scale == 1.0
    for leaf in ("lr", "lr0"):
        assert simplified(f"update = 3 * g * {leaf}").relation == "equal"
    negative = simplified("update = -3 * g")
    assert body(negative) == "update = -g"


def test_a_factor_that_changes_with_the_step_is_no_scale() -> None:
    result = simplified("update = g / (1 - 0.9 ** t)")
    assert result.after.rule.reads("t")


# the log


def test_steps_say_law_assumption_kind_and_evidence() -> None:
    result = simplified("""
dead: state = 0
dead = cosh(dead + g)
z = g - g
m = ema_hat(g * 1, 0.9) + 0
update = -(-m) / sqrt(m * m) * 2 + z
""")
    assert body(result) == "update = sign(ema(g, 0.9))"
    kinds = [step.kind for step in result.steps]
    assert kinds == sorted(kinds, key=("exact", "algebra", "scale").index) or "scale" in kinds
    assert any("dead" in step.law for step in result.steps if step.kind == "exact")
    assert {"exact", "algebra", "scale"} == set(kinds)
    for step in result.steps:
        assert step.max_error < 1e-9
        assert bool(step.assumption) == (step.kind != "exact")
        assert parse(step.text_after).rule.nodes == step.after_nodes or step.kind == "exact"
    counts = [(step.before_nodes, step.after_nodes) for step in result.steps]
    assert all(after == before for (_, after), (before, _) in pairwise(counts))
    assert counts[-1][1] == result.after.rule.nodes


def test_json_shape() -> None:
    record = simplified("update = g * 1 + 0").as_json()
    assert json.loads(json.dumps(record)) == record
    assert record["before"]["text"] == "update = g * 1 + 0\n"
    assert record["after"] == {"text": "update = g\n", "nodes": 1}
    assert record["relation"] == "equal"
    fields = "law assumption kind before_nodes after_nodes max_error text_after evidence"
    assert set(fields.split()) == set(record["steps"][0])


def test_the_raw_rule_is_kept_and_an_unchanged_rule_keeps_its_text() -> None:
    raw = parse("'''Mine.'''\nmine = ema(g, 0.9)\nupdate = mine / (abs(mine) + 1)\n")
    result = simplify(raw)
    assert result.before is raw and result.after is raw and result.steps == ()
    bloated = parse("'''Mine.'''\nupdate = ema(g, 0.9) * 1\n")
    assert simplify(bloated).after.doc == "Mine."


def test_the_same_rule_gives_the_same_answer() -> None:
    rng = random.Random(3)
    rules = [grown(KNOWN[name].rule.rule, rng, 5, 15) for name in ("adam", "lion", "qhm")]
    assert [simplify(rule).as_json() for rule in rules] == [simplify(rule).as_json() for rule in rules]


# nothing is accepted that was not measured


def test_a_false_law_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    false = tuple(
        rewrite.by_pattern(law)
        for law in read_laws("""
    x + y -> x            | false
    sqrt(x) -> x          | false
    ema(x, b) -> x        | false
    x / y -> x            | false
    """)
    )
    monkeypatch.setattr(rewrite, "SHORTER", (*false, *rewrite.SHORTER))
    adam = KNOWN["adam"].rule
    result = simplify(adam)
    assert result.after is adam
    assert (
        simplified("update = (g + 0) / (abs(g) + 1)").after.rule.key
        == parse("update = g / (1 + abs(g))").rule.key
    )


def test_without_measuring_a_false_law_would_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    """The guard broken on purpose: the judge must then see it."""
    from ruleforge.simplify.verify import Checker, Verdict

    false = tuple(rewrite.by_pattern(law) for law in read_laws("x + y -> x | false"))
    monkeypatch.setattr(rewrite, "SHORTER", (*false, *rewrite.SHORTER))
    monkeypatch.setattr(Checker, "check", lambda self, other, relation="equal": Verdict(relation, True))
    adam = KNOWN["adam"].rule
    result = simplify(adam)
    assert disagreement(adam.rule, result.after.rule, scaled=True, seed=0) > ALLOWED_TO_DIFFER


def test_steps_that_fresh_streams_refute_are_taken_back(monkeypatch: pytest.MonkeyPatch) -> None:
    from ruleforge.simplify.verify import Checker, Verdict

    measured = Checker.check

    def lenient(self: Checker, other: Rule, relation: str = "equal") -> Verdict:
        return Verdict(relation, True) if self.seed == 0 else measured(self, other, relation)  # type: ignore[arg-type]

    false = tuple(rewrite.by_pattern(law) for law in read_laws("x + y -> x | false"))
    monkeypatch.setattr(rewrite, "SHORTER", (*rewrite.SHORTER, *false))
    monkeypatch.setattr(Checker, "check", lenient)
    result = simplified("update = ema(g, 0.9) + abs(w) * 1 + (g - g)")
    assert any("taken back" in note for note in result.notes)
    assert verify(result.before.rule, result.after.rule)


# random rules


@settings(max_examples=40)
@given(st.integers(0, 10**6))
def test_random_rules_are_never_changed_or_lengthened(seed: int) -> None:
    rng = random.Random(seed)
    rule = random_rule(rng, rng.randint(3, 40))
    result = simplify(rule)
    assert result.after.rule.nodes <= rule.nodes
    scaled = result.relation != "equal"
    verdict = verify(rule, result.after.rule, relation="scale" if scaled else "equal", seed=1234)
    assert verdict.holds or "finite at only" in verdict.reason, (
        str(result.before),
        str(result.after),
        verdict,
    )
    assert disagreement(rule, result.after.rule, scaled=scaled, seed=seed) <= ALLOWED_TO_DIFFER


# bad input


@pytest.mark.parametrize(
    ("text", "note"),
    [
        ("update = log(-1 - abs(g))", "finite at only 0 %"),
        ("m: state = 0\nm = m + 1 / (g - g)\nupdate = m * 1", "finite at only 0 %"),
        ("update = 3", "does not depend on the gradient"),
        ("update = w * t", "does not depend on the gradient"),
        ("update = g - g", "does not depend on the gradient"),
    ],
)
def test_odd_rules_come_back_with_a_sentence(text: str, note: str) -> None:
    result = simplified(text)
    assert any(note in each for each in result.notes)
    assert result.after.rule.nodes <= result.before.rule.nodes


def test_five_hundred_nodes_end_in_time() -> None:
    lines = ["a0 = g"] + [f"a{i} = a{i - 1} * {1 + i / 100} + abs(w)" for i in range(1, 150)]
    begun = time.monotonic()
    result = simplified("\n".join([*lines, "update = a149"]), time_limit_s=1)
    assert time.monotonic() - begun < 30
    assert result.before.rule.nodes > 400
    assert result.after.rule.nodes <= result.before.rule.nodes  # how far it gets is the machine's speed
    assert any("time limit of 1 s" in note for note in result.notes)


def test_no_time_at_all_still_applies_the_exact_laws() -> None:
    result = simplified("update = g * 1 + 0 * w", time_limit_s=0)
    assert result.after.rule.nodes <= result.before.rule.nodes
    assert verify(result.before.rule, result.after.rule)
    assert any("time limit" in note for note in result.notes)
