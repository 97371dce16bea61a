"""Does CLAD remove background bias, and how do lambda, temperature and queue size matter?

    python -m experiments.clad.run train --data DIR --experiment mnist | voc | ablation
    python -m experiments.clad.run table

DIR holds mnist/ (idx files), voc_objects/ (images/ and masks/) and sun_scenes/ (<category>/*.jpg). ``train`` appends a
line a run to ``results.jsonl`` beside this file; ``table`` lays the lines together in Markdown.
"""

from __future__ import annotations

import argparse
import logging
import statistics
import time
import warnings
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from torch import Tensor

from experiments.clad.settings import SETTINGS, Batches, Setting, small_cnn
from experiments.common import accuracy, add_line, made_with, read_lines
from torch_bgdebias import BatchSpec
from torch_bgdebias.callbacks import BackgroundSwapCallback, CLADCallback
from torch_bgdebias.swap import BackgroundSwap

METHODS = ("baseline", "swap", "swap, another class", "CLAD", "CLAD+")
MEASURES = ("mixed_same", "mixed_rand", "gap")
RESULTS = Path(__file__).with_name("results.jsonl")
#: what the runs of one table have in common, and what its rows say of each (where a run has it)
SHARED = ("experiment", "epochs", "network", "source", "batch", "lr")
ROW = ("correlation", "method", "weight", "temperature", "num_negatives", "joint")


class Classifier(pl.LightningModule):
    """What anyone would write: it knows nothing of masks and backgrounds."""

    def __init__(self, classes: int, size: int, steps: int, lr: float, network: str) -> None:
        super().__init__()
        self.model = small_cnn(classes, size, network)
        self.steps, self.lr = steps, lr

    def forward(self, image: Tensor) -> Tensor:
        return self.model(image)

    def training_step(self, batch: tuple[Tensor, ...], batch_idx: int) -> Tensor:
        return F.cross_entropy(self(batch[0]), batch[1])

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.Adam(self.parameters(), lr=self.lr)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, self.lr, total_steps=self.steps)
        return [optimizer], [{"scheduler": schedule, "interval": "step"}]


def callbacks(method: str, setting: Setting, args: argparse.Namespace, options: dict[str, Any]) -> list[pl.Callback]:
    if method == "baseline":
        return []
    by_background = setting.classes != setting.categories
    source = "batch" if args.source == "batch" else setting.scenes
    swap = BackgroundSwap(source, different_class=True if method == "swap, another class" else None)
    spec = BatchSpec(background_label=3 if by_background else None)
    if method.startswith("swap"):
        return [BackgroundSwapCallback(swap, BatchSpec(label=3) if by_background else BatchSpec(), seed=args.seed)]
    keys = setting.categories if by_background else None
    options = {"weight": args.weight, **options}
    return [CLADCallback(swap, num_classes=keys, plus=method == "CLAD+", spec=spec, seed=args.seed, **options)]


def run(
    setting: Setting, method: str, correlation: float, args: argparse.Namespace, options: dict[str, Any]
) -> dict[str, Any]:
    """Train and test one model; its line, which is in the file."""
    torch.manual_seed(args.seed)
    loader = Batches(setting, correlation, args.seed).loader(args.batch)
    size = setting.train.images.shape[-1]
    model = Classifier(setting.classes, size, args.epochs * len(loader), args.lr, args.network)
    trainer = pl.Trainer(
        max_epochs=args.epochs, accelerator="cpu", logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, callbacks=callbacks(method, setting, args, options),
    )  # fmt: skip
    start = time.process_time()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*does not have many workers.*")
        warnings.filterwarnings("ignore", message=".*LeafSpec.*")
        trainer.fit(model, loader)
    seconds = time.process_time() - start
    draws = 1 if setting.fixed else 5  # few test foregrounds: each on several backgrounds
    same, rand = (
        statistics.mean(accuracy(model, *setting.test_set(c, draw)[:2]) for draw in range(draws)) for c in (1.0, 0.0)
    )
    settings = {name: getattr(args, name) for name in ("seed", *SHARED)}
    settings |= {"correlation": correlation, "method": method}
    settings |= {"weight": args.weight, **options} if method.startswith("CLAD") else {}
    measured = {"mixed_same": same, "mixed_rand": rand, "gap": same - rand}
    line = add_line(args.out, settings, **measured, cpu_seconds=round(seconds, 1))
    shown = [f"{name} {value}" for name, value in settings.items() if name not in SHARED]
    shown += [f"{name} {value:.1f}" for name, value in measured.items()]
    print("  ".join(shown), f" {seconds:.0f} s of CPU", flush=True)
    return line


