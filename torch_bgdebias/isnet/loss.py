"""``ISNetLoss``: the heatmap loss with its settings, over the input's heatmaps and those of hidden layers."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Mapping
from operator import attrgetter
from typing import Literal, Self

from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d

from torch_bgdebias.checks import check_count, check_mask, check_option, check_share
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

__all__ = ["ISNetLoss", "ISNetLossOptions"]


@dataclasses.dataclass(frozen=True)
class ISNetLossOptions(HeatmapOptions):
    """Options of :class:`ISNetLoss`, which explains them: how one set of heatmaps is judged, and several together.

    Raises:
        ValueError: an option out of range.
    """

    mask_dilation: int = 2
    layer_decay: float = 1.0
    hidden_ranges: Mapping[str, tuple[float, float]] | None = None
    reduction: Literal["mean", "none"] = "mean"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_count(self.mask_dilation, name="mask_dilation", least=0)
        check_share(self.layer_decay, name="layer_decay")
        check_option(self.reduction, ("mean", "none"), name="reduction")
        ranges = {
            layer: check_range_of_relevance(bounds, name=f"hidden_ranges[{layer!r}]")
            for layer, bounds in (self.hidden_ranges or {}).items()
        }
        object.__setattr__(self, "hidden_ranges", ranges)


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
        #: the settings, which stay as they are
        self.options = ISNetLossOptions(
            relevance_range=relevance_range,
            background_weight=background_weight,
            foreground_weight=foreground_weight,
            rank_decay=rank_decay,
            saturation=saturation,
            foreground=foreground,
            normalization=normalization,
            mask_dilation=mask_dilation,
            layer_decay=layer_decay,
            hidden_ranges=hidden_ranges,
            reduction=reduction,
        )

    mask_dilation = property(attrgetter("options.mask_dilation"), doc="Pixels by which masks are grown first.")
    layer_decay = property(attrgetter("options.layer_decay"), doc="What the losses of hidden layers weigh, by rank.")
    reduction = property(attrgetter("options.reduction"), doc="Over the batch.")

    @property
    def relevance_range(self) -> tuple[float, float]:
        """(C1, C2) of the input's heatmaps."""
        return self.options.relevance_range

    @property
    def hidden_ranges(self) -> Mapping[str, tuple[float, float]]:
        """(C1, C2) of hidden layers by name."""
        return self.options.hidden_ranges or {}

    def with_ranges(
        self, relevance_range: tuple[float, float], hidden_ranges: Mapping[str, tuple[float, float]] | None = None
    ) -> Self:
        """The same loss with other ranges of relevance, as measured by calibration; this one stays as it is.

        Args:
            relevance_range: (C1, C2) of the input's heatmaps.
            hidden_ranges: of hidden layers, beside those that are known; a layer's own is replaced.
        """
        other = copy.copy(self)
        hidden = {**self.hidden_ranges, **(hidden_ranges or {})}
        other.options = dataclasses.replace(self.options, relevance_range=relevance_range, hidden_ranges=hidden)
        return other

    def forward(
        self,
        relevance: Tensor,
        mask: Tensor,
        hidden: Mapping[str, Tensor] | None = None,
        void: Tensor | None = None,
    ) -> Tensor:
        """The loss of the input's heatmaps and, pooled by rank with them, of hidden layers' (see the class)."""
        loss = self.terms(relevance, mask, hidden, void).loss
        return loss.mean() if self.options.reduction == "mean" else loss

    def terms(
        self,
        relevance: Tensor,
        mask: Tensor,
        hidden: Mapping[str, Tensor] | None = None,
        void: Tensor | None = None,
    ) -> HeatmapTerms:
        """Loss, background term and foreground term per sample, each (B,) (weights enter the loss only).

        Relevance at ``void`` (B, 1, H, W), pixels that are neither object nor background, weighs nothing in either.
        """
        check_relevance(relevance)
        mask = check_mask(mask, working_precision(relevance[:, 0]))
        if void is not None:
            # both terms are sums over |relevance|, so what is 0 has no weight in them, dilated masks included
            void = check_mask(void, working_precision(relevance[:, 0]), name="void")
            relevance = relevance * (1 - void)[:, None].to(relevance.dtype)
        mask = dilate_mask(mask, self.options.mask_dilation)
        layers = [self._layer(relevance, mask, self.relevance_range, "relevance")]
        for name, heatmaps in (hidden or {}).items():
            check_relevance(heatmaps, name=f"hidden[{name!r}]")
            height, width = heatmaps.shape[-2:]
            if void is not None:  # a position that is partly void keeps the share that is not
                heatmaps = heatmaps * (1 - adaptive_avg_pool2d(void, (height, width)))[:, None].to(heatmaps.dtype)
            layer_range = self.hidden_ranges.get(name, self.relevance_range)
            layers.append(self._layer(heatmaps, resize_mask(mask, (height, width)), layer_range, f"hidden[{name!r}]"))
        return pool_layers(layers, self.options.layer_decay)

    def _layer(self, relevance: Tensor, mask: Tensor, relevance_range: tuple[float, float], name: str) -> HeatmapTerms:
        return heatmap_terms(relevance, mask, self.options, relevance_range=relevance_range, name=name)

    def extra_repr(self) -> str:
        """The settings, for ``print``."""
        low, high = self.relevance_range
        decay, foreground = self.options.rank_decay, self.options.foreground
        return f"relevance_range=({low:g}, {high:g}), rank_decay={decay}, foreground={foreground!r}"
