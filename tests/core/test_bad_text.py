# ruff: noqa: E501 (tables)
"""Every bad text gets one clear message, with its place, at once. No other error comes through."""

from __future__ import annotations

import random
import time
import tracemalloc
from pathlib import Path

import pytest

from ruleforge.core import parser, source, spell
from ruleforge.core.known import KNOWN
from ruleforge.core.ops import RESERVED, TERMINALS
from ruleforge.core.text import RuleText, load, parse
from ruleforge.errors import InputError, RuleforgeError, RuleTextError

SECONDS = 30.0  # a text that takes this long has blown up: most take milliseconds, on any machine


def refusal(text: str, file: str = "mine.rule") -> RuleTextError:
    """The error that the text is refused with, without blowing up."""
    start = time.process_time()
    with pytest.raises(RuleTextError) as caught:
        parse(text, file=file)
    assert time.process_time() - start < SECONDS
    assert caught.value.file == file and str(caught.value).startswith(file)
    assert caught.value.exit_code == 2
    assert len(str(caught.value)) < 1500
    return caught.value


# (text, line, column, part of the message, part of the hint)
Case = tuple[str, int | None, int | None, str, str]

ISSUE: dict[str, Case] = {  # the list of bad rule texts that must be answered well
    "unknown op": ("update = emaa(g, 0.9)", 1, 10, "unknown op 'emaa'", "did you mean 'ema'?"),
    "wrong arity": ("m = g\nupdate = ema(m)", 2, 10, "ema takes 2 arguments, got 1", "write ema(x, beta)"),
    "type mismatch": ("update = ema(g, g)", 1, 10, "type mismatch: ema takes a number as 'beta', got a tensor", ""),
    "undefined name": ("a = g\nupdate = aa", 2, 10, "undefined name 'aa'", "did you mean 'a'?"),
    "missing argument": ("a = w\nupdate = g /", 2, 13, "syntax: invalid syntax", "something is missing"),
    "a 10 MB file": ("# rule\n" * 1_500_000 + "update = g", None, None, "more than 64 KiB of text", "a few lines"),
    "10,000 parentheses": (
        "\nupdate = " + "(" * 10_000 + "g" + ")" * 10_000, 2, 74, "brackets nest deeper than 64 levels", "names of their own",
    ),
    "import": ("update = g * __import__('os')", 1, 14, "unknown op '__import__'", "ops with 1 argument: "),
    "import and call": ("update = __import__('os').system('true')", 1, 10, "only ops of the language can be called", ""),
}  # fmt: skip

CHARACTERS: dict[str, Case] = {
    "null byte": ("update = g\0", 1, 11, "U+0000 is not allowed", ""),
    "null byte in a docstring": ('"""a\n\0"""\nupdate = g', 2, 1, "U+0000 is not allowed", ""),
    "lone surrogate": ("update = \ud800", 1, 10, "U+D800 is not allowed", ""),
    "lone surrogate in a comment": ("update = g\n# \udcff", 2, 3, "U+DCFF is not allowed", ""),
    "a name that Python would change": ("ﬁ = g\nupdate = fi", 1, 1, "unexpected character 'ﬁ'", "ASCII"),
    "a wide g": ("update = ｇ", 1, 10, "unexpected character 'ｇ'", "ASCII"),
    "a mathematical g": ("update = 𝑔", 1, 10, "unexpected character '𝑔'", "ASCII"),
    "a greek name": ("β: hyper(0, 1) = 0.9\nupdate = g", 1, 1, "unexpected character 'β'", "ASCII"),
    "a minus that is none": ("update = g − w", 1, 12, "unexpected character '−'", "ASCII"),
    "a space that is none": ("update =\xa0g", 1, 9, "unexpected character", "ASCII"),
    "a second byte order mark": ("\ufeff\ufeffupdate = g", 1, 1, "unexpected character", "ASCII"),
    "line breaks that are none": (
        "a = g # \x85 \u2028 \x0c \x1c\nupdate = qq",
        2,
        10,
        "undefined name 'qq'",
        "",
    ),
    "carriage returns": ("a = g\r\n\rupdate = qq", 3, 10, "undefined name 'qq'", ""),
    "a wide character before the fault": ('"""é"""; update = qq', 1, 19, "undefined name 'qq'", ""),
    "form feed": ("update = g +\x0c", 1, 14, "syntax", ""),
    "tabs in front": ("\tupdate = g", 1, 1, "syntax: unexpected indent", ""),
    "mixed tabs": ("if 1:\n\ta = 1\n        b = 1", 3, None, "syntax: inconsistent use of tabs", ""),
    "an unfinished docstring": (
        '"""Adam.\nupdate = g',
        1,
        1,
        "syntax: unterminated triple-quoted string",
        "",
    ),
    "an unfinished bracket": ("update = (g + w", 1, 10, "syntax: '(' was never closed", ""),
    "a bracket too many": ("update = g)", 1, 11, "syntax: unmatched ')'", ""),
    "an emoji": ("update = g + 🐍", 1, 14, "unexpected character '🐍'", "ASCII"),
}

