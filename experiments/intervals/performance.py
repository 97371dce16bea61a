"""Do the intervals of AUC, sensitivity, balanced accuracy and F1 hold the truth?

    python -m experiments.intervals.performance                     1000 simulations of each row, minutes
    python -m experiments.intervals.performance --simulations 200   quicker

Three of ten images have the label. Scores are normal, those of images with the label higher by as much as gives the AUC
(0.7, 0.9, 0.98); answers are "yes" above the middle of both means. On the other background the distance is 0.7 times as
large, and scores of one image on both have correlation 0.5. Writes performance.jsonl beside this file, which
``python -m experiments.intervals.table performance`` lays out.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy.stats import norm

from experiments.intervals.options import simulation_parser
from torch_bgdebias.metrics import Interval, auc_difference, auc_interval, balanced_accuracy, f1_score, sensitivity_at

NUMBERS = (30, 100, 400)
AREAS = (0.7, 0.9, 0.98)
#: images with the label; the distance of means on the other background, as a share; correlation of both backgrounds
SHARE, WEAKER, CORRELATION = 0.3, 0.7, 0.5


class Drawn(NamedTuple):
    """Labels (N,), and scores (N,) on two backgrounds."""

    label: np.ndarray
    own: np.ndarray
    other: np.ndarray


def drawn(rng: np.random.Generator, n: int, distance: float) -> Drawn:
    """One data set."""
    label = rng.random(n) < SHARE
    own = rng.normal(size=n)
    other = CORRELATION * own + np.sqrt(1 - CORRELATION**2) * rng.normal(size=n)
    return Drawn(label, own + distance * label, other + WEAKER * distance * label)


def f1_of(distance: float) -> float:
    """F1 of the answers "above half of the distance", of all images there could be."""
    right = norm.cdf(distance / 2)
    return float(2 * SHARE * right / (SHARE * right + (1 - SHARE) * (1 - right) + SHARE))


def figures(distance: float) -> Iterator[tuple[str, float, Callable[[Drawn], Interval]]]:
    """What a report has: its name, the truth, and the interval of one data set."""
    root = np.sqrt(2)
    area, weaker = (float(norm.cdf(share * distance / root)) for share in (1, WEAKER))
    yield "AUC", area, lambda data: auc_interval(data.own, data.label, method="logit")
    difference = "AUC on own less random backgrounds"
    yield difference, area - weaker, lambda data: auc_difference(data.own, data.other, data.label).interval
    at_95 = float(norm.cdf(distance - norm.ppf(0.95)))
    yield "sensitivity at 95 % specificity", at_95, lambda data: sensitivity_at(data.own, data.label)
    middle = distance / 2
    balanced = float(norm.cdf(middle))
    yield "balanced accuracy", balanced, lambda data: balanced_accuracy(data.label + 0, (data.own > middle) + 0)
    yield "F1", f1_of(distance), lambda data: f1_score(data.label, data.own > middle)


def main() -> None:
    """Simulate, print, write."""
    args = simulation_parser(__doc__, simulations=1000).parse_args()
    lines = []
    for n in NUMBERS:
        for area in AREAS:
            distance = float(np.sqrt(2) * norm.ppf(area))
            rng = np.random.default_rng([args.seed, n, round(100 * area)])
            samples = [drawn(rng, n, distance) for _ in range(args.simulations)]
            for figure, truth, interval_of in figures(distance):
                intervals = [interval_of(sample) for sample in samples]
                known = [i for i in intervals if not np.isnan(i.low)]
                held = [i.low - 1e-9 <= truth <= i.high + 1e-9 for i in known]
                line = {"figure": figure, "n": n, "auc": area, "truth": truth, "coverage": float(np.mean(held)),
                        "width": float(np.mean([i.high - i.low for i in known])),
                        "without_interval": len(intervals) - len(known)}  # fmt: skip
                lines.append(json.dumps(line))
                print(lines[-1], flush=True)
    Path(__file__).with_name("performance.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
