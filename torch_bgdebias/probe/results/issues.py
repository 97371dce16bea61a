"""Reasons not to rely on a measurement, each with a remedy: masks, sample size, chance, comparability."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Sequence

from torch_bgdebias.probe.results.comparison import ModelComparison
from torch_bgdebias.probe.results.gaps import NARROW, side_of
from torch_bgdebias.probe.results.measurement import Measurement
from torch_bgdebias.probe.results.order import other_order
from torch_bgdebias.probe.results.spelling import interval_of, is_known, number, percent
from torch_bgdebias.probe.results.summary import gap_covers

__all__ = ["Issue", "images_needed", "issues"]

#: an interval that reaches farther than this to either side is told whatever the gap is
_WIDE = 0.10
#: share of the pictures' edges that objects hardly ever cover, and background nearly always does
_EDGE = 0.5
#: share of the picture beyond which nothing is left to be seen of the background, and below which hardly an object is
_ALL, _TINY = 0.95, 0.005
#: share of the images that the gap may miss before its reach is told once more
_MOST = 0.98
#: accuracy that may be lost to the pasting alone before it is told
_PASTING = 0.05


@dataclasses.dataclass(frozen=True)
class Issue:
    """A limitation that readers of the figures should know.

    Attributes:
        what: it is.
        remedy: what to do about it.
        grave: whether the figures mean nothing until it is mended.
    """

    what: str
    remedy: str
    grave: bool = False


def issues(reports: Sequence[Measurement], comparisons: Sequence[ModelComparison | None] = ()) -> list[Issue]:
    """What there is to know of some models' measurements, grave things first, each said once."""
    all_issues = [issue for report in reports for issue in _issues_of_report(report, with_name=len(reports) > 1)]
    all_issues += [
        issue for pair in zip(reports[1:], comparisons, strict=False) for issue in _issues_of_pair(reports[0], *pair)
    ]
    return sorted(dict.fromkeys(all_issues), key=lambda issue: not issue.grave)


def images_needed(n: int, half_width: float, goal: float = NARROW) -> int:
    """About how many images bring an interval from ``half_width`` to ``goal``, in two digits, rounded up."""
    needed = n * (half_width / goal) ** 2
    step = int(10 ** max(0, math.floor(math.log10(max(needed, 1.0))) - 1))
    return step * math.ceil(needed / step)


def _issues_of_report(report: Measurement, *, with_name: bool) -> Iterator[Issue]:
    yield from _size(report, f"{report.model}: " if with_name else "")
    yield from _masks(report)
    yield from _missing(report)
    yield from _guessing(report)
    yield from _few_images(report, f"{report.model}: " if with_name else "")
    yield from _pasting(report)


def _size(report: Measurement, whose: str) -> Iterator[Issue]:
    guessed = report.settings.get("guessed_size")
    if guessed:
        yield Issue(
            f"{whose}{guessed}." if whose else f"{str(guessed)[:1].upper()}{str(guessed)[1:]}.",
            "If the model was trained at another size, measure again with --size N: at a size that it has never seen "
            "its accuracies say little.",
        )


def _masks(report: Measurement) -> Iterator[Issue]:
    edge, share = (report.settings.get(name) for name in ("object_edge_share", "object_share"))
    if isinstance(edge, float) and edge > _EDGE:
        yield Issue(
            f"What the masks call object covers {percent(edge)} of the pictures' edges: they may be inverted.",
            "Look at one mask: the object should be white. If it is black, measure again with --foreground 0 "
            "(foreground=[0] in Python), or 1 - mask.",
            grave=True,
        )
    elif isinstance(share, float) and share > _ALL:
        yield Issue(
            f"The objects fill {percent(share)} of the pictures: hardly any background is exchanged.",
            "Check the masks; a box in place of an outline does this too.",
            grave=True,
        )
    if isinstance(share, float) and share < _TINY:
        yield Issue(
            f"The objects cover {percent(share, 1)} of the pictures, which is hardly to be seen at this size.",
            "Measure at a larger size (--size), or cut the pictures out around their objects.",
        )
    empty = report.counts.get("without_foreground", 0)
    if empty:
        yield Issue(
            f"{empty:,} of {len(report.images):,} masks are empty; their images stand on no other background.",
            "Draw the missing masks, or make them: bgdebias masks IMAGES OUT.",
            grave=empty > 0.5 * len(report.images),
        )


