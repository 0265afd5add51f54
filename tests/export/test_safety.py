"""What strangers wrote cannot become code, nor LaTeX commands, in an exported file."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ruleforge.core.known import KNOWN
from ruleforge.core.text import Line
from ruleforge.errors import ExportError
from ruleforge.export import export
from ruleforge.export.latex import escape
from ruleforge.export.safety import check_class_name, class_name_for, plain_lines, snake
from ruleforge.export.torch import export_torch
from tests.export.harness import load

LION = KNOWN["lion"].rule
PLAIN = export_torch(replace(LION, doc=""), "Lion")

HOSTILE = [
    '"""\nimport os\nos.system("true")\n"""',
    '""""""""',
    'ends with a quote"',
    "ends with a backslash\\",
    '\\"""\nimport os',
    "\\\\\\",
    "\\N{LATIN SMALL LETTER A} \\x41 \\u0041 \\",
    "'''\nimport os\n'''",
    "line\rimport os\r\nimport sys",
    "form\x0cfeed\x0bvertical\x1cfile\x85next\u2028line\u2029paragraph",
    "null \x00 bell \x07 escape \x1b[31m",
    "right-to-left \u202e override \u2066 isolate",
    "half a pair \ud800 \udfff",
    "# -*- coding: utf-7 -*-\n+AGkAbQBwAG8AcgB0-",
    "# type: ignore\n# noqa\n# fmt: off",
    "{__import__('os')} {0} %s %(x)s",
    "\t\ttabs\n    indented\nnot indented\n",
    "x" * 5000,
    "word " * 5000,
    "\n" * 500,
    "",
]


def code_of(source: str) -> str:
    """The syntax tree without docstrings."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list) and body and isinstance(body[0], ast.Expr):
            value = body[0].value
            if isinstance(value, ast.Constant) and isinstance(value.value, str):
                body.pop(0)
    return ast.dump(tree)


def comments_of(source: str) -> list[str]:
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    return [token.string for token in tokens if token.type == tokenize.COMMENT]


def assert_harmless(doc: str) -> None:
    source = export_torch(replace(LION, doc=doc), "Lion")
    assert code_of(source) == code_of(PLAIN)
    assert comments_of(source) == comments_of(PLAIN)
    for line in source.split("\n"):
        assert line.isprintable()
        assert line == line.rstrip()
    source.encode("utf-8")
    compile(source, "exported.py", "exec")  # no warning about an escape either
    assert source.startswith('"""')  # so that no comment in the first two lines names an encoding


@pytest.mark.parametrize("doc", HOSTILE)
def test_hostile_docstrings(doc: str, tmp_path: Path) -> None:
    assert_harmless(doc)
    load(export_torch(replace(LION, doc=doc), "Lion"), tmp_path)


@given(
    st.text(
        alphabet=st.one_of(st.sampled_from("\"\\\n\r\t\x0c'#{}%$ a\u2028\u202e"), st.characters()),
        max_size=80,
    )
)
def test_any_docstring(doc: str) -> None:
    assert_harmless(doc)


@given(st.dictionaries(st.text(max_size=10), st.text(alphabet='"\\\n\r#{}x ', max_size=20), max_size=3))
def test_any_provenance(provenance: dict[str, str]) -> None:
    source = export_torch(replace(LION, doc=""), "Lion", provenance=provenance)
    assert code_of(source) == code_of(PLAIN)


def test_docstrings_read_back() -> None:
    module = ast.parse(export_torch(replace(LION, doc="Lion. A \\ and 'quotes'.\n\nMore."), "Lion"))
    shown = ast.get_docstring(module)
    assert shown is not None
    assert "Lion. A \\ and 'quotes'." in shown
    assert "beta1: hyper(0, 1, one_minus_log) = 0.9" in shown
    assert LION.rule.key in shown


def test_paragraphs_flow_and_lists_stay() -> None:
    assert plain_lines("one\ntwo\n\n  - a\n  - b\nthree", 80) == ["one two", "", "  - a", "  - b", "three"]
    assert len(plain_lines("x\n\n" * 200, 80)) < 70


