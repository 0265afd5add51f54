"""The Triton kernels against the reference: op by op, program by program, lane by lane.

Without a GPU they run in Triton's interpreter, which executes the same source in numpy (conftest.py sets
`TRITON_INTERPRET`); with one, the same tests run on it. What only the compiler can show is tested by
compiling for a GPU that need not be there.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("triton")

from ruleforge.backends import reference, triton_lanes, triton_math
from ruleforge.backends.base import LaneGroup, Layout, run_host
from ruleforge.backends.host_lanes import HostLanes
from ruleforge.backends.numba_code import encode
from ruleforge.backends.reference import RuleState, StepContext
from ruleforge.backends.triton_interpreter import quick_interpreter
from ruleforge.backends.triton_lanes import StraightLanes, TritonLanes
from ruleforge.core.known import KNOWN
from ruleforge.core.ops import CORE, OPS
from ruleforge.core.program import Instr, Operand, Phase, Program, compile_rule
from ruleforge.core.rule import Rule
from ruleforge.errors import RunError
from tests.backends.test_numba_lanes import (
    ELEMENTWISE,
    INEXACT,
    REDUCE,
    bad_calls,
    flat,
    hard_numbers,
    joined,
    numbers,
    pieces,
    program_of,
    random_rule,
    reference_step,
    same_bits,
    ulps,
)


@pytest.fixture(scope="module", autouse=True)
def quick() -> Iterator[None]:
    with quick_interpreter():
        yield


LAYOUT = Layout(("a", "b", "c", "d"), ((7, 5), (3,), (0, 4), (150, 9)))
SMALL = Layout(("a", "b"), ((4, 3), (5,)))
Lane = tuple[Program, Sequence[float]]


def make_plane(
    lanes: Sequence[Lane], layout: Layout, lr0: Any = None, plane: type[TritonLanes] = TritonLanes
) -> TritonLanes:
    """A plane with one lane for each program."""
    groups = [LaneGroup(p, 1, np.array(h, np.float64).reshape(-1, 1)) for p, h in lanes]
    return plane(groups, layout, np.ones(len(groups)) if lr0 is None else lr0)


def on_device(array: Any) -> torch.Tensor:
    return torch.from_numpy(np.array(array)).to(triton_lanes.default_device())


def step(plane: TritonLanes, w: Any, g: Any, **options: Any) -> tuple[Any, Any]:
    """Weights after one step, and the updates."""
    weights = on_device(w)
    updates = torch.full_like(weights, 7.0)
    known = {"t": 1, "lr": np.full(len(w), 0.1), "progress": 0.5, "updates": updates}
    plane.step(weights, on_device(g), **{**known, **options})
    return weights.cpu().numpy(), updates.cpu().numpy()


def known_lane(name: str) -> Lane:
    rule = KNOWN[name].rule.rule
    return compile_rule(rule), rule.canonical.defaults


# one op


@pytest.mark.parametrize("op", ELEMENTWISE)
def test_op_on_tiles_and_numbers(op: str) -> None:
    """Exact ops bit for bit; the others within 1 ulp of the true value, numpy's own float32 within 5."""
    rng = np.random.default_rng(sum(op.encode()))
    layout = Layout(("x",), ((601,),))
    kinds = {1: ["t"], 2: ["tt", "ts"], 3: ["ttt", "tst", "sst"]}[OPS[op].arity]
    plane = make_plane([program_of(op, kind) for kind in kinds], layout)
    w, g, s = (np.stack([hard_numbers(rng, 601) for _ in kinds]) for _ in range(3))
    plane.load_states([RuleState((), ((),), ((row,),)) for row in s])
    _, made = step(plane, w, g)
    for row, kind in enumerate(kinds):
        tiles, singles = iter([g[row], w[row], s[row]]), iter([0.7, -1.3, 0.0])
        args = [next(tiles) if k == "t" else np.float32(next(singles)) for k in kind]
        with np.errstate(all="ignore"):
            expected = np.broadcast_to(OPS[op].meaning(*args), 601)
            true = OPS[op].meaning(*(np.asarray(a, np.float64) for a in args)).astype(np.float32)
        if op in INEXACT:
            apart = ulps(made[row], np.broadcast_to(true, 601))
            assert apart.max() <= 1, (op, kind, [a[apart.argmax()] for a in args if np.ndim(a)])
        # numpy's float32 pow and hypot say NaN where IEEE, and numpy's float64, have a number
        there = np.isnan(expected) == np.isnan(np.broadcast_to(true, 601))
        assert there.mean() > 0.99
        assert ulps(made[row], expected)[there].max() <= (5 if op in INEXACT else 0), (op, kind)


