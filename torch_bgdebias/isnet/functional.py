"""The heatmap loss of ISNet as pure functions: relevance and mask in, one number a sample and map out.

Source: Bassi, Dertkigil and Cavalli, *Improving deep neural network generalization and robustness to background bias
via layer-wise relevance propagation optimization* (Nature Communications 15, 291, 2024), and *Faster ISNet*
(arXiv 2401.08409). Every operation is per sample, so a result does not depend on its neighbours in the batch.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple, TypeAlias

import torch
from torch import Tensor
from torch.nn import functional as F

from torch_bgdebias.checks import (
    check_count,
    check_finite,
    check_mask,
    check_option,
    check_share,
    describe,
    values_readable,
)
from torch_bgdebias.precision import autocast_off, working_precision

__all__ = [
    "HeatmapOptions",
    "HeatmapTerms",
    "background_term",
    "dilate_mask",
    "foreground_term",
    "heatmap_loss",
    "pool_layers",
    "rank_pool",
    "resize_mask",
    "share_term",
]

Foreground: TypeAlias = Literal["hybrid", "l2"]
Normalization: TypeAlias = Literal["absolute", "signed"]
Form: TypeAlias = Literal["share", "paper"]

FOREGROUND = ("hybrid", "l2")
NORMALIZATION = ("absolute", "signed")
FORMS = ("share", "paper")

#: E of the form "share"
SHARE_SATURATION = 0.1

_FLOOR = 1e-10  # added to the foreground's relevance, by which is divided
_MOST = 7 * math.log(10.0)  # -log(1 - x) with x clamped at 1 - 1e-7


@dataclasses.dataclass(frozen=True)
class HeatmapOptions:
    """How heatmaps are judged.

    Args:
        relevance_range: (C1, C2), 0 < C1 <= C2, between which the sum of |relevance| over the foreground is left alone.
        background_weight: w1.
        foreground_weight: w2.
        rank_decay: d in [0, 1]; 1 averages the background, smaller values look at its strongest pixels.
        saturation: E > 0; the larger, the later the background term flattens.
        foreground: growth of the foreground term beyond C1 + C2, "hybrid" linear or "l2" quadratic.
        normalization: "absolute" or "signed" mean of the foreground in the background term.
        form: "paper": all of the above; "share": `share_term`, which has nothing of it but ``saturation``.

    Raises:
        ValueError: an option out of range.
    """

    relevance_range: tuple[float, float] = (1.0, 25.0)
    background_weight: float = 1.0
    foreground_weight: float = 1.0
    rank_decay: float = 0.9
    saturation: float = 1.0
    foreground: Foreground = "hybrid"
    normalization: Normalization = "absolute"
    form: Form = "paper"

    def __post_init__(self) -> None:
        low, high = check_range_of_relevance(self.relevance_range)
        object.__setattr__(self, "relevance_range", (low, high))
        for name, value in (
            ("background_weight", self.background_weight), ("foreground_weight", self.foreground_weight),
        ):  # fmt: skip
            if not value >= 0.0:
                raise ValueError(f"{name}: expected 0 or more, got {value!r}")
        check_share(self.rank_decay, name="rank_decay")
        if not 0.0 < self.saturation < math.inf:
            raise ValueError(f"saturation: expected above 0, got {self.saturation!r}")
        check_option(self.foreground, FOREGROUND, name="foreground")
        check_option(self.normalization, NORMALIZATION, name="normalization")
        check_option(self.form, FORMS, name="form")


class HeatmapTerms(NamedTuple):
    """The heatmap loss and its two halves, each (B,): ``loss = w1 background + w2 foreground``."""

    loss: Tensor
    background: Tensor
    foreground: Tensor


def rank_pool(values: Tensor, decay: float) -> Tensor:
    """Average the last dimension, sorted descending, with weights d^0, d^1, ... (global weighted rank pooling).

    Weights below the dtype's resolution are not sorted for: of 224 x 224 pixels and d = 0.9 the 158 largest are looked
    at, with an error below one unit in the last place. d = 1 is the mean and d = 0 the maximum.

    Args:
        values: (..., N), non-negative.
        decay: d in [0, 1].

    Returns:
        Tensor: (...).
    """
    check_share(decay, name="decay")
    if decay == 1.0:
        return values.mean(-1)
    weights = _rank_weights(values.shape[-1], decay, values)
    return (values.topk(len(weights), -1).values * weights).sum(-1)


def _rank_weights(size: int, decay: float, like: Tensor) -> Tensor:
    """d^0, d^1, ... over the sum of all ``size`` of them, as far as the dtype can tell them from 0 beside d^0."""
    count = 1
    if decay > 0.0:
        count = min(size, math.ceil(math.log(torch.finfo(like.dtype).eps) / math.log(decay)))
    rank = torch.arange(count, device=like.device, dtype=like.dtype)
    total = (1.0 - decay**size) / (1.0 - decay)
    return torch.exp(rank * (math.log(decay) if decay > 0.0 else 0.0)) / total


def _pool_background(relevance: Tensor, background: Tensor, decay: float) -> Tensor:
    """Rank pool of |R| (1 - m) per channel, (B, M, C). ``background`` is (B, 1, 1, H W).

    Only the pixels that weigh enter the graph: a gradient of zero for all others needs no arithmetic.
    """
    pixels = relevance.flatten(3)
    if decay == 1.0:
        return _weighted_sum(pixels.abs(), background[:, :, 0]) / pixels.shape[-1]
    weights = _rank_weights(pixels.shape[-1], decay, pixels)
    with torch.no_grad():
        largest = (pixels.abs() * background).topk(len(weights), -1).indices
    share = background.expand(pixels.shape).gather(-1, largest)
    return (pixels.gather(-1, largest).abs() * share * weights).sum(-1)


def _weighted_sum(pixels: Tensor, weight: Tensor) -> Tensor:
    """Sum of (B, M, C, N) weighted by (B, 1, N), per channel (B, M, C), without a temporary of the heatmaps' size."""
    return (pixels.flatten(1, 2) @ weight.mT).reshape(pixels.shape[:3])


