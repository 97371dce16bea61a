"""Layer-wise relevance propagation as an attribution; rules and patent notice are in `torch_bgdebias.lrp`."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from torch_bgdebias.attribution.targets import target_class
from torch_bgdebias.checks import check_image
from torch_bgdebias.models import LogitsKey, eval_mode, logits_of, original_module

__all__ = ["lrp"]


def lrp(
    model: nn.Module,
    image: Tensor,
    target: Tensor | int | None = None,
    *,
    composite: Any = None,
    logits: LogitsKey = None,
) -> Tensor:
    """Relevance of every pixel for the class's logit, added up over colour channels.

    Args:
        model: any classifier; runs in evaluation mode, and gradients to its parameters are neither made nor kept.
        image: (B, C, H, W) or (B, C, D, H, W) as the model takes it.
        target: class of each sample (B,), one for all, or ``None`` for the predicted class.
        composite: a zennit composite; ``None`` takes `torch_bgdebias.lrp.FlexComposite` (LRP-epsilon for any
            architecture). One that selects layers by name sees the model's own names; where ``logits`` is given the
            model is wrapped, and every name begins with ``model.``.
        logits: where the logits are in the model's output (`torch_bgdebias.models.logits_of`).

    Returns:
        Attributions (B, 1, H, W) or (B, 1, D, H, W), signed; what speaks for the class is positive.

    Raises:
        ImportError: zennit is not installed. TypeError: not a zennit composite. ValueError: relevance that is not
            finite, or a target that does not fit. RuntimeError: the logits do not depend on the image.

    Source: Faster ISNet (arXiv 2401.08409), LRP-Flex; Bach et al., PLoS ONE 10(7), 2015.

    Example:
        >>> import torch
        >>> layers = [torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(144, 2)]
        >>> lrp(torch.nn.Sequential(*layers), torch.rand(2, 3, 8, 8)).shape
        torch.Size([2, 1, 8, 8])
    """
    from torch_bgdebias.lrp import FlexComposite, relevance  # zennit is for those who use LRP

    check_image(image, volumes=True)
    inner = original_module(model)
    with torch.inference_mode(False), eval_mode(inner), torch.enable_grad():
        image = image.detach().clone()
        with torch.no_grad():
            classes = target_class(logits_of(inner(image), logits), target)
        explained = inner if logits is None else _Logits(inner, logits)
        _, heatmap = relevance(explained, image, classes, FlexComposite() if composite is None else composite, False)
    return heatmap[:, 0].sum(1, keepdim=True).detach()


class _Logits(nn.Module):
    """A borrowed model that returns nothing but its logits."""

    def __init__(self, model: nn.Module, key: LogitsKey) -> None:
        super().__init__()
        self.training = model.training
        self.model, self.key = model, key

    def forward(self, image: Tensor) -> Tensor:
        return logits_of(self.model(image), self.key)
