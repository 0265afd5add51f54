"""What one step of the update plane costs, against torch eager and against the memory it must move.

Prints ratios first, then microseconds for a lane-step: one optimizer step of one model of 2,410 weights
(64×32, 32, 32×10, 10) in float32, on one thread. `--json` prints one object; `--quick` takes under 45 s.
A machine that is shared adds to every repeat, so both the median and the least of many short repeats are
given. Ratios are of medians of steps taken in turns, which drive each other's data out of the second-level
cache, as the gradients do in training; `growth` has each number of lanes alone.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import json
import platform
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from ruleforge.backends.base import LaneGroup, Layout
from ruleforge.backends.numba_lanes import NumbaLanes, warm_up
from ruleforge.backends.torch_lanes import TorchLanes
from ruleforge.core.known import KNOWN
from ruleforge.core.program import Program, compile_rule
from ruleforge.evaluate.machine import processor

LAYOUT = Layout(("w1", "b1", "w2", "b2"), ((64, 32), (32,), (32, 10), (10,)))
P = LAYOUT.n_weights
LANES = 64
Lane = tuple[Program, tuple[float, ...]]


class Chunk:
    """A plane with weights and gradients, ready to step."""

    def __init__(self, lanes: Sequence[Lane], plane: Any = NumbaLanes) -> None:
        groups: list[LaneGroup] = []
        for program, hypers in lanes:
            column = np.array(hypers).reshape(-1, 1)
            if groups and groups[-1].program is program:
                last = groups.pop()
                column = np.concatenate([last.hypers, column], axis=1)
            groups.append(LaneGroup(program, column.shape[1], column))
        self.n = len(lanes)
        self.lr = np.full(self.n, 1e-3)
        self.plane = plane(groups, LAYOUT, self.lr, torch.float32)
        rng = torch.Generator().manual_seed(0)
        self.weights = torch.randn(self.n, P, generator=rng) * 0.1
        self.grads = torch.randn(self.n, P, generator=rng) * 0.01
        self.t = 0

    def step(self) -> None:
        self.t += 1
        self.plane.step(self.weights, self.grads, t=self.t, lr=self.lr, progress=0.5)


def known_lane(name: str) -> Lane:
    rule = KNOWN[name].rule.rule
    return compile_rule(rule), rule.canonical.defaults


def eager_adam(n: int) -> Callable[[], None]:
    """Adam as torch code for a block of n lanes, (n, P)."""
    rng = torch.Generator().manual_seed(0)
    w, g = (torch.randn(n, P, generator=rng) * scale for scale in (0.1, 0.01))
    m, v = torch.zeros(n, P), torch.zeros(n, P)
    t = 0

    def step() -> None:
        nonlocal t
        t += 1
        m.lerp_(g, 0.1)
        v.mul_(0.999).addcmul_(g, g, value=0.001)
        scale = (v / (1 - 0.999**t)).sqrt_().add_(1e-8)
        w.addcdiv_(m, scale, value=-1e-3 / (1 - 0.9**t))

    return step


def measure(steps: dict[str, Callable[[], None]], repeats: int) -> dict[str, list[float]]:
    """Seconds of single calls, the named steps taken in turns; two calls before bring the data into cache."""
    found: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(repeats):
        for name, step in steps.items():
            step()
            step()
            start = time.perf_counter()
            step()
            found[name].append(time.perf_counter() - start)
    return found


def summary(seconds: list[float], lanes: int) -> dict[str, float]:
    """Microseconds for a lane-step."""
    return {
        "median_us": round(statistics.median(seconds) / lanes * 1e6, 3),
        "min_us": round(min(seconds) / lanes * 1e6, 3),
    }


def copying(n_bytes: int) -> Callable[[], None]:
    """Copies that read and write `n_bytes` in all."""
    source = torch.ones(n_bytes // 8)
    target = torch.zeros_like(source)
    return lambda: target.copy_(source)  # type: ignore[return-value]


def bench(repeats: int, large: int, lane_counts: Sequence[int]) -> dict[str, Any]:
    program, hypers = known_lane("adam")
    adam = [(program, hypers)]
    slots = len(program.slots)
    moved = 4 * P * (3 + 2 * slots)  # gradient and weights in, weights out, states in and out
    resident = 4 * P * (2 + slots)

    chunk = Chunk(adam * LANES)
    one_lane = eager_adam(1)
    found = measure(
        {
            "numba": chunk.step,
            "torch_lanes": Chunk(adam * LANES, TorchLanes).step,
            "torch_chunk": eager_adam(LANES),
            "torch_lane": one_lane,
            "copy": copying(moved * LANES),
        },
        repeats,
    )
    big = Chunk(adam * large)
    found_big = measure({"numba": big.step, "copy": copying(moved * large)}, max(repeats // 10, 7))

    names = [n for n in KNOWN if not any(p.barrier for p in compile_rule(KNOWN[n].rule.rule).phases)][:LANES]
    lanes = [known_lane(name) for name in names]
    # The same work in both: a chunk of all rules, and for each rule a chunk of its own.
    alone = {name: Chunk([lane] * len(lanes)).step for name, lane in zip(names, lanes, strict=True)}
    found_rules = measure({"mixed": Chunk(lanes).step, **alone}, repeats // 4)
    mixed = statistics.median(found_rules.pop("mixed"))
    uniform = statistics.fmean(statistics.median(each) for each in found_rules.values())

    growth = []
    for n in lane_counts:
        seconds = measure({"numba": Chunk(adam * n).step}, max(repeats // 10, 7))["numba"]
        growth.append({"lanes": n, **summary(seconds, n)})
    # The least of the repeats: a shared machine's memory traffic would bend the line.
    slope = np.polyfit(lane_counts, [row["lanes"] * row["min_us"] for row in growth], 1)

    ours, theirs = (statistics.median(found[name]) for name in ("numba", "torch_chunk"))
    return {
        "vs_torch_chunk": round(theirs / ours, 2),
        "vs_torch_one_lane": round(statistics.median(found["torch_lane"]) / (ours / LANES), 2),
        "over_copy_in_cache": round(ours / statistics.median(found["copy"]), 2),
        "over_copy_out_of_cache": round(
            statistics.median(found_big["numba"]) / statistics.median(found_big["copy"]), 2
        ),
        "different_rules_over_one_rule": round(mixed / uniform, 3),
        "us_per_lane_step": {
            "adam": summary(found["numba"], LANES),
            "adam_torch_lanes": summary(found["torch_lanes"], LANES),
            "adam_torch_chunk": summary(found["torch_chunk"], LANES),
            "adam_torch_one_lane": summary(found["torch_lane"], 1),
            "adam_out_of_cache": {"lanes": large, **summary(found_big["numba"], large)},
            "different_rules": round(mixed / len(lanes) * 1e6, 3),
            "each_rule_alone": round(uniform / len(lanes) * 1e6, 3),
        },
        "copy_gb_per_s": {
            "in_cache": round(moved * LANES / statistics.median(found["copy"]) / 1e9, 1),
            "out_of_cache": round(moved * large / statistics.median(found_big["copy"]) / 1e9, 1),
        },
        "bytes_moved_per_lane_step": moved,
        "bytes_resident_per_lane": resident,
        "chunk_lanes": LANES,
        "different_rules": len(lanes),
        "growth": growth,
        "us_per_added_lane": round(float(slope[0]), 3),
        "repeats": repeats,
    }


def machine() -> dict[str, Any]:
    return {
        "processor": processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


def show(result: dict[str, Any]) -> None:
    for key, value in result.items():
        if isinstance(value, dict):
            print(f"{key}:")
            for inner, each in value.items():
                print(f"  {inner:24s} {each}")
        elif isinstance(value, list):
            print(f"{key}:")
            for each in value:
                print(f"  {each}")
        else:
            print(f"{key:32s} {value}")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--quick", action="store_true", help="fewer repeats, under 45 s")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    start = time.perf_counter()
    warm_up(lambda message: print(message, file=sys.stderr))
    warm_s = round(time.perf_counter() - start, 2)
    if options.quick:
        result = bench(200, 1024, (32, 64, 128, 256, 512, 1024))
    else:
        result = bench(1000, 4096, (32, 64, 128, 256, 512, 1024, 2048, 4096))
    result |= {"warm_up_s": warm_s, "machine": machine(), "wall_s": round(time.perf_counter() - start, 1)}
    if options.json:
        print(json.dumps(result, indent=2))
    else:
        show(result)


if __name__ == "__main__":
    main()
