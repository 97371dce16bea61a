"""Draws a swap's parameters as tensors: backgrounds and placements, without loops or host synchronisation."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch
from torch import Tensor

from torch_bgdebias.backgrounds.bank import BackgroundBank
from torch_bgdebias.backgrounds.sampling import ClassOrder, draw_outside
from torch_bgdebias.checks import check_count, check_label, check_option, check_share, describe
from torch_bgdebias.names import PATTERNS
from torch_bgdebias.swap.placement import NOT_MOVED, Placement, sample_placement

__all__ = ["SwapParams", "SwapSettings", "draw_swap", "sample_offsets", "sample_sites", "sample_swap_params"]


#: what one swap draws: ``batch_prob`` (B,), ``apply`` (B,), ``sites`` (B, K, 2), ``index`` (B, K), ``offset`` (B, K, 2)
#: and ``background_label`` (B,); ``placement`` (B, 4) as well where objects are moved; (B, K, 3) of volumes
SwapParams = dict[str, Tensor]


@dataclasses.dataclass(frozen=True)
class SwapSettings:
    """What is drawn for a swap.

    Args:
        pattern: "paste", one background an image; "voronoi", ``cells`` of them.
        cells: regions for "voronoi".
        p: probability of a swap, drawn for each image.
        different_class: a background's label must differ from the image's label; otherwise backgrounds are drawn
            independently of the class.
        placement: how far the object may be moved, rescaled and mirrored; ``None``: not at all.

    Raises:
        TypeError: ``placement`` is no Placement.
        ValueError: an unknown pattern, fewer than one cell, ``p`` outside [0, 1].
    """

    pattern: str = "paste"
    cells: int = 8
    p: float = 1.0
    different_class: bool = False
    placement: Placement | None = None

    def __post_init__(self) -> None:
        placement: object = self.placement
        if placement is not None and not isinstance(placement, Placement):
            raise TypeError(f"placement: expected a Placement, got {describe(placement)}; pass Placement(move=0.5)")
        check_option(self.pattern, PATTERNS, name="pattern")
        check_count(self.cells, name="cells")
        check_share(self.p, name="p", kind="a probability")

    @property
    def backgrounds_per_image(self) -> int:
        """K: how many backgrounds an image gets."""
        return 1 if self.pattern == "paste" else self.cells


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
    """Draw a swap's parameters, each sample independently, on the device without host synchronisation.

    Backgrounds are uniform over all images of the batch, the image itself among them, or over the bank: they say
    nothing about the class. With ``different_class`` they are uniform over those whose label differs from the image's.

    Args:
        batch_shape: (B, C, H, W) of the images, or (B, C, D, H, W) of volumes.
        label: (B,) int64, classes of the images; needed for ``different_class`` (unless a bank has no labels), and
            where `BackgroundBank.filter` forbade backgrounds by foreground class.
        bank: where the backgrounds come from; ``None`` for the batch itself.
        pattern: "paste", one background an image; "voronoi", ``cells`` of them.
        cells: how many cells for "voronoi".
        p: probability of a swap, drawn for each image.
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
        expected = "volumes (N, C, D, H, W)" if len(size) == 3 else "images (N, C, H, W)"
        raise ValueError(f"bank: expected {expected} for images of shape {tuple(batch_shape)}, got {bank}")
    device = torch.device(device) if device is not None else _device_of(label, bank)
    different = settings.different_class and (bank is None or bank.labels is not None)
    label = _required_label(label, bank, different, batch, device)
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
    own_rows = torch.arange(batch, device=device)[:, None] if bank is None else torch.zeros_like(index)
    params = {
        "batch_prob": gate.float(),
        "apply": apply,
        "sites": sample_sites(batch, size, pattern, cells, device=device, generator=generator),
        "index": torch.where(apply[:, None], index, own_rows),
        "offset": sample_offsets(batch, size, bank_size, pattern, cells, device=device, generator=generator),
        "background_label": background_label,
    }
    if settings.placement is not None:  # drawn last: what was drawn before is the same with and without
        params["placement"] = sample_placement(batch, settings.placement, device=device, generator=generator)
    return params


def sample_sites(
    batch: int,
    size: Sequence[int],
    pattern: str = "paste",
    cells: int = 8,
    *,
    device: torch.device | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Sites (B, K, 2) as (y, x) in pixels: the centre for "paste" (K = 1), uniform for "voronoi" (K = cells).

    Of a volume's ``size`` (D, H, W) they are (B, K, 3) as (z, y, x).
    """
    check_option(pattern, PATTERNS, name="pattern")
    if pattern == "paste":
        position = torch.full((batch, 1, len(size)), 0.5, device=device, dtype=torch.float32)
    else:
        position = torch.rand(batch, cells, len(size), device=device, dtype=torch.float32, generator=generator)
    return torch.stack([position[..., axis] * side for axis, side in enumerate(size)], dim=-1)


def sample_offsets(
    batch: int,
    size: Sequence[int],
    bank_size: Sequence[int],
    pattern: str = "paste",
    cells: int = 8,
    *,
    device: torch.device | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Offsets (B, K, 2) as (y, x) int64, (B, K, 3) of volumes: where in the background the image's first pixel lies.

    "paste": uniform over the windows that lie inside of the background, hence zero where it is as large as the image
    (or smaller: it is tiled). "voronoi": uniform over the whole background, which is continued periodically.
    """
    check_option(pattern, PATTERNS, name="pattern")
    paste = pattern == "paste"
    shape = (batch, 1 if paste else cells)
    axes = [
        torch.randint(max(bank - image_side, 0) + 1 if paste else bank, shape, device=device, generator=generator)
        for image_side, bank in zip(size, bank_size, strict=True)
    ]
    return torch.stack(axes, dim=-1)


def _required_label(
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
    common = torch.where((labels == first[:, None]).all(1), first, -1)
    return torch.where(apply, common, -1 if label is None else label)


def _device_of(label: Tensor | None, bank: BackgroundBank | None) -> torch.device:
    if bank is not None:
        return bank.device
    return torch.device("cpu") if label is None else label.device