@pytest.mark.parametrize("op", ["sin", "cos", "tan"])
def test_angles_of_all_sizes(op: str) -> None:
    """The integer reduction takes over at 2²⁸; float64 numpy is right for every float32 angle."""
    edges = np.array([2.0**28, np.nextafter(np.float32(2.0**28), np.float32(0)), 2.0**31, 3.4e38], np.float32)
    spread = np.exp(np.linspace(np.log(1e-30), np.log(3.4e38), 1000)).astype(np.float32)
    angles = np.concatenate([edges, -edges, spread, -spread])[None]
    plane = make_plane([program_of(op, "t")], Layout(("x",), (angles.shape[1:],)))
    _, made = step(plane, np.zeros_like(angles), angles)
    assert ulps(made, OPS[op].meaning(angles.astype(np.float64)).astype(np.float32)).max() <= 1


@pytest.mark.parametrize("op", REDUCE)
@pytest.mark.parametrize("bad", [None, np.nan, np.inf])
def test_reductions(op: str, bad: float | None) -> None:
    rule = Rule.parse(f"update = g * {op}({'g, w' if OPS[op].arity == 2 else 'g * 1.5'})")
    rng = np.random.default_rng(1)
    w, g = numbers(rng, 2, LAYOUT.n_weights), numbers(rng, 2, LAYOUT.n_weights)
    if bad is not None:
        g[1, [3, 700]] = bad
    _, made = step(make_plane([(compile_rule(rule), ())] * 2, LAYOUT), w, g)
    for row in range(2):
        empty = RuleState((), ((),) * 4, ((),) * 4)
        expected, _ = reference_step(compile_rule(rule), LAYOUT, empty, g[row], w[row], StepContext(1))
        assert ulps(made[row], expected).max(initial=0) <= 1


def test_every_core_op_is_covered() -> None:
    covered = {*triton_math.ELEMENTWISE, *REDUCE, *triton_lanes._MATRIX_OPS}
    assert set(CORE) == covered


# programs


def agree_bit_for_bit(seeds: Sequence[int], plane_type: type[TritonLanes], n_steps: int = 3) -> None:
    """Lanes with different programs in one chunk, each step from the reference's states."""
    rng = np.random.default_rng(seeds[0])
    programs = [compile_rule(random_rule(np.random.default_rng(seed), exact=True)) for seed in seeds]
    hypers = [rng.uniform(0.1, 0.9, p.n_hypers) for p in programs]
    lr0 = rng.uniform(0.1, 1, len(programs))
    plane = make_plane(list(zip(programs, hypers, strict=True)), SMALL, lr0, plane_type)
    zeros = pieces(SMALL, np.zeros(SMALL.n_weights, np.float32))
    states = [
        reference.init_state(p, zeros, StepContext(1, lr0=r, hypers=tuple(h)))
        for p, h, r in zip(programs, hypers, lr0, strict=True)
    ]
    assert [flat(s).tolist() for s in plane.states()] == [flat(s).tolist() for s in states]
    for t in range(1, n_steps + 1):
        w, g = numbers(rng, len(programs), SMALL.n_weights), numbers(rng, len(programs), SMALL.n_weights)
        lr, decay = rng.uniform(0.1, 1, len(programs)), rng.choice([0.0, 0.01], len(programs))
        plane.load_states(states)
        after, made = step(plane, w, g, t=t, lr=lr, progress=t / 3, weight_decay=decay)
        ends = plane.states()
        for i, program in enumerate(programs):
            ctx = StepContext(t, lr[i], lr0[i], t / 3, tuple(hypers[i]))
            expected, states[i] = reference_step(program, SMALL, states[i], g[i], w[i], ctx)
            assert ulps(made[i], expected).max(initial=0) == 0, (seeds[i], t, str(program))
            assert ulps(flat(ends[i]), flat(states[i])).max(initial=0) == 0, (seeds[i], t, str(program))
            with np.errstate(all="ignore"):
                moved = reference.apply_update(w[i], expected, lr[i], decay[i])
            assert ulps(after[i], moved).max(initial=0) == 0


