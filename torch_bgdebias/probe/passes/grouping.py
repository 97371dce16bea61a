"""Group names of images: read from their batches, or given in the order of the data set."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from torch_bgdebias.batch import value_at
from torch_bgdebias.checks import describe

__all__ = ["GroupSource", "by_position", "group_sources", "names_of_images"]

#: a place in the batch (index, key, attribute, path, function), or a list of N names in the order of the data set
GroupSource: TypeAlias = (
    "int | str | tuple[int | str, ...] | Callable[[Any], Any] | list[str] | list[int] | NDArray[Any] | Tensor"
)


def group_sources(groups: Mapping[str, GroupSource] | GroupSource | None) -> dict[str, GroupSource]:
    """Each way of grouping by its name; a single one is called after its key, or ``group``.

    Raises:
        TypeError: something that is neither a place nor a list of names.
    """
    if groups is None:
        return {}
    if not isinstance(groups, Mapping):
        groups = {groups if isinstance(groups, str) else "group": groups}
    for name, source in groups.items():
        in_batch = callable(source) or (isinstance(source, int | str | tuple) and not isinstance(source, bool))
        if not in_batch and not by_position(source):
            raise TypeError(
                f"groups[{name!r}]: expected a place in the batch or a list of names in the order of the data set, got "
                f"{describe(source)}"
            )
    return dict(groups)


def by_position(source: object) -> bool:
    """Whether a source is a list of names in the order of the data set."""
    return isinstance(source, list | np.ndarray | Tensor)


def names_of_images(
    source: GroupSource, batch: Any, positions: NDArray[np.int64], counted: NDArray[np.bool_], *, name: str
) -> NDArray[np.str_]:
    """(n,) the names of the images of a batch that count, as text.

    Args:
        source: where they are.
        batch: what the loader yielded.
        positions: (B,) positions of its images in the data set.
        counted: (B,) which of them count, n in all.
        name: of the grouping, for errors.

    Raises:
        KeyError: the batch has nothing there.
        TypeError: neither names nor whole numbers.
        ValueError: another number of names than images.
    """
    if isinstance(source, list | np.ndarray | Tensor):
        all_names = _texts(source, name)
        if len(positions) and int(positions.max()) >= len(all_names):
            raise ValueError(
                f"{name}: expected a name for each image of the data set, got {len(all_names)} names for at least "
                f"{int(positions.max()) + 1} images"
            )
        return all_names[positions[counted]]
    names = _texts(value_at(batch, source, name=name), name)
    if len(names) != len(counted):
        raise ValueError(f"{name}: expected {len(counted)} names, one an image, got {len(names)}")
    return names[counted]


def _texts(values: Any, name: str) -> NDArray[np.str_]:
    if isinstance(values, Tensor):
        if values.is_floating_point() or values.ndim not in (1, 2) or (values.ndim == 2 and values.shape[1] != 1):
            raise TypeError(f"{name}: expected names or whole numbers, one an image, got {describe(values)}")
        values = values.flatten().tolist()
    if isinstance(values, np.ndarray):
        values = values.tolist()
    if not isinstance(values, Sequence) or isinstance(values, str):
        raise TypeError(f"{name}: expected names or whole numbers, one an image, got {describe(values)}")
    for value in values:
        if not isinstance(value, str | int):
            raise TypeError(f"{name}: expected names or whole numbers, got {describe(value)}")
    return np.asarray([str(value) for value in values], dtype=np.str_)
