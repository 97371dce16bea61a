"""The numbers of a measurement, with intervals, as plain values.

They are derived from `ImageResults` (see `torch_bgdebias.probe.summarise`), which a measurement keeps:
from its JSON other intervals, and comparisons on the same images, can be computed.
"""

from __future__ import annotations

import dataclasses
import math
import platform
from typing import Any

import numpy as np
import torch

from torch_bgdebias._version import __version__
from torch_bgdebias.metrics.statistics import Interval
from torch_bgdebias.probe.results.concepts import ConceptTable
from torch_bgdebias.probe.results.images import Example, ImageResults

__all__ = [
    "JUDGED",
    "ClassResult",
    "Estimate",
    "Measurement",
    "ScoreResult",
    "VariantResult",
    "WorstPart",
    "versions_in_use",
]

#: the variants over which a model is judged by its worst: the object is there in all of them
JUDGED = ("original", "mixed_same", "mixed_rand")


@dataclasses.dataclass(frozen=True)
class Estimate:
    """A number with its interval.

    Attributes:
        value: the estimate; NaN when there was nothing to estimate from.
        low: lower end of the interval (95 % unless the report's settings say otherwise); NaN for fewer than two images.
        high: upper end.
        n: how many images it rests on.
    """

    value: float
    low: float
    high: float
    n: int

    @classmethod
    def of(cls, interval: Interval) -> Estimate:
        """The same numbers as a report has them."""
        return cls(interval.value, interval.low, interval.high, interval.n)

    def __str__(self) -> str:
        return f"{self.value:.4f} [{self.low:.4f}, {self.high:.4f}] (n = {self.n})"

    def percent(self) -> str:
        """The same in percent with one decimal: ``87.2 [85.0, 89.3]``; ``-`` when there is no value."""
        if math.isnan(self.value):
            return "-"
        return f"{100 * self.value:.1f} [{100 * self.low:.1f}, {100 * self.high:.1f}]"


@dataclasses.dataclass(frozen=True)
class VariantResult:
    """Results of one variant (``original``, ``only_fg``, ..., ``mixed_rand``) over all images that have it.

    Attributes:
        name: the variant.
        accuracy: share of images classified correctly; of label sets the share of labels that are right; NaN where the
            images have no labels.
        n_left_out: images without this variant (no partner of the right class, no foreground to show).
        decision_consistency: share of images whose predicted class is that of the original; mixed variants only.
        feature_consistency: mean cosine similarity to the original's embedding; mixed variants only.
        exact_match: of label sets, the share of images of which all labels are right; ``None`` otherwise.
    """

    name: str
    accuracy: Estimate
    n_left_out: int = 0
    decision_consistency: Estimate | None = None
    feature_consistency: Estimate | None = None
    exact_match: Estimate | None = None


@dataclasses.dataclass(frozen=True)
class ClassResult:
    """The same figures within one class, or one group; estimates of an absent class are NaN with n = 0.

    Of label sets a class is a label, its figures over all images, each right or wrong about this label alone.

    Attributes:
        label: the class, or a group's place in the order of names.
        name: its name, or the number as text.
        n: images of the class; of label sets those that have the label.
        accuracy: per variant.
        bg_gap: accuracy(mixed_same) - accuracy(mixed_rand), when both were measured.
        decision_consistency: per mixed variant.
        feature_consistency: per mixed variant, when embeddings were read.
        scores: mean of each further per-image score (see `ScoreResult`).
        gap_p: p-value of the gap, of the paired permutation test, corrected for the number of classes (Holm); NaN where
            there is no gap.
    """

    label: int
    name: str
    n: int
    accuracy: dict[str, Estimate]
    bg_gap: Estimate | None = None
    decision_consistency: dict[str, Estimate] = dataclasses.field(default_factory=dict)
    feature_consistency: dict[str, Estimate] = dataclasses.field(default_factory=dict)
    scores: dict[str, Estimate] = dataclasses.field(default_factory=dict)
    gap_p: float = math.nan


