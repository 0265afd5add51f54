"""The program does what the rule says, bit for bit, and its registers never get in each other's way."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ruleforge.backends.reference import StepContext, init_state, update
from ruleforge.core import expr as ex
from ruleforge.core.known import KNOWN
from ruleforge.core.ops import OPS
from ruleforge.core.program import HOST_SPACES, SCALAR_SPACES, Instr, Operand, Program, compile_rule
from ruleforge.core.rule import Kind, Rule
from ruleforge.core.text import parse
from ruleforge.testing import random_rule, rules
from tests.core.literal import Literal, assert_same_bits
from tests.core.streams import tensors


def compiled(text: str) -> Program:
    return compile_rule(parse(text).rule)


def check_against_the_literal_reading(r: Rule, rng: np.random.Generator, dtype: type, edges: float) -> None:
    program, literal = compile_rule(r), Literal(r.canonical, tensors(rng, dtype, edges=0), 0.1)
    w = tensors(rng, dtype, edges=edges)
    defaults = r.canonical.defaults
    state = init_state(program, w, StepContext(t=1, lr=0.1, lr0=0.1, hypers=defaults))
    for t in range(1, 5):
        g = tensors(rng, dtype, edges=edges)
        ctx = StepContext(t=t, lr=0.1 / t, lr0=0.1, progress=t / 5, hypers=defaults)
        found, state = update(program, state, g, w, ctx)
        for u, expected in zip(found, literal.step(g, w, t=t, lr=0.1 / t, progress=t / 5), strict=True):
            assert_same_bits(u, expected, f"update at {t}")
        taken = dict.fromkeys(Kind, 0)
        for kind, held in zip(r.canonical.state_kinds, literal.states, strict=True):
            i, taken[kind] = taken[kind], taken[kind] + 1
            if kind is Kind.HOST:
                assert_same_bits(state.host[i], held, f"host state at {t}")
                continue
            of_tensors = state.scalar if kind is Kind.SCALAR else state.tensor
            for one, expected in zip(of_tensors, held, strict=True):
                assert_same_bits(one[i], expected, f"{kind.label} state at {t}")


@given(
    rules(),
    st.integers(0, 2**32 - 1),
    st.sampled_from([np.float32, np.float64]),
    st.sampled_from([0.0, 0.25]),
)
def test_a_program_computes_what_the_rule_says(r: Rule, seed: int, dtype: type, edges: float) -> None:
    check_against_the_literal_reading(r, np.random.default_rng(seed), dtype, edges)


@pytest.mark.parametrize("first", range(0, 300, 50))
def test_many_more_programs_compute_what_their_rules_say(first: int) -> None:
    for seed in range(first, first + 50):
        rng = np.random.default_rng(seed)
        check_against_the_literal_reading(
            random_rule(rng), rng, (np.float32, np.float64)[seed % 2], 0.2 * (seed % 3)
        )


@pytest.mark.parametrize("name", KNOWN)
def test_known_rules_compute_what_they_say(name: str) -> None:
    check_against_the_literal_reading(KNOWN[name].rule.rule, np.random.default_rng(0), np.float32, 0.0)


# registers


def in_order(program: Program) -> Iterator[tuple[int, str, Instr]]:
    for number, phase in enumerate(program.phases):
        for part in ("scalar", "tensor", "barrier"):
            for instr in getattr(phase, part):
                yield number, part, instr


def check_registers(r: Rule) -> None:
    """Follow each register: every read must see the value of the node that it was compiled from."""
    program = compile_rule(r)
    rule = r.canonical
    kinds = rule.kinds
    holds: dict[Operand, ex.Expr] = {}
    counts = dict.fromkeys(Kind, 0)
    space = {Kind.HOST: "host_state", Kind.SCALAR: "scalar_state", Kind.TENSOR: "tensor_state"}
    for i, kind in enumerate(rule.state_kinds):
        holds[Operand(space[kind], counts[kind])] = ex.state(i)
        counts[kind] += 1
    holds |= {Operand("const", i): ex.const(v) for i, v in enumerate(program.consts)}
    holds |= {Operand("hyper", i): ex.hyper(i) for i in range(program.n_hypers)}

    def value(operand: Operand) -> ex.Expr:
        return holds[operand] if operand in holds else ex.leaf(operand.space)

    for instr in program.host:
        assert instr.out not in holds, "host registers are written once"
        holds[instr.out] = ex.node(instr.op, *map(value, instr.args))
    written: dict[int, set[Operand]] = {}
    for number, part, instr in in_order(program):
        item = ex.node(instr.op, *map(value, instr.args))
        assert item in kinds, f"{instr} computes {item!r}, which is not in the rule"
        is_barrier = OPS[instr.op].kind in ("reduce", "matrix")
        assert is_barrier == (part == "barrier")
        assert instr.out.space == ("scalar" if kinds[item] is Kind.SCALAR else "tensor")
        assert part != "scalar" or kinds[item] is Kind.SCALAR
        assert part != "tensor" or kinds[item] is Kind.TENSOR
        if is_barrier:
            others = [i for i in program.phases[number].barrier if i is not instr]
            assert all(instr.out not in (*i.args, i.out) for i in others), "barriers may run in any order"
            assert instr.out not in instr.args
        written.setdefault(number, set()).add(instr.out)
        holds[instr.out] = item
    assert value(program.update) is rule.update
    assert [value(slot.next) for slot in program.slots] == [s.next for s in rule.states]
    assert all(o.index < program.n_tensor for o in holds if o.space == "tensor")
    assert all(o.index < program.n_scalar for o in holds if o.space == "scalar")
    assert all(o.index < program.n_host for o in holds if o.space == "host")
    assert not program.phases[-1].barrier, "what a barrier yields, a later phase reads or hands out"


@given(rules())
def test_registers_hold_what_is_read(r: Rule) -> None:
    check_registers(r)


@pytest.mark.parametrize("name", KNOWN)
def test_registers_of_known_rules(name: str) -> None:
    check_registers(KNOWN[name].rule.rule)


def test_registers_of_rules_with_many_phases() -> None:
    check_registers(
        parse("""
