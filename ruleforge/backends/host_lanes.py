"""Host code of many lanes at once, each lane by its own program.

Host numbers (bias corrections, schedules, products of hyperparameters) are float64 and few. Instructions
of all lanes that do the same op and wait for equally many others are one numpy call, by the op table's own
meaning, so that a step costs some dozens of calls whatever the number of lanes and programs, and gives the
reference's own bits. The layout of a lane's numbers is that of `numba_code`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ruleforge.backends import numba_kernels as nk
from ruleforge.backends.base import LaneGroup
from ruleforge.backends.numba_code import CONST_AT, Code
from ruleforge.backends.numba_loops import HOST_OPCODE
from ruleforge.core.ops import OPS
from ruleforge.core.rule import Kind

Ints = NDArray[np.int64]
Lanes = NDArray[np.float64]
_NAMES = tuple(HOST_OPCODE)


@dataclass(frozen=True)
class _Batch:
    """One numpy call: `values[out] = op(values[args])`."""

    op: str
    out: Ints
    args: tuple[Ints, ...]


class HostLanes:
    """The host numbers of the lanes of a chunk.

    Attributes:
        rounded_at: where each lane's rounded numbers start, (L,).
        n_rounded: how many rounded numbers there are in all.
    """

    def __init__(self, groups: Sequence[LaneGroup], codes: Sequence[Code], lr0: Lanes) -> None:
        counts = [group.n_lanes for group in groups]
        per_lane = np.repeat([code.n_host for code in codes], counts).astype(np.int64)
        self._at = np.concatenate([np.zeros(1, np.int64), np.cumsum(per_lane)])[:-1]
        self._values = np.zeros(int(per_lane.sum()))
        n_rounds = np.repeat([len(code.rounds) for code in codes], counts).astype(np.int64)
        self.rounded_at: Ints = np.concatenate([np.zeros(1, np.int64), np.cumsum(n_rounds)])[:-1]
        self.n_rounded = int(n_rounds.sum())
        self._rounds = np.zeros(self.n_rounded, np.int64)
        found: dict[tuple[int, int, str], list[tuple[Ints, ...]]] = defaultdict(list)
        first = 0
        for group, code in zip(groups, codes, strict=True):
            lanes = self._at[first : first + group.n_lanes]
            self._values[lanes[:, None] + np.arange(CONST_AT, code.hyper_at)] = code.program.consts
            hypers = code.hyper_at + np.arange(code.program.n_hypers)
            self._values[lanes[:, None] + hypers] = np.asarray(group.hypers, np.float64).T
            for stage, level, name, row in _levels(code):
                arity = OPS[name].arity if name in OPS else 1
                found[stage, level, name].append(tuple(lanes + k for k in row[1 : 2 + arity]))
            if len(code.rounds):
                places = self.rounded_at[first : first + group.n_lanes, None] + np.arange(len(code.rounds))
                self._rounds[places] = lanes[:, None] + code.rounds
            first += group.n_lanes
        batches = [(stage, _joined(name, parts)) for (stage, _, name), parts in sorted(found.items())]
        self._before = [batch for stage, batch in batches if stage == 0]
        self._after = [batch for stage, batch in batches if stage > 0]
        self._values[self._at + nk.LR0] = lr0

    def step(self, t: int, lr: Lanes, progress: float, decay: Lanes | float) -> NDArray[np.float32]:
        """Run one step's host code; what tensor code reads, rounded, in the order of `rounded_at`."""
        values, at = self._values, self._at
        values[at + nk.T], values[at + nk.FIRST], values[at + nk.PROGRESS] = t, float(t == 1), progress
        values[at + nk.LR], values[at + nk.DECAY] = lr, decay
        with np.errstate(all="ignore"):
            self._run(self._before)
            rounded = values[self._rounds].astype(np.float32)
            self._run(self._after)
        return rounded

    def _run(self, batches: Sequence[_Batch]) -> None:
        for batch in batches:
            args = [self._values[index] for index in batch.args]
            meaning: Any = OPS[batch.op].meaning if batch.op in OPS else np.array
            self._values[batch.out] = meaning(*args)

    def read(self, lanes: slice, numbers: slice) -> Lanes:
        """Some numbers of lanes that share a program, (n_lanes, n)."""
        return self._values[self._at[lanes, None] + np.arange(numbers.start, numbers.stop)]

    def write(self, lanes: slice, numbers: slice, values: Any) -> None:
        """Set what `read` reads."""
        self._values[self._at[lanes, None] + np.arange(numbers.start, numbers.stop)] = values


def _levels(code: Code) -> list[tuple[int, int, str, list[int]]]:
    """Each row of host code: its stage, how many rows it waits for one after the other, its op, the row.

    Stage 0 computes; stages 1 and 2 copy into the states, what a later copy overwrites first.
    """
    header, rows = code.header, code.rows.tolist()
    made: dict[int, int] = {}
    found: list[tuple[int, int, str, list[int]]] = []
    for row in rows[header[nk.HOST_LO] : header[nk.HOST_HI]]:
        name = _NAMES[row[0]]
        made[row[1]] = 1 + max((made.get(arg, 0) for arg in row[2 : 2 + OPS[name].arity]), default=0)
        found.append((0, made[row[1]], name, row))
    aside = code.state_at + len(code.program.slots_of(Kind.HOST))
    for row in rows[header[nk.AFTER_LO] : header[nk.AFTER_HI]]:
        found.append((1 if row[1] >= aside else 2, 0, "copy", row))
    return found


def _joined(name: str, parts: Sequence[tuple[Ints, ...]]) -> _Batch:
    out, *args = (np.concatenate(columns) for columns in zip(*parts, strict=True))
    return _Batch(name, out, tuple(args))