def _missing(report: Measurement) -> Iterator[Issue]:
    if not report.images.labelled:
        yield Issue(
            "The images have no classes: only how often answers change is known, not whether they are right.",
            "Give the labels to know the BG-Gap.",
        )
    elif report.bg_gap is None:
        yield Issue(
            "The BG-Gap was not measured: mixed_same and mixed_rand are needed.",
            "Measure again with --variants mixed_same,mixed_rand.",
            grave=True,
        )
    for variant, where in (("mixed_same", "its own class"), ("mixed_rand", "a random class")):
        left_out = report.counts.get(f"without_partner_{variant}", 0)
        if left_out:
            yield Issue(
                f"{left_out:,} images had no background of {where} to stand on and are left out there.",
                "Bring more backgrounds: more images a class, or a folder of scenes (backgrounds=).",
            )
    if (covers := gap_covers(report)) and report.bg_gap is not None and report.bg_gap.n < _MOST * len(report.images):
        yield Issue(
            f"The BG-Gap is over {covers}: the others have no background of their own class, or of another one.",
            "Bring backgrounds of every class, in folders that are called like the classes.",
        )
    if report.settings.get("changing_images"):
        yield Issue(
            "The loader changes its images at random: an image may stand on its own background.",
            "Measure again with a loader as for validation, without random crops, flips or noise.",
            grave=True,
        )
    batches = report.settings.get("max_batches")
    if batches is not None:
        yield Issue(
            f"Only {batches} batches were measured, {len(report.images):,} images.",
            "Measure all of them before you decide: leave out --max-batches.",
        )


def _guessing(report: Measurement) -> Iterator[Issue]:
    accuracy, classes = report.accuracy("original"), len(report.class_names)
    if not is_known(accuracy) or report.images.targets is not None or classes < 2:
        return
    if (order := other_order(report.images, report.class_names)) is not None:
        remedy = order.remedy[:1].upper() + order.remedy[1:]
        yield Issue(f"{report.model}: {order.what}.", remedy if remedy.endswith("?") else f"{remedy}.", grave=True)
        return
    ends = interval_of(accuracy)
    if ends is not None and ends[0] <= 1 / classes:
        yield Issue(
            f"{report.model} is right on {percent(accuracy.value, 1)} of the images as they are; guessing among "
            f"{classes:,} classes gets {percent(1 / classes, 1)}. A model that guesses has no gap.",
            "Check the order of the classes (--labels), the normalisation (--mean, --std) and the checkpoint; after a "
            "training on exchanged backgrounds that was too short for the objects, train longer.",
            grave=True,
        )


def _few_images(report: Measurement, whose: str) -> Iterator[Issue]:
    gap = report.bg_gap
    ends = interval_of(gap) if is_known(gap) else None
    if gap is None or ends is None:
        return
    half = (ends[1] - ends[0]) / 2
    if half > _WIDE or (half > NARROW and side_of(gap) == "neither"):
        yield Issue(
            f"{whose}Few images ({gap.n:,}): the BG-Gap may be anything from {number(ends[0])} to {number(ends[1])} "
            "points.",
            f"About {images_needed(gap.n, half):,} images would bring it to within {number(NARROW)} points.",
        )


def _pasting(report: Measurement) -> Iterator[Issue]:
    accuracy, own_accuracy = report.accuracy("original"), report.accuracy("mixed_same")
    if not is_known(accuracy) or not is_known(own_accuracy) or report.images.targets is not None:
        return
    loses_much = accuracy.value - own_accuracy.value > _PASTING and own_accuracy.high < accuracy.low
    if loses_much:
        yield Issue(
            f"{report.model} loses {number(accuracy.value - own_accuracy.value)} points to the pasting alone, on "
            "backgrounds of the right class. The BG-Gap leaves that out; the accuracies on pasted pictures hold it.",
            "Look at the masks' edges, and at what the pasted pictures look like (bgdebias variants).",
        )


def _issues_of_pair(first: Measurement, later: Measurement, comparison: ModelComparison | None) -> Iterator[Issue]:
    if comparison is None:
        yield Issue(
            f"{later.model} and {first.model} were not measured on the same images: nothing can be tested in pairs.",
            "Measure both on the same data with the same seed.",
            grave=True,
        )
        return
    if comparison.differing:
        yield Issue(
            f"{later.model} was not measured as {first.model} was ({'; '.join(comparison.differing)}).",
            "Measure both with the same settings: part of a change may come from that.",
        )
    if comparison.n < max(len(first.images), len(later.images)):
        yield Issue(
            f"{later.model} and {first.model} share {comparison.n:,} images of {len(first.images):,} and "
            f"{len(later.images):,}; changes are over these.",
            "Measure both on the same data.",
        )
