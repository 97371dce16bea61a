"""Outputs in another order than the labels, one more in front, distances: told, and what is said mends them."""

from __future__ import annotations

import re

import numpy as np
import pytest

from torch_bgdebias.probe.results.images import ImageResults
from torch_bgdebias.probe.results.order import other_order

NAMES = [f"c{i}" for i in range(12)]


def results(label, answer):
    answers = {"original": np.asarray(answer)}
    return ImageResults(np.arange(len(label), dtype=np.uint64), np.asarray(label), answers, {})


def noisy(answer, share, classes=12):
    rng = np.random.default_rng(0)
    return np.where(rng.random(len(answer)) < share, rng.integers(0, classes, len(answer)), answer)


LABEL = np.repeat(np.arange(12), 10)
AS_TEXT = np.array(sorted(range(12), key=str))


@pytest.mark.parametrize("share", [0.0, 0.2, 0.4])
def test_an_order_of_text_is_told_from_one_of_numbers(share):
    """Two of twelve classes stay where they are, so that the accuracy is not below guessing."""
    answer = noisy(np.argsort(AS_TEXT)[LABEL], share)
    order = other_order(results(LABEL, answer), NAMES)
    assert (answer == LABEL).mean() > 1 / 12
    n_right, n_following = map(int, re.match(r"(\d+) of 120 .* right, and (\d+) would", order.what).groups())
    assert n_right == (answer == LABEL).sum()
    assert n_following >= (AS_TEXT[answer] == LABEL).sum()
    assert "(c2 as c4, c3 as c5, c4 as c6, c5 as c7 and 6 more)" in order.what
    assert "output[:, ORDER]" in order.remedy


def test_one_output_in_front_is_told():
    order = other_order(results(LABEL, LABEL + 1), [*NAMES, "c12"])
    assert "Give logits=lambda output: output[:, 1:]" in order.remedy


@pytest.mark.parametrize("share", [0.0, 0.2])
def test_distances_are_told_by_the_smallest(share):
    """They may follow an order, too: the farthest of three on a line."""
    rng, label = np.random.default_rng(0), np.repeat(np.arange(3), 30)
    own = noisy(label, share, 3)
    distances = 1 + rng.random((90, 3))
    distances[np.arange(90), own], distances[np.arange(90), (own + 1) % 3] = 0.1, 3
    images = results(label, distances.argmax(1))
    assert "another order" in other_order(images, NAMES[:3]).what
    images.log_odds["original"] = distances.astype(np.float32)
    order = other_order(images, NAMES[:3])
    assert f"of {(own == label).sum()} the smallest output is the label's" in order.what
    assert "logits=lambda output: -output" in order.remedy


def test_outputs_in_another_order_are_no_distances():
    answer = np.argsort(AS_TEXT)[LABEL]
    images = results(LABEL, answer)
    images.log_odds["original"] = np.random.default_rng(0).random((120, 12)).astype(np.float32)
    images.log_odds["original"][np.arange(120), answer] = 9
    assert "in another order" in other_order(images, NAMES).what


def test_two_classes_that_are_exchanged_are_told():
    label = np.repeat(np.arange(2), 20)
    images = results(label, 1 - label)
    images.log_odds["original"] = np.where(np.arange(2) == label[:, None], -1, 1).astype(np.float32)
    assert "output[:, [1, 0]]" in other_order(images, NAMES[:2]).remedy


def test_worse_than_guessing_is_told():
    """The farthest of three classes is no order: two classes are farthest from the third."""
    label = np.repeat(np.arange(3), 30)
    order = other_order(results(label, np.array([2, 2, 0])[label]), NAMES[:3])
    assert "0.0% of the images as they are are right, less than by guessing (33.3%)" in order.what
    assert "logits=lambda output: -output" in order.remedy


@pytest.mark.parametrize(
    ("label", "answer"),
    [
        (LABEL, LABEL),
        (LABEL, noisy(LABEL, 0.7)),
        (LABEL, noisy(LABEL, 1.0)),
        (LABEL, LABEL * 0),
        (LABEL, np.minimum(LABEL, 5)),
        (np.arange(12), (np.arange(12) + 1) % 12),  # one image a class shows nothing
        (np.repeat(np.arange(2), 6), 1 - np.repeat(np.arange(2), 6)),  # few images
        (np.full(60, -1), noisy(np.zeros(60, int), 0.5)),
    ],
)
def test_other_answers_are_no_order(label, answer):
    assert other_order(results(label, answer), NAMES) is None


@pytest.mark.parametrize("classes", [2, 3, 10, 100])
def test_guessing_is_hardly_ever_an_order(classes):
    rng, label = np.random.default_rng(1), np.repeat(np.arange(classes), 6 if classes > 2 else 12)
    names = [str(i) for i in range(classes)]
    said = [other_order(results(label, rng.integers(0, classes, len(label))), names) for _ in range(300)]
    assert sum(order is not None for order in said) <= 3
