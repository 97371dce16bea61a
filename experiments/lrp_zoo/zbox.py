"""For which models z^B, the recommended rule of ``ISNetCallback(mean=..., std=...)``, holds where the image enters.

    python -m experiments.lrp_zoo.zbox measure [--only NAME ...] [--minutes 8]
    python -m experiments.lrp_zoo.zbox table                                    # writes zbox.md

The models of ``run.py``, each with the smallest images that it takes, two of them, in training mode. One pass is
explained as the callback's defaults do, with ImageNet's mean and std: z^B holds, or gives way to input x gradient with
a warning; an exception would stop a training and counts as a failure.
"""

from __future__ import annotations

import argparse
import gc
import json
import textwrap
import time
import warnings
from pathlib import Path
from typing import Any

import torch

from experiments.lrp_zoo.run import fitting, names
from torch_bgdebias import ISNet
from torch_bgdebias.preprocessing import IMAGENET_MEAN, IMAGENET_STD

FOLDER = Path(__file__).resolve().parent
RESULTS = FOLDER / "zbox.jsonl"
GAVE_WAY = "its heatmaps are input x gradient"


def examine(name: str) -> dict[str, Any]:
    """One line: whether z^B holds, gives way, or fails and why."""
    row: dict[str, Any] = {"model": name, "torch": torch.__version__, "date": time.strftime("%Y-%m-%d")}
    try:
        model, image = fitting(name, 2)
        row["size"] = image.shape[-1]
        mean, std = (torch.tensor(values)[:, None, None] for values in (IMAGENET_MEAN, IMAGENET_STD))
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            isnet = ISNet(model.train(), "selective", mean=IMAGENET_MEAN, std=IMAGENET_STD)
            explanation = isnet.explain((image - mean) / std)
            relevance = explanation.relevance.detach()
        gave_way = any(GAVE_WAY in str(one.message) for one in caught)
        finite = bool(relevance.isfinite().all()) and bool(relevance.abs().flatten(1).amax(1).gt(0).all())
        row["outcome"] = ("gives way" if gave_way else "holds") if finite else "not finite, or 0"
        del explanation, relevance, isnet, model
    except Exception as problem:  # the table says what went wrong with which model
        row["outcome"] = f"{type(problem).__name__}: {problem}"[:300]
    return row


def read() -> dict[str, dict[str, Any]]:
    """The last line of each model."""
    lines = RESULTS.read_text().splitlines() if RESULTS.exists() else []
    return {row["model"]: row for row in map(json.loads, lines)}


def table() -> str:
    """``zbox.md``."""
    rows, every = read(), names()
    outcomes = [rows[name]["outcome"] for name in every if name in rows]
    holds, gives_way = outcomes.count("holds"), outcomes.count("gives way")
    summary = (
        f"Written by `python -m experiments.lrp_zoo.zbox table` from `zbox.jsonl`. {len(outcomes)} of {len(every)} "
        f"models were run: z^B holds in {holds}, gives way to input x gradient with a warning in {gives_way}, "
        f"{len(outcomes) - holds - gives_way} fail. Those where it does not hold:"
    )
    others = sorted(name for name in every if name in rows and rows[name]["outcome"] != "holds")
    lines = ["# Where z^B holds", "", textwrap.fill(summary, 120), "", "| model | image | outcome |", "|---|---|---|"]
    lines += [f"| {name} | {rows[name].get('size', '')} | {rows[name]['outcome']} |" for name in others] or [
        "| none | | |"
    ]
    missing = [name for name in every if name not in rows]
    if missing:
        lines += ["", textwrap.fill(f"Not run: {', '.join(missing)}.", 120)]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("command", choices=["measure", "table"])
    parser.add_argument("--only", nargs="*", help="these models, as source/name, whether or not they were run before")
    parser.add_argument("--minutes", type=float, default=1e9, help="stop after the model that exceeds this")
    options = parser.parse_args()
    if options.command == "table":
        (FOLDER / "zbox.md").write_text(table())
        return
    start, done = time.monotonic(), read()
    for name in options.only or [name for name in names() if name not in done]:
        row = examine(name)
        with RESULTS.open("a") as file:
            file.write(json.dumps(row) + "\n")
        print(json.dumps(row), flush=True)
        gc.collect()
        if time.monotonic() - start > 60 * options.minutes:
            return


if __name__ == "__main__":
    main()
