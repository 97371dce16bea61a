"""The results of a concept experiment on one layer, as plain numbers for a report's JSON."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from torch_bgdebias.metrics.statistics import Interval
from torch_bgdebias.records import Record

__all__ = ["ConceptBackground", "ConceptFit", "ConceptTable", "biased_pairs"]


@dataclasses.dataclass(frozen=True)
class ConceptBackground:
    """One concept on one background category.

    Attributes:
        concept: its name.
        category: the background's.
        iou: mean over the test images, with a bootstrap interval.
        original: the same on the images' own backgrounds.
        difference: ``iou`` minus ``original``, over the same images.
        relative_drop: 1 - iou / original, NaN where that is 0.
        p_value: paired permutation test of the difference; NaN without images.
        corrected: ``p_value`` corrected for all concepts and categories of the table.
    """

    concept: str
    category: str
    iou: Interval
    original: Interval
    difference: Interval
    relative_drop: float
    p_value: float
    corrected: float


@dataclasses.dataclass(frozen=True)
class ConceptFit:
    """Vectors fitted on one kind of backgrounds, over all concepts.

    Attributes:
        condition: the backgrounds that they were fitted on.
        original: mean IoU of the test images on their own backgrounds.
        others: mean IoU on the other backgrounds (of each image the mean over the categories).
        cosine: of each concept's vector and the one fitted on original backgrounds; NaN without a vector.
    """

    condition: str
    original: Interval
    others: Interval
    cosine: dict[str, float]

    @property
    def mean_cosine(self) -> float:
        """Over the concepts that have vectors; NaN without any."""
        cosines = [value for value in self.cosine.values() if not math.isnan(value)]
        return sum(cosines) / len(cosines) if cosines else math.nan


@dataclasses.dataclass(frozen=True)
class ConceptTable:
    """One layer and one kind of vector; see `torch_bgdebias.probe.concept_tables`.

    Attributes:
        layer: its name.
        method: ``"net2vec"`` or ``"loce"`` (globalised).
        rows: every concept on every background category, vectors fitted on original backgrounds.
        fits: the same vectors, then those fitted on other backgrounds.
    """

    layer: str
    method: str
    rows: list[ConceptBackground]
    fits: list[ConceptFit]

    @property
    def biased(self) -> list[ConceptBackground]:
        """`biased_pairs` with its defaults."""
        return biased_pairs(self.rows)

    def biased_rows(self) -> list[dict[str, Any]]:
        """The biased pairs as plain values, for a command's JSON."""
        return [
            {"layer": self.layer, "method": self.method, "concept": r.concept, "background": r.category,
             "iou": r.iou.value, "original": r.original.value, "p": r.corrected}
            for r in self.biased
        ]  # fmt: skip

    def summary(self) -> str:
        """How far IoU falls on other backgrounds, and the worst biased pairs."""
        on_original, pairs = self.fits[0], self.biased
        lines = [
            f"  concepts in {self.layer} ({self.method}): IoU {_spell_interval(on_original.original)}, on other "
            f"backgrounds {_spell_interval(on_original.others)}; {len(pairs)} of {len(self.rows)} (concept, "
            "background) pairs lose"
        ]
        lines += [
            f"    {r.concept} on {r.category} ({self.layer}): "
            f"IoU {r.original.value:.2f} -> {r.iou.value:.2f}, p = {r.corrected:.2g}"
            for r in pairs[:5]
        ]
        lines += [f"    and {len(pairs) - 5} more"] if len(pairs) > 5 else []
        return "\n".join(lines)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> ConceptTable:
        """From a report's JSON, where NaN is ``None``."""
        return cls.from_record(Record(data))

    @classmethod
    def from_record(cls, data: Record) -> ConceptTable:
        """The same, each field checked; a KeyError or ValueError names the wrong one."""
        rows = [
            ConceptBackground(
                row.text("concept"),
                row.text("category"),
                _interval(row.record("iou")),
                _interval(row.record("original")),
                _interval(row.record("difference")),
                *(row.number(name) for name in ("relative_drop", "p_value", "corrected")),
            )
            for row in data.records("rows")
        ]
        fits = []
        for fit in data.records("fits"):
            cosine = fit.record("cosine")
            intervals = (_interval(fit.record("original")), _interval(fit.record("others")))
            fits.append(ConceptFit(fit.text("condition"), *intervals, {name: cosine.number(name) for name in cosine}))
        if not fits:
            raise ValueError(f"{data.at('fits')}: expected at least those fitted on original backgrounds, got none")
        return cls(data.text("layer"), data.text("method"), rows, fits)


def biased_pairs(
    rows: list[ConceptBackground], *, level: float = 0.05, min_drop: float = 0.05
) -> list[ConceptBackground]:
    """Pairs whose IoU is lower than on original backgrounds: corrected p <= level, and a relative drop of ``min_drop``.

    The paired test also finds losses too small to matter, so both are asked for. The largest loss comes first.
    """
    biased = [row for row in rows if row.corrected <= level and row.relative_drop >= min_drop]
    return sorted(biased, key=lambda row: row.difference.value)


def _spell_interval(value: Interval) -> str:
    return "-" if math.isnan(value.value) else f"{value.value:.3f} [{value.low:.3f}, {value.high:.3f}]"


def _interval(data: Record) -> Interval:
    return Interval(data.number("value"), data.number("low"), data.number("high"), data.whole("n"))
