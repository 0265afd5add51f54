"""docs/rules.md says what the rules say, and each has its picture."""

from __future__ import annotations

from xml.etree import ElementTree

from ruleforge.app import rules_page
from ruleforge.core.known import KNOWN, known


def test_the_page_is_current() -> None:
    assert rules_page.is_current(), "run `make docs`"


def test_each_rule_has_a_heading_and_a_picture() -> None:
    text = rules_page.PAGE.read_text(encoding="utf-8")
    for name in KNOWN:
        assert text.count(f"\n### {name}\n") == 1
        assert (rules_page.PICTURES / f"{name}.svg").is_file()


def test_a_picture_is_drawn_from_the_rule() -> None:
    drawn = rules_page.picture_of(known("lion"))
    assert len(ElementTree.fromstring(drawn).findall("{http://www.w3.org/2000/svg}g")) == 3
    assert drawn != rules_page.picture_of(known("adam"))
