"""Places in a batch: what is there, and copies of the batch with something else there, or nothing, or one more."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Mapping, MutableMapping
from typing import Any, TypeAlias

__all__ = ["Step", "inserted_at", "removed_at", "replaced_at", "value_at_step"]

#: one step of the way to a place: an index, a key or an attribute
Step: TypeAlias = "int | str"


def value_at_step(value: Any, step: Step) -> Any:
    """What is one step further in. Raises KeyError, IndexError, TypeError or AttributeError where nothing is."""
    return value[step] if isinstance(value, Mapping) or isinstance(step, int) else getattr(value, step)


def replaced_at(batch: Any, steps: tuple[Step, ...], value: Any) -> Any:
    """A copy of the batch with ``value`` at the end of the path."""
    return _changed(batch, steps, lambda _: value)


def removed_at(batch: Any, steps: tuple[Step, ...]) -> Any:
    """A copy of the batch without what is at the end of the path: a shorter tuple or list, a dict without the key."""

    def shorter(holder: Any) -> Any:
        step = steps[-1]
        if isinstance(holder, Mapping):
            new: Any = _copy_of(holder)
            del new[step]
            return new
        if not isinstance(holder, list | tuple):
            return holder  # a further attribute does no harm
        index = step if isinstance(step, int) else holder._fields.index(step)  # type: ignore[union-attr]
        index %= len(holder)
        items = [item for i, item in enumerate(holder) if i != index]
        return items if isinstance(holder, list) else tuple(items)

    return _changed(batch, steps[:-1], shorter)


def inserted_at(batch: Any, steps: tuple[Step, ...], value: Any) -> Any:
    """A copy of the batch with ``value`` where `removed_at` took something out."""

    def longer(holder: Any) -> Any:
        step = steps[-1]
        if isinstance(holder, list | tuple):
            if not isinstance(step, int):
                return holder  # it was a named tuple, which the module has made a plain one
            index = step if step >= 0 else len(holder) + 1 + step
            items = [*holder[:index], value, *holder[index:]]
            return items if isinstance(holder, list) else tuple(items)
        return _replaced(holder, step, value)

    return _changed(batch, steps[:-1], longer)


def _changed(batch: Any, steps: tuple[Step, ...], change: Callable[[Any], Any]) -> Any:
    """A copy of the batch in which ``change`` was applied to what is at the end of the path."""
    if not steps:
        return change(batch)
    return _replaced(batch, steps[0], _changed(value_at_step(batch, steps[0]), steps[1:], change))


def _replaced(batch: Any, key: Step, value: Any) -> Any:
    if isinstance(batch, tuple):
        items = list(batch)
        index = key if isinstance(key, int) else batch._fields.index(key)  # type: ignore[attr-defined]
        items[index] = value
        return type(batch)(*items) if hasattr(batch, "_fields") else type(batch)(items)
    new: Any = _copy_of(batch)
    if isinstance(key, int) or isinstance(batch, Mapping | list):
        new[key] = value  # its own way of setting an item
    elif dataclasses.is_dataclass(new):  # also a frozen one: this copy is not shared
        object.__setattr__(new, key, value)
    else:
        setattr(new, key, value)
    return new


def _copy_of(holder: Any) -> Any:
    """A shallow copy; a mapping that keeps its items in a mapping among its attributes gets one of its own."""
    new = copy.copy(holder)
    if isinstance(holder, Mapping):
        for name, value in getattr(holder, "__dict__", {}).items():
            if isinstance(value, MutableMapping) and vars(new).get(name) is value:
                vars(new)[name] = copy.copy(value)
    return new
