"""What the classes are called, as far as a loader's data set says it of the labels that it yields."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from torch.utils.data import ConcatDataset

__all__ = ["data_sets_within", "known_names", "names_of_classes", "plain_name", "told_apart"]


def names_of_classes(given: Sequence[str] | None, loader: Any, count: int) -> list[str]:
    """Names of the model's K classes: those given, those of the data set where it has K, or numbers.

    A data set's ``classes`` are in the order of its own labels: where a ``target_transform`` maps these to others the
    names go with them, and numbers stand where it does more than to change the order, or where parts that are joined
    call their classes differently.

    Raises:
        ValueError: another number of names was given.
    """
    if given is not None:
        if len(given) != count:
            raise ValueError(f"class_names: expected {count} names, one per output of the model, got {len(given)}")
        return told_apart(given)
    return told_apart(_of_data(getattr(loader, "dataset", None), count)) or [str(i) for i in range(count)]


def known_names(given: Sequence[str] | None, loader: Any) -> list[str]:
    """Names of the classes before it is known how many the model has; empty where nothing says them."""
    return _of_data(getattr(loader, "dataset", None), None) if given is None else [str(name) for name in given]


def told_apart(names: Sequence[str]) -> list[str]:
    """The names, those that several classes have with the class's number: ImageNet's ``crane (134)`` and 517."""
    times = Counter(map(str, names))
    return [str(name) if times[str(name)] == 1 else f"{name} ({number})" for number, name in enumerate(names)]


def plain_name(name: str) -> str:
    """A class's name in a normal form, for comparison."""
    return " ".join(name.casefold().replace("_", " ").replace("-", " ").split())


def data_sets_within(loader: Any) -> Iterator[Any]:
    """The loader's data set and the data sets that it wraps, such as the base of a subset."""
    dataset = getattr(loader, "dataset", None)
    while dataset is not None:
        yield dataset
        dataset = getattr(dataset, "dataset", None)


def _of_data(dataset: Any, count: int | None) -> list[str]:
    """K names, or any number, in the order of the labels that come out of a data set; empty where it does not say."""
    if dataset is None:
        return []
    if isinstance(dataset, ConcatDataset):
        parts = [_of_data(part, count) for part in dataset.datasets]
        return parts[0] if all(part == parts[0] for part in parts) else []
    names = getattr(dataset, "classes", None)
    if names is None:
        names = _of_data(getattr(dataset, "dataset", None), count)
    if not isinstance(names, (list, tuple)) or (count is not None and len(names) != count):
        return []
    transform = getattr(dataset, "target_transform", None)
    return [str(name) for name in names] if transform is None else _mapped(names, transform)


def _mapped(names: Sequence[Any], transform: Callable[[int], Any]) -> list[str]:
    """The names in the order of the labels that a transform makes of 0, 1, ...; empty where it is not an order."""
    try:
        places = [int(transform(label)) for label in range(len(names))]
    except Exception:  # of the user's own code, which may expect other labels; the names are all that is lost
        return []
    if sorted(places) != list(range(len(names))):
        return []
    return [str(names[places.index(label)]) for label in range(len(names))]
