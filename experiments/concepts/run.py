"""Do concept vectors contain the background? VOC objects on SUN scenes, with networks trained here.

    python -m experiments.concepts.run measure --data DIR [--seeds 0] [--figure FILE] [--network lite0]
    python -m experiments.concepts.run table

DIR holds voc_objects/ (images/ and masks/) and sun_scenes/ (<category>/*.jpg). A small network is trained on the
original images; Net2Vec and LoCE vectors are fitted on its training images as they are, pasted on one scene or on four,
over Voronoi patches of scenes, or on synthetic backgrounds (the package's drawn scenes, uniform noise), and tested on
the test images as they are and on held-out scenes of ten groups. The question is arXiv 2504.08602's, whose networks saw
ImageNet. ``measure`` appends a line a seed to ``results.jsonl`` beside this file; ``table`` lays them out in Markdown.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from experiments.common import add_line, made_with, read_lines
from experiments.photos.settings import MEAN, STD, network as lite0
from torch_bgdebias.backgrounds import BackgroundBank
from torch_bgdebias.concepts import ConceptProbe, ConceptSamples, ConceptTransfer, concept_transfer
from torch_bgdebias.concepts.probe import METHODS
from torch_bgdebias.data import MaskedImageFolder, draw_scenes
from torch_bgdebias.metrics import bootstrap_mean_difference
from torch_bgdebias.probe import analyse_concepts, biased_pairs, concept_heatmap
from torch_bgdebias.swap import sample_swap_params, swap_background

RESULTS = Path(__file__).with_name("results.jsonl")
#: of the network that is trained here
SIZE, LAYERS = 64, ("1", "2", "3")
#: of EfficientNet-Lite0 with ImageNet's weights, which stays as it is
PRETRAINED_SIZE, PRETRAINED_LAYERS = 112, ("net.blocks.2", "net.blocks.4", "net.blocks.6")
CONDITIONS = ("paste x 1", "paste x 4", "voronoi", "drawn", "noise")
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


class Pretrained(nn.Module):
    """EfficientNet-Lite0 for images in [-1, 1], as all of them are here."""

    def __init__(self) -> None:
        super().__init__()
        self.net = lite0(2)  # of its classes nothing is asked

    def forward(self, image: Tensor) -> Tensor:
        mean, std = (torch.tensor(values).view(3, 1, 1) for values in (MEAN, STD))
        logits: Tensor = self.net(((image + 1) / 2 - mean) / std)
        return logits


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


def objects(data: Path, size: int, seed: int) -> tuple[ConceptSamples, ConceptSamples, list[str]]:
    folder = MaskedImageFolder(data / "voc_objects", size)
    items = [folder[i] for i in range(len(folder))]
    images, masks = (torch.stack([item[k] for item in items]) for k in (0, 2))
    every = ConceptSamples(2 * images - 1, (masks > 0.5).float(), torch.tensor([item[1] for item in items]))
    order = torch.randperm(len(items), generator=torch.Generator().manual_seed(seed))
    cut = len(items) * 3 // 4
    parts = [ConceptSamples(every.images[x], every.masks[x], every.concepts[x]) for x in (order[:cut], order[cut:])]
    return parts[0], parts[1], list(folder.classes)


def scenes(data: Path, size: int) -> tuple[BackgroundBank, dict[str, BackgroundBank]]:
    """Half of the scenes for fitting, the other half by group for testing."""
    bank = BackgroundBank.from_folder(data / "sun_scenes", size)
    assert bank.labels is not None
    assert bank.classes is not None
    odd = torch.arange(len(bank)) % 2 == 1
    place = {name: i for i, name in enumerate(bank.classes)}
    groups = {}
    for group, members in GROUPS.items():
        of = torch.isin(bank.labels, torch.tensor([place[m] for m in members])) & odd
        groups[group] = BackgroundBank(bank.images[of])
    return BackgroundBank(bank.images[~odd]), groups


def synthetic(count: int, size: int) -> tuple[BackgroundBank, BackgroundBank]:
    """Backgrounds that no camera saw: drawn scenes of ten kinds, and uniform noise; about ``count`` of each."""
    drawn = draw_scenes(-(-count // 10), size, seed=0).images
    noise = torch.randint(256, (count, 3, size, size), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    return BackgroundBank(drawn), BackgroundBank(noise)


def on(bank: BackgroundBank, pattern: str, seed: int) -> Callable[[Tensor, Tensor], Tensor]:
    def make(images: Tensor, masks: Tensor) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        params = sample_swap_params(images.shape, bank=bank, pattern=pattern, generator=generator)
        return swap_background(images, masks, bank.images, params, mean=[0.5] * 3, std=[0.5] * 3)

    return make


def figures(result: ConceptTransfer, layers: list[str]) -> list[dict[str, Any]]:
    """A row for each layer, method and kind of background: mean IoU, and its difference from the originals' vectors."""
    rows = []
    for layer in layers:
        for method in result.methods:
            own = result.values(layer, method)
            for place, condition in enumerate(result.conditions):
                values = result.values(layer, method, condition)
                row = {"layer": layer, "method": method, "fitted_on": condition}
                for tested, ious, reference in (
                    ("original", values[:, 0], own[:, 0]),
                    ("random", values[:, 1:].mean(1), own[:, 1:].mean(1)),
                ):
                    gain = bootstrap_mean_difference(ious, reference)
                    row[tested] = float(ious[ious == ious].mean())  # without NaN
                    row[f"{tested}_gain"] = [gain.value, gain.low, gain.high]
                row["cosine"] = float(result.cosine_similarity(layer, method)[:, 0, place].mean())
                pairs = biased_pairs(analyse_concepts(result, layer, method=method, condition=condition))
                row["biased_pairs"] = [
                    [pair.concept, pair.category, pair.original.value, pair.iou.value] for pair in pairs
                ]
                rows.append(row)
    return rows


