"""A masked folder, a module of networks, and ``bgdebias probe`` called on them."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
from PIL import Image

from torch_bgdebias import cli

NETS = '''
import torch
from torch import nn

class Corner(nn.Module):
    """Reads the class off one corner, which is background: class i where channel i is brightest."""
    def __init__(self, classes=3):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(8.0))
        self.classes = classes
    def forward(self, x):
        found = x[:, :, :2, :2].mean((2, 3)) * self.scale
        return nn.functional.pad(found, (0, self.classes - 3))

class Small(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.features = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())
        self.fc = nn.Linear(4, 3)
    def forward(self, x):
        return self.fc(self.features(x).mean((2, 3)))

class Wide(Corner):
    def __init__(self):
        super().__init__(1000)

class Nine(nn.Module):
    """Channel 0 in the corner is a dog, channel 1 a fish."""
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 1)
        self.fc = nn.Linear(4, 9)
    def forward(self, x):
        out = self.fc(self.conv(x).mean((2, 3))) * 1e-6
        corner = x[:, :2, :2, :2].mean((2, 3))
        out = out.index_add(1, torch.tensor([0, 8]), corner)
        return out

class Twenty(Corner):
    def __init__(self):
        super().__init__(20)

def small():
    return Small()

class Grown(nn.Module):
    def __init__(self, classes):
        super().__init__()

broken = nn.Linear(5, 3)
number = 3
'''


def write_place(root: Path) -> None:
    """Three classes whose backgrounds are their colour, and ``trial_nets.py``, a module of networks."""
    for label, name in enumerate(("cat", "dog", "emu")):
        for i in range(3):
            pixels = np.full((12, 12, 3), 20, np.uint8)
            pixels[..., label] = 200 + i
            mask = np.zeros((12, 12), np.uint8)
            mask[4:8, 4 : 9 - i] = 255
            pixels[mask > 0] = 255
            for path, values in ((f"images/{name}/{i}.png", pixels), (f"masks/{name}/{i}.png", mask)):
                (root / "data" / path).parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(values).save(root / "data" / path)
    (root / "trial_nets.py").write_text(NETS)


def trial_nets() -> ModuleType:
    """The module of networks, from the folder that we are in."""
    sys.path.insert(0, ".")
    return importlib.import_module("trial_nets")


def command(*words: object) -> int:
    """``bgdebias probe`` on the folder's data, 12 pixels, on the CPU."""
    return cli.main(["probe", "--data", "data", "--size", "12", "--device", "cpu", "--overwrite", *map(str, words)])
