"""The labels of a batch: one class an image, label sets, class probabilities, or none."""

from __future__ import annotations

import hashlib
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from torch_bgdebias.checks import check_label, describe

__all__ = ["BatchLabels", "codes_of_answers", "labels_of_batch", "set_codes"]

#: so many labels fit into a whole number, one a bit
_BITS = 62


class BatchLabels(NamedTuple):
    """Labels of B images.

    Attributes:
        label: (B,) int64 classes; for label sets their numbers (`set_codes`); -1 where nothing is known.
        targets: (B, L) int8 of 0 and 1 for label sets, else ``None``.
        soft: whether shares of classes were given, of which the largest is the label.
    """

    label: Tensor
    targets: Tensor | None = None
    soft: bool = False


def labels_of_batch(value: Any, size: int, *, task: str, number: int) -> BatchLabels:
    """Labels, checked.

    Args:
        value: what the batch holds: (B,) classes; (B, K) shares of classes that add up to 1; (B,) or (B, 1) of 0 and 1
            for one logit; (B, L) of 0 and 1 for label sets.
        size: B.
        task: ``"multiclass"``, ``"binary"`` or ``"multilabel"``.
        number: of the batch, for errors.

    Raises:
        TypeError: not a tensor, or floats that are no labels of the task.
        ValueError: another shape, negative classes, shares without a largest one.
    """
    if not isinstance(value, Tensor):
        raise TypeError(f"label: expected a tensor, got {describe(value)}")
    if task == "multilabel":
        return _label_sets(value, size, number)
    if task == "binary":
        return _two_classes(value, size, number)
    if value.ndim == 2 and len(value) == size and value.shape[1] > 1:
        if not value.is_floating_point():
            raise ValueError(
                f"label: expected integer classes ({size},), got {describe(value)}; for one-hot labels pass "
                "BatchSpec(label=lambda batch: batch[1].argmax(1)), for label sets of 0 and 1 pass task='multilabel'"
            )
        return _largest_share(value, number)
    if value.is_floating_point() and value.numel() == size:
        raise TypeError(
            f"label: expected integer classes ({size},), got {describe(value)}; pass task='binary' for a model with "
            "one logit, whose labels are 0 and 1 in any type, or BatchSpec(label=lambda batch: batch[1].long())"
        )
    label = check_label(value, size)
    _refuse_negative(label, number)
    return BatchLabels(label)


def set_codes(targets: Tensor) -> Tensor:
    """(B,) int64, a number for each label set (B, L) of 0 and 1: bit l is label l; beyond 62 labels a hash of them."""
    bits = targets.to(torch.int64)
    count = bits.shape[1]
    if count <= _BITS:
        return (bits << torch.arange(count, device=bits.device)).sum(1)
    packed = np.packbits(bits.cpu().numpy().astype(np.uint8), axis=1)
    codes = [int.from_bytes(hashlib.blake2b(row.tobytes(), digest_size=8).digest(), "little") >> 2 for row in packed]
    return torch.tensor(codes, dtype=torch.int64, device=bits.device)


def codes_of_answers(positive: NDArray[np.bool_]) -> NDArray[np.int64]:
    """(B,) the numbers of predicted label sets (B, L)."""
    codes: NDArray[np.int64] = set_codes(torch.from_numpy(np.ascontiguousarray(positive))).numpy()
    return codes


def _label_sets(value: Tensor, size: int, number: int) -> BatchLabels:
    expected = f"label: expected label sets ({size}, L) of 0 and 1 for task='multilabel'"
    if value.ndim != 2 or len(value) != size or not value.shape[1]:
        raise ValueError(f"{expected}, got {describe(value)}")
    strange = (value != 0) & (value != 1)
    if bool(strange.any()):
        example = value[strange][0].item()
        raise ValueError(
            f"{expected}, got {example:g} in batch {number}; a label that is not known, or only likely, counts neither "
            "as there nor as absent: decide with BatchSpec(label=function of the batch), or leave such images out"
        )
    targets = value.to(torch.int8)
    return BatchLabels(set_codes(targets), targets)


def _two_classes(value: Tensor, size: int, number: int) -> BatchLabels:
    if value.shape == (size, 1):
        value = value[:, 0]
    if value.shape != (size,):
        raise ValueError(
            f"label: expected ({size},) or ({size}, 1) of 0 and 1 for task='binary', got {describe(value)}"
        )
    if value.dtype == torch.bool:
        return BatchLabels(value.long())
    if value.is_floating_point() and bool((value != value.round()).any()):
        if bool(((value < 0) | (value > 1) | (value == 0.5)).any()):
            raise ValueError(
                f"label: expected 0, 1 or shares of class 1 in [0, 1] other than 0.5 for task='binary', got "
                f"{float(value.min()):g} to {float(value.max()):g} in batch {number}"
            )
        return BatchLabels((value > 0.5).long(), soft=True)
    label = check_label(value.long() if value.is_floating_point() else value, size)
    _refuse_negative(label, number)
    return BatchLabels(label)


def _largest_share(value: Tensor, number: int) -> BatchLabels:
    """Shares (B, K) as their largest class: smoothed labels, mixtures, votes of several readers."""
    shares = value.double()
    if bool((shares < 0).any()) or not bool(((shares.sum(1) - 1).abs() < 1e-3).all()):
        raise ValueError(
            f"label: expected classes ({len(value)},), or shares of classes whose rows are at least 0 and add up to 1, "
            f"got {describe(value)} in batch {number}; for label sets of 0 and 1 pass task='multilabel'"
        )
    largest, second_largest = shares.topk(2, dim=1).values.unbind(1)
    if bool((largest == second_largest).any()):
        image = int((largest == second_largest).nonzero()[0])
        raise ValueError(
            f"label: expected shares with one largest class, got two of {float(largest[image]):g} for image {image} of "
            f"batch {number}; say which with BatchSpec(label=function of the batch), or leave such images out"
        )
    return BatchLabels(shares.argmax(1), soft=bool((largest < 1).any()))


def _refuse_negative(label: Tensor, number: int) -> None:
    if len(label) and int(label.min()) < 0:
        raise ValueError(f"label: expected classes of at least 0, got {int(label.min())} in batch {number}")
