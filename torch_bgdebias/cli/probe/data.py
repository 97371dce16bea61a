"""The data of ``bgdebias probe``: a masked folder, ImageNet-9 as published, or PASCAL VOC, in the model's units."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from torch import Tensor
from torch.utils.data import Dataset

from torch_bgdebias.batch import BatchSpec
from torch_bgdebias.cli.options import mask_options
from torch_bgdebias.data import ImageNet9, ImageNet9Variants, MaskedImageFolder, VOCObjects
from torch_bgdebias.data.class_folders import folder_names, no_images_text, pictures_root
from torch_bgdebias.files import first_few
from torch_bgdebias.names import VARIANTS
from torch_bgdebias.preprocessing import Preprocessing

__all__ = ["SPEC", "Note", "Prepared", "ProbeData", "class_names", "open_data"]


#: where a measurement finds what `Prepared` yields
SPEC = BatchSpec(image="image", label="label", mask="mask")


class Prepared(Dataset[dict[str, Any]]):
    """Items with images in the model's units and labels as the model numbers them, in dicts as `SPEC` says.

    Beside ``image``, ``label`` and ``mask`` they have an ``id``, by which an image is known to models of any size and
    normalisation; ``void`` where the masks hold any, and ``variants`` where the data set has its own.
    """

    def __init__(self, items: Any, preprocessing: Preprocessing, labels: Sequence[int]) -> None:
        self.items, self.preprocessing, self.labels = items, preprocessing, labels

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> dict[str, Any]:
        image, label, mask, *further = self.items[index]
        item = {"image": self.prepared(image), "label": self.labels[label], "mask": mask}
        item["id"] = self.image_id(index)
        for extra in further:
            if isinstance(extra, Mapping):
                item["variants"] = {
                    name: (self.prepared(picture), *others) for name, (picture, *others) in extra.items()
                }
            else:
                item["void"] = extra
        return item

    def image_id(self, index: int) -> str:
        """An image's id: its file's contents."""
        return str(self.items.image_id(index))

    def prepared(self, image: Tensor) -> Tensor:
        """An image (3, H, W) in [0, 1] in the model's units and channels."""
        return self.preprocessing.normalise(image)


class Note(NamedTuple):
    """Something that the reader of the report should know of the data.

    Attributes:
        heading: what it is about.
        value: a number or text.
        is_gap: something is missing, which is said on the command line too.
    """

    heading: str
    value: int | str
    is_gap: bool


@dataclass(frozen=True)
class ProbeData:
    """What is measured.

    Attributes:
        dataset: pictures in the model's units.
        preprocessing: how they got there; its size is that of every picture.
        published: the data set has ImageNet-9's own variants, by these names; ``None`` where they are to be made.
        notes: what was left out and why, among other things.
    """

    dataset: Prepared
    preprocessing: Preprocessing
    published: tuple[str, ...] | None
    notes: tuple[Note, ...]

    @property
    def side(self) -> tuple[int, int]:
        """(height, width) of every picture."""
        size = self.preprocessing.height_width
        assert size is not None, "a size is settled before the data is opened"
        return size

    def labelled(self, labels: Sequence[int]) -> ProbeData:
        """The same pictures, the data's classes numbered as the model's outputs."""
        dataset = self.dataset
        return replace(self, dataset=Prepared(dataset.items, dataset.preprocessing, labels))


def class_names(args: argparse.Namespace) -> list[str]:
    """The data's classes, before any picture is opened."""
    if args.layout == "imagenet9":
        return list(ImageNet9.classes)
    if args.layout == "voc":
        return list(VOCObjects.classes)
    root = pictures_root(args.data, masks_elsewhere=args.masks is not None or bool(args.mask_suffix))
    if not root.is_dir():
        raise FileNotFoundError(f"--data: {args.data}: {no_images_text(args.data)}")
    return folder_names(root, args.masks)


def open_data(args: argparse.Namespace, preprocessing: Preprocessing) -> ProbeData:
    """Open the data set, resized as ``preprocessing`` says, its classes numbered in their order."""
    size = preprocessing.height_width
    items: Any
    if args.masks is not None and args.layout != "folder":
        raise ValueError(f"--masks: expected --layout folder, got {args.layout}, which has its own masks")
    if args.layout == "imagenet9":
        items = _imagenet9(args, size)
    elif args.layout == "voc":
        try:
            items = VOCObjects(args.data, image_set="val", size=size, with_void=True)
        except RuntimeError as error:  # what torchvision raises where the data is not
            raise FileNotFoundError(f"--data: no PASCAL VOC 2012 in {args.data}: {error}") from error
    else:
        items = MaskedImageFolder(args.data, size=size, on_error=args.on_error, with_void=True, **mask_options(args))
        items.with_void = items.has_void
    items.interpolation = preprocessing.interpolation
    published = tuple(items.variants) if isinstance(items, ImageNet9Variants) else None
    dataset = Prepared(items, preprocessing, range(len(items.classes)))
    return ProbeData(dataset, preprocessing, published, _left_out(items))


def _left_out(items: Any) -> tuple[Note, ...]:
    """A sentence about pictures that a data set leaves out."""
    notes: list[Note] = []
    if isinstance(items, VOCObjects) and items.skipped:
        notes += [Note("pictures left out", items.skipped, True), Note("left out", "without an object", False)]
    elif not isinstance(items, VOCObjects) and items.skipped:
        reasons = first_few(f"{path.name} ({reason})" for path, reason in items.skipped)
        notes += [Note("pictures left out", len(items.skipped), True), Note("left out", reasons, False)]
    if isinstance(items, ImageNet9Variants):
        notes.append(Note("variants", f"as published: {', '.join(items.variants)}", False))
        if items.incomplete:
            counts = ", ".join(f"{n} {name}" for name, n in items.incomplete.items())
            notes.append(Note("pictures without a variant", counts, True))
    labels_present = set(items.labels)
    if empty := [name for i, name in enumerate(items.classes) if i not in labels_present]:
        notes.append(Note("classes without pictures", ", ".join(empty), True))
    return tuple(notes)


def _imagenet9(args: argparse.Namespace, size: tuple[int, int] | None) -> Any:
    """The release with its published variants, or its originals alone where variants are to be made anew."""
    variants = args.variants or list(VARIANTS)
    published = [name for name in variants if (args.data / name / "val").is_dir()]
    if args.remake or not published:
        return ImageNet9(args.data, size=size, masks=True, on_error=args.on_error)
    if args.variants and (missing := [name for name in variants if name not in published]):
        raise ValueError(
            f"--variants: {args.data} has no {', '.join(missing)}; leave it out, or make all with --remake"
        )
    items = ImageNet9Variants(args.data, published, size, on_error=args.on_error)
    if not items.has_masks and args.attributions:
        raise FileNotFoundError(
            f"--attributions: {args.data} has no fg_mask/val to compare heatmaps with; pass --attributions ''"
        )
    return items
