"""Counting halves of the metrics: ``_x_update`` turns a batch into sums, ``_x_compute`` turns sums into scores.

Sums are taken per class into arrays of fixed length, so batches and processes add up exactly, also a batch without some
class. Nothing here reads a value back from the device.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

import torch
from torch import Tensor
from torch.nn import functional as F

from torch_bgdebias.checks import check_embedding, check_finite, check_label, describe
from torch_bgdebias.precision import working_dtype

__all__ = ["background_gap", "decision_consistency", "feature_consistency", "mean_of_classes"]

#: over all images; mean of the classes that occur; one value a class
Average: TypeAlias = Literal["micro", "macro", "none"]


def background_gap(
    same: Tensor,
    rand: Tensor,
    target: Tensor,
    *,
    valid_same: Tensor | None = None,
    valid_rand: Tensor | None = None,
    num_classes: int | None = None,
    average: Average = "micro",
) -> Tensor:
    """BG-Gap = accuracy(mixed_same) - accuracy(mixed_rand); see `torch_bgdebias.metrics.BackgroundGap`.

    Example:
        >>> import torch
        >>> target = torch.tensor([0, 1, 1])
        >>> background_gap(torch.tensor([0, 1, 1]), torch.tensor([1, 1, 0]), target)
        tensor(0.6667)
    """
    same_sums = accuracy_update(same, target, valid_same, num_classes, name="same")
    rand_sums = accuracy_update(rand, target, valid_rand, num_classes, name="rand")
    return background_gap_compute(*same_sums, *rand_sums, average=average)


def decision_consistency(
    original: Tensor,
    changed: Tensor,
    target: Tensor | None = None,
    *,
    valid: Tensor | None = None,
    num_classes: int | None = None,
    average: Average = "micro",
) -> Tensor:
    """Share of images whose predicted class survives; see `torch_bgdebias.metrics.DecisionConsistency`.

    Example:
        >>> import torch
        >>> decision_consistency(torch.tensor([0, 1, 2, 2]), torch.tensor([0, 1, 2, 0]))
        tensor(0.7500)
    """
    return mean_compute(*decision_consistency_update(original, changed, target, valid, num_classes), average=average)


def feature_consistency(
    original: Tensor,
    changed: Tensor,
    target: Tensor | None = None,
    *,
    valid: Tensor | None = None,
    num_classes: int | None = None,
    average: Average = "micro",
) -> Tensor:
    """Mean cosine similarity of embeddings; see `torch_bgdebias.metrics.FeatureConsistency`.

    Example:
        >>> import torch
        >>> feature_consistency(torch.tensor([[1.0, 0.0], [1.0, 1.0]]), torch.tensor([[2.0, 0.0], [1.0, -1.0]]))
        tensor(0.5000)
    """
    return mean_compute(*feature_consistency_update(original, changed, target, valid, num_classes), average=average)


def mean_of_classes(per_class: Tensor) -> Tensor:
    """Mean over the classes that occur: NaN marks an absent class; NaN when none occurs."""
    return per_class.nanmean()


def predicted_class(preds: Tensor, *, name: str) -> Tensor:
    """Predicted classes (B,) int64 from logits (B, K), or the classes themselves.

    Raises:
        TypeError: predictions that are neither floats nor whole numbers.
        ValueError: logits that are not (B, K) with K > 1, classes that are not (B,); NaN or infinite logits, where
            reading them is free.
    """
    is_logits = isinstance(preds, Tensor) and preds.is_floating_point()
    if not isinstance(preds, Tensor) or preds.ndim != 1 + is_logits or (is_logits and preds.shape[1] < 2):
        hint = "; K > 1: of one logit pass the classes, (logit > 0).long()" if is_logits else ""
        raise ValueError(f"{name}: expected logits (B, K) or predicted classes (B,), got {describe(preds)}{hint}")
    return check_finite(preds.detach(), name=name).argmax(1) if is_logits else check_label(preds, len(preds), name=name)


def sample_groups(
    target: Tensor | None, valid: Tensor | None, batch: int, num_classes: int | None, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Bin of each sample (its class, or 0 without results by class) and its weight 0 or 1, both int64 (B,)."""
    if valid is None:
        weight = torch.ones(batch, dtype=torch.int64, device=device)
    else:
        if not isinstance(valid, Tensor) or valid.dtype != torch.bool or valid.shape != (batch,):
            raise ValueError(f"valid: expected a bool tensor ({batch},), got {describe(valid)}")
        weight = valid.to(device=device, dtype=torch.int64)
    if num_classes is None:
        return torch.zeros(batch, dtype=torch.int64, device=device), weight
    if target is None:
        raise ValueError(f"target: expected the classes ({batch},) because num_classes={num_classes}, got None")
    target = torch.where(weight.bool(), check_label(target, batch, name="target").to(device), 0)
    return check_label(target, batch, name="target", num_classes=num_classes), weight


