"""Compares models on the same images: each figure's change with interval and test, overall and per class."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from torch_bgdebias._deprecated import warn_of_resampling
from torch_bgdebias.metrics.auc import auc_difference
from torch_bgdebias.metrics.columns import Floats
from torch_bgdebias.metrics.intervals import mean_difference_interval
from torch_bgdebias.metrics.statistics import correct_p_values, paired_permutation_test
from torch_bgdebias.probe.results.columns import columns_by_class, paired_columns, with_gap
from torch_bgdebias.probe.results.gaps import change_sentence, cost_sentence, knows_nothing
from torch_bgdebias.probe.results.images import ImageResults
from torch_bgdebias.probe.results.layout import plain
from torch_bgdebias.probe.results.measurement import Estimate, Measurement
from torch_bgdebias.probe.results.naming import class_label
from torch_bgdebias.probe.results.pairing import differing_settings, incomparable_scores, matched_images
from torch_bgdebias.probe.results.performance import areas_of
from torch_bgdebias.probe.results.spelling import (
    INTERVAL_AND_TEST,
    Sentence,
    difference_words,
    figure_title,
    is_known,
    is_main_figure,
    p_words,
    plain_text,
    say,
)
from torch_bgdebias.writing import write_text

__all__ = [
    "COMPARISON_SCHEMA",
    "Change",
    "ClassChange",
    "ModelComparison",
    "compare_models",
]

#: name and version of the JSON layout of `ModelComparison.to_dict`
COMPARISON_SCHEMA = "torch_bgdebias.comparison/1"
#: what is tested in every class, besides the scores: the figures of the report's class table
CLASS_FIGURES = ("bg_gap", "accuracy/original", "accuracy/mixed_same", "accuracy/mixed_rand")
Correction = Literal["holm", "benjamini-hochberg"]
#: what images belong together; ``None``: each its own
Unit: TypeAlias = NDArray[np.str_] | None


@dataclasses.dataclass(frozen=True)
class Change:
    """The difference of one figure between two models, on the images that have it in both.

    Attributes:
        difference: second model minus first, with its paired interval; n counts the images.
        p_value: of the paired permutation test, two-sided; NaN without images.
        corrected: the same, corrected for the number of tests (see `compare_models`).
        exact: whether all sign patterns were counted instead of drawn.
    """

    difference: Estimate
    p_value: float
    corrected: float
    exact: bool


@dataclasses.dataclass(frozen=True)
class ClassChange:
    """The changes within one class.

    Attributes:
        label: the class.
        name: its name.
        n: images of the class (of label sets: that have the label) that both models classified.
        changes: ``bg_gap``, ``accuracy/original``, ``accuracy/mixed_same``, ``accuracy/mixed_rand`` where measured, and
            every score.
    """

    label: int
    name: str
    n: int
    changes: dict[str, Change]


@dataclasses.dataclass(frozen=True)
class ModelComparison:
    """A later model compared with the first one.

    Attributes:
        first: name of the model that stands for "before".
        second: name of the other one.
        n: images that both reports have.
        figures: figure -> change over all common images: ``bg_gap``, ``accuracy/<variant>``, ``exact_match/<variant>``
            (label sets), ``auc/<variant>`` (DeLong's test), ``decision_consistency/<variant>``,
            ``feature_consistency/<variant>``, and every score by its name.
        per_class: one entry per class with common images.
        settings: ``confidence``, ``n_permutations``, ``seed``, ``correction``, and how many tests each
            correction is for (``tests``: over all images, and per figure over the classes); ``images``: in each report.
        gaps: BG-Gap of the first and of the second over all of their own images.
        differing: what was not the same in the two measurements, in words; part of a change may come from that.
        refused: scores that were measured in ways that cannot be compared.
        guessing: those of the two that are nowhere shown to be right more often than by guessing.
    """

    first: str
    second: str
    n: int
    figures: dict[str, Change]
    per_class: list[ClassChange]
    settings: dict[str, Any]
    gaps: tuple[Estimate | None, Estimate | None] = (None, None)
    differing: list[str] = dataclasses.field(default_factory=list)
    refused: list[str] = dataclasses.field(default_factory=list)
    guessing: list[str] = dataclasses.field(default_factory=list)

    @property
    def gap_differs(self) -> bool:
        """Whether the gap differs beyond chance, after correction."""
        change = self.figures.get("bg_gap")
        return change is not None and change.corrected < 1 - float(self.settings["confidence"])

    def changes_of_accuracy(self) -> tuple[Estimate | None, Estimate | None]:
        """By how much accuracy changes on the images as they are, and on random backgrounds."""
        as_given, on_random = (self.figures.get(f"accuracy/{variant}") for variant in ("original", "mixed_rand"))
        return None if as_given is None else as_given.difference, None if on_random is None else on_random.difference

    def changed_classes(self, figure: str = "bg_gap") -> list[ClassChange]:
        """Classes in which a figure changed significantly after correction, the largest change first."""
        level = 1 - float(self.settings["confidence"])
        changed = [c for c in self.per_class if figure in c.changes and c.changes[figure].corrected < level]
        return sorted(changed, key=lambda c: -abs(c.changes[figure].difference.value))

    def summary(self) -> str:
        """The main changes as text, called as in a report's summary, in points where the figure is a share."""
        level, tests = 100 * float(self.settings["confidence"]), self.settings["tests"]
        title = f"{self.second} against {self.first}"
        if self.differing:
            title += f", measured at other settings ({'; '.join(self.differing)})"
        measured = self.settings.get("images", ())
        of = f" of {' and '.join(map(str, measured))}" if self.n < max(measured, default=0) else ""
        head = f"{title}: {self.n} common images{of}, {level:g} % paired intervals, "
        lines = [f"{head}paired permutation tests, p corrected for {tests['figures']} tests ({_method(self)})"]
        lines += [f"  {name} is not comparable: it was measured at other settings" for name in self.refused]
        before, after = self.gaps
        if is_known(before) and is_known(after):
            lines.append(f"  {plain_text(self._lead(before, after))}")
        main_figures = [name for name in self.figures if is_main_figure(name)]
        width = max((len(figure_title(name)) for name in main_figures), default=0)
        lines += [f"  {figure_title(name):<{width}}  {_in_words(name, self.figures[name])}" for name in main_figures]
        lines += _others_line(self, [name for name in self.figures if name not in main_figures])
        lines += self._interval_and_test(main_figures)
        figure = "bg_gap" if "bg_gap" in self.figures else "accuracy/original"
        if tests["classes"].get(figure):
            lines += _class_lines(self, figure)
        return "\n".join(lines)

    def _lead(self, before: Estimate, after: Estimate) -> Sentence:
        """The gap's change and its cost, or that models were not shown to know the classes."""
        if self.guessing:
            return say(f"{' and '.join(self.guessing)}: not shown to know the classes, so no bias can be judged.")
        level = float(self.settings["confidence"])
        cost = cost_sentence(*self.changes_of_accuracy())
        return (*change_sentence(self.second, before, after, differs=self.gap_differs, level=level), *cost)

    def _interval_and_test(self, names: Sequence[str]) -> list[str]:
        """Why an interval may leave out 0 where p is large, if one of these does."""
        level = 1 - float(self.settings["confidence"])
        changes = [self.figures[name] for name in names]
        contradicting = [c for c in changes if (c.difference.low > 0 or c.difference.high < 0) and c.corrected >= level]
        return [f"  {INTERVAL_AND_TEST}"] if contradicting else []

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain lists, numbers and text (NaN as ``None``), with the schema's name."""
        return {"schema": COMPARISON_SCHEMA, **plain(self)}

    def to_json(self, path: str | Path) -> None:
        """Write `to_dict` as strict JSON."""
        write_text(path, json.dumps(self.to_dict(), allow_nan=False))


def compare_models(
    reports: Sequence[Measurement],
    *,
    confidence: float | None = None,
    n_resamples: int | None = None,
    n_permutations: int = 9999,
    seed: int = 0,
    correction: Correction = "holm",
) -> list[ModelComparison | None]:
    """Compare each later report with the first one, on the images that both have.

    Every figure's change gets a paired interval (`torch_bgdebias.metrics.mean_difference_interval`) and a paired
    permutation test, whose p-values are corrected together: those over all images, and those in the classes figure by
    figure. An image that lacks a figure in either model is left out of that change. What was not the same in the two
    measurements is named in ``differing``; scores that cannot be compared are ``refused``.

    Args:
        reports: at least one; the first is "before".
        confidence: of the intervals; that of the first report when ``None``.
        n_resamples: without effect: intervals are computed, not drawn. Goes in the next release.
        n_permutations: sign patterns drawn where they are too many to count.
        seed: of the sign patterns.
        correction: ``"holm"`` or ``"benjamini-hochberg"``.

    Returns:
        One comparison per later report, ``None`` where it has no image in common with the first.

    Raises:
        ValueError: no report, or a setting out of range.

    Source: paired tests between models on the same images as in arXiv 2512.05937; Holm, Scand. J. Statistics 6, 1979.

    Example:
        >>> import numpy as np
        >>> from torch_bgdebias.probe import ImageResults, summarise
        >>> label, ids = np.arange(40) % 2, np.arange(40, dtype=np.uint64)
        >>> def report(name, rand):
        ...     said = {"original": label, "mixed_same": label, "mixed_rand": rand}
        ...     images = ImageResults(ids, label, said, {v: np.ones(40, np.float32) for v in said})
        ...     return summarise(images, model=name, class_names=["cat", "dog"])
        >>> (comparison,) = compare_models([report("before", 1 - label), report("after", label)])
        >>> comparison.figures["bg_gap"].difference.value
        -1.0
    """
    if not reports:
        raise ValueError("reports: expected at least one BackgroundBiasReport, got none")
    level = float(reports[0].settings.get("confidence", 0.95)) if confidence is None else confidence
    if n_resamples is not None:
        warn_of_resampling("compare_models(n_resamples=...)")
    test_options: dict[str, Any] = {"n_resamples": n_permutations, "seed": seed}
    settings = {
        "confidence": level,
        "seed": seed,
        "n_permutations": n_permutations,
        "correction": correction,
        "interval_and_test": INTERVAL_AND_TEST,
    }
    comparisons = [_uncorrected(reports[0], report, settings, test_options) for report in reports[1:]]
    return _with_corrected_p_values(comparisons, correction)


def _area_changes(
    first: ImageResults, second: ImageResults, variants: Sequence[str], level: float, label: int | None = None
) -> dict[str, Change]:
    """Changes of areas under ROC curves, of the mean or of one class's: DeLong's paired interval and test."""
    changes = {}
    for variant in variants:
        if variant not in first.log_odds or variant not in second.log_odds or not first.labelled:
            continue
        if first.log_odds[variant].shape != second.log_odds[variant].shape:
            continue
        (before, truth), (after, _) = (areas_of(images, variant, label) for images in (first, second))
        test = auc_difference(after, before, truth, groups=first.unit, confidence=level)
        changes[f"auc/{variant}"] = Change(Estimate.of(test.interval), test.p_value, test.p_value, exact=False)
    return changes


def _uncorrected(
    first: Measurement, second: Measurement, settings: Mapping[str, Any], test_options: Mapping[str, Any]
) -> ModelComparison | None:
    """The comparison of two reports before its p-values are corrected; ``None`` without a common image."""
    rows = matched_images(first.images, second.images)
    if rows is None:
        return None
    level = settings["confidence"]
    images, later_images = first.images.at(rows[0]), second.images.at(rows[1])
    before, after = paired_columns(images), paired_columns(later_images)
    refused = incomparable_scores(first, second)
    shared = [name for name in before if name in after and name not in refused]
    in_classes = [name for name in shared if name in CLASS_FIGURES or name in first.images.scores]
    steps = 1 if images.targets is None else images.targets.shape[1]

    def changes(
        names: Sequence[str], before: Mapping[str, Floats], after: Mapping[str, Floats], unit: Unit, steps: int = 1
    ) -> dict[str, Change]:
        shared = [n for n in names if n in before and n in after]
        return {n: _change(_Column(before[n], after[n], unit, steps), level, test_options) for n in shared}

    per_class = []
    for old, new in zip(columns_by_class(images), columns_by_class(later_images), strict=True):
        unit = None if images.unit is None else images.unit[old.rows]
        class_changes = _area_changes(images, later_images, ("original", "mixed_rand"), level, old.label)
        class_changes |= changes(in_classes, with_gap(old.columns), with_gap(new.columns), unit)
        per_class.append(ClassChange(old.label, class_label(first, old.label), old.n, class_changes))
    figures = changes(shared, before, after, images.unit, steps)
    figures |= _area_changes(images, later_images, images.variants, level)
    return ModelComparison(
        first=first.model,
        second=second.model,
        n=len(images),
        figures=figures,
        per_class=per_class,
        settings={**settings, "images": (len(first.images), len(second.images))},
        gaps=(first.bg_gap, second.bg_gap),
        differing=differing_settings(first, second, rows),
        refused=refused,
        guessing=[report.model for report in (first, second) if knows_nothing(report) is not None],
    )


@dataclasses.dataclass(frozen=True)
class _Column:
    """A figure's numbers (N,) before and after; shares of ``steps`` labels are whole numbers of labels."""

    before: Floats
    after: Floats
    unit: Unit
    steps: int

    def in_steps(self, values: Floats) -> Floats:
        """Numbers of labels where that is what they are: differences of whole numbers can be tested exactly."""
        label_counts = np.round(values * self.steps)
        return label_counts if bool((np.abs(label_counts - values * self.steps) < 1e-9).all()) else values


def _change(column: _Column, level: float, test_options: Mapping[str, Any]) -> Change:
    in_both = ~np.isnan(column.before - column.after)
    before, after = column.before[in_both], column.after[in_both]
    groups = None if column.unit is None else column.unit[in_both]
    interval = mean_difference_interval(after, before, groups=groups, confidence=level)
    test = paired_permutation_test(column.in_steps(after), column.in_steps(before), groups=groups, **test_options)
    return Change(Estimate.of(interval), test.p_value, test.p_value, test.exact)


def _with_corrected_p_values(
    comparisons: Sequence[ModelComparison | None], method: Correction
) -> list[ModelComparison | None]:
    """The same with corrected p-values: one family over all images, one per figure over the classes."""
    compared = [comparison for comparison in comparisons if comparison is not None]
    over_images = [change for comparison in compared for change in comparison.figures.values()]
    over_classes = [row.changes for comparison in compared for row in comparison.per_class]
    names = dict.fromkeys(name for changes in over_classes for name in changes)
    class_p = {name: [changes[name].p_value for changes in over_classes if name in changes] for name in names}
    tests = {
        "figures": sum(math.isfinite(change.p_value) for change in over_images),
        "classes": {name: int(np.isfinite(p).sum()) for name, p in class_p.items()},
    }
    # iterators, used up in the order in which the changes are walked through below
    next_p = iter(correct_p_values([change.p_value for change in over_images], method).tolist())
    next_class_p = {name: iter(correct_p_values(p, method).tolist()) for name, p in class_p.items()}

    def corrected(comparison: ModelComparison) -> ModelComparison:
        figures = {
            name: dataclasses.replace(change, corrected=next(next_p)) for name, change in comparison.figures.items()
        }
        per_class = [
            dataclasses.replace(
                row,
                changes={n: dataclasses.replace(c, corrected=next(next_class_p[n])) for n, c in row.changes.items()},
            )
            for row in comparison.per_class
        ]
        settings = {**comparison.settings, "tests": tests}
        return dataclasses.replace(comparison, figures=figures, per_class=per_class, settings=settings)

    return [None if comparison is None else corrected(comparison) for comparison in comparisons]


def _method(comparison: ModelComparison) -> str:
    return {"holm": "Holm", "benjamini-hochberg": "Benjamini-Hochberg"}[comparison.settings["correction"]]


def _others_line(comparison: ModelComparison, others: Sequence[str]) -> list[str]:
    level = 1 - float(comparison.settings["confidence"])
    changed = [figure_title(name) for name in others if comparison.figures[name].corrected < level]
    if not others:
        return []
    names = f": {', '.join(changed)}" if 0 < len(changed) < 4 else ""
    return [f"  {len(others)} further figures on the page, {len(changed)} changed beyond chance{names}"]


def _in_words(name: str, change: Change) -> str:
    """``-48.2 points [-53.0, -43.1], p < 0.001 (n = 400)``."""
    difference = change.difference
    if math.isnan(difference.value):
        return "not known: no image has it in both"
    return f"{difference_words(name, difference)}, {p_words(change.corrected)} (n = {difference.n})"


def _class_lines(comparison: ModelComparison, figure: str) -> list[str]:
    changed = comparison.changed_classes(figure)
    tests = comparison.settings["tests"]["classes"][figure]
    what = f"  {figure_title(figure)} changed in {len(changed)} of {len(comparison.per_class)} classes"
    head = f"{what} (p < {1 - comparison.settings['confidence']:.2g}, corrected for {tests} tests)"
    lines = [f"    {c.name}: {_in_words(figure, c.changes[figure])}" for c in changed[:5]]
    more = [f"    and {len(changed) - 5} more"] if len(changed) > 5 else []
    return [head + (":" if lines else ""), *lines, *more]
