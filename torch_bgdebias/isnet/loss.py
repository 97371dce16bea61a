"""``ISNetLoss``: the heatmap loss with its settings, over the input's heatmaps and those of hidden layers."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Mapping
from operator import attrgetter
from typing import Any, Literal, Self

from torch import Tensor, nn

from torch_bgdebias.checks import check_count, check_mask, check_option, check_share, describe
from torch_bgdebias.isnet.functional import (
    SHARE_SATURATION,
    Foreground,
    Form,
    HeatmapOptions,
    HeatmapTerms,
    Normalization,
    check_range_of_relevance,
    check_relevance,
    dilate_mask,
    heatmap_terms,
    mean_over_pixels,
    pool_layers,
    resize_mask,
)
from torch_bgdebias.precision import working_precision

__all__ = ["NO_RANGE", "ISNetLoss", "ISNetLossOptions"]

#: why a loss of the form "share" takes no range
NO_RANGE = (
    "the loss's form 'share' does not depend on how large relevance is, and has no range; take "
    "loss=ISNetLoss.paper() where relevance is to be kept in one"
)


@dataclasses.dataclass(frozen=True)
class ISNetLossOptions(HeatmapOptions):
    """Options of `ISNetLoss`, which explains them: how one set of heatmaps is judged, and several together.

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

    The default form, "share", is log(1 + B / (E F)), B and F the sums of |relevance| on background and foreground: it
    does not depend on how large relevance is. On a pretrained network its gradient was 20 to 60 times that of the
    cross-entropy, the papers' form's more than a thousand times. That form is ``ISNetLoss.paper()``; naming one of the
    settings that it alone has (all to ``normalization`` but ``saturation``, and ``hidden_ranges``) asks for it as well.

    Args:
        relevance_range: (C1, C2), bounds for the sum of |relevance| over the foreground, (1, 25); measure them with
            `torch_bgdebias.isnet.calibrate_relevance_range`.
        background_weight: weight of the background term, 1.
        foreground_weight: weight of the foreground term, 1.
        rank_decay: d, 0.9; the background's pixels, sorted descending, weigh d^0, d^1, ...; 1 is their mean.
        saturation: E: of either form, the larger, the earlier little relevance on the background is left alone; 0.1,
            and 1 of the papers' form.
        foreground: "hybrid" (linear beyond C1 + C2, as it is without a word) or "l2".
        normalization: "absolute" (without a word) or "signed" mean relevance of the foreground under the background
            term.
        mask_dilation: pixels by which masks are grown first (what the network needs to see of an edge lies on both
            sides of it); 0 leaves them as they are.
        layer_decay: with hidden layers, the losses of the layers, largest first, weigh d^0, d^1, ...; 1 is their mean.
        hidden_ranges: (C1, C2) of hidden layers by name; ``relevance_range`` where a layer is not named.
        reduction: "mean" over the batch or "none".
        form: "share" or "paper"; ``None``: "share", unless one of the papers' settings is given.

    Shape:
        relevance (B, M, C, H, W), mask (B, 1, H, W), (B, H, W) or one a map (B, M, 1, H, W), hidden {layer: (B, M, c,
        h, w)} -> scalar, or (B,). Of volumes relevance (B, M, C, D, H, W), mask (B, 1, D, H, W) or (B, M, 1, D, H, W).

    Raises:
        ValueError: an option out of range; wrong shapes; relevance that is not finite.

    Example:
        >>> import torch
        >>> relevance = torch.zeros(2, 1, 3, 12, 12)
        >>> mask = torch.zeros(2, 1, 12, 12)
        >>> mask[:, :, 4:8, 4:8] = 1
        >>> float(ISNetLoss()(relevance + mask[:, None] / 8, mask))  # nothing outside the foreground
        0.0
        >>> even = ISNetLoss(mask_dilation=0)(relevance + 1 / 8, mask)  # 1/9 of all is on the foreground
        >>> round(float(even.exp()), 3)  # 1 + 8 / 0.1
        81.0
    """

    def __init__(
        self,
        relevance_range: tuple[float, float] | None = None,
        background_weight: float | None = None,
        foreground_weight: float | None = None,
        rank_decay: float | None = None,
        saturation: float | None = None,
        foreground: Foreground | None = None,
        normalization: Normalization | None = None,
        mask_dilation: int = 2,
        layer_decay: float = 1.0,
        hidden_ranges: Mapping[str, tuple[float, float]] | None = None,
        reduction: Literal["mean", "none"] = "mean",
        form: Form | None = None,
    ) -> None:
        super().__init__()
        papers = {
            "relevance_range": relevance_range, "background_weight": background_weight,
            "foreground_weight": foreground_weight, "rank_decay": rank_decay, "foreground": foreground,
            "normalization": normalization, "hidden_ranges": hidden_ranges or None,
        }  # fmt: skip
        overrides: dict[str, Any] = {name: value for name, value in papers.items() if value is not None}
        if form == "share" and overrides:
            raise ValueError(f"form: 'share' has no {' and no '.join(overrides)}; leave it out, or take form='paper'")
        form = form or ("paper" if overrides else "share")
        if saturation is None:
            saturation = SHARE_SATURATION if form == "share" else 1.0
        #: the settings, which stay as they are
        self.options = ISNetLossOptions(
            **overrides,
            mask_dilation=mask_dilation,
            layer_decay=layer_decay,
            reduction=reduction,
            saturation=saturation,
            form=form,
        )

    @classmethod
    def paper(cls, **settings: Any) -> Self:
        """The papers' loss: ``form="paper"``, and what else the class takes; ``mask_dilation=0`` is theirs as well."""
        return cls(form="paper", **settings)

    form = property(attrgetter("options.form"), doc='What is measured of a heatmap, "share" or "paper".')
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
        """A copy of the loss with other relevance ranges, as calibration measures them.

        Args:
            relevance_range: (C1, C2) of the input's heatmaps.
            hidden_ranges: of hidden layers, beside those that are known; a layer's own is replaced.

        Raises:
            ValueError: the loss has no range: its form is "share".
        """
        if self.options.form == "share":
            raise ValueError(f"relevance_range: {NO_RANGE}")
        duplicate = copy.copy(self)
        hidden = {**self.hidden_ranges, **(hidden_ranges or {})}
        duplicate.options = dataclasses.replace(self.options, relevance_range=relevance_range, hidden_ranges=hidden)
        return duplicate

    def forward(
        self, relevance: Tensor, mask: Tensor, hidden: Mapping[str, Tensor] | None = None, void: Tensor | None = None
    ) -> Tensor:
        """The loss of the input's heatmaps and, pooled by rank with them, of hidden layers' (see the class)."""
        loss = self.terms(relevance, mask, hidden, void).loss
        return loss.mean() if self.options.reduction == "mean" else loss

    def terms(
        self, relevance: Tensor, mask: Tensor, hidden: Mapping[str, Tensor] | None = None, void: Tensor | None = None
    ) -> HeatmapTerms:
        """Loss, background term and foreground term per sample, each (B,) (weights enter the loss only).

        Relevance at ``void`` (B, 1, H, W), pixels that are neither object nor background, weighs nothing in either. A
        mask (B, M, 1, H, W) holds one for each heatmap; the terms are then the means of what each heatmap alone gives.
        """
        if isinstance(mask, Tensor) and mask.ndim == relevance.ndim > 4:
            return self._terms_of_maps(relevance, mask, hidden or {}, void)
        # ISNet(at_input=False) has no channels
        at_input = not hidden or relevance.ndim not in (5, 6) or relevance.shape[2] > 0
        if at_input:
            check_relevance(relevance)
        mask = check_mask(mask, working_precision(relevance[:, 0]))
        if void is not None:
            # both terms are sums over |relevance|, so what is 0 has no weight in them, dilated masks included
            void = check_mask(void, working_precision(relevance[:, 0]), name="void")
            relevance = relevance * (1 - void)[:, None].to(relevance.dtype)
        mask = dilate_mask(mask, self.options.mask_dilation)
        layers = []
        if at_input:
            layers.append(self._layer(relevance, mask, self.relevance_range, "relevance"))
        for name, heatmaps in (hidden or {}).items():
            check_relevance(heatmaps, name=f"hidden[{name!r}]")
            size = heatmaps.shape[3:]
            if len(size) != mask.ndim - 2:
                raise ValueError(f"hidden[{name!r}]: expected maps of the input's rank, got {describe(heatmaps)}")
            if void is not None:  # a position that is partly void keeps the share that is not
                heatmaps = heatmaps * (1 - mean_over_pixels(void, size))[:, None].to(heatmaps.dtype)
            layer_range = self.hidden_ranges.get(name, self.relevance_range)
            layers.append(self._layer(heatmaps, resize_mask(mask, size), layer_range, f"hidden[{name!r}]"))
        return pool_layers(layers, self.options.layer_decay)

    def _terms_of_maps(
        self, relevance: Tensor, mask: Tensor, hidden: Mapping[str, Tensor], void: Tensor | None
    ) -> HeatmapTerms:
        """Every heatmap as a sample of its own, with its own mask."""
        batch, maps = relevance.shape[:2]
        if mask.shape[:3] != (batch, maps, 1):
            raise ValueError(
                f"mask: expected ({batch}, {maps}, 1, H, W), a mask for each heatmap, got {tuple(mask.shape)}"
            )

        def each(heatmaps: Tensor) -> Tensor:
            return heatmaps.reshape(batch * maps, 1, *heatmaps.shape[2:])

        void_of_maps = None if void is None else void.repeat_interleave(maps, 0)
        terms_of_maps = self.terms(
            each(relevance), mask.flatten(0, 1), {n: each(r) for n, r in hidden.items()}, void_of_maps
        )
        return HeatmapTerms(*(term.reshape(batch, maps).mean(1) for term in terms_of_maps))

    def _layer(self, relevance: Tensor, mask: Tensor, relevance_range: tuple[float, float], name: str) -> HeatmapTerms:
        return heatmap_terms(relevance, mask, self.options, relevance_range=relevance_range, name=name)

    def extra_repr(self) -> str:
        """The settings, for ``print``."""
        if self.options.form == "share":
            return f"form='share', saturation={self.options.saturation:g}, mask_dilation={self.options.mask_dilation}"
        low, high = self.relevance_range
        decay, foreground = self.options.rank_decay, self.options.foreground
        return f"relevance_range=({low:g}, {high:g}), rank_decay={decay}, foreground={foreground!r}"
