"""What rule text means: lines in order, states before and after their assignment, sugar, warnings."""

from __future__ import annotations

from pathlib import Path

import pytest

from ruleforge.core import expr as ex
from ruleforge.core.rule import Hyper, State
from ruleforge.core.text import Line, RuleText, load, parse
from ruleforge.errors import RuleTextError

G, W, T = ex.leaf("g"), ex.leaf("w"), ex.leaf("t")
S0, S1 = ex.state(0), ex.state(1)
N, C = ex.node, ex.const


def update(text: str) -> ex.Expr:
    return parse(f"update = {text}").rule.update


def test_a_rule_with_all_kinds_of_lines() -> None:
    text = parse('''"""Lion. Chen et al. 2023."""
beta1: hyper(0, 1) = 0.9
beta2: hyper(0.5, 1, one_minus_log) = 0.99  # slower
m: state = 0
d = lerp(g, m, beta1)
update = sign(d)
m = lerp(g, m, beta2)
''')
    d = N("lerp", G, S0, ex.hyper(0))
    assert text.doc == "Lion. Chen et al. 2023."
    assert text.hypers == ("beta1", "beta2") and text.states == ("m",)
    assert text.rule.hypers == (Hyper(0, 1, 0.9), Hyper(0.5, 1, 0.99, "one_minus_log"))
    assert text.rule.states == (State(C(0), N("lerp", G, S0, ex.hyper(1))),)
    assert text.lines == (Line("d", d), Line("update", N("sign", d)), Line("m", text.rule.states[0].next))
    assert text.warnings == ()
    assert RuleText.parse(str(text)) == text


def test_a_state_reads_old_before_its_assignment_and_new_after() -> None:
    r = parse("m: state = 0\na = m\nm = m + g\nupdate = m - a").rule
    assert r.update is N("sub", N("add", S0, G), S0)


def test_a_second_state_may_read_the_new_value_of_the_first() -> None:
    r = parse("a: state = 0\nb: state = 0\nupdate = b\na = a + g\nb = a * w").rule
    assert r.update is S1 and r.states[1].next is N("mul", N("add", S0, G), W)


def test_update_may_be_read_after_its_line() -> None:
    r = parse("d: state = 0\nupdate = g * d\nd = square(update)").rule
    assert r.states[0].next is N("mul", r.update, r.update)


def test_declarations_may_follow_lines_that_do_not_read_them() -> None:
    assert parse("a = g\nm: state = 1\nupdate = a * m").rule.update is N("mul", G, S0)


def test_precedence_is_python_s() -> None:
    assert update("-g ** 2.5") is N("neg", N("pow", G, C(2.5)))
    assert update("g - w - t") is N("sub", N("sub", G, W), T)
    assert update("g < w + 1") is N("lt", G, N("add", W, C(1)))
    assert update("-3") is C(-3) and update("--3") is N("neg", C(-3)) and update("-0.0") is C(-0.0)


def test_square_is_a_product() -> None:
    assert update("g ** 2") is update("square(g)") is update("g * g") is N("mul", G, G)


def test_numbers_of_all_spellings() -> None:
    for text, value in (
        ("1_000", 1000),
        ("0x10", 16),
        ("1e-8", 1e-8),
        (".5", 0.5),
        ("9007199254740993", 2.0**53),
        ("1e-400", 0),
    ):
        assert update(text) is C(value)


@pytest.mark.parametrize(
    ("sugar", "value"),
    [
        ("ema(g, 0.9)", N("add", N("mul", C(0.9), S0), N("mul", N("sub", C(1), C(0.9)), G))),
        ("trace(g, 0.9)", N("add", N("mul", C(0.9), S0), G)),
        ("total(g)", N("add", S0, G)),
        ("running_max(g)", N("maximum", S0, G)),
    ],
)
def test_sugar_yields_the_new_value_of_a_slot_that_starts_at_zero(sugar: str, value: ex.Expr) -> None:
    r = parse(f"update = {sugar}").rule
    assert r.update is value and r.states == (State(C(0), value),)
    assert parse(f"update = prev({sugar})").rule.update is S0
    assert len(parse(f"update = prev({sugar}) + {sugar}").rule.states) == 1


def test_prev_is_a_slot_of_its_own_only_where_it_must() -> None:
    r = parse("update = prev(g * w)").rule
    assert r.update is S0 and r.states == (State(C(0), N("mul", G, W)),)
    assert len(parse("update = prev(prev(g))").rule.states) == 2


