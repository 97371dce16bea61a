"""Records which outputs and which labels the user's own step computes its losses and predictions from.

A dispatch mode sees all operations of the step. It keeps some rows of what a loss, an argmax, an order or a threshold
is taken of. Whether that is what the network's forward returns is for others to say, by the values: a step that
averages views, draws dropout masks, asks a teacher or goes on from features to logits judges something else. Labels are
noted where an operation is given them beside answers (outputs, or what was computed from them).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter
from torch.utils._python_dispatch import TorchDispatchMode, _get_current_dispatch_mode
from torch.utils._pytree import tree_leaves

from torch_bgdebias.probe.passes.answers import Answers, cut_at
from torch_bgdebias.probe.passes.label_agreement import Agreement, MetLabels
from torch_bgdebias.probe.passes.origins import Margin, Origins

__all__ = ["ROWS", "Judgements"]

#: so many images of a batch are compared
ROWS = 8

_aten = torch.ops.aten
#: inference mode shows them as they were called, any other the parts that they are made of
_LOSSES = frozenset({_aten.cross_entropy_loss, _aten.nll_loss_nd, _aten.nll_loss, _aten.nll_loss_forward})
_LABEL_LOSSES = frozenset({_aten.binary_cross_entropy_with_logits, _aten.binary_cross_entropy})
#: losses of torch that take labels
_TAKING = _LOSSES | _LABEL_LOSSES
_SORTING = frozenset({_aten.sort, _aten.argsort})
#: predictions that take the smallest: of distances
_SMALLEST = frozenset({_aten.argmin, _aten.min})
_EXTREMES = _SMALLEST | {_aten.argmax, _aten.max}
_PREDICTIONS = _EXTREMES | _SORTING | {_aten.topk}
_JUDGING = _PREDICTIONS | _TAKING
_ABOVE, _BELOW = frozenset({_aten.gt, _aten.ge}), frozenset({_aten.lt, _aten.le})
#: operations with a threshold of their own -> what it is
_THRESHOLDS = {_aten.round: 0.5, _aten.sign: 0.0, _aten.sgn: 0.0}
#: what the user's own losses and metrics begin with
_LEADING = frozenset(
    {
        *(_aten.softmax, _aten._softmax, _aten.log_softmax, _aten._log_softmax, _aten.sigmoid, _aten.tanh),
        *(_aten.log_sigmoid, _aten.log_sigmoid_forward, _aten.logsumexp),
        *(_aten.mse_loss, _aten.l1_loss, _aten.smooth_l1_loss, _aten.huber_loss, _aten.soft_margin_loss),
        *(_aten.multi_margin_loss, _aten.multilabel_margin_loss, _aten.multilabel_margin_loss_forward),
        *(_ABOVE | _BELOW),
    }
)
#: the layer of the classes
_PRODUCTS = frozenset(
    {
        *(_aten.linear, _aten.addmm, _aten.mm, _aten.matmul, _aten.bmm, _aten.mv, _aten.einsum),
        *(_aten.cdist, _aten._cdist_forward, _aten._euclidean_dist),
    }
)
#: what a sigmoid, a softmax or a loss that is written by hand has in it
_BY_HAND = frozenset({_aten.exp, _aten.log})
_COMPARISONS = frozenset({_aten.eq, _aten.ne})
_TIMES = frozenset({_aten.mul, _aten.mul_})
#: what takes or overwrites some elements of a tensor
_PICKING = frozenset({_aten.index, _aten.masked_select, _aten.index_put, _aten.index_put_, _aten.masked_fill})
#: layers, whose weights are no labels
_LAYERS = _PRODUCTS | {_aten.native_batch_norm, _aten.cudnn_batch_norm, _aten.batch_norm, _aten.native_layer_norm}
#: of a loss that is written by hand, so many parts are compared
_PARTS = 8


class Judgements(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes, while it is open, what predictions and losses are taken of and which labels they are compared with.

    Args:
        size: B, images in the batch.
        outside: says whether no network is running just now: its own gates and losses are none of the step's.
        rows: of the batch, whose outputs are kept.
        sets: whether an image has a set of labels.
    """

    def __init__(
        self, size: int, outside: Callable[[], bool], rows: slice = slice(ROWS), *, sets: bool = False
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._size, self._outside, self._rows = size, outside, rows
        self._outputs: list[Tensor] = []
        self._last: list[Tensor] = []
        self._parts: list[Tensor] = []
        self._cuts: list[Tensor] = []
        self._origins, self._labels = Origins(size), MetLabels(size, sets=sets)
        self._orders: dict[int, tuple[Tensor, int]] = {}  # what sorting returned, and of which output
        self._depth, self._left = 0, False  # networks that run, one within the other; whether it was left for them

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if self._depth or not self._outside():
            return func(*args, **kwargs)
        packet, inputs = func.overloadpacket, _tensors_in((*args, *kwargs.values()))
        has_answer = any(self._origins.of(value).answer for value in inputs)
        position = len(self._outputs)
        if inputs and (has_answer or not self._origins.knows(inputs[0])):
            self._note(packet, args, kwargs)
        earlier = _before_overwriting(func, inputs)
        margin = Margin() if has_answer and packet in _TIMES else None
        mixed = has_answer and packet not in _LAYERS and self._meet_labels(packet, inputs, margin)
        result = func(*args, **kwargs)
        self._origins.follow(packet, inputs, args, result, mixed=mixed, margin=margin)
        if packet in _PRODUCTS and has_answer:
            self._set_last([result])
        elif packet in _SORTING and len(self._outputs) > position:
            self._orders |= {id(tensor): (tensor, position) for tensor in _tensors_in([result])}
        elif inputs and id(inputs[0]) in self._orders:
            self._take_from_order(packet, inputs[0], args, result)
        elif inputs and not has_answer:
            self._note_change(result, earlier)
        return result

    @property
    def answers(self) -> Answers:
        """What was judged so far."""
        return Answers(self._outputs, self._last, self._parts, self._cuts)

    def pause(self) -> None:
        """A network starts: until `resume` nothing is noted, and it runs at its usual speed, compiled where it is."""
        self._depth += 1
        if self._depth == 1 and _get_current_dispatch_mode() is self:  # else somebody's own mode is open
            self._left = True
            self.__exit__(None, None, None)  # type: ignore[no-untyped-call]

    def resume(self, output: Any) -> None:
        """The network for which `pause` was called has returned this."""
        self._depth -= 1
        if not self._depth:
            self.answered(output)
            if self._left:
                self._left = False
                self.__enter__()  # type: ignore[no-untyped-call]

    def answered(self, output: Any) -> None:
        """A network has returned this."""
        self._origins.answered(output)

    def returned(self, output: Any) -> None:
        """What the step returned, for others to judge."""
        self._last = [*self._last, *self._rows_of(tree_leaves(output))]

    def agree(self, label: Tensor) -> Agreement | None:
        """Whether the step judges by these labels, (B,) or sets (B, L); ``None`` where answers met none."""
        return self._labels.agree(label)

    def _note(self, packet: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Keep an operation's first argument where it is judged by it, or may be."""
        if not args or not self._is_output(args[0]):
            return
        if packet in _JUDGING:
            self._judge(packet, args, kwargs)
            return
        if self._origins.of(args[0]).mixed:
            return
        values: Tensor = args[0].detach()
        threshold = _threshold_in(packet, args, kwargs)
        if threshold is not None:
            self._cuts.append(cut_at(values, threshold, below=packet in _BELOW)[self._rows])
        if packet in _LEADING:
            self._set_last(args[:2])
        elif packet in _BY_HAND:
            self._add_part(values)
            if packet is _aten.exp and (values.ndim == 1 or values.shape[1] == 1):
                self._add_part(-values)  # 1 / (1 + exp(-z))

    def _judge(self, packet: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        output = args[0].detach()
        place = 2 if packet is _aten.topk else 1
        dim = kwargs.get("dim", args[place] if len(args) > place else None)
        if packet in _PREDICTIONS and not _of_each_image(packet, output, dim):
            return
        largest = packet not in _SMALLEST
        if packet is _aten.topk:
            largest = kwargs.get("largest", args[3] if len(args) > 3 else True)
        elif packet in _SORTING:
            largest = kwargs.get("descending", args[2] if len(args) > 2 else False)
        self._outputs += self._rows_of([output if largest else -output])

    def _take_from_order(self, packet: Any, order: Tensor, args: tuple[Any, ...], result: Any) -> None:
        """Where the end of each image's order (B, K) is taken, and not its beginning, the smallest were the largest."""
        position, classes = self._orders[id(order)][1], order.shape[-1]
        if packet is _aten.select:
            from_end = args[1] not in (0, -2) and args[2] in (-1, classes - 1)
        elif packet is _aten.slice:
            bounds: list[Any] = [*args[1:4], *[0, None, None][len(args) - 1 :]]
            dim, start, end = bounds
            from_end = dim not in (0, -2) and bool(start) and (start < 0 or end is None or end >= classes)
        else:
            from_end = packet is _aten.flip and any(dim in (1, -1) for dim in args[1])
        if not from_end:
            return
        self._outputs[position] = -self._outputs[position]
        self._orders = {id(result): (result, position)} if packet is _aten.flip else {}

    def _meet_labels(self, packet: Any, inputs: Sequence[Tensor], margin: Margin | None) -> bool:
        """Whether labels are in an operation beside answers."""
        answers = [value for value in inputs if value.ndim <= 2 and self._origins.of(value).answer]
        labels = [value for value in inputs if not self._origins.of(value).answer and self._labels.could_be(value)]
        labels = [value for value in labels if not isinstance(value, Parameter)]
        if not answers or not labels:
            return False
        columns = answers[0].shape[1] if answers[0].ndim == 2 else 1
        for value in labels:
            classes = self._classes_behind(packet, value, answers[0])
            masks = packet in _PICKING and classes.dtype == torch.bool and classes.numel() == self._size
            origin = self._origins.of(classes)
            if margin is not None and value.dtype != torch.bool:
                margin.factor = value
            self._labels.meet(
                classes, origin.changes, origin.root, columns=columns, masks=masks, shares=packet in _TAKING,
                margin=margin,
            )  # fmt: skip
        for value in answers:
            if self._is_output(value) and not self._origins.of(value).mixed:
                self._add_part(value)
        return True

    def _classes_behind(self, packet: Any, value: Tensor, answer: Tensor) -> Tensor:
        """What answers are judged by: of a reply such as ``y == 2`` the classes that were asked, else the value itself.

        A comparison takes the reply itself, ``(p > 0.5) == (y == 1)``, unless the answers were asked the same,
        ``(z.argmax(1) == 2) == (y == 2)``.
        """
        question, question_of_answer = self._origins.of(value).question, self._origins.of(answer).question
        if question is None:
            return value
        asked_both = (
            question.test in _COMPARISONS and question_of_answer is not None and question.same_as(question_of_answer)
        )
        return question.classes if asked_both or packet not in _COMPARISONS else value

    def _note_change(self, result: Any, earlier: Tensor | None) -> None:
        """Whole numbers, one an image, that an operation may have made other classes of.

        Args:
            result: what it returned.
            earlier: what it has overwritten, where it works in place.
        """
        if not isinstance(result, Tensor) or result.is_floating_point() or result.dtype == torch.bool:
            return
        origin = self._origins.of(result)
        if earlier is not None:
            if earlier.numel() == self._size:
                self._labels.change(result, earlier)
        elif origin.changes and origin.root is not None and result.numel() == origin.root.numel() == self._size:
            self._labels.change(result, origin.root)

    def _set_last(self, values: Sequence[object]) -> None:
        candidates = [value for value in values if isinstance(value, Tensor) and self._may_be_answer(value)]
        self._last = self._rows_of(candidates) or self._last

    def _add_part(self, value: Tensor) -> None:
        if len(self._parts) < _PARTS:
            self._parts += self._rows_of([value])

    def _may_be_answer(self, value: Tensor) -> bool:
        """Whether labels had no part in it, and either a network had or nobody knows."""
        origin = self._origins.of(value)
        return not origin.mixed and (origin.answer or not self._origins.knows(value))

    def _rows_of(self, values: Sequence[Any]) -> list[Tensor]:
        return [value.detach()[self._rows].clone() for value in values if self._is_output(value)]

    def _is_output(self, value: object) -> bool:
        return (
            isinstance(value, Tensor)
            and value.is_floating_point()
            and value.layout == torch.strided
            and value.ndim in (1, 2)
            and len(value) == self._size
        )


def _before_overwriting(func: Any, inputs: Sequence[Tensor]) -> Tensor | None:
    """Whole numbers, of one dimension or two, that an operation is about to work on in place; ``None``: it does not."""
    if not func._schema.is_mutable or not inputs:
        return None
    value = inputs[0]
    are_classes = value.ndim in (1, 2) and not value.is_floating_point() and value.dtype != torch.bool
    return value.detach().clone() if are_classes and value.layout == torch.strided else None


def _tensors_in(values: Sequence[Any]) -> list[Tensor]:
    """The tensors among an operation's arguments, in their order; lists of tensors are taken apart."""
    flattened = (x for value in values for x in (value if isinstance(value, list | tuple) else [value]))
    return [value for value in flattened if isinstance(value, Tensor)]


def _of_each_image(packet: Any, output: Tensor, dim: object) -> bool:
    """Whether an order or an extreme is taken among each image's classes, and not among the images."""
    if packet in _EXTREMES and not isinstance(dim, int):  # of all numbers, or of two tensors
        return False
    return output.ndim == 2 and output.shape[1] > 1 and dim not in (0, -2)


def _threshold_in(packet: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> float | Tensor | None:
    """From where on an operation says yes; ``None`` where it says neither yes nor no."""
    if packet in _THRESHOLDS:
        return None if kwargs.get("decimals") else _THRESHOLDS[packet]  # z.round(decimals=3) is for printing
    if packet not in _ABOVE | _BELOW or len(args) < 2:
        return None
    threshold: float | Tensor = args[1]
    if isinstance(threshold, Tensor):
        return threshold if threshold.numel() == 1 else None
    asks_for_range = (packet is _aten.ge and threshold == 0) or (packet is _aten.le and threshold == 1)
    return None if asks_for_range else threshold  # whether values are probabilities, which predicts nothing
