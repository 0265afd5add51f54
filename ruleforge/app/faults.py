"""The faults of a config in words: what was found where, what would be accepted, all in one message.

Knows pydantic's error records and the schema's keys. Does not know files, nor how TOML is read.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from types import UnionType
from typing import Any, Final, NamedTuple, Union, get_args, get_origin

from pydantic import BaseModel

from ruleforge.app.objectives import OBJECTIVES
from ruleforge.app.schema import Config, refuse_objective
from ruleforge.app.values import Table, choices
from ruleforge.errors import ConfigError
from ruleforge.toml_places import KeyPath, Place
from ruleforge.words import did_you_mean, shortened


class Fault(NamedTuple):
    path: KeyPath
    message: str
    hint: str


MOST_FAULTS: Final = 20  # told of one config; a file with more is no config
WIDEST: Final = 200  # characters of a line that are shown

_TYPES: Final = {
    "int": "a whole number",
    "float": "a number",
    "string": "text in quotes",
    "bool": "true or false",
    "tuple": "a list",
    "list": "a list",
    "dict": "a table",
    "model": "a table",
}


def describe(error: Any, data: Any, deterministic: bool) -> Fault:
    """One of pydantic's faults in the words of this project."""
    path: KeyPath = tuple(error["loc"])
    name = _spelled(path)
    kind: str = error["type"]
    given = error.get("input")
    limits = error.get("ctx", {})
    if kind == "ruleforge":
        if limits["at"]:
            path = (*path, *limits["at"].split("."))
        return Fault(path, f"{name}: {limits['message']}" if name else limits["message"], limits["hint"])
    if kind == "extra_forbidden":
        return Fault(path, *_unknown_key(path, deterministic))
    if kind == "missing":
        return Fault(path[:-1], f"{name} is missing", f"add {path[-1]} = …")
    if kind == "literal_error":
        expected = re.findall(r"'([^']*)'", str(limits.get("expected", "")))
        if path[0] == "objectives" and given in ("max", "min"):
            return Fault(path, f"{name} is {given!r}, which no search wants", f"write {expected[0]!r}")
        return Fault(path, f"{name}: {given!r} is not among its values", choices(str(given), expected))
    bounds = {
        "greater_than": ("more than", "gt"),
        "greater_than_equal": ("at least", "ge"),
        "less_than": ("less than", "lt"),
        "less_than_equal": ("at most", "le"),
    }
    if kind in bounds:
        word, key = bounds[kind]
        return Fault(path, f"{name}: expected {word} {limits[key]}, found {given!r}", "")
    if kind in ("too_short", "string_too_short"):
        return Fault(path, f"{name}: expected at least one entry, found none", "")
    expected_type = _TYPES.get(kind.split("_")[0], "")
    if kind.endswith(("_type", "_parsing", "_from_float")) and expected_type:
        return Fault(path, f"{name}: expected {expected_type}, found {_shown(given)}", "")
    return Fault(path, f"{name}: {str(error['msg']).lower()}, found {_shown(given)}", "")


def _spelled(path: KeyPath) -> str:
    """A path as a reader writes it: `training.rungs[0].steps`."""
    out = ""
    for part in path:
        out += f"[{part}]" if isinstance(part, int) else f".{part}" if out else part
    return out


def _shown(value: Any) -> str:
    kinds = {str: "text", bool: "a truth value", int: "a whole number", float: "a number"}
    kinds |= {list: "a list", dict: "a table"}
    text = repr(value)
    if isinstance(value, bool):
        text = text.lower()
    return f"{shortened(text)} ({kinds.get(type(value), type(value).__name__)})"


def _unknown_key(path: KeyPath, deterministic: bool) -> tuple[str, str]:
    """Message and hint for a key that the schema lacks."""
    key = str(path[-1])
    if path[0] in ("objectives", "weights") and len(path) == 2:
        return refuse_objective(key, deterministic=deterministic)
    own = list(_keys_at(path[:-1]))
    elsewhere = [
        f"[{section}]" for section in _keys_at(()) if (section,) != path[:-1] and key in _keys_at((section,))
    ]
    where = f"[{_spelled(path[:-1])}]" if path[:-1] else "the top level"
    message = f"unknown key {key!r} in {where}" if path[:-1] else f"unknown key {key!r}"
    if guess := did_you_mean(key, own):
        return message, guess
    if elsewhere:
        return message, f"it belongs in {' or '.join(elsewhere)}"
    if not path[:-1] and key in OBJECTIVES:
        return message, "it belongs in [objectives]"
    return message, f"keys of {where}: {', '.join(own)}"


def _keys_at(path: KeyPath) -> dict[str, Any]:
    """The keys of a table of the schema and their types; none for what is no table."""
    model: Any = Config
    for part in path:
        if isinstance(part, int):
            continue
        model = _table_in(_keys_at_model(model).get(part))
        if model is None:
            return {}
    return _keys_at_model(model)


def _keys_at_model(model: type[BaseModel]) -> dict[str, Any]:
    return {field.alias or name: field.annotation for name, field in model.model_fields.items()}


def _table_in(annotation: Any) -> Any:
    """The table model within an annotation such as `tuple[Rung, ...] | None`, or None."""
    if isinstance(annotation, type) and issubclass(annotation, Table):
        return annotation
    if get_origin(annotation) in (Union, UnionType, tuple):
        return next((found for each in get_args(annotation) if (found := _table_in(each))), None)
    return None


def as_error(
    faults: Iterable[Fault],
    file: str,
    places: Mapping[KeyPath, Place],
    lines: Sequence[str],
    changed: Mapping[KeyPath, str],
    more: int = 0,
) -> ConfigError:
    """One error for all faults, in the order of the file; `more` were found beside them."""
    told: list[tuple[Place | None, str, Fault]] = []
    for fault in faults:
        override = next((text for path, text in changed.items() if fault.path[: len(path)] == path), None)
        if override is not None:
            told.append((None, override, fault))
            continue
        path = fault.path
        while path and path not in places:
            path = path[:-1]
        told.append((places.get(path), "", fault))
    told.sort(key=lambda each: each[0] or (0, 0))
    if len(told) == 1:
        place, origin, fault = told[0]
        line, column = place or (None, None)
        message = f"{origin}: {fault.message}" if origin else fault.message
        return ConfigError(
            message, file=file, line=line, column=column, hint=fault.hint, context=caret(lines, line, column)
        )
    items = []
    for place, origin, fault in told:
        where = origin or (f"line {place[0]}, column {place[1]}" if place else "")
        head = f"{where}: {fault.message}" if where else fault.message
        items.append(f"  {head}" + (f" ({fault.hint})" if fault.hint else ""))
    line, column = next((place for place, _, _ in told if place), None) or (None, None)
    if more:
        items.append(f"  and {more} more")
    error = ConfigError("\n".join([f"{len(told) + more} faults", *items]), file=file)
    error.line, error.column = line, column
    return error


def caret(lines: Sequence[str], line: int | None, column: int | None) -> str:
    if line is None or column is None or not 0 < line <= len(lines):
        return ""
    whole = lines[line - 1]
    start = max(0, column - 1 - WIDEST // 2) if len(whole) > WIDEST else 0
    shown = whole[start : start + WIDEST]
    word = re.match(r"[\w.-]+|\"[^\"]*\"|.", shown[column - 1 - start :])
    return f"    {shown}\n    {' ' * (column - 1 - start)}{'^' * (len(word[0]) if word else 1)}"
