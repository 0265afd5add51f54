"""One rule on a few small lanes in float64: the op table's own meanings on (n, P) numpy blocks.

The probes run thousands of different rules for a few dozen steps of 17 weights each. There a call costs
more than its arithmetic: numpy's is a fifth of torch's, and nothing is compiled, so a cold machine waits
for no second kernel. It is no update plane: it knows one program, keeps no dtype, and moves no weights.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ruleforge.backends.base import Layout, run_host
from ruleforge.core.ops import OPS
from ruleforge.core.program import HOST_SPACES, SCALAR_SPACES, Instr, Operand, Program
from ruleforge.core.rule import Kind

Array = NDArray[np.float64]
Step = tuple[Callable[..., Any], int, tuple[int, ...]]

REDUCTIONS: dict[str, Callable[..., Any]] = {
    "norm": lambda x: np.sqrt((x * x).sum(1)),
    "mean": lambda x: x.sum(1) / max(x.shape[1], 1),
    "rms": lambda x: np.sqrt((x * x).sum(1) / max(x.shape[1], 1)),
    "dot": lambda a, b: (a * b).sum(1),
    "max_abs": lambda x: np.abs(x).max(1, initial=0.0),
}
"""The table's reductions over the rows of a block; one that is missing here goes lane by lane."""


class NumpyBlock:
    """n lanes of one program.

    Args:
        program: compiled rule.
        layout: where each parameter tensor lies.
        hypers: (n_hypers, n); a hyperparameter that all lanes share is one number.
        lr0: (n,).
    """

    def __init__(self, program: Program, layout: Layout, hypers: Array, lr0: Array) -> None:
        self._layout = layout
        self._n = len(lr0)
        self._segment = np.repeat(np.arange(len(layout.sizes)), layout.sizes)
        self._at: dict[Operand, int] = {}
        self._values: list[Any] = []
        matrix = [float(len(shape) == 2) for shape in layout.shapes]
        fixed: dict[Operand, Any] = {Operand("lr0"): _column(lr0)}
        fixed |= {Operand("const", i): np.float64(v) for i, v in enumerate(program.consts)}
        fixed |= {Operand("hyper", i): _column(row) for i, row in enumerate(hypers)}
        fixed[Operand("is_matrix")] = np.tile(matrix, (self._n, 1))
        for place, value in fixed.items():
            self._values[self._place(place)] = value
        run_host(program.setup, fixed)
        for slot in program.slots:
            width = {Kind.HOST: 0, Kind.SCALAR: len(layout.sizes), Kind.TENSOR: layout.n_weights}[slot.kind]
            start = fixed[slot.init]
            self._values[self._place(slot.old)] = np.broadcast_to(start, (self._n, width)) if width else start
        self._inputs = [self._place(Operand(leaf)) for leaf in ("t", "first", "lr", "progress", "w", "g")]
        self._code: list[Step] = []
        self._wide: dict[Operand, int] = {}
        self._encode(program)
        self._moves = [(self._widened(slot.next, slot.kind), self._place(slot.old)) for slot in program.slots]
        self._update = self._widened(program.update, Kind.TENSOR)
        self._reads_lr = any(self._place(Operand("lr")) in args for _, _, args in self._code)

    def step(self, w: Array, g: Array, *, t: int, lr: Array, progress: float) -> Array:
        """The updates of all lanes, (n, P), and states advanced. Call it with numpy's warnings off.

        Args:
            w, g: weights before the step and gradients, (n, P).
            t: step, from 1.
            lr: (n,).
            progress: t / total steps.
        """
        values = self._values
        told = (
            np.float64(t),
            np.float64(t == 1),
            _column(lr) if self._reads_lr else None,
            np.float64(progress),
        )
        for place, value in zip(self._inputs, (*told, w, g), strict=True):
            values[place] = value
        for fn, out, args in self._code:
            values[out] = fn(*[values[i] for i in args])
        update: Array = values[self._update]
        for old, value in [(old, values[new]) for new, old in self._moves]:
            values[old] = value
        return update

    # building

    def _place(self, operand: Operand) -> int:
        if operand not in self._at:
            self._at[operand] = len(self._values)
            self._values.append(None)
        return self._at[operand]

    def _encode(self, program: Program) -> None:
        for instr in program.host:
            self._add(OPS[instr.op].meaning, instr.out, instr.args)
        for phase in program.phases:
            for instr in phase.scalar:
                self._add(OPS[instr.op].meaning, instr.out, instr.args)
            for instr in phase.tensor:
                self._add(OPS[instr.op].meaning, instr.out, instr.args, wide=True)
            for instr in phase.barrier:
                self._add(self._barrier(instr), instr.out, instr.args, wide=True)

    def _add(self, fn: Any, out: Operand, args: Sequence[Operand], *, wide: bool = False) -> None:
        read = self._spread_place if wide else self._place
        places = tuple(read(arg) for arg in args)
        self._code.append((fn, self._place(out), places))
        self._wide.pop(out, None)

    def _spread_place(self, operand: Operand) -> int:
        """Where an operand of tensor code lies: a scalar is spread over its tensor's weights once."""
        if operand.space not in SCALAR_SPACES:
            return self._place(operand)
        if operand not in self._wide:
            self._wide[operand] = self._computed(self._spread, operand)
        return self._wide[operand]

    def _computed(self, fn: Callable[..., Any], operand: Operand) -> int:
        """A new place for a function of an operand."""
        self._values.append(None)
        out = len(self._values) - 1
        self._code.append((fn, out, (self._place(operand),)))
        return out

    def _spread(self, scalars: Array) -> Array:
        return scalars[:, self._segment]

    def _widened(self, operand: Operand, kind: Kind) -> int:
        """Where a value lies in the shape of a kind."""
        if kind is Kind.TENSOR and operand.space in SCALAR_SPACES:
            return self._spread_place(operand)
        if kind is Kind.HOST or operand.space not in HOST_SPACES:
            return self._place(operand)
        width = self._layout.n_weights if kind is Kind.TENSOR else len(self._layout.sizes)
        return self._computed(lambda x: np.broadcast_to(x, (self._n, width)), operand)

    def _barrier(self, instr: Instr) -> Callable[..., Array]:
        meaning: Any = OPS[instr.op].meaning
        bounds = list(pairwise(self._layout.offsets))
        if OPS[instr.op].kind == "matrix":
            return partial(_matrix, meaning, self._layout.shapes, bounds)
        return partial(_reduce, REDUCTIONS.get(instr.op) or partial(_by_lane, meaning), bounds)


Bounds = Sequence[tuple[int, int]]


def _reduce(run: Callable[..., Any], bounds: Bounds, *args: Array) -> Array:
    return np.stack([run(*(arg[:, lo:hi] for arg in args)) for lo, hi in bounds], 1)


def _matrix(
    meaning: Callable[..., Any], shapes: Sequence[tuple[int, ...]], bounds: Bounds, arg: Array
) -> Array:
    out = np.array(arg)
    for shape, (lo, hi) in zip(shapes, bounds, strict=True):
        for lane in out:
            lane[lo:hi] = meaning(lane[lo:hi].reshape(shape)).reshape(-1)
    return out


def _by_lane(meaning: Callable[..., Any], *blocks: Array) -> Array:
    return np.array([meaning(*rows) for rows in zip(*blocks, strict=True)])


def _column(values: Array) -> Any:
    """One number where all lanes agree, else a column (n, 1)."""
    values = np.asarray(values, np.float64)
    return values[0] if (values == values[0]).all() else values[:, None]
