"""Where the tensors of a step come from: from the network, from the batch's labels, or from both.

An *answer* is an output of the network, or what was computed from one. All else is taken for something that may have
been made of labels: how often it was changed is counted, and a question about classes (``y == 2``) remembers them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from torch_bgdebias.probe.passes.operations import Operation

__all__ = ["Origin", "Origins", "Question"]

_aten = torch.ops.aten
#: these leave classes what they are: copies, other shapes, one-hot encoding
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
#: these add a number, or take one away
_SHIFTS = frozenset({_aten.add, _aten.add_, _aten.sub, _aten.sub_})
_SCALINGS = frozenset({_aten.mul, _aten.mul_, _aten.div, _aten.div_})
#: what losses of a margin end in, and which grows with its argument: hinge, logistic, exponential
_GROWING = frozenset(
    {_aten.softplus, _aten.relu, _aten.relu_, _aten.clamp_min, _aten.clamp_min_, _aten.exp, _aten.exp_}
)
#: what is made as large as possible
_LIKELIHOODS = frozenset({_aten.log_sigmoid, _aten.log_sigmoid_forward})


class Question(NamedTuple):
    """What a tensor that says yes or no of each image was asked: ``y == 2``, ``~y``, also ``-y``.

    Attributes:
        classes: what was compared with one value, or negated.
        test: the operation.
        value: what they were compared with, a number or a tensor of one; ``None`` where they were negated.
    """

    classes: Tensor
    test: object
    value: object = None

    def same_as(self, other: Question) -> bool:
        """Whether both ask the same, be it of other classes. Tensors are the same where they are one object."""
        if self.test is not other.test or isinstance(self.value, Tensor) or isinstance(other.value, Tensor):
            return self.test is other.test and self.value is other.value
        return self.value == other.value


@dataclass
class Margin:
    """An answer times labels of -1 and 1, and which way the loss that is made of it goes.

    Attributes:
        factor: (B,) or (B, L), by which the answer was multiplied.
        falls: whether the loss falls where the margin grows; ``None`` where none was met.
    """

    factor: Tensor | None = None
    falls: bool | None = None


@dataclass(frozen=True)
class Origin:
    """Where a tensor comes from.

    Attributes:
        answer: whether the network had a part in it.
        mixed: whether labels had a part in it, too.
        changes: of what is no answer, how many operations on the way to it may have changed classes.
        root: the tensor at the beginning of that way that has the batch's size in its shape.
        question: what was asked of classes, where it is the reply.
        margin: of which it is made by a shift, a scale or a change of sign.
        grows: whether it grows with the margin, or an answer with what the network returned.
    """

    answer: bool = False
    mixed: bool = False
    changes: int = 0
    root: Tensor | None = None
    question: Question | None = None
    margin: Margin | None = None
    grows: bool = True


_ANSWER, _MIXED, _PLAIN = Origin(answer=True), Origin(answer=True, mixed=True), Origin()


class Origins:
    """Follows the operations of one step.

    A tensor is known by being the same object, so those that are noted are held for the time of the step: all of at
    most one dimension, and of two where the batch's size is in the shape. Of three and more dimensions are pictures and
    features, which count as answers.

    Args:
        size: B, images in the batch.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._held: dict[int, tuple[Tensor, Origin]] = {}

    def of(self, value: Tensor) -> Origin:
        """Where a tensor comes from; one that is not known is no answer."""
        if value.ndim > 2:
            return _ANSWER
        return self._held.get(id(value), (value, _PLAIN))[1]

    def knows(self, value: Tensor) -> bool:
        """Whether the tensor was noted, so that it is known where it comes from."""
        return value.ndim > 2 or id(value) in self._held

    def answered(self, output: Any) -> None:
        """Note what a network returned."""
        for value in tree_leaves(output):
            if isinstance(value, Tensor):
                self._note(value, _ANSWER)

    def follow(self, operation: Operation, result: Any, *, mixed: bool, margin: Margin | None = None) -> None:
        """Note where the result of an operation comes from, once it has run.

        Args:
            operation: with its arguments.
            result: what it returned.
            mixed: whether it had labels beside answers.
            margin: what it makes of both, where it multiplies them.
        """
        origins = [self.of(value) for value in operation.inputs]
        if not origins:
            return
        if not any(origin.answer for origin in origins):
            origin = self._without_answers(operation, origins)
        elif mixed and margin is not None and not any(origin.mixed for origin in origins):
            grows = next(origin.grows for origin in origins if origin.answer)
            origin = dataclasses.replace(_MIXED, margin=margin, grows=grows)
        else:
            origin = _MIXED if mixed or any(origin.mixed for origin in origins) else _ANSWER
            origin = _of_one(operation, origins[0], origin) if len(origins) == 1 else origin
        if (question := self._question(operation, result)) is not None:
            origin = dataclasses.replace(origin, question=question)
        for value in result if isinstance(result, list | tuple) else [result]:
            if isinstance(value, Tensor):
                self._note(value, origin)

    def _question(self, operation: Operation, result: Any) -> Question | None:
        kind, first = operation.kind, operation.inputs[0]
        tested = [value for value in operation.inputs if value.ndim] if kind in _TESTS else []
        if len(tested) == 1:  # y == 2, or a tensor of one number on either side
            return Question(tested[0], kind, next((x for x in operation.args[:2] if x is not tested[0]), None))
        question = self.of(first).question
        if kind in _NEGATIONS and (first.dtype == torch.bool or kind is _aten.neg):
            return question or Question(first, kind)
        as_numbers = isinstance(result, Tensor) and first.dtype == torch.bool != result.dtype
        return question if kind in _UNCHANGED and not as_numbers else None

    def _without_answers(self, operation: Operation, origins: Sequence[Origin]) -> Origin:
        roots = [origin.root for origin in origins if origin.root is not None]
        roots += [value for value in operation.inputs if value.ndim and self._size in value.shape]
        changes = max(origin.changes for origin in origins) + (operation.kind not in _UNCHANGED)
        return Origin(changes=changes, root=roots[0] if roots else None)

    def _note(self, value: Tensor, origin: Origin) -> None:
        if value.ndim <= 1 or (value.ndim == 2 and (self._size in value.shape or id(value) in self._held)):
            self._held[id(value)] = (value, origin)


def _of_one(operation: Operation, origin: Origin, otherwise: Origin) -> Origin:
    """What becomes of an answer, or of a margin, in an operation without another tensor.

    Args:
        operation: with its arguments.
        origin: of the tensor.
        otherwise: of what the operation returns where it is no shift, no scale and no change of sign.
    """
    kind, args = operation.kind, operation.args
    hinge = kind is _aten.clamp and len(args) > 1 and args[1] is not None and args[2:] in ((), (None,))
    if kind in _GROWING or kind in _LIKELIHOODS or hinge:
        if origin.margin is not None and origin.margin.falls is None:
            origin.margin.falls = origin.grows == (kind in _LIKELIHOODS)
        return otherwise
    number = next((x for x in args if isinstance(x, int | float) and not isinstance(x, bool)), None)
    scale = number if kind in _SCALINGS else None
    if kind in (_aten.neg, _aten.neg_, _aten.rsub) or (scale is not None and scale < 0):
        return dataclasses.replace(otherwise, margin=origin.margin, grows=not origin.grows)
    if kind in _UNCHANGED or scale is not None or (kind in _SHIFTS and number is not None):
        return dataclasses.replace(otherwise, margin=origin.margin, grows=origin.grows)
    return otherwise
