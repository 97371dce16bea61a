"""``BatchSpec``: what in the user's batch is image, label and mask. Batches keep their type."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from torch import Tensor

__all__ = ["BatchSpec"]

Key: TypeAlias = "int | str | None"


@dataclasses.dataclass(frozen=True)
class BatchSpec:
    """Which tuple index, dict key or attribute of a batch holds what.

    Args:
        image: where the images (B, C, H, W) are.
        label: where the labels are.
        mask: where the foreground masks (B, 1, H, W) are; ``None`` when the batch has none.
        background_label: where the background's class is; ``None`` when the batch does not say.

    A batch may be a tuple, named tuple, list, mapping or an object with attributes (dataclass).

    Example:
        >>> import torch
        >>> spec = BatchSpec(image="pixels", label="y", mask="seg")
        >>> batch = {"pixels": torch.rand(2, 3, 4, 4), "y": torch.tensor([0, 1]), "seg": torch.ones(2, 1, 4, 4)}
        >>> new = spec.replace(batch, image=batch["pixels"] * 0)
        >>> float(spec.image_of(new).sum()), float(spec.image_of(batch).sum()) > 0
        (0.0, True)
    """

    image: Key = 0
    label: Key = 1
    mask: Key = 2
    background_label: Key = None

    def image_of(self, batch: Any) -> Tensor:
        """The images. Raises KeyError naming what the batch holds when they are not there."""
        return self._get(batch, "image")

    def label_of(self, batch: Any) -> Tensor:
        """The labels. Raises KeyError naming what the batch holds when they are not there."""
        return self._get(batch, "label")

    def mask_of(self, batch: Any) -> Tensor:
        """The masks. Raises KeyError naming what the batch holds when they are not there."""
        return self._get(batch, "mask")

    def background_label_of(self, batch: Any) -> Tensor | None:
        """The backgrounds' classes, or ``None`` when the specification names no place for them."""
        return None if self.background_label is None else self._get(batch, "background_label")

    def replace(self, batch: Any, **fields: Tensor) -> Any:
        """A shallow copy of ``batch`` of the same type with some fields (by this class's names) exchanged."""
        for field, value in fields.items():
            key = self._key(field)
            self._lookup(batch, field, key)  # a field that is not there is an error, never an addition
            batch = _replaced(batch, key, value)
        return batch

    def _key(self, field: str) -> int | str:
        key = getattr(self, field)
        if key is None:
            raise KeyError(f"batch: BatchSpec has no place for {field!r}; pass BatchSpec({field}=...)")
        return key  # type: ignore[no-any-return]

    def _get(self, batch: Any, field: str) -> Tensor:
        value = self._lookup(batch, field, self._key(field))
        if not isinstance(value, Tensor):
            raise TypeError(f"batch[{self._key(field)!r}] ({field}): expected a tensor, got {type(value).__name__}")
        return value

    def _lookup(self, batch: Any, field: str, key: int | str) -> Any:
        try:
            if isinstance(batch, Mapping) or isinstance(key, int):
                return batch[key]
            return getattr(batch, key)
        except (KeyError, IndexError, TypeError, AttributeError):
            hint = f"; pass BatchSpec({field}=...) to say where it is"
            raise KeyError(f"batch has no {field} at {key!r}; it holds {_contents(batch)}{hint}") from None


def _contents(batch: Any) -> str:
    if isinstance(batch, Mapping):
        return f"keys {sorted(map(str, batch))}"
    if isinstance(batch, Sequence):
        return f"{len(batch)} item(s): " + ", ".join(type(item).__name__ for item in batch)
    return f"a {type(batch).__name__}"


def _replaced(batch: Any, key: int | str, value: Tensor) -> Any:
    if isinstance(batch, Mapping):
        new = copy.copy(batch)
        new[key] = value  # type: ignore[index]
        return new
    if isinstance(batch, tuple):
        items = list(batch)
        index = key if isinstance(key, int) else batch._fields.index(key)  # type: ignore[attr-defined]
        items[index] = value
        return type(batch)(*items) if hasattr(batch, "_fields") else type(batch)(items)
    if isinstance(batch, list):
        new_list = list(batch)
        new_list[key] = value  # type: ignore[index]
        return new_list
    new = copy.copy(batch)
    setattr(new, str(key), value)
    return new