@pytest.mark.parametrize("plane", [TritonLanes, StraightLanes])
def test_random_programs_of_exact_ops_agree_bit_for_bit(plane: type[TritonLanes]) -> None:
    agree_bit_for_bit(range(10), plane, n_steps=1 if plane is StraightLanes else 2)


@pytest.mark.slow
@pytest.mark.parametrize("start", range(12, 72, 12))
def test_more_random_programs(start: int) -> None:
    agree_bit_for_bit(range(start, start + 12), TritonLanes)


def near(made: Any, expected: Any, program: Program) -> bool:
    """Within 2e-5 of each element; after matrix products, whose order libraries choose, of the largest."""
    multiplies = any(OPS[i.op].kind == "matrix" for phase in program.phases for i in phase.barrier)
    floor = (1.0 if multiplies else 1e-3) * np.abs(expected).max(initial=0)
    return bool((np.abs(made - expected) <= 2e-5 * np.maximum(np.abs(expected), floor)).all())


def check_known(
    names: Sequence[str], layout: Layout, n_steps: int, plane: type[TritonLanes], first: int = 1
) -> None:
    """Known rules as lanes of one chunk, each step from `first` on, from the reference's states."""
    lanes = [known_lane(name) for name in names]
    rng = np.random.default_rng(3)
    made_plane = make_plane(lanes, layout, np.full(len(lanes), 0.1), plane)
    states = made_plane.states()
    for t in range(1, n_steps + 1):
        w, g = numbers(rng, len(lanes), layout.n_weights), numbers(rng, len(lanes), layout.n_weights)
        if t >= first:
            made_plane.load_states(states)
            _, made = step(made_plane, w, g, t=t, progress=t / n_steps)
            ends = made_plane.states()
        for i, (program, hypers) in enumerate(lanes):
            ctx = StepContext(t, 0.1, 0.1, t / n_steps, tuple(hypers))
            expected, states[i] = reference_step(program, layout, states[i], g[i], w[i], ctx)
            if t < first:
                continue
            assert near(made[i], expected, program), (names[i], t)
            np.testing.assert_allclose(flat(ends[i]), flat(states[i]), rtol=2e-5, atol=1e-7, err_msg=names[i])


NAMES = sorted(KNOWN)


@pytest.mark.parametrize("first", range(0, len(NAMES), 12))
def test_known_rules(first: int) -> None:
    check_known(NAMES[first : first + 12], SMALL, 2, TritonLanes, first=2)


@pytest.mark.slow
@pytest.mark.parametrize("first", range(0, len(NAMES), 12))
@pytest.mark.parametrize("plane", [TritonLanes, StraightLanes])
def test_known_rules_on_more_tiles(first: int, plane: type[TritonLanes]) -> None:
    check_known(NAMES[first : first + 12], LAYOUT, 3, plane)


