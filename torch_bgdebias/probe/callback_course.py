"""What became of gap and accuracy over a fit: the line with which ``BackgroundBiasProbe`` ends it."""

from __future__ import annotations

import weakref
from typing import Any

import numpy as np
from lightning_utilities.core.rank_zero import rank_zero_info, rank_zero_warn
from torch import nn

from torch_bgdebias.metrics.intervals import mean_difference_interval
from torch_bgdebias.probe.results.columns import columns_of
from torch_bgdebias.probe.results.gaps import cost_sentence, has_unlearned, knows_nothing
from torch_bgdebias.probe.results.measurement import Estimate, Measurement
from torch_bgdebias.probe.results.pairing import matched_images
from torch_bgdebias.probe.results.spelling import is_known, number, percent, plain_text

__all__ = ["FitCourse", "changes_of_accuracy"]

_ACCURACIES = {"original": "accuracy on the images as they are", "mixed_rand": "on random backgrounds"}
_LONGER = (
    "Objects take more steps to learn than backgrounds: train several times as long, until the training loss is as low "
    "as a training that leaves the backgrounds gets it."
)


class FitCourse:
    """The measurement that a run is judged by: that of the network as it came, where there is one, else the first.

    A network is measured as it comes by ``trainer.validate(module)`` with the same probe, or by an earlier fit.
    """

    def __init__(self) -> None:
        self.before: Measurement | None = None
        self.since = ""
        self._module: weakref.ref[nn.Module] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_module": None}  # a reference that does not hold cannot be pickled

    def begin(self, module: nn.Module, earlier: Measurement | None) -> None:
        """A run of the trainer starts.

        Args:
            module: that is run; where it is another one than in the run before, nothing is known of it.
            earlier: what was measured in the run before.
        """
        is_same = self._module is not None and self._module() is module
        self.before, self._module = earlier if is_same else None, weakref.ref(module)
        self.since = "before the fit" if self.before is not None else ""

    def take(self, report: Measurement, epoch: int) -> None:
        """Keep the first measurement of a run where there is none from before it."""
        if self.before is None:
            self.before, self.since = report, f"the end of epoch {epoch}"

    def close(self, name: str, last: Measurement | None) -> None:
        """Say in a line what became of it, as a warning where accuracy was lost for nothing.

        Args:
            name: of who says it.
            last: the fit's last measurement.
        """
        text, unlearned = self.words(last)
        if text:
            (rank_zero_warn if unlearned else rank_zero_info)(f"{name}: {text}")

    def words(self, last: Measurement | None) -> tuple[str, bool]:
        """What to say at the end, nothing where there is nothing to compare; and whether accuracy was lost for nothing.

        Args:
            last: the fit's last measurement.
        """
        before = self.before
        if before is None or last is None or last is before or last.images.targets is not None:
            return "", False
        rows = matched_images(before.images, last.images)
        figures = [("BG-Gap", before.bg_gap, last.bg_gap, number, " points")]
        for variant, where in _ACCURACIES.items():
            figures.append((where, before.accuracy(variant), last.accuracy(variant), _percent, ""))
        parts = [
            f"{what} from {spelled(old.value)} to {spelled(new.value)}{unit}"
            for what, old, new, spelled, unit in figures
            if is_known(old) and is_known(new)
        ]
        if rows is None or not parts:
            return "", False
        given, on_random = changes_of_accuracy(before, last)
        text = f"from {self.since} to the end of the fit: {', '.join(parts)} ({len(rows[0])} images)."
        text += plain_text(cost_sentence(given, on_random))
        unlearned = has_unlearned(given, on_random) and knows_nothing(before) is None
        return (f"{text} {_LONGER}" if unlearned else text), unlearned


def changes_of_accuracy(before: Measurement, after: Measurement) -> tuple[Estimate | None, Estimate | None]:
    """By how much accuracy changes on the images as they are and on random backgrounds, image by image.

    Args:
        before: a measurement.
        after: another one of the same images; those that only one of them has are left out.
    """
    rows = matched_images(before.images, after.images)
    if rows is None:
        return None, None
    old, new = columns_of(before.images.at(rows[0])), columns_of(after.images.at(rows[1]))

    def change(name: str) -> Estimate | None:
        if name not in old or name not in new:
            return None
        in_both = ~np.isnan(old[name] - new[name])
        unit = None if before.images.unit is None else before.images.unit[rows[0]][in_both]
        values = new[name][in_both], old[name][in_both]
        return Estimate.of(mean_difference_interval(*values, groups=unit, confidence=before.confidence))

    return change("accuracy/original"), change("accuracy/mixed_rand")


def _percent(value: float) -> str:
    return percent(value, 1)
