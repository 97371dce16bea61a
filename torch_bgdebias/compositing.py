"""Foreground over background, and backgrounds without their foreground: batched on the device, no host reads."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from torch_bgdebias.checks import check_image, check_mask, describe, flat_slices, flat_volume, values_readable
from torch_bgdebias.precision import working_dtype

__all__ = [
    "FILLS",
    "FOREGROUND_THRESHOLD",
    "bounding_boxes",
    "box_mask",
    "fills_image",
    "mean_fill",
    "paste",
    "soft_edge",
    "tile_fill",
    "without_void",
]

#: a pixel whose mask is above this counts as foreground when a foreground is removed: a background keeps at most 5 % of
#: the object in any pixel, while the faint tails of a predicted mask do not blow the bounding box up to the whole image
FOREGROUND_THRESHOLD = 0.05


def bounding_boxes(mask: Tensor, threshold: float = FOREGROUND_THRESHOLD) -> Tensor:
    """Smallest boxes that hold every foreground pixel (mask > threshold).

    Args:
        mask: (B, 1, H, W) or (B, H, W), bool or float in [0, 1].
        threshold: pixels above it are foreground.

    Returns:
        (B, 4) int64: top, left, bottom, right, the last two exclusive; all 0 where a mask has no foreground.
    """
    return _boxes_of(check_mask(mask) > threshold)


def box_mask(boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """True inside of each box: (B, 4) as from `bounding_boxes` and (H, W) to a bool mask (B, 1, H, W)."""
    y = torch.arange(size[0], device=boxes.device)
    x = torch.arange(size[1], device=boxes.device)
    top, left, bottom, right = boxes.unsqueeze(-1).unbind(1)
    rows = (y >= top) & (y < bottom)
    columns = (x >= left) & (x < right)
    return (rows[:, :, None] & columns[:, None, :]).unsqueeze(1)


def fills_image(mask: Tensor) -> Tensor:
    """Which masks (B, 1, H, W) have a box that is the whole image and leaves no background beside it: bool (B,)."""
    top, left, bottom, right = bounding_boxes(mask).unbind(-1)
    return (bottom - top) * (right - left) >= mask.shape[-2] * mask.shape[-1]


def paste(foreground: Tensor, mask: Tensor, background: Tensor) -> Tensor:
    """Blend: mask * foreground + (1 - mask) * background.

    Args:
        foreground: (B, C, H, W) float, or a volume (B, C, D, H, W).
        mask: (B, 1, H, W) or (B, H, W), of a volume (B, 1, D, H, W); bool or float in [0, 1], 1 = foreground.
        background: float, of the foreground's shape.

    Returns:
        Of that shape, in the foreground's dtype, differentiable to all three.

    Raises:
        ValueError: background and foreground differ in shape, or the mask does not fit.
    """
    if isinstance(foreground, Tensor) and foreground.ndim == 5:
        if background.shape != foreground.shape:
            raise ValueError(f"background: expected shape {tuple(foreground.shape)}, got {describe(background)}")
        flat = paste(flat_slices(foreground), flat_volume(foreground, mask), flat_slices(background))
        return flat.reshape(foreground.shape)
    check_image(foreground, name="foreground")
    check_image(background, name="background")
    if background.shape != foreground.shape:
        raise ValueError(f"background: expected shape {tuple(foreground.shape)}, got {tuple(background.shape)}")
    mask = check_mask(mask, foreground)
    return mask * foreground + (1 - mask) * background.to(foreground.dtype)


def soft_edge(mask: Tensor, sigma: float) -> Tensor:
    """Let a foreground fade towards its border, inwards alone: nothing outside of the mask comes in.

    The mask becomes ``mask * max(0, 2 G(mask) - 1)`` with G a Gaussian blur: 0 at a straight border, 0.68 one ``sigma``
    inside, 0.95 two inside. What is thinner than about two ``sigma`` fades altogether. A foreground that the picture's
    border cuts goes on beyond it.

    Args:
        mask: (B, 1, H, W) float in [0, 1].
        sigma: standard deviation of the blur in pixels; 0 leaves the mask as it is.

    Returns:
        (B, 1, H, W) in the mask's dtype, differentiable to it.
    """
    if sigma == 0:
        return mask
    radius = min(math.ceil(3 * sigma), 4 * max(mask.shape[2:]))
    dtype = working_dtype(mask.dtype)
    offset = torch.arange(-radius, radius + 1, device=mask.device, dtype=dtype)
    weight = torch.softmax(-0.5 * (offset / sigma) ** 2, 0)
    padded = F.pad(mask.to(dtype), (radius,) * 4, mode="replicate")
    blurred = F.conv2d(F.conv2d(padded, weight.view(1, 1, -1, 1)), weight.view(1, 1, 1, -1))
    return mask * (2 * blurred - 1).clamp(0, 1).to(mask.dtype)


def tile_fill(image: Tensor, mask: Tensor, threshold: float = FOREGROUND_THRESHOLD) -> Tensor:
    """Remove the foreground: fill its bounding box by tiling the largest background rectangle beside it (Only-BG-T).

    Of the four strips beside the box (above and below over the full width, left and right over the full height) the
    one with the most pixels is repeated over the plane, in place, and shows through the box. Ties go to above, below,
    left, right in this order. Where the box is the whole image there is no strip: the whole image then becomes the mean
    colour of its background pixels, or of all its pixels when there are none. No foreground: the image stays as it is.

    Args:
        image: (B, C, H, W) float, any value range.
        mask: (B, 1, H, W) or (B, H, W), bool or float in [0, 1], 1 = foreground.
        threshold: pixels with a mask above it are foreground.

    Returns:
        (B, C, H, W), differentiable to the image.

    Source: Only-BG-T of Noise or Signal (Xiao et al., arXiv 2006.09994, appendix A).
    """
    check_image(image)
    inside = check_mask(mask, image) > threshold
    boxes = _boxes_of(inside)
    strip = _largest_strip(boxes, image.shape[2], image.shape[3])
    if values_readable(strip) and not (image.requires_grad and torch.is_grad_enabled()):
        return _tile_slices(image, inside, boxes, strip)
    return _tile_gather(image, inside, boxes, strip)


def mean_fill(image: Tensor, mask: Tensor, threshold: float = FOREGROUND_THRESHOLD) -> Tensor:
    """Remove the foreground: fill its bounding box with the mean colour of the background pixels.

    The mean is that of all pixels where an image has no background pixel. Arguments and result as `tile_fill`.
    """
    check_image(image)
    inside = check_mask(mask, image) > threshold
    box = box_mask(_boxes_of(inside), (image.shape[2], image.shape[3]))
    return torch.where(box, _background_mean(image, inside), image)


def without_void(
    image: Tensor,
    mask: Tensor,
    void: Tensor | None,
    colour: Tensor | None = None,
    threshold: float = FOREGROUND_THRESHOLD,
) -> Tensor:
    """Paint over what is neither object nor background, so that a background shows nothing of an object's edge.

    Args:
        image: (B, C, H, W) float, any value range.
        mask: (B, 1, H, W), 1 = foreground.
        void: (B, 1, H, W), bool or float in [0, 1]; ``None``: the image stays as it is.
        colour: what to paint, (B, C, H, W) or less of it; by default the mean colour of the image's background pixels.
        threshold: pixels with a mask or void above it are no background.

    Returns:
        (B, C, H, W), differentiable to the image.
    """
    if void is None:
        return image
    neither = check_mask(void, image, name="void") > threshold
    if colour is None:
        colour = _background_mean(image, neither | (check_mask(mask, image) > threshold))
    return torch.where(neither, colour, image)


#: what removes a foreground, by name
FILLS = {"tile": tile_fill, "mean": mean_fill}


def _boxes_of(inside: Tensor) -> Tensor:
    vertical = _extent(inside.any(3).squeeze(1))
    horizontal = _extent(inside.any(2).squeeze(1))
    return torch.stack([vertical[0], horizontal[0], vertical[1], horizontal[1]], dim=1)


def _extent(occupied: Tensor) -> tuple[Tensor, Tensor]:
    """First and one past the last True along dim 1 of (B, L); (0, 0) where there is none."""
    length = occupied.shape[1]
    position = torch.arange(length, device=occupied.device)
    end = torch.where(occupied, position + 1, 0).amax(1)
    start = torch.where(occupied, position, length).amin(1)
    return torch.minimum(start, end), end


def _largest_strip(boxes: Tensor, height: int, width: int) -> Tensor:
    """(B, 4): first row, first column, rows and columns of the largest rectangle beside each box; 0 pixels if none."""
    top, left, bottom, right = boxes.unbind(1)
    zero, full_h, full_w = torch.zeros_like(top), torch.full_like(top, height), torch.full_like(top, width)
    strips = torch.stack(
        [
            torch.stack([zero, zero, top, full_w], 1),
            torch.stack([bottom, zero, height - bottom, full_w], 1),
            torch.stack([zero, zero, full_h, left], 1),
            torch.stack([zero, right, full_h, width - right], 1),
        ],
        1,
    )
    best = (strips[..., 2] * strips[..., 3]).argmax(1)
    return strips.gather(1, best[:, None, None].expand(-1, 1, 4)).squeeze(1)


def _tile_gather(image: Tensor, inside: Tensor, boxes: Tensor, strip: Tensor) -> Tensor:
    """Fill the boxes with one gather of computed coordinates: nothing is read back from the device."""
    height, width = image.shape[2:]
    first_y, first_x, rows, columns = strip[..., None].unbind(1)
    y = torch.arange(height, device=image.device)
    x = torch.arange(width, device=image.device)
    source_y = (first_y + torch.remainder(y - first_y, rows.clamp(min=1))).clamp(max=height - 1)
    source_x = (first_x + torch.remainder(x - first_x, columns.clamp(min=1))).clamp(max=width - 1)
    box = box_mask(boxes, (height, width)).squeeze(1)
    index = torch.where(box, source_y[:, :, None] * width + source_x[:, None, :], y[:, None] * width + x)
    filled = image.flatten(2).gather(2, index.flatten(1)[:, None].expand(-1, image.shape[1], -1)).view_as(image)
    none_left = strip[:, 2] * strip[:, 3] == 0
    return torch.where(none_left[:, None, None, None], _background_mean(image, inside), filled)


def _tile_slices(image: Tensor, inside: Tensor, boxes: Tensor, strip: Tensor) -> Tensor:
    """The same in memory that may be looked at, where copying rectangles is several times faster than a gather."""
    filled = image.clone()
    for i, (box, (first_y, first_x, rows, columns)) in enumerate(zip(boxes.tolist(), strip.tolist(), strict=True)):
        top, left, bottom, right = box
        if rows * columns == 0:
            filled[i] = _background_mean(image[i : i + 1], inside[i : i + 1])[0]
        elif bottom > top:
            y = first_y + torch.remainder(torch.arange(top, bottom) - first_y, rows)
            x = first_x + torch.remainder(torch.arange(left, right) - first_x, columns)
            part = image[i].index_select(1, y)
            part = part[..., left:right] if columns == image.shape[3] else part.index_select(2, x)
            filled[i, :, top:bottom, left:right] = part
    return filled


def _background_mean(image: Tensor, inside: Tensor) -> Tensor:
    """Mean colour (B, C, 1, 1) over the pixels outside, over all pixels where there are none outside."""
    outside = (~inside).to(working_dtype(image.dtype))
    count = outside.sum((2, 3), keepdim=True)
    weight = torch.where(count > 0, outside, torch.ones_like(outside))
    mean = (image.to(weight.dtype) * weight).sum((2, 3), keepdim=True) / weight.sum((2, 3), keepdim=True)
    return mean.to(image.dtype)
