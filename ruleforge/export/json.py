"""A rule as JSON, with all that a reader or another program needs to use it.

The shape is versioned: fields are added, never renamed or given another meaning.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from ruleforge.core.canon import live_states
from ruleforge.core.format import format_rule
from ruleforge.core.text import RuleText
from ruleforge.export.safety import check_names
from ruleforge.render.latex import equations
from ruleforge.render.unicode import formula

SCHEMA = "ruleforge.rule"
VERSION = 1


def export_json(text: RuleText, *, provenance: Mapping[str, object] | None = None) -> str:
    """A rule as a JSON document.

    Args:
        text: a rule with its names.
        provenance: where the rule was found; values that JSON has no word for become text.

    Returns:
        An object with `schema`, `version`, `text`, `key`, `full_key`, `doc`, `hypers`, `states`,
        `nodes`, `cost` (of one step and weight, float32), `formula` and `provenance`.
    """
    check_names(text)
    made = json.dumps(as_record(text, provenance), indent=2, ensure_ascii=False, default=str)
    if not made.isascii() and made != made.encode("utf-8", "replace").decode("utf-8"):
        made = json.dumps(as_record(text, provenance), indent=2, default=str)  # half a surrogate pair
    return made + "\n"


def as_record(text: RuleText, provenance: Mapping[str, object] | None = None) -> dict[str, Any]:
    """The same as plain Python values."""
    rule = text.rule
    live = live_states(rule)
    cost = rule.cost
    return {
        "schema": SCHEMA,
        "version": VERSION,
        "text": format_rule(text),
        "key": rule.key,
        "full_key": rule.full_key,
        "doc": text.doc,
        "hypers": [
            {"name": name, "low": h.low, "high": h.high, "default": h.default, "scale": h.scale}
            for name, h in zip(text.hypers, rule.hypers, strict=True)
        ],
        "states": [
            {
                "name": text.states[i] if i < len(text.states) else None,
                "kind": rule.state_kinds[i].label,
            }
            for i in sorted(live)
        ],
        "nodes": rule.nodes,
        "cost": {"flops": cost.flops, "bytes": cost.bytes, "slots": cost.slots},
        "formula": {"latex": equations(text), "unicode": formula(text)},
        "provenance": dict(provenance or {}),
    }
