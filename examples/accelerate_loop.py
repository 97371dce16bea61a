"""CLAD+ in a loop with Hugging Face's Accelerate. python examples/accelerate_loop.py

Needs Accelerate: pip install accelerate. With several processes (accelerate launch) the queue is shared by all of them.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from accelerate import Accelerator
from drawn import CLASSES, loader, network
from torch import nn

from torch_bgdebias import BackgroundSwap, CLADLoss


class Pair(nn.Module):
    """Embedding and logits of images, in one forward pass that the accelerator may wrap."""

    def __init__(self) -> None:
        super().__init__()
        *body, self.head = network()
        self.body = nn.Sequential(*body)

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        embedding = self.body(image)
        return embedding, self.head(embedding)


def main(epochs: int = 4) -> None:
    torch.manual_seed(0)
    accelerator = Accelerator(cpu=True)
    model = Pair()
    model, optimizer, batches = accelerator.prepare(model, torch.optim.AdamW(model.parameters(), 3e-3), loader())
    swap, clad = BackgroundSwap("batch", different_class=True), CLADLoss(CLASSES).to(accelerator.device)
    for epoch in range(epochs):
        for image, label, mask in batches:
            other = swap(image, mask, label)[0]
            embedding, logits = model(torch.cat([image, other]))
            (anchor, positive), (own, swapped) = embedding.chunk(2), logits.chunk(2)
            loss = F.cross_entropy(own, label) + F.cross_entropy(swapped, label)
            loss = loss + clad(anchor, positive, label, swap.drawn["background_label"])
            accelerator.backward(loss)
            optimizer.step()
            optimizer.zero_grad()
        accelerator.print(f"epoch {epoch}: loss {loss.item():.3f}")


if __name__ == "__main__":
    main()
