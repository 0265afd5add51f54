"""One step of exported optimizers against torch's own, for models of 10 k, 1 M and 50 M weights.

Prints the ratio of the times first (below 1: the exported file is faster), then microseconds a step. Ours
and theirs take turns on tensors of the same shapes; the median over repeats is given. Every rule stands
against `torch.optim.Adam(foreach=True)`, Adam also against `fused=True`, and Lion, which torch lacks, also
against one written by hand in the same foreach operations, which loses NaN. On a machine with CUDA the
tensors are there. `--json` prints one object; `--quick` takes under 45 s. On a busy machine
`--threads 1 --cpu-time` counts the process's own time.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ruleforge.core.known import KNOWN
from ruleforge.core.text import RuleText
from ruleforge.export.torch import export_torch

# The champion of the run in the README.
CHAMPION = RuleText.parse(
    '''"""Champion."""
beta1: hyper(0, 1, one_minus_log) = 0.9
c: hyper(0, 10, log) = 0.9
beta2: hyper(0, 1, one_minus_log) = 0.9746
eps: hyper(0, 1, log) = 1e-08
update = (ema(g, beta1) * c + g) / (sqrt(ema(g * g, beta2)) + eps)
'''
)
SIZES = (10_000, 1_000_000, 50_000_000)
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
Params = list[torch.nn.Parameter]


def shapes(size: int) -> list[tuple[int, ...]]:
    """Of the tensors of a model with about so many weights: matrices and biases of a few layers."""
    layers = 4 if size <= 1_000_000 else 8
    side = int((size / layers) ** 0.5)
    return [shape for _ in range(layers) for shape in ((side, side), (side,))]


def model(size: int) -> Params:
    rng = torch.Generator().manual_seed(0)
    params = []
    for shape in shapes(size):
        p = torch.nn.Parameter((torch.randn(shape, generator=rng) * 0.1).to(DEVICE))
        p.grad = (torch.randn(shape, generator=rng) * 0.01).to(DEVICE)
        params.append(p)
    return params


def exported(text: RuleText) -> Any:
    """The class in the file that `ruleforge export` writes."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "exported.py"
        path.write_text(export_torch(text), encoding="utf-8")
        spec = importlib.util.spec_from_file_location("exported", path)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    return getattr(module, module.__all__[0])


class HandWrittenLion(torch.optim.Optimizer):
    """Lion in foreach operations, as people write it."""

    def __init__(self, params: Params, lr: float) -> None:
        super().__init__(params, {"lr": lr, "betas": (0.9, 0.99)})

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]
        for group in self.param_groups:
            beta1, beta2 = group["betas"]
            params = [p for p in group["params"] if p.grad is not None]
            grads: list[Tensor] = [p.grad for p in params]
            for p in params:
                if not self.state[p]:
                    self.state[p]["exp_avg"] = torch.zeros_like(p)
            averages = [self.state[p]["exp_avg"] for p in params]
            update = torch._foreach_lerp(grads, averages, beta1)
            torch._foreach_sign_(update)
            torch._foreach_add_(params, update, alpha=-group["lr"])
            torch._foreach_lerp_(averages, grads, 1 - beta2)


ADAM, LION = KNOWN["adam"].rule, KNOWN["lion"].rule
PAIRS: dict[str, tuple[RuleText, str, Callable[[Params], Any]]] = {
    "adam": (ADAM, "torch Adam(foreach=True)", lambda p: torch.optim.Adam(p, 1e-3, foreach=True)),
    "adam, fused": (ADAM, "torch Adam(fused=True)", lambda p: torch.optim.Adam(p, 1e-3, fused=True)),
    "lion": (LION, "torch Adam(foreach=True)", lambda p: torch.optim.Adam(p, 1e-3, foreach=True)),
    "lion, by hand": (LION, "Lion by hand, foreach", lambda p: HandWrittenLion(p, 1e-3)),
    "champion": (CHAMPION, "torch Adam(foreach=True)", lambda p: torch.optim.Adam(p, 1e-3, foreach=True)),
}  # fmt: skip


def compare(
    ours: Any, theirs: Any, budget_s: float, clock: Callable[[], float] = time.perf_counter
) -> tuple[float, float, int]:
    """Median seconds of a step of each, and the number of repeats; the two take turns."""

    def timed(optimizer: Any, count: int) -> float:
        if DEVICE == "cuda":
            torch.cuda.synchronize()
        start = clock()
        for _ in range(count):
            optimizer.step()
        if DEVICE == "cuda":
            torch.cuda.synchronize()
        return (clock() - start) / count

    for optimizer in (ours, theirs, ours, theirs):
        once = timed(optimizer, 1)
    count = max(1, int(5e-3 / max(once, 1e-6)))
    found: tuple[list[float], list[float]] = ([], [])
    end = time.perf_counter() + budget_s
    while len(found[0]) < 3 or (time.perf_counter() < end and len(found[0]) < 200):
        found[0].append(timed(ours, count))
        found[1].append(timed(theirs, count))
    return statistics.median(found[0]), statistics.median(found[1]), len(found[0])


def measure(sizes: list[int], budget_s: float, clock: Callable[[], float]) -> list[dict[str, Any]]:
    rows = []
    for size in sizes:
        for name, (text, reference, make) in PAIRS.items():
            mine, its = model(size), model(size)
            ours_s, theirs_s, repeats = compare(exported(text)(mine, lr=1e-3), make(its), budget_s, clock)
            rows.append(
                {
                    "rule": name.split(",")[0],
                    "weights": sum(p.numel() for p in mine),
                    "against": reference,
                    "ratio": ours_s / theirs_s,
                    "ours_us": ours_s * 1e6,
                    "theirs_us": theirs_s * 1e6,
                    "repeats": repeats,
                }
            )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="under 45 s")
    parser.add_argument("--json", action="store_true", help="one JSON object")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="of torch")
    parser.add_argument(
        "--weights", type=int, nargs="+", default=list(SIZES), help="how many a model has, about"
    )
    parser.add_argument(
        "--cpu-time", action="store_true", help="of the process, for a busy machine; with --threads 1"
    )
    args = parser.parse_args()
    if args.cpu_time and args.threads != 1:
        parser.error("--cpu-time counts the waiting of threads for each other: add --threads 1")
    torch.set_num_threads(args.threads)
    clock = time.process_time if args.cpu_time else time.perf_counter
    rows = measure(args.weights, 0.5 if args.quick else 5.0, clock)
    if args.json:
        machine = {"processor": platform.processor() or platform.machine(), "threads": args.threads}
        print(json.dumps({"device": DEVICE, "torch": torch.__version__, **machine, "rows": rows}, indent=2))
        return
    print(f"device {DEVICE}, {args.threads} threads, torch {torch.__version__}")
    print(f"{'ratio':>6}  {'rule':<10}{'weights':>12}{'ours µs':>12}{'theirs µs':>12}  against")
    for row in rows:
        print(
            f"{row['ratio']:6.2f}  {row['rule']:<10}{row['weights']:>12,}{row['ours_us']:>12.0f}"
            f"{row['theirs_us']:>12.0f}  {row['against']}"
        )


if __name__ == "__main__":
    main()
