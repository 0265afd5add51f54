"""The literal reading of a `Rule`: every expression evaluated recursively, on any rule as it stands.

Knows nothing of canonical forms, programs, phases or registers, so it can judge all of them.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ruleforge.core.expr import Expr
from ruleforge.core.ops import OPS
from ruleforge.core.rule import Kind, Rule


class Literal:
    """One lane of a rule: states, and a step. Params are one dtype, any shapes."""

    def __init__(self, rule: Rule, params: list[np.ndarray], lr0: float = 1.0) -> None:
        self.rule = rule
        self.leaves = {"lr0": lr0}
        with np.errstate(all="ignore"):
            inits = [self._value(s.init, {}, None) for s in rule.states]
            self.states = [  # by state: a number, or one value for each parameter tensor
                init if kind is Kind.HOST else [_as(kind, init, p) for p in params]
                for init, kind in zip(inits, rule.state_kinds, strict=True)
            ]

    def step(
        self, grads: list[np.ndarray], params: list[np.ndarray], *, t: int, lr: float, progress: float
    ) -> list[np.ndarray]:
        """The updates; the states move on."""
        self.leaves |= {"t": float(t), "first": float(t == 1), "lr": lr, "progress": progress}
        updates, moved = [], []
        with np.errstate(all="ignore"):
            for index in range(len(params)):
                at = (index, grads[index], params[index])
                seen: dict[Expr, Any] = {}
                updates.append(_as(Kind.TENSOR, self._value(self.rule.update, seen, at), params[index]))
                moved.append([self._value(s.next, seen, at) for s in self.rule.states])
        self.states = [
            moved[0][i]
            if kind is Kind.HOST
            else [_as(kind, m[i], p) for m, p in zip(moved, params, strict=True)]
            for i, kind in enumerate(self.rule.state_kinds)
        ]
        return updates

    def _value(self, item: Expr, seen: dict[Expr, Any], at: tuple[int, Any, Any] | None) -> Any:
        if item not in seen:
            seen[item] = self._fresh(item, seen, at)
        return seen[item]

    def _fresh(self, item: Expr, seen: dict[Expr, Any], at: tuple[int, Any, Any] | None) -> Any:
        kind = self.rule.kinds[item]
        if item.args:
            parts = [self._value(arg, seen, at) for arg in item.args]
            if kind is not Kind.HOST:  # host numbers are rounded where they meet a tensor
                assert at is not None
                parts = [
                    at[2].dtype.type(part) if self.rule.kinds[arg] is Kind.HOST else part
                    for part, arg in zip(parts, item.args, strict=True)
                ]
            made = OPS[item.op].meaning(*parts)
            return np.float64(made) if kind is Kind.HOST else made
        if item.op == "const":
            return np.float64(item.number)
        if item.op == "hyper":
            return np.float64(self.rule.hypers[item.index].default)
        if item.op == "state":
            held = self.states[item.index]
            return held if kind is Kind.HOST else held[at[0]]
        if item.op in self.leaves:
            return np.float64(self.leaves[item.op])
        _, g, w = at
        return {"g": g, "w": w, "is_matrix": w.dtype.type(w.ndim == 2)}[item.op]


def _as(kind: Kind, value: Any, like: np.ndarray) -> Any:
    if kind is Kind.SCALAR:
        return like.dtype.type(value)
    return np.array(np.broadcast_to(np.asarray(value).astype(like.dtype), like.shape))


def assert_same_bits(found: Any, expected: Any, where: str = "") -> None:
    """Equal bit for bit, the sign of zero included; any NaN equals any NaN."""
    a, b = np.asarray(found), np.asarray(expected)
    assert a.dtype == b.dtype and a.shape == b.shape, f"{where}: {a.dtype}{a.shape}, {b.dtype}{b.shape}"
    same = (a == b) & (np.signbit(a) == np.signbit(b)) | (np.isnan(a) & np.isnan(b))
    assert np.all(same), f"{where}: {a[~same]!r} is not {b[~same]!r}"