@dataclasses.dataclass(frozen=True)
class WorstPart:
    """The class or group with the lowest accuracy on the original images or on own or random backgrounds.

    Attributes:
        name: of the class or group.
        variant: on which of these it is so low.
        accuracy: there, with an interval at level 1 - alpha / ``among``: all of them hold at once, so that of the one
            that came out as the worst holds too.
        among: how many accuracies were compared, classes (or groups) times variants.
        floor: no class (or group) is below this on any of the variants, at the report's level.
    """

    name: str
    variant: str
    accuracy: Estimate
    among: int
    floor: float


@dataclasses.dataclass(frozen=True)
class ScoreResult:
    """A further score per image, such as ``pixel_ratio/grad_cam``; its distribution is ``images.scores[name]``.

    Attributes:
        name: what was scored.
        mean: over the images that have a finite value.
        n_undefined: images without one (for a pixel ratio: no positive attribution).
    """

    name: str
    mean: Estimate
    n_undefined: int = 0


@dataclasses.dataclass(eq=False)
class Measurement:
    """One model on one set of images: what tables, pages and comparisons are made of.

    Attributes:
        model: the model's name.
        class_names: (K,) names, in the order of the model's outputs.
        variants: result per variant, ``original`` first.
        bg_gap: accuracy(mixed_same) - accuracy(mixed_rand), the interval paired over images; ``None`` unless both
            variants were measured.
        per_class: one row per class that occurs in the data.
        images: results per image, from which all numbers can be computed again.
        scores: further scores by name.
        counts: ``images``, ``classes``, ``backgrounds``, and what was left out, by reason.
        settings: every setting of the measurement.
        versions: of torch_bgdebias, torch, Python and numpy.
        examples: pictures of the images that the change of background hurt most (may be empty).
        concepts: concept vectors on other backgrounds, a table for each layer and method (may be empty); made by
            `torch_bgdebias.probe.concept_tables`.
        per_group: one row per group, by what groups the images.
        worst_class: the class with the lowest accuracy; ``None`` where nothing was classified.
        worst_group: the group with the lowest accuracy, by what groups the images.
    """

    model: str
    class_names: list[str]
    variants: dict[str, VariantResult]
    bg_gap: Estimate | None
    per_class: list[ClassResult]
    images: ImageResults
    scores: dict[str, ScoreResult] = dataclasses.field(default_factory=dict)
    counts: dict[str, int] = dataclasses.field(default_factory=dict)
    settings: dict[str, Any] = dataclasses.field(default_factory=dict)
    versions: dict[str, str] = dataclasses.field(default_factory=dict)
    examples: list[Example] = dataclasses.field(default_factory=list)
    concepts: list[ConceptTable] = dataclasses.field(default_factory=list)
    per_group: dict[str, list[ClassResult]] = dataclasses.field(default_factory=dict)
    worst_class: WorstPart | None = None
    worst_group: dict[str, WorstPart] = dataclasses.field(default_factory=dict)

    @property
    def confidence(self) -> float:
        """The level of the intervals, from the settings."""
        return float(self.settings.get("confidence", 0.95))

    def accuracy(self, variant: str) -> Estimate | None:
        """Accuracy on a variant, if it was measured."""
        return self.variants[variant].accuracy if variant in self.variants else None

    def worst_variant(self) -> tuple[str, Estimate] | None:
        """The lowest accuracy over original, mixed_same and mixed_rand, as far as they were measured.

        A gap of 0 can be had by being wrong everywhere, and a signed gap by being wrong on the own backgrounds; this
        number falls with both, so it is what to choose a checkpoint by.
        """
        measured = [(v, self.variants[v].accuracy) for v in JUDGED if v in self.variants]
        accuracies = [(name, estimate) for name, estimate in measured if math.isfinite(estimate.value)]
        return min(accuracies, key=lambda item: item[1].value) if accuracies else None


def versions_in_use() -> dict[str, str]:
    """What a measurement was made with, as its ``versions`` has it."""
    return {
        "torch_bgdebias": __version__,
        "torch": str(torch.__version__),
        "numpy": np.__version__,
        "python": platform.python_version(),
    }
