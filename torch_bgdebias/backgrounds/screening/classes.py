"""Resolves classes given by index, name or WordNet id to a classifier's outputs."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence

from torch_bgdebias.checks import describe

__all__ = ["ClassNames"]

_WORDNET = re.compile(r"n\d{8}")


class ClassNames:
    """Names and WordNet ids of a classifier's outputs.

    Args:
        num_classes: K.
        names: of the outputs; ``None`` takes timm's list of the ImageNet subset with K classes, where there is one.

    Raises:
        ValueError: another number of names.
    """

    def __init__(self, num_classes: int, names: Sequence[str] | None = None) -> None:
        self.num_classes = num_classes
        self.synsets: list[str] = []
        if names is None:
            self.names, self.synsets = _imagenet(num_classes)
        else:
            self.names = [str(name) for name in names]
            if len(self.names) != num_classes:
                raise ValueError(f"class_names: expected {num_classes}, one an output, got {len(self.names)}")
        self._places: dict[str, list[int]] = {}
        for position, name in enumerate(self.names):
            spelled = {_plain(name), *(map(_plain, name.split(",")) if self.synsets else ())}
            for word in spelled:
                self._places.setdefault(word, []).append(position)

    def __getitem__(self, index: int) -> str:
        """The (first) name of an output; its number where there are no names."""
        if not self.names:
            return str(index)
        return self.names[index].split(",")[0] if self.synsets else self.names[index]

    def find(self, entries: Sequence[int | str], *, name: str = "forbidden") -> list[int]:
        """The outputs that ``entries`` mean, without repetition, in their order.

        Raises:
            KeyError: an index outside [0, K), an unknown name or id, a name of several classes.
            TypeError: something else than whole numbers and texts.
        """
        if isinstance(entries, (str, bytes)):
            raise TypeError(f"{name}: expected a list of classes, got the text {entries!r}; pass [{entries!r}]")
        return list(dict.fromkeys(self._find_one(entry, name) for entry in entries))

    def _find_one(self, entry: int | str, name: str) -> int:
        if isinstance(entry, int) and not isinstance(entry, bool):
            if not 0 <= entry < self.num_classes:
                raise KeyError(f"{name}: expected a class in [0, {self.num_classes - 1}], got {entry}")
            return entry
        if not isinstance(entry, str):
            raise TypeError(f"{name}: expected an index, name or WordNet id, got {describe(entry)}")
        if _WORDNET.fullmatch(entry) and self.synsets:
            if entry not in self.synsets:
                raise KeyError(f"{name}: WordNet id {entry} is none of the classifier's {self.num_classes} classes")
            return self.synsets.index(entry)
        if not self.names:
            unknown = f"the names of the {self.num_classes} outputs are not known: pass class_names"
            raise KeyError(f"{name}: got {entry!r}, but {unknown}")
        positions = self._places.get(_plain(entry), [])
        if len(positions) == 1:
            return positions[0]
        if positions:
            ids = ", ".join(f"{self.synsets[i] if self.synsets else i} ({self.names[i]})" for i in positions)
            raise KeyError(f"{name}: {entry!r} is the name of {len(positions)} classes, name one of: {ids}")
        close_matches = difflib.get_close_matches(_plain(entry), self._places, n=5, cutoff=0.6)
        close_matches += [word for word in self._places if _plain(entry) in word.split() and word not in close_matches][
            : 8 - len(close_matches)
        ]
        hint = f"; near names: {', '.join(close_matches)}" if close_matches else ""
        raise KeyError(f"{name}: no class is called {entry!r}{hint}")


def _imagenet(num_classes: int) -> tuple[list[str], list[str]]:
    from timm.data import ImageNetInfo, infer_imagenet_subset

    subset = infer_imagenet_subset({"num_classes": num_classes})
    if subset is None:
        return [], []
    info = ImageNetInfo(subset)
    return list(info.label_descriptions()), list(info.label_names())


def _plain(name: str) -> str:
    return " ".join(name.lower().replace("_", " ").split())
