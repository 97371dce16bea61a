"""What somebody's own step judges: what it takes a loss or a prediction of, and the labels that it takes a loss with.

Whether that is what the network's forward returns is seen by the values: a step that averages views, draws dropout
masks, asks a teacher or goes on from features to logits judges others.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from torch_bgdebias.probe.passes.outputs import are_probabilities, undo_sigmoid

__all__ = ["ROWS", "Judgements", "same_answers"]

#: so many images of a batch are compared
ROWS = 8
#: probabilities below this have lost their logit to rounding
_LEAST = 1e-6

_aten = torch.ops.aten
_PREDICTIONS = frozenset({_aten.argmax, _aten.max, _aten.topk, _aten.sort})
#: under inference mode as they were called, else as the parts that they are made of
_LOSSES = frozenset({_aten.cross_entropy_loss, _aten.nll_loss_nd, _aten.nll_loss, _aten.nll_loss_forward})
_COMPARISONS = frozenset({_aten.eq, _aten.ne})
_LABEL_LOSSES = frozenset({_aten.binary_cross_entropy_with_logits, _aten.binary_cross_entropy})


class Judgements(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes what predictions and losses are taken of.

    Args:
        size: B, images in the batch.
        outside: whether no network is running just now: its own gates and losses are none of the step's.

    Attributes:
        outputs: the first rows of what was judged, (B, K) or (B,).
        targets: whole labels (B,) of losses.
        pairs: whole numbers (B,) that were compared with others.
    """

    def __init__(self, size: int, outside: Callable[[], bool]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._size, self._outside = size, outside
        self.outputs: list[Tensor] = []
        self.targets: list[Tensor] = []
        self.pairs: list[tuple[Tensor, Tensor]] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        packet = func.overloadpacket
        if packet in _PREDICTIONS | _LOSSES | _LABEL_LOSSES and self._outside() and self._is_output(args[0]):
            self.outputs.append(args[0][:ROWS].detach().clone())
            if packet in _LOSSES and args[1].shape == (self._size,):
                self.targets.append(args[1].detach().clone())
        elif packet in _COMPARISONS and self._outside() and all(map(self._is_classes, args)):
            one, two = (value.detach().flatten().clone() for value in args)
            self.pairs.append((one, two))
        return func(*args, **(kwargs or {}))

    def labels(self) -> list[Tensor]:
        """Labels (B,) of losses, and what predictions were compared with. Waits for the device."""
        winners = [output.argmax(1) for output in self.outputs if output.ndim == 2]

        def is_prediction(classes: Tensor) -> bool:
            return any(torch.equal(classes[:ROWS], winner.to(classes)) for winner in winners)

        compared: list[Tensor] = []
        for pair in self.pairs:
            others = [one for one in pair if not is_prediction(one)]
            compared += others or list(pair)  # all right
        return [*self.targets, *compared]

    def _is_classes(self, value: object) -> bool:
        return (
            isinstance(value, Tensor)
            and not value.is_floating_point()
            and value.dtype != torch.bool
            and value.shape in ((self._size,), (self._size, 1))
        )

    def _is_output(self, value: object) -> bool:
        return (
            isinstance(value, Tensor)
            and value.is_floating_point()
            and value.ndim in (1, 2)
            and len(value) == self._size
            and not _is_one_hot(value)
        )


def same_answers(one: Tensor, two: Tensor, *, task: str) -> bool:
    """Whether two outputs (B, K) say the same, but for a temperature, a softmax or a sigmoid.

    Args:
        one, two: logits or probabilities.
        task: ``"multiclass"``, where a row's logits may differ by a constant, ``"binary"`` or ``"multilabel"``.
    """
    low = any(x.dtype in (torch.float16, torch.bfloat16) for x in (one, two))
    tolerance = 5e-2 if low else 5e-3
    rows = min(len(one), len(two))
    one, two = (x[:rows].reshape(rows, -1).double() for x in (one, two))
    if one.shape != two.shape or not bool(one.isfinite().all() & two.isfinite().all()):
        return False
    (one, here), (two, there) = _log_odds(one, task), _log_odds(two, task)
    known = here & there
    if task == "multiclass":
        one, two = _centred(one, known), _centred(two, known)
    one, two = one * known, two * known
    if task == "multiclass" and not bool((known.sum(1) > 1).any()):  # rounded to one class an image
        return torch.equal(here.double().argmax(1), there.double().argmax(1))
    if float(one.abs().max()) < tolerance > float(two.abs().max()):
        return True
    scale = (one * two).sum() / two.square().sum()
    return bool(scale > 0) and bool((one - scale * two).abs().max() <= tolerance * one.abs().max())


def _log_odds(values: Tensor, task: str) -> tuple[Tensor, Tensor]:
    """Values without a softmax or a sigmoid, and where they are known."""
    everywhere = torch.ones_like(values, dtype=torch.bool)
    if task == "multiclass":
        if values.shape[1] > 1 and are_probabilities(values):
            return values.clamp_min(_LEAST).log(), values > _LEAST
        return values, everywhere
    if bool(((values >= 0) & (values <= 1)).all()):
        return undo_sigmoid(values).double(), (values > _LEAST) & (values < 1 - _LEAST)
    return values, everywhere


def _centred(values: Tensor, known: Tensor) -> Tensor:
    return values - (values * known).sum(1, keepdim=True) / known.sum(1, keepdim=True).clamp_min(1)


def _is_one_hot(value: Tensor) -> bool:
    """Labels written as 0 and 1."""
    return value.ndim == 2 and value.shape[1] > 1 and bool(((value == 0) | (value == 1)).all())
