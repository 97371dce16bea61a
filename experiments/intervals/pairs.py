"""Would another interval of a difference of paired shares do better where few images change sides?

    python -m experiments.intervals.pairs        every outcome counted, seconds

The report's interval beside Tango's score interval (Statistics in Medicine 17, 1998) and that of Bonett and Price
(Journal of Educational and Behavioral Statistics 37, 2012), at the shares of ``run.py --exact``, and at the least over
a grid of all shares. Prints a table.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import numpy as np
from scipy import special, stats

from experiments.intervals.run import ACCURACIES, gap_shares, two_model_shares
from torch_bgdebias.metrics.intervals import changed_sides

Z = float(special.ndtri(0.975))
Ends = Callable[[int, int, int], tuple[float, float]]


@functools.cache
def report(up: int, down: int, n: int) -> tuple[float, float]:
    """From Jeffreys' intervals of both shares."""
    return changed_sides(up / n, down / n, n, 0.05)


@functools.cache
def tango(up: int, down: int, n: int) -> tuple[float, float]:
    """Differences that a score test does not reject."""

    def score(d: float) -> float:
        b = -up - down + (2 * n - up + down) * d
        share = (math.sqrt(max(b * b + 8 * n * down * d * (1 - d), 0.0)) - b) / (4 * n)
        variance = n * (2 * share + d * (1 - d))
        distance = up - down - n * d
        return (
            distance / math.sqrt(variance) if variance > 0 else math.copysign(math.inf, distance) if distance else 0.0
        )

    def turn(limit: float, low: float, high: float) -> float:
        for _ in range(60):
            middle = (low + high) / 2
            low, high = (middle, high) if score(middle) > limit else (low, middle)
        return (low + high) / 2

    value = (up - down) / n
    return turn(Z, -1 + 1e-9, value), turn(-Z, value, 1 - 1e-9)


@functools.cache
def bonett_price(up: int, down: int, n: int) -> tuple[float, float]:
    """Wald's with one image more on either side."""
    p, q = (up + 1) / (n + 2), (down + 1) / (n + 2)
    half = Z * math.sqrt((p + q - (p - q) ** 2) / (n + 2))
    return p - q - half, p - q + half


def coverage(ends: Ends, n: int, up: float, down: float) -> float:
    """Over all outcomes that are likelier than 1e-8."""
    first, second = (np.flatnonzero(stats.binom.pmf(np.arange(n + 1), n, p) > 1e-8) for p in (up, down))
    pairs = [(a, b) for a in first.tolist() for b in second.tolist() if a + b <= n]
    counts = np.array([(a, b, n - a - b) for a, b in pairs])
    chances = stats.multinomial.pmf(counts, n, [up, down, 1 - up - down]).tolist()
    held = [ends(a, b, n)[0] - 1e-9 <= up - down <= ends(a, b, n)[1] + 1e-9 for a, b in pairs]
    return sum(chance for chance, holds in zip(chances, held, strict=True) if holds)


def main() -> None:
    """Count, print."""
    print("| figure | n | the report's | Tango | Bonett and Price |\n| --- | --- | --- | --- | --- |")
    for n in (30, 100):
        for figure, shares in (("BG-Gap", gap_shares), ("accuracy of two models", two_model_shares)):
            cells = [
                " / ".join(f"{100 * coverage(ends, n, *shares(p)):.1f}" for p in ACCURACIES)
                for ends in (report, tango, bonett_price)
            ]
            print(f"| {figure} | {n} | {' | '.join(cells)} |")
    grid = [(up, down) for up in np.linspace(0.005, 0.5, 15) for down in np.linspace(0, 0.5, 12) if up + down < 1]
    least = [f"{100 * min(coverage(ends, 30, *pair) for pair in grid):.1f}" for ends in (report, tango, bonett_price)]
    print(f"| least over all shares | 30 | {' | '.join(least)} |")


if __name__ == "__main__":
    main()
