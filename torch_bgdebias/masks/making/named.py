"""``mask_maker``: makers by name, as ``bgdebias masks --with`` takes them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from torch_bgdebias.masks.making.licences import Licence, card_licence, known_licence
from torch_bgdebias.masks.making.onnx import OnnxMaker, RembgMaker
from torch_bgdebias.masks.making.protocol import MaskMaker
from torch_bgdebias.masks.making.simple import BoxMaker, FunctionMaker, GrabCutMaker, function_named
from torch_bgdebias.masks.making.torchvision import TorchvisionMaker
from torch_bgdebias.masks.making.transformers import transformers_maker

__all__ = ["MAKERS", "licence_of", "mask_maker"]

#: how ``mask_maker`` and the command line name them
MAKERS = (
    "grabcut",
    "boxes:FILE",
    "rembg[:MODEL]",
    "onnx:FILE",
    "transformers:MODEL",
    "torchvision:MODEL",
    "package:FUNCTION",
)


def mask_maker(
    name: str,
    *,
    device: torch.device | str = "cpu",
    checkpoint: str | Path | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    size: int | None = None,
    iterations: int = 5,
    margin: float = 0.05,
) -> MaskMaker:
    """A mask maker by name.

    Args:
        name: ``"grabcut"``; ``"boxes:FILE"``, boxes as they are; ``"rembg"`` or ``"rembg:MODEL"``; ``"onnx:FILE"``, a
            network of salient objects; ``"transformers:MODEL"``, a published name or a folder: CLIPSeg, SAM, SAM 3,
            ``DETECTOR+SAM``, or a network of semantic classes; ``"torchvision:MODEL"``, Mask R-CNN or DeepLab and kin;
            ``"package.module:function"``, of images (B, 3, H, W) that returns masks (B, H, W).
        device: where a network runs.
        checkpoint: weights for torchvision's networks and rembg's custom ones.
        mean: of onnx's normalisation; known by the file's name for some.
        std: per channel; required with ``mean``.
        size: of onnx's images, where the file takes any.
        iterations: of GrabCut.
        margin: GrabCut's border that is background, share of the size.

    Raises:
        ValueError: no such maker, or options that it does not have. ImportError: a package is missing.
    """
    family, _, model_name = name.partition(":")
    torch_device = torch.device(device)
    file = None if checkpoint is None else Path(checkpoint)
    if file is not None and family not in ("torchvision", "rembg"):
        raise ValueError(f"checkpoint: expected none with {name}; it is for torchvision: and rembg:")
    if (mean is not None or std is not None or size is not None) and family != "onnx":
        raise ValueError(f"mean, std, size: expected none with {name}; they are for onnx:")
    if family == "onnx" and model_name:
        return OnnxMaker(Path(model_name), mean=mean, std=std, size=size, device=torch_device)
    if family == "rembg":
        return RembgMaker(model_name or "u2net", file=file)
    if family == "transformers" and model_name:
        return transformers_maker(model_name, device=torch_device)
    if family == "torchvision" and model_name:
        return TorchvisionMaker(model_name, checkpoint=file, device=torch_device)
    if name == "grabcut":
        return GrabCutMaker(iterations=iterations, margin=margin)
    if family == "boxes" and model_name:
        return BoxMaker(f"boxes:{Path(model_name).name}")
    if not model_name or family in ("grabcut", "boxes"):
        raise ValueError(f"--with: expected {', '.join(MAKERS)}, got {name!r}")
    return FunctionMaker(function_named(name), name=name, device=torch_device)


def licence_of(name: str) -> Licence | None:
    """What a maker's weights may be used for, known before anything is downloaded; ``None`` where nothing is."""
    family, _, model_names = name.partition(":")
    if family == "rembg":
        return known_licence(family, model_names or "u2net")
    if family == "torchvision":
        return known_licence(family, model_names)
    if family != "transformers":
        return None
    licences = [
        card_licence(Path(licence_name)) if Path(licence_name).is_dir() else known_licence(family, licence_name)
        for licence_name in model_names.split("+")
    ]
    return next(
        (licence_name for licence_name in licences if licence_name.restricted or licence_name.gated), licences[0]
    )
