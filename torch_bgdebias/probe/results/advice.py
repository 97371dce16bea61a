"""The conclusions of a measurement: which classes have a gap, the evidence for it, and what to do next."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Literal, TypeAlias

from torch_bgdebias.metrics.statistics import paired_permutation_test
from torch_bgdebias.probe.results.columns import columns_of
from torch_bgdebias.probe.results.comparison import ModelComparison
from torch_bgdebias.probe.results.gaps import NARROW, has_unlearned, knows_nothing, side_of, turned_answers
from torch_bgdebias.probe.results.issues import images_needed
from torch_bgdebias.probe.results.measurement import ClassResult, Measurement
from torch_bgdebias.probe.results.spelling import interval_of, is_known, number, p_words
from torch_bgdebias.probe.results.summary import classes_by_gap, may_be_chance
from torch_bgdebias.probe.results.verdict import pick_after

__all__ = ["HOW", "How", "Step", "evidence", "next_steps", "shown_classes", "which_classes"]

#: what a page can show how to do
How: TypeAlias = Literal["masks", "swap", "longer", "head", "isnet", "again", "more"]
HOW: tuple[How, ...] = ("masks", "swap", "longer", "head", "isnet", "again", "more")


@dataclasses.dataclass(frozen=True)
class Step:
    """Something to do next.

    Attributes:
        text: what, and when it is the right thing.
        how: which instructions go with it; ``None`` for a step that needs none.
    """

    text: str
    how: How | None


def shown_classes(report: Measurement) -> list[ClassResult]:
    """The classes whose gap is shown to be other than 0, the one farthest from 0 first."""
    return [row for row in classes_by_gap(report) if not may_be_chance(row, report.confidence)]


def which_classes(report: Measurement) -> str:
    """For how many classes a gap is shown, and the largest one where it is for none."""
    with_gap, shown = classes_by_gap(report), shown_classes(report)
    singular, plural = ("label", "labels") if report.images.targets is not None else ("class", "classes")
    if not with_gap:
        return f"Not known: no {singular} has a gap."
    if shown:
        count_words = (
            f"All {len(with_gap):,}" if len(shown) == len(with_gap) > 1 else f"{len(shown):,} of {len(with_gap):,}"
        )
        return f"{count_words} {plural if len(with_gap) > 1 else singular}, with a correction for looking at so many."
    largest = with_gap[0]
    assert is_known(largest.bg_gap)
    return (
        f"For none of the {len(with_gap):,} {plural} by itself: the largest gap, {number(largest.bg_gap.value)} points "
        f"of {largest.name} ({largest.n:,} images), may be chance among so many."
    )


def evidence(report: Measurement) -> str:
    """What the gap rests on, in counts."""
    turned = turned_answers(report)
    if turned is None:
        return "The same objects were not shown on backgrounds of their own and of random classes."
    columns = columns_of(report.images)
    same, rand = columns["accuracy/mixed_same"], columns["accuracy/mixed_rand"]
    p = paired_permutation_test(same, rand, groups=report.images.unit).p_value
    answers = "answers" if report.images.targets is None else "images with labels"
    return (
        f"{turned.images:,} objects were each shown twice, before a background of their own class and of a random one; "
        f"nothing else differed. {turned.lost:,} {answers} were right only before the own class's, {turned.won:,} only "
        f"before the random one: were the background's class without effect, the two would be about as frequent "
        f"({p_words(p)})."
    )


def next_steps(reports: Sequence[Measurement], comparisons: Sequence[ModelComparison | None]) -> list[Step]:
    """What to do, by what was measured, the first thing first."""
    after = pick_after(reports)
    report = reports[0 if after is None else after]
    side, gap = side_of(report.bg_gap), report.bg_gap
    if gap is None or side == "unknown":
        return [Step("Measure mixed_same and mixed_rand, on as many images as there are.", "again")]
    comparison = None if after is None else comparisons[after - 1]
    unlearned = comparison is not None and has_unlearned(*comparison.changes_of_accuracy())
    if comparison is not None and unlearned and knows_nothing(reports[0]) is None:
        return _longer(report, comparison)
    if knows_nothing(report) is not None:
        return [Step(f"Find out why {report.model} knows nothing: the order of the classes (--labels), the "
                     "normalisation (--mean, --std), the size (--size), the checkpoint; batch norms need some hundred "
                     "steps. Then measure again.",
                     "again")]  # fmt: skip
    if comparison is not None and not comparison.gap_differs and side_of(reports[0].bg_gap) != "neither":
        return [_more(report), *_methods(report)[:3]]
    if side == "neither":
        return _nothing_shown(report, after is not None)
    intro = [Step(f"The best of them, {report.model}, still depends on the background. What may take the rest:", None)]
    return [
        *(intro if after is not None else []),
        *_methods(report),
        Step("Then measure again, and compare on the same images.", "again"),
    ]


def _nothing_shown(report: Measurement, later: bool) -> list[Step]:
    ends = None if report.bg_gap is None else interval_of(report.bg_gap)
    wide = ends is not None and max(abs(end) for end in ends) >= NARROW
    steps = [_more(report)] if wide else []
    if later:
        steps.append(Step(f"Take {report.model} where its accuracy is enough, and measure it on pictures from "
                          "elsewhere: another camera, site or season.", "again"))  # fmt: skip
    else:
        steps.append(Step("Nothing to repair on these images. Keep report.json, and measure again after each training "
                          "and on pictures from elsewhere.", "again"))  # fmt: skip
    return steps


def _longer(report: Measurement, comparison: ModelComparison) -> list[Step]:
    """After a training that took the shortcut away and ended before the objects were learned."""
    on_given, _ = comparison.changes_of_accuracy()
    lost = "" if on_given is None else f"{number(-on_given.value)} points of "
    return [
        Step(f"Do not use {report.model} yet: it lost {lost}accuracy on the images as they are, and learned no object "
             "for it. Objects take more steps to learn than backgrounds: train it several times as long.", "longer"),
        Step("Few images: begin with pretrained weights and keep their lower stages, or train with CLAD+, which learns "
             "from the images as they are too.", "longer"),
        Step("Then measure again, and compare on the same images.", "again"),
    ]  # fmt: skip


def _more(report: Measurement) -> Step:
    ends = None if report.bg_gap is None else interval_of(report.bg_gap)
    if report.bg_gap is None or ends is None:
        return Step("Measure more images.", "more")
    needed = images_needed(report.bg_gap.n, (ends[1] - ends[0]) / 2)
    return Step(f"Measure more images, about {max(needed, 2 * report.bg_gap.n):,}, to tell an effect from chance.",
                "more")  # fmt: skip


def _methods(report: Measurement) -> list[Step]:
    """The methods, in the order in which they are worth a try."""
    if side_of(report.bg_gap) == "own":
        return [
            Step("The background speaks against its class: look for a training that always took backgrounds of other "
                 "classes, and draw them independently of the class.", "swap"),
            Step("If it cannot be trained again: a new last layer, fitted on many backgrounds.", "head"),
        ]  # fmt: skip
    return [
        Step("Masks for training: exchange the backgrounds while training (background swap). The first thing to try.",
             "swap"),
        Step("No time to train again: a new last layer, fitted on many backgrounds.", "head"),
        Step("A mark or frame that cannot be exchanged: keep the evidence on the object (ISNet).", "isnet"),
    ]  # fmt: skip
