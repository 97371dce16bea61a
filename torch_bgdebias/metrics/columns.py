"""Columns of one number an image, and the groups that images come in, checked."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray
from torch import Tensor

__all__ = ["Floats", "array_of", "group_numbers", "number_column", "paired_number_columns"]

Floats: TypeAlias = NDArray[np.float64]


def array_of(values: ArrayLike, dtype: DTypeLike | None = None) -> NDArray[Any]:
    """As ``np.asarray``; tensors may be of any dtype, on any device and with a gradient, which is left behind."""
    if isinstance(values, Tensor):
        host_tensor = values.detach().cpu()
        values = (host_tensor.double() if host_tensor.is_floating_point() else host_tensor).numpy()
    return np.asarray(values, dtype)


def number_column(values: ArrayLike, name: str) -> Floats:
    """(N,) float64, NaN where an image has no number.

    Raises:
        ValueError: another shape, or infinite numbers.
    """
    x = array_of(values, np.float64)
    if x.ndim != 1:
        raise ValueError(f"{name}: expected one number an image (N,), got shape {x.shape}")
    if bool(np.isinf(x).any()):
        raise ValueError(f"{name}: expected finite numbers or NaN, got infinity")
    return x


def paired_number_columns(first: ArrayLike, second: ArrayLike) -> tuple[Floats, Floats]:
    """Two columns of the same images.

    Raises:
        ValueError: of different length, or as for `number_column`.
    """
    x, y = number_column(first, "first"), number_column(second, "second")
    if len(x) != len(y):
        raise ValueError(f"second: expected the same {len(x)} images as first, got {len(y)}")
    return x, y


def group_numbers(groups: ArrayLike, values: Floats) -> NDArray[np.int64]:
    """The group of each image as a number from 0.

    Raises:
        ValueError: not one integer or string an image.
    """
    names = array_of(groups)
    if names.shape != values.shape or names.dtype.kind not in "iuUS":
        raise ValueError(
            f"groups: expected {len(values)} integers or strings, one an image, got {names.dtype} {names.shape}"
        )
    return np.unique(names, return_inverse=True)[1].astype(np.int64)
