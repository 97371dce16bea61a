"""The background swap in Hugging Face's Trainer: an overridden compute_loss. python examples/hf_trainer.py

Needs transformers and accelerate: pip install transformers accelerate.
"""

from __future__ import annotations

import tempfile
from typing import Any

import torch
import torch.nn.functional as F
from drawn import CLASSES, draw
from torch import nn
from transformers import Trainer, TrainingArguments, ViTConfig, ViTForImageClassification

from torch_bgdebias import BackgroundSwap


class SwappingTrainer(Trainer):
    """Trains on the images with other backgrounds; the batches hold ``mask`` beside what the model takes."""

    swap = BackgroundSwap("batch", pattern="voronoi")

    def compute_loss(self, model: nn.Module, inputs: dict[str, Any], return_outputs: bool = False, **_: Any) -> Any:
        mask = inputs.pop("mask")
        inputs["pixel_values"] = self.swap(inputs["pixel_values"], mask, inputs["labels"])[0]
        outputs = model(pixel_values=inputs["pixel_values"])
        loss = F.cross_entropy(outputs.logits, inputs["labels"])
        return (loss, outputs) if return_outputs else loss


def main(epochs: int = 4) -> None:
    torch.manual_seed(0)
    model = ViTForImageClassification(
        ViTConfig(
            image_size=16, patch_size=4, hidden_size=32, num_hidden_layers=2, num_attention_heads=2,
            intermediate_size=64, num_labels=CLASSES,
        )
    )  # fmt: skip
    names = ("pixel_values", "labels", "mask")
    rows = [dict(zip(names, row, strict=True)) for row in zip(*draw(96), strict=True)]
    with tempfile.TemporaryDirectory() as folder:
        # remove_unused_columns would take the masks out before compute_loss sees them
        arguments = TrainingArguments(
            folder, num_train_epochs=epochs, per_device_train_batch_size=32, remove_unused_columns=False,
            report_to=[], use_cpu=True, save_strategy="no", disable_tqdm=True, learning_rate=2e-3,
        )  # fmt: skip
        result = SwappingTrainer(model=model, args=arguments, train_dataset=rows).train()
    print(f"loss {result.training_loss:.3f} after {result.global_step} steps")


if __name__ == "__main__":
    main()
