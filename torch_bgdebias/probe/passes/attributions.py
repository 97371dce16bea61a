"""Attributions by name, for pixel ratios and heatmaps in a report."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from torch_bgdebias.attribution import grad_cam, kernel_shap, lrp
from torch_bgdebias.checks import check_finite, check_option, describe
from torch_bgdebias.models import LogitsKey

__all__ = ["ATTRIBUTIONS", "Attribution", "named_attributions", "run_attribution"]

#: (model, image (B, C, H, W), target (B,)) -> (B, 1, H, W) or (B, C, H, W), positive where the image speaks for target;
#: of volumes (B, C, D, H, W) with a depth as well
Attribution: TypeAlias = Callable[[nn.Module, Tensor, Tensor], Tensor]

ATTRIBUTIONS = ("grad_cam", "kernel_shap", "lrp", "isnet")


def named_attributions(
    attributions: Sequence[str] | Mapping[str, Attribution],
    *,
    logits: LogitsKey = None,
    samples: int = 1000,
    chunk: int = 256,
    seed: int = 0,
) -> dict[str, Attribution]:
    """Attributions by name; a mapping of functions is taken as it is.

    Args:
        attributions: names of `ATTRIBUTIONS`, or functions by a name of your own. ``"isnet"`` is ``ISNet.explain`` of
            a model wrapped in `torch_bgdebias.ISNet`, with its own rules.
        logits: where the logits are in the model's output.
        samples: coalitions of KernelSHAP.
        chunk: images in one forward pass of KernelSHAP.
        seed: of its coalitions, which are the same for every image.
    """
    if isinstance(attributions, Mapping):
        return dict(attributions)
    by_name: dict[str, Attribution] = {
        "grad_cam": partial(grad_cam, logits=logits),
        "kernel_shap": partial(_kernel_shap, logits=logits, samples=samples, chunk=chunk, seed=seed),
        "lrp": partial(lrp, logits=logits),
        "isnet": _isnet,
    }
    return {
        check_option(name, ATTRIBUTIONS, name="attributions"): by_name[name] for name in dict.fromkeys(attributions)
    }


def run_attribution(name: str, attribution: Attribution, model: nn.Module, image: Tensor, target: Tensor) -> Tensor:
    """(B, 1, H, W) float32 of one attribution, channels added up; gradients may be taken inside.

    Raises:
        ValueError: another shape, or values that are not finite.
    """
    with torch.inference_mode(False), torch.no_grad():  # an attribution may take gradients: give it ordinary tensors
        heatmap = attribution(model, image.clone(), target.clone())
    expected = (len(image), 1, *image.shape[2:])
    if not isinstance(heatmap, Tensor) or (*heatmap.shape[:1], 1, *heatmap.shape[2:]) != expected:
        raise ValueError(f"attributions[{name!r}]: expected {expected}, got {describe(heatmap)}")
    return check_finite(heatmap.detach().float().sum(1, keepdim=True), name=f"attributions[{name!r}]")


def _kernel_shap(model: nn.Module, image: Tensor, target: Tensor, **settings: Any) -> Tensor:
    generator = torch.Generator(image.device).manual_seed(settings.pop("seed"))
    return kernel_shap(model, image, target, generator=generator, baseline="mean", **settings).attribution


def _isnet(model: nn.Module, image: Tensor, target: Tensor) -> Tensor:
    explain = getattr(model, "explain", None)
    if explain is None:
        raise ValueError(f"attributions: 'isnet' needs a model wrapped in ISNet, got {type(model).__name__}")
    relevance: Tensor = explain(image, target, create_graph=False).relevance
    return relevance[:, -1].sum(1, keepdim=True)  # the last map of the dual variant is LRP-epsilon's
