"""``ImageNet9Variants``: each Background Challenge picture with its published variants in one item."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TypeAlias

import torch
from torch import Tensor
from torch.utils.data import Dataset

from torch_bgdebias.checks import check_option
from torch_bgdebias.data.imagenet9 import ImageNet9, foreground_name
from torch_bgdebias.data.variants import VARIANTS
from torch_bgdebias.files import first_few

__all__ = ["ImageNet9Variants"]

#: image (3, H, W), class of its background or -1, whether there is such a picture
PublishedVariant: TypeAlias = tuple[Tensor, int, bool]


class ImageNet9Variants(Dataset[tuple[Tensor, int, Tensor, dict[str, PublishedVariant]]]):
    """Items (image, label, mask, {variant: (image, background class, is there)}) from the challenge's release.

    For ``evaluate_background_bias(model, loader, variants=data.variants, ready=3)``, which then classifies the pictures
    that were published, so that its accuracies and BG-Gap are the challenge's, and pairs them by their foreground.

    Args:
        root: the unpacked release: the folder that holds ``original/``, ``mixed_rand/``, ...
        variants: which; all that are there when ``None``.
        size: (H, W), or one int for a square; ``None`` keeps 224 x 224.
        on_error: as in `ImageNet9`, for masks. Without ``fg_mask/`` masks are all ones (``has_masks`` is False).
        split: ``"val"``, the only one of the evaluation release.

    Attributes:
        classes: the nine classes.
        variants: names of the variants in an item.
        has_masks: whether the masks are the release's.
        incomplete: per variant, how many originals it lacks; only those that lack some.
        extra: pictures of variants whose foreground has no original (left out), and second pictures of a foreground.

    Raises:
        FileNotFoundError: no ``original/``, a variant that is not there, or masks that are missing.
    """

    classes = ImageNet9.classes

    def __init__(
        self,
        root: str | Path,
        variants: Sequence[str] | None = None,
        size: int | tuple[int, int] | None = None,
        *,
        on_error: str = "raise",
        split: str = "val",
    ) -> None:
        self.root = Path(root)
        if variants is None:
            variants = [name for name in VARIANTS if (self.root / name / split).is_dir()]
        self.variants = tuple(check_option(name, VARIANTS, name="variants") for name in dict.fromkeys(variants))
        self.originals = ImageNet9(root, "original", size, on_error=on_error, split=split)
        self.has_masks = self.originals.has_masks
        self._parts = {v: ImageNet9(root, v, size, masks=False, split=split) for v in self.variants}
        index_of = {(s.label, foreground_name(s.image)): i for i, s in enumerate(self.originals.samples)}
        #: per variant and original, the place of its picture in that variant's own data set, -1 for none
        self._rows = {name: [-1] * len(self.originals) for name in self.variants}
        self.extra: list[Path] = []
        for name, part in self._parts.items():
            for row, sample in enumerate(part.samples):
                index = index_of.get((sample.label, foreground_name(sample.image)))
                if index is None or self._rows[name][index] >= 0:
                    self.extra.append(sample.image)
                else:
                    self._rows[name][index] = row
        lacking = {name: rows.count(-1) for name, rows in self._rows.items()}
        self.incomplete = {name: count for name, count in lacking.items() if count}
        if empty_variants := [name for name, count in lacking.items() if count == len(self.originals)]:
            examples = first_few(s.image.name for s in self._parts[empty_variants[0]].samples)
            raise FileNotFoundError(
                f"{self.root}: no picture of {empty_variants[0]} has the foreground of an original: {examples}"
            )
        # wnid -> class: a background is named after the ImageNet class of the picture it was taken from
        self._wnid = {foreground_name(s.image).split("_")[0]: s.label for s in self.originals.samples}

    @property
    def labels(self) -> list[int]:
        """The class index of every sample."""
        return self.originals.labels

    @property
    def skipped(self) -> list[tuple[Path, str]]:
        """What was left out, with the reason."""
        return [*self.originals.skipped, *((path, "no original of this foreground") for path in self.extra)]

    def __len__(self) -> int:
        return len(self.originals)

    @property
    def interpolation(self) -> str:
        """Of the images' resize, the same for originals and variants."""
        return self.originals.interpolation

    @interpolation.setter
    def interpolation(self, name: str) -> None:
        for part in (self.originals, *self._parts.values()):
            part.interpolation = name

    def image_id(self, index: int) -> str:
        """The id of sample ``index``, that of its original picture."""
        return self.originals.image_id(index)

    def __getitem__(self, index: int) -> tuple[Tensor, int, Tensor, dict[str, PublishedVariant]]:
        image, label, *masks = self.originals[index]
        mask = masks[0] if masks else torch.ones(1, *image.shape[1:])
        return image, label, mask, {name: self._variant(name, index, image) for name in self.variants}

    def _variant(self, name: str, index: int, original: Tensor) -> PublishedVariant:
        row = self._rows[name][index]
        if row < 0:
            return torch.zeros_like(original), -1, False
        part = self._parts[name]
        _, _, background = part.samples[row].image.stem.partition("_bg_")
        return part[row][0], self._wnid.get(background.split("_")[0], -1), True
