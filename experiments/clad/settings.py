"""Data and network of the CLAD experiment: foregrounds composed onto scenes whose category goes with the class."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.data import BatchSampler, DataLoader, Dataset, RandomSampler

from experiments.common import split_bank
from torch_bgdebias.backgrounds import BackgroundBank
from torch_bgdebias.compositing import paste
from torch_bgdebias.data import MaskedImageFolder, MaskedTensors, mnist_with_masks

Fields = tuple[Tensor, Tensor, Tensor, Tensor]  # image, label, mask, background label


@dataclass
class Setting:
    """Foregrounds and scenes, each split into a training and a test part; the scenes' categories are numbered."""

    train: MaskedTensors
    test: MaskedTensors
    scenes: BackgroundBank
    test_scenes: BackgroundBank
    classes: int
    fixed: bool  # backgrounds of the training images drawn once, or anew for every batch
    flip: bool

    @property
    def categories(self) -> int:
        return self.scenes.num_classes

    def compose(
        self, part: MaskedTensors, scenes: BackgroundBank, correlation: float, generator: torch.Generator
    ) -> Fields:
        """Foregrounds on scenes of category label mod K with this probability, else of any category."""
        image, mask, label = part.images.float() / 255, part.masks.float() / 255, part.labels
        assigned = label % self.categories
        anything = torch.randint(self.categories, label.shape, generator=generator)
        own = torch.rand(label.shape, generator=generator) < correlation
        category = torch.where(own, assigned, anything)
        assert scenes.labels is not None
        same = scenes.labels == category[:, None]
        chosen = torch.multinomial(same.float(), 1, generator=generator)[:, 0]
        return paste(image, mask, scenes.float_images(chosen)), label, mask, category

    def test_set(self, correlation: float, seed: int = 0) -> Fields:
        """1 is mixed-same, 0 is mixed-rand; scenes and foregrounds that training never sees."""
        return self.compose(self.test, self.test_scenes, correlation, torch.Generator().manual_seed(1000 + seed))


class Batches(Dataset[Fields]):
    """Takes a list of positions, gives a batch."""

    def __init__(self, setting: Setting, correlation: float, seed: int) -> None:
        self.setting, self.correlation = setting, correlation
        self.generator = torch.Generator().manual_seed(seed)
        self.fixed = setting.compose(setting.train, setting.scenes, correlation, self.generator)

    def __len__(self) -> int:
        return len(self.setting.train.labels)

    def __getitem__(self, index: list[int]) -> Fields:
        setting = self.setting
        if setting.fixed:
            image, label, mask, category = (x[index] for x in self.fixed)
        else:
            part = setting.train.subset(torch.tensor(index))
            image, label, mask, category = setting.compose(part, setting.scenes, self.correlation, self.generator)
        if setting.flip and torch.rand((), generator=self.generator) < 0.5:
            image, mask = image.flip(3), mask.flip(3)
        return image, label, mask, category

    def loader(self, batch: int) -> DataLoader[Fields]:
        sampler = RandomSampler(
            range(len(self)), generator=torch.Generator().manual_seed(self.generator.initial_seed())
        )
        return DataLoader(self, sampler=BatchSampler(sampler, batch, drop_last=True), batch_size=None)


def mnist(data: Path, train: int = 8000) -> Setting:
    """Digits at 32 x 32 over ten scene categories, backgrounds drawn once: digit d on category d."""
    digits = mnist_with_masks(data / "mnist", size=32)
    order = torch.randperm(len(digits.labels), generator=torch.Generator().manual_seed(0))
    parts = digits.subset(order[:train]), digits.subset(order[train : train + 2000])
    categories = sorted(path.name for path in (data / "sun_scenes").iterdir() if path.is_dir())[:10]
    scenes = BackgroundBank.from_folder(data / "sun_scenes", 32, classes=categories)
    return Setting(*parts, *split_bank(scenes), classes=10, fixed=True, flip=False)


def voc(data: Path, size: int = 64) -> Setting:
    """Photographed objects over all scene categories, drawn anew for every batch: class c on category c mod K."""
    folder = MaskedImageFolder(data / "voc_objects", size)
    every = folder.tensors()
    order = torch.randperm(len(folder), generator=torch.Generator().manual_seed(0))
    cut = len(folder) * 3 // 4
    parts = every.subset(order[:cut]), every.subset(order[cut:])
    scenes = BackgroundBank.from_folder(data / "sun_scenes", size)
    return Setting(*parts, *split_bank(scenes), classes=len(folder.classes), fixed=False, flip=True)


def small_cnn(classes: int, size: int, network: str) -> nn.Sequential:
    """Convolutions of stride 2 with batch norm down to 4 x 4, then "hidden": a hidden layer, or "pooled": averaged.

    The pooled one has less to tell shapes by, and leans on the background more.
    """
    layers: list[nn.Module] = []
    width = 3
    for out in (16, 32, 64) if size <= 32 else (16, 32, 64, 64):
        kernel = 5 if width == 3 else 3
        convolution = nn.Conv2d(width, out, kernel, stride=2, padding=kernel // 2, bias=False)
        layers += [convolution, nn.BatchNorm2d(out), nn.ReLU()]
        width = out
    if network == "pooled":
        return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, classes))
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(16 * width, 128), nn.ReLU(), nn.Linear(128, classes))


#: by the experiment's name
SETTINGS = {"mnist": mnist, "ablation": mnist, "voc": voc}
