"""The background swap in a loop as timm's training script has it. python examples/timm_loop.py

Needs timm: pip install timm.
"""

from __future__ import annotations

import timm
import torch
from drawn import CLASSES, colour_decides, loader
from timm.loss import LabelSmoothingCrossEntropy
from timm.optim import create_optimizer_v2
from timm.scheduler import CosineLRScheduler
from timm.utils import AverageMeter

from torch_bgdebias import BackgroundSwap


def main(epochs: int = 4) -> None:
    torch.manual_seed(0)
    model = timm.create_model("test_resnet", num_classes=CLASSES)
    optimizer = create_optimizer_v2(model, opt="adamw", lr=2e-3)
    scheduler = CosineLRScheduler(optimizer, t_initial=epochs)
    loss_fn, swap = LabelSmoothingCrossEntropy(), BackgroundSwap("batch", pattern="voronoi")
    for epoch in range(epochs):
        model.train()
        losses = AverageMeter()
        for image, label, mask in loader():
            swapped = swap(image, mask, label)[0]  # the one line, where Mixup would stand
            loss = loss_fn(model(swapped), label)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.update(loss.item(), len(image))
        scheduler.step(epoch + 1)
        print(f"epoch {epoch}: loss {losses.avg:.3f}")
    model.eval()
    print(f"predictions that no background decides: {100 * colour_decides(model):.0f} %")


if __name__ == "__main__":
    main()
