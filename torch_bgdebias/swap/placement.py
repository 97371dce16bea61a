"""Places an object on its new background: shifted, rescaled and mirrored together with its mask."""

from __future__ import annotations

import dataclasses
import math

import torch
import torch.nn.functional as F
from torch import Tensor

from torch_bgdebias.checks import check_image, check_mask, check_share, describe
from torch_bgdebias.compositing import bounding_boxes
from torch_bgdebias.precision import working_dtype

__all__ = ["Placement", "check_placement", "moved_object", "place_object", "sample_placement"]

#: why there is no placement in volumes
NOT_MOVED = (
    "expected images (B, C, H, W), whose objects can be moved; those of volumes (B, C, D, H, W) stay where they are, "
    "pass placement=None"
)


def _two_numbers(scale: object) -> tuple[float, float]:
    pair = scale if isinstance(scale, tuple | list) else ()
    if len(pair) != 2 or any(isinstance(value, bool) or not isinstance(value, int | float) for value in pair):
        received = repr(scale) if isinstance(scale, int | float | str | tuple | list) else describe(scale)
        raise ValueError(f"scale: expected two positive numbers such as (0.7, 1.3), got {received}")
    return float(pair[0]), float(pair[1])


@dataclasses.dataclass(frozen=True)
class Placement:
    """How far an object may be shifted and rescaled on its new background; by default it stays as it is.

    What the picture's border cuts off an object stays cut off: away from there it ends in a straight edge.

    Args:
        move: share of the free way to the image's borders that it may go, 0 to 1; with 1 its box comes anywhere where
            it fits.
        scale: smallest and largest factor of its size, drawn uniformly.
        mirror: probability that it is flipped left to right.

    Raises:
        ValueError: a share outside [0, 1], a scale that is not positive, finite and in order.

    Source: ForAug, arXiv 2503.09399, recombines objects and backgrounds with another place and size.
    """

    move: float = 0.0
    scale: tuple[float, float] = (1.0, 1.0)
    mirror: float = 0.0

    def __post_init__(self) -> None:
        check_share(self.move, name="move")
        check_share(self.mirror, name="mirror", kind="a probability")
        least, most = _two_numbers(self.scale)
        if not 0 < least <= most < math.inf:
            raise ValueError(f"scale: expected two positive numbers, the smaller one first, got {self.scale!r}")


def sample_placement(
    batch: int, placement: Placement, *, device: torch.device | None = None, generator: torch.Generator | None = None
) -> Tensor:
    """Draw (B, 4) float32: scale, shift along y and x in [-1, 1] (1: to the far border), and -1 or 1 (mirrored)."""
    uniform = torch.rand(batch, 4, device=device, dtype=torch.float32, generator=generator)
    low, high = placement.scale
    return torch.stack(
        [
            low + (high - low) * uniform[:, 0],
            placement.move * (2 * uniform[:, 1] - 1),
            placement.move * (2 * uniform[:, 2] - 1),
            1 - 2 * (uniform[:, 3] < placement.mirror).float(),
        ],
        dim=1,
    )


def place_object(image: Tensor, mask: Tensor, placement: Tensor) -> tuple[Tensor, Tensor]:
    """The image and its mask with the object shifted, rescaled and mirrored; pixels beside it have no meaning.

    The object's box stays inside the image where it fits, and in its middle where it does not. Interpolation is
    bilinear.

    Args:
        image: (B, C, H, W) float.
        mask: (B, 1, H, W) or (B, H, W), bool or float in [0, 1].
        placement: (B, 4) as from `sample_placement`.

    Returns:
        (B, C, H, W) and (B, 1, H, W) in the image's dtype, differentiable to image and mask.

    Raises:
        TypeError, ValueError: tensors of another kind or size, a mask outside [0, 1].
    """
    mask = check_mask(mask, check_image(image))
    return moved_object(image, mask, check_placement(placement, len(image), name="placement"))


def check_placement(placement: Tensor, batch: int, *, name: str) -> Tensor:
    """Require what `sample_placement` gives for so many images."""
    if not isinstance(placement, Tensor) or placement.shape != (batch, 4) or not placement.is_floating_point():
        raise ValueError(f"{name}: expected float ({batch}, 4), got {describe(placement)}")
    return placement


def moved_object(image: Tensor, mask: Tensor, placement: Tensor) -> tuple[Tensor, Tensor]:
    """As `place_object`, of tensors that were inspected."""
    if len(image) == 0:
        return image, mask
    box = bounding_boxes(mask.detach()).float()
    low, high = box[:, :2], box[:, 2:]  # (y, x) of the first pixel and past the last
    size = torch.tensor(mask.shape[2:], device=mask.device, dtype=torch.float32)
    factor, move, mirror = placement[:, :1].float(), placement[:, 1:3].float(), placement[:, 3].float()
    center = (low + high) / 2
    half = factor * (high - low) / 2
    nearest = torch.minimum(half, size / 2)  # a box that does not fit goes to the middle
    new_center = torch.where(half > size / 2, size / 2, torch.minimum(torch.maximum(center, nearest), size - nearest))
    free = torch.where(move > 0, size - nearest - new_center, new_center - nearest).clamp(min=0)
    new_center = new_center + move * free
    # affine_grid wants, for every pixel of the output, where in the input it lies, in [-1, 1] from border to border
    slope = torch.stack([mirror, torch.ones_like(mirror)], 1) / factor  # x, y
    shift = (2 * center / size - 1).flip(1) - slope * (2 * new_center / size - 1).flip(1)
    matrix = torch.zeros(len(mask), 2, 3, device=mask.device, dtype=torch.float32)
    matrix[:, 0, 0], matrix[:, 1, 1], matrix[:, :, 2] = slope[:, 0], slope[:, 1], shift
    dtype = working_dtype(image.dtype)
    grid = F.affine_grid(matrix.to(dtype), list(mask.shape), align_corners=False)
    moved_image = F.grid_sample(image.to(dtype), grid, padding_mode="border", align_corners=False).to(image.dtype)
    moved_mask = F.grid_sample(mask.to(dtype), grid, align_corners=False).to(mask.dtype)
    return moved_image, moved_mask.clamp(0, 1)
