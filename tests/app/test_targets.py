"""TARGET: a known rule, a file, a run, a candidate; anything else gets the nearest name."""

from __future__ import annotations

from pathlib import Path

import pytest

from ruleforge.app.targets import resolve_target
from ruleforge.core.known import known
from ruleforge.errors import InputError, RuleTextError, StoreError

from .conftest import CUBED, SIGN_EMA, make_run


def test_a_known_rule_by_name_and_alias() -> None:
    assert resolve_target("lion").text == known("lion").rule
    assert (resolve_target("heavy-ball").name, resolve_target("Lion").origin) == ("momentum", "known")


def test_a_rule_file(here: Path) -> None:
    (here / "mine.rule").write_text("update = g * 2\n")
    found = resolve_target("mine.rule")
    assert (found.name, found.origin, str(found.text)) == ("mine", "file", "update = g * 2\n")


def test_a_run_by_path_and_by_name(finished_run: Path) -> None:
    for text in (str(finished_run), "first", f"{finished_run}/"):
        found = resolve_target(text)
        assert (found.name, found.origin, found.id) == ("first", "champion", 0)
        assert str(found.text) == SIGN_EMA


def test_a_candidate_of_a_run(finished_run: Path) -> None:
    found = resolve_target(f"{finished_run}:2")
    assert (found.name, found.origin, found.id, str(found.text)) == ("first_2", "candidate", 2, CUBED)
    assert resolve_target("first:2").id == 2
    assert resolve_target("first:champion").origin == "champion"


def test_a_known_name_wins_over_a_folder(here: Path) -> None:
    make_run(here / "lion")
    assert resolve_target("lion").origin == "known"
    assert resolve_target("./lion").origin == "champion"


@pytest.mark.parametrize(
    ("text", "error", "words"),
    [
        ("lino", InputError, "did you mean 'lion'"),
        ("", InputError, "empty"),
        ("firts", InputError, "did you mean 'first'"),
        ("no.rule", RuleTextError, "cannot be opened"),
        ("first:99", StoreError, "no candidate 99"),
        ("first:x", InputError, "no candidate id"),
        ("results", StoreError, "not a run folder"),
        ("note.txt", InputError, "neither a .rule file nor a run folder"),
    ],
)
def test_what_is_no_target_gets_a_message(
    finished_run: Path, text: str, error: type[Exception], words: str
) -> None:
    Path("note.txt").write_text("update = g\n")
    with pytest.raises(error, match=words) as caught:
        resolve_target(text)
    assert caught.value.exit_code == 2  # type: ignore[attr-defined]


def test_a_run_without_a_champion_says_how_to_get_one(here: Path) -> None:
    make_run(here / "half", finished=False)
    with pytest.raises(StoreError, match="ruleforge resume half"):
        resolve_target("half")
