"""Heatmaps as pictures: red for, blue against, white for nothing, the foreground outlined."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from torch_bgdebias._optional import require
from torch_bgdebias.checks import check_image, check_mask
from torch_bgdebias.isnet.functional import check_relevance

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["heatmap_figure", "heatmap_limits"]


def heatmap_limits(relevance: Tensor, quantile: float = 0.995) -> Tensor:
    """Half the width of the colour scale, one per sample and map: a high quantile of the summed channels' size.

    A quantile, since one pixel in a corner would otherwise leave the rest of the picture white. Where more pixels are
    zero than that quantile allows for, the largest value takes its place; 1 where all relevance is zero.

    Args:
        relevance: (B, M, C, H, W).
        quantile: in (0, 1].

    Returns:
        Tensor: (B, M), above 0.
    """
    if not 0.0 < quantile <= 1.0:
        raise ValueError(f"quantile: expected in (0, 1], got {quantile!r}")
    size = relevance.detach().sum(2).abs().flatten(2).float()
    limit = torch.quantile(size, quantile, dim=-1)
    limit = torch.where(limit > 0, limit, size.amax(-1))
    return torch.where(limit > 0, limit, 1.0)


def heatmap_figure(
    image: Tensor,
    relevance: Tensor,
    mask: Tensor | None = None,
    *,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    titles: Sequence[str] | None = None,
    map_names: Sequence[str] | None = None,
    max_images: int = 8,
    quantile: float = 0.995,
) -> Figure:
    """A row per image: the image, then each of its heatmaps (channels summed) with its own diverging scale.

    Red is relevance for the explained score, blue against it, white is zero: every scale is symmetric. The title of a
    heatmap says which share of its absolute relevance lies on the foreground.

    Args:
        image: (B, C, H, W); 1 or 3 channels.
        relevance: (B, M, C, H, W) of the same images.
        mask: (B, 1, H, W) in [0, 1]; its outline is drawn in black and white where given.
        mean, std: of a normalised image, per channel; ``None`` for images in [0, 1].
        titles: one a row, left of it; the row's number by default.
        map_names: one a heatmap, above its column.
        max_images: rows at most.
        quantile: see `heatmap_limits`.

    Returns:
        matplotlib.figure.Figure: not registered with pyplot, so nothing has to be closed.

    Raises:
        ImportError: matplotlib is not installed; the message names the extra.
        ValueError: shapes that do not belong together, or relevance that is not finite.
    """
    figure_module = require("matplotlib.figure", purpose="drawing heatmaps")
    check_image(image)
    check_relevance(relevance)
    if relevance.shape[0] != image.shape[0] or relevance.shape[-2:] != image.shape[-2:]:
        raise ValueError(
            f"relevance: expected the images' batch and size {(image.shape[0], *image.shape[-2:])}, "
            f"got shape {tuple(relevance.shape)}"
        )
    outline = None if mask is None else check_mask(mask, image).detach().float().cpu()
    rows, maps = min(len(image), max_images), relevance.shape[1]
    _check_names(titles, len(image), "titles")
    _check_names(map_names, maps, "map_names")
    pictures = _displayable(image[:rows], mean, std)
    summed = relevance[:rows].detach().float().sum(2).cpu()
    limits = heatmap_limits(relevance[:rows], quantile).cpu()
    figure = figure_module.Figure(figsize=(2.4 * (1 + maps) + 0.4, 2.6 * rows), layout="constrained")
    axes = figure.subplots(rows, 1 + maps, squeeze=False)
    for row in range(rows):
        edge = None if outline is None else outline[row, 0].numpy()
        _draw_image(axes[row, 0], pictures[row], edge, titles[row] if titles else f"{row}")
        for k in range(maps):
            share = "" if outline is None else f"{_share(relevance[row, k], outline[row]):.0%} on foreground"
            name = f"{map_names[k]}: " if map_names and share else (map_names[k] if map_names else "")
            heatmap_artist = _draw_map(
                axes[row, 1 + k], summed[row, k].numpy(), float(limits[row, k]), edge, name + share
            )
            figure.colorbar(heatmap_artist, ax=axes[row, 1 + k], fraction=0.046, pad=0.02).ax.tick_params(labelsize=6)
    return figure  # type: ignore[no-any-return]


def _draw_image(axes: Axes, pixels: Any, edge: Any, title: str) -> None:
    axes.imshow(pixels, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    _finish(axes, edge, title)


def _draw_map(axes: Axes, values: Any, limit: float, edge: Any, title: str) -> Any:
    artist = axes.imshow(values, cmap="seismic", vmin=-limit, vmax=limit, interpolation="nearest")
    _finish(axes, edge, title)
    return artist


def _finish(axes: Axes, edge: Any, title: str) -> None:
    if edge is not None and min(edge.shape) > 1 and 0 < (edge > 0.5).mean() < 1:  # a line of pixels has no outline
        # a light line under a dark dashed one is seen on every colour
        axes.contour(edge, levels=[0.5], colors="white", linewidths=1.4)
        axes.contour(edge, levels=[0.5], colors="black", linewidths=0.7)
    axes.set_title(title, fontsize=8)
    axes.set_xticks([])
    axes.set_yticks([])


def _displayable(image: Tensor, mean: Sequence[float] | None, std: Sequence[float] | None) -> Any:
    pixels = image.detach().float().cpu()
    if std is not None:
        pixels = pixels * torch.tensor(std, dtype=torch.float32).view(1, -1, 1, 1)
    if mean is not None:
        pixels = pixels + torch.tensor(mean, dtype=torch.float32).view(1, -1, 1, 1)
    pixels = pixels if pixels.shape[1] == 3 else pixels.mean(1, keepdim=True)
    return pixels.clamp(0, 1).permute(0, 2, 3, 1).squeeze(-1).numpy()


def _share(relevance: Tensor, mask: Tensor) -> float:
    size = relevance.detach().abs().sum(0).float().cpu()
    return float((size * mask[0]).sum() / size.sum().clamp(min=torch.finfo(torch.float32).tiny))


def _check_names(names: Sequence[str] | None, count: int, argument: str) -> None:
    if names is not None and len(names) < count:
        raise ValueError(f"{argument}: expected {count} of them, got {len(names)}")
