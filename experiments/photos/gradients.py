"""How large is the gradient of each loss on a pretrained network? Norms over all weights, one training batch.

    python -m experiments.photos.gradients --voc DIR --scenes DIR

Dimmed composites in training mode, with a new last layer; the cross-entropy's norm stands beside each heatmap loss's.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from experiments.photos.settings import MEAN, OBJECTS, STD, network, photographs
from torch_bgdebias import ISNet, ISNetLoss
from torch_bgdebias.isnet import BackgroundDimming

LOSSES = {"share (default)": ISNetLoss(), "share, E = 1": ISNetLoss(saturation=1.0), "paper": ISNetLoss.paper()}
LAYERS = ("blocks.2", "blocks.4", "blocks.6")


def norm(loss: Tensor, net: nn.Module) -> float:
    """Of the gradient over all weights; the graph stays."""
    gradients = torch.autograd.grad(loss, list(net.parameters()), retain_graph=True, allow_unused=True)
    return float(torch.cat([g.flatten() for g in gradients if g is not None]).norm())


def places(variant: str) -> list[tuple[str, dict[str, Any]]]:
    """Where relevance is measured, by name; hidden layers for one variant."""
    hidden = LAYERS if variant == "selective" else ()
    return [("image, z^B", {"mean": MEAN, "std": STD})] + [
        (layer, {"deep_supervision": [layer], "at_input": False}) for layer in hidden
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--voc", type=Path, required=True)
    parser.add_argument("--scenes", type=Path, required=True)
    parser.add_argument("--size", type=int, default=112)
    parser.add_argument("--images", type=int, default=16)
    parser.add_argument("--variants", nargs="+", default=["selective", "stochastic"])
    args = parser.parse_args()
    torch.set_num_threads(1)
    data = photographs(args.voc, args.scenes, size=args.size, seed=0, correlation=1.0, repeats=1)
    torch.manual_seed(0)
    net = network(len(OBJECTS)).train()
    image, label, mask = data.train[torch.randperm(len(data.train))[: args.images]]
    image = BackgroundDimming()(image, mask)
    print("| variant | relevance at | cross-entropy | " + " | ".join(LOSSES) + " |\n| --- | --- |" + " --- |" * 4)
    for variant in args.variants:
        for place, options in places(variant):
            generator = torch.Generator().manual_seed(0)
            explained = ISNet(net, variant, **options).explain(image, create_graph=True, generator=generator)
            entropy = norm(F.cross_entropy(explained.logits, label), net)
            cells = [norm(loss(explained.relevance, mask, explained.hidden), net) for loss in LOSSES.values()]
            print(
                f"| {variant} | {place} | {entropy:.1f} | " + " | ".join(f"{x:.1f}" for x in cells) + " |", flush=True
            )


if __name__ == "__main__":
    main()
