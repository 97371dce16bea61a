"""Which outputs and labels the user's own step computes its losses and predictions from.

Whether that is what the network's forward returns is seen by the values: a step that averages views, draws dropout
masks, asks a teacher or goes on from features to logits judges others.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode, _get_current_dispatch_mode
from torch.utils._pytree import tree_leaves

from torch_bgdebias.probe.passes.outputs import are_probabilities, undo_sigmoid

__all__ = ["ROWS", "Judgements", "answers_in", "same_answers"]

#: so many images of a batch are compared
ROWS = 8
#: probabilities below this have lost their logit to rounding
_LEAST = 1e-6

_aten = torch.ops.aten
_LARGEST = frozenset({_aten.argmax, _aten.max, _aten.topk, _aten.sort})
#: of distances
_SMALLEST = frozenset({_aten.argmin, _aten.min})
#: under inference mode as they were called, else as the parts that they are made of
_LOSSES = frozenset({_aten.cross_entropy_loss, _aten.nll_loss_nd, _aten.nll_loss, _aten.nll_loss_forward})
_COMPARISONS = frozenset({_aten.eq, _aten.ne})
_LABEL_LOSSES = frozenset({_aten.binary_cross_entropy_with_logits, _aten.binary_cross_entropy})
_JUDGING = _LARGEST | _SMALLEST | _LOSSES | _LABEL_LOSSES
#: what the user's own losses and metrics begin with
_LEADING = frozenset(
    {
        *(_aten.softmax, _aten._softmax, _aten.log_softmax, _aten._log_softmax, _aten.sigmoid),
        *(_aten.log_sigmoid, _aten.log_sigmoid_forward, _aten.gt, _aten.ge, _aten.lt, _aten.le),
        *(_aten.mse_loss, _aten.l1_loss, _aten.smooth_l1_loss, _aten.huber_loss, _aten.soft_margin_loss),
        *(_aten.multi_margin_loss, _aten.multilabel_margin_loss, _aten.multilabel_margin_loss_forward),
    }
)
#: the layer of the classes
_PRODUCTS = frozenset(
    {
        *(_aten.linear, _aten.addmm, _aten.mm, _aten.matmul, _aten.bmm, _aten.mv, _aten.einsum),
        *(_aten.cdist, _aten._cdist_forward, _aten._euclidean_dist),
    }
)
#: scores (B, K) that the user's own losses take of a softmax, and what leaves them scores
_SCORES = frozenset({_aten.softmax, _aten._softmax, _aten.log_softmax, _aten._log_softmax})
_STILL_SCORES = frozenset({_aten.neg, _aten.log, _aten.exp, _aten.pow, _aten.rsub, _aten.clamp, _aten.clamp_min})
#: how such losses meet their labels: by places in the scores, or written as 0 and 1
_PLACES = frozenset({_aten.gather, _aten.index})
_WRITTEN = frozenset({_aten.mul, _aten.sub})
_DISTANCES = frozenset({_aten.mse_loss, _aten.l1_loss, _aten.smooth_l1_loss, _aten.huber_loss})
_PICKING = _PLACES | _WRITTEN | _DISTANCES | {_aten.multi_margin_loss}
_NOTED = _JUDGING | _LEADING | _PRODUCTS | _COMPARISONS | _PICKING | _STILL_SCORES


class Judgements(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes what predictions and losses are taken of.

    Args:
        size: B, images in the batch.
        outside: whether no network is running just now: its own gates and losses are none of the step's.
        rows: of the batch, whose outputs are kept.

    Attributes:
        outputs: what was judged, (rows, K) or (rows,); labels that are written as 0 and 1 may be among them.
        last: what was computed last that the user's own losses and metrics are taken of, in the same form.
    """

    def __init__(self, size: int, outside: Callable[[], bool], rows: slice = slice(ROWS)) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._size, self._outside, self._rows = size, outside, rows
        self.outputs: list[Tensor] = []
        self.last: list[Tensor] = []
        self._winners: list[tuple[Tensor, Tensor]] = []
        self._scores: list[Tensor] = []
        self._targets: list[Tensor] = []
        self._picked: list[tuple[Tensor, Tensor]] = []
        self._pairs: list[tuple[Tensor, Tensor]] = []
        self._depth, self._left = 0, False

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        packet, kwargs = func.overloadpacket, kwargs or {}
        if packet not in _NOTED or self._depth or not self._outside():
            return func(*args, **kwargs)
        if packet in _JUDGING and self._is_output(args[0]):
            self._judge(packet, args, kwargs)
        elif packet in _COMPARISONS and all(map(self._is_classes, args)):
            one, two = (value.detach().flatten().clone() for value in args)
            self._pairs.append((one, two))
        elif packet in _LEADING:
            self._lead(args[:2])
        if packet in _PICKING:
            self._pick(packet, args)
        result = func(*args, **kwargs)
        if packet in _PRODUCTS:
            self._lead([result])
        elif packet in _SCORES or (packet in _STILL_SCORES and self._is_score(args[0])):
            self._scores.append(result)
        return result

    def pause(self) -> None:
        """A network starts: it runs as if nobody noted anything, compiled where it is, at no cost."""
        self._depth += 1
        if self._depth == 1 and _get_current_dispatch_mode() is self:  # else somebody's own mode is open
            self._left = True
            self.__exit__(None, None, None)  # type: ignore[no-untyped-call]

    def resume(self) -> None:
        """It has returned."""
        self._depth -= 1
        if not self._depth and self._left:
            self._left = False
            self.__enter__()  # type: ignore[no-untyped-call]

    def returned(self, output: Any) -> None:
        """What the step returned, for others to judge."""
        self.last = [*self.last, *self._parts(tree_leaves(output))]

    def agree(self, label: Tensor) -> Tensor | None:
        """Whether a loss or hits were taken with these labels (B,), a bool scalar; ``None`` where none were seen.

        It is on the labels' device, which has not been waited for.
        """
        seen = [_equal(label, target) for target in self._targets]
        if not seen and not self._pairs and self._picked:
            return self._agree_picked(label)
        for one, two in self._pairs:
            first, second = (self._predicted(classes) for classes in (one, two))
            both = first & second  # all right
            seen += [_equal(label, one) & (~first | both), _equal(label, two) & (~second | both)]
        return torch.stack([flag.to(label.device) for flag in seen]).any() if seen else None

    def _judge(self, packet: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        output = args[0].detach()
        largest = kwargs.get("largest", args[3] if len(args) > 3 else True) if packet is _aten.topk else True
        if packet in _SMALLEST or not largest:
            output = -output
        self.outputs += self._parts([output])
        if output.ndim == 2 and output.shape[1] > 1:
            self._winners.append((output.argmax(1), ~_zeros_and_ones(output).all()))
        if packet in _LOSSES | _LABEL_LOSSES and len(args[1]) == self._size:
            self._targets.append(_classes_of(args[1].detach()))

    def _pick(self, packet: Any, args: tuple[Any, ...]) -> None:
        """Notes the labels of a loss of somebody's own, where it is one."""
        scores, label = args[0], args[1]
        if packet in _PLACES:
            places = [args[2]] if packet is _aten.gather else args[1]
            label = next((place for place in reversed(places) if self._is_classes(place)), None)
        elif packet in _WRITTEN and not self._is_score(scores):
            scores, label = label, scores
        if packet in _PLACES | _WRITTEN and not self._is_score(scores):
            return
        if self._is_classes(label):
            self._picked.append((_classes_of(label), torch.ones((), dtype=torch.bool, device=label.device)))
        elif isinstance(label, Tensor) and label.shape == scores.shape and label.ndim == 2 and label.shape[1] > 1:
            self._picked.append((_classes_of(label.detach()), _two_levels(label.detach())))

    def _is_score(self, value: object) -> bool:
        return any(value is score for score in self._scores)

    def _agree_picked(self, label: Tensor) -> Tensor:
        """As `agree`; what was no label, such as predictions or another network's probabilities, is passed over."""
        flags = [
            (_equal(label, classes).to(label.device), (sure & ~self._predicted(classes)).to(label.device))
            for classes, sure in self._picked
        ]
        equal, sure = (torch.stack(several) for several in zip(*flags, strict=True))
        return (equal & sure).any() | ~sure.any()

    def _lead(self, values: Sequence[object]) -> None:
        self.last = self._parts(values) or self.last

    def _parts(self, values: Sequence[Any]) -> list[Tensor]:
        return [value.detach()[self._rows].clone() for value in values if self._is_output(value)]

    def _predicted(self, classes: Tensor) -> Tensor:
        hits = [_equal(classes, winners) & prediction for winners, prediction in self._winners]
        return torch.stack(hits).any() if hits else torch.zeros((), dtype=torch.bool, device=classes.device)

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
        )


