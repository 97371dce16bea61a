"""Activations of many images on disk, written as they come and read a few at a time."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from torch import Tensor

__all__ = ["ActivationStore"]


class ActivationStore:
    """A growing (N, C, h, w) float32 array in an unnamed temporary file, deleted with the store.

    Slices and lists of indices give tensors; nothing else is ever in memory.

    Args:
        folder: where the file is made; ``None``: the system's temporary folder.
    """

    def __init__(self, folder: str | Path | None = None) -> None:
        self._file: BinaryIO = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 closed with the store
        self._map: tuple[int, ...] = ()
        self._count = 0

    @property
    def shape(self) -> torch.Size:
        """(N, C, h, w)."""
        return torch.Size((self._count, *self._map)) if self._map else torch.Size((0, 0, 0, 0))

    def append(self, activations: Tensor) -> None:
        """Add (B, C, h, w). Raises ValueError when the maps have another shape than those before."""
        if self._map and tuple(activations.shape[1:]) != self._map:
            raise ValueError(
                f"activations: expected maps {self._map} as in the batches before, got {tuple(activations.shape[1:])}; "
                "images of one size are needed"
            )
        self._map = tuple(activations.shape[1:])
        self._file.seek(0, 2)
        self._file.write(activations.detach().to("cpu", torch.float32).contiguous().numpy().tobytes())
        self._count += len(activations)

    def __getitem__(self, index: slice | Sequence[int]) -> Tensor:
        """Some samples (n, C, h, w) float32 on the CPU."""
        rows = range(self._count)[index] if isinstance(index, slice) else index
        row = int(np.prod(self._map))
        activations = np.empty((len(rows), row), dtype=np.float32)
        for position, sample in enumerate(rows):
            self._file.seek(4 * row * int(sample))
            self._file.readinto(activations[position].data)  # type: ignore[attr-defined]
        return torch.from_numpy(activations).reshape(len(rows), *self._map)

    def close(self) -> None:
        """Delete the file."""
        self._file.close()

    def __del__(self) -> None:
        self.close()
