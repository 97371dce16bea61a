"""Seeing by the targets of a fit's first batches that the loader has mixed images, so that masks show one of two."""

from __future__ import annotations

from typing import Any

import torch
from lightning_utilities.core.rank_zero import rank_zero_warn
from torch import Tensor

from torch_bgdebias.batch import BatchSpec
from torch_bgdebias.checks import values_readable

__all__ = ["MixWatch", "are_mixed"]

#: mixing is drawn anew for every batch, and leaves some as they are
_LOOKED_AT = 8
#: votes of so many readers are no mixtures
_READERS = 12
#: share of a mask's pixels that are neither object nor background where masks were mixed along with their images
_BETWEEN = 0.01


class MixWatch:
    """Warns, once, of batches whose images are mixtures of two and whose masks are not (mixup, cutmix in the loader).

    Args:
        spec: where label and mask are in a batch; batches that are something else are passed over.
        consequence: what a callback then does, for the warning.
    """

    def __init__(self, spec: BatchSpec, consequence: str) -> None:
        self._spec, self._consequence = spec, consequence
        self._looks, self._warned = 0, False
        self._flags: list[Tensor] = []

    def look_at(self, batch: Any) -> None:
        """Look at a batch, in a fit's first steps; where looking is not free the answer waits for `say`."""
        if self._looks >= _LOOKED_AT or self._warned or self._spec.label is None:
            return
        self._looks += 1
        try:
            label, mask = self._spec.label_of(batch), self._spec.mask_of(batch)
        except (KeyError, TypeError):
            return
        if not label.is_floating_point() or not label.numel() or label.ndim > 2:
            return
        if label.numel() == len(label):  # shares of class 1
            label = torch.stack([1 - label.reshape(-1), label.reshape(-1)], 1)
        self._flags.append(are_mixed(label.detach()) & ~_has_shades(mask.detach()))
        if values_readable(label):
            self.say()

    def say(self) -> None:
        """Warn if images seem to be mixed; waits for the device where they are on one."""
        mixed, self._flags = any(bool(flag) for flag in self._flags), []
        if mixed and not self._warned:
            self._warned = True
            rank_zero_warn(
                "the batches' targets are drawn shares of two classes, as mixup and cutmix in the loader make them, "
                f"and masks show the object of one image: {self._consequence}. To mend it, mix the masks in the same "
                "way (with the images' permutation and share), or leave mixing out"
            )


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


def _has_shades(mask: Tensor) -> Tensor:
    """Whether masks are soft over more than their edges."""
    value = mask.double() / mask.amax().clamp_min(1)
    return ((value > 0.02) & (value < 0.98)).double().mean() > _BETWEEN
