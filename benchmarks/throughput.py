"""Lane-steps a second of whole trainings: ours, a naive torch loop and JAX, side by side in one run.

A lane-step is one training step of one model: an MLP 64-32-10 (2,410 weights, float32) on batches of 64
rows, Adam or rules of its size. All use every core, a process a core and one thread a process, which
measured best for each; they run in turns, and the medians over the repeats are compared.

- ours: a search's lanes a chunk (24), compiled gradients, numba update plane, validation never read: with
  1 rule on all lanes, with 64 rules, and with 1,024 different rules;
- naive: one model after another, autograd and `torch.optim.Adam`, as one writes it by hand;
- jax: vmap over 8 lanes, its best, scan over steps, jit, the rule as a Python function: one compile a rule.
  Needs jax (pip install jax); without it those fields are null.

`--json` prints one object, `--quick` takes under 45 s once everything is compiled.
"""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = "1"
os.environ["MKL_NUM_THREADS"] = "1"
os.environ["NUMBA_NUM_THREADS"] = "1"
os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"

import argparse
import json
import multiprocessing
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from multiprocessing.connection import Connection
from typing import Any

from ruleforge.evaluate.lanes import Plan
from ruleforge.evaluate.machine import processor

N_STEPS, BATCH = 200, 64
CHUNK, JAX_LANES = Plan.chunk_lanes, 8
SIZES = ((32, 64), (32,), (10, 32), (10,))
N_WEIGHTS = 2410
# The matrix products of one lane-step: two layers forward, two weight gradients, one input gradient.
FLOPS = 2 * BATCH * (2 * 64 * 32 + 3 * 32 * 10)
ADAM = "update = ema_hat(g, 0.9) / (sqrt(ema_hat(g * g, 0.999)) + 1e-8)\n"
RULE_SIZED = (
    "update = ema_hat(g, {a}) / (sqrt(ema_hat(g * g, {b})) + 1e-8)\n",
    "m: state = 0\nupdate = sign(lerp(g, m, {a})) + g * 0.1\nm = lerp(g, m, {b})\n",
    "update = lerp(g, ema(g, {a}), 0.5) / (sqrt(ema_hat(g * g, {b})) + 1e-8)\n",
    "update = ema_hat(g, {a}) * agree(ema(g, {a}), g) / (abs(ema(g, {b})) + 1e-3)\n",
)


def rules(n: int) -> list[str]:
    """n different rules of about Adam's size."""
    return [
        RULE_SIZED[k % len(RULE_SIZED)].format(a=0.85 + 0.1 * k / n, b=0.99 + 0.009 * k / n) for k in range(n)
    ]


# What one process does; each takes lanes to train and returns seconds. Built once, timed many times.


def make_ours(texts: list[str]) -> Callable[[int], float]:
    import numpy as np
    import torch
    import torch.nn.functional as F

    from ruleforge.backends.numba_lanes import NumbaLanes
    from ruleforge.evaluate.compiled import compiled
    from ruleforge.evaluate.gradients import CompiledPlane, layout_of
    from ruleforge.evaluate.threads import training_thread
    from ruleforge.evaluate.train import by_step
    from ruleforge.tasks import Task
    from ruleforge.tasks.blocks import cross_entropy, mlp, mlp_init

    task = Task(
        "throughput",
        lambda generator: mlp_init(generator, 64, 32, 10),
        lambda generator: (torch.randn(BATCH, 64), torch.randint(10, (BATCH,))),
        lambda params, batch, key: cross_entropy(mlp(params, batch[0], F.relu, 2), batch[1]),
        lambda params: {"loss": params["1.bias"].sum()},
    )
    layout = layout_of(task.init(torch.Generator()))
    batches = [task.batch(torch.Generator()) for _ in range(N_STEPS)]
    start = torch.randn(CHUNK, N_WEIGHTS, generator=torch.Generator().manual_seed(0)) * 0.1
    with training_thread():
        plane = CompiledPlane(task, layout, start, batches[0])
    columns = plane.prepared(tuple(torch.stack(column) for column in zip(*batches, strict=True)))
    batches = by_step(columns, N_STEPS)
    lr = np.full(CHUNK, 1e-3)
    programs = {text: compiled(text) for text in texts}

    def run(n_lanes: int) -> float:
        began = time.perf_counter()
        with training_thread():
            for first in range(0, n_lanes, CHUNK):
                if len(texts) == 1:
                    groups = [programs[texts[0]].lanes(CHUNK)]
                else:
                    groups = [programs[texts[(first + k) % len(texts)]].lanes(1) for k in range(CHUNK)]
                update, weights = NumbaLanes(groups, layout, lr), start.clone()
                for t, batch in enumerate(batches, 1):
                    _, grads = plane.step(weights, batch, t)
                    update.step(weights, grads, t=t, lr=lr, progress=t / N_STEPS)
        return time.perf_counter() - began

    return run


