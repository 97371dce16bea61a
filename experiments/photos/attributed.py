"""How much of what speaks for the class lies on the object, by three attributions."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from torch_bgdebias.attribution import grad_cam, kernel_shap, lrp
from torch_bgdebias.metrics import pixel_ratio

__all__ = ["pixel_ratios"]


def pixel_ratios(net: nn.Module, samples: tuple[Tensor, Tensor, Tensor], few: int = 24) -> dict[str, float]:
    """Mean pixel ratio (percent) for the images' labels: Grad-CAM and LRP of all, KernelSHAP of the first ``few``.

    "object" is the objects' share of the images, which an attribution spread evenly would have.
    """
    image, label, mask = samples
    generator = torch.Generator().manual_seed(0)
    shap = kernel_shap(net, image[:few], label[:few], samples=300, generator=generator).attribution
    maps = {
        "grad_cam": torch.cat([grad_cam(net, x, y) for x, y in zip(image.split(50), label.split(50), strict=True)]),
        "lrp": torch.cat([lrp(net, x, y) for x, y in zip(image.split(50), label.split(50), strict=True)]),
        "kernel_shap": shap,
    }
    ratios = {name: pixel_ratio(attribution, mask[: len(attribution)]).nanmean() for name, attribution in maps.items()}
    return {name: round(100 * float(value), 1) for name, value in {**ratios, "object": mask.mean()}.items()}