def background_term(
    relevance: Tensor,
    mask: Tensor,
    *,
    rank_decay: float = 0.9,
    saturation: float = 1.0,
    normalization: Normalization = "absolute",
    expected: float = 1.0,
) -> Tensor:
    """How strong the strongest relevance on the background is beside the mean of the foreground.

    R' = R / (mean of R over the foreground, all channels; + 1e-10), with |R| for R before ("absolute") or after
    ("signed") the division; per channel g = rank pool of R'(1 - m); g / (g + E) clamped at 1 - 1e-7; -log(1 - .); mean
    over channels. Computed as log(1 + g / E), the same number without its cancellation.

    Args:
        relevance: (B, M, C, H, W), float32 or float64.
        mask: (B, 1, H, W) in [0, 1], same dtype.
        rank_decay: d in [0, 1].
        saturation: E > 0.
        normalization: where the absolute value is taken.
        expected: sum of |R| that an image is taken to have when its mask has no foreground; the mean of the foreground
            does not exist there, and expected / (C H W) takes its place, so that relevance is still driven to zero.

    Returns:
        Tensor: (B, M), 0 where the mask is full.
    """
    pixels = mask.flatten(2)  # (B, 1, H W)
    measured = relevance.abs() if normalization == "absolute" else relevance
    area = pixels.sum(2) * relevance.shape[2]  # (B, 1)
    has_foreground = area > 0
    mean = _weighted_sum(measured.flatten(3), pixels).sum(2) / torch.where(has_foreground, area, 1.0)
    mean = torch.where(has_foreground, mean + _FLOOR, expected / math.prod(relevance.shape[2:]))
    pooled = _pool_background(relevance, (1.0 - pixels).unsqueeze(1), rank_decay)
    ratio = pooled / (mean.abs().unsqueeze(-1) * saturation)
    return torch.log1p(ratio).clamp(max=_MOST).mean(-1)


def foreground_term(
    relevance: Tensor,
    mask: Tensor,
    *,
    relevance_range: tuple[float, float] = (1.0, 25.0),
    foreground: Foreground = "hybrid",
) -> Tensor:
    """Keep the foreground's relevance between C1 and C2, so that the background term cannot win by shrinking all.

    F = sum of |R| m over channels and pixels; (min(F / C1, 1) - 1)^2, plus (F / C1 - C2 / C1)^2 where F > C2, which
    "hybrid" replaces by 1 + F - C1 - C2 where F > C1 + C2.

    Args:
        relevance: (B, M, C, H, W), float32 or float64.
        mask: (B, 1, H, W) in [0, 1], same dtype.
        relevance_range: (C1, C2), 0 < C1 <= C2.
        foreground: the growth of the term for very large relevance.

    Returns:
        Tensor: (B, M), 0 where the mask has no foreground (nothing could have been relevant).
    """
    low, high = relevance_range
    total = _weighted_sum(relevance.abs().flatten(3), mask.flatten(2)).sum(2)
    under = ((total / low).clamp(max=1.0) - 1.0).square()
    excess = (total - high).clamp(min=0.0)
    if foreground == "hybrid":  # (C1 / C1)^2 = 1 where the straight line begins
        over = excess.clamp(max=low).div(low).square() + (excess - low).clamp(min=0.0)
    else:
        over = excess.div(low).square()
    has_foreground = mask.sum((1, 2, 3)).unsqueeze(1) > 0
    return torch.where(has_foreground, under + over, 0.0)


