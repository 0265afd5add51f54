"""The shortest rule that was found to do the same, with the log of how it came about.

First what is exact, then algebra under named assumptions, each step measured (`verify`), and the result
measured once more on streams that played no part in its acceptance. What is shortest is counted by the
one definition of nodes that the whole project uses; the rule that was given is always kept beside it.

Not done here, because it changes behaviour and needs a test on trained models: rounding constants that
only look exact (0.8999999 to 0.9), deleting parts that contribute little, replacing a part by a simpler
one. A time limit ends the search for more; when it strikes, the result depends on the machine's speed,
and a note says so.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Literal

from ruleforge.core.format import name_rule
from ruleforge.core.rule import Rule
from ruleforge.core.text import RuleText
from ruleforge.errors import RuleTextError
from ruleforge.records import Json
from ruleforge.simplify.algebra import Descent
from ruleforge.simplify.exact import exact_steps
from ruleforge.simplify.record import Step
from ruleforge.simplify.scalar import ScalarAlgebra, shared_engine
from ruleforge.simplify.verify import MIN_DEFINED, Checker, Verdict
from ruleforge.simplify.view import View, named

Outcome = Literal["equal", "equal up to a positive scale"]
SEARCH_SHARE = 0.75  # of the time limit; the rest is for confirming and writing
_CONFIRMING_SEED = 1


@dataclass(frozen=True)
class Simplified:
    """A rule and its simplest verified equivalent.

    Attributes:
        before: the rule as it was given.
        after: the simplest found; never more nodes than `before`.
        steps: what led from one to the other, in order.
        relation: how `after` stands to `before`.
        scale: factor from the updates of `before` to those of `after`, at the default hyperparameters.
        notes: what a reader should know besides, each a sentence.
    """

    before: RuleText
    after: RuleText
    steps: tuple[Step, ...]
    relation: Outcome
    scale: float = 1.0
    notes: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Json]:
        """The record that `ruleforge simplify --json` prints."""
        return {
            "before": {"text": str(self.before), "nodes": self.before.rule.nodes},
            "after": {"text": str(self.after), "nodes": self.after.rule.nodes},
            "steps": [step.as_json() for step in self.steps],
            "relation": self.relation,
            "scale": self.scale,
            "notes": list(self.notes),
        }


def simplify(
    rule: Rule | RuleText,
    *,
    allow_scale: bool = True,
    time_limit_s: float = 10.0,
    engine: ScalarAlgebra | None = None,
) -> Simplified:
    """The simplest rule that is equal to the given one, as far as it was found and measured.

    Args:
        rule: any rule.
        allow_scale: also drop a positive constant factor of the update, which the tuned lr takes up;
            never done where the rule reads lr.
        time_limit_s: seconds after which nothing more is tried.
        engine: sympy's process; the one of this process by default.

    Raises:
        RuleTextError: a `Rule` that is too long to be written as text.

    Example:
        >>> simplify(Rule.parse("update = 3 * sign(g * abs(g) * 2)")).after.lines[-1].value
        sign(g)
    """
    deadline = time.monotonic() + SEARCH_SHARE * time_limit_s
    engine = engine or shared_engine()
    before = rule if isinstance(rule, RuleText) else name_rule(rule)
    given = before.rule

    def spell(current: Rule) -> str:
        try:
            return str(named(current, before.hypers, before.doc))
        except RuleTextError as error:
            return f"# cannot be written: {error.message}\n"

    notes: list[str] = []
    checker = Checker(given)
    steps = exact_steps(before, spell)
    descent = Descent(
        checker,
        View.of(given),
        allow_scale and not (given.reads("lr") or given.reads("lr0")),
        deadline,
        spell,
    )
    descent.rules = [descent.view.rule]
    if checker.defined < MIN_DEFINED:
        share = 100 * checker.defined
        notes.append(
            f"the rule is finite at only {share:.0f} % of the probe points: exact laws alone were applied"
        )
    else:
        known = len(engine.notes)
        descent.run(engine)
        notes += dict.fromkeys(engine.notes[known:])
    if descent.timed_out:
        notes.append(f"stopped at the time limit of {time_limit_s:g} s; more time may find a shorter rule")
    final, kept, verdict = _confirmed(descent, given)
    if kept < len(descent.steps):
        notes.append(f"{len(descent.steps) - kept} steps were taken back: fresh streams told the rules apart")
    if not final.reads("g"):
        notes.append("the update does not depend on the gradient")
    steps += descent.steps[:kept]
    after = before
    if steps:
        try:
            after = named(final, before.hypers, before.doc)
        except RuleTextError as error:
            return Simplified(
                before, before, (), "equal", notes=(*notes, f"the result cannot be written: {error.message}")
            )
    scaled = any(step.kind == "scale" for step in steps)
    return Simplified(
        before, after, tuple(steps), "equal up to a positive scale" if scaled else "equal",
        verdict.scale if scaled else 1.0, tuple(notes),
    )  # fmt: skip


def _confirmed(descent: Descent, given: Rule) -> tuple[Rule, int, Verdict]:
    """The last rule of the descent that streams of another seed confirm, and the steps that lead to it."""
    checker = Checker(given, seed=_CONFIRMING_SEED)
    for kept in range(len(descent.steps), 0, -1):
        scaled = any(step.kind == "scale" for step in descent.steps[:kept])
        verdict = checker.check(descent.rules[kept], "scale" if scaled else "equal")
        if verdict.holds:
            return descent.rules[kept], kept, verdict
    return descent.rules[0], 0, Verdict("equal", True)
