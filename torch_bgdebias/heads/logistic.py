"""A regularised multinomial logistic regression on fixed features, with its penalty chosen by cross-validation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from torch_bgdebias.checks import check_label

__all__ = [
    "LinearHead",
    "PenaltyScore",
    "Views",
    "best_penalty",
    "choose_penalty",
    "dealt_folds",
    "end_of_range",
    "fit_logistic",
    "weights_of_views",
    "words_on_end",
]

#: of L-BFGS for each fold and penalty, from the solution of the penalty before: accuracies no longer change after it
_STEPS_OF_A_TRIAL = 40
#: penalties beyond those of the start, two a decade
_FARTHEST = 6


class LinearHead(NamedTuple):
    """A last layer: ``logits = embedding @ weight.T + bias``.

    Args:
        weight: (K, D) float64.
        bias: (K,) float64.
    """

    weight: Tensor
    bias: Tensor

    def logits(self, embedding: Tensor) -> Tensor:
        """Logits (..., K) of embeddings (..., D), in float64."""
        return embedding.to(self.weight) @ self.weight.T + self.bias


class Views(NamedTuple):
    """Embeddings of the same images on several backgrounds.

    Args:
        embedding: (V, N, D), the first views are the images before their own background, the others have others.
        label: (N,) int64.
        group: (N,) int64; images of one group are never on both sides of a split.
        originals: how many of the views have their own background.
    """

    embedding: Tensor
    label: Tensor
    group: Tensor
    originals: int = 1

    def at(self, rows: Tensor) -> Views:
        """The images at ``rows``."""
        return Views(self.embedding[:, rows], self.label[rows], self.group[rows], self.originals)


class PenaltyScore(NamedTuple):
    """What one penalty reached on images that the head was not fitted on.

    Args:
        penalty: see `fit_logistic`.
        original: balanced accuracy on the images as they are, in [0, 1].
        swapped: balanced accuracy on the images with other backgrounds, in [0, 1].
        both: the mean of both, weighed as the fit weighs them.
        error: standard error of ``both``, groups taken as a whole.
    """

    penalty: float
    original: float
    swapped: float
    both: float
    error: float


def fit_logistic(
    views: Views,
    num_classes: int,
    penalty: float,
    *,
    original_weight: float = 0.5,
    start: LinearHead | None = None,
    max_steps: int = 300,
) -> LinearHead:
    """Minimise class-balanced cross-entropy + penalty / 2 * |weight|^2 over all views (convex; L-BFGS in float64).

    Features are standardised first, so that the penalty means the same whatever a layer's scale; the head that is
    returned takes the features as they come. Every class weighs the same, whatever its number of images.

    Args:
        views: embeddings and labels; every class in [0, ``num_classes``) has at least one image.
        num_classes: K.
        penalty: above 0; the mean loss is of the order of 1, so 1 is strong and 1e-4 weak.
        original_weight: of all views before their own background, beside 1 for all the others together. They carry the
            bias: 0 leaves them out, and the head then sees no background that goes with a class.
        start: a head to start from (the minimum is the same).
        max_steps: of L-BFGS.

    Raises:
        ValueError: a penalty that is not positive, a weight below 0, a class without an image.
    """
    if not penalty > 0:
        raise ValueError(f"penalty: expected a number above 0, got {penalty!r}")
    if not original_weight >= 0:
        raise ValueError(f"original_weight: expected a number of at least 0, got {original_weight!r}")
    label = check_label(views.label, views.embedding.shape[1], num_classes=num_classes)
    count = torch.bincount(label, minlength=num_classes)
    if bool((count == 0).any()):
        missing = (count == 0).nonzero().flatten().tolist()
        raise ValueError(f"label: expected an image of each of {num_classes} classes, got none of {missing[:8]}")
    features = views.embedding.double().flatten(0, 1)
    mean, std = features.mean(0), features.std(0, correction=0).clamp(min=1e-6)
    standardised = (features - mean) / std
    target = label.repeat(len(views.embedding))
    weight = weights_of_views(views, num_classes, original_weight=original_weight)
    matrix, shift = _started(start, mean, std, num_classes, standardised)
    optimizer = torch.optim.LBFGS([matrix, shift], max_iter=max_steps, history_size=10, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        logits = torch.addmm(shift, standardised, matrix)
        loss = (weight * F.cross_entropy(logits, target, reduction="none")).sum() + penalty / 2 * matrix.square().sum()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    with torch.enable_grad():
        optimizer.step(closure)  # type: ignore[no-untyped-call]
    scaled = matrix.detach().T / std
    return LinearHead(scaled, shift.detach() - scaled @ mean)


def weights_of_views(views: Views, num_classes: int, *, original_weight: float) -> Tensor:
    """(V * N,) what a view of an image counts: every class as much, originals beside 1 for the others; 1 in all."""
    n_swapped = max(len(views.embedding) - views.originals, 1)
    of_view = torch.full((len(views.embedding),), 1 / n_swapped, dtype=torch.float64, device=views.label.device)
    of_view[: views.originals] = original_weight / views.originals
    count = torch.bincount(views.label, minlength=num_classes)
    weight = (1 / count.double())[views.label].repeat(len(of_view)) * of_view.repeat_interleave(len(views.label))
    return weight / weight.sum()


def choose_penalty(
    views: Views,
    num_classes: int,
    penalties: Sequence[float],
    fold: Tensor,
    *,
    original_weight: float = 0.5,
    beyond: bool = False,
) -> tuple[PenaltyScore, ...]:
    """Cross-validate the penalties, strongest first.

    Args:
        views: at least two views, since the choice is made on images with other backgrounds.
        num_classes: K.
        penalties: to try.
        fold: (N,) which fold an image is in, see `dealt_folds`.
        original_weight: as in `fit_logistic`.
        beyond: try further ones, two a decade, while the best is the weakest or the strongest of those that were tried;
            at most three decades.

    Returns:
        One score a penalty; see `best_penalty`.

    Raises:
        ValueError: a single group, which cannot be split.
    """
    trials = _Trials(views, num_classes, fold, original_weight)
    scores = [trials.score(penalty) for penalty in sorted(penalties, reverse=True)]
    for _ in range(_FARTHEST if beyond else 0):
        end = end_of_range(scores)
        if end is None:
            break
        if end == "weakest":
            scores.append(trials.score(_next_penalty(scores[-1].penalty, -1)))
        else:
            scores.insert(0, trials.score(_next_penalty(scores[0].penalty, 1)))
    return tuple(scores)


class _Trials:
    """Penalties tried on the same folds; each starts from the solution of the weakest or strongest one before."""

    def __init__(self, views: Views, num_classes: int, fold: Tensor, original_weight: float) -> None:
        self.views, self.num_classes, self.original_weight = views, num_classes, original_weight
        held_out = [fold == number for number in range(int(fold.max()) + 1)]
        # where all images of a class are of one group, that class cannot be judged and fitted at once
        self.held_out = [rows for rows in held_out if len(torch.unique(views.label[~rows])) == num_classes]
        if not self.held_out:
            raise ValueError(
                "groups: expected at least two groups in every class to choose a penalty, or pass one penalty"
            )
        self.weakest: tuple[float, Sequence[LinearHead | None]] = (math.inf, [None] * len(self.held_out))
        self.strongest: tuple[float, Sequence[LinearHead | None]] = (0.0, self.weakest[1])

    def score(self, penalty: float) -> PenaltyScore:
        """What heads of this penalty reach on the images that they were not fitted on."""
        starts = self.strongest[1] if penalty > self.strongest[0] > 0 else self.weakest[1]
        is_right = self.views.embedding.new_zeros(self.views.embedding.shape[:2])
        heads = []
        for rows, start in zip(self.held_out, starts, strict=True):
            head = fit_logistic(
                self.views.at((~rows).nonzero().flatten()),
                self.num_classes,
                penalty,
                original_weight=self.original_weight,
                start=start,
                max_steps=_STEPS_OF_A_TRIAL,
            )
            test = self.views.at(rows.nonzero().flatten())
            is_right[:, rows] = (head.logits(test.embedding).argmax(-1) == test.label).to(is_right)
            heads.append(head)
        if penalty > self.strongest[0]:
            self.strongest = (penalty, heads)
        if penalty < self.weakest[0]:
            self.weakest = (penalty, heads)
        judged = torch.stack(self.held_out).any(0)
        of_judged = self.views.at(judged.nonzero().flatten())
        return _score(penalty, is_right[:, judged], of_judged, self.original_weight)


def _next_penalty(penalty: float, direction: int) -> float:
    """The next one of 1, 3, 10, 30, ... towards stronger (1) or weaker (-1) ones."""
    half_decades = round(2 * math.log10(penalty)) + direction
    return float(f"{3 if half_decades % 2 else 1}e{half_decades // 2}")


def best_penalty(scores: Sequence[PenaltyScore]) -> float:
    """The strongest penalty within one standard error of the best (Hastie, Tibshirani and Friedman, 2009, 7.10)."""
    best = max(scores, key=lambda score: score.both)
    return max(score.penalty for score in scores if score.both >= best.both - best.error)


def end_of_range(scores: Sequence[PenaltyScore]) -> Literal["weakest", "strongest"] | None:
    """At which end of the penalties the best one lies, so that one beyond may be better; ``None`` within them.

    Args:
        scores: of the penalties that were tried; with a single one there is no end. Where the next one within is as
            good as the best, the end is none that holds anything back.
    """
    ordered = sorted(scores, key=lambda score: score.penalty)
    best = max((score.both for score in ordered), default=1.0)
    if len(ordered) < 2 or best > 1 - 1e-9:  # nothing to gain
        return None
    if ordered[0].both == best > ordered[1].both:
        return "weakest"
    return "strongest" if ordered[-1].both == best > ordered[-2].both else None


def words_on_end(scores: Sequence[PenaltyScore]) -> str:
    """That the best penalty is the last one on its side, and which to add; empty where it is not."""
    end = end_of_range(scores)
    if end is None:
        return ""
    ordered = sorted(score.penalty for score in scores)
    edge, factors = (ordered[0], (1 / 10, 1 / 3)) if end == "weakest" else (ordered[-1], (10 / 3, 10.0))
    best = max(score.both for score in scores)
    values = [f"{value:g}" for value in sorted({*ordered, *(float(f"{edge * factor:.1g}") for factor in factors)})]
    return (
        f"penalties: the best one, {edge:g} ({best:.1%} right), is the {end} of those that were tried "
        f"({ordered[0]:g} to {ordered[-1]:g}), and one beyond it may be better: penalties=({', '.join(values)}) "
        f"(--penalties {','.join(values)})"
    )


def _score(penalty: float, is_right: Tensor, views: Views, original_weight: float) -> PenaltyScore:
    """Balanced accuracies and their standard error from which answers (V, N) are right."""
    is_right = is_right.double()
    original, swapped = is_right[: views.originals].mean(0), is_right[views.originals :].mean(0)
    both = (original_weight * original + swapped) / (original_weight + 1)
    classes, of_class = torch.unique(views.label, return_inverse=True)
    count = torch.bincount(of_class).double()
    weight = 1 / (len(classes) * count[of_class])
    of_mean = torch.zeros_like(count).index_add_(0, of_class, both) / count
    _, of_group = torch.unique(views.group, return_inverse=True)
    by_group = both.new_zeros(int(of_group.max()) + 1).index_add_(0, of_group, weight * (both - of_mean[of_class]))
    mean_original, mean_swapped, mean_both = (float((weight * value).sum()) for value in (original, swapped, both))
    return PenaltyScore(penalty, mean_original, mean_swapped, mean_both, float(by_group.square().sum().sqrt()))


def _started(
    start: LinearHead | None, mean: Tensor, std: Tensor, num_classes: int, features: Tensor
) -> tuple[Tensor, Tensor]:
    """The variables of the optimisation, on standardised features: zeros, or another head's values."""
    if start is None:
        matrix, shift = features.new_zeros(features.shape[1], num_classes), features.new_zeros(num_classes)
    else:
        matrix, shift = (start.weight * std).T.contiguous(), start.bias + start.weight @ mean
    return matrix.requires_grad_(), shift.clone().requires_grad_()


def dealt_folds(views: Views, folds: int, generator: torch.Generator) -> Tensor:
    """(N,) which fold each image is in: groups, never parted, shuffled and then dealt class by class.

    Args:
        views: their labels and groups.
        folds: how many, at least 2; fewer where there are fewer groups.
        generator: of the order.
    """
    groups, inverse = torch.unique(views.group, return_inverse=True)
    class_of = torch.zeros(len(groups), dtype=torch.int64).index_put_((inverse.cpu(),), views.label.cpu())
    shuffled = torch.randperm(len(groups), generator=generator)
    dealt = shuffled[torch.argsort(class_of[shuffled], stable=True)]
    fold = torch.empty(len(groups), dtype=torch.int64)
    fold[dealt] = torch.arange(len(groups)) % min(folds, len(groups))
    return fold.to(inverse.device)[inverse]