def tables(lines: list[dict[str, Any]]) -> str:
    """For each line and method: mean IoU, in parentheses the interval of the difference from vectors of originals."""
    parts = []
    for line in lines:
        settings = ", ".join(f"{name} {value}" for name, value in line["settings"].items())
        accuracy = "as it is" if line["accuracy"] is None else f"test accuracy {line['accuracy']:.3f}"
        parts.append(f"{settings}: {accuracy} ({made_with([line])})")
        for method in dict.fromkeys(row["method"] for row in line["rows"]):
            parts.append(f"{method}:\n\n{table([row for row in line['rows'] if row['method'] == method])}")
    return "\n\n".join(parts)


def table(rows: list[dict[str, Any]]) -> str:
    layers = list(dict.fromkeys(row["layer"] for row in rows))
    heads = [f"layer {layer}, {tested}" for layer in layers for tested in ("original", "random")]
    text = ["| fitted on | " + " | ".join(heads) + " |", "|" + " --- |" * (len(heads) + 1)]
    for condition in dict.fromkeys(row["fitted_on"] for row in rows):
        cells = []
        for row in (row for row in rows if row["fitted_on"] == condition):
            for tested in ("original", "random"):
                _, low, high = row[f"{tested}_gain"]
                gain = "" if condition == "original" else f" ({low:+.3f} to {high:+.3f})"
                cells.append(f"{row[tested]:.3f}{gain}")
        text.append(f"| {condition} | " + " | ".join(cells) + " |")
    return "\n".join(text)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    words = commands.add_parser("measure", formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    words.add_argument("--data", type=Path, required=True)
    words.add_argument("--out", type=Path, default=RESULTS, help="lines, to which one a seed is added")
    words.add_argument("--seeds", type=int, nargs="+", default=[0])
    words.add_argument("--epochs", type=int, default=40, help="of the network's training")
    words.add_argument("--network", choices=("small", "lite0"), default="small", help="trained here, or ImageNet's")
    words.add_argument("--layers", nargs="+", help=f"default: {', '.join(LAYERS)}; {', '.join(PRETRAINED_LAYERS)}")
    words.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    words.add_argument("--conditions", nargs="+", choices=CONDITIONS, default=list(CONDITIONS), help="to fit on")
    words.add_argument("--figure", type=Path, help="heatmap of the first seed's last layer")
    words.add_argument("--threads", type=int, default=1)
    shown = commands.add_parser("table", help="the lines as Markdown")
    shown.add_argument("results", type=Path, nargs="*", default=[RESULTS])
    return parser.parse_args()


def measured(args: argparse.Namespace, train: ConceptSamples, test: ConceptSamples, classes: int, seed: int) -> Any:
    """The network and its accuracy on the test images, where it knows their classes."""
    if args.network == "lite0":
        return Pretrained().eval(), None
    net = trained(train, classes, seed, args.epochs)
    with torch.no_grad():
        return net, float((net(test.images).argmax(1) == test.concepts).float().mean())


def measure(args: argparse.Namespace) -> None:
    torch.set_num_threads(args.threads)
    size, layers = (PRETRAINED_SIZE, PRETRAINED_LAYERS) if args.network == "lite0" else (SIZE, LAYERS)
    args.layers = args.layers or list(layers)
    bank, groups = scenes(args.data, size)
    drawn, noise = synthetic(len(bank), size)
    for seed in args.seeds:
        start = time.process_time()
        train, test, names = objects(args.data, size, seed)
        net, accuracy = measured(args, train, test, len(names), seed)
        print(f"seed {seed}: test accuracy {accuracy}, {time.process_time() - start:.0f} s of CPU", flush=True)
        conditions = {
            "paste x 1": on(bank, "paste", seed),
            "paste x 4": [on(bank, "paste", seed + 10 * i) for i in range(4)],
            "voronoi": on(bank, "voronoi", seed),
            "drawn": on(drawn, "paste", seed),
            "noise": on(noise, "paste", seed),
        }
        conditions = {name: conditions[name] for name in args.conditions}
        categories = {name: on(scene, "paste", seed) for name, scene in groups.items()}
        result = concept_transfer(
            ConceptProbe(net, args.layers), train, test, conditions=conditions, categories=categories, names=names,
            methods=args.methods,
        )  # fmt: skip
        rows = figures(result, args.layers)
        settings = {name: getattr(args, name) for name in ("network", "epochs", "layers", "methods", "conditions")}
        settings |= {"seed": seed, "size": size}
        seconds = round(time.process_time() - start, 1)
        line = add_line(
            args.out, settings, accuracy=accuracy, classes=len(names), training_images=len(train.images),
            test_images=len(test.images), rows=rows, cpu_seconds=seconds,
        )  # fmt: skip
        print(tables([line]), flush=True)
        if args.figure and seed == args.seeds[0]:
            concept_heatmap(analyse_concepts(result, args.layers[-1])).savefig(args.figure, dpi=120)


def main() -> None:
    args = arguments()
    if args.command == "measure":
        measure(args)
    else:
        print(tables(read_lines(args.results)))


if __name__ == "__main__":
    main()
