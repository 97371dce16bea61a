"""Copies of a batch with something else in a place leave the batch as it is, whatever holds it."""

from __future__ import annotations

from collections import OrderedDict, UserDict, defaultdict
from collections.abc import Iterator, MutableMapping
from typing import Any

import pytest

from torch_bgdebias.batch_places import inserted_at, removed_at, replaced_at, value_at_step


class Dotted(dict):
    """A dict that keeps its items elsewhere, as those with names such as ``data.image`` do."""

    def __init__(self, items=()) -> None:
        super().__init__()
        self._stored = dict(items)

    def __getitem__(self, name):
        return self._stored[name]

    def __setitem__(self, name, value) -> None:
        self._stored[name] = value

    def __delitem__(self, name) -> None:
        del self._stored[name]

    def __contains__(self, name) -> bool:
        return name in self._stored

    def __iter__(self):
        return iter(self._stored)

    def __len__(self) -> int:
        return len(self._stored)

    def keys(self):
        return self._stored.keys()

    def items(self):
        return self._stored.items()


class Wrapped(MutableMapping):
    """A mapping that is no dict."""

    def __init__(self, items: Any = ()) -> None:
        self.inner = dict(items)

    def __getitem__(self, name: str) -> Any:
        return self.inner[name]

    def __setitem__(self, name: str, value: Any) -> None:
        self.inner[name] = value

    def __delitem__(self, name: str) -> None:
        del self.inner[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.inner)

    def __len__(self) -> int:
        return len(self.inner)


ITEMS = {"data.image": 1, "data.label": 2, "data.mask": 3}
KINDS = [dict, OrderedDict, UserDict, Dotted, Wrapped, lambda items: defaultdict(list, items)]


@pytest.mark.parametrize("kind", KINDS)
def test_mappings(kind):
    batch = kind(ITEMS)
    other, shorter = replaced_at(batch, ("data.image",), 7), removed_at(batch, ("data.mask",))
    longer = inserted_at(shorter, ("data.mask",), 4)
    assert type(other) is type(shorter) is type(longer) is type(batch)
    assert dict(batch.items()) == ITEMS
    assert dict(other.items()) == {**ITEMS, "data.image": 7}
    assert dict(shorter.items()) == {"data.image": 1, "data.label": 2}
    assert dict(longer.items()) == {**ITEMS, "data.mask": 4}
    assert value_at_step(other, "data.image") == 7


@pytest.mark.parametrize("kind", [list, tuple])
def test_sequences_in_mappings(kind):
    batch = {"labelled": kind((1, 2, 3)), "rest": 5}
    assert replaced_at(batch, ("labelled", 0), 7) == {"labelled": kind((7, 2, 3)), "rest": 5}
    shorter = removed_at(batch, ("labelled", -1))
    assert shorter == {"labelled": kind((1, 2)), "rest": 5}
    assert inserted_at(shorter, ("labelled", -1), 4) == {"labelled": kind((1, 2, 4)), "rest": 5}
    assert batch == {"labelled": kind((1, 2, 3)), "rest": 5}
