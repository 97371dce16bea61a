"""The CLAD loss as pure functions: InfoNCE on cosine similarity, negatives per sample or in class-keyed queues."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from torch_bgdebias.checks import check_embedding, check_label, check_option, describe, values_readable
from torch_bgdebias.clad.fused import inverse_length, queue_info_nce
from torch_bgdebias.precision import autocast_off, working_precision

__all__ = ["clad_loss", "clad_queue_loss"]

REDUCTIONS = ("mean", "sum", "none")


def clad_loss(
    anchor: Tensor,
    positive: Tensor,
    negatives: Tensor,
    valid: Tensor | None = None,
    temperature: float = 0.2,
    *,
    reduction: str = "mean",
) -> Tensor:
    r"""Contrast every anchor with its positive and with its own negatives.

    .. math:: -\log \frac{e^{s(x, x^+) / t}}{e^{s(x, x^+) / t} + \sum_i e^{s(x, x^-_i) / t}}

    with *s* the cosine similarity. An anchor without a valid negative contributes exactly 0, and no gradient; a zero
    vector has similarity 0 with everything, and no gradient. Computed in float32 also under autocast (float64 stays
    float64).

    Args:
        anchor: (B, D) embeddings of the original images.
        positive: (B, D) embeddings of the same foregrounds on other backgrounds.
        negatives: (B, N, D) embeddings of other foregrounds on the anchor's background; N may be 0.
        valid: (B, N) bool, which negatives exist; all of them when ``None``.
        temperature: *t*, above 0; the paper's 0.2.
        reduction: "mean" over the batch (0 for an empty one), "sum", or "none" for (B,).

    Raises:
        TypeError: not floating point, or ``valid`` not bool.
        ValueError: shapes that do not go together, a temperature not above 0, or non-finite values (the message lists
            the samples; checked where reading them is free).

    Source: CLAD, arXiv 2210.02748, equation of the contrastive loss.

    Example:
        >>> import torch
        >>> x = torch.eye(3)[:2]
        >>> round(float(clad_loss(x, x, x.flip(0)[:, None], temperature=1.0)), 4)  # log(1 + exp(-1))
        0.3133
    """
    _check_pair(anchor, positive)
    check_temperature(temperature)
    check_option(reduction, REDUCTIONS, name="reduction")
    batch, dim = anchor.shape
    if not isinstance(negatives, Tensor) or not negatives.is_floating_point():
        raise TypeError(f"negatives: expected a float tensor (B, N, D), got {describe(negatives)}")
    if negatives.ndim != 3 or negatives.shape[0] != batch or negatives.shape[2] != dim:
        raise ValueError(f"negatives: expected shape ({batch}, N, {dim}), got {describe(negatives)}")
    _check_valid(valid, negatives)
    if valid is not None:  # what a missing negative holds may be anything: NaN times a gradient of 0 would still be NaN
        negatives = negatives.masked_fill(~valid[..., None], 0)
    with autocast_off(anchor):
        a, p, n = (working_precision(x) for x in (anchor, positive, negatives))
        inverse = inverse_length(a, name="anchor")
        inverse_p = inverse_length(p, name="positive")
        inverse_n = inverse_length(n, name="negatives")
        scores = torch.einsum("bd,bnd->bn", a, n) * inverse[:, None] * inverse_n
        return info_nce((a * p).sum(1) * inverse * inverse_p, scores, valid, temperature, reduction=reduction)


def clad_queue_loss(
    anchor: Tensor,
    positive: Tensor,
    rows: Tensor,
    label: Tensor,
    valid: Tensor,
    temperature: float = 0.2,
    *,
    reduction: str = "mean",
) -> Tensor:
    """`clad_loss` with the negatives in queues: the anchor with key c is contrasted with ``rows[c]``.

    The values are those of ``clad_loss(anchor, positive, rows[label], valid)``, but no (B, N, D) copy of negatives is
    made or kept: between forward and backward pass there are two tensors of the embeddings' size, whatever K and N, and
    ``rows`` may be overwritten meanwhile. The gradient is taken in closed form along with the loss; for derivatives of
    higher order use `clad_loss`. No gradient goes to ``rows``.

    Args:
        anchor: (B, D).
        positive: (B, D).
        rows: (K, N, D) queues by key.
        label: (B,) integer key of each anchor in [0, K); -1 (unknown) has no negatives.
        valid: (B, N) bool: which rows of ``rows[label]`` are negatives of the sample.
        temperature: above 0.
        reduction: "mean", "sum" or "none".

    Raises:
        TypeError: not floating point, label not integer.
        ValueError: other shapes, ``valid`` not bool, a key outside [-1, K), a temperature not above 0, non-finite
            embeddings.
    """
    _check_pair(anchor, positive)
    check_temperature(temperature)
    check_option(reduction, REDUCTIONS, name="reduction")
    if not isinstance(rows, Tensor) or not rows.is_floating_point() or rows.ndim != 3:
        raise TypeError(f"rows: expected a float tensor (K, N, D), got {describe(rows)}")
    keys, size, dim = rows.shape
    check_embedding(anchor, name="anchor", dim=dim)
    label = check_key(label, anchor.shape[0], keys)
    if not isinstance(valid, Tensor) or valid.dtype != torch.bool or valid.shape != (anchor.shape[0], size):
        raise ValueError(f"valid: expected a bool tensor ({anchor.shape[0]}, {size}), got {describe(valid)}")
    mask = valid & (label >= 0)[:, None]
    with autocast_off(anchor):
        a, p = working_precision(anchor), working_precision(positive)
        if a.dtype != p.dtype:
            a, p = a.double(), p.double()
        losses = queue_info_nce(a, p, rows.detach().to(a.dtype), label.clamp_min(0), mask, temperature)
    return reduced(losses, reduction)


def info_nce(
    positive: Tensor, negatives: Tensor, valid: Tensor | None, temperature: float, *, reduction: str
) -> Tensor:
    """Cross-entropy of the positive's similarity (B,) against the negatives' (B, N), masked, over ``temperature``."""
    if valid is not None:
        negatives = negatives.masked_fill(~valid, -math.inf)
    # relative to the positive, so that a cold softmax does not cancel two large numbers
    logits = (negatives - positive[:, None]) / temperature
    losses = F.pad(logits, (1, 0)).logsumexp(1)
    return reduced(losses, reduction)


def reduced(losses: Tensor, reduction: str) -> Tensor:
    """(B,) as it is, its sum, or its mean with 0 for an empty batch."""
    if reduction == "none":
        return losses
    return losses.sum() if reduction == "sum" else losses.sum() / max(losses.shape[0], 1)


def check_temperature(temperature: float) -> float:
    """Require a finite temperature above 0."""
    if not (math.isfinite(temperature) and temperature > 0):
        raise ValueError(f"temperature: expected a finite number above 0, got {temperature!r}")
    return temperature


def check_key(label: Tensor, batch: int, num_classes: int, *, name: str = "label") -> Tensor:
    """Require one key per sample in [0, num_classes), or -1 for unknown, where reading it is free."""
    label = check_label(label, batch, name=name)
    if label.numel() and values_readable(label):
        low, high = (int(x) for x in label.aminmax())
        if low < -1 or high >= num_classes:
            raise ValueError(
                f"{name}: expected classes in [0, {num_classes - 1}] (or -1, unknown), got [{low}, {high}]"
            )
    return label


def _check_pair(anchor: Tensor, positive: Tensor) -> None:
    check_embedding(anchor, name="anchor")
    check_embedding(positive, name="positive", dim=anchor.shape[1])
    if positive.shape != anchor.shape:
        raise ValueError(f"positive: expected shape {tuple(anchor.shape)} like the anchor, got {describe(positive)}")


def _check_valid(valid: Tensor | None, negatives: Tensor) -> None:
    if valid is None:
        return
    if not isinstance(valid, Tensor) or valid.dtype != torch.bool:
        raise TypeError(f"valid: expected a bool tensor {tuple(negatives.shape[:2])}, got {describe(valid)}")
    if valid.shape != negatives.shape[:2]:
        raise ValueError(f"valid: expected shape {tuple(negatives.shape[:2])}, got {describe(valid)}")
