"""What the classes are called, as far as a loader's data set says it of the labels that it yields."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from torch import nn
from torch.utils.data import ConcatDataset

from torch_bgdebias.models import original_module

__all__ = [
    "data_sets_within",
    "known_names",
    "names_of_classes",
    "names_of_outputs",
    "names_within",
    "plain_name",
    "require_same_order",
    "told_apart",
]

#: under these names training programs, and models, keep what their outputs are called
_PLACES = (
    *("class_names", "classes", "label_names", "categories", "class_to_idx", "idx_to_class", "class_to_index"),
    *("index_to_class", "label2id", "id2label", "label_to_idx", "idx_to_label"),
)
#: where a model keeps settings of its own: transformers, Lightning, timm
_SETTINGS = ("config", "hparams", "pretrained_cfg")
#: what transformers calls outputs that nobody named
_NUMBERED = re.compile(r"(label|class)[ _-]?\d+|\d+", re.IGNORECASE)


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


def known_names(names: Sequence[str] | None, loader: Any) -> list[str]:
    """Names of the classes before it is known how many the model has; empty where nothing says them."""
    return _of_data(getattr(loader, "dataset", None), None) if names is None else [str(name) for name in names]


def names_within(settings: Mapping[Any, Any], depth: int = 2) -> dict[str, tuple[str, ...]]:
    """Every order of class names that settings hold, by their place in it: lists, name to number, number to name.

    Args:
        settings: hyperparameters, a configuration, what a checkpoint holds.
        depth: how many mappings deep.
    """
    orders = {}
    for key, value in settings.items():
        name = str(key)
        if name in _PLACES and (order := _order_within(value)):
            orders[name] = order
        elif depth > 1 and isinstance(value, Mapping):
            orders.update({f"{name}.{inner}": order for inner, order in names_within(value, depth - 1).items()})
    return orders


def names_of_outputs(model: nn.Module) -> tuple[str, tuple[str, ...]] | None:
    """Where a model says what its outputs are called, and their names; ``None`` where nothing or several things do."""
    inner = original_module(model)
    own = {name: vars(inner)[name] for name in _PLACES if name in vars(inner)}
    orders = names_within(own, 1)
    for name in _SETTINGS:
        settings = getattr(inner, name, None)
        values = settings if isinstance(settings, Mapping) else getattr(settings, "__dict__", {})
        orders.update({f"{name}.{place}": order for place, order in names_within(values).items()})
    return next(iter(orders.items())) if len(set(orders.values())) == 1 else None


def require_same_order(model: nn.Module, names: Sequence[str]) -> None:
    """Compare what a model calls its outputs with the data's classes.

    Args:
        model: which may say it in attributes, hyperparameters or a configuration.
        names: of the data's classes in the order of their labels; empty where they are not known.

    Raises:
        ValueError: they are the same names in another order.
    """
    outputs = names_of_outputs(model)
    if outputs is None or not names:
        return
    place, known = outputs
    first, second = [plain_name(name) for name in known], [plain_name(name) for name in names]
    if first != second and sorted(first) == sorted(second) and len(set(first)) == len(first):
        order = [first.index(name) for name in second]
        raise ValueError(
            f"class_names: the data's classes are {', '.join(names[:5])}, ... in the order of their labels, and the "
            f"model's outputs {', '.join(known[:5])}, ... ({place}), so that right answers would count as wrong: give "
            f"logits=lambda output: output[:, {order if len(order) <= 20 else 'order'}], or, if the model says it "
            "wrong, class_names= of its outputs"
        )


def _order_within(value: Any) -> tuple[str, ...]:
    """Names by their numbers from 0; empty where there are none, or they are numbers themselves."""
    if isinstance(value, Mapping):
        pairs = [(name, number) if isinstance(name, str) and not name.isdecimal() else (number, name)
                 for name, number in value.items()]  # fmt: skip
        numbers = {str(number): name for name, number in pairs}
        value = [numbers.get(str(number)) for number in range(len(pairs))]
    if not isinstance(value, (list, tuple)) or len(value) < 2 or not all(isinstance(name, str) for name in value):
        return ()
    return () if all(_NUMBERED.fullmatch(name) for name in value) else tuple(value)


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
