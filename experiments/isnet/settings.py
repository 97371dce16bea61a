"""Data and networks of the ISNet experiment: digits and radiographs with a class-coded mark, digits on scenes."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from torch_bgdebias.isnet.functional import dilate_mask

MARK = (3, 2)  # height and width of the white mark at 32 px; scaled with the image's side


@dataclass
class Setting:
    """Training tensors and named test sets, each (image (N, C, H, W), mask (N, 1, H, W), label (N,))."""

    train: tuple[Tensor, Tensor, Tensor]
    tests: dict[str, tuple[Tensor, Tensor, Tensor]]
    classes: int
    mean: float = 0.0  # of the images' normalisation
    std: float = 1.0


def mark_places(side: int, classes: int) -> list[tuple[int, int]]:
    """Top left corners of ``classes`` marks, evenly spaced along the image's border, clockwise."""
    height, width = mark_size(side)
    places = []
    for k in range(classes):
        t = 4 * k / classes
        edge, along = int(t), t - int(t)
        down, right = side - height, side - width
        corner = [(0, along * right), (along * down, right), (down, right * (1 - along)), (down * (1 - along), 0)][edge]
        places.append((round(corner[0]), round(corner[1])))
    return places


def mark_size(side: int) -> tuple[int, int]:
    scale = side / 32
    return round(MARK[0] * scale), round(MARK[1] * scale)


def add_mark(image: Tensor, code: Tensor, classes: int) -> Tensor:
    """``image`` with a white mark at the place that stands for ``code`` (N,)."""
    side = image.shape[-1]
    height, width = mark_size(side)
    out = image.clone()
    for k, (y, x) in enumerate(mark_places(side, classes)):
        out[code == k, :, y : y + height, x : x + width] = 1.0
    return out


def without_marks(mask: Tensor, classes: int, margin: int = 0) -> Tensor:
    """Foreground masks with every mark's place, and ``margin`` pixels around it, taken out."""
    height, width = mark_size(mask.shape[-1])
    mask = mask.clone()
    for y, x in mark_places(mask.shape[-1], classes):
        rows, columns = (slice(max(0, v - margin), v + n + margin) for v, n in ((y, height), (x, width)))
        mask[:, :, rows, columns] = 0.0
    return mask


def marked_tests(image: Tensor, mask: Tensor, label: Tensor, classes: int, seed: int) -> dict[str, tuple]:
    """The test images with their class's mark, without one, and with another class's mark."""
    generator = torch.Generator().manual_seed(seed)
    wrong = (label + torch.randint(1, classes, label.shape, generator=generator)) % classes
    return {
        "marked": (add_mark(image, label, classes), mask, label),
        "unmarked": (image, mask, label),
        "wrong": (add_mark(image, wrong, classes), mask, label),
    }


def digits(folder: Path) -> tuple[Tensor, Tensor]:
    """Digits (N, 1, 32, 32) in [0, 1] and labels, in an order that does not depend on the run's seed."""
    with gzip.open(folder / "t10k-images-idx3-ubyte.gz") as file:
        image = np.frombuffer(file.read(), np.uint8, offset=16).reshape(-1, 1, 28, 28)
    with gzip.open(folder / "t10k-labels-idx1-ubyte.gz") as file:
        label = np.frombuffer(file.read(), np.uint8, offset=8)
    order = torch.randperm(len(label), generator=torch.Generator().manual_seed(0))
    padded = nn.functional.pad(torch.tensor(image).float() / 255, (2, 2, 2, 2))
    return padded[order], torch.tensor(label).long()[order]


def digits_mark(data: Path, *, marked: bool = True, train_images: int = 4000, **_: object) -> Setting:
    """Digits whose class is also coded by a 3 x 2 white mark on the border; 2,000 others to test."""
    image, label = digits(data / "mnist")
    mask = without_marks((image > 0).float(), 10)
    image = image.expand(-1, 3, -1, -1)
    first, rest = slice(0, train_images), slice(8000, 10000)
    seen = add_mark(image[first], label[first], 10) if marked else image[first].clone()
    tests = marked_tests(image[rest], mask[rest], label[rest], 10, seed=1)
    return Setting((seen, mask[first], label[first]), tests, 10)


