"""The program: a rule as straight-line code over registers, in phases.

A phase is: per-tensor scalars, then elementwise work on tensors, then one set of barriers
(reductions over each parameter tensor, or matrix ops) whose results the next phase may read; no
barrier of a set writes where another reads, so they may run in any order. Host code runs in
float64 once a lane and step, before the phases. States are read where they lie; their next values
are stored together, after the last phase.

The module knows no backend. A backend needs from it: opcodes, registers, constants, and where
each operand lives.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import cached_property
from typing import Literal

from ruleforge.core import expr as ex
from ruleforge.core.expr import Expr
from ruleforge.core.ops import HOST_LEAVES, OPS
from ruleforge.core.rule import Kind, Rule

Space = Literal[
    "const", "hyper", "t", "first", "lr", "lr0", "progress", "host", "host_state",
    "is_matrix", "scalar", "scalar_state",
    "g", "w", "tensor", "tensor_state",
]  # fmt: skip
_REGISTER: dict[Kind, Space] = {Kind.HOST: "host", Kind.SCALAR: "scalar", Kind.TENSOR: "tensor"}
_STATE: dict[Kind, Space] = {
    Kind.HOST: "host_state",
    Kind.SCALAR: "scalar_state",
    Kind.TENSOR: "tensor_state",
}
HOST_SPACES: frozenset[str] = frozenset({"const", "hyper", "host", "host_state", *HOST_LEAVES})
SCALAR_SPACES: frozenset[str] = frozenset({"is_matrix", "scalar", "scalar_state"})


@dataclass(frozen=True, slots=True)
class Operand:
    """Where a value lives: a space and an index in it (0 where the space holds one value)."""

    space: Space
    index: int = 0


@dataclass(frozen=True, slots=True)
class Instr:
    """`out ← op(args)`."""

    op: str
    out: Operand
    args: tuple[Operand, ...]


@dataclass(frozen=True, slots=True)
class Phase:
    """Scalars, then tensors, then barriers: reductions into scalars, matrix ops into tensors."""

    scalar: tuple[Instr, ...] = ()
    tensor: tuple[Instr, ...] = ()
    barrier: tuple[Instr, ...] = ()


@dataclass(frozen=True, slots=True)
class Slot:
    """A state: its kind and, among the states of that kind, its position."""

    kind: Kind
    index: int
    init: Operand
    next: Operand

    @property
    def old(self) -> Operand:
        """Where the value before the step lives."""
        return Operand(_STATE[self.kind], self.index)


@dataclass(frozen=True)
class Program:
    """Straight-line code for one rule.

    Attributes:
        key: key of the rule.
        consts: constants, float64.
        n_hypers: hyperparameters a lane must bring.
        setup: host code for the inits; reads constants, hypers and lr0 alone.
        host: host code, once a step.
        phases: the rest.
        update: where the update is after the last phase.
        slots: the states, stored together after the last phase.
        n_host, n_scalar, n_tensor: sizes of the register files. Tensor and scalar registers are
            reused once their last reader has run; host registers are written once.
    """

    key: str
    consts: tuple[float, ...]
    n_hypers: int
    setup: tuple[Instr, ...]
    host: tuple[Instr, ...]
    phases: tuple[Phase, ...]
    update: Operand
    slots: tuple[Slot, ...]
    n_host: int
    n_scalar: int
    n_tensor: int

    @cached_property
    def _hash(self) -> int:
        return hash(tuple(getattr(self, field.name) for field in fields(self)))

    def __hash__(self) -> int:
        return self._hash  # asked for with every chunk, and all of the code goes into it

    def slots_of(self, kind: Kind) -> tuple[Slot, ...]:
        return tuple(slot for slot in self.slots if slot.kind is kind)

    @property
    def length(self) -> int:
        """Instructions on tensors: what one step costs."""
        return sum(len(phase.tensor) + len(phase.barrier) for phase in self.phases)

    def __str__(self) -> str:
        lines = [f"program {self.key[:12]}"]
        parts = [("setup", self.setup), ("host", self.host)]
        for number, phase in enumerate(self.phases):
            parts += [(f"phase {number} {n}", getattr(phase, n)) for n in ("scalar", "tensor", "barrier")]
        for name, code in parts:
            if code:
                lines.append(f"{name}:")
                lines += [f"  {_show(i.out)} = {i.op}({', '.join(map(self._show, i.args))})" for i in code]
        lines.append(f"update = {self._show(self.update)}")
        lines += [f"state {i} = {self._show(slot.next)}" for i, slot in enumerate(self.slots)]
        return "\n".join(lines)

    def _show(self, operand: Operand) -> str:
        return repr(self.consts[operand.index]) if operand.space == "const" else _show(operand)


def _show(operand: Operand) -> str:
    alone = operand.space in ("g", "w", "is_matrix", *HOST_LEAVES)
    return operand.space if alone else f"{operand.space}[{operand.index}]"


def compile_rule(rule: Rule) -> Program:
    """Lower a rule's canonical graph.

    Each value is computed once, in the earliest phase that can; a tensor that a later phase reads
    stays in its register across the barrier.
    """
    return _Lowering(rule.canonical, rule.key).run()


class _Lowering:
    def __init__(self, rule: Rule, key: str) -> None:
        self.rule = rule
        self.key = key
        self.kinds = rule.kinds
        roots = (rule.update, *(s.next for s in rule.states))
        self.order = ex.walk(roots)
        self.level = self._levels()
        self.where: dict[Expr, Operand] = {}
        self.consts: dict[Expr, int] = {}  # by node, since 0.0 == -0.0
        counts = dict.fromkeys(Kind, 0)
        self.state_at: list[Operand] = []
        for kind in rule.state_kinds:
            self.state_at.append(Operand(_STATE[kind], counts[kind]))
            counts[kind] += 1

    def _levels(self) -> dict[Expr, int]:
        """Phase in which each node's value becomes available."""
        level: dict[Expr, int] = {}
        for item in self.order:
            level[item] = max((level[arg] for arg in item.args), default=0)
            if item.args and OPS[item.op].kind in ("reduce", "matrix"):
                level[item] += 1
        return level

    def run(self) -> Program:
        host_items = [item for item in self.order if item.args and self.kinds[item] is Kind.HOST]
        host: list[Instr] = []
        for item in host_items:
            args = tuple(self._operand(arg) for arg in item.args)
            self.where[item] = Operand("host", len(host))
            host.append(Instr(item.op, self.where[item], args))
        phases, n_scalar, n_tensor = self._phases()
        setup, starts = self._setup(len(host))
        slots = tuple(
            Slot(kind, at.index, start, self._operand(s.next))
            for kind, at, start, s in zip(
                self.rule.state_kinds, self.state_at, starts, self.rule.states, strict=True
            )
        )
        return Program(
            key=self.key, n_hypers=len(self.rule.hypers), setup=setup, host=tuple(host), phases=phases,
            update=self._operand(self.rule.update), slots=slots,
            consts=tuple(item.number for item in self.consts),
            n_host=len(host) + len(setup), n_scalar=n_scalar, n_tensor=n_tensor,
        )  # fmt: skip

    def _operand(self, item: Expr) -> Operand:
        if item in self.where:
            return self.where[item]
        if item.op == "const":
            return Operand("const", self.consts.setdefault(item, len(self.consts)))
        if item.op == "hyper":
            return Operand("hyper", item.index)
        if item.op == "state":
            return self.state_at[item.index]
        return Operand(item.op)  # type: ignore[arg-type]

    def _setup(self, taken: int) -> tuple[tuple[Instr, ...], list[Operand]]:
        code: list[Instr] = []
        where: dict[Expr, Operand] = {}
        for item in ex.walk([s.init for s in self.rule.states]):
            if item.args:
                args = tuple(where[arg] for arg in item.args)
                where[item] = Operand("host", taken + len(code))
                code.append(Instr(item.op, where[item], args))
            else:
                where[item] = self._operand(item)
        return tuple(code), [where[s.init] for s in self.rule.states]

    def _phases(self) -> tuple[tuple[Phase, ...], int, int]:
        """Instructions by phase, with registers reused after their last reader."""
        work = [item for item in self.order if item.args and self.kinds[item] is not Kind.HOST]
        n_phases = 1 + max((self.level[item] for item in work), default=0)
        groups: list[tuple[list[Expr], list[Expr], list[Expr]]] = [([], [], []) for _ in range(n_phases)]
        for item in work:
            if OPS[item.op].kind in ("reduce", "matrix"):
                groups[self.level[item] - 1][2].append(item)
            else:
                groups[self.level[item]][0 if self.kinds[item] is Kind.SCALAR else 1].append(item)
        sequence = [item for group in groups for part in group for item in part]
        last = {arg: n for n, item in enumerate(sequence) for arg in item.args}
        kept = {self.rule.update, *(s.next for s in self.rule.states)}
        free: dict[str, list[int]] = {"scalar": [], "tensor": []}
        size = {"scalar": 0, "tensor": 0}
        code: dict[Expr, Instr] = {}
        n = 0
        for group in groups:
            for part in group:
                held: list[Expr] = []  # read by a barrier: no other of its set may write there
                for item in part:
                    args = tuple(self._operand(arg) for arg in item.args)
                    done = [a for a in dict.fromkeys(item.args) if last[a] == n and a not in kept]
                    if part is group[2]:
                        held += done
                    else:
                        self._release(done, free)
                    space = _REGISTER[self.kinds[item]]
                    if free[space]:
                        index = free[space].pop()
                    else:
                        index, size[space] = size[space], size[space] + 1
                    self.where[item] = Operand(space, index)
                    code[item] = Instr(item.op, self.where[item], args)
                    n += 1
                self._release(held, free)
        phases = tuple(Phase(*(tuple(code[item] for item in part) for part in group)) for group in groups)
        return phases, size["scalar"], size["tensor"]

    def _release(self, items: list[Expr], free: dict[str, list[int]]) -> None:
        for item in items:
            place = self.where.get(item)
            if place is not None and place.space in free:
                free[place.space].append(place.index)
