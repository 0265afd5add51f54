"""An exported optimizer in a training loop of Hugging Face accelerate, with a checkpoint of it.

    python examples/with_accelerate.py

Needs `pip install accelerate`. The file that `exported` writes is what

    ruleforge export adabelief --to torch -o exported_rule.py

writes too; for the champion of a run name its folder in place of `adabelief`.
"""

from __future__ import annotations

import importlib
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import ruleforge as rf

EPOCHS = 10


def main() -> None:
    torch.manual_seed(0)
    images, labels = load_digits(return_X_y=True)
    x, y = torch.tensor(images, dtype=torch.float32) / 16, torch.tensor(labels)
    loader: Any = DataLoader(TensorDataset(x[:1400], y[:1400]), batch_size=64, shuffle=True)
    model: Any = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))

    with tempfile.TemporaryDirectory() as folder:
        optimizer = exported("adabelief", Path(folder))(model.parameters(), lr=3e-3, weight_decay=0.01)
        scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, EPOCHS * len(loader))
        accelerator = Accelerator(gradient_accumulation_steps=2)
        model, optimizer, loader, scheduler = accelerator.prepare(model, optimizer, loader, scheduler)
        for epoch in range(EPOCHS):
            for images, labels in loader:
                with accelerator.accumulate(model):
                    loss = nn.functional.cross_entropy(model(images), labels)
                    accelerator.backward(loss)
                    accelerator.clip_grad_norm_(model.parameters(), 1.0)
                    optimizer.step()
                    scheduler.step()
                    optimizer.zero_grad()
            if epoch == EPOCHS // 2:  # what a killed training would go on from
                accelerator.save_state(Path(folder) / "half")
                accelerator.load_state(Path(folder) / "half")

    model.eval()
    with torch.no_grad():
        guess = model(x[1400:].to(accelerator.device)).argmax(1).cpu()
    print(f"{type(optimizer.optimizer).__name__} on {accelerator.device}: "
          f"accuracy {float((guess == y[1400:]).float().mean()):.3f}")  # fmt: skip


def exported(rule: str, folder: Path) -> Any:
    """The optimizer class of an exported file, which needs torch alone."""
    (folder / "exported_rule.py").write_text(rf.export(rule, "torch", class_name="Exported"))
    sys.path.insert(0, str(folder))
    return importlib.import_module("exported_rule").Exported


if __name__ == "__main__":
    main()
