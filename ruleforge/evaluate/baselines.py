"""Known rules, tuned exactly as candidates are, and what a rule is measured against.

Tuning is cached a rule, workload and protocol at a time, under a hash of what decides the numbers:
the task's and the training loop's sources, decay and clipping, the rule, torch's version. How lanes are
chunked, backends and compilers are not in it: tests hold them to one definition, up to rounding.
The package ships a cache; what is missing is computed and kept in the user's cache folder. Numbers of
another processor differ in the last bits, no more.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from hashlib import blake2b
from importlib import metadata
from pathlib import Path
from typing import Any

from ruleforge.core.rule import Rule
from ruleforge.core.text import RuleText
from ruleforge.evaluate.evaluator import Outcome, Progress, Protocol, evaluate
from ruleforge.evaluate.lanes import LaneSpec, Plan
from ruleforge.evaluate.measures import mean_log_steps
from ruleforge.evaluate.statistics import Summary, summarize
from ruleforge.evaluate.targets import LEVELS, MISS, Curve, Levels, Speedup, Targets, make_targets, speedup
from ruleforge.evaluate.workers import Workers
from ruleforge.tasks import Workload

SHIPPED = Path(__file__).with_name("baselines.json")
_SOURCES = (
    "train.py",
    "gradients.py",
    "schedules.py",
    "lanes.py",
    "probes.py",
    "evaluator.py",
    "tuning.py",
    "targets.py",
    "hypers.py",
)


Train = Callable[[Sequence[str], Sequence[Workload]], Sequence[Sequence[Outcome]]]


def cache_path() -> Path:
    """Where tuned baselines are kept between runs."""
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(root) / "ruleforge" / "baselines.json"


@dataclass(frozen=True)
class Baselines:
    """Tuned baselines on some workloads under one protocol.

    Attributes:
        outcomes: workload name → rule name → outcome.
        targets: workload name → losses to reach.
        origin: "shipped", "cached" or "computed", whichever is the least ready of all.
    """

    outcomes: Mapping[str, Mapping[str, Outcome]]
    targets: Mapping[str, Targets]
    origin: str

    def oracle(self, workload: str) -> str:
        """The best baseline on one workload."""
        return self._oracles[workload]

    @cached_property
    def _oracles(self) -> dict[str, str]:
        """Found once: every candidate of a rung is compared with them."""
        found = {}
        for workload, rules in self.outcomes.items():
            costs = {name: self._log_steps(workload, name) for name in rules}
            found[workload] = min(costs, key=lambda name: (costs[name], name))
        return found

    def best_single(self, workloads: Iterable[str]) -> str:
        """The one baseline with the best geometric mean over workloads."""
        places = [w for w in workloads if self.targets[w].levels]
        names = sorted({name for w in places for name in self.outcomes[w]})
        return min(names, key=lambda name: (math.fsum(self._log_steps(w, name) for w in places), name))

    def _log_steps(self, workload: str, name: str) -> float:
        return mean_log_steps(self.outcomes[workload][name], self.targets[workload])

    def usable(self) -> list[str]:
        """Workloads with at least one target; on the others no baseline learns anything."""
        return [name for name, targets in self.targets.items() if targets.levels]

    def why_left_out(self, workload: str) -> str:
        """Why a workload has no targets."""
        outcomes = self.outcomes[workload].values()
        if all(outcome.setting is None for outcome in outcomes):
            return "every baseline diverges at every learning rate"
        if any(_falls(curve) for outcome in outcomes for curve in outcome.curves):
            return "what baselines reach, some seed has before the first step"
        return "no baseline gets below the loss it starts from"

    def speedups(self, outcomes: Mapping[str, Outcome], reference: str) -> dict[str, Speedup]:
        """A rule's speed-up on each usable workload.

        Args:
            outcomes: workload name → the rule's outcome.
            reference: "oracle", "best_single", or a baseline's name.
        """
        places = [w for w in self.usable() if w in outcomes]
        single = self.best_single(places) if reference == "best_single" and places else reference
        return {
            w: speedup(
                outcomes[w],
                self.outcomes[w][self.oracle(w) if reference == "oracle" else single],
                self.targets[w],
            )
            for w in places
        }

    def values(self, outcomes: Mapping[str, Outcome], reference: str) -> dict[str, float | None]:
        """`speedups` as numbers; None where nothing could be compared."""
        return {w: each.value for w, each in self.speedups(outcomes, reference).items()}

    def standing(self, outcomes: Mapping[str, Outcome]) -> dict[str, Summary]:
        """A rule against the three references: best_single, oracle, adam (if it is among them)."""
        references = ["best_single", "oracle"]
        if all("adam" in rules for rules in self.outcomes.values()):
            references.append("adam")
        return {f"vs_{name}": summarize(self.speedups(outcomes, name)) for name in references}


def _falls(curve: Curve) -> bool:
    known = [value for value in curve if value is not None]
    return curve[0] is not None and min(known) < curve[0]


def tune_baselines(
    rules: Mapping[str, RuleText],
    workloads: Sequence[Workload],
    protocol: Protocol,
    plan: Plan,
    workers: Workers,
    *,
    recompute: bool = False,
    done: Progress = lambda finished, total: None,
    say: Callable[[str], None] = lambda text: None,
    train: Train | None = None,
) -> Baselines:
    """Tune known rules under a protocol, reading the caches first. No lane of theirs is stopped.

    Args:
        rules: rule texts by name.
        workloads: where.
        protocol, plan: as for candidates.
        workers: where the trainings run.
        recompute: ignore the caches.
        done: told the progress in chunks.
        say: told in one line when something must be computed.
        train: names, workloads → what is missing, a row a name, where another way than `evaluate` leads to
            the same outcomes.
    """
    whole = replace(protocol, stops=False)
    texts = {name: str(text) for name, text in rules.items()}
    keys = {
        (w.name, name): tuning_key(w, text.rule, protocol, plan)
        for w in workloads
        for name, text in rules.items()
    }
    shipped, cached = ({}, {}) if recompute else (_read(SHIPPED, say), _read(cache_path(), say))
    found = {at: record for at, key in keys.items() if (record := shipped.get(key) or cached.get(key))}
    origin = "shipped" if all(keys[at] in shipped for at in keys) else "cached"
    computed: dict[str, Any] = {}
    missing: dict[tuple[str, ...], list[Workload]] = {}
    for workload in workloads:
        names = tuple(name for name in rules if (workload.name, name) not in found)
        if names:
            missing.setdefault(names, []).append(workload)
    for names, places in missing.items():
        origin = "computed"
        steps = "/".join(str(n) for n in sorted({protocol.steps(w) for w in places}))
        say(f"tuning {len(names)} baselines for {steps} steps: {', '.join(w.name for w in places)}")
        with workers.strict():
            rows = (
                train(names, places)
                if train
                else evaluate([texts[name] for name in names], places, whole, plan, workers, done)
            )
        for name, row in zip(names, rows, strict=True):
            for outcome in row:
                at = (outcome.workload, name)
                found[at] = computed[keys[at]] = outcome_to_json(outcome)
    if computed:
        _keep(computed, say)
    outcomes = {w.name: {name: outcome_from_json(found[w.name, name]) for name in rules} for w in workloads}
    return with_targets(outcomes, origin)


def shipped_outcomes(
    rules: Mapping[str, RuleText], workloads: Sequence[Workload], protocol: Protocol, plan: Plan
) -> dict[str, dict[str, Outcome]]:
    """What the package ships of these tunings, rule name → workload name → outcome; computes nothing."""
    shipped = _read(SHIPPED, lambda text: None)
    found: dict[str, dict[str, Outcome]] = {name: {} for name in rules}
    for name, text in rules.items():
        for w in workloads:
            if record := shipped.get(tuning_key(w, text.rule, protocol, plan)):
                found[name][w.name] = outcome_from_json(record)
    return found


def with_targets(
    outcomes: Mapping[str, Mapping[str, Outcome]], origin: str, *, levels: Levels = LEVELS, miss: float = MISS
) -> Baselines:
    """Outcomes with the targets that follow from them."""
    targets = {
        workload: make_targets(workload, next(iter(rules.values())).n_steps, rules, levels=levels, miss=miss)
        for workload, rules in outcomes.items()
    }
    return Baselines(outcomes, targets, origin)


def outcome_to_json(outcome: Outcome) -> dict[str, Any]:
    """Plain lists and numbers; the settings that were tried as pairs, since there are many."""
    tried = [[spec.lr, spec.schedule] for spec in outcome.tried]
    return {**dataclasses.asdict(outcome), "tried": tried}


def outcome_from_json(record: Mapping[str, Any]) -> Outcome:
    setting = record["setting"]
    return Outcome(
        **{
            **record,
            "setting": LaneSpec(**setting) if setting else None,
            "curves": tuple(tuple(curve) for curve in record["curves"]),
            "final_losses": tuple(record["final_losses"]),
            "tried": tuple(LaneSpec(lr, schedule) for lr, schedule in record.get("tried", ())),
        }
    )


@lru_cache(maxsize=1)
def _loop_hash() -> str:
    here = Path(__file__).parent
    digest = blake2b(digest_size=16)
    for name in _SOURCES:
        digest.update((here / name).read_bytes())
    return digest.hexdigest()


@lru_cache(maxsize=64)
def _source_hash(workload: Workload) -> str:
    return workload.source_hash()


def tuning_key(workload: Workload, rule: Rule, protocol: Protocol, plan: Plan) -> str:
    """Under what a tuning is cached: a digest of what decides its numbers."""
    ranges = rule.hypers if protocol.hyper_settings else ()
    protocol = replace(protocol, stops=False)
    parts = (
        _source_hash(workload), workload.name, protocol.steps(workload), workload.batch_size,
        dataclasses.astuple(protocol), (plan.weight_decay, plan.gradient_clip), rule.full_key, ranges,
        _loop_hash(), metadata.version("torch").split("+")[0],
    )  # fmt: skip
    return blake2b(repr(parts).encode(), digest_size=16).hexdigest()


@lru_cache(maxsize=4)
def _parsed(path: Path, changed_ns: int, size: int) -> Any:
    """A file's JSON as it was then; a search asks for it ten times, and 8 MB take a third of a second."""
    return json.loads(path.read_text(encoding="utf-8"))


def _read(path: Path, say: Callable[[str], None]) -> dict[str, Any]:
    """A cache's records; a damaged cache is named, and computed again."""
    try:
        now = path.stat()
        found = _parsed(path, now.st_mtime_ns, now.st_size)
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        say(f"the baselines in {path} cannot be read ({error}): computing them again")
        return {}
    if not isinstance(found, dict):
        say(f"the baselines in {path} are no table: computing them again")
        return {}
    return found


def _keep(records: Mapping[str, Any], say: Callable[[str], None]) -> None:
    """Add to the user's cache; one that cannot be written costs time, nothing else."""
    path = cache_path()
    part = path.with_name(f"{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.write_text(json.dumps({**_read(path, say), **records}), encoding="utf-8")
        part.replace(path)
    except OSError as error:
        with suppress(OSError):
            part.unlink(missing_ok=True)
        say(f"the baselines cannot be kept in {path} ({error}): the next run tunes them again")
