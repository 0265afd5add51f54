"""A run's final table as it lies in its database: read only if it has the shape that `run` gives it.

A run folder may come from a stranger, and its tables may hold anything that is JSON.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from ruleforge.errors import StoreError
from ruleforge.store import Store

_NUMBER: Final = (int, float, type(None))
_ANY_KEY: Final = "*"
_STANDING: Final = (*_NUMBER, {"speedup": _NUMBER, "ci": [_NUMBER], "median": _NUMBER, "worst": _NUMBER})
_PLACE: Final = {"vs_oracle": _NUMBER}
_RULE: Final[dict[str, Any]] = {
    "id!": int,
    "text": str,
    "known_as": (str, type(None)),
    "lr_vs_adam": _NUMBER,
    "speedup": {_ANY_KEY: {_ANY_KEY: _STANDING}},
    "workloads": {_ANY_KEY: _PLACE},
}
_FINAL: Final[dict[str, Any]] = {"champion": (type(None), _RULE), "front": [_RULE], "baselines": [{}]}


def final_record(store: Store) -> dict[str, Any]:
    """The final table of a run, or {} before its end.

    Raises:
        StoreError: it is not what ruleforge writes.
    """
    record = store.results().get("final")
    if record is None:
        return {}
    if where := _misfit(record, _FINAL, "final"):
        raise StoreError(
            f"a result in run.db is not what ruleforge writes: {where}",
            file=str(store.path),
            hint="the file was changed by something else: restore it from a copy",
        )
    return dict(record)


def _misfit(value: Any, shape: Any, at: str) -> str:
    """Where a value departs from a shape, in words, or "".

    A shape is a type, a tuple of shapes of which one fits, a list with the shape of all items, or a dict with
    those of the keys that are known; a key that ends in "!" must be there.
    """
    match shape:
        case tuple():
            return "" if any(not _misfit(value, each, at) for each in shape) else _told(value, at)
        case list():
            if not isinstance(value, list):
                return _told(value, at)
            return next((w for k, v in enumerate(value) if (w := _misfit(v, shape[0], f"{at}[{k}]"))), "")
        case dict():
            if not isinstance(value, Mapping):
                return _told(value, at)
            for name, inner in shape.items():
                key = name.removesuffix("!")
                if name != key and key not in value:
                    return f"{at}.{key} is missing"
                for found in value if key == _ANY_KEY else [key] if key in value else []:
                    if where := _misfit(value[found], inner, f"{at}.{found}"):
                        return where
            return ""
    return "" if isinstance(value, shape) and not isinstance(value, bool) else _told(value, at)


def _told(value: Any, at: str) -> str:
    return f"{at[:100]} is {repr(value)[:60]}"
