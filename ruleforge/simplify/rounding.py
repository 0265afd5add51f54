"""How uncertain a rule's own results are: the same program, run with every rounding redrawn.

After each rounded operation the result moves by one or two units in the last place, at random (Monte
Carlo arithmetic, Parker 1997). What changes much under that is decided by rounding and not by the
formula: a sum that cancels, a sign taken next to zero, a quotient of underflowed numbers. An exact
rewrite of the rule may then come out differently without being wrong.

The meaning of a program is the reference backend's; this module copies its order of execution and
adds the noise. Results are never used as results.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ruleforge.backends.reference import RuleState, StepContext, init_state
from ruleforge.core.ops import OPS
from ruleforge.core.program import HOST_SPACES, Instr, Operand, Program
from ruleforge.core.rule import Kind

Array = NDArray[np.float64]

# Nothing is rounded by these.
_EXACT = frozenset("neg abs sign floor minimum maximum clip where lt le gt ge eq ne max_abs".split())
# Zero from these without a zero argument is an underflow: the true value has a sign.
_UNDERFLOWS = frozenset("mul div pow exp".split())
_POOL = 1 << 16


class NoisyRun:
    """One lane of a program in noisy float64, stepped like the reference."""

    def __init__(
        self, program: Program, params: Sequence[Array], ctx: StepContext, rng: np.random.Generator
    ) -> None:
        self.program = program
        self.pool = rng.choice((-2.0, -1.0, 1.0, 2.0), _POOL)
        self.at = 0
        self.state = init_state(program, params, ctx)

    def step(self, grads: Sequence[Array], params: Sequence[Array], ctx: StepContext) -> list[Array]:
        """Updates of one step; the states move on."""
        program = self.program
        with np.errstate(all="ignore"):
            host: dict[Operand, Any] = {
                Operand("t"): np.float64(ctx.t),
                Operand("first"): np.float64(ctx.t == 1),
                Operand("lr"): np.float64(ctx.lr),
                Operand("lr0"): np.float64(ctx.lr0),
                Operand("progress"): np.float64(ctx.progress),
            }
            spaces: tuple[tuple[Any, Sequence[float]], ...] = (
                ("const", program.consts),
                ("hyper", ctx.hypers),
                ("host_state", self.state.host),
            )
            for space, numbers in spaces:
                host |= {Operand(space, i): np.float64(v) for i, v in enumerate(numbers)}
            self._run(program.host, host)
            lanes = [self._tensor(i, host, grads[i], params[i]) for i in range(len(params))]
            self.state = RuleState(
                host=tuple(host[slot.next] for slot in program.slots_of(Kind.HOST)),
                scalar=tuple(lane[1] for lane in lanes),
                tensor=tuple(lane[2] for lane in lanes),
            )
        return [lane[0] for lane in lanes]

    def _tensor(
        self, index: int, host: dict[Operand, Any], g: Array, w: Array
    ) -> tuple[Array, tuple[Any, ...], tuple[Array, ...]]:
        program = self.program
        values: dict[Operand, Any] = {key: v for key, v in host.items() if key.space in HOST_SPACES}
        values |= {
            Operand("g"): self._jolt("g", g, ()),
            Operand("w"): self._jolt("w", w, ()),
            Operand("is_matrix"): np.float64(w.ndim == 2),
        }
        values |= {Operand("scalar_state", i): v for i, v in enumerate(self.state.scalar[index])}
        values |= {Operand("tensor_state", i): v for i, v in enumerate(self.state.tensor[index])}
        for phase in program.phases:
            self._run((*phase.scalar, *phase.tensor, *phase.barrier), values)

        def tensor(operand: Operand) -> Array:
            return np.array(np.broadcast_to(values[operand], w.shape))

        return (
            tensor(program.update),
            tuple(np.float64(values[slot.next]) for slot in program.slots_of(Kind.SCALAR)),
            tuple(tensor(slot.next) for slot in program.slots_of(Kind.TENSOR)),
        )

    def _run(self, code: Sequence[Instr], values: dict[Operand, Any]) -> None:
        for instr in code:
            args = tuple(values[arg] for arg in instr.args)
            values[instr.out] = self._noisy(instr.op, args)

    def _noisy(self, op: str, args: tuple[Any, ...]) -> Any:
        row = OPS[op]
        assert row.meaning is not None  # programs hold core ops alone
        if op == "lerp":  # rounds three times, at first as coarsely as the larger end needs
            a, b, x = args
            return self._noisy("add", (a, self._noisy("mul", (x, self._noisy("sub", (b, a))))))
        if row.kind in ("reduce", "matrix") and op not in _EXACT:  # a sum rounds as its terms would
            args = tuple(self._jolt(op, arg, ()) for arg in args)
        return self._jolt(op, row.meaning(*args), args)

    def _jolt(self, op: str, value: Any, args: tuple[Any, ...]) -> Any:
        if op in _EXACT:
            return value
        value = np.asarray(value)
        moved = value + self._draws(value.size).reshape(value.shape) * np.spacing(np.abs(value))
        keep = ~np.isfinite(value)
        zero = value == 0
        if zero.any():
            exact = op not in _UNDERFLOWS
            for arg in () if exact else args:
                exact = exact | (arg == 0)
            keep |= zero & exact
        if keep.any():
            moved = np.where(keep, value, moved)
        return moved if value.ndim else np.float64(moved)

    def _draws(self, size: int) -> Array:
        if size > _POOL // 2:
            return np.resize(self.pool, size)
        if self.at + size > _POOL:
            self.at = (self.at + size) % 127
        self.at += size
        return self.pool[self.at - size : self.at]