def share_term(relevance: Tensor, mask: Tensor, *, saturation: float = SHARE_SATURATION) -> Tensor:
    """log(1 + B / (E F)), B and F the sums of |R| (1 - m) and of |R| m over all channels and pixels.

    With E = 1 it is -log of the share of |R| that lies on the foreground. It depends on ratios alone: if a weight
    scales all relevance, its gradient is 0, and what is left is at most d log B - d log F, whatever E is. That is what
    tells it from the papers' loss, whose foreground term grows with relevance, and whose background term looks at a
    few pixels. A smaller E keeps it at work when little relevance is left on the background: its slope in B / F is
    1 / (E + B / F).

    Args:
        relevance: (B, M, C, H, W), float32 or float64.
        mask: (B, 1, H, W) in [0, 1], same dtype.
        saturation: E > 0.

    Returns:
        Tensor: (B, M); 0 where the mask is full or nothing is relevant. Without any foreground there is no ratio, and
        log(1 + B) drives relevance to zero.
    """
    pixels = mask.flatten(2)
    size = relevance.abs().flatten(3)
    inside, outside = _weighted_sum(size, pixels).sum(2), _weighted_sum(size, 1.0 - pixels).sum(2)
    has_foreground = pixels.sum(2) > 0  # (B, 1)
    return torch.log1p(outside / torch.where(has_foreground, inside * saturation + _FLOOR, 1.0))


def resize_mask(mask: Tensor, size: Sequence[int]) -> Tensor:
    """The mask at a hidden layer's resolution: average pooling, then any foreground at all counts as foreground.

    Args:
        mask: (B, 1, H, W) in [0, 1], or (B, 1, D, H, W).
        size: (h, w) of the layer, or (d, h, w).

    Returns:
        Tensor: (B, 1, h, w) of zeros and ones; the mask itself, soft or not, when it already has that size.
    """
    if tuple(mask.shape[2:]) == tuple(size):
        return mask
    return (mean_over_pixels(mask, size) > 0).to(mask.dtype)


def mean_over_pixels(mask: Tensor, size: Sequence[int]) -> Tensor:
    """A mask (B, 1, H, W), or of volumes (B, 1, D, H, W), averaged down to ``size``."""
    pool: Callable[..., Tensor] = F.adaptive_avg_pool3d if mask.ndim == 5 else F.adaptive_avg_pool2d
    return pool(mask, tuple(size))


def dilate_mask(mask: Tensor, pixels: int) -> Tensor:
    """The mask grown by ``pixels`` (and slices) in every direction, a square one: an edge needs both sides."""
    check_count(pixels, name="pixels", least=0)
    grow: Callable[..., Tensor] = F.max_pool3d if mask.ndim == 5 else F.max_pool2d
    return grow(mask, 2 * pixels + 1, stride=1, padding=pixels) if pixels else mask


def pool_layers(terms: list[HeatmapTerms], decay: float) -> HeatmapTerms:
    """Average several layers' terms, per sample, with weights d^rank, the layer with the largest loss first."""
    if len(terms) == 1:
        return terms[0]
    loss, background, foreground = (torch.stack(part, -1) for part in zip(*terms, strict=True))
    order = loss.argsort(-1, descending=True)
    weights = torch.pow(decay, torch.arange(len(terms), device=loss.device, dtype=loss.dtype))
    weights = weights / weights.sum()
    return HeatmapTerms(*((part.gather(-1, order) * weights).sum(-1) for part in (loss, background, foreground)))


