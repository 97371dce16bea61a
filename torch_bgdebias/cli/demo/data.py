"""The demo's data: objects with masks, scenes by category, both split, and objects put in front of scenes."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import interpolate, pad

from torch_bgdebias.backgrounds import BackgroundBank
from torch_bgdebias.cli.progress import progress
from torch_bgdebias.data import (
    SCENE_CATEGORIES,
    CorrelatedBackgrounds,
    MaskedImageFolder,
    MaskedTensors,
    digits_with_masks,
    draw_scenes,
    mnist_with_masks,
)
from torch_bgdebias.seeds import derive_seed

__all__ = ["DemoData", "Objects", "Scenes", "compose", "load"]

_IDX = ("images-idx3-ubyte", "labels-idx1-ubyte")
#: share of the image's side that an object's longer side takes
OBJECT_SHARE = 0.875


class Objects(NamedTuple):
    """Foregrounds: tensors, class names, and where they come from."""

    tensors: MaskedTensors
    classes: tuple[str, ...]
    source: str


class Scenes(NamedTuple):
    """Backgrounds: uint8 (N, 3, S, S), category (N,), category names, and where they come from."""

    images: Tensor
    labels: Tensor
    names: tuple[str, ...]
    source: str


@dataclass(frozen=True)
class DemoData:
    """Everything that is trained on and tested with.

    Attributes:
        train: composites to train on; a class's scenes are those of its own category with the asked probability.
        test: the held-out objects, each in front of a held-out scene of its own category.
        train_bank: training scenes, labelled with the class that they go with.
        test_bank: held-out scenes, labelled likewise.
        classes: names of the classes.
        categories: name of the category that goes with each class.
        counts: how many of what.
        notes: what was left out or decided on the way, in sentences.
        sources: where objects and scenes come from.
    """

    train: MaskedTensors
    test: MaskedTensors
    train_bank: BackgroundBank
    test_bank: BackgroundBank
    classes: tuple[str, ...]
    categories: tuple[str, ...]
    counts: dict[str, int]
    notes: list[str] = field(default_factory=list)
    sources: dict[str, str] = field(default_factory=dict)


def load(
    foregrounds: Path | None,
    backgrounds: Path | None,
    *,
    size: int,
    samples: int,
    correlation: float,
    seed: int,
    test_share: float = 0.2,
) -> DemoData:
    """Read or draw objects and scenes, split both, and put the training objects in front of training scenes.

    Args:
        foregrounds: a masked image folder, a folder of MNIST files, or ``None`` for scikit-learn's digits.
        backgrounds: a folder of ``<category>/*.jpg``, or ``None`` for drawn scenes.
        size: side of the images.
        samples: training composites; objects are used again where there are fewer of them.
        correlation: probability that a training object stands in front of its own category.
        seed: of the split and of the composites.
        test_share: share of objects of every class, and of scenes of every category, kept for the test.

    Raises:
        FileNotFoundError: no such folder, or not of the layout.
        ValueError: too few classes, objects or scenes.
    """
    generator = torch.Generator().manual_seed(derive_seed(seed, "split"))
    notes: list[str] = []
    objects = _objects(foregrounds, size, notes)
    scenes = _scenes(backgrounds, size, len(objects.classes), seed, notes)
    labels, categories = _assign_scenes(scenes, objects.classes, notes)
    usable = labels >= 0
    images, labels = scenes.images[usable], labels[usable]
    for_training, held_out = split(labels, test_share, generator, what="scenes", names=categories)
    train_bank, test_bank = (
        BackgroundBank(images[i], labels[i], classes=objects.classes) for i in (for_training, held_out)
    )
    learn, test = split(objects.tensors.labels, test_share, generator, what="objects", names=objects.classes)
    drawn_labels = _balanced_positions(learn, samples, generator)
    counts = {
        "classes": len(objects.classes),
        "training_objects": len(set(drawn_labels.tolist())),
        "test_objects": len(test),
        "training_scenes": len(for_training),
        "test_scenes": len(held_out),
        "training_samples": len(drawn_labels),
    }
    train, for_test = (
        compose(objects.tensors.subset(scene_rows), bank, share, derive_seed(seed, part), f"composing {part} images")
        for scene_rows, bank, share, part in (
            (drawn_labels, train_bank, correlation, "training"),
            (test, test_bank, 1.0, "test"),
        )
    )
    return DemoData(
        train=train,
        test=for_test,
        train_bank=train_bank,
        test_bank=test_bank,
        classes=objects.classes,
        categories=categories,
        counts=counts,
        notes=notes,
        sources={"foregrounds": objects.source, "backgrounds": scenes.source},
    )


def compose(objects: MaskedTensors, bank: BackgroundBank, correlation: float, seed: int, label: str) -> MaskedTensors:
    """Put each object in front of a scene: with probability ``correlation`` one of its own class, else a random one."""
    composed = CorrelatedBackgrounds(objects.dataset(), bank, correlation, seed=seed)
    images = torch.empty_like(objects.images)
    for position in progress(range(len(composed)), total=len(composed), label=label):
        images[position] = (composed[position][0] * 255).round().clamp(0, 255).to(torch.uint8)
    return MaskedTensors(images, objects.labels, objects.masks)


def split(
    labels: Tensor, test_share: float, generator: torch.Generator, *, what: str, names: Sequence[str]
) -> tuple[Tensor, Tensor]:
    """Positions for training and test, stratified by label; at least one of each label on both sides."""
    learn, test = [], []
    for label, name in enumerate(names):
        rows = (labels == label).nonzero().flatten()
        if len(rows) < 2:
            raise ValueError(f"{what}: expected at least 2 of {name!r}, one to train and one to test, got {len(rows)}")
        rows = rows[torch.randperm(len(rows), generator=generator)]
        test_count = min(len(rows) - 1, max(1, round(test_share * len(rows))))
        test.append(rows[:test_count])
        learn.append(rows[test_count:])
    return torch.cat(learn), torch.cat(test)


def _objects(root: Path | None, size: int, notes: list[str]) -> Objects:
    if root is None:
        return Objects(digits_with_masks(size), tuple(map(str, range(10))), "handwritten digits of scikit-learn")
    if not root.is_dir():
        raise FileNotFoundError(f"--foregrounds: expected a folder, got {root}, which is not there")
    objects = _mnist(root, size) if _idx_files(root) else _masked_folder(root, size, notes)
    if len(objects.classes) < 2:
        raise ValueError(f"--foregrounds: expected at least 2 classes in {root}, got {list(objects.classes)}")
    return objects


def _masked_folder(root: Path, size: int, notes: list[str]) -> Objects:
    with _warnings_as_notes("--foregrounds", notes):
        folder = MaskedImageFolder(root, on_error="skip", with_void=False)  # objects are cut out: void falls away
    images, masks, labels, empty = [], [], [], 0
    for position in progress(range(len(folder)), total=len(folder), label="reading objects"):
        image, label, mask = folder[position]
        cut = cut_out(image, mask, size)
        if cut is None:
            empty += 1
            continue
        images.append(cut[0])
        masks.append(cut[1])
        labels.append(label)
    if empty:
        notes.append(f"{empty} image(s) of {root} left out: their mask is empty.")
    if not images:
        raise ValueError(f"--foregrounds: every mask in {root} is empty")
    tensors = MaskedTensors(torch.stack(images), torch.tensor(labels), torch.stack(masks))
    return Objects(tensors, tuple(folder.classes), str(root))


def cut_out(image: Tensor, mask: Tensor, size: int) -> tuple[Tensor, Tensor] | None:
    """The object's square surroundings at ``size``, uint8 (3, S, S) and (1, S, S); ``None`` for an empty mask.

    The mask's bounding box, longer side ``OBJECT_SHARE`` of the square, sits in its centre; the rest is black.
    """
    rows, columns = (mask[0] > 0.5).any(1).nonzero().flatten(), (mask[0] > 0.5).any(0).nonzero().flatten()
    if not len(rows):
        return None
    top, bottom, left, right = int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1
    side = math.ceil(max(bottom - top, right - left) / OBJECT_SHARE)
    y, x = (top + bottom - side) // 2, (left + right - side) // 2
    with_mask = torch.cat([image, mask])
    with_mask = pad(with_mask, (-x, x + side - with_mask.shape[2], -y, y + side - with_mask.shape[1]))
    with_mask = interpolate(with_mask[None], (size, size), mode="bilinear", antialias=True, align_corners=False)[0]
    with_mask = (with_mask * 255).round().clamp(0, 255).to(torch.uint8)
    return with_mask[:3], with_mask[3:]


def _idx_files(root: Path) -> tuple[Path, Path] | None:
    """Images and labels in MNIST's format, compressed or not: the training files if they are there, else the test's."""
    for part in ("train", "t10k"):
        for ending in (".gz", ""):
            files = [root / f"{part}-{name}{ending}" for name in _IDX]
            if all(file.is_file() for file in files):
                return files[0], files[1]
    return None


def _mnist(root: Path, size: int) -> Objects:
    """Digits in a square of ``OBJECT_SHARE`` of the side; their strokes (pixel > 0) are the mask."""
    files = _idx_files(root)
    inner = max(1, round(size * OBJECT_SHARE))
    digits = mnist_with_masks(root, train=files is not None and files[0].name.startswith("train"), size=inner)
    before, after = (size - inner) // 2, size - inner - (size - inner) // 2
    images, masks = (pad(t, (before, after, before, after)) for t in (digits.images, digits.masks))
    names = tuple(str(i) for i in range(int(digits.labels.max()) + 1))
    return Objects(MaskedTensors(images, digits.labels, masks), names, str(root))


def _scenes(root: Path | None, size: int, classes: int, seed: int, notes: list[str]) -> Scenes:
    if root is None:
        scenes = draw_scenes(120, size, seed=seed, categories=min(classes, len(SCENE_CATEGORIES)))
        return Scenes(scenes.images, scenes.labels, scenes.names, "drawn by torch_bgdebias")
    if not root.is_dir():
        raise FileNotFoundError(f"--backgrounds: expected a folder, got {root}, which is not there")
    with _warnings_as_notes("--backgrounds", notes):
        bank = BackgroundBank.from_folder(root, size, on_error="skip")
    if bank.labels is None or bank.classes is None:
        raise ValueError(f"--backgrounds: expected a folder for each category in {root}, got images without folders")
    return Scenes(bank.images, bank.labels, bank.classes, str(root))


@contextmanager
def _warnings_as_notes(option: str, notes: list[str]) -> Iterator[None]:
    """Turn warnings about left-out files into notes, which the terminal, the report and the JSON all show.

    Errors that name the reader's argument, ``root``, name the option.
    """
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        try:
            yield
        except (FileNotFoundError, ValueError) as error:
            text = str(error)
            if not text.startswith("root: "):
                raise
            raise type(error)(f"{option}: {text.removeprefix('root: ')}") from error
    notes += [f"{option}: {warning.message}" for warning in warned]


def _assign_scenes(scenes: Scenes, classes: Sequence[str], notes: list[str]) -> tuple[Tensor, tuple[str, ...]]:
    """The class that each scene goes with (-1 none), and the category's name for each class.

    The categories with the most pictures are taken, in the order of their names. Where there are fewer than classes,
    a category's pictures are dealt out among the classes that share it.
    """
    counts = torch.bincount(scenes.labels, minlength=len(scenes.names))
    available = [i for i in range(len(scenes.names)) if counts[i]]
    if len(available) < 2:
        raise ValueError(f"--backgrounds: expected at least 2 categories, got {[scenes.names[i] for i in available]}")
    scenery = sorted(sorted(available, key=lambda i: (-int(counts[i]), i))[: len(classes)])
    shared = max(0, len(classes) - len(scenery))
    if shared:
        notes.append(
            f"There are {len(classes)} classes but only {len(scenery)} categories of scenes: categories are shared, "
            "and the pictures of a shared one are divided among its classes."
        )
    richest = sorted(scenery, key=lambda i: (-int(counts[i]), i))
    order = scenery + [richest[i % len(richest)] for i in range(shared)]
    labels = torch.full_like(scenes.labels, -1)
    for category in set(order):
        users = [label for label, assigned in enumerate(order) if assigned == category]
        for turn, label in enumerate(users):
            labels[(scenes.labels == category).nonzero().flatten()[turn :: len(users)]] = label
    return labels, tuple(scenes.names[i] for i in order)


def _balanced_positions(index: Tensor, samples: int, generator: torch.Generator) -> Tensor:
    """``samples`` positions: every object as often as every other one, give or take one."""
    rounds = [index[torch.randperm(len(index), generator=generator)] for _ in range(math.ceil(samples / len(index)))]
    return torch.cat(rounds)[:samples]
