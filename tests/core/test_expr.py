"""Nodes are interned: equality is identity, in every thread and after pickling; keys are content."""

from __future__ import annotations

import copy
import gc
import pickle
import subprocess
import sys
import threading

import numpy as np
import pytest

from ruleforge.core import expr as ex
from ruleforge.core.expr import Expr
from ruleforge.core.known import KNOWN
from ruleforge.errors import RuleError
from ruleforge.testing import random_rule

G, T = ex.leaf("g"), ex.leaf("t")


def chain(n: int) -> Expr:
    item = G
    for _ in range(n):
        item = ex.node("exp", item)
    return item


def test_nodes_built_alike_are_one_object() -> None:
    assert ex.node("add", G, ex.const(1)) is ex.node("add", G, ex.const(1.0))
    assert ex.node("add", G, T) is not ex.node("add", T, G)
    assert ex.hyper(0) is not ex.state(0)


def test_minus_zero_is_another_constant() -> None:
    assert ex.const(-0.0) is not ex.const(0.0)
    assert str(ex.const(-0.0).number) == "-0.0"


def test_nodes_are_frozen_and_show_themselves() -> None:
    item = ex.node("add", G, ex.state(3))
    with pytest.raises(AttributeError, match="frozen"):
        item.op = "sub"
    assert repr(item) == "add(g, state3)"
    assert repr(ex.node("neg", ex.const(0.5))) == "neg(0.5)"
    assert G.is_leaf and not item.is_leaf
    assert ex.state(3).index == 3 and ex.const(2).number == 2.0


def test_pickling_and_copying_give_the_same_object() -> None:
    for seed in range(30):
        rule = random_rule(np.random.default_rng(seed))
        assert pickle.loads(pickle.dumps(rule)) == rule
        assert copy.deepcopy(rule) == rule


def test_deep_nodes_pickle() -> None:
    deep = chain(2000)
    assert pickle.loads(pickle.dumps(deep)) is deep
    assert "exp" in repr(deep)


def test_threads_get_one_object() -> None:
    found: list[list[Expr]] = []
    start = threading.Barrier(8)

    def build() -> None:
        start.wait()
        found.append([ex.node("add", ex.const(i + 0.123), G) for i in range(500)])

    threads = [threading.Thread(target=build) for _ in range(8)]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert len(found) == 8
    assert all(a is b for others in found for a, b in zip(found[0], others, strict=True))


def test_nodes_that_nobody_holds_are_dropped() -> None:
    before = len(ex._TABLE)
    item = ex.node("mul", ex.const(123.456), ex.const(654.321))
    assert len(ex._TABLE) == before + 3
    del item
    gc.collect()
    assert len(ex._TABLE) <= before


def test_keys_are_the_same_in_every_process() -> None:
    code = (
        "from ruleforge.core.text import parse; print(parse('update = ema(g, 0.9) / (1 + abs(w))').rule.key)"
    )
    runs = {
        subprocess.run(
            [sys.executable, "-c", code],
            check=True,
            capture_output=True,
            text=True,
            env={"PYTHONHASHSEED": seed},
        ).stdout
        for seed in ("1", "2")
    }
    assert len(runs) == 1


def test_walk_puts_arguments_first_and_each_node_once() -> None:
    shared = ex.node("mul", G, G)
    root = ex.node("add", shared, ex.node("neg", shared))
    assert ex.walk([root, shared, root]) == [G, shared, ex.node("neg", shared), root]
    assert len(ex.walk([chain(5000)])) == 5001


def test_depth_and_leaves() -> None:
    assert ex.depth([chain(3), G]) == 4
    assert ex.depth([]) == 0
    root = ex.node("where", ex.state(2), ex.state(0), ex.node("neg", ex.state(2)))
    assert list(ex.leaves([root], "state")) == [ex.state(2), ex.state(0)]


def test_rebuild_maps_bottom_up() -> None:
    root = ex.node("add", G, ex.node("neg", G))
    mapping = ex.rebuild([root], lambda item, args: T if item is G else ex.with_args(item, args))
    assert mapping[root] is ex.node("add", T, ex.node("neg", T))
    assert ex.with_args(root, root.args) is root


def test_what_is_steady() -> None:
    assert ex.is_steady(ex.node("sub", ex.const(1), ex.node("mul", ex.hyper(0), ex.leaf("lr0"))))
    for moving in ("t", "first", "lr", "progress", "g", "w"):
        assert not ex.is_steady(ex.node("add", ex.const(1), ex.leaf(moving)))
    assert not ex.is_steady(ex.state(0))


@pytest.mark.parametrize("value", [float("inf"), float("-inf"), float("nan")])
def test_constants_are_finite(value: float) -> None:
    with pytest.raises(RuleError, match="finite"):
        ex.const(value)


def test_wrong_nodes_are_refused() -> None:
    with pytest.raises(RuleError, match="'emaa' is no core op"):
        ex.node("emaa", G)
    with pytest.raises(RuleError, match="'ema' is no core op"):
        ex.node("ema", G, ex.const(0.9))
    with pytest.raises(RuleError, match=r"add\(a, b\) was given 1 of 2 arguments"):
        ex.node("add", G)
    with pytest.raises(RuleError, match="'gg' is no terminal"):
        ex.leaf("gg")


def test_both_ways_to_walk_find_the_same_order(monkeypatch: pytest.MonkeyPatch) -> None:
    rules = [known.rule.rule for known in KNOWN.values()]
    recursive = [ex.walk(rule.roots) for rule in rules]
    monkeypatch.setattr(ex, "RECURSED", 0)
    assert [ex.walk(rule.roots) for rule in rules] == recursive


def test_height_is_the_longest_path() -> None:
    item = ex.leaf("g")
    for n in range(1, 3000):
        item = ex.node("add", item, ex.leaf("w"))
        assert item.height == n + 1
    assert len(ex.walk([item])) == 3001 and ex.depth([item, ex.leaf("t")]) == 3000
