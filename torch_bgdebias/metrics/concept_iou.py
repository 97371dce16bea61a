"""``ConceptIoU``: how well concept vectors segment their concept, as a torchmetrics class."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from torch_bgdebias.checks import check_label, describe
from torch_bgdebias.metrics.consistency import ClassSums
from torch_bgdebias.metrics.functional import Average, mean_compute

__all__ = ["ConceptIoU"]


class ConceptIoU(ClassSums):
    """Mean over images of the intersection over union of a concept's predicted and true pixels. Range [0, 1].

    A vector v predicts the concept where sigmoid(v . a) > 0.5, and the concept is where the mask is above 0. Images
    without IoU (neither mask nor prediction has a pixel, or NaN) are left out.

    Args:
        num_classes: number of concepts, needed for results by concept (``average`` other than ``"micro"``).
        average: ``"micro"`` over all images; ``"macro"`` mean over the concepts that occur; ``"none"`` per concept
            (G,), NaN for an absent one.
        **kwargs: torchmetrics' own.

    Source: arXiv 1801.03454, section 3; arXiv 2504.08602.

    Example:
        >>> metric = ConceptIoU(num_classes=2, average="none")
        >>> scores, mask = torch.tensor([[[-1.0, 2.0, 3.0, -1.0]]]), torch.tensor([[[0.0, 0.0, 1.0, 1.0]]])
        >>> metric.update(scores, mask, torch.tensor([0]))
        >>> metric.compute()
        tensor([0.3333,    nan])
    """

    higher_is_better: bool | None = True
    _totals: ClassVar[dict[str, torch.dtype]] = {"total": torch.float64, "count": torch.int64}
    total: Tensor
    count: Tensor

    def __init__(self, num_classes: int | None = None, average: Average = "micro", **kwargs: Any) -> None:
        super().__init__(num_classes, average, **kwargs)

    def update(
        self, scores: Tensor, mask: Tensor, concept: Tensor | None = None, *, void: Tensor | None = None
    ) -> None:
        """Add a batch.

        Args:
            scores: (B, H, W) or (B, 1, H, W) logits v . a at the masks' size.
            mask: the same shape, bool or in [0, 1], 1 on the concept.
            concept: (B,) int64; needed with ``average`` other than ``"micro"``.
            void: the same shape, bool or in [0, 1]: pixels where it is above 0 are left out, whatever is predicted.

        Raises:
            ValueError: shapes that do not agree, or concepts outside [0, num_classes).
        """
        if scores.ndim not in (3, 4) or scores.shape != mask.shape:
            raise ValueError(f"mask: expected the shape of scores, {describe(scores)}, got {describe(mask)}")
        predicted, truth = (scores > 0).flatten(1), (mask > 0).flatten(1)
        if void is not None:
            if void.shape != scores.shape:
                raise ValueError(f"void: expected the shape of scores, {describe(scores)}, got {describe(void)}")
            is_known = (void == 0).flatten(1)
            predicted, truth = predicted & is_known, truth & is_known
        self.update_iou((predicted & truth).sum(1) / (predicted | truth).sum(1), concept)

    def update_iou(self, iou: Tensor, concept: Tensor | None = None) -> None:
        """Add images whose IoU (B,) is known (``ConceptProbe.iou``); NaN ones are left out."""
        if iou.ndim != 1:
            raise ValueError(f"iou: expected one value an image (B,), got {describe(iou)}")
        if self.num_classes is None:
            concept = torch.zeros(len(iou), dtype=torch.long, device=iou.device)
        elif concept is None:
            raise ValueError("concept: expected the concept of each image because num_classes is set, got None")
        else:
            concept = check_label(concept, len(iou), name="concept", num_classes=self.num_classes)
        is_known = ~iou.isnan()
        given_iou = torch.where(is_known, iou, 0).to(torch.float64)
        concept = concept.to(iou.device)
        zeros = torch.zeros(self.num_classes or 1, dtype=torch.float64, device=iou.device)
        counts = zeros.long().index_add(0, concept, is_known.long())
        self._add(total=zeros.index_add(0, concept, given_iou), count=counts)

    def compute(self) -> Tensor:
        """The mean IoU: a scalar, or (G,) with ``average="none"``; NaN and a warning when no image was seen."""
        self._warn_if_empty(self.count)
        return mean_compute(self.total, self.count, average=self.average)