def answers_in(outputs: Sequence[Tensor]) -> list[Tensor]:
    """Those that are no labels written as 0 and 1. Waits for the device."""
    return [one for one in outputs if one.ndim == 1 or one.shape[1] == 1 or not bool(_zeros_and_ones(one).all())]


def _classes_of(target: Tensor) -> Tensor:
    """One class an image (B,) of a loss's targets: classes, shares of classes (B, K), or one share (B,), (B, 1)."""
    if target.ndim == 2 and target.shape[1] > 1:
        return target.argmax(1)
    return target.reshape(-1).clone() if not target.is_floating_point() else (target.reshape(-1) > 0.5).long()


def _equal(one: Tensor, two: Tensor) -> Tensor:
    return (one == two.to(one)).all()


def _two_levels(target: Tensor) -> Tensor:
    """Whether targets (B, K) are classes written as 0 and 1, smoothed or not: one value for hits, one for others."""
    high, low = target.amax(), target.amin()
    return ((target == high) | (target == low)).all() & ((target == high).sum(1) == 1).all()


def _zeros_and_ones(value: Tensor) -> Tensor:
    return (value == 0) | (value == 1)


def same_answers(one: Tensor, two: Tensor, *, task: str, slack: float = 1) -> bool:
    """Whether two outputs (B, K) say the same, but for a temperature, a softmax or a sigmoid.

    Args:
        one, two: logits or probabilities.
        task: ``"multiclass"``, where a row's logits may differ by a constant, ``"binary"`` or ``"multilabel"``.
        slack: times the usual tolerance.
    """
    low = any(x.dtype in (torch.float16, torch.bfloat16) for x in (one, two))
    tolerance = slack * (5e-2 if low else 5e-3)
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
