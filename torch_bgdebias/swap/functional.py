"""The swap as pure functions of the parameters drawn in `swap/sampling.py`."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from torch_bgdebias.backgrounds.pool import Cells, Pool
from torch_bgdebias.checks import check_finite, check_image, check_mask, check_option, describe, values_readable
from torch_bgdebias.compositing import FILLS, soft_edge, without_void
from torch_bgdebias.swap.placement import NOT_MOVED, check_placement, moved_object
from torch_bgdebias.swap.sampling import SwapParams

__all__ = ["batch_backgrounds", "placed", "swap_background", "swap_onto"]


def batch_backgrounds(image: Tensor, mask: Tensor, fill: str = "tile", void: Tensor | None = None) -> Tensor:
    """The batch's own backgrounds (B, C, H, W), foregrounds removed by "tile" or "mean"; without a gradient.

    What is ``void`` (B, 1, H, W), neither object nor background, becomes the background's mean colour first.
    """
    remove = FILLS[check_option(fill, tuple(FILLS), name="fill")]
    with torch.no_grad():
        return remove(without_void(image, mask, void), mask)


def swap_background(
    image: Tensor,
    mask: Tensor,
    bank: Tensor,
    params: SwapParams,
    *,
    mean: Tensor | Sequence[float] | None = None,
    std: Tensor | Sequence[float] | None = None,
    edge: float = 0.0,
) -> Tensor:
    """Paste each image's foreground on the background that ``params`` describes.

    Args:
        image: (B, C, H, W) float, or volumes (B, C, D, H, W), and so what follows.
        mask: (B, 1, H, W) or (B, H, W), bool or float in [0, 1], 1 = foreground; soft masks blend.
        bank: (N, C, Hb, Wb) backgrounds, uint8 or float; of another size than the image they are tiled.
        params: as from `sample_swap_params`; images whose ``apply`` is false come back unchanged. With ``placement``,
            (B, 4) of `sample_placement`, the others' objects are moved; `placed` gives their masks.
        mean: per channel, subtracted from the (scaled) background pixels.
        std: per channel, by which they are divided then.
        edge: standard deviation in pixels with which a foreground fades towards its border, see `soft_edge`.

    Returns:
        (B, C, H, W) in the image's dtype, differentiable to image and mask.

    Raises:
        TypeError: a tensor of another dtype.
        ValueError: shapes that do not agree, mask outside [0, 1], images or backgrounds that are not finite or do not
            fit the dtype (seen on the CPU only), parameters of another batch.
        KeyError: a parameter is missing.
    """
    image, mask = placed(image, mask, params)
    return swap_onto(image, mask, Pool(bank, mean=mean, std=std, name="bank"), params, edge=edge)


def placed(image: Tensor, mask: Tensor, params: SwapParams) -> tuple[Tensor, Tensor]:
    """Images (B, C, H, W) and masks with the objects placed on their new backgrounds as ``params`` says.

    What lies beside an object that was moved means nothing. Both come back as they are where nothing moves: without
    ``placement`` among the parameters, and for images whose ``apply`` is false.

    Returns:
        (B, C, H, W) and (B, 1, H, W), the latter float in [0, 1].

    Raises:
        TypeError, ValueError, KeyError: as `swap_background`.
    """
    check_image(image, volumes=True)
    mask = check_mask(mask, image)
    if "placement" not in params or len(image) == 0:
        return image, mask
    _check_params(params, image)
    if image.ndim == 5:
        raise ValueError(f"params['placement']: {NOT_MOVED}")
    placement = check_placement(params["placement"], len(image), name="params['placement']")
    moved_image, moved_mask = moved_object(image, mask, placement)
    apply = params["apply"][:, None, None, None]
    return torch.where(apply, moved_image, image), torch.where(apply, moved_mask, mask)


def swap_onto(image: Tensor, mask: Tensor, pool: Pool, params: SwapParams, *, edge: float = 0.0) -> Tensor:
    """As `swap_background`, with backgrounds and their normalisation in one object; images of one size, no masks.

    The masks' values are those that `placed` has looked at.
    """
    check_image(image, volumes=True)
    mask = check_mask(mask, image, values=False)
    _check_params(params, image)
    if len(image) == 0:
        return image.clone()
    mask = soft_edge(mask, edge)
    unchanged = ~params["apply"].view(-1, *[1] * (image.ndim - 1))
    mask = torch.where(unchanged, torch.ones((), dtype=mask.dtype, device=mask.device), mask)  # all foreground
    swapped = pool.composite(image, mask, Cells(params["sites"], params["index"], params["offset"]))
    if isinstance(pool.images, Tensor):
        _check_finite_result(swapped, image, pool.images)
    return swapped


def _check_params(params: SwapParams, image: Tensor) -> None:
    batch = len(image)
    missing = [name for name in ("apply", "sites", "index", "offset") if name not in params]
    if missing:
        raise KeyError(f"params: expected apply, sites, index and offset, got no {', '.join(missing)}")
    for name in ("apply", "sites", "index", "offset"):
        value = params[name]
        if not isinstance(value, Tensor):
            raise TypeError(f"params['{name}']: expected a tensor, got {describe(value)}")
        if value.device != image.device:
            raise ValueError(f"params['{name}']: expected on the images' {image.device}, got {describe(value)}")
    if params["apply"].dtype != torch.bool:
        raise TypeError(
            f"params['apply']: expected bool ({batch},), got {describe(params['apply'])}; pass apply.bool()"
        )
    if params["apply"].shape != (batch,):
        raise ValueError(f"params: expected them for a batch of {batch}, got {len(params['apply'])}")


def _check_finite_result(swapped: Tensor, image: Tensor, bank: Tensor) -> None:
    # a sum is one quick pass; only when it is not finite the exact checks look for the cause (or find an overflow)
    if not values_readable(swapped) or bool(torch.isfinite(swapped.detach().sum())):
        return
    check_finite(image, name="image")
    if bank.is_floating_point():
        check_finite(bank, name="bank")
    if not bool(torch.isfinite(swapped.detach()).all()):
        largest = float(bank.detach().abs().amax())
        kind = str(image.dtype).removeprefix("torch.")
        raise ValueError(f"bank: expected backgrounds that fit the images' {kind}, got values up to {largest:.3g}")
