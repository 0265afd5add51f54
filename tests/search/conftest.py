"""Random rules as graphs: shared terms, states that read each other, hypers; nothing a tree would favour."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from ruleforge.core import expr as ex
from ruleforge.core.build import RuleBuilder
from ruleforge.core.expr import Expr
from ruleforge.core.ops import OPS, TERMINALS
from ruleforge.core.rule import Hyper, Rule
from ruleforge.errors import RuleError

HYPERS = (Hyper(0, 1, 0.9, "one_minus_log"), Hyper(0, 1, 1e-8, "log"), Hyper(-5, 5, -0.5))


def random_rule(seed: int) -> Rule:
    """A rule of up to 25 applied ops over a growing pool of terms."""
    rng = np.random.default_rng(seed)
    while True:
        builder = RuleBuilder()
        inits = [ex.const(0.0), ex.const(1.0), ex.const(1e-6), ex.leaf("lr0")]
        slots = [builder.declare(inits[rng.integers(4)]) for _ in range(rng.integers(0, 4))]
        pool: list[Expr] = [ex.leaf("g"), *(ex.leaf(str(name)) for name in rng.choice([*TERMINALS], 3))]
        pool += [ex.state(slot) for slot in slots] + [ex.hyper(i) for i in range(3)]
        pool += [ex.const(float(value)) for value in rng.choice([0.0, 1.0, 2.0, 0.9, 0.999, 1e-8, -3.5], 3)]
        names = [*OPS]
        for _ in range(rng.integers(1, 25)):
            op = OPS[names[rng.integers(len(names))]]
            args = [pool[-1 - min(int(rng.exponential(5)), len(pool) - 1)] for _ in op.params]
            pool.append(builder.apply(op.name, *args))
        for slot in slots:
            builder.assign(slot, pool[-1 - int(rng.integers(min(8, len(pool))))])
        try:
            rule = builder.build(pool[-1], HYPERS)
            if len(rule.canonical.states) <= 16:
                return rule
        except RuleError:  # a reduction over a number, or too many slots: draw another
            continue


@pytest.fixture(scope="session")
def make_rule() -> Callable[[int], Rule]:
    return random_rule
