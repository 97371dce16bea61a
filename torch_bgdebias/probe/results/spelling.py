"""How numbers, variants and sentences are written, the same in text, figures and pages. No markup."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable
from typing import TypeAlias, TypeGuard

from torch_bgdebias.probe.results.measurement import JUDGED, Estimate

__all__ = [
    "INTERVAL_AND_TEST",
    "VARIANT_WORDS",
    "Sentence",
    "Words",
    "difference_words",
    "figure_title",
    "interval_of",
    "interval_words",
    "is_known",
    "is_main_figure",
    "number",
    "p_words",
    "percent",
    "plain_text",
    "points",
    "say",
    "spell",
    "strong",
]

#: what each variant shows; the order of the report
VARIANT_WORDS = {
    "original": "as given",
    "only_fg": "object alone",
    "mixed_same": "own class's backgrounds",
    "mixed_rand": "random backgrounds",
    "mixed_next": "next class's backgrounds",
    "no_fg": "object cut out",
    "only_bg_b": "background, box blacked out",
    "only_bg_t": "background, object tiled over",
}


#: what is said of intervals beside p-values, since the two are not made in one way
INTERVAL_AND_TEST = (
    "an interval is of one figure by itself (Jeffreys', of the images that changed sides); p is of a permutation test, "
    "of an AUC DeLong's, corrected for all figures: an interval may leave out 0 where p is large, and p decides"
)
#: what a report's summary calls the figures of a variant
_KINDS = {
    "accuracy": "accuracy",
    "exact_match": "all labels right",
    "auc": "AUC",
    "decision_consistency": "decisions kept",
    "feature_consistency": "embedding cosine",
}


@dataclasses.dataclass(frozen=True)
class Words:
    """A piece of a sentence, with or without weight."""

    text: str
    strong: bool = False


#: a sentence for text (`plain_text`) and page alike
Sentence: TypeAlias = tuple[Words, ...]


def say(*parts: str | Words) -> Sentence:
    """A sentence from pieces."""
    return tuple(part if isinstance(part, Words) else Words(part) for part in parts if part)


def strong(text: str) -> Words:
    """A piece that carries weight: bold on a page."""
    return Words(text, strong=True)


def plain_text(sentence: Iterable[Words]) -> str:
    """A sentence without weights."""
    return "".join(words.text for words in sentence)


def is_known(estimate: Estimate | None) -> TypeGuard[Estimate]:
    """Whether there is a finite value."""
    return estimate is not None and math.isfinite(estimate.value)


def interval_of(estimate: Estimate) -> tuple[float, float] | None:
    """The interval, where both of its ends are finite."""
    return (estimate.low, estimate.high) if math.isfinite(estimate.low) and math.isfinite(estimate.high) else None


def percent(value: float, digits: int = 0) -> str:
    """0.872 -> ``87%`` (thin and without a space: axis labels are narrow)."""
    return f"{100 * value:.{digits}f}%"


def points(value: float) -> str:
    """A difference of accuracies: 0.504 -> ``+50.4``, with a true minus sign; nothing rounds to ``-0.0``."""
    rounded = round(100 * value, 1)
    return f"{'−' if rounded < 0 else '+' if rounded > 0 else ''}{abs(rounded):.1f}"


def number(value: float) -> str:
    """A fraction in points with one decimal and a true minus sign."""
    rounded = round(100 * value, 1)
    return f"{'−' if rounded < 0 else ''}{abs(rounded):.1f}"


def spell(estimate: Estimate | None, *, points: bool = False, confidence: float = 0.95) -> str:
    """An estimate in words: ``50.4 points (95% interval 47.9 to 52.8)``."""
    if not is_known(estimate):
        return "not known"
    value = f"{number(estimate.value)} points" if points else percent(estimate.value, 1)
    interval = interval_words(estimate, confidence)
    return f"{value} ({interval})" if interval else value


def interval_words(estimate: Estimate, confidence: float) -> str:
    """``95% interval 47.9 to 52.8``, in points; nothing where there is none."""
    ends = interval_of(estimate)
    return "" if ends is None else f"{100 * confidence:g}% interval {number(ends[0])} to {number(ends[1])}"


def p_words(p: float) -> str:
    """A p-value as it is printed: ``p = 0.012``, ``p < 0.001``."""
    return "p not known" if math.isnan(p) else "p < 0.001" if p < 0.001 else f"p = {p:.3f}"


def is_main_figure(figure: str) -> bool:
    """Whether a figure stands in the text: gap, accuracy where the object is there, AUC with and without its own."""
    kind, _, variant = figure.rpartition("/")
    if kind not in _KINDS:
        return True  # the gap, and scores
    return variant in {"accuracy": (*JUDGED, "only_fg"), "auc": ("original", "mixed_rand")}.get(kind, ())


def figure_title(figure: str) -> str:
    """A figure's name as the summary of a report writes it."""
    kind, _, variant = figure.rpartition("/")
    return "BG-Gap" if figure == "bg_gap" else f"{variant} {_KINDS[kind]}" if kind in _KINDS else figure


def difference_words(figure: str, difference: Estimate) -> str:
    """``-48.2 points [-53.0, -43.1]``; cosines and ratios as they are."""
    share = figure == "bg_gap" or figure.startswith(("accuracy/", "exact_match/", "decision_consistency/"))
    scale, digits, unit = (100, 1, " points") if share else (1, 4, "")
    value, low, high = (f"{scale * x + 0.0:+.{digits}f}" for x in (difference.value, difference.low, difference.high))
    return f"{value}{unit} [{low}, {high}]"
