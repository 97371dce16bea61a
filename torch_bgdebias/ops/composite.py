"""``voronoi_composite``: put a foreground on a background that is cut into Voronoi cells."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from torch_bgdebias.checks import all_finite, check_both_or_none, check_image, check_mask, describe, values_readable
from torch_bgdebias.ops.library import composite
from torch_bgdebias.ops.plain import composite_plain
from torch_bgdebias.precision import working_dtype

__all__ = ["voronoi_composite"]

_IMAGE_DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)


def voronoi_composite(
    foreground: Tensor,
    mask: Tensor,
    bank: Tensor,
    sites: Tensor,
    index: Tensor,
    offset: Tensor,
    mean: Tensor | Sequence[float] | None = None,
    std: Tensor | Sequence[float] | None = None,
) -> Tensor:
    r"""Blend images with backgrounds made of Voronoi cells, each cell filled from another image of a bank.

    .. math:: out = m f + (1 - m) \, bank[index_k, :, (y + oy_k) \bmod H_b, (x + ox_k) \bmod W_b]

    where cell k is the one whose site is nearest to the pixel's centre (y + 1/2, x + 1/2), ties to the lowest index.
    One cell is plain pasting. Differentiable, twice if need be, with respect to ``foreground`` and ``mask`` alone.

    Volumes (B, C, D, H, W) go by the same formula with a third coordinate, which comes first, in plain torch
    operations: a mask (B, 1, D, H, W) or (B, D, H, W), a bank (N, C, Db, Hb, Wb), sites and offsets (B, K, 3).

    Args:
        foreground: (B, C, H, W) floating point; B may be 0. The half types are blended in float32.
        mask: (B, 1, H, W) or (B, H, W), bool or float, 1 = foreground. Its range is not read here: outside [0, 1] the
            formula extrapolates.
        bank: (N, C, Hb, Wb) uint8, scaled to [0, 1], or floating point, taken as it is; any strides, never copied.
        sites: (B, K, 2) floating point, (y, x) in pixels, anywhere. Distances are taken in float64. A site that is not
            finite owns no pixel.
        index: (B, K) integer, which image of the bank fills the cell.
        offset: (B, K, 2) integer, (oy, ox) pixels into the bank's image, wrapped, may be negative.
        mean: C numbers subtracted from the (scaled) bank pixels; a tensor on the device spares a copy in every call.
        std: C numbers by which the result is then divided. Given together with ``mean`` or not at all.

    Returns:
        (B, C, H, W), contiguous, in the foreground's dtype.

    Raises:
        TypeError: an argument of another type or dtype.
        ValueError: shapes or devices that do not agree, an index outside the bank (a CUDA kernel asserts on the device
            instead), a gradient asked of another argument, or backgrounds beyond the foreground's dtype (on the CPU).

    Example:
        >>> import torch
        >>> from torch_bgdebias.ops import voronoi_composite
        >>> image, mask = torch.ones(1, 3, 4, 4), torch.zeros(1, 1, 4, 4)
        >>> bank = torch.stack([torch.zeros(3, 5, 5), torch.full((3, 5, 5), 2.0)])
        >>> sites = torch.tensor([[[2.0, 1.0], [2.0, 3.0]]])  # left half, right half
        >>> index, offset = torch.tensor([[0, 1]]), torch.zeros(1, 2, 2, dtype=torch.int64)
        >>> voronoi_composite(image, mask, bank, sites, index, offset)[0, 0, 0]
        tensor([0., 0., 2., 2.])
    """
    check_image(foreground, name="foreground", volumes=True)
    if foreground.dtype not in _IMAGE_DTYPES:
        names = ", ".join(str(dtype).removeprefix("torch.") for dtype in _IMAGE_DTYPES)
        raise TypeError(f"foreground: expected one of {names}, got {describe(foreground)}")
    mask = check_mask(mask, foreground, values=False)
    _check_bank(bank, foreground)
    _check_cells(sites, index, offset, foreground)
    _check_index_values(index, bank)
    _check_no_gradient(bank=bank, sites=sites, mean=mean, std=std)
    mean, std = _normalisation(mean, std, foreground)
    kernel = composite if foreground.ndim == 4 else composite_plain
    out: Tensor = kernel(foreground, mask, bank, sites.double(), index.long(), offset.long(), mean, std)
    narrow = foreground.dtype == torch.float16 or (bank.dtype == torch.float64 and foreground.dtype != bank.dtype)
    if narrow and values_readable(out):
        _check_fits(out, foreground)
    return out


def _check_fits(composite: Tensor, foreground: Tensor) -> None:
    """Finite pixels give finite ones, unless the foreground's dtype does not hold them."""
    if all_finite(composite) or not all_finite(foreground):
        return
    kind = str(foreground.dtype).removeprefix("torch.")
    raise ValueError(f"bank: expected backgrounds that fit the foreground's {kind}, got larger ones")


