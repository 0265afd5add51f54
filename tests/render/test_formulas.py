"""Formulas for people: Unicode and LaTeX."""

from __future__ import annotations

import re

import pytest

from ruleforge.core import expr as ex
from ruleforge.core.known import KNOWN
from ruleforge.core.ops import CORE, OPS, SUGAR
from ruleforge.core.text import RuleText
from ruleforge.render.latex import LATEX, LatexWriter, definitions, equations, latex
from ruleforge.render.symbols import latex_name, superscript, unicode_name
from ruleforge.render.unicode import UNICODE, formula
from ruleforge.testing import random_text

ADAM, LION = KNOWN["adam"].rule, KNOWN["lion"].rule


def test_adam_in_unicode() -> None:
    assert formula(ADAM) == [
        "m ← β₁·m + (1 − β₁)·g",
        "v ← β₂·v + (1 − β₂)·g²",
        "u ← (m / (1 − β₁ᵗ)) / (√(v / (1 − β₂ᵗ)) + ε)",
        "w ← w − lr·u",
    ]


def test_lion_in_unicode() -> None:
    assert formula(LION, with_weights=False) == ["u ← sign(β₁·m + (1 − β₁)·g)", "m ← β₂·m + (1 − β₂)·g"]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("update = g", "w ← w − lr·g"),
        ("update = g + w", "u ← g + w"),
        ("update = -g", "u ← −g"),
        ("update = g / w / 2", "u ← (g / w) / 2"),
        ("update = g - (w - g)", "u ← g − (w − g)"),
        ("update = (g + w) ** 3", "u ← (g + w)³"),
        ("update = g ** w", "u ← g^w"),
        ("update = where(g > 0, g, -w)", "u ← g if [g > 0] else −w"),
        ("update = g * 1e-8", "u ← g·1e−08"),
        ("update = g * -2", "u ← g·(−2)"),
        ("update = ema(g, 0.811)", "m ← 0.811·m + 0.189·g"),
        ("update = g * 0.30000000001", "u ← g·0.30000000001"),
        ("update = max_abs(g) * clip_norm(g, 1)", "u ← ‖g‖∞·g·min(1, 1 / ‖g‖)"),
        ("k: state = lr0\nk = k * 2\nupdate = g * k", "start: k₀ = lr0"),
        ("m: state = 0\nupdate = m\nm = m + g", "u ← m"),
    ],
)
def test_unicode_lines(text: str, line: str) -> None:
    assert line in formula(RuleText.parse(text))


def test_computed_constants_in_latex_read_as_written() -> None:
    """0.1 * 3, once folded, is 0.30000000000000004; constants that somebody wrote keep every digit."""
    assert equations(RuleText.parse("update = g * 0.30000000000000004")) == [r"u_{t} = g_{t} \cdot 0.3"]
    assert "0.30000000001" in latex(RuleText.parse("update = g * 0.30000000001"))


def test_the_update_is_what_moves_the_weights() -> None:
    """An update that is a state's old value keeps it, though the state is overwritten before the move."""
    lines = formula(RuleText.parse("m: state = 0\nupdate = m\nm = m + g"))
    assert lines.index("u ← m") < lines.index("m ← m + g")
    assert lines[-1] == "w ← w − lr·u"


@pytest.mark.parametrize("op", CORE)
def test_every_op_in_unicode(op: str) -> None:
    row = OPS[op]
    text = RuleText.parse(f"update = {op}({', '.join(['g', 'w', 't'][: row.arity])})")
    assert formula(text)
    assert op in UNICODE


@pytest.mark.parametrize("op", [*CORE, *SUGAR, "ema_hat"])
def test_every_op_in_latex(op: str) -> None:
    arity = OPS[op].arity
    make = ex.node if op in CORE else ex.sugar
    args = (ex.leaf("g"), ex.leaf("w"), ex.leaf("t"))[:arity]
    assert_balanced(LatexWriter({}).write(make(op, *args)))
    assert op in LATEX


def assert_balanced(line: str) -> None:
    """Braces, \\left and \\right, begin and end come in pairs; no subscript has two."""
    bare = line.replace(r"\{", "").replace(r"\}", "")
    depth = 0
    for char in bare:
        depth += (char == "{") - (char == "}")
        assert depth >= 0, line
    assert depth == 0, line
    assert line.count(r"\left") == line.count(r"\right"), line
    assert line.count(r"\begin") == line.count(r"\end"), line
    short = bare
    while short != (short := re.sub(r"\{[^{}]*\}", "@", short)):
        pass
    assert not re.search(r"_@_|\^@\^", short), line


