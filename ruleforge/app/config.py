"""Reading and writing search configs.

Knows TOML files, overrides from the command line, and how a fault is told: with file, line, column and
remedy, all faults of a config in one message. What the keys mean is the business of `schema`.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, TypeAlias

from pydantic import ValidationError

from ruleforge.app.faults import MOST_FAULTS, as_error, caret, describe
from ruleforge.app.schema import Config
from ruleforge.errors import ConfigError
from ruleforge.tasks import SUITES, Workload, load_workload
from ruleforge.toml import TomlFault, read_toml
from ruleforge.toml_places import KeyPath, Place, find_places
from ruleforge.words import did_you_mean

__all__ = [
    "Config",
    "config_names",
    "find_config",
    "json_schema",
    "load_config",
    "load_validation_workloads",
    "load_workloads",
    "parse_config",
    "resolved_toml",
]

Overrides: TypeAlias = Sequence[str] | Mapping[str, Any]

MAX_BYTES: Final = 256 * 1024
CONFIG_FOLDER: Final = "search_configs"
_EXCLUSIVE: Final[tuple[tuple[KeyPath, KeyPath], ...]] = (
    (("training", "suite"), ("training", "workloads")),
    (("objectives",), ("weights",)),
)
_PROJECT: Final = Path(__file__).resolve().parents[2]
_SCHEMA_LINE: Final = "#:schema ../docs/search_config.schema.json\n"


# Reading


def load_config(path: str | Path, overrides: Overrides = ()) -> Config:
    """Read a search config.

    Args:
        path: a TOML file, or the name of one in search_configs/.
        overrides: assignments such as "search.population=50", read as TOML values where they are
            such, as text otherwise; or a dict from dotted keys to values.

    Raises:
        ConfigError: all faults in one message, with file, line and column where they have one.
    """
    file = find_config(path)
    try:
        with file.open("rb") as stream:
            raw = stream.read(MAX_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"cannot be opened: {error.strerror}", file=str(path)) from None
    if len(raw) > MAX_BYTES:
        raise ConfigError(
            f"more than {MAX_BYTES // 1024} KiB", file=str(path), hint="a config is a page of text"
        )
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise ConfigError("is not UTF-8 text", file=str(path), line=line) from None
    return parse_config(text, overrides, file=str(path), folder=file.parent)


def find_config(path: str | Path) -> Path:
    """The file that a path, or a name in search_configs/, stands for.

    Raises:
        ConfigError: there is none; the hint names the nearest.
    """
    given = Path(os.path.expanduser(path))
    if given.is_dir():
        raise ConfigError(
            "is a folder, not a config", file=str(path), hint="to go on with a run: ruleforge resume RUN"
        )
    if given.exists():
        return given
    if len(given.parts) == 1:
        for folder in _folders():
            named = folder / f"{given.name.removesuffix('.toml')}.toml"
            if named.is_file():
                return named
    names = config_names()
    listed = f"configs in {CONFIG_FOLDER}/: {', '.join(names)}" if names else ""
    raise ConfigError("there is no such config", file=str(path), hint=did_you_mean(given.stem, names, listed))


def config_names() -> list[str]:
    """Names of the configs in search_configs/, here and in the project."""
    return sorted({each.stem for folder in _folders() if folder.is_dir() for each in folder.glob("*.toml")})


def _folders() -> tuple[Path, Path]:
    return Path(CONFIG_FOLDER), _PROJECT / CONFIG_FOLDER


def parse_config(
    source: str | Mapping[str, Any],
    overrides: Overrides = (),
    *,
    file: str = "config",
    folder: str | Path = "",
) -> Config:
    """The config that TOML text or a nested dict describes.

    Args:
        source: TOML text, or what reading it would give.
        overrides: as in `load_config`.
        file: named in errors.
        folder: from which paths count, unless the config says otherwise itself.

    Raises:
        ConfigError: all faults in one message.
    """
    places: dict[KeyPath, Place] = {}
    lines: list[str] = []
    if isinstance(source, str):
        data = _read_toml(source, file)
        places, lines = find_places(source), source.splitlines()
    else:
        data = copy.deepcopy(dict(source))
    if isinstance(overrides, Mapping):
        changed = [_assign(data, name, value, f"{name} = {value!r}") for name, value in overrides.items()]
    else:
        changed = [_apply(data, each) for each in overrides]
    _displace(data, [path for path, _ in changed])
    if isinstance(data.get("folder", ""), str):
        data["folder"] = str((Path(folder) / data.get("folder", "")).absolute())
    try:
        return Config.model_validate(data, context={"folder": data["folder"]})
    except ValidationError as error:
        deterministic = data.get("deterministic", True) is not False
        found = error.errors(include_url=False)
        faults = [describe(each, data, deterministic) for each in found[:MOST_FAULTS]]
    raise as_error(faults, file, places, lines, dict(changed), more=len(found) - len(faults))


def _read_toml(text: str, file: str) -> dict[str, Any]:
    try:
        return read_toml(text)
    except TomlFault as fault:
        raise ConfigError(
            f"no valid TOML: {fault.message}",
            file=file,
            line=fault.line,
            column=fault.column,
            context=caret(text.splitlines(), fault.line, fault.column),
            hint='write key = value, text in "quotes", tables as [name]',
        ) from None


def _apply(data: dict[str, Any], override: str) -> tuple[KeyPath, str]:
    """Set one key from the command line; the path that was set, and the override."""
    name, equals, text = override.partition("=")
    if not equals or not name.strip():
        raise ConfigError(
            f"--set {override!r} is no assignment", hint="write key=value, such as search.population=50"
        )
    try:
        value = read_toml(f"value = {text.strip()}")["value"]
    except ValueError:
        value = text.strip()
    return _assign(data, name, value, f"--set {override}")


def _displace(data: dict[str, Any], changed: Sequence[KeyPath]) -> None:
    """Of two keys that exclude each other, drop the file's where an override names the other."""
    for ours, theirs in (*_EXCLUSIVE, *(pair[::-1] for pair in _EXCLUSIVE)):
        is_named = [any(path[: len(key)] == key for path in changed) for key in (ours, theirs)]
        table: Any = data.get(str(theirs[0])) if len(theirs) == 2 else data
        if is_named == [True, False] and isinstance(table, dict):
            table.pop(theirs[-1], None)


