"""Does ISNet stop a small network from reading the class off the background? One training a call, one JSON line each.

    python -m experiments.isnet.run train --data DATA --setting digits_mark --method selective
    python -m experiments.isnet.run table

The lines stand in ``results.jsonl`` beside this file.

``--method plain`` trains without the heatmap loss, ``--unmarked`` without marks (or with random scenes): the two ends
between which a method is judged. Every setting is a flag and is written into the result.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader, TensorDataset

from experiments.common import accuracy, add_line, made_with, read_lines
from experiments.isnet.settings import SETTINGS, Setting, small_cnn
from torch_bgdebias.isnet import BackgroundDimming, GradientBalance, ISNet, ISNetLoss, calibrate_relevance_range
from torch_bgdebias.swap import BackgroundSwap

METHODS = ("plain", "selective", "stochastic", "dual", "original")
RESULTS = Path(__file__).with_name("results.jsonl")
NOT_A_SETTING = ("data", "out", "command")


def arguments(words: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("train", formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    run.add_argument("--data", type=Path, required=True)
    run.add_argument("--out", type=Path, default=RESULTS, help="lines, to which one is added")
    run.add_argument("--setting", choices=SETTINGS, default="digits_mark")
    run.add_argument("--method", choices=METHODS, default="selective")
    run.add_argument("--unmarked", action="store_true", help="train without marks or on random scenes")
    run.add_argument("--seed", type=int, default=0)
    run.add_argument("--epochs", type=int, default=12)
    run.add_argument("--batch", type=int, default=64)
    run.add_argument("--lr", type=float, default=1e-3)
    run.add_argument("--schedule", choices=("constant", "cosine"), default="constant")
    run.add_argument("--clip", type=float, default=1.0)
    run.add_argument("--average", type=float, default=0.99, help="decay a step of the running mean of the weights")
    run.add_argument("--widths", type=int, nargs="+", default=[16, 32, 64])
    run.add_argument("--head", choices=("flatten", "gap"), default="flatten")
    run.add_argument("--no-norm", action="store_true", help="the network without batch norm")
    run.add_argument("--train-images", type=int, default=8000)
    run.add_argument("--side", type=int, default=32, help="pixels, radiographs only")
    run.add_argument("--weight", type=float, default=0.7, help="P, the share of the heatmap loss")
    run.add_argument("--final-weight", type=float, default=None, help="P at the end, reached along a straight line")
    run.add_argument("--attribution", choices=("lrp", "gradient"), default="lrp")
    run.add_argument("--dual-target", choices=("contrast", "sum"), default="contrast", help="of LRP-epsilon in dual")
    run.add_argument("--epsilon", type=float, default=1e-2)
    run.add_argument("--selective-eps", type=float, default=None)
    run.add_argument("--batch-norm", choices=("linear", "exact"), default="linear")
    run.add_argument("--input-rule", choices=("gradient", "zbox"), default="gradient")
    run.add_argument("--deep", nargs="*", default=None, help="deep supervision: layer names")
    run.add_argument("--balance", type=float, default=1.0, help="limit of the heatmap loss's gradient; 0: none")
    run.add_argument("--form", choices=("share", "paper"), default="share", help="of the heatmap loss")
    run.add_argument(
        "--range", type=float, nargs=2, default=(1.0, 25.0), help="C1 C2, as what follows of the form paper"
    )
    run.add_argument("--calibrate", type=float, default=0.0, help="epochs of plain training to measure C1 and C2 on")
    run.add_argument("--rank-decay", type=float, default=0.9)
    run.add_argument("--saturation", type=float, default=None)
    run.add_argument("--background-weight", type=float, default=1.0)
    run.add_argument("--foreground-weight", type=float, default=1.0)
    run.add_argument("--dilation", type=int, default=2)
    run.add_argument(
        "--dimming", type=float, default=None, help="share of images with a dimmed background; 1, plain: 0"
    )
    run.add_argument("--raw", action="store_true", help="images in [0, 1], not normalised by the training set's mean")
    run.add_argument("--show", choices=("all", "foreground", "background"), default="all", help="the rest is 0")
    run.add_argument("--grow", type=int, default=0, help="pixels added to the lungs as foreground, radiographs only")
    run.add_argument("--crop", action="store_true", help="radiographs cropped to the chest")
    run.add_argument("--mirror", action="store_true", help="train on mirror images as well, radiographs only")
    run.add_argument("--split", type=int, default=0, help="which quarter is held out, radiographs only")
    run.add_argument("--swap", action="store_true", help="swap the backgrounds of each batch first")
    run.add_argument("--threads", type=int, default=2)
    run.add_argument("--tag", default="", help="a word to find the row by")
    table = commands.add_parser("table")
    table.add_argument("results", type=Path, nargs="*", default=[RESULTS])
    table.add_argument("--tag", default=None, help="only rows with this tag")
    table.add_argument("--averaged", action="store_true", help="accuracy of the averaged weights, not of the last")
    return parser.parse_args(words)


def build(data: Setting, args: argparse.Namespace) -> nn.Module:
    side = data.train[0].shape[-1]
    return small_cnn(data.classes, side, norm=not args.no_norm, widths=tuple(args.widths), head=args.head)


def explainer(net: nn.Module, data: Setting, args: argparse.Namespace) -> ISNet:
    return ISNet(
        net,
        variant="selective" if args.method == "plain" else args.method,
        epsilon=args.epsilon,
        selective_eps=args.selective_eps,
        batch_norm=args.batch_norm,
        input_rule=args.input_rule,
        mean=[data.mean] * 3,
        std=[data.std] * 3,
        deep_supervision=args.deep,
        attribution=args.attribution,
        dual_target=args.dual_target,
    )


def heatmap_loss(args: argparse.Namespace) -> ISNetLoss:
    if args.form == "share":
        return ISNetLoss(mask_dilation=args.dilation, saturation=args.saturation)
    return ISNetLoss.paper(
        relevance_range=tuple(args.range),
        rank_decay=args.rank_decay,
        saturation=args.saturation,
        background_weight=args.background_weight,
        foreground_weight=args.foreground_weight,
        mask_dilation=args.dilation,
    )


def train(
    net: nn.Module, data: Setting, args: argparse.Namespace, epochs: float, *, plain: bool
) -> tuple[dict[str, float], nn.Module]:
    """Train in place; returns the last epoch's mean of each part of the loss, and the running mean of the weights."""
    averaged = AveragedModel(net, multi_avg_fn=get_ema_multi_avg_fn(args.average), use_buffers=True)
    isnet, heatmap = explainer(net, data, args), heatmap_loss(args)
    swap = BackgroundSwap("batch") if args.swap else None
    dimming = BackgroundDimming((0.0 if plain else 1.0) if args.dimming is None else args.dimming)
    optimizer, balance = torch.optim.Adam(net.parameters(), args.lr), GradientBalance(args.balance or 1.0)
    per_epoch = math.ceil(len(data.train[0]) / args.batch)
    steps = math.ceil(epochs * per_epoch)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    parts: dict[str, list[float]] = defaultdict(list)
    batches = iter(())
    net.train()
    for step in range(steps):
        if step % per_epoch == 0:
            batches = iter(torch.randperm(len(data.train[0])).split(args.batch))
            parts.clear()
        index = next(batches)
        image, mask, label = (values[index] for values in data.train)
        if swap is not None:
            image, mask, label = swap(image, mask, label)
        image = dimming(image, mask)
        if plain:
            loss = nn.functional.cross_entropy(net(image), label)
        else:
            explained = isnet.explain(image, create_graph=True)
            terms = heatmap.terms(explained.relevance, mask, explained.hidden)
            entropy = nn.functional.cross_entropy(explained.logits, label)
            weight = weight_at(step / steps, args)
            scaled = balance(entropy, terms.loss.mean(), net.parameters()) if args.balance else terms.loss.mean()
            loss = (1 - weight) * entropy + weight * scaled
            for name, value in (
                ("background", terms.background),
                ("foreground", terms.foreground),
                ("entropy", entropy),
            ):
                parts[name].append(value.mean().item())
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(net.parameters(), args.clip)
        optimizer.step()
        averaged.update_parameters(net)
        if args.schedule == "cosine":
            cosine.step()
    return {name: mean(values) for name, values in parts.items()}, averaged


