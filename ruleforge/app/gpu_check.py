"""`make gpu-check`: is this GPU right, and how fast is it?

Four parts, ten minutes at most: every op and all known rules against the definition; the fused kernels of
exported optimizers; lane-steps a second of the update plane, the gradient plane and both, by number of lanes
and by mode; a search with `search_configs/gpu.toml`. Prints tables and writes all figures as JSON.

`--dry-run` walks through the same code at a tiny size in Triton's interpreter on a machine without a GPU,
to test the check itself; its times mean nothing and are not printed.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

STEP_LANES = (32, 64, 128, 256, 512, 1024, 2048, 4096)
DRY_LANES = (1,)
TIMES_S = {"update": 120.0, "gradient": 150.0, "search": 90.0}
SEED = 0


def main(argv: Sequence[str] | None = None) -> int:
    """Run the check; 0 if everything agrees, 1 if not, 2 without a GPU."""
    parser = argparse.ArgumentParser(prog="gpu-check", description=__doc__.split("\n")[0])
    parser.add_argument("--json", type=Path, default=Path("results/gpu-check.json"), metavar="FILE")
    parser.add_argument(
        "--dry-run", action="store_true", help="a tiny size, without a GPU; times mean nothing"
    )
    parser.add_argument("--no-search", action="store_true", help="leave the search out")
    given = parser.parse_args(argv)
    if given.dry_run:
        os.environ["TRITON_INTERPRET"] = "1"  # before triton is imported
    import torch

    if not given.dry_run and not torch.cuda.is_available():
        print("gpu-check: torch sees no CUDA device, so nothing was checked", file=sys.stderr)
        print("to try the check itself without one: add --dry-run", file=sys.stderr)
        return 2
    from ruleforge.backends.triton_interpreter import quick_interpreter

    with quick_interpreter():
        return _check(given.json, dry=given.dry_run, searches=not given.no_search)


def _check(found: Path, *, dry: bool, searches: bool) -> int:
    began = time.monotonic()
    report: dict[str, Any] = {"device": _device(dry), "dry_run": dry}
    _title(f"Correctness on {report['device']['name']}, against the definition")
    report["correctness"] = correctness(dry=dry)
    ok = not report["correctness"]["wrong"]
    from ruleforge.app.gpu_exports import exported_kernels

    _title("Exported optimizers with fused=True")
    report["exported"] = exported_kernels(dry=dry)
    ok &= not report["exported"]["wrong"]
    _title("Update plane: 2,410 weights a lane")
    report["update_plane"] = update_plane(dry=dry)
    _title("Gradient plane, and whole steps with different rules")
    report["gradient_plane"] = gradient_plane(dry=dry)
    if searches:
        _title("A search with search_configs/gpu.toml")
        report["search"] = small_search(dry=dry)
        ok &= report["search"]["problem"] == ""
    report["wall_s"] = time.monotonic() - began
    found.parent.mkdir(parents=True, exist_ok=True)
    found.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    _title(f"{'All agree' if ok else 'SOMETHING IS WRONG'}; figures in {found}")
    return 0 if ok else 1


def _title(text: str) -> None:
    print(f"\n{text}", flush=True)


def _device(dry: bool) -> dict[str, Any]:
    import torch
    import triton

    facts: dict[str, Any] = {"torch": torch.__version__, "triton": triton.__version__}
    facts["python"] = platform.python_version()
    if dry:
        return {"name": "Triton's interpreter (dry run)", **facts}
    found = torch.cuda.get_device_properties(0)
    return {
        "name": found.name, "memory_bytes": found.total_memory, "processors": found.multi_processor_count,
        "capability": f"{found.major}.{found.minor}", "cuda": torch.version.cuda, **facts,
    }  # fmt: skip


# correctness


def correctness(*, dry: bool) -> dict[str, Any]:
    """Every op, every reduction and all known rules on the device, one step at a time."""
    from ruleforge.backends.triton_lanes import StraightLanes, TritonLanes
    from ruleforge.core.known import KNOWN
    from ruleforge.core.ops import CORE

    ops = CORE if not dry else ("add", "exp", "norm")
    names = sorted(KNOWN) if not dry else ["adam", "lamb"]
    wrong, worst = [], {}
    for op in ops:
        worst[op] = _op_error(op, 20_000 if not dry else 40)
        if worst[op] > 2:
            wrong.append(f"op {op}: {worst[op]:.0f} ulps from the true value")
    rules = {}
    for plane in (TritonLanes, StraightLanes):
        for name in names:
            error = _rule_error(name, plane, 3 if not dry else 1, dry)
            rules[f"{name}, {plane.__name__}"] = error
            if not error <= 1:
                wrong.append(f"rule {name} on {plane.__name__}: {error:.3g} times the tolerance")
    print(f"  {len(ops)} ops, {len(names)} known rules on two planes: {len(wrong)} wrong")
    print(
        "\n".join(f"  WRONG {each}" for each in wrong)
        if wrong
        else f"  worst op: {max(worst.values()):.0f} ulps"
    )
    return {"ops_ulps": worst, "rules_error": rules, "wrong": wrong}


def _op_error(op: str, n: int) -> float:
    """Largest distance of an op on the device from its meaning, in float64 or float32, in last places."""
    import numpy as np

    from ruleforge.backends.base import Layout
    from ruleforge.core.ops import OPS
    from ruleforge.core.rule import Rule

    rng = np.random.default_rng(SEED)
    names = ("g", "w", "s")[: OPS[op].arity]
    texts = {"s": "s: state = 0\n"} if "s" in names else {}
    args = ", ".join(names)
    call = f"{op}({args})" if not OPS[op].symbol else _infix(OPS[op].symbol, names)
    rule = Rule.parse("".join(texts.values()) + f"update = {call}\n" + ("s = w * g\n" if texts else ""))
    layout = Layout(("x",), ((n // 20, 20),))
    values = {name: _numbers(rng, n, gentle=OPS[op].kind != "elementwise") for name in ("g", "w", "s")}
    made, _, _ = _one_step(rule, layout, values)
    meaning: Any = OPS[op].meaning
    arrays = [values[name].reshape(layout.shapes[0]) for name in names]
    with np.errstate(all="ignore"):
        true = meaning(*(a.astype(np.float64) for a in arrays))
        rounded, literal = (
            np.broadcast_to(np.asarray(v, np.float32), arrays[0].shape).reshape(-1)
            for v in (true, meaning(*arrays))
        )
        if OPS[op].kind == "matrix":  # products in another order: in 1e-5 of the largest element
            return float(np.abs(made - rounded).max() / np.abs(rounded).max() / 1e-5)
        return float(np.minimum(*(_ulps(made, wanted) for wanted in (rounded, literal))).max())


def _ulps(made: Any, wanted: Any) -> Any:
    """Distance in units of the last place; infinite where one is NaN and the other is not."""
    import numpy as np

    same = (made == wanted) | (np.isnan(made) & np.isnan(wanted))
    apart = np.abs(made.astype(np.float64) - wanted) / np.spacing(np.abs(wanted))
    return np.nan_to_num(np.where(same, 0.0, apart), nan=np.inf)


def _infix(symbol: str, names: Sequence[str]) -> str:
    return f"{names[0]} {symbol} {names[1]}" if len(names) == 2 else f"{symbol}{names[0]}"


def _numbers(rng: Any, n: int, *, gentle: bool) -> Any:
    """Float32 numbers: of all magnitudes with the special ones, or of ordinary size."""
    import numpy as np

    plain = rng.standard_normal(n).astype(np.float32)
    if gentle:
        return plain
    special = np.array(
        [0, -0.0, 1, -1, np.inf, -np.inf, np.nan, 0.5, 2, 3, 3e38, -3e9, 88.7, -104], np.float32
    )
    wild = np.exp(rng.uniform(-60, 60, n)).astype(np.float32) * np.sign(plain)
    return np.where(rng.random(n) < 0.1, rng.choice(special, n), np.where(rng.random(n) < 0.5, plain, wild))


def _one_step(rule: Any, layout: Any, values: dict[str, Any]) -> tuple[Any, Any, Any]:
    """Update, program and states of a step on the device, from `values` of g, w and the first state."""
    import numpy as np
    import torch

    from ruleforge.backends.base import LaneGroup
    from ruleforge.backends.reference import RuleState
    from ruleforge.backends.triton_lanes import TritonLanes
    from ruleforge.core.program import compile_rule

    program = compile_rule(rule)
    plane = TritonLanes([LaneGroup(program, 1, np.zeros((0, 1)))], layout, np.ones(1))
    if program.slots:
        plane.load_states([RuleState((), ((),), ((values["s"].reshape(layout.shapes[0]),),))])
    w, g = (torch.from_numpy(values[name][None].copy()).to(plane.device) for name in ("w", "g"))
    u = torch.empty_like(w)
    plane.step(w, g, t=1, lr=np.ones(1), progress=1.0, updates=u)
    return u[0].cpu().numpy(), program, plane.states()


def _rule_error(name: str, plane_type: Any, n_steps: int, dry: bool) -> float:
    """Largest error of a known rule's updates, in units of the tolerance: 2e-5 of their size."""
    import numpy as np
    import torch

    from ruleforge.backends import reference
    from ruleforge.backends.base import LaneGroup, Layout
    from ruleforge.core.known import known
    from ruleforge.core.ops import OPS
    from ruleforge.core.program import compile_rule

    layout = Layout(("a", "b", "c"), ((70, 50), (30,), (7,)) if not dry else ((4, 3), (5,), ()))
    rule = known(name).rule.rule
    program, hypers = compile_rule(rule), tuple(rule.canonical.defaults)
    rng = np.random.default_rng(SEED)
    # Libraries choose the order of matrix products: after one, errors are measured by the largest element.
    multiplies = any(OPS[i.op].kind == "matrix" for phase in program.phases for i in phase.barrier)
    floor = 1.0 if multiplies else 1e-3
    plane = plane_type([LaneGroup(program, 1, np.array(hypers).reshape(-1, 1))], layout, np.full(1, 0.1))
    states, worst, bounds = plane.states(), 0.0, layout.offsets

    def pieces(flat: Any) -> list[Any]:
        parts = zip(layout.shapes, bounds[:-1], bounds[1:], strict=True)
        return [flat[lo:hi].reshape(shape) for shape, lo, hi in parts]

    for t in range(1, n_steps + 1):
        w, g = (rng.standard_normal(layout.n_weights).astype(np.float32) for _ in range(2))
        plane.load_states(states)
        weights, grads = (torch.from_numpy(v[None].copy()).to(plane.device) for v in (w, g))
        made = torch.empty_like(weights)
        plane.step(weights, grads, t=t, lr=np.full(1, 0.1), progress=t / n_steps, updates=made)
        ctx = reference.StepContext(t, 0.1, 0.1, t / n_steps, hypers)
        updates, after = reference.update(program, states[0], pieces(g), pieces(w), ctx)
        expected = np.concatenate([part.reshape(-1) for part in updates])
        size = np.maximum(np.abs(expected), floor * np.abs(expected).max())
        error = np.abs(made[0].cpu().numpy() - expected) / np.maximum(2e-5 * size, 1e-12)
        worst = max(worst, float(np.nan_to_num(error, nan=np.inf).max()))
        states = [after]
    return worst


