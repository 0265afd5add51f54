"""Forms built from the parts that optimizers are made of: a direction, what divides it, what gates it.

They are hypotheses for a black box that is none of the known rules, as rules with hyperparameters to fit.
"""

from __future__ import annotations

from collections.abc import Iterator

from ruleforge.core.rule import Rule

_HYPERS = """\
b1: hyper(0, 1, one_minus_log) = 0.9
b2: hyper(0, 1, one_minus_log) = 0.99
c: hyper(0, 10) = 1
eps: hyper(0, 1, log) = 1e-8
"""
DIRECTIONS = (
    "g",
    "ema(g, b1)",
    "ema_hat(g, b1)",
    "trace(g, b1)",
    "g + c * ema(g, b1)",
    "g + c * ema_hat(g, b1)",
    "g - c * prev(g)",
    "g + b1 * trace(g, b1)",
    "lerp(g, prev(ema(g, b1)), c / 10)",
    "cbrt(ema(g, b1))",
    "g * abs(g)",
)
DIVISORS = (
    "",
    "(sqrt(ema(g * g, b2)) + eps)",
    "(sqrt(ema_hat(g * g, b2)) + eps)",
    "sqrt(ema(g * g, b2) + eps)",
    "(sqrt(total(g * g)) + eps)",
    "(ema(abs(g), b2) + eps)",
    "(running_max(abs(g)) + eps)",
    "(abs(g) + eps)",
    "cbrt(ema(g * g, b2) + eps)",
    "(sqrt(ema(square(g - ema(g, b1)), b2)) + eps)",
)
GATES = ("{0}", "sign({0})", "tanh({0})", "{0} * agree({0}, g)", "trace({0}, c / 10)", "{0} + c * sign(g)")


def forms() -> Iterator[Rule]:
    """All combinations, the shortest first; each form once."""
    seen = set()
    made = []
    for gate in GATES:
        for direction in DIRECTIONS:
            for divisor in DIVISORS:
                inner = f"({direction}) / {divisor}" if divisor else f"({direction})"
                value = gate.format(inner)
                used = [line for line in _HYPERS.splitlines() if _reads(value, line.split(":")[0])]
                rule = Rule.parse("\n".join([*used, f"update = {value}"]))
                if rule.key not in seen:
                    seen.add(rule.key)
                    made.append(rule)
    return iter(sorted(made, key=lambda rule: rule.nodes))


def _reads(value: str, name: str) -> bool:
    import re

    return re.search(rf"\b{name}\b", value) is not None