def make_naive() -> Callable[[int], float]:
    import torch
    import torch.nn.functional as F

    torch.set_num_threads(1)
    batches = [(torch.randn(BATCH, 64), torch.randint(10, (BATCH,))) for _ in range(N_STEPS)]

    def run(n_lanes: int) -> float:
        began = time.perf_counter()
        for _ in range(n_lanes):
            model = torch.nn.Sequential(torch.nn.Linear(64, 32), torch.nn.ReLU(), torch.nn.Linear(32, 10))
            optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
            for x, y in batches:
                optimizer.zero_grad()
                F.cross_entropy(model(x), y).backward()  # type: ignore[no-untyped-call]
                optimizer.step()
        return time.perf_counter() - began

    return run


def jax_training(beta1: float, beta2: float, n_lanes: int) -> tuple[Any, Any]:
    """A jitted training of all lanes with an Adam of these betas, not compiled yet, and its arguments."""
    import jax
    import jax.numpy as jnp

    keys = jax.random.split(jax.random.key(0), 3)
    weights = [jax.random.normal(keys[0], (n_lanes, *shape)) * 0.1 for shape in SIZES]
    x = jax.random.normal(keys[1], (N_STEPS, BATCH, 64))
    y = jax.random.randint(keys[2], (N_STEPS, BATCH), 0, 10)
    lr = jnp.full(n_lanes, 1e-3)

    def loss(w: Any, x: Any, y: Any) -> Any:
        logits = jax.nn.relu(x @ w[0].T + w[1]) @ w[2].T + w[3]
        return (jax.nn.logsumexp(logits, -1) - jnp.take_along_axis(logits, y[:, None], 1)[:, 0]).mean()

    def lane_step(w: Any, m: Any, v: Any, lr: Any, t: Any, x: Any, y: Any) -> Any:
        g = jax.grad(loss)(w, x, y)
        m = [beta1 * m + (1 - beta1) * g for m, g in zip(m, g, strict=True)]
        v = [beta2 * v + (1 - beta2) * g * g for v, g in zip(v, g, strict=True)]
        scale = [
            lr * (m / (1 - beta1**t)) / (jnp.sqrt(v / (1 - beta2**t)) + 1e-8)
            for m, v in zip(m, v, strict=True)
        ]
        return [w - s for w, s in zip(w, scale, strict=True)], m, v

    def train(w: Any, x: Any, y: Any) -> Any:
        def step(carry: Any, batch: Any) -> Any:
            w, m, v, t = carry
            return (*jax.vmap(lane_step, (0, 0, 0, 0, None, None, None))(w, m, v, lr, t, *batch), t + 1), None

        zeros = [jnp.zeros_like(each) for each in w]
        return jax.lax.scan(step, (w, zeros, zeros, 1.0), (x, y))[0][0]

    return jax.jit(train), (weights, x, y)


