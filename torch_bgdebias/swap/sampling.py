"""Random choices as tensors: which sites, which offsets. On the device, no loops, no host reads."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch
from torch import Tensor

from torch_bgdebias.checks import check_count, check_option, check_share, describe
from torch_bgdebias.names import PATTERNS
from torch_bgdebias.swap.placement import Placement

__all__ = ["SwapParams", "SwapSettings", "sample_offsets", "sample_sites"]


#: what one swap draws: ``batch_prob`` (B,), ``apply`` (B,), ``sites`` (B, K, 2), ``index`` (B, K), ``offset`` (B, K, 2)
#: and ``background_label`` (B,); ``placement`` (B, 4) as well where objects are moved; (B, K, 3) of volumes
SwapParams = dict[str, Tensor]


@dataclasses.dataclass(frozen=True)
class SwapSettings:
    """What is drawn for a swap.

    Args:
        pattern: "paste", one background an image; "voronoi", ``cells`` of them.
        cells: regions for "voronoi".
        p: probability of a swap, for each image by itself.
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
        given: object = self.placement
        if given is not None and not isinstance(given, Placement):
            raise TypeError(f"placement: expected a Placement, got {describe(given)}; pass Placement(move=0.5)")
        check_option(self.pattern, PATTERNS, name="pattern")
        check_count(self.cells, name="cells")
        check_share(self.p, name="p", kind="a probability")

    @property
    def backgrounds_per_image(self) -> int:
        """K: how many backgrounds an image gets."""
        return 1 if self.pattern == "paste" else self.cells


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
        torch.randint(max(bank - own, 0) + 1 if paste else bank, shape, device=device, generator=generator)
        for own, bank in zip(size, bank_size, strict=True)
    ]
    return torch.stack(axes, dim=-1)
