"""What `identify` recovers of upstream optimizers, from traces alone. `python benchmarks/identify.py`

Each case is a class of torch or pytorch_optimizer (`pip install pytorch_optimizer`) whose hyperparameters are
drawn at random and set in a file of its own, so that the tool sees a class without arguments.
Recovered means:
the rule answers as the optimizer does on streams that the fit never saw, to 1e-5 of the size of the updates;
`exact` where no factor is left over, `scale` where one is. `--no-known` leaves the known rules out, so that
forms must be composed or evolved.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import importlib.util
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ruleforge.errors import RuleforgeError
from ruleforge.explain.catalogue import survey
from ruleforge.identify.identify import identify

Draw = np.random.Generator


def beta(rng: Draw, low: float = 0.5, high: float = 0.99) -> float:
    """A beta, uniform in the log of 1 − beta."""
    return float(f"{1 - 10 ** rng.uniform(np.log10(1 - high), np.log10(1 - low)):.4g}")


def betas(rng: Draw) -> tuple[float, float]:
    return beta(rng), beta(rng, 0.9, 0.999)


def eps(rng: Draw) -> float:
    return float(f"{10 ** rng.uniform(-9, -4):.3g}")


def _adam(rng: Draw) -> dict[str, Any]:
    return {"betas": betas(rng), "eps": eps(rng)}


# name -> class and its random arguments; all are elementwise
CASES: dict[str, tuple[str, Any]] = {
    "sgd": ("torch.optim.SGD", lambda rng: {}),
    "momentum": ("torch.optim.SGD", lambda rng: {"momentum": beta(rng)}),
    "nesterov": ("torch.optim.SGD", lambda rng: {"momentum": beta(rng), "nesterov": True}),
    "momentum_dampened": (
        "torch.optim.SGD",
        lambda rng: {"momentum": beta(rng), "dampening": float(f"{rng.uniform(0.1, 0.9):.3g}")},
    ),
    "rmsprop": ("torch.optim.RMSprop", lambda rng: {"alpha": beta(rng), "eps": eps(rng)}),
    "rmsprop_centered": (
        "torch.optim.RMSprop",
        lambda rng: {"alpha": beta(rng), "eps": eps(rng), "centered": True},
    ),
    "rmsprop_momentum": (
        "torch.optim.RMSprop",
        lambda rng: {"alpha": beta(rng), "eps": eps(rng), "momentum": beta(rng)},
    ),
    "adagrad": ("torch.optim.Adagrad", lambda rng: {"eps": eps(rng)}),
    "adadelta": ("torch.optim.Adadelta", lambda rng: {"rho": beta(rng), "eps": eps(rng)}),
    "adam": ("torch.optim.Adam", _adam),
    "adamw": ("torch.optim.AdamW", lambda rng: {**_adam(rng), "weight_decay": 0.03}),
    "amsgrad": ("torch.optim.Adam", lambda rng: {**_adam(rng), "amsgrad": True}),
    "adamax": ("torch.optim.Adamax", _adam),
    "nadam": ("torch.optim.NAdam", _adam),
    "radam": ("torch.optim.RAdam", _adam),
    "lion": ("pytorch_optimizer.Lion", lambda rng: {"betas": (beta(rng), beta(rng, 0.9, 0.99))}),
    "tiger": ("pytorch_optimizer.Tiger", lambda rng: {"beta": beta(rng), "weight_decay": 0.01}),
    "signsgd": ("pytorch_optimizer.SignSGD", lambda rng: {"momentum": beta(rng)}),
    "adabelief": ("pytorch_optimizer.AdaBelief", _adam),
    "grams": ("pytorch_optimizer.Grams", _adam),
    "qhm": ("pytorch_optimizer.QHM", lambda rng: {"momentum": beta(rng), "nu": 0.61}),
    "qhadam": ("pytorch_optimizer.QHAdam", lambda rng: {**_adam(rng), "nus": (0.62, 0.83)}),
    "padam": ("pytorch_optimizer.PAdam", lambda rng: {**_adam(rng), "partial": 0.31}),
    "adan": (
        "pytorch_optimizer.Adan",
        lambda rng: {"betas": (beta(rng), beta(rng), beta(rng)), "eps": eps(rng)},
    ),
    "exadam": ("pytorch_optimizer.EXAdam", _adam),
    "diffgrad": ("pytorch_optimizer.DiffGrad", _adam),
    "yogi": ("pytorch_optimizer.Yogi", _adam),
}  # fmt: skip


def mystery(folder: Path, name: str, seed: int) -> str:
    """A file that holds the class with its hyperparameters set."""
    upstream, draw = CASES[name]
    module, _, kind = upstream.rpartition(".")
    kwargs = draw(np.random.default_rng(np.random.SeedSequence((seed, *name.encode()))))
    path = folder / f"{name}.py"
    path.write_text(
        f"import {module} as upstream\n\n\nclass Mystery(upstream.{kind}):\n"
        f"    def __init__(self, params):\n        super().__init__(params, lr=3e-3, **{kwargs!r})\n"
    )
    return f"{path}:Mystery"


def main() -> None:
    """Print one line a case and the counts."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--quick", action="store_true", help="three cases")
    options.add_argument("--no-known", action="store_true", help="without the known rules")
    options.add_argument("--time-limit", type=float, default=110.0, help="seconds a case")
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--only", default="", help="names, comma-separated")
    options.add_argument("--json", action="store_true")
    given = options.parse_args()
    torch.set_num_threads(1)
    survey()
    names = given.only.split(",") if given.only else list(CASES)
    if importlib.util.find_spec("pytorch_optimizer") is None:
        left_out = [name for name in names if not CASES[name][0].startswith("torch.")]
        names = [name for name in names if name not in left_out]
        print(
            f"pytorch_optimizer is not installed; left out: {', '.join(left_out) or 'none'}", file=sys.stderr
        )
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        for name in names[:3] if given.quick else names:
            start, cpu = time.monotonic(), sum(os.times()[:4])
            row: dict[str, Any] = {"name": name, "upstream": CASES[name][0]}
            try:
                found = identify(
                    mystery(Path(folder), name, given.seed),
                    time_limit_s=given.time_limit,
                    use_known=not given.no_known,
                )
                row |= {
                    "relation": found.relation, "known_as": found.known_as, "stage": found.stage,
                    "residual": found.residual, "text": str(found.text),
                }  # fmt: skip
            except RuleforgeError as error:
                row |= {"relation": f"failed: {error.message}", "known_as": "", "stage": "", "residual": None}
            row |= {"wall_s": time.monotonic() - start, "cpu_s": sum(os.times()[:4]) - cpu}
            rows.append(row)
            if not given.json:
                print(
                    f"{name:18} {row['relation']:18} {row['known_as'] or '-':18} {row['stage']:10} "
                    f"{row['residual'] if row['residual'] is None else format(row['residual'], '.1e')} "
                    f"{row['wall_s']:6.1f} s ({row['cpu_s']:.1f} s of CPU)",
                    flush=True,
                )
    exact = sum(row["relation"] == "exact" for row in rows)
    scale = sum(row["relation"] == "exact up to scale" for row in rows)
    record = {
        "cases": len(rows),
        "exact": exact,
        "scale": scale,
        "failed": len(rows) - exact - scale,
        "rows": rows,
    }
    if given.json:
        print(json.dumps(record, indent=2))
    else:
        print(f"{exact} exactly, {scale} up to scale, {record['failed']} not, of {len(rows)}")


if __name__ == "__main__":
    main()