NUMBERS: dict[str, Case] = {
    "an integer of 5,000 digits": ("update = g * " + "9" * 5000, 1, None, "a number has too many digits", ""),
    "a huge integer in hex": ("update = g * 0x" + "f" * 5000, 1, 14, "numbers must be finite", ""),
    "beyond float64": ("update = g * 1e400", 1, 14, "numbers must be finite", ""),
    "beyond float64, negative": ("update = -1e400", 1, 11, "numbers must be finite", ""),
    "complex": ("update = g * 1j", 1, 14, "expected a number, found a complex number", ""),
    "bytes": ("update = g * b'x'", 1, 14, "expected a number, found text", ""),
    "text": ("update = g * 'x'", 1, 14, "expected a number, found text", ""),
    "True": ("update = g * True", 1, 14, "expected a number, found a truth value", ""),
    "None": ("update = None", 1, 10, "expected a number, found a word", ""),
    "dots": ("update = ...", 1, 10, "expected a number, found a word", ""),
    "digits with a comma": ("update = g * 1,5", 1, 10, "lists and tuples", "one expression a line"),
    "leading zeros": ("update = g * 007", 1, None, "syntax: leading zeros", ""),
}

PYTHON: dict[str, Case] = {
    "f-string": ("update = f'{g}'", 1, 10, "text is not in the language", ""),
    "f-string for a docstring": ("f'x'\nupdate = g", 1, 1, "only assignments and declarations", ""),
    "bytes for a docstring": ("b'x'\nupdate = g", 1, 1, "a rule starts with a docstring", ""),
    "a second docstring": ("'a'\n'b'\nupdate = g", 2, 1, "only assignments and declarations", ""),
    "walrus": ("update = (x := g)", 1, 11, "`:=` is not in the language", "a line of its own"),
    "lambda": ("update = lambda: g", 1, 10, "comprehensions and lambdas", ""),
    "called lambda": ("update = (lambda: g)()", 1, 11, "only ops of the language can be called", ""),
    "comprehension": ("update = [g for x in w]", 1, 10, "comprehensions and lambdas", ""),
    "generator": ("update = mean(x for x in g)", 1, 14, "comprehensions and lambdas", ""),
    "star": ("update = hypot(*g)", 1, 10, "arguments are given by position", ""),
    "two stars": ("update = hypot(**g)", 1, 10, "arguments are given by position", ""),
    "keyword": ("update = ema(g, beta=0.9)", 1, 10, "arguments are given by position", ""),
    "chained comparison": (
        "update = 0 < g < 1",
        1,
        10,
        "chained or unknown comparison",
        "compare two values",
    ),
    "in": ("update = g in w", 1, 10, "chained or unknown comparison", ""),
    "is": ("update = g is w", 1, 10, "chained or unknown comparison", ""),
    "and": ("update = g and w", 1, 10, "and, or, not are not in the language", "where(c, a, b)"),
    "or": ("update = g * (g or w)", 1, 15, "and, or, not are not in the language", "multiply masks"),
    "not": ("update = not g", 1, 10, "and, or, not are not in the language", ""),
    "if-else": ("update = g if t else w", 1, 10, "if-else is not in the language", "where(c, a, b)"),
    "attribute": ("update = g.T", 1, 10, "attributes and subscripts", ""),
    "dunder attribute": ("update = g.__class__.__mro__", 1, 10, "attributes and subscripts", ""),
    "method": ("update = g.abs()", 1, 10, "only ops of the language can be called", ""),
    "subscript": ("update = g[0]", 1, 10, "attributes and subscripts", ""),
    "floor division": ("update = g // 2", 1, 10, "unknown operator", "+ - * / **"),
    "matrix product": ("update = g @ w", 1, 10, "unknown operator", "+ - * / **"),
    "unary plus": ("update = +g", 1, 10, "unknown operator", "write -x"),
    "invert": ("update = ~g", 1, 10, "unknown operator", "write -x"),
    "list": ("update = [g]", 1, 10, "lists and tuples", ""),
    "set": ("update = {g}", 1, 10, "lists and tuples", ""),
    "await": ("update = await g", 1, 10, "this is not in the language", ""),
    "yield": ("update = yield g", 1, 10, "this is not in the language", ""),
    "import statement": ("import os\nupdate = g", 1, 1, "only assignments and declarations", ""),
    "function": ("update = g\ndef f():\n  pass", 2, 1, "only assignments and declarations", ""),
    "if": ("if g: update = g", 1, 1, "only assignments and declarations", ""),
    "del": ("del g\nupdate = g", 1, 1, "only assignments and declarations", ""),
    "a call on its own": ("print(g)\nupdate = g", 1, 1, "only assignments and declarations", ""),
    "match": ("match g:\n case 1: pass", 1, 1, "only assignments and declarations", ""),
    "type alias of a later Python": ("type X = int\nupdate = g", 1, None, "", ""),
    "augmented assignment": (
        "m: state = 0\nm += g\nupdate = m",
        2,
        1,
        "assigned once",
        "write `name = name + …`",
    ),
    "two targets": ("a = b = g\nupdate = a", 1, 5, "one name on the left", ""),
    "unpacking": ("a, b = g\nupdate = a", 1, 1, "one name on the left", ""),
    "attribute target": ("a.b = g\nupdate = g", 1, 1, "one name on the left", ""),
    "subscript target": ("g[0] = w\nupdate = g", 1, 1, "one name on the left", ""),
    "assignment to a number": ("3 = g\nupdate = g", 1, None, "syntax: cannot assign to literal", ""),
    "assignment to a word of Python": ("lambda = g\nupdate = g", 1, None, "syntax", ""),
}

