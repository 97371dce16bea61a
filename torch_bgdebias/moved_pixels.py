"""Whether what enters a network are a batch's images: changed by more than a normalisation, or several views."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from torch_bgdebias.first_batches import FirstBatches

__all__ = ["ChangeWatch", "Views", "more_than_pointwise", "same_images", "views_of"]

#: which rows of the entering images are the batch's own, a slice that keeps their order
Views = slice


def same_images(model_input: Tensor, image: Tensor) -> bool:
    """Whether both are one tensor, which costs nothing to see."""
    return model_input is image or (
        model_input.data_ptr() == image.data_ptr()
        and model_input.shape == image.shape
        and model_input.stride() == image.stride()
        and model_input.dtype == image.dtype
    )


def more_than_pointwise(after: Tensor, before: Tensor, *, pixels: int = 4096, tolerance: float = 1e-3) -> Tensor:
    """Whether images were changed by more than a normalisation: flips, crops and mixes move what masks belong to.

    In each image, the new channels are fitted by an affine function of the old ones, the same for all pixels:
    normalisation, brightness, contrast and grey conversion leave nothing over.

    Args:
        after: (B, C', H, W).
        before: (B, C, H, W), of the same batch and size.
        pixels: about so many are looked at.
        tolerance: share of the new channels' variance that may be left over.

    Returns:
        Tensor: a bool scalar on the images' device, which has not been waited for.
    """
    step = max(1, math.prod(after.shape[2:]) // pixels)
    old, new = (x.detach().flatten(2)[:, :, ::step].double().transpose(1, 2) for x in (before, after))
    old, new = old - old.mean(1, keepdim=True), new - new.mean(1, keepdim=True)
    gram = old.transpose(1, 2) @ old
    ridge = 1e-9 * gram.diagonal(dim1=1, dim2=2).sum(1) + 1e-12
    gram = gram + ridge.view(-1, 1, 1) * torch.eye(old.shape[2], dtype=old.dtype, device=old.device)
    weights = torch.linalg.inv_ex(gram)[0] @ (old.transpose(1, 2) @ new)
    left_over = (new - old @ weights).square().sum((1, 2))
    changed: Tensor = (left_over > tolerance * new.square().sum((1, 2)) + 1e-12).any()
    return changed


def views_of(model_input: Tensor, image: Tensor) -> Views | None:
    """Which rows of a larger batch are the batch's own images, ``None`` where none are.

    Several views of each image come one after the other (``torch.cat``) or side by side (``repeat_interleave``); they
    may be normalised. Waits for the device; call it once.

    Args:
        model_input: (k B, C, H, W).
        image: (B, C, H, W).
    """
    batch = len(image)
    if len(model_input) % batch or model_input.shape[1:] != image.shape[1:]:
        return None
    count = len(model_input) // batch
    orders = [slice(i * batch, (i + 1) * batch) for i in range(count)] + [slice(i, None, count) for i in range(count)]
    matching = (
        rows for rows in orders if torch.equal(model_input[rows].detach(), image.detach().to(model_input.dtype))
    )
    normalised = (rows for rows in orders if _is_normalised(model_input[rows], image))
    return next(matching, None) or next(normalised, None)


def _is_normalised(view: Tensor, image: Tensor) -> bool:
    """Whether a view shows the images in other units; what shows one colour shows nothing of them."""
    shows = bool((view.detach().flatten(1).float().var(1) > 0).all())
    return shows and not bool(more_than_pointwise(view, image))


class ChangeWatch(FirstBatches):
    """Warns, once, where images were changed by more than a normalisation before they entered a network."""

    def before(self, image: Tensor) -> Tensor:
        """The batch's images as they are before a step, which may work in place: copies, while a step is looked at."""
        return image if self.enough else image.detach().clone()

    def look_at(self, model_input: Tensor, image: Tensor) -> None:
        """Compare what entered (B, C, H, W) with the batch's images of the same size, in a fit's first steps.

        Args:
            model_input: what entered.
            image: from `before`.
        """
        if self.enough:
            return
        self._looks += 1
        if not same_images(model_input, image):
            self._note(more_than_pointwise(model_input, image))
