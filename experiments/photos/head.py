"""A new last layer on the photographs: for the pretrained network, and for one that learned the bias.

    python -m experiments.photos.head fit --voc DIR --scenes DIR --seed 0 1 2 3 4
    python -m experiments.photos.head fit --voc DIR --scenes DIR --seed 0 --network biased
    python -m experiments.photos.head table experiments/photos/heads.jsonl

The folders, objects and tests are those of run.py. "biased" first trains the network as run.py's "plain" does.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from experiments.common import accuracy
from experiments.photos.settings import OBJECTS, Photographs, network, photographs
from torch_bgdebias.heads import HeadSettings, fit_debiased_head

TESTS = ("own", "random", "photographs")
STARTS = ("pretrained", "biased")


def arguments(words: list[str] | None = None) -> argparse.Namespace:
    defaults = HeadSettings()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    fit = commands.add_parser("fit", formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    fit.add_argument("--voc", type=Path, required=True)
    fit.add_argument("--scenes", type=Path, required=True)
    fit.add_argument("--out", type=Path, default=Path("experiments/photos/heads.jsonl"))
    fit.add_argument("--network", choices=STARTS, nargs="+", default=["pretrained"])
    fit.add_argument("--seed", type=int, nargs="+", default=[0])
    fit.add_argument("--correlation", type=float, default=1.0)
    fit.add_argument("--size", type=int, default=112)
    fit.add_argument("--copies", type=int, default=defaults.copies)
    fit.add_argument("--crop-area", type=float, default=defaults.crop_area)
    fit.add_argument("--original-weight", type=float, default=defaults.original_weight)
    fit.add_argument("--threads", type=int, default=1)
    commands.add_parser("table").add_argument("results", type=Path)
    return parser.parse_args(words)


def train(net: nn.Module, data: TensorDataset, epochs: int = 4) -> None:
    """What run.py's "plain" does: AdamW, one cycle, the last layer ten times faster, the gradient's norm at most 1."""
    head = list(net.classifier.parameters())
    body = [weight for name, weight in net.named_parameters() if "classifier" not in name]
    optimizer = torch.optim.AdamW([{"params": body}, {"params": head}], weight_decay=1e-2)
    loader = DataLoader(data, 32, shuffle=True, drop_last=True)
    steps = epochs * len(loader)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, [3e-4, 3e-3], total_steps=steps)
    net.train()
    for _ in range(epochs):
        for image, label, _ in loader:
            optimizer.zero_grad()
            F.cross_entropy(net(image), label).backward()
            torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
            optimizer.step()
            schedule.step()
    net.eval()


def scores(net: nn.Module, data: Photographs) -> dict[str, float]:
    return {name: round(accuracy(net, *data.tests[name][:2]), 1) for name in TESTS}


def run(start: str, seed: int, args: argparse.Namespace) -> dict[str, Any]:
    data = photographs(args.voc, args.scenes, size=args.size, seed=seed, correlation=args.correlation)
    torch.manual_seed(seed)
    net = network(len(OBJECTS)).eval()
    before = None
    if start == "biased":
        train(net, data.train)
        before = scores(net, data)
    image, label, mask = data.train.tensors
    photograph = torch.arange(len(label)) % (len(label) // 4)  # four composites of each, one after the other
    loader = DataLoader(TensorDataset(image, label, mask, photograph), 64, shuffle=True)
    wall, cpu = time.perf_counter(), time.process_time()
    fitted = fit_debiased_head(
        net, loader, copies=args.copies, crop_area=args.crop_area, original_weight=args.original_weight, group=3,
        seed=seed,
    )  # fmt: skip
    seconds = {"seconds": round(time.perf_counter() - wall, 1), "cpu_seconds": round(time.process_time() - cpu, 1)}
    left_out = ("voc", "scenes", "out", "command", "network", "seed")
    return {
        "network": start, "seed": seed, "before": before, "after": scores(fitted.apply_(net).eval(), data),
        "penalty": fitted.penalty, **seconds,
        "settings": {name: value for name, value in vars(args).items() if name not in left_out},
        "versions": {"torch": torch.__version__, "python": platform.python_version()},
        "machine": f"{platform.machine()}, {args.threads} threads", "date": time.strftime("%Y-%m-%d"),
    }  # fmt: skip


def table(path: Path) -> str:
    """Markdown: mean and sample standard deviation over seeds."""
    groups: dict[str, list[dict[str, Any]]] = defaultdict(list)
    plain = vars(arguments(["fit", "--voc", ".", "--scenes", "."]))
    for line in path.read_text().splitlines():
        row = json.loads(line)
        other = [f"{k} {v}" for k, v in row["settings"].items() if k != "threads" and v != plain[k]]
        if row["before"]:
            groups[f"{row['network']}, before"].append({**row, "after": row["before"], "cpu_seconds": 0})
        groups[", ".join([row["network"], "new last layer", *other])].append(row)
    lines = ["| network | own | random | photographs | seeds | s of CPU |", "| --- |" + " --- |" * 5]
    for label, rows in groups.items():
        cells = []
        for test in TESTS:
            values = [row["after"][test] for row in rows]
            spread = f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else ""
            cells.append(f"{statistics.mean(values):.1f}{spread}")
        cpu = statistics.mean(row["cpu_seconds"] for row in rows)
        lines.append(f"| {label} | {' | '.join(cells)} | {len(rows)} | {cpu:.0f} |")
    return "\n".join(lines)


def main() -> None:
    args = arguments()
    if args.command == "table":
        print(table(args.results))
        return
    torch.set_num_threads(args.threads)
    for seed in args.seed:
        for start in args.network:
            result = run(start, seed, args)
            with args.out.open("a") as file:
                file.write(json.dumps(result) + "\n")
            print(
                json.dumps({k: result[k] for k in ("network", "seed", "before", "after", "penalty", "seconds")}),
                flush=True,
            )


if __name__ == "__main__":
    main()