@pytest.mark.slow
@pytest.mark.parametrize("start", range(0, 60, 10))
def test_random_programs_agree(start: int) -> None:
    """Over all ops: within the numba plane's figures, which its own tests hold to the reference."""
    from ruleforge.backends.numba_lanes import NumbaLanes

    programs = [compile_rule(random_rule(np.random.default_rng(s), False)) for s in range(start, start + 10)]
    rng = np.random.default_rng(start)
    groups = [LaneGroup(p, 1, rng.uniform(0.1, 0.9, (p.n_hypers, 1))) for p in programs]
    ours, theirs = (plane(groups, LAYOUT, np.full(10, 0.1)) for plane in (TritonLanes, NumbaLanes))
    n_beyond = n_all = 0
    for t in (1, 2):
        w, g = numbers(rng, 10, LAYOUT.n_weights), numbers(rng, 10, LAYOUT.n_weights)
        ours.load_states(theirs.states())
        _, made = step(ours, w, g, t=t)
        expected = torch.zeros(w.shape)
        theirs.step(
            torch.from_numpy(w.copy()), torch.from_numpy(g), t=t, lr=np.full(10, 0.1), progress=0.5,
            updates=expected,
        )  # fmt: skip
        ends = zip(ours.states(), theirs.states(), strict=True)
        for mine, other in ((made, expected.numpy()), *((flat(a), flat(b)) for a, b in ends)):
            n_beyond += (ulps(mine, other) > 16).sum()
            n_all += mine.size
    assert n_beyond <= 0.01 * n_all, (n_beyond, n_all)


def test_straight_code_gives_the_interpreters_bits() -> None:
    """The same forms in the same order, so the same numbers, reductions and matrix ops included."""
    lanes = [known_lane(name) for name in ("adam", "lamb", "muon", "lion", "adam")]
    rng = np.random.default_rng(4)
    w, g = numbers(rng, 5, LAYOUT.n_weights), numbers(rng, 5, LAYOUT.n_weights)
    planes = [make_plane(lanes, LAYOUT, plane=plane) for plane in (TritonLanes, StraightLanes)]
    for t in (1, 2):
        made = [step(plane, w, g, t=t) for plane in planes]
        assert same_bits(made[0][0], made[1][0]) and same_bits(made[0][1], made[1][1])


# lanes


MIXED = ["adam", "lamb", "muon", "radam"]


def mixed_run(order: Sequence[int], poison: int | None = None, n_steps: int = 1) -> list[bytes]:
    """Weights and states of lanes that run different rules, laid out in an order, indexed by lane."""
    rng = np.random.default_rng(5)
    layout = Layout(("a", "b"), ((15, 9), (520,)))
    w, g = numbers(rng, len(MIXED), layout.n_weights), numbers(rng, len(MIXED), layout.n_weights)
    lr = rng.uniform(0.001, 0.1, len(MIXED))
    if poison is not None:
        g[poison, ::3] = np.nan
    plane = make_plane([known_lane(MIXED[lane]) for lane in order], layout, lr[list(order)])
    weights, grads = on_device(w[list(order)]), on_device(g[list(order)])
    for t in range(1, n_steps + 1):
        plane.step(weights, grads, t=t, lr=lr[list(order)], progress=t / n_steps)
    found = {
        lane: weights[i].cpu().numpy().tobytes() + flat(state).tobytes()
        for i, (lane, state) in enumerate(zip(order, plane.states(), strict=True))
    }
    return [found.get(lane, b"") for lane in range(len(MIXED))]


def test_a_lane_depends_on_itself_alone() -> None:
    lanes = range(len(MIXED))
    alone = [mixed_run([lane])[lane] for lane in lanes]
    assert mixed_run([3, 1, 0, 2]) == alone
    for sick in (1, 2):
        poisoned = mixed_run(lanes, poison=sick)
        assert [p == a for p, a in zip(poisoned, alone, strict=True)] == [lane != sick for lane in lanes]


@pytest.mark.parametrize("shapes", [(), ((0,),), ((1,),), ((0, 3), (2,)), ((), ()), ((511,), (512,), (513,))])
@pytest.mark.parametrize("name", ["adam", "lamb", "muon"])
def test_odd_shapes(name: str, shapes: tuple[tuple[int, ...], ...]) -> None:
    layout = Layout(tuple(f"p{i}" for i in range(len(shapes))), shapes)
    program, hypers = known_lane(name)
    rng = np.random.default_rng(8)
    w, g = numbers(rng, 1, layout.n_weights), numbers(rng, 1, layout.n_weights)
    plane = make_plane([(program, hypers)], layout)
    start = plane.states()[0]
    _, made = step(plane, w, g)
    ctx = StepContext(1, 0.1, 1.0, 0.5, tuple(hypers))
    expected, _ = reference.update(program, start, pieces(layout, g[0]), pieces(layout, w[0]), ctx)
    if shapes:
        np.testing.assert_allclose(made[0], joined(expected), rtol=1e-5, atol=1e-6)


