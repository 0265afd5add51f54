"""Grammar files: finding, reading and checking them, with errors that name file, line and remedy.

A grammar that is returned from here can generate rules that read the gradient, and can use every op
that it lists by name. What the keys mean is declared in `grammar_model`.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from ruleforge.core.ops import OPS, TERMINALS
from ruleforge.errors import GrammarError
from ruleforge.search.forms import FORMS, STATEFUL, Tensor
from ruleforge.search.grammar_model import (
    ALL_SUGAR,
    GROUPS,
    Constants,
    Draw,
    Grammar,
    HyperRange,
    Hypers,
    Limits,
    grammar_schema,
)
from ruleforge.toml import TomlFault, read_toml
from ruleforge.toml_places import find_places
from ruleforge.words import did_you_mean

GRAMMAR_DIR = Path(__file__).resolve().parents[2] / "grammars"
MAX_BYTES = 64 * 1024

__all__ = [
    "GRAMMAR_DIR",
    "Grammar",
    "Limits",
    "grammar_names",
    "grammar_schema",
    "load_grammar",
    "parse_grammar",
]


def load_grammar(name_or_path: str) -> Grammar:
    """The grammar of that name in `grammars/`, or the one in a file.

    Raises:
        GrammarError: there is none, or it cannot be used; with file, line and remedy.
    """
    path = Path(name_or_path)
    if path.suffix != ".toml" and "/" not in name_or_path:
        path = GRAMMAR_DIR / f"{name_or_path}.toml"
        if name_or_path not in (names := grammar_names()):
            raise GrammarError(
                f"no grammar is called {name_or_path!r}",
                hint=did_you_mean(name_or_path, names, f"there are {', '.join(names)}; a path ends in .toml"),
            )
    try:
        with path.open("rb") as stream:
            raw = stream.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:  # ValueError: no path has a zero byte
        raise GrammarError(
            f"cannot be opened: {getattr(error, 'strerror', error)}",
            file=str(path),
            hint="give a name or a path to a .toml file",
        ) from None
    if len(raw) > MAX_BYTES:
        raise GrammarError(
            f"is larger than {MAX_BYTES // 1024} KiB", file=str(path), hint="a grammar is a page of TOML"
        )
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError:
        raise GrammarError("is not UTF-8 text", file=str(path), hint="save it as UTF-8") from None
    return parse_grammar(text, file=str(path), name=path.stem)


def grammar_names() -> list[str]:
    """Names of the grammars that ship with ruleforge."""
    return sorted(path.stem for path in GRAMMAR_DIR.glob("*.toml"))


def parse_grammar(text: str, *, file: str = "grammar", name: str = "") -> Grammar:
    """Read a grammar from TOML text.

    Raises:
        GrammarError: with file, line and remedy.
    """
    try:
        content = read_toml(text)
    except TomlFault as fault:
        raise GrammarError(
            f"TOML: {fault.message}",
            file=file,
            line=fault.line,
            column=fault.column,
            hint="strings stand in quotes, lists in brackets",
        ) from None
    content.setdefault("name", name)
    try:
        grammar = Grammar.model_validate(content)
    except ValidationError as error:
        raise _refused(error, text, file) from None
    _check_names(grammar, text, file)
    _check_generates(grammar, text, file)
    return grammar


def _line_of(text: str, path: tuple[Any, ...]) -> int | None:
    """Line of a key, or of the nearest around it that is written."""
    places = find_places(text)
    for n in range(len(path), 0, -1):
        if path[:n] in places:
            return places[path[:n]][0]
    return None


def _line_of_item(text: str, key: str, item: str) -> int | None:
    start = _line_of(text, (key,)) or 1
    for number, row in enumerate(text.splitlines()[start - 1 :], start):
        if re.search(rf"[\"']{re.escape(item)}[\"']", row.split("#")[0]):
            return number
    return start


def _refused(error: ValidationError, text: str, file: str) -> GrammarError:
    first = error.errors()[0]
    place = tuple(first["loc"])
    name = ".".join(str(part) for part in place if not isinstance(part, int))
    line = _line_of(text, place)
    if first["type"] == "extra_forbidden":
        fields = _fields_at(place[:-1])
        hint = did_you_mean(str(place[-1]), fields, f"keys here: {', '.join(fields)}")
        return GrammarError(f"unknown key {name!r}", file=file, line=line, hint=hint)
    if first["type"] == "missing":
        return GrammarError(f"key {name!r} is missing", file=file, line=line, hint=f"add `{place[-1]} = …`")
    message = first["msg"].removeprefix("Value error, ")
    given = "" if isinstance(first["input"], dict) else f", got {first['input']!r}"
    return GrammarError(
        f"{name}: {message}{given if first['type'] != 'value_error' else ''}",
        file=file, line=line, hint=_remedy(place),
    )  # fmt: skip


def _model_at(place: tuple[Any, ...]) -> type[BaseModel]:
    known: dict[str, type[BaseModel]] = {"constants": Constants, "limits": Limits, "hypers": Hypers}
    if not place:
        return Grammar
    outer = known.get(str(place[0]), Grammar)
    inner: dict[str, type[BaseModel]] = {"constants": Draw, "hypers": HyperRange}
    return outer if len(place) == 1 else inner.get(str(place[0]), outer)


def _fields_at(place: tuple[Any, ...]) -> list[str]:
    return list(_model_at(place).model_fields)


def _remedy(place: tuple[Any, ...]) -> str:
    field = _model_at(place[:-1]).model_fields.get(str(place[-1])) if place else None
    said = field.description if field is not None and field.description else ""
    return f"{place[-1]}: {said}" if said else "see docs/grammar.schema.json"


def _check_names(grammar: Grammar, text: str, file: str) -> None:
    def fail(key: str, item: str, message: str, hint: str) -> GrammarError:
        return GrammarError(message, file=file, line=_line_of_item(text, key, item), hint=hint)

    plain = [*GROUPS, *(name for name in OPS if name not in STATEFUL)]
    allowed_by_key = {
        "ops": plain,
        "number_ops": [*plain, *ALL_SUGAR],
        "sugar": ["all", *ALL_SUGAR],
        "terminals": [*TERMINALS],
    }
    for key, allowed in allowed_by_key.items():
        for item in getattr(grammar, key):
            if item in allowed:
                continue
            if key == "ops" and item in STATEFUL:
                raise fail(key, item, f"{item!r} keeps a state", "list it under `sugar`")
            if key == "sugar" and item in OPS:
                raise fail(key, item, f"{item!r} keeps no state", "list it under `ops`")
            word = "terminal" if key == "terminals" else "op"
            hint = did_you_mean(item, allowed, f"there are {', '.join(allowed)}")
            raise fail(key, item, f"unknown {word} {item!r}", hint)
    used = {*grammar.op_names, *grammar.sugar_names, *grammar.terminals, "beta", "eps", "scale"}
    for item in grammar.weights:
        if item not in used:
            raise GrammarError(
                f"weights: {item!r} is not in this grammar",
                file=file,
                line=_line_of(text, ("weights", item)),
                hint=did_you_mean(item, sorted(used)) or "list it under ops, sugar or terminals first",
            )


def _check_generates(grammar: Grammar, text: str, file: str) -> None:
    if "g" not in grammar.terminals:
        raise GrammarError(
            "can generate no rule: the gradient `g` is not among its terminals",
            file=file, line=_line_of(text, ("terminals",)), hint='write `terminals = ["g", …]`',
        )  # fmt: skip
    if grammar.weights.get("g", 1.0) == 0:
        raise GrammarError(
            "can generate no rule: `g` has weight 0", file=file, line=_line_of(text, ("weights", "g")),
            hint="give it a weight above 0",
        )  # fmt: skip
    if not any(issubclass(form.ret, Tensor) for form in grammar.forms):
        raise GrammarError(
            "can generate no rule but `update = g`: no op gives a tensor",
            file=file, line=_line_of(text, ("ops",)), hint='list some ops, such as "mul" and "sign"',
        )  # fmt: skip
    reachable = {form.op for form in grammar.forms}
    groups = {op for item in grammar.ops for op in GROUPS.get(item, ())}
    for key, names in (("ops", grammar.op_names), ("sugar", grammar.sugar_names)):
        for op in names:
            if op not in reachable and op not in groups and grammar.weights.get(op, 1.0) > 0:
                needs = sorted(
                    {t.__name__.lower() for f in FORMS.values() if f.op == op and not f.loose for t in f.args}
                )
                raise GrammarError(
                    f"{op!r} can never be used: nothing here gives what it takes ({', '.join(needs)})",
                    file=file,
                    line=_line_of_item(text, key, op),
                    hint="add the constants it needs under [constants], or a comparison for a mask",
                )
    if grammar.sugar and grammar.limits.states == 0:
        raise GrammarError(
            "sugar needs states, and limits.states is 0",
            file=file,
            line=_line_of(text, ("limits", "states")),
            hint="raise limits.states or empty `sugar`",
        )
