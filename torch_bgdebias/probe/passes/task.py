"""Whether a model whose task nobody named has one logit for two classes."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor, nn

from torch_bgdebias.models import logits_of
from torch_bgdebias.probe.passes.measure import Batches
from torch_bgdebias.probe.passes.settings import EvaluationSettings

__all__ = ["with_own_task"]

_IMAGES = 2


def with_own_task(
    model: nn.Module, settings: EvaluationSettings, batches: Batches, device: torch.device, *, look: bool
) -> EvaluationSettings:
    """The settings, with ``task="binary"`` where that is beyond doubt: one logit an image, labels of 0 and 1.

    A softmax over one class says nothing, so such an output has no other meaning. The first batch is looked at, in
    whatever mode the model is in; what is wrong with it is left to the measurement to say.

    Args:
        model: the model.
        settings: with or without a task of their own.
        batches: of which the first is looked at.
        device: where the model is.
        look: even if no layer of the model has one output, as where a function makes the logits.
    """
    if settings.task != "multiclass" or settings.spec.label is None or settings.num_classes not in (None, 2):
        return settings
    if not (look or callable(settings.logits) or _may_have_one_logit(model)):
        return settings
    first = next(iter(batches), None)
    if first is None:
        return settings
    try:
        image, label = settings.spec.image_of(first[2]), settings.spec.label_of(first[2])
        few = image[:_IMAGES].to(device)
        few = few if settings.preprocess is None else settings.preprocess(few)
        output = model(few) if settings.forward is None else settings.forward(model, few)
        logits = logits_of(output, settings.logits)
    except (KeyError, TypeError, ValueError, RuntimeError, IndexError, AttributeError):
        return settings
    one = logits.shape in ((len(few),), (len(few), 1))
    return dataclasses.replace(settings, task="binary") if one and _of_two_classes(label, len(image)) else settings


def _may_have_one_logit(model: nn.Module) -> bool:
    linear = [layer for layer in model.modules() if isinstance(layer, nn.Linear)]
    return not linear or any(layer.out_features == 1 for layer in linear)


def _of_two_classes(label: Tensor, size: int) -> bool:
    return label.shape in ((size,), (size, 1)) and bool(((label == 0) | (label == 1)).all())
