"""``Preprocessing``: the size, interpolation and normalisation that a model expects of its images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, overload

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from torch_bgdebias.checks import check_mean_std, check_option, check_share, check_size, describe
from torch_bgdebias.names import INTERPOLATIONS

__all__ = ["IMAGENET_MEAN", "IMAGENET_STD", "Preprocessing"]

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
#: what the eye makes of red, green and blue (ITU-R BT.601), as picture files of one channel are made
_LUMA = (0.299, 0.587, 0.114)


@dataclass(frozen=True)
class Preprocessing:
    """How an image with pixels in [0, 1] becomes what a model takes: resized whole, made grey, normalised a channel.

    Nothing is cropped, so that an object and its mask stay complete: what a publisher crops is kept as ``crop``, for
    reports. Called with an image, or with (image, mask), it
    prepares them, as the ``transform`` of `torch_bgdebias.data.MaskedImageFolder` for instance.

    Args:
        size: (height, width) in pixels, one number for a square, ``None`` for images as they are.
        mean: subtracted from each channel; ``None``: pixels stay in [0, 1].
        std: what each channel is divided by then; goes with ``mean``.
        source: who says so, for reports ("timm's data config of resnet50").
        channels: 1 makes colour images grey; ``None`` or 3 leaves images as they are.
        interpolation: of the resize, ``"bilinear"``, ``"bicubic"`` or ``"nearest"``, with anti-aliasing.
        crop: share of the resized picture's shorter side that the publisher's evaluation keeps, from its middle
            (timm's ``crop_pct``; torchvision's crop size over its resize size). Told, not done.

    Raises:
        ValueError: a size below 1, ``mean`` without ``std`` or the other way round, a std that is not above 0, an
            unknown interpolation, a crop outside of (0, 1].
    """

    size: tuple[int, int] | int | None = None
    mean: Sequence[float] | None = None
    std: Sequence[float] | None = None
    source: str = field(default="", compare=False)
    channels: int | None = None
    interpolation: str = "bilinear"
    crop: float | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "size", check_size(self.size))
        if self.channels not in (None, 1, 3):
            raise ValueError(f"channels: expected 1 or 3, got {self.channels!r}")
        check_option(self.interpolation, INTERPOLATIONS, name="interpolation")
        if self.crop is not None and check_share(self.crop, name="crop", kind="a share") == 0:
            raise ValueError("crop: expected a share above 0, got 0")
        pair = check_mean_std(self.mean, self.std)
        object.__setattr__(self, "mean", None if pair is None else pair[0])
        object.__setattr__(self, "std", None if pair is None else pair[1])

    @property
    def height_width(self) -> tuple[int, int] | None:
        """The size as two numbers."""
        return check_size(self.size)

    @overload
    def __call__(self, image: Tensor) -> Tensor: ...
    @overload
    def __call__(self, image: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]: ...
    def __call__(self, image: Tensor, mask: Tensor | None = None) -> Tensor | tuple[Tensor, Tensor]:
        """Prepare an image (C, H, W) in [0, 1] and, where given, its mask (1, H, W), or batches of both."""
        prepared = self.normalise(_resized(image, self.height_width, self.interpolation))
        return prepared if mask is None else (prepared, _resized(mask, self.height_width, "bilinear").clamp(0, 1))

    def normalise(self, image: Tensor) -> Tensor:
        """(..., C, H, W) in [0, 1] -> in the model's channels and units.

        Raises:
            TypeError: not floating point. ValueError: another number of channels than ``mean`` has.
        """
        if self.channels == 1 and image.shape[-3] == 3:
            image = (image * image.new_tensor(_LUMA).reshape(3, 1, 1)).sum(-3, keepdim=True)
        if self.mean is None or self.std is None:
            return image
        mean, std = self._columns(image)
        return (image - mean) / std

    def restore(self, image: Tensor) -> Tensor:
        """(..., C, H, W) in the model's units -> in [0, 1]: the inverse of `normalise`."""
        if self.mean is None or self.std is None:
            return image
        mean, std = self._columns(image)
        return image * std + mean

    def for_channels(self, channels: int | None) -> Preprocessing:
        """The same for images of another number of channels: mean and std are averaged over the known ones."""
        if channels is None or self.mean is None or self.std is None or len(self.mean) in (1, channels):
            return replace(self, channels=channels)
        mean, std = (sum(values) / len(values) for values in (self.mean, self.std))
        source = f"{self.source}, averaged over channels".lstrip(", ")
        return replace(self, mean=(mean,), std=(std,), source=source, channels=channels)

    def to_dict(self) -> dict[str, Any]:
        """For JSON, checkpoints and reports; `from_dict` reads it."""
        sequences = {"size": self.height_width, "mean": self.mean, "std": self.std}
        lists = {name: None if values is None else list(values) for name, values in sequences.items()}
        others = {"channels": self.channels, "interpolation": self.interpolation, "publishers_crop": self.crop}
        return {**lists, **others, "source": self.source}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Preprocessing:
        """From what `to_dict` gave."""
        size = values.get("size")
        return cls(
            None if size is None else (int(size[0]), int(size[1])),
            values.get("mean"),
            values.get("std"),
            str(values.get("source") or ""),
            values.get("channels"),
            str(values.get("interpolation") or "bilinear"),
            values.get("publishers_crop", values.get("crop")),  # as it was called at first
        )

    def describe(self) -> str:
        """One line for a reader: ``224 x 224, mean (0.485, 0.456, 0.406), std (0.229, 0.224, 0.225)``."""
        size = self.height_width
        parts = ["own size" if size is None else f"{size[0]} x {size[1]} {self.interpolation}"]
        parts += [f"whole, where the publisher crops to {self.crop:g}"] if self.crop not in (None, 1) else []
        parts += ["grey"] if self.channels == 1 else []
        parts += (
            ["pixels in [0, 1]"] if self.mean is None else [f"mean {_listed(self.mean)}", f"std {_listed(self.std)}"]
        )
        return ", ".join(parts) + (f" ({self.source})" if self.source else "")

    def _columns(self, image: Tensor) -> tuple[Tensor, Tensor]:
        if not image.is_floating_point():
            raise TypeError(f"image: expected a floating point tensor, got {describe(image)}; convert with image / 255")
        assert self.mean is not None
        if len(self.mean) not in (1, image.shape[-3]):
            raise ValueError(f"image: expected {len(self.mean)} channels, as mean and std have, got {describe(image)}")
        mean, std = (torch.tensor(x, dtype=image.dtype, device=image.device) for x in (self.mean, self.std))
        return mean.reshape(-1, 1, 1), std.reshape(-1, 1, 1)


def _listed(values: Sequence[float] | None) -> str:
    return "(" + ", ".join(f"{value:g}" for value in values or ()) + ")"


def _resized(image: Tensor, size: tuple[int, int] | None, interpolation: str) -> Tensor:
    if size is None or tuple(image.shape[-2:]) == size:
        return image
    batch = image if image.ndim == 4 else image[None]
    if interpolation == "nearest":
        resized = interpolate(batch, size, mode="nearest-exact")
    else:
        resized = interpolate(batch, size, mode=interpolation, antialias=True, align_corners=False)
    if interpolation == "bicubic":  # which overshoots at edges, as files of 8 bits cannot
        resized = resized.clamp(0, 1)
    return resized if image.ndim == 4 else resized[0]
