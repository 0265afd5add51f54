"""The way of a candidate: static checks, duplicates, probes, then rung after rung.

Each stage is cheaper than the next and refuses what cannot win. Every stage counts what it saw,
so that a run can print proposed → unique → probed → rung 0 → … → full.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

from ruleforge.core.format import name_text
from ruleforge.core.rule import Rule
from ruleforge.evaluate.baselines import Baselines
from ruleforge.evaluate.evaluator import Outcome, Progress, Protocol, evaluate
from ruleforge.evaluate.lanes import Plan
from ruleforge.evaluate.limits import Limits
from ruleforge.evaluate.niches import Niches
from ruleforge.evaluate.probes import Behaviours, ProbeResult, probe, probe_on_numba
from ruleforge.evaluate.rescoring import Rescoring, on_more_seeds
from ruleforge.evaluate.statistics import geometric_mean
from ruleforge.evaluate.workers import Workers
from ruleforge.tasks import Workload

PROBE_BATCH = 64
STOPPED_EARLY = 0.5


@dataclass(frozen=True)
class Rung:
    """A level of the budget ladder.

    Attributes:
        workloads: where candidates are trained at this level.
        protocol: how.
        baselines: tuned under the same protocol.
        promote: share of the candidates that goes on to the next level.
    """

    workloads: tuple[Workload, ...]
    protocol: Protocol
    baselines: Baselines
    promote: float = 1.0


@dataclass(frozen=True)
class RungResult:
    """What a candidate did at one rung: an outcome a workload, its speed-up over the oracle, and whether it
    got more seeds than others."""

    rung: int
    outcomes: Mapping[str, Outcome]
    speedups: Mapping[str, float | None]
    speedup: float
    is_rescored: bool = False


@dataclass(frozen=True)
class Described:
    """What admission asks of a rule, and what a run keeps of it.

    Attributes:
        text: the rule as text, named.
        key, full_key: see `Rule`.
        nodes, states: its size.
        refused: why it cannot be trained, in words, or "".
    """

    text: str
    key: str
    full_key: str
    nodes: int
    states: int
    refused: str


def describe(rule: Rule, limits: Limits) -> Described:
    """A rule as admission sees it."""
    refused = limits.broken_by(rule) or ("" if rule.reads("g") else "the rule does not read g")
    return Described(name_text(rule), rule.key, rule.full_key, rule.nodes, rule.canonical.slots, refused)


@dataclass(frozen=True)
class Verdict:
    """What became of a proposal.

    Attributes:
        status: "duplicate_key", "rejected", "duplicate_behaviour" or "trained".
        text: its rule as text; "" for a duplicate by key.
        reason: why it was rejected.
        twin: the earlier candidate it equals.
        fingerprint: its behaviour, where it was probed.
    """

    status: str
    text: str = ""
    reason: str = ""
    twin: int | None = None
    fingerprint: tuple[float, ...] = ()


@dataclass
class Funnel:
    """Everything known about earlier candidates, and the ladder for new ones.

    Attributes:
        rungs: the ladder.
        plan, workers: as for training.
        dedupe: whether what is known is kept out.
        alike: places that one niche may have among those promoted from a rung at a time; 0 for any number.
        rescoring: who gets more seeds at the top.
        keys, behaviours, niches: of all candidates.
        counts: what became of proposals.
    """

    rungs: Sequence[Rung]
    plan: Plan
    workers: Workers
    dedupe: bool = True
    alike: int = 0
    rescoring: Rescoring | None = None
    keys: dict[str, int] = field(default_factory=dict)
    behaviours: Behaviours = field(default_factory=Behaviours)
    niches: Niches = field(default_factory=Niches)
    counts: Counter[str] = field(default_factory=Counter)

    def remember(self, number: int, full_key: str, fingerprint: Sequence[float]) -> None:
        """Know a candidate of an earlier generation."""
        self.keys[full_key] = number
        if fingerprint:
            self._know(number, fingerprint)

    def _know(self, number: int, fingerprint: Sequence[float]) -> None:
        self.behaviours.add(number, fingerprint)
        self.niches.add(number, fingerprint)

    def admit(self, proposals: Mapping[int, Described]) -> dict[int, Verdict]:
        """Duplicates, static checks and probes for proposals by number, in order.

        Returns:
            A verdict each; those with status "trained" have passed and are not trained yet.
        """
        verdicts: dict[int, Verdict] = {}
        fresh: dict[int, str] = {}
        for number, rule in proposals.items():
            self.counts["proposed"] += 1
            if self.dedupe and rule.full_key in self.keys:
                verdicts[number] = Verdict("duplicate_key", twin=self.keys[rule.full_key])
                self.counts["duplicate_key"] += 1
                continue
            self.keys.setdefault(rule.full_key, number)
            if rule.refused:
                verdicts[number] = Verdict("rejected", rule.text, rule.refused)
                self.counts["rejected_static"] += 1
            else:
                fresh[number] = rule.text
        self.counts["unique"] += len(fresh)
        for (number, text), seen in zip(fresh.items(), self._probed(list(fresh.values())), strict=True):
            verdicts[number] = self._judge(number, text, seen)
        return {number: verdicts[number] for number in proposals}

    def _probed(self, texts: list[str]) -> list[ProbeResult]:
        batches = [texts[i : i + PROBE_BATCH] for i in range(0, len(texts), PROBE_BATCH)]
        run = probe_on_numba if self.plan.update_plane == "numba" else probe
        return [result for batch in self.workers.map(run, batches) for result in batch]

    def _judge(self, number: int, text: str, seen: ProbeResult) -> Verdict:
        if seen.reason:
            self.counts["rejected_probe"] += 1
            return Verdict("rejected", text, seen.reason, fingerprint=seen.fingerprint)
        twin = self.behaviours.twin(seen.fingerprint) if self.dedupe else None
        if twin is not None:
            self.counts["duplicate_behaviour"] += 1
            return Verdict("duplicate_behaviour", text, twin=twin, fingerprint=seen.fingerprint)
        self._know(number, seen.fingerprint)
        self.counts["distinct"] += 1
        return Verdict("trained", text, fingerprint=seen.fingerprint)

    def climb(
        self,
        texts: Mapping[int, str],
        done: Progress = lambda finished, total: None,
        sure: Collection[int] = (),
    ) -> dict[int, tuple[RungResult, ...]]:
        """Train admitted candidates, sending the best of each rung to the next.

        Args:
            texts: by number.
            done: told the progress.
            sure: who goes on whatever they did.
        """
        results: dict[int, list[RungResult]] = {number: [] for number in texts}
        going = list(texts)
        for level, rung in enumerate(self.rungs):
            self.counts[f"rung_{level}"] += len(going)
            outcomes = evaluate(
                [texts[n] for n in going], rung.workloads, rung.protocol, self.plan, self.workers, done
            )
            for number, row in zip(going, outcomes, strict=True):
                results[number].append(_result(level, rung, row))
                self.counts["lane_steps"] += sum(o.lane_steps for o in row)
                tuned = len(rung.protocol.grid()) * len(rung.protocol.tune_seeds)
                asked = tuned + len(rung.protocol.score_seeds)
                self.counts["lane_steps_saved"] += sum(asked * o.n_steps - o.lane_steps for o in row)
            going.sort(key=lambda n: (-results[n][-1].speedup, n))
            n_promoted = max(1, round(rung.promote * len(going)))
            best = set(at_most(self.alike, going, self.niches.of)[:n_promoted]) | set(sure)
            going = [n for n in going if n in best]
        if self.rescoring is not None:
            self._rescore(self.rescoring, texts, results, done)
        return {number: tuple(found) for number, found in results.items()}

    def _rescore(
        self,
        rescoring: Rescoring,
        texts: Mapping[int, str],
        results: dict[int, list[RungResult]],
        done: Progress,
    ) -> None:
        """Give those who seem to be among the best more seeds; what they show then is their result."""
        level, top = len(self.rungs) - 1, self.rungs[-1]
        floor = rescoring.floor
        best = [n for n, found in results.items() if found[-1].rung == level and found[-1].speedup > floor]
        best = sorted(best, key=lambda n: (-results[n][-1].speedup, n))[: rescoring.keep]
        after = on_more_seeds(
            [texts[n] for n in best], [results[n][-1].outcomes for n in best], top.workloads,
            rescoring.seeds, self.plan, self.workers, done,
        )  # fmt: skip
        for number, outcomes in zip(best, after, strict=True):
            before = results[number][-1].outcomes
            more = sum(o.lane_steps - before[w].lane_steps for w, o in outcomes.items())
            self.counts["lane_steps"] += more
            found = _result(level, replace(top, baselines=rescoring.baselines), list(outcomes.values()))
            results[number][-1] = replace(found, is_rescored=True)
            rescoring.values.append(found.speedup)
        self.counts["rescored"] += len(best)


def at_most(alike: int, ordered: Sequence[int], niche_of: Callable[[int], str]) -> list[int]:
    """The first `alike` of each niche, in order; all of them where alike is 0, or who has no niche."""
    seen: Counter[str] = Counter()
    kept = []
    for number in ordered:
        niche = niche_of(number)
        seen[niche] += 1
        if not alike or not niche or seen[niche] <= alike:
            kept.append(number)
    return kept


def _result(level: int, rung: Rung, row: Sequence[Outcome]) -> RungResult:
    outcomes = {outcome.workload: outcome for outcome in row}
    values = rung.baselines.values(outcomes, "oracle")
    known = [value for value in values.values() if value is not None]
    return RungResult(level, outcomes, values, geometric_mean(known) or 0.0)


def standing_value(results: Sequence[RungResult], n_rungs: int) -> float:
    """Speed-up over the oracle at the highest rung reached, halved for each rung missed.

    Short budgets flatter, so a candidate that was stopped early must not outrank one that was
    trained in full, and yet the stopped ones are ranked among themselves.
    """
    if not results:
        return 0.0
    return results[-1].speedup * STOPPED_EARLY ** (n_rungs - 1 - results[-1].rung)
