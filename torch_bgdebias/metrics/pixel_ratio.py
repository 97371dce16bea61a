"""``PixelRatio``: the foreground's share of the positive attribution, per image, per class, with its distribution."""

from __future__ import annotations

from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from torch_bgdebias.checks import check_count, check_finite, check_image, check_mask, flat_slices, flat_volume
from torch_bgdebias.metrics.consistency import ClassSums
from torch_bgdebias.metrics.functional import Average, class_sums, mean_compute, sample_groups
from torch_bgdebias.precision import working_dtype

__all__ = ["PixelRatio", "PixelRatioValues", "pixel_ratio"]


def pixel_ratio(attribution: Tensor, mask: Tensor, void: Tensor | None = None) -> Tensor:
    """Sum of the positive attribution on the foreground over the sum of the positive attribution.

    Channels are added up before the positive part is taken: a pixel's attribution is what its channels come to
    together, and an attribution of one channel (Grad-CAM, superpixels) is left as it is.

    Args:
        attribution: (B, C, H, W) float, or of volumes (B, C, D, H, W), signed or not, of any scale: the ratio does not
            depend on it.
        mask: (B, 1, H, W) or (B, H, W), of volumes (B, 1, D, H, W); bool or float in [0, 1], 1 = foreground. Soft
            masks weight the pixels.
        void: the same of pixels that are neither object nor background: they count in neither sum.

    Returns:
        (B,) float32 (float64 for float64 input) in [0, 1]; NaN where no pixel has a positive attribution. Attribution
        spread evenly gives the mask's share of the image (of what is not void), which is what to compare with.

    Raises:
        TypeError, ValueError: tensors that do not fit together, a mask outside [0, 1], attributions that are not
            finite (values are looked at where that is free).

    Source: Measuring the Effect of Background on Classification and Feature Importance (arXiv 2512.05937).

    Example:
        >>> import torch
        >>> attribution = torch.tensor([[[[3.0, -5.0], [1.0, 0.0]]]])
        >>> pixel_ratio(attribution, torch.tensor([[[[1.0, 1.0], [0.0, 0.0]]]]))
        tensor([0.7500])
    """
    if isinstance(attribution, Tensor) and attribution.ndim == 5:
        void_volume = None if void is None else flat_volume(attribution, void, name="void")
        return pixel_ratio(flat_slices(attribution), flat_volume(attribution, mask), void_volume)
    check_finite(check_image(attribution, name="attribution"), name="attribution")
    attribution = attribution.detach()
    exact = working_dtype(attribution.dtype)
    weight = check_mask(mask, attribution).to(exact)
    positive = attribution.to(exact).sum(1, keepdim=True).clamp_(min=0)
    if void is not None:
        is_known = 1 - check_mask(void, attribution, name="void").to(exact)
        # a soft void takes its share of a pixel; what is left is object and background in the mask's proportion
        weight = torch.where(is_known > 0, torch.minimum(weight / is_known, torch.ones_like(is_known)), 0)
        positive = positive * is_known
    # scaled by its largest value first, so that neither huge nor tiny attributions leave the range in which sums work
    positive = positive / positive.amax((2, 3), keepdim=True)
    # 0 / 0 above and therefore here: NaN marks an image without positive attribution
    return ((positive * weight).sum((1, 2, 3)) / positive.sum((1, 2, 3))).clamp(max=1)


class PixelRatioValues(NamedTuple):
    """Every image's ratio, see `PixelRatio.images`.

    Attributes:
        ratio: (N,) float32, NaN where undefined.
        target: (N,) int64, the class of each; 0 without results by class.
    """

    ratio: Tensor
    target: Tensor


