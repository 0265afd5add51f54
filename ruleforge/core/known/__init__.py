"""The known rules: published optimizers as rule text, each verified against an upstream class.

One `.rule` file for each formula, `index.toml` for what is known about it besides, `verified.json`
for how far it lies from upstream. That record is measured: `python -m tests.known.regenerate`
writes it, and an ordinary test measures again and holds it to that.

The module knows names, families, sources and defaults. It runs no rule, and does not decide which
of them a search uses. Nothing is read from disk before the first access.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from ruleforge.core.text import RuleText, load
from ruleforge.errors import InputError
from ruleforge.words import did_you_mean

_HERE = Path(__file__).parent


@dataclass(frozen=True)
class Comparison:
    """One measured comparison of a rule with an upstream optimizer.

    Attributes:
        upstream: dotted path of the upstream class or function.
        version: version of its package.
        max_diff: max |difference of weights| / max(1, max |w|), over all steps and streams.
        tolerance: the bound it is held to.
        variant: what is special about it, "" for the plain one.
    """

    upstream: str
    version: str
    max_diff: float
    tolerance: float
    variant: str = ""


@dataclass(frozen=True)
class KnownRule:
    """A published optimizer.

    Attributes:
        name: as users type it.
        title: as its authors write it.
        family: momentum, adaptive, sign, cautious, variance_reduced, layerwise or matrix.
        source: paper or other origin.
        lr: default learning rate.
        weight_decay: default decoupled decay.
        rule: its text, names and docstring.
        comparisons: measured comparisons, the leading one first.
        aliases: other names it answers to.
        same_as: a known rule with the same formula under other defaults, or "".
    """

    name: str
    title: str
    family: str
    source: str
    lr: float
    weight_decay: float
    rule: RuleText
    comparisons: tuple[Comparison, ...]
    aliases: tuple[str, ...] = ()
    same_as: str = ""

    @property
    def verified(self) -> Comparison | None:
        """The leading comparison, or None for a rule that was never compared."""
        return self.comparisons[0] if self.comparisons else None

    def optimizer(self, params: Any, lr: float | None = None, **options: Any) -> Any:
        """A `torch.optim.Optimizer` that runs this rule, by default at its own lr and weight_decay."""
        options.setdefault("weight_decay", self.weight_decay)
        return self.rule.optimizer(params, self.lr if lr is None else lr, **options)


@cache
def _index() -> dict[str, dict[str, Any]]:
    return tomllib.loads((_HERE / "index.toml").read_text(encoding="utf-8"))


@cache
def _aliases() -> dict[str, str]:
    """Every other name, and the rule that answers to it."""
    return {alias: name for name, entry in _index().items() for alias in entry.get("aliases", ())}


@cache
def _comparisons() -> dict[str, tuple[Comparison, ...]]:
    record = json.loads((_HERE / "verified.json").read_text(encoding="utf-8"))
    return {name: tuple(Comparison(**row) for row in rows) for name, rows in record.items()}


def _headline(text: RuleText) -> tuple[str, str]:
    """Title and source from the first line of a docstring, `Title. Source.`"""
    title, _, source = text.doc.split("\n", 1)[0].partition(". ")
    return title, source.removesuffix(".")


@cache
def _load(name: str) -> KnownRule:
    entry = _index()[name]
    text = load(str(_HERE / f"{entry.get('of', name)}.rule"))
    title, source = _headline(text)
    return KnownRule(
        name=name,
        title=entry.get("title", title),
        family=entry["family"],
        source=entry.get("source", source),
        lr=entry["lr"],
        weight_decay=entry.get("weight_decay", 0.0),
        rule=text,
        comparisons=_comparisons().get(name, ()),
        aliases=tuple(entry.get("aliases", ())),
        same_as=entry.get("of", entry.get("same_as", "")),
    )


class _Catalogue(Mapping[str, KnownRule]):
    """All known rules by name, in the order of the index; each is read when it is asked for."""

    def __getitem__(self, name: str) -> KnownRule:
        if name not in _index():
            raise KeyError(name)
        return _load(name)

    def __contains__(self, name: object) -> bool:
        return name in _index()

    def __iter__(self) -> Iterator[str]:
        return iter(_index())

    def __len__(self) -> int:
        return len(_index())


KNOWN: Mapping[str, KnownRule] = _Catalogue()


def known(name: str) -> KnownRule:
    """The known rule of that name or alias.

    Args:
        name: such as `lion` or `heavy_ball`; case and `-` for `_` do not matter.

    Raises:
        InputError: there is no such rule; the hint names the nearest.

    Example:
        >>> known("heavy-ball").name
        'momentum'
    """
    plain = name.strip().lower().replace("-", "_")
    plain = _aliases().get(plain, plain)
    if plain in KNOWN:
        return KNOWN[plain]
    hint = did_you_mean(plain, [*KNOWN, *_aliases()], most=3) or "`ruleforge rules` lists all of them"
    raise InputError(f"no known rule is called {name!r}", hint=hint)