def change(data: Setting, function: Callable[[Tensor, Tensor], Tensor]) -> Setting:
    """The same setting with every image replaced by ``function(image, mask)``."""

    def part(samples: tuple[Tensor, Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        image, mask, label = samples
        return function(image, mask), mask, label

    return replace(data, train=part(data.train), tests={name: part(test) for name, test in data.tests.items()})


def prepare(args: argparse.Namespace) -> Setting:
    """The setting's images, normalised by mean and deviation over the training images, one value for all channels."""
    data = SETTINGS[args.setting](
        args.data,
        marked=not args.unmarked,
        train_images=args.train_images,
        side=args.side,
        split=args.split,
        grow=args.grow,
        crop=args.crop,
        mirror=args.mirror,
    )
    if not args.raw:
        std, mean = torch.std_mean(data.train[0])
        data = replace(change(data, lambda image, mask: (image - mean) / std), mean=float(mean), std=float(std))
    if args.show == "foreground":
        data = change(data, lambda image, mask: image * mask)
    elif args.show == "background":
        data = change(data, lambda image, mask: image * (1 - mask))
    return data


def weight_at(progress: float, args: argparse.Namespace) -> float:
    """P at a share of the training in [0, 1]."""
    final = args.weight if args.final_weight is None else args.final_weight
    return args.weight + (final - args.weight) * progress


def calibrate(data: Setting, args: argparse.Namespace) -> tuple[float, float]:
    """(C1, C2) over a copy of the network trained for ``args.calibrate`` epochs without the heatmap loss."""
    torch.manual_seed(args.seed)
    net = build(data, args)
    train(net, data, args, args.calibrate, plain=True)
    isnet = explainer(net, data, args)
    loader = DataLoader(TensorDataset(*data.train), batch_size=100)
    return calibrate_relevance_range(isnet, loader, max_batches=5)


def run(args: argparse.Namespace) -> None:
    torch.set_num_threads(args.threads)
    data = prepare(args)
    start = time.perf_counter()
    if args.calibrate:
        args.range = calibrate(data, args)
    torch.manual_seed(args.seed)
    net = build(data, args)
    parts, averaged = train(net, data, args, args.epochs, plain=args.method == "plain")
    seconds = time.perf_counter() - start
    settings = {name: value for name, value in vars(args).items() if name not in NOT_A_SETTING}
    result = add_line(
        args.out,
        settings,
        accuracy={name: accuracy(net, image, label) for name, (image, _, label) in data.tests.items()},
        averaged={name: accuracy(averaged, image, label) for name, (image, _, label) in data.tests.items()},
        parts=parts,
        seconds=round(seconds, 1),
    )
    print(json.dumps({k: result[k] for k in ("accuracy", "averaged", "parts", "seconds")}))


def grouped(args: argparse.Namespace) -> dict[str, list[dict[str, Any]]]:
    """Rows that differ in nothing but the seed together, by a label that names what is not the default."""
    defaults = vars(arguments(["train", "--data", "."]))
    groups: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in read_lines(args.results):
        if args.tag is not None and row["settings"]["tag"] != args.tag:
            continue
        settings = {k: v for k, v in row["settings"].items() if k not in ("seed", "split", "threads", "tag")}
        if settings["method"] != "dual":
            settings.pop("dual_target", None)
        if settings["calibrate"]:
            del settings["range"]
        shown = {k: v for k, v in settings.items() if k in ("setting", "method") or not same(v, defaults[k])}
        groups[", ".join(f"{k} {v}" for k, v in shown.items())].append(row)
    return groups


def under(rows: list[dict[str, Any]], reference: list[dict[str, Any]], accuracies: str) -> str:
    """Points under a network without bias on images without bias, of the same seeds and splits: mean and its error."""
    name = "unmarked" if "unmarked" in rows[0][accuracies] else "mixed_rand"
    best = {(r["settings"]["seed"], r["settings"]["split"]): r[accuracies][name] for r in reference}
    keys = [(r["settings"]["seed"], r["settings"]["split"]) for r in rows]
    gaps = [best[key] - row[accuracies][name] for key, row in zip(keys, rows, strict=True) if key in best]
    if not gaps or rows is reference:
        return ""
    error = f" ± {stdev(gaps) / math.sqrt(len(gaps)):.1f}" if len(gaps) > 1 else ""
    return f"{mean(gaps):.1f}{error}" + ("" if len(gaps) == len(rows) else f" ({len(gaps)})")


def unbiased(row: dict[str, Any]) -> bool:
    """Whether it is a plain network, trained without marks on whole images."""
    settings = row["settings"]
    return settings["method"] == "plain" and settings["unmarked"] and settings.get("show", "all") == "all"


def table(args: argparse.Namespace) -> None:
    """The groups of rows as a Markdown table, the last column but two paired with plain training without marks."""
    groups = grouped(args)
    accuracies = "averaged" if args.averaged else "accuracy"
    names = list(dict.fromkeys(name for rows in groups.values() for name in rows[0][accuracies]))
    heads = [*names, "under plain", "seeds", "s"]
    print(made_with(row for rows in groups.values() for row in rows), end="\n\n")
    print("| training | " + " | ".join(heads) + " |\n| --- |" + " --- |" * len(heads))
    references: dict[str, list[dict[str, Any]]] = {}
    for rows in groups.values():
        if unbiased(rows[0]):
            references.setdefault(rows[0]["settings"]["setting"], rows)
    for label, rows in groups.items():
        cells = []
        for name in names:
            values = [row[accuracies][name] for row in rows if name in row[accuracies]]
            spread = f" ± {stdev(values):.1f}" if len(values) > 1 else ""
            cells.append(f"{mean(values):.1f}{spread}" if values else "")
        cells.append(under(rows, references.get(rows[0]["settings"]["setting"], []), accuracies))
        print(f"| {label} | " + " | ".join(cells) + f" | {len(rows)} | {mean(r['seconds'] for r in rows):.0f} |")


def same(value: object, default: object) -> bool:
    """Equal, where a list read back from JSON is a tuple."""
    return (list(value) if isinstance(value, (list, tuple)) else value) == (
        list(default) if isinstance(default, (list, tuple)) else default
    )


if __name__ == "__main__":
    parsed = arguments()
    {"train": run, "table": table}[parsed.command](parsed)
