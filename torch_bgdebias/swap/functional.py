"""The swap as pure functions: draw parameters, then apply them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from torch_bgdebias.backgrounds.bank import BackgroundBank
from torch_bgdebias.backgrounds.pool import Cells, Pool
from torch_bgdebias.backgrounds.sampling import ClassOrder, draw_outside
from torch_bgdebias.checks import (
    check_finite,
    check_image,
    check_label,
    check_mask,
    check_option,
    describe,
    values_readable,
)
from torch_bgdebias.compositing import FILLS, soft_edge, without_void
from torch_bgdebias.swap.placement import check_placement, moved_object, sample_placement
from torch_bgdebias.swap.sampling import SwapParams, SwapSettings, sample_offsets, sample_sites

#: why there is no placement in volumes
NOT_MOVED = (
    "expected images (B, C, H, W), whose objects can be moved; those of volumes (B, C, D, H, W) stay where they are, "
    "pass placement=None"
)

__all__ = ["batch_backgrounds", "draw_swap", "placed", "sample_swap_params", "swap_background", "swap_onto"]


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
    """Put each image's foreground on the background that ``params`` describes.

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
    """Images (B, C, H, W) and masks with the objects where ``params`` puts them on their new backgrounds.

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


def sample_swap_params(
    batch_shape: Sequence[int],
    label: Tensor | None = None,
    bank: BackgroundBank | None = None,
    *,
    pattern: str = "paste",
    cells: int = 8,
    p: float = 1.0,
    different_class: bool = False,
    device: torch.device | str | None = None,
    generator: torch.Generator | None = None,
) -> SwapParams:
    """Draw what a swap needs, every sample for itself, on the device and without reading anything back.

    Backgrounds are uniform over all images of the batch, the image itself among them, or over the bank: they say
    nothing about the class. With ``different_class`` they are uniform over those whose label differs from the image's.

    Args:
        batch_shape: (B, C, H, W) of the images, or (B, C, D, H, W) of volumes.
        label: (B,) int64, classes of the images; needed for ``different_class`` (unless a bank has no labels), and
            where `BackgroundBank.filter` forbade backgrounds by foreground class.
        bank: where the backgrounds come from; ``None`` for the batch itself.
        pattern: "paste", one background an image; "voronoi", ``cells`` of them.
        cells: how many cells for "voronoi".
        p: probability of a swap, for each image by itself.
        different_class: see above.
        device: of the parameters; that of ``label`` or of the bank by default.
        generator: on that device; torch's global one by default.

    Returns:
        ``batch_prob`` (B,) float, 1 where a swap was drawn; ``apply`` (B,) bool, the same and a background exists;
        ``sites`` (B, K, 2) float32, ``index`` (B, K) int64, ``offset`` (B, K, 2) int64 as `voronoi_composite` takes
        them; ``background_label`` (B,) int64: of the new background, -1 where it is unknown or the cells differ; the
        image's own label where it keeps its background.

    Raises:
        ValueError: a label that is needed and missing, ``p`` outside [0, 1], an unknown pattern, fewer than one cell.
    """
    settings = SwapSettings(pattern, cells, p, different_class)
    return draw_swap(batch_shape, label, bank, settings, device=device, generator=generator)


def draw_swap(
    batch_shape: Sequence[int],
    label: Tensor | None,
    bank: BackgroundBank | None,
    settings: SwapSettings,
    *,
    device: torch.device | str | None = None,
    generator: torch.Generator | None = None,
) -> SwapParams:
    """As `sample_swap_params`, with its options in one object."""
    batch, _, *size = batch_shape
    if settings.placement is not None and len(size) != 2:
        raise ValueError(f"placement: {NOT_MOVED}")
    if bank is not None and len(bank.size) != len(size):
        wanted = "volumes (N, C, D, H, W)" if len(size) == 3 else "images (N, C, H, W)"
        raise ValueError(f"bank: expected {wanted} for images of shape {tuple(batch_shape)}, got {bank}")
    device = torch.device(device) if device is not None else _device_of(label, bank)
    different = settings.different_class and (bank is None or bank.labels is not None)
    label = _needed_label(label, bank, different, batch, device)
    exclude = label if different else None
    count, pattern, cells = settings.backgrounds_per_image, settings.pattern, settings.cells
    bank_size = size if bank is None else bank.size
    gate = torch.rand(batch, device=device, generator=generator) < settings.p
    if bank is None:
        index = _draw_partners(batch, exclude, count, device, generator)
    else:
        foreground = label if bank.restricted else None
        index = bank.draw(batch, exclude, generator, cells=count, foreground_labels=foreground).reshape(batch, count)
    apply = gate & (index[:, 0] >= 0)
    background_label = _background_label(index, apply, label, bank)
    own = torch.arange(batch, device=device)[:, None] if bank is None else torch.zeros_like(index)
    params = {
        "batch_prob": gate.float(),
        "apply": apply,
        "sites": sample_sites(batch, size, pattern, cells, device=device, generator=generator),
        "index": torch.where(apply[:, None], index, own),
        "offset": sample_offsets(batch, size, bank_size, pattern, cells, device=device, generator=generator),
        "background_label": background_label,
    }
    if settings.placement is not None:  # drawn last: what was drawn before is the same with and without
        params["placement"] = sample_placement(batch, settings.placement, device=device, generator=generator)
    return params


def _needed_label(
    label: Tensor | None, bank: BackgroundBank | None, different: bool, batch: int, device: torch.device
) -> Tensor | None:
    """The labels, checked; raises where they are needed and missing."""
    if label is not None:
        label = check_label(label, batch)
        if label.device != device:
            raise ValueError(f"label: expected on {device}, got {label.device}")
    elif bank is not None and bank.restricted:
        raise ValueError("label: expected (B,), the bank's backgrounds were filtered by foreground class; got None")
    elif different:
        raise ValueError("label: expected (B,) for different_class=True, got None; pass label or different_class=False")
    return label


def _draw_partners(
    batch: int, label: Tensor | None, cells: int, device: torch.device, generator: torch.Generator | None
) -> Tensor:
    """Images of the batch (B, cells), of another class when labels are given; -1 where there is none.

    Without labels an image can get its own background: were it left out, a class would meet backgrounds of the other
    classes more often than its own, and the background would tell which class the image is not. A batch of one image
    has nothing to draw from.
    """
    if label is not None:
        return ClassOrder.of(label).draw(label, cells, generator=generator)
    none_excluded = torch.zeros(batch, dtype=torch.int64, device=device)
    index = draw_outside(batch, none_excluded, none_excluded, cells, generator=generator)
    return index if batch > 1 else torch.full_like(index, -1)


def _background_label(index: Tensor, apply: Tensor, label: Tensor | None, bank: BackgroundBank | None) -> Tensor:
    if bank is not None:
        labels = bank.labels_at(index)
    elif label is not None:
        labels = label[index.clamp(min=0)]
    else:
        labels = torch.full_like(index, -1)
    first = labels[:, 0]
    new = torch.where((labels == first[:, None]).all(1), first, -1)
    return torch.where(apply, new, -1 if label is None else label)


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


def _device_of(label: Tensor | None, bank: BackgroundBank | None) -> torch.device:
    if bank is not None:
        return bank.device
    return torch.device("cpu") if label is None else label.device


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