def make_jax() -> Callable[[int], float]:
    import jax

    train, args = jax_training(0.9, 0.999, JAX_LANES)
    jax.block_until_ready(train(*args))

    def run(n_lanes: int) -> float:
        began = time.perf_counter()
        for _ in range(0, n_lanes, JAX_LANES):
            jax.block_until_ready(train(*args))
        return time.perf_counter() - began

    return run


def make_jax_compiling() -> Callable[[int], float]:
    """Rules of 18 lanes, each compiled before its first step; the lanes say how many rules."""
    import jax

    count = 0

    def run(n_lanes: int) -> float:
        nonlocal count
        began = time.perf_counter()
        for _ in range(0, n_lanes, 18):
            count += 1
            train, args = jax_training(0.9 - 1e-5 * count, 0.999, 18)
            jax.block_until_ready(train(*args))
        return time.perf_counter() - began

    return run


def make_matmul() -> Callable[[int], float]:
    """One large float32 product, for the limit of what a core multiplies; the lanes are ignored."""
    import torch

    torch.set_num_threads(1)
    a, b = torch.randn(1024, 1024), torch.randn(1024, 1024)

    def run(n_lanes: int) -> float:
        began = time.perf_counter()
        for _ in range(5):
            a @ b
        return (time.perf_counter() - began) / 5

    return run


MAKERS: dict[str, Callable[[], Callable[[int], float]]] = {
    "ours_1_rule": lambda: make_ours([ADAM]),
    "ours_mean_rules": lambda: make_ours(list(RULE_SIZED_ONCE)),
    "ours_64_rules": lambda: make_ours(rules(64)),
    "ours_1024_rules": lambda: make_ours(rules(1024)),
    "naive_torch": make_naive,
    "jax_1_rule": make_jax,
    "jax_64_rules": make_jax_compiling,
    "matmul": make_matmul,
}
RULE_SIZED_ONCE = tuple(text.format(a=0.9, b=0.995) for text in RULE_SIZED)


def serve(pipe: Connection, names: tuple[str, ...]) -> None:
    """A process of its own: builds what it is asked for, then times it when told to."""
    made = {name: MAKERS[name]() for name in names}
    pipe.send("ready")
    while True:
        name, n_lanes = pipe.recv()
        if not name:
            return
        pipe.send(made[name](n_lanes))


class Team:
    """A process a core, all doing the same at the same time."""

    def __init__(self, names: tuple[str, ...], n_processes: int) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipes = []
        for _ in range(n_processes):
            mine, theirs = context.Pipe()
            context.Process(target=serve, args=(theirs, names), daemon=True).start()
            self.pipes.append(mine)
        for pipe in self.pipes:
            pipe.recv()

    def seconds(self, name: str, n_lanes: int) -> list[float]:
        """Of each process, all training `n_lanes` lanes at once."""
        for pipe in self.pipes:
            pipe.send((name, n_lanes))
        return [pipe.recv() for pipe in self.pipes]

    def lane_steps_per_s(self, name: str, n_lanes: int) -> float:
        """Of all processes together."""
        return sum(n_lanes * N_STEPS / seconds for seconds in self.seconds(name, n_lanes))

    def close(self) -> None:
        for pipe in self.pipes:
            pipe.send(("", 0))


