"""Reads and validates a batch: images, labels, masks, image ids, and variants that it may contain."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from torch_bgdebias.checks import check_finite, check_image, check_mask, describe
from torch_bgdebias.probe.passes.identity import fingerprints, ids_of_names
from torch_bgdebias.probe.passes.labels import BatchLabels, labels_of_batch
from torch_bgdebias.probe.passes.settings import EvaluationSettings

__all__ = ["LabelledImages", "VariantImages", "read_batch", "ready_variants"]


class LabelledImages(NamedTuple):
    """Images that count.

    Attributes:
        image: (B, C, H, W) or (B, C, D, H, W).
        label: (B,) int64; numbers of label sets; -1 without labels.
        mask: (B, 1, H, W) or (B, 1, D, H, W).
        ids: (B,) the images' ids.
        void: (B, 1, H, W) pixels that are neither object nor background, where the batch says.
        targets: (B, L) int8 where the labels are sets, else ``None``.
        soft: whether shares of classes were given, of which the largest is the label.
    """

    image: Tensor
    label: Tensor
    mask: Tensor
    ids: NDArray[np.uint64]
    void: Tensor | None = None
    targets: Tensor | None = None
    soft: bool = False

    @property
    def given_label(self) -> Tensor:
        """(B,) classes, or (B, L) label sets: the labels as a further score wants them."""
        return self.label if self.targets is None else self.targets


class VariantImages(NamedTuple):
    """A variant of a batch: images (B, C, H, W), classes of the backgrounds (B,) or -1, and which are there (B,)."""

    image: Tensor
    background_label: Tensor
    valid: Tensor


def read_batch(
    batch: Any,
    positions: NDArray[np.int64],
    counted: NDArray[np.bool_],
    number: int,
    settings: EvaluationSettings,
    device: torch.device,
) -> LabelledImages:
    """The images of a batch that count.

    Args:
        batch: what the loader yielded.
        positions: (B,) positions of its images in the data set.
        counted: (B,) which of them to take.
        number: of the batch, for errors.
        settings: say where image, label, mask and ids are.
        device: where to put the tensors.

    Raises:
        KeyError: the batch lacks one of them.
        TypeError, ValueError: one of them is of another kind, shape or range.
    """
    spec = settings.spec
    image = check_finite(check_image(spec.image_of(batch).to(device), volumes=True), name=f"image (batch {number})")
    raw_mask = spec.mask_of(batch)
    if raw_mask.ndim == 1:
        raise ValueError(
            f"mask: expected (B, 1, H, W), got {describe(raw_mask)}, as labels are; say where the two are in a batch: "
            "BatchSpec(label=..., mask=...)"
        )
    mask = check_mask(raw_mask.to(device), image)
    void = spec.void_of(batch)
    if void is not None:
        void = check_mask(void.to(device), image, name="void")
        mask = torch.minimum(mask, 1 - void)
    label = _labels(batch, len(image), number, settings, device)
    rows = torch.from_numpy(counted).to(device)
    if not bool(counted.all()):
        image, mask, void = image[rows], mask[rows], None if void is None else void[rows]
        label = BatchLabels(label.label[rows], None if label.targets is None else label.targets[rows], label.soft)
    ids = _ids(batch, (image, label.label, mask), positions, counted, settings)
    return LabelledImages(image, label.label, mask, ids, void, label.targets, label.soft)


def _ids(
    batch: Any,
    images: tuple[Tensor, Tensor, Tensor],
    positions: NDArray[np.int64],
    counted: NDArray[np.bool_],
    settings: EvaluationSettings,
) -> NDArray[np.uint64]:
    """The ids of the images that count."""
    id_source = settings.ids
    if isinstance(id_source, int | str):
        return ids_of_names(batch[id_source], len(counted))[counted]
    if id_source is not None and not id_source.may_change:
        return id_source.ids(positions[counted], None)
    pictures = fingerprints(*images, mean=settings.mean, std=settings.std)
    return pictures if id_source is None else id_source.ids(positions[counted], pictures)


def _labels(batch: Any, size: int, number: int, settings: EvaluationSettings, device: torch.device) -> BatchLabels:
    if settings.spec.label is None:
        return BatchLabels(torch.full((size,), -1, dtype=torch.int64, device=device))
    return labels_of_batch(settings.spec.label_of(batch).to(device), size, task=settings.task, number=number)


def ready_variants(
    batch: Any, counted: NDArray[np.bool_], image: Tensor, number: int, settings: EvaluationSettings
) -> dict[str, VariantImages] | None:
    """The variants that the batch brings along; ``None`` where they are to be made."""
    if settings.ready is None:
        return None
    brought = batch[settings.ready]
    names = settings.variant_names
    if not isinstance(brought, Mapping) or (lacking := [name for name in names if name not in brought]):
        received = f"without {', '.join(lacking)}" if isinstance(brought, Mapping) else describe(brought)
        raise KeyError(f"ready: expected a dict of variants at {settings.ready!r} of batch {number}, got {received}")
    return {name: _variant_of(name, brought[name], counted, image) for name in names}


def _variant_of(name: str, entry: Any, counted: NDArray[np.bool_], image: Tensor) -> VariantImages:
    """One variant from a batch: images (B, C, H, W), alone or with background classes (B,) and which are there (B,)."""
    picture, *labels_and_valid = entry if isinstance(entry, (tuple, list)) else (entry,)
    check_image(picture, name=f"ready[{name!r}]", volumes=True)
    variant = picture.to(image.device)[counted]
    if variant.shape != image.shape:
        raise ValueError(f"ready[{name!r}]: expected images {tuple(image.shape)}, got {describe(variant)}")
    everywhere = torch.ones(len(image), dtype=torch.bool, device=image.device)
    unknown = torch.full((len(image),), -1, device=image.device)
    label = labels_and_valid[0].to(image.device)[counted] if labels_and_valid else unknown
    valid = labels_and_valid[1].to(image.device)[counted] if len(labels_and_valid) > 1 else everywhere
    return VariantImages(variant.to(image.dtype), label, valid)
