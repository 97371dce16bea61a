"""``ConceptSettings``: how concept vectors are fitted and compared, validated once."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TypedDict

from torch_bgdebias.checks import check_count

__all__ = ["ConceptOptions", "ConceptSettings"]


class ConceptOptions(TypedDict, total=False):
    """The fields of `ConceptSettings` as keyword arguments."""

    size: int
    epochs: int
    lr: float
    chunk: int
    batch_size: int
    folder: str | Path | None


@dataclasses.dataclass(frozen=True)
class ConceptSettings:
    """How concept vectors are fitted and compared with masks.

    Args:
        size: masks and maps are compared at ``size`` x ``size`` (the papers: 80).
        epochs: AdamW steps.
        lr: learning rate.
        chunk: samples that are optimised together; whole concepts where they fit, so that each is read once from disk.
        batch_size: images in a pass through the model, where tensors are given instead of a loader.
        folder: where activations lie meanwhile (N * C * h * w * 4 bytes a layer); ``None``: the system's temporary
            folder.

    Raises:
        ValueError: a number below 1, or a learning rate that is not above 0.
    """

    size: int = 80
    epochs: int = 30
    lr: float = 0.1
    chunk: int = 1024
    batch_size: int = 64
    folder: str | Path | None = None

    def __post_init__(self) -> None:
        for name in ("size", "epochs", "chunk", "batch_size"):
            check_count(getattr(self, name), name=name)
        if not self.lr > 0:
            raise ValueError(f"lr: expected a number above 0, got {self.lr!r}")
