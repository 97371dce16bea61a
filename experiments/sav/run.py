"""Does a background that gives the class away draw a network's attention to it? The experiment of arXiv 2512.05937.

    python -m experiments.sav.run train --data DATA --seeds 0 1 2
    python -m experiments.sav.run train ... --cameras medium --shapes circular triangular
    python -m experiments.sav.run table [--classes]
    python -m experiments.sav.run figure sav.png

Traffic signs (DATA/gtsrb_signs) over scenes (DATA/sun_scenes): training with each class in front of its own kind of
scene (correlated) or any (uncorrelated), at three camera levels; each network tested on both. ``train`` trains the
cells of the design that are not in ``results.jsonl`` beside this file yet, one line each with every image's result;
``table`` and ``figure`` compute everything from these.
"""

from __future__ import annotations

import argparse
import itertools
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from experiments.common import add_line, read_lines
from experiments.sav import settings
from experiments.sav.settings import Part
from experiments.sav.table import CELL, show, write_figure
from torch_bgdebias.attribution import grad_cam, kernel_shap
from torch_bgdebias.data import CAMERAS
from torch_bgdebias.metrics import pixel_ratio

TRAININGS = ("correlated", "uncorrelated")
NETWORKS = ("cnn", "convnext")
RESULTS = Path(__file__).with_name("results.jsonl")
NOT_A_SETTING = ("command", "data", "out", "trainings", "cameras", "shapes", "seeds", "threads")


def arguments(words: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("train", formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    run.add_argument("--data", type=Path, required=True)
    run.add_argument("--out", type=Path, default=RESULTS, help="lines; cells that are in it are not run again")
    run.add_argument("--trainings", nargs="+", choices=TRAININGS, default=TRAININGS)
    run.add_argument("--cameras", nargs="+", choices=CAMERAS, default=list(CAMERAS))
    run.add_argument("--shapes", nargs="+", choices=("mixed", *settings.SHAPES), default=["mixed"])
    run.add_argument("--seeds", nargs="+", type=int, default=[0])
    run.add_argument("--correlation", type=float, default=1.0, help="of the correlated training")
    run.add_argument("--draws", type=int, default=16, help="pictures made of each training sign")
    run.add_argument("--steps", type=int, default=1200)
    run.add_argument("--batch", type=int, default=64)
    run.add_argument("--lr", type=float, default=1e-2)
    run.add_argument("--network", choices=NETWORKS, default="cnn", help="a small ConvNeXt of timm's, or five layers")
    run.add_argument("--widths", type=int, nargs="+", default=[16, 32, 64, 64, 64])
    run.add_argument("--test-draws", type=int, default=2, help="pictures made of each test sign")
    run.add_argument("--shap-draws", type=int, default=1, help="of these, how many are explained by KernelSHAP")
    run.add_argument("--samples", type=int, default=500, help="KernelSHAP's coalitions")
    run.add_argument("--threads", type=int, default=1)
    table = commands.add_parser("table", help="Markdown tables with intervals and tests")
    table.add_argument("results", type=Path, nargs="*", default=[RESULTS])
    table.add_argument("--classes", action="store_true", help="a row a class of signs")
    figure = commands.add_parser("figure", help="accuracy and pixel ratio by cell")
    figure.add_argument("picture", type=Path)
    figure.add_argument("results", type=Path, nargs="*", default=[RESULTS])
    return parser.parse_args(words)


def train(part: Part, index: Tensor, cell: dict[str, Any], args: argparse.Namespace, classes: int) -> nn.Module:
    correlation = args.correlation if cell["training"] == "correlated" else 0.0
    camera, seed = cell["camera"], cell["seed"]
    drawn = [part.compose(correlation, camera, draw, index, seed) for draw in range(args.draws)]
    image, label = (torch.cat([one[k] for one in drawn]) for k in (0, 1))
    torch.manual_seed(seed)
    net = settings.convnext(classes) if args.network == "convnext" else settings.network(classes, tuple(args.widths))
    optimizer = torch.optim.AdamW(net.parameters(), args.lr, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, args.lr, total_steps=args.steps)
    net.train()
    for _ in range(args.steps):
        chosen = torch.randint(len(label), (args.batch,))
        loss = nn.functional.cross_entropy(net(image[chosen].float() / 255), label[chosen])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return net.eval()


def test(net: nn.Module, part: Part, index: Tensor, correlation: float, camera: str, args: argparse.Namespace) -> Any:
    """Columns of one entry an image; the images are the same for every network that is tested at this camera level."""
    columns: dict[str, list[Any]] = {}
    for draw in range(args.test_draws):
        image, label, mask, category = part.compose(correlation, camera, draw, index)
        image, mask = image.float() / 255, mask.float() / 255
        with torch.no_grad():
            predicted = net(image).argmax(1)
        values_of = {
            "sign": index, "draw": torch.full_like(index, draw), "track": part.track[index], "label": label,
            "background": category, "predicted": predicted, "mask_share": mask.mean((1, 2, 3)),
            "grad_cam": pixel_ratio(grad_cam(net, image, predicted), mask),
            "kernel_shap": torch.full_like(mask[:, 0, 0, 0], torch.nan),
        }  # fmt: skip
        if draw < args.shap_draws:
            generator = torch.Generator().manual_seed(draw)  # the same coalitions for every network
            shap = kernel_shap(net, image, predicted, samples=args.samples, generator=generator)
            values_of["kernel_shap"] = pixel_ratio(shap.attribution, mask)
        for name, values in values_of.items():
            columns.setdefault(name, []).extend(map(entry, values.tolist()))
    return columns


def entry(value: float | int) -> float | int | None:
    """For JSON, which has no NaN."""
    if isinstance(value, int):
        return value
    return None if value != value else round(value, 5)


def run(args: argparse.Namespace) -> None:
    torch.set_num_threads(args.threads)
    train_part, test_part, classes = settings.load(args.data)
    shared = {name: value for name, value in vars(args).items() if name not in NOT_A_SETTING}
    if args.network == "cnn":  # of which the first lines do not speak
        del shared["network"]
    for values in itertools.product(args.trainings, args.cameras, args.shapes, args.seeds):
        cell = dict(zip(CELL, values, strict=True))
        if {**shared, **cell} in done(args.out):
            print(f"{cell}: there already")
            continue
        start, cpu = time.perf_counter(), time.process_time()
        net = train(train_part, settings.members_of(train_part, classes, cell["shape"]), cell, args, len(classes))
        index = settings.members_of(test_part, classes, cell["shape"])
        tests = {
            name: test(net, test_part, index, correlation, cell["camera"], args)
            for name, correlation in zip(TRAININGS, (1.0, 0.0), strict=True)
        }
        result = add_line(
            args.out, {**shared, **cell}, classes=classes, tests=tests,
            seconds=round(time.perf_counter() - start, 1), cpu_seconds=round(time.process_time() - cpu, 1),
        )  # fmt: skip
        right = {k: sum(map(int.__eq__, v["label"], v["predicted"])) / len(v["label"]) for k, v in tests.items()}
        print(f"{cell}: accuracy {right}, {result['cpu_seconds']} s of CPU", flush=True)


def done(path: Path) -> list[dict[str, Any]]:
    """Settings of the cells that are in a file."""
    return [row["settings"] for row in read_lines([path])] if path.exists() else []


def main() -> None:
    args = arguments()
    if args.command == "train":
        run(args)
    elif args.command == "table":
        print(show(read_lines(args.results), by_class=args.classes))
    else:
        write_figure(read_lines(args.results), args.picture)


if __name__ == "__main__":
    main()
