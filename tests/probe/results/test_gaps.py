"""Every case of one gap, of two, and of accuracy that was lost on the way: judged by the distance from 0."""

from __future__ import annotations

import math

import numpy as np
import pytest

from torch_bgdebias.probe import BackgroundBiasReport, ImageResults, compare_models, summarise
from torch_bgdebias.probe.report import report_html
from torch_bgdebias.probe.results.advice import evidence
from torch_bgdebias.probe.results.gaps import (
    bias_sentence,
    change_sentence,
    cost_sentence,
    gain_sentence,
    has_unlearned,
    knows_nothing,
    side_of,
    turned_answers,
)
from torch_bgdebias.probe.results.measurement import Estimate
from torch_bgdebias.probe.results.spelling import plain_text
from torch_bgdebias.probe.results.verdict import pick_after, verdict


def gap(value: float, low: float, high: float, n: int = 200) -> Estimate:
    """In points."""
    return Estimate(value / 100, low / 100, high / 100, n)


NONE = Estimate(math.nan, math.nan, math.nan, 0)


ONE_MODEL = [
    (gap(45, 30, 60), "random", "A loses 45.0 points of accuracy (95% interval 30.0 to 60.0) when its objects stand "
     "in front of backgrounds of random classes: it reads part of its answer off the background."),
    (gap(-45, -60, -30), "own", "A loses 45.0 points of accuracy (95% interval −60.0 to −30.0) when its objects "
     "stand in front of backgrounds of their own class: it is more accurate on random backgrounds. This is a bias "
     "too, of the other sign: the background speaks against the class that belongs to it."),
    (gap(1, -2, 4), "neither", "For A no dependence on the class of the background can be shown: its BG-Gap is 1.0 "
     "points (95% interval −2.0 to 4.0); a loss of more than 4.0 points on random backgrounds, or of 2.0 on the own "
     "class's, is unlikely."),
    (gap(-10, -30, 9), "neither", "For A no dependence on the class of the background can be shown: its BG-Gap is "
     "−10.0 points (95% interval −30.0 to 9.0); a loss of more than 9.0 points on random backgrounds, or of 30.0 on "
     "the own class's, is unlikely."),
    (gap(0, 0, 0), "neither", "For A no dependence on the class of the background can be shown: all 200 image(s) "
     "agree, and nothing is known of how far others may differ."),
    (gap(0, -0.04, 0.111), "neither", "For A no dependence on the class of the background can be shown: its BG-Gap "
     "is 0.0 points (95% interval 0.0 to 0.1); a loss of more than 0.1 points on random backgrounds, or of 0.0 on the "
     "own class's, is unlikely."),
    (gap(100, math.nan, math.nan, 1), "unknown", "A has a BG-Gap of 100.0 points (no interval), from 1 image(s): too "
     "few to judge."),
    (NONE, "unknown", "The BG-Gap of A is not known: the variants mixed_same and mixed_rand were not both measured."),
    (None, "unknown", "The BG-Gap of A is not known: the variants mixed_same and mixed_rand were not both measured."),
]  # fmt: skip


@pytest.mark.parametrize(("estimate", "side", "expected"), ONE_MODEL)
def test_one_model(estimate: Estimate | None, side: str, expected: str) -> None:
    assert side_of(estimate) == side
    assert plain_text(bias_sentence("A", estimate, 0.95)) == expected


LOSS, INVERTED, SMALL, WIDE = gap(45, 30, 60), gap(-45, -60, -30), gap(1, -2, 4), gap(-12, -31, 6)


