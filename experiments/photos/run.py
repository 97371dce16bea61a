"""Does it work on real photographs with a pretrained network? One training a method and seed, one JSON line each.

    python -m experiments.photos.run train --voc DIR --scenes DIR --method plain isnet-selective --seed 0 1 2
    python -m experiments.photos.run table experiments/photos/results.jsonl

DIR of --voc holds images/<class>/ and masks/<class>/, that of --scenes <category>/*.jpg; settings.py says which. Every
method gets the same network, data, epochs and learning rates. Printed: accuracy on test objects on scenes of their own
class, on scenes of any class, and on the test photographs as they are, which no composite resembles.
"""

from __future__ import annotations

import argparse
import json
import logging
import platform
import statistics
import time
import warnings
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader, Dataset

from experiments.common import accuracy, read_lines
from experiments.photos.attributed import pixel_ratios
from experiments.photos.made import with_made_masks
from experiments.photos.settings import MEAN, OBJECTS, STD, Photographs, Samples, freeze, network, norms, photographs
from torch_bgdebias import BackgroundSwap, ISNetLoss
from torch_bgdebias.callbacks import BackgroundSwapCallback, CLADCallback, ISNetCallback
from torch_bgdebias.masks import mask_maker
from torch_bgdebias.swap import Placement

METHODS = (
    "plain", "swap", "swap-voronoi", "CLAD", "CLAD+", "isnet-selective", "isnet-stochastic", "isnet-dual",
    "isnet-original", "isnet-gradient", "isnet-paper",
)  # fmt: skip
TESTS = ("own", "random", "photographs", "objects")
TITLES = ("own", "random", "photographs", "objects alone")


def arguments(given: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("train", formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    run.add_argument("--voc", type=Path, required=True)
    run.add_argument("--scenes", type=Path, required=True)
    run.add_argument("--out", type=Path, default=Path("experiments/photos/results.jsonl"))
    words = f"{', '.join(METHODS)}, or several of them at once: swap,isnet-selective"
    run.add_argument("--method", nargs="+", default=["plain"], metavar="METHOD", help=words)
    run.add_argument("--seed", type=int, nargs="+", default=[0])
    run.add_argument("--correlation", type=float, default=1.0, help="share of objects on their class's own scenes")
    run.add_argument("--size", type=int, default=112)
    run.add_argument("--epochs", type=int, default=4)
    run.add_argument("--batch", type=int, default=32)
    run.add_argument("--lr", type=float, default=3e-4, help="of all but the last layer")
    run.add_argument("--head-lr", type=float, default=3e-3)
    run.add_argument("--clip", type=float, default=1.0)
    run.add_argument("--freeze", type=int, default=0, help="stages of the network that stay as they are, 0 to 7")
    run.add_argument("--freeze-norms", action="store_true", help="batch norms keep their statistics")
    run.add_argument("--average", type=float, default=0.95, help="decay a step of the running mean of the weights")
    swap = run.add_argument_group("swap, also that of CLAD; without a word the module's defaults")
    words = "objects move by a SHARE of the free way, LEAST to MOST of their size, and half of them are flipped"
    swap.add_argument("--move", type=float, nargs=3, metavar=("SHARE", "LEAST", "MOST"), help=words)
    swap.add_argument("--edge", type=float, default=0.0)
    isnet = run.add_argument_group("ISNet; without a word the callback's defaults")
    isnet.add_argument("--weight", type=float, help="P")
    isnet.add_argument("--layers", nargs="+", help="stages whose outputs are explained too, such as blocks.2")
    isnet.add_argument("--hidden-only", action="store_true", help="those stages and not the image")
    isnet.add_argument("--dimming", type=float)
    isnet.add_argument("--epsilon", type=float)
    run.add_argument(
        "--masks", metavar="MAKER", help="who makes the training masks (grabcut, ...); None: the true ones"
    )
    run.add_argument("--mask-boxes", action="store_true", help="the maker is given each object's true box")
    run.add_argument("--attributions", action="store_true", help="pixel ratios of the trained network as well")
    run.add_argument("--untrained", action="store_true", help="the network without its pretrained weights")
    run.add_argument("--threads", type=int, default=1)
    table = commands.add_parser("table")
    table.add_argument("results", type=Path, nargs="+")
    table.add_argument("--averaged", action="store_true", help="accuracy of the averaged weights, not of the last")
    return parser.parse_args(given)


class Classifier(pl.LightningModule):
    """What anyone would write: it knows nothing of masks and backgrounds."""

    def __init__(self, args: argparse.Namespace) -> None:
        super().__init__()
        self.net = network(len(OBJECTS), pretrained=not args.untrained)
        self.args = args
        freeze(self.net, args.freeze)

    def forward(self, image: Tensor) -> Tensor:
        return self.net(image)

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        for norm in norms(self.net, frozen_only=not self.args.freeze_norms):
            norm.eval()

    def training_step(self, batch: tuple[Tensor, ...], batch_idx: int) -> Tensor:
        return F.cross_entropy(self(batch[0]), batch[1])

    def configure_optimizers(self) -> Any:
        head = list(self.net.classifier.parameters())
        body = [p for name, p in self.net.named_parameters() if p.requires_grad and "classifier" not in name]
        rates = [self.args.lr, self.args.head_lr] if body else [self.args.head_lr]
        groups = [body, head] if body else [head]
        optimizer = torch.optim.AdamW([{"params": group} for group in groups], self.args.lr, weight_decay=1e-2)
        steps = self.trainer.estimated_stepping_batches
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rates, total_steps=int(steps))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


class Averaging(pl.Callback):
    """A running mean of the weights beside the training; it starts with few steps' mean."""

    def __init__(self, decay: float) -> None:
        self.decay, self.model = decay, AveragedModel(torch.nn.Identity())

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        mean = get_ema_multi_avg_fn(self.decay)
        self.model = AveragedModel(pl_module.net, multi_avg_fn=mean, use_buffers=True)

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any) -> None:
        self.model.update_parameters(pl_module.net)