def xray_mark(
    data: Path,
    *,
    marked: bool = True,
    side: int = 32,
    split: int = 0,
    grow: int = 0,
    crop: bool = False,
    mirror: bool = False,
    **_: object,
) -> Setting:
    """Chest radiographs, normal or tuberculosis, with a class-coded mark outside the lungs; a quarter to test.

    Foreground: the lungs, grown by ``grow`` pixels (the masks leave out what hides a part of a lung), at least two
    pixels from the marks. ``crop``: the box around the lungs, a twentieth of its sides wider at each of them.
    ``mirror``: every image to train on a second time, mirrored; marks stay at their places.
    """
    images, masks, labels = [], [], []
    for index, name in enumerate(("normal", "tuberculosis")):
        for path in sorted((data / "chest_xray_tb/images" / name).glob("*.jpg")):
            lungs = data / "chest_xray_tb/masks" / name / f"{path.stem}.png"
            picture, lung = Image.open(path).convert("L"), Image.open(lungs).convert("L")
            box = chest_box(lung) if crop else (0, 0, *lung.size)
            images.append(np.asarray(picture.resize((side, side), Image.Resampling.BOX, box)))
            masks.append(np.asarray(lung.resize((side, side), Image.Resampling.BOX, box)) > 127)
            labels.append(index)
    image = (torch.tensor(np.stack(images)).float() / 255).unsqueeze(1).expand(-1, 3, -1, -1)
    grown = dilate_mask(torch.tensor(np.stack(masks)).float().unsqueeze(1), grow)
    label = torch.tensor(labels)
    order = torch.randperm(len(label), generator=torch.Generator().manual_seed(split))
    cut = len(label) * 3 // 4
    rest = order[cut:]
    seen, seen_mask, seen_label = (values[order[:cut]] for values in (image, grown, label))
    if mirror:
        seen, seen_mask = (torch.cat([values, values.flip(-1)]) for values in (seen, seen_mask))
        seen_label = seen_label.repeat(2)
    if marked:
        seen = add_mark(seen, seen_label, 2)
    mask = without_marks(grown[rest], 2, margin=2)
    train = (seen, without_marks(seen_mask, 2, margin=2), seen_label)
    return Setting(train, marked_tests(image[rest], mask, label[rest], 2, 1), 2)


def chest_box(lung: Image.Image) -> tuple[float, float, float, float]:
    """Left, top, right and bottom of the box around the lungs, a twentieth of its sides wider at each of them."""
    inside = np.asarray(lung) > 127
    rows, columns = np.flatnonzero(inside.any(1)), np.flatnonzero(inside.any(0))
    top, bottom, left, right = rows[0], rows[-1] + 1, columns[0], columns[-1] + 1
    down, across = (bottom - top) / 20, (right - left) / 20
    return (
        max(0.0, left - across),
        max(0.0, top - down),
        min(float(lung.width), right + across),
        min(float(lung.height), bottom + down),
    )


def digits_scenes(data: Path, *, marked: bool = True, train_images: int = 4000, **_: object) -> Setting:
    """Digits pasted on scene photographs; ``marked``: the scene's category is the digit's class (correlation 1)."""
    image, label = digits(data / "mnist")
    mask = (image > 0).float()
    scenes, seen_scenes = scene_bank(data / "sun_scenes")
    generator = torch.Generator().manual_seed(1)

    def paste(part: slice, category: Tensor, held_out: bool) -> Tensor:
        bank = [s[n:] if held_out else s[:n] for s, n in zip(scenes, seen_scenes, strict=True)]
        draw = torch.rand(len(category), generator=generator)
        background = torch.stack([bank[c][int(d * len(bank[c]))] for c, d in zip(category.tolist(), draw, strict=True)])
        return mask[part] * image[part] + (1 - mask[part]) * background

    def another(labels: Tensor) -> Tensor:
        return torch.randint(0, 10, labels.shape, generator=generator)

    first, rest = slice(0, train_images), slice(8000, 10000)
    train_category = label[first] if marked else another(label[first])
    tests = {
        "mixed_same": (paste(rest, label[rest], True), mask[rest], label[rest]),
        "mixed_rand": (paste(rest, another(label[rest]), True), mask[rest], label[rest]),
    }
    return Setting((paste(first, train_category, False), mask[first], label[first]), tests, 10)


def scene_bank(folder: Path) -> tuple[list[Tensor], list[int]]:
    """Scenes of the ten largest categories at 32 px, per category (N, 3, 32, 32), and how many are for training."""
    categories = sorted(p for p in folder.iterdir() if p.is_dir())
    largest = sorted(categories, key=lambda p: (-len(list(p.glob("*.jpg"))), p.name))[:10]
    banks = []
    for category in largest:
        pictures = []
        for path in sorted(category.glob("*.jpg")):
            picture = Image.open(path).convert("RGB")
            short = min(picture.size)
            left, top = (picture.width - short) // 2, (picture.height - short) // 2
            square = picture.crop((left, top, left + short, top + short)).resize((32, 32), Image.Resampling.BOX)
            pictures.append(torch.tensor(np.asarray(square)).permute(2, 0, 1).float() / 255)
        banks.append(torch.stack(pictures))
    return banks, [len(b) * 3 // 4 for b in banks]


SETTINGS: dict[str, Callable[..., Setting]] = {
    "digits_mark": digits_mark,
    "xray_mark": xray_mark,
    "digits_scenes": digits_scenes,
}


def small_cnn(
    classes: int, side: int, *, norm: bool = True, widths: tuple[int, ...] = (16, 32, 64), head: str = "flatten"
) -> nn.Sequential:
    """Convolution (, batch norm), ReLU and 2 x 2 max pooling per width, then one linear layer on all maps or means."""
    layers: list[nn.Module] = []
    before = 3
    for width in widths:
        layers.append(nn.Conv2d(before, width, 3, padding=1, bias=not norm))
        layers += [nn.BatchNorm2d(width)] if norm else []
        layers += [nn.ReLU(), nn.MaxPool2d(2)]
        before, side = width, side // 2
    layers += [nn.AdaptiveAvgPool2d(1)] if head == "gap" else []
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(before * (side**2 if head == "flatten" else 1), classes))