a = g - mean(g) * w
b = a / norm(a) + orthogonalize(g) * dot(a, w)
c = orthogonalize(b) * rms(b - a) + max_abs(a)
update = c - mean(c * g) * (a + b) + orthogonalize(c) * norm(b)
""").rule
    )


def test_registers_are_reused() -> None:
    item = "g"
    for _ in range(20):
        item = f"exp({item})"
    program = compiled(f"update = {item}")
    assert program.n_tensor == 1 and program.length == 20
    assert compiled("update = (g * w) * (g + w) - (g / w)").n_tensor == 2


# the shape of programs


def test_host_work_stays_on_the_host() -> None:
    program = compiled("update = g * (1 - 0.9 ** t) * lr")
    assert [i.op for i in program.host] == ["pow", "sub"]
    assert program.n_tensor and program.length == 2
    assert {o.space for i in program.host for o in i.args} <= HOST_SPACES


def test_phases_split_at_reductions() -> None:
    program = compiled("update = g / norm(g - mean(g))")
    assert [[i.op for i in phase.barrier] for phase in program.phases] == [["mean"], ["norm"], []]
    assert len(compiled("update = norm(g) * mean(w) * g").phases) == 2


def test_a_rule_that_ends_in_a_reduction_still_has_a_phase_to_end_in() -> None:
    program = compiled("update = norm(g)")
    assert program.update == Operand("scalar", 0) and len(program.phases) == 2
    assert program.update.space in SCALAR_SPACES


def test_rules_without_work() -> None:
    assert compiled("update = g").update == Operand("g") and compiled("update = g").length == 0
    assert compiled("update = 0.5").update == Operand("const", 0)
    assert compiled("update = prev(g)").slots[0].next == Operand("g")


def test_zero_and_minus_zero_are_two_constants() -> None:
    program = compiled("update = maximum(g, 0) / minimum(w, -0.0)")
    assert sorted(map(str, program.consts)) == ["-0.0", "0.0"]


def test_inits_are_host_code_of_their_own() -> None:
    program = compiled("c: hyper(0, 1) = 0.5\nm: state = c * lr0\nm = m + g * (c * lr0)\nupdate = m")
    assert [i.op for i in program.setup] == ["mul"] and [i.op for i in program.host] == ["mul"]
    assert program.setup[0].out != program.host[0].out and program.n_host == 2


def test_programs_of_one_rule_are_equal_and_carry_its_key() -> None:
    a, b = parse("update = g + ema(w, 0.9)").rule, parse("update = ema(w, 0.9) + g").rule
    assert compile_rule(a) == compile_rule(b) and compile_rule(a).key == a.key


def test_a_program_shows_itself() -> None:
    shown = str(
        compiled("c: hyper(0, 1) = 0.5\nm: state = lr0\nm = 0.9 * m + norm(g) * g * c ** t\nupdate = m")
    )
    assert shown.splitlines()[0].startswith("program ")
    for part in (
        "host:",
        "phase 0 barrier:",
        "phase 1 tensor:",
        "norm(g)",
        "hyper[0]",
        "tensor_state[0]",
        "0.9",
        "update =",
    ):
        assert part in shown, shown
