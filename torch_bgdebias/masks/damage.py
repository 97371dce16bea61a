"""Masks damaged on purpose (grown, shrunk, shifted, boxed, exchanged), to test how sensitive figures are to them."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor
from torch.nn.functional import max_pool2d

from torch_bgdebias.checks import check_share
from torch_bgdebias.compositing import bounding_boxes, box_mask
from torch_bgdebias.masks.making.protocol import Hints, MaskMaker, checked_masks

__all__ = ["Boxed", "Damage", "Exchanged", "Grown", "Made", "Moved", "Shrunk", "default_damages", "overlap"]


class Damage(Protocol):
    """Changes masks.

    Attributes:
        name: how it is called in tables.
    """

    @property
    def name(self) -> str:
        """How it is called in tables."""
        ...

    def __call__(self, image: Tensor, mask: Tensor, generator: torch.Generator) -> Tensor:
        """Other masks (B, 1, H, W) in [0, 1] for images (B, 3, H, W) in [0, 1] and their masks, on the CPU."""
        ...


@dataclasses.dataclass(frozen=True)
class _Edge:
    """A band along the masks' edges, as a share of the image's shorter side.

    Raises:
        ValueError: no share.
    """

    share: float

    def __post_init__(self) -> None:
        check_share(self.share, name="share", kind="a share")

    def radius(self, mask: Tensor) -> int:
        """In pixels, at least 1."""
        return max(1, round(self.share * min(mask.shape[2:])))


class Grown(_Edge):
    """Masks that take in a band of the background around the object."""

    @property
    def name(self) -> str:
        """How it is called in tables."""
        return f"grown by {100 * self.share:g} %"

    def __call__(self, image: Tensor, mask: Tensor, generator: torch.Generator) -> Tensor:
        """The largest value around each pixel."""
        radius = self.radius(mask)
        return max_pool2d(mask, 2 * radius + 1, stride=1, padding=radius)


class Shrunk(_Edge):
    """Masks that leave a band of the object to the background; the picture's own border takes nothing away."""

    @property
    def name(self) -> str:
        """How it is called in tables."""
        return f"shrunk by {100 * self.share:g} %"

    def __call__(self, image: Tensor, mask: Tensor, generator: torch.Generator) -> Tensor:
        """The smallest value around each pixel."""
        radius = self.radius(mask)
        return -max_pool2d(-mask, 2 * radius + 1, stride=1, padding=radius)


class Moved(_Edge):
    """Masks that lie beside the object, each in a direction of its own."""

    @property
    def name(self) -> str:
        """How it is called in tables."""
        return f"moved by {100 * self.share:g} %"

    def __call__(self, image: Tensor, mask: Tensor, generator: torch.Generator) -> Tensor:
        """Each mask shifted, 0 where it came from."""
        angles = (torch.rand(len(mask), generator=generator) * 2 * math.pi).tolist()
        shifted = torch.zeros_like(mask)
        for index, angle in enumerate(angles):
            dy, dx = (round(self.radius(mask) * side) for side in (math.sin(angle), math.cos(angle)))
            rows, columns = (slice(max(0, step), size + min(0, step)) for step, size in _steps(mask, dy, dx))
            from_rows, from_columns = (slice(max(0, -s), size + min(0, -s)) for s, size in _steps(mask, dy, dx))
            shifted[index, :, rows, columns] = mask[index, :, from_rows, from_columns]
        return shifted


@dataclasses.dataclass(frozen=True)
class Boxed:
    """Masks' own boxes in their place: what annotators draw first."""

    name: str = "boxes"

    def __call__(self, image: Tensor, mask: Tensor, generator: torch.Generator) -> Tensor:
        """Each mask's bounding box, filled; an empty mask where there is no object."""
        height, width = mask.shape[2:]
        return box_mask(bounding_boxes(mask), (height, width)).to(mask.dtype)


@dataclasses.dataclass(frozen=True)
class Exchanged:
    """A share of the masks replaced by another image's: what a list that slipped does.

    Raises:
        ValueError: no share.
    """

    share: float

    def __post_init__(self) -> None:
        check_share(self.share, name="share", kind="a share")

    @property
    def name(self) -> str:
        """How it is called in tables."""
        return f"{100 * self.share:g} % of another image"

    def __call__(self, image: Tensor, mask: Tensor, generator: torch.Generator) -> Tensor:
        """Masks of the image before in the batch; of a single one its own, turned round."""
        exchanged = torch.rand(len(mask), generator=generator) < self.share
        other_masks = mask.roll(1, 0) if len(mask) > 1 else mask.flip(2, 3)
        return torch.where(exchanged[:, None, None, None], other_masks, mask)


class Made:
    """Masks by a maker (`torch_bgdebias.masks.mask_maker`), which does not get the given ones."""

    def __init__(self, maker: MaskMaker) -> None:
        if maker.needs:
            raise ValueError(
                f"maker: expected one that needs no hints, got {maker.name}, which needs {set(maker.needs)}"
            )
        self.maker = maker

    @property
    def name(self) -> str:
        """How it is called in tables."""
        return f"by {self.maker.name}"

    def __call__(self, image: Tensor, mask: Tensor, generator: torch.Generator) -> Tensor:
        """The masks that the maker makes of the images."""
        made_masks = checked_masks(self.maker(image, Hints.none(len(image))), image, self.maker.name)
        return made_masks.mask[:, None].to(mask.dtype)


def default_damages() -> Sequence[Damage]:
    """From hardly to badly wrong, of every kind."""
    edges = (0.02, 0.05, 0.1)
    return (
        *(Grown(share) for share in edges),
        *(Shrunk(share) for share in edges),
        *(Moved(share) for share in (0.05, 0.1, 0.2)),
        Boxed(),
        *(Exchanged(share) for share in (0.1, 0.25, 0.5)),
    )


def overlap(mask: Tensor, other: Tensor) -> Tensor:
    """Intersection over union (B,) of masks (B, 1, H, W), cut at 1/2; 1 where both are empty."""
    a, b = (part.flatten(1) > 0.5 for part in (mask, other))
    union = (a | b).sum(1)
    return torch.where(union > 0, (a & b).sum(1) / union.clamp(min=1), torch.ones(len(mask)))


def _steps(mask: Tensor, dy: int, dx: int) -> tuple[tuple[int, int], tuple[int, int]]:
    height, width = mask.shape[2:]
    return (max(-height, min(height, dy)), height), (max(-width, min(width, dx)), width)
