"""How long a training on exchanged backgrounds takes, beside the one that learned them. python examples/longer.py

Needs torchvision: pip install torchvision.
"""

from __future__ import annotations

import torch
from torch import nn
from torchvision.models import resnet18

from torch_bgdebias import BackgroundSwap, evaluate_background_bias
from torch_bgdebias.data import example_loader

PLAIN, MARKS, SHOWN = 6, (5, 15, 45), ("original", "mixed_same", "mixed_rand")


def epoch(model: nn.Module, optimizer: torch.optim.Optimizer, swap: BackgroundSwap | None) -> float:
    """One pass over 240 drawn pictures; the mean loss."""
    losses = []
    model.train()
    for image, label, mask in example_loader(images_per_class=80, seed=0):
        if swap is not None:
            image = swap(image, mask, label)[0]
        loss = nn.functional.cross_entropy(model(image), label)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return sum(losses) / len(losses)


def row(name: str, model: nn.Module, loss: float) -> str:
    """A line of the table, measured on other pictures."""
    report = evaluate_background_bias(model, example_loader(images_per_class=80, seed=1), variants=SHOWN[1:])
    accuracies = [f"{100 * report.accuracy(variant).value:.1f}" for variant in SHOWN]
    return "| " + " | ".join([name, f"{loss:.2f}", *accuracies]) + " |"


def main() -> None:
    torch.manual_seed(0)
    model = resnet18(num_classes=3)
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    print("| training | loss | as they are | own class's | random |\n| --- | --- | --- | --- | --- |")
    for _ in range(PLAIN):
        loss = epoch(model, optimizer, None)
    print(row(f"plain, {PLAIN} epochs", model, loss), flush=True)
    swap = BackgroundSwap("batch")
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    for number in range(1, max(MARKS) + 1):
        loss = epoch(model, optimizer, swap)
        if number in MARKS:
            print(row(f"then {number} of swap", model, loss), flush=True)


if __name__ == "__main__":
    main()
