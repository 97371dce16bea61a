"""A measurement as text for a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from torch_bgdebias.probe.results.gaps import judged_sentence
from torch_bgdebias.probe.results.measurement import ClassResult, Measurement, VariantResult, WorstPart
from torch_bgdebias.probe.results.performance import area_gap, performance_of
from torch_bgdebias.probe.results.spelling import (
    VARIANT_WORDS,
    interval_of,
    is_known,
    number,
    p_words,
    percent,
    plain_text,
)

#: the variants whose AUC and calibration stand in the text: with the own background, without one, on random ones
_PERFORMING = ("original", "only_fg", "mixed_rand")

#: why its interval is not accuracy's, where classes are of one size and the two are the same number
_BALANCED = "(balanced accuracy: the classes' mean, its interval put together from theirs; accuracy's is of all images)"

__all__ = ["by_gap", "classes_by_gap", "gap_covers", "may_be_chance", "summary_text", "worst_sentence"]


def summary_text(measurement: Measurement) -> str:
    """The headline numbers, percentages with intervals; what they say; the classes with the largest gaps."""
    m = measurement
    count_words = ", ".join(f"{number} {noun.replace('_', ' ')}" for noun, number in m.counts.items())
    lines = [f"{m.model}: background bias ({count_words}; {100 * m.confidence:g} % intervals)"]
    lines += [_variant_line(name, result) for name, result in m.variants.items()]
    lines += [f"  {name:<12} mean {s.mean} ({s.n_undefined} undefined)" for name, s in m.scores.items()]
    if m.bg_gap is not None:
        lines.append(
            f"  BG-Gap = accuracy(mixed_same) - accuracy(mixed_rand) = {m.bg_gap.percent()} points{_coverage_note(m)}"
        )
        lines.append(f"  {plain_text(judged_sentence(m))}")
        lines.append(f"  largest gaps: {_largest_gaps(m.per_class, m.confidence)}")
        lines += [f"  by {name}: {_largest_gaps(rows, m.confidence)}" for name, rows in m.per_group.items()]
    lines += _performance_lines(m)
    if m.worst_class is not None:
        noun = "class" if m.images.targets is None else "label"
        lines.append(f"  {worst_sentence(m.worst_class, noun, m.confidence)}")
    lines += [f"  {worst_sentence(worst, name, m.confidence)}" for name, worst in m.worst_group.items()]
    lines += [table.summary() for table in m.concepts]
    return "\n".join(lines)


def classes_by_gap(measurement: Measurement) -> list[ClassResult]:
    """The classes whose gap is known, the one farthest from 0 first."""
    return by_gap([c for c in measurement.per_class if is_known(c.bg_gap)])


def by_gap(rows: Sequence[ClassResult]) -> list[ClassResult]:
    """Classes or groups, the gap farthest from 0 first, those without one last."""
    return sorted(rows, key=lambda c: -abs(c.bg_gap.value) if is_known(c.bg_gap) else 1.0)


def may_be_chance(row: ClassResult, confidence: float) -> bool:
    """Whether a class's gap is not shown to be other than 0, corrected for the number of classes."""
    return is_known(row.bg_gap) and not row.gap_p < 1 - confidence


def worst_sentence(worst: WorstPart, noun: str, confidence: float) -> str:
    """The worst class or group in words: its accuracy with the interval that is corrected for being the worst."""
    ends = interval_of(worst.accuracy)
    level, where = f"{100 * confidence:g}%", VARIANT_WORDS[worst.variant]
    where = "the images as given" if where == "as given" else where
    between = "no interval" if ends is None else f"{level} interval {number(ends[0])} to {number(ends[1])}"
    return (
        f"worst {noun}: {worst.name}, {percent(worst.accuracy.value, 1)} right on {where} ({between}, "
        f"corrected for being the worst of {worst.among} accuracies); none is below {percent(worst.floor, 1)}"
    )


def gap_covers(measurement: Measurement) -> str:
    """``32 of 64 images, 1 of 2 classes`` where some stand on one kind of background alone; empty where all do."""
    gap, total = measurement.bg_gap, len(measurement.images)
    if not is_known(gap) or gap.n == total:
        return ""
    text = f"{gap.n:,} of {total:,} images"
    if measurement.images.targets is not None or not measurement.per_class:
        return text
    inside = sum(is_known(c.bg_gap) for c in measurement.per_class)
    return f"{text}, {inside} of {len(measurement.per_class)} classes"


def _coverage_note(measurement: Measurement) -> str:
    covers = gap_covers(measurement)
    return f" (of the {covers}, that stand on both)" if covers else ""


def _largest_gaps(rows: Sequence[ClassResult], confidence: float) -> str:
    largest = [c for c in by_gap(rows)[:5] if is_known(c.bg_gap)]
    return ", ".join(
        f"{c.name} {number(c.bg_gap.value)} (n = {c.n}{', may be chance' if may_be_chance(c, confidence) else ''})"
        for c in largest
        if c.bg_gap
    )


def _performance_lines(m: Measurement) -> list[str]:
    """AUC and calibration with the object's own background, without any, and on random ones."""
    rows = performance_of(m)
    lines = [
        f"  {name:<12} AUC {row.auc.value:.3f} [{row.auc.low:.3f}, {row.auc.high:.3f}], balanced accuracy "
        f"{row.balanced_accuracy.percent()}, F1 {row.f1.value:.3f}, calibration error {row.calibration_error:.3f} "
        f"({row.calibration_by_chance:.3f} by chance)"
        for name, row in rows.items()
        if name in _PERFORMING
    ]
    if lines and m.images.targets is None:
        lines.append(f"  {_BALANCED}")
    gap = area_gap(m)
    if gap is not None and is_known(gap.difference):
        change = gap.difference
        lines.append(
            f"  AUC on own less random backgrounds {change.value:.3f} [{change.low:.3f}, {change.high:.3f}] "
            f"({p_words(gap.p_value)})"
        )
    return lines


def _variant_line(name: str, result: VariantResult) -> str:
    line = f"  {name:<12} accuracy {result.accuracy.percent():<22}"
    if result.decision_consistency is not None:
        line += f" decisions kept {result.decision_consistency.percent():<22}"
    if result.exact_match is not None:
        line += f" all labels right {result.exact_match.percent():<22}"
    if result.feature_consistency is not None:
        line += f" embedding cosine {result.feature_consistency.value:.3f}"
    return line.rstrip() + (f"  ({result.n_left_out} left out)" if result.n_left_out else "")