def test_adam_in_latex() -> None:
    assert equations(ADAM) == [
        r"u_{t} = \frac{\widehat{\operatorname{EMA}}_{\beta_{1}}\left(g_{t}\right)}"
        r"{\sqrt{\widehat{\operatorname{EMA}}_{\beta_{2}}\left({g_{t}}^{2}\right)} + \epsilon}"
    ]
    assert len(definitions(ADAM)) == 2
    assert not definitions(LION)


def test_lion_in_latex() -> None:
    average = r"\beta_{%d} \cdot m_{t-1} + \left(1 - \beta_{%d}\right) \cdot g_{t}"
    assert equations(LION) == [
        rf"u_{{t}} = \operatorname{{sign}}\left({average % (1, 1)}\right)",
        rf"m_{{t}} = {average % (2, 2)}",
    ]
    assert latex(LION).startswith("\\begin{align}\n  u_{t} &= ")
    assert latex(LION).count(r"\\") == 1


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("update = g - prev(g)", r"u_{t} = g_{t} - g_{t-1}"),
        ("update = prev(prev(g))", r"u_{t} = g_{t-2}"),
        ("update = total(g * g)", r"u_{t} = \sum_{\tau \le t} {g_{\tau}}^{2}"),
        ("update = prev(total(g))", r"u_{t} = \sum_{\tau \le t-1} g_{\tau}"),
        ("update = prev(w) * t", r"u_{t} = w_{t-2} \cdot t"),
        ("d = g + w\nupdate = prev(d)", r"u_{t} = d_{t-1}"),
        ("m1: state = 1\nupdate = m1\nm1 = m1 * 2", r"m_{1,t} = m_{1,t-1} \cdot 2"),
        ("m1: state = 1\nupdate = m1\nm1 = m1 * 2", r"m_{1,0} = 1"),
        ("update = g * 1e-8", r"u_{t} = g_{t} \cdot 10^{-8}"),
        ("update = g ** (1 - t)", r"u_{t} = {g_{t}}^{1 - t}"),
        ("update = (g / w) ** 3", r"u_{t} = {\left(\frac{g_{t}}{w_{t-1}}\right)}^{3}"),
    ],
)
def test_latex_lines(text: str, line: str) -> None:
    assert line in equations(RuleText.parse(text))


@pytest.mark.parametrize("name", sorted(KNOWN))
def test_known_rules_have_formulas(name: str) -> None:
    text = KNOWN[name].rule
    for line in equations(text):
        assert_balanced(line)
    assert max(map(len, formula(text))) <= 110
    assert formula(text)[-1].startswith(("w ← w − lr·", "start: "))


def test_random_rules_have_formulas() -> None:
    import numpy as np

    for seed in range(150):
        text = random_text(np.random.default_rng(seed))
        assert formula(text)
        for line in equations(text):
            assert_balanced(line)


@pytest.mark.parametrize(
    ("name", "plain", "tex"),
    [
        ("beta1", "β₁", r"\beta_{1}"),
        ("eps", "ε", r"\epsilon"),
        ("eps_root", "ε_root", r"\epsilon_{\mathrm{root}}"),
        ("eta_minus", "η_minus", r"\eta_{\mathrm{minus}}"),
        ("m", "m", "m"),
        ("m_2", "m₂", "m_{2}"),
        ("v12", "v₁₂", "v_{12}"),
        ("decay", "decay", r"\mathrm{decay}"),
        ("step_max", "step_max", r"\mathrm{step\_max}"),
        ("lamb", "λ", r"\lambda"),
        ("_", "_", r"\mathrm{\_}"),
    ],
)
def test_names(name: str, plain: str, tex: str) -> None:
    assert unicode_name(name) == plain
    assert latex_name(name) == tex


def test_times_join_subscripts() -> None:
    assert latex_name("m1", "t-1") == "m_{1,t-1}"
    assert latex_name("m", "t") == "m_{t}"


def test_superscripts() -> None:
    assert superscript("2") == "²"
    assert superscript("t") == "ᵗ"
    assert superscript("x") == ""
    assert superscript("") == ""
