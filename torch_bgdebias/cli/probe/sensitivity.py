"""``bgdebias probe --mask-quality``: repeats the measurement with damaged masks."""

from __future__ import annotations

import argparse

import torch
from torch import nn
from torch.utils.data import DataLoader

from torch_bgdebias.cli.probe.data import SPEC, ProbeData
from torch_bgdebias.cli.probe.outputs import Outputs
from torch_bgdebias.cli.progress import progress
from torch_bgdebias.probe import EvaluationSettings, MaskSensitivity, mask_sensitivity

__all__ = ["measure_sensitivity"]


def measure_sensitivity(
    args: argparse.Namespace, model: nn.Module, data: ProbeData, outputs: Outputs, device: torch.device
) -> MaskSensitivity | None:
    """How the model's figures move with worse masks; ``None`` where ``--mask-quality`` is not asked.

    Raises:
        ValueError: published variants, which no mask changes.
    """
    if args.mask_quality is None:
        return None
    if data.published is not None:
        raise ValueError("--mask-quality: expected variants that are made here; pass --remake")
    settings = EvaluationSettings(
        spec=SPEC,
        num_classes=len(outputs.names),
        mean=data.preprocessing.mean,
        std=data.preprocessing.std,
        seed=args.seed,
        logits=outputs.logits,
        ids="id",
        attributions=[name for name in args.attributions if name != "kernel_shap"],  # thirteen times minutes
        explain=args.target,
    )
    return mask_sensitivity(
        model,
        DataLoader(data.dataset, batch_size=args.batch_size, num_workers=args.workers),
        settings=settings,
        adversarial=args.adversarial or 0,
        quality=args.mask_quality,
        device=device,
        progress=progress,
    )