def class_sums(values: Tensor, group: Tensor, weight: Tensor, num_classes: int | None) -> tuple[Tensor, Tensor]:
    """Weighted sum of ``values`` and number of samples per bin."""
    total = torch.zeros(num_classes or 1, dtype=values.dtype, device=values.device)
    count = torch.zeros(num_classes or 1, dtype=torch.int64, device=values.device)
    counted_values = torch.where(weight.bool(), values, torch.zeros_like(values))  # 0 * NaN would be NaN
    return total.index_add(0, group, counted_values), count.index_add(0, group, weight)


def accuracy_update(
    preds: Tensor, target: Tensor, valid: Tensor | None, num_classes: int | None, *, name: str
) -> tuple[Tensor, Tensor]:
    """Correct predictions and samples per class, int64."""
    predicted = predicted_class(preds, name=name)
    batch = predicted.shape[0]
    target = check_label(target, batch, name="target").to(predicted.device)
    group, weight = sample_groups(target, valid, batch, num_classes, predicted.device)
    return class_sums((predicted == target).long(), group, weight, num_classes)


def decision_consistency_update(
    original: Tensor, changed: Tensor, target: Tensor | None, valid: Tensor | None, num_classes: int | None
) -> tuple[Tensor, Tensor]:
    """Kept decisions and samples per class, int64."""
    before, after = predicted_class(original, name="original"), predicted_class(changed, name="changed")
    if before.shape != after.shape:
        raise ValueError(f"changed: expected as many samples as original ({len(before)}), got {describe(changed)}")
    group, weight = sample_groups(target, valid, before.shape[0], num_classes, before.device)
    return class_sums((before == after).long(), group, weight, num_classes)


def feature_consistency_update(
    original: Tensor, changed: Tensor, target: Tensor | None, valid: Tensor | None, num_classes: int | None
) -> tuple[Tensor, Tensor]:
    """Sum of cosines (float64, so that the order of batches does not show) and samples per class."""
    cosine = cosine_similarity(original, changed)
    group, weight = sample_groups(target, valid, cosine.shape[0], num_classes, cosine.device)
    check_finite(torch.where(weight.bool(), cosine, 0), name="original, changed")
    return class_sums(cosine.double(), group, weight, num_classes)


def cosine_similarity(original: Tensor, changed: Tensor) -> Tensor:
    """Cosine similarity (B,) of embeddings (B, D), in float32 at least; 0 where an embedding is zero."""
    check_embedding(original, name="original")
    check_embedding(changed, name="changed", dim=original.shape[1])
    if original.shape != changed.shape:
        raise ValueError(f"changed: expected shape {tuple(original.shape)} like original, got {describe(changed)}")
    exact = working_dtype(torch.promote_types(original.dtype, changed.dtype))
    # autocast never lowers cosine_similarity, so float32 stays float32
    return F.cosine_similarity(original.detach().to(exact), changed.detach().to(exact), dim=1)


def mean_compute(total: Tensor, count: Tensor, *, average: Average) -> Tensor:
    """Mean over all samples, over the classes' means, or per class; NaN where there is no sample."""
    total = total.double()
    if average == "micro":
        return (total.sum() / count.sum()).to(torch.get_default_dtype())
    per_class = (total / count).to(torch.get_default_dtype())  # 0 / 0: NaN marks the absent class
    return mean_of_classes(per_class) if average == "macro" else per_class


def background_gap_compute(
    correct_same: Tensor, count_same: Tensor, correct_rand: Tensor, count_rand: Tensor, *, average: Average
) -> Tensor:
    """Difference of the two accuracies; macro takes the classes that occur in both variants."""
    if average == "micro":
        same = mean_compute(correct_same, count_same, average="micro")
        return same - mean_compute(correct_rand, count_rand, average="micro")
    same = mean_compute(correct_same, count_same, average="none")
    per_class = same - mean_compute(correct_rand, count_rand, average="none")
    return mean_of_classes(per_class) if average == "macro" else per_class
