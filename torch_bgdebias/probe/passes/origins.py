"""Where the numbers of a step come from: from the network, from the labels, or from both."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

__all__ = ["Origin", "Origins", "Which"]

_aten = torch.ops.aten
#: these leave classes what they are: copies, shapes, and one-hot writing
_UNCHANGED = frozenset(
    {
        *(_aten._to_copy, _aten.to, _aten.type_as, _aten.clone, _aten.detach, _aten.alias, _aten.lift_fresh),
        *(_aten.contiguous, _aten.view, _aten.view_as, _aten._unsafe_view, _aten.reshape, _aten.flatten, _aten.ravel),
        *(_aten.squeeze, _aten.unsqueeze, _aten.expand, _aten.expand_as, _aten.t, _aten.transpose, _aten.permute),
        *(_aten.one_hot, _aten.scatter, _aten.scatter_, _aten.copy_),
    }
)
_TESTS = frozenset({_aten.eq, _aten.ne, _aten.gt, _aten.ge, _aten.lt, _aten.le})
_NEGATIONS = frozenset({_aten.logical_not, _aten.bitwise_not, _aten.neg})


class Which(NamedTuple):
    """What a tensor says of classes that it was made of.

    Attributes:
        classes: that were compared with one value, or negated.
        test: the operation, and the value where it has one.
    """

    classes: Tensor
    test: tuple[object, object]


@dataclass(frozen=True)
class Origin:
    """Where a tensor comes from.

    Attributes:
        answer: the network had a part in it.
        mixed: and so had labels.
        changes: operations that may have changed classes, where no network had a part in it.
        root: what it was made of.
        which: where it says something of classes that it was made of.
    """

    answer: bool = False
    mixed: bool = False
    changes: int = 0
    root: Tensor | None = None
    which: Which | None = None


_ANSWER, _MIXED, _PLAIN = Origin(answer=True), Origin(answer=True, mixed=True), Origin()


class Origins:
    """Follows the operations of one step.

    Tensors of three and more dimensions are pictures or features. Of those of two it holds the ones whose shape has the
    batch's size in it, and all smaller ones, for the time of the step: a tensor is known by being the same object.

    Args:
        size: B, images in the batch.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._known: dict[int, tuple[Tensor, Origin]] = {}

    def of(self, value: Tensor) -> Origin:
        """Where it comes from; what is not known is no answer."""
        if value.ndim > 2:
            return _ANSWER
        return self._known.get(id(value), (value, _PLAIN))[1]

    def knows(self, value: Tensor) -> bool:
        """Whether it was made while somebody looked."""
        return value.ndim > 2 or id(value) in self._known

    def answered(self, output: Any) -> None:
        """What a network returned."""
        for value in tree_leaves(output):
            if isinstance(value, Tensor):
                self._note(value, _ANSWER)

    def follow(self, packet: Any, inputs: Sequence[Tensor], args: Sequence[Any], result: Any, *, mixed: bool) -> None:
        """After an operation.

        Args:
            packet: which.
            inputs: its tensors.
            args: what it was called with.
            result: what came out.
            mixed: whether answers met labels in it.
        """
        origins = [self.of(value) for value in inputs]
        if any(origin.answer for origin in origins):
            origin = _MIXED if mixed or any(origin.mixed for origin in origins) else _ANSWER
        elif not origins:
            return
        else:
            origin = self._of_labels(packet, inputs, origins)
        which = self._which(packet, inputs, args, result)
        origin = dataclasses.replace(origin, which=which) if which is not None else origin
        for value in result if isinstance(result, list | tuple) else [result]:
            if isinstance(value, Tensor):
                self._note(value, origin)

    def _which(self, packet: Any, inputs: Sequence[Tensor], args: Sequence[Any], result: Any) -> Which | None:
        first = inputs[0]
        if packet in _TESTS and all(value.ndim == 0 for value in inputs[1:]):
            value = args[1] if len(args) > 1 else None
            return Which(first, (packet, id(value) if isinstance(value, Tensor) else value))
        which = self.of(first).which
        if packet in _NEGATIONS and (first.dtype == torch.bool or packet is _aten.neg):
            return which or Which(first, (packet, None))
        as_numbers = isinstance(result, Tensor) and first.dtype == torch.bool != result.dtype
        return which if packet in _UNCHANGED and not as_numbers else None

    def _of_labels(self, packet: Any, inputs: Sequence[Tensor], origins: Sequence[Origin]) -> Origin:
        roots = [origin.root for origin in origins if origin.root is not None]
        roots += [value for value in inputs if value.ndim and self._size in value.shape]
        changes = max(origin.changes for origin in origins) + (packet not in _UNCHANGED)
        return Origin(changes=changes, root=roots[0] if roots else None)

    def _note(self, value: Tensor, origin: Origin) -> None:
        if value.ndim <= 1 or (value.ndim == 2 and (self._size in value.shape or id(value) in self._known)):
            self._known[id(value)] = (value, origin)