NAMES: dict[str, Case] = {
    "a very long name": ("a" * 60_000 + " = g\nupdate = g", 1, 1, "names have at most 40 characters", ""),
    "a very long undefined name": ("update = " + "b" * 60_000, 1, 10, "undefined name 'bbbb", "known here: g, w"),
    "a very long op": ("update = " + "b" * 60_000 + "(g)", 1, 10, "unknown op 'bbbb", "ops with 1 argument"),
    "a name far along a line": ("update = g + " + " " * 60_000 + "qq", 1, 60_014, "undefined name 'qq'", ""),
    "dunder": ("__x = w\nupdate = g", 1, 1, "no leading `__`", ""),
    "__class__": ("update = __class__", 1, 10, "undefined name '__class__'", ""),
    "an op without arguments": ("update = sqrt", 1, 10, "'sqrt' is an op and needs arguments: sqrt(x)", ""),
    "a call without arguments": ("update = sqrt()", 1, 10, "sqrt takes 1 argument, got 0", "write sqrt(x)"),
    "a call of a local": ("a = g\nupdate = a(g)", 2, 10, "unknown op 'a'", ""),
    "update read before its line": ("a = update\nupdate = g", 1, 5, "`update` is read before its line", ""),
    "update read by itself": ("update = update + g", 1, 10, "`update` is read before its line", ""),
    "update twice": ("update = g\nupdate = w", 2, 1, "'update' is assigned twice", ""),
    "update declared": ("update: state = 0", 1, 1, "`update` cannot be declared", "assign it"),
    "no update": ("a = g", None, None, "the rule never assigns `update`", "add a line such as `update = g`"),
    "nothing": ("", None, None, "the rule never assigns `update`", ""),
    "a docstring alone": ('"""Adam."""', None, None, "the rule never assigns `update`", ""),
    "a local twice": ("a = g\na = w\nupdate = a", 2, 1, "'a' is assigned twice", ""),
    "a state twice": ("m: state = 0\nm = g\nm = w\nupdate = m", 3, 1, "'m' is assigned twice", ""),
    "a local read before its line": ("update = a\na = g", 1, 10, "undefined name 'a'", ""),
    "a state read before its declaration": ("update = m\nm: state = 0", 1, 10, "'m' is read before its declaration", ""),
    "a state assigned before its declaration": ("m = g\nm: state = 0\nupdate = m", 1, 1, "assigned before its declaration", ""),
    "a hyper read before its declaration": ("update = g * b\nb: hyper(0, 1) = 0.5", 1, 14, "read before its declaration", ""),
    "a hyper assigned": ("b: hyper(0, 1) = 0.5\nb = g\nupdate = b", 2, 1, "is a hyperparameter and keeps its value", ""),
    "declared twice": ("m: hyper(0, 1) = 0.5\nm: state = 0\nupdate = g", 2, 1, "'m' is declared twice", ""),
}  # fmt: skip
NAMES |= {
    f"{name} assigned": (f"{name} = w\nupdate = g", 1, 1, f"'{name}' is reserved", "choose another name")
    for name in sorted(RESERVED - {"update"})
}
NAMES |= {
    f"{name} declared": (
        f"{name}: state = 0\nupdate = g",
        1,
        1,
        f"'{name}' is reserved",
        "choose another name",
    )
    for name in (*TERMINALS, "state", "hyper", "ema")
}

