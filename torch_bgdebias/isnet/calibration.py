"""Where the relevance of a model trained without the heatmap loss lies: the range that ``ISNetLoss`` should keep to."""

from __future__ import annotations

import math
from collections.abc import Iterable
from itertools import islice
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from torch_bgdebias.batch import BatchSpec
from torch_bgdebias.checks import check_finite, check_image
from torch_bgdebias.models import eval_mode

if TYPE_CHECKING:
    from torch_bgdebias.isnet.wrapper import ISNet

__all__ = ["calibrate_relevance_range", "calibrate_relevance_ranges", "range_of_sums", "relevance_sums"]

#: name of the input's own heatmaps among those of the hidden layers
INPUT = "input"


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


def calibrate_relevance_ranges(
    isnet: ISNet,
    loader: Iterable[Any],
    *,
    spec: BatchSpec | None = None,
    max_batches: int | None = None,
    device: torch.device | str | None = None,
) -> dict[str, tuple[float, float]]:
    """(C1, C2) for the input's heatmaps (key "input") and for every hidden layer that ``isnet`` explains.

    Arguments, errors and conditions as :func:`calibrate_relevance_range`.
    """
    spec = spec or BatchSpec()
    if device is None:
        device = next((p.device for p in isnet.model.parameters()), torch.device("cpu"))
    stats: dict[str, Tensor] = {}
    with eval_mode(isnet.model), torch.inference_mode(False), torch.enable_grad():
        for batch in islice(loader, max_batches):
            image = check_image(spec.image_of(batch)).detach().clone().to(device)
            explained = isnet.explain(image, create_graph=False)
            for name, relevance in ((INPUT, explained.relevance), *explained.hidden.items()):
                check_finite(relevance, name=f"relevance of {name!r}")
                add_sums(stats, name, relevance)
    return {name: range_of_sums(*values.tolist()) for name, values in stats.items()} or {INPUT: range_of_sums(0, 0, 0)}


def add_sums(stats: dict[str, Tensor], name: str, relevance: Tensor) -> None:
    """Add a batch's number of sums, their total and total of squares to ``stats[name]``."""
    sums = relevance_sums(relevance)
    values = torch.stack([torch.full_like(sums[:1], len(sums))[0], sums.sum(), sums.square().sum()])
    stats[name] = stats[name] + values if name in stats else values


def calibrate_relevance_range(
    isnet: ISNet,
    loader: Iterable[Any],
    *,
    spec: BatchSpec | None = None,
    max_batches: int | None = None,
    device: torch.device | str | None = None,
) -> tuple[float, float]:
    """Measure (C1, C2) for ``ISNetLoss(relevance_range=...)`` on a model trained without the heatmap loss.

    mu and sd are the mean and standard deviation of the sum of |relevance| over an image (all channels and pixels),
    one value a sample and map: C1 = max(mu / 5, mu - 3 sd), C2 = min(25 C1, mu + 3 sd). The model runs in evaluation
    mode, and its modes and gradients are left as they were. Works under ``torch.no_grad``.

    Args:
        isnet: wraps the trained model; its variant and epsilon must be those of the training that follows.
        loader: batches of training images.
        spec: where the images are in a batch; by default the first item.
        max_batches: stop after so many batches; all by default.
        device: where the images go; the model's by default.

    Returns:
        tuple[float, float]: C1 and C2.

    Raises:
        ValueError: an empty loader, relevance that is not finite, or none at all.
    """
    ranges = calibrate_relevance_ranges(isnet, loader, spec=spec, max_batches=max_batches, device=device)
    return ranges[INPUT]
