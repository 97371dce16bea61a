"""Is a checkpoint that was chosen by what ``ISNetCallback`` logs on validation data as good as the best one there was?

    python -m experiments.isnet.chosen --data DATA --split 0                  one split, minutes
    python -m experiments.isnet.chosen --data DATA --split 0 --epochs 10      quicker
    python -m experiments.isnet.chosen --table            what the lines say, other ways to choose among them

Chest radiographs with a class-coded mark; a fifth of the training images, marked as they are, is the validation data.
After every epoch the network is also measured on the test images with the wrong mark, which choosing never sees. One
JSON line is added to chosen.jsonl beside this file: by each of the logged values the epoch that it chooses, and the
wrong-mark accuracy there and at its best.
"""

from __future__ import annotations

import argparse
import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import EMAWeightAveraging
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from experiments.common import accuracy, add_line, made_with, read_lines
from experiments.isnet.run import arguments as run_arguments, prepare
from experiments.isnet.settings import small_cnn
from torch_bgdebias.batch import BatchSpec
from torch_bgdebias.callbacks import ISNetCallback

RESULTS = Path(__file__).with_name("chosen.jsonl")
#: what may choose, and whether more is better
MONITORS = {"val_loss": False, "val_heatmap_loss": False, "val_pixel_ratio": True, "val_foreground_share": True}


def entropy(row: dict[str, Any], weight: float) -> float:
    """Cross-entropy on the validation data, from the loss of both."""
    return (row["val_loss"] - weight * row["val_heatmap_loss"]) / (1 - weight)


#: what else may choose, of a line's epochs and P; the smallest wins
FURTHER: dict[str, Callable[[dict[str, Any], float], float]] = {
    "cross-entropy alone": entropy,
    "cross-entropy + heatmap loss": lambda row, weight: entropy(row, weight) + row["val_heatmap_loss"],
    "cross-entropy, foreground share of 0.9 or more": lambda row, weight: (
        entropy(row, weight) if row["val_foreground_share"] >= 0.9 else 10 - row["val_foreground_share"]
    ),
}


def table(lines: list[dict[str, Any]]) -> str:
    """How far the chosen epoch is below the best one at the wrong mark, a column a run."""
    heads = [f"split {line['settings']['split']}, {line['settings'].get('average', 0.0):g}" for line in lines]
    text = [
        "| chosen by, points below the best | " + " | ".join(heads) + " | mean |",
        "| --- |" + " --- |" * (len(heads) + 1),
    ]
    ways = {
        name: (lambda row, _, name=name, sign=-1 if more else 1: sign * row[name]) for name, more in MONITORS.items()
    }
    for name, value in {**ways, **FURTHER}.items():
        below = []
        for line in lines:
            wrong = [row["accuracy"]["wrong"] for row in line["epochs"]]
            values = [value(row, line["settings"]["weight"]) for row in line["epochs"]]
            below.append(max(wrong) - wrong[values.index(min(values))])
        text.append(f"| {name} | " + " | ".join(f"{x:.1f}" for x in (*below, sum(below) / len(below))) + " |")
    best = " | ".join(f"{line['best']:.1f}" for line in lines)
    return "\n".join([made_with(lines), "", *text, f"| the best epoch's accuracy | {best} | |"])


class Classifier(pl.LightningModule):
    """A network as somebody wrote it, who knows nothing of heatmaps."""

    def __init__(self, net: nn.Module, lr: float) -> None:
        super().__init__()
        self.net, self.lr = net, lr

    def forward(self, image):
        """Logits."""
        return self.net(image)

    def training_step(self, batch, batch_idx):
        """Cross-entropy."""
        return nn.functional.cross_entropy(self(batch[0]), batch[1])

    def validation_step(self, batch, batch_idx):
        """The same."""
        self(batch[0])

    def configure_optimizers(self):
        """Adam."""
        return torch.optim.Adam(self.parameters(), self.lr)


class AfterEveryEpoch(pl.Callback):
    """Notes what was logged, and the accuracy on test images that choosing must not see."""

    def __init__(self, tests: dict[str, tuple[torch.Tensor, ...]]) -> None:
        self.tests, self.rows = tests, []

    def on_validation_epoch_end(self, trainer, module):
        """The weights that were validated are still in place, averaged ones too."""
        if not trainer.sanity_checking:
            tests = {name: accuracy(module, image, label) for name, (image, _, label) in self.tests.items()}
            self.rows.append({"accuracy": tests})

    def on_validation_end(self, trainer, module):
        """What was logged is known."""
        if not trainer.sanity_checking:
            logged = {name.removeprefix("isnet/"): float(x) for name, x in trainer.callback_metrics.items()}
            self.rows[-1] |= {name: logged[name] for name in MONITORS}


def main() -> None:
    """Train, choose, write a line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path)
    parser.add_argument("--table", action="store_true", help="train nothing")
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--method", choices=("selective", "stochastic", "dual"), default="selective")
    parser.add_argument("--split", type=int, default=0)
    parser.add_argument("--epochs", type=int, default=50)
    parser.add_argument("--weight", type=float, default=0.7)
    parser.add_argument(
        "--average", type=float, default=0.0, help="validate a running mean of the weights, 0.99 a step"
    )
    args = parser.parse_args()
    if args.table:
        print(table(read_lines([args.out])))
        return
    if args.data is None:
        parser.error("expected --data DATA, or --table")
    torch.set_num_threads(1)
    words = ["train", "--data", str(args.data), "--setting", "xray_mark", "--grow", "3", "--split", str(args.split)]
    data = prepare(run_arguments(words))
    image, mask, label = data.train
    order = torch.randperm(len(label), generator=torch.Generator().manual_seed(args.split))
    held = len(label) // 5
    seen, unseen = order[held:], order[:held]
    torch.manual_seed(args.split)
    module = Classifier(small_cnn(data.classes, image.shape[-1]), 1e-3)
    channels = image.shape[1]
    isnet = ISNetCallback(
        args.method, BatchSpec(), weight=args.weight, validate=True, seed=args.split,
        mean=[data.mean] * channels, std=[data.std] * channels,
    )  # fmt: skip
    rows = AfterEveryEpoch(data.tests)
    averaging = [EMAWeightAveraging(decay=args.average)] if args.average else []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer = pl.Trainer(
            max_epochs=args.epochs, accelerator="cpu", logger=False, enable_checkpointing=False,
            enable_progress_bar=False, enable_model_summary=False, gradient_clip_val=1.0,
            callbacks=[isnet, rows, *averaging],
        )  # fmt: skip

        def loader(index: torch.Tensor, *, shuffle: bool) -> DataLoader:
            generator = torch.Generator().manual_seed(args.split)
            columns = TensorDataset(image[index], label[index], mask[index])
            return DataLoader(columns, batch_size=32, shuffle=shuffle, generator=generator)

        trainer.fit(module, loader(seen, shuffle=True), loader(unseen, shuffle=False))
    wrong = [row["accuracy"]["wrong"] for row in rows.rows]
    chosen = {}
    for name, more in MONITORS.items():
        values = [row[name] if more else -row[name] for row in rows.rows]
        epoch = values.index(max(values))
        chosen[name] = {"epoch": epoch, "wrong": wrong[epoch], "below_best": max(wrong) - wrong[epoch]}
    settings = {name: value for name, value in vars(args).items() if name not in ("data", "out", "table")}
    result = add_line(args.out, settings, chosen=chosen, best=max(wrong), last=wrong[-1], epochs=rows.rows)
    print(json.dumps({name: result[name] for name in ("settings", "chosen", "best", "last")}, indent=1))


if __name__ == "__main__":
    main()