# speed


def _timed(step: Callable[[], Any], dry: bool) -> float:
    """Median seconds of a step on the device: five blocks of steps, after a warm-up."""
    import torch

    if dry:
        step()
        return float("nan")
    for _ in range(3):
        step()
    torch.cuda.synchronize()
    blocks = []
    for _ in range(5):
        began = time.perf_counter()
        for _ in range(20):
            step()
        torch.cuda.synchronize()
        blocks.append((time.perf_counter() - began) / 20)
    return sorted(blocks)[2]


def _lanes_of(names: Sequence[str], n: int, layout: Any, plane: Any) -> Any:
    """A plane of n lanes, known rules in turn, lanes of a rule side by side."""
    import numpy as np
    import torch

    from ruleforge.backends.base import LaneGroup
    from ruleforge.core.known import known
    from ruleforge.core.program import compile_rule

    groups = []
    for k, name in enumerate(names):
        count = n // len(names) + (k < n % len(names))
        rule = known(name).rule.rule
        hypers = np.repeat(np.array(rule.canonical.defaults, float).reshape(-1, 1), count, axis=1)
        if count:
            groups.append(LaneGroup(compile_rule(rule), count, hypers))
    if plane.__name__ == "TorchLanes":
        return plane(groups, layout, np.full(n, 1e-3), torch.float32, "cuda")
    return plane(groups, layout, np.full(n, 1e-3))


