"""What the numbers say, in sentences: every case of one model and of two."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from probe_pages import make_report

from torch_bgdebias.probe import compare_models
from torch_bgdebias.probe.results.measurement import Estimate
from torch_bgdebias.probe.results.verdict import _differs, pick_after, verdict

NAN = Estimate(math.nan, math.nan, math.nan, 0)


def marked(sentence) -> str:
    """A sentence as the page writes it, with its weights."""
    return "".join(f"<b>{words.text}</b>" if words.strong else words.text for words in sentence)


@pytest.mark.parametrize(
    ("gap", "expected"),
    [
        (Estimate(0.3, 0.2, 0.4, 100), "loses <b>30.0 points</b>"),
        (Estimate(0.01, -0.02, 0.04, 100), "no dependence on the class of the background can be shown"),
        (Estimate(-0.3, -0.4, -0.2, 100), "more accurate on random backgrounds"),
        (Estimate(0.3, math.nan, math.nan, 1), "too few to judge"),
        (NAN, "is not known"),
        (None, "is not known"),
    ],
)
def test_verdict_on_one_model(gap: Estimate | None, expected: str) -> None:
    (sentence,) = verdict([replace(make_report(), bg_gap=gap)], [])
    assert expected in marked(sentence)


@pytest.mark.parametrize(
    ("same", "rand", "n", "expected"),
    [
        (0.95, 0.95, 2000, "hardly costs accuracy any more"),
        (0.9, 0.75, 2000, "of the loss is gone"),
        (0.9, 0.42, 200, "does not show that it helped"),
        (0.95, 0.1, 2000, "the loss is larger"),
    ],
)
def test_verdict_on_two_models(same: float, rand: float, n: int, expected: str) -> None:
    reports = [make_report(n=n), make_report("other", same=same, rand=rand, n=n, seed=3)]
    assert expected in marked(verdict(reports, compare_models(reports))[1])


def test_no_gap_at_chance_is_no_success() -> None:
    reports = [make_report(), make_report("other", same=0.4, rand=0.4, seed=3)]
    assert "not more accurate" in marked(verdict(reports, compare_models(reports))[1])


def test_after_is_the_most_accurate_on_random_backgrounds() -> None:
    reports = [make_report(rand=0.9), make_report(rand=0.5), make_report(rand=0.8), make_report(rand=0.6)]
    assert pick_after(reports) == 2
    assert pick_after(reports[:1]) is None


def test_an_interval_beside_a_corrected_test_says_that_it_stands_by_itself() -> None:
    """An interval without 0 stood beside "may be chance": it is of one figure, the test of all that are compared."""
    reports = [make_report(n=200), make_report("other", same=0.9, rand=0.42, n=200, seed=3)]
    (comparison,) = compare_models(reports)
    assert comparison is not None
    change = comparison.figures["bg_gap"]
    estimate = replace(change.difference, value=-0.08, low=-0.15, high=-0.01)
    for corrected, expected in ((0.4, "taken by itself; p = 0.400 corrected for the"), (0.01, "to −1.0, p = 0.010)")):
        figures = {**comparison.figures, "bg_gap": replace(change, difference=estimate, corrected=corrected)}
        sentence = marked(verdict(reports, [replace(comparison, figures=figures)])[1])
        assert expected in sentence, sentence
        assert ("by itself" in sentence) == ("may be chance" in sentence)


def test_what_a_smaller_gap_costs_on_own_backgrounds_is_said() -> None:
    reports = [make_report(same=0.9, rand=0.4, n=2000), make_report("other", same=0.68, rand=0.66, n=2000, seed=3)]
    old, new = (report.variants["mixed_same"].accuracy.value for report in reports)
    shrunk = reports[0].bg_gap.value - reports[1].bg_gap.value
    text = marked(verdict(reports, compare_models(reports))[1])
    lost, of = (f"{100 * value:.1f}" for value in (old - new, shrunk))
    expected = (
        f"On backgrounds of the own class it is <b>{lost} points less accurate</b>: that much of the {of} points by"
    )
    assert expected in text
    assert float(of) > float(lost) > 15
    unpaired = marked(verdict(reports, [None])[1])
    assert expected in unpaired


@pytest.mark.parametrize(("same", "n"), [(0.88, 2000), (0.82, 30)])
def test_a_small_or_uncertain_loss_on_own_backgrounds_is_not_made_one(same: float, n: int) -> None:
    reports = [make_report(same=0.9, rand=0.4, n=n), make_report("other", same=same, rand=0.8, n=n, seed=3)]
    assert "less accurate" not in marked(verdict(reports, compare_models(reports))[1])


def test_what_was_unlearned_and_not_learned_is_said_once() -> None:
    reports = [make_report(same=0.95, rand=0.25, n=800), make_report("other", same=0.45, rand=0.25, n=800, seed=1)]
    text = marked(verdict(reports, compare_models(reports))[1])
    assert text.count("<b>it has unlearned the background, and not learned the objects</b>") == 1
    assert "points less accurate" not in text


def test_gaps_whose_intervals_overlap_are_not_apart() -> None:
    one = Estimate(0.20, 0.15, 0.25, 100)
    for other, apart in (((0.24, 0.29), False), ((0.10, 0.16), False), ((0.26, 0.30), True), ((0.05, 0.14), True)):
        assert _differs(one, Estimate(sum(other) / 2, *other, 100), None) is apart
        assert _differs(Estimate(sum(other) / 2, *other, 100), one, None) is apart
    assert not _differs(one, Estimate(0.4, math.nan, math.nan, 1), None)
