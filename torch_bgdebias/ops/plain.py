"""The plain torch kernel: the definition of ``voronoi_composite``, which the compiled kernels repeat bit for bit.

Every operation here rounds once, and no two of them may be fused: no ``lerp``, no ``addcmul``, no division by a Python
number (which CUDA turns into a multiplication by the reciprocal).
"""

from __future__ import annotations

import torch
from torch import Tensor

from torch_bgdebias.precision import working_dtype

__all__ = ["composite_plain", "in_units", "nearest_cell"]


def nearest_cell(sites: Tensor, height: int, width: int) -> Tensor:
    """Index of the site nearest to every pixel's centre.

    Squared distances are taken in float64 as ``fl(fl(dy dy) + fl(dx dx))`` whatever the sites' dtype: with sites
    on a grid (integers, halves, quarters...) they are exact, so that ties are true ties; they go to the lowest index.
    A site with NaN or infinity in it is infinitely far from everywhere.

    Args:
        sites: (B, K, 2), (y, x) in pixels.
        height: H of the image.
        width: W of the image.

    Returns:
        (B, H, W) int64 in [0, K).
    """
    sites = sites.double()
    y = torch.arange(height, device=sites.device, dtype=torch.float64).view(1, height, 1) + 0.5
    x = torch.arange(width, device=sites.device, dtype=torch.float64).view(1, 1, width) + 0.5
    cell = torch.zeros(sites.shape[0], height, width, dtype=torch.int64, device=sites.device)
    nearest = torch.full_like(cell, torch.inf, dtype=torch.float64)
    for k in range(sites.shape[1]):  # a running minimum: K maps of distances at once would be gigabytes
        dy = y - sites[:, k, 0].view(-1, 1, 1)
        dx = x - sites[:, k, 1].view(-1, 1, 1)
        distance = dy * dy + dx * dx
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
    """Normalised bank pixels (B, C, H, W) under every pixel of ``cell``, in ``dtype``."""
    batch, height, width = cell.shape
    channels, bank_height, bank_width = bank.shape[1:]
    flat = cell.view(batch, height * width)

    def of_cell(values: Tensor) -> Tensor:
        return values.gather(1, flat).view(batch, 1, height, width)

    y = torch.arange(height, device=bank.device).view(1, 1, height, 1) % bank_height
    x = torch.arange(width, device=bank.device).view(1, 1, 1, width) % bank_width
    row = (y + of_cell(offset[..., 0].remainder(bank_height))) % bank_height
    column = (x + of_cell(offset[..., 1].remainder(bank_width))) % bank_width
    channel = torch.arange(channels, device=bank.device).view(1, channels, 1, 1)
    return in_units(bank[of_cell(index), channel, row, column], mean, std, dtype)


def in_units(pixels: Tensor, mean: Tensor | None, std: Tensor | None, dtype: torch.dtype) -> Tensor:
    """Pixels (n, C, H, W) as an image has them: uint8 scaled to [0, 1], then normalised where there is a mean (C,).

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
        scaled = (scaled - mean.view(1, -1, 1, 1)) / std.view(1, -1, 1, 1)
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
    cell = nearest_cell(sites, foreground.shape[2], foreground.shape[3])
    background = background_pixels(bank, cell, index, offset, mean, std, dtype)
    alpha = mask.to(dtype)
    in_front = alpha * foreground.to(dtype)
    behind = (1 - alpha) * background
    return (in_front + behind).to(foreground.dtype).contiguous()
