"""A BG-Gap in sentences: how far it is from 0, and on which side.

A gap above 0 is accuracy lost on random backgrounds, a gap below 0 accuracy lost on the own class's: both are a
dependence on the background, so a model is judged by the distance from 0.
"""

from __future__ import annotations

from typing import Literal, NamedTuple, TypeAlias

import numpy as np

from torch_bgdebias.probe.results.columns import paired_columns
from torch_bgdebias.probe.results.measurement import JUDGED, Estimate, Measurement
from torch_bgdebias.probe.results.naming import class_label
from torch_bgdebias.probe.results.spelling import (
    Sentence,
    Words,
    interval_of,
    interval_words,
    is_known,
    number,
    percent,
    say,
    strong,
)

__all__ = [
    "NARROW",
    "Side",
    "Turned",
    "bias_sentence",
    "change_sentence",
    "cost_sentence",
    "gain_sentence",
    "guesses_without",
    "has_unlearned",
    "judged_sentence",
    "knows_nothing",
    "side_of",
    "turned_answers",
    "turned_sentence",
]

#: an interval that holds 0 and stays within so far of it shows that the background hardly costs accuracy
NARROW = 0.05

#: accuracy on the images as they are that is not lost without a word
_COST = 0.01
#: so much of it lost, with nothing gained on random backgrounds, is no repair
_UNLEARNED = 0.05

#: answers that turn with the background, as a share of the images and a number, from which on that is said
_TURNING, _SEVERAL = 0.1, 5

#: ``random``: accuracy is lost on random backgrounds; ``own``: on those of the own class; ``neither``: the interval
#: holds 0; ``unknown``: there is no gap or no interval
Side: TypeAlias = Literal["random", "own", "neither", "unknown"]

_WHERE = {"random": "backgrounds of random classes", "own": "backgrounds of their own class"}


def side_of(gap: Estimate | None) -> Side:
    """On which backgrounds accuracy is lost beyond chance."""
    ends = interval_of(gap) if is_known(gap) else None
    if ends is None:
        return "unknown"
    return "random" if ends[0] > 0 else "own" if ends[1] < 0 else "neither"


def knows_nothing(measurement: Measurement) -> Sentence | None:
    """What to say of a model that is nowhere shown to be right more often than by guessing; ``None`` for any other.

    One class as the answer to every image, whatever stands behind it, is a guess too, however common the class is.

    Nowhere: neither on the images as they are, nor on backgrounds of the own class or of random ones. The distance of
    two such accuracies says nothing of what a model looks at, to whichever side it is.
    """
    classes, accuracy = len(measurement.class_names), measurement.accuracy("original")
    if measurement.images.targets is not None or classes < 2 or not is_known(accuracy):
        return None
    if (answer := _only_answer(measurement)) is not None:
        return say(
            strong(measurement.model), " ", strong(f"answers {class_label(measurement, answer)} to every image"),
            f", as it is and on other backgrounds, and so is right on {percent(accuracy.value, 1)}: it is not shown ",
            "to know the classes. No bias can be judged of a model that knows nothing.",
        )  # fmt: skip
    measured = [e for e in map(measurement.accuracy, JUDGED) if is_known(e)]
    ends = [interval_of(estimate) for estimate in measured]
    chance = 1 / classes
    if any(end is None or end[0] > chance for end in ends):
        return None
    interval, gap = interval_words(accuracy, measurement.confidence), measurement.bg_gap
    between = interval_words(gap, measurement.confidence) if is_known(gap) else ""
    of_gap = f" ({number(gap.value)} points{f', {between}' if between else ''})" if is_known(gap) else ""
    wrong = ""
    if accuracy.high < chance:
        wrong = (
            " It is wrong more often than a guess: its classes may be numbered in another order, or its training put "
            "every object on other classes' backgrounds alone."
        )
    return say(
        strong(measurement.model), " ", strong("is not shown to know the classes"), f": it is right on "
        f"{percent(accuracy.value, 1)} of the images as they are ({interval}), and guessing gets {percent(chance, 1)}. "
        f"No bias can be judged of a model that knows nothing; its BG-Gap{of_gap} says nothing.{wrong}",
    )  # fmt: skip


def _only_answer(measurement: Measurement) -> int | None:
    """The class that is the answer to all images in all that is judged, of several classes; else ``None``."""
    images = measurement.images
    answers = [images.prediction[name][images.valid(name)] for name in JUDGED if name in images.prediction]
    classes = np.unique(np.concatenate(answers)) if answers else np.empty(0)
    several = len(np.unique(images.label[images.label >= 0])) > 1
    return int(classes[0]) if len(classes) == 1 and several and len(answers) > 1 else None


class Turned(NamedTuple):
    """Images whose answers are right on one kind of background alone, though nothing else differs.

    Attributes:
        lost: right only on a background of the object's own class.
        won: right only on one of a random class.
        images: shown on both.
    """

    lost: int
    won: int
    images: int


