"""Moves a probe's batches through the module's transfer hooks, as the trainer does, with their masks."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from torch_bgdebias.batch import BatchSpec
from torch_bgdebias.checks import describe
from torch_bgdebias.lightning import LightningModule, Trainer, is_written
from torch_bgdebias.moved_pixels import more_than_pointwise
from torch_bgdebias.probe.passes.loading import Share

__all__ = ["BatchMove"]

_HOOKS = ("on_before_batch_transfer", "transfer_batch_to_device", "on_after_batch_transfer")
#: batches that are checked: several, since random flips leave some as they are
_CHECKED_BATCHES = 4
#: the share of the masks' variance that a change of single pixels may leave unexplained: noise, blur and resampling
#: stay below it, flips and crops are above
_TOLERANCE = 0.2


class BatchMove:
    """One batch through change of precision, hooks and transfer.

    The batches of a probe's own loader hold masks of which hooks may know nothing (``x, y = batch``): where a hook
    raises on them or drops them, masks are taken out before the hooks and put back after. Hooks that move pixels would
    leave such masks behind, so the first batches are sent a second time with the masks in the images' place: what comes
    out has to fit the masks.

    Args:
        trainer: whose transfer it is.
        module: whose hooks.
        spec: where image and mask are.
        index: of the loader, for the hooks.
        own: whether the batches come from the probe's own loader.

    Attributes:
        problem: what is wrong with the transfer hooks, as text; empty where nothing was noticed.
    """

    def __init__(
        self, trainer: Trainer, module: LightningModule, spec: BatchSpec, *, index: int = 0, own_loader: bool = False
    ) -> None:
        self._trainer, self._module, self._spec, self._index, self._own = trainer, module, spec, index, own_loader
        holders = [holder for holder in (module, trainer.datamodule) if holder is not None]  # type: ignore[union-attr]
        self._hooked = any(is_written(holder, name) for holder in holders for name in _HOOKS)
        self._past_hooks = own_loader and spec.hide_mask
        self._checks_left = _CHECKED_BATCHES if self._hooked else 0
        self.problem = ""

    def peek(self, share: Share) -> None:
        """Look at a first batch where there are hooks to look at, before anything is measured."""
        if self._checks_left:
            next(iter(share), None)  # a batch that is loaded goes through __call__, which looks

    def __call__(self, batch: Any) -> Any:
        """The batch as the module's step would get it."""
        batch = self._trainer.precision_plugin.convert_input(batch)
        moved = self._transferred(batch)
        if not (image := self._spec.image_of(moved)).is_floating_point():
            raise TypeError(
                f"image: expected a floating point tensor, got {describe(image)}; where the step converts it, pass "
                "BatchSpec(image=lambda batch: batch[0] / 255), or the images' other place; where the module's "
                "forward does, preprocess=lambda image: image * 255 too"
            )
        if self._checks_left and not self.problem:
            self._checks_left -= 1
            self._look(batch)
        return moved

    def _transferred(self, batch: Any) -> Any:
        if self._past_hooks:
            return self._without_mask(batch)
        running = self._module._current_fx_name
        try:
            moved = self._by_hooks(batch)
            if self._own and self._hooked:
                self._spec.mask_of(moved)
        except Exception as error:
            if not (self._own and self._hooked):
                raise
            self._module._current_fx_name = running  # what Lightning notes around a hook, and leaves when it fails
            try:
                moved = self._without_mask(batch)
                self._spec.mask_of(moved)
            except Exception:
                raise error from None
            self._past_hooks = True
        return moved

    def _by_hooks(self, batch: Any) -> Any:
        batch = self._module._on_before_batch_transfer(batch, dataloader_idx=self._index)
        return self._trainer.strategy.batch_to_device(batch, dataloader_idx=self._index)

    def _without_mask(self, batch: Any) -> Any:
        batch, hidden = self._spec.without_mask(batch)
        device = self._module.device
        moved = {name: value.to(device) if isinstance(value, Tensor) else value for name, value in hidden.items()}
        return self._spec.with_mask(self._by_hooks(batch), moved)

    def _look(self, batch: Any) -> None:
        try:
            image = self._spec.image_of(batch)
            mask = _with_channel(self._spec.mask_of(batch), image)
            mask_as_image = self._spec.replace(batch, image=_as_picture(mask, image))
        except (KeyError, TypeError):  # hooks that make this layout of another one
            return
        moved = self._transferred(mask_as_image)
        picture = self._spec.image_of(moved)
        mask = _with_channel(self._spec.mask_of(moved), picture).float()
        # a mask that is all object, or all background, looks the same wherever it is moved
        with_both = (mask.flatten(1).amax(1) > mask.flatten(1).amin(1)) if len(mask) == len(picture) else slice(None)
        if picture.shape[2:] != mask.shape[2:]:
            sizes = " and ".join(f"{tuple(x.shape[2:])}" for x in (picture, mask))
            self.problem = f"images and masks leave its transfer hooks in different sizes, {sizes}"
        elif bool(more_than_pointwise(picture[with_both], mask[with_both], tolerance=_TOLERANCE)):
            self.problem = "its transfer hooks move the images (a flip, a crop?) and leave their masks where they were"


def _with_channel(mask: Tensor, image: Tensor) -> Tensor:
    return mask[:, None] if mask.ndim == image.ndim - 1 else mask


def _as_picture(mask: Tensor, image: Tensor) -> Tensor:
    """The masks (B, 1, H, W) as images of the batch's kind."""
    picture = mask.float().expand(-1, image.shape[1], *mask.shape[2:])
    largest = 1 if image.is_floating_point() or image.dtype == torch.bool else 255
    return (picture / picture.amax().clamp_min(1) * largest).to(image.dtype)