def test_no_lanes_and_weights_that_are_not_asked_for() -> None:
    empty = TritonLanes([], SMALL, np.ones(0))
    step(
        empty,
        np.zeros((0, SMALL.n_weights), np.float32),
        np.zeros((0, SMALL.n_weights), np.float32),
        lr=np.ones(0),
    )
    rng = np.random.default_rng(11)
    w, g = numbers(rng, 2, SMALL.n_weights), numbers(rng, 2, SMALL.n_weights)
    lanes = [known_lane("adam"), known_lane("lamb")]
    after, made = step(make_plane(lanes, SMALL), w, g)
    quiet, untouched = step(make_plane(lanes, SMALL), w, g, updates=None)
    assert same_bits(after, quiet)
    assert (untouched == 7).all()
    assert same_bits(after, w - np.float32(0.1) * made)


# host numbers


@given(st.integers(0, 10_000), st.integers(1, 4))
@settings(max_examples=40)
def test_host_code_of_many_lanes_is_the_tables_own(seed: int, n_programs: int) -> None:
    """Random host programs side by side, against one lane after the other, bit for bit."""
    rng = np.random.default_rng(seed)
    groups = []
    for _ in range(n_programs):
        code, places = [], [Operand("hyper", 0), Operand("hyper", 1), Operand("t"), Operand("const", 0)]
        for index in range(rng.integers(1, 6)):
            op = str(rng.choice(ELEMENTWISE))
            out = Operand("host", index)
            code.append(Instr(op, out, tuple(places[rng.integers(len(places))] for _ in OPS[op].params)))
            places.append(out)
        tensor, out = Operand("tensor", 0), code[-1].out
        phase = Phase(tensor=(Instr("mul", tensor, (out, Operand("g"))),))
        program, _ = program_of("mul", "tt")
        program = replace(
            program, n_hypers=2, host=tuple(code), phases=(phase,), update=tensor, n_host=len(code)
        )
        n_lanes = int(rng.integers(1, 4))
        groups.append(LaneGroup(program, n_lanes, rng.uniform(0.1, 2, (2, n_lanes))))
    codes = [encode(group.program) for group in groups]
    n_lanes = sum(group.n_lanes for group in groups)
    host = HostLanes(groups, codes, np.ones(n_lanes))
    rounded = host.step(3, np.full(n_lanes, 0.1), 0.5, 0.0)
    lane = 0
    for group, code in zip(groups, codes, strict=True):
        for k in range(group.n_lanes):
            values: dict[Operand, Any] = {Operand("t"): np.float64(3), Operand("const", 0): np.float64(0)}
            values |= {Operand("hyper", i): np.float64(group.hypers[i, k]) for i in range(2)}
            run_host(group.program.host, values)
            last = np.float32(values[group.program.host[-1].out])
            assert ulps(rounded[host.rounded_at[lane] + len(code.rounds) - 1 :][:1], last) == 0
            lane += 1


# the edge


@pytest.mark.parametrize(("wrong", "message"), list(bad_calls()))
def test_a_wrong_call_is_refused(wrong: dict[str, Any], message: str) -> None:
    plane = make_plane([(compile_rule(Rule.parse("update = g")), ())] * 2, SMALL)
    device = triton_lanes.default_device()
    given_args: dict[str, Any] = {
        "weights": torch.zeros(2, 17),
        "grads": torch.zeros(2, 17),
        "lr": np.ones(2),
        **wrong,
    }
    moved = {k: v.to(device) if isinstance(v, torch.Tensor) else v for k, v in given_args.items()}
    if given_args.get("updates") is given_args["weights"]:
        moved["updates"] = moved["weights"]
    with pytest.raises(RunError, match=message):
        plane.step(moved.pop("weights"), moved.pop("grads"), t=1, progress=0.5, **moved)


