"""Any rule as a torch optimizer, without generating code: `rule.optimizer(model.parameters(), lr=1e-3)`.

Runs the compiled program on the parameters' own tensors, in their dtype, one torch call an
instruction; host numbers are float64 as in the reference. An exported file (`ruleforge.export`) does
the same step in fewer calls and needs no ruleforge.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.optim.optimizer import Optimizer, ParamsT

from ruleforge.backends.base import run_host
from ruleforge.backends.torch_ops import REDUCTIONS, TORCH_OPS, orthogonalize
from ruleforge.core.format import name_rule
from ruleforge.core.known import KnownRule
from ruleforge.core.program import HOST_SPACES, Instr, Operand, Program, compile_rule
from ruleforge.core.rule import Hyper, Kind, Rule
from ruleforge.core.text import RuleText, parse
from ruleforge.errors import RuleError
from ruleforge.render.names import MEANINGFUL, Names, slot_names
from ruleforge.words import did_you_mean

_GROUP_KEYS = frozenset("params lr lr0 initial_lr weight_decay maximize total_steps".split())


class RuleOptimizer(Optimizer):
    """A torch optimizer that runs a rule: `w ← w − lr · (update + weight_decay · w)`.

    Args:
        params: parameters, or dicts that define parameter groups.
        rule: a rule, with or without names, or rule text.
        lr: learning rate.
        weight_decay: decoupled decay, outside the rule.
        maximize: move along the gradient instead of against it.
        total_steps: steps of the whole training; needed by rules that read `progress`.
        hypers: hyperparameters by name; those not given keep the rule's defaults. A rule without
            names gets those of `format.name_rule`.

    A NaN in a gradient is neither skipped nor repaired.

    Raises:
        ValueError: a value out of range, or `total_steps` is missing.
        TypeError: the rule has no hyperparameter of that name.

    Example:
        >>> w = torch.nn.Parameter(torch.ones(3))
        >>> optimizer = RuleOptimizer([w], "update = sign(g)", lr=0.25)
        >>> w.sum().backward()
        >>> optimizer.step()
        >>> w.data
        tensor([0.7500, 0.7500, 0.7500])
    """

    carried: tuple[str, ...] = ()
    """States that `swap` brought along."""

    def __init__(
        self,
        params: ParamsT,
        rule: Rule | RuleText | KnownRule | str,
        lr: float = 1e-3,
        weight_decay: float = 0.0,
        maximize: bool = False,
        total_steps: int | None = None,
        **hypers: float,
    ) -> None:
        self._compile(_as_text(rule))
        unknown = sorted(set(hypers) - set(self._hypers))
        if unknown:
            hint = did_you_mean(unknown[0], self._hypers, f"it has: {', '.join(self._hypers) or 'none'}")
            raise TypeError(f"the rule has no hyperparameter {unknown[0]!r}; {hint}")
        if self._reads_progress and total_steps is None:
            raise ValueError("this rule needs total_steps: its schedule runs over the training")
        defaults: dict[str, Any] = {
            "lr": lr,
            "weight_decay": weight_decay,
            "maximize": maximize,
            **{name: hypers.get(name, hyper.default) for name, hyper in self._hypers.items()},
        }
        if self._reads_progress:
            defaults["total_steps"] = total_steps
        super().__init__(params, defaults)

    def _compile(self, text: RuleText) -> None:
        self.text = text
        names = Names(_GROUP_KEYS)
        self._hypers: dict[str, Hyper] = {
            names.fresh(name): hyper for name, hyper in zip(text.hypers, text.rule.hypers, strict=True)
        }
        self._program = compile_rule(text.rule)
        marked = text.rule.with_defaults(tuple(float(i) for i in range(len(self._hypers))))
        every = list(self._hypers)
        self._order = tuple(every[int(h.default)] for h in marked.canonical.hypers)
        self._slots = slot_names(text.rule.canonical, frozenset({"step"}))
        self._reads_progress = text.rule.reads("progress")

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "text": self.text}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Also called by `load_state_dict`, which brings no rule."""
        text = state.pop("text", None)
        super().__setstate__(state)
        if text is not None:
            self._compile(text)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add parameters with values of their own; the constructor adds its groups so."""
        group = {**self.defaults, **param_group}
        if not group["lr"] >= 0:
            raise ValueError(f"Invalid learning rate: {group['lr']}")
        if not group["weight_decay"] >= 0:
            raise ValueError(f"Invalid weight_decay value: {group['weight_decay']}")
        if self._reads_progress and not group["total_steps"] >= 1:
            raise ValueError(f"Invalid total_steps: {group['total_steps']}")
        for name, hyper in self._hypers.items():
            if not hyper.low < group[name] < hyper.high:
                raise ValueError(
                    f"Invalid {name}: {group[name]} (must lie between {hyper.low:g} and {hyper.high:g})"
                )
        super().add_param_group(param_group)
        group = self.param_groups[-1]
        group.setdefault("lr0", group["lr"])

    @torch.no_grad()
    def step(  # type: ignore[override]
        self, closure: Callable[[], float] | None = None
    ) -> float | None:
        """Perform one step.

        Args:
            closure: evaluates the model again and returns the loss.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for w in group["params"]:
                if w.grad is not None:
                    self._move(w, w.grad, group)
        return loss

    def _move(self, w: Tensor, grad: Tensor, group: dict[str, Any]) -> None:
        if grad.layout != torch.strided:
            raise RuntimeError("RuleOptimizer does not support sparse gradients")
        if w.is_complex():
            raise RuntimeError("RuleOptimizer does not support complex parameters")
        state = self.state[w]
        host = self._host_values(group, state.get("step", 0) + 1)
        if not state:
            self._start(state, w, host)
        state["step"] += 1
        old = [state[name] for name in self._slots]
        registers = _Registers(self._program, host, -grad if group["maximize"] else grad, w, old)
        update, new = registers.run()
        for name, slot, value in zip(self._slots, self._program.slots, new, strict=True):
            if slot.kind is Kind.HOST:
                state[name] = value
            else:
                state[name].copy_(value)
        if group["weight_decay"] != 0:
            update = update + group["weight_decay"] * w
        w.sub_(float(group["lr"]) * update)

    def _host_values(self, group: dict[str, Any], t: int) -> dict[Operand, np.float64]:
        values = {"t": t, "first": t == 1, "lr": group["lr"], "lr0": group["lr0"]}
        if self._reads_progress:
            values["progress"] = min(t / group["total_steps"], 1.0)
        found = {Operand(space): np.float64(value) for space, value in values.items()}  # type: ignore[arg-type]
        found |= {Operand("const", i): np.float64(v) for i, v in enumerate(self._program.consts)}
        found |= {Operand("hyper", i): np.float64(group[name]) for i, name in enumerate(self._order)}
        return found

    def _start(self, state: dict[str, Any], w: Tensor, host: dict[Operand, np.float64]) -> None:
        values = dict(host)
        run_host(self._program.setup, values)
        state["step"] = 0
        for name, slot in zip(self._slots, self._program.slots, strict=True):
            value = float(values[slot.init])
            shaped = {Kind.HOST: value, Kind.SCALAR: w.new_full((), value)}
            state[name] = torch.full_like(w, value) if slot.kind is Kind.TENSOR else shaped[slot.kind]


