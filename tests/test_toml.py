"""TOML within bounds: what tomllib reads, and one fault with its place for what would take it minutes."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ruleforge.toml import MAX_KEY_PARTS, TomlFault, read_toml

ROOT = Path(__file__).resolve().parents[1]
MANY = 40_000


@pytest.mark.parametrize(
    ("text", "message", "place"),
    [
        ("x = 1\na" + ".a" * MANY + " = 1\n", "a key of more than 16 parts", (2, 1)),
        ("[a" + " . 'a'" * MANY + "]\n", "a key of more than 16 parts", (1, 2)),
        ('"a"' + '."a"' * MANY + " = 1\n", "a key of more than 16 parts", (1, 1)),
        ("x = " + "[" * MANY + "]" * MANY, "nested too deeply", (1, 5)),
        ("\nx = " + "{a=" * MANY + "1" + "}" * MANY, "nested too deeply", (2, 5)),
        ("x = 1\nseed = " + "9" * MANY, "limit", (2, 7 + MANY + 1)),
        ("a = 1\nb = 'x\udccd'", "no text", (2, 7)),
        ("a = 1\nb = = 2", "invalid value", (2, 5)),
        ("a = 'x", "expected", (1, 7)),
        ("x" * MANY, "expected", (1, MANY + 1)),
        ('"' * MANY, "expected", (1, 3)),
        ("'\"" * MANY, "expected", (1, 4)),
    ],
)
def test_what_cannot_be_read_is_told_with_its_place(text: str, message: str, place: tuple[int, int]) -> None:
    with pytest.raises(TomlFault, match=message) as caught:
        read_toml(text)
    assert (caught.value.line, caught.value.column) == place
    assert caught.value.message[0].islower() and "(at" not in caught.value.message


def test_a_key_of_many_parts_is_read_up_to_the_bound() -> None:
    found = read_toml("a." * (MAX_KEY_PARTS - 1) + "a = 1")
    assert str(found).count("{") == MAX_KEY_PARTS
    with pytest.raises(TomlFault, match="16 parts"):
        read_toml("a." * MAX_KEY_PARTS + "a = 1")


@pytest.mark.parametrize("path", sorted([*ROOT.glob("grammars/*.toml"), *ROOT.glob("search_configs/*.toml")]))
def test_our_own_files_are_read_as_by_tomllib(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert read_toml(text) == tomllib.loads(text)


@given(st.text(alphabet="ab.=[]{}\"' \n#1,", max_size=60))
def test_any_text_is_read_as_by_tomllib_or_refused(text: str) -> None:
    try:
        expected = tomllib.loads(text)
    except ValueError:
        with pytest.raises(TomlFault):
            read_toml(text)
        return
    try:
        assert read_toml(text) == expected
    except TomlFault as fault:
        assert "16 parts" in fault.message and text.count(".") >= MAX_KEY_PARTS
