r"""A rule as a LaTeX document that compiles on its own: its equations in an algorithm box.

Needs `amsmath`, `algorithm` and `algpseudocode`. Everything that strangers wrote is escaped: no
command of theirs reaches LaTeX.
"""

from __future__ import annotations

from collections.abc import Mapping

from ruleforge.core import expr as ex
from ruleforge.core.canon import live_states
from ruleforge.core.laws import ZERO
from ruleforge.core.text import RuleText
from ruleforge.export.safety import check_names
from ruleforge.render.latex import LatexWriter, Timed, definitions, equations, latex_number
from ruleforge.render.symbols import latex_name

_ESCAPES = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "#": r"\#",
    "%": r"\%",
    "_": r"\_",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
}


def escape(text: str) -> str:
    """Text that LaTeX prints as it stands, on one line."""
    flat = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return "".join(_ESCAPES.get(char, char) for char in flat)


def export_latex(text: RuleText, *, provenance: Mapping[str, object] | None = None) -> str:
    """A document with the rule in an algorithm box.

    Args:
        text: a rule with its names.
        provenance: where the rule was found, printed beneath the box.
    """
    check_names(text)
    title, _, rest = text.doc.strip().partition("\n")
    used = set(ex.walk([text.rule.update, *(text.rule.states[i].next for i in live_states(text.rule))]))
    hypers = [
        f"${latex_name(name)} = {latex_number(h.default)[0]}$"
        for i, (name, h) in enumerate(zip(text.hypers, text.rule.hypers, strict=True))
        if ex.hyper(i) in used
    ]
    lines = [
        r"\documentclass{article}",
        r"\usepackage[utf8]{inputenc}",
        r"\usepackage{amsmath}",
        r"\usepackage{algorithm}",
        r"\usepackage{algpseudocode}",
        r"\begin{document}",
        r"\begin{algorithm}",
        rf"\caption{{{escape(title) or 'Update rule'}}}",
        r"\begin{algorithmic}[1]",
        rf"\Require weights $w_{{0}}$, learning rates $\eta_{{t}}${''.join(f', {h}' for h in hypers)}",
    ]
    starts = _starts(text)
    lines += [rf"\State ${', '.join(starts)}$"] if starts else []
    lines += [r"\For{$t = 1, 2, \dots$}", r"  \State $g_{t} \gets \nabla f_{t}\left(w_{t-1}\right)$"]
    states = {f"{latex_name(name, '0')} = " for name in text.states}
    for line in equations(text):
        if not any(line.startswith(start) for start in states):
            arrow = line.replace(" = ", r" \gets ", 1)
            lines.append(rf"  \State ${arrow}$")
    lines += [
        r"  \State $w_{t} \gets w_{t-1} - \eta_{t} \cdot u_{t}$",
        r"\EndFor",
        r"\end{algorithmic}",
        r"\end{algorithm}",
    ]
    known = definitions(text)
    if known:
        lines += [r"\noindent Here, starting from $0$,", r"\begin{gather*}"]
        lines += [f"  {line}" + (r" \\" if line != known[-1] else "") for line in known]
        lines += [r"\end{gather*}"]
    lines += [rf"\noindent {escape(rest)}"] if escape(rest) else []
    lines += [rf"\par\noindent {escape(f'{key}: {value}')}" for key, value in (provenance or {}).items()]
    lines += [rf"\par\noindent\texttt{{{text.rule.key}}}", r"\end{document}"]
    return "\n".join(lines) + "\n"


def _starts(text: RuleText) -> list[str]:
    """First values of the live states that have a name."""
    live = live_states(text.rule)
    writer = LatexWriter({ex.hyper(i): Timed(name, None) for i, name in enumerate(text.hypers)})
    found = []
    for i, name in enumerate(text.states):
        if i in live:
            init = text.rule.states[i].init
            found.append(rf"{latex_name(name, '0')} \gets {'0' if init is ZERO else writer.write(init)}")
    return found
