"""How long `orthogonalize` takes on the CPU, on a suite's parameter tensors, beside torch's batched products.

    python benchmarks/matrix_ops.py [lanes …] [--suite search] [--double] [--quick] [--json]

The peer is Muon's loop over `torch.baddbmm`, one call a tensor for all lanes. Both take turns on one thread.
Prints for each workload how many times as fast ours is, our microseconds a lane and call (medians of nine),
and GFLOP/s as a multiplication without regard to symmetry counts them: 5 · (4 n² m + 2 n³) for n × m, n ≤ m.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ruleforge.backends.base import Layout
from ruleforge.backends.numba_matrix import Matrices, orthogonalize_lanes, rows
from ruleforge.core.ops import NEWTON_SCHULZ, NEWTON_SCHULZ_EPS, NEWTON_SCHULZ_STEPS
from ruleforge.evaluate.gradients import layout_of
from ruleforge.evaluate.machine import processor
from ruleforge.tasks import load_suite

QUICK = ("digits_mlp", "rare_words", "token_attention")


def flops(layout: Layout) -> int:
    """Of one lane."""
    sides = [sorted(shape) for shape in layout.shapes if len(shape) == 2]
    return sum(NEWTON_SCHULZ_STEPS * (4 * n * n * m + 2 * n**3) for n, m in sides)


def by_torch(lanes: Tensor, layout: Layout) -> None:
    """Every matrix of every lane made orthogonal, a batch of products a tensor."""
    a, b, c = NEWTON_SCHULZ
    for shape, offset in zip(layout.shapes, layout.offsets[:-1], strict=True):
        if len(shape) != 2:
            continue
        x = lanes[:, offset : offset + shape[0] * shape[1]].reshape(-1, *shape)
        x = x.mT if shape[0] > shape[1] else x
        x = x / (x.square().sum((1, 2), keepdim=True).sqrt() + NEWTON_SCHULZ_EPS)
        for _ in range(NEWTON_SCHULZ_STEPS):
            gram = x @ x.mT
            x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)


def seconds(calls: dict[str, Callable[[], None]], repeats: int) -> dict[str, float]:
    """Of a call of each, in turns; medians of measurements of at least 5 ms."""

    def measure(call: Callable[[], None], n_calls: int) -> float:
        start = time.perf_counter()
        for _ in range(n_calls):
            call()
        return (time.perf_counter() - start) / n_calls

    for call in calls.values():
        call()
    n_calls = {name: 1 + int(5e-3 / measure(call, 1)) for name, call in calls.items()}
    taken = [{name: measure(call, n_calls[name]) for name, call in calls.items()} for _ in range(repeats)]
    return {name: float(np.median([each[name] for each in taken])) for name in calls}


def on(layout: Layout, n_lanes: int, real: type, repeats: int) -> dict[str, float]:
    given = np.random.default_rng(0).normal(size=(n_lanes, layout.n_weights)).astype(real)
    out, matrices = np.empty_like(given), Matrices(layout.shapes, np.array(layout.offsets, np.int64), real)
    tensor = torch.from_numpy(given)
    calls = {
        "ours": lambda: orthogonalize_lanes(rows(given), rows(out), matrices),
        "torch": lambda: by_torch(tensor, layout),
    }
    taken = seconds(calls, repeats)
    return {
        "over_torch": taken["torch"] / taken["ours"],
        "us_a_lane": taken["ours"] / n_lanes * 1e6,
        "gflops": flops(layout) * n_lanes / taken["ours"] / 1e9,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("lanes", type=int, nargs="*", default=[4, 18, 54])
    parser.add_argument("--suite", default="search")
    parser.add_argument("--double", action="store_true", help="float64")
    parser.add_argument("--quick", action="store_true", help=f"{', '.join(QUICK)} alone, three repeats")
    parser.add_argument("--json", action="store_true", help="one JSON object")
    options = parser.parse_args()
    torch.set_num_threads(1)
    real, repeats = np.float64 if options.double else np.float32, 3 if options.quick else 9
    places = [w for w in load_suite(options.suite) if not options.quick or w.name in QUICK]
    layouts = {w.name: layout_of(w.data(0, 1).params) for w in places}
    found: dict[str, dict[int, dict[str, float]]] = {
        name: {n: on(layout, n, real, repeats) for n in options.lanes}
        for name, layout in layouts.items()
        if flops(layout)
    }
    record: dict[str, Any] = {
        "median_over_torch": {
            n: float(np.median([each[n]["over_torch"] for each in found.values()])) for n in options.lanes
        },
        "workloads": found, "dtype": np.dtype(real).name, "repeats": repeats, "machine": processor(),
    }  # fmt: skip
    if options.json:
        print(json.dumps(record))
        return
    print(f"{'over torch, µs (GFLOP/s)':26}" + "".join(f"{f'{n} lanes':>24}" for n in options.lanes))
    for name, each in found.items():
        cells = (f"×{e['over_torch']:.2f} {e['us_a_lane']:8.2f} ({e['gflops']:5.1f})" for e in each.values())
        print(f"{name:26}" + "".join(f"{cell:>24}" for cell in cells))
    print(f"{'median':26}" + "".join(f"{f'×{v:.2f}':>24}" for v in record["median_over_torch"].values()))


if __name__ == "__main__":
    main()
