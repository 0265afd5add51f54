"""What simplification leaves behind: steps, each with its law and its evidence."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Literal

from ruleforge.records import Json

StepKind = Literal["exact", "algebra", "scale", "behaviour"]


@dataclass(frozen=True)
class Step:
    """One accepted rewrite.

    Attributes:
        law: pattern and result, or the name of the procedure.
        assumption: under which it holds; "" for exact ones.
        kind: "exact" (bit for bit), "algebra" (equal under the assumption), "scale" (equal up to a
            positive factor), "behaviour" (trains as well).
        before_nodes: nodes before. An exact step counts the graph as it was written, dead code included.
        after_nodes: nodes after.
        max_error: largest relative difference from the given rule that `verify` saw; 0 for exact steps.
        text_after: the rule after the step, canonical, as text.
        evidence: for "behaviour": the paired speed-up over the given rule, with its interval.
    """

    law: str
    assumption: str
    kind: StepKind
    before_nodes: int
    after_nodes: int
    max_error: float
    text_after: str
    evidence: str = ""

    def as_json(self) -> dict[str, Json]:
        return asdict(self)
