"""`parse(format(x)) == x`, whatever the lines, names and docstrings; and names for rules without."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ruleforge.core import expr as ex
from ruleforge.core.format import format_expr, format_number, format_rule, name_rule, name_text
from ruleforge.core.known import KNOWN
from ruleforge.core.rule import Hyper, Rule, State
from ruleforge.core.text import RuleText, parse, parse_ours
from ruleforge.errors import RuleError
from ruleforge.search.grammar import load_grammar
from ruleforge.search.strategies import Setup, make_strategy
from ruleforge.testing import random_text, rule_texts, rules


@given(rule_texts())
def test_text_survives(text: RuleText) -> None:
    assert parse(format_rule(text)) == text


@given(rules())
def test_naming_keeps_the_key_and_survives(rule: Rule) -> None:
    named = name_rule(rule)
    assert named.rule.key == rule.key
    assert named.rule.full_key == rule.full_key
    assert parse(format_rule(named)) == named
    assert name_rule(named.rule).rule.key == rule.key


@pytest.mark.parametrize("name", KNOWN)
def test_known_rules_survive(name: str) -> None:
    text = KNOWN[name].rule
    assert parse(str(text)) == text
    named = name_rule(text.rule, doc=text.doc)
    assert named.rule.key == text.rule.key and named.doc == text.doc
    assert parse(str(named)) == named


# docstrings, however hostile

DOCS = [
    "A rule.", "", '"', '""', '"""', '""""', "'''", "\\", "\\\\", "\\n", "ends with \\", 'ends with "',
    "a\nb\n", "\n", "\t tab", "\r", "a\r\nb", "\x0b\x0c\x1c\x85\u2028", "\0", "\0001", "é ﬁ 🐍 \u202e",
    "\ud800", "{x}", "# no comment", '"""\nupdate = w\n"""', "\ufeff", "\x1b[31m", "\\N{DASH}", "%s",
    "  indented\n    more",
]  # fmt: skip


@pytest.mark.parametrize("doc", DOCS)
def test_docstrings_survive(doc: str) -> None:
    text = RuleText(parse("update = g").rule, parse("update = g").lines, doc=doc)
    again = parse(format_rule(text))
    assert again == text and again.doc == doc


@given(st.text(alphabet=st.characters(), max_size=40))
def test_any_docstring_survives(doc: str) -> None:
    text = RuleText(parse("update = g").rule, parse("update = g").lines, doc=doc)
    assert parse(format_rule(text)).doc == doc


def test_ordinary_docstrings_are_written_as_they_are() -> None:
    source = '"""Lion. Chen et al. 2023.\n\nWith "quotes" and μ.\n"""\nupdate = sign(g)\n'
    assert str(parse(source)) == source


# numbers


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_numbers_survive(value: float) -> None:
    again = parse(f"update = g * {format_number(value)}").rule.update.args[1]
    assert again is ex.const(value)


def test_numbers_are_short() -> None:
    shown = [format_number(v) for v in (1.0, -3.0, 0.1, 1e-8, 1e30, -0.0, 0.0, 123456.0)]
    assert shown == ["1", "-3", "0.1", "1e-08", "1e+30", "-0.0", "0", "123456"]


# expressions: brackets where they are needed, and only there

WRITTEN = [
    "g - (w - t)", "g - w - t", "g / (w * t)", "g / w * t", "g / (w / t)", "(g + w) * t", "g + w * t",
    "-g ** 2.5", "(-g) ** 2.5", "g ** -w", "g ** w ** t", "(g ** w) ** t", "-(g * w)", "-g * w", "--g",
    "(g < w) < t", "g < (w < t)", "(g < w) + t", "g + w < t", "-5 ** g", "(-5) ** g", "-5 * g", "g * -5",
    "g - -5",    "neg(5) * g", "-(g + w)", "g ** neg(2)", "square(g + w)", "g * g", "clip(g, -1, 1)",
    "where(g < 0, -g, g)",    "-0.0 * g", "lerp(g, w, 0.9)", "g == w", "g != w", "1 - 0.9 ** t",
]  # fmt: skip


@pytest.mark.parametrize("written", WRITTEN)
def test_expressions_are_written_as_a_person_would(written: str) -> None:
    assert str(parse(f"update = {written}")) == f"update = {written}\n"


def test_folded_terms_are_written_as_calls() -> None:
    assert format_expr(ex.sugar("ema", ex.leaf("g"), ex.hyper(0)), {ex.hyper(0): "beta"}) == "ema(g, beta)"
    with pytest.raises(RuleError, match="no name"):
        format_expr(ex.state(0), {})


# lines: each of these once broke, or nearly did

SUBTLE = {
    "an average whose argument has lost its name": """
