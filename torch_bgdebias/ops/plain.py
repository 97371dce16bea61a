"""The plain torch kernel: the definition of ``voronoi_composite``, which the compiled kernels repeat bit for bit.

Every operation here rounds once, and no two of them may be fused: no ``lerp``, no ``addcmul``, no division by a Python
number (which CUDA turns into a multiplication by the reciprocal).
"""

from __future__ import annotations

import torch
from torch import Tensor

from torch_bgdebias.precision import working_dtype

__all__ = ["composite_plain", "in_units", "nearest_cell"]


def nearest_cell(sites: Tensor, *size: int) -> Tensor:
    """Index of the site nearest to every pixel's centre.

    Squared distances are taken in float64 as ``fl(fl(dy dy) + fl(dx dx))`` whatever the sites' dtype: with sites
    on a grid (integers, halves, quarters...) they are exact, so that ties are true ties; they go to the lowest index.
    A site with NaN or infinity in it is infinitely far from everywhere.

    Args:
        sites: (B, K, 2), (y, x) in pixels; of volumes (B, K, 3), (z, y, x).
        size: H and W of the image; D, H and W of a volume.

    Returns:
        (B, H, W), or (B, D, H, W), int64 in [0, K).
    """
    sites, axes = sites.double(), len(size)
    centres = [
        _along(torch.arange(side, device=sites.device, dtype=torch.float64) + 0.5, axis, axes)
        for axis, side in enumerate(size)
    ]
    cell = torch.zeros(sites.shape[0], *size, dtype=torch.int64, device=sites.device)
    nearest = torch.full_like(cell, torch.inf, dtype=torch.float64)
    for k in range(sites.shape[1]):  # a running minimum: K maps of distances at once would be gigabytes
        distance: Tensor | None = None
        for axis, centre in enumerate(centres):
            away = centre - sites[:, k, axis].view(-1, *[1] * axes)
            distance = away * away if distance is None else distance + away * away
        assert distance is not None, "an image has axes"
        closer = distance < nearest  # false for NaN
        cell.masked_fill_(closer, k)
        nearest = torch.where(closer, distance, nearest)
    return cell


def background_pixels(
    bank: Tensor,
    cell: Tensor,
    index: Tensor,
    offset: Tensor,
    mean: Tensor | None,
    std: Tensor | None,
    dtype: torch.dtype,
) -> Tensor:
    """Normalised bank pixels (B, C, H, W) under every pixel of ``cell`` (B, H, W), in ``dtype``; or of volumes."""
    batch, *size = cell.shape
    axes, channels, bank_size = len(size), bank.shape[1], bank.shape[2:]
    flat = cell.flatten(1)

    def of_cell(values: Tensor) -> Tensor:
        return values.gather(1, flat).view(batch, 1, *size)

    coordinates = []
    for axis, (side, extent) in enumerate(zip(size, bank_size, strict=True)):
        position = _along(torch.arange(side, device=bank.device) % extent, axis, axes)[None]
        coordinates.append((position + of_cell(offset[..., axis].remainder(extent))) % extent)
    channel = torch.arange(channels, device=bank.device).view(1, channels, *[1] * axes)
    return in_units(bank[(of_cell(index), channel, *coordinates)], mean, std, dtype)


def _along(values: Tensor, axis: int, axes: int) -> Tensor:
    """Values (L,) along one of an image's axes, (1, ..., L, ...)."""
    return values.view(1, *(len(values) if other == axis else 1 for other in range(axes)))


def in_units(pixels: Tensor, mean: Tensor | None, std: Tensor | None, dtype: torch.dtype) -> Tensor:
    """Pixels (n, C, ...) as an image has them: uint8 scaled to [0, 1], then normalised where there is a mean (C,).

    Args:
        pixels: uint8 or floating point.
        mean: (C,) in ``dtype``, on the pixels' device.
        std: (C,), with ``mean``.
        dtype: floating point, of the result.
    """
    scaled = pixels.to(dtype)
    if pixels.dtype == torch.uint8:
        scaled = scaled / torch.full((1,), 255, dtype=dtype, device=pixels.device)
    if mean is not None and std is not None:
        shape = (1, -1, *[1] * (pixels.ndim - 2))
        scaled = (scaled - mean.view(shape)) / std.view(shape)
    return scaled


def composite_plain(
    foreground: Tensor,
    mask: Tensor,
    bank: Tensor,
    sites: Tensor,
    index: Tensor,
    offset: Tensor,
    mean: Tensor | None = None,
    std: Tensor | None = None,
) -> Tensor:
    """``voronoi_composite`` in plain torch operations, on any device; arguments as the operator's schema has them.

    Volumes (B, C, D, H, W) go by the same formula, with sites and offsets (B, K, 3).

    Raises:
        ValueError: an index outside the bank, on the CPU. Elsewhere the device asserts, without a synchronisation.
    """
    inside = ((index >= 0) & (index < bank.shape[0])).all()
    if bank.device.type == "cpu":
        if not inside:
            raise ValueError(f"index: expected images of the bank in [0, {bank.shape[0] - 1}]")
    else:
        torch._assert_async(inside, "index: expected images of the bank")
    dtype = working_dtype(foreground.dtype)
    cell = nearest_cell(sites, *foreground.shape[2:])
    background = background_pixels(bank, cell, index, offset, mean, std, dtype)
    alpha = mask.to(dtype)
    in_front = alpha * foreground.to(dtype)
    behind = (1 - alpha) * background
    return (in_front + behind).to(foreground.dtype).contiguous()
