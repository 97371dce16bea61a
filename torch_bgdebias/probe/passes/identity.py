"""How an image is recognised: by its file's contents, or by its unnormalised pixels, mask and label.

So the same image is the same one in another order, batch or process, and for a model with another normalisation.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from torch_bgdebias.checks import describe

__all__ = ["KnownFiles", "fingerprints", "ids_of_names"]

_BITS = 48
#: a value this near to a whole one of 0 ... 255 came from 8 bits: normalising and undoing it moves it by far less
_NEAR = 0.1
#: numbers that a picture that never was 8-bit is known by, and the step to which they are rounded
_SUMS, _STEP = 16, 1 / 32


def fingerprints(
    image: Tensor,
    label: Tensor,
    mask: Tensor,
    *,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> NDArray[np.uint64]:
    """(B,) 48-bit hashes of images with their masks and labels.

    A picture of 8 bits is known by its bytes. Any other (resized as floats, or normalised by nobody knows what) is
    known by 16 rounded sums of its pixels with random signs: rounding errors of a normalisation in float32 may move one
    of them over a step, and the image then counts as another one in a comparison across normalisations (names that the
    data set gives, ``ids=``, are known exactly).

    Args:
        image: (B, C, H, W) or (B, C, D, H, W).
        label: (B,) int64.
        mask: (B, 1, H, W) or (B, 1, D, H, W) in [0, 1].
        mean: per channel, that the images were normalised with.
        std: per channel; required with ``mean``.
    """
    pixels = image.detach().float().cpu()
    if mean is not None and std is not None:
        # in float64, which leaves the rounding of the normalisation alone
        shift, scale = (torch.as_tensor(x, dtype=torch.float64) for x in (mean, std))
        shape = (-1, *[1] * (image.ndim - 2))
        pixels = pixels.double() * scale.reshape(shape) + shift.reshape(shape)
    levels = pixels * 255
    nearest = levels.round()
    near_whole = (levels - nearest).abs_().flatten(1).amax(1) < _NEAR
    eight_bit = near_whole & (nearest.flatten(1).amin(1) >= 0) & (nearest.flatten(1).amax(1) <= 255)
    pixel_bytes = nearest.clamp_(0, 255).to(torch.uint8).flatten(1).cpu().numpy()
    outlines = (mask.detach().float() * 255).round().clamp(0, 255).to(torch.uint8).flatten(1).cpu().numpy()
    kind = f"{tuple(image.shape[1:])}".encode()
    rounded: NDArray[np.int64] | None = None
    hashes = np.zeros(len(image), np.uint64)
    for row, (is_bytes, class_number) in enumerate(zip(eight_bit.tolist(), label.tolist(), strict=True)):
        if not is_bytes and rounded is None:
            rounded = _rounded_sums(pixels)
        picture = pixel_bytes[row].tobytes() if is_bytes or rounded is None else rounded[row].tobytes()
        hashes[row] = _hash(picture, outlines[row].tobytes(), f"{class_number}".encode(), key=kind)
    return hashes


def ids_of_names(names: Any, size: int) -> NDArray[np.uint64]:
    """(B,) hashes of names or numbers that the data set gives its images; `fingerprints` stay what they are.

    Raises:
        TypeError: not a sequence of strings or whole numbers, one an image.
    """
    if isinstance(names, np.ndarray) and names.dtype == np.uint64 and names.shape == (size,):
        return names
    values = names.tolist() if isinstance(names, Tensor) and not names.is_floating_point() else names
    if not isinstance(values, (list, tuple)) or not all(isinstance(v, (str, int)) for v in values):
        raise TypeError(f"ids: expected names or whole numbers, one an image, got {describe(names)}")
    if len(values) != size:
        raise TypeError(f"ids: expected {size} names or whole numbers, one an image, got {len(values)}")
    return np.array([_hash(f"{type(v).__name__} {v}".encode(), key=b"name") for v in values], np.uint64)


class KnownFiles:
    """Images that are known by what their data set says of them, at whatever size a model takes them.

    Args:
        name_of: of the image at a position of the data set.
        may_change: whether the data set may show another picture each time: then each pass looks whether it does.
    """

    def __init__(self, name_of: Callable[[int], str | int], *, may_change: bool) -> None:
        self._name_of, self.may_change = name_of, may_change
        self._pictures: dict[int, int] = {}
        self._again = self._changed = 0

    def ids(self, positions: NDArray[np.int64], pictures: NDArray[np.uint64] | None) -> NDArray[np.uint64]:
        """(B,) hashes of the images at these positions; ``pictures`` are their `fingerprints`, where they may change.

        Raises:
            TypeError: the data set gives neither names nor whole numbers.
        """
        for position, picture in zip(positions.tolist(), [] if pictures is None else pictures.tolist(), strict=False):
            self._again += position in self._pictures
            self._changed += self._pictures.setdefault(position, picture) != picture
        return ids_of_names([self._name_of(position) for position in positions.tolist()], len(positions))

    @property
    def share_unchanged(self) -> float:
        """Share of the pictures that were met again as they were; 1 where none was met again."""
        return 1 - self._changed / self._again if self._again else 1.0


def _rounded_sums(pixels: Tensor) -> NDArray[np.int64]:
    flat = pixels.flatten(1).double().cpu()
    sums = flat @ _signs(flat.shape[1])
    return (sums / _STEP).round().long().numpy()


@functools.lru_cache(maxsize=4)
def _signs(count: int) -> Tensor:
    """(count, 16) of +-1 / sqrt(count), the same in every process."""
    z = np.arange(1, count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    bits = (z[:, None] >> np.arange(_SUMS, dtype=np.uint64) + np.uint64(20)) & np.uint64(1)
    return torch.from_numpy((2.0 * bits - 1) / count**0.5)


def _hash(*parts: bytes, key: bytes) -> int:
    digest = hashlib.blake2b(digest_size=_BITS // 8, key=key[:64])
    for part in parts:
        digest.update(len(part).to_bytes(8, "little"))
        digest.update(part)
    return int.from_bytes(digest.digest(), "little")