def callbacks(method: str, args: argparse.Namespace) -> list[pl.Callback]:
    """The method with its defaults; of several, one after the other."""
    if "," in method:
        return [callback for part in method.split(",") for callback in callbacks(part, args)]
    if method not in METHODS:
        raise ValueError(f"--method: expected one of {', '.join(METHODS)}, got {method!r}")
    if method == "plain":
        return []
    placement = Placement(args.move[0], tuple(args.move[1:]), 0.5) if args.move else None
    pattern = "voronoi" if method.endswith("voronoi") else "paste"
    swap = BackgroundSwap("batch", pattern, edge=args.edge, placement=placement)
    if method.startswith("swap"):
        return [BackgroundSwapCallback(swap)]
    if method.startswith("CLAD"):
        return [CLADCallback(swap, plus=method == "CLAD+")]
    asked = {
        "weight": args.weight, "deep_supervision": args.layers and [f"net.{layer}" for layer in args.layers],
        "dimming": args.dimming, "epsilon": args.epsilon, "at_input": False if args.hidden_only else None,
    }  # fmt: skip
    options = {name: value for name, value in asked.items() if value is not None}
    if not args.hidden_only:
        options |= {"mean": MEAN, "std": STD}
    if method == "isnet-gradient":
        return [ISNetCallback("selective", attribution="gradient", **options)]
    if method == "isnet-paper":
        return [ISNetCallback("selective", loss=ISNetLoss.paper(), balance=None, **options)]
    return [ISNetCallback(method.removeprefix("isnet-"), **options)]


def fit(
    module: Classifier, data: Dataset[Any], args: argparse.Namespace, extra: Sequence[pl.Callback] = ()
) -> tuple[nn.Module, dict[str, Any]]:
    """Train, and return the averaged network, the seconds and what was logged."""
    averaging = Averaging(args.average)
    trainer = pl.Trainer(
        max_epochs=args.epochs, accelerator="cpu", logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, gradient_clip_val=args.clip,
        callbacks=[*extra, averaging],
    )  # fmt: skip
    wall, cpu = time.perf_counter(), time.process_time()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*does not have many workers.*")
        warnings.filterwarnings("ignore", message=".*LeafSpec.*")
        trainer.fit(module, DataLoader(data, args.batch, shuffle=True, drop_last=True))
    seconds = {"seconds": round(time.perf_counter() - wall, 1), "cpu_seconds": round(time.process_time() - cpu, 1)}
    return averaging.model, {
        **seconds,
        "logged": {k: round(float(v), 3) for k, v in trainer.callback_metrics.items()},
    }


def about(args: argparse.Namespace, data: Photographs) -> dict[str, Any]:
    """What a line says of how it came about."""
    left_out = ("voc", "scenes", "out", "command", "method", "seed")
    return {
        "settings": {name: value for name, value in vars(args).items() if name not in left_out},
        "images": {"train": len(data.train), "photographs": len(data.tests["photographs"][1])},
        "versions": {"torch": torch.__version__, "timm": timm.__version__, "python": platform.python_version()},
        "machine": f"{platform.machine()}, {args.threads} threads", "date": time.strftime("%Y-%m-%d"),
    }  # fmt: skip


