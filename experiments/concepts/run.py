"""Do concept vectors contain the background? VOC objects on SUN scenes, with networks trained here.

python -m experiments.concepts.run --data DIR [--seeds 1] [--figure FILE]

DIR holds voc_objects/ (images/ and masks/) and sun_scenes/ (<category>/*.jpg). A small network is trained on the
original images; Net2Vec and LoCE vectors are fitted on its training images as they are, pasted on one scene or on four,
over Voronoi patches of scenes, or on synthetic backgrounds (the package's drawn scenes, uniform noise), and tested on
the test images as they are and on held-out scenes of ten groups. The question is arXiv 2504.08602's, whose networks saw
ImageNet.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from torch_bgdebias.concepts import ConceptProbe, ConceptSamples, ConceptTransfer, concept_transfer
from torch_bgdebias.data import MaskedImageFolder, draw_scenes
from torch_bgdebias.metrics import bootstrap_mean_difference
from torch_bgdebias.probe import analyse_concepts, biased_pairs, concept_heatmap
from torch_bgdebias.swap import BackgroundBank, sample_swap_params, swap_background

SIZE = 64
GROUPS = {
    "architecture": ("campus",),
    "indoors": ("airport_terminal", "auditorium", "bedroom", "kitchen", "laundromat"),
    "at_water": ("waterfall",),
    "machinery": ("airport_outdoor", "windmill"),
    "open_lands": ("desert",),
    "forest": ("bamboo_forest", "rainforest"),
    "field": ("baseball_field", "football_field"),
    "mountains": ("mountain_landscape",),
    "road": ("highway",),
    "sky": ("sky",),
}


def network(classes: int) -> nn.Sequential:
    """Four stages, layers "0" to "3", of 64, 32, 16 and 8 pixels; the vectors live in the last three."""
    net, width = nn.Sequential(), 3
    for i, out in enumerate((32, 64, 96, 128), start=1):
        net.append(
            nn.Sequential(
                nn.Conv2d(width, out, 3, 1 + (i > 1), 1, bias=False), nn.BatchNorm2d(out), nn.ReLU(),
                nn.Conv2d(out, out, 3, 1, 1, bias=False), nn.BatchNorm2d(out), nn.ReLU(),
            )
        )  # fmt: skip
        width = out
    return net.extend([nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, classes)])


def trained(train: ConceptSamples, classes: int, seed: int, epochs: int) -> nn.Module:
    torch.manual_seed(seed)
    net = network(classes)
    optimizer = torch.optim.AdamW(net.parameters(), lr=2e-3, weight_decay=0.05)
    steps = epochs * (len(train.images) // 64)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=steps)
    for _ in range(epochs):
        for rows in torch.randperm(len(train.images)).split(64):
            if len(rows) < 64:
                continue
            images = train.images[rows]
            images = torch.where(torch.rand(64, 1, 1, 1) < 0.5, images.flip(3), images)
            top, left = torch.randint(0, 9, (2,)).tolist()
            images = F.pad(images, (4, 4, 4, 4), mode="reflect")[:, :, top : top + SIZE, left : left + SIZE]
            optimizer.zero_grad()
            F.cross_entropy(net(images), train.concepts[rows], label_smoothing=0.1).backward()
            optimizer.step()
            schedule.step()
    return net.eval()


def objects(data: Path, seed: int) -> tuple[ConceptSamples, ConceptSamples, list[str]]:
    folder = MaskedImageFolder(data / "voc_objects", SIZE)
    items = [folder[i] for i in range(len(folder))]
    images, masks = (torch.stack([item[k] for item in items]) for k in (0, 2))
    every = ConceptSamples(2 * images - 1, (masks > 0.5).float(), torch.tensor([item[1] for item in items]))
    order = torch.randperm(len(items), generator=torch.Generator().manual_seed(seed))
    cut = len(items) * 3 // 4
    parts = [ConceptSamples(every.images[x], every.masks[x], every.concepts[x]) for x in (order[:cut], order[cut:])]
    return parts[0], parts[1], list(folder.classes)


def scenes(data: Path) -> tuple[BackgroundBank, dict[str, BackgroundBank]]:
    """Half of the scenes for fitting, the other half by group for testing."""
    bank = BackgroundBank.from_folder(data / "sun_scenes", SIZE)
    assert bank.labels is not None
    assert bank.classes is not None
    odd = torch.arange(len(bank)) % 2 == 1
    place = {name: i for i, name in enumerate(bank.classes)}
    groups = {}
    for group, members in GROUPS.items():
        of = torch.isin(bank.labels, torch.tensor([place[m] for m in members])) & odd
        groups[group] = BackgroundBank(bank.images[of])
    return BackgroundBank(bank.images[~odd]), groups


def synthetic(count: int) -> tuple[BackgroundBank, BackgroundBank]:
    """Backgrounds that no camera saw: drawn scenes of ten kinds, and uniform noise; about ``count`` of each."""
    drawn = draw_scenes(-(-count // 10), SIZE, seed=0).images
    noise = torch.randint(256, (count, 3, SIZE, SIZE), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    return BackgroundBank(drawn), BackgroundBank(noise)


def on(bank: BackgroundBank, pattern: str, seed: int) -> Callable[[Tensor, Tensor], Tensor]:
    def make(images: Tensor, masks: Tensor) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        params = sample_swap_params(images.shape, bank=bank, pattern=pattern, generator=generator)
        return swap_background(images, masks, bank.images, params, mean=[0.5] * 3, std=[0.5] * 3)

    return make


def print_results(result: ConceptTransfer, layers: list[str]) -> None:
    for layer in layers:
        for method in result.methods:
            own = result.values(layer, method)
            for condition in result.conditions:
                values = result.values(layer, method, condition)
                line = f"layer {layer} {method:8s} {condition:9s} original {_mean(values[:, 0]):.3f}"
                line += f"  random {_mean(values[:, 1:].mean(1)):.3f}"
                for what, a, b in (
                    ("original", values[:, 0], own[:, 0]),
                    ("random", values[:, 1:].mean(1), own[:, 1:].mean(1)),
                ):
                    gain = bootstrap_mean_difference(a, b)
                    line += f"  {what} {gain.value:+.3f} ({gain.low:+.3f} to {gain.high:+.3f})"
                place = result.conditions.index(condition)
                cosine = result.cosine_similarity(layer, method)[:, 0, place].mean()
                pairs = biased_pairs(analyse_concepts(result, layer, method=method, condition=condition))
                print(f"{line}  cosine {cosine:.2f}  biased pairs {len(pairs)}", flush=True)
                for row in pairs[:3] if condition == "original" else []:
                    print(f"    {row.concept} on {row.category}: {row.original.value:.2f} -> {row.iou.value:.2f}")


def _mean(values) -> float:  # type: ignore[no-untyped-def]
    return float(values[values == values].mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--figure", type=Path)
    args = parser.parse_args()
    bank, groups = scenes(args.data)
    drawn, noise = synthetic(len(bank))
    for seed in range(args.seeds):
        start = time.perf_counter()
        train, test, names = objects(args.data, seed)
        net = trained(train, len(names), seed, args.epochs)
        with torch.no_grad():
            accuracy = float((net(test.images).argmax(1) == test.concepts).float().mean())
        print(f"seed {seed}: test accuracy {accuracy:.3f} of {len(names)} classes, {time.perf_counter() - start:.0f} s")
        conditions = {
            "paste x 1": on(bank, "paste", seed),
            "paste x 4": [on(bank, "paste", seed + 10 * i) for i in range(4)],
            "voronoi": on(bank, "voronoi", seed),
            "drawn": on(drawn, "paste", seed),
            "noise": on(noise, "paste", seed),
        }
        categories = {name: on(scene, "paste", seed) for name, scene in groups.items()}
        layers = ["1", "2", "3"]
        result = concept_transfer(
            ConceptProbe(net, layers), train, test, conditions=conditions, categories=categories, names=names
        )
        print_results(result, layers)
        print(f"seed {seed}: {time.perf_counter() - start:.0f} s; torch {torch.__version__}", flush=True)
        if args.figure and seed == 0:
            concept_heatmap(analyse_concepts(result, "3")).savefig(args.figure, dpi=120)


if __name__ == "__main__":
    main()
