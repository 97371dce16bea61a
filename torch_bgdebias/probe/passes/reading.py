"""A batch, checked: images, labels, masks, what the images are known by, and variants that it may bring along."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from torch_bgdebias.checks import check_image, check_label, check_mask, describe
from torch_bgdebias.probe.passes.identity import fingerprints, ids_of_names
from torch_bgdebias.probe.passes.settings import EvaluationSettings

__all__ = ["LabelledImages", "VariantImages", "read_batch", "ready_variants"]


class LabelledImages(NamedTuple):
    """Images (B, C, H, W), labels (B,), masks (B, 1, H, W), what the images are known by (B,), and void if any."""

    image: Tensor
    label: Tensor
    mask: Tensor
    ids: NDArray[np.uint64]
    void: Tensor | None = None


class VariantImages(NamedTuple):
    """A variant of a batch: images (B, C, H, W), classes of the backgrounds (B,) or -1, and which are there (B,)."""

    image: Tensor
    background_label: Tensor
    valid: Tensor


def read_batch(
    batch: Any, counted: NDArray[np.bool_], number: int, settings: EvaluationSettings, device: torch.device
) -> LabelledImages:
    """The images of a batch that count.

    Args:
        batch: what the loader yielded.
        counted: (B,) which of its images to take.
        number: of the batch, for errors.
        settings: say where image, label, mask and ids are.
        device: where to put the tensors.

    Raises:
        KeyError: the batch lacks one of them.
        TypeError, ValueError: one of them is of another kind, shape or range.
    """
    spec = settings.spec
    image = check_image(spec.image_of(batch).to(device))
    mask = check_mask(spec.mask_of(batch).to(device), image)
    void = spec.void_of(batch)
    if void is not None:
        void = check_mask(void.to(device), image, name="void")
        mask = torch.minimum(mask, 1 - void)
    label = spec.label_of(batch).to(device)
    if settings.task == "binary" and label.shape == (len(image), 1):
        label = label[:, 0]
    if settings.task == "binary" and label.is_floating_point() and bool((label == label.round()).all()):
        label = label.long()  # binary cross-entropy wants its targets as floats
    label = check_label(label, len(image))
    if len(label) and int(label.min()) < 0:
        raise ValueError(f"label: expected classes of at least 0, got {int(label.min())} in batch {number}")
    rows = torch.from_numpy(counted)
    if not bool(counted.all()):
        image, label, mask = (x[rows.to(device)] for x in (image, label, mask))
        void = None if void is None else void[rows.to(device)]
    if settings.ids is None:
        ids = fingerprints(image, label, mask, mean=settings.mean, std=settings.std)
    else:
        ids = ids_of_names(batch[settings.ids], len(counted))[counted]
    return LabelledImages(image, label, mask, ids, void)


def ready_variants(
    batch: Any, counted: NDArray[np.bool_], image: Tensor, number: int, settings: EvaluationSettings
) -> dict[str, VariantImages] | None:
    """The variants that the batch brings along; ``None`` where they are to be made."""
    if settings.ready is None:
        return None
    given = batch[settings.ready]
    names = settings.variant_names
    if not isinstance(given, Mapping) or (lacking := [name for name in names if name not in given]):
        got = f"without {', '.join(lacking)}" if isinstance(given, Mapping) else describe(given)
        raise KeyError(f"ready: expected a dict of variants at {settings.ready!r} of batch {number}, got {got}")
    return {name: _variant_of(name, given[name], counted, image) for name in names}


def _variant_of(name: str, given: Any, counted: NDArray[np.bool_], image: Tensor) -> VariantImages:
    """One variant from a batch: images (B, C, H, W), alone or with background classes (B,) and which are there (B,)."""
    picture, *rest = given if isinstance(given, (tuple, list)) else (given,)
    check_image(picture, name=f"ready[{name!r}]")
    chosen = picture.to(image.device)[counted]
    if chosen.shape != image.shape:
        raise ValueError(f"ready[{name!r}]: expected images {tuple(image.shape)}, got {describe(chosen)}")
    everywhere = torch.ones(len(image), dtype=torch.bool, device=image.device)
    unknown = torch.full((len(image),), -1, device=image.device)
    label = rest[0].to(image.device)[counted] if rest else unknown
    valid = rest[1].to(image.device)[counted] if len(rest) > 1 else everywhere
    return VariantImages(chosen.to(image.dtype), label, valid)