# What torch's own optimizers call states that this package gives another name.
_SHARED = frozenset("params lr initial_lr weight_decay maximize".split())
"""What a group keeps when its optimizer is swapped."""
_ALIASES = {"square_avg": "exp_avg_sq", "sum": "grad_sq_sum", "acc_delta": "running_delta"}


def swap(optimizer: Optimizer, to: Rule | RuleText | KnownRule | str | Optimizer, **hypers: Any) -> Optimizer:
    """Another optimizer for a running training, on the same parameter groups.

    The groups are shared, not copied: schedulers that were made for the old optimizer go on setting the
    learning rate of the new one, and swapping back finds what they set. States whose names mean the
    same (`exp_avg`, `exp_avg_sq`, `momentum_buffer`, …) carry over. A rule that reads the step, such as
    one with bias correction, starts afresh unless all of its states carry over: a corrected average
    that starts at 0 late in a training would be far too small.

    Args:
        optimizer: the one in use.
        to: a rule, rule text, or an optimizer over the same parameters, such as one that was swapped out.
        hypers: hyperparameters of the rule, for all groups.

    Returns:
        The optimizer to use from now on; `optimizer` must not step any more until it is swapped in again.

    Raises:
        ValueError: `to` is an optimizer over other parameters.

    Example:
        >>> w = torch.nn.Parameter(torch.ones(3))
        >>> adam = torch.optim.Adam([w], lr=0.1)
        >>> lion = swap(adam, "beta: hyper(0, 1) = 0.9\\nupdate = sign(ema(g, beta))")
        >>> lion.param_groups[0] is adam.param_groups[0]
        True
    """
    if isinstance(to, Optimizer):
        new = to
        mine = [id(p) for group in optimizer.param_groups for p in group["params"]]
        if mine != [id(p) for group in new.param_groups for p in group["params"]]:
            raise ValueError("the two optimizers have other parameters, or another order of them")
    else:
        params = [{"params": group["params"], "lr": group["lr"]} for group in optimizer.param_groups]
        new = RuleOptimizer(params, to, **hypers)
    remembered = [{k: v for k, v in group.items() if k not in _SHARED} for group in optimizer.param_groups]
    own = vars(new).pop("swapped_out", None) or new.param_groups
    for group, values in zip(optimizer.param_groups, own, strict=True):
        group.update({k: v for k, v in values.items() if k not in _SHARED})
        for key in _SHARED & set(values):
            group.setdefault(key, values[key])
    vars(optimizer)["swapped_out"] = remembered
    new.param_groups = optimizer.param_groups
    if isinstance(new, RuleOptimizer):
        new.carried = _carry(optimizer, new)
    return new