MIXED = ("adam", "lion", "adabelief", "nadam", "rmsprop", "lamb", "radam", "sgd")


def update_plane(*, dry: bool) -> list[dict[str, Any]]:
    """Lane-steps a second of the update plane alone, by plane, rules and number of lanes."""
    import numpy as np
    import torch

    from ruleforge.backends.base import Layout
    from ruleforge.backends.torch_lanes import TorchLanes
    from ruleforge.backends.triton_lanes import StraightLanes, TritonLanes

    layout = Layout(("w1", "b1", "w2", "b2"), ((64, 32), (32,), (32, 10), (10,)))
    if dry:
        layout = Layout(("w",), ((4, 3),))
    rows: list[dict[str, Any]] = []
    cases = [
        ("interpreter", TritonLanes, ("adam",)), ("interpreter", TritonLanes, MIXED),
        ("straight", StraightLanes, ("adam",)), ("straight", StraightLanes, MIXED),
        ("torch", TorchLanes, ("adam",)), ("torch", TorchLanes, MIXED),
    ]  # fmt: skip
    deadline = time.monotonic() + TIMES_S["update"]
    for label, kind, names in cases[: 1 if dry else None]:
        for n in DRY_LANES if dry else STEP_LANES:
            if time.monotonic() > deadline:
                break
            began = time.perf_counter()
            plane = _lanes_of(names[:2] if dry else names, n, layout, kind)
            device = "cpu" if dry else "cuda"
            w, g = (torch.randn(n, layout.n_weights, device=device) * 0.01 for _ in range(2))
            lr = np.full(n, 1e-3)

            def step(plane: Any = plane, w: Any = w, g: Any = g, lr: Any = lr) -> None:
                plane.step(w, g, t=2, lr=lr, progress=0.5)

            step()
            first_s = time.perf_counter() - began
            seconds = _timed(step, dry)
            row = {
                "plane": label,
                "rules": len(names),
                "lanes": n,
                "first_step_s": first_s,
                "step_s": seconds,
            }
            if not dry:
                row["kernels_s"] = _kernels_only(plane, w, g, lr) if label != "torch" else None
            rows.append({**row, "step_s": seconds, "lane_steps_per_s": n / seconds})
            _row(rows[-1], ("plane", "rules", "lanes", "lane_steps_per_s"), dry)
    return rows


