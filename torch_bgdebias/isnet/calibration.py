"""Estimates the usual relevance of a model trained without the heatmap loss: the target range of ``ISNetLoss``."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from torch_bgdebias._deprecated import warn_renamed
from torch_bgdebias.batch import BatchSpec
from torch_bgdebias.checks import check_finite, check_image
from torch_bgdebias.isnet.record import Explanation
from torch_bgdebias.isnet.wrapper import ISNet
from torch_bgdebias.models import device_of, eval_mode
from torch_bgdebias.subsets import spread_batches

__all__ = [
    "RelevanceRange",
    "add_explanation",
    "calibrate_relevance_range",
    "calibrate_relevance_ranges",
    "range_of_sums",
    "ranges_of_sums",
    "relevance_sums",
]

#: name of the input's own heatmaps among those of the hidden layers
INPUT = "input"


class RelevanceRange(tuple[float, float]):
    """(C1, C2) of the input's heatmaps, and in ``hidden`` those of hidden layers by name."""

    hidden: dict[str, tuple[float, float]]

    def __new__(
        cls, low: float, high: float, hidden: Mapping[str, tuple[float, float]] | None = None
    ) -> RelevanceRange:
        """The pair, with the layers' pairs beside it."""
        measured = super().__new__(cls, (low, high))
        measured.hidden = dict(hidden or {})
        return measured


def relevance_sums(relevance: Tensor) -> Tensor:
    """Sum of |R| over channels and pixels, per sample and map, in float64: (B, M, C, H, W) -> (B * M,)."""
    return relevance.detach().abs().flatten(2).sum(2, dtype=torch.float64).flatten()


def range_of_sums(count: float, total: float, squares: float) -> tuple[float, float]:
    """(C1, C2) from the number of sums of |R|, their total and the total of their squares.

    With mean mu and standard deviation sd (of the population): C1 = max(mu / 5, mu - 3 sd), C2 = min(25 C1, mu + 3 sd)
    (Faster ISNet, arXiv 2401.08409).

    Raises:
        ValueError: no sums, or no relevance in any of them.
    """
    if count < 1:
        raise ValueError("calibration: expected at least one image, the loader gave none")
    mu = total / count
    if not mu > 0.0:
        raise ValueError(f"calibration: expected some relevance, the mean sum of |relevance| is {mu:g}")
    sd = math.sqrt(max(squares / count - mu * mu, 0.0))
    low = max(mu / 5, mu - 3 * sd)
    return low, min(25 * low, mu + 3 * sd)


def add_explanation(sums: dict[str, Tensor], explanation: Explanation, *, check: bool = False) -> None:
    """Add a batch's number of sums of |R|, their total and total of squares to those of each layer in ``sums``.

    Args:
        sums: layer (or `INPUT`) -> (3,), in float64.
        explanation: of the batch.
        check: refuse relevance that is not finite, where looking is free.
    """
    for name, relevance in ((INPUT, explanation.relevance), *explanation.hidden.items()):
        if check:
            check_finite(relevance, name=f"relevance of {name!r}")
        size = relevance_sums(relevance)
        total = size.sum()
        values = torch.stack([torch.full_like(total, len(size)), total, size.square().sum()])
        sums[name] = sums[name] + values if name in sums else values


def ranges_of_sums(sums: Mapping[str, tuple[float, ...]]) -> RelevanceRange:
    """The ranges of all layers from what `add_explanation` added up.

    Raises:
        ValueError: no batch, or no relevance in any of a layer's heatmaps.
    """
    ranges = {name: range_of_sums(*values) for name, values in sums.items()} or {INPUT: range_of_sums(0, 0, 0)}
    return RelevanceRange(*ranges.pop(INPUT), ranges)


def calibrate_relevance_range(
    isnet: ISNet,
    loader: Iterable[Any],
    *,
    spec: BatchSpec | None = None,
    max_batches: int | None = None,
    device: torch.device | str | None = None,
) -> RelevanceRange:
    """Measure (C1, C2) for ``ISNetLoss(relevance_range=...)`` on a model trained without the heatmap loss.

    mu and sd are the mean and standard deviation of the sum of |relevance| over an image (all channels and pixels),
    one value a sample and map: C1 = max(mu / 5, mu - 3 sd), C2 = min(25 C1, mu + 3 sd). The model runs in evaluation
    mode, and its modes and gradients are left as they were. Works under ``torch.no_grad``.

    Args:
        isnet: wraps the trained model; its variant and epsilon must be those of the training that follows.
        loader: batches of training images.
        spec: where the images are in a batch; by default the first item.
        max_batches: measure so many batches, spread over the data set and its classes where the loader goes through it
            in order; all by default.
        device: where the images go; the model's by default.

    Returns:
        RelevanceRange: C1 and C2 of the input's heatmaps, and in ``hidden`` those of every hidden layer that ``isnet``
        explains; ``loss.with_ranges(measured, measured.hidden)`` takes all of them.

    Raises:
        ValueError: an empty loader, relevance that is not finite, or none at all.
    """
    if not isnet.rules.at_input:
        raise ValueError("at_input: False leaves the input out, whose range is to be measured; leave it True")
    spec = spec or BatchSpec()
    if device is None:
        device = device_of(isnet.model)
    sums: dict[str, Tensor] = {}
    with eval_mode(isnet.model), torch.inference_mode(False), torch.enable_grad():
        for batch in spread_batches(loader, max_batches):
            image = check_image(spec.image_of(batch), volumes=True).detach().clone().to(device)
            add_explanation(sums, isnet.explain(image, create_graph=False), check=True)
    return ranges_of_sums({name: tuple(values.tolist()) for name, values in sums.items()})


def calibrate_relevance_ranges(isnet: ISNet, loader: Iterable[Any], **options: Any) -> dict[str, tuple[float, float]]:
    """Deprecated: `calibrate_relevance_range` measures all layers, ``hidden`` holds those beside the input."""
    warn_renamed("calibrate_relevance_ranges", "calibrate_relevance_range, whose result has the layers in .hidden")
    measured = calibrate_relevance_range(isnet, loader, **options)
    return {INPUT: (measured[0], measured[1]), **measured.hidden}
