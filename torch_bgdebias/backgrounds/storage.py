"""A bank in one file: everything that is known of its images, tensors readable without running code."""

from __future__ import annotations

import os
from typing import Any, NamedTuple

import torch
from torch import Tensor

from torch_bgdebias.backgrounds.forbidden import ForbiddenPairs
from torch_bgdebias.backgrounds.screening.filter import FilterStep
from torch_bgdebias.writing import save_content

__all__ = ["BankContent", "read", "write"]

_FORMAT = 2
_READABLE = (1, 2)  # 1 knew no filters


class BankContent(NamedTuple):
    """What a bank consists of, as the arguments and attributes of ``BackgroundBank``."""

    images: Tensor
    labels: Tensor | None
    mean: Tensor | None
    std: Tensor | None
    classes: tuple[str, ...] | None
    forbidden: ForbiddenPairs | None
    filters: tuple[FilterStep, ...]


def write(content: BankContent, path: str | os.PathLike[str]) -> None:
    """Write a bank whole or not at all."""
    tensors = {name: getattr(content, name) for name in ("images", "labels", "mean", "std")}
    save_content(
        {
            "format": _FORMAT,
            "classes": None if content.classes is None else list(content.classes),
            "filters": [step.to_dict() for step in content.filters],
            **{name: None if tensor is None else tensor.cpu() for name, tensor in tensors.items()},
            "forbidden": None if content.forbidden is None else list(content.forbidden),
        },
        path,
    )


def read(path: str | os.PathLike[str], *, mmap: bool = True) -> BankContent:
    """Read what `write` wrote; ``mmap`` leaves the images on the disk until they are used.

    Raises:
        ValueError: another kind of file.
    """
    content: dict[str, Any] = torch.load(path, weights_only=True, mmap=mmap, map_location="cpu")
    if not isinstance(content, dict) or content.get("format") not in _READABLE:
        raise ValueError(f"path: expected a file written by BackgroundBank.save (format {_FORMAT}), got {path}")
    classes, pairs = content["classes"], content.get("forbidden")
    return BankContent(
        content["images"],
        content["labels"],
        content["mean"],
        content["std"],
        None if classes is None else tuple(classes),
        None if pairs is None else ForbiddenPairs(*(part.clone() for part in pairs)),
        tuple(FilterStep(**step) for step in content.get("filters") or ()),
    )
