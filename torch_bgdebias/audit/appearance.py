"""Appearance features without trained weights: colours, textures, sharpness, layout, edges and corners.

All of it is measured on the background alone (`regions`). What is missing, behind the object, is NaN.
"""

from __future__ import annotations

import itertools

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

__all__ = ["CORNERS", "GRID", "SIDE", "appearance", "corner_facts", "light", "sharpness"]

#: pictures are resized to SIDE x SIDE, cut into GRID x GRID places
SIDE, GRID = 128, 12
#: sides of the patches that are cut out of each corner of the picture at its own size, in pixels
CORNERS = (8, 16)
_LAYOUT = 8
_STRIP = 0.06
_FILTERS = 24
_LUMA = (0.299, 0.587, 0.114)


def appearance(image: Tensor, outside: Tensor) -> dict[str, NDArray[np.float32]]:
    """Features of a batch by view.

    Args:
        image: (B, 3, SIDE, SIDE) in [0, 1].
        outside: (B, 1, SIDE, SIDE) bool, the background.

    Returns:
        View -> (B, D); ``places`` is (B, GRID * GRID * 7).
    """
    weight = outside.float()
    grey = (image * image.new_tensor(_LUMA).reshape(1, 3, 1, 1)).sum(1, keepdim=True)
    views = {
        "colours": _colours(image, grey, weight),
        "light": light(image, grey, weight),
        "texture": _texture(image, grey, weight),
        "sharpness": sharpness(grey, weight),
        "layout": _cells(image, weight, _LAYOUT),
        "border": _border(image, grey, weight),
        "places": _places(image, grey, weight),
    }
    return {name: values.numpy().astype(np.float32) for name, values in views.items()}


def light(image: Tensor, grey: Tensor, weight: Tensor) -> Tensor:
    """Mean and spread of colours and brightness, saturation, brightness' quantiles."""
    saturation = image.amax(1, keepdim=True) - image.amin(1, keepdim=True)
    stack = torch.cat([image, grey, saturation], 1)
    mean = _mean(stack, weight)
    spread = (_mean(stack.square(), weight) - mean.square()).clamp(min=0).sqrt()
    background_grey = torch.where(weight > 0, grey, grey.new_tensor(torch.nan)).flatten(1)
    marks = grey.new_tensor([0.02, 0.1, 0.25, 0.5, 0.75, 0.9, 0.98])
    return torch.cat([mean, spread, torch.nanquantile(background_grey, marks, dim=1).T], 1)


def sharpness(grey: Tensor, weight: Tensor) -> Tensor:
    """Logarithms of the mean detail at four scales, of which the finest is pixel noise, and their differences."""
    energies = []
    for _ in range(4):
        detail = grey - F.avg_pool2d(F.pad(grey, (1, 1, 1, 1), mode="replicate"), 3, 1)
        energies.append((_mean(detail.abs(), weight) + 1e-4).log())
        grey, weight = F.avg_pool2d(grey, 2), (F.avg_pool2d(weight, 2) > 0.99).float()
    ratios = [b - a for a, b in itertools.pairwise(energies)]
    return torch.cat([*energies, *ratios], 1)


