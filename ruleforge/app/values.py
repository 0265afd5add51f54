"""Values that a search config may hold: times, rules, workloads; and how one is refused.

Knows how a single value is spelled, checked and written back. Which keys hold which value is the
business of `schema`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Final, NoReturn, Self, TypeAlias, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    ValidationInfo,
    WithJsonSchema,
    model_serializer,
    model_validator,
)
from pydantic_core import PydanticCustomError

from ruleforge.core.known import known
from ruleforge.core.text import RuleText, load, parse
from ruleforge.errors import InputError, RuleforgeError
from ruleforge.store import CHAMPION, DATABASE
from ruleforge.tasks import SEALED, WORKLOADS
from ruleforge.words import did_you_mean

HELD_OUT: Final = "held_out"
KEPT_APART: Final = (HELD_OUT, SEALED)  # suites that nothing may be chosen by


def kept_suite(workload: str) -> str:
    """The suite kept apart that a workload belongs to by its name, or ""."""
    if workload.startswith(f"{SEALED}_"):
        return SEALED
    suite = WORKLOADS[workload].suite if workload in WORKLOADS else ""
    return suite if suite in KEPT_APART else ""


_DURATION = re.compile(r"(?:\d+(?:\.\d+)?[smhd])+")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def fail(message: str, hint: str = "", at: str = "") -> NoReturn:
    """Refuse a value with words that the loader passes on as they are; `at` names the key within a table."""
    raise PydanticCustomError("ruleforge", "{message}", {"message": message, "hint": hint, "at": at})


def choices(given: str, names: Iterable[str], listed_by: str = "") -> str:
    """A hint: the nearest name, then all of them or the command that lists them."""
    names = list(names)
    rest = f"`ruleforge {listed_by}` lists them" if listed_by else f"choose among: {', '.join(names)}"
    return did_you_mean(given, names, rest)


def parse_duration(value: Any) -> Any:
    """Seconds of "90s", "10m", "2h" or "1h30m"."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        fail(f"expected a time such as '90s', '10m' or '2h', found {value!r}")
    if isinstance(value, int | float):
        word = "must be positive" if value <= 0 else "needs a unit"
        fail(f"a budget {word}, found {value!r}", "write a time such as '90s', '10m' or '2h'")
    plain = value.replace(" ", "")
    if plain.startswith("-"):
        fail(f"a budget must be positive, found {value!r}", "write a time such as '90s', '10m' or '2h'")
    if not _DURATION.fullmatch(plain):
        fail(f"{value!r} is no time", "write a number and a unit, such as '90s', '10m', '2h' or '1h30m'")
    seconds = sum(float(n) * _SECONDS[unit] for n, unit in re.findall(r"(\d+(?:\.\d+)?)([smhd])", plain))
    if seconds <= 0:
        fail(f"a budget must be positive, found {value!r}")
    return seconds


def format_duration(seconds: float) -> str:
    """The shortest text that `parse_duration` reads back as the same seconds."""
    for unit in ("h", "m"):
        if seconds % _SECONDS[unit] == 0:
            return f"{int(seconds // _SECONDS[unit])}{unit}"
    return f"{int(seconds)}s" if seconds == int(seconds) else f"{seconds!r}s"


Duration = Annotated[
    float,
    BeforeValidator(parse_duration),
    PlainSerializer(format_duration, return_type=str),
    WithJsonSchema(
        {"type": "string", "pattern": r"^(\d+(\.\d+)?\s*[smhd]\s*)+$", "examples": ["90s", "10m"]}
    ),
]


_T = TypeVar("_T")
_MOST_ENTRIES: Final = 1000


def _as_tuple(value: Any) -> Any:
    if isinstance(value, list) and len(value) > _MOST_ENTRIES:
        fail(f"{len(value)} entries, at most {_MOST_ENTRIES} are read")
    return tuple(value) if isinstance(value, list) else value


Listed: TypeAlias = Annotated[tuple[_T, ...], BeforeValidator(_as_tuple)]  # a TOML list, kept as a tuple


class Table(BaseModel):
    """What all tables share: no unknown keys, no conversion between types, no change afterwards."""

    model_config = ConfigDict(
        extra="forbid",
        strict=True,
        frozen=True,
        allow_inf_nan=False,
        use_attribute_docstrings=True,
        populate_by_name=True,
    )


class RuleRef(Table):
    """A rule by name, or one that brings its text along."""

    name: str = Field(min_length=1)
    """Name of a known rule, or any name for the text."""
    text: str = ""
    """Rule text; empty for a known rule."""

    @model_validator(mode="after")
    def _exists(self) -> Self:
        try:
            self.rule()
        except InputError as error:
            place = f", line {error.line}" if self.text and error.line else ""
            fail(f"rule {self.name!r}{place}: {error.message}", error.hint)
        return self

    def rule(self) -> RuleText:
        """The rule itself."""
        return parse(self.text, file=self.name) if self.text else known(self.name).rule

    @model_serializer
    def _plain(self) -> str | dict[str, str]:
        return {"name": self.name, "text": self.text} if self.text else self.name


