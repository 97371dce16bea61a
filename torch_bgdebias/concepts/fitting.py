"""Fitting concept vectors: every vector of a layer in one batched optimisation, activations streamed in chunks.

The objective of a sample with activations a (C, h, w), mask m (H, W) and vector v (arXiv 2504.08602, section 3):

    sum over pixels of  w * BCE-with-logits(z, m > 0.5),   z = v . a resized bilinearly to (H, W),
    w = alpha m + (1 - alpha)(1 - m),   alpha = 1 - mean(m)

Pixels that are neither object nor background have w = 0, and the mean is taken over the others.

Resizing is linear and acts on each channel alone, so v . resize(a) = resize(v . a): one small map is resized instead of
C large ones, and the gradient goes back through the transposed resize. The optimiser is AdamW written out, because the
vectors of thousands of problems are rows of one matrix and need no graph.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from torch_bgdebias.checks import check_label, check_range, describe, values_readable
from torch_bgdebias.precision import working_dtype

__all__ = ["Activations", "concept_iou", "concept_objective", "fit_concepts", "fit_loce", "fit_net2vec"]


#: bytes of activations that are worked on together on a CPU
_CACHED = 4 * 2**20


class Activations(Protocol):
    """Activations (N, C, h, w) that can be sliced: a tensor, or a store on disk that yields tensors."""

    @property
    def shape(self) -> torch.Size:
        """(N, C, h, w)."""
        ...

    def __getitem__(self, index: slice) -> Tensor:
        """Some samples."""
        ...


def fit_net2vec(
    activations: Activations, masks: Tensor, epochs: int = 30, lr: float = 0.1, void: Tensor | None = None
) -> Tensor:
    """One vector for all samples (C,): the mean of the samples' objectives, minimised from zeros by AdamW.

    Args:
        activations: (N, C, h, w) of one layer, any floating dtype.
        masks: (N, H, W) or (N, 1, H, W) in [0, 1], bool or floating, 1 on the concept; maps are compared with them at
            their size (the papers use 80 x 80).
        epochs: steps, each over all samples.
        lr: learning rate; weight decay is torch's default for AdamW, 0.01.
        void: as the masks, of pixels that are neither object nor background: where it is above 0 nothing is fitted.

    Raises:
        ValueError: no samples, other numbers of masks than activations, activations that are not finite.
    """
    return fit_concepts(activations, masks, void=void, epochs=epochs, lr=lr)[0]


def fit_loce(
    activations: Activations, masks: Tensor, epochs: int = 30, lr: float = 0.1, void: Tensor | None = None
) -> Tensor:
    """One vector a sample (N, C), each fitted to that sample alone. Arguments and errors as `fit_net2vec`.

    The mean of the rows is the globalised LoCE.
    """
    group = torch.arange(activations.shape[0])
    return fit_concepts(activations, masks, void=void, group=group, epochs=epochs, lr=lr)


@torch.no_grad()
def fit_concepts(
    activations: Activations,
    masks: Tensor,
    *,
    void: Tensor | None = None,
    group: Tensor | None = None,
    num_groups: int | None = None,
    epochs: int = 30,
    lr: float = 0.1,
    weight_decay: float = 0.01,
    chunk: int = 1024,
    device: torch.device | str | None = None,
) -> Tensor:
    """Fit one vector to each group of samples, all groups together.

    A group is whatever shares a vector: a concept, a concept on one kind of background, a single image.

    Args:
        activations: (N, C, h, w), sliced ``chunk`` samples at a time; each chunk is moved to ``device``.
        masks: (N, H, W) or (N, 1, H, W) in [0, 1], bool or floating.
        void: the same, of pixels that are neither object nor background: where it is above 0 nothing is fitted.
        group: (N,) int64 group of each sample; ``None``: all in one.
        num_groups: G; ``None``: the largest group number + 1. A group without samples keeps the zero vector.
        epochs: AdamW steps from zeros.
        lr: learning rate.
        weight_decay: of AdamW.
        chunk: samples in memory at a time.
        device: where to compute; ``None``: where the masks are.

    Returns:
        Vectors (G, C) float32 (float64 for float64 activations).

    Raises:
        ValueError: as for `fit_net2vec`, or groups outside [0, num_groups).
    """
    targets = _Targets(_checked(activations, masks), None if void is None else _checked(activations, void) > 0)
    samples, channels = activations.shape[0], activations.shape[1]
    group = torch.zeros(samples, dtype=torch.long) if group is None else group
    groups = int(group.max()) + 1 if num_groups is None else num_groups
    device = masks.device if device is None else torch.device(device)
    group = check_label(group, samples, name="group", num_classes=groups).to(device)
    counts = torch.bincount(group, minlength=groups)
    parts = [slice(start, min(start + chunk, samples)) for start in range(0, samples, chunk)]
    all_data = _load(activations, targets, parts[0], device) if len(parts) == 1 else None

    def slope(vectors: Tensor) -> Tensor:
        total = torch.zeros_like(vectors)
        for part in parts:
            loaded = all_data or _load(activations, targets, part, device)
            rows = group[part]
            total.index_add_(0, rows, _slope(vectors[rows], loaded) / counts[rows, None])
        return total

    optimise = partial(_adamw, epochs=epochs, lr=lr, weight_decay=weight_decay)
    zeros = torch.zeros(groups, channels, device=device, dtype=working_dtype(activations[0:1].dtype))
    if all_data is None and bool((counts <= 1).all()):
        # groups of one need not wait for each other: a chunk is fitted to its end while it is here
        for part in parts:
            loaded, rows = _load(activations, targets, part, device), group[part]
            zeros[rows] = optimise(zeros[rows], partial(_slope, loaded=loaded))
        return zeros
    return optimise(zeros, slope)


def concept_objective(vectors: Tensor, activations: Tensor, masks: Tensor, void: Tensor | None = None) -> Tensor:
    """The objective of each sample (N,), differentiable to vectors and activations.

    Args:
        vectors: (C,) for all samples, or (N, C).
        activations: (N, C, h, w).
        masks: (N, H, W) or (N, 1, H, W) in [0, 1].
        void: the same, of pixels that are neither object nor background, which do not count.
    """
    masks = _checked(activations, masks)
    scores = _scores(vectors, activations, (masks.shape[1], masks.shape[2]))
    target, weight = _target_and_weight(masks, None if void is None else _checked(activations, void) > 0, scores.dtype)
    objective = (weight * F.binary_cross_entropy_with_logits(scores, target, reduction="none")).sum((1, 2))
    return _check_held(objective)


def concept_iou(vectors: Tensor, activations: Tensor, masks: Tensor, void: Tensor | None = None) -> Tensor:
    """Intersection over union (N,) of sigmoid(v . a) > 0.5 and mask > 0, at the masks' size.

    Args:
        vectors: (C,) for all samples, or (N, C).
        activations: (N, C, h, w).
        masks: (N, H, W) or (N, 1, H, W) in [0, 1].
        void: the same, of pixels that are neither object nor background: where it is above 0 nothing is compared.

    Returns:
        IoU of each sample; NaN where neither the mask nor the prediction has a pixel.
    """
    masks = _checked(activations, masks)
    predicted = _scores(vectors, activations, (masks.shape[1], masks.shape[2])) > 0  # sigmoid > 0.5
    truth = masks > 0
    if void is not None:
        is_known = _checked(activations, void) == 0
        predicted, truth = predicted & is_known, truth & is_known
    union = (predicted | truth).sum((1, 2))
    return (predicted & truth).sum((1, 2)) / union  # 0 / 0 is NaN


class _Targets(NamedTuple):
    """The masks that the maps are compared with."""

    masks: Tensor  # (N, H, W)
    void: Tensor | None  # (N, H, W) bool


class _Loaded(NamedTuple):
    """A chunk of samples on the computing device."""

    activations: Tensor  # (n, C, h * w)
    target: Tensor  # (n, H, W)
    weight: Tensor  # (n, H, W)
    rows: Tensor  # (H, h) bilinear resize of columns of pixels
    columns: Tensor  # (W, w)


def _load(activations: Activations, targets: _Targets, part: slice, device: torch.device) -> _Loaded:
    maps = activations[part].to(device)
    maps = maps.to(working_dtype(maps.dtype))
    # a sum is the fastest look at all values; a finite one proves them finite, another (it may overflow) is looked into
    if values_readable(maps) and not bool(torch.isfinite(maps.sum())):
        bad = (~torch.isfinite(maps)).flatten(1).any(1).nonzero().flatten() + part.start
        if len(bad):
            raise ValueError(
                f"activations: expected finite values, got NaN or infinity in sample(s) {bad.tolist()[:8]}"
            )
    void = None if targets.void is None else targets.void[part].to(device)
    target, weight = _target_and_weight(targets.masks[part].to(device), void, maps.dtype)
    rows = _resize_matrix(maps.shape[2], target.shape[1], maps)
    columns = _resize_matrix(maps.shape[3], target.shape[2], maps)
    return _Loaded(maps.flatten(2), target, weight, rows, columns)


def _slope(vectors: Tensor, loaded: _Loaded) -> Tensor:
    """Gradient (n, C) of each sample's objective with respect to its own vector (n, C)."""
    samples, size = len(vectors), loaded.activations[0].numel() * loaded.activations.element_size()
    # the activations are used twice, so on a CPU a few samples at a time, which stay in its cache in between
    step = max(1, _CACHED // size) if vectors.device.type == "cpu" else samples
    slopes = torch.empty_like(vectors)
    for part in (slice(start, start + step) for start in range(0, samples, step)):
        activations = loaded.activations[part]
        small = torch.bmm(vectors[part, None], activations)
        small = small.reshape(-1, loaded.rows.shape[1], loaded.columns.shape[1])
        scores = loaded.rows @ small @ loaded.columns.T
        error = scores.sigmoid_().sub_(loaded.target[part]).mul_(loaded.weight[part])
        back = loaded.rows.T @ error @ loaded.columns  # the transposed resize
        # row times transposed matrix: as matrix times column, the same product takes twice as long
        slopes[part] = torch.bmm(back.flatten(1)[:, None], activations.transpose(1, 2))[:, 0]
    return slopes


def _adamw(
    vectors: Tensor, slope: Callable[[Tensor], Tensor], *, epochs: int, lr: float, weight_decay: float
) -> Tensor:
    """AdamW (Loshchilov and Hutter, 2019) with torch's betas and epsilon on the rows of one matrix."""
    vectors = vectors.clone()
    first_moment, second_moment = torch.zeros_like(vectors), torch.zeros_like(vectors)
    for t in range(1, epochs + 1):
        gradient = slope(vectors)
        vectors.mul_(1 - lr * weight_decay)
        first_moment.lerp_(gradient, 0.1)
        second_moment.mul_(0.999).addcmul_(gradient, gradient, value=0.001)
        scale = second_moment.sqrt().div_((1 - 0.999**t) ** 0.5).add_(1e-8)
        vectors.addcdiv_(first_moment, scale, value=-lr / (1 - 0.9**t))
    return vectors


def _scores(vectors: Tensor, activations: Tensor, size: tuple[int, int]) -> Tensor:
    activations = activations.to(working_dtype(activations.dtype))
    vectors = vectors.to(activations)
    samples, channels = activations.shape[:2]
    if tuple(vectors.shape) not in ((channels,), (1, channels), (samples, channels)):
        raise ValueError(f"vectors: expected ({channels},) or ({samples}, {channels}), got {describe(vectors)}")
    small = (vectors.reshape(-1, activations.shape[1], 1, 1) * activations).sum(1, keepdim=True)
    unknown = vectors.reshape(-1, channels).isnan().any(1)  # concepts without a vector: their scores are NaN
    _check_held(small.detach().masked_fill(unknown[:, None, None, None], 0.0))
    return F.interpolate(small, size=size, mode="bilinear", align_corners=False)[:, 0]


def _check_held(scores: Tensor) -> Tensor:
    """Require products that the dtype holds, where looking is free: infinity less infinity would be no score."""
    if values_readable(scores) and not bool(scores.detach().isfinite().all()):
        raise ValueError(f"vectors, activations: expected finite ones whose scores {scores.dtype} holds, got larger")
    return scores


def _target_and_weight(masks: Tensor, void: Tensor | None, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    soft = masks.to(dtype)
    if void is None:
        alpha = 1 - soft.mean((1, 2), keepdim=True)
        return (soft > 0.5).to(dtype), alpha * soft + (1 - alpha) * (1 - soft)
    is_known = (~void).to(dtype)
    alpha = 1 - (soft * is_known).sum((1, 2), keepdim=True) / is_known.sum((1, 2), keepdim=True).clamp_min(1)
    return (soft > 0.5).to(dtype), (alpha * soft + (1 - alpha) * (1 - soft)) * is_known


def _resize_matrix(small: int, large: int, like: Tensor) -> Tensor:
    identity = torch.eye(small, device=like.device, dtype=like.dtype)[None]
    if small == large:
        return identity[0]
    return F.interpolate(identity, size=large, mode="linear", align_corners=False)[0].T


def _checked(activations: Activations, masks: Tensor) -> Tensor:
    shape = tuple(activations.shape)
    if len(shape) != 4 or 0 in shape:
        raise ValueError(f"activations: expected (N, C, h, w) with at least one sample, got shape {shape}")
    if masks.ndim == 4 and masks.shape[1] == 1:
        masks = masks[:, 0]
    if masks.ndim != 3 or masks.shape[0] != shape[0]:
        raise ValueError(f"masks: expected ({shape[0]}, H, W) to go with the activations, got {describe(masks)}")
    if masks.dtype != torch.bool:
        if not masks.is_floating_point():
            raise TypeError(
                f"masks: expected bool or floating point in [0, 1], got {describe(masks)}; pass masks > 127"
            )
        check_range(masks, 0.0, 1.0, name="masks")
    return masks
