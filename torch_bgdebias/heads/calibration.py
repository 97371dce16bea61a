"""Calibration of a last layer: its confidence against its accuracy, and the temperature that corrects it."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from torch_bgdebias.heads.logistic import LinearHead, Views, fit_logistic, weights_of_views
from torch_bgdebias.metrics.answers import calibration_error

__all__ = ["HeadFigures", "ViewFigures", "cooled", "fit_temperature", "held_out_logits", "view_figures"]

#: the bounds of the temperature, as powers of e, and how often the interval between them is cut
_WIDEST, _CUTS = 4.0, 60


class ViewFigures(NamedTuple):
    """Accuracy and confidence of a last layer on images.

    Args:
        accuracy: share of right answers, in [0, 1].
        confidence: mean probability of the answer, in [0, 1].
        calibration_error: expected calibration error of that probability, 15 bins (`torch_bgdebias.metrics`).
    """

    accuracy: float
    confidence: float
    calibration_error: float


class HeadFigures(NamedTuple):
    """These figures on original and on swapped backgrounds.

    Args:
        original: images as they are.
        swapped: their copies on other backgrounds.
    """

    original: ViewFigures
    swapped: ViewFigures


def held_out_logits(
    views: Views, num_classes: int, penalty: float, fold: Tensor, *, original_weight: float
) -> tuple[Tensor, Views]:
    """Logits (V, N, K) of heads that were fitted without an image's fold, and the images that could be judged so.

    Args:
        views: embeddings and labels.
        num_classes: K.
        penalty, original_weight: as in `fit_logistic`.
        fold: (N,) which fold an image is in; a fold whose rest lacks a class is left out.
    """
    logits = views.embedding.new_zeros(*views.embedding.shape[:2], num_classes, dtype=torch.float64)
    has_logits = torch.zeros_like(views.label, dtype=torch.bool)
    for number in range(int(fold.max()) + 1):
        held_out = fold == number
        training_views = views.at((~held_out).nonzero().flatten())
        if len(torch.unique(training_views.label)) < num_classes:
            continue
        head = fit_logistic(training_views, num_classes, penalty, original_weight=original_weight)
        logits[:, held_out] = head.logits(views.embedding[:, held_out])
        has_logits |= held_out
    rows = has_logits.nonzero().flatten()
    return logits[:, rows], views.at(rows)


def fit_temperature(logits: Tensor, views: Views, *, original_weight: float) -> float:
    """The T > 0 by which logits are divided so that their cross-entropy, weighed as in the fit, is least.

    The answers stay. Cross-entropy is convex in 1 / T, so its derivative's one zero is found by halving an interval
    from exp(-4) to exp(4).

    Args:
        logits: (V, N, K) of images that the head was not fitted on.
        views: of the same images.
        original_weight: as in `fit_logistic`.

    Source: Guo et al., On Calibration of Modern Neural Networks, ICML 2017.
    """
    scores, target = logits.flatten(0, 1), views.label.repeat(len(logits))
    weight = weights_of_views(views, logits.shape[2], original_weight=original_weight)
    target_score = scores.gather(1, target[:, None]).squeeze(1)
    low, high = -_WIDEST, _WIDEST  # of log(1 / T)
    for _ in range(_CUTS):
        middle = (low + high) / 2
        expected = (F.softmax(scores * math.exp(middle), 1) * scores).sum(1)
        if float((weight * (expected - target_score)).sum()) > 0:  # too sure
            high = middle
        else:
            low = middle
    return math.exp(-(low + high) / 2)


def view_figures(logits: Tensor, views: Views) -> HeadFigures:
    """Accuracy, confidence and calibration error of logits (V, N, K); one column is that of class 1 of two."""
    if logits.shape[2] == 1:
        logits = torch.cat([torch.zeros_like(logits), logits], 2)
    confidence, answer = F.softmax(logits.double(), 2).max(2)
    is_right = (answer == views.label).double()

    def of(rows: slice) -> ViewFigures:
        confidences, hits = confidence[rows].flatten().cpu().numpy(), is_right[rows].flatten().cpu().numpy()
        return ViewFigures(
            float(hits.mean()), float(confidences.mean()), calibration_error(confidences.clip(0, 1), hits).error
        )

    return HeadFigures(of(slice(views.originals)), of(slice(views.originals, None)))


def cooled(head: LinearHead, temperature: float) -> LinearHead:
    """The same head with its logits divided."""
    return LinearHead(head.weight / temperature, head.bias / temperature)
