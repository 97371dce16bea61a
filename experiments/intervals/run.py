"""How often do the intervals of a report hold the truth? Simulated, where a percentile bootstrap fails: near the ends.

    python -m experiments.intervals.run                    2000 simulations of each row, about five minutes
    python -m experiments.intervals.run --simulations 500  quicker
    python -m experiments.intervals.run --exact            every outcome counted instead; images without groups

Prints a table and writes results.jsonl (exact.jsonl) beside this file. Groups are of four images that agree with chance
0.5. Label sets are of five labels.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from experiments.intervals.options import simulation_parser
from torch_bgdebias.metrics.intervals import mean_difference_interval, mean_interval

NUMBERS = (30, 100, 400)
ACCURACIES = (0.5, 0.9, 0.99, 1.0)
LABELS = 5


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

                def labels(rng, n=n, p=p, groups=groups):
                    columns = [right(rng, n, p, groups) for _ in range(LABELS)]
                    return mean_interval(np.mean(columns, 0), groups=groups, bounds=(0, 1))

                def gap_of_labels(rng, n=n, p=p, groups=groups):
                    same = np.array([right(rng, n, p, groups) for _ in range(LABELS)])
                    moved = np.array([right(rng, n, 0.6 * p, groups) for _ in range(LABELS)])
                    kept = rng.random((LABELS, n)) < 0.75
                    rand = np.where(kept, same, moved)
                    return mean_difference_interval(same.mean(0), rand.mean(0), groups=groups)

                def change_of_gap(rng, n=n, p=p, groups=groups):
                    first = right(rng, n, p, groups) - right(rng, n, 0.7 * p, groups)
                    second = np.where(rng.random(n) < 0.5, first, right(rng, n, p, groups) - right(rng, n, p, groups))
                    return mean_difference_interval(second, first, groups=groups)

                yield {"figure": "accuracy, consistency", **about}, p, accuracy
                yield {"figure": "accuracy of label sets", **about}, p, labels
                yield {"figure": "BG-Gap of label sets", **about}, 0.25 * (p - 0.6 * p), gap_of_labels
                yield {"figure": "change of a BG-Gap", **about}, -0.5 * 0.3 * p, change_of_gap
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


def exact() -> Iterator[dict[str, Any]]:
    """Coverage with every outcome counted, beside what an interval of whole counts can have at all."""
    for n in NUMBERS:
        ends = [mean_interval(np.r_[np.ones(k), np.zeros(n - k)]) for k in range(n + 1)]
        for p in ACCURACIES:
            chances = stats.binom.pmf(np.arange(n + 1), n, p)
            held = np.array([end.low - 1e-9 <= p <= end.high + 1e-9 for end in ends])
            possible = possible_coverages(chances)
            target = (0.93, 0.98) if n == 30 else (0.94, 0.97)
            within = possible[(possible >= target[0]) & (possible <= target[1])]
            yield {
                "figure": "accuracy, consistency",
                "n": n,
                "accuracy": p,
                "coverage": float(chances[held].sum()),
                "possible": len(within) > 0,
                "nearest": [
                    float(x)
                    for x in (
                        possible[possible < target[0]].max(initial=0),
                        possible[possible > target[1]].min(initial=1),
                    )
                ],
            }
        for figure, shares in (("BG-Gap", gap_shares), ("accuracy of two models", two_model_shares)):
            for p in ACCURACIES:
                yield {"figure": figure, "n": n, "accuracy": p, "coverage": of_pairs(n, *shares(p))}


def possible_coverages(chances: np.ndarray) -> np.ndarray:
    """Chances of all runs of counts around the likeliest: what intervals whose ends rise with the count can cover."""
    likeliest, sums = int(chances.argmax()), np.r_[0.0, chances.cumsum()]
    return np.unique([sums[j + 1] - sums[i] for i in range(likeliest + 1) for j in range(likeliest, len(chances))])


def gap_shares(p: float) -> tuple[float, float]:
    """Images right on own and wrong on random backgrounds, and the other way round, in the simulation of a BG-Gap."""
    return 0.25 * p * (1 - 0.6 * p), 0.25 * (1 - p) * 0.6 * p


def two_model_shares(p: float) -> tuple[float, float]:
    """The same of a second and a first model."""
    return 0.2 * (1 - p) * 0.8 * p, 0.2 * p * (1 - 0.8 * p)


def of_pairs(n: int, up: float, down: float) -> float:
    """Coverage of a difference of paired shares, over all pairs of counts that are likelier than 1e-9."""
    plus, minus = (np.flatnonzero(stats.binom.pmf(np.arange(n + 1), n, share) > 1e-9) for share in (up, down))
    pairs = [(a, b) for a in plus.tolist() for b in minus.tolist() if a + b <= n]
    counts = np.array([(a, b, n - a - b) for a, b in pairs])
    chances = stats.multinomial.pmf(counts, n, [up, down, 1 - up - down])
    total = 0.0
    for (a, b), chance in zip(pairs, chances.tolist(), strict=True):
        first, second = np.zeros(n), np.zeros(n)
        first[:a], second[a : a + b] = 1, 1
        end = mean_difference_interval(first, second)
        total += chance * (end.low - 1e-9 <= up - down <= end.high + 1e-9)
    return total


def main() -> None:
    """Simulate, print, write."""
    parser = simulation_parser(__doc__, simulations=2000)
    parser.add_argument("--exact", action="store_true", help="count every outcome instead of simulating")
    args = parser.parse_args()
    results = []
    if args.exact:
        for result in exact():
            results.append(result)
            print(json.dumps(result), flush=True)
        text = "".join(json.dumps(result) + "\n" for result in results)
        Path(__file__).with_name("exact.jsonl").write_text(text, encoding="utf-8")
        return
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