class PixelRatio(ClassSums):
    """Mean share of the positive attribution that lies on the foreground. Range [0, 1].

    Images without any positive attribution have no ratio: they are counted (`undefined`) and left out of the
    mean. The distribution is counted as a histogram of fixed bins, and image by image on request. Sums are exact over
    batches and processes, and nothing is read back from the device in ``update``.

    Args:
        num_classes: K, needed for results by class (``average`` other than ``"micro"``).
        average: ``"micro"`` over all images; ``"macro"`` mean over the classes that occur; ``"none"`` per class (K,),
            NaN for an absent class. Classes are those of ``target``.
        bins: of the histogram over [0, 1], at least 1; a ratio of 1 belongs to the last.
        keep_values: also keep every image's ratio (8 bytes an image).
        **kwargs: torchmetrics' own.

    Source: arXiv 2512.05937; see `pixel_ratio`.

    Example:
        >>> import torch
        >>> metric = PixelRatio(bins=4)
        >>> mask = torch.tensor([[[[1.0, 0.0]]], [[[1.0, 0.0]]], [[[1.0, 0.0]]]])
        >>> metric.update(torch.tensor([[[[1.0, 1.0]]], [[[1.0, 0.0]]], [[[-1.0, 0.0]]]]), mask)
        >>> metric.compute(), metric.undefined(), metric.histogram()
        (tensor(0.7500), tensor(1), tensor([0, 0, 1, 1]))
    """

    higher_is_better: bool | None = True
    _totals: ClassVar[dict[str, torch.dtype]] = {
        "total": torch.float64, "count": torch.int64, "count_undefined": torch.int64,
    }  # fmt: skip
    total: Tensor
    count: Tensor
    count_undefined: Tensor
    bin_counts: Tensor
    ratios: list[Tensor]
    targets: list[Tensor]

    def __init__(
        self,
        num_classes: int | None = None,
        average: Average = "micro",
        *,
        bins: int = 50,
        keep_values: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(num_classes, average, **kwargs)
        self.bins, self.keep_values = check_count(bins, name="bins"), keep_values
        self.add_state("bin_counts", torch.zeros((num_classes or 1) * bins, dtype=torch.int64), dist_reduce_fx="sum")
        if keep_values:
            self.add_state("ratios", [], dist_reduce_fx="cat")
            self.add_state("targets", [], dist_reduce_fx="cat")

    def update(
        self,
        attribution: Tensor,
        mask: Tensor,
        target: Tensor | None = None,
        *,
        valid: Tensor | None = None,
        void: Tensor | None = None,
    ) -> None:
        """Count a batch.

        Args:
            attribution: (B, C, H, W), see `pixel_ratio`.
            mask: (B, 1, H, W) or (B, H, W), 1 = foreground.
            target: (B,) integer classes, needed when ``num_classes`` is set.
            valid: (B,) bool, which images to count; all when ``None``.
            void: as in `pixel_ratio`.

        Raises:
            TypeError, ValueError: wrong dtype, shape or range; the message names the argument.
        """
        ratio = pixel_ratio(attribution, mask, void)
        self._add(**_pixel_ratio_update(ratio, target, valid, self.num_classes, self.bins))
        if self.keep_values:
            group, weight = sample_groups(target, valid, len(ratio), self.num_classes, ratio.device)
            # float32 for both: a process without images contributes an empty float32 tensor. An image that does not
            # count has class -1 and is dropped when the values are asked for.
            self.ratios.append(ratio.float())
            self.targets.append(torch.where(weight.bool(), group, -1).float())

    def compute(self) -> Tensor:
        """The mean: a scalar, or (K,) with ``average="none"``; NaN and a warning when no image had a ratio."""
        self._warn_if_empty(self.count)
        return mean_compute(self.total, self.count, average=self.average)

    def undefined(self) -> Tensor:
        """Images without positive attribution: a scalar, or (K,) with ``average="none"``; of all processes."""
        with self.sync_context(should_sync=self.sync_on_compute and not self._is_synced):
            counts = self.count_undefined.clone()
        return counts if self.average == "none" else counts.sum()

    def histogram(self) -> Tensor:
        """Images per bin, int64 (bins,), or (K, bins) with ``average="none"``; of all processes.

        Bin i covers [i / bins, (i + 1) / bins).
        """
        with self.sync_context(should_sync=self.sync_on_compute and not self._is_synced):
            counts = self.bin_counts.reshape(-1, self.bins).clone()
        return counts if self.average == "none" else counts.sum(0)

    def images(self) -> PixelRatioValues:
        """Every counted image's ratio and class, of all processes in rank order.

        Raises:
            RuntimeError: the metric was made without ``keep_values=True``.
        """
        if not self.keep_values:
            raise RuntimeError("images: every image's ratio is counted only with PixelRatio(keep_values=True)")
        with self.sync_context(should_sync=self.sync_on_compute and not self._is_synced):
            ratio, target = (_joined(x, self.device) for x in (self.ratios, self.targets))
        has_label = target >= 0
        return PixelRatioValues(ratio[has_label], target[has_label].long())


def _joined(parts: list[Tensor] | Tensor, device: torch.device) -> Tensor:
    # torchmetrics leaves one tensor where the states of several processes have been put together
    if isinstance(parts, Tensor):
        return parts
    return torch.cat(parts) if parts else torch.zeros(0, device=device)


def _pixel_ratio_update(
    ratio: Tensor, target: Tensor | None, valid: Tensor | None, num_classes: int | None, bins: int
) -> dict[str, Tensor]:
    """Sum of ratios (float64), images with and without one, and images per class and bin (flat), from ratios (B,)."""
    group, weight = sample_groups(target, valid, len(ratio), num_classes, ratio.device)
    defined = weight * torch.isfinite(ratio)
    total, count = class_sums(ratio.double(), group, defined, num_classes)
    without = torch.zeros_like(count).index_add(0, group, weight - defined)
    bin_index = torch.nan_to_num(ratio * bins).long().clamp(0, bins - 1)
    counts = torch.zeros((num_classes or 1) * bins, dtype=torch.int64, device=ratio.device)
    counts = counts.index_add(0, group * bins + bin_index, defined)
    return {"total": total, "count": count, "count_undefined": without, "bin_counts": counts}
