"""The background swap as a callback of fastai's Learner. python examples/fastai_learner.py

Needs fastai: pip install fastai.
"""

from __future__ import annotations

import torch
from drawn import CLASSES, colour_decides, loader, network
from fastai.callback.core import Callback
from fastai.data.core import DataLoaders
from fastai.learner import Learner
from torch import nn

from torch_bgdebias import BackgroundSwap


class SwapBackgrounds(Callback):
    """Takes the mask out of batches (image, label, mask); training images get the background of another one."""

    order = 0  # before mixup and the like

    def __init__(self) -> None:
        self.swap = BackgroundSwap("batch", pattern="voronoi")

    def before_batch(self) -> None:
        (image,), (label, mask) = self.xb, self.yb
        if self.training:
            image = self.swap(image, mask, label)[0]
        self.learn.xb, self.learn.yb = (image,), (label,)


def main(epochs: int = 20) -> None:
    torch.manual_seed(0)
    batches = DataLoaders(loader(), loader())
    batches.n_inp = 1  # one input: what follows it in a batch are the targets, and the mask is among those
    model = network()
    learner = Learner(batches, model, nn.CrossEntropyLoss(), lr=1e-2, cbs=SwapBackgrounds())
    with learner.no_logging():
        learner.fit(epochs)
    print(f"loss {float(learner.recorder.losses[-1]):.3f} after {epochs} epochs of {CLASSES} classes")
    print(f"predictions that no background decides: {100 * colour_decides(model.eval()):.0f} %")


if __name__ == "__main__":
    main()