TWO_MODELS = [
    # a loss on random backgrounds before
    (LOSS, gap(10, 5, 15), True, "With B, 10.0 points are left (95% interval 5.0 to 15.0): 78% of the loss is gone."),
    (LOSS, gap(70, 62, 78), True, "With B the loss is larger: 70.0 points (95% interval 62.0 to 78.0)."),
    (LOSS, SMALL, True, "With B, 1.0 points are left (95% interval −2.0 to 4.0): what is behind the object hardly "
     "costs accuracy any more."),
    (LOSS, gap(0, -2, 2), True, "With B, none of it is left (95% interval −2.0 to 2.0): what is behind the object "
     "hardly costs accuracy any more."),
    (LOSS, gap(-1, -3, 1), True, "With B, −1.0 points are left (95% interval −3.0 to 1.0): what is behind the object "
     "hardly costs accuracy any more."),
    (LOSS, WIDE, True, "With B, −12.0 points are left (95% interval −31.0 to 6.0): no loss can be shown any more, on "
     "few images; one of up to 6.0 points on random backgrounds, or of 31.0 on the own class's, is possible."),
    (LOSS, gap(40, 28, 52), False, "With B it is 40.0 points (95% interval 28.0 to 52.0); the difference may be "
     "chance, so the gap does not show that it helped."),
    (LOSS, INVERTED, True, "With B the bias has turned round: −45.0 points (95% interval −60.0 to −30.0). It now "
     "loses 45.0 points on backgrounds of their own class, as much as before (45.0): the background still matters."),
    (LOSS, gap(-20, -30, -10), True, "With B the bias has turned round: −20.0 points (95% interval −30.0 to −10.0). "
     "It now loses 20.0 points on backgrounds of their own class, less than before (45.0): the background still "
     "matters."),
    (LOSS, gap(-60, -70, -50), True, "With B the bias has turned round: −60.0 points (95% interval −70.0 to −50.0). "
     "It now loses 60.0 points on backgrounds of their own class, more than before (45.0): the background still "
     "matters."),
    (LOSS, gap(100, math.nan, math.nan, 1), True, "With B it is 100.0 points, from 1 image(s): too few to judge."),
    # a loss on the own class's backgrounds before
    (INVERTED, gap(-10, -15, -5), True, "With B, −10.0 points are left (95% interval −15.0 to −5.0): 78% of the loss "
     "is gone."),
    (INVERTED, gap(-70, -78, -62), True, "With B the loss is larger: −70.0 points (95% interval −78.0 to −62.0)."),
    (INVERTED, LOSS, True, "With B the bias has turned round: 45.0 points (95% interval 30.0 to 60.0). It now loses "
     "45.0 points on backgrounds of random classes, as much as before (45.0): the background still matters."),
    (INVERTED, SMALL, True, "With B, 1.0 points are left (95% interval −2.0 to 4.0): what is behind the object hardly "
     "costs accuracy any more."),
    # nothing shown before
    (SMALL, LOSS, True, "With B there is a bias where none could be shown: 45.0 points (95% interval 30.0 to 60.0), "
     "accuracy that is lost on backgrounds of random classes."),
    (SMALL, INVERTED, True, "With B there is a bias where none could be shown: −45.0 points (95% interval −60.0 to "
     "−30.0), accuracy that is lost on backgrounds of their own class."),
    (WIDE, SMALL, True, "With B it is 1.0 points (95% interval −2.0 to 4.0): it differs from before, but neither gap "
     "is shown to be other than 0."),
    (SMALL, WIDE, False, "With B it is −12.0 points (95% interval −31.0 to 6.0); the difference may be chance, so "
     "the gap does not show that it helped."),
]  # fmt: skip


@pytest.mark.parametrize(("before", "after", "differs", "expected"), TWO_MODELS)
def test_two_models(before: Estimate, after: Estimate, differs: bool, expected: str) -> None:
    assert plain_text(change_sentence("B", before, after, differs=differs, level=0.95)) == expected


def report(
    name: str, same: float, rand: float, original: float = 0.95, n: int = 400, **others: float
) -> BackgroundBiasReport:
    """A model that is right with exactly these shares of the images, by variant."""
    label = np.arange(n) % 4
    answers = {}
    for variant, share in {"original": original, "mixed_same": same, "mixed_rand": rand, **others}.items():
        right = np.arange(n) * 7919 % n < share * n
        answers[variant] = np.where(right, label, (label + 1) % 4)
    sure = {variant: np.ones(n, np.float32) for variant in answers}
    images = ImageResults(np.arange(n, dtype=np.uint64), label, answers, sure)
    return summarise(images, model=name, class_names=list("abcd"))


@pytest.mark.parametrize(
    ("same", "rand", "n", "all_of_it"),
    [
        (0.9, 0.27, 400, True),
        (0.9, 0.22, 400, True),
        (0.9, 0.6, 400, False),  # on the object alone it guesses too, as a model does that black surroundings confuse
        (0.9, 0.35, 400, False),  # surely better than 25 %
        (0.9, 0.4, 20, False),  # not surely better, and not surely worse than half the way
    ],
)
def test_a_model_that_guesses_on_random_backgrounds_reads_all_of_its_answer_off_them(
    same: float, rand: float, n: int, all_of_it: bool
) -> None:
    measured = report("A", same, rand, n=n, only_fg=0.25)
    rand = float(measured.variants["mixed_rand"].accuracy.value)
    part = (
        f"its answer off the background (on random ones it is right {100 * rand:.1f}% of the time, and guessing gets "
    )
    said = f"it reads {part}25.0%)." if all_of_it else "it reads part of its answer off the background."
    assert said in plain_text(verdict([measured], [])[0])
    assert said in measured.summary()


