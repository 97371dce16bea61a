"""``MaskedImageFolder``: pictures by class with a foreground mask beside each."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from torch_bgdebias.data.class_folders import class_names, pictures_root
from torch_bgdebias.data.own_labels import look_at_labels, masks_by_class
from torch_bgdebias.data.pairing import (
    MaskedSample,
    Pairs,
    annotated_pairs,
    missing_masks_text,
    pair,
    pictures_of,
)
from torch_bgdebias.data.reading import MaskedTriple, MaskSizeError, read_pair
from torch_bgdebias.data.settings import FolderSettings
from torch_bgdebias.data.tensors import JointTransform, MaskedTensors, with_void_of
from torch_bgdebias.data.turned import said_of_turned
from torch_bgdebias.files import (
    UnreadableImageError,
    as_tensor,
    content_id,
    first_few,
    spread,
    white_level,
)
from torch_bgdebias.masks.annotated import AnnotatedMasks, holds_annotations
from torch_bgdebias.masks.by_class import ClassMaskReader
from torch_bgdebias.masks.encodings import Label, MaskEncoding, MaskEncodingError
from torch_bgdebias.masks.formats.outlines import AnnotationError
from torch_bgdebias.masks.reading import MaskReader

__all__ = ["MaskedImageFolder", "MaskedSample"]

#: pictures among which an object must be annotated
_LOOK_AT = 48
#: from this share of masks without an object on there is a warning
_MANY_EMPTY = 0.1


class MaskedImageFolder(Dataset[Any]):
    """``images/<class>/x.jpg`` with ``masks/<class>/x.png``: items (image, label, mask).

    An image and its mask share class and name; endings may differ (any image format, .npy for masks). An item is a
    tuple of image float32 (3, H, W) in [0, 1], label int, and mask float32 (1, H, W) in [0, 1], 1 = foreground, so the
    default collate function makes the batch (image, label, mask) of ``BatchSpec()``.

    Args:
        root: folder that holds ``images/`` and ``masks/``.
        size: (H, W), or one int for a square, to which image and mask are resized; ``None``: each file's own.
        transform: called with (image, mask) after resizing, returns both: random crops and flips go here.
        on_error: what to do about missing masks, unreadable files, masks of another size or encoding than the others:
            ``"raise"``, or ``"skip"``: all is read once, what is wrong left out, listed in ``.skipped``, and counted.
        min_foreground, max_foreground: leave out samples whose mask covers less, or more, than this share of the image
            (``.filtered`` counts); 0.04 and 0.64 leave objects of which something and behind which something is seen.
        classes: folders to take, in the order of their indices; by default all, by name, or by number.
        encoding: of the masks, as in ``MaskEncoding``, or one.
        foreground, void: values, label numbers or colours that are object (``[0]`` turns masks round; ``{"cat": [8],
            "dog": [12]}`` for each class), or neither.
        mask_suffix: what a mask's name has after its image's; without a folder ``masks/`` it is looked for beside it.
        white: value of white in images of more than 8 bits, by default found from all.
        interpolation: of the images' resize, ``"bilinear"``, ``"bicubic"`` or ``"nearest"``; masks are always bilinear.
        with_void: items ``MaskedVoidItem`` with void; ``transform`` gets a mask of two channels. ``None``: none, warns.
        masks: a folder of masks other than ``masks/``, or an annotation tool's file or folder, of which a class's own
            label is its object where there is one, else all that is outlined. Class folders may then lie in ``root``.
        settings: all options but ``transform`` in one object, instead of the keywords.

    Attributes:
        classes, class_to_idx: class names by index, and the other way round.
        image_root, samples: the folder of the class folders, and list of ``MaskedSample(image, mask, label)``.
        skipped, filtered: what ``on_error="skip"`` left out, list of (file, reason); how many their foreground did.

    Raises:
        FileNotFoundError: no ``images`` folder, no classes, no images, or masks that are missing.
        MaskEncodingError, AnnotationError: masks that do not say what is object, look inverted, or hold no object.
        ValueError: bad settings, two masks of one name, or nothing left. TypeError: keywords beside ``settings``.
    """

    def __init__(
        self,
        root: str | Path,
        size: int | tuple[int, int] | None = None,
        transform: JointTransform | None = None,
        on_error: str = "raise",
        *,
        min_foreground: float = 0.0,
        classes: Sequence[str] | None = None,
        encoding: str | MaskEncoding = "auto",
        foreground: Sequence[Label | str] | Mapping[str, Sequence[Label | str]] | None = None,
        void: Sequence[Label | str] | None = None,
        mask_suffix: str = "",
        white: float | None = None,
        with_void: bool | None = None,
        interpolation: str = "bilinear",
        masks: str | Path | None = None,
        max_foreground: float = 1.0,
        settings: FolderSettings | None = None,
    ) -> None:
        options = FolderSettings(
            size=size,
            on_error=on_error,
            min_foreground=min_foreground,
            max_foreground=max_foreground,
            classes=classes,
            encoding=encoding,
            foreground=foreground,
            void=void,
            mask_suffix=mask_suffix,
            white=white,
            with_void=with_void,
            interpolation=interpolation,
            masks=masks,
        )
        if settings is not None and options != FolderSettings():
            raise TypeError("settings: a FolderSettings holds all options; pass them to it instead of beside it")
        #: all options in one object
        self.settings = options if settings is None else settings
        self.root, self.size, self.transform = Path(root), self.settings.height_width, transform
        self.with_void, self.interpolation = bool(self.settings.with_void), self.settings.interpolation
        self.skipped: list[tuple[Path, str]] = []
        self.filtered = 0
        source, white = self.settings.masks, self.settings.white
        place = None if source is None else Path(source)
        self.image_root = pictures_root(self.root, masks_elsewhere=bool(place or self.settings.mask_suffix))
        self.classes = class_names(self.root, self.settings.classes, images=self.image_root, masks=place)
        self.class_to_idx = {name: index for index, name in enumerate(self.classes)}
        annotated = place is not None and holds_annotations(place)
        pairs, drawn_masks = self._annotated_pairs(Path(str(source))) if annotated else (self._mask_pairs(), None)
        self.samples = self._paired(pairs)
        self.white = white_level([sample.image for sample in self.samples]) if white is None else white
        self._masks: MaskReader | AnnotatedMasks
        if drawn_masks is None:
            self._masks = self._reader()
            self._warn_of_empty(self._masks)
        else:
            self._masks = drawn_masks
            drawn_masks.require_objects([s.image for s in spread(self.samples, _LOOK_AT)], Path(str(source)))
            drawn_masks.warn_of_labels(Path(str(source)))
        for message in said_of_turned(self.samples, annotated=drawn_masks is not None):
            warnings.warn(f"{self.root}: {message}", stacklevel=2)
        if self.settings.with_void is None and self.has_void:
            warnings.warn(
                f"{self.root}: some pixels of the masks are void, neither object nor background, and count as "
                "background, since items (image, label, mask) have no place for them: pass with_void=True for "
                "MaskedVoidItem, a named tuple of four that has, or with_void=False if that is right",
                stacklevel=2,
            )
        self._leave_out()

    def _reader(self) -> MaskReader:
        strict, of_classes = self.settings.on_error == "raise", self.settings.of_classes
        if of_classes is None:
            files = [sample.mask for sample in self.samples]
            masks = MaskReader.of_folder(files, self.settings.reading, root=self.root, strict=strict)
            look_at_labels(masks, self.samples, self.classes, self.root)
            return masks
        by_class = dict(zip(self.classes, masks_by_class(self.samples, len(self.classes)), strict=True))
        return ClassMaskReader.of_classes(by_class, self.settings.reading, of_classes, root=self.root, strict=strict)

    def _warn_of_empty(self, masks: MaskReader) -> None:
        if masks.empty >= _MANY_EMPTY * max(1, masks.looked_at) and not self.settings.min_foreground:
            warnings.warn(
                f"{self.root}: {masks.empty} of {masks.looked_at} masks that were looked at hold no object: such a "
                "picture stands on no other background when it is measured, and a swap leaves nothing of it; leave "
                "them out with min_foreground=0.001, or draw them",
                stacklevel=3,
            )

    def _leave_out(self) -> None:
        low, high = self.settings.min_foreground, self.settings.max_foreground
        if self.settings.on_error == "skip":
            self._leave_out_unreadable()
        if low > 0 or high < 1:
            self._leave_out_small(low, high)
        if not self.samples:
            raise ValueError(
                f"{self.root}: no sample is left ({len(self.skipped)} skipped as unreadable or without a mask, "
                f"{self.filtered} with less foreground than min_foreground={low} or more than {high})"
            )

    @property
    def labels(self) -> list[int]:
        """The class index of every sample."""
        return [sample.label for sample in self.samples]

    def __len__(self) -> int:
        return len(self.samples)

    @property
    def has_void(self) -> bool:
        """Whether some of the inspected masks hold pixels that are neither object nor background."""
        return self._masks.has_void

    def __getitem__(self, index: int) -> Any:
        sample = self.samples[index]
        item = self._read(sample)
        image, mask = item.image.float().div_(255), item.mask.float().div_(255)
        if self.with_void:
            return with_void_of(image, sample.label, mask, item.void.float(), self.transform)
        if self.transform is not None:
            image, mask = self.transform(image, mask)
        return image, sample.label, mask

    def image_id(self, index: int) -> str:
        """An id of sample ``index`` that depends on neither size nor units: the contents of its two files."""
        sample = self.samples[index]
        if isinstance(self._masks, AnnotatedMasks):
            return f"{content_id(sample.image)}{self._masks.digest(sample.image)}"
        return content_id(sample.image, sample.mask)

    def void(self, index: int) -> Tensor:
        """Where sample ``index`` is neither object nor background, (1, H, W) bool; ``transform`` is not applied.

        Its mask is 0 there, so that void never counts as object.
        """
        return self._read(self.samples[index]).void

    def tensors(self) -> MaskedTensors:
        """Read everything into uint8 tensors (``transform`` is not applied).

        Raises:
            ValueError: no ``size`` was given and the files are not all of one size.
        """
        triples = [self._read(sample) for sample in self.samples]
        shapes = {tuple(triple.image.shape) for triple in triples}
        if len(shapes) > 1:
            raise ValueError(f"size: expected (H, W) to stack images of {len(shapes)} sizes, got None")
        images, masks = (torch.stack([triple[part] for triple in triples]) for part in (0, 1))
        return MaskedTensors(images, torch.tensor(self.labels), masks)

    def _read(self, sample: MaskedSample) -> MaskedTriple:
        return read_pair(
            sample.image,
            self._mask_path(sample),
            self.size,
            masks=self._masks,
            white=self.white,
            interpolation=self.interpolation,
        )

    def _mask_path(self, sample: MaskedSample) -> Path:
        return sample.image if isinstance(self._masks, AnnotatedMasks) else sample.mask

    def _mask_pairs(self) -> Pairs:
        mask_source = self.settings.masks
        pairs = pair(
            self.root,
            self.classes,
            self.settings.mask_suffix,
            None if mask_source is None else Path(mask_source),
            self.image_root,
        )
        if pairs.missing and (self.settings.on_error == "raise" or not pairs.samples):
            mask_root = None if mask_source is None else Path(mask_source)
            raise FileNotFoundError(missing_masks_text(self.root, pairs, self.settings.mask_suffix, mask_root))
        return pairs

    def _annotated_pairs(self, place: Path) -> tuple[Pairs, AnnotatedMasks]:
        is_said = self.settings.reading != MaskEncoding() or self.settings.of_classes is not None
        if is_said or self.settings.mask_suffix:
            raise ValueError(
                f"masks: expected no encoding, foreground, void or mask_suffix beside the annotations {place}, which "
                "say by themselves what is object"
            )
        pictures = pictures_of(self.image_root, self.classes)
        names = {path: (path.relative_to(self.image_root).as_posix(), self.classes[i]) for path, i in pictures}
        masks = AnnotatedMasks.of(place, names)
        pairs = annotated_pairs(self.image_root, pictures, masks)
        if pairs.missing and (self.settings.on_error == "raise" or not pairs.samples):
            raise FileNotFoundError(
                f"masks: {len(pairs.missing)} of {pairs.images} images have no annotations in {place}: "
                f"{first_few(names[path][0] for path in pairs.missing)}; it has {first_few(masks.annotations.pictures)}"
            )
        if pairs.doubled and self.settings.on_error == "raise":
            twins = first_few(" and ".join(names[path][0] for path in twin) for twin in masks.shared())
            raise ValueError(f"masks: {place}: expected names with folders, got such that fit two images: {twins}")
        return pairs, masks

    def _paired(self, pairs: Pairs) -> list[MaskedSample]:
        if not pairs.images:
            raise FileNotFoundError(f"{self.image_root}: no image files in {len(self.classes)} class folder(s)")
        doubled = [f"{image.name}: {first_few(path.name for path in several)}" for image, several in pairs.doubled]
        if doubled and self.settings.on_error == "raise":
            raise ValueError(
                f"{self.root}: expected one mask of each name, got several for {len(doubled)} images: "
                f"{first_few(doubled)}; join those of one image into one, or take away what is none"
            )
        if pairs.previews:
            mask, others = pairs.previews[0]
            warnings.warn(
                f"{self.root}: {len(pairs.previews)} masks have pictures of the same name that were passed over as "
                f"previews, JPEG holds no labels: {mask.name} was taken, {first_few(path.name for path in others)} not",
                stacklevel=4,
            )
        self.skipped += [(path, "no mask") for path in pairs.missing]
        self.skipped += [
            (image, f"several masks: {first_few(p.name for p in paths)}") for image, paths in pairs.doubled
        ]
        return pairs.samples

    def _leave_out_unreadable(self) -> None:
        def reason(sample: MaskedSample) -> str | None:
            try:
                self._read(sample)
            except (UnreadableImageError, MaskSizeError, MaskEncodingError, AnnotationError) as error:
                return str(error)
            return None

        self.samples, bad = _split(self.samples, reason)
        self.skipped += [(sample.image, problem) for sample, problem in bad]
        if self.skipped:
            warnings.warn(
                f"{self.root}: skipped {len(self.skipped)} of {len(self.samples) + len(self.skipped)} images: "
                + first_few((f"{path.name} ({problem})" for path, problem in self.skipped), 3),
                stacklevel=4,
            )

    def _leave_out_small(self, low: float, high: float) -> None:
        def reason(sample: MaskedSample) -> str | None:
            share = float(as_tensor(self._masks.open(self._mask_path(sample)).foreground).float().mean()) / 255
            return f"foreground {share:.4f}" if not low <= share <= high else None

        self.samples, small = _split(self.samples, reason)
        self.filtered = len(small)


def _split(
    samples: list[MaskedSample], reason: Callable[[MaskedSample], str | None]
) -> tuple[list[MaskedSample], list[tuple[MaskedSample, str]]]:
    """Samples without and with a reason to leave them out."""
    usable, left_out = [], []
    for sample in samples:
        reason_text = reason(sample)
        if reason_text is None:
            usable.append(sample)
        else:
            left_out.append((sample, reason_text))
    return usable, left_out