def _check_bank(bank: Tensor, foreground: Tensor) -> None:
    if not isinstance(bank, Tensor) or (bank.dtype != torch.uint8 and bank.dtype not in _IMAGE_DTYPES):
        raise TypeError(f"bank: expected a uint8 or float tensor (N, C, Hb, Wb), got {describe(bank)}")
    if bank.ndim != foreground.ndim or 0 in bank.shape:
        shape = "(N, C, Hb, Wb)" if foreground.ndim == 4 else "(N, C, Db, Hb, Wb)"
        raise ValueError(f"bank: expected shape {shape} with at least one pixel, got {describe(bank)}")
    if bank.shape[1] != foreground.shape[1]:
        raise ValueError(f"bank: expected the foreground's {foreground.shape[1]} channels, got {describe(bank)}")
    _check_device("bank", bank, foreground)


def _check_cells(sites: Tensor, index: Tensor, offset: Tensor, foreground: Tensor) -> None:
    batch, axes = foreground.shape[0], foreground.ndim - 2
    if not isinstance(sites, Tensor) or not sites.is_floating_point():
        raise TypeError(f"sites: expected a float tensor ({batch}, K, {axes}), got {describe(sites)}")
    if sites.ndim != 3 or sites.shape[0] != batch or sites.shape[1] == 0 or sites.shape[2] != axes:
        raise ValueError(f"sites: expected shape ({batch}, K, {axes}) with at least one cell, got {describe(sites)}")
    for name, value, shape in (("index", index, (batch, sites.shape[1])), ("offset", offset, tuple(sites.shape))):
        if not isinstance(value, Tensor) or value.dtype not in (torch.int64, torch.int32):
            raise TypeError(f"{name}: expected an int64 tensor {shape}, got {describe(value)}")
        if tuple(value.shape) != shape:
            raise ValueError(f"{name}: expected shape {shape}, got {describe(value)}")
        _check_device(name, value, foreground)
    _check_device("sites", sites, foreground)


def _check_index_values(index: Tensor, bank: Tensor) -> None:
    if index.numel() and values_readable(index):
        low, high = (int(value) for value in index.aminmax())
        if low < 0 or high >= bank.shape[0]:
            raise ValueError(f"index: expected images of the bank in [0, {bank.shape[0] - 1}], got [{low}, {high}]")


def _check_no_gradient(**arguments: Tensor | Sequence[float] | None) -> None:
    for name, value in arguments.items():
        if isinstance(value, Tensor) and value.requires_grad and torch.is_grad_enabled():
            raise ValueError(
                f"{name}: expected a tensor without gradient (there is no formula for one), got requires_grad"
            )


def _check_device(name: str, value: Tensor, foreground: Tensor) -> None:
    if value.device != foreground.device:
        raise ValueError(f"{name}: expected on the foreground's device {foreground.device}, got {value.device}")


def _normalisation(
    mean: Tensor | Sequence[float] | None, std: Tensor | Sequence[float] | None, foreground: Tensor
) -> tuple[Tensor | None, Tensor | None]:
    check_both_or_none(mean, std)
    if mean is None or std is None:
        return None, None
    return _per_channel("mean", mean, foreground), _per_channel("std", std, foreground)


def _per_channel(name: str, value: Tensor | Sequence[float], foreground: Tensor) -> Tensor:
    dtype, channels = working_dtype(foreground.dtype), foreground.shape[1]
    if isinstance(value, Tensor):
        _check_device(name, value, foreground)
        tensor = value.to(dtype)
    else:
        try:
            tensor = torch.tensor(list(value), dtype=dtype, device=foreground.device)
        except TypeError as error:
            raise TypeError(f"{name}: expected {channels} numbers, got {describe(value)}") from error
    if tuple(tensor.shape) != (channels,):
        raise ValueError(f"{name}: expected {channels} numbers, one a channel, got {describe(value)}")
    return tensor
