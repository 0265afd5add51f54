"""Does a rule found on toys carry over to a model of a million weights? Reported whatever comes out.

    python benchmarks/transfer.py TARGET [--steps 600] [--tuning-steps 150] [--seeds 2] [--quick] [--json]

A character-level transformer (4 layers, 1.2 million weights) on the sources of Python's own library. AdamW
gets a grid of learning rates on a short training; then it and the target's exported optimizer train in full
on fresh seeds, with the same batches and a cosine schedule. The target runs twice: at AdamW's best learning
rate times the factor that the tool recommends, with nothing tuned, and at the best of a grid as wide around
that. Seconds are reported as well. TARGET is a run folder or a rule; the factor is the run's own, 1 for
a rule without a run.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sysconfig
import time
from pathlib import Path
from typing import Any

import torch
from export_step import exported
from torch import Tensor, nn

from ruleforge.app.targets import Target, resolve_target
from ruleforge.store import Store

ADAMW_LR = 2e-3
FACTORS = (1 / 9, 1 / 3, 1.0, 3.0, 9.0)
CONTEXT, BATCH, WIDTH, N_LAYERS, N_HEADS = 64, 8, 160, 4, 4
N_CHARS, N_VALID = 3_000_000, 100_000
TUNE_SEED, FIRST_SEED = 0, 100


class Model(nn.Module):
    """Characters to the logits of the next ones, (B, T) to (B, T, V)."""

    def __init__(self, n_symbols: int) -> None:
        super().__init__()
        self.symbols = nn.Embedding(n_symbols, WIDTH)
        self.places = nn.Parameter(0.02 * torch.randn(CONTEXT, WIDTH))
        layer = nn.TransformerEncoderLayer(
            WIDTH, N_HEADS, 4 * WIDTH, 0.0, "gelu", norm_first=True, batch_first=True
        )
        self.layers = nn.TransformerEncoder(layer, N_LAYERS, enable_nested_tensor=False)
        self.norm = nn.LayerNorm(WIDTH)
        self.head = nn.Linear(WIDTH, n_symbols)
        self.register_buffer("mask", nn.Transformer.generate_square_subsequent_mask(CONTEXT))

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.layers(self.symbols(x) + self.places, mask=self.mask, is_causal=True)
        return self.head(self.norm(hidden))


def corpus() -> tuple[Tensor, int]:
    """Characters of the standard library's modules in order of name, as numbers, and how many kinds."""
    folder = Path(sysconfig.get_paths()["stdlib"])
    text = ""
    for path in sorted(folder.glob("*.py")):
        text += path.read_text(encoding="utf-8", errors="replace")
        if len(text) >= N_CHARS:
            break
    codes = torch.tensor([min(ord(char), 127) for char in text[:N_CHARS]])
    kinds, numbers = torch.unique(codes, return_inverse=True)
    return numbers, len(kinds)


def batch_of(data: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    at = torch.randint(len(data) - CONTEXT - 1, (BATCH,), generator=generator)
    rows = torch.stack([data[i : i + CONTEXT + 1] for i in at])
    return rows[:, :-1], rows[:, 1:]


def loss_of(model: Model, x: Tensor, y: Tensor) -> Tensor:
    return nn.functional.cross_entropy(model(x).flatten(0, 1), y.flatten())


def train(cls: Any, lr: float, steps: int, seed: int, data: Tensor, n_symbols: int) -> dict[str, float]:
    """One training: the validation loss at its end, infinite where it diverged, and the seconds it took."""
    torch.manual_seed(seed)
    model = Model(n_symbols)
    optimizer = cls(model.parameters(), lr=lr, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda t: 0.5 * (1 + math.cos(math.pi * t / steps))
    )
    generator = torch.Generator().manual_seed(1000 + seed)
    began = time.perf_counter()
    spent = 0.0
    for _ in range(steps):
        loss = loss_of(model, *batch_of(data[:-N_VALID], generator))
        optimizer.zero_grad()
        loss.backward()
        before = time.perf_counter()
        optimizer.step()
        spent += time.perf_counter() - before
        schedule.step()
        if not torch.isfinite(loss):
            return {"loss": math.inf, "wall_s": time.perf_counter() - began, "optimizer_s": spent}
    wall_s = time.perf_counter() - began
    fixed = torch.Generator().manual_seed(7)
    with torch.no_grad():
        losses = [float(loss_of(model, *batch_of(data[-N_VALID:], fixed))) for _ in range(20)]
    return {"loss": statistics.fmean(losses), "wall_s": wall_s, "optimizer_s": spent}


def recommended_factor(target: Target) -> float:
    """What to multiply Adam's learning rate by, as the run's champion has it."""
    if target.run is None:
        return 1.0
    with Store.open(target.run, readonly=True) as store:
        champion = (store.results().get("final") or {}).get("champion") or {}
    return float(champion.get("lr_vs_adam") or 1.0)


def measure(options: argparse.Namespace) -> dict[str, Any]:
    data, n_symbols = corpus()
    target = resolve_target(options.target)
    adamw, rule = torch.optim.AdamW, exported(target.text)
    factor = recommended_factor(target)
    arms: dict[str, dict[str, Any]] = {}

    def tuned(cls: Any, middle: float) -> float:
        losses = {
            middle * k: train(cls, middle * k, options.tuning_steps, TUNE_SEED, data, n_symbols)["loss"]
            for k in FACTORS
        }
        return min(losses, key=lambda lr: losses[lr])

    def arm(name: str, cls: Any, lr: float) -> None:
        runs = [train(cls, lr, options.steps, FIRST_SEED + k, data, n_symbols) for k in range(options.seeds)]
        arms[name] = {"lr": lr, "runs": runs}

    adam_lr = tuned(adamw, ADAMW_LR)
    arm("adamw, tuned", adamw, adam_lr)
    arm(f"{target.name}, AdamW's lr x {factor:g}", rule, factor * adam_lr)
    arm(f"{target.name}, tuned", rule, tuned(rule, factor * adam_lr))
    weights = sum(p.numel() for p in Model(n_symbols).parameters())
    return {"weights": weights, "steps": options.steps, "factor": factor, "arms": arms}


def table(record: dict[str, Any]) -> str:
    lines = [f"{record['weights']:,} weights, {record['steps']} steps of {BATCH} x {CONTEXT} characters"]
    base = record["arms"]["adamw, tuned"]["runs"]
    for name, arm in record["arms"].items():
        losses = [run["loss"] for run in arm["runs"]]
        gaps = [run["loss"] - other["loss"] for run, other in zip(arm["runs"], base, strict=True)]
        wall_s = statistics.median(run["wall_s"] for run in arm["runs"])
        share = statistics.median(run["optimizer_s"] / run["wall_s"] for run in arm["runs"])
        lines.append(
            f"{name:<36} lr {arm['lr']:.2g}  validation loss {', '.join(f'{v:.4f}' for v in losses)}"
            f"  against AdamW {statistics.fmean(gaps):+.4f}  {wall_s:.0f} s, {share:.0%} in the optimizer"
        )
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("target", metavar="TARGET")
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--tuning-steps", type=int, default=150)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--quick", action="store_true", help="a few steps: shows that it works")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if options.quick:
        options.steps, options.tuning_steps, options.seeds = 10, 5, 1
    record = measure(options)
    print(json.dumps(record, indent=1) if options.json else table(record))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
