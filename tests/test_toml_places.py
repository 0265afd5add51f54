"""Positions in TOML: checked against texts written out by hand, and against a writer's own output."""

from __future__ import annotations

import tomllib
from typing import Any

import pytest
import tomlkit
from hypothesis import given
from hypothesis import strategies as st

from ruleforge.toml_places import KeyPath, find_places

TEXT = '''\
grammar = "a" # x = 1
[search]
rules = ["sgd", # "adam",
  "ad\\"am]",
]
lrs = { low = 1e-4, 'high up' = [1, 2], points = 9 }
a.b = """x
y = "1" """""
[[t.r]]
x = 1
[[t.r]]
x = '''
TEXT += "'''q''' \n[t.r.sub]\nq = ']'\n"


@pytest.mark.parametrize(
    ("path", "place"),
    [
        (("grammar",), (1, 1)),
        (("search",), (2, 1)),
        (("search", "rules", 0), (3, 10)),
        (("search", "rules", 1), (4, 3)),
        (("search", "lrs", "low"), (6, 9)),
        (("search", "lrs", "high up"), (6, 21)),
        (("search", "lrs", "high up", 1), (6, 37)),
        (("search", "a", "b"), (7, 1)),
        (("t", "r", 0), (9, 1)),
        (("t", "r", 1), (11, 1)),
        (("t", "r", 1, "x"), (12, 1)),
        (("t", "r", 1, "sub", "q"), (14, 1)),
    ],
)
def test_places_are_those_of_the_text(path: KeyPath, place: tuple[int, int]) -> None:
    assert find_places(TEXT)[path] == place


def paths_of(value: Any, path: KeyPath = ()) -> set[KeyPath]:
    if isinstance(value, dict):
        inner = value.items()
    elif isinstance(value, list):
        inner = enumerate(value)
    else:
        return {path}
    return {path, *(found for key, each in inner for found in paths_of(each, (*path, key)))}


scalars = st.one_of(
    st.integers(-9, 9), st.booleans(), st.text(st.sampled_from("ab\"'#[]{}=,.\\\n é"), max_size=6)
)
values = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(st.text(st.sampled_from("ab.\" '#="), min_size=1, max_size=4), inner, max_size=3),
    ),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from(["a", "b c", "d.e", "#"]), values, max_size=4))
def test_every_value_that_is_read_has_a_place(data: dict[str, Any]) -> None:
    text = tomlkit.dumps(data)
    assert tomllib.loads(text) == data
    places = find_places(text)
    assert paths_of(data) - {()} <= places.keys()
    lines = text.split("\n")
    assert all(
        1 <= line <= len(lines) and 1 <= column <= len(lines[line - 1]) for line, column in places.values()
    )
