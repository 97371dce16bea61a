"""Pastes foregrounds over backgrounds and removes foregrounds, batched on the device without host synchronisation."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from torch_bgdebias.checks import check_image, check_mask, values_readable
from torch_bgdebias.precision import autocast_off, working_dtype

__all__ = [
    "FILLS",
    "FOREGROUND_THRESHOLD",
    "bounding_boxes",
    "box_mask",
    "fills_image",
    "mean_fill",
    "object_share",
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
        mask: (B, 1, H, W) or (B, H, W), of volumes (B, 1, D, H, W), bool or float in [0, 1].
        threshold: pixels above it are foreground.

    Returns:
        (B, 4) int64: top, left, bottom, right, the last two exclusive; all 0 where a mask has no foreground. Of volumes
        (B, 6): the box's first slice, row and column, and those past its last.
    """
    return _boxes_of(check_mask(mask) > threshold)


def box_mask(boxes: Tensor, size: Sequence[int]) -> Tensor:
    """True inside of each box: as from `bounding_boxes`, and (H, W) or (D, H, W), to a bool mask (B, 1, H, W)."""
    axes = len(size)
    inside = torch.ones((), dtype=torch.bool, device=boxes.device)
    for axis, side in enumerate(size):
        position = torch.arange(side, device=boxes.device)
        along = (position >= boxes[:, axis, None]) & (position < boxes[:, axes + axis, None])
        inside = inside & along.view(-1, *_shape_along(axis, side, axes))
    return inside.unsqueeze(1)


def fills_image(mask: Tensor) -> Tensor:
    """Which masks (B, 1, H, W) have a box that is the whole image and leaves no background beside it: bool (B,)."""
    boxes = bounding_boxes(mask)
    axes = boxes.shape[1] // 2
    return (boxes[:, axes:] - boxes[:, :axes]).prod(1) >= math.prod(mask.shape[-axes:])


def object_share(mask: Tensor, void: Tensor | None = None) -> Tensor:
    """Share of each picture (B,), float64, that its object covers: of pixels that are not void those with mask > 1/2.

    Args:
        mask: (B, 1, H, W) or (B, H, W), of volumes (B, 1, D, H, W), bool or float in [0, 1].
        void: (B, 1, H, W) of pixels that are neither.
    """
    inside = (check_mask(mask) > 0.5).flatten(1)
    is_known = torch.ones_like(inside) if void is None else (check_mask(void, name="void") <= 0.5).flatten(1)
    return (inside & is_known).sum(1).double() / is_known.sum(1).clamp(min=1)


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
    check_image(foreground, name="foreground", volumes=True)
    check_image(background, name="background", volumes=True)
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
        mask: (B, 1, H, W) or (B, 1, D, H, W) float in [0, 1].
        sigma: standard deviation of the blur in pixels; 0 leaves the mask as it is.

    Returns:
        Of the mask's shape and dtype, differentiable to it.
    """
    if sigma == 0:
        return mask
    radius = min(math.ceil(3 * sigma), 4 * max(mask.shape[2:]))
    dtype = working_dtype(mask.dtype)
    offset = torch.arange(-radius, radius + 1, device=mask.device, dtype=dtype)
    weight = torch.softmax(-0.5 * (offset / sigma) ** 2, 0)
    axes = mask.ndim - 2
    blurred = F.pad(mask.to(dtype), (radius,) * (2 * axes), mode="replicate")
    with autocast_off(mask):
        for axis in range(axes):
            kernel = weight.view(1, 1, *_shape_along(axis, len(weight), axes))
            blurred = F.conv2d(blurred, kernel) if axes == 2 else F.conv3d(blurred, kernel)
    return mask * (2 * blurred - 1).clamp(0, 1).to(mask.dtype)


def tile_fill(image: Tensor, mask: Tensor, threshold: float = FOREGROUND_THRESHOLD) -> Tensor:
    """Remove the foreground: fill its bounding box by tiling the largest background rectangle beside it (Only-BG-T).

    Of the four strips beside the box (above and below over the full width, left and right over the full height) the
    one with the most pixels is repeated over the plane from where it lies, and shows through the box. Ties go to above,
    below, left, right in this order. Where the box is the whole image there is no strip: the whole image then becomes
    the mean colour of its background pixels, or of all its pixels when there are none. No foreground: the image stays
    as it is.
    Of a volume it is the largest of six slabs, those in front of and behind the box first.

    Args:
        image: (B, C, H, W) or (B, C, D, H, W) float, any value range.
        mask: (B, 1, H, W) or (B, H, W), of volumes (B, 1, D, H, W), bool or float in [0, 1], 1 = foreground.
        threshold: pixels with a mask above it are foreground.

    Returns:
        Of the image's shape, differentiable to it.

    Source: Only-BG-T of Noise or Signal (Xiao et al., arXiv 2006.09994, appendix A).
    """
    check_image(image, volumes=True)
    inside = check_mask(mask, image) > threshold
    boxes = _boxes_of(inside)
    strip = _largest_strip(boxes, image.shape[2:])
    if values_readable(strip) and not (image.requires_grad and torch.is_grad_enabled()):
        return _tile_slices(image, inside, boxes, strip)
    return _tile_gather(image, inside, boxes, strip)


def mean_fill(image: Tensor, mask: Tensor, threshold: float = FOREGROUND_THRESHOLD) -> Tensor:
    """Remove the foreground: fill its bounding box with the mean colour of the background pixels.

    The mean is that of all pixels where an image has no background pixel. Arguments and result as `tile_fill`.
    """
    check_image(image, volumes=True)
    inside = check_mask(mask, image) > threshold
    box = box_mask(_boxes_of(inside), image.shape[2:])
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
        image: (B, C, H, W) or (B, C, D, H, W) float, any value range.
        mask: (B, 1, H, W) or (B, 1, D, H, W), 1 = foreground.
        void: of the mask's shape, bool or float in [0, 1]; ``None``: the image stays as it is.
        colour: what to paint, (B, C, H, W) or less of it; by default the mean colour of the image's background pixels.
        threshold: pixels with a mask or void above it are no background.

    Returns:
        Of the image's shape, differentiable to it.
    """
    if void is None:
        return image
    is_void = check_mask(void, image, name="void") > threshold
    if colour is None:
        colour = _background_mean(image, is_void | (check_mask(mask, image) > threshold))
    return torch.where(is_void, colour, image)


