"""Records which outputs and which labels the user's own step computes its losses and predictions from.

A dispatch mode sees all operations of the step, and keeps some rows of what a loss, a prediction or a threshold is
taken of. Whether that is what the network's forward returns is decided elsewhere, by the values: a step that averages
views, draws dropout masks, asks a teacher or goes on from features to logits judges something else. Labels are noted
where an operation is given them beside answers (outputs, or what was computed from them).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter
from torch.utils._python_dispatch import TorchDispatchMode, _get_current_dispatch_mode
from torch.utils._pytree import tree_leaves

from torch_bgdebias.probe.passes import operations
from torch_bgdebias.probe.passes.answers import Answers, Judged, Role
from torch_bgdebias.probe.passes.label_agreement import Agreement, MetLabels
from torch_bgdebias.probe.passes.operations import Operation
from torch_bgdebias.probe.passes.origins import Margin, Origins

__all__ = ["ROWS", "Judgements"]

#: so many images of a batch are compared
ROWS = 8
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
        self._judged: list[Judged] = []
        self._origins, self._labels = Origins(size), MetLabels(size, sets=sets)
        self._orders: dict[int, tuple[Tensor, Judged]] = {}  # what sorting returned, by its id, and of which output
        self._depth, self._left = 0, False  # networks that run, one within the other; whether it was left for them

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if self._depth or not self._outside():
            return func(*args, **kwargs)
        operation = Operation(func, args, kwargs)
        inputs = operation.inputs
        has_answer = any(self._origins.of(value).answer for value in inputs)
        judged = None
        if inputs and (has_answer or not self._origins.knows(inputs[0])):
            judged = self._note(operation)
        earlier = operation.overwritten(self._size)
        margin = Margin() if has_answer and operation.kind in operations.TIMES else None
        mixed = has_answer and operation.kind not in operations.LAYERS and self._meet_labels(operation, margin)
        result = func(*args, **kwargs)
        self._origins.follow(operation, result, mixed=mixed, margin=margin)
        if operation.kind in operations.PRODUCTS and has_answer:
            self._replace_last([result])
        elif operation.kind in operations.ORDERS and judged is not None:
            self._orders |= {id(x): (x, judged) for x in (result if isinstance(result, tuple) else [result])}
        elif inputs and id(inputs[0]) in self._orders:
            self._take_from_order(operation, result)
        elif inputs and not has_answer:
            self._note_change(result, earlier)
        return result

    @property
    def answers(self) -> Answers:
        """What was judged so far."""
        return Answers(tuple(self._judged))

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
        """The step has returned this, which a hook may judge."""
        for value in tree_leaves(output):
            if self._is_output(value):
                self._keep(value, "last")

    def agree(self, label: Tensor) -> Agreement | None:
        """Whether the step judges by these labels, (B,) or sets (B, L); ``None`` where answers met none."""
        return self._labels.agree(label)

    def met(self, label: Tensor) -> bool:
        """Whether answers met something that is labels for sure. Waits for the device."""
        agreement = self.agree(label) if len(label) else None
        return agreement is not None and bool(agreement.seen)

    def _note(self, operation: Operation) -> Judged | None:
        """Keep an operation's first argument where it is judged, or may be; returns what is judged for sure."""
        first = operation.args[0] if operation.args else None
        if not isinstance(first, Tensor) or not self._is_output(first):
            return None
        values = first.detach()
        if (scores := operation.scores(values)) is not None:
            return self._keep(scores, "output")
        if self._origins.of(first).mixed:
            return None
        if (cut := operation.cut(values)) is not None:
            self._keep(cut, "cut")
        if operation.kind in operations.BEGINNINGS:
            self._replace_last(operation.args[:2])
        elif operation.kind in operations.BY_HAND:
            self._add_part(values)
            if operation.kind is torch.ops.aten.exp and (values.ndim == 1 or values.shape[1] == 1):
                self._add_part(-values)  # 1 / (1 + exp(-z))
        return None

    def _keep(self, values: Tensor, role: Role) -> Judged:
        self._judged.append(Judged(values.detach()[self._rows].clone(), role))
        return self._judged[-1]

    def _add_part(self, values: Tensor) -> None:
        if sum(judged.role == "part" for judged in self._judged) < _PARTS:
            self._keep(values, "part")

    def _replace_last(self, values: Sequence[object]) -> None:
        """These come after the last ones so far, where they are outputs in which no labels had a part."""
        last = [value for value in values if isinstance(value, Tensor) and self._may_be_answer(value)]
        if last:
            self._judged = [judged for judged in self._judged if judged.role != "last"]
        for value in last:
            self._keep(value, "last")

    def _take_from_order(self, operation: Operation, result: Any) -> None:
        """Turn the scores round where the end of each image's order (B, K) is taken, and not its beginning."""
        order, judged = self._orders[id(operation.inputs[0])]
        if operation.takes_end(order.shape[-1]):
            judged.values = -judged.values
            self._orders = {id(result): (result, judged)} if operation.kind is torch.ops.aten.flip else {}

    def _meet_labels(self, operation: Operation, margin: Margin | None) -> bool:
        """Whether labels are in an operation beside answers."""
        answers = [value for value in operation.inputs if value.ndim <= 2 and self._origins.of(value).answer]
        labels = [
            value
            for value in operation.inputs
            if not (self._origins.of(value).answer or isinstance(value, Parameter)) and self._labels.could_be(value)
        ]
        if not answers or not labels:
            return False
        columns = answers[0].shape[1] if answers[0].ndim == 2 else 1
        for value in labels:
            classes = self._classes_behind(operation, value, answers[0])
            if margin is not None and value.dtype != torch.bool:
                margin.factor = value
            picks = operation.kind in operations.PICKING and classes.dtype == torch.bool
            self._labels.meet(
                classes,
                self._origins.of(classes),
                columns=columns,
                picks_images=picks and classes.numel() == self._size,
                of_loss=operation.kind in operations.LOSSES,
                margin=margin,
            )
        for value in answers:
            if self._is_output(value) and not self._origins.of(value).mixed:
                self._add_part(value)
        return True

    def _classes_behind(self, operation: Operation, value: Tensor, answer: Tensor) -> Tensor:
        """The classes that answers are judged by: those asked in a reply such as ``y == 2``, else the value itself.

        A comparison takes the reply itself, ``(p > 0.5) == (y == 1)``, unless the answers were asked the same,
        ``(z.argmax(1) == 2) == (y == 2)``.
        """
        question, question_of_answer = self._origins.of(value).question, self._origins.of(answer).question
        if question is None:
            return value
        comparisons = operations.COMPARISONS
        asked_both = (
            question.test in comparisons and question_of_answer is not None and question.same_as(question_of_answer)
        )
        return question.classes if asked_both or operation.kind not in comparisons else value

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
            self._labels.change(result, earlier)
        elif origin.changes and origin.root is not None and result.numel() == origin.root.numel() == self._size:
            self._labels.change(result, origin.root)

    def _may_be_answer(self, value: Tensor) -> bool:
        """Whether it is an output in which labels had no part, and either a network had or nobody knows."""
        origin = self._origins.of(value)
        return self._is_output(value) and not origin.mixed and (origin.answer or not self._origins.knows(value))

    def _is_output(self, value: object) -> bool:
        return (
            isinstance(value, Tensor)
            and value.is_floating_point()
            and value.layout == torch.strided
            and value.ndim in (1, 2)
            and len(value) == self._size
        )