m: state = 0
e = ema(g * m, 0.9)
m = g
update = e / (1 - 0.9 ** t)
""",
    "the same one step ago": """
m: state = 0
e = ema(g * m, 0.9)
m = g
update = where(first, 0, prev(e) / (1 - 0.9 ** (t - 1)))
""",
    "prev of a bias-corrected average by name": """
m: state = 0
h = ema_hat(g * m, 0.9)
m = g
update = prev(h)
""",
    "an average put together from its parts": """
m: state = 0
p = prev(ema(m, 0.9))
x = (1 - 0.9) * m
m = g
update = 0.9 * p + x
""",
    "prev of a state's new value by another name": """
m: state = 0
m = m + g
c = m
update = prev(c)
""",
    "prev of a state's old value by another name": """
m: state = 1
c = m
update = prev(c)
m = m * g
""",
    "prev of a new value of a state that starts elsewhere": """
m: state = 1
m = m + g
c = m
update = prev(c) * g
""",
    "a state that holds a correction": """
s: state = 0
update = g * s
s = ema_hat(g, 0.5)
""",
    "prev of a value that is also a state's": """
m: state = 0
m = g * 2
update = prev(g * 2)
""",
    "old and new values": """
m: state = 0
old = m
m = lerp(g, m, 0.9)
update = m - old
""",
    "two names for one old value": """
m: state = 0
n: state = 0
n = m
m = g
update = n
""",
    "a state that keeps its old value": """
m: state = lr0
m = m
update = g * m
""",
    "a state that is never assigned": """
m: state = lr0
update = g * m
""",
    "update read by a state": """
d: state = 0
update = g * sqrt(d + 1e-6)
d = lerp(square(update), d, 0.9)
""",
    "two lines with one value": """
a = g * w
b = g * w
update = a + b
""",
    "trace and ema with one recurrence": """
update = trace((1 - 0.5) * g, 0.5) - ema(g, 0.5)
""",
    "trace that only looks like ema": """
update = trace(0.5 * g, 0.5)
""",
    "trace that nearly looks like ema": """
update = trace(0.3 * g, 0.9)
""",
    "a correction by a beta that moves, one step ago": """
beta = 1 - 1 / (t + 1)
update = where(first, 0, prev(ema(g, beta)) / (1 - beta ** (t - 1)))
""",
    "sugar before and after an assignment": """
m: state = 0
a = ema(m, 0.9)
m = g
b = ema(m, 0.9)
update = a - b
""",
    "sugar in a state": """
m: state = 0
m = ema(m + g, 0.9) + prev(total(m))
update = m
""",
    "prev of prev, of sums and of maxima": """
update = prev(prev(g)) + prev(total(g)) + prev(running_max(prev(g)))
""",
    "prev of an average divided by what moves": """
update = prev(ema(g, 0.9) / (1 - w ** t))
""",
    "prev of a correction with another beta": """
update = prev(ema(g, 0.9) / (1 - 0.5 ** t))
""",
    "a beta that moves": """
beta = 1 - 1 / (t + 1)
update = prev(ema_hat(g, beta)) + ema_hat(g, beta)
""",
    "numbers that live": """
product: state = 1
scale: state = 1e-6
product = product * 0.9
scale = maximum(scale, norm(g))
update = g / scale * (1 - product)
""",
    "an init with a hyper": """
c: hyper(0, 1, log) = 0.1
m: state = c * lr0 + 1
m = m * g
update = m
""",
    "scales and ranges": """
