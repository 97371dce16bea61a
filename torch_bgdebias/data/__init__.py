"""Masked data: folders, variants with other backgrounds, controlled correlation, adapters, drawn scenes, GrabCut masks.

Names are resolved when they are first used: importing this room imports neither torchvision, kornia nor OpenCV.
"""

from __future__ import annotations

import importlib
from typing import Any

_HOMES = {
    "CAMERAS": "correlated",
    "IMAGENET9_RANGES": "imagenet9",
    "SCENE_CATEGORIES": "scenes",
    "VARIANTS": "variants",
    "Camera": "correlated",
    "CorrelatedBackgrounds": "correlated",
    "ImageNet9": "imagenet9",
    "ImageNet9Sample": "imagenet9",
    "ImageNet9Variants": "imagenet9_variants",
    "ImageNetS": "adapters",
    "MaskSizeError": "folder",
    "MaskedImageFolder": "folder",
    "MaskedSample": "folder",
    "MaskedTensorDataset": "tensors",
    "MaskedTensors": "tensors",
    "OxfordPets": "adapters",
    "Scenes": "scenes",
    "ThresholdMasked": "digits",
    "UnreadableImageError": "torch_bgdebias.files",
    "VOCObjects": "adapters",
    "Variant": "variants",
    "Waterbirds": "adapters",
    "digits_with_masks": "digits",
    "draw_scenes": "scenes",
    "grabcut_masks": "torch_bgdebias.masks",
    "imagenet9_prediction": "imagenet9",
    "load_places365": "places",
    "make_variant": "variants",
    "mnist_with_masks": "digits",
    "paint_scenes": "scenes",
    "read_idx": "digits",
    "to_imagenet9": "imagenet9",
}

__all__ = list(_HOMES)


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        home = _HOMES[name]
        value = getattr(importlib.import_module(home if "." in home else f"{__name__}.{home}"), name)
        globals()[name] = value  # the next look-up does not come here
        return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it has {', '.join(_HOMES)}")


def __dir__() -> list[str]:
    return sorted(_HOMES)
