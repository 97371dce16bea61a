"""Seeing by the targets of a fit's first batches that the loader has mixed images, so that masks show one of two."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from lightning_utilities.core.rank_zero import rank_zero_warn
from torch import Tensor
from torch.utils._pytree import tree_leaves

from torch_bgdebias.batch import BatchSpec, MaskedBatch
from torch_bgdebias.first_batches import FirstBatches

__all__ = ["MixWatch", "are_mixed", "has_pairs"]

#: votes of so many readers are no mixtures
_READERS = 12
#: share of a mask's pixels that are neither object nor background where masks were mixed along with their images
_BETWEEN = 0.01
#: so many whole numbers an image are compared with one another
_CLASSES = 4


class MixWatch(FirstBatches):
    """Warns, once, of batches whose images are mixtures of two and whose masks are not (mixup, cutmix in the loader).

    Args:
        spec: where label and mask are in a batch; batches that are something else are passed over.
        consequence: what a callback then does, for the warning.
    """

    def __init__(self, spec: BatchSpec, consequence: str) -> None:
        message = (
            "the batches' targets are drawn shares of two classes, as mixup and cutmix in the loader make them "
            "(shares of all classes, or two classes and a share), and masks show the object of one image: "
            f"{consequence}. To mend it, mix the masks in the same way (with the images' permutation and share), or "
            "leave mixing out"
        )
        super().__init__(functools.partial(rank_zero_warn, message))
        self._spec = spec

    def look_at(self, batch: Any) -> None:
        """Look at a batch, in a fit's first steps; where looking is not free the answer waits for `say`."""
        if self.enough or self._spec.label is None:
            return
        self._looks += 1
        try:
            mask = self._spec.mask_of(batch).detach()
        except (KeyError, TypeError):
            return
        mixed = self._has_mixed_targets(batch)
        if mixed is None:
            mixed = has_pairs(_parts_of(batch), len(mask), apart=self._background_label(batch))
        if mixed is None:
            return
        self._note(mixed & ~_has_shades(mask).to(mixed.device))

    def _has_mixed_targets(self, batch: Any) -> Tensor | None:
        """Whether the labels are drawn shares of classes; ``None`` where they are no shares."""
        try:
            label = self._spec.label_of(batch)
        except (KeyError, TypeError):
            return None
        if not label.is_floating_point() or not label.numel() or label.ndim > 2:
            return None
        if label.numel() == len(label):  # shares of class 1
            label = torch.stack([1 - label.reshape(-1), label.reshape(-1)], 1)
        return are_mixed(label.detach())

    def _background_label(self, batch: Any) -> Tensor | None:
        try:
            return self._spec.background_label_of(batch)
        except (KeyError, TypeError):
            return None


def are_mixed(target: Tensor) -> Tensor:
    """Whether some targets (B, K) are shares of two classes that were drawn, a bool scalar on their device.

    Smoothed labels, sets of labels and votes of several readers are not.
    """
    share, classes = target.double(), target.shape[1]
    are_shares = (share >= 0).all(1) & ((share.sum(1) - 1).abs() < 1e-3)
    if classes > 2:  # the least is what smoothing adds to all
        least = share.amin(1, keepdim=True)
        share = (share - least) / (1 - classes * least).clamp_min(1e-6)
    first, second = share.topk(2, 1).values.unbind(1)
    readers = torch.arange(1, _READERS + 1, device=target.device, dtype=share.dtype)
    votes = second[:, None] * readers
    drawn = (second > 1e-2) & ((votes - votes.round()).abs() > 1e-4).all(1)
    mixed: Tensor = (are_shares & drawn & ((first + second - 1).abs() < 1e-3)).any()
    return mixed if classes > 2 else mixed & (first.amax() - first.amin() > 1e-3)  # smoothing is the same in all rows


def has_pairs(parts: Sequence[Any], size: int, *, apart: Tensor | None = None) -> Tensor | None:
    """Whether a batch holds (y_a, y_b, share): classes, the same in another order, and one share for all images.

    Args:
        parts: of a batch.
        size: B, its images.
        apart: (B,) classes that are no second ones: those of the backgrounds.

    Returns:
        Tensor | None: a bool scalar on their device; ``None`` where the batch has nothing of that shape.
    """
    tensors = [part.detach() for part in parts if isinstance(part, Tensor) and part is not apart]
    counts = (torch.uint8, torch.int16, torch.int32, torch.int64)
    classes = [x for x in tensors if x.shape == (size,) and x.dtype in counts][:_CLASSES]
    shares = [x for x in tensors if x.is_floating_point() and x.numel() in (1, size) and x.ndim < 2]
    are_shares = [(x > 0).all() & (x < 1).all() & (x == x.reshape(-1)[0]).all() for x in shares if x.numel()]
    is_share = any(isinstance(part, float) and 0 < part < 1 for part in parts)
    if len(classes) < 2 or not size or not (is_share or are_shares):
        return None
    pairs = [
        (a != b).any() & (a.sort().values == b.to(a.device).sort().values).all()
        for i, a in enumerate(classes) for b in classes[i + 1 :]
    ]  # fmt: skip
    same_classes = torch.stack(pairs).any()
    return same_classes if is_share else same_classes & torch.stack(are_shares).any().to(same_classes.device)


def _parts_of(batch: Any) -> list[Any]:
    """Tensors and numbers in a batch, whatever holds them."""
    if isinstance(batch, MaskedBatch):
        batch = [batch.image, batch.label]
    return tree_leaves(dict(batch) if isinstance(batch, Mapping) else batch)


def _has_shades(mask: Tensor) -> Tensor:
    """Whether masks are soft over more than their edges."""
    value = mask.double() / mask.amax().clamp_min(1)
    return ((value > 0.02) & (value < 0.98)).double().mean() > _BETWEEN
