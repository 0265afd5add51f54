"""From nothing to a trained network with a discovered optimizer, in about three minutes.

    python examples/demo.py [--config quickstart] [--out results/demo]

Searches on real data, shows the champion, exports it to a file that needs torch alone, and trains a
network with that file beside tuned Adam.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch
from sklearn.datasets import load_digits
from torch import nn

LR_FACTORS = (0.1, 0.3, 1.0, 3.0, 10.0)
ADAM_LR = 3e-3
STEPS = 300


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", default="quickstart", help="a search config")
    parser.add_argument("--out", default="results/demo", help="folder of the run; an earlier one is replaced")
    options = parser.parse_args()
    run = Path(options.out)
    if (run / "run.db").is_file():
        shutil.rmtree(run)
    torch.set_num_threads(1)  # the network is small: more threads would wait for each other
    began = time.monotonic()
    step("Search", "ruleforge", "search", options.config, "--out", str(run))
    step("The champion", "ruleforge", "show", str(run))
    exported = run / "champion.py"
    step("Export", "ruleforge", "export", str(run), "--to", "torch", "-o", str(exported))
    print("\n== Train with the exported file, beside tuned Adam ==", flush=True)
    compare_training(exported, lr_vs_adam(run))
    print(f"\nDone in {time.monotonic() - began:.0f} s. The run is in {run}, the optimizer in {exported}.")
    return 0


def step(title: str, *command: str) -> None:
    """Run a command as a user would, showing what it prints."""
    print(f"\n== {title}: {' '.join(command)} ==", flush=True)
    subprocess.run([sys.executable, "-m", *command], check=True)


def lr_vs_adam(run: Path) -> float:
    """The factor on Adam's learning rate that the run recommends, or 1 where it could not tell."""
    shown = subprocess.run(
        [sys.executable, "-m", "ruleforge", "show", str(run), "--json"],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    factor = json.loads(shown.stdout)["lr_vs_adam"]
    return 1.0 if factor is None else float(factor)


def load_optimizer(path: Path) -> Any:
    """The one optimizer class of an exported file."""
    spec = importlib.util.spec_from_file_location("champion", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return next(
        value
        for value in vars(module).values()
        if isinstance(value, type)
        and issubclass(value, torch.optim.Optimizer)
        and value.__module__ == "champion"
    )


def compare_training(exported: Path, factor: float) -> None:
    """A deeper network than the search ever saw, five learning rates each, validation loss at the end."""
    images, labels = load_digits(return_X_y=True)
    x = torch.tensor(images, dtype=torch.float32) / 16
    y = torch.tensor(labels)
    train, valid = (x[:1400], y[:1400]), (x[1400:], y[1400:])
    champion = load_optimizer(exported)
    rows = []
    for name, make, lr in (("champion", champion, ADAM_LR * factor), ("adam", torch.optim.Adam, ADAM_LR)):
        tried = [(fit(make, lr * k, train, valid), lr * k) for k in LR_FACTORS]
        (loss, accuracy), best_lr = min(tried)
        rows.append((name, best_lr, loss, accuracy))
    print(f"{'optimizer':<10} {'best lr':>10} {'valid loss':>11} {'accuracy':>9}")
    for name, best_lr, loss, accuracy in rows:
        print(f"{name:<10} {best_lr:>10.3g} {loss:>11.4f} {accuracy:>9.3f}")


def fit(make: Any, lr: float, train: Any, valid: Any) -> tuple[float, float]:
    """Validation loss and accuracy after training a 64-64-64-10 network."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
    optimizer = make(model.parameters(), lr=lr)
    for _ in range(STEPS):
        rows = torch.randint(len(train[0]), (64,))
        loss = nn.functional.cross_entropy(model(train[0][rows]), train[1][rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        logits = model(valid[0])
        value = float(nn.functional.cross_entropy(logits, valid[1]))
        accuracy = float((logits.argmax(1) == valid[1]).float().mean())
    return (value if value == value else float("inf")), accuracy


if __name__ == "__main__":
    sys.exit(main())
