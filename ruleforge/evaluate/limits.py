"""Hard limits on a rule's size, price and answer to other scales, which need no training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from ruleforge.core.rule import Rule
from ruleforge.evaluate.scale_probe import SAME, turning

# Horowitz 2014, Computing's energy problem, ISSCC: 45 nm, a float32 addition and a byte from DRAM.
ADDITION_PJ: Final = 0.9
DRAM_BYTE_PJ: Final = 163.0


def energy_pj(rule: Rule) -> float:
    """Estimated picojoules of one step for one weight: additions, and bytes that come from memory."""
    return ADDITION_PJ * rule.cost.flops + DRAM_BYTE_PJ * rule.cost.bytes


@dataclass(frozen=True)
class Limits:
    """Hard limits of a candidate; one that passes any is refused before it is trained."""

    nodes: int = 30
    states: int = 2
    flops_per_weight: float = 40.0
    bytes_per_weight: float | None = None
    energy_per_weight: float | None = None
    scale_free: bool = False

    def broken_by(self, rule: Rule) -> str:
        """What a rule breaks, in words, or ""."""
        cost = rule.cost
        for name, value, limit in (
            ("nodes", rule.nodes, self.nodes),
            ("state slots", cost.slots, self.states),
            ("FLOPs per weight", cost.flops, self.flops_per_weight),
            ("bytes per weight", cost.bytes, self.bytes_per_weight),
            ("pJ per weight", energy_pj(rule), self.energy_per_weight),
        ):
            if limit is not None and value > limit:
                return f"{value:g} {name}, at most {limit:g} are allowed"
        if self.scale_free and (cosine := turning(rule)) < SAME:
            return f"its direction depends on the scale of the gradients (cosine {cosine:.2f} between scales)"
        return ""