#: what removes a foreground, by name
FILLS = {"tile": tile_fill, "mean": mean_fill}


def _shape_along(axis: int, side: int, axes: int) -> list[int]:
    """The shape of what goes along one axis of several."""
    return [side if other == axis else 1 for other in range(axes)]


def _boxes_of(inside: Tensor) -> Tensor:
    extents = [_extent(_occupied(inside, axis)) for axis in range(2, inside.ndim)]
    return torch.stack([start for start, _ in extents] + [end for _, end in extents], dim=1)


def _occupied(inside: Tensor, axis: int) -> Tensor:
    """(B, L): which positions along an axis hold any True."""
    for other in reversed(range(2, inside.ndim)):
        inside = inside if other == axis else inside.any(other, keepdim=True)
    return inside.flatten(1)


def _extent(occupied: Tensor) -> tuple[Tensor, Tensor]:
    """First and one past the last True along dim 1 of (B, L); (0, 0) where there is none."""
    length = occupied.shape[1]
    position = torch.arange(length, device=occupied.device)
    end = torch.where(occupied, position + 1, 0).amax(1)
    start = torch.where(occupied, position, length).amin(1)
    return torch.minimum(start, end), end


def _largest_strip(boxes: Tensor, size: Sequence[int]) -> Tensor:
    """(B, 4): first row, first column, rows and columns of the largest rectangle beside each box; 0 pixels if none.

    Of volumes (B, 6): first slice, row and column, and how many of each.
    """
    axes = len(size)
    none = torch.zeros_like(boxes[:, 0])
    whole_image = torch.stack([none] * axes + [torch.full_like(none, side) for side in size], 1)
    strips = []
    for axis, side in enumerate(size):
        low, high = boxes[:, axis], boxes[:, axes + axis]
        before, after = whole_image.clone(), whole_image.clone()
        before[:, axes + axis] = low
        after[:, axis], after[:, axes + axis] = high, side - high
        strips += [before, after]
    stacked = torch.stack(strips, 1)
    best = stacked[..., axes:].prod(-1).argmax(1)
    return stacked.gather(1, best[:, None, None].expand(-1, 1, 2 * axes)).squeeze(1)


def _tile_gather(image: Tensor, inside: Tensor, boxes: Tensor, strip: Tensor) -> Tensor:
    """Fill the boxes with one gather of computed coordinates: nothing is read back from the device."""
    size = image.shape[2:]
    axes = len(size)
    source = position_in_image = torch.zeros((), dtype=torch.int64, device=image.device)
    for axis, side in enumerate(size):
        position = torch.arange(side, device=image.device)
        first, count = strip[:, axis, None], strip[:, axes + axis, None]
        along = (first + torch.remainder(position - first, count.clamp(min=1))).clamp(max=side - 1)
        stride, shape = math.prod(size[axis + 1 :]), _shape_along(axis, side, axes)
        source = source + (along * stride).view(-1, *shape)
        position_in_image = position_in_image + (position * stride).view(shape)
    index = torch.where(box_mask(boxes, size).squeeze(1), source, position_in_image)
    filled = image.flatten(2).gather(2, index.flatten(1)[:, None].expand(-1, image.shape[1], -1)).view_as(image)
    none_left = strip[:, axes:].prod(1) == 0
    return torch.where(none_left.view(-1, *[1] * (axes + 1)), _background_mean(image, inside), filled)


def _tile_slices(image: Tensor, inside: Tensor, boxes: Tensor, strip: Tensor) -> Tensor:
    """The same in memory that may be looked at, where copying rectangles is several times faster than a gather."""
    filled, axes = image.clone(), image.ndim - 2
    for i, (box, beside) in enumerate(zip(boxes.tolist(), strip.tolist(), strict=True)):
        low, high, first, count = box[:axes], box[axes:], beside[:axes], beside[axes:]
        if 0 in count:
            filled[i] = _background_mean(image[i : i + 1], inside[i : i + 1])[0]
        elif high[0] > low[0]:
            part = image[i]
            for axis in range(axes):
                if count[axis] == image.shape[2 + axis]:
                    part = part.narrow(1 + axis, low[axis], high[axis] - low[axis])
                else:
                    position = torch.arange(low[axis], high[axis]) - first[axis]
                    part = part.index_select(1 + axis, first[axis] + torch.remainder(position, count[axis]))
            target: list[int | slice] = [i, slice(None), *map(slice, low, high)]
            filled[tuple(target)] = part
    return filled


def _background_mean(image: Tensor, inside: Tensor) -> Tensor:
    """Mean colour (B, C, 1, 1) over the pixels outside, over all pixels where there are none outside."""
    pixels = tuple(range(2, image.ndim))
    outside = (~inside).to(working_dtype(image.dtype))
    count = outside.sum(pixels, keepdim=True)
    weight = torch.where(count > 0, outside, torch.ones_like(outside))
    mean = (image.to(weight.dtype) * weight).sum(pixels, keepdim=True) / weight.sum(pixels, keepdim=True)
    return mean.to(image.dtype)
