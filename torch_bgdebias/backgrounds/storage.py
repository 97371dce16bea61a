"""Saving and loading a bank as one file that is read without executing code."""

from __future__ import annotations

import os
from typing import NamedTuple

import torch
from torch import Tensor

from torch_bgdebias.backgrounds.forbidden import ForbiddenPairs
from torch_bgdebias.backgrounds.screening.filter import FilterStep
from torch_bgdebias.checks import describe
from torch_bgdebias.records import Record
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
    tensors = {"images": content.images, "labels": content.labels, "mean": content.mean, "std": content.std}
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
        OSError: it cannot be read.
        ValueError: another kind of file, one that was cut short or changed, or a field of another kind; the message
            names file and field.
    """
    expected = f"expected a file written by BackgroundBank.save (format {_FORMAT}), got {path}"
    try:
        content = torch.load(path, weights_only=True, mmap=mmap, map_location="cpu")
    except Exception as error:  # torch, zipfile and pickle raise many kinds for a damaged file
        if isinstance(error, OSError) and error.filename is not None:
            raise
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise ValueError(f"path: {expected}, which is damaged or no such file: {reason}") from error
    if not isinstance(content, dict) or content.get("format") not in _READABLE:
        raise ValueError(f"path: {expected}")
    try:
        return _content_of(Record({"filters": None, "forbidden": None, **content}))
    except KeyError as error:
        raise ValueError(f"{path}: a field is missing: {error}") from error
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _content_of(fields: Record) -> BankContent:
    images = _tensor(fields, "images")
    if images is None or images.ndim == 0:
        raise ValueError(f"images: expected a tensor (N, C, Hb, Wb), got {describe(images)}")
    labels, mean, std = (_tensor(fields, name) for name in ("labels", "mean", "std"))
    classes = None if fields.value("classes") is None else tuple(fields.texts("classes"))
    filters = () if fields.value("filters") is None else tuple(_filter_step(step) for step in fields.records("filters"))
    pairs = fields.value("forbidden")
    return BankContent(
        images, labels, mean, std, classes, None if pairs is None else _forbidden_pairs(pairs, len(images)), filters
    )


def _tensor(fields: Record, name: str) -> Tensor | None:
    value = fields.value(name)
    if value is not None and not isinstance(value, Tensor):
        raise ValueError(f"{name}: expected a tensor, got {describe(value)}")
    if value is not None and value.is_meta:
        raise ValueError(f"{name}: expected a tensor with its values, got one without (on the meta device)")
    return value


def _forbidden_pairs(parts: object, images: int) -> ForbiddenPairs:
    """Three int64 tensors that agree; positions beyond the images would be written outside a table."""
    tensors = [part.clone() for part in parts if isinstance(part, Tensor)] if isinstance(parts, (list, tuple)) else []
    if len(tensors) != 3 or any(part.dtype != torch.int64 or part.ndim != 1 for part in tensors):
        raise ValueError("forbidden: expected three int64 tensors of one dimension")
    pairs = ForbiddenPairs(*tensors)
    for name, values, count in (("rows", pairs.rows, len(pairs.labels)), ("images", pairs.images, images)):
        if len(values) != len(pairs.rows) or bool(((values < 0) | (values >= count)).any()):
            raise ValueError(f"forbidden.{name}: expected {len(pairs.rows)} values in [0, {count - 1}]")
    if bool((pairs.labels.diff() <= 0).any()) or bool((pairs.images.diff() < 0).any()):
        raise ValueError("forbidden: expected labels and images in ascending order")
    return pairs


def _filter_step(fields: Record) -> FilterStep:
    by_class = fields.record("by_class")
    by_foreground = fields.value("by_foreground")
    if not isinstance(by_foreground, dict) or not all(isinstance(n, int) for row in by_foreground.items() for n in row):
        raise ValueError(
            f"{fields.at('by_foreground')}: expected whole numbers by class, got {describe(by_foreground)}"
        )
    return FilterStep(
        fields.text("classifier"),
        fields.whole("top_k", 0),
        fields.whole("before", 0),
        fields.whole("dropped", 0),
        {name: by_class.whole(name, 0) for name in by_class},
        dict(by_foreground),
    )
