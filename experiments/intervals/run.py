"""How often do the intervals of a report hold the truth? Simulated, where a percentile bootstrap fails: near the ends.

    python -m experiments.intervals.run                    2000 simulations of each row, about two minutes
    python -m experiments.intervals.run --simulations 500  quicker

Prints a table and writes results.jsonl beside this file. Groups are of four images that agree with chance 0.5.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from torch_bgdebias.metrics.intervals import mean_difference_interval, mean_interval

NUMBERS = (30, 100, 400)
ACCURACIES = (0.5, 0.9, 0.99, 1.0)


def right(rng: np.random.Generator, n: int, p: float, groups: np.ndarray | None) -> np.ndarray:
    """(n,) 1 with chance p; in groups half of the images say what their group says."""
    own = rng.random(n) < p
    if groups is None:
        return own.astype(float)
    shared = (rng.random(n) < p)[groups]
    return np.where(rng.random(n) < 0.5, shared, own).astype(float)


def rows() -> Iterator[tuple[dict[str, Any], float, Callable[[np.random.Generator], Any]]]:
    """What is simulated: its name and settings, the truth, and one simulation's interval."""
    for n in NUMBERS:
        for grouped in (False, True):
            groups = np.arange(n) // 4 if grouped else None
            for p in ACCURACIES:
                about = {"n": n, "groups": grouped, "accuracy": p}

                def accuracy(rng, n=n, p=p, groups=groups):
                    return mean_interval(right(rng, n, p, groups), groups=groups)

                def gap(rng, n=n, p=p, groups=groups):
                    same = right(rng, n, p, groups)
                    # three quarters of the answers stay on another background, the rest are drawn anew, less right
                    moved = np.where(rng.random(n) < 0.75, same, right(rng, n, 0.6 * p, groups))
                    return mean_difference_interval(same, moved, groups=groups)

                def two_models(rng, n=n, p=p, groups=groups):
                    first = right(rng, n, p, groups)
                    second = np.where(rng.random(n) < 0.8, first, right(rng, n, 0.8 * p, groups))
                    return mean_difference_interval(second, first, groups=groups)

                yield {"figure": "accuracy, consistency", **about}, p, accuracy
                yield {"figure": "BG-Gap", **about}, 0.25 * (p - 0.6 * p), gap
                yield {"figure": "accuracy of two models", **about}, 0.2 * (0.8 * p - p), two_models
            for a, b in ((2, 2), (8, 2), (20, 1)):
                shape = {"n": n, "groups": grouped, "beta": [a, b]}

                def ratio(rng, n=n, a=a, b=b, groups=groups):
                    values = rng.beta(a, b, n)
                    if groups is not None:
                        values = np.where(rng.random(n) < 0.5, rng.beta(a, b, n)[groups], values)
                    return mean_interval(values, groups=groups, bounds=(0, 1))

                yield {"figure": "pixel ratio", **shape}, a / (a + b), ratio


def main() -> None:
    """Simulate, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--simulations", type=int, default=2000, metavar="N", help="of each row (default: 2000)")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    results = []
    for number, (about, truth, simulate) in enumerate(rows()):
        rng = np.random.default_rng([args.seed, number])
        intervals = [simulate(rng) for _ in range(args.simulations)]
        # a true 0 or 1 lies on the end itself
        held = [i.low - 1e-9 <= truth <= i.high + 1e-9 for i in intervals]
        width = float(np.mean([i.high - i.low for i in intervals]))
        results.append({**about, "coverage": float(np.mean(held)), "width": width})
        print(json.dumps(results[-1]), flush=True)
    text = "".join(json.dumps(result) + "\n" for result in results)
    Path(__file__).with_name("results.jsonl").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
