"""The data of ``bgdebias probe``: a masked folder, ImageNet-9 as published, or PASCAL VOC, in the model's units."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from torch_bgdebias.data import VARIANTS, ImageNet9, ImageNet9Variants, MaskedImageFolder, VOCObjects
from torch_bgdebias.files import first_few

if TYPE_CHECKING:
    import argparse

    from torch_bgdebias.named_models import LoadedModel

__all__ = ["Normalised", "ProbeData", "class_names", "open_data"]


class ProbeData(NamedTuple):
    """What is measured: a data set in the model's units, and what was left out of it."""

    dataset: Any
    mean: list[float] | None
    std: list[float] | None
    notes: dict[str, Any]


class Normalised:
    """(image, label, mask[, variants]) with images normalised and the label as the model numbers it."""

    def __init__(self, items: Any, mean: list[float] | None, std: list[float] | None, outputs: list[int]) -> None:
        self.items, self.mean, self.std, self.outputs = items, mean, std, outputs

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> tuple[Any, ...]:
        image, label, mask, *made = self.items[index]
        ready = [{name: (self.prepared(x), *rest) for name, (x, *rest) in held.items()} for held in made]
        return self.prepared(image), self.outputs[label], mask, *ready

    def prepared(self, image: Tensor) -> Tensor:
        """An image (C, H, W) in [0, 1] in the model's units."""
        if self.mean is None or self.std is None:
            return image
        mean, std = (torch.tensor(x).reshape(-1, 1, 1) for x in (self.mean, self.std))
        return (image - mean) / std


def class_names(args: argparse.Namespace) -> list[str]:
    """The data's classes, before any picture is opened."""
    if args.layout == "imagenet9":
        return list(ImageNet9.classes)
    if args.layout == "voc":
        return list(VOCObjects.classes)
    root = args.data / "images"
    if not root.is_dir():
        raise FileNotFoundError(f"--data: expected images/<class>/ and masks/<class>/ in {args.data}, found no {root}")
    return sorted(path.name for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))


def open_data(args: argparse.Namespace, loaded: LoadedModel) -> ProbeData:

    size = args.size or loaded.size or 224
    mean, std = (args.mean, args.std) if args.mean is not None else (loaded.mean, loaded.std)
    found: Any
    if args.layout == "imagenet9":
        found = _imagenet9(args, size)
    elif args.layout == "voc":
        try:
            found = VOCObjects(args.data, image_set="val", size=size)
        except RuntimeError as error:  # what torchvision raises where the data is not
            raise FileNotFoundError(f"--data: no PASCAL VOC 2012 in {args.data}: {error}") from error
    else:
        found = MaskedImageFolder(args.data, size=size, on_error=args.on_error)
    names = list(found.classes)
    notes: dict[str, Any] = {"image size": size}
    if isinstance(found, VOCObjects) and found.skipped:
        notes["pictures left out"], notes["left out"] = found.skipped, "without an object"
    elif not isinstance(found, VOCObjects) and found.skipped:
        notes["pictures left out"] = len(found.skipped)
        notes["left out"] = first_few(f"{path.name} ({why})" for path, why in found.skipped)
    if isinstance(found, ImageNet9Variants):
        notes["variants"] = f"as published: {', '.join(found.variants)}"
        if found.incomplete:
            notes["pictures without a variant"] = ", ".join(f"{n} {name}" for name, n in found.incomplete.items())
    if empty := [name for i, name in enumerate(names) if i not in set(found.labels)]:
        notes["classes without pictures"] = ", ".join(empty)
    for what in ("pictures left out", "pictures without a variant", "classes without pictures"):
        if what in notes:
            print(f"bgdebias probe: note: {what}: {notes[what]}", file=sys.stderr)
    mean, std = (None if x is None else [float(v) for v in x] for x in (mean, std))
    return ProbeData(Normalised(found, mean, std, _outputs(args.labels, names)), mean, std, notes)


def _imagenet9(args: argparse.Namespace, size: int) -> Any:
    """The release with its published variants, or its originals alone where variants are to be made anew."""

    wanted = args.variants or list(VARIANTS)
    published = [name for name in wanted if (args.data / name / "val").is_dir()]
    if args.remake or not published:
        return ImageNet9(args.data, size=size, masks=True, on_error=args.on_error)
    if args.variants and (absent := [name for name in wanted if name not in published]):
        raise ValueError(f"--variants: {args.data} has no {', '.join(absent)}; leave it out, or make all with --remake")
    found = ImageNet9Variants(args.data, published, size, on_error=args.on_error)
    if not found.has_masks and args.attributions:
        raise FileNotFoundError(
            f"--attributions: {args.data} has no fg_mask/val to compare heatmaps with; pass --attributions ''"
        )
    return found


def _outputs(path: Path | None, names: list[str]) -> list[int]:
    """The model's output of each class."""
    if path is None:
        return list(range(len(names)))
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"--labels: {path} is not JSON: {error}") from error
    if not isinstance(told, dict) or not all(isinstance(v, int) and v >= 0 for v in told.values()):
        raise ValueError(f'--labels: {path}: expected {{"class folder": output, ...}} with whole numbers')
    if absent := [name for name in names if name not in told]:
        raise ValueError(f"--labels: {path} has no output for {', '.join(absent[:5])} ({len(absent)} classes)")
    return [told[name] for name in names]
