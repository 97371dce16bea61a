"""Scores for ``bgdebias probe``: pixel ratios, heatmaps of the images that are shown, adversarial backgrounds."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn

from torch_bgdebias.attribution import grad_cam, kernel_shap, lrp
from torch_bgdebias.compositing import bounding_boxes, tile_fill
from torch_bgdebias.metrics import adversarial_background_accuracy, pixel_ratio

if TYPE_CHECKING:
    from torch_bgdebias.probe import BackgroundBiasReport
    from torch_bgdebias.probe.measure import ImageScore

__all__ = ["Attribution", "adversarial", "attributions", "own_backgrounds", "scores", "with_heatmaps"]

#: (model, image (B, C, H, W), target (B,) or None) -> (B, 1, H, W)
Attribution: TypeAlias = Callable[[nn.Module, Tensor, Tensor | None], Tensor]


def attributions(names: Sequence[str], *, logits: Any, samples: int, chunk: int, seed: int) -> dict[str, Attribution]:
    """The attributions called ``names``, each with the command's settings.

    Args:
        names: of ``grad_cam``, ``kernel_shap``, ``lrp``.
        logits: where the logits are in the model's output.
        samples: coalitions of KernelSHAP.
        chunk: images in one forward pass of KernelSHAP.
        seed: of its coalitions, which are the same for every image.
    """

    def cam(model: nn.Module, image: Tensor, target: Tensor | None) -> Tensor:
        return grad_cam(model, image, target, logits=logits)

    def shap(model: nn.Module, image: Tensor, target: Tensor | None) -> Tensor:
        generator = torch.Generator(image.device).manual_seed(seed)
        found = kernel_shap(
            model, image, target, samples=samples, chunk=chunk, logits=logits, generator=generator, baseline="mean"
        )
        return found.attribution

    def relevance(model: nn.Module, image: Tensor, target: Tensor | None) -> Tensor:
        return lrp(model, image, target, logits=logits)

    known: dict[str, Attribution] = {"grad_cam": cam, "kernel_shap": shap, "lrp": relevance}
    return {name: known[name] for name in names}


def scores(chosen: dict[str, Attribution], *, of_label: bool) -> dict[str, ImageScore]:
    """Pixel ratios for ``evaluate_background_bias``, of the class predicted, or of the label."""

    def ratio(attribution: Attribution, model: nn.Module, image: Tensor, mask: Tensor, label: Tensor) -> Tensor:
        return pixel_ratio(attribution(model, image, label if of_label else None), mask)

    return {f"pixel_ratio/{name}": partial(ratio, attribution) for name, attribution in chosen.items()}


def own_backgrounds(dataset: Any, count: int) -> Tensor:
    """Backgrounds (N, C, H, W), N <= count, of images spread evenly over a data set, their foreground tiled over.

    Images whose foreground's box is the whole image have no background to give.

    Raises:
        ValueError: none of them has.
    """
    positions = np.linspace(0, len(dataset) - 1, min(count, len(dataset))).round().astype(int)
    found = []
    for position in positions:
        image, _, mask = dataset[int(position)]
        top, left, bottom, right = bounding_boxes(mask[None])[0].tolist()
        if (bottom - top) * (right - left) < mask.shape[1] * mask.shape[2]:
            found.append(tile_fill(image[None], mask[None])[0])
    if not found:
        raise ValueError(f"--adversarial: none of {len(positions)} pictures has a background beside its foreground")
    return torch.stack(found)


def adversarial(bank: Tensor, *, logits: Any, chunk: int) -> ImageScore:
    """Score for ``evaluate_background_bias``: 1 where the image survives every background of the bank, else 0."""

    def robust(model: nn.Module, image: Tensor, mask: Tensor, label: Tensor) -> Tensor:
        found = adversarial_background_accuracy(model, image, mask, label, bank, logits=logits, chunk=chunk)
        return torch.where(found.valid, found.robust.float(), torch.nan)

    return robust


def with_heatmaps(
    report: BackgroundBiasReport,
    model: nn.Module,
    item: Callable[[int], tuple[Tensor, int]],
    chosen: dict[str, Attribution],
    *,
    of_label: bool,
) -> BackgroundBiasReport:
    """The report with a heatmap of each attribution beside the original of each example.

    Args:
        report: with examples, of a loader that was not shuffled.
        model: that was measured.
        item: from a position in the data set to image (C, H, W) on the model's device, and label.
        chosen: from `attributions`.
        of_label: explain the label instead of the predicted class.
    """
    rows = {int(id): row for row, id in enumerate(report.images.id)}
    positions = report.images.position
    done = []
    for example in report.examples:
        if positions is None or example.id not in rows:
            done.append(example)
            continue
        image, label = item(int(positions[rows[example.id]]))
        target = torch.tensor([label], device=image.device) if of_label else None
        pictures = {}
        for name, picture in example.pictures.items():
            pictures[name] = picture
            if name == "original":
                for key, attribution in chosen.items():
                    pictures[f"heatmap/{key}"] = overlay(picture, attribution(model, image[None], target)[0, 0])
        done.append(dataclasses.replace(example, pictures=pictures))
    return dataclasses.replace(report, examples=done)


def overlay(picture: np.ndarray[Any, np.dtype[np.uint8]], attribution: Tensor) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """A picture (H, W, 3) in pale grey with its positive attribution in red, in the picture's size.

    The 99th percentile of the positive values is full red, so that a single bright pixel does not hide the rest.
    """
    positive = attribution.detach().float().cpu().clamp(min=0)[None, None]
    positive = torch.nn.functional.interpolate(positive, picture.shape[:2], mode="bilinear", antialias=True)[0, 0]
    above = positive[positive > 0]
    if above.numel():
        positive = positive / torch.quantile(above, 0.99).clamp(min=torch.finfo(torch.float32).tiny)
    heat = positive.clamp(0, 1).numpy()[..., None]
    grey = 0.5 * picture.mean(2, keepdims=True) + 110
    mixed = (1 - heat) * grey + heat * np.array([200.0, 20.0, 20.0])
    return np.ascontiguousarray(mixed.clip(0, 255).round().astype(np.uint8))
