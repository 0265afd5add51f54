"""How long `orthogonalize` takes on the CPU, on the parameter tensors of a suite's workloads.

    python benchmarks/matrix_ops.py [lanes …] [--suite search] [--double]

Prints, for each workload, microseconds per lane and call (median of nine), and GFLOP/s as a multiplication
without regard to symmetry counts them: 5 · (4 n² m + 2 n³) for a matrix of n × m, n ≤ m. Use one thread.
"""

from __future__ import annotations

import argparse
import time

import numpy as np

from ruleforge.backends.base import Layout
from ruleforge.backends.numba_matrix import Matrices, orthogonalize_lanes, rows
from ruleforge.core.ops import NEWTON_SCHULZ_STEPS
from ruleforge.evaluate.gradients import layout_of
from ruleforge.tasks import load_suite


def flops(shape: tuple[int, ...]) -> int:
    if len(shape) != 2:
        return 0
    n, m = sorted(shape)
    return NEWTON_SCHULZ_STEPS * (4 * n * n * m + 2 * n**3)


def seconds(layout: Layout, n_lanes: int, real: type) -> float:
    """Of a call; median of nine measurements of at least 5 ms."""
    given = np.random.default_rng(0).normal(size=(n_lanes, layout.n_weights)).astype(real)
    out, matrices = np.empty_like(given), Matrices(layout.shapes, np.array(layout.offsets, np.int64), real)

    def measure(n_calls: int) -> float:
        start = time.perf_counter()
        for _ in range(n_calls):
            orthogonalize_lanes(rows(given), rows(out), matrices)
        return (time.perf_counter() - start) / n_calls

    measure(1)
    n_calls = 1 + int(5e-3 / measure(1))
    return float(np.median([measure(n_calls) for _ in range(9)]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("lanes", type=int, nargs="*", default=[4, 18, 54])
    parser.add_argument("--suite", default="search")
    parser.add_argument("--double", action="store_true", help="float64")
    args = parser.parse_args()
    real = np.float64 if args.double else np.float32
    layouts = {}
    for workload in load_suite(args.suite):
        layouts[workload.name] = layout_of(workload.data(0, 1).params)
    print(f"{'µs per lane (GFLOP/s)':24}" + "".join(f"{f'{n} lanes':>18}" for n in args.lanes))
    sums = np.zeros(len(args.lanes))
    for name, layout in layouts.items():
        taken = np.array([seconds(layout, n, real) / n for n in args.lanes])
        work = sum(flops(shape) for shape in layout.shapes)
        sums += taken
        print(f"{name:24}" + "".join(f"{s * 1e6:10.2f} ({work / s / 1e9:5.1f})" for s in taken))
    print(f"{'sum':24}" + "".join(f"{s * 1e6:10.2f}        " for s in sums))


if __name__ == "__main__":
    main()
