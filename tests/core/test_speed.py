"""Searches canonicalize and compile tens of thousands of rules: an order of magnitude of room, no more."""

from __future__ import annotations

import time

from ruleforge.core.program import compile_rule
from ruleforge.core.text import parse

CANDIDATE = """
m: state = 0
v: state = 0
m = lerp(g, m, {a})
v = {a} * v + (1 - {a}) * square(g - m)
s = sign(m * g)
update = where(s < 0, 0, m) / (sqrt(v / (1 - {a} ** t)) + 1e-8) + 0.1 * clip(g, -1, 1) * exp(-abs(m))
"""


def test_a_candidate_of_26_nodes_takes_a_millisecond_or_so() -> None:
    rules = [parse(CANDIDATE.format(a=0.9 + i / 1000)).rule for i in range(60)]
    seconds = []
    for rule in rules:
        start = time.perf_counter()
        assert compile_rule(rule).key == rule.key
        seconds.append(time.perf_counter() - start)
    assert rules[0].nodes == 26
    assert sorted(seconds)[len(seconds) // 2] < 0.008  # 0.8 ms on a free core; this one may be shared
