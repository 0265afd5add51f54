"""What an export of a known rule says of its learning rate comes from the tuning that is shipped."""

from __future__ import annotations

import re

import pytest

from ruleforge.app.learning_rates import lr_lines, with_shipped_lr
from ruleforge.core.known import known
from ruleforge.core.text import parse


def test_a_tuned_known_rule_says_how_its_lr_lies_to_adams() -> None:
    doc = with_shipped_lr(known("lion").rule).doc
    found = re.search(
        r"Start from ([\d.]+) times .*\nOn (\d+) workloads the best was ([\d.]+) to ([\d.]+) times", doc
    )
    assert found is not None, doc
    start, places, low, high = (float(group) for group in found.groups())
    assert places >= 15
    assert low < start < high
    assert start < 1  # its authors: three to ten times smaller than AdamW's
    assert doc.startswith(known("lion").rule.doc.strip())


@pytest.mark.parametrize("name", ["adam", "signum_with_other_betas"])
def test_adam_itself_and_what_was_not_tuned_say_nothing(name: str) -> None:
    text = known("adam").rule if name == "adam" else parse("update = sign(ema(g, 0.77))")
    assert with_shipped_lr(text) is text


def test_one_workload_has_no_range() -> None:
    assert lr_lines([]) == []
    assert lr_lines([0.1234]) == ["Start from 0.12 times the learning rate that Adam likes."]