def corner_facts(pixels: NDArray[np.uint8], hidden: NDArray[np.bool_] | None) -> tuple[list[float], list[float]]:
    """Numbers of the four corners at the picture's own size: statistics of each patch, and the patch averaged to 4 x 4.

    Args:
        pixels: (H, W, 3).
        hidden: (H, W), the object's box; ``None``: nothing is hidden.
    """
    facts: list[float] = []
    tiles: list[float] = []
    for side in CORNERS:
        for rows in (slice(0, side), slice(-side, None)):
            for columns in (slice(0, side), slice(-side, None)):
                patch = pixels[rows, columns].astype(np.float32) / 255
                behind = hidden is not None and bool(hidden[rows, columns].any())
                if behind or min(patch.shape[:2]) < side:
                    facts += [np.nan] * 10
                    tiles += [np.nan] * 16
                    continue
                grey = patch @ np.array(_LUMA, np.float32)
                steps = np.abs(np.diff(grey, axis=0)).mean() + np.abs(np.diff(grey, axis=1)).mean()
                facts += [*patch.mean((0, 1)), *patch.std((0, 1)), grey.min(), grey.max(), grey.std(), steps]
                tiles += grey.reshape(4, side // 4, 4, side // 4).mean((1, 3)).ravel().tolist()
    return [float(x) for x in facts], [float(x) for x in tiles]


def _mean(values: Tensor, weight: Tensor) -> Tensor:
    """(B, C): mean over the background; NaN where there is none."""
    return (values * weight).sum((2, 3)) / weight.sum((2, 3))


def _shares(numbers: Tensor, weight: Tensor, bins: int) -> Tensor:
    """Square roots of the share of the background in each bin, from bin numbers (B, 1, H, W)."""
    batch = len(numbers)
    slot = numbers.long().flatten(1) + bins * torch.arange(batch)[:, None]
    counts = torch.zeros(batch * bins).index_add_(0, slot.flatten(), weight.flatten())
    return (counts.reshape(batch, bins) / weight.sum((1, 2, 3))[:, None]).sqrt()


def _colours(image: Tensor, grey: Tensor, weight: Tensor) -> Tensor:
    """Histograms of the background: 4 x 4 x 4 colours, 16 levels of brightness, 5 x 5 tints (red, blue less grey)."""
    levels = (image * 4).clamp(max=3.999).floor()
    colour_code = levels[:, :1] * 16 + levels[:, 1:2] * 4 + levels[:, 2:]
    bright = (grey * 16).clamp(max=15.999).floor()
    tint = torch.cat([image[:, :1] - grey, image[:, 2:] - grey], 1).mul(6).round().clamp(-2, 2) + 2
    return torch.cat(
        [
            _shares(colour_code, weight, 64),
            _shares(bright, weight, 16),
            _shares(tint[:, :1] * 5 + tint[:, 1:], weight, 25),
        ],
        1,
    )


def _texture(image: Tensor, grey: Tensor, weight: Tensor) -> Tensor:
    """Local binary patterns, directions of gradients and drawn filters at two scales, wherever they are."""
    parts = []
    for _ in range(2):
        parts += [_patterns(grey, weight), _directions(grey, weight)]
        responses = F.conv2d(F.pad(image, (2, 2, 2, 2), mode="replicate"), _drawn_filters()).abs()
        parts.append((_mean(responses, weight) + 1e-3).log())
        image, grey = F.avg_pool2d(image, 2), F.avg_pool2d(grey, 2)
        weight = (F.avg_pool2d(weight, 2) > 0.99).float()
    return torch.cat(parts, 1)


def _patterns(grey: Tensor, weight: Tensor) -> Tensor:
    """Rotation-invariant uniform patterns of eight neighbours (Ojala and others, 2002)."""
    padded = F.pad(grey, (1, 1, 1, 1), mode="replicate")
    height, width = grey.shape[2:]
    around = ((0, 0), (0, 1), (0, 2), (1, 2), (2, 2), (2, 1), (2, 0), (1, 0))
    bits = torch.stack([padded[:, :, y : y + height, x : x + width] >= grey + 1e-3 for y, x in around])
    changes = (bits != bits.roll(1, 0)).sum(0)
    return _shares(torch.where(changes <= 2, bits.sum(0), 9), weight, 10)


def _directions(grey: Tensor, weight: Tensor) -> Tensor:
    """Shares of eight directions of the gradient, weighted by its length, and the logarithm of its mean length."""
    padded = F.pad(grey, (1, 1, 1, 1), mode="replicate")
    across = padded[:, :, 1:-1, 2:] - padded[:, :, 1:-1, :-2]
    down = padded[:, :, 2:, 1:-1] - padded[:, :, :-2, 1:-1]
    length = (across.square() + down.square()).sqrt()
    direction_bin = ((torch.atan2(down, across) / torch.pi + 1) * 4).floor().clamp(max=7) % 8
    total = (length * weight).sum((1, 2, 3), keepdim=True)
    shares = _shares(direction_bin, length * weight + 1e-9, 8)
    return torch.cat([shares, (total.flatten(1) / weight.sum((1, 2, 3))[:, None] + 1e-4).log()], 1)


def _drawn_filters() -> Tensor:
    filters = torch.randn(_FILTERS, 3, 5, 5, generator=torch.Generator().manual_seed(7))
    filters -= filters.mean((1, 2, 3), keepdim=True)
    return filters / filters.square().sum((1, 2, 3), keepdim=True).sqrt()


def _cells(values: Tensor, weight: Tensor, grid: int) -> Tensor:
    """Mean of each cell of a grid over its background, (B, C * grid * grid); NaN where less than a quarter is."""
    covered = F.adaptive_avg_pool2d(weight, grid)
    mean = F.adaptive_avg_pool2d(values * weight, grid) / covered.clamp(min=1e-6)
    return torch.where(covered >= 0.25, mean, mean.new_tensor(torch.nan)).flatten(1)


def _border(image: Tensor, grey: Tensor, weight: Tensor) -> Tensor:
    """Mean colour, spread of brightness, mean step, shares near black and near white of a strip along each side."""
    width = max(2, round(_STRIP * SIDE))
    everything, strip = slice(None), slice(0, width)
    last = slice(SIDE - width, SIDE)
    parts = []
    for rows, columns in ((strip, everything), (last, everything), (everything, strip), (everything, last)):
        colour, bright, visible = (x[:, :, rows, columns] for x in (image, grey, weight))
        mean = _mean(colour, visible)
        spread = (_mean(bright.square(), visible) - _mean(bright, visible).square()).clamp(min=0).sqrt()
        steps = bright.diff(dim=3).abs()
        extremes = torch.cat([(bright < 0.02).float(), (bright > 0.98).float()], 1)
        parts += [mean, spread, _mean(steps, visible[..., 1:]), _mean(extremes, visible)]
    return torch.cat(parts, 1)


def _places(image: Tensor, grey: Tensor, weight: Tensor) -> Tensor:
    """Mean colour (3), spread, mean step, brightest and darkest pixel of every cell of the GRID x GRID grid."""
    padded = F.pad(grey, (1, 0, 1, 0), mode="replicate")
    steps = (padded[:, :, 1:, 1:] - padded[:, :, :-1, :-1]).abs()
    mean = _cells(torch.cat([image, grey.square(), steps], 1), weight, GRID).reshape(len(image), 5, -1)
    bright = (mean[:, :3] * mean.new_tensor(_LUMA).reshape(1, 3, 1)).sum(1, keepdim=True)
    spread = (mean[:, 3:4] - bright.square()).clamp(min=0).sqrt()
    brightest = F.adaptive_max_pool2d(torch.where(weight > 0, grey, -1.0), GRID).flatten(1)[:, None]
    darkest = -F.adaptive_max_pool2d(torch.where(weight > 0, -grey, -2.0), GRID).flatten(1)[:, None]
    unknown = mean[:, :1].isnan()
    extremes = torch.cat([brightest, darkest], 1).masked_fill(unknown, torch.nan)
    return torch.cat([mean[:, :3], spread, mean[:, 4:], extremes], 1).transpose(1, 2).flatten(1)
