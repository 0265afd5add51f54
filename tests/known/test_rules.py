"""Every known rule: its file, its entry in the index, its identity."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

import ruleforge.core.known
from ruleforge.core.canon import count_nodes
from ruleforge.core.format import format_rule, name_rule
from ruleforge.core.known import KNOWN, KnownRule, known
from ruleforge.core.rule import MAX_NODES
from ruleforge.core.text import parse
from ruleforge.errors import InputError

FOLDER = Path(ruleforge.core.known.__file__).parent
INDEX = tomllib.loads((FOLDER / "index.toml").read_text(encoding="utf-8"))
FAMILIES = {
    "momentum",
    "adaptive",
    "sign",
    "cautious",
    "variance_reduced",
    "layerwise",
    "matrix",
    "by_hand",
    "found",
}


@pytest.fixture(params=KNOWN)
def entry(request: pytest.FixtureRequest) -> KnownRule:
    return KNOWN[request.param]


def test_every_file_has_an_entry_and_every_entry_a_file() -> None:
    files = {path.stem for path in FOLDER.glob("*.rule")}
    assert files == {entry.get("of", name) for name, entry in INDEX.items()}


def test_the_catalogue_is_as_large_as_the_docs_say() -> None:
    assert len(KNOWN) == len(set(KNOWN)) >= 80


def test_the_text_round_trips(entry: KnownRule) -> None:
    text = entry.rule
    again = parse(format_rule(text))
    assert again == text
    assert format_rule(again) == format_rule(text)


def test_the_rule_survives_losing_its_names(entry: KnownRule) -> None:
    rule = entry.rule.rule
    nameless = name_rule(rule)
    assert nameless.rule.key == rule.key
    assert nameless.rule.full_key == rule.full_key


def test_nothing_in_it_is_dead(entry: KnownRule) -> None:
    rule = entry.rule.rule
    assert entry.rule.warnings == ()
    assert len(rule.canonical.states) == len(rule.states)
    assert len(rule.canonical.hypers) == len(rule.hypers)
    assert 1 <= count_nodes(rule) <= MAX_NODES


def test_the_first_line_names_the_rule_and_its_source(entry: KnownRule) -> None:
    first = entry.rule.doc.split("\n", 1)[0]
    assert first.endswith(".") and len(first) <= 106
    assert entry.title
    assert entry.source == "Common practice" or any(ch.isdigit() for ch in entry.source)


def test_the_entry_is_sensible(entry: KnownRule) -> None:
    assert entry.family in FAMILIES
    assert 0 < entry.lr <= 1
    assert 0 <= entry.weight_decay < 1
    assert set(INDEX[entry.name]) <= {
        "family", "lr", "weight_decay", "aliases", "of", "same_as", "title", "source",
    }  # fmt: skip


def test_rules_differ_unless_they_are_declared_the_same() -> None:
    first: dict[str, str] = {}
    for name in KNOWN:
        key = KNOWN[name].rule.rule.key
        if key in first:
            assert KNOWN[name].same_as == first[key], f"{name} is {first[key]} and does not say so"
        else:
            assert KNOWN[name].same_as == "", f"{name} is not the same as {KNOWN[name].same_as}"
            first[key] = name


def test_aliases_are_unambiguous() -> None:
    aliases = [alias for entry in KNOWN.values() for alias in entry.aliases]
    assert len(aliases) == len(set(aliases))
    assert not set(aliases) & set(KNOWN)


@pytest.mark.parametrize(
    ("given", "found"),
    [("lion", "lion"), ("Heavy-Ball", "momentum"), (" AdamW ", "adamw"), ("c_lion", "cautious_lion")],
)
def test_names_are_found_as_people_type_them(given: str, found: str) -> None:
    assert known(given).name == found


def test_an_alias_entry_has_its_own_name_source_and_decay() -> None:
    adam, adamw = known("adam"), known("adamw")
    assert adamw.rule == adam.rule
    assert (adamw.title, adamw.weight_decay, adamw.same_as) == ("AdamW", 0.01, "adam")
    assert "1711.05101" in adamw.source and "1412.6980" in adam.source


def test_an_unknown_name_is_an_input_error_with_the_nearest_one() -> None:
    with pytest.raises(InputError, match="no known rule is called 'lyon'") as caught:
        known("lyon")
    assert "'lion'" in caught.value.hint
    assert caught.value.exit_code == 2
    with pytest.raises(InputError) as caught:
        known("zzzzzz")
    assert "ruleforge rules" in caught.value.hint


def test_the_catalogue_is_a_mapping() -> None:
    assert "lion" in KNOWN and "heavy_ball" not in KNOWN and 3 not in KNOWN
    with pytest.raises(KeyError):
        KNOWN["nope"]
    assert KNOWN["lion"] is KNOWN["lion"]
