"""What the callbacks share: both Lightning packages, the chain around a training step, one contract.

Importing this room imports Lightning; only files named ``callback`` and the training of the command line do.
"""

from __future__ import annotations

from torch_bgdebias.lightning.base import (
    LightningCallback,
    ReadingCallback,
    Schedule,
    TrainingStepCallback,
    device_number,
)
from torch_bgdebias.lightning.hiding import is_written
from torch_bgdebias.lightning.loss import add_to_loss, answer_widths, binary_widths, gradients_allowed
from torch_bgdebias.lightning.packages import LightningModule, Trainer, installed
from torch_bgdebias.lightning.step import StepCall, StepChange, wrap_training_step

__all__ = [
    "LightningCallback",
    "LightningModule",
    "ReadingCallback",
    "Schedule",
    "StepCall",
    "StepChange",
    "Trainer",
    "TrainingStepCallback",
    "add_to_loss",
    "answer_widths",
    "binary_widths",
    "device_number",
    "gradients_allowed",
    "installed",
    "is_written",
    "wrap_training_step",
]
