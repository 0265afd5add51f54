"""What `import ruleforge as rf` offers: the command line's work as functions that return objects.

Knows how a caller names rules and configs. Each function does what the command of its name does.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeAlias

from ruleforge.app.progress import Progress, make_progress
from ruleforge.core.known import KNOWN, KnownRule
from ruleforge.core.rule import Rule
from ruleforge.core.text import RuleText, parse
from ruleforge.errors import InputError

__all__ = ["Found", "Run", "compare", "export", "load", "search"]


@dataclass(frozen=True)
class Found:
    """A rule that a run trained.

    Attributes:
        id: number in the run; `RUN:ID` names it on the command line.
        rule: the rule with its names.
        speedup: over the oracle at the highest rung that it reached; None if nothing could be compared.
        rung: that rung.
    """

    id: int
    rule: RuleText
    speedup: float | None
    rung: int


@dataclass(frozen=True)
class Run:
    """A run folder, read when it is asked.

    Attributes:
        path: the folder.
    """

    path: Path

    @property
    def champion(self) -> RuleText:
        """The recommended rule.

        Raises:
            StoreError: the run has none yet.
        """
        from ruleforge.app.targets import champion_of

        return champion_of(self.path).text

    def optimizer(self, params: Any, **options: Any) -> Any:
        """A torch optimizer that runs the champion, see `optim.RuleOptimizer`."""
        return self.champion.optimizer(params, **options)

    @cached_property
    def front(self) -> tuple[Found, ...]:
        """Rules that no other trained one beats both in speed-up and in nodes, best first."""
        from ruleforge.app.ranking import rank
        from ruleforge.store import Store

        with Store.open(self.path, readonly=True) as store:
            ranked = rank(store)
        return tuple(
            Found(
                each.row.id, parse(each.row.text, file=f"{self.path}:{each.row.id}"), each.speedup, each.rung
            )
            for each in ranked
            if each.on_front
        )

    @property
    def result(self) -> dict[str, Any] | None:
        """What `ruleforge search --json` prints, wall times apart; None before the end."""
        from ruleforge.app.final_record import final_record
        from ruleforge.store import Store

        with Store.open(self.path, readonly=True) as store:
            return final_record(store) or None


# A rule as a caller may name it: an object, a known rule's name, a .rule file, a run folder, or RUN:ID.
Named: TypeAlias = str | Path | Rule | RuleText | KnownRule | Found | Run


def search(
    config: str | Path | Mapping[str, Any],
    *,
    out: str | Path | None = None,
    workers: int | None = None,
    quiet: bool = True,
    progress: Progress | None = None,
    **overrides: Any,
) -> Run:
    """Search for update rules, and return the finished run.

    Args:
        config: a TOML file, the name of one in search_configs/, or its content as nested dicts.
        out: run folder, new or empty; under results/ by default.
        workers: processes; one per core by default. The result does not depend on it.
        quiet: say nothing on stderr.
        progress: told what happens, in place of stderr.
        **overrides: keys of the config, a double underscore for each dot: `seed=1`,
            `search__budget="2m"`.

    Raises:
        ConfigError: the config or an override is at fault.
        StoreError: the folder cannot be used.

    Example:
        >>> run = search("quickstart", seed=1, search__budget="2m")  # doctest: +SKIP
        >>> print(run.champion)  # doctest: +SKIP
    """
    from ruleforge.app.config import load_config, parse_config
    from ruleforge.app.folders import fresh_folder, require_writable

    changed = {name.replace("__", "."): value for name, value in overrides.items()}
    if isinstance(config, Mapping):
        settings, stem = parse_config(config, changed), "search"
    else:
        settings, stem = load_config(config, changed), Path(config).stem
    folder = Path(out) if out is not None else fresh_folder(stem, settings.seed)
    require_writable(folder)
    from ruleforge.app.run import run_search  # torch comes with it: the cheap checks come first

    told = progress if progress is not None else make_progress(quiet=quiet)
    try:
        run_search(settings, out=folder, workers=_count(workers), progress=told)
    finally:
        told.close()
    return Run(folder)


def load(run: str | Path) -> Run:
    """An existing run, by its folder or its name under results/.

    Raises:
        StoreError: it is not a run folder.
    """
    from ruleforge.app.targets import require_run

    return Run(require_run(str(run)))


def compare(
    *rules: Named,
    against: Sequence[Named] = (),
    suite: str = "validation",
    workloads: Sequence[str] = (),
    seeds: int = 3,
    tune_hypers: int = 0,
    workers: int | None = None,
    quiet: bool = True,
) -> dict[str, Any]:
    """Compare rules with tuned references; the record that `ruleforge compare --json` prints.

    Args:
        *rules: rules, or what the command line calls targets.
        against: references; the default baselines when empty.
        suite: `search`, `validation` or `held_out`; ignored when workloads are named.
        workloads: workload names or task references.
        seeds: scoring seeds.
        tune_hypers: settings of the hyperparameters tuned beside the defaults, alike for all.
        workers: processes; one per core by default.
        quiet: say nothing on stderr.
    """
    from ruleforge.app.compare import compare_rules

    progress = make_progress(quiet=quiet)
    try:
        return compare_rules(
            _by_name(rules),
            _by_name(against) or None,
            suite=suite,
            workloads=workloads,
            folder=Path.cwd(),
            seeds=seeds,
            hyper_settings=tune_hypers,
            workers=_count(workers),
            runs=_runs(rules),
            progress=progress,
        )
    finally:
        progress.close()


def _runs(rules: Sequence[Named]) -> dict[str, Path]:
    """The folders of those that are a run's champion, by the champion's name."""
    from ruleforge.app.targets import resolve_target

    found = {rule.path.name: rule.path for rule in rules if isinstance(rule, Run)}
    targets = [resolve_target(str(rule)) for rule in rules if isinstance(rule, str | Path)]
    return found | {each.name: each.run for each in targets if each.origin == "champion" and each.run}


def export(rule: Named, to: str = "torch", **options: Any) -> str:
    """The rule as the text of a standalone file.

    Args:
        rule: a rule, or what the command line calls a target.
        to: target, such as `torch`, `optax`, `numpy`, `latex`, `sympy` or `json`.
        **options: passed on to the target.

    Raises:
        ExportError: there is no such target, or it refuses the rule.
    """
    from ruleforge.export import export as export_to

    _, text = _resolve(rule)
    return export_to(text, to, **options)


def _count(workers: int | None) -> int:
    return workers if workers is not None else len(os.sched_getaffinity(0))


def _by_name(rules: Sequence[Named]) -> dict[str, RuleText]:
    named: dict[str, RuleText] = {}
    for rule in rules:
        name, text = _resolve(rule)
        if name in named:
            raise InputError(f"two rules are called {name!r}", hint="name each rule once")
        named[name] = text
    return named


def _resolve(rule: Named) -> tuple[str, RuleText]:
    """A name for tables, and the rule."""
    if isinstance(rule, str | Path):
        from ruleforge.app.targets import resolve_target

        found = resolve_target(str(rule))
        return found.name, found.text
    if isinstance(rule, KnownRule):
        return rule.name, rule.rule
    if isinstance(rule, Run):
        return rule.path.name, rule.champion
    if isinstance(rule, Found):
        return f"rule_{rule.id}", rule.rule
    if isinstance(rule, Rule):
        from ruleforge.core.format import name_rule

        rule = name_rule(rule)
    if not isinstance(rule, RuleText):
        raise InputError(
            f"expected a rule, found {type(rule).__name__}",
            hint="give a RuleText, a Rule, or a known rule's name",
        )
    key = rule.rule.full_key
    known = next((name for name in KNOWN if KNOWN[name].rule.rule.full_key == key), None)
    return known or f"rule_{key[:8]}", rule
