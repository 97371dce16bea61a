"""What the operations of a step say of their first argument: it is predicted from it, a loss is taken of it, ...

Tables by operation of aten. Inference mode shows losses and layers as they were called, any other mode the parts that
they are made of, so both are in the tables.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor

from torch_bgdebias.probe.passes.answers import cut_at

__all__ = [
    "BEGINNINGS",
    "BY_HAND",
    "COMPARISONS",
    "LAYERS",
    "LOSSES",
    "ORDERS",
    "PICKING",
    "PRODUCTS",
    "TIMES",
    "Operation",
]

_aten = torch.ops.aten
#: the arguments of an operation by the names in its schema, those left at their defaults excepted
_Arguments: TypeAlias = dict[str, Any]

#: losses of torch that take labels
LOSSES = frozenset(
    {
        *(_aten.cross_entropy_loss, _aten.nll_loss_nd, _aten.nll_loss, _aten.nll_loss_forward),
        *(_aten.binary_cross_entropy_with_logits, _aten.binary_cross_entropy),
    }
)
ORDERS = frozenset({_aten.sort, _aten.argsort})
#: predictions -> whether they put the largest first; of distances it is the smallest
_PREDICTIONS: dict[Any, Callable[[_Arguments], bool]] = {
    **dict.fromkeys((_aten.argmax, _aten.max), lambda arguments: True),
    **dict.fromkeys((_aten.argmin, _aten.min), lambda arguments: False),
    **dict.fromkeys(ORDERS, lambda arguments: arguments.get("descending", False)),
    _aten.topk: lambda arguments: arguments.get("largest", True),
}
#: operations that say yes or no -> from which value on, ``None`` where they do not: rounding to decimals is for
#: printing, and ``p >= 0``, ``p <= 1`` ask whether values are probabilities
_THRESHOLDS: dict[Any, Callable[[_Arguments], float | Tensor | None]] = {
    **dict.fromkeys((_aten.gt, _aten.lt), lambda arguments: arguments["other"]),
    _aten.ge: lambda arguments: _unless(arguments["other"], 0),
    _aten.le: lambda arguments: _unless(arguments["other"], 1),
    _aten.round: lambda arguments: None if arguments.get("decimals") else 0.5,
    **dict.fromkeys((_aten.sign, _aten.sgn), lambda arguments: 0.0),
}
#: what the user's own losses and metrics begin with
BEGINNINGS = frozenset(
    {
        *(_aten.softmax, _aten._softmax, _aten.log_softmax, _aten._log_softmax, _aten.sigmoid, _aten.tanh),
        *(_aten.log_sigmoid, _aten.log_sigmoid_forward, _aten.logsumexp),
        *(_aten.mse_loss, _aten.l1_loss, _aten.smooth_l1_loss, _aten.huber_loss, _aten.soft_margin_loss),
        *(_aten.multi_margin_loss, _aten.multilabel_margin_loss, _aten.multilabel_margin_loss_forward),
        *(_aten.gt, _aten.ge, _aten.lt, _aten.le),
    }
)
#: what a sigmoid, a softmax or a loss that is written by hand has in it
BY_HAND = frozenset({_aten.exp, _aten.log})
#: the layer of the classes
PRODUCTS = frozenset(
    {
        *(_aten.linear, _aten.addmm, _aten.mm, _aten.matmul, _aten.bmm, _aten.mv, _aten.einsum),
        *(_aten.cdist, _aten._cdist_forward, _aten._euclidean_dist),
    }
)
#: layers, whose weights are no labels
LAYERS = PRODUCTS | {_aten.native_batch_norm, _aten.cudnn_batch_norm, _aten.batch_norm, _aten.native_layer_norm}
COMPARISONS = frozenset({_aten.eq, _aten.ne})
TIMES = frozenset({_aten.mul, _aten.mul_})
#: what takes or overwrites some elements of a tensor
PICKING = frozenset({_aten.index, _aten.masked_select, _aten.index_put, _aten.index_put_, _aten.masked_fill})


class Operation:
    """One operation of a step, as a dispatch mode is given it.

    Attributes:
        kind: without its overload, such as ``torch.ops.aten.eq``.
        args: by position.
        inputs: the tensors among all arguments, in their order; lists of tensors are taken apart.
    """

    def __init__(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.kind, self.args, self._func, self._kwargs = func.overloadpacket, args, func, kwargs
        self.inputs = _tensors_in((*args, *kwargs.values()))

    def scores(self, values: Tensor) -> Tensor | None:
        """The first argument, ``values``, where a loss or a prediction of each image is taken of it, else ``None``.

        Turned round where the smallest is predicted.
        """
        if self.kind in LOSSES:
            return values
        if self.kind not in _PREDICTIONS:
            return None
        arguments = self._by_name()
        dim = arguments.get("dim", -1 if self.kind in ORDERS or self.kind is _aten.topk else None)
        if values.ndim != 2 or values.shape[1] == 1 or dim not in (1, -1):  # of the images, or of all numbers
            return None
        return values if _PREDICTIONS[self.kind](arguments) else -values

    def cut(self, values: Tensor) -> Tensor | None:
        """The first argument, ``values``, as `cut_at` gives it, where it is compared with one threshold."""
        threshold = _THRESHOLDS[self.kind](self._by_name()) if self.kind in _THRESHOLDS else None
        if threshold is None or (isinstance(threshold, Tensor) and threshold.numel() != 1):
            return None
        return cut_at(values, threshold, below=self.kind in (_aten.lt, _aten.le))

    def overwritten(self, size: int) -> Tensor | None:
        """A copy of the whole numbers, ``size`` of them, that it works on in place; ``None`` where it does not."""
        if not self._func._schema.is_mutable or not self.inputs:
            return None
        value = self.inputs[0]
        are_classes = (
            value.numel() == size
            and value.ndim in (1, 2)
            and not value.is_floating_point()
            and value.dtype != torch.bool
        )
        return value.detach().clone() if are_classes and value.layout == torch.strided else None

    def takes_end(self, classes: int) -> bool:
        """Whether it takes the ends of orders (B, K) of so many classes, or turns them round."""
        arguments = self._by_name()
        if self.kind is _aten.flip:
            return any(dim in (1, -1) for dim in arguments["dims"])
        if self.kind not in (_aten.select, _aten.slice) or arguments.get("dim", 0) in (0, -2):
            return False
        if self.kind is _aten.select:
            return arguments["index"] in (-1, classes - 1)
        start, end = arguments.get("start") or 0, arguments.get("end")
        return start < 0 or (start > 0 and (end is None or end >= classes))

    def _by_name(self) -> _Arguments:
        names = (argument.name for argument in self._func._schema.arguments)
        return {**dict(zip(names, self.args, strict=False)), **self._kwargs}


def _tensors_in(values: Sequence[Any]) -> list[Tensor]:
    flattened = (x for value in values for x in (value if isinstance(value, list | tuple) else [value]))
    return [value for value in flattened if isinstance(value, Tensor)]


def _unless(threshold: float | Tensor, bound: int) -> float | Tensor | None:
    return None if not isinstance(threshold, Tensor) and threshold == bound else threshold