def measure(quick: bool, repeats: int, say: Callable[[str], None]) -> dict[str, Any]:
    n_cores = os.cpu_count() or 1
    has_jax = find_spec("jax") is not None
    # Lanes a process in one repeat, whole chunks: a second or so of work each.
    scale = 1 if quick else 2
    lanes = {
        "ours_1_rule": 6 * CHUNK * scale, "ours_mean_rules": 6 * CHUNK * scale,
        "ours_64_rules": 6 * CHUNK * scale, "ours_1024_rules": (11 if quick else 43) * CHUNK,
        "naive_torch": 8 * scale, "jax_1_rule": 16 * JAX_LANES * scale,
    }  # fmt: skip
    names = tuple(name for name in lanes if has_jax or not name.startswith("jax"))
    compiling = ("jax_64_rules",) if has_jax else ()
    say(f"building {', '.join(names)} in {n_cores} processes")
    team = Team((*names, *compiling, "matmul"), n_cores)
    for name in (*names, *compiling):  # the first time is not counted
        team.seconds(name, 1)
    rates: dict[str, list[float]] = {name: [] for name in (*names, *compiling)}
    peak: list[float] = []
    for number in range(repeats):
        for name in names:
            rates[name].append(team.lane_steps_per_s(name, lanes[name]))
        peak.append(2 * 1024**3 / statistics.fmean(team.seconds("matmul", 0)))
        if compiling and (number < 3 or not quick):
            n_rules = 2 if quick else 8  # of the 64, on each process; the cost is the same for each
            rates["jax_64_rules"].append(team.lane_steps_per_s("jax_64_rules", 18 * n_rules))
        say(f"repeat {number + 1} of {repeats}")
    team.close()
    middle = {name: statistics.median(values) for name, values in rates.items()}

    def ratio(mine: str, theirs: str) -> float | None:
        if theirs not in rates:
            return None
        pairs = zip(rates[mine], rates[theirs], strict=False)
        return statistics.median(a / b for a, b in pairs)

    limit = statistics.median(peak) * n_cores / FLOPS
    return {
        "vs_naive_torch": ratio("ours_64_rules", "naive_torch"),
        "vs_jax_one_rule": ratio("ours_64_rules", "jax_1_rule"),
        "vs_jax_64_rules": ratio("ours_64_rules", "jax_64_rules"),
        "rules_1024_over_mean": ratio("ours_1024_rules", "ours_mean_rules"),
        "fraction_of_matmul_peak": middle["ours_64_rules"] / limit,
        "lane_steps_per_s": middle["ours_64_rules"],
        "all_lane_steps_per_s": middle,
        "spread": {name: [min(values), max(values)] for name, values in rates.items()},
        "matmul_gflops_per_core": statistics.median(peak) / 1e9,
        "matmul_limit_lane_steps_per_s": limit,
        "repeats": repeats,
        "processes": n_cores,
        "threads_per_process": 1,
        "lanes_per_chunk": CHUNK,
        "lanes_per_chunk_jax": JAX_LANES,
        "machine": processor(),
    }


def lines(record: dict[str, Any]) -> Iterator[str]:
    def times(value: float | None) -> str:
        return "not measured (no jax)" if value is None else f"×{value:.2f}"

    yield f"64 rules against a naive torch loop: {times(record['vs_naive_torch'])}"
    yield f"64 rules against JAX with one rule, compiled before: {times(record['vs_jax_one_rule'])}"
    yield f"64 rules against JAX with 64 rules, compiling counted: {times(record['vs_jax_64_rules'])}"
    yield f"1,024 rules against four of the same lengths: {times(record['rules_1024_over_mean'])}"
    yield f"share of what the matrix products alone could reach: {record['fraction_of_matmul_peak']:.0%}"
    yield f"lane-steps a second on {record['processes']} cores, medians of {record['repeats']}:"
    for name, value in record["all_lane_steps_per_s"].items():
        low, high = record["spread"][name]
        yield f"  {name:18s}{value:12,.0f}   ({low:,.0f} to {high:,.0f})"
    yield f"  {'matmul limit':18s}{record['matmul_limit_lane_steps_per_s']:12,.0f}"


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="fewer lanes and repeats")
    parser.add_argument("--repeats", type=int, default=0, help="how often (5 quick, 9 else)")
    parser.add_argument("--json", action="store_true", help="one JSON object")
    options = parser.parse_args()
    repeats = options.repeats or (5 if options.quick else 9)
    record = measure(options.quick, repeats, lambda text: print(text, file=sys.stderr))
    print(json.dumps(record) if options.json else "\n".join(lines(record)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
