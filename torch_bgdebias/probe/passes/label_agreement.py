"""Whether a step judges by the labels of its batch, or by others.

Labels *meet* answers (the network's outputs, and what is computed from them) where one operation is given both: a loss,
a comparison that counts hits, whatever somebody wrote by hand. There they are read, in whatever form they are: classes,
one-hot rows, 0 and 1, -1 and 1, smoothed.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from torch_bgdebias.probe.passes.origins import Margin, Origin

__all__ = ["Agreement", "Agreements", "MetLabels"]

#: of labels that the step has changed, so many are looked at
_CHANGED = 8


class Agreement(NamedTuple):
    """What one step says of its labels: bool scalars on their device, which has not been waited for.

    Attributes:
        seen: whether answers met what equals the labels, or can only be labels.
        other: whether these are others than those of the batch.
        changed: whether nothing was seen, while the step did make other labels of the batch's.
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
        """Count one more step in.

        Args:
            agreement: of that step; ``None`` where answers met no labels in it.
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
        """Empty where every step showed labels.

        Else ``"elsewhere"`` where a step that showed none made predictions, which are compared with labels somewhere,
        and ``"unseen"`` where none of those did.
        """
        if self._elsewhere or self._any(3):
            return "elsewhere"
        return "unseen" if self._never_met or self._any(0) else ""

    @property
    def other(self) -> bool:
        """Whether in some steps they are others than those of the batch."""
        return self._any(1)

    @property
    def changed(self) -> bool:
        """Whether some steps made others of those of the batch, and what became of them was not seen."""
        return self._any(2)

    def _any(self, number: int) -> bool:
        return self._flags is not None and bool(self._flags[number])


@dataclass(frozen=True)
class _Reading:
    """A tensor that met answers, read as labels.

    Attributes:
        classes: (B,), or sets (B, L).
        certain: bool scalar, whether it can be nothing else: not group numbers, weights or confidences.
        origin: of the tensor; its root is the tensor itself where nothing else is.
        margin: of the answers and the tensor, where it was multiplied with them.
    """

    classes: Tensor
    certain: Tensor
    origin: Origin
    margin: Margin | None = None

    def as_judged(self) -> Tensor:
        """The classes; of -1 and 1 times an answer those to which the loss of their product drives the answer."""
        factor = None if self.margin is None else self.margin.factor
        if self.margin is None or self.margin.falls is None or factor is None or factor.numel() != self.classes.numel():
            return self.classes
        factor = factor.detach().reshape(self.classes.shape)
        are_signs = (factor.amin() < 0) & (factor.amax() > 0)
        driven_to = factor > 0 if self.margin.falls else factor < 0
        return torch.where(are_signs, driven_to.long(), self.classes)


class MetLabels:
    """What answers met in one step, and what it says of the labels.

    A step may make more of its labels than it judges by: ``1 - y`` beside ``y``. So among tensors that were made of the
    same one, those count that were changed least: in ``y2 * log(p) + (1 - y2) * log(1 - p)`` that is ``y2``.

    Args:
        size: B, images in the batch.
        sets: whether an image has a set of labels (B, L).
    """

    def __init__(self, size: int, *, sets: bool = False) -> None:
        self._size, self._sets = size, sets
        self._met: list[_Reading] = []
        self._held: dict[int, Tensor] = {}  # what was met, by its id: held, so that nothing else takes the id
        self._changed: list[tuple[Tensor, Tensor]] = []

    def could_be(self, value: Tensor) -> bool:
        """Whether a tensor's shape is that of labels: nothing of an empty batch, nothing sparse or complex."""
        size = self._size
        if not value.numel() or value.layout != torch.strided or value.is_complex():
            return False
        if value.ndim == 2 and value.shape[1] > 1 and len(value) == size:
            return True
        return value.ndim in (1, 2) and size in value.shape and (value.numel() == size or 0 in value.stride())

    def meet(
        self,
        value: Tensor,
        origin: Origin,
        *,
        columns: int,
        picks_images: bool = False,
        of_loss: bool = False,
        margin: Margin | None = None,
    ) -> None:
        """Note what is in one operation with answers.

        Args:
            value: of which `could_be` is true.
            origin: of the value.
            columns: how many numbers the answers have for each image.
            picks_images: it is an index. Where it equals the labels it is taken for them, else it may be anything.
            of_loss: a loss of torch is given it as its labels.
            margin: of the answers and it, where the operation multiplies them.
        """
        if id(value) not in self._held or margin is not None:
            self._held[id(value)] = value
            origin = origin if origin.root is not None else dataclasses.replace(origin, root=value)
            classes, is_certain = self._read(value.detach(), columns, of_loss=of_loss)
            self._met.append(_Reading(classes, is_certain & (not picks_images), origin, margin))

    def change(self, value: Tensor, root: Tensor) -> None:
        """Note that whole numbers were made of others by an operation that may have changed classes."""
        if len(self._changed) < _CHANGED:
            self._changed.append((value, root))

    def agree(self, label: Tensor) -> Agreement | None:
        """Whether answers met these labels (B,) or (B, L); ``None`` where they met nothing and none were changed."""
        if not self._met and not self._changed:
            return None
        label = label.long()
        seen = same = other = changed = torch.zeros((), dtype=torch.bool, device=label.device)
        for readings in self._by_root():
            is_decided = torch.zeros_like(seen)
            for _, as_often_changed in itertools.groupby(readings, lambda reading: reading.origin.changes):
                equal = is_certain = torch.zeros_like(seen)
                for reading in as_often_changed:
                    equal = equal | _equal(label, reading.as_judged())
                    is_certain = is_certain | reading.certain.to(label.device)
                same, other = same | (~is_decided & equal), other | (~is_decided & is_certain & ~equal)
                is_decided = is_decided | is_certain | equal
            seen = seen | is_decided
        for value, root in self._changed:
            before, after = self._read(root, 0)[0], self._read(value, 0)[0]
            changed = changed | (_equal(label, before) & ~_equal(label, after))
        return Agreement(seen, other & ~same, changed & ~seen)

    def _by_root(self) -> Iterable[list[_Reading]]:
        """Readings of what was made of the same tensor, the least changed first."""
        groups: dict[int, list[_Reading]] = {}
        for reading in self._met:
            groups.setdefault(id(reading.origin.root), []).append(reading)
        return (sorted(group, key=lambda reading: reading.origin.changes) for group in groups.values())

    def _read(self, value: Tensor, columns: int, *, of_loss: bool = False) -> tuple[Tensor, Tensor]:
        """Classes of a tensor in some form of labels, and whether it must be one; the device is not waited for."""
        if value.ndim == 2 and value.numel() > self._size and 0 in value.stride():
            vector = value[0] if value.stride(0) == 0 else value[:, 0]  # the same for all columns or rows
            value = vector if len(vector) == self._size else value
        if value.numel() > self._size:
            return self._read_table(value, columns, of_loss=of_loss)
        value = value.reshape(-1).to(torch.float64 if value.dtype == torch.float64 else torch.float32)
        low, high = value.amin(), value.amax()
        value = torch.where((low < 0) & (high <= 0), -value, value)  # -y
        are_classes = ((value == value.round()) & (value >= 0) & value.isfinite()).all()
        are_two_levels = ((value == value.amin()) | (value == value.amax())).all() & (low < high)
        classes = torch.where(are_classes, value, (value > 0.5).to(value.dtype)).long()
        several = (classes != classes[0]).any() | (classes.amax() > 1)  # zeros, or ones, may be anything
        return (classes, are_two_levels | (are_classes & several))

    def _read_table(self, value: Tensor, columns: int, *, of_loss: bool) -> tuple[Tensor, Tensor]:
        """A table of as many columns as the answers have: shares of classes, one-hot rows, or sets of labels."""
        high, low = value.amax(), value.amin()
        are_two_levels = ((value == high) | (value == low)).all() & (low < high)
        if self._sets:
            return ((value > 0.5).long(), are_two_levels | of_loss)
        one_hot = are_two_levels & ((value == high).sum(1) == 1).all() & (not columns or value.shape[1] == columns)
        return (value.to(torch.uint8 if value.dtype == torch.bool else value.dtype).argmax(1), one_hot | of_loss)


def _equal(label: Tensor, classes: Tensor) -> Tensor:
    """Whether classes are the labels, or the labels times K, as where hits are counted at ``y * K + prediction``."""
    classes = classes.to(label.device)
    if classes.shape != label.shape:
        return torch.zeros((), dtype=torch.bool, device=label.device)
    times = classes.amax() // label.amax().clamp_min(1)
    return (classes == label).all() | ((times > 1) & (classes == times * label).all())
