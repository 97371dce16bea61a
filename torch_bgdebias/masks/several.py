"""Masks with several labels in a picture: one object in parts, or a class's own object beside others."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from torch_bgdebias.masks.contents import MaskContents
from torch_bgdebias.masks.encodings import Label

__all__ = ["labels_within", "not_numbered", "own_labels", "shared_labels"]

#: a label counts from this share of a picture on, and from so many pixels
_LEAST_SHARE, _LEAST = 0.0005, 2
#: more colours than this are shades
_COLOURS = 64
#: share of a class's masks that hold a label of its own, at least, and of the others' that do, at most
_OWN, _ELSEWHERE = 0.9, 0.5
#: how many of a class's masks must have been seen
_ENOUGH = 2


def labels_within(mask: MaskContents, void: Sequence[Label], *, traces: bool = False) -> frozenset[Label]:
    """The labels in a mask of label numbers or colours, without 0, black, void and what is there in traces alone.

    Args:
        mask: the mask.
        void: labels that are neither object nor background.
        traces: take the smallest areas, too.
    """
    least = 1 if traces else max(_LEAST, _LEAST_SHARE * mask.size[0] * mask.size[1])
    if mask.values.ndim == 3 or mask.kind == "colours":
        if mask.lossy or len(mask.colours) > _COLOURS:
            return frozenset()
        return frozenset(c for c, n in mask.colours.items() if n >= least and any(c) and c not in void)
    return frozenset(
        int(level) for level, n in mask.levels.items() if n >= least and level != 0 and int(level) not in void
    )


def not_numbered(labels: Sequence[frozenset[Label]]) -> bool:
    """Whether some masks hold several labels and not all are numbered 1, 2, ... as instances are.

    Args:
        labels: of each mask, the smallest ones too: an instance of a few pixels has a number.
    """
    several = any(len(in_mask) > 1 for in_mask in labels)
    return several and not all(in_mask == frozenset(range(1, len(in_mask) + 1)) for in_mask in labels)


def own_labels(by_class: Sequence[Sequence[frozenset[Label]]]) -> list[tuple[Label, ...]]:
    """Of each class the labels that nearly all of its masks have and at most half of the others'; ``()`` for none.

    Args:
        by_class: of each class the labels in its masks.
    """
    counts = [_counted(masks) for masks in by_class]
    total, n_masks = _counted(masks for masks_of_class in by_class for masks in masks_of_class), sum(map(len, by_class))
    owners: list[tuple[Label, ...]] = []
    for masks, inside in zip(by_class, counts, strict=True):
        n_others = n_masks - len(masks)
        own = [
            label
            for label, count in inside.items()
            if len(masks) >= _ENOUGH
            and count >= _OWN * len(masks)
            and n_others
            and total[label] - count <= _ELSEWHERE * n_others
        ]
        owners.append(tuple(sorted(own, key=str)))
    return owners


def shared_labels(by_class: Sequence[Sequence[frozenset[Label]]], own: Sequence[tuple[Label, ...]]) -> frozenset[Label]:
    """Labels that masks hold beside their class's own, and that masks of another class hold too: other objects."""
    classes_with = Counter(label for masks in by_class for label in frozenset().union(*masks))
    return frozenset(
        label
        for masks, labels in zip(by_class, own, strict=True)
        for label in frozenset[Label]().union(*masks)
        if labels and label not in labels and classes_with[label] > 1
    )


def _counted(masks: Iterable[frozenset[Label]]) -> Counter[Label]:
    return Counter(label for labels in masks for label in labels)