def tables(lines: list[dict[str, Any]]) -> str:
    """A Markdown table for each set of shared settings: means over seeds and their sample standard deviation."""
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for line in lines:
        groups.setdefault(tuple(line["settings"][name] for name in SHARED), []).append(line)
    parts = []
    for shared, runs in groups.items():
        columns = [name for name in ROW if any(name in r["settings"] for r in runs)]
        about = ", ".join(f"{name} {value}" for name, value in zip(SHARED, shared, strict=True))
        parts.append(f"{about} ({made_with(runs)}):\n\n{table(runs, columns)}")
    return "\n\n".join(parts)


def table(lines: list[dict[str, Any]], columns: list[str]) -> str:
    """Runs that differ in their seed alone are one row."""
    rows: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for line in lines:
        rows.setdefault(tuple(line["settings"].get(name, "") for name in columns), []).append(line)
    text = ["| " + " | ".join([*columns, *MEASURES, "seeds"]) + " |", "|" + " --- |" * (len(columns) + 4)]
    for key, runs in rows.items():
        cells = []
        for measure in MEASURES:
            values = [r[measure] for r in runs]
            spread = f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else ""
            cells.append(f"{statistics.mean(values):.1f}{spread}")
        text.append("| " + " | ".join([*map(str, key), *cells, str(len(runs))]) + " |")
    return "\n".join(text)


def plan(experiment: str) -> list[tuple[str, float, dict[str, Any]]]:
    """(method, correlation, options) of every run."""
    if experiment == "mnist":
        return [(method, 1.0, {}) for method in METHODS]
    if experiment == "voc":
        return [(method, correlation, {}) for correlation in (0.95, 1.0) for method in METHODS]
    choices = {
        "weight": (0.1, 0.3, 1.0, 3.0, 10.0),
        "temperature": (0.05, 0.1, 0.2, 0.5, 1.0),
        "num_negatives": (1, 8, 32, 128),
    }
    default = {"weight": 1.0, "temperature": 0.2, "num_negatives": 32}
    runs = [("CLAD", 1.0, default)]
    for name, values in choices.items():
        runs += [("CLAD", 1.0, {**default, name: value}) for value in values if value != default[name]]
    return [*runs, ("CLAD", 1.0, {**default, "joint": True})]


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    words = commands.add_parser("train", formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    words.add_argument("--data", type=Path, required=True)
    words.add_argument("--out", type=Path, default=RESULTS, help="lines, to which the runs' are added")
    words.add_argument("--experiment", choices=("mnist", "voc", "ablation"), default="mnist")
    words.add_argument("--seeds", type=int, nargs="+", default=[0])
    words.add_argument("--epochs", type=int, help="6 for mnist, 30 for voc, 3 for the ablation")
    words.add_argument("--correlations", type=float, nargs="+", help="only these of the experiment's")
    words.add_argument("--batch", type=int, default=64)
    words.add_argument("--lr", type=float, default=3e-3)
    words.add_argument("--source", choices=("bank", "batch"), default="bank", help="of the positives' backgrounds")
    words.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    words.add_argument("--network", choices=("hidden", "pooled"), default="hidden")
    words.add_argument("--weight", type=float, default=1.0, help="lambda, outside of the ablation")
    words.add_argument("--threads", type=int, default=1)
    shown = commands.add_parser("table", help="the lines as Markdown")
    shown.add_argument("results", type=Path, nargs="*", default=[RESULTS])
    return parser.parse_args()


def train(args: argparse.Namespace) -> None:
    torch.set_num_threads(args.threads)
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    args.epochs = args.epochs or {"mnist": 6, "voc": 30, "ablation": 3}[args.experiment]
    setting = SETTINGS[args.experiment](args.data)
    print(
        f"{args.experiment}: {len(setting.train.labels)} training and {len(setting.test.labels)} test foregrounds, "
        f"{setting.categories} categories of scenes, {args.epochs} epochs, {args.network} network, "
        f"positives from the {args.source}"
    )
    for seed in args.seeds:
        args.seed = seed
        for method, correlation, options in plan(args.experiment):
            if method in args.methods and correlation in (args.correlations or [correlation]):
                run(setting, method, correlation, args, options)


def main() -> None:
    args = arguments()
    if args.command == "train":
        train(args)
    else:
        print(tables(read_lines(args.results)))


if __name__ == "__main__":
    main()