@pytest.mark.parametrize(
    "name", ["import os", "a.b", "lambda", "é", "", "x\ny", "a b", 'm"', "__class__ = 1"]
)
@pytest.mark.parametrize("target", ["torch", "latex", "json"])
def test_hostile_names(name: str, target: str) -> None:
    for text in (
        replace(LION, states=(name,)),
        replace(LION, hypers=(name, "beta2")),
        replace(LION, lines=(*LION.lines, Line(name, LION.rule.update))),
    ):
        with pytest.raises(ExportError, match="no name that code can use"):
            export(text, target)


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("", "no class name"),
        ("My Lion", "no class name"),
        ("Lion()", "no class name"),
        ("Líon", "no class name"),
        ("9Lion", "no class name"),
        ("Lion\nimport os", "no class name"),
        ("L" * 61, "no class name"),
        ("class", "keyword"),
        ("None", "keyword"),
        ("match", "keyword"),
        ("dict", "builtin"),
        ("Exception", "builtin"),
        ("Optimizer", "shadows a name of torch"),
        ("Tensor", "shadows a name of torch"),
        ("torch", "shadows a name of torch"),
        ("Adam", "shadows a name of torch"),
        ("math", "shadows a name of torch"),
        ("_Lion", "starts with _"),
    ],
)
def test_class_names_that_are_refused(name: str, why: str) -> None:
    with pytest.raises(ExportError, match=why) as caught:
        export_torch(LION, name)
    assert caught.value.hint


def test_every_torch_optimizer_is_known() -> None:
    """The list of torch's names is kept by hand, since export must not import torch."""
    import torch

    for name in dir(torch.optim):
        if isinstance(getattr(torch.optim, name), type):
            with pytest.raises(ExportError, match="torch"):
                check_class_name(name)


@pytest.mark.parametrize(
    ("doc", "name"),
    [
        ("Lion. Chen et al.", "Lion"),
        ("Adam. Kingma & Ba", "AdamRule"),
        ("Cautious Lion. X", "CautiousLion"),
        ("RAdam, rectified Adam.", "RAdamRule"),
        ("", "DiscoveredRule"),
        ("«»", "DiscoveredRule"),
        ("123", "DiscoveredRule"),
        ("a " * 50, "DiscoveredRule"),
    ],
)
def test_class_names_from_docstrings(doc: str, name: str) -> None:
    assert class_name_for(doc) == name
    check_class_name(name)


@given(st.text(max_size=60))
def test_class_names_from_any_docstring(doc: str) -> None:
    check_class_name(class_name_for(doc))


def test_snake() -> None:
    assert [snake(n) for n in ("Lion", "CautiousLion", "RAdam", "SGDRule")] == [
        "lion",
        "cautious_lion",
        "radam",
        "sgdrule",
    ]


@given(st.text(alphabet=st.one_of(st.sampled_from("\\{}$&#%_^~\n\r"), st.characters()), max_size=60))
def test_latex_escapes(text: str) -> None:
    """No command of a stranger's: every backslash is one of ours, and braces balance."""
    shown = escape(text)
    assert shown.isprintable()
    bare = shown
    for ours in (r"\textbackslash{}", r"\textasciicircum{}", r"\textasciitilde{}"):
        bare = bare.replace(ours, "")
    assert not re.sub(r"\\[{}$&#%_]", "", bare).strip("abcdefghijklmnopqrstuvwxyz ").count("\\")
    assert not re.search(r"(?<!\\)[{}$&#%_^~]", bare)


@pytest.mark.parametrize("doc", ["\\input{/etc/passwd}", "}\\end{document}", "$$ % &", "\n\\write18{ls}"])
def test_hostile_docstrings_in_latex(doc: str) -> None:
    plain = export(replace(LION, doc="x\ny"), "latex")
    hostile = export(replace(LION, doc=f"{doc}\n{doc}"), "latex")
    assert commands(hostile) - commands(plain) <= {"textbackslash"}
    assert hostile.count(r"\end{document}") == 1


def commands(source: str) -> set[str]:
    return set(re.findall(r"\\([A-Za-z]+)", source))


def test_refused_defaults() -> None:
    with pytest.raises(ExportError, match="default lr"):
        export_torch(LION, lr=-1.0)
    with pytest.raises(ExportError, match="default weight_decay"):
        export_torch(LION, weight_decay=float("nan"))