def place_of(given: str, folder: Path) -> Path:
    """The absolute path that a config names, from its own folder or from a home."""
    try:
        return (folder / Path(given).expanduser()).absolute()
    except RuntimeError:
        fail(f"{given!r} names the home of nobody here", "write the path out")


def is_file(path: Path) -> bool:
    """Whether a file is there; a path that no file can have is none."""
    try:
        return path.is_file()
    except OSError:
        return False


def _read_rule_ref(value: Any, info: ValidationInfo) -> Any:
    """`"adam"`, `"path/to/my.rule"`, a run folder, or a table with name and text."""
    if not isinstance(value, str):
        return value
    path = place_of(value, folder_of(info))
    if value.endswith(".rule"):
        try:
            text = str(load(str(path)))
        except InputError as error:
            fail(f"rule file {value!r}: {error.message}", error.hint)
        return {"name": path.stem, "text": text}
    if is_file(path / DATABASE):
        champion = path / CHAMPION
        if not is_file(champion):
            fail(f"the run {value!r} has no champion yet", "resume it first, or name another rule")
        try:
            return {"name": path.name, "text": str(load(str(champion)))}
        except InputError as error:
            fail(f"champion of {value!r}: {error.message}", error.hint)
    try:
        return {"name": known(value).name}
    except InputError as error:
        fail(error.message, error.hint)


RuleEntry = Annotated[
    RuleRef,
    BeforeValidator(_read_rule_ref),
    WithJsonSchema(
        {
            "anyOf": [
                {
                    "type": "string",
                    "description": "a known rule, a .rule file, or a run folder (its champion)",
                },
                {
                    "type": "object",
                    "properties": {"name": {"type": "string"}, "text": {"type": "string"}},
                    "required": ["name"],
                    "additionalProperties": False,
                },
            ]
        }
    ),
]


class PriorRef(Table):
    """What the survivors of an earlier run were made of."""

    name: str = Field(min_length=1)
    """Where it was learned; any name."""
    weights: dict[str, Annotated[float, Field(ge=0.01, le=100)]]
    """Factor of the grammar's weight by op, terminal or constant type."""


def _read_prior(value: Any, info: ValidationInfo) -> Any:
    """A run folder, or a table with name and weights."""
    if not isinstance(value, str):
        return value
    from ruleforge.app.prior import learned_weights

    path = place_of(value, folder_of(info))
    if not is_file(path / DATABASE):
        fail(f"there is no run {value!r}", "name a run folder, such as results/default-0")
    try:
        return {"name": path.name, "weights": learned_weights(path)}
    except RuleforgeError as error:
        fail(f"nothing can be learned from the run {value!r}: {error.message}", error.hint)


PriorEntry = Annotated[
    PriorRef,
    BeforeValidator(_read_prior),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string", "description": "a run folder to learn from"},
                {
                    "type": "object",
                    "properties": {
                        "name": {"type": "string"},
                        "weights": {"type": "object", "additionalProperties": {"type": "number"}},
                    },
                    "required": ["name", "weights"],
                    "additionalProperties": False,
                },
            ]
        }
    ),
]


def folder_of(info: ValidationInfo) -> Path:
    """The folder against which the config's paths are resolved."""
    return Path((info.context or {}).get("folder") or "")


def _check_workload(name: str, info: ValidationInfo) -> str:
    """Refuse a workload that cannot be one; a user's file is looked for, not run."""
    folder = folder_of(info)
    if suite := kept_suite(name):
        words = suite.replace("_", " ")
        fail(f"workload {name!r} is {words}, so a search never uses it", "`ruleforge tasks` shows suites")
    if name in WORKLOADS:
        return name
    place, colon, factory = name.rpartition(":")
    if not colon:
        fail(
            f"there is no workload {name!r}",
            did_you_mean(
                name, WORKLOADS, "`ruleforge tasks` lists them; your own is path/to/file.py:factory"
            ),
        )
    if not place or not factory.isidentifier():
        fail(f"{name!r} names no task", "write a name from `ruleforge tasks`, or path/to/file.py:factory")
    is_path = place.endswith(".py") or "/" in place
    if not is_path and place.split(".")[0] == "ruleforge":
        fail(
            f"{name!r} is code of ruleforge itself, so nothing says which suite it belongs to",
            f"write its name alone: {factory!r}" if factory in WORKLOADS else "`ruleforge tasks` lists names",
        )
    if is_path and not is_file(place_of(place, folder)):
        fail(
            f"the task file {place!r} does not exist",
            f"it was looked for in {folder.absolute()}; `ruleforge new-task FILE` writes one to start from",
        )
    return name


WorkloadName = Annotated[str, AfterValidator(_check_workload)]