def heatmap_terms(
    relevance: Tensor,
    mask: Tensor,
    options: HeatmapOptions,
    *,
    relevance_range: tuple[float, float] | None = None,
    name: str = "relevance",
) -> HeatmapTerms:
    """Both terms of the heatmap loss per sample, means over maps.

    Args:
        relevance, mask: as `heatmap_loss` takes them, the relevance of a volume (B, M, C, D, H, W) beside a mask
            (B, 1, D, H, W).
        options: how they are judged.
        relevance_range: (C1, C2) of these heatmaps, where it is not that of the options; checked already.
        name: what error messages call the relevance.
    """
    check_relevance(relevance, name=name)
    bounds = options.relevance_range if relevance_range is None else relevance_range
    with autocast_off(relevance):
        relevance = working_precision(relevance)
        mask = check_mask(mask, relevance[:, 0])
        if relevance.ndim == 6:  # both terms look at pixels one by one, wherever they lie
            relevance, mask = relevance.flatten(3, 4), mask.flatten(2, 3)
        if options.form == "share":
            share = share_term(relevance, mask, saturation=options.saturation).mean(1)
            return HeatmapTerms(share, share, torch.zeros_like(share))
        background = background_term(
            relevance,
            mask,
            rank_decay=options.rank_decay,
            saturation=options.saturation,
            normalization=options.normalization,
            expected=bounds[0],
        ).mean(1)
        foreground = foreground_term(relevance, mask, relevance_range=bounds, foreground=options.foreground).mean(1)
        loss = options.background_weight * background + options.foreground_weight * foreground
        if values_readable(loss) and not bool(loss.detach().sum().isfinite()):  # squares of finite numbers may be none
            peak = float(relevance.detach().abs().amax())
            raise ValueError(f"{name}: expected a loss that {relevance.dtype} holds, got |relevance| up to {peak:.3g}")
        return HeatmapTerms(loss, background, foreground)


def heatmap_loss(
    relevance: Tensor,
    mask: Tensor,
    *,
    relevance_range: tuple[float, float] = (1.0, 25.0),
    background_weight: float = 1.0,
    foreground_weight: float = 1.0,
    rank_decay: float = 0.9,
    saturation: float = 1.0,
    foreground: Foreground = "hybrid",
    normalization: Normalization = "absolute",
    reduction: Literal["mean", "none"] = "mean",
) -> Tensor:
    """ISNet's heatmap loss of one set of heatmaps: ``w1 background + w2 foreground``.

    Args:
        relevance: (B, M, C, H, W), or of volumes (B, M, C, D, H, W), any floating dtype; the loss is computed in
            float32 (float64 stays), also under autocast.
        mask: (B, 1, H, W) or (B, H, W) in [0, 1], 1 = foreground. No foreground: the background term alone. Full: the
            foreground term alone.
        relevance_range: (C1, C2) between which the sum of |relevance| over the foreground is left alone.
        background_weight: w1.
        foreground_weight: w2.
        rank_decay: d; 1 averages the background, smaller values look at its strongest pixels.
        saturation: E; the larger, the later the background term flattens.
        foreground: growth of the foreground term beyond C1 + C2, "hybrid" linear or "l2" quadratic.
        normalization: "absolute" or "signed" mean of the foreground in the background term.
        reduction: "mean" over the batch, or "none" for (B,).

    Returns:
        Tensor: scalar, or (B,).

    Raises:
        TypeError, ValueError: shapes, options, a mask of another size or with several channels, or non-finite relevance
            (looked for where that is free: on the CPU).
    """
    check_option(reduction, ("mean", "none"), name="reduction")
    options = HeatmapOptions(
        relevance_range=relevance_range, background_weight=background_weight, foreground_weight=foreground_weight,
        rank_decay=rank_decay, saturation=saturation, foreground=foreground, normalization=normalization,
    )  # fmt: skip
    loss = heatmap_terms(relevance, mask, options).loss
    return loss.mean() if reduction == "mean" else loss


def check_relevance(relevance: Tensor, *, name: str = "relevance") -> None:
    """Require finite floating point heatmaps (B, M, C, H, W) with at least one map, channel and pixel.

    Of volumes (B, M, C, D, H, W).
    """
    if not isinstance(relevance, Tensor) or not relevance.is_floating_point():
        raise TypeError(f"{name}: expected a float tensor (B, M, C, H, W), got {describe(relevance)}")
    if relevance.ndim not in (5, 6) or 0 in relevance.shape:
        raise ValueError(f"{name}: expected shape (B, M, C, H, W), none of them 0, got {describe(relevance)}")
    check_finite(relevance, name=name)


def check_range_of_relevance(bounds: tuple[float, float], *, name: str = "relevance_range") -> tuple[float, float]:
    """Require 0 < C1 <= C2 and return them."""
    low, high = bounds
    if not 0.0 < low <= high < math.inf:
        raise ValueError(f"{name}: expected 0 < C1 <= C2, got {bounds!r}")
    return float(low), float(high)
