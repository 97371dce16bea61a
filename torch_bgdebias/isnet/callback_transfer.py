"""Seeing what a module's batch-transfer hooks make of images and masks, for the time of a few batches."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from torch_bgdebias.batch import BatchSpec
from torch_bgdebias.checks import values_readable

__all__ = ["watch_transfers"]

_HOOKS = ("on_before_batch_transfer", "on_after_batch_transfer")


def watch_transfers(owner: Any, spec: BatchSpec, look: Callable[[Tensor, Tensor], bool]) -> Callable[[], None]:
    """Call ``look`` with the images before and after each hook of ``owner`` that exchanges them, and not their masks.

    Args:
        owner: a LightningModule or LightningDataModule; hooks that nobody wrote are left alone.
        spec: where image and mask are in a batch; batches that are something else are passed over.
        look: returns whether to go on.

    Returns:
        Puts the hooks back; calling it twice is harmless.
    """
    restores: list[Callable[[], None]] = []

    def restore() -> None:
        while restores:
            restores.pop()()

    for name in _HOOKS:
        method = getattr(owner, name, None)
        home = getattr(method, "__module__", "") or ""
        if method is None or home.split(".")[0] in ("lightning", "pytorch_lightning"):
            continue
        restores.append(_exchange(owner, name, _watched(method, spec, look, restore)))
    return restore


def _watched(
    method: Callable[..., Any], spec: BatchSpec, look: Callable[[Tensor, Tensor], bool], done: Callable[[], None]
) -> Callable[..., Any]:
    @functools.wraps(method)  # Lightning reads from it whether the hook is the user's
    def watched(batch: Any, *args: Any, **kwargs: Any) -> Any:
        before = _image_and_mask(batch, spec)
        copies = None if before is None else [x.detach().clone() for x in before]  # hooks may work in place
        changed = method(batch, *args, **kwargs)
        after = _image_and_mask(changed, spec)
        if copies is None or after is None or not _unchanged(copies[1], after[1]):
            return changed
        if not look(copies[0], after[0]):
            done()
        return changed

    return watched


def _image_and_mask(batch: Any, spec: BatchSpec) -> tuple[Tensor, Tensor] | None:
    try:
        image, mask = spec.image_of(batch), spec.mask_of(batch)
    except (KeyError, TypeError):
        return None
    return (image, mask) if image.is_floating_point() and image.ndim == 4 else None


def _unchanged(before: Tensor, after: Tensor) -> bool:
    """Whether masks are as they were; where looking is not free, only their shape and place tell."""
    if before.shape != after.shape or before.device != after.device:
        return False
    return not values_readable(after) or torch.equal(before, after.detach().to(before.dtype))


def _exchange(owner: Any, name: str, method: Callable[..., Any]) -> Callable[[], None]:
    own = vars(owner).get(name)
    setattr(owner, name, method)

    def restore() -> None:
        if own is None:
            delattr(owner, name)
        else:
            setattr(owner, name, own)

    return restore
