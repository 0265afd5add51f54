"""A rule as a few lines of sympy: its update and recurrences as expressions to do algebra with.

The file needs sympy alone. Numbers are exact fractions; reductions over a tensor are undefined functions.
"""

from __future__ import annotations

import builtins
import keyword
from collections.abc import Mapping

from ruleforge.core.text import RuleText
from ruleforge.errors import ExportError
from ruleforge.export.lines import WIDTH
from ruleforge.export.safety import check_names, plain_lines
from ruleforge.render.sympy import SympyForm, is_large, source_of, to_sympy
from ruleforge.render.unicode import formula

MAX_NODES = 2000
_OURS = ("Symbol", "Function", "S", "update", "next_states", "initial_states", "defaults")


def export_sympy(text: RuleText, *, provenance: Mapping[str, object] | None = None) -> str:
    """A Python file that builds the rule in sympy.

    Args:
        text: a rule with its names.
        provenance: where the rule was found, printed in the docstring.

    Returns:
        A module with a symbol each for what the rule reads, `update`, `next_states` and `initial_states`
        (dicts by name), and `defaults` (symbol to number).

    Raises:
        ExportError: spelled out without shared parts, the rule is too long to read; or sympy refuses one of
            its expressions, such as the maximum of complex numbers.
    """
    check_names(text)
    if is_large(text.rule, MAX_NODES):
        raise ExportError(
            f"has more than {MAX_NODES} nodes once shared parts are spelled out", hint="export it to numpy"
        )
    try:
        form = to_sympy(text)
    except ValueError as error:
        raise ExportError(f"sympy cannot hold it: {error}", hint="export it to numpy or latex") from None
    values = [form.update, *form.states.values(), *form.inits.values()]
    _, words, undefined = source_of(values, {name: f"_{k}" for k, name in enumerate(form.symbols)})
    variables = _variables(form, {*words, *undefined})
    sources, _, _ = source_of(values, variables)
    n = len(form.states)
    imports = sorted({"Symbol", *words, *(["Function"] if undefined else [])}, key=_import_order)
    origin = "\n".join(f"{key}: {value}" for key, value in (provenance or {}).items())
    written = f"Written by ruleforge from the rule {text.rule.key}."
    maths = "\n".join(f"    {line}" for line in formula(text))
    doc = "\n\n".join(part for part in (text.doc.strip(), maths, origin, written) if part)
    lines = ['"""' + "\n".join(plain_lines(doc, WIDTH)), '"""', ""]
    lines += [*_import(imports), ""]
    lines += [f'{name} = Function("{name}")' for name in undefined]
    for name, symbol in form.symbols.items():
        fact = "positive" if symbol.is_positive else "real"
        lines.append(f'{variables[name]} = Symbol("{name}", {fact}=True)')
    defaults = {
        variables[name]: h.default
        for name, h in zip(text.hypers, text.rule.hypers, strict=True)
        if name in form.symbols
    }
    lines += [
        "",
        f"update = {sources[0]}",
        *_table("next_states", dict(zip(form.states, sources[1 : n + 1], strict=True))),
        *_table("initial_states", dict(zip(form.inits, sources[n + 1 :], strict=True))),
        f"defaults = {{{', '.join(f'{name}: {value!r}' for name, value in defaults.items())}}}",
    ]
    return "\n".join(lines) + "\n"


def _variables(form: SympyForm, words: set[str]) -> dict[str, str]:
    """A variable for each symbol, under its own name where the file's other names leave that free."""
    taken = {*words, *keyword.kwlist, *keyword.softkwlist, *dir(builtins), *_OURS}
    found: dict[str, str] = {}
    for name in form.symbols:
        variable = name
        while variable in taken:
            variable += "_"
        taken.add(variable)
        found[name] = variable
    return found


def _table(name: str, rows: Mapping[str, str]) -> list[str]:
    """A dict of expressions by name."""
    if not rows:
        return [f"{name} = {{}}"]
    return [f"{name} = {{", *(f'    "{key}": {source},' for key, source in rows.items()), "}"]


def _import(names: list[str]) -> list[str]:
    line = f"from sympy import {', '.join(names)}"
    if len(line) <= WIDTH:
        return [line]
    return ["from sympy import (", *(f"    {name}," for name in names), ")"]


def _import_order(name: str) -> tuple[int, str]:
    """Constants, classes, functions, as linters sort them."""
    return (0 if name.isupper() else 1 if name[:1].isupper() else 2, name)