def turned_answers(measurement: Measurement) -> Turned | None:
    """How often the background decides whether an answer is right; ``None`` where the two were not both measured.

    The gap is the difference of the two numbers, and does not show them where they are alike.
    """
    by_image = paired_columns(measurement.images).get("bg_gap")
    if by_image is None:
        return None
    return Turned(int((by_image > 0).sum()), int((by_image < 0).sum()), int((~np.isnan(by_image)).sum()))


def turned_sentence(measurement: Measurement) -> Sentence:
    """How many answers turn with the background, where no gap is shown and many do; else nothing.

    Nothing of label sets, of which one label or another nearly always does.
    """
    turned = turned_answers(measurement)
    if turned is None or side_of(measurement.bg_gap) != "neither" or measurement.images.targets is not None:
        return ()
    count = turned.lost + turned.won
    if count < max(_SEVERAL, _TURNING * turned.images):
        return ()
    return say(
        " But ", strong(f"{count:,} of {turned.images:,} answers turn with the background"), f": {turned.lost:,} are "
        f"right only before the own class's, {turned.won:,} only before a random one.",
    )  # fmt: skip


def bias_sentence(model: str, gap: Estimate | None, level: float, guesses: str = "") -> Sentence:
    """What one model's gap says.

    Args:
        model: its name.
        gap: its BG-Gap.
        level: of the interval, in (0, 1).
        guesses: where it is right no more often than by guessing (`guesses_without`), for a gap above 0.
    """
    if not is_known(gap):
        return say("The BG-Gap of ", strong(model), " is not known: the variants mixed_same and mixed_rand were not ",
                   "both measured.")  # fmt: skip
    side, interval = side_of(gap), interval_words(gap, level)
    if side == "unknown":
        return say(strong(model), f" has a BG-Gap of {number(gap.value)} points (no interval), from {gap.n} image(s): ",
                   "too few to judge.")  # fmt: skip
    if side == "neither" and gap.low == gap.high:
        return say("For ", strong(model), " no dependence on the class of the background can be shown: all ",
                   f"{gap.n} image(s) agree, and nothing is known of how far others may differ.")  # fmt: skip
    if side == "neither":
        return say(
            "For ", strong(model), " no dependence on the class of the background can be shown: its BG-Gap is ",
            f"{number(gap.value)} points ({interval}); a loss of more than {_either_way(gap)} is unlikely.",
        )  # fmt: skip
    lost = strong(f"{number(abs(gap.value))} points")
    opening = say(strong(model), " loses ", lost, f" of accuracy ({interval}) when its objects stand in front of ")
    if side == "random":
        part, why = ("", f" ({guesses})") if guesses else ("part of ", "")
        return (*opening, Words(f"{_WHERE[side]}: it reads {part}its answer off the background{why}."))
    return (
        *opening,
        Words(
            f"{_WHERE[side]}: it is more accurate on random backgrounds. This is a bias too, of the other sign: the "
        ),
        Words("background speaks against the class that belongs to it."),
    )


def judged_sentence(measurement: Measurement) -> Sentence:
    """The conclusion on one model: that it only guesses, or what its gap means."""
    gap, level = measurement.bg_gap, measurement.confidence
    nothing = knows_nothing(measurement) if is_known(gap) else None
    if nothing is not None:
        return nothing
    sentence = bias_sentence(measurement.model, gap, level, guesses_without(measurement))
    return (*sentence, *turned_sentence(measurement))


def guesses_without(measurement: Measurement) -> str:
    """How little is right on random backgrounds, for a model that only guesses there; empty for others.

    Its accuracy there is not shown to be above 1 in K, and is shown to be less than half the way from there to that on
    its own class's backgrounds. Accuracy on the object alone does not tell: its black surroundings are news too.
    """
    classes, own = len(measurement.class_names), measurement.accuracy("mixed_same")
    accuracy = measurement.accuracy("mixed_rand")
    ends = interval_of(accuracy) if is_known(accuracy) else None
    if measurement.images.targets is not None or classes < 2 or ends is None or not is_known(own):
        return ""
    chance = 1 / classes
    if not is_known(accuracy) or ends[0] > chance or ends[1] >= (chance + own.value) / 2:
        return ""
    return (
        f"on random ones it is right {percent(accuracy.value, 1)} of the time, and guessing gets {percent(chance, 1)}"
    )


