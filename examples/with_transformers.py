"""A rule as the optimizer of Hugging Face's Trainer, resumed from one of the Trainer's checkpoints.

    python examples/with_transformers.py [--run results/quickstart-0]

Needs `pip install transformers accelerate`. The model is small and the digits come with scikit-learn:
nothing is downloaded.
"""

from __future__ import annotations

import argparse
import tempfile
from typing import Any

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from transformers import PretrainedConfig, PreTrainedModel, Trainer, TrainingArguments
from transformers import get_cosine_schedule_with_warmup as cosine

import ruleforge as rf

EPOCHS = 10
BATCH = 64


class DigitsConfig(PretrainedConfig):
    model_type = "digits"

    def __init__(self, hidden_size: int = 64, **options: Any) -> None:
        self.hidden_size = hidden_size
        super().__init__(**options)


class Digits(PreTrainedModel):
    """A small classifier of 8×8 images."""

    config_class = DigitsConfig

    def __init__(self, config: DigitsConfig) -> None:
        super().__init__(config)
        width = config.hidden_size
        self.layers = nn.Sequential(nn.Linear(64, width), nn.ReLU(), nn.Linear(width, 10))
        self.post_init()

    def forward(self, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
        logits = self.layers(images)
        return {"loss": nn.functional.cross_entropy(logits, labels), "logits": logits}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", help="train with the champion of this run, in place of Lion")
    parser.add_argument("--lr", type=float, default=3e-3)
    options = parser.parse_args()
    rule = rf.load(options.run) if options.run else rf.known("lion")

    images, labels = load_digits(return_X_y=True)
    pixels = torch.tensor(images, dtype=torch.float32) / 16
    data = [{"images": x, "labels": int(y)} for x, y in zip(pixels, labels, strict=True)]
    train, valid = data[:1400], data[1400:]

    with tempfile.TemporaryDirectory() as folder:
        for epochs, resume in ((EPOCHS // 2, False), (EPOCHS, True)):
            torch.manual_seed(0)
            model = Digits(DigitsConfig(hidden_size=64))
            optimizer = rule.optimizer(model.parameters(), lr=options.lr, weight_decay=0.05)
            steps = EPOCHS * -(-len(train) // BATCH)
            scheduler = cosine(optimizer, steps // 10, steps)
            trainer = Trainer(
                model,
                TrainingArguments(
                    folder, num_train_epochs=epochs, per_device_train_batch_size=BATCH,
                    save_strategy="epoch", save_total_limit=1, report_to="none", disable_tqdm=True,
                    logging_strategy="no", dataloader_pin_memory=torch.cuda.is_available(),
                ),
                train_dataset=train,
                eval_dataset=valid,
                compute_metrics=accuracy,
                optimizers=(optimizer, scheduler),
            )  # fmt: skip
            trainer.train(resume_from_checkpoint=resume)
            found = trainer.evaluate()["eval_accuracy"]
            print(f"after {trainer.state.global_step} steps: accuracy {found:.3f}")


def accuracy(outcome: Any) -> dict[str, float]:
    return {"accuracy": float((outcome.predictions.argmax(1) == outcome.label_ids).mean())}


if __name__ == "__main__":
    main()
