"""A genome holds any rule: rule → genome → rule, and genome → text → genome, lose nothing."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import ruleforge.core.known
from ruleforge.core.form import with_constants
from ruleforge.core.rule import Rule
from ruleforge.core.text import load
from ruleforge.errors import RuleError
from ruleforge.search.genome import (
    Genome,
    from_rule,
    from_text,
    promote,
    reads,
    to_rule,
    to_text,
    without_dead,
)

KNOWN_FILES = sorted(Path(ruleforge.core.known.__file__).parent.glob("*.rule"))


def holds(rule: Rule) -> Genome:
    """Assert both laws for a rule and return its genome."""
    genome = from_rule(rule)
    assert to_rule(genome).key == with_constants(rule).key
    assert from_text(to_text(genome)) == genome
    return genome


def test_there_are_known_rules() -> None:
    assert len(KNOWN_FILES) >= 40


@pytest.mark.parametrize("path", KNOWN_FILES, ids=lambda path: path.stem)
def test_known_rule_survives(path: Path) -> None:
    holds(load(str(path)).rule)


def test_random_rules_survive(make_rule: Callable[[int], Rule]) -> None:
    for seed in range(300):
        holds(make_rule(seed))


TRICKY = {
    "reads_update": "d: state = 0\nupdate = g / sqrt(d + 1e-6)\nd = 0.9 * d + 0.1 * square(update)",
    "states_in_a_ring": "a: state = 0\nb: state = 1\nold = a\na = b + g\nb = old * 0.5\nupdate = a - b",
    "new_and_old": "m: state = 0\nold = m\nm = lerp(g, m, 0.9)\nupdate = m + old",
    "host_state": "p: state = 1\np = p * 0.9\nupdate = g / (1 - p)",
    "equal_next_other_init": "a: state = 0\nb: state = 1\na = a * 0 + g\nb = a\nupdate = a + 2 * b",
    "init_expression": "h: state = lr0 * 2\nh = h * 0.5\nupdate = g * h",
    "tensor_weight": "update = lerp(g, ema(g, 0.9), square(g))",
    "number_condition": "update = where(t - 2 * floor(t / 2), g, -g)",
    "schedule": "update = g * progress * lr / lr0 * is_matrix",
    "number_update": "update = norm(g)",
    "no_gradient": "update = 1",
    "old_hat": "update = g - prev(ema_hat(g, 0.9))",
    "scalar_state": "n: state = 0\nn = 0.9 * n + 0.1 * dot(g, g)\nupdate = g / sqrt(n)",
    "negative_zero": "update = g * -0.0 + g",
    "beta_of_one": "update = trace(g, 1) + trace(g, 0) + trace(g, -0.5)",
}


@pytest.mark.parametrize("text", TRICKY.values(), ids=TRICKY)
def test_tricky_rule_survives(text: str) -> None:
    holds(Rule.parse(text))


def test_a_term_shared_many_times_stays_small() -> None:
    text = "a0 = g + w\n" + "".join(
        f"a{i} = sin(a{i - 1}) * cos(a{i - 1}) + a{i - 1}\n" for i in range(1, 60)
    )
    genome = holds(Rule.parse(text + "update = a59"))
    assert len(genome) < 1000


def test_lion_is_two_short_lines() -> None:
    genome = from_rule(Rule.parse("m: state = 0\nupdate = sign(lerp(g, m, 0.9))\nm = lerp(g, m, 0.99)"))
    assert to_text(genome) == (
        "state tensor scale:0.0 | lerp.0 g old0 beta:0.99\n"
        "update tensor | sign.0 lerp.0 g old0 beta:0.9\n"
    )  # fmt: skip


def test_constants_are_typed_by_role() -> None:
    text = to_text(from_rule(Rule.parse("update = ema(g, 0.9) / (sqrt(ema(square(g), 0.999)) + 1e-8) * 3")))
    assert "beta:0.9 " in text and "beta:0.999" in text and "eps:1e-08" in text and "scale:3.0" in text


@pytest.mark.parametrize(
    "name", ["sgd", "momentum", "nesterov", "signum", "lion", "adam", "rmsprop", "adamax"]
)
def test_promoted_constants_give_the_known_rule_back(name: str) -> None:
    rule = load(str(next(path for path in KNOWN_FILES if path.stem == name))).rule
    again = promote(from_rule(rule))
    assert again.key == rule.key
    assert sorted(again.canonical.defaults) == pytest.approx(sorted(rule.canonical.defaults))
    assert all(h.low < h.default < h.high for h in again.hypers)


def test_dead_lines_go_and_change_nothing() -> None:
    text = "state tensor scale:0.0 | add.0 g old0\nlocal tensor | mul.0 g w\nupdate tensor | sign.0 g\n"
    genome = from_text(text)
    lean = without_dead(genome)
    assert len(lean.lines) == 1 and to_rule(lean).key == to_rule(genome).key
    assert reads(genome, "g") and not reads(genome, "w")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "lines"),
        ("update tensor | g\nupdate tensor | g", "exactly one update"),
        ("local tensor | g", "exactly one update"),
        ("update tensor g", "expected"),
        ("nonsense tensor | g", "expected"),
        ("update matrix | g", "expected"),
        ("update tensor | add.0 g", "misses 1"),
        ("update tensor | g w", "ends before"),
        ("update tensor | sgin.0 g", "unknown node"),
        ("update tensor | __import__('os')", "unknown node"),
        ("update tensor | norm.0 g", "expected a Tensor"),
        ("update tensor | ema.0 g scale:0.9", "expected a Beta"),
        ("update tensor | ema.0 g beta:1.5", "no constant of type beta"),
        ("update tensor | mul.0 g scale:nan", "no constant"),
        ("update tensor | mul.0 g eps:0.0", "no constant"),
        ("update tensor | mul.0 g scale:x", "no number"),
        ("update tensor | new0", "cannot be read"),
        ("update tensor | old0", "cannot be read"),
        ("update tensor | old7", "cannot be read"),
        ("update tensor | new1\nstate tensor scale:0.0 | g", "cannot be read"),
        ("state tensor | g\nupdate tensor | g", "misses"),
        ("state tensor g | g\nupdate tensor | g", "expected a Number"),
        ("update tensor scale:0.0 | g", "no init"),
        ("x" * 300_000, "characters"),
        ("local tensor | g\n" * 300, "lines"),
        ("update tensor | " + "neg.0 " * 20_000 + "g", "nodes"),
    ],
)  # fmt: skip
def test_bad_text_is_refused(text: str, message: str) -> None:
    with pytest.raises(RuleError, match=message):
        from_text(text)


@given(st.text(max_size=200))
def test_any_text_is_read_or_refused(text: str) -> None:
    with suppress(RuleError):
        from_text(text)


TOKENS = ["update", "state", "tensor", "number", "|", "\n", "g", "w", "t", "old0", "new0", "add.0", "sign.0",
          "ema.0", "beta:0.9", "scale:1.0", "where.0", "norm.0", "dot.0"]  # fmt: skip


@given(st.lists(st.sampled_from(TOKENS), max_size=30))
def test_what_is_read_is_written_back(tokens: list[str]) -> None:
    try:
        genome = from_text(" ".join(["update tensor | sign.0 g\n", *tokens]))
    except RuleError:
        return
    assert from_text(to_text(genome)) == genome
