"""The labels that a step's answers meet: in a loss, in hits, in whatever somebody wrote by hand."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["Agreement", "Agreements", "MetLabels"]

#: more changed labels than these are not looked at
_CHANGED = 8


class Agreement(NamedTuple):
    """Bool scalars on the labels' device, which has not been waited for.

    Attributes:
        seen: labels were met that could be told.
        other: they are others than those of the batch.
        changed: none could be told, but the step made other labels of the batch's.
    """

    seen: Tensor
    other: Tensor
    changed: Tensor


class Agreements:
    """What many steps say of their labels; asking waits for the device, adding does not."""

    def __init__(self) -> None:
        self._flags: Tensor | None = None
        self._never_met = self._elsewhere = False

    def add(self, agreement: Agreement | None, *, predicted: bool = False) -> None:
        """One step more.

        Args:
            agreement: ``None`` where answers met no labels in it.
            predicted: whether predictions were made in it, which somebody will compare with labels.
        """
        if agreement is None:
            self._never_met = True
            self._elsewhere |= predicted
            return
        unseen = ~agreement.seen
        flags = torch.stack([unseen, agreement.other, agreement.changed, unseen & predicted])
        self._flags = flags if self._flags is None else self._flags | flags

    @property
    def unseen(self) -> str:
        """Whether in some steps no labels could be told, ``"unseen"``, for predictions even, ``"elsewhere"``."""
        if self._elsewhere or self._any(3):
            return "elsewhere"
        return "unseen" if self._never_met or self._any(0) else ""

    @property
    def other(self) -> bool:
        """In some they are others than those of the batch."""
        return self._any(1)

    @property
    def changed(self) -> bool:
        """In some others were made of those of the batch, and what became of them was not seen."""
        return self._any(2)

    def _any(self, number: int) -> bool:
        return self._flags is not None and bool(self._flags[number])


class _Met(NamedTuple):
    classes: Tensor
    sure: Tensor


class MetLabels:
    """Classes, or shares of them, that answers were compared with.

    A step may make more of its labels than it judges by (``1 - y`` beside ``y``). So of what was made of one tensor
    that counts which was changed least: of ``y2 * log(p) + (1 - y2) * log(1 - p)`` it is ``y2``.

    Args:
        size: B, images in the batch.
        sets: whether an image has a set of labels (B, L).
    """

    def __init__(self, size: int, *, sets: bool = False) -> None:
        self._size, self._sets = size, sets
        self._met: dict[int, dict[int, list[_Met]]] = {}  # by what they were made of, and how often they were changed
        self._ids: dict[int, Tensor] = {}
        self._changed: list[tuple[Tensor, Tensor]] = []

    def could_be(self, value: Tensor) -> bool:
        """Whether its shape is that of labels."""
        size = self._size
        if value.ndim == 2 and value.shape[1] > 1 and len(value) == size:
            return True
        return value.ndim in (1, 2) and size in value.shape and (value.numel() == size or 0 in value.stride())

    def meet(
        self,
        value: Tensor,
        changes: int,
        root: Tensor | None = None,
        *,
        columns: int,
        masks: bool = False,
        shares: bool = False,
    ) -> None:
        """Answers and this are in one operation.

        Args:
            value: of which `could_be` is true.
            changes, root: as of `Origin`.
            columns: numbers an image of the answers.
            masks: it says which images are taken: equal to the labels it counts, unequal it may be anything.
            shares: it is given to a loss, as labels.
        """
        if id(value) not in self._ids:
            self._ids[id(value)] = value
            met = self._read(value.detach(), columns, shares=shares)
            of_root = self._met.setdefault(id(value if root is None else root), {})
            of_root.setdefault(changes, []).append(met._replace(sure=met.sure & (not masks)))

    def change(self, value: Tensor, root: Tensor) -> None:
        """Classes were made of others."""
        if len(self._changed) < _CHANGED:
            self._changed.append((value, root))

    def agree(self, label: Tensor) -> Agreement | None:
        """Whether answers met these labels (B,) or (B, L); ``None`` where they met nothing and none were changed."""
        if not self._met and not self._changed:
            return None
        seen = same = other = changed = torch.zeros((), dtype=torch.bool, device=label.device)
        for of_root in self._met.values():
            is_decided = torch.zeros_like(seen)
            for changes in sorted(of_root):
                equal = torch.stack([_equal(label, met.classes) for met in of_root[changes]]).any()
                is_sure = torch.stack([met.sure.to(label.device) for met in of_root[changes]]).any()
                same, other = same | (~is_decided & equal), other | (~is_decided & is_sure & ~equal)
                is_decided = is_decided | is_sure | equal
            seen = seen | is_decided
        for value, root in self._changed:
            ours = self._read(root, 0).classes
            changed = changed | (_equal(label, ours) & ~_equal(label, self._read(value, 0).classes))
        return Agreement(seen, other & ~same, changed & ~seen)

    def _read(self, value: Tensor, columns: int, *, shares: bool = False) -> _Met:
        """One class an image (B,), or label sets (B, L), and whether they can be nothing else."""
        if value.ndim == 2 and value.numel() > self._size and 0 in value.stride():
            vector = value[0] if value.stride(0) == 0 else value[:, 0]  # the same for all columns or rows
            value = vector if len(vector) == self._size else value
        if value.numel() > self._size:
            return self._read_table(value, columns, shares=shares)
        value = value.reshape(-1).to(torch.float64 if value.dtype == torch.float64 else torch.float32)
        low, high = value.amin(), value.amax()
        value = torch.where((low < 0) & (high <= 0), -value, value)  # -y
        are_classes = ((value == value.round()) & (value >= 0)).all()
        are_two_levels = ((value == value.amin()) | (value == value.amax())).all() & (low < high)
        classes = torch.where(are_classes, value, (value > 0.5).to(value.dtype)).long()
        return _Met(classes, are_two_levels | (are_classes & ((classes != classes[0]).any() | (classes.amax() > 1))))

    def _read_table(self, value: Tensor, columns: int, *, shares: bool) -> _Met:
        high, low = value.amax(), value.amin()
        are_two_levels = ((value == high) | (value == low)).all() & (low < high)
        if self._sets:
            return _Met((value > 0.5).long(), are_two_levels | shares)
        if value.shape[1] != columns and columns:
            are_two_levels = torch.zeros_like(are_two_levels)
        one_hot = are_two_levels & ((value == high).sum(1) == 1).all()
        return _Met(value.to(torch.uint8 if value.dtype == torch.bool else value.dtype).argmax(1), one_hot | shares)


def _equal(label: Tensor, classes: Tensor) -> Tensor:
    """Whether they are the labels, or a multiple, as a table of hits counts them."""
    classes = classes.to(label.device)
    if classes.shape != label.shape:
        return torch.zeros((), dtype=torch.bool, device=label.device)
    times = classes.amax() // label.amax().clamp_min(1)
    return (classes == label).all() | ((times > 1) & (classes == times * label).all())
