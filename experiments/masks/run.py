"""How good made masks are, and what the BG-Gap by them is worth: hand-made masks of photographs as the truth.

``make`` writes masks for photographs by a maker and compares them with the given ones; ``gap`` trains a network on
objects composed on scenes and measures its BG-Gap by the true masks, by worse ones and by a maker's. Each run is a line
of results.jsonl. README.md has the commands.
"""

from __future__ import annotations

import argparse
import csv
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch.utils.data import DataLoader, TensorDataset

from experiments.common import add_line, made_with, read_lines
from experiments.masks.remembering import Remembering
from torch_bgdebias.compositing import bounding_boxes
from torch_bgdebias.data import MaskedImageFolder
from torch_bgdebias.files import spread
from torch_bgdebias.masks import MakingSettings, make_masks, mask_maker
from torch_bgdebias.masks.damage import Made, default_damages, overlap
from torch_bgdebias.probe import EvaluationSettings, mask_sensitivity

HERE = Path(__file__).parent


def arguments(words: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("make", "gap"):
        command = commands.add_parser(name)
        command.add_argument("--voc", type=Path, required=True, help="images/<class>/ and masks/<class>/")
        command.add_argument("--with", dest="maker", default="grabcut")
        command.add_argument("--mean", type=float, nargs="+")
        command.add_argument("--std", type=float, nargs="+")
        command.add_argument("--out", type=Path, default=HERE / "results.jsonl")
        command.add_argument("--threads", type=int, default=1)
        command.add_argument("--seed", type=int, default=0)
        command.add_argument("--limit", type=int, help="photographs, spread over all")
    commands.choices["make"].add_argument("--boxes", action="store_true", help="give each object's true box")
    commands.choices["make"].add_argument("--work", type=Path, help="folder for the masks; a stopped run goes on there")
    about = "folder: each picture is shown to the network once, whatever runs there are (of networks without hints)"
    commands.choices["make"].add_argument("--remember", type=Path, help=about)
    commands.choices["gap"].add_argument("--scenes", type=Path, required=True)
    commands.choices["gap"].add_argument("--size", type=int, default=112)
    commands.choices["gap"].add_argument("--correlation", type=float, default=0.8)
    commands.choices["gap"].add_argument("--epochs", type=int, default=4)
    commands.add_parser("table").add_argument("results", type=Path, nargs="*", default=[HERE / "results.jsonl"])
    return parser.parse_args(words)


def make(args: argparse.Namespace) -> dict[str, Any]:
    """Mean intersection over union of a maker's masks with the given ones, by class too."""
    work = Path(tempfile.mkdtemp()) if args.work is None else args.work
    data = MaskedImageFolder(args.voc)
    chosen = spread(range(len(data)), args.limit or len(data))
    pictures, boxes = work / "pictures", work / "boxes.csv"
    rows = []
    for index in chosen:
        sample = data.samples[index]
        name = sample.image.relative_to(args.voc / "images")
        if not (pictures / name).exists():
            (pictures / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(sample.image, pictures / name)
        top, left, bottom, right = bounding_boxes(data[index][2][None])[0].tolist()
        rows.append([name.as_posix(), left, top, right, bottom])
    with boxes.open("w", newline="") as file:
        csv.writer(file).writerows([["image", "left", "top", "right", "bottom"], *rows])
    settings = MakingSettings(boxes=boxes if args.boxes else None, batch_size=1)
    cpu = time.process_time()
    maker = _maker(args) if args.remember is None else Remembering(_maker(args), args.remember)
    outcome = make_masks(pictures, work / "masks", maker, settings=settings)
    seconds = time.process_time() - cpu
    scores: dict[str, list[float]] = {}
    for index, row in zip(chosen, rows, strict=True):
        mask = torch.as_tensor(_grey((work / "masks" / row[0]).with_suffix(".png")))[None, None]
        scores.setdefault(Path(row[0]).parts[0], []).append(float(overlap(mask, data[index][2][None])))
    flat = [score for several in scores.values() for score in several]
    return {
        "photographs": len(flat),
        "iou": sum(flat) / len(flat),
        "median": sorted(flat)[len(flat) // 2],
        "above_half": sum(score > 0.5 for score in flat) / len(flat),
        "by_class": {name: round(sum(values) / len(values), 3) for name, values in sorted(scores.items())},
        # of a run that went on where another had stopped nothing is known
        "cpu_seconds_a_mask": round(seconds / outcome.written, 2) if outcome.written == len(flat) else None,
    }


def gap(args: argparse.Namespace) -> dict[str, Any]:
    """The BG-Gap by true masks, by worse ones and by the maker's, of a network trained on objects on scenes."""
    from experiments.photos.head import train
    from experiments.photos.settings import MEAN, OBJECTS, STD, network, photographs

    data = photographs(args.voc, args.scenes, size=args.size, seed=args.seed, correlation=args.correlation)
    torch.manual_seed(args.seed)
    net = network(len(OBJECTS))
    train(net, data.train, args.epochs)
    image, label, mask = data.tests["own"]
    if args.limit:
        places = torch.tensor(spread(range(len(label)), args.limit))
        image, label, mask = image[places], label[places], mask[places]
    measured = mask_sensitivity(
        net.eval(),
        DataLoader(TensorDataset(image, label, mask), 64),
        settings=EvaluationSettings(mean=MEAN, std=STD, seed=args.seed, attributions=["grad_cam"]),
        damages=[Made(_maker(args)), *default_damages()],
    )
    print(measured.summary())
    outcome = measured.rows[1]
    return {
        "gap": measured.rows[0].figures["bg_gap"],
        "gap_by_maker": outcome.figures["bg_gap"],
        "iou": outcome.overlap,
        "trusted_from": measured.trusted_from(),
        "rows": measured.to_dict()["rows"],
    }


def tables(lines: list[dict[str, Any]]) -> str:
    """Markdown of the lines."""
    out = [f"Made with {made_with(lines)}.", "", "| maker | boxes | photographs | mean IoU | median | above 0.5 |"]
    out.append("| --- | --- | --- | --- | --- | --- |")
    for line in lines:
        if line["settings"]["command"] == "make":
            boxes = "true" if line["settings"]["boxes"] else ""
            out.append(
                f"| {line['settings']['maker']} | {boxes} | {line['photographs']} | {line['iou']:.3f} | "
                f"{line['median']:.3f} | {100 * line['above_half']:.0f} % |"
            )
    out += ["", "| maker | BG-Gap by true masks | by made ones | overlap | within 2 points from |"]
    out.append("| --- | --- | --- | --- | --- |")
    for line in lines:
        if line["settings"]["command"] == "gap":
            least = "never" if line["trusted_from"] is None else f"{line['trusted_from']:.2f}"
            out.append(
                f"| {line['settings']['maker']} | {100 * line['gap']:.1f} | {100 * line['gap_by_maker']:.1f} | "
                f"{line['iou']:.2f} | {least} |"
            )
    return "\n".join(out)


def main() -> None:
    args = arguments()
    if args.command == "table":
        print(tables(read_lines(args.results)))
        return
    torch.set_num_threads(args.threads)
    figures = make(args) if args.command == "make" else gap(args)
    left_out = ("voc", "scenes", "out", "work", "maker", "threads", "remember")
    settings = {name: value for name, value in vars(args).items() if name not in left_out}
    line = add_line(args.out, {**settings, "maker": args.maker.partition(":")[0]}, **figures)
    print({name: value for name, value in line.items() if name not in ("rows", "versions", "machine")})


def _maker(args: argparse.Namespace) -> Any:
    return mask_maker(args.maker, mean=args.mean, std=args.std)


def _grey(path: Path) -> Any:
    import numpy as np

    return np.asarray(Image.open(path), np.float32) / 255


if __name__ == "__main__":
    main()
