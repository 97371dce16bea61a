"""What the results of the S-AV experiment say: tables with intervals and tests, and one figure.

Networks are compared on the very same images. The unit of intervals and permutation tests is the physical sign (a track
of up to three frames, each rendered several times), not the image; over seeds an image's values are averaged first, so
these intervals speak of new signs, and the seeds' own spread stands beside them.
"""

from __future__ import annotations

import itertools
import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from experiments.common import made_with
from torch_bgdebias.metrics import (
    bootstrap_mean,
    bootstrap_mean_difference,
    correct_p_values,
    paired_permutation_test,
)

TRAININGS = TESTS = ("correlated", "uncorrelated")
CAMERAS = ("frontal", "medium", "high")
SHAPES = ("circular", "triangular")
ATTRIBUTIONS = {"grad_cam": "Grad-CAM", "kernel_shap": "KernelSHAP"}
SAME_IMAGE = ("sign", "draw", "track", "label", "background")

Key = tuple[str, str, str]  # training, camera, shape
Cells = dict[Key, dict[int, dict[str, Any]]]  # then seed, then test


CELL = ("training", "camera", "shape", "seed")


def alike(rows: list[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """Rows of trainings that differ in their cell of the design alone: others are not to be put together."""
    groups: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        shared = {name: value for name, value in row["settings"].items() if name not in CELL}
        groups[json.dumps(shared, sort_keys=True)].append(row)
    return list(groups.values())


def cells_of(rows: list[dict[str, Any]]) -> Cells:
    """Tests by cell and seed."""
    cells: Cells = defaultdict(dict)
    for row in rows:
        training, camera, shape, seed = (row["settings"][name] for name in CELL)
        cells[training, camera, shape][seed] = row["tests"]
    return cells


class Column:
    """One number an image for each seed (S, N), of one cell and test."""

    def __init__(self, cells: Cells, key: Key, test: str, name: str) -> None:
        seeds = [seed[test] for _, seed in sorted(cells[key].items())]
        self.images = {k: seeds[0][k] for k in SAME_IMAGE}
        assert all({k: seed[k] for k in SAME_IMAGE} == self.images for seed in seeds)
        if name == "accuracy":
            values = [np.equal(seed["predicted"], seed["label"]) for seed in seeds]
        else:
            values = [np.array(seed[name], dtype=np.float64) for seed in seeds]  # None becomes NaN
        self.values: NDArray[np.float64] = np.stack(values).astype(np.float64)

    def only(self, other: Column) -> Column:
        """The part on the images of another column."""
        wanted = set(zip(*other.images.values(), strict=True))
        keep = [i for i, image in enumerate(zip(*self.images.values(), strict=True)) if image in wanted]
        part = object.__new__(Column)
        part.values = self.values[:, keep]
        part.images = {k: [v[i] for i in keep] for k, v in self.images.items()}
        return part

    @property
    def mean(self) -> NDArray[np.float64]:
        """Over seeds (N,), NaN where no seed has a value."""
        given = ~np.isnan(self.values)
        with np.errstate(invalid="ignore"):
            return np.where(given, self.values, 0).sum(0) / given.sum(0)

    @property
    def tracks(self) -> list[int]:
        return self.images["track"]


def interval(column: Column, *, percent: bool = False) -> str:
    found = bootstrap_mean(column.mean, groups=column.tracks)
    scale, digits = (100, 1) if percent else (1, 3)
    spread = ""
    if len(column.values) > 1:
        spread = f" ± {scale * np.nanmean(column.values, 1).std(ddof=1):.{digits}f}"
    return f"{scale * found.value:.{digits}f}{spread} [{scale * found.low:.{digits}f}, {scale * found.high:.{digits}f}]"


def main_table(cells: Cells) -> list[str]:
    """Accuracy and pixel ratios of every cell."""
    lines = [
        "| camera | training | tested | accuracy, % | "
        + " | ".join(ATTRIBUTIONS.values())
        + " | mask's share | seeds |",
        "| --- " * 7 + "|",
    ]
    for camera, training, test in itertools.product(CAMERAS, TRAININGS, TESTS):
        key = (training, camera, "mixed")
        if key not in cells:
            continue
        shown = [interval(Column(cells, key, test, "accuracy"), percent=True)]
        shown += [interval(Column(cells, key, test, name)) for name in ATTRIBUTIONS]
        share = Column(cells, key, test, "mask_share").mean.mean()
        lines.append(f"| {camera} | {training} | {test} | {' | '.join(shown)} | {share:.3f} | {len(cells[key])} |")
    return lines


def compared(name: str, pairs: list[tuple[list[str], Column, Column]]) -> list[str]:
    """A line for each pair: mean(first) - mean(second) on the same images, p corrected over the table."""
    lines = [f"| {name} | difference | 95 % interval | p | p, Holm | seeds |", "| --- " * (name.count("|") + 6) + "|"]
    tests = [paired_permutation_test(a.mean, b.mean, groups=a.tracks) for _, a, b in pairs]
    corrected = correct_p_values([test.p_value for test in tests])
    for (labels, a, b), test, p in zip(pairs, tests, corrected, strict=True):
        assert a.images == b.images
        found = bootstrap_mean_difference(a.mean, b.mean, groups=a.tracks)
        count = min(len(a.values), len(b.values))
        each = [f"{np.nanmean(a.values[s]) - np.nanmean(b.values[s]):+.3f}" for s in range(count)]
        lines.append(
            f"| {' | '.join(labels)} | {found.value:+.4f} | [{found.low:+.4f}, {found.high:+.4f}] "
            f"| {test.p_value:.4f} | {p:.4f} | {', '.join(each)} |"
        )
    return lines


def training_pairs(cells: Cells) -> list[tuple[list[str], Column, Column]]:
    """Uncorrelated against correlated training: how much more of the attribution is on the sign."""
    pairs = []
    for name, camera, test in itertools.product(ATTRIBUTIONS, CAMERAS, TESTS):
        keys = [(training, camera, "mixed") for training in ("uncorrelated", "correlated")]
        if all(key in cells for key in keys):
            first, second = (Column(cells, key, test, name) for key in keys)
            pairs.append(([ATTRIBUTIONS[name], camera, test], first, second))
    return pairs


def shape_pairs(cells: Cells) -> list[tuple[list[str], Column, Column]]:
    """Trained on one shape alone against trained on all, on the signs of that shape."""
    pairs = []
    for name, shape, camera, training, test in itertools.product(ATTRIBUTIONS, SHAPES, CAMERAS, TRAININGS, TESTS):
        alone, mixed = (training, camera, shape), (training, camera, "mixed")
        if alone in cells and mixed in cells:
            first = Column(cells, alone, test, name)
            second = Column(cells, mixed, test, name).only(first)
            pairs.append(([ATTRIBUTIONS[name], shape, camera, training, test], first, second))
    return pairs


def shape_accuracy(cells: Cells) -> list[str]:
    lines = ["| trained on | camera | training | tested | accuracy on that shape, % |", "| --- " * 5 + "|"]
    for shape, camera, training, test in itertools.product(SHAPES, CAMERAS, TRAININGS, TESTS):
        alone, mixed = (training, camera, shape), (training, camera, "mixed")
        if alone in cells and mixed in cells:
            first = Column(cells, alone, test, "accuracy")
            second = Column(cells, mixed, test, "accuracy").only(first)
            for label, column in ((f"{shape} alone", first), (f"mixed, {shape} shown", second)):
                lines.append(f"| {label} | {camera} | {training} | {test} | {interval(column, percent=True)} |")
    return lines


def class_table(rows: list[dict[str, Any]]) -> list[str]:
    """Accuracy and mean Grad-CAM pixel ratio of each class of signs, over seeds and pictures."""
    names, cells = rows[0]["classes"], cells_of(rows)
    heads = [(training, test) for training in TRAININGS for test in TESTS]
    shown = [f"{training}, tested {test}" for training, test in heads]
    lines = [f"| camera | class | signs | {' | '.join(shown)} |", "| --- " * (3 + len(shown)) + "|"]
    for camera, label in itertools.product(CAMERAS, range(len(names))):
        row, signs = [], 0
        for training, test in heads:
            if (training, camera, "mixed") not in cells:
                row.append("")
                continue
            right, ratio = (Column(cells, (training, camera, "mixed"), test, name) for name in ("accuracy", "grad_cam"))
            own = np.array(right.images["label"]) == label
            signs = len(set(np.array(right.tracks)[own].tolist()))
            row.append(f"{100 * right.mean[own].mean():.0f} ({np.nanmean(ratio.mean[own]):.2f})" if own.any() else "")
        if any(row):
            lines.append(f"| {camera} | {names[label]} | {signs} | {' | '.join(row)} |")
    return lines


def show(rows: list[dict[str, Any]], *, by_class: bool = False) -> str:
    """All tables as Markdown, those of each set of settings apart; or a row for each class."""
    if by_class:
        return "\n\n".join(f"{made_with(group)}\n\n" + "\n".join(class_table(group)) for group in alike(rows))
    return "\n\n".join(tables(group) for group in alike(rows))


def tables(rows: list[dict[str, Any]]) -> str:
    """The tables of trainings with one set of settings, with the machine and the settings."""
    cells = cells_of(rows)
    seconds = [r["cpu_seconds"] for r in rows]
    settings = {k: v for k, v in rows[0]["settings"].items() if k not in ("training", "camera", "shape", "seed")}
    parts = [
        f"{made_with(rows)}; {sum(seconds) / len(rows):.0f} s of processor time a run",
        f"settings: {settings}",
        "\n".join(main_table(cells)),
        "Pixel ratio, uncorrelated minus correlated training:",
        "\n".join(compared("attribution | camera | tested", training_pairs(cells))),
    ]
    if pairs := shape_pairs(cells):
        parts += [
            "Pixel ratio, trained on the shape alone minus trained on all:",
            "\n".join(compared("attribution | shape | camera | training | tested", pairs)),
            "\n".join(shape_accuracy(cells)),
        ]
    return "\n\n".join(parts)


def write_figure(rows: list[dict[str, Any]], path: Path) -> None:
    """Accuracy and pixel ratio by camera level: colours are trainings, full and hollow marks the two tests.

    Raises:
        ValueError: trainings of several settings.
    """
    import matplotlib.pyplot as plt

    if len(alike(rows)) > 1:
        raise ValueError(f"results: expected one set of settings, got {len(alike(rows))}")
    cells = cells_of(rows)
    names = {"accuracy": "accuracy", **{k: f"pixel ratio, {v}" for k, v in ATTRIBUTIONS.items()}}
    colours = {"correlated": "#c2410c", "uncorrelated": "#1d4ed8"}
    figure, axes = plt.subplots(1, len(names), figsize=(11, 3.6), layout="constrained")
    for axis, (name, title) in zip(axes, names.items(), strict=True):
        for (number, training), test in itertools.product(enumerate(TRAININGS), TESTS):
            shift = 0.12 * (2 * number - 1) + 0.05 * (2 * TESTS.index(test) - 1)
            for place, camera in enumerate(CAMERAS):
                key = (training, camera, "mixed")
                if key not in cells:
                    continue
                column = Column(cells, key, test, name)
                found = bootstrap_mean(column.mean, groups=column.tracks)
                ends = [[found.value - found.low], [found.high - found.value]]
                full = test == "correlated"
                axis.errorbar(
                    place + shift, found.value, ends, fmt="o" if full else "s", color=colours[training], capsize=2,
                    mfc=colours[training] if full else "white", ms=5, lw=1.2,
                    label=f"trained {training}, tested {test}" if place == 0 else None,
                )  # fmt: skip
                seeds = np.nanmean(column.values, 1)
                axis.plot([place + shift] * len(seeds), seeds, "_", color="#111827", ms=6, mew=0.8)
                if name != "accuracy":
                    share = Column(cells, key, test, "mask_share").mean.mean()
                    axis.plot([place - 0.3, place + 0.3], [share] * 2, color="#6b7280", lw=1, ls=":")
        axis.set_xticks(range(len(CAMERAS)), CAMERAS)
        axis.set_xlim(-0.5, len(CAMERAS) - 0.5)
        axis.set_title(title, fontsize=10)
        axis.set_ylim(0, 1.02)
        axis.grid(axis="y", alpha=0.3)
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, fontsize=8, frameon=False)
    figure.savefig(path, dpi=110)