def _kernels_only(plane: Any, w: Any, g: Any, lr: Any) -> float:
    """Seconds of a step without the host's numbers: what is left when these hide behind the gradients."""
    plane.prepare(t=2, lr=lr, progress=0.5)
    return _timed(lambda: plane.launch(w, g), False)


def gradient_plane(*, dry: bool) -> list[dict[str, Any]]:
    """Lane-steps a second of gradients alone and of whole steps, by mode, precision and number of lanes."""
    import numpy as np
    import torch

    from ruleforge.backends.triton_lanes import TritonLanes
    from ruleforge.evaluate.devices import OnDevice, Precision, graphed, on_device, products
    from ruleforge.evaluate.gradients import flatten, layout_of
    from ruleforge.tasks import load_workload

    workload = load_workload("quadratic" if dry else "digits_mlp")
    data = workload.data(SEED, 2)
    layout = layout_of(data.params)
    device = "cpu" if dry else "cuda"
    batch = tuple(column[0].to(device) for column in data.batches)
    rows: list[dict[str, Any]] = []
    cases: list[tuple[str, Precision]] = [
        ("eager", "float32"), ("compiled", "float32"), ("graphs", "float32"), ("compiled+graphs", "float32"),
        ("compiled+graphs", "tf32"), ("compiled+graphs", "bfloat16"),
    ]  # fmt: skip
    deadline = time.monotonic() + TIMES_S["gradient"]
    for mode, precision in cases[: 1 if dry else None]:
        for n in DRY_LANES if dry else STEP_LANES[::2] + STEP_LANES[-1:]:
            if time.monotonic() > deadline:
                break
            with OnDevice(torch.device("cpu")) if dry else on_device(device), products(device, precision):
                weights = flatten(data.params).to(device).repeat(n, 1)
                grads = torch.empty_like(weights)
                gradient = _gradients(
                    workload.task, layout, weights, batch, grads, mode.startswith("compiled")
                )

                row: dict[str, Any] = {"mode": mode, "precision": precision, "lanes": n, "problem": ""}
                try:
                    run = graphed(gradient) if "graphs" in mode else gradient
                    seconds = _timed(run, dry)
                    update = _lanes_of(MIXED[:2] if dry else MIXED, n, layout, TritonLanes)
                    lr = np.full(n, 1e-3)

                    def both(run: Any = run, update: Any = update, lr: Any = lr, w: Any = weights) -> None:
                        run()
                        update.step(w, grads, t=2, lr=lr, progress=0.5)  # noqa: B023 (called right here)

                    whole = _timed(both, dry)
                    row |= {
                        "lane_steps_per_s": n / seconds,
                        "whole_lane_steps_per_s": n / whole,
                        "problem": "",
                    }
                except Exception as error:  # one mode that a machine cannot run is a figure, not the end
                    if dry:
                        raise
                    row |= {"problem": f"{type(error).__name__}: {str(error).splitlines()[0]}"}
            rows.append(row)
            columns = ("mode", "precision", "lanes", "lane_steps_per_s", "whole_lane_steps_per_s", "problem")
            _row(row, columns, dry)
    return rows


