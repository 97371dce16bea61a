"""Validation of shape, dtype and range with errors that name the argument; called once by every public function.

Shapes and dtypes are always checked. Values (a mask outside [0, 1], NaN) are checked where reading them is free,
which is on the CPU outside of ``torch.compile``: on an accelerator a value check would stall the training step.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from numbers import Real
from typing import TypeVar, overload

import torch
from torch import Tensor

__all__ = [
    "all_finite",
    "check_both_or_none",
    "check_confidence",
    "check_count",
    "check_embedding",
    "check_finite",
    "check_image",
    "check_label",
    "check_mask",
    "check_mean_std",
    "check_option",
    "check_range",
    "check_share",
    "check_size",
    "describe",
    "flat_slices",
    "flat_volume",
    "plain_tensor",
    "values_readable",
]

T = TypeVar("T")


def describe(value: object) -> str:
    """Say what ``value`` is, the way error messages here do: ``float32 tensor of shape (2, 3, 8, 8)``."""
    if isinstance(value, Tensor):
        return f"{str(value.dtype).removeprefix('torch.')} tensor of shape {tuple(value.shape)}"
    text = " ".join(repr(value).split())
    return f"{type(value).__name__} {text if len(text) <= 200 else text[:200] + '...'}"


def values_readable(tensor: Tensor) -> bool:
    """Whether looking at the values costs no device synchronisation and no graph break."""
    return tensor.device.type == "cpu" and not torch.compiler.is_compiling() and type(tensor) is Tensor


def plain_tensor(value: Tensor) -> Tensor:
    """The numbers of a tensor that says what it shows (torchvision's ``tv_tensors``, MONAI's ``MetaTensor``).

    Two such kinds refuse to meet in one operation. Tensors of another device or layout are left as they are.
    """
    if type(value) is Tensor or type(value).__torch_dispatch__ is not Tensor.__torch_dispatch__:
        return value
    return value.as_subclass(Tensor)


def check_image(image: Tensor, *, name: str = "image", channels: int | None = None, volumes: bool = False) -> Tensor:
    """Require a floating point batch of images.

    Args:
        image: (B, C, H, W), any floating dtype.
        name: the argument's name for the message.
        channels: required C, any when ``None``.
        volumes: (B, C, D, H, W) is taken as well.

    Raises:
        TypeError: not a tensor, or not floating point.
        ValueError: of another rank, no pixels, or another number of channels.
    """
    shape = "(B, C, H, W) or (B, C, D, H, W)" if volumes else "(B, C, H, W)"
    if not isinstance(image, Tensor):
        raise TypeError(f"{name}: expected a float tensor {shape}, got {describe(image)}")
    if not image.is_floating_point():
        raise TypeError(f"{name}: expected a floating point tensor, got {describe(image)}; convert with image / 255")
    if image.ndim not in ((4, 5) if volumes else (4,)) or 0 in image.shape[1:]:
        hint = "; volumes (B, C, D, H, W) are not taken here" if image.ndim == 5 and not volumes else ""
        raise ValueError(f"{name}: expected shape {shape} with at least one pixel, got {describe(image)}{hint}")
    if channels is not None and image.shape[1] != channels:
        raise ValueError(f"{name}: expected {channels} channels, got {describe(image)}")
    return image


def flat_volume(volume: Tensor, mask: Tensor, *, name: str = "mask") -> Tensor:
    """The mask (B, 1, D H, W) of a volume (B, C, D, H, W) whose slices lie one below the other.

    For what goes pixel by pixel: `flat_slices` lays the volume out in the same way.

    Raises:
        ValueError: the mask is not (B, 1, D, H, W).
    """
    expected = (len(volume), 1, *volume.shape[2:])
    if not isinstance(mask, Tensor) or mask.shape != expected:
        raise ValueError(f"{name}: expected shape {expected} to go with the volume, got {describe(mask)}")
    return flat_slices(mask)


def flat_slices(volume: Tensor) -> Tensor:
    """(B, C, D, H, W) as (B, C, D H, W), a view where that is possible."""
    return volume.flatten(2, 3)


def check_mask(mask: Tensor, image: Tensor | None = None, *, name: str = "mask", values: bool = True) -> Tensor:
    """Require foreground masks and return them as (B, 1, H, W) in the image's floating dtype.

    Args:
        mask: (B, 1, H, W) or (B, H, W), bool or floating point in [0, 1], 1 = foreground; soft masks are allowed. Of
            volumes (B, 1, D, H, W), or (B, D, H, W) beside its ``image``.
        image: (B, C, H, W) or (B, C, D, H, W) that the mask belongs to; sizes and device must agree.
        name: the argument's name for the message.
        values: also check range and NaN where that is free (see the module's text).

    Raises:
        TypeError: not a tensor, or an integer dtype (whose 1 may be all or 1/255 of the foreground).
        ValueError: other rank, size, or batch, or values outside [0, 1].
    """
    if not isinstance(mask, Tensor):
        raise TypeError(f"{name}: expected a bool or float tensor (B, 1, H, W), got {describe(mask)}")
    volume = mask.ndim == 5 if image is None else image.ndim == 5
    rank, shapes = (5, "(B, 1, D, H, W) or (B, D, H, W)") if volume else (4, "(B, 1, H, W) or (B, H, W)")
    # first: labels in the mask's place are integers too
    if mask.ndim != rank - 1 and (mask.ndim != rank or mask.shape[1] != 1):
        raise ValueError(f"{name}: expected shape {shapes}, got {describe(mask)}")
    if mask.dtype != torch.bool and not mask.is_floating_point():
        raise TypeError(
            f"{name}: expected bool or floating point in [0, 1], got {describe(mask)}; "
            "pass mask.bool() if it holds 0 and 1, mask > 127 if it holds 0 to 255"
        )
    if mask.ndim == rank - 1:
        mask = mask.unsqueeze(1)
    if image is not None and (mask.shape[0] != image.shape[0] or mask.shape[2:] != image.shape[2:]):
        expected = (image.shape[0], 1, *image.shape[2:])
        channels_last = image.shape[1:-1] == mask.shape[2:]
        hint = "; channels of the image come last, pass it permuted: image.movedim(-1, 1)" if channels_last else ""
        raise ValueError(f"{name}: expected shape {expected} to go with the image, got {describe(mask)}{hint}")
    if image is not None and mask.device != image.device:
        raise ValueError(f"{name}: expected on the image's device {image.device}, got {mask.device}")
    if values and mask.is_floating_point():
        check_range(mask, 0.0, 1.0, name=name, remedy="pass mask / 255 if it holds 0 to 255")
    dtype = image.dtype if image is not None else (mask.dtype if mask.is_floating_point() else torch.float32)
    return mask.to(dtype)


def check_range(tensor: Tensor, low: float, high: float, *, name: str, remedy: str = "") -> Tensor:
    """Require all values in [low, high] (NaN is outside), where reading them is free; ``remedy`` ends the message."""
    if tensor.numel() and values_readable(tensor):
        smallest, largest = (float(x) for x in tensor.detach().aminmax())
        if not (smallest >= low and largest <= high):
            then = f"; {remedy}" if remedy else ""
            raise ValueError(f"{name}: expected values in [{low:g}, {high:g}], got [{smallest:g}, {largest:g}]{then}")
    return tensor


def check_finite(tensor: Tensor, *, name: str) -> Tensor:
    """Require finite values, where reading them is free; the message lists the first samples that are not."""
    if tensor.numel() and values_readable(tensor) and not all_finite(tensor):
        bad = ~torch.isfinite(tensor.detach())
        samples = bad.reshape(bad.shape[0], -1).any(1).nonzero().flatten().tolist() if bad.ndim else [0]
        raise ValueError(f"{name}: expected finite values, got NaN or infinity in sample(s) {samples[:8]}")
    return tensor


def all_finite(tensor: Tensor) -> bool:
    """Whether there is neither NaN nor infinity among the values; reads them, so that an accelerator waits.

    A sum with one of them is not finite either, and a sum is read off in one pass where ``isfinite`` takes six. Only
    where it overflows, or is not finite indeed, all values are looked at.
    """
    values = tensor.detach()
    half = values.dtype in (torch.float16, torch.bfloat16)
    total = values.sum(dtype=torch.float32 if half else None)
    return bool(total.isfinite()) or bool(values.isfinite().all())


def check_label(label: Tensor, batch: int, *, name: str = "label", num_classes: int | None = None) -> Tensor:
    """Require one integer class per sample and return it as int64 (B,).

    Raises:
        TypeError: not an integer tensor.
        ValueError: not (B,), or a class outside [0, num_classes) where reading it is free.
    """
    if not isinstance(label, Tensor):
        raise TypeError(f"{name}: expected an int64 tensor ({batch},), got {describe(label)}")
    if label.is_floating_point() or label.is_complex() or label.dtype == torch.bool:
        raise TypeError(f"{name}: expected integer classes ({batch},), got {describe(label)}")
    if label.shape != (batch,):
        then = f"; pass {name}.reshape({batch})" if label.numel() == batch else ""
        if label.ndim == 2 and len(label) == batch and label.shape[1] > 1:
            then = f"; pass {name}.argmax(1) if it is one-hot"
        raise ValueError(f"{name}: expected shape ({batch},), got {describe(label)}{then}")
    if num_classes is not None and label.numel() and values_readable(label):
        low, high = (int(x) for x in label.aminmax())
        if low < 0 or high >= num_classes:
            raise ValueError(f"{name}: expected classes in [0, {num_classes - 1}], got [{low}, {high}]")
    return label.long()


def check_embedding(embedding: Tensor, *, name: str = "embedding", dim: int | None = None) -> Tensor:
    """Require (B, D) floating point, of width ``dim`` when given."""
    if not isinstance(embedding, Tensor) or not embedding.is_floating_point():
        raise TypeError(f"{name}: expected a float tensor (B, D), got {describe(embedding)}")
    if embedding.ndim != 2:
        raise ValueError(f"{name}: expected shape (B, D), got {describe(embedding)}")
    if dim is not None and embedding.shape[1] != dim:
        raise ValueError(f"{name}: expected width {dim}, got {describe(embedding)}")
    return embedding


def check_option(value: T, options: Collection[T], *, name: str) -> T:
    """Require one of ``options``."""
    if value not in options:
        raise ValueError(f"{name}: expected one of {', '.join(map(repr, options))}, got {value!r}")
    return value


def check_count(value: int, *, name: str, least: int = 1) -> int:
    """Require a whole number of at least ``least``; True and False are none."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ValueError(f"{name}: expected a whole number of at least {least}, got {value!r}")
    return value


def check_share(value: float, *, name: str, kind: str = "") -> float:
    """Require a number in [0, 1]; ``kind`` is its word in the message, such as ``"a probability"``."""
    number: object = value
    if isinstance(number, bool) or not isinstance(number, Real) or not 0 <= value <= 1:
        raise ValueError(f"{name}: expected {kind}{' ' * bool(kind)}in [0, 1], got {value!r}")
    return value


def check_confidence(value: float, *, name: str = "confidence") -> float:
    """Require a number between 0 and 1, neither of them."""
    if not 0 < value < 1:
        raise ValueError(f"{name}: expected a number in (0, 1), got {value!r}")
    return value


@overload
def check_size(size: None, *, name: str = "size") -> None: ...
@overload
def check_size(size: int | tuple[int, int], *, name: str = "size") -> tuple[int, int]: ...
@overload
def check_size(size: int | tuple[int, int] | None, *, name: str = "size") -> tuple[int, int] | None: ...
def check_size(size: int | tuple[int, int] | None, *, name: str = "size") -> tuple[int, int] | None:
    """Return ``size`` as (H, W): an int is a square, ``None`` stays ``None``.

    Raises:
        ValueError: not one or two positive whole numbers.
    """
    if size is None:
        return None
    pair = (size, size) if isinstance(size, int) else tuple(size)
    if len(pair) != 2 or not all(isinstance(side, int) and not isinstance(side, bool) and side > 0 for side in pair):
        raise ValueError(f"{name}: expected a positive int or (H, W), got {size!r}")
    return pair[0], pair[1]


def check_both_or_none(mean: object, std: object) -> None:
    """Require a mean with its standard deviation, or neither."""
    if (mean is None) != (std is None):
        raise ValueError(f"mean, std: expected both or none, got only {'mean' if std is None else 'std'}")


def check_mean_std(
    mean: Sequence[float] | None, std: Sequence[float] | None, *, channels: int | None = None
) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
    """Require a mean with its standard deviation, a number or one a channel each, or neither.

    Args:
        mean: what was subtracted from pixels in [0, 1].
        std: what they were divided by.
        channels: required length, where known; one number stands for all channels.

    Raises:
        ValueError: one without the other, other lengths, values that are not finite, a mean above 1, or a std that is
            not above 0.
    """
    check_both_or_none(mean, std)
    if mean is None or std is None:
        return None
    pair = (tuple(float(x) for x in mean), tuple(float(x) for x in std))
    lengths = {len(pair[0]), len(pair[1])}
    if len(lengths) > 1 or 0 in lengths or (channels is not None and lengths - {1, channels}):
        expected = "as many of one as of the other" if channels is None else f"1 or {channels} of each"
        raise ValueError(f"mean, std: expected {expected}, got {len(pair[0])} and {len(pair[1])}")
    if not all(map(math.isfinite, (*pair[0], *pair[1]))) or min(pair[1]) <= 0:
        raise ValueError(f"mean, std: expected finite numbers and std above 0, got {pair[0]} and {pair[1]}")
    if max(pair[0]) > 1:
        raise ValueError(f"mean: expected that of pixels in [0, 1], got {pair[0]}; divide mean and std by 255")
    return pair