a: hyper(-1, 1) = -0.0
b: hyper(0, 1, one_minus_log) = 0.999
c: hyper(1e-12, 1e30, log) = 1e+16
update = a * g + b * w + c * t
""",
}


@pytest.mark.parametrize("source", SUBTLE.values(), ids=SUBTLE)
def test_subtle_lines_survive(source: str) -> None:
    text = parse(source)
    written = format_rule(text)
    assert parse(written) == text, written
    named = name_rule(text.rule)
    assert named.rule.key == text.rule.key, str(named)
    assert parse(str(named)) == named


def test_the_spelling_of_the_author_is_kept() -> None:
    source = "m: state = 0\nold = m\nm = lerp(g, m, 0.9)\nupdate = sign(m - old) * ema_hat(g, 0.9)\n"
    assert str(parse(source)) == source
    source = "e = ema(g, 0.9)\nupdate = e / (1 - 0.9 ** t) - g\n"
    assert str(parse(source)) == source


def test_lines_in_an_order_that_cannot_be_written_are_refused() -> None:
    text = parse("m: state = 0\nupdate = ema(m * g, 0.9)\nm = g")
    with pytest.raises(RuleError, match="no name any more"):
        format_rule(dataclasses.replace(text, lines=text.lines[::-1]))


# names for rules without


def test_names_are_those_of_the_field() -> None:
    lion = KNOWN["lion"].rule.rule
    assert str(name_rule(lion)) == (
        "beta1: hyper(0, 1, one_minus_log) = 0.9\n"
        "beta2: hyper(0, 1, one_minus_log) = 0.99\n"
        "m: state = 0\n"
        "update = sign(lerp(g, m, beta1))\n"
        "m = lerp(g, m, beta2)\n"
    )
    adam = name_rule(KNOWN["adam"].rule.rule)
    assert str(adam).splitlines()[-1] == "update = ema_hat(g, beta1) / (sqrt(ema_hat(g * g, beta2)) + eps)"
    assert str(name_rule(lion, hypers=("a", "b"), doc="Mine.")).startswith('"""Mine."""\na: hyper')


def test_shared_terms_get_a_line_of_their_own() -> None:
    r = parse("update = exp(abs(g) + w) * w - sin(exp(abs(g) + w)) / (1 + exp(abs(g) + w))").rule
    assert str(name_rule(r)).splitlines()[0].startswith("a = exp(")


def test_rules_deeper_than_a_line_may_be_are_written_in_lines() -> None:
    item = ex.leaf("g")
    for _ in range(300):
        item = ex.node("atan", item)
    named = name_rule(Rule(item))
    assert named.rule.update is item and len(named.lines) > 20


@pytest.mark.parametrize("length", range(8, 15))
def test_a_long_term_that_is_subtracted_from_a_sum(length: int) -> None:
    item = ex.leaf("g")
    for _ in range(length):
        item = ex.node("atan", item)
    next_value = ex.node("sub", ex.node("mul", ex.const(0.9), ex.state(0)), item)
    rule = Rule(next_value, (State(ex.const(0), next_value),))
    assert name_rule(rule).rule.key == rule.key


def test_chains_that_double_are_written_in_lines() -> None:
    item = ex.leaf("g")
    for _ in range(100):
        item = ex.node("sub", ex.node("exp", item), ex.node("sin", item))
    assert name_rule(Rule(item)).rule.key == Rule(item).key


def test_states_that_swap_get_names_for_their_old_values() -> None:
    rule = Rule(
        ex.node("add", ex.state(0), ex.leaf("g")),
        (State(ex.const(1), ex.state(1)), State(ex.const(2), ex.state(0))),
    )
    named = name_rule(rule)
    assert named.rule.key == rule.key and "_old = " in str(named)


def test_names_never_clash_with_reserved_words() -> None:
    rule = Rule(ex.node("mul", ex.leaf("g"), ex.hyper(0)), (), (Hyper(0, 1, 0.5),))
    assert name_rule(rule).hypers == ("c",)
    for seed in range(20):
        text = name_rule(random_text(np.random.default_rng(seed)).rule)
        names = [
            *text.hypers,
            *text.states,
            *(line.target for line in text.lines if line.target not in text.states),
        ]
        assert len(names) == len(set(names))


@pytest.mark.parametrize("grammar", ["full", "momentum_sign"])
def test_text_written_at_once_is_the_text_read_back_and_written_again(grammar: str) -> None:
    setup = Setup(
        grammar=load_grammar(grammar), directions=("max",), population=100, seed=1, seeds=(), immigrants=0.0
    )
    rules = [proposal.rule for proposal in make_strategy("random", setup).ask(0, 0, 100)]
    for rule in (*rules, *(known.rule.rule for known in KNOWN.values())):
        text = name_text(rule)
        assert text == str(name_rule(rule))
        assert parse_ours(text) == parse(text).rule
