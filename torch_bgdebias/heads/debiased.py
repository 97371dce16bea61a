"""``fit_debiased_head``: a new last layer for a network that exists, fitted on images and on swapped backgrounds."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Iterable
from typing import Any, Literal, Unpack

import torch
from torch import Tensor, nn

from torch_bgdebias.batch import BatchSpec
from torch_bgdebias.heads.calibration import HeadFigures, cooled, fit_temperature, held_out_logits, view_figures
from torch_bgdebias.heads.features import embed_views
from torch_bgdebias.heads.logistic import (
    LinearHead,
    PenaltyScore,
    Views,
    best_penalty,
    choose_penalty,
    dealt_folds,
    end_of_range,
    fit_logistic,
    words_on_end,
)
from torch_bgdebias.heads.settings import PENALTIES, HeadOptions, HeadSettings
from torch_bgdebias.models import find_head, get_layer
from torch_bgdebias.swap.module import BackgroundSwap

__all__ = ["DebiasedHead", "HeadOptions", "HeadSettings", "fit_debiased_head"]


@dataclasses.dataclass(frozen=True)
class DebiasedHead:
    """A fitted last layer; nothing of the network has changed until `apply_`.

    Args:
        head: weight (K, D) and bias (K,), float64; one row, of class 1, for a model of two classes with one logit.
        layer: name of the layer that it takes the place of.
        penalty: the one that was chosen: the strongest within one standard error of the best.
        scores: balanced accuracies of all penalties by cross-validation; empty where there was nothing to choose.
        images: how many images it was fitted on, copies and crops not counted.
        temperature: the logits were divided by it, so that the answers' probabilities fit; 1 where that was not asked.
        before: accuracy and calibration of the layer that was there, on the images of the fit, which its network may
            have been trained on; ``None`` where its outputs are other classes.
        after: those of this head, every image judged by a head that was fitted without it; ``None`` with one penalty.
    """

    head: LinearHead
    layer: str
    penalty: float
    scores: tuple[PenaltyScore, ...]
    images: int
    temperature: float = 1.0
    before: HeadFigures | None = None
    after: HeadFigures | None = None

    @property
    def best_at_end(self) -> Literal["weakest", "strongest"] | None:
        """At which end of the penalties the best one lies: one beyond may be better. ``None`` within them."""
        return end_of_range(self.scores)

    def apply_(self, model: nn.Module) -> nn.Module:
        """Put the head in place of ``model``'s last layer, and return the model.

        A layer of the right size keeps its parameters (the same objects) and gets new values; another one is replaced
        by a new ``nn.Linear``: make the optimiser after that.

        Raises:
            LookupError: the model has no such layer. ValueError: the layer takes other embeddings.
        """
        try:
            layer = get_layer(model, self.layer)
        except LookupError as error:
            raise LookupError(f"model: {error.args[0]}; pass the model that the head was fitted on") from None
        weight, bias = self.head
        if not isinstance(layer, nn.Linear) or layer.in_features != weight.shape[1]:
            expected = f"nn.Linear({weight.shape[1]}, ...) called {self.layer!r}"
            raise ValueError(f"model: expected an {expected}, got {layer}; pass the model that the head was fitted on")
        if layer.out_features != len(weight) or layer.bias is None:
            layer = nn.Linear(weight.shape[1], len(weight), device=layer.weight.device, dtype=layer.weight.dtype)
            parent, _, name = self.layer.rpartition(".")
            setattr(get_layer(model, parent) if parent else model, name, layer)
        with torch.no_grad():
            layer.weight.copy_(weight)
            layer.bias.copy_(bias)
        return model


def fit_debiased_head(
    model: nn.Module,
    loader: Iterable[Any],
    swap: BackgroundSwap | None = None,
    spec: BatchSpec | None = None,
    **options: Unpack[HeadOptions],
) -> DebiasedHead:
    """Fit the last layer of a frozen network on images and on the same images before other backgrounds.

    Features that were learned with backgrounds still describe the object; a last layer that sees every object on many
    backgrounds stops reading the rest (last-layer retraining: Deep Feature Reweighting, arXiv 2204.02937). The fit is a
    class-balanced logistic regression whose penalty is chosen by cross-validation, on images and swapped images.

    Args:
        model: any classifier with a linear last layer; left as it is.
        loader: yields images (B, C, H, W) as the model takes them, labels and masks; one pass, without augmentation
            that moves the object from under its mask.
        swap: draws the other backgrounds; those of the batch by default.
        spec: where image, label and mask are in a batch.
        **options: see `HeadSettings`.

    Returns:
        The head; ``fit_debiased_head(...).apply_(model)`` changes the model.

    Raises:
        ValueError: options out of range, no images, images that cannot be split, a class without an image.
        LookupError: no last linear layer, or several candidates: pass ``layer=``.

    Warns:
        UserWarning: in cross-validation the classes are at chance before other backgrounds; the best penalty is the
            weakest or the strongest of those that were tried.

    Example:
        >>> _ = torch.manual_seed(0)
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 16), nn.ReLU(), nn.Linear(16, 2))
        >>> images, labels = torch.rand(12, 3, 8, 8), torch.tensor([0, 1] * 6)
        >>> masks = torch.zeros(12, 1, 8, 8)
        >>> masks[:, :, 2:6, 2:6] = 1
        >>> fitted = fit_debiased_head(model, [(images, labels, masks)], layer="3")
        >>> fitted.layer, tuple(fitted.head.weight.shape), fitted.apply_(model) is model
        ('3', (2, 16), True)
    """
    settings = HeadSettings(**options)
    layer = settings.layer or find_head(model)[0]
    if swap is None:
        swap = BackgroundSwap("batch", different_class=False)
    views = embed_views(model, loader, swap, spec or BatchSpec(), layer, settings)
    old_head = get_layer(model, layer)
    num_classes = settings.num_classes or _number_of_classes(old_head, views.label)
    weight = settings.original_weight
    scores: tuple[PenaltyScore, ...] = ()
    penalties = settings.penalties or PENALTIES
    penalty, temperature, after = penalties[0], 1.0, None
    if len(penalties) > 1:
        fold = dealt_folds(views, settings.folds, torch.Generator().manual_seed(settings.seed))
        beyond = settings.penalties is None
        scores = choose_penalty(views, num_classes, penalties, fold, original_weight=weight, beyond=beyond)
        penalty = best_penalty(scores)
        if not _warn_at_chance(next(score for score in scores if score.penalty == penalty), num_classes):
            _warn_at_end(scores)
        logits, judged_views = held_out_logits(views, num_classes, penalty, fold, original_weight=weight)
        if settings.calibrate:
            temperature = fit_temperature(logits, judged_views, original_weight=weight)
        after = view_figures(logits / temperature, judged_views)
    head = cooled(fit_logistic(views, num_classes, penalty, original_weight=weight), temperature)
    if num_classes == 2 and getattr(old_head, "out_features", 2) == 1:  # one logit, of class 1
        head = LinearHead(head.weight[1:] - head.weight[:1], head.bias[1:] - head.bias[:1])
    before = _figures_of(old_head, views, num_classes)
    return DebiasedHead(head, layer, penalty, scores, len(views.label), temperature, before, after)


def _figures_of(layer: nn.Module, views: Views, num_classes: int) -> HeadFigures | None:
    """The figures of the layer that was there, if its outputs are the classes of the fit."""
    outputs = getattr(layer, "out_features", 0)
    if outputs != num_classes and (outputs, num_classes) != (1, 2):
        return None
    with torch.no_grad():
        parameter = next(layer.parameters())
        return view_figures(layer(views.embedding.to(parameter.dtype)).double(), views)


def _warn_at_chance(best: PenaltyScore, num_classes: int) -> bool:
    at_chance = best.swapped - 2 * best.error <= 1 / num_classes
    if at_chance:
        warnings.warn(
            f"the features cannot tell the {num_classes} classes before other backgrounds: {best.swapped:.0%} right "
            f"in cross-validation, where chance is {1 / num_classes:.0%}; a new last layer will not help, train the "
            "network with BackgroundSwap, or with more images",
            stacklevel=3,
        )
    return at_chance


def _warn_at_end(scores: tuple[PenaltyScore, ...]) -> None:
    """Warn where the best penalty is the last one on its side and clearly better than the next, which is no chance."""
    best, second = sorted(scores, key=lambda score: score.both)[:-3:-1]
    if end_of_range(scores) is not None and second.both < best.both - best.error:
        warnings.warn(words_on_end(scores), stacklevel=3)


def _number_of_classes(layer: nn.Module, label: Tensor) -> int:
    """The layer's own number of outputs, unless it was made for other classes (an ImageNet head)."""
    largest = int(label.max()) + 1
    outputs = layer.out_features if isinstance(layer, nn.Linear) else largest
    return outputs if largest <= outputs <= 2 * largest else largest
