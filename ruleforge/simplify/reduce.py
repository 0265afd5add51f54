"""From "exactly equal" to "as good, much shorter": the third pass, which trains what it proposes.

Starting from the shortest equal rule, each round offers every cut (see `cuts`), glances at all of them on two
seeds, and tests those that look most alike, a few at a time, until one passes: paired with that equal rule,
not with the version before, so that small losses cannot add up. (With the equal rule rather than the
text as given, since that may be 0 / 0 where nothing moves.) A cut is taken when the interval of its
speed-up, over workloads and seeds, excludes a loss of more than the margin, and does not lie above 1 as a
whole: what trains *faster* without a part is another rule. It is listed, and not taken. While that is open
and no cut has passed, there are more seeds (`paired.decide`). Of several cuts the one that risks least goes
first. Then algebra tidies up, and the next round begins.

Every version on the way is confirmed at the end on workloads and seeds that chose nothing. The list runs
from the rule as given to the first cut that costs something; the recommended version is its knee. What
passes is as good *on these workloads, in these budgets*; the rule that was given is always kept.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from ruleforge.core.text import RuleText
from ruleforge.evaluate.lanes import Plan
from ruleforge.evaluate.workers import Workers
from ruleforge.records import Json
from ruleforge.simplify.cuts import Cut, cuts, weight
from ruleforge.simplify.paired import (
    MARGIN,
    PAIRED_SEED,
    SEEDS,
    Bench,
    Paired,
    decide,
    own_targets,
    paired_protocol,
)
from ruleforge.simplify.record import Step
from ruleforge.simplify.simplify import Simplified, simplify
from ruleforge.tasks import Workload

Standing = Literal[
    "given", "equal", "equal up to a positive scale", "as good", "costs something", "another rule, faster"
]
ENDS = ("costs something", "another rule, faster")
GLANCE_SEEDS = (PAIRED_SEED + 900, PAIRED_SEED + 901)
CONFIRM_SEED = PAIRED_SEED + 500
GLANCE_SLACK = 0.1  # a cut may look this much worse at a glance and still be tested
FINALISTS = 4  # cuts that are tested together
ROUNDS = 24
PLAN = Plan(chunk_lanes=36, score_lanes=FINALISTS + 1)  # few rules at a time: small chunks, little padding
ALGEBRA_S = 5.0


@dataclass(frozen=True)
class Version:
    """One rule of the list.

    Attributes:
        text: the rule.
        standing: how it stands to the given one.
        change: what led to it from the version before.
        measured: against the shortest equal rule, where cuts are chosen; None for equal ones.
        confirmed: the same on workloads and seeds that chose nothing.
    """

    text: RuleText
    standing: Standing
    change: str = ""
    measured: Paired | None = None
    confirmed: Paired | None = None

    @property
    def nodes(self) -> int:
        return self.text.rule.nodes

    @property
    def states(self) -> int:
        return self.text.rule.canonical.slots

    def as_json(self) -> dict[str, Json]:
        return {
            "text": str(self.text), "nodes": self.nodes, "states": self.states, "standing": self.standing,
            "change": self.change,
            "measured": self.measured.as_json() if self.measured else None,
            "confirmed": self.confirmed.as_json() if self.confirmed else None,
        }  # fmt: skip


@dataclass(frozen=True)
class Reduced:
    """A rule and its shorter versions.

    Attributes:
        simplified: what exact laws and algebra made of it.
        versions: from the rule as given on, ever shorter.
        recommended: number of the recommended version.
        steps: all steps to the last accepted version, behavioural ones too.
        notes: what a reader should know besides.
    """

    simplified: Simplified
    versions: tuple[Version, ...]
    recommended: int
    steps: tuple[Step, ...]
    notes: tuple[str, ...] = ()

    @property
    def best(self) -> Version:
        return self.versions[self.recommended]

    def as_json(self) -> dict[str, Json]:
        """The record that `ruleforge simplify --behaviour --json` prints."""
        return {
            **self.simplified.as_json(),
            "after": {"text": str(self.best.text), "nodes": self.best.nodes},
            "relation": self.best.standing if self.recommended else "equal",
            "steps": [step.as_json() for step in self.steps],
            "versions": [version.as_json() for version in self.versions],
            "recommended": self.recommended,
            "notes": list(self.notes),
        }


def reduce_rule(
    rule: RuleText,
    workloads: Sequence[Workload],
    confirm_on: Sequence[Workload] = (),
    *,
    seeds: int = SEEDS,
    margin: float = MARGIN,
    time_limit_s: float = 600.0,
    plan: Plan | None = None,
    workers: Workers | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> Reduced:
    """The list of shorter versions of a rule, equal ones first, then those that train as well.

    Args:
        rule: any rule.
        workloads: where cuts are chosen.
        confirm_on: where the versions are confirmed; the same ones, on other seeds, when empty.
        seeds: scoring seeds a workload at the first look; up to four times as many while a test is open.
        margin: largest loss of speed that counts as none.
        time_limit_s: seconds after which no new round begins, and no test gets more seeds.
        plan: execution plan of the trainings.
        workers: processes.
        say: told in one line what happens.
    """
    deadline = time.monotonic() + time_limit_s
    simplified = simplify(rule)
    plan, workers = plan or PLAN, workers or Workers()
    full = Bench(workloads, paired_protocol(seeds), plan=plan, workers=workers)
    reduction = _Reduction(simplified, full, margin, deadline, say, notes=list(simplified.notes))
    reduction.run()
    fresh = Bench(confirm_on or workloads, paired_protocol(seeds, CONFIRM_SEED), plan=plan, workers=workers)
    return reduction.confirmed(fresh)


@dataclass
class _Reduction:
    simplified: Simplified
    full: Bench
    margin: float
    deadline: float
    say: Callable[[str], None]
    notes: list[str] = field(default_factory=list)
    versions: list[Version] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)
    refused: set[str] = field(default_factory=set)

    def run(self) -> None:
        given, after = self.simplified.before, self.simplified.after
        self.steps = list(self.simplified.steps)
        self.versions = [Version(given, "given")]
        if self.steps:
            self.versions.append(Version(after, self.simplified.relation, "exact laws and algebra"))
        if not given.rule.reads("g"):
            self.notes.append("no cut was tested: there is nothing to train by")
            return
        if not any(own_targets(o).levels for o in self.full.outcome(after).values()):
            self.notes.append(
                "the rule learns nothing on these workloads: what it could do without was not tested"
            )
            return
        for number in range(ROUNDS):
            if self._is_late:
                self.notes.append("stopped at the time limit; more time may find a shorter version")
                return
            if not self._round(number + 1):
                return

    @property
    def _is_late(self) -> bool:
        return time.monotonic() > self.deadline

    @property
    def current(self) -> RuleText:
        return self.versions[-1].text

    @property
    def reference(self) -> RuleText:
        """The shortest equal rule: what every cut is held against."""
        return self.simplified.after

    def _round(self, number: int) -> bool:
        """One cut taken, or none and the cheapest one listed."""
        offered = [cut for cut in cuts(self.current) if cut.text.rule.full_key not in self.refused]
        if not offered:
            return False
        self.say(f"round {number}: {self.current.rule.nodes} nodes, {len(offered)} cuts")
        looks = self.full.glance(self.reference, [cut.text for cut in offered], GLANCE_SEEDS)
        ranked = sorted(zip(looks, offered, strict=True), key=lambda pair: _unlike(pair[0]))
        self.refused |= {c.text.rule.full_key for look, c in ranked if (look.speedup or 0.0) < 0.5}
        likely = [cut for look, cut in ranked if (look.speedup or 0.0) >= 1 - self.margin - GLANCE_SLACK]
        likely = likely or [ranked[0][1]]
        tested: list[tuple[Paired, Cut]] = []
        for at in range(0, len(likely), FINALISTS):
            if tested and self._is_late:
                self.notes.append("stopped at the time limit; more time may find a shorter version")
                break
            some = likely[at : at + FINALISTS]
            found = decide(
                self.full, self.reference, [cut.text for cut in some], self.margin,
                enough=lambda each: self._is_late or any(map(self._is_as_good, each)), say=self.say,
            )  # fmt: skip
            tested += zip(found, some, strict=True)
            good = [(each, cut) for each, cut in tested if self._is_as_good(each)]
            if good:
                risk = max(good, key=lambda pair: (round(_low(pair[0]), 2), -pair[1].text.rule.nodes))
                self._take(*risk)
                return True
            self.refused |= {cut.text.rule.full_key for cut in some}
        nearest, cut = min(tested, key=lambda pair: _unlike(pair[0]))
        if nearest.speedup is not None:
            standing: Standing = "another rule, faster" if nearest.verdict == "better" else "costs something"
            self.versions.append(Version(cut.text, standing, cut.change, nearest))
        return False

    def _is_as_good(self, found: Paired) -> bool:
        return (found.is_no_worse(self.margin) and found.verdict != "better") or found.ci == (1.0, 1.0)

    def _take(self, found: Paired, cut: Cut) -> None:
        before = self.current.rule.nodes
        evidence = _words(found)
        self.steps.append(
            Step(cut.change, f"a loss of {self.margin:.0%} of speed does not matter", "behaviour", before,
                 cut.text.rule.nodes, 0.0, str(cut.text), evidence)
        )  # fmt: skip
        self.say(f"  {cut.change}: {evidence}")
        tidied = simplify(cut.text, time_limit_s=ALGEBRA_S)
        text = cut.text
        if weight(tidied.after.rule) < weight(text.rule):
            self.steps += tidied.steps
            text = tidied.after
        self.versions.append(Version(text, "as good", cut.change, found))

    def confirmed(self, fresh: Bench) -> Reduced:
        trained = [i for i, version in enumerate(self.versions) if version.measured is not None]
        if trained:
            self.say(f"confirming {len(trained)} versions on {', '.join(w.name for w in fresh.workloads)}")
            texts = [self.versions[i].text for i in trained]
            found = decide(
                fresh, self.reference, texts, self.margin, enough=lambda each: self._is_late, say=self.say
            )
            for i, paired in zip(trained, found, strict=True):
                self.versions[i] = replace(self.versions[i], confirmed=paired)
        kept = [
            i
            for i, version in enumerate(self.versions)
            if version.standing not in ENDS
            and (version.confirmed is None or version.confirmed.is_no_worse(self.margin))
        ]
        last = max(i for i, v in enumerate(self.versions) if v.standing not in ENDS)
        if last not in kept:
            self.notes.append("the shortest versions were not confirmed on fresh workloads and seeds")
        return Reduced(
            self.simplified, tuple(self.versions), _knee(self.versions, kept), tuple(self.steps),
            tuple(dict.fromkeys(self.notes)),
        )  # fmt: skip


def _unlike(found: Paired) -> float:
    """How far a variant's speed is from the rule's, on a log scale."""
    return abs(math.log(found.speedup)) if found.speedup else math.inf


def _low(found: Paired) -> float:
    return found.ci[0] if found.ci else 0.0


def _words(found: Paired) -> str:
    if found.speedup is None or found.ci is None:
        return "nothing could be compared"
    low, high = found.ci
    where = f"{found.n_workloads} workloads, {found.n_seeds} seeds, {100 * found.confidence:g} %"
    return f"×{found.speedup:.3f} [{low:.3f}, {high:.3f}] on {where}"


def _knee(versions: Sequence[Version], kept: Sequence[int]) -> int:
    """Of the confirmed versions, the one farthest above the chord from the given rule to the shortest listed.

    Axes are nodes, and the log of the speed-up on fresh workloads (0 for equal rules), each scaled to the
    range that the list shows; a range of speed below the margin counts as the margin, since that much is
    noise. Ties go to the shorter.
    """
    heights = [_height(version) for version in versions]
    nodes = [version.nodes for version in versions]
    span = max(max(nodes) - min(nodes), 1)
    rise = max(max(heights) - min(heights), MARGIN)

    def gain(i: int) -> float:
        return (max(nodes) - nodes[i]) / span + (heights[i] - max(heights)) / rise

    return max(kept, key=lambda i: (round(gain(i), 6), -nodes[i], i))


def _height(version: Version) -> float:
    found = version.confirmed or version.measured
    return math.log(found.speedup) if found is not None and found.speedup else 0.0
