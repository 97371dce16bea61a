"""Observes what a module's batch-transfer hooks do to images and masks, in a few training batches."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from lightning_utilities.core.rank_zero import rank_zero_warn
from torch import Tensor

from torch_bgdebias.batch import BatchSpec
from torch_bgdebias.checks import values_readable
from torch_bgdebias.first_batches import FirstBatches
from torch_bgdebias.lightning.hiding import is_written
from torch_bgdebias.lightning.packages import LightningModule, Trainer
from torch_bgdebias.lightning.step import StepCall, wrap_method
from torch_bgdebias.moved_pixels import more_than_pointwise, same_images

__all__ = ["TransferWatch"]

_HOOKS = ("on_before_batch_transfer", "on_after_batch_transfer")


class TransferWatch(FirstBatches):
    """Warns, once, of hooks that change images by more than a normalisation and leave their masks as they are.

    Args:
        spec: where image and mask are in a batch; batches that are something else are passed over.
        consequence: what a callback then does, for the warning.
    """

    def __init__(self, spec: BatchSpec, consequence: str) -> None:
        message = (
            "the batch-transfer hooks (on_before_batch_transfer, on_after_batch_transfer) change the images that "
            "training_step gets by more than a normalisation, and leave their masks as they are: "
            f"{consequence}. To mend it, let the hook move image and mask together"
        )
        super().__init__(functools.partial(rank_zero_warn, message))
        self._spec = spec
        self._restores: list[Callable[[], None]] = []

    def watch(self, trainer: Trainer, module: LightningModule) -> None:
        """Wrap the overridden hooks of the module and of its data module."""
        for holder in (module, trainer.datamodule):  # type: ignore[union-attr]
            for name in _HOOKS:
                if holder is not None and is_written(holder, name):
                    self._restores.append(wrap_method(holder, name, self, self._around, trainer=trainer))

    def leave(self) -> None:
        """Put the hooks back; calling it twice is harmless."""
        while self._restores:
            self._restores.pop()()

    def _around(self, call: StepCall) -> Any:
        before = self._image_and_mask(call.batch)
        copies = None if before is None else [x.detach().clone() for x in before]  # hooks may work in place
        transferred = call.run()
        after = self._image_and_mask(transferred)
        if copies is not None and after is not None and _unchanged(copies[1], after[1]):
            self._look(copies[0], after[0])
        return transferred

    def _look(self, before: Tensor, after: Tensor) -> None:
        self._looks += 1
        if before.shape != after.shape:
            self._note(torch.tensor(True))
        elif not same_images(after, before) and before.device == after.device:
            self._note(more_than_pointwise(after, before))
        if self.enough:
            self.leave()

    def _image_and_mask(self, batch: Any) -> tuple[Tensor, Tensor] | None:
        try:
            image, mask = self._spec.image_of(batch), self._spec.mask_of(batch)
        except (KeyError, TypeError):
            return None
        return (image, mask) if image.is_floating_point() and image.ndim in (4, 5) else None


def _unchanged(before: Tensor, after: Tensor) -> bool:
    """Whether masks are as they were; where looking is not free, only their shape and place tell."""
    if before.shape != after.shape or before.device != after.device:
        return False
    return not values_readable(after) or torch.equal(before, after.detach().to(before.dtype))
