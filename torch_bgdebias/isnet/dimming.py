"""Dimmed backgrounds: they make low background relevance imply that the background does not matter.

Relevance, as any gradient at the image itself, is blind to whatever the image has switched off. A unit that is on by
default and that a mark switches off is such a thing: with the mark there no gradient passes the unit, relevance on the
mark is zero, and still the mark decides. Training finds this hole (docs/isnet.md has the figures).

Let x(k) be the image whose background was scaled by k. For input x gradient (LRP-Flex with epsilon 0 on ReLU networks)
the relevance R of the explained score s obeys d s(x(k)) / d k = (1 / k) * sum of R(x(k)) over the background, so

    s(x(1)) - s(x(0)) = integral over k in [0, 1] of (1 / k) * sum over the background of R(x(k)):

relevance that vanishes for every k leaves the score as it is without any background. Drawing k anew for each image and
step trains on the whole path, at no cost: the dimmed image takes the place of the original in the same training step.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from torch_bgdebias.checks import check_image, check_mask, check_share, describe

__all__ = ["BackgroundDimming", "dim_background", "draw_keep"]


def draw_keep(
    batch: int, p: float = 1.0, *, generator: torch.Generator | None = None, device: torch.device | str | None = None
) -> Tensor:
    """The factor of each image's background, (B,): uniform in [0, 1) with probability ``p``, else 1.

    Raises:
        ValueError: p outside [0, 1].
    """
    check_share(p, name="p")
    dimmed = torch.rand(batch, generator=generator, device=device) < p
    return torch.where(dimmed, torch.rand(batch, generator=generator, device=device), 1.0)


def dim_background(image: Tensor, mask: Tensor, keep: Tensor) -> Tensor:
    """Scale the background towards 0 in the model's own units, where it has no relevance.

    Args:
        image: (B, C, H, W) or (B, C, D, H, W) as the model takes it. 0 is black for images in [0, 1] and the mean
            colour for normalised ones, which is better where backgrounds are bright: batch norm's statistics then
            hardly move.
        mask: (B, 1, H, W) or (B, H, W) in [0, 1], 1 = foreground; soft masks blend.
        keep: (B,) in [0, 1], the share of the background's values that stays; see `draw_keep`.

    Returns:
        Tensor: of the image's shape, ``image * (mask + (1 - mask) * keep)``.

    Raises:
        TypeError, ValueError: wrong shapes or dtypes, a mask outside [0, 1].
    """
    check_image(image, volumes=True)
    mask = check_mask(mask, image)
    if keep.shape != image.shape[:1]:
        raise ValueError(f"keep: expected shape ({len(image)},), got {describe(keep)}")
    keep = keep.to(image).view(-1, *[1] * (image.ndim - 1))
    return image * (mask + (1 - mask) * keep)


class BackgroundDimming(nn.Module):
    """Dim the background of each training image by a random amount; in evaluation mode images pass unchanged.

    Args:
        p: share of the images that are dimmed, in [0, 1].

    Shape:
        image (B, C, H, W), mask (B, 1, H, W) -> (B, C, H, W); volumes with a depth before the height.

    Example:
        >>> import torch
        >>> image, mask = torch.ones(2, 3, 4, 4), torch.zeros(2, 1, 4, 4)
        >>> mask[:, :, 1:3, 1:3] = 1
        >>> dimmed = BackgroundDimming()(image, mask)
        >>> bool((dimmed[:, :, 1:3, 1:3] == 1).all()), bool((dimmed[:, :, 0] < 1).all())
        (True, True)
    """

    def __init__(self, p: float = 1.0) -> None:
        super().__init__()
        check_share(p, name="p")
        self.p = p

    def forward(
        self, image: Tensor, mask: Tensor, *, keep: Tensor | None = None, generator: torch.Generator | None = None
    ) -> Tensor:
        """The images with their backgrounds dimmed; ``keep`` (B,) replays a draw."""
        if not self.training and keep is None:
            return image
        if keep is None:
            keep = draw_keep(len(check_image(image, volumes=True)), self.p, generator=generator, device=image.device)
        return dim_background(image, mask, keep)

    def extra_repr(self) -> str:
        """The share of images, for ``print``."""
        return f"p={self.p}"