def _assign(data: dict[str, Any], name: str, value: Any, told_as: str) -> tuple[KeyPath, str]:
    """Set one key by its dotted name; the path that was set, and how faults in it are named."""
    path = tuple(part.strip() for part in name.split("."))
    if not all(path):
        raise ConfigError(f"{told_as}: {name!r} is no key", hint="write a dotted key: search.population")
    table = data
    for part in path[:-1]:
        table = table.setdefault(part, {})
        if not isinstance(table, dict):
            raise ConfigError(
                f"{told_as}: {part!r} holds a value, not a table of keys",
                hint="a list is replaced as a whole, such as search.seed_rules=[]",
            )
    table[path[-1]] = value
    return path, told_as


# Using and writing


def load_workloads(config: Config) -> tuple[Workload, ...]:
    """The workloads that a search trains on, at the config's batch size and budget.

    Raises:
        TaskError: a user's task that cannot be used; its file is run to find out.
    """
    return _load(config, config.training.workload_names)


def load_validation_workloads(config: Config) -> tuple[Workload, ...]:
    """The workloads of the validation suite, at the config's batch size and budget."""
    return _load(config, SUITES[config.training.validation_suite])


def _load(config: Config, names: Iterable[str]) -> tuple[Workload, ...]:
    training = config.training
    return tuple(
        load_workload(name, config.folder, batch_size=training.batch_size, steps=training.steps)
        for name in names
    )


def resolved_toml(config: Config) -> str:
    """The complete config as TOML, defaults spelled out; reads back as an equal `Config`."""
    import tomlkit

    def spelled(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: spelled(each) for key, each in value.items()}
        if isinstance(value, list):
            return [spelled(each) for each in value]
        if isinstance(value, str) and "\n" in value:
            return tomlkit.string(value)
        return value

    return _SCHEMA_LINE + tomlkit.dumps(
        spelled(config.model_dump(mode="json", by_alias=True, exclude_none=True))
    )


def json_schema() -> dict[str, Any]:
    """The JSON Schema of a search config, as published in docs/search_config.schema.json."""
    schema = Config.model_json_schema(by_alias=True, mode="validation")
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "ruleforge search config",
        **_tidied({key: value for key, value in schema.items() if key != "title"}),
    }


def _tidied(part: Any) -> Any:
    """The schema without what TOML cannot say (null) and what repeats a key's name."""
    if isinstance(part, list):
        return [_tidied(each) for each in part]
    if not isinstance(part, dict):
        return part
    out = {
        key: _tidied(value)
        for key, value in part.items()
        if not (key == "title" and isinstance(value, str))
        and not (key == "default" and (value is None or isinstance(value, dict)))
    }
    if isinstance(out.get("description"), str):
        out["description"] = " ".join(out["description"].split())
    options = out.get("anyOf")
    if options and {"type": "null"} in options:
        rest = [each for each in options if each != {"type": "null"}]
        del out["anyOf"]
        out = {**(rest[0] if len(rest) == 1 else {"anyOf": rest}), **out}
    return out
