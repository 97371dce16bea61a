"""What a measurement gives back: numbers with intervals, the results of every image, JSON in and out.

The numbers are derived from :class:`ImageResults` (see :func:`torch_bgdebias.probe.summarise`), which a report keeps:
whoever has the JSON can compute other intervals or compare with another model on the same images.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from torch_bgdebias.probe.results.concepts import ConceptTable
from torch_bgdebias.writing import write_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = [
    "BackgroundBiasReport",
    "ClassResult",
    "Estimate",
    "Example",
    "ImageResults",
    "ScoreResult",
    "VariantResult",
]


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

    def __str__(self) -> str:
        return f"{self.value:.4f} [{self.low:.4f}, {self.high:.4f}] (n = {self.n})"

    def percent(self) -> str:
        """The same in percent with one decimal: ``87.2 [85.0, 89.3]``; ``-`` when there is no value."""
        if math.isnan(self.value):
            return "-"
        return f"{100 * self.value:.1f} [{100 * self.low:.1f}, {100 * self.high:.1f}]"


@dataclasses.dataclass(frozen=True)
class VariantResult:
    """One variant of the images (``original``, ``only_fg``, ..., ``mixed_rand``) over all images that have it.

    Attributes:
        name: the variant.
        accuracy: share of images classified correctly.
        n_left_out: images without this variant (no partner of the right class, no foreground to show).
        decision_consistency: share of images whose predicted class is that of the original; mixed variants only.
        feature_consistency: mean cosine similarity to the original's embedding; mixed variants only.
    """

    name: str
    accuracy: Estimate
    n_left_out: int = 0
    decision_consistency: Estimate | None = None
    feature_consistency: Estimate | None = None


@dataclasses.dataclass(frozen=True)
class ClassResult:
    """The same figures within one class; estimates of an absent class are NaN with n = 0.

    Attributes:
        label: the class.
        name: its name, or the number as text.
        n: images of the class.
        accuracy: per variant.
        bg_gap: accuracy(mixed_same) - accuracy(mixed_rand), when both were measured.
        decision_consistency: per mixed variant.
        feature_consistency: per mixed variant, when embeddings were read.
        scores: mean of each further per-image score (see :class:`ScoreResult`).
    """

    label: int
    name: str
    n: int
    accuracy: dict[str, Estimate]
    bg_gap: Estimate | None = None
    decision_consistency: dict[str, Estimate] = dataclasses.field(default_factory=dict)
    feature_consistency: dict[str, Estimate] = dataclasses.field(default_factory=dict)
    scores: dict[str, Estimate] = dataclasses.field(default_factory=dict)


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
class ImageResults:
    """What the model said about each of N images: one row an image, sorted by ``id``.

    Attributes:
        id: (N,) uint64, fingerprint of the image's content: the same image has the same one in every report.
        label: (N,) int64.
        prediction: per variant (N,) int64; -1 where the image has no such variant.
        confidence: per variant (N,) float32, softmax probability of the predicted class; NaN without the variant.
        cosine: per mixed variant (N,) float32, cosine similarity to the original's embedding; NaN without the variant.
        background_label: per mixed variant (N,) int64, class that the background came from; -1 unknown or no variant.
        scores: further per-image scores (N,) float32, NaN where undefined.
        position: (N,) int64, place of the image in the loader that was evaluated (in an unshuffled one: in its data
            set); ``None`` when unknown.
    """

    id: NDArray[np.uint64]
    label: NDArray[np.int64]
    prediction: dict[str, NDArray[np.int64]]
    confidence: dict[str, NDArray[np.float32]]
    cosine: dict[str, NDArray[np.float32]] = dataclasses.field(default_factory=dict)
    background_label: dict[str, NDArray[np.int64]] = dataclasses.field(default_factory=dict)
    scores: dict[str, NDArray[np.float32]] = dataclasses.field(default_factory=dict)
    position: NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(self.label)

    @property
    def variants(self) -> list[str]:
        """The variants' names in the order of evaluation, ``original`` first."""
        return list(self.prediction)

    def valid(self, variant: str) -> NDArray[np.bool_]:
        """(N,) whether the image has this variant."""
        return np.asarray(self.prediction[variant] >= 0)

    def correct(self, variant: str) -> NDArray[np.bool_]:
        """(N,) whether it was classified correctly (False where the image has no such variant: see ``valid``)."""
        return np.asarray(self.prediction[variant] == self.label)


