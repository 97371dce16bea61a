"""A network that reads the scene, before and after its last layer is fitted anew on other backgrounds.

    python examples/debiased_head.py

The network is the README picture's plain one: drawn shapes whose scene gives their class away.
"""

from __future__ import annotations

from picture import train

from torch_bgdebias import evaluate_background_bias
from torch_bgdebias.data import example_loader
from torch_bgdebias.heads import fit_debiased_head


def main() -> None:
    model = train(None)
    test = example_loader(images_per_class=100, seed=1)
    reports = [evaluate_background_bias(model, test, name="before")]
    for name, calibrate in (("no temperature", False), ("after", True)):
        fit_debiased_head(model, example_loader(images_per_class=200), calibrate=calibrate).apply_(model)
        reports.append(evaluate_background_bias(model, test, name=name))
    for report in reports:
        same, rand = (100 * report.variants[name].accuracy.value for name in ("mixed_same", "mixed_rand"))
        gap = report.bg_gap
        interval = f"{100 * gap.value:.1f} [{100 * gap.low:.1f}, {100 * gap.high:.1f}]"
        own, other = (report.performance[name].calibration_error for name in ("mixed_same", "mixed_rand"))
        print(f"{report.model:14s} own scenes {same:5.1f}, random scenes {rand:5.1f}, BG-Gap {interval}")
        print(f"{'':14s} calibration error {own:.3f}, {other:.3f}")


if __name__ == "__main__":
    main()
