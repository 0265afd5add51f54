"""The shipped baselines are those of today's code."""

from __future__ import annotations

import json

from ruleforge.app.shipping import shipped_tunings
from ruleforge.evaluate.baselines import SHIPPED, tuning_key


def test_shipped_baselines_are_current() -> None:
    """Text that ships with Python changes with its patch version, and so may the tasks made of it."""
    shipped = json.loads(SHIPPED.read_text(encoding="utf-8"))
    missing = {
        f"{name} on {workload.name}"
        for rules, places, protocol, plan in shipped_tunings()
        for workload in places
        if not workload.name.startswith("char")
        for name, text in rules.items()
        if tuning_key(workload, text.rule, protocol, plan) not in shipped
    }
    assert not missing, f"{len(missing)} tunings are stale; run `make baselines`"