DECLARATIONS: dict[str, Case] = {
    "no value": ("m: state\nupdate = g", 1, 1, "'m' has no value", "states `= init`"),
    "unknown annotation": ("m: float = 0\nupdate = g", 1, 4, "unknown declaration", "hyper(low, high) = default"),
    "hyper without a range": ("m: hyper = 0\nupdate = g", 1, 4, "unknown declaration", ""),
    "hyper with keywords": ("m: hyper(low=0, high=1) = 0.5\nupdate = g", 1, 4, "unknown declaration", ""),
    "hyper with one bound": ("m: hyper(0) = 0.5\nupdate = g", 1, 4, "hyper takes low, high and an optional scale", ""),
    "unknown scale": ("m: hyper(0, 1, cubic) = 0.5\nupdate = g", 1, 16, "unknown scale", "linear, log, one_minus_log"),
    "a bound that is no number": ("m: hyper(0, 1 + 1) = 0.5\nupdate = g", 1, 13, "expected a number", ""),
    "an infinite bound": ("m: hyper(0, 1e400) = 0.5\nupdate = g", 1, 13, "numbers must be finite", ""),
    "an empty range": ("m: hyper(1, 1) = 1\nupdate = g", 1, 4, "the range (1, 1) is empty", ""),
    "a default outside": ("m: hyper(0, 1) = 2\nupdate = g", 1, 18, "m = 2 lies outside its open range (0, 1)", ""),
    "a default on the edge": ("m: hyper(0, 1) = 0\nupdate = g", 1, 18, "lies outside its open range", ""),
    "a log range below 0": ("m: hyper(-1, 1, log) = 0.5\nupdate = g", 1, 4, "does not fit scale log", ""),
    "a log range above 1": ("m: hyper(0, 2, one_minus_log) = 0.5\nupdate = g", 1, 4, "does not fit scale one_minus_log", ""),
    "an attribute declared": ("a.b: state = 0\nupdate = g", 1, 1, "only names can be declared", ""),
    "prev of a state": ("m: state = 0\nupdate = prev(m)\nm = g", 2, 10, "prev of an explicit state", "before its assignment"),
    "prev of a new state": ("m: state = 0\nm = g\nupdate = prev(m)", 3, 10, "prev of an explicit state", ""),
    "a reduction of a number": ("update = g * norm(t)", 1, 14, "norm takes a tensor as 'x', got a number", ""),
    "a reduction of a host state": (
        "p: state = 1\np = p * 0.9\nupdate = g * norm(p)", 3, 14, "norm takes a tensor as 'x', got a number", "",
    ),
    "a matrix op on a scalar": (
        "update = orthogonalize(norm(g))", 1, 10, "orthogonalize takes a tensor as 'x', got a per-tensor scalar", "",
    ),
    "a tensor for a norm": ("update = clip_norm(g, g)", 1, 10, "clip_norm takes a number as 'c', got a tensor", ""),
    "a tensor state for a beta": (
        "m: state = 0\nm = g\nupdate = ema(g, m)", 3, 10, "ema takes a number as 'beta', got a tensor", "",
    ),
}  # fmt: skip
DECLARATIONS |= {
    f"a state that starts from {leaf}": (
        f"m: state = 1 + {leaf}\nupdate = m", 1, 12, f"state 'm' starts from {leaf}", "0, 1e-6, lr0",
    )
    for leaf in ("g", "w", "t", "first", "lr", "progress", "is_matrix")
}  # fmt: skip
DECLARATIONS |= {
    "a state that starts from a state": (
        "a: state = 0\nm: state = a\nupdate = m",
        2,
        12,
        "starts from state",
        "",
    ),
    "a state that starts from sugar": ("m: state = ema(1, 0.9)\nupdate = m", 1, 12, "starts from state", ""),
    "a state that starts from a reduction": ("m: state = norm(g)\nupdate = m", 1, 12, "starts from g", ""),
}


