"""All methods on the same photographs with the same network, epochs and learning rates; one JSON line a training.

    python -m experiments.arena.run train --voc DIR --scenes DIR --seed 0 1 2
    python -m experiments.arena.run table experiments/arena/results.jsonl
    python -m experiments.arena.run plot experiments/arena/results.jsonl --out arena.png

Options, data and tests are those of `experiments.photos.run`; here 95 of 100 objects are on their class's own scenes,
so that methods of groups find the other groups. Nothing is tuned a method: each runs with the defaults of this package
or of its paper. --method takes those of `experiments.photos.run` and of rivals.py; without it all that are listed in
ARENA run.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import torch
from scipy import stats

from experiments.arena import rivals
from experiments.common import read_lines
from experiments.photos import run as photos
from experiments.photos.settings import photographs

#: everything that the table compares; the first of all is what the others are to improve on
ARENA = (
    "plain", "swap", "swap-voronoi", "CLAD", "CLAD+", "isnet-selective", "isnet-stochastic", "isnet-dual",
    "isnet-original", "isnet-gradient", "CLAD+,isnet-selective", *rivals.RIVALS,
)  # fmt: skip
#: the training that every method gets, as options of `experiments.photos.run`
TRAINING = ["--correlation", "0.95", "--freeze", "5", "--freeze-norms", "--lr", "2e-4", "--head-lr", "2e-3",
            "--epochs", "2", "--layers", "blocks.4", "--hidden-only", "--move", "0.5", "0.7", "1.3",
            "--attributions", "--out", "experiments/arena/results.jsonl", "--method", *ARENA]  # fmt: skip
NEEDS_MASKS = {"masked-images", "masked-pooling"}


def arguments(given: list[str] | None = None) -> argparse.Namespace:
    given = sys.argv[1:] if given is None else given
    if given[:1] == ["train"]:
        return photos.arguments(["train", *TRAINING, *given[1:]])
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("train", help="options: python -m experiments.photos.run train --help")
    for name in ("table", "plot"):
        command = commands.add_parser(name)
        command.add_argument("results", type=Path, nargs="+")
    command.add_argument("--out", type=Path, default=Path("arena.png"))
    return parser.parse_args(given)


def run(method: str, seed: int, args: argparse.Namespace) -> dict[str, Any]:
    if method not in rivals.RIVALS:
        return photos.run(method, seed, args)
    data = photographs(args.voc, args.scenes, size=args.size, seed=seed, correlation=args.correlation)
    return {"method": method, "seed": seed, **rivals.run(method, seed, args, data), **photos.about(args, data)}


def means(lines: list[dict[str, Any]]) -> dict[str, dict[str, list[float]]]:
    """method -> test, or "cpu_seconds", -> a value a seed."""
    values: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for line in lines:
        for name, value in {**line["last"], "cpu_seconds": line["cpu_seconds"]}.items():
            values[line["method"]][name].append(value)
    return values


def table(lines: list[dict[str, Any]]) -> str:
    """Markdown, best on random scenes first: mean and sample standard deviation over seeds."""
    values = means(lines)
    order = sorted(values, key=lambda method: -statistics.mean(values[method]["random"]))
    rows = ["| method | own | random | photographs | objects alone | seeds | s of CPU |", "| --- |" + " --- |" * 6]
    for method in order:
        cells = []
        for test in photos.TESTS:
            scores = values[method][test]
            cells.append(
                f"{statistics.mean(scores):.1f}" + (f" ± {statistics.stdev(scores):.1f}" if len(scores) > 1 else "")
            )
        masks = " (masks in the tests)" if method in NEEDS_MASKS else ""
        cost = values[method]["cpu_seconds"]
        rows.append(f"| {method}{masks} | {' | '.join(cells)} | {len(cost)} | {statistics.mean(cost):.0f} |")
    return "\n".join(rows)


def ranks(lines: list[dict[str, Any]]) -> str:
    """Do attributions see what accuracy shows? Spearman's correlation over methods, a sentence an attribution."""
    rows: dict[str, list[dict[str, float]]] = defaultdict(list)
    for line in lines:
        if "pixel_ratio" in line:
            gap = line["last"]["own"] - line["last"]["random"]
            rows[line["method"]].append({**line["pixel_ratio"], **line["last"], "gap": gap})
    if len(rows) < 4:
        return ""
    mean = {k: [statistics.mean(r[k] for r in same) for same in rows.values()] for k in next(iter(rows.values()))[0]}
    sentences = []
    for name in ("grad_cam", "kernel_shap", "lrp"):
        values = {test: stats.spearmanr(mean[name], mean[test]) for test in ("gap", "random", "photographs")}
        shown = ", ".join(f"{test} {rank.statistic:+.2f} (p {rank.pvalue:.3f})" for test, rank in values.items())
        spread = f"{min(mean[name]):.1f} to {max(mean[name]):.1f} %"
        sentences.append(f"- {name}: pixel ratio {spread}; rank correlation with {shown}")
    objects = statistics.mean(mean["object"])
    return f"{len(rows)} methods; objects cover {objects:.1f} % of the images.\n" + "\n".join(sentences)


