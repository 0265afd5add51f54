"""docs/language.md says what the code does: generated parts are current, examples are read, claims hold."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from ruleforge.app import docs
from ruleforge.core.known import KNOWN
from ruleforge.core.ops import OPS, TERMINALS
from ruleforge.core.text import parse
from ruleforge.errors import InputError, RuleTextError

PAGE = Path("docs/language.md")


@pytest.fixture(scope="module")
def page(project_root: Path) -> str:
    return (project_root / PAGE).read_text(encoding="utf-8")


def test_generated_parts_are_current(page: str) -> None:
    assert docs.regenerated(page) == page, "run `make docs`"


def test_every_op_and_terminal_is_on_the_page_once(page: str) -> None:
    for op in OPS.values():
        assert len(re.findall(rf"^\| .*`{re.escape(op.signature)}` \|", page, re.M)) == 1, op.name
    for name in TERMINALS:
        assert page.count(f"| `{name}` |") == 1


def test_every_example_is_a_rule(page: str) -> None:
    examples = re.findall(r"```python\n(.*?)```", page, re.S)
    assert len(examples) >= 9
    for example in examples:
        text = parse(example, file=str(PAGE))
        assert text.warnings == () and parse(str(text)) == text


def test_examples_that_are_known_rules_are_those_rules(page: str) -> None:
    keys = {parse(example).rule.key for example in re.findall(r"```python\n(.*?)```", page, re.S)}
    for name in ("lion", "sgd", "adam", "adadelta", "momentum"):
        assert KNOWN[name].rule.rule.key in keys, name


def test_the_error_on_the_page_is_the_error_one_gets(page: str) -> None:
    shown = re.search(r"```\n(my\.rule.*?)\n```", page, re.S)
    assert shown is not None
    with pytest.raises(RuleTextError) as caught:
        parse("m = g\nv = emaa(g * g, 0.999)\nupdate = v", file="my.rule")
    assert str(caught.value).startswith(shown[1])


def test_claims_about_identity_and_size(page: str) -> None:
    def key(text: str) -> str:
        return parse(f"update = {text}").rule.key

    assert key("g - -w") == key("g + w") and key("1 * g") == key("g") and key("g ** 2") == key("g * g")
    assert (
        key("g / g") != key("1") and key("g + 0") != key("g") and "has five" in page and "Lion seven" in page
    )
    assert parse("eps: hyper(0, 1) = 0.5\nupdate = g / (norm(g) + eps)").rule.nodes == 5
    assert KNOWN["lion"].rule.rule.nodes == 7


def test_a_page_without_its_markers_is_refused(page: str) -> None:
    with pytest.raises(InputError, match="generated: ops"):
        docs.regenerated(page.replace("<!-- generated: ops -->", ""))


def test_the_command(
    page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = tmp_path / "language.md"
    monkeypatch.setattr(docs, "PAGE", copy)
    assert docs.main([]) == 2 and "language.md" in capsys.readouterr().err
    copy.write_text(page.replace("| `t` |", "| `tt` |"))
    assert docs.main(["--check"]) == 1 and "make docs" in capsys.readouterr().err
    assert docs.main([]) == 0 and docs.main(["--check"]) == 0
    assert copy.read_text(encoding="utf-8") == page


def test_cells_with_bars_do_not_break_tables() -> None:
    assert docs.table(("a", "b"), [("|x|", "y")]) == "| a | b |\n|---|---|\n| \\|x\\| | y |"
