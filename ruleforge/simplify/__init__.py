"""From a rule to the shortest rule that provably does the same.

`verify` measures whether two rules agree, `exact` and `algebra` propose, `simplify` decides and keeps
the log, `promote` gives typed constants names. Nothing here trains anything: what is only *as good*
as the rule, rather than equal to it, is not this part's business yet.
"""

from ruleforge.simplify.promote import promote_constants
from ruleforge.simplify.simplify import Simplified, simplify
from ruleforge.simplify.verify import CounterExample, Verdict, verify

__all__ = ["CounterExample", "Simplified", "Verdict", "promote_constants", "simplify", "verify"]
