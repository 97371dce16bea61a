"""The torchmetrics classes: states and their reduction; the counting is in `torch_bgdebias.metrics.functional`."""

from __future__ import annotations

import warnings
from typing import Any, ClassVar, get_args

import torch
from torch import Tensor
from torchmetrics import Metric

from torch_bgdebias.checks import check_count, check_option
from torch_bgdebias.metrics.functional import (
    Average,
    accuracy_update,
    background_gap_compute,
    decision_consistency_update,
    feature_consistency_update,
    mean_compute,
)

__all__ = ["BackgroundGap", "DecisionConsistency", "FeatureConsistency"]


class ClassSums(Metric):
    """Sums and counts per class, added over batches and processes."""

    is_differentiable: bool | None = False
    full_state_update: bool | None = False
    _totals: ClassVar[dict[str, torch.dtype]] = {}

    def __init__(self, num_classes: int | None = None, average: Average = "micro", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if num_classes is not None:
            check_count(num_classes, name="num_classes")
        check_option(average, get_args(Average), name="average")
        if average != "micro" and num_classes is None:
            raise ValueError(f"num_classes: expected the number of classes because average={average!r}, got None")
        self.num_classes = num_classes
        self.average: Average = average
        for name, dtype in self._totals.items():
            self.add_state(name, torch.zeros(num_classes or 1, dtype=dtype), dist_reduce_fx="sum")

    def _add(self, **sums: Tensor) -> None:
        for name, value in sums.items():
            state: Tensor = getattr(self, name)
            setattr(self, name, state + value.to(state.device, state.dtype))

    def _warn_if_empty(self, *counts: Tensor) -> None:
        if any(int(count.sum()) == 0 for count in counts):
            warnings.warn(f"{type(self).__name__}: no valid sample was seen, the result is NaN", stacklevel=4)


class BackgroundGap(ClassSums):
    """BG-Gap = accuracy(mixed_same) - accuracy(mixed_rand): the accuracy that depends on the background.

    *mixed_same* shows each foreground on a background of its own class, *mixed_rand* on one of another class. Each
    accuracy is taken over the images that have that variant, so the gap is always the difference of the two accuracies
    that one would print. Range [-1, 1]; 0 for a model that does not look at the background.

    Args:
        num_classes: K, needed for results by class (``average`` other than ``"micro"``).
        average: ``"micro"`` over all images; ``"macro"`` mean over the classes that occur in both variants;
            ``"none"`` per class (K,), NaN for a class that is absent from either.
        **kwargs: torchmetrics' own (``sync_on_compute``, ``dist_sync_on_step``, ...); unknown names are an error.

    Source: Noise or Signal (arXiv 2006.09994), section 3; used by CLAD (arXiv 2210.02748).

    Example:
        >>> import torch
        >>> gap = BackgroundGap(num_classes=3, average="none")
        >>> target = torch.tensor([0, 0, 1, 1])
        >>> gap.update(torch.tensor([0, 0, 1, 1]), torch.tensor([0, 1, 1, 1]), target)
        >>> gap.compute()
        tensor([0.5000, 0.0000,    nan])
    """

    higher_is_better: bool | None = False
    _totals: ClassVar[dict[str, torch.dtype]] = dict.fromkeys(
        ("correct_same", "count_same", "correct_rand", "count_rand"), torch.int64
    )
    correct_same: Tensor
    count_same: Tensor
    correct_rand: Tensor
    count_rand: Tensor

    def update(
        self,
        same: Tensor | None,
        rand: Tensor | None,
        target: Tensor,
        *,
        valid_same: Tensor | None = None,
        valid_rand: Tensor | None = None,
    ) -> None:
        """Count a batch.

        Args:
            same: logits (B, K) or predicted classes (B,) on mixed_same; ``None`` when this batch holds only mixed_rand.
            rand: the same on mixed_rand; ``None`` when this batch holds only mixed_same.
            target: (B,) integer classes.
            valid_same: (B,) bool, which images have a mixed_same variant; all when ``None``.
            valid_rand: (B,) bool, which images have a mixed_rand variant; all when ``None``.

        Raises:
            TypeError, ValueError: wrong dtype, shape or range; the message names the argument.
        """
        if same is None and rand is None:
            raise ValueError("same, rand: expected predictions for at least one of them, got None for both")
        if same is not None:
            correct, count = accuracy_update(same, target, valid_same, self.num_classes, name="same")
            self._add(correct_same=correct, count_same=count)
        if rand is not None:
            correct, count = accuracy_update(rand, target, valid_rand, self.num_classes, name="rand")
            self._add(correct_rand=correct, count_rand=count)

    def compute(self) -> Tensor:
        """The gap: a scalar, or (K,) with ``average="none"``; NaN and a warning when either variant was never seen."""
        self._warn_if_empty(self.count_same, self.count_rand)
        return background_gap_compute(
            self.correct_same, self.count_same, self.correct_rand, self.count_rand, average=self.average
        )


class _ConsistencyOfPairs(ClassSums):
    total: Tensor
    count: Tensor
    higher_is_better: bool | None = True

    def compute(self) -> Tensor:
        """The mean: a scalar, or (K,) with ``average="none"``; NaN and a warning when nothing was seen."""
        self._warn_if_empty(self.count)
        return mean_compute(self.total, self.count, average=self.average)


class DecisionConsistency(_ConsistencyOfPairs):
    """Share of images whose predicted class survives a change of background, right or wrong. Range [0, 1].

    Args:
        num_classes: K, needed for results by class (``average`` other than ``"micro"``).
        average: ``"micro"`` over all images; ``"macro"`` mean over the classes that occur; ``"none"`` per class (K,),
            NaN for an absent class. Classes are those of ``target``, not of the prediction.
        **kwargs: torchmetrics' own.

    Example:
        >>> import torch
        >>> metric = DecisionConsistency()
        >>> metric(torch.tensor([[2.0, 1.0], [0.0, 1.0]]), torch.tensor([[3.0, 1.0], [2.0, 1.0]]))
        tensor(0.5000)
    """

    _totals: ClassVar[dict[str, torch.dtype]] = {"total": torch.int64, "count": torch.int64}

    def update(
        self, original: Tensor, changed: Tensor, target: Tensor | None = None, *, valid: Tensor | None = None
    ) -> None:
        """Count a batch.

        Args:
            original: logits (B, K) or predicted classes (B,) on the images as they are.
            changed: the same on the images with another background.
            target: (B,) integer classes, needed when ``num_classes`` is set.
            valid: (B,) bool, which images have a changed version; all when ``None``.

        Raises:
            TypeError, ValueError: wrong dtype, shape or range; the message names the argument.
        """
        total, count = decision_consistency_update(original, changed, target, valid, self.num_classes)
        self._add(total=total, count=count)


class FeatureConsistency(_ConsistencyOfPairs):
    """Mean cosine similarity between the embeddings of an image and of its foreground elsewhere. Range [-1, 1].

    A zero embedding has cosine 0. Similarities are taken in float32 (float64 for float64 input), also under autocast,
    and added in float64.

    Args:
        num_classes: K, needed for results by class (``average`` other than ``"micro"``).
        average: ``"micro"`` over all images; ``"macro"`` mean over the classes that occur; ``"none"`` per class (K,),
            NaN for an absent class.
        **kwargs: torchmetrics' own.

    Example:
        >>> import torch
        >>> metric = FeatureConsistency()
        >>> metric(torch.tensor([[1.0, 0.0]]), torch.tensor([[1.0, 1.0]]))
        tensor(0.7071)
    """

    _totals: ClassVar[dict[str, torch.dtype]] = {"total": torch.float64, "count": torch.int64}

    def update(
        self, original: Tensor, changed: Tensor, target: Tensor | None = None, *, valid: Tensor | None = None
    ) -> None:
        """Count a batch.

        Args:
            original: embeddings (B, D) of the images as they are.
            changed: embeddings (B, D) of the images with another background.
            target: (B,) integer classes, needed when ``num_classes`` is set.
            valid: (B,) bool, which images have a changed version; all when ``None``.

        Raises:
            TypeError, ValueError: wrong dtype, shape or range; the message names the argument.
        """
        total, count = feature_consistency_update(original, changed, target, valid, self.num_classes)
        self._add(total=total, count=count)