def best(points: dict[str, tuple[float, float]], *, least_first: bool) -> list[str]:
    """The methods that no other one beats in both; of the first value less is better with ``least_first``."""
    sign = -1 if least_first else 1
    return [
        method
        for method, (x, y) in points.items()
        if not any((sign * u >= sign * x and v >= y) and (u, v) != (x, y) for u, v in points.values())
    ]


def kind_of(method: str) -> tuple[str, str]:
    """Marker and colour: plain training, this package, others, those that see masks in the tests too."""
    if method in NEEDS_MASKS:
        return "D", "0.6"
    if method == "plain":
        return "*", "black"
    return ("o", "C0") if method not in rivals.RIVALS or method == "head" else ("s", "C1")


def write_names(ax: Any, points: dict[str, tuple[float, float]]) -> None:
    """Each name beside its point, at the first of eight places where it covers no other name."""
    ax.figure.canvas.draw()
    taken: list[Any] = []
    for method, point in sorted(points.items(), key=lambda item: -item[1][1]):
        for dx, dy, side in ((6, 3, "left"), (6, -10, "left"), (-6, 3, "right"), (-6, -10, "right"),
                             (6, 14, "left"), (6, -20, "left"), (-6, 14, "right"), (-6, -20, "right")):  # fmt: skip
            name = ax.annotate(method, point, xytext=(dx, dy), textcoords="offset points", fontsize=8, ha=side)
            box = name.get_window_extent().padded(1)
            if box.x1 < ax.bbox.x1 and not any(box.overlaps(other) for other in taken):
                break
            name.remove()
        else:
            name = ax.annotate(method, point, xytext=(6, 3), textcoords="offset points", fontsize=8)
            box = name.get_window_extent()
        taken.append(box)


def plot(lines: list[dict[str, Any]], out: Path) -> Path:
    """Random scenes and photographs against own scenes, photographs against time; rings: beaten by none in both."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    values = {method: {k: statistics.mean(v) for k, v in row.items()} for method, row in means(lines).items()}
    axes_of = [("own", "random"), ("own", "photographs"), ("cpu_seconds", "photographs")]
    labels = {
        "own": "own scenes, %",
        "random": "random scenes, %",
        "photographs": "photographs, %",
        "cpu_seconds": "s of CPU",
    }
    figure, axes = pyplot.subplots(1, 3, figsize=(18, 6.5))
    figure.subplots_adjust(left=0.04, right=0.99, wspace=0.13)
    for ax, (x, y) in zip(axes, axes_of, strict=True):
        points = {method: (row[x], row[y]) for method, row in values.items()}
        images_alone = {method: point for method, point in points.items() if method not in NEEDS_MASKS}
        front = best(images_alone, least_first=x == "cpu_seconds")
        for method, (u, v) in points.items():
            marker, colour = kind_of(method)
            ax.plot(u, v, marker, color=colour, ms=9 if marker == "*" else 6)
        ax.plot(*zip(*[points[method] for method in front], strict=True), "o", mfc="none", mec="black", ms=13)
        ax.margins(0.14, 0.08)
        ax.set(xlabel=labels[x], ylabel=labels[y])
        write_names(ax, points)
    figure.suptitle(
        "star: plain training; circles: this package; squares: others; diamonds: masks in the tests too; ringed: no "
        "other without such masks is better in both"
    )
    figure.savefig(out, dpi=110)
    pyplot.close(figure)
    return out


def main() -> None:
    args = arguments()
    if args.command == "train":
        torch.set_num_threads(args.threads)
        for seed in args.seed:
            for method in args.method:
                line = run(method, seed, args)
                with args.out.open("a") as file:
                    file.write(json.dumps(line) + "\n")
                print(json.dumps({k: line[k] for k in ("method", "seed", "last", "cpu_seconds")}), flush=True)
        return
    lines = read_lines(args.results)
    print(f"{table(lines)}\n\n{ranks(lines)}" if args.command == "table" else plot(lines, args.out))


if __name__ == "__main__":
    main()