def change_sentence(model: str, before: Estimate, after: Estimate, *, differs: bool, level: float) -> Sentence:
    """What became of the gap with another model.

    Args:
        model: the later model's name.
        before: the first model's gap.
        after: the later model's.
        differs: whether the two differ beyond chance.
        level: of the intervals, in (0, 1).
    """
    interval = interval_words(after, level)
    in_brackets = f" ({interval})" if interval else ""
    points_now = f"{number(after.value)} points"
    name, side = strong(model), side_of(after)
    if side == "unknown":
        return say("With ", name, f" it is {points_now}, from {after.n} image(s): too few to judge.")
    if not differs:
        return say(
            "With ", name, f" it is {points_now}{in_brackets}; the difference may be chance, so the gap does not ",
            "show that it helped.",
        )  # fmt: skip
    if side == "neither":
        return _no_longer_shown(name, before, after, in_brackets)
    was = side_of(before)
    if was not in ("random", "own"):
        return say(
            "With ", name, " there is a bias where none could be shown: ", strong(points_now), f"{in_brackets}, ",
            f"accuracy that is lost on {_WHERE[side]}.",
        )  # fmt: skip
    if side != was:
        return _turned_round(name, before, after, in_brackets)
    if abs(after.value) > abs(before.value):
        return say("With ", name, f" the loss is larger: {points_now}{in_brackets}.")
    share_gone = percent(1 - after.value / before.value)
    return say("With ", name, ", ", strong(points_now), f" are left{in_brackets}: {share_gone} of the loss is gone.")


def has_unlearned(on_given: Estimate | None, on_random: Estimate | None) -> bool:
    """Whether a later model lost accuracy on the images as they are and is not shown to have gained any elsewhere.

    Its gap may be smaller all the same: what it read off the background is gone, and nothing has come in its place.

    Args:
        on_given: change of the accuracy on the images as they are, later minus first.
        on_random: change of that on random backgrounds.
    """
    if not is_known(on_given) or not is_known(on_random):
        return False
    return on_given.value <= -_UNLEARNED and on_given.high < 0 and not on_random.low > 0


def cost_sentence(change: Estimate | None, on_random: Estimate | None = None) -> Sentence:
    """What a later model costs on the images as they are, beyond chance; nothing where it costs nothing.

    Args:
        change: of the accuracy there, later minus first.
        on_random: change of the accuracy on random backgrounds, to tell a price from a mere loss.
    """
    if not is_known(change) or change.value > -_COST or not change.high < 0:
        return ()
    lost = strong(f"{number(-change.value)} points")
    ends = f" ({number(-change.high)} to {number(-change.low)})"
    costs = say(" It costs ", lost, f"{ends} of accuracy on the images as they are")
    if not has_unlearned(change, on_random):
        return (*costs, Words("."))
    nothing = " and is not shown to gain any on random backgrounds: "
    return (*costs, *say(nothing, strong("it has unlearned the background, and not learned the objects"), "."))


def gain_sentence(change: Estimate | None) -> Sentence:
    """What a later model gains on the images as they are, beyond chance; nothing where it gains nothing."""
    if not is_known(change) or change.value < _COST or not change.low > 0:
        return ()
    gained = strong(f"{number(change.value)} points")
    ends = f" ({number(change.low)} to {number(change.high)})"
    return say(" It gains ", gained, f"{ends} of accuracy on the images as they are.")


def _no_longer_shown(name: Words, before: Estimate, after: Estimate, in_brackets: str) -> Sentence:
    """The later gap's interval holds 0."""
    if side_of(before) not in ("random", "own"):
        return say(
            "With ", name, f" it is {number(after.value)} points{in_brackets}: it differs from before, but neither ",
            "gap is shown to be other than 0.",
        )  # fmt: skip
    rounded = number(after.value)
    remainder = strong("none of it is left" if rounded == "0.0" else f"{rounded} points are left")
    ends = (after.low, after.high)
    if after.low == after.high:
        return say("With ", name, ", ", remainder, f" on {after.n} image(s), which all agree: nothing is known of ",
                   "how far others may differ.")  # fmt: skip
    if max(map(abs, ends)) < NARROW:
        return say(
            "With ", name, ", ", remainder, f"{in_brackets}: what is behind the object hardly costs accuracy any more."
        )
    return say(
        "With ", name, ", ", remainder, f"{in_brackets}: no loss can be shown any more, on few images; one of up to ",
        f"{_either_way(after)} is possible.",
    )  # fmt: skip


def _turned_round(name: Words, before: Estimate, after: Estimate, in_brackets: str) -> Sentence:
    """Both gaps are shown, on different sides of 0."""
    after_points, before_points = number(abs(after.value)), number(abs(before.value))
    size = (
        "less"
        if abs(after.value) < abs(before.value)
        else "more"
        if abs(after.value) > abs(before.value)
        else "as much"
    )
    compared = (
        f"as much as before ({before_points})"
        if size == "as much" or after_points == before_points
        else f"{size} than before ({before_points})"
    )
    lost_on = _WHERE["own" if after.value < 0 else "random"]
    return say(
        "With ", name, " ", strong("the bias has turned round"), f": {number(after.value)} points{in_brackets}. It ",
        f"now loses {after_points} points on {lost_on}, {compared}: the background still matters.",
    )  # fmt: skip


def _either_way(gap: Estimate) -> str:
    """The largest loss that the interval leaves possible, on either kind of background; rounded as elsewhere."""
    on_random, on_own = (max(end, 0.0) for end in (gap.high, -gap.low))
    return f"{number(on_random)} points on random backgrounds, or of {number(on_own)} on the own class's,"
