"""Checks whether backgrounds are in the same units as the images, by the pixels of both."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import torch
from torch import Tensor

from torch_bgdebias.checks import values_readable

__all__ = ["doubt_beside_images", "doubtful", "looks_normalised", "require_one_normalisation"]

#: images that reach further than this out of [0, 1] are normalised, not overshoots of a resize or added noise
_BEYOND = 0.5
#: mean and std of one normalisation may be written with so many digits
_ROUNDED = 1e-3

Channels: TypeAlias = Tensor | Sequence[float] | None


def looks_normalised(image: Tensor) -> bool:
    """Whether pixels lie far outside of [0, 1]; false where looking at them is not free (see `checks`)."""
    if not image.numel() or not values_readable(image):
        return False
    low, high = _range_of(image)
    return low < -_BEYOND or high > 1 + _BEYOND


def doubt_beside_images(images: Tensor, mean: Channels, std: Channels, image: Tensor, *, name: str) -> str:
    """What speaks against the units of backgrounds beside images; empty where nothing does, or cannot be seen.

    Args:
        images: some of the backgrounds, uint8 or float.
        mean: per channel, that they are going to be normalised with; ``None``: they are in the images' units.
        std: with ``mean``.
        image: (B, C, H, W) that they are for.
        name: the argument's name.
    """
    if not image.numel() or not values_readable(image):
        return ""
    remedy = "pass the images' mean= and std= with them, as to BackgroundBank(..., mean=..., std=...)"
    low, high = _range_of(image)
    if low < -_BEYOND or high > 1 + _BEYOND:
        if mean is not None:
            return ""
        pixels = f"the images' pixels reach from {low:.2g} to {high:.2g}, as normalised ones do"
        if images.dtype == torch.uint8:
            return f"{name}: uint8 without mean and std stands for [0, 1], but {pixels}; {remedy}"
        if not values_readable(images):
            return ""
        dark, bright = (float(value) for value in images.detach().aminmax())
        if dark < 0 or bright > 1 or bright - dark <= _BEYOND:  # a flat one may be any normalised colour
            return ""
        return (
            f"{name}: float pixels from {dark:.2g} to {bright:.2g} look like pictures in [0, 1], but {pixels}; "
            f"{remedy}, or normalise them as the images"
        )
    if low < 0 or high > 1 or high - low <= _BEYOND:
        return ""
    dark, bright = _value_range(images, mean, std)
    if dark >= -_BEYOND and bright <= 1 + _BEYOND:
        return ""
    reason = "are normalised with a mean and std of their own" if mean is not None else "lie in other units"
    return (
        f"{name}: they {reason} and reach from {dark:.2g} to {bright:.2g}, but the images' pixels lie in [0, 1], from "
        f"{low:.2g} to {high:.2g}; bring both in the same units: uint8 backgrounds, or a bank without mean and std, "
        "are in [0, 1]"
    )


def doubtful(images: Tensor, mean: Channels) -> bool:
    """Whether units of backgrounds may be right all the same: floats in [0, 1] may be a normalised picture's."""
    return mean is None and images.dtype != torch.uint8 and not looks_normalised(images)


def require_one_normalisation(
    of_bank: tuple[Channels, Channels], passed: tuple[Channels, Channels], *, name: str
) -> None:
    """Raise ValueError where a source of backgrounds has another normalisation than the images'."""
    for statistic, bank_value, passed_value in zip(("mean", "std"), of_bank, passed, strict=True):
        if bank_value is None or passed_value is None:
            continue
        first, second = (torch.as_tensor(value, dtype=torch.float32).flatten() for value in (bank_value, passed_value))
        if not (values_readable(first) and values_readable(second)) or {len(first), len(second)} - {
            1,
            max(len(first), len(second)),
        }:
            continue  # another number of channels is refused by name where it is used
        if bool(((first - second).abs() > _ROUNDED).any()):
            raise ValueError(
                f"{name}: expected the images' {statistic} {_number_list(second)}, got a bank with {statistic} "
                f"{_number_list(first)}; its backgrounds would have other colours than the images"
            )


def _range_of(image: Tensor) -> tuple[float, float]:
    images, rows = (max(1, length // 16) for length in (len(image), image.shape[2]))
    sampled = image.detach()[::images, :, ::rows]  # which show it as well as all, in no time
    low, high = (float(value) for value in sampled.aminmax())
    return low, high


def _value_range(images: Tensor, mean: Channels, std: Channels) -> tuple[float, float]:
    """The least and the largest value of backgrounds as they are going to be; (0, 1) where it is not known."""
    if images.dtype == torch.uint8:
        dark, bright = 0.0, 1.0
    elif values_readable(images) and images.numel():
        dark, bright = _range_of(images if images.ndim > 3 else images[None])
    else:
        return 0.0, 1.0
    if mean is None or std is None:
        return dark, bright
    shift, scale = (torch.as_tensor(value, dtype=torch.float32).flatten() for value in (mean, std))
    if not (values_readable(shift) and values_readable(scale)):
        return 0.0, 1.0
    return float(((dark - shift) / scale).min()), float(((bright - shift) / scale).max())


def _number_list(values: Tensor) -> str:
    return "(" + ", ".join(f"{value:.3g}" for value in values.tolist()) + ")"