def lines(pattern: str, n: int) -> str:
    return "".join(pattern.format(i, i + 1) + "\n" for i in range(n))


SIZE: dict[str, Case] = {
    "30,000 minus signs": ("update = " + "-" * 30_000 + "g", None, None, "nested too deeply", "64 levels"),
    "100 minus signs": ("update = " + "-" * 100 + "g", 1, 75, "terms nest deeper than 64 levels", ""),
    "30,000 nots": ("update = " + "not " * 15_000 + "g", None, None, "nested too deeply", ""),
    "a chain of attributes": ("update = g" + ".a" * 30_000, None, None, "nested too deeply", ""),
    "a chain of calls": ("update = g" + "()" * 30_000, None, None, "nested too deeply", ""),
    "a chain of sums": ("update = g" + "+g" * 30_000, None, None, "nested too deeply", ""),
    "a chain of powers": ("update = g" + "**g" * 20_000, None, None, "nested too deeply", ""),
    "a chain of comparisons": ("update = g" + "<g" * 30_000, 1, 10, "chained or unknown comparison", ""),
    "a chain of lambdas": ("update = " + "lambda:" * 9_000 + "g", None, None, "nested too deeply", ""),
    "a chain of choices": ("update = " + "g if g else " * 5_000 + "g", None, None, "nested too deeply", ""),
    "a sum of 100 terms": ("update = g" + "+g" * 100, 1, 82, "terms nest deeper than 64 levels", "names of their own"),
    "65 brackets": ("update = " + "(" * 65 + "g" + ")" * 65, 1, 74, "brackets nest deeper than 64 levels", ""),
    "65 calls": ("update = " + "exp(" * 65 + "g" + ")" * 65, 1, None, "brackets nest deeper than 64 levels", ""),
    "brackets over many lines": ("update = (\n" * 1 + "(\n" * 80 + "g" + ")" * 81, 65, 1, "brackets nest deeper", ""),
    "a docstring of 9,000 characters": ('"""' + "x" * 9_000 + '"""\nupdate = g', None, None, "longer than 8192", ""),
    "513 nodes": (lines("a{1} = exp(a{0})", 512).replace("a0", "g") + "update = a512", None, None, "513 nodes, at most 512", ""),
    "3,000 terms": (lines("a{0} = exp(g)", 3_000) + "update = g", 2049, 9, "more than 2048 terms", "512 nodes"),
    "17 states": (lines("m{0}: state = 0", 17) + "update = g", 17, 1, "more than 16 states", ""),
    "17 sugared states": (
        "update = " + " + ".join(f"ema(g, 0.{i + 10})" for i in range(17)), 1, 250, "more than 16 states", "is a state",
    ),
    "16 states and a sugared one": (lines("m{0}: state = 0", 16) + "update = total(g)", 17, 10, "more than 16 states", ""),
    "17 hypers": (lines("h{0}: hyper(0, 1) = 0.5", 17) + "update = g", 17, 1, "more than 16 hyperparameters", ""),
    "prev of prev of prev": (
        lines("a{1} = prev(a{0})", 3_000).replace("a0)", "g)") + "update = a3000", 17, None, "more than 16 states", "",
    ),
    "prev in prev": ("update = " + "prev(" * 60 + "g" + ")" * 60, 1, None, "more than 16 states", ""),
    "terms that grow when written out": (
        "update = " + "cube(" * 16 + "g + w" + ")" * 16, None, None, "written out, an expression is longer than 64 KiB", "names of their own",
    ),
    "terms that double when written out": (
        "update = " + "cube(" * 60 + "g" + ")" * 60, None, None, "written out", "names of their own",
    ),
    "terms that deepen when written out": (
        "update = " + "softplus(" * 60 + "g" + ")" * 60, None, None, "written out, terms nest deeper than 64", "names of their own",
    ),
    "terms that deepen in two places": (
        f"update = {'softplus(' * 24}g{')' * 24} + {'exp(' * 25}{'softplus(' * 24}g{')' * 49}", None, None,
        "written out, terms nest deeper than 64", "names of their own",
    ),
    "many long lines when written out": (
        "".join(f"a{i} = {'cube(' * 8}g + {i}{')' * 8}\n" for i in range(20)) + "update = g", None, None,
        "written out, the rule is longer than 64 KiB", "",
    ),
    "only quotes": ("'" * 60_000, None, None, "the rule never assigns", ""),
    "quotes that never close": ("'''\"\"\"" * 10_001, 1, None, "syntax: unterminated", ""),
    "backslashes": ("\\" * 60_000, 1, None, "syntax", ""),
    "only line ends": ("\n" * 60_000, None, None, "the rule never assigns", ""),
}  # fmt: skip

