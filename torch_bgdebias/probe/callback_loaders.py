"""Which of a trainer's images a probe measures."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sized
from typing import Any

from torch_bgdebias.checks import check_count
from torch_bgdebias.lightning import Trainer

__all__ = ["LoaderLimits", "stage_loader"]

#: a budget never asks for fewer images; with the default one and four passes it asks for more from 640 images on
_FLOOR = 40


@dataclasses.dataclass(frozen=True)
class LoaderLimits:
    """How many images are measured, and of which of the trainer's loaders.

    Args:
        max_images: measure at most so many images, spread over the data set and its classes.
        budget: how much of a validation epoch the probe may cost, as a share: its passes over images (the original,
            every variant, gathering backgrounds) by the epoch's. For the trainer's own loader, without
            ``max_images``. Never fewer than 40 images; a warning once below 256, since the interval is wide then.
            Attributions come on top. ``None``: all images.
        dataloader_idx: which validation (or test) loader, where the trainer has several.
    """

    max_images: int | None = None
    budget: float | None = 0.25
    dataloader_idx: int = 0

    def __post_init__(self) -> None:
        if self.budget is not None and not self.budget > 0:
            raise ValueError(f"budget: expected a positive share of a validation epoch or None, got {self.budget}")
        if self.max_images is not None:
            check_count(self.max_images, name="max_images")

    def part_of(
        self, loader: Any, allowed: float, processes: int, *, passes: int
    ) -> tuple[int | None, int | None, int]:
        """Images and batches to measure (``None``: all), and how many a budget chose them from (0: none did).

        Args:
            loader: the trainer's.
            allowed: batches that the trainer takes from it.
            processes: that share the work.
            passes: over the images, that of gathering backgrounds among them.
        """
        count = _images_of(loader)
        if count is None:
            return self.max_images, None if math.isinf(allowed) else int(allowed) * processes, 0
        limit, chosen_from = self.max_images, 0
        in_epoch = count if math.isinf(allowed) else min(count, int(allowed) * loader.batch_size * processes)
        if limit is None and self.budget is not None:
            limit = max(_FLOOR, int(in_epoch * self.budget / passes))
            chosen_from = in_epoch if limit < in_epoch else 0
        limit = in_epoch if limit is None else min(limit, in_epoch)
        return None if limit >= count else limit, None, chosen_from


def stage_loader(trainer: Trainer, index: int) -> tuple[Any, float]:
    """The trainer's test loader while it tests, else its validation loader, and how many batches it takes from it.

    Raises:
        ValueError: no loader, or none of this index.
    """
    stage = "test" if trainer.testing else "validation"
    loaders = trainer.test_dataloaders if trainer.testing else trainer.val_dataloaders
    allowed = trainer.num_test_batches if trainer.testing else trainer.num_val_batches
    if (together := _together(trainer)) is not None:
        return together, math.inf
    if loaders is None:
        raise ValueError(f"loader: expected one, because the trainer has no {stage} loader; pass it to the probe")
    if isinstance(loaders, Mapping):
        loaders = list(loaders.values())
    if not isinstance(loaders, (list, tuple)):
        loaders = [loaders]
    if not 0 <= index < len(loaders):
        raise ValueError(f"dataloader_idx: expected less than {len(loaders)} {stage} loader(s), got {index}")
    return loaders[index], float(allowed[index]) if allowed else math.inf


class _Together:
    """Batches of several loaders at a time, as the trainer combines them."""

    def __init__(self, combined: Any) -> None:
        self._combined = type(combined)(combined.iterables, combined._mode)

    def __iter__(self) -> Iterator[Any]:
        for batch, _, _ in self._combined:
            yield batch


def _together(trainer: Trainer) -> _Together | None:
    """Batches of a ``CombinedLoader`` that takes from several loaders at once; ``None`` for any other."""
    loops: Any = trainer
    loop = loops.test_loop if trainer.testing else loops.fit_loop.epoch_loop.val_loop
    if trainer.state.fn == "validate":
        loop = loops.validate_loop
    combined = loop._combined_loader
    return None if combined is None or combined._mode == "sequential" else _Together(combined)


def _images_of(loader: Any) -> int | None:
    """Images in the loader's data set, ``None`` where that is not known."""
    data = getattr(loader, "dataset", None)
    return len(data) if isinstance(data, Sized) and getattr(loader, "batch_size", None) else None
