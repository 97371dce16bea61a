"""Detects answers that go with the labels, but as other classes: outputs in another order, or the smallest counts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from torch_bgdebias.files import first_few
from torch_bgdebias.probe.results.images import ImageResults

__all__ = ["OtherOrder", "other_order"]

#: (N,)
Column: TypeAlias = NDArray[np.int64]

#: images that there must be, and of a label
_MANY, _OF_LABEL = 20, 5
#: share of the images whose answer is their label's usual one, how much more than are right, and how many labels differ
_FOLLOW, _MORE, _DISTINCT = 0.5, 0.3, 0.9
#: standard deviations beyond what guessing does
_BELOW = 3.0


class OtherOrder(NamedTuple):
    """What is wrong with the answers, and what to do.

    Attributes:
        what: a sentence's beginning.
        remedy: its end.
    """

    what: str
    remedy: str


def other_order(images: ImageResults, class_names: Sequence[str]) -> OtherOrder | None:
    """What to say where answers go with the labels as other classes do; ``None`` where they do not.

    Args:
        images: with answers to the images as they are.
        class_names: of the model's outputs, or their numbers.
    """
    answers = images.prediction.get("original")
    if answers is None or not images.labelled or images.targets is not None:
        return None
    label, count = np.unique(images.label, return_counts=True)
    is_known = np.isin(images.label, label[count >= _OF_LABEL])
    labels, answers = images.label[is_known], answers[is_known]
    if len(labels) < _MANY or len(np.unique(labels)) < 2 or len(np.unique(answers)) < 2:
        return None
    odds = images.log_odds.get("original")
    if (
        odds is not None
        and odds.shape[1] > 2
        and (smallest := _smallest_counts(labels, answers, odds[is_known].argmin(1)))
    ):
        return smallest
    return _as_others(labels, answers, class_names) or _worse_than_guessing(labels, answers, len(class_names))


def _smallest_counts(labels: Column, answers: Column, last: Column) -> OtherOrder | None:
    n_right, n_smallest = int((labels == answers).sum()), int((labels == last).sum())
    if n_smallest < _FOLLOW * len(labels) or n_smallest - n_right < _least_difference(labels):
        return None
    return OtherOrder(
        f"{n_right} of {len(labels)} images as they are are right, and of {n_smallest} the smallest output is the "
        "label's",
        "are they distances or losses? Give logits=lambda output: -output; if they are not, the model reads something "
        "else than the class",
    )


def _as_others(labels: Column, answers: Column, class_names: Sequence[str]) -> OtherOrder | None:
    counts = {int(label): np.bincount(answers[labels == label]) for label in np.unique(labels)}
    usual = {label: int(of_label.argmax()) for label, of_label in counts.items()}
    n_following = sum(int(of_label.max()) for of_label in counts.values())
    n_right = int((labels == answers).sum())
    is_order = len(set(usual.values())) >= _DISTINCT * len(usual)
    if not is_order or n_following < _FOLLOW * len(labels) or n_following - n_right < _least_difference(labels):
        return None
    pairs = (f"{class_names[label]} as {class_names[answer]}" for label, answer in usual.items() if label != answer)
    order = "ORDER" if len(class_names) > 2 else "[1, 0]"
    remedy = f"give logits=lambda output: output[:, {order}], or map the labels (target_transform; --labels)"
    if {answer - label for label, answer in usual.items()} == {1}:
        remedy = "is there one more output in front of the classes? Give logits=lambda output: output[:, 1:]"
    return OtherOrder(
        f"{n_right} of {len(labels)} images as they are are right, and {n_following} would be with the outputs in "
        f"another order ({first_few(pairs, 4)})",
        f"{remedy}; if the order is right, the model reads something else than the class",
    )


def _least_difference(labels: Column) -> float:
    """By how many images another reading must be right more often."""
    return max(_MORE * len(labels), _BELOW * math.sqrt(len(labels)))


def _worse_than_guessing(labels: Column, answers: Column, classes: int) -> OtherOrder | None:
    chance, share_right = 1 / classes, float((labels == answers).mean())
    if share_right >= chance - _BELOW * (chance * (1 - chance) / len(labels)) ** 0.5:
        return None
    return OtherOrder(
        f"{share_right:.1%} of the images as they are are right, less than by guessing ({chance:.1%})",
        "is the smallest output the answer, as of distances and losses? Then give logits=lambda output: -output; or "
        "are the classes in another order?",
    )
