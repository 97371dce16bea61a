"""``ISNetLoss``: the heatmap loss with its settings, over the input's heatmaps and those of hidden layers."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Mapping
from typing import Literal, Self

from torch import Tensor, nn

from torch_bgdebias.checks import check_mask, check_option, check_share
from torch_bgdebias.isnet.functional import (
    Foreground,
    HeatmapOptions,
    HeatmapTerms,
    Normalization,
    check_range_of_relevance,
    check_relevance,
    dilate_mask,
    heatmap_terms,
    pool_layers,
    resize_mask,
)
from torch_bgdebias.precision import working_precision

__all__ = ["ISNetLoss"]


class ISNetLoss(nn.Module):
    """Penalise relevance on the background, and keep the foreground's between C1 and C2.

    Holds no parameters and no buffers. The whole training loss is ``(1 - P) * cross_entropy + P * ISNetLoss(...)``.

    Args:
        relevance_range: (C1, C2), bounds for the sum of |relevance| over the foreground; measure them with
            :func:`~torch_bgdebias.isnet.calibrate_relevance_range`.
        background_weight: weight of the background term.
        foreground_weight: weight of the foreground term.
        rank_decay: d; the background's pixels, sorted descending, weigh d^0, d^1, ...; 1 is their mean.
        saturation: E of the background term g / (g + E).
        foreground: "hybrid" (linear beyond C1 + C2) or "l2".
        normalization: "absolute" or "signed" mean relevance of the foreground under the background term.
        mask_dilation: pixels by which masks are grown first (what the network needs to see of an edge lies on both
            sides of it); 0 leaves them as they are.
        layer_decay: with hidden layers, the losses of the layers, largest first, weigh d^0, d^1, ...; 1 is their mean.
        hidden_ranges: (C1, C2) of hidden layers by name; ``relevance_range`` where a layer is not named.
        reduction: "mean" over the batch or "none".

    Shape:
        relevance (B, M, C, H, W), mask (B, 1, H, W) or (B, H, W), hidden {layer: (B, M, c, h, w)} -> scalar, or (B,).

    Raises:
        ValueError: an option out of range; wrong shapes; relevance that is not finite.

    Example:
        >>> import torch
        >>> relevance = torch.zeros(2, 1, 3, 12, 12)
        >>> mask = torch.zeros(2, 1, 12, 12)
        >>> mask[:, :, 4:8, 4:8] = 1
        >>> float(ISNetLoss()(relevance + mask[:, None] / 8, mask))  # 6 on the foreground, nothing outside
        0.0
        >>> float(ISNetLoss()(relevance + 1 / 8, mask)) > 0
        True
    """

    def __init__(
        self,
        relevance_range: tuple[float, float] = (1.0, 25.0),
        background_weight: float = 1.0,
        foreground_weight: float = 1.0,
        rank_decay: float = 0.9,
        saturation: float = 1.0,
        foreground: Foreground = "hybrid",
        normalization: Normalization = "absolute",
        mask_dilation: int = 2,
        layer_decay: float = 1.0,
        hidden_ranges: Mapping[str, tuple[float, float]] | None = None,
        reduction: Literal["mean", "none"] = "mean",
    ) -> None:
        super().__init__()
        self.options = HeatmapOptions(
            relevance_range=relevance_range,
            background_weight=background_weight,
            foreground_weight=foreground_weight,
            rank_decay=rank_decay,
            saturation=saturation,
            foreground=foreground,
            normalization=normalization,
        )
        if not isinstance(mask_dilation, int) or mask_dilation < 0:
            raise ValueError(f"mask_dilation: expected a whole number of pixels, got {mask_dilation!r}")
        check_share(layer_decay, name="layer_decay")
        self.mask_dilation = mask_dilation
        self.layer_decay = layer_decay
        self.hidden_ranges = _checked(hidden_ranges or {})
        self.reduction = check_option(reduction, ("mean", "none"), name="reduction")

    @property
    def relevance_range(self) -> tuple[float, float]:
        """(C1, C2) of the input's heatmaps."""
        return self.options.relevance_range

    def with_ranges(
        self, relevance_range: tuple[float, float], hidden_ranges: Mapping[str, tuple[float, float]] | None = None
    ) -> Self:
        """The same loss with other ranges of relevance, as measured by calibration; this one stays as it is.

        Args:
            relevance_range: (C1, C2) of the input's heatmaps.
            hidden_ranges: of hidden layers, beside those that are known; a layer's own is replaced.
        """
        other = copy.copy(self)
        other.options = dataclasses.replace(self.options, relevance_range=relevance_range)
        other.hidden_ranges = {**self.hidden_ranges, **_checked(hidden_ranges or {})}
        return other

    def forward(self, relevance: Tensor, mask: Tensor, hidden: Mapping[str, Tensor] | None = None) -> Tensor:
        """The loss of the input's heatmaps and, pooled by rank with them, of hidden layers' (see the class)."""
        loss = self.terms(relevance, mask, hidden).loss
        return loss.mean() if self.reduction == "mean" else loss

    def terms(self, relevance: Tensor, mask: Tensor, hidden: Mapping[str, Tensor] | None = None) -> HeatmapTerms:
        """Loss, background term and foreground term per sample, each (B,) (weights enter the loss only)."""
        check_relevance(relevance)
        mask = check_mask(mask, working_precision(relevance[:, 0]))
        mask = dilate_mask(mask, self.mask_dilation)
        layers = [self._layer(relevance, mask, self.relevance_range, "relevance")]
        for name, heatmaps in (hidden or {}).items():
            check_relevance(heatmaps, name=f"hidden[{name!r}]")
            height, width = heatmaps.shape[-2:]
            layer_range = self.hidden_ranges.get(name, self.relevance_range)
            layers.append(self._layer(heatmaps, resize_mask(mask, (height, width)), layer_range, f"hidden[{name!r}]"))
        return pool_layers(layers, self.layer_decay)

    def _layer(self, relevance: Tensor, mask: Tensor, relevance_range: tuple[float, float], name: str) -> HeatmapTerms:
        options = dataclasses.replace(self.options, relevance_range=relevance_range)
        return heatmap_terms(relevance, mask, options, name=name)

    def extra_repr(self) -> str:
        """The settings, for ``print``."""
        low, high = self.relevance_range
        decay, foreground = self.options.rank_decay, self.options.foreground
        return f"relevance_range=({low:g}, {high:g}), rank_decay={decay}, foreground={foreground!r}"


def _checked(ranges: Mapping[str, tuple[float, float]]) -> dict[str, tuple[float, float]]:
    return {layer: check_range_of_relevance(x, name=f"hidden_ranges[{layer!r}]") for layer, x in ranges.items()}
