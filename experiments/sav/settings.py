"""Data and network of the S-AV experiment: traffic signs over scenes; the category goes with the class or does not."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from experiments.common import split_bank
from torch_bgdebias.backgrounds import BackgroundBank
from torch_bgdebias.data import CorrelatedBackgrounds, MaskedImageFolder, MaskedTensors

SIDE = 64
#: a sign is made smaller than it is in its crop, so that even the "high" camera rarely cuts it
SCALE = 0.75
#: one scene category a class of signs, in this order; left out are those with vehicles or mills, and near-doubles
SCENES = (
    "airport_terminal", "auditorium", "bamboo_forest", "baseball_field", "bedroom", "campus", "desert", "kitchen",
    "laundromat", "mountain_landscape", "sky", "waterfall",
)  # fmt: skip
SHAPES = {
    "circular": ("ahead_only", "keep_right", "no_entry", "speed_limit_30", "speed_limit_50", "speed_limit_70"),
    "triangular": ("general_caution", "right_of_way", "road_work", "yield"),
}


@dataclass
class Part:
    """Signs and scenes for training, or those for testing; nothing is in both."""

    signs: MaskedTensors
    scenes: BackgroundBank
    track: Tensor  # (N,) which physical sign a picture shows: up to three frames of each
    seed: int

    def __post_init__(self) -> None:
        self.dataset = self.signs.dataset()

    def compose(self, correlation: float, camera: str, draw: int, index: Tensor, seed: int = 0) -> tuple[Tensor, ...]:
        """Image uint8, label, mask uint8 and background category of the signs at ``index``.

        One draw gives a sign the same camera position at every correlation.
        """
        data = CorrelatedBackgrounds(
            self.dataset, self.scenes, correlation, camera, seed=1000 * seed + self.seed, size=SIDE, scale=SCALE
        )
        data.set_epoch(draw)
        loader = DataLoader(torch.utils.data.Subset(data, index.tolist()), batch_size=len(index))
        image, label, mask, category = next(iter(loader))
        return as_bytes(image), label, as_bytes(mask), category


def as_bytes(values: Tensor) -> Tensor:
    return values.mul(255).round_().to(torch.uint8)


def load(data: Path) -> tuple[Part, Part, tuple[str, ...]]:
    """Training part, test part (every fourth track of a class, the last quarter of every scene category), classes."""
    folder = MaskedImageFolder(data / "gtsrb_signs", size=SIDE)
    with (data / "gtsrb_signs" / "index.csv").open() as file:
        track_of = {Path(row["image"]).stem: f"{row['class']}/{row['track']}" for row in csv.DictReader(file)}
    names = [track_of[sample.image.stem] for sample in folder.samples]
    number = {name: i for i, name in enumerate(dict.fromkeys(names))}
    track = torch.tensor([number[name] for name in names])
    test_signs = torch.tensor([within_class(name, number) % 4 == 3 for name in names])
    signs = folder.tensors()
    scenes = BackgroundBank.from_folder(data / "sun_scenes", SIDE, classes=SCENES)
    parts = [
        Part(signs.subset(chosen), part, track[chosen], seed)
        for seed, (chosen, part) in enumerate(zip((~test_signs, test_signs), split_bank(scenes), strict=True))
    ]
    return parts[0], parts[1], tuple(folder.classes)


def within_class(name: str, number: dict[str, int]) -> int:
    """Position of a track among those of its class."""
    first = min(i for other, i in number.items() if other.split("/")[0] == name.split("/")[0])
    return number[name] - first


def members_of(part: Part, classes: tuple[str, ...], shape: str) -> Tensor:
    """Positions of the signs of a shape (``"mixed"``: all)."""
    wanted = [classes.index(name) for name in SHAPES.get(shape, classes)]
    return torch.isin(part.signs.labels, torch.tensor(wanted)).nonzero().flatten()


def convnext(classes: int) -> nn.Module:
    """A small ConvNeXt for pictures of 64 pixels, after the paper's: timm's, with one block a stage and a stem of 2."""
    from timm.models.convnext import ConvNeXt

    return ConvNeXt(num_classes=classes, depths=(1, 1, 1, 1), dims=(24, 48, 96, 192), patch_size=2)


def network(classes: int, widths: tuple[int, ...]) -> nn.Sequential:
    """Convolutions with batch norm down to maps of 8 x 8, one more at that size, averaged: the usual ending."""
    layers: list[nn.Module] = []
    before = 3
    for stage, width in enumerate(widths):
        kernel, stride = (5 if stage == 0 else 3), (2 if stage < 3 else 1)
        convolution = nn.Conv2d(before, width, kernel, stride, padding=kernel // 2, bias=False)
        layers += [convolution, nn.BatchNorm2d(width), nn.ReLU()]
        before = width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(before, classes))
