"""How names look in formulas: `beta1` as β₁ or `\\beta_1`, `exp_avg` as a word of its own.

Knows names alone, and no expressions.
"""

from __future__ import annotations

import re

_LETTERS = (
    "alpha beta gamma delta epsilon zeta eta theta iota kappa mu nu xi pi rho sigma tau phi chi psi omega"
)
GREEK: dict[str, str] = dict(zip(_LETTERS.split(), "αβγδεζηθικμνξπρστφχψω", strict=True))
GREEK |= {"eps": "ε", "lamb": "λ", "lam": "λ"}
_TEX = {"eps": "epsilon", "epsilon": "epsilon", "lamb": "lambda", "lam": "lambda"}
_SUBSCRIPTS = str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉")
_SUPERSCRIPTS = str.maketrans("0123456789t+−", "⁰¹²³⁴⁵⁶⁷⁸⁹ᵗ⁺⁻")


def superscript(text: str) -> str:
    """The text as an exponent, or "" where Unicode has none."""
    return text.translate(_SUPERSCRIPTS) if text and all(ord(c) in _SUPERSCRIPTS for c in text) else ""


def unicode_name(name: str) -> str:
    """A name as a terminal shows it: Greek letters, digits at the end as subscripts."""
    stem, number = _parts(name)
    head, _, tail = stem.partition("_")
    shown = GREEK.get(head, head) + (f"_{tail}" if tail else "") if head else stem
    return shown + number.translate(_SUBSCRIPTS)


def latex_name(name: str, time: str = "") -> str:
    r"""A name as LaTeX: `beta1` → `\beta_{1}`; `time` joins the subscript: `m_{1,t-1}`."""
    stem, number = _parts(name)
    head, _, tail = stem.partition("_")
    if head in GREEK:
        base = rf"\{_TEX.get(head, head)}"
    elif len(head) == 1:
        base = head
    else:
        base, tail = rf"\mathrm{{{_escaped(stem)}}}", ""
    words = [rf"\mathrm{{{_escaped(tail)}}}"] if tail else []
    below = ",".join([*words, *([number] if number else []), *([time] if time else [])])
    return f"{base}_{{{below}}}" if below else base


def _parts(name: str) -> tuple[str, str]:
    """Stem and the number at its end."""
    found = re.fullmatch(r"(.*?[A-Za-z])_?(\d+)", name)
    return (found.group(1), found.group(2)) if found else (name.strip("_") or name, "")


def _escaped(word: str) -> str:
    return word.replace("_", r"\_")