ALL = {**ISSUE, **CHARACTERS, **NUMBERS, **PYTHON, **NAMES, **DECLARATIONS, **SIZE}


def test_no_two_cases_share_a_name() -> None:
    assert len(ALL) == sum(map(len, (ISSUE, CHARACTERS, NUMBERS, PYTHON, NAMES, DECLARATIONS, SIZE)))


@pytest.mark.parametrize(("text", "line", "column", "message", "hint"), ALL.values(), ids=ALL)
def test_bad_text(text: str, line: int | None, column: int | None, message: str, hint: str) -> None:
    error = refusal(text)
    assert message in error.message
    assert hint in error.hint
    assert error.line == line
    if column is not None:
        assert error.column == column
    assert bool(error.line) == bool(error.context)


def test_an_error_shows_the_place() -> None:
    error = refusal("m = g\nv = emaa(m * m, 0.999)\nupdate = v", "search/mine.rule")
    assert str(error).splitlines()[:3] == [
        "search/mine.rule, line 2, column 5: unknown op 'emaa'",
        "    v = emaa(m * m, 0.999)",
        "        ^^^^",
    ]
    assert error.as_json() == {
        "error": "unknown op 'emaa'", "file": "search/mine.rule", "line": 2, "column": 5, "hint": error.hint,
    }  # fmt: skip


def test_carets_stand_under_the_fault() -> None:
    for text, fault in (
        ('"""é 🐍"""; update = qq + g', "qq"),
        ("update = g +\t\tqq", "qq"),
        ("update = g + " + "(w) + " * 40 + "qq + g", "qq"),
        ("update = ema(g,\n   g)", "ema(g,"),
    ):
        shown, carets = refusal(text).context.splitlines()
        start = carets.index("^")
        assert shown[start : start + carets.count("^")] == fault


def test_errors_are_ours_and_have_no_cause_to_read() -> None:
    error = refusal("update = (")
    assert isinstance(error, InputError) and isinstance(error, RuleforgeError)
    assert error.__suppress_context__


# files


def test_bad_files(tmp_path: Path) -> None:
    too_large = tmp_path / "large.rule"
    too_large.write_bytes(b"#" + b"\xc3\xa9" * 5_000_000)  # cut anywhere, it ends within a character
    latin = tmp_path / "latin.rule"
    latin.write_bytes(b"# one\n# caf\xe9\nupdate = g")
    cases = {
        str(tmp_path / "none.rule"): "cannot be opened: No such file",
        str(tmp_path): "cannot be opened: Is a directory",
        str(too_large): "more than 64 KiB of text",
        str(latin): "is not UTF-8 text",
        "a\0b": "cannot be opened: embedded null byte",
    }
    for path, message in cases.items():
        with pytest.raises(RuleTextError, match=message) as caught:
            load(path)
        assert caught.value.file and caught.value.exit_code == 2
    with pytest.raises(RuleTextError, match="line 2"):
        load(str(latin))


