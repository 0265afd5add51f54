"""Records to columns and back: exact for what resume needs, null for numbers that are not finite.

Knows how values are spelled in JSON and SQLite. Does not know SQL, files or locks. Floats are spelled
by `repr`, the shortest text that reads back as the same bits.
"""

from __future__ import annotations

import json
import math
import numbers
import operator
from collections.abc import Mapping, Sequence
from dataclasses import Field, fields
from typing import Any

from ruleforge.errors import StoreError
from ruleforge.records import (
    CandidateRow,
    EvaluationRow,
    FitnessRow,
    GenerationRow,
    Json,
    ParentRow,
    TimingRow,
)

Row = CandidateRow | EvaluationRow | FitnessRow | GenerationRow | ParentRow | TimingRow

TABLE_OF: dict[type[Any], str] = {
    CandidateRow: "candidates",
    ParentRow: "parents",
    EvaluationRow: "evaluations",
    FitnessRow: "fitness",
    GenerationRow: "generations",
    TimingRow: "timings",
}

# How each column is written. `measured` turns a number that is not finite into null; `exact` refuses it.
_INT = frozenset(
    "id nodes states generation same_as child parent position candidate rung steps n_lanes n_diverged "
    "diverged_at n".split()
)
_REAL = frozenset({"best_lr", "final_loss", "metric", "value", "wall_s"})
_MEASURED_JSON = frozenset({"speedup", "losses", "curve", "funnel", "best"})
_EXACT_JSON = frozenset({"population", "rng", "strategy"})


def to_json(value: Json, *, what: str, exact: bool) -> str:
    """The value as compact JSON with sorted keys.

    Args:
        value: None, bool, int, float, str, sequences, str-keyed mappings; numpy scalars count as numbers.
        what: name of the value, for messages.
        exact: refuse numbers that are not finite instead of writing null.

    Raises:
        StoreError: something that JSON cannot spell, with its path inside the value.
    """
    plain = _plain(value, what, exact)
    return json.dumps(plain, allow_nan=False, ensure_ascii=False, sort_keys=True, separators=(",", ":"))


def _plain(value: Json, path: str, exact: bool) -> Json:
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, numbers.Integral):
        return operator.index(value)
    if isinstance(value, numbers.Real):
        number = float(value)
        if math.isfinite(number):
            return number
        if not exact:
            return None
        raise StoreError(
            f"cannot store {path}: {number!r} has no spelling in JSON",
            hint="store null and say what it means, or keep the number finite",
        )
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str):
                raise StoreError(f"cannot store {path}: key {key!r} is not text", hint="use str keys")
        return {str(key): _plain(item, f"{path}.{key}", exact) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, bytes | bytearray):
        return [_plain(item, f"{path}[{i}]", exact) for i, item in enumerate(value)]
    raise StoreError(
        f"cannot store {path}: {type(value).__name__} is not plain text, number, list or dict",
        hint="convert it first, for example with .tolist()",
    )


def to_columns(row: Row) -> tuple[Any, ...]:
    """The record as SQLite values, in the order of its fields, which are the table's column names.

    Raises:
        StoreError: a field of the wrong type, by name.
    """
    return tuple(_column(type(row).__name__, each.name, getattr(row, each.name)) for each in fields(row))


def _column(record: str, name: str, value: Any) -> Any:
    what = f"{record}.{name}"
    if name in _MEASURED_JSON or name in _EXACT_JSON:
        return to_json(value, what=what, exact=name in _EXACT_JSON)
    if value is None:
        return None
    if name in _INT and isinstance(value, numbers.Integral):
        return operator.index(value)
    if name in _REAL and isinstance(value, numbers.Real):
        number = float(value)
        return number if math.isfinite(number) else None
    if name not in _INT and name not in _REAL and isinstance(value, str):
        return str(value)
    wanted = "an integer" if name in _INT else "a number" if name in _REAL else "text"
    raise StoreError(f"cannot store {what}: {value!r} is not {wanted}")


def from_columns(record: type[Any], values: Sequence[Any]) -> Any:
    """The record whose fields are these SQLite values: the inverse of `to_columns` for finite values.

    Raises:
        ValueError, TypeError, RecursionError: what no `to_columns` wrote. A damaged file may hold any type
            anywhere, whatever its tables declare.
    """
    made = {}
    for each, value in zip(fields(record), values, strict=True):
        if each.name in _MEASURED_JSON or each.name in _EXACT_JSON:
            value = json.loads(value)
        else:
            _expect(each, value)
        if each.name in ("losses", "population"):
            value = tuple(value)
        elif each.name == "curve":
            value = tuple((step, loss) for step, loss in value)
        made[each.name] = value
    return record(**made)


def _expect(field: Field[Any], value: Any) -> None:
    if value is None and "None" in str(field.type):
        return
    wanted = int if field.name in _INT else (int, float) if field.name in _REAL else str
    if not isinstance(value, wanted):
        raise ValueError(f"{field.name} is {str(value)[:40]!r} of type {type(value).__name__}")