def run(method: str, seed: int, args: argparse.Namespace) -> dict[str, Any]:
    """Train and test one network."""
    data = photographs(args.voc, args.scenes, size=args.size, seed=seed, correlation=args.correlation)
    quality: dict[str, float] = {}
    if args.masks is not None:
        data, quality["masks_overlap"] = with_made_masks(data, mask_maker(args.masks), boxes=args.mask_boxes)
    pl.seed_everything(seed, verbose=False)
    module = Classifier(args)
    averaged, cost = fit(module, data.train, args, callbacks(method, args))
    scores = {
        name: {test: round(accuracy(net, *data.tests[test][:2]), 1) for test in TESTS}
        for name, net in (("last", module.net), ("averaged", averaged))
    }
    line = {"method": method, "seed": seed, **scores, **cost, **quality, **about(args, data)}
    if args.attributions:
        line["pixel_ratio"] = pixel_ratios(module.net.eval(), once(data.tests["random"]))
    return line


def once(samples: Samples) -> Samples:
    """Every test object once: the first third, as `photographs` puts each on three scenes."""
    image, label, mask = (values[: len(values) // 3] for values in samples)
    return image, label, mask


#: settings that concern some methods alone: what their names hold -> the settings
OF_METHODS = {
    "isnet": ("weight", "layers", "hidden_only", "dimming", "epsilon"),
    "swap": ("move", "edge"),
    "CLAD": ("move", "edge"),
}


def table(lines: Sequence[dict[str, Any]], *, averaged: bool = False) -> str:
    """Markdown, one table a way of training: mean and sample standard deviation over seeds."""
    groups: dict[str, dict[str, list[dict[str, Any]]]] = defaultdict(lambda: defaultdict(list))
    for line in lines:
        training, label = _labels(line)
        groups[training][label].append(line)
    parts = []
    for training, rows in groups.items():
        parts += [
            f"`{training or 'defaults'}`:",
            "",
            f"| method | {' | '.join(TITLES)} | seeds | s of CPU |",
            "| --- |" + " --- |" * 6,
        ]
        for label, runs in rows.items():
            cells = []
            for test in TESTS:
                values = [run["averaged" if averaged else "last"][test] for run in runs]
                spread = f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else ""
                cells.append(f"{statistics.mean(values):.1f}{spread}")
            cpu = statistics.mean(run["cpu_seconds"] for run in runs)
            parts.append(f"| {label} | {' | '.join(cells)} | {len(runs)} | {cpu:.0f} |")
        parts.append("")
    return "\n".join(parts)


def _labels(line: dict[str, Any]) -> tuple[str, str]:
    """What all methods of a table share, as words of the command line, and the method with what differs for it."""
    plain = vars(arguments(["train", "--voc", ".", "--scenes", "."]))
    changed = {k: v for k, v in line["settings"].items() if k not in ("threads", "attributions") and v != plain[k]}
    special = {name for names in OF_METHODS.values() for name in names}
    own = {name for kind, names in OF_METHODS.items() if kind in line["method"] for name in names} | {"correlation"}

    def words(settings: dict[str, Any]) -> str:
        shown = []
        for name, value in settings.items():
            given = "" if value is True else " " + " ".join(map(str, value if isinstance(value, list) else [value]))
            shown.append(f"--{name.replace('_', '-')}{given}")
        return " ".join(shown)

    shared = {k: v for k, v in changed.items() if k not in special | {"correlation"}}
    label = ", ".join(
        [line["method"], *([words({k: v for k, v in changed.items() if k in own})] if changed.keys() & own else [])]
    )
    return words(shared), label


def main() -> None:
    args = arguments()
    if args.command == "table":
        print(table(read_lines(args.results), averaged=args.averaged))
        return
    torch.set_num_threads(args.threads)
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    for seed in args.seed:
        for method in args.method:
            callbacks(method, args)  # an unknown one ends before the data are read
            result = run(method, seed, args)
            with args.out.open("a") as file:
                file.write(json.dumps(result) + "\n")
            shown = {k: result[k] for k in ("method", "seed", "last", "averaged", "cpu_seconds", "logged")}
            print(json.dumps(shown), flush=True)


if __name__ == "__main__":
    main()
