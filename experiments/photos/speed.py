"""What a step of each method costs beside a plain one, in CPU time of one thread, methods in turn.

    python -m experiments.photos.speed --voc DIR --scenes DIR

A round trains every method for some steps on the same batches; the first eight of a fit, in which ISNet measures its
balance every time, do not count. Printed: the median over rounds of a method's mean step over the plain one's of the
same round, a plain epoch, and what share of a plain step the swap's composites take.
"""

from __future__ import annotations

import argparse
import logging
import statistics
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from torch.utils.data import TensorDataset

from benchmarks.common import machine
from experiments.photos import run as photos
from experiments.photos.settings import photographs
from torch_bgdebias import BackgroundSwap

#: name -> method of `experiments.photos.run` and its options
WAYS = {
    "plain": ("plain", []),
    "swap": ("swap", []),
    "CLAD+": ("CLAD+", []),
    "ISNet selective, z^B": ("isnet-selective", []),
    "ISNet selective, what enters the last stage": ("isnet-selective", ["--layers", "blocks.4", "--hidden-only"]),
}
WARM_UP = 8


class Clock(pl.Callback):
    """CPU seconds of each batch."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    def on_train_batch_start(self, *_: Any) -> None:
        self.start = time.process_time()

    def on_train_batch_end(self, *_: Any) -> None:
        self.seconds.append(time.process_time() - self.start)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--voc", type=Path, required=True)
    parser.add_argument("--scenes", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=8, help="steps that count, a fit")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--freeze", type=int, default=0, help="stages that do not train, as in run.py")
    return parser.parse_args()


def composites(data: TensorDataset, batch: int, times: int = 20) -> float:
    """CPU seconds of one batch's swap."""
    image, label, mask = (values[:batch] for values in data.tensors)
    swap = BackgroundSwap("batch")
    seconds = []
    for _ in range(times):
        start = time.process_time()
        swap(image, mask, label)
        seconds.append(time.process_time() - start)
    return statistics.median(seconds)


def main() -> None:
    args = arguments()
    torch.set_num_threads(1)
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    frozen = ["--freeze", str(args.freeze), "--freeze-norms"] if args.freeze else []
    folders = ["train", "--voc", str(args.voc), "--scenes", str(args.scenes), "--epochs", "1", *frozen]
    every = photographs(args.voc, args.scenes, size=112, seed=0, correlation=1.0).train
    ratios, plain = defaultdict(list), []
    for _ in range(args.rounds):
        for name, (method, options) in WAYS.items():
            settings = photos.arguments([*folders, *options])
            count = (WARM_UP + args.steps) * settings.batch
            few = TensorDataset(*(values[:count] for values in every.tensors))
            clock = Clock()
            pl.seed_everything(0, verbose=False)
            photos.fit(photos.Classifier(settings), few, settings, [clock, *photos.callbacks(method, settings)])
            mean = statistics.mean(clock.seconds[WARM_UP:])
            plain += [mean] if name == "plain" else []
            ratios[name].append(mean / plain[-1])
    about, step = machine(torch.device("cpu")), statistics.median(plain)
    steps = len(every) // settings.batch
    print(
        f"{about['processor']}, torch {about['torch']}, one thread, {args.rounds} rounds, stages frozen: {args.freeze}"
    )
    print(
        f"plain: {step:.3f} s of CPU a step of {settings.batch} images, {steps * step:.0f} s an epoch of {steps} steps"
    )
    share = composites(every, settings.batch) / step
    print(f"composites: {100 * share:.1f} % of a plain step")
    for name, values in ratios.items():
        print(f"{name}: {statistics.median(values):.2f} x plain ({min(values):.2f} to {max(values):.2f})")


if __name__ == "__main__":
    main()