def test_no_more_of_a_file_is_read_than_a_rule_may_hold(tmp_path: Path) -> None:
    path = tmp_path / "endless.rule"
    with path.open("wb") as file:
        file.truncate(256 * 1024 * 1024)  # a hole: it takes no room on the disk
    tracemalloc.start()
    try:
        with pytest.raises(RuleTextError, match="64 KiB"):
            load(str(path))
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak_bytes < 1024 * 1024


# anything at all


def test_mutilated_rules_are_read_or_refused() -> None:
    rng = random.Random(0)
    sources = [str(known.rule) for known in KNOWN.values()]
    pieces = [
        "(",
        ")",
        "**",
        "g",
        "=",
        ":",
        "\n",
        " ",
        "update",
        "prev(",
        "state",
        ",",
        "9" * 400,
        '"""',
        "#",
        "é",
        ".",
        "\t",
    ]
    read = 0
    for _ in range(1500):
        text = list(rng.choice(sources))
        for _ in range(rng.randint(1, 4)):
            at = rng.randrange(len(text))
            action = rng.randrange(3)
            if action == 0:
                del text[at : at + rng.randint(1, 5)]
            elif action == 1:
                text.insert(at, rng.choice(pieces))
            else:
                text[at] = chr(rng.choice([rng.randrange(32, 127), rng.randrange(0x3000)]))
            text = text or ["x"]
        try:
            made = parse("".join(text))
        except RuleTextError:
            continue
        assert parse(str(made)) == made
        read += 1
    assert 50 < read < 1200


# guards are real: without the check, the text goes through


def accepted(text: str) -> RuleText:
    return parse(text)


def test_the_limit_on_bytes_is_a_check_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    text = "# " + "x" * 70_000 + "\nupdate = g"
    assert "64 KiB" in refusal(text).message
    for module in (source, parser):
        monkeypatch.setattr(module, "MAX_BYTES", 80_000)
    assert accepted(text)


def test_the_limits_on_depth_are_checks_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    brackets = "update = " + "(" * 70 + "g" + ")" * 70
    minuses = "update = " + "-" * 70 + "g"
    written = "update = " + "softplus(" * 40 + "g" + ")" * 40
    assert "brackets" in refusal(brackets).message
    assert "terms nest" in refusal(minuses).message
    assert "written out" in refusal(written).message
    monkeypatch.setattr(source, "MAX_DEPTH", 100)
    assert accepted(brackets)
    assert "written out" in refusal(minuses).message  # what stands behind it
    monkeypatch.setattr(spell, "MAX_DEPTH", 100)
    assert accepted(minuses) and accepted(written)


@pytest.mark.parametrize(
    ("name", "higher", "case"),
    [
        ("MAX_NODES", 600, "513 nodes"),
        ("MAX_TERMS", 4000, "3,000 terms"),
        ("MAX_DOC", 10_000, "a docstring of 9,000 characters"),
        ("MAX_BYTES", 10**6, "many long lines when written out"),
    ],
)
def test_the_other_limits_are_checks_of_their_own(
    name: str, higher: int, case: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    refusal(ALL[case][0])
    monkeypatch.setattr(parser, name, higher)
    assert accepted(ALL[case][0])


def test_limits_can_be_reached() -> None:
    assert len(accepted(lines("m{0}: state = 0", 16) + "update = g").rule.states) == 16
    assert len(accepted(lines("h{0}: hyper(0, 1) = 0.5", 16) + "update = g").hypers) == 16
    assert accepted(lines("a{1} = exp(a{0})", 511).replace("a0", "g") + "update = a511").rule.nodes == 512
    assert accepted("update = " + "(" * 64 + "g" + ")" * 64).rule.nodes == 1
    assert accepted("update = " + "-" * 63 + "g").rule.nodes == 2
    assert accepted("update = " + "square(" * 60 + "g" + ")" * 60).rule.nodes == 61
    assert accepted('"""' + "x" * 8192 + '"""\nupdate = g').doc == "x" * 8192
    assert accepted("#" * (64 * 1024 - 11) + "\nupdate = g")