def _gradients(
    task: Any, layout: Any, weights: Any, batch: Any, out: Any, compiled: bool
) -> Callable[[], Any]:
    """A call that writes the gradients of all lanes into `out` and returns their losses."""
    import torch
    from torch.func import grad_and_value, vmap

    one: Any = vmap(grad_and_value(task.loss), in_dims=(0, None, None))
    run = torch.compile(one, dynamic=False) if compiled else one
    bounds = list(zip(layout.names, layout.shapes, layout.offsets[:-1], layout.offsets[1:], strict=True))

    def step() -> Any:
        named = {name: weights[:, lo:hi].view(-1, *shape) for name, shape, lo, hi in bounds}
        grads, losses = run(named, batch, 1)
        torch.cat([grads[name].reshape(len(weights), -1) for name in layout.names], 1, out=out)
        return losses

    return step


def _row(row: dict[str, Any], columns: Sequence[str], dry: bool) -> None:
    """One line of a table, as soon as it is measured."""
    cells = []
    for name in columns:
        value = row.get(name, "")
        if name.endswith("_per_s") and value:
            rate = "—" if dry else f"{value:,.0f}"
            cells.append(f"{name.removesuffix('_per_s').replace('_', ' ')}/s {rate}")
        else:
            cells.append(str(value) if isinstance(value, str) else f"{value:,} {name}")
    print("  " + "   ".join(f"{cell:<18}" for cell in cells).rstrip(), flush=True)


# a search


def small_search(*, dry: bool) -> dict[str, Any]:
    """The shipped GPU config for a few minutes, into a folder that is thrown away."""
    import tempfile

    from ruleforge.app.config import load_config
    from ruleforge.app.progress import make_progress
    from ruleforge.app.run import run_search

    budget = f'search.budget="{int(TIMES_S["search"])}s"'
    if dry:
        config = load_config("gpu", [budget])
        print(f"  search_configs/gpu.toml is valid: {config.training.chunk_lanes} lanes a chunk; not run")
        return {"problem": "", "run": False}
    with tempfile.TemporaryDirectory(prefix="gpu-check-") as folder:
        began = time.monotonic()
        try:
            record = run_search(
                load_config("gpu", [budget]),
                out=Path(folder) / "run",
                workers=1,
                progress=make_progress(quiet=True),
            )
        except Exception as error:
            problem = f"{type(error).__name__}: {str(error).splitlines()[0]}"
            print(f"  WRONG {problem}")
            return {"problem": problem, "run": True}
        wall_s = time.monotonic() - began
    print(f"  funnel {record['funnel']}, {wall_s:.0f} s")
    print(f"  champion: {record['champion']['text'].strip().splitlines()[-1]}")
    return {"problem": "", "run": True, "wall_s": wall_s, "record": record}


if __name__ == "__main__":
    sys.exit(main())
