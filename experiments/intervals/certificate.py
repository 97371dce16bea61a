"""Does a certificate hold, and how much less does it promise than is true?

    python -m experiments.intervals.certificate                     1000 simulations of each row, minutes
    python -m experiments.intervals.certificate --simulations 200   quicker

Objects differ in their chance of being right; each is seen on m backgrounds. Prints a table and writes
certificate.jsonl beside this file. ``held``: how often the bound is at most the truth; ``counted as images``: the same
of Clopper and Pearson's bound for n m independent answers, which they are not.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np

from experiments.intervals.options import simulation_parser
from torch_bgdebias.metrics import certified_accuracy

Chances = Callable[[np.random.Generator, int], np.ndarray]

#: what objects are like -> accuracy, and the chances of n of them
TRUTHS: dict[str, tuple[float, Chances]] = {
    "all alike, 0.9": (0.9, lambda rng, n: np.full(n, 0.9)),
    "always right or never": (0.9, lambda rng, n: (rng.random(n) < 0.9).astype(float)),
    "half always, half by 0.5": (0.75, lambda rng, n: np.where(rng.random(n) < 0.5, 1.0, 0.5)),
    "beta(3, 1/3)": (0.9, lambda rng, n: rng.beta(3, 1 / 3, n)),
    "one in 20 never": (0.95, lambda rng, n: (rng.random(n) < 0.95).astype(float)),
    "all alike, 0.99": (0.99, lambda rng, n: np.full(n, 0.99)),
}


def main() -> None:
    """Simulate, print, write."""
    args = simulation_parser(__doc__, simulations=1000).parse_args()
    lines = []
    for number, (name, (truth, chances)) in enumerate(TRUTHS.items()):
        for n, m in ((30, 4), (100, 8), (400, 8)):
            rng = np.random.default_rng([args.seed, number, n])
            bounds, first, naive = [], [], []
            for _ in range(args.simulations):
                rows = (rng.random((n, m)) < chances(rng, n)[:, None]).astype(int)
                certificate = certified_accuracy(rows)
                bounds.append(certificate.at_least)
                first.append(certificate.one_background_at_least)
                naive.append(certified_accuracy(rows.reshape(-1, 1)).at_least)
            held = {what: float((np.array(x) <= truth + 1e-9).mean()) for what, x in
                    (("held", bounds), ("held_first", first), ("held_counted_as_images", naive))}  # fmt: skip
            line = {"objects": name, "n": n, "m": m, "truth": truth, **held, "at_least": float(np.mean(bounds)),
                    "first_at_least": float(np.mean(first))}  # fmt: skip
            lines.append(json.dumps(line))
            print(lines[-1], flush=True)
    Path(__file__).with_name("certificate.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
