"""For which classes, on what it rests, and what to do next."""

from __future__ import annotations

import numpy as np
import pytest
from probe_pages import make_report

from torch_bgdebias.metrics.statistics import paired_permutation_test
from torch_bgdebias.probe import compare_models
from torch_bgdebias.probe.results.advice import evidence, next_steps, shown_classes, which_classes
from torch_bgdebias.probe.results.spelling import p_words


def test_classes_whose_gap_is_shown_come_worst_first() -> None:
    report = make_report()
    rows = shown_classes(report)
    assert [row.gap_p < 0.05 for row in rows] == [True] * 4
    assert [abs(r.bg_gap.value) for r in rows] == sorted((abs(r.bg_gap.value) for r in rows), reverse=True)
    assert which_classes(report).startswith("All 4 classes")


def test_where_none_is_shown_the_largest_is_said_to_be_maybe_chance() -> None:
    report = make_report(same=0.6, rand=0.55, n=40)
    assert shown_classes(report) == []
    assert "For none of the 4 classes by itself" in which_classes(report)
    assert "may be chance" in which_classes(report)


def test_evidence_counts_answers() -> None:
    report = make_report()
    label, said = report.images.label, report.images.prediction
    same, rand = said["mixed_same"] == label, said["mixed_rand"] == label
    text = evidence(report)
    assert f"{(same & ~rand).sum()} images with labels" not in text
    assert f"{(same & ~rand).sum()} answers were right only before the own class's" in text
    assert f"{(rand & ~same).sum()} only before the random one" in text
    p = paired_permutation_test(same.astype(float), rand.astype(float)).p_value
    assert p_words(p) in text


@pytest.mark.parametrize(
    ("same", "rand", "n", "expected"),
    [
        (0.9, 0.4, 400, ["swap", "head", "isnet", "again"]),
        (0.4, 0.9, 400, ["swap", "head", "again"]),
        (0.9, 0.9, 4000, ["again"]),
        (0.9, 0.9, 40, ["more", "again"]),
    ],
)
def test_steps_follow_from_the_gap(same, rand, n, expected) -> None:
    assert [step.how for step in next_steps([make_report(same=same, rand=rand, n=n)], [])] == expected


def test_a_repair_that_worked_is_taken_and_one_that_may_be_chance_needs_images() -> None:
    before = make_report(n=2000)
    after = make_report("after", same=0.9, rand=0.9, n=2000, seed=1)
    steps = next_steps([before, after], compare_models([before, after]))
    assert [step.how for step in steps] == ["again"]
    assert "Take after" in steps[0].text
    same = make_report("same", n=2000, seed=2)
    steps = next_steps([before, same], compare_models([before, same]))
    assert steps[0].how == "more"
    part = make_report("part", same=0.9, rand=0.7, n=2000, seed=3)
    steps = next_steps([before, part], compare_models([before, part]))
    assert steps[0].how is None
    assert "The best of them, part" in steps[0].text


def test_without_a_gap_it_is_to_be_measured() -> None:
    report = make_report()
    report.bg_gap = None
    assert [step.how for step in next_steps([report], [])] == ["again"]
    del report.images.prediction["mixed_rand"]
    assert "not shown" in evidence(report)
    assert np.isfinite(report.images.label).all()


def test_what_was_unlearned_and_not_learned_is_to_be_trained_longer() -> None:
    """The gap is smaller beyond chance, and yet nothing has been repaired."""
    before = make_report(same=0.95, rand=0.25, n=800)
    for same in (0.45, 0.25):  # a part of the shortcut is left; nothing is
        after = make_report("swapped", same=same, rand=0.25, n=800, seed=1)
        steps = next_steps([before, after], compare_models([before, after]))
        assert [step.how for step in steps] == ["longer", "longer", "again"]
        lost = before.accuracy("original").value - after.accuracy("original").value
        assert f"it lost {100 * lost:.1f} points of accuracy on the images as they are" in steps[0].text
    learned = make_report("swapped", same=0.45, rand=0.44, n=800, seed=1)
    steps = next_steps([before, learned], compare_models([before, learned]))
    assert "longer" not in [step.how for step in steps]