def test_ema_hat_and_its_value_one_step_ago() -> None:
    r = parse("update = prev(ema_hat(g, 0.9))").rule
    bias = N("sub", C(1), N("pow", C(0.9), N("sub", T, C(1))))
    assert r.update is N("where", ex.leaf("first"), C(0), N("div", S0, bias))
    assert len(r.states) == 1


def test_prev_of_a_correction_that_moves_is_remembered_not_recomputed() -> None:
    for beta in ("1 - 1 / (t + 1)", "norm(g)", "progress"):
        r = parse(f"update = prev(ema(g, 0.9) / (1 - ({beta}) ** t))").rule
        assert r.update.op == "state" and len(r.states) == 2, beta
    steady = parse("h: hyper(0, 1) = 0.5\nupdate = prev(ema(g, h) / (1 - (h * lr0) ** t))").rule
    assert len(steady.states) == 1


def test_equal_sugar_terms_share_a_slot_and_others_do_not() -> None:
    assert len(parse("update = ema(g, 0.9) + ema(g, 0.9)").rule.states) == 1
    assert len(parse("update = ema(g, 0.9) + ema(g, 0.99)").rule.states) == 2
    assert len(parse("m: state = 0\na = ema(m, 0.9)\nm = g\nupdate = a + ema(m, 0.9)").rule.states) == 3


def test_sugar_reads_a_state_as_it_is_on_its_line() -> None:
    r = parse("m: state = 0\na = total(m)\nm = g\nupdate = a + total(m)").rule
    assert {s.next for s in r.states} == {G, N("add", S1, S0), N("add", ex.state(2), G)}


def test_sugar_inside_a_state_s_update() -> None:
    r = parse("m: state = 1\nm = ema(m, 0.9)\nupdate = m").rule
    assert r.states[0].next is r.update and r.states[1].next is r.update


def test_hidden_slots_are_numbered_by_first_occurrence() -> None:
    one = parse("update = total(g) + total(w)")
    other = parse("a = total(w)\nb = total(g)\nupdate = b + a")
    assert one.rule.states[0].next is N("add", S0, G) and other.rule.states[0].next is N("add", S0, W)


def test_layout_of_the_source_does_not_matter() -> None:
    plain = parse("a = g + w\nupdate = a * 2\n")
    for other in (
        "a = g + w\r\nupdate = a * 2\r\n",
        "a = g + w\rupdate = a * 2",
        "a = g + w; update = a * 2",
        "\n\n# comment\na = (g +\n     w)  # μ ﬁ\n\x0cupdate = a \\\n  * 2",
        "\ufeffa = g+w\nupdate = a\t*\t2",
        "a = ((g)) + w # type: int\nupdate = (a * (2))",
    ):
        assert parse(other) == plain


def test_unusual_escapes_in_docstrings_are_not_worth_a_warning() -> None:
    assert parse('"""\\sqrt{\\eta}"""\nupdate = g').doc == "\\sqrt{\\eta}"
    assert parse('r"""\\beta"""\nupdate = g').doc == "\\beta"


WARNINGS = [
    ("m: state = 0\nm = g\nupdate = g", "state 'm' does not reach the update"),
    ("m: state = 1\nupdate = g * m", "state 'm' is never assigned and keeps its first value"),
    ("h: hyper(0, 1) = 0.5\nupdate = g", "hyperparameter 'h' is never read"),
    ("a = exp(g)\nupdate = g", "local 'a' does not reach the update"),
    ("update = w", "the update does not depend on the gradient `g`"),
]


@pytest.mark.parametrize(("text", "warning"), WARNINGS)
def test_warnings(text: str, warning: str) -> None:
    assert warning in parse(text).warnings


def test_what_is_used_gives_no_warning() -> None:
    text = parse("h: hyper(0, 1) = 0.5\nm: state = h\na = g * w\nm = m + a\nupdate = m")
    assert text.warnings == ()


def test_files(tmp_path: Path) -> None:
    path = tmp_path / "mine.rule"
    path.write_bytes('\ufeff"""μ."""\r\nupdate = g\r\n'.encode())
    assert load(str(path)) == parse('"""μ."""\nupdate = g')
    path.write_text("update = gg")
    with pytest.raises(RuleTextError) as caught:
        load(str(path))
    assert (caught.value.file, caught.value.line, caught.value.column) == (str(path), 1, 10)
