"""Grammar files: those that ship are usable, and those that are wrong are told where and what to do."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from ruleforge.core.known import known
from ruleforge.core.ops import OPS
from ruleforge.errors import GrammarError
from ruleforge.search.children import foreign
from ruleforge.search.forms import FORMS, STATEFUL
from ruleforge.search.genome import from_rule
from ruleforge.search.grammar import Grammar, grammar_names, grammar_schema, load_grammar, parse_grammar
from ruleforge.search.vocabulary import Vocabulary

SHIPPED = ["adaptive", "bello2017", "full", "lion2023", "momentum_sign"]

GOOD = """\
ops = ["add", "mul", "sign"]
sugar = ["ema"]
terminals = ["g"]

[constants]
beta = { values = [0.9] }
scale = { low = 0.1, high = 10.0 }

[limits]
nodes = 20
states = 1
"""


def test_the_shipped_grammars() -> None:
    assert set(SHIPPED) <= set(grammar_names())


@pytest.mark.parametrize("name", grammar_names())
def test_a_shipped_grammar_loads_and_names_its_schema(name: str, project_root: Path) -> None:
    grammar = load_grammar(name)
    assert grammar.name == name and grammar.source and grammar.doc
    text = (project_root / "grammars" / f"{name}.toml").read_text()
    assert text.startswith("#:schema ../docs/grammar.schema.json\n# ")
    assert {form.op for form in grammar.forms} >= {*grammar.op_names, *grammar.sugar_names}


def test_a_grammar_loads_by_path(project_root: Path) -> None:
    assert load_grammar(str(project_root / "grammars" / "full.toml")) == load_grammar("full")


def test_the_published_schema_is_current(project_root: Path) -> None:
    published = json.loads((project_root / "docs" / "grammar.schema.json").read_text())
    assert published == grammar_schema(), "regenerate it: make docs"


def test_full_has_every_op() -> None:
    grammar = load_grammar("full")
    assert {*grammar.op_names, *grammar.sugar_names} == set(OPS)
    assert {form.op for form in FORMS.values()} == set(OPS)
    assert set(STATEFUL) == {"ema", "ema_hat", "trace", "total", "running_max", "prev"}


REACHABLE = {
    "lion2023": ["lion", "sgd", "signsgd"],
    "adaptive": ["adam", "adagrad", "rmsprop", "amsgrad_max_of_debiased"],
    "momentum_sign": ["lion", "signum", "nesterov", "powersign"],
    "full": ["adam", "lion", "muon", "adabelief", "nadam_simple"],
}


@pytest.mark.parametrize(
    ("rule", "grammar"), [(rule, grammar) for grammar, rules in REACHABLE.items() for rule in rules]
)
def test_a_rule_is_reachable(rule: str, grammar: str) -> None:
    vocabulary = Vocabulary(load_grammar(grammar))
    graph = known(rule).rule.rule
    genome = from_rule(graph)
    assert foreign(vocabulary, genome) == ()
    limits = vocabulary.limits
    assert graph.nodes <= limits.nodes and graph.slots <= limits.states
    assert len(genome.states) <= limits.explicit_states


def test_what_a_grammar_lacks_is_foreign() -> None:
    vocabulary = Vocabulary(parse_grammar(GOOD))
    assert foreign(vocabulary, from_rule(known("adam").rule.rule)) == (
        "div.0", "ema_hat.0", "sqrt.0", "square.0", "1e-08",
    )  # fmt: skip


def test_limits_can_be_replaced() -> None:
    grammar = parse_grammar(GOOD).with_limits(nodes=12)
    assert (grammar.limits.nodes, grammar.limits.states) == (12, 1)


def put(old: str, new: str) -> str:
    assert old in GOOD
    return GOOD.replace(old, new)


# fmt: off
BAD = {
    "unknown key": (
        put("[limits]\n", "[limits]\nnods = 3\n"),
        10,
        "unknown key 'limits.nods'",
        "did you mean 'nodes'",
    ),
    "unknown table": (GOOD + "[limts]\n", 12, "unknown key 'limts'", "did you mean 'limits'"),
    "unknown table of a table": (GOOD + "[l.mits]\nnodes = 3\n", 12, "unknown key 'l'", "keys here"),
    "unknown dotted key": ("l . 'm' = 1\n" + GOOD, 1, "unknown key 'l'", "keys here"),
    "unknown op": (put('"sign"', '"sqqrt"'), 1, "unknown op 'sqqrt'", "did you mean 'sqrt'"),
    "unknown terminal": (put('["g"]', '["g", "grad"]'), 3, "unknown terminal 'grad'", "there are g, w"),
    "sugar among ops": (put('"sign"', '"ema"'), 1, "keeps a state", "under `sugar`"),
    "op among sugar": (put('["ema"]', '["sign"]'), 2, "keeps no state", "under `ops`"),
    "no gradient": (put('["g"]', '["w"]'), 3, "can generate no rule", '"g"'),
    "no terminal": (put('["g"]', "[]"), 3, "can generate no rule", '"g"'),
    "no op": ('ops = []\nterminals = ["g"]\n', 1, "can generate no rule", "list some ops"),
    "number ops only": ('ops = ["norm"]\nterminals = ["g"]\n', 1, "can generate no rule", "list some ops"),
    "gradient without weight": (GOOD + "[weights]\ng = 0\n", 13, "weight 0", "above 0"),
    "tree cannot close": (
        put("beta = { values = [0.9] }\n", ""),
        2,
        "'ema' can never be used",
        "[constants]",
    ),
    "mask cannot close": (put('"sign"', '"where"'), 1, "'where' can never be used", "comparison"),
    "negative limit": (put("nodes = 20", "nodes = -20"), 10, "limits.nodes", "nodes: "),
    "huge limit": (put("nodes = 20", "nodes = 100000"), 10, "limits.nodes", "nodes: "),
    "wrong type": (put("nodes = 20", 'nodes = "20"'), 10, "limits.nodes", "nodes: "),
    "sugar without states": (put("states = 1", "states = 0"), 11, "sugar needs states", "raise"),
    "beta out of range": (put("[0.9]", "[1.5]"), 5, "beta constants are in (0, 1)", ""),
    "negative scale": (put("low = 0.1", "low = -0.1"), 5, "greater than 0", ""),
    "empty range": (put("low = 0.1", "low = 99.0"), 7, "is empty", ""),
    "set and range": (put("low = 0.1,", "low = 0.1, values = [1.0],"), 7, "either `values`", ""),
    "infinite": (put("high = 10.0", "high = inf"), 7, "finite", ""),
    "negative weight": (GOOD + "[weights]\nadd = -1\n", 13, "weights.add", ""),
    "weight of a stranger": (
        GOOD + "[weights]\nsing = 1\n",
        13,
        "not in this grammar",
        "did you mean 'sign'",
    ),
    "missing ops": ('terminals = ["g"]\n', None, "key 'ops' is missing", "add `ops"),
    "no toml": ("ops = [", 1, "TOML", "quotes"),
    "nested": ("ops = " + "[" * 5000, 1, "TOML", "quotes"),
}
# fmt: on


@pytest.mark.parametrize(("text", "line", "message", "hint"), BAD.values(), ids=BAD)
def test_a_bad_grammar_is_refused(text: str, line: int | None, message: str, hint: str) -> None:
    with pytest.raises(GrammarError, match=re.escape(message)) as caught:
        parse_grammar(text, file="my.toml")
    error = caught.value
    assert error.file == "my.toml" and error.line == line and hint in error.hint and error.hint
    assert error.exit_code == 2


def test_files_that_are_not_grammars(tmp_path: Path) -> None:
    with pytest.raises(GrammarError, match="did you mean 'full'"):
        load_grammar("fulll")
    with pytest.raises(GrammarError, match="cannot be opened"):
        load_grammar(str(tmp_path / "none.toml"))
    with pytest.raises(GrammarError, match="cannot be opened"):
        load_grammar(str(tmp_path) + "/")
    huge = tmp_path / "huge.toml"
    huge.write_text("# " + "x" * 10_000_000)
    with pytest.raises(GrammarError, match="larger than"):
        load_grammar(str(huge))
    binary = tmp_path / "binary.toml"
    binary.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(GrammarError, match="UTF-8"):
        load_grammar(str(binary))


def test_a_grammar_says_its_ranges() -> None:
    grammar = parse_grammar(GOOD + "[hypers]\nbeta = { low = 0.5, high = 1.0 }\n")
    assert isinstance(grammar, Grammar)
    assert grammar.hyper_ranges["beta"].low == 0.5 and set(grammar.hyper_ranges) == {"beta"}