def _carry(old: Optimizer, new: RuleOptimizer) -> tuple[str, ...]:
    """Copy states that mean the same; their names."""
    wanted = [n for n, slot in zip(new._slots, new._program.slots, strict=True) if slot.kind is Kind.TENSOR]
    carried: set[str] = set()
    reads_step = new.text.rule.reads("t") or new.text.rule.reads("first")
    for group in new.param_groups:
        for p in group["params"]:
            theirs = {_ALIASES.get(name, name): value for name, value in old.state.get(p, {}).items()}
            found = {
                name: theirs[name]
                for name in wanted
                if name in MEANINGFUL
                and isinstance(theirs.get(name), Tensor)
                and theirs[name].shape == p.shape
            }
            new.state.pop(p, None)
            if not found or (reads_step and len(found) < len(new._slots)):
                continue
            state = new.state[p]
            new._start(state, p, new._host_values(group, 1))
            state["step"] = int(theirs.get("step", 0))
            for name, value in found.items():
                state[name].copy_(value)
            carried |= set(found)
    return tuple(sorted(carried))


def _as_text(rule: Rule | RuleText | KnownRule | str) -> RuleText:
    match rule:
        case RuleText():
            return rule
        case KnownRule():
            return rule.rule
        case Rule():
            return name_rule(rule)
        case str():
            return parse(rule)
    raise RuleError(f"{rule!r} is no rule", hint="give a Rule, a RuleText or rule text")


class _Registers:
    """One step of a program on one parameter tensor."""

    def __init__(
        self,
        program: Program,
        host: dict[Operand, np.float64],
        g: Tensor,
        w: Tensor,
        old: list[Any],
    ) -> None:
        self.program, self.w = program, w
        self.host = host
        self.old = [value for value in old if isinstance(value, Tensor)]
        self.tensors: dict[Operand, Tensor] = {
            Operand("g"): g,
            Operand("w"): w,
            Operand("is_matrix"): w.new_full((), float(w.ndim == 2)),
        }
        for slot, value in zip(program.slots, old, strict=True):
            if slot.kind is Kind.HOST:
                self.host[slot.old] = np.float64(value)
            else:
                self.tensors[slot.old] = value

    def run(self) -> tuple[Any, list[Any]]:
        """The update, and the next value of every slot."""
        run_host(self.program.host, self.host)
        for phase in self.program.phases:
            for instr in (*phase.scalar, *phase.tensor):
                self.tensors[instr.out] = TORCH_OPS[instr.op](*map(self.read, instr.args))
            for instr in phase.barrier:
                self.tensors[instr.out] = self._barrier(instr)
        return self._kept(self.program.update), [self._kept(slot.next) for slot in self.program.slots]

    def read(self, operand: Operand) -> Any:
        return float(self.host[operand]) if operand.space in HOST_SPACES else self.tensors[operand]

    def _kept(self, operand: Operand) -> Any:
        """A value that outlives the step; a copy where it is a state that may be overwritten first."""
        value = self.read(operand)
        return value.clone() if any(value is other for other in self.old) else value

    def _barrier(self, instr: Instr) -> Tensor:
        args = [self.read(arg) for arg in instr.args]
        if instr.op == "orthogonalize":
            return orthogonalize(args[0]) if args[0].ndim == 2 else args[0]
        if self.w.numel() == 0:
            return self.w.new_zeros(())
        wide = torch.float32 if self.w.device.type == "mps" else torch.float64
        return REDUCTIONS[instr.op](*(arg.reshape(-1).to(wide) for arg in args)).to(self.w.dtype)