@dataclasses.dataclass(eq=False)
class Example:
    """Pictures of one image under several variants, for the eye.

    Attributes:
        id: as in :class:`ImageResults`.
        label: the image's class.
        pictures: per variant uint8 (h, w, 3), ``original`` among them.
        prediction: per variant.
        confidence: per variant, probability of the predicted class.
        heatmaps: of the original by attribution, uint8 (h, w) around 128 (:mod:`torch_bgdebias.probe.passes.heatmaps`).
        mask: uint8 (h, w), 255 = foreground; ``None`` where it was not kept.
    """

    id: int
    label: int
    pictures: dict[str, NDArray[np.uint8]]
    prediction: dict[str, int]
    confidence: dict[str, float]
    heatmaps: dict[str, NDArray[np.uint8]] = dataclasses.field(default_factory=dict)
    mask: NDArray[np.uint8] | None = None


@dataclasses.dataclass(eq=False)
class BackgroundBiasReport:
    """What :func:`torch_bgdebias.probe.evaluate_background_bias` returns.

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
            :func:`torch_bgdebias.probe.concept_tables`.
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

    def summary(self) -> str:
        """The headline numbers as text, percentages with intervals, worst classes last."""
        level = 100 * float(self.settings.get("confidence", 0.95))
        counted = ", ".join(f"{number} {what.replace('_', ' ')}" for what, number in self.counts.items())
        lines = [f"{self.model}: background bias ({counted}; {level:g} % intervals)"]
        for name, result in self.variants.items():
            line = f"  {name:<12} accuracy {result.accuracy.percent():<22}"
            if result.decision_consistency is not None:
                line += f" decisions kept {result.decision_consistency.percent():<22}"
            if result.feature_consistency is not None:
                line += f" embedding cosine {result.feature_consistency.value:.3f}"
            lines.append(line.rstrip() + (f"  ({result.n_left_out} left out)" if result.n_left_out else ""))
        for name, score in self.scores.items():
            lines.append(f"  {name:<12} mean {score.mean} ({score.n_undefined} undefined)")
        if self.bg_gap is not None:
            lines.append(f"  BG-Gap = accuracy(mixed_same) - accuracy(mixed_rand) = {self.bg_gap.percent()} points")
            gaps = [c for c in self.per_class if c.bg_gap is not None and not math.isnan(c.bg_gap.value)]
            worst = sorted(gaps, key=lambda c: -c.bg_gap.value if c.bg_gap else 0.0)[:5]
            listed = ", ".join(f"{c.name} {100 * c.bg_gap.value:.1f} (n = {c.n})" for c in worst if c.bg_gap)
            lines.append(f"  largest gaps: {listed}")
        lines += [table.summary() for table in self.concepts]
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain lists, numbers and text (NaN as ``None``), with the schema's name."""
        from torch_bgdebias.probe.results.layout import report_to_dict

        return report_to_dict(self)

    def to_json(self, path: str | Path) -> None:
        """Write :meth:`to_dict` as strict JSON; a number that is not defined (NaN) becomes ``null``."""
        write_text(path, json.dumps(self.to_dict(), allow_nan=False))

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> BackgroundBiasReport:
        """The inverse of :meth:`to_dict`.

        Raises:
            ValueError: another schema, or a field is missing or unknown.
        """
        from torch_bgdebias.probe.results.layout import report_from_dict

        return report_from_dict(data)

    @classmethod
    def from_json(cls, path: str | Path) -> BackgroundBiasReport:
        """Read what :meth:`to_json` wrote.

        Raises:
            OSError: no such file, or it cannot be read; the message says what was expected.
            ValueError: not JSON, another schema, a field that is missing or of another kind; the message names the
                file.
        """
        expected = "expected a report's JSON file, as BackgroundBiasReport.to_json and bgdebias probe write it"
        try:
            text = Path(path).read_text(encoding="utf-8")
        except OSError as error:
            why = "no such file" if isinstance(error, FileNotFoundError) else (error.strerror or str(error)).lower()
            raise type(error)(f"{path}: {expected}; {why}") from error
        except UnicodeDecodeError as error:
            raise ValueError(f"{path}: {expected}; it is not text") from error
        try:
            data = json.loads(text)
        except ValueError as error:
            raise ValueError(f"{path}: {expected}; it is not JSON: {error}") from error
        try:
            return cls.from_dict(data)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error

    def to_html(self, path: str | Path, **options: Any) -> None:
        """Write a self-contained page; options as in :func:`torch_bgdebias.probe.report.report_to_html`."""
        from torch_bgdebias.probe.report import report_to_html

        report_to_html([self], path, **options)

    @property
    def figures(self) -> dict[str, Figure]:
        """Figures by name; needs matplotlib."""
        from torch_bgdebias.probe.report import report_figures

        figures: dict[str, Figure] = report_figures(self)
        return figures