def test_wrong_planes_and_states_are_refused() -> None:
    program, defaults = known_lane("adam")
    hypers = np.array(defaults).reshape(-1, 1)
    with pytest.raises(RunError, match="hypers"):
        TritonLanes([LaneGroup(program, 2, hypers)], SMALL, np.ones(2))
    with pytest.raises(RunError, match="lr0"):
        TritonLanes([LaneGroup(program, 1, hypers)], SMALL, np.ones(2))
    with pytest.raises(RunError, match="float64"):
        TritonLanes([LaneGroup(program, 1, hypers)], SMALL, np.ones(1), torch.float64)
    plane = TritonLanes([LaneGroup(program, 1, hypers)], SMALL, np.ones(1))
    with pytest.raises(RunError, match="2 lanes"):
        plane.load_states(plane.states() * 2)
    with pytest.raises(RunError, match="lane 0"):
        plane.load_states([RuleState((), ((), ()), ((), ()))])


def run_without_interpreter(code: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Run Python in a process that sees neither a GPU nor Triton's interpreter."""
    clean = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    clean |= {"CUDA_VISIBLE_DEVICES": "", **env}
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=300, env=clean
    )


def test_without_a_gpu_it_says_so() -> None:
    code = "from ruleforge.backends.triton_lanes import warm_up; warm_up()"
    done = run_without_interpreter(code)
    assert done.returncode == 1
    assert "InputError: the triton plane needs a GPU" in done.stderr


COMPILE = """
import json, re, sys
import numpy as np, torch, triton
from triton.backends.compiler import GPUTarget
from ruleforge.backends import triton_kernels as tk, triton_lanes as tl
from ruleforge.backends.base import LaneGroup, Layout
from ruleforge.core.known import known
from ruleforge.core.program import compile_rule

class Target:
    def get_current_target(self): return GPUTarget("cuda", 90, 32)
    def get_current_device(self): return 0
    def get_current_stream(self, device): return 0
triton.runtime.driver.set_active(Target())
made = {}
class Compiled:
    def __init__(self, kernel): self.kernel = kernel
    def __getitem__(self, grid):
        def run(*args, **options):
            done = self.kernel.warmup(*args, grid=grid, **options)
            made.setdefault(self.kernel.__name__, []).append(done.asm["ptx"])
        return run
for name in ("step_tiles", "step_scalars", "step_straight"):
    setattr(tk, name, Compiled(getattr(tk, name)))
tl.interpreted = lambda: True
for plane in (tl.TritonLanes, tl.StraightLanes):
    groups = []
    for name in ("adam", "lamb", "muon"):
        rule = known(name).rule.rule
        groups.append(LaneGroup(compile_rule(rule), 1, np.array(rule.canonical.defaults).reshape(-1, 1)))
    lanes = plane(groups, Layout(("a", "b"), ((15, 9), (520,))), np.ones(3))
    w = torch.zeros(3, 655)
    lanes.step(w, w.clone(), t=1, lr=np.ones(3), progress=1.0)
texts = [text for group in made.values() for text in group]
words = "|".join(("fma", "mad[.]f", "approx", "div[.]full", "ftz", "rsqrt"))
bad = sorted({line.split()[0] for t in texts for line in t.splitlines() if re.search(words, line)})
print(json.dumps({"kernels": {k: len(v) for k, v in made.items()}, "bad": bad}))
"""


@pytest.mark.slow
def test_the_kernels_compile_for_a_gpu_and_round_as_the_table_says(tmp_path: Path) -> None:
    """No fused multiply-add, no approximate division or root, no flushed denormals in the machine code.

    `cvt.rmi.ftz` is `floor`, whose form allows for it.
    """
    done = run_without_interpreter(COMPILE, TRITON_CACHE_DIR=str(tmp_path))
    assert done.returncode == 0, done.stderr
    report = __import__("json").loads(done.stdout)
    assert set(report["kernels"]) == {"step_tiles", "step_scalars", "step_straight"}
    assert set(report["bad"]) <= {"cvt.rmi.ftz.f32.f32"}
