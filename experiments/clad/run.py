"""Does CLAD remove background bias, and how do lambda, temperature and queue size matter?

python -m experiments.clad.run --data DIR --experiment mnist | voc | ablation

DIR holds mnist/ (idx files), voc_objects/ (images/ and masks/) and sun_scenes/ (<category>/*.jpg). Prints one line a
run and a Markdown table; --out also writes the runs as JSON.
"""

from __future__ import annotations

import argparse
import json
import logging
import platform
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
from experiments.common import accuracy
from torch_bgdebias import BatchSpec
from torch_bgdebias.callbacks import BackgroundSwapCallback, CLADCallback
from torch_bgdebias.swap import BackgroundSwap

METHODS = ("baseline", "swap", "CLAD", "CLAD+")


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
    swap = BackgroundSwap(source)
    spec = BatchSpec(background_label=3 if by_background else None)
    if method == "swap":
        return [BackgroundSwapCallback(swap, BatchSpec(label=3) if by_background else BatchSpec(), seed=args.seed)]
    keys = setting.categories if by_background else None
    options = {"weight": args.weight, **options}
    return [CLADCallback(swap, num_classes=keys, plus=method == "CLAD+", spec=spec, seed=args.seed, **options)]


def run(
    setting: Setting, method: str, correlation: float, args: argparse.Namespace, options: dict[str, Any]
) -> dict[str, Any]:
    """Train and test one model."""
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
    result = {
        "method": method, "correlation": correlation, "seed": args.seed, "mixed_same": same, "mixed_rand": rand,
        "gap": same - rand, "seconds": seconds, **options,
    }  # fmt: skip
    shown = "  ".join(
        f"{k} {v:.1f}" if k in ("mixed_same", "mixed_rand", "gap") else f"{k} {v}"
        for k, v in result.items()
        if k != "seconds"
    )
    print(f"{shown}  {seconds:.0f} s of CPU", flush=True)
    return result


def table(results: list[dict[str, Any]], columns: list[str]) -> str:
    """Markdown, mean over seeds and, with more than one seed, the sample standard deviation."""
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for result in results:
        groups.setdefault(tuple(result.get(c, "") for c in columns), []).append(result)
    measures = ["mixed_same", "mixed_rand", "gap"]
    lines = ["| " + " | ".join([*columns, *measures, "seeds"]) + " |", "|" + " --- |" * (len(columns) + 4)]
    for key, runs in groups.items():
        cells = []
        for measure in measures:
            values = [r[measure] for r in runs]
            spread = f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else ""
            cells.append(f"{statistics.mean(values):.1f}{spread}")
        lines.append("| " + " | ".join([*map(str, key), *cells, str(len(runs))]) + " |")
    return "\n".join(lines)


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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--experiment", choices=("mnist", "voc", "ablation"), default="mnist")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--epochs", type=int, help="6 for mnist, 30 for voc, 3 for the ablation")
    parser.add_argument("--correlations", type=float, nargs="+", help="only these of the experiment's")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--lr", type=float, default=3e-3)
    parser.add_argument(
        "--source", choices=("bank", "batch"), default="bank", help="where the positives' backgrounds come from"
    )
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--network", choices=("hidden", "pooled"), default="hidden")
    parser.add_argument("--weight", type=float, default=1.0, help="lambda, outside of the ablation (default: 1)")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    args.epochs = args.epochs or {"mnist": 6, "voc": 30, "ablation": 3}[args.experiment]
    setting = SETTINGS[args.experiment](args.data)
    print(
        f"{args.experiment}: {len(setting.train.labels)} training and {len(setting.test.labels)} test foregrounds, "
        f"{setting.categories} categories of scenes, {args.epochs} epochs, {args.network} network, "
        f"positives from the {args.source}; "
        f"torch {torch.__version__}, {platform.machine()}, {torch.get_num_threads()} threads"
    )
    results = []
    for seed in args.seeds:
        args.seed = seed
        for method, correlation, options in plan(args.experiment):
            if method in args.methods and correlation in (args.correlations or [correlation]):
                results.append(run(setting, method, correlation, args, options))
    print(
        table(
            results,
            ["correlation", "method", *(list(plan("ablation")[-1][2]) if args.experiment == "ablation" else [])],
        )
    )
    if args.out:
        args.out.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
