"""A measurement as text for a terminal."""

from __future__ import annotations

from torch_bgdebias.probe.results.gaps import bias_sentence
from torch_bgdebias.probe.results.measurement import ClassResult, Measurement, VariantResult
from torch_bgdebias.probe.results.spelling import is_known, plain_text

__all__ = ["classes_by_gap", "summary_text"]


def summary_text(measurement: Measurement) -> str:
    """The headline numbers, percentages with intervals; what they say; the classes with the largest gaps."""
    m = measurement
    counted = ", ".join(f"{number} {what.replace('_', ' ')}" for what, number in m.counts.items())
    lines = [f"{m.model}: background bias ({counted}; {100 * m.confidence:g} % intervals)"]
    lines += [_variant_line(name, result) for name, result in m.variants.items()]
    lines += [f"  {name:<12} mean {s.mean} ({s.n_undefined} undefined)" for name, s in m.scores.items()]
    if m.bg_gap is not None:
        lines.append(f"  BG-Gap = accuracy(mixed_same) - accuracy(mixed_rand) = {m.bg_gap.percent()} points")
        lines.append(f"  {plain_text(bias_sentence(m.model, m.bg_gap, m.confidence))}")
        listed = ", ".join(
            f"{c.name} {100 * c.bg_gap.value:.1f} (n = {c.n})" for c in classes_by_gap(m)[:5] if c.bg_gap
        )
        lines.append(f"  largest gaps: {listed}")
    lines += [table.summary() for table in m.concepts]
    return "\n".join(lines)


def classes_by_gap(measurement: Measurement) -> list[ClassResult]:
    """The classes whose gap is known, the one farthest from 0 first."""
    known = [c for c in measurement.per_class if is_known(c.bg_gap)]
    return sorted(known, key=lambda c: -abs(c.bg_gap.value) if c.bg_gap else 0.0)


def _variant_line(name: str, result: VariantResult) -> str:
    line = f"  {name:<12} accuracy {result.accuracy.percent():<22}"
    if result.decision_consistency is not None:
        line += f" decisions kept {result.decision_consistency.percent():<22}"
    if result.feature_consistency is not None:
        line += f" embedding cosine {result.feature_consistency.value:.3f}"
    return line.rstrip() + (f"  ({result.n_left_out} left out)" if result.n_left_out else "")
