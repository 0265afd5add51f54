"""Where a rule may tell −0 from 0.

The sign of −0 is 0 in the rule language. Some fast spellings of `sign` leave it −0, which nobody sees
unless something divides by it, raises it to a power, or asks for its angle.
"""

from __future__ import annotations

from ruleforge.core import expr as ex
from ruleforge.core.expr import Expr
from ruleforge.render.script import Script

# Ops that are the same at −0 and at 0.
_ALIKE = frozenset("lt le gt ge eq ne abs exp cos cosh log norm rms max_abs".split())


def tells_zeros_apart(script: Script, item: Expr) -> bool:
    """Whether anything that reads a node, in this step or a later one, may differ at −0 and at 0."""
    nodes = list(ex.walk([*(s.value for s in script.statements), script.update]))
    reached, size = {item}, 0
    while size != len(reached):
        size = len(reached)
        for node in nodes:
            if node.op in _ALIKE or reached.isdisjoint(node.args):
                continue
            if node.op in ("pow", "atan2") or (node.op == "div" and node.args[1] in reached):
                return True
            reached.add(node)
        reached |= {ex.state(slot.index) for slot in script.slots if slot.next in reached}
    return False
