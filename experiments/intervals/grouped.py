"""Are intervals of differences in few groups too wide because of their quantile? Other ways to allow for groups.

    python -m experiments.intervals.grouped --simulations 500        half a minute

Groups of four images that agree with chance 0.5, as in ``run.py``. Beside the report's interval (effective number of
images, Student's quantile with one degree of freedom less than groups): the normal quantile; Satterthwaite's degrees of
freedom, of which the groups give those of the share of the variance that is not the images' own; and the design effect
by an analysis of variance, with these. The last three rows are of gaps whose images agree within groups throughout, as
frames of one film do, where a narrower interval is wrong. Prints a table.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from unittest import mock

import numpy as np
from scipy import special

from experiments.intervals.run import ACCURACIES, gap_shares, right
from torch_bgdebias.metrics import intervals
from torch_bgdebias.metrics.intervals import mean_difference_interval

Pair = tuple[np.ndarray, np.ndarray]
NORMAL = float(special.ndtri(0.975))


def gap(rng: np.random.Generator, n: int, p: float, groups: np.ndarray) -> Pair:
    """A BG-Gap, as in ``run.py``."""
    same = right(rng, n, p, groups)
    return same, np.where(rng.random(n) < 0.75, same, right(rng, n, 0.6 * p, groups))


def two_models(rng: np.random.Generator, n: int, p: float, groups: np.ndarray) -> Pair:
    """The accuracy of two models, as in ``run.py``."""
    first = right(rng, n, p, groups)
    return np.where(rng.random(n) < 0.8, first, right(rng, n, 0.8 * p, groups)), first


def alike(rng: np.random.Generator, n: int, p: float, groups: np.ndarray) -> Pair:
    """A BG-Gap of groups whose images all change sides together."""
    up, down = gap_shares(p)
    drawn = rng.random(n)[groups]
    return (drawn >= down).astype(float), ((drawn < down) | (drawn >= down + up)).astype(float)


def by_variance(residual: np.ndarray, unit: np.ndarray) -> float:
    """Effective number of images from the intraclass correlation of an analysis of variance, at least 0."""
    number = np.unique(unit, return_inverse=True)[1]
    sizes, n = np.bincount(number), len(residual)
    if not np.square(residual).any():
        return n * n / float(np.square(sizes).sum())
    means = np.bincount(number, weights=residual) / sizes
    between = float((sizes * means**2).sum()) / (len(sizes) - 1)
    within = float(np.square(residual - means[number]).sum()) / (n - len(sizes))
    size = (n - float(np.square(sizes).sum()) / n) / (len(sizes) - 1)
    icc = min(max((between - within) / (between + (size - 1) * within), 0.0), 1.0)
    return n / (1 + (float(np.square(sizes).sum()) / n - 1) * icc)


def mixed_quantile(effective: Callable[..., float]) -> Callable[[Pair, np.ndarray], float]:
    """Student's quantile by Satterthwaite: the groups' degrees for the part of the variance that they add."""

    def quantile(pair: Pair, groups: np.ndarray) -> float:
        d, units = pair[0] - pair[1], len(np.unique(groups))
        added = max(0.0, 1 - effective(d - d.mean(), groups) / len(d))
        return float(special.stdtrit((units - 1) + (len(d) - units) * (1 - added), 0.975))

    return quantile


_REPORT = intervals._effective_count
#: way -> effective number of images, and quantile of a pair of columns
WAYS: dict[str, tuple[Callable[..., float], Callable[[Pair, np.ndarray], float]]] = {
    "the report's": (_REPORT, lambda _, groups: float(special.stdtrit(len(np.unique(groups)) - 1, 0.975))),
    "normal quantile": (_REPORT, lambda *_: NORMAL),
    "Satterthwaite": (_REPORT, mixed_quantile(_REPORT)),
    "analysis of variance": (by_variance, mixed_quantile(by_variance)),
}
TRUTHS: dict[Callable[..., Pair], Callable[[float], float]] = {
    gap: lambda p: 0.25 * 0.4 * p,
    two_models: lambda p: -0.2 * 0.2 * p,
    alike: lambda p: gap_shares(p)[0] - gap_shares(p)[1],
}


def coverage(simulate: Callable[..., Pair], n: int, p: float, way: str, simulations: int) -> tuple[float, float]:
    """In percent, and the mean width; the same draws for every way."""
    rng, groups = np.random.default_rng([n, int(100 * p)]), np.arange(n) // 4
    effective, quantile = WAYS[way]
    ends = []
    for _ in range(simulations):
        pair = simulate(rng, n, p, groups)
        z = quantile(pair, groups)
        with mock.patch.multiple(intervals, _effective_count=effective, _quantile=lambda *_, z=z: z):
            ends.append(mean_difference_interval(*pair, groups=groups))
    truth = TRUTHS[simulate](p)
    held = [end.low - 1e-9 <= truth <= end.high + 1e-9 for end in ends]
    return 100 * float(np.mean(held)), float(np.mean([end.high - end.low for end in ends]))


def main() -> None:
    """Simulate, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--simulations", type=int, default=500)
    args = parser.parse_args()
    names = {gap: "BG-Gap", two_models: "accuracy of two models", alike: "BG-Gap, groups alike"}
    print("| figure | n | " + " | ".join(f"{way}: coverage | width" for way in WAYS) + " |")
    print("| --- | --- |" + " --- |" * (2 * len(WAYS)))
    for simulate, name in names.items():
        for n in (30, 100):
            cells = []
            for way in WAYS:
                rows = [coverage(simulate, n, p, way, args.simulations) for p in ACCURACIES]
                cells += [" / ".join(f"{held:.1f}" for held, _ in rows), f"{np.mean([width for _, width in rows]):.3f}"]
            print(f"| {name} | {n} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
