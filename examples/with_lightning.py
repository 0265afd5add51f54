"""A rule as the optimizer of a PyTorch Lightning module, stopped halfway and resumed from its checkpoint.

    python examples/with_lightning.py

Needs `pip install lightning`. `rf.load("results/quickstart-0").optimizer(…)` in place of
`rf.known("lion").optimizer(…)` trains with the champion of a run.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import lightning
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import ruleforge as rf

EPOCHS = 10
STEPS = 22  # an epoch: 1,400 images in batches of 64


class Digits(lightning.LightningModule):
    """A small classifier of 8×8 images."""

    def __init__(self) -> None:
        super().__init__()
        self.model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))

    def configure_optimizers(self) -> dict[str, Any]:
        optimizer = rf.known("lion").optimizer(self.parameters(), lr=3e-3, weight_decay=0.1)
        scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, EPOCHS * STEPS)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def training_step(self, batch: tuple[Tensor, Tensor], index: int) -> Tensor:
        images, labels = batch
        return nn.functional.cross_entropy(self.model(images), labels)

    def validation_step(self, batch: tuple[Tensor, Tensor], index: int) -> None:
        images, labels = batch
        right = (self.model(images).argmax(1) == labels).float().mean()
        self.log("accuracy", right, prog_bar=True)


def main() -> None:
    lightning.seed_everything(0)
    images, labels = load_digits(return_X_y=True)
    data = TensorDataset(torch.tensor(images, dtype=torch.float32) / 16, torch.tensor(labels))
    train = DataLoader(torch.utils.data.Subset(data, range(1400)), batch_size=64, shuffle=True)
    valid = DataLoader(torch.utils.data.Subset(data, range(1400, len(data))), batch_size=len(data))

    with tempfile.TemporaryDirectory() as folder:
        first = make_trainer(EPOCHS // 2)
        first.fit(Digits(), train, valid)
        first.save_checkpoint(Path(folder) / "half.ckpt")
        second = make_trainer(EPOCHS)
        second.fit(Digits(), train, valid, ckpt_path=Path(folder) / "half.ckpt", weights_only=True)
    for trainer in (first, second):
        print(f"after {trainer.global_step} steps: accuracy {trainer.callback_metrics['accuracy']:.3f}")


def make_trainer(epochs: int) -> lightning.Trainer:
    return lightning.Trainer(
        max_epochs=epochs, logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip


if __name__ == "__main__":
    main()