def both_ways(changing: int, n: int = 100, name: str = "A", original: float = 0.9) -> BackgroundBiasReport:
    """A model whose answers to so many images change with the background, half of them to the right one."""
    label = np.arange(n) % 4
    wrong = (label + 1) % 4
    images = ImageResults(
        np.arange(n, dtype=np.uint64),
        label,
        {
            "original": np.where(np.arange(n) < original * n, label, wrong),
            "mixed_same": np.where(np.arange(n) < changing // 2, wrong, label),
            "mixed_rand": np.where(np.arange(n) >= n - (changing - changing // 2), wrong, label),
        },
        {variant: np.ones(n, np.float32) for variant in ("original", "mixed_same", "mixed_rand")},
    )
    return summarise(images, model=name, class_names=list("abcd"))


def test_answers_that_change_both_ways_are_no_independence() -> None:
    """The gap is 0, and half of the answers hang on what is behind the object."""
    measured = both_ways(50)
    assert measured.bg_gap is not None
    assert measured.bg_gap.value == 0
    assert turned_answers(measured) == (25, 25, 100)
    turned = "50 of 100 answers turn with the background"
    text = plain_text(verdict([measured], [])[0])
    assert f"But {turned}: 25 are right only before the own class's, 25 only before a random one." in text
    assert "25 answers were right only before the own class's, 25 only before the random one" in evidence(measured)
    assert "turn with the background" not in plain_text(verdict([both_ways(8)], [])[0])
    page = report_html([report("before", 0.9, 0.5, n=100), both_ways(50, name="after")])
    assert turned in page
    quiet = report_html([report("before", 0.9, 0.5, n=100), both_ways(8, name="after")])
    assert "turn with the background" not in quiet


def test_accuracy_that_was_won_is_said() -> None:
    page = report_html([both_ways(50, name="before", original=0.5), both_ways(8, name="after", original=0.95)])
    assert "It gains <b>45.0 points</b> (" in page
    assert "of accuracy on the images as they are." in page
    assert gain_sentence(gap(0.5, 0.2, 0.9)) == gain_sentence(gap(5, -1, 9)) == gain_sentence(None) == ()


def test_an_inverted_bias_is_nowhere_called_a_cure() -> None:
    """+45 to -45 points, own-background accuracy 0 %: page, text of the report and of the comparison."""
    before, after = report("before", 0.9, 0.45), report("after", 0.0, 0.45, original=0.0)
    (comparison,) = compare_models([before, after])
    assert comparison is not None
    page = report_html([before, after])
    for text in (page, comparison.summary()):
        assert "the bias has turned round" in text
        for cure in ("none of it is left", "hardly costs accuracy", "of the loss is gone"):
            assert cure not in text
    assert "loses 45.0 points of accuracy" in after.summary()
    assert "of the other sign" in after.summary()
    assert "of the other sign" in report_html([after])
    assert "worst accuracy is lower" in page
    assert "0.0% (as given) instead of 45.0% (random backgrounds)" in page


def test_accuracy_that_was_lost_is_said() -> None:
    page = report_html([report("before", 0.9, 0.5), report("after", 0.4, 0.4, original=0.4)])
    assert "not more accurate" in page
    assert "worst accuracy is lower</b>: 40.0% (as given) instead of 50.0% (random backgrounds)" in page
    better = report_html([report("before", 0.9, 0.5), report("after", 0.95, 0.94)])
    assert "worst accuracy is lower" not in better
    assert "not more accurate" not in better


def test_an_inverted_bias_that_is_mended_is_not_said_to_have_learned_nothing() -> None:
    """Accuracy was lost on own backgrounds, and is judged there: on random ones there was none to win."""
    before = report("before", 0.3, 0.95, original=0.3)
    page = report_html([before, report("after", 0.93, 0.93)])
    assert "not more accurate" not in page
    assert "none of it is left" in page
    worse = report_html([before, report("after", 0.3, 0.3, original=0.3)])
    assert "not more accurate</b> on those of the own class" in worse


def test_of_several_the_one_whose_worst_variant_is_best_stands_for_after() -> None:
    inverted = report("inverted", 0.2, 0.99, original=0.2)
    models = [report("before", 0.9, 0.4), inverted, report("even", 0.8, 0.8), report("half", 0.9, 0.6)]
    assert pick_after(models) == 2
    assert inverted.worst_variant()[0] in ("original", "mixed_same")
    page = report_html(models)
    assert "With <b>inverted</b> <b>the bias has turned round</b>" in page
    assert "With <b>even</b>, <b>none of it is left</b>" in page


@pytest.mark.parametrize(
    ("original", "same", "rand", "nothing"),
    [
        (0.25, 0.20, 0.28, True),  # a gap below 0, of a model that guesses
        (0.25, 0.40, 0.20, False),  # it reads something off backgrounds
        (0.0, 0.0, 0.45, False),  # it knows the objects, and backgrounds speak against them
        (0.0, 0.0, 0.25, True),
        (0.5, 0.3, 0.1, False),
    ],
)
def test_of_a_model_that_knows_nothing_no_bias_is_judged(
    original: float, same: float, rand: float, nothing: bool
) -> None:
    measured = report("A", same, rand, original=original)
    assert (knows_nothing(measured) is not None) is nothing
    text = measured.summary()
    said = f"A is not shown to know the classes: it is right on {100 * original:.1f}% of the images as they are"
    assert (said in text) is nothing
    assert ("of accuracy (95% interval" not in text) is nothing
    assert ("wrong more often than a guess" in text) is (nothing and original == 0)
    page = report_html([measured])
    assert ("not shown to know the classes" in page) is nothing
    assert ("Find out why A knows nothing" in page) is nothing


def test_one_answer_to_everything_is_a_guess_however_common_the_class_is() -> None:
    """Three quarters of the images are of one class: it is right on them, far above 1 in 2, and without a gap."""
    label = np.array([0, 0, 0, 1] * 50)
    one = np.zeros(200, np.int64)

    def measured(answers: dict[str, np.ndarray]) -> str:
        confidence = {name: np.full(200, 0.9, np.float32) for name in answers}
        images = ImageResults(np.arange(200, dtype=np.uint64), label, answers, confidence)
        return summarise(images, model="A", class_names=["maple", "lime"]).summary()

    names = ("original", "mixed_same", "mixed_rand")
    text = measured(dict.fromkeys(names, one))
    assert "A answers maple to every image, as it is and on other backgrounds, and so is right on 75.0%" in text
    assert "no dependence on the class of the background can be shown" not in text
    assert "to every image" not in measured({**dict.fromkeys(names, one), "original": label}), "it knows some"


def test_a_later_model_that_knows_nothing_is_no_cure() -> None:
    before, after = report("before", 0.9, 0.5), report("after", 0.25, 0.25, original=0.25)
    (comparison,) = compare_models([before, after])
    assert comparison is not None
    assert comparison.guessing == ["after"]
    assert "after: not shown to know the classes, so no bias can be judged" in comparison.summary()
    first, later = (plain_text(sentence) for sentence in verdict([before, after], [comparison]))
    assert "before loses 40.0 points" in first
    assert later.startswith("after is not shown to know the classes")
    first, later = (plain_text(s) for s in verdict([after, before], compare_models([after, before])))
    assert "before loses 40.0 points" in later, "there is no gap of the first to set it against"


def test_the_lead_says_what_a_smaller_gap_costs() -> None:
    before, after = report("before", 0.9, 0.5), report("after", 0.8, 0.8, original=0.8)
    (comparison,) = compare_models([before, after])
    assert comparison is not None
    change = comparison.figures["accuracy/original"].difference
    assert change.value == pytest.approx(-0.15)
    cost = f" It costs 15.0 points ({-100 * change.high:.1f} to {-100 * change.low:.1f}) of accuracy on the images as"
    lead = next(line for line in comparison.summary().splitlines() if "none of it is left" in line)
    assert cost in lead
    sentence = plain_text(verdict([before, after], [comparison])[1])
    assert sentence.index("none of it is left") < sentence.index(cost) < sentence.index("Accuracy on random")
    for nothing in (gap(-15, -31, 1), gap(-0.4, -0.6, -0.2), gap(3, 1, 5), None):
        assert cost_sentence(nothing) == ()


@pytest.mark.parametrize(
    ("given", "on_random", "unlearned"),
    [
        (Estimate(-0.5, -0.6, -0.4, 100), Estimate(0.01, -0.06, 0.08, 100), True),
        (Estimate(-0.5, -0.6, -0.4, 100), Estimate(-0.1, -0.2, -0.01, 100), True),
        (Estimate(-0.5, -0.6, -0.4, 100), Estimate(0.3, 0.2, 0.4, 100), False),
        (Estimate(-0.04, -0.06, -0.02, 100), Estimate(0.0, -0.02, 0.02, 100), False),
        (Estimate(-0.06, -0.13, 0.01, 100), Estimate(0.0, -0.02, 0.02, 100), False),
        (None, Estimate(0.0, -0.02, 0.02, 100), False),
        (Estimate(-0.5, -0.6, -0.4, 100), None, False),
    ],
)
def test_a_loss_without_a_gain_is_told_from_a_price(given, on_random, unlearned):
    assert has_unlearned(given, on_random) is unlearned
    text = plain_text(cost_sentence(given, on_random))
    assert ("it has unlearned the background, and not learned the objects." in text) is unlearned
    assert text == "" or text.endswith(".")
